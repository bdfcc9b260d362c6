//! A run: every stage of a recipe, its evaluations, and the model that comes out.

use std::convert::Infallible;
use std::fs::{File, TryLockError};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use ndarray_rand::rand_distr::{Distribution, StandardNormal};
use objective::{Anticipation, Metrics, ObjectiveState, Requirements};
use program::OutputFolder;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::Serialize;
use serde_json::{Map, Value};
use training::{Moment, StepError, StepReport, StepSettings, Workspace, evaluate, step};

use crate::adapter;
use crate::checkpoint::{CHECKPOINTS, Checkpoint, Origin, Position, Progress, positions};
use crate::config::Dtype;
use crate::data::{Line, encode_lines, read_records};
use crate::device::device;
use crate::error::{LmError, refuse};
use crate::example::{Encoder, Example};
use crate::folder::{self, Appearing, Text};
use crate::micro_batch::{LmMicroBatch, Plan, plan};
use crate::mixture::{Mixture, Place, Share};
use crate::model::Transformer;
use crate::model::tape::Keep;
use crate::optimizer::Optimizer;
use crate::policy::LmPolicy;
use crate::recipe::{DataSet, Keeping, Overlong, Recipe, Stage};
use crate::reference::{Kept, Reference, Wanted};
use crate::tensorboard::{EventFile, TENSORBOARD};
use crate::weights::bytes;

/// The folder of the trained model in the run's own.
pub const MODEL: &str = "model";
/// The folder of the trained adapters, where these are what is trained.
pub const ADAPTER: &str = "adapter";
/// That of the model or the adapters with the best held-out score.
pub const BEST: &str = "best";
/// The file of what was measured, a line a step and a line an evaluation.
pub const METRICS: &str = "metrics.jsonl";
/// The file of the recipe as it was resolved.
pub const RECIPE: &str = "recipe.toml";
/// The score that is better the less it is.
const LOSS: &str = "loss";

/// Where a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// In a folder without a run.
    Anew,
    /// Behind the newest checkpoint of the folder, or anew where there is none.
    Resumed,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The model is written, in this folder.
    Finished(PathBuf),
    /// It was asked to stop, and goes on from this checkpoint.
    Stopped(PathBuf),
}

/// What a run tells of itself while it runs.
#[derive(Debug)]
pub enum Event<'a> {
    /// Something is not as it should be, and the run goes on.
    Warning(&'a LmError),
    /// The run goes on behind a checkpoint.
    Resumed(Position),
    /// A stage begins, or goes on.
    Stage {
        /// Its number, from 0.
        stage: usize,
        /// How many there are.
        stages: usize,
        /// The method's name.
        method: &'static str,
        /// How many steps it has.
        steps: u64,
        /// How many of them were made before.
        done: u64,
    },
    /// The reference's statistics are computed, in so many micro-batches.
    Reference(u64),
    /// One of them is.
    ReferenceDone,
    /// A step was made.
    Step {
        /// What it measured.
        row: &'a Row,
        /// Tokens that went through the model: those of prompts and of responses.
        tokens: usize,
    },
    /// The policy was measured on data that it does not learn from.
    Evaluation(&'a Row),
    /// The stage is over.
    StageDone,
}

/// A line of the metrics.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The stage, from 0.
    pub stage: usize,
    /// Steps that the stage had made before this one, or before the evaluation.
    pub step: u64,
    /// Whether the data were those that are not learnt.
    pub held_out: bool,
    /// The objective's loss.
    pub loss: f64,
    /// What the field logs beside it, by its names.
    #[serde(flatten)]
    pub metrics: Map<String, Value>,
    /// Of the gradient, before clipping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradient_norm: Option<f64>,
    /// Of the step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// Response tokens that the loss is over.
    pub tokens: usize,
}

/// Trains what the recipe says and writes the model, the metrics and the resolved recipe to a folder. `stops` is asked after each
/// step.
///
/// A run that goes on begins its stage as it was begun, so that a reference is what it was, and then takes the checkpoint's state:
/// everything else is a function of the recipe and the step.
///
/// # Errors
///
/// Any [`LmError`]. The metrics up to the refused step are then in the folder with a checkpoint of the state before it, and no model is.
pub fn train(
    recipe: &Recipe,
    out: &OutputFolder,
    start: Start,
    stops: &dyn Fn() -> bool,
    tell: &dyn Fn(Event<'_>),
) -> Result<Ended, LmError> {
    let target = out.path().join(if recipe.lora.is_some() { ADAPTER } else { MODEL });
    let _lock = lock(out)?;
    let metrics_path = out.path().join(METRICS);
    let checkpoints = out.path().join(CHECKPOINTS);
    let known = start == Start::Resumed && is_known(recipe, &out.path().join(RECIPE))?;
    if !known {
        is_free(&target, [&metrics_path, &checkpoints])?;
    }
    if known && target.exists() {
        return Ok(Ended::Finished(target));
    }
    let device = device(&recipe.device)?;
    let source = folder::find(&recipe.model)?;
    let config = crate::config::read_config(&source)?;
    let text = Text::read(&source, recipe.now())?;
    // Whatever is wrong with the data of any stage shows before the first one trains.
    let data: Vec<_> = recipe
        .stage
        .iter()
        .map(|stage| StageData::read(stage, recipe.seed, &text.encoder(&config)))
        .collect::<Result<_, _>>()?;
    let steps: Vec<_> = recipe.stage.iter().zip(&data).map(|(stage, data)| stage.steps(data.mixture.epoch())).collect();
    let resolved = toml::to_string(recipe).map_err(|error| refused(&error))?;
    out.clear_unfinished()?;
    let mut model = Transformer::read(&source, recipe.dtype, device)?;
    if let Some(start) = &recipe.lora {
        adapter::start(&mut model, start, recipe.seed)?;
    }
    let mut policy = LmPolicy::trained(model, Keep::Activations);
    let origin = Origin {
        recipe: blake3::hash(resolved.as_bytes()).to_hex().to_string(),
        model: fingerprint(&policy)?,
        data: StageData::fingerprint(&data),
    };
    let found = if known { newest(recipe, &steps, &checkpoints, &origin, &metrics_path, tell)? } else { None };
    if !known {
        out.write(RECIPE, resolved.as_bytes())?;
    }
    let checkpoints = OutputFolder::create(&checkpoints)?;
    checkpoints.clear_unfinished()?;
    let (first, resumed) = match &found {
        None => (0, None),
        Some(Found { checkpoint, before }) => {
            let at = checkpoint.progress().at;
            tell(Event::Resumed(at));
            if at.step == steps[at.stage] {
                checkpoint.restore_weights(&policy)?;
                (at.stage + 1, None)
            } else {
                before.as_ref().map_or(Ok(()), |before| before.restore_weights(&policy))?;
                (at.stage, Some(checkpoint))
            }
        }
    };
    let length = found.as_ref().map_or(0, |found| found.checkpoint.progress().metrics);
    // What was measured when the stage before had ended stays.
    let ended: u64 = steps[..first].iter().sum::<u64>();
    let shown = ended + resumed.map_or(u64::from(first > 0), |checkpoint| checkpoint.progress().at.step);
    let mut record = Written {
        metrics: MetricsFile::open(&metrics_path, length)?,
        events: EventFile::create(&out.path().join(TENSORBOARD), shown)?,
    };
    let cache = recipe.cache.as_deref().map(OutputFolder::create).transpose()?;
    for index in first..recipe.stage.len() {
        let mut run = StageRun {
            recipe,
            index,
            stage: &recipe.stage[index],
            data: &data[index],
            steps: steps[index],
            before: index.checked_sub(1).map(|stage| Position { stage, step: steps[stage] }),
            made: steps[..index].iter().sum(),
            out,
            checkpoints: &checkpoints,
            origin: &origin,
            source: &source,
            stops,
            tell,
            record: &mut record,
            best: None,
        };
        let resumed = resumed.filter(|_| index == first);
        let stopped = run.run(&mut policy, cache.as_ref().unwrap_or(out), resumed)?;
        tell(Event::StageDone);
        if let Some(checkpoint) = stopped {
            return Ok(Ended::Stopped(checkpoint));
        }
    }
    write_trained(&target, Appearing::New, recipe, &source, &policy)?;
    Ok(Ended::Finished(target))
}

/// Writes what is trained: adapters, or the whole model.
fn write_trained(
    target: &Path,
    appearing: Appearing,
    recipe: &Recipe,
    source: &Path,
    policy: &LmPolicy,
) -> Result<(), LmError> {
    let parameters = policy.parameters();
    folder::whole(target, appearing, |folder| match policy.model().lora() {
        Some(lora) => adapter::fill(folder, &recipe.model, lora, &parameters, recipe.dtype),
        None => folder::fill(folder, source, &parameters, recipe.dtype),
    })
}

fn refused(error: &toml::ser::Error) -> LmError {
    LmError::Recipe { origin: RECIPE.to_owned(), problem: error.to_string() }
}

/// Two runs in one folder would each undo what the other does. The system gives the lock back however the process ends.
fn lock(out: &OutputFolder) -> Result<Option<File>, LmError> {
    let fail = |source| LmError::File { path: out.path().to_owned(), source };
    if !cfg!(unix) {
        return Ok(None);
    }
    let folder = File::open(out.path()).map_err(fail)?;
    match folder.try_lock() {
        Ok(()) => Ok(Some(folder)),
        Err(TryLockError::WouldBlock) => {
            Err(LmError::Taken { path: out.path().to_owned(), problem: "another process trains into this folder" })
        }
        // Some file systems have no locks.
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

/// Refuses a folder in which something would be lost.
fn is_free(target: &Path, parts: [&Path; 2]) -> Result<(), LmError> {
    if target.exists() {
        let source = std::io::Error::new(std::io::ErrorKind::AlreadyExists, "what is trained is there already");
        return Err(LmError::File { path: target.to_owned(), source });
    }
    match parts.into_iter().find(|part| part.exists()) {
        Some(part) => Err(LmError::Taken {
            path: part.to_owned(),
            problem: "a run is there already: with its recipe.toml, --resume goes on with it; another folder begins anew",
        }),
        None => Ok(()),
    }
}

/// Whether a run of this recipe is there; one of another is refused.
fn is_known(recipe: &Recipe, path: &Path) -> Result<bool, LmError> {
    if !path.exists() {
        return Ok(false);
    }
    match Recipe::resolve(path, &[])?.difference(recipe)? {
        None => Ok(true),
        Some((field, there, here)) => Err(LmError::Recipe {
            origin: path.display().to_string(),
            problem: format!("{field}: the run that is to go on has {there}, and the recipe {here}"),
        }),
    }
}

/// Of the weights that training begins with, and the model's shape.
fn fingerprint(policy: &LmPolicy) -> Result<String, LmError> {
    let model = policy.model();
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{:?}", model.config()).as_bytes());
    for parameter in model.parameters().into_iter().chain(model.adapters()) {
        hasher.update(&bytes(parameter, Dtype::of(parameter.kind()))?);
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// What a run goes on from.
struct Found {
    checkpoint: Checkpoint,
    /// What the stage began with, where its reference is asked and that is not the recipe's model.
    before: Option<Checkpoint>,
}

/// The newest checkpoint that is complete. Others are passed over with a warning; where none is left, the run is refused.
fn newest(
    recipe: &Recipe,
    steps: &[u64],
    folder: &Path,
    origin: &Origin,
    metrics: &Path,
    tell: &dyn Fn(Event<'_>),
) -> Result<Option<Found>, LmError> {
    let length = std::fs::metadata(metrics).map_or(0, |metadata| metadata.len());
    let find = |at: Position| {
        let path = folder.join(at.name());
        let refuse = |problem: String| LmError::Checkpoint { path: path.clone(), problem };
        let checkpoint = Checkpoint::read(&path)?;
        let progress = checkpoint.progress();
        if progress.at != at {
            return Err(refuse(format!("it says that it is {}", progress.at.name())));
        }
        if progress.metrics > length {
            let problem = format!("{METRICS} has {length} bytes, and had {} then", progress.metrics);
            return Err(refuse(problem));
        }
        let asked = recipe.stage.get(at.stage).is_some_and(|stage| Wanted::of(&stage.requirements()).is_some());
        let begun = steps.get(at.stage).is_some_and(|steps| at.step < *steps);
        let before = match at.stage.checked_sub(1).filter(|_| asked && begun) {
            Some(stage) => Some(Checkpoint::read(&folder.join(Position { stage, step: steps[stage] }.name()))?),
            None => None,
        };
        Ok(Found { checkpoint, before })
    };
    let mut problem = None;
    for at in positions(folder)?.into_iter().rev() {
        match find(at) {
            Ok(found) => {
                found.checkpoint.is_of(origin)?;
                return Ok(Some(found));
            }
            Err(error) => {
                tell(Event::Warning(&error));
                problem = Some(error);
            }
        }
    }
    problem.map_or(Ok(None), Err)
}

/// The encoded records of a stage.
struct StageData {
    sets: Vec<Vec<Line<Example>>>,
    evaluation: Vec<Line<Example>>,
    mixture: Mixture,
}

impl StageData {
    fn read(stage: &Stage, seed: u64, encoder: &Encoder<'_>) -> Result<Self, LmError> {
        let requirements = stage.requirements();
        let read = |set: &DataSet| read(set, stage, &requirements, encoder);
        let sets: Vec<_> = stage.data.iter().map(read).collect::<Result<_, _>>()?;
        let evaluation: Vec<Vec<_>> = stage.evaluation.iter().map(read).collect::<Result<_, _>>()?;
        let shares: Vec<_> = sets
            .iter()
            .zip(&stage.data)
            .map(|(lines, set)| Share { examples: lines.len(), weight: set.weight.unwrap_or(lines.len() as f64) })
            .collect();
        let mixture = Mixture::new(&shares, stage.order, seed)?;
        Ok(Self { sets, evaluation: evaluation.concat(), mixture })
    }

    fn line(&self, Place { set, example }: Place) -> &Line<Example> {
        &self.sets[set][example]
    }

    /// Of every record of every stage.
    fn fingerprint(data: &[Self]) -> String {
        let mut hasher = blake3::Hasher::new();
        for lines in data.iter().flat_map(|stage| stage.sets.iter().chain([&stage.evaluation])) {
            hasher.update(&(lines.len() as u64).to_le_bytes());
            for Line { line, record } in lines {
                let tokens = |example: &Example| {
                    for part in [&example.prompt, &example.response] {
                        hasher.update(&(part.len() as u64).to_le_bytes());
                        part.iter().for_each(|token| _ = hasher.update(&token.to_le_bytes()));
                    }
                    Ok::<(), Infallible>(())
                };
                let rest = record.try_map(tokens);
                hasher.update(format!("{line} {rest:?}").as_bytes());
            }
        }
        hasher.finalize().to_hex().to_string()
    }
}

fn read(
    set: &DataSet,
    stage: &Stage,
    requirements: &Requirements,
    encoder: &Encoder<'_>,
) -> Result<Vec<Line<Example>>, LmError> {
    let records = read_records(&set.path, set.learnt)?;
    let mut lines = Vec::new();
    for record in &records {
        match encode_lines(&set.path, std::slice::from_ref(record), encoder, stage.max_length) {
            Err(error) if error.is_too_long() && stage.overlong == Overlong::Skip => {}
            encoded => lines.extend(encoded?),
        }
        if set.limit == Some(lines.len()) {
            break;
        }
    }
    if lines.is_empty() {
        let allowed = format!("a record that fits in max_length = {}", stage.max_length);
        return Err(LmError::Field {
            path: set.path.clone(),
            field: "lines".to_owned(),
            allowed,
            given: "none".to_owned(),
        });
    }
    for Line { line, record } in &lines {
        // Beside another of its kind, as some objectives compare each with the next.
        plan(requirements, &[record, record], 2).map_err(|source| LmError::Line {
            path: set.path.clone(),
            line: *line,
            source: Box::new(source),
        })?;
    }
    Ok(lines)
}

/// What a run appends to.
struct Written {
    metrics: MetricsFile,
    events: EventFile,
}

/// A file that grows a line at a time.
struct MetricsFile {
    path: PathBuf,
    file: File,
    length: u64,
}

impl MetricsFile {
    /// The file as it was when it had so many bytes.
    fn open(path: &Path, length: u64) -> Result<Self, LmError> {
        let open = || {
            let mut file = File::options().create(true).truncate(false).write(true).open(path)?;
            file.set_len(length)?;
            file.seek(SeekFrom::End(0))?;
            Ok(file)
        };
        let file = open().map_err(|source| LmError::File { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), file, length })
    }

    fn append(&mut self, row: &Row) -> Result<(), LmError> {
        let fail = |source| LmError::File { path: self.path.clone(), source };
        let line = serde_json::to_string(row).map_err(|error| fail(error.into()))? + "\n";
        self.file.write_all(line.as_bytes()).map_err(fail)?;
        self.length += line.len() as u64;
        Ok(())
    }

    fn sync(&self) -> Result<(), LmError> {
        self.file.sync_data().map_err(|source| LmError::File { path: self.path.clone(), source })
    }
}

/// One stage while it runs.
struct StageRun<'a> {
    recipe: &'a Recipe,
    index: usize,
    stage: &'a Stage,
    data: &'a StageData,
    steps: u64,
    /// Where the stage before ended.
    before: Option<Position>,
    /// Steps of all stages before.
    made: u64,
    out: &'a OutputFolder,
    checkpoints: &'a OutputFolder,
    origin: &'a Origin,
    /// The folder of the recipe's model.
    source: &'a Path,
    stops: &'a dyn Fn() -> bool,
    tell: &'a dyn Fn(Event<'_>),
    record: &'a mut Written,
    best: Option<f64>,
}

/// What a stage changes from step to step, beside the policy.
struct Learning {
    optimizer: Optimizer,
    state: ObjectiveState,
    workspace: Workspace,
}

impl StageRun<'_> {
    /// Answers the checkpoint where it was asked to stop.
    fn run(
        &mut self,
        policy: &mut LmPolicy,
        cache: &OutputFolder,
        resumed: Option<&Checkpoint>,
    ) -> Result<Option<PathBuf>, LmError> {
        let Self { recipe, stage, steps, .. } = *self;
        policy.keep(if stage.activation_checkpointing { Keep::LayerInputs } else { Keep::Activations });
        let reference = self.reference(policy, cache)?;
        let optimizer = Optimizer::new(stage.optimizer, stage.precision, recipe.seed ^ self.index as u64);
        let mut learning = Learning { optimizer, state: ObjectiveState::default(), workspace: Workspace::default() };
        let mut done = 0;
        if let Some(checkpoint) = resumed {
            checkpoint.restore_weights(policy)?;
            checkpoint.restore_optimizer(policy, &mut learning.optimizer)?;
            let Progress { at, state, best, .. } = checkpoint.progress();
            done = at.step;
            learning.state.clone_from(state);
            self.best = *best;
        }
        let (index, stages) = (self.index, recipe.stage.len());
        (self.tell)(Event::Stage { stage: index, stages, method: stage.method.method().name, steps, done });
        for step_index in done..steps {
            let before = self.progress(step_index, &learning.state);
            let made = self.make(step_index, policy, &reference, &mut learning);
            self.rescue(made, before, policy, &learning)?;
            let after = step_index + 1;
            let (stops, is_due) =
                ((self.stops)(), stage.checkpoint_every > 0 && after.is_multiple_of(stage.checkpoint_every));
            // Behind the last step, the stage's end comes first.
            if after < steps && (stops || is_due) {
                let checkpoint = self.save(self.progress(after, &learning.state), policy, &learning)?;
                if stops {
                    return Ok(Some(checkpoint));
                }
            }
        }
        let before = self.progress(steps, &learning.state);
        let evaluated = self.evaluate(policy, &reference, &learning.state, steps, &mut learning.workspace);
        self.rescue(evaluated, before, policy, &learning)?;
        let checkpoint = self.save(self.progress(steps, &learning.state), policy, &learning)?;
        Ok((self.stops)().then_some(checkpoint))
    }

    /// An evaluation where it is time for one, and a step.
    fn make(
        &mut self,
        step_index: u64,
        policy: &mut LmPolicy,
        reference: &Reference,
        learning: &mut Learning,
    ) -> Result<(), LmError> {
        let Self { stage, steps, .. } = *self;
        let Learning { optimizer, state, workspace } = learning;
        if step_index == 0 || (stage.evaluate_every > 0 && step_index.is_multiple_of(stage.evaluate_every)) {
            self.evaluate(policy, reference, state, step_index, workspace)?;
        }
        let plans = self.plans(step_index)?;
        let micro_batches = self.micro_batches(policy, reference, &plans)?;
        let (index, all) = (step_index as usize, steps as usize);
        let settings = StepSettings {
            learning_rate: stage.learning_rate * stage.schedule().factor(index, all),
            clip_norm: Some(stage.clip_norm),
            moment: Moment { warmup: stage.schedule().warmup(index, all), draw: self.draw(step_index) },
        };
        let objective = stage.method.objective();
        let report = step(policy, optimizer, objective, state, &micro_batches, settings, workspace)
            .map_err(|source| self.refuse(step_index, self.places(step_index, &source), source))?;
        let StepReport { loss, gradient_norm, metrics } = report;
        let row = Row {
            gradient_norm: Some(gradient_norm),
            learning_rate: Some(settings.learning_rate),
            ..self.row(step_index, false, loss, &metrics, &micro_batches)
        };
        let sequences = plans.iter().flat_map(|plan| &plan.sequences);
        let tokens = sequences.map(|sequence| sequence.prompt.len() + sequence.response.len()).sum();
        self.append(&row)?;
        (self.tell)(Event::Step { row: &row, tokens });
        Ok(())
    }

    fn append(&mut self, row: &Row) -> Result<(), LmError> {
        self.record.metrics.append(row)?;
        self.record.events.row(self.made + row.step, row)
    }

    fn progress(&self, step: u64, state: &ObjectiveState) -> Progress {
        Progress {
            at: Position { stage: self.index, step },
            origin: self.origin.clone(),
            metrics: self.record.metrics.length,
            state: state.clone(),
            best: self.best,
        }
    }

    /// Writes a checkpoint, and removes those that need not stay.
    fn save(&self, progress: Progress, policy: &LmPolicy, learning: &Learning) -> Result<PathBuf, LmError> {
        // A checkpoint counts on the lines before it.
        self.record.metrics.sync()?;
        let at = progress.at;
        let written = Checkpoint::write(self.checkpoints, progress, policy, &learning.optimizer)?;
        // Until the stage is over, its reference is what it began with.
        let is_asked = at.step < self.steps && Wanted::of(&self.stage.requirements()).is_some();
        let needed = self.before.filter(|_| is_asked);
        // Any behind this one are damaged, or the run would have gone on from there.
        let passed: Vec<_> =
            positions(self.checkpoints.path())?.into_iter().filter(|position| *position <= at).collect();
        for old in &passed[..passed.len().saturating_sub(self.stage.keep_last)] {
            if Some(*old) != needed {
                self.checkpoints.remove_folder(&old.name())?;
            }
        }
        Ok(written)
    }

    /// Keeps the state before what diverged.
    fn rescue(
        &self,
        made: Result<(), LmError>,
        before: Progress,
        policy: &LmPolicy,
        learning: &Learning,
    ) -> Result<(), LmError> {
        let Err(error) = made else { return Ok(()) };
        // The host may fail in the middle of an update, and the objective in none: then all is as it was before.
        let is_whole = matches!(&error, LmError::Step { source, .. } if !matches!(**source, StepError::Policy(_)));
        // The state before the first step is there already.
        if is_whole
            && before.at.step > 0
            && let Err(other) = self.save(before, policy, learning)
        {
            (self.tell)(Event::Warning(&other));
        }
        Err(error)
    }

    /// The lines of a step.
    fn lines(&self, step: u64) -> impl Iterator<Item = (Place, &Line<Example>)> {
        let begin = step * self.stage.batch as u64;
        let places = self.data.mixture.examples(begin).take(self.stage.batch);
        places.map(|place| (place, self.data.line(place)))
    }

    /// Where the records of a step are, or of the micro-batch that the error is about.
    fn places(&self, step: u64, error: &StepError<LmError>) -> Vec<(PathBuf, usize)> {
        let places: Vec<_> =
            self.lines(step).map(|(place, line)| (self.stage.data[place.set].path.clone(), line.line)).collect();
        match error {
            StepError::Policy(_) => Vec::new(),
            StepError::Batch { micro_batch, .. } => {
                places.chunks(self.stage.micro_batch).nth(*micro_batch).unwrap_or_default().to_vec()
            }
            StepError::Step { .. } | StepError::Diverged { .. } => places,
        }
    }

    /// The records of a step as micro-batches.
    fn plans(&self, step: u64) -> Result<Vec<Plan<'_>>, LmError> {
        let records: Vec<_> = self.lines(step).map(|(_, line)| &line.record).collect();
        plan(&self.stage.requirements(), &records, self.stage.micro_batch)
    }

    fn evaluation_plans(&self) -> Result<Vec<Plan<'_>>, LmError> {
        let records: Vec<_> = self.data.evaluation.iter().map(|line| &line.record).collect();
        plan(&self.stage.requirements(), &records, self.stage.micro_batch)
    }

    fn reference(&self, policy: &LmPolicy, cache: &OutputFolder) -> Result<Reference, LmError> {
        let Some(wanted) = Wanted::of(&self.stage.requirements()) else { return Ok(Reference::None) };
        match self.stage.reference {
            Keeping::Hold => Ok(Reference::Held(Box::new(policy.copy()?))),
            Keeping::Base => Ok(Reference::Held(Box::new(policy.base()?))),
            Keeping::Cache => {
                let plans = || {
                    let mut plans = self.evaluation_plans()?;
                    for step in 0..self.steps {
                        plans.extend(self.plans(step)?);
                    }
                    Ok(plans)
                };
                let begun = |micro_batches| (self.tell)(Event::Reference(micro_batches));
                let done = || (self.tell)(Event::ReferenceDone);
                let frozen = policy.view()?;
                let packing = self.stage.packing;
                Ok(Reference::Kept(Kept::read_or_compute(&frozen, wanted, plans, packing, cache, begun, done)?))
            }
        }
    }

    fn micro_batches(
        &self,
        policy: &LmPolicy,
        reference: &Reference,
        plans: &[Plan<'_>],
    ) -> Result<Vec<LmMicroBatch>, LmError> {
        let wanted = Wanted::of(&self.stage.requirements());
        plans
            .iter()
            .map(|plan| {
                let mut micro_batch = plan.micro_batch(policy.model(), self.stage.packing)?;
                reference.fill(wanted, plan, &mut micro_batch)?;
                Ok(micro_batch)
            })
            .collect()
    }

    fn evaluate(
        &mut self,
        policy: &LmPolicy,
        reference: &Reference,
        state: &ObjectiveState,
        step: u64,
        workspace: &mut Workspace,
    ) -> Result<(), LmError> {
        if self.data.evaluation.is_empty() {
            return Ok(());
        }
        let micro_batches = self.micro_batches(policy, reference, &self.evaluation_plans()?)?;
        let objective = self.stage.method.objective();
        let view = policy.view()?;
        let (loss, metrics) =
            evaluate(&view, objective, &mut state.clone(), &micro_batches, Moment::default(), workspace)
                .map_err(|source| self.refuse(step, Vec::new(), source))?;
        let row = self.row(step, true, loss, &metrics, &micro_batches);
        self.append(&row)?;
        (self.tell)(Event::Evaluation(&row));
        self.keep_best(policy, &row)
    }

    /// Writes the model where its score is better than all before it.
    fn keep_best(&mut self, policy: &LmPolicy, row: &Row) -> Result<(), LmError> {
        if !self.stage.keep_best {
            return Ok(());
        }
        let name = self.stage.best.as_deref().unwrap_or(LOSS);
        let score = if name == LOSS { Some(row.loss) } else { row.metrics.get(name).and_then(Value::as_f64) };
        let Some(score) = score else {
            let known: Vec<_> = [LOSS].into_iter().chain(row.metrics.keys().map(String::as_str)).collect();
            return Err(refuse(&format!("stage[{}].best", self.index), format!("one of {}", known.join(", ")), name));
        };
        if self.best.is_none_or(|best| if name == LOSS { score < best } else { score > best }) {
            write_trained(&self.out.path().join(BEST), Appearing::Instead, self.recipe, self.source, policy)?;
            self.best = Some(score);
        }
        Ok(())
    }

    fn row(&self, step: u64, held_out: bool, loss: f64, metrics: &Metrics, micro_batches: &[LmMicroBatch]) -> Row {
        let metrics = metrics.iter().map(|(metric, mean)| (metric.to_owned(), mean.into()));
        Row {
            stage: self.index,
            step,
            held_out,
            loss,
            metrics: metrics.collect(),
            gradient_norm: None,
            learning_rate: None,
            tokens: micro_batches.iter().map(|micro_batch| micro_batch.tokens.len()).sum(),
        }
    }

    /// The noise of λ at a step: a function of the seed, the stage and the step alone.
    fn draw(&self, step: u64) -> f64 {
        if self.stage.requirements().anticipation == Anticipation::Off {
            return 0.0;
        }
        let mut key = [0; 32];
        for (part, number) in key.chunks_exact_mut(8).zip([self.recipe.seed, self.index as u64, step]) {
            part.copy_from_slice(&number.to_le_bytes());
        }
        StandardNormal.sample(&mut ChaCha8Rng::from_seed(key))
    }

    fn refuse(&self, step: u64, records: Vec<(PathBuf, usize)>, source: StepError<LmError>) -> LmError {
        LmError::Step { stage: self.index, step, records, source: Box::new(source) }
    }
}
