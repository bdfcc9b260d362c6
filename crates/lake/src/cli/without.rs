//! Refusals of options and commands that need the feature `full`, in a build without it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use lake::experiment::report::{MeasureReport, Report};
use lake::world::environment::Environment;

/// Refusal of an option or a command that this build lacks.
const ABSENT: &str = "this build of lake has neither figures nor studies; \
                      install one that has: cargo install --path crates/lake --locked --features full";

/// Arguments of `lake study`.
#[derive(Debug, Args)]
pub(crate) struct StudyArguments {
    /// Arguments of the command in a full build.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _arguments: Vec<OsString>,
}

/// Refuses a folder for figures and a page.
pub(crate) fn folder(_: &str) -> Result<PathBuf, &'static str> {
    Err(ABSENT)
}

/// Refuses to make the figures and the page of a report.
pub(crate) fn report_files(_: &Environment, _: &Report) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    anyhow::bail!(ABSENT)
}

/// Refuses to make figures of measured policies.
pub(crate) fn measure_files(_: &Environment, _: &MeasureReport) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    anyhow::bail!(ABSENT)
}

/// Refuses to print the JSON schema of studies.
pub(crate) fn study_schema() -> anyhow::Result<()> {
    anyhow::bail!(ABSENT)
}

/// Refuses the command `lake study`.
pub(crate) fn study(_: &StudyArguments) -> anyhow::Result<()> {
    anyhow::bail!(ABSENT)
}
