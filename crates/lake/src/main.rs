//! The command line of `lake`.

mod cli;
mod meant;

use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use lake::environment::Environment;
use lake::experiment::Experiment;
use lake::export::Conversations;
use lake::figures::Figure;
use lake::fitted::{self, COLUMNS};
use lake::generate::SPELLING;
use lake::map::{Cell, EMBEDDED, Map};
use lake::policy_file::Sums;
use lake::recipe::Recipe;
use lake::report::Report;
use lake::setting::Setting;
use lake::solver::{Solver, optimal_policy, solve, uniform_policy};
use lake::study::Study;
use lake::study::analysis::analyse;
use lake::study::report::StudyReport;
use lake::study::shard::{Shard, merge, run_shard};
use lake::study::summary::{self, Layout};
use lake::{drawing, figures, page, policy_file, trajectory};
use program::{FolderLock, OutputFolder, Progress, exit_code};
use rayon::{ThreadPool, ThreadPoolBuilder};
use serde::Serialize;
use terminal_size::{Width, terminal_size_of};

use crate::cli::{
    Arguments, Command, ExportArguments, Format, MeasureArguments, PolicyArgument, SolveArguments, StudyArguments,
    TrainArguments,
};

/// Name of the file with a study's results.
const STUDY_FILE: &str = "study.json";

fn main() -> ExitCode {
    let arguments = Arguments::try_parse().unwrap_or_else(|error| meant::explain(error).exit());
    let outcome = match &arguments.command {
        None => train(&arguments.train),
        Some(Command::Solve(arguments)) => solve_lake(arguments),
        Some(Command::Study(arguments)) => study(arguments),
        Some(Command::Measure(arguments)) => measure(arguments),
        Some(Command::Export(arguments)) => export(arguments),
        Some(Command::Maps) => maps(),
        Some(Command::Schema) => print_json(&schemars::schema_for!(Recipe)),
    };
    exit_code(outcome)
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut output = std::io::stdout().lock();
    output.write_all(text.as_bytes())?;
    Ok(output.flush()?)
}

/// Number of columns of the output: `COLUMNS` if it is set, else the terminal's width, else [`COLUMNS`].
fn columns() -> usize {
    let told = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok()).filter(|columns| *columns > 0);
    let seen = || terminal_size_of(std::io::stdout()).map(|(Width(columns), _)| usize::from(columns));
    told.or_else(seen).unwrap_or(COLUMNS)
}

fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut output = BufWriter::new(std::io::stdout().lock());
    // Streams the JSON, as a million cells take much memory; an output error becomes an I/O error again.
    serde_json::to_writer_pretty(&mut output, value).map_err(std::io::Error::from)?;
    output.write_all(b"\n")?;
    Ok(output.flush()?)
}

fn train(arguments: &TrainArguments) -> anyhow::Result<()> {
    let recipe = Recipe::resolve(arguments.recipe.as_deref(), &arguments.overrides())?;
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
        print(&(drawing::page(experiment.environment(), &report, columns()) + &told(written)))
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
        files.extend(drawn(figures::draw_measured(environment, &report)?)?);
        write_all(&folder, &files)
    };
    let written = claimed.map(write).transpose()?;
    match arguments.json {
        true => print_json(&report),
        false => print(&(drawing::measure_page(environment, &report, columns()) + &told(written))),
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
fn told(written: Option<Vec<String>>) -> String {
    written.map_or(String::new(), |written| format!("\nwritten: {}\n", written.join(", ")))
}

fn study(arguments: &StudyArguments) -> anyhow::Result<()> {
    if let Some(folder) = &arguments.redraw {
        let path = folder.join(STUDY_FILE);
        let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
        let mut json = serde_json::Deserializer::from_slice(&bytes);
        let report = serde_path_to_error::deserialize(&mut json).with_context(|| path.display().to_string())?;
        return tell_study(&report, folder, Vec::new(), arguments.json);
    }
    let study = arguments.file.as_deref().map(|file| Study::load(file, arguments.designs)).transpose()?;
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

/// Writes a study's tables and figures, and the given files beside them, and prints the report.
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

/// Thread pool of the requested size, by default one thread per core.
fn pool(threads: Option<u16>) -> anyhow::Result<ThreadPool> {
    Ok(ThreadPoolBuilder::new().num_threads(threads.unwrap_or(0).into()).build()?)
}

/// Makes all contents before the first file appears.
fn write(folder: &OutputFolder, environment: &Environment, report: &Report) -> anyhow::Result<Vec<String>> {
    let mut files = vec![
        ("report.html".to_owned(), page::draw(environment, report)?.into_bytes()),
        ("result.json".to_owned(), (serde_json::to_string_pretty(report)? + "\n").into_bytes()),
        ("recipe.toml".to_owned(), toml::to_string(&report.recipe)?.into_bytes()),
    ];
    files.extend(drawn(figures::draw(environment.map(), report)?)?);
    write_all(folder, &files)
}

/// Figures as contents of files.
fn drawn(figures: Vec<Figure>) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let files = |figure: Figure| {
        let png = figure.png()?;
        Ok([(format!("{}.png", figure.name), png), (format!("{}.svg", figure.name), figure.svg.into_bytes())])
    };
    Ok(figures.into_iter().map(files).collect::<anyhow::Result<Vec<_>>>()?.into_iter().flatten().collect())
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
    let (holes, cells) = (map.cells().iter().filter(|&&cell| cell == Cell::Hole).count(), map.cells().len());
    let holes = if holes == 0 { "no".to_owned() } else { holes.to_string() };
    let relative = Some(solution.relative_error_bound()).filter(|bound| bound.is_finite());
    let relative = relative.map_or(String::new(), |bound| format!(", and V*(s) below 1 to {bound:.1e} of itself"));
    let drawn = drawing::solution(map, &solution, &policy, columns());
    let told = format!(
        "{}: {} x {} cells, {holes} holes, {}, discount {}\n\
         V*(S) = {}; {} sweeps of {}; residual {:e}, so V* is known to {:e}{relative}\n",
        map.name(),
        cells / map.width(),
        map.width(),
        environment.dynamics(),
        recipe.gamma,
        solution.value[map.start()],
        solution.sweeps,
        <&str>::from(solver),
        solution.residual,
        solution.error_bound,
    );
    print(&(drawn + &fitted::text(&told, columns())))
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
