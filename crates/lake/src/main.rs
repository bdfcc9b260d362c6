//! The command line of `lake`.

mod cli;

use std::io::{BufWriter, ErrorKind, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lake::environment::Environment;
use lake::experiment::Experiment;
use lake::generate::SPELLING;
use lake::map::{Cell, EMBEDDED, Map};
use lake::output::OutputFolder;
use lake::recipe::Recipe;
use lake::report::Report;
use lake::solver::{Solver, optimal_policy, solve};
use lake::{drawing, figures, page, trajectory};
use serde::Serialize;

use crate::cli::{Arguments, Command, SolveArguments, TrainArguments};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match &arguments.command {
        None => train(&arguments.train),
        Some(Command::Solve(arguments)) => solve_lake(arguments),
        Some(Command::Maps) => maps(),
        Some(Command::Schema) => print_json(&schemars::schema_for!(Recipe)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// A reader that has seen enough (`lake ... | head`) is no failure.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut output = std::io::stdout().lock();
    output.write_all(text.as_bytes())?;
    Ok(output.flush()?)
}

fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut output = BufWriter::new(std::io::stdout().lock());
    // A million cells are written as they are spelled; an error of the output is one of input and output again.
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
    let folder = arguments.out.as_deref().map(OutputFolder::create).transpose().context("--out")?;

    // Hidden by itself where standard error is no terminal.
    let bar = ProgressBar::with_draw_target(Some(experiment.runs() as u64), ProgressDrawTarget::stderr());
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} runs, {eta} left")?);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(arguments.threads.unwrap_or(0).into()).build()?;
    let report = pool.install(|| experiment.run(|| bar.inc(1)))?;
    bar.finish_and_clear();

    let written = folder.map(|folder| write(&folder, experiment.environment(), &report)).transpose()?;
    if arguments.json {
        print_json(&report)
    } else {
        let written = written.map_or(String::new(), |written| format!("\nwritten: {}\n", written.join(", ")));
        print(&(drawing::page(experiment.environment(), &report) + &written))
    }
}

/// Everything is made before the first file appears.
fn write(folder: &OutputFolder, environment: &Environment, report: &Report) -> anyhow::Result<Vec<String>> {
    let mut files = vec![
        ("report.html".to_owned(), page::draw(environment, report)?.into_bytes()),
        ("result.json".to_owned(), (serde_json::to_string_pretty(report)? + "\n").into_bytes()),
        ("recipe.toml".to_owned(), toml::to_string(&report.recipe)?.into_bytes()),
    ];
    for figure in figures::draw(environment.map(), report)? {
        files.push((format!("{}.png", figure.name), figure.png()?));
        files.push((format!("{}.svg", figure.name), figure.svg.into_bytes()));
    }
    files.iter().map(|(name, bytes)| Ok(folder.write(name, bytes)?.display().to_string())).collect()
}

/// A solved lake, as `lake solve --json` prints it.
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
}

fn solve_lake(arguments: &SolveArguments) -> anyhow::Result<()> {
    let recipe = Recipe::resolve(None, &arguments.overrides())?;
    let environment = Environment::new(Map::load(&recipe.map)?, recipe.dynamics());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(arguments.threads.unwrap_or(0).into()).build()?;
    let (solver, accuracy) = (arguments.solver, arguments.accuracy);
    let solution = pool.install(|| solve(&environment, recipe.gamma, solver, accuracy));
    let policy = optimal_policy(&environment, &solution, recipe.target);
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
        });
    }
    let (holes, cells) = (map.cells().iter().filter(|&&cell| cell == Cell::Hole).count(), map.cells().len());
    let drawn = drawing::solution(map, &solution, &policy);
    print(&format!(
        "{drawn}{}: {} x {} cells, {holes} holes, {}, discount {}\n\
         V*(S) = {}; {} sweeps of {}; residual {:e}, so V* is known to {:e}\n",
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
    ))
}

fn maps() -> anyhow::Result<()> {
    for (name, _) in EMBEDDED {
        let map = Map::load(name)?;
        let words = trajectory::names(&map)
            .into_iter()
            .map(|name| Ok(format!("  {name:<8} {}\n", trajectory::resolve(&map, name)?.word)))
            .collect::<anyhow::Result<String>>()?;
        print(&format!("{name}: {}\n  {}\n{words}\n", map.summary(), map.rows().join("\n  ")))?;
    }
    print(&format!("{SPELLING}: random lakes that can be crossed, from S at the top left to G at the bottom right\n"))
}
