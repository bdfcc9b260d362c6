//! Refusals of options and commands that need the feature `full`, in a build without it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use lake::experiment::report::{MeasureReport, Report};
use lake::world::environment::Environment;

/// Refusal of an option or a command that this build lacks.
const ABSENT: &str = "this build of lake has neither figures nor studies; \
                      install one that has: cargo install --path crates/lake --locked --features full";

/// `lake study`.
#[derive(Debug, Args)]
pub(crate) struct StudyArguments {
    /// Arguments of a full build.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _arguments: Vec<OsString>,
}

/// A folder to write figures and a page into.
pub(crate) fn folder(_: &str) -> Result<PathBuf, &'static str> {
    Err(ABSENT)
}

/// Figures and the page of a report, as files.
pub(crate) fn report_files(_: &Environment, _: &Report) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    anyhow::bail!(ABSENT)
}

/// Figures of measured policies, as files.
pub(crate) fn measure_files(_: &Environment, _: &MeasureReport) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    anyhow::bail!(ABSENT)
}

/// The JSON schema of studies.
pub(crate) fn study_schema() -> anyhow::Result<()> {
    anyhow::bail!(ABSENT)
}

/// `lake study`.
pub(crate) fn study(_: &StudyArguments) -> anyhow::Result<()> {
    anyhow::bail!(ABSENT)
}
