//! The command line of `lake`.

mod cli;

use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser};
use lake::LakeError;
use lake::demonstration::trajectory;
use lake::experiment::Experiment;
use lake::experiment::recipe::{self as recipes, Recipe};
use lake::experiment::report::Report;
use lake::experiment::setting::Setting;
use lake::export::Conversations;
use lake::policy::policy_file;
use lake::policy::policy_file::Sums;
use lake::render::{drawing, fitted};
use lake::solver::{Solver, optimal_policy, solve};
use lake::world::environment::Environment;
use lake::world::generate::SPELLING;
use lake::world::map::{Cell, EMBEDDED, Map};
use lake::world::policy_table::uniform_policy;
use program::terminal::columns;
use program::{FolderLock, OutputFolder, Progress, exit_code, help, manual, terminal};
use rayon::{ThreadPool, ThreadPoolBuilder};
use recipe::document::document;
use recipe::options::Print;
use serde::Serialize;

use crate::cli::{
    Arguments, Command, Content, EXAMPLES, ExportArguments, Format, MORE, MeasureArguments, PolicyArgument,
    SchemaArguments, SolveArguments, TrainArguments,
};
use crate::cli::{full, meant};

fn main() -> ExitCode {
    if std::env::args_os().len() < 2 {
        return exit_code(print(&help::short(Arguments::command(), &EXAMPLES, MORE)));
    }
    let arguments = Arguments::try_parse().unwrap_or_else(|error| meant::explain(error).exit());
    let outcome = match &arguments.command {
        None => train(&arguments.train),
        Some(Command::Solve(arguments)) => solve_lake(arguments),
        Some(Command::Study(arguments)) => full::study(arguments),
        Some(Command::Measure(arguments)) => measure(arguments),
        Some(Command::Export(arguments)) => export(arguments),
        Some(Command::Maps) => maps(),
        Some(Command::Methods { name }) => methods(name.as_deref()),
        Some(Command::Schema(arguments)) => schema(arguments),
        Some(Command::Help { topic }) => explain(topic.as_deref()),
    };
    exit_code(outcome)
}

fn print(text: &str) -> anyhow::Result<()> {
    Ok(terminal::print(text)?)
}

/// Lists the methods, or explains one.
fn methods(name: Option<&str>) -> anyhow::Result<()> {
    let shown = match name {
        Some(name) => manual::page(name, "lake --method NAME", columns()),
        None => manual::list("lake", columns()),
    };
    print(&shown.map_err(LakeError::from)?)
}

/// Explains a command or a method.
fn explain(topic: Option<&str>) -> anyhow::Result<()> {
    match help::long(Arguments::command(), topic) {
        Some(help) => print(&help),
        None => methods(topic).context("help: no command of this name"),
    }
}

fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut output = BufWriter::new(std::io::stdout().lock());
    // Streams the JSON, as a million cells take much memory; an output error becomes an I/O error again.
    serde_json::to_writer_pretty(&mut output, value).map_err(std::io::Error::from)?;
    output.write_all(b"\n")?;
    Ok(output.flush()?)
}

fn schema(arguments: &SchemaArguments) -> anyhow::Result<()> {
    match arguments.content {
        Content::Recipe => print_json(recipes::declaration().schema()),
        Content::Study => full::study_schema(),
        Content::Defaults => print(&document(recipes::declaration())),
    }
}

fn train(arguments: &TrainArguments) -> anyhow::Result<()> {
    if arguments.method.is_empty() && arguments.recipe.is_none() {
        anyhow::bail!("--method: expected --method NAME or --method all, got none; `lake methods` lists the names");
    }
    let recipe = Recipe::resolve(arguments.recipe.as_deref(), &arguments.overrides())?;
    if let Some(fields) = arguments.print {
        return print(&match fields {
            Print::All => toml::to_string(&recipe)?,
            Print::Changes => recipe.changes().to_string(),
        });
    }
    let mut experiment = Experiment::new(recipe)?;
    if arguments.explain {
        experiment = experiment.explained();
    }
    let claimed = arguments.out.as_deref().map(OutputFolder::claim).transpose().context("--out")?;
    let is_out = |path: &Path| {
        let out = claimed.as_ref().and_then(|(out, _)| out.path().canonicalize().ok());
        out.is_some() && out == path.canonicalize().ok()
    };
    let claim = |path: &Path| match is_out(path) {
        true => Ok((OutputFolder::create(path)?, None)),
        false => OutputFolder::claim(path).map(|(folder, lock)| (folder, Some(lock))),
    };
    let policies = arguments.policies.as_deref().map(claim).transpose().context("--policies")?;

    let progress = Progress::new("runs");
    progress.begin(experiment.runs() as u64, 0);
    let pool = pool(arguments.threads)?;
    let report = pool.install(|| experiment.run(|| progress.advance()))?;
    progress.end();

    let out = claimed.as_ref().map(|(folder, _)| write(folder, experiment.environment(), &report));
    let mut written = out.transpose()?;
    if let Some((folder, _lock)) = &policies {
        write_all(folder, &policy_files(experiment.environment().map(), &report)?)?;
        written.get_or_insert_default().push(folder.path().display().to_string());
    }
    if arguments.json {
        print_json(&report)
    } else {
        print(&(drawing::page(experiment.environment(), &report, columns()) + &report_written(written)))
    }
}

/// Table of the policy of every run.
fn policy_files(map: &Map, report: &Report) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let runs = report.results.iter().flat_map(|result| {
        let seeds = result.policy.policies.iter().zip(report.recipe.seed..);
        seeds.map(|(policy, seed)| (format!("{}-{seed}.csv", result.policy.method), policy))
    });
    runs.map(|(name, policy)| Ok((name, policy_file::write(map, policy)?))).collect()
}

fn measure(arguments: &MeasureArguments) -> anyhow::Result<()> {
    let recipe = Recipe::resolve(arguments.recipe.as_deref(), &arguments.overrides())?;
    let setting = Setting::new(&recipe)?;
    let environment = setting.environment();
    let sums = if arguments.normalise { Sums::Normalised } else { Sums::One };
    let mut policies: Vec<(String, Vec<_>)> = Vec::new();
    for PolicyArgument { method, file } in &arguments.policies {
        let policy = policy_file::read_as(environment.map(), file, sums)?;
        match policies.iter_mut().find(|(name, _)| name == method) {
            Some((_, runs)) => runs.push(policy),
            None => policies.push((method.clone(), vec![policy])),
        }
    }
    let claimed = arguments.out.as_deref().map(OutputFolder::claim).transpose().context("--out")?;
    let report = setting.report(&recipe, policies);
    let write = |(folder, _lock): (OutputFolder, FolderLock)| {
        let mut files = vec![("result.json".to_owned(), (serde_json::to_string_pretty(&report)? + "\n").into_bytes())];
        files.extend(full::measure_files(environment, &report)?);
        write_all(&folder, &files)
    };
    let written = claimed.map(write).transpose()?;
    match arguments.json {
        true => print_json(&report),
        false => print(&(drawing::measure_page(environment, &report, columns()) + &report_written(written))),
    }
}

fn export(arguments: &ExportArguments) -> anyhow::Result<()> {
    let recipe = Recipe::resolve(None, &arguments.overrides())?;
    let setting = Setting::new(&recipe)?;
    let environment = setting.environment();
    let uniform = uniform_policy(environment.map());
    let resolve = |name: &str| trajectory::resolve_rewarded(environment, recipe.gamma, name, &uniform);
    let (demonstration, rejected) = (resolve(&recipe.demonstration)?, resolve(&recipe.rejected)?);
    let Format::Lm = arguments.format;
    let Conversations { demonstrations, preferences, evaluation, key } =
        Conversations::new(environment, setting.solution(), &demonstration, &rejected, arguments.state)?;
    let (folder, _lock) = OutputFolder::claim(&arguments.out).context("DIR")?;
    let files = [
        ("demonstrations.jsonl".to_owned(), lines(&demonstrations)?),
        ("preferences.jsonl".to_owned(), lines(&preferences)?),
        ("evaluation.jsonl".to_owned(), lines(&evaluation)?),
        ("lake.json".to_owned(), (serde_json::to_string_pretty(&key)? + "\n").into_bytes()),
    ];
    let written = write_all(&folder, &files)?;
    print(&format!("written: {}\n", written.join(", ")))
}

/// One line of JSON per value.
fn lines(values: &[impl Serialize]) -> anyhow::Result<Vec<u8>> {
    let lines: Vec<_> = values.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
    Ok((lines.join("\n") + "\n").into_bytes())
}

/// Message about the written files, if any.
fn report_written(written: Option<Vec<String>>) -> String {
    written.map_or(String::new(), |written| format!("\nwritten: {}\n", written.join(", ")))
}

/// Thread pool of the requested size, by default one thread per core.
fn pool(threads: Option<u16>) -> anyhow::Result<ThreadPool> {
    Ok(ThreadPoolBuilder::new().num_threads(threads.unwrap_or(0).into()).build()?)
}

/// Writes all files of a result. The contents of all files are made before the first file is written.
fn write(folder: &OutputFolder, environment: &Environment, report: &Report) -> anyhow::Result<Vec<String>> {
    let mut files = vec![
        ("result.json".to_owned(), (serde_json::to_string_pretty(report)? + "\n").into_bytes()),
        ("recipe.toml".to_owned(), toml::to_string(&report.recipe)?.into_bytes()),
    ];
    files.extend(full::report_files(environment, report)?);
    write_all(folder, &files)
}

fn write_all(folder: &OutputFolder, files: &[(String, Vec<u8>)]) -> anyhow::Result<Vec<String>> {
    files.iter().map(|(name, bytes)| Ok(folder.write(name, bytes)?.display().to_string())).collect()
}

/// A solved lake, as the output of `lake solve --json`.
#[derive(Serialize)]
struct SolveReport<'a> {
    map: Vec<String>,
    slippery: bool,
    success_rate: f64,
    reward_schedule: [f64; 3],
    gamma: f64,
    solver: Solver,
    value: &'a [f64],
    action_value: &'a [[f64; 4]],
    transition_matrix: &'a [[f64; 4]],
    residual: f64,
    sweeps: usize,
    error_bound: f64,
    value_error_bound: &'a [f64],
}

fn solve_lake(arguments: &SolveArguments) -> anyhow::Result<()> {
    let recipe = Recipe::resolve(None, &arguments.overrides())?;
    let environment = Environment::new(Map::load(&recipe.map)?, recipe.dynamics());
    let pool = pool(arguments.threads)?;
    let solver = arguments.solver.unwrap_or_else(|| Solver::fastest(environment.map(), recipe.gamma));
    let accuracy = arguments.accuracy;
    let solution = pool.install(|| solve(&environment, recipe.gamma, solver, accuracy));
    let policy = optimal_policy(&environment, &solution, recipe.target)?;
    let map = environment.map();
    if arguments.json {
        return print_json(&SolveReport {
            map: map.rows(),
            slippery: recipe.slippery,
            success_rate: recipe.success_rate,
            reward_schedule: recipe.reward_schedule,
            gamma: recipe.gamma,
            solver,
            value: &solution.value,
            action_value: &solution.action_value,
            transition_matrix: &policy,
            residual: solution.residual,
            sweeps: solution.sweeps,
            error_bound: solution.error_bound,
            value_error_bound: &solution.value_error_bound,
        });
    }
    let holes = map.cells().iter().filter(|&&cell| cell == Cell::Hole).count();
    let holes = if holes == 0 { "no".to_owned() } else { holes.to_string() };
    let relative = Some(solution.relative_error_bound()).filter(|bound| bound.is_finite());
    let relative = relative.map_or(String::new(), |bound| format!(", and V*(s) below 1 to {bound:.1e} of itself"));
    let drawn = drawing::solution(map, &solution, &policy, columns());
    let summary = format!(
        "{}: {} x {} cells, {holes} holes, {}, discount {}\n\
         V*(S) = {}; {} sweeps of {}; residual {:e}, so V* is known to {:e}{relative}\n",
        map.name(),
        map.height(),
        map.width(),
        environment.dynamics(),
        recipe.gamma,
        solution.value[map.start()],
        solution.sweeps,
        <&str>::from(solver),
        solution.residual,
        solution.error_bound,
    );
    print(&(drawn + &fitted::text(&summary, columns())))
}

fn maps() -> anyhow::Result<()> {
    for (name, _) in EMBEDDED {
        let map = Map::load(name)?;
        let words = trajectory::names(&map)
            .into_iter()
            .map(|name| Ok(format!("  {name:<8} {}\n", trajectory::resolve(&map, name)?.word)))
            .collect::<anyhow::Result<String>>()?;
        let summary = fitted::text(&format!("{name}: {}", map.summary()), columns());
        print(&format!("{summary}\n  {}\n{words}\n", map.rows().join("\n  ")))?;
    }
    let random = "random lakes that can be crossed, from S at the top left to G at the bottom right";
    print(&fitted::text(&format!("{SPELLING}: {random}\n"), columns()))
}
