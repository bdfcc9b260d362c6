//! The command line of `lm`.

mod cli;
mod signal;

use std::cell::RefCell;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::cli::{
    Arguments, Command, CompareArguments, ExportArguments, GenerateArguments, InspectArguments, JudgeArguments,
    MergeArguments, ModelArguments, ScoreArguments, ServeArguments, TrainArguments,
};
use crate::signal::StopSignal;
use anyhow::Context;
use clap::Parser;
use evaluation::compare::Comparison;
use evaluation::compare::figure::draw;
use evaluation::judge::ask::{self, Judge};
use evaluation::judge::judgement::JUDGEMENT_FILE;
use evaluation::judge::question::Template;
use evaluation::judge::{Case, Event as Judging, judge};
use evaluation::outputs::{Output, Outputs, to_json};
use lm::checkpoint::adapter::{self, Use};
use lm::checkpoint::config::read_config;
use lm::checkpoint::folder::{Replaced, Text, find};
use lm::checkpoint::generation_config::{GENERATION_CONFIG_FILE, GenerationConfig, SamplingParameters};
use lm::checkpoint::merge::merge;
use lm::device::device;
use lm::engine::answers::{AnswerFile, Answering, Layout, fingerprint};
use lm::engine::generate::{Continuation, Finish, GenerationSettings, generate_each};
use lm::inspect::inspection::Inspection;
use lm::inspect::score::{refuse_longer, score};
use lm::serve::{self, Limits, serve};
use lm::train::policy::LmPolicy;
use lm::train::ranks::Worker;
use lm::train::recipe::{Recipe, default_now};
use lm::train::run::{ACCURACY, Ended, Event, Row, Run, Start, Summary, export};
use lm::transformer::model::Transformer;
use program::{OutputFile, OutputFolder, Progress, exit_code};
use serde::Serialize;
use text::chat::{CHAT_TEMPLATE_FILE, Message, Role};
use text::data::instruction::{Instruction, encode_instructions, read_instructions};
use text::data::prompt::{Prompt, encode_prompts, read_prompts};
use text::data::{Learnt, encode_lines, read_records};

fn main() -> ExitCode {
    exit_code(match Arguments::parse().command {
        Command::Train(arguments) => run_recipe(&arguments),
        Command::Score(arguments) => score_file(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Judge(arguments) => ask_judge(&arguments),
        Command::Generate(arguments) => generate(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Serve(arguments) => answer_requests(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Merge(arguments) => write_merged(&arguments).map(|()| ExitCode::SUCCESS),
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
    let signal = StopSignal::listen().context("signals")?;
    let start = if arguments.resume { Start::Resumed } else { Start::Anew };
    let progress = RefCell::new(Progress::new("steps"));
    let course = RefCell::new(Course::new());
    let worker = Worker::join(&recipe.device)?;
    let stops = || signal.stops();
    let tell = |event: Event<'_>| match event {
        Event::Warning(warning) => progress.borrow().line(&format!("warning: {warning}")),
        Event::Skipped { path, records, skipped } => {
            progress.borrow().line(&format!(
                "{}: {} of {records} records are skipped\n{skipped}",
                path.display(),
                skipped.count()
            ));
        }
        Event::Resumed(at) => eprintln!("resuming after step {} of stage {}", at.step, at.stage + 1),
        Event::Stage { stage, stages, method, steps, done } => {
            eprintln!("stage {} of {stages}: {method}, {steps} steps", stage + 1);
            progress.replace(Progress::new("steps")).end();
            progress.borrow().begin(steps, done);
            course.replace(Course::new());
        }
        Event::Reference(micro_batches) => {
            progress.replace(Progress::new("reference micro-batches")).end();
            progress.borrow().begin(micro_batches, 0);
        }
        Event::ReferenceDone => progress.borrow().advance(),
        Event::Step { row, tokens } => {
            progress.borrow().message(&course.borrow_mut().after(row, tokens));
            progress.borrow().advance();
        }
        Event::Evaluation(row) => {
            course.borrow_mut().held_out = Some(row.loss);
            progress.borrow().line(&evaluation_line(row));
        }
        Event::StageDone => progress.borrow().end(),
    };
    let run = Run { worker: &worker, recipe: &recipe, out: &out, start, stops: &stops, tell: &tell };
    match run.train()? {
        Ended::Finished(model) => {
            if worker.is_first() {
                // Without a readable metrics file, the model is complete all the same.
                let summary = Summary::read(out.path(), &recipe).map_or_else(|_| String::new(), |it| format!("{it}\n"));
                print(&format!("{summary}written: {}\n", model.display()))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Ended::Stopped(checkpoint) => {
            if worker.is_first() {
                eprintln!("stopped at {}; the same command with --resume continues from there", checkpoint.display());
            }
            Ok(ExitCode::from(signal.exit_code()))
        }
    }
}

/// Progress of a stage: its last measurements, and its tokens and time since it began.
struct Course {
    begun: Instant,
    tokens: usize,
    held_out: Option<f64>,
}

impl Course {
    fn new() -> Self {
        Self { begun: Instant::now(), tokens: 0, held_out: None }
    }

    /// The progress line after a step of this many tokens.
    fn after(&mut self, row: &Row, tokens: usize) -> String {
        self.tokens += tokens;
        let seconds = self.begun.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);
        let held_out = self.held_out.map_or_else(String::new, |loss| format!(", held-out loss {loss:.4}"));
        let accuracy = row.metrics.get(ACCURACY).and_then(serde_json::Value::as_f64);
        let accuracy = accuracy.map_or_else(String::new, |accuracy| format!(", reward accuracy {accuracy:.2}"));
        format!("loss {:.4}{held_out}{accuracy}, {:.0} tokens/s", row.loss, self.tokens as f64 / seconds)
    }
}

/// One line about an evaluation.
fn evaluation_line(row: &Row) -> String {
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
        let adapter = arguments.adapter.as_ref().map(|adapter| find(adapter).context("--adapter")).transpose()?;
        // A file in the adapters' folder takes precedence over the model's: the adapters were trained with it.
        let own = |name| adapter.as_ref().map(|adapter| adapter.join(name)).filter(|path| path.exists());
        let replaced = Replaced { chat_template: own(CHAT_TEMPLATE_FILE), eos_token: None };
        let mut text = Text::read(&folder, &replaced, default_now()?)?;
        if let Some(path) = own(GENERATION_CONFIG_FILE) {
            text.generation = GenerationConfig::read(&path)?;
        }
        let mut model = Transformer::read(&folder, arguments.dtype, device)?;
        if let Some(adapter) = &adapter {
            adapter::apply(&mut model, adapter, Use::Applied)?;
        }
        Ok(Self { text, model })
    }

    /// Reads a model's texts, with its `generation_config.json` replaced by another file; `none` removes it.
    fn read_with(arguments: &ModelArguments, generation: Option<&Path>) -> anyhow::Result<Self> {
        let generation = match generation {
            Some(path) if path == Path::new("none") => Some(GenerationConfig::default()),
            Some(path) => Some(GenerationConfig::read(path).context("--generation-config")?),
            None => None,
        };
        let Self { mut text, model } = Self::read(arguments)?;
        text.generation = generation.unwrap_or(text.generation);
        Ok(Self { text, model })
    }
}

/// Prints lines, or writes them to a file that appears once it is complete.
fn answer(out: Option<&Path>, lines: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let Some(path) = out else {
        let mut output = BufWriter::new(std::io::stdout().lock());
        lines(&mut output)?;
        return Ok(output.flush()?);
    };
    let file = OutputFile::create(path).context("--out")?;
    let mut answers = Vec::new();
    lines(&mut answers)?;
    Ok(file.write(&answers)?)
}

fn score_file(arguments: &ScoreArguments) -> anyhow::Result<()> {
    let ScoreArguments { model, data, out, max_length, batch_tokens } = arguments;
    let records = read_records(data, Learnt::Every)?;
    let Loaded { text, model } = Loaded::read(model)?;
    let lines = encode_lines(data, &records, &text.encoder(model.config()), max_length.unwrap_or(usize::MAX))?;
    if max_length.is_none() {
        refuse_longer(data, &lines, model.config().positions)?;
    }
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

/// Output of `lm generate` for one prompt.
#[derive(Serialize)]
struct Answer<'a> {
    response_ids: &'a [u32],
    log_prob: &'a [f64],
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    finish: &'static str,
}

fn generate(arguments: &GenerateArguments) -> anyhow::Result<()> {
    // Checks the output path before anything is computed.
    let layout = if arguments.format.is_some() { Layout::Document } else { Layout::Lines };
    let file = arguments.out.as_deref().map(|path| AnswerFile::check(path, layout, arguments.resume)).transpose();
    let file = file.context("--out")?;
    let (format, data) = (arguments.format, arguments.data.as_deref());
    let instructions = format.zip(data).map(|(layout, path)| read_instructions(path, layout)).transpose()?;
    let read = data.filter(|_| instructions.is_none()).map(read_prompts).transpose()?;
    let Loaded { text, model } = Loaded::read_with(&arguments.model, arguments.generation_config.as_deref())?;
    let encoder = text.encoder(model.config());
    let prompts = match (data, read, &instructions) {
        (Some(path), _, Some(instructions)) => encode_instructions(path, instructions, &encoder)?,
        (Some(path), Some(prompts), _) => encode_prompts(path, &prompts, &encoder)?,
        _ => {
            let said = |text: &String| match encoder.template {
                Some(_) => Prompt::Conversation(vec![Message { role: Role::User, content: text.clone() }]),
                None => Prompt::Text(text.clone()),
            };
            arguments.prompt.iter().map(|text| encoder.prompt(&said(text))).collect::<Result<_, _>>()?
        }
    };
    let mut stop = text.ends(model.config());
    stop.extend(&arguments.stop);
    let GenerateArguments { max_tokens, temperature, top_k, top_p, min_p, repetition_penalty, seed, batch, .. } =
        *arguments;
    for field in &text.generation.unsupported {
        eprintln!("warning: {GENERATION_CONFIG_FILE}: {field} is not supported here, and is ignored");
    }
    let given = SamplingParameters { temperature, top_k, top_p, min_p, repetition_penalty };
    let SamplingParameters { temperature, top_k, top_p, min_p, repetition_penalty } =
        text.generation.as_transformers(given);
    let temperature = temperature.unwrap_or(0.0);
    let settings =
        GenerationSettings { max_tokens, temperature, top_k, top_p, min_p, repetition_penalty, seed, stop, batch };
    let decode = |Continuation { response, finish, .. }: &Continuation| {
        let said = match finish {
            Finish::Stop => &response[..response.len() - 1],
            Finish::Length => response,
        };
        text.tokenizer.as_ref().map(|tokenizer| tokenizer.response(said)).transpose()
    };
    let mut answers = None;
    if let Some(file) = &file {
        let answering = Answering {
            model: model.fingerprint()?.to_hex().to_string(),
            prompts: fingerprint(&prompts),
            dtype: arguments.model.dtype,
            device: &arguments.model.device,
            settings: &settings,
            format: format.map(Into::into),
            generator: arguments.generator.as_deref(),
        };
        if file.is_whole(&answering)? {
            return Ok(());
        }
        answers = Some(file.begin(&answering)?);
    }
    let known = answers.as_ref().map_or(0, |answers| answers.known().count());
    let mut outputs: Vec<Output> = match (&instructions, &answers) {
        (Some(_), Some(answers)) => answers.known().map(strict_json::from_slice).collect::<Result<_, _>>()?,
        _ => Vec::new(),
    };
    let mut next_instructions = instructions.iter().flatten().skip(known);
    let mut stdout = std::io::stdout().lock();
    let progress = Progress::new("prompts");
    if answers.is_some() {
        progress.begin(prompts.len() as u64, known as u64);
    }
    generate_each(&model, &prompts, &settings, known, |continuation| -> anyhow::Result<()> {
        let text = decode(&continuation)?;
        if let Some(Instruction { text: instruction, dataset, .. }) = next_instructions.next() {
            let output = Output {
                instruction: instruction.clone(),
                output: text.unwrap_or_default().trim().to_owned(),
                generator: arguments.generator.clone(),
                dataset: dataset.clone(),
            };
            answers.as_mut().map_or(Ok(()), |answers| answers.append(&output))?;
            outputs.push(output);
        } else {
            let Continuation { response, log_prob, finish } = &continuation;
            let answer = Answer { response_ids: response, log_prob, text, finish: finish.into() };
            match &mut answers {
                Some(answers) => answers.append(&answer)?,
                None => {
                    write_line(&mut stdout, &answer)?;
                    stdout.flush()?;
                }
            }
        }
        if answers.is_some() {
            progress.advance();
        }
        Ok(())
    })?;
    progress.end();
    if instructions.is_some() {
        let document = to_json(&outputs)?;
        match (file, answers) {
            (Some(file), Some(answers)) => file.finish(&document, answers)?,
            _ => stdout.write_all(&document)?,
        }
    }
    Ok(())
}

fn answer_requests(arguments: &ServeArguments) -> anyhow::Result<()> {
    let ServeArguments { model, name, host, port, api_key, .. } = arguments;
    let last = || model.model.trim_end_matches('/').rsplit('/').next().unwrap_or(&model.model).to_owned();
    let settings = serve::ServerSettings {
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
    let Loaded { text, model } = Loaded::read_with(model, arguments.generation_config.as_deref())?;
    let signal = StopSignal::listen().context("signals")?;
    let ready = |address| eprintln!("serving at http://{address}/v1");
    Ok(serve(model, text, settings, ready, &|| signal.stops())?)
}

fn ask_judge(arguments: &JudgeArguments) -> anyhow::Result<ExitCode> {
    let (a, b) = (Outputs::read(&arguments.a)?, Outputs::read(&arguments.b)?);
    let template = Template::read(arguments.template.as_deref())?;
    let settings = ask::JudgeSettings {
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
    let signal = StopSignal::listen().context("signals")?;
    let progress = Progress::new("verdicts");
    let case = Case { a: &a, b: &b, judge: &third, template: &template, concurrency: arguments.concurrency };
    let judgement = judge(case, &out, &|| signal.stops(), &|event| match event {
        Judging::Begins { questions, answered } => progress.begin(questions as u64, answered as u64),
        Judging::Answered => progress.advance(),
        Judging::Waits { problem, pause } => {
            progress.line(&format!("retrying in {:.1} s: {problem}", pause.as_secs_f64()));
        }
    });
    progress.end();
    match judgement? {
        Some(judgement) => {
            print(&format!("{judgement}\nwritten: {}\n", out.path().join(JUDGEMENT_FILE).display()))?;
            Ok(ExitCode::SUCCESS)
        }
        None => {
            eprintln!("stopped; the same command continues with the verdicts in {}", out.path().display());
            Ok(ExitCode::from(signal.exit_code()))
        }
    }
}

fn write_merged(arguments: &MergeArguments) -> anyhow::Result<()> {
    let MergeArguments { model, adapter, out, dtype } = arguments;
    merge(&find(model)?, &find(adapter).context("--adapter")?, out, *dtype)?;
    print(&format!("written: {}\n", out.display()))
}

fn write_checkpoint(arguments: &ExportArguments) -> anyhow::Result<()> {
    let ExportArguments { run, checkpoint, out } = arguments;
    let at = export(run, *checkpoint, out)?;
    print(&format!("written: {}, from checkpoint {}\n", out.display(), at.name()))
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
        let (folder, _lock) = OutputFolder::claim(out).context("--out")?;
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
    let config = read_config(&find(model)?)?;
    lora.as_ref().map_or(Ok(()), |lora| lora.fits(&config))?;
    let inspection = Inspection::new(&config, recipe.as_ref(), lora.as_ref());
    if arguments.json {
        return print(&(serde_json::to_string_pretty(&inspection)? + "\n"));
    }
    print(&inspection.to_string())
}
