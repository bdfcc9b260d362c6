//! Options and commands of a full build: figures, the page, and studies.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use lake::experiment::report::{MeasureReport, Report};
use lake::render::figures::{self, Figure};
use lake::render::page;
use lake::study::Study;
use lake::study::analysis::analyse;
use lake::study::report::StudyReport;
use lake::study::shard::{Shard, merge, run_shard};
use lake::study::summary::{self, Layout};
use lake::world::environment::Environment;
use program::{OutputFolder, Progress};

use crate::{columns, pool, print, print_json, write_all};

/// Name of the file with a study's results.
const STUDY_FILE: &str = "study.json";

/// Arguments of `lake study [OPTIONS]`.
#[derive(Debug, Args)]
pub(crate) struct StudyArguments {
    /// TOML file with the space of designs and the claims, such as experiments/reproduction.toml.
    #[arg(value_name = "FILE", required_unless_present_any = ["merge", "redraw"])]
    pub(crate) file: Option<PathBuf>,

    /// Folder of the results. Repeat the command to continue after an interruption.
    #[arg(long, value_name = "DIR", required_unless_present_any = ["merge", "redraw", "design"], help_heading = "Output")]
    pub(crate) out: Option<PathBuf>,

    /// Run only one part of the designs, to divide a study between machines: `3/100` is the third of 100 parts.
    #[arg(long, value_name = "NUMBER/OF", conflicts_with_all = ["merge", "design"], help_heading = "Designs")]
    pub(crate) shard: Option<Shard>,

    /// Merge the shards in this folder, and write tables and figures beside them. The claims are those of the file or,
    /// without a file, those that the shards were made for.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["out", "design"], help_heading = "Output")]
    pub(crate) merge: Option<PathBuf>,

    /// Write the tables and figures of this folder's study.json again, without training.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["file", "merge", "shard", "out", "design", "designs"])]
    #[arg(help_heading = "Output")]
    pub(crate) redraw: Option<PathBuf>,

    /// Sample this many designs instead of the file's number. Design i is the same whatever their number.
    #[arg(long, value_name = "COUNT", allow_negative_numbers = true, help_heading = "Designs")]
    pub(crate) designs: Option<usize>,

    /// Replace a field of the study: `designs=100`, `recipe.steps=20`. Repeatable.
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "redraw", help_heading = "Designs")]
    pub(crate) set: Vec<String>,

    /// Print the recipe of this design, to be run with `lake --recipe`, and nothing else.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, help_heading = "Designs")]
    pub(crate) design: Option<usize>,

    /// Number of threads, by default one per core. No result depends on it.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Output")]
    #[arg(allow_negative_numbers = true)]
    pub(crate) threads: Option<u16>,

    /// Print the results as JSON.
    #[arg(long, conflicts_with = "design", help_heading = "Output")]
    pub(crate) json: bool,
}

/// Parses the path of a folder for figures and a page.
pub(crate) fn folder(path: &str) -> Result<PathBuf, &'static str> {
    Ok(path.into())
}

/// Figures and the page of a report, as files.
pub(crate) fn report_files(environment: &Environment, report: &Report) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let page = ("report.html".to_owned(), page::draw(environment, report)?.into_bytes());
    let mut files = drawn(figures::draw(environment.map(), report)?)?;
    files.push(page);
    Ok(files)
}

/// Figures of measured policies, as files.
pub(crate) fn measure_files(
    environment: &Environment,
    report: &MeasureReport,
) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    drawn(figures::draw_measured(environment, report)?)
}

/// Converts figures to the names and contents of files.
fn drawn(figures: Vec<Figure>) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let files = |figure: Figure| {
        let png = figure.png()?;
        Ok([(format!("{}.png", figure.name), png), (format!("{}.svg", figure.name), figure.svg.into_bytes())])
    };
    Ok(figures.into_iter().map(files).collect::<anyhow::Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// Prints the JSON schema of studies.
pub(crate) fn study_schema() -> anyhow::Result<()> {
    print_json(lake::study::declaration().schema())
}

/// Runs the command `lake study`.
pub(crate) fn study(arguments: &StudyArguments) -> anyhow::Result<()> {
    if let Some(folder) = &arguments.redraw {
        let path = folder.join(STUDY_FILE);
        let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
        let mut json = serde_json::Deserializer::from_slice(&bytes);
        let report = serde_path_to_error::deserialize(&mut json).with_context(|| path.display().to_string())?;
        return tell_study(&report, folder, Vec::new(), arguments.json);
    }
    let study =
        arguments.file.as_deref().map(|file| Study::load(file, arguments.designs, &arguments.set)).transpose()?;
    if let (Some(number), Some(study)) = (arguments.design, &study) {
        return print(&toml::to_string(study.design(number)?.experiment.recipe())?);
    }
    let folder = match (&arguments.merge, &arguments.out, &study) {
        (Some(folder), ..) => folder,
        (None, Some(path), Some(study)) => {
            let folder = OutputFolder::create(path).context("--out")?;
            let shard = arguments.shard.unwrap_or(Shard::WHOLE);
            let pool = pool(arguments.threads)?;
            let progress = Progress::new("designs");
            let begun = |all: usize, left: usize| progress.begin(all as u64, (all - left) as u64);
            let file = pool.install(|| run_shard(study, shard, &folder, begun, || progress.advance()))?;
            progress.end();
            if shard != Shard::WHOLE {
                return print(&format!("written: {}\n", file.display()));
            }
            path
        }
        _ => anyhow::bail!("expected a study's file and --out, or --merge"),
    };
    let report = analyse(&merge(folder, study)?);
    let json = (serde_json::to_string_pretty(&report)? + "\n").into_bytes();
    tell_study(&report, folder, vec![(STUDY_FILE.to_owned(), json)], arguments.json)
}

/// Writes a study's tables and figures and the given files into a folder, and prints the report.
fn tell_study(
    report: &StudyReport,
    folder: &Path,
    mut files: Vec<(String, Vec<u8>)>,
    as_json: bool,
) -> anyhow::Result<()> {
    let page = summary::page(report, Layout::Markdown);
    files.push(("study.md".to_owned(), page.into_bytes()));
    files.extend(drawn(summary::figures(report)?)?);
    let written = write_all(&OutputFolder::create(folder)?, &files)?;
    if as_json {
        return print_json(report);
    }
    let page = summary::page(report, Layout::Terminal { columns: columns() });
    print(&format!("{page}\nwritten: {}\n", written.join(", ")))
}
