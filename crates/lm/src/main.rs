//! The command line of `lm`.

mod cli;
mod signal;

use std::cell::RefCell;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use lm::adapter::{self, Use};
use lm::chat::{Message, Role};
use lm::compare::Comparison;
use lm::compare::figure::draw;
use lm::config::{Dtype, read_config};
use lm::data::instruction::{encode_instructions, read_instructions};
use lm::data::prompt::{Prompt, encode_prompts, read_prompts};
use lm::data::{Learnt, encode_lines, read_records};
use lm::device::device;
use lm::error::LmError;
use lm::folder::{Text, find, stored_dtype, write};
use lm::generate::{Continuation, Finish, Settings, generate};
use lm::inspection::Inspection;
use lm::judge::ask::{self, Judge};
use lm::judge::judgement::JUDGEMENT_FILE;
use lm::judge::question::Template;
use lm::judge::{Case, Event as Judging, judge};
use lm::model::Transformer;
use lm::outputs::{Output, Outputs, to_json};
use lm::policy::LmPolicy;
use lm::ranks::Worker;
use lm::recipe::{Recipe, default_now};
use lm::run::{Ended, Event, Row, Run, Start, export};
use lm::score::score;
use lm::serve::{self, Limits, serve};
use lm::tokens::Tokenizer;
use program::{OutputFolder, Progress, exit_code};
use serde::Serialize;
use tch::Device;

use crate::cli::{
    Arguments, Command, CompareArguments, ExportArguments, GenerateArguments, InspectArguments, JudgeArguments,
    MergeArguments, ModelArguments, ScoreArguments, ServeArguments, TrainArguments,
};
use crate::signal::Asked;

fn main() -> ExitCode {
    exit_code(match Arguments::parse().command {
        Command::Train(arguments) => run_recipe(&arguments),
        Command::Score(arguments) => score_file(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Judge(arguments) => ask_judge(&arguments),
        Command::Generate(arguments) => go_on(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Serve(arguments) => answer_requests(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Merge(arguments) => merge(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Export(arguments) => write_checkpoint(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Compare(arguments) => compare(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Inspect(arguments) => inspect(&arguments).map(|()| ExitCode::SUCCESS),
    })
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut output = std::io::stdout().lock();
    output.write_all(text.as_bytes())?;
    Ok(output.flush()?)
}

fn run_recipe(arguments: &TrainArguments) -> anyhow::Result<ExitCode> {
    let recipe = Recipe::resolve(&arguments.recipe, &arguments.assignments)?;
    if arguments.print {
        print(&toml::to_string(&recipe)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let out = arguments.out.as_deref().context("--out: expected a folder, got nothing")?;
    let out = OutputFolder::create(out).context("--out")?;
    let asked = Asked::listen().context("signals")?;
    let start = if arguments.resume { Start::Resumed } else { Start::Anew };
    let progress = RefCell::new(Progress::new("steps"));
    let pace = RefCell::new(Pace::new());
    let worker = Worker::join(&recipe.device)?;
    let stops = || asked.stops();
    let tell = |event: Event<'_>| match event {
        Event::Warning(warning) => progress.borrow().line(&format!("warning: {warning}")),
        Event::Resumed(at) => eprintln!("goes on behind step {} of stage {}", at.step, at.stage + 1),
        Event::Stage { stage, stages, method, steps, done } => {
            eprintln!("stage {} of {stages}: {method}, {steps} steps", stage + 1);
            progress.replace(Progress::new("steps")).end();
            progress.borrow().begin(steps, done);
            pace.replace(Pace::new());
        }
        Event::Reference(micro_batches) => {
            progress.replace(Progress::new("micro-batches of the reference")).end();
            progress.borrow().begin(micro_batches, 0);
        }
        Event::ReferenceDone => progress.borrow().advance(),
        Event::Step { tokens, .. } => {
            progress.borrow().message(&pace.borrow_mut().after(tokens));
            progress.borrow().advance();
        }
        Event::Evaluation(row) => progress.borrow().line(&told(row)),
        Event::StageDone => progress.borrow().end(),
    };
    let run = Run { worker: &worker, recipe: &recipe, out: &out, start, stops: &stops, tell: &tell };
    match run.train()? {
        Ended::Finished(model) => {
            if worker.is_first() {
                print(&format!("written: {}\n", model.display()))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Ended::Stopped(checkpoint) => {
            if worker.is_first() {
                eprintln!("stopped at {}; the same command with --resume goes on from there", checkpoint.display());
            }
            Ok(ExitCode::from(asked.exit_code()))
        }
    }
}

/// Tokens in the time since a stage began.
struct Pace {
    begun: Instant,
    tokens: usize,
}

impl Pace {
    fn new() -> Self {
        Self { begun: Instant::now(), tokens: 0 }
    }

    /// What is told after so many more tokens.
    fn after(&mut self, tokens: usize) -> String {
        self.tokens += tokens;
        let seconds = self.begun.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);
        format!("{:.0} tokens/s", self.tokens as f64 / seconds)
    }
}

/// An evaluation in a line.
fn told(row: &Row) -> String {
    let metrics = row.metrics.iter().filter_map(|(name, value)| Some(format!("{name} {:.4}", value.as_f64()?)));
    let numbers: Vec<_> = [format!("loss {:.4}", row.loss)].into_iter().chain(metrics).collect();
    format!("step {}, held out: {}", row.step, numbers.join(", "))
}

/// A model as `lm score` and `lm generate` load it.
struct Loaded {
    text: Text,
    model: Transformer,
}

impl Loaded {
    fn read(arguments: &ModelArguments) -> anyhow::Result<Self> {
        let device = device(&arguments.device)?;
        let folder = find(&arguments.model)?;
        let text = Text::read(&folder, None, default_now()?)?;
        let mut model = Transformer::read(&folder, arguments.dtype, device)?;
        if let Some(adapter) = &arguments.adapter {
            adapter::apply(&mut model, &find(adapter).context("--adapter")?, Use::Applied)?;
        }
        Ok(Self { text, model })
    }
}

/// Prints lines, or writes them to a file that appears when all are there.
fn answer(out: Option<&Path>, lines: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let Some(path) = out else {
        let mut output = BufWriter::new(std::io::stdout().lock());
        lines(&mut output)?;
        return Ok(output.flush()?);
    };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = OutputFolder::create(parent).context("--out")?;
    let name = path.file_name().and_then(|name| name.to_str()).context("--out: expected a file's name")?;
    let mut answers = Vec::new();
    lines(&mut answers)?;
    folder.write(name, &answers)?;
    Ok(())
}

fn score_file(arguments: &ScoreArguments) -> anyhow::Result<()> {
    let ScoreArguments { model, data, out, max_length, batch_tokens } = arguments;
    let records = read_records(data, Learnt::Every)?;
    let Loaded { text, model } = Loaded::read(model)?;
    let lines = encode_lines(data, &records, &text.encoder(model.config()), *max_length)?;
    let policy = LmPolicy::frozen(model);
    let progress = Progress::new("lines");
    answer(out.as_deref(), |writer| {
        progress.begin(lines.len() as u64, 0);
        score(&policy, lines.iter().map(|line| &line.record), *batch_tokens, |record| {
            write_line(writer, &record)?;
            progress.advance();
            Ok::<_, anyhow::Error>(())
        })?;
        progress.end();
        Ok(())
    })
}

fn write_line(writer: &mut dyn Write, line: &impl Serialize) -> anyhow::Result<()> {
    serde_json::to_writer(&mut *writer, line).map_err(std::io::Error::from)?;
    Ok(writer.write_all(b"\n")?)
}

/// What `lm generate` prints of a prompt.
#[derive(Serialize)]
struct Answer<'a> {
    response_ids: &'a [u32],
    log_prob: &'a [f64],
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    finish: &'static str,
}

fn go_on(arguments: &GenerateArguments) -> anyhow::Result<()> {
    let (format, data) = (arguments.format, arguments.data.as_deref());
    let asked = format.zip(data).map(|(layout, path)| read_instructions(path, layout)).transpose()?;
    let read = data.filter(|_| asked.is_none()).map(read_prompts).transpose()?;
    let Loaded { text, model } = Loaded::read(&arguments.model)?;
    let encoder = text.encoder(model.config());
    let prompts = match (data, read, &asked) {
        (Some(path), _, Some(asked)) => encode_instructions(path, asked, &encoder)?,
        (Some(path), Some(prompts), _) => encode_prompts(path, &prompts, &encoder)?,
        _ => {
            let said = |text: &String| match encoder.template {
                Some(_) => Prompt::Conversation(vec![Message { role: Role::User, content: text.clone() }]),
                None => Prompt::Text(text.clone()),
            };
            arguments.prompt.iter().map(|text| encoder.prompt(&said(text))).collect::<Result<_, _>>()?
        }
    };
    let mut stop = model.config().eos.clone();
    stop.extend(text.tokenizer.as_ref().map(Tokenizer::eos));
    stop.extend(&arguments.stop);
    let GenerateArguments { max_tokens, temperature, top_k, top_p, seed, batch, .. } = *arguments;
    let settings = Settings { max_tokens, temperature, top_k, top_p, seed, stop, batch };
    let continuations = generate(&model, &prompts, &settings)?;
    let decode = |Continuation { response, finish, .. }: &Continuation| {
        let said = match finish {
            Finish::Stop => &response[..response.len() - 1],
            Finish::Length => response,
        };
        text.tokenizer.as_ref().map(|tokenizer| tokenizer.response(said)).transpose()
    };
    answer(arguments.out.as_deref(), |writer| {
        if let Some(asked) = asked {
            let outputs = asked.into_iter().zip(&continuations).map(|(asked, continuation)| {
                let output = decode(continuation)?.unwrap_or_default().trim().to_owned();
                let generator = arguments.generator.clone();
                Ok::<_, LmError>(Output { instruction: asked.text, output, generator, dataset: asked.dataset })
            });
            return Ok(writer.write_all(&to_json(&outputs.collect::<Result<Vec<_>, _>>()?)?)?);
        }
        for continuation in &continuations {
            let text = decode(continuation)?;
            let Continuation { response, log_prob, finish } = continuation;
            write_line(writer, &Answer { response_ids: response, log_prob, text, finish: finish.into() })?;
        }
        Ok(())
    })
}

fn answer_requests(arguments: &ServeArguments) -> anyhow::Result<()> {
    let ServeArguments { model, name, host, port, api_key, .. } = arguments;
    let last = || model.model.trim_end_matches('/').rsplit('/').next().unwrap_or(&model.model).to_owned();
    let settings = serve::Settings {
        address: (*host, *port).into(),
        api_key: api_key.clone(),
        name: name.clone().unwrap_or_else(last),
        host_names: arguments.host_name.clone(),
        limits: Limits {
            batch: arguments.batch,
            queue: arguments.queue,
            cache_tokens: arguments.cache_tokens,
            max_tokens: arguments.max_tokens,
            body_bytes: arguments.body_bytes,
            answer: Duration::from_secs(arguments.answer_seconds),
            request: Duration::from_secs(arguments.request_seconds),
            grace: Duration::from_secs(arguments.grace_seconds),
            connections: arguments.connections,
            connections_per_address: arguments.connections_per_address,
        },
    };
    settings.validate()?;
    let Loaded { text, model } = Loaded::read(model)?;
    let asked = Asked::listen().context("signals")?;
    let ready = |address| eprintln!("answers at http://{address}/v1");
    Ok(serve(model, text, settings, ready, &|| asked.stops())?)
}

fn ask_judge(arguments: &JudgeArguments) -> anyhow::Result<ExitCode> {
    let (a, b) = (Outputs::read(&arguments.a)?, Outputs::read(&arguments.b)?);
    let template = Template::read(arguments.template.as_deref())?;
    let settings = ask::Settings {
        url: arguments.judge.clone(),
        model: arguments.model.clone(),
        temperature: arguments.temperature,
        seed: arguments.seed,
        max_tokens: arguments.max_tokens,
        timeout: Duration::from_secs(arguments.timeout),
        tries: arguments.tries,
        pause: Duration::from_secs(1),
    };
    let key = std::env::var("LM_JUDGE_KEY").ok().filter(|key| !key.is_empty());
    let third = Judge::new(settings, key)?;
    let out = OutputFolder::create(&arguments.out).context("--out")?;
    let asked = Asked::listen().context("signals")?;
    let progress = Progress::new("verdicts");
    let case = Case { a: &a, b: &b, judge: &third, template: &template, concurrency: arguments.concurrency };
    let judgement = judge(case, &out, &|| asked.stops(), &|event| match event {
        Judging::Begins { questions, answered } => progress.begin(questions as u64, answered as u64),
        Judging::Answered => progress.advance(),
        Judging::Waits { problem, pause } => {
            progress.line(&format!("asks again in {:.1} s: {problem}", pause.as_secs_f64()));
        }
    });
    progress.end();
    match judgement? {
        Some(judgement) => {
            print(&format!("{judgement}\nwritten: {}\n", out.path().join(JUDGEMENT_FILE).display()))?;
            Ok(ExitCode::SUCCESS)
        }
        None => {
            eprintln!("stopped; the same command goes on with the verdicts in {}", out.path().display());
            Ok(ExitCode::from(asked.exit_code()))
        }
    }
}

fn merge(arguments: &MergeArguments) -> anyhow::Result<()> {
    let MergeArguments { model, adapter, out, dtype } = arguments;
    let source = find(model)?;
    let dtype = dtype.map_or_else(|| stored_dtype(&source), Ok)?;
    // In 32 bits, so that the sum is rounded once.
    let mut model = Transformer::read(&source, Dtype::Float32, Device::Cpu)?;
    adapter::apply(&mut model, &find(adapter).context("--adapter")?, Use::Applied)?;
    write(out, &source, &model.merged()?.trained(), dtype)?;
    print(&format!("written: {}\n", out.display()))
}

fn write_checkpoint(arguments: &ExportArguments) -> anyhow::Result<()> {
    let ExportArguments { run, checkpoint, out } = arguments;
    let at = export(run, *checkpoint, out)?;
    print(&format!("written: {}, of checkpoint {}\n", out.display(), at.name()))
}

fn compare(arguments: &CompareArguments) -> anyhow::Result<()> {
    let named = |given: &String| match given.split_once('=') {
        Some((name, path)) => (name.to_owned(), PathBuf::from(path)),
        None => {
            let path = PathBuf::from(given);
            let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
            (name.map_or_else(|| given.clone(), |name| name.to_string_lossy().into_owned()), path)
        }
    };
    let comparison = Comparison::read(&arguments.results.iter().map(named).collect::<Vec<_>>())?;
    let json = serde_json::to_string_pretty(&comparison)? + "\n";
    if let Some(out) = &arguments.out {
        let folder = OutputFolder::create(out).context("--out")?;
        folder.write("comparison.md", comparison.to_string().as_bytes())?;
        folder.write("comparison.svg", draw(&comparison)?.as_bytes())?;
        folder.write("comparison.json", json.as_bytes())?;
    }
    print(&if arguments.json { json } else { comparison.to_string() })
}

fn inspect(arguments: &InspectArguments) -> anyhow::Result<()> {
    let recipe = arguments.recipe.as_deref().map(|file| Recipe::resolve(file, &arguments.assignments)).transpose()?;
    let model = match (&arguments.model, &recipe) {
        (Some(model), _) => model,
        (None, Some(recipe)) => &recipe.model,
        (None, None) => anyhow::bail!("expected --model or --recipe"),
    };
    let lora = recipe.as_ref().and_then(|recipe| recipe.lora.as_ref()).map(adapter::shape_of).transpose()?;
    let inspection = Inspection::new(&read_config(&find(model)?)?, recipe.as_ref(), lora.as_ref());
    if arguments.json {
        return print(&(serde_json::to_string_pretty(&inspection)? + "\n"));
    }
    print(&inspection.to_string())
}
