//! The command line of `lm`.

mod cli;

use std::cell::RefCell;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use jiff::civil::date;
use lm::config::read_config;
use lm::data::{Learnt, encode_lines, read_records};
use lm::device::device;
use lm::error::LmError;
use lm::folder::{Text, find};
use lm::model::Transformer;
use lm::plan::{MemoryPlan, parameters};
use lm::policy::LmPolicy;
use lm::recipe::Recipe;
use lm::run::{Event, Row, train};
use lm::score::score;
use program::{OutputFolder, Progress, exit_code};
use serde::Serialize;

use crate::cli::{Arguments, Command, InspectArguments, ScoreArguments, TrainArguments};

fn main() -> ExitCode {
    exit_code(match Arguments::parse().command {
        Command::Train(arguments) => run_recipe(&arguments),
        Command::Score(arguments) => score_file(&arguments),
        Command::Inspect(arguments) => inspect(&arguments),
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
    let config = read_config(&folder)?;
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

/// What `lm inspect --json` prints.
#[derive(Serialize)]
struct Inspection {
    architecture: &'static str,
    parameters: u64,
    layers: usize,
    hidden_size: usize,
    heads: usize,
    kv_heads: usize,
    vocabulary: usize,
    tied_embeddings: bool,
    positions: usize,
    stages: Vec<StageInspection>,
}

#[derive(Serialize)]
struct StageInspection {
    method: &'static str,
    #[serde(flatten)]
    plan: MemoryPlan,
    total: u64,
    fits: Vec<&'static str>,
}

fn inspect(arguments: &InspectArguments) -> anyhow::Result<()> {
    let recipe = arguments.recipe.as_deref().map(|file| Recipe::resolve(file, &arguments.assignments)).transpose()?;
    let model = match (&arguments.model, &recipe) {
        (Some(model), _) => model,
        (None, Some(recipe)) => &recipe.model,
        (None, None) => anyhow::bail!("expected --model or --recipe"),
    };
    let config = read_config(&find(model)?)?;
    let stages = recipe.iter().flat_map(|recipe| {
        recipe.stage.iter().map(|stage| {
            let plan = MemoryPlan::new(&config, recipe.dtype, stage);
            StageInspection { method: stage.method.method().name, plan, total: plan.total(), fits: plan.fits() }
        })
    });
    let inspection = Inspection {
        architecture: config.architecture.into(),
        parameters: parameters(&config),
        layers: config.layers,
        hidden_size: config.hidden_size,
        heads: config.heads,
        kv_heads: config.kv_heads,
        vocabulary: config.vocabulary,
        tied_embeddings: config.tied_embeddings,
        positions: config.positions,
        stages: stages.collect(),
    };
    if arguments.json {
        return print(&(serde_json::to_string_pretty(&inspection)? + "\n"));
    }
    print(&table(&inspection))
}

/// The inspection as text.
fn table(inspection: &Inspection) -> String {
    let Inspection { architecture, parameters, layers, hidden_size, heads, kv_heads, vocabulary, .. } = inspection;
    let mut text = format!(
        "{architecture}: {parameters} parameters, {layers} layers of {hidden_size}, {heads} heads ({kv_heads} of keys), {vocabulary} \
         tokens{}, {} positions\n",
        if inspection.tied_embeddings { ", tied" } else { "" },
        inspection.positions
    );
    if inspection.stages.is_empty() {
        return text;
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "stage",
        "weights",
        "gradients",
        "moments",
        "masters",
        "reference",
        "activations",
        "head",
        "total (GiB)",
    ]);
    for StageInspection { method, plan, .. } in &inspection.stages {
        let MemoryPlan { weights, gradients, moments, masters, reference, activations, head } = plan;
        let parts = [weights, gradients, moments, masters, reference, activations, head, &plan.total()];
        let cells = parts.map(|bytes| format!("{:.2}", *bytes as f64 / (1_u64 << 30) as f64));
        table.add_row([(*method).to_owned()].into_iter().chain(cells));
    }
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    text += &format!("\n{}\n\n", table.trim_fmt());
    for StageInspection { method, fits, .. } in &inspection.stages {
        let fits = if fits.is_empty() { "none of the GPUs that are listed".to_owned() } else { fits.join("; ") };
        text += &format!("{method} fits: {fits}\n");
    }
    text
}
