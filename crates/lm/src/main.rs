//! The command line of `lm`.

mod cli;

use std::cell::RefCell;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use jiff::civil::date;
use lm::data::{Learnt, encode_lines, read_records};
use lm::device::device;
use lm::error::LmError;
use lm::folder::{Text, find};
use lm::model::Transformer;
use lm::policy::LmPolicy;
use lm::recipe::Recipe;
use lm::run::{Event, Row, train};
use lm::score::score;
use program::{OutputFolder, Progress, exit_code};

use crate::cli::{Arguments, Command, ScoreArguments, TrainArguments};

fn main() -> ExitCode {
    exit_code(match Arguments::parse().command {
        Command::Train(arguments) => run_recipe(&arguments),
        Command::Score(arguments) => score_file(&arguments),
        Command::Inspect(_) => Ok(()),
    })
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut output = std::io::stdout().lock();
    output.write_all(text.as_bytes())?;
    Ok(output.flush()?)
}

fn run_recipe(arguments: &TrainArguments) -> anyhow::Result<()> {
    let recipe = Recipe::resolve(&arguments.recipe, &arguments.assignments)?;
    if arguments.print {
        return print(&toml::to_string(&recipe)?);
    }
    let out = arguments.out.as_deref().context("--out: expected a folder, got nothing")?;
    let out = OutputFolder::create(out).context("--out")?;
    let progress = RefCell::new(Progress::new("steps"));
    let written = train(&recipe, &out, &|event| match event {
        Event::Stage { stage, stages, method, steps } => {
            eprintln!("stage {} of {stages}: {method}, {steps} steps", stage + 1);
            progress.replace(Progress::new("steps")).end();
            progress.borrow().begin(steps, 0);
        }
        Event::Reference(micro_batches) => {
            progress.replace(Progress::new("micro-batches of the reference")).end();
            progress.borrow().begin(micro_batches, 0);
        }
        Event::ReferenceDone | Event::Step(_) => progress.borrow().advance(),
        Event::Evaluation(row) => progress.borrow().line(&told(row)),
        Event::StageDone => progress.borrow().end(),
    })?;
    print(&format!("written: {}\n", written.display()))
}

/// An evaluation in a line.
fn told(row: &Row) -> String {
    let metrics = row.metrics.iter().filter_map(|(name, value)| Some(format!("{name} {:.4}", value.as_f64()?)));
    let numbers: Vec<_> = [format!("loss {:.4}", row.loss)].into_iter().chain(metrics).collect();
    format!("step {}, held out: {}", row.step, numbers.join(", "))
}

fn score_file(arguments: &ScoreArguments) -> anyhow::Result<()> {
    let ScoreArguments { model, data, out, max_length, batch_tokens } = arguments;
    let device = device(&model.device)?;
    let folder = find(&model.model)?;
    // A template's date is that of the default recipe: scores do not depend on the day.
    let text = Text::read(&folder, date(2024, 7, 26).at(0, 0, 0, 0))?;
    let lines = read_records(data, Learnt::Every)?;
    let config = lm::config::read_config(&folder)?;
    let lines = encode_lines(data, &lines, &text.encoder(&config), *max_length)?;
    let policy = LmPolicy::frozen(Transformer::read(&folder, model.dtype, device)?);
    let records = lines.iter().map(|line| &line.record);
    let progress = Progress::new("lines");
    progress.begin(lines.len() as u64, 0);
    let scored = |writer: &mut dyn Write, path: &Path| {
        let fail = |source: std::io::Error| LmError::File { path: path.to_owned(), source };
        score(&policy, records.clone(), *batch_tokens, |record| {
            serde_json::to_writer(&mut *writer, &record).map_err(|error| fail(error.into()))?;
            writer.write_all(b"\n").map_err(fail)?;
            progress.advance();
            Ok(())
        })
    };
    match out {
        Some(path) => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let folder = OutputFolder::create(parent).context("--out")?;
            let mut answers = Vec::new();
            scored(&mut answers, path)?;
            let name = path.file_name().and_then(|name| name.to_str()).context("--out: expected a file's name")?;
            folder.write(name, &answers)?;
        }
        None => {
            let mut output = BufWriter::new(std::io::stdout().lock());
            scored(&mut output, "standard output".as_ref())?;
            output.flush()?;
        }
    }
    progress.end();
    Ok(())
}
