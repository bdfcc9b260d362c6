//! A run: every stage of a recipe, its evaluations, and the model that comes out.

mod data;
mod metrics;
mod stage;
mod summary;

use std::path::{Path, PathBuf};

use program::{FolderLock, Journal, OutputFolder};
use tch::Device;
use text::data::unusable::Skipped;
use text::tokens::Tokenizer;

use self::data::StageData;
pub use self::metrics::Row;
use self::metrics::Written;
use self::stage::StageRun;
pub use self::summary::{ACCURACY, Summary};
use crate::checkpoint::adapter;
use crate::checkpoint::config::{read_config, refuse_dropout};
use crate::checkpoint::folder::{self, Appearing, Inherited, Text};
use crate::error::LmError;
use crate::train::checkpoint::{CHECKPOINTS, Checkpoint, Origin, Position, positions};
use crate::train::policy::LmPolicy;
use crate::train::ranks::Worker;
use crate::train::recipe::{Recipe, TEACHER};
use crate::train::reference::Wanted;
use crate::train::teacher::Teacher;
use crate::train::tensorboard::{EventFile, TENSORBOARD};
use crate::transformer::model::Transformer;
use crate::transformer::model::tape::Keep;

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
    /// Records of a data file were skipped, as no method can learn from them.
    Skipped {
        /// The file.
        path: &'a Path,
        /// Number of records of the file that were read.
        records: usize,
        /// The skipped records.
        skipped: &'a Skipped,
    },
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

/// A run before it is begun.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// This process. Of several the first writes and tells; the others read what it wrote, so all have to see one folder.
    pub worker: &'a Worker,
    /// What is trained.
    pub recipe: &'a Recipe,
    /// The folder of the model, the metrics, the checkpoints and the resolved recipe.
    pub out: &'a OutputFolder,
    /// Where it begins.
    pub start: Start,
    /// Asked after each step whether to stop.
    pub stops: &'a dyn Fn() -> bool,
    /// Told what happens.
    pub tell: &'a dyn Fn(Event<'_>),
}

impl Run<'_> {
    /// Trains what the recipe says, and writes the model.
    ///
    /// A run that goes on begins its stage as it was begun, so that a reference is what it was, and then takes the checkpoint's state:
    /// everything else is a function of the recipe and the step.
    ///
    /// # Errors
    ///
    /// Any [`LmError`]. The metrics up to the refused step are then in the folder with a checkpoint of the state before it, and no model
    /// is.
    pub fn train(self) -> Result<Ended, LmError> {
        let quiet = |_: Event<'_>| {};
        let tell = if self.worker.is_first() { self.tell } else { &quiet };
        Run { tell, ..self }.go().inspect_err(|error| self.worker.leave(error))
    }

    fn go(self) -> Result<Ended, LmError> {
        let Self { worker, recipe, out, start, tell, .. } = self;
        let target = out.path().join(if recipe.lora.is_some() { ADAPTER } else { MODEL });
        let _lock = worker.is_first().then(|| lock(out)).transpose()?;
        let metrics_path = out.path().join(METRICS);
        let checkpoints = out.path().join(CHECKPOINTS);
        let (known, finished) = worker.first(|| {
            let known = start == Start::Resumed && is_known(recipe, &out.path().join(RECIPE))?;
            if !known {
                is_free(&target, [&metrics_path, &checkpoints])?;
            }
            Ok((known, known && target.exists()))
        })?;
        if finished {
            return Ok(Ended::Finished(target));
        }
        tch::set_num_threads(i32::try_from(recipe.threads).unwrap_or(i32::MAX));
        let source = folder::find(&recipe.model)?;
        let config = read_config(&source)?;
        refuse_dropout(&source)?;
        let text = Text::read(&source, &recipe.replaced(), recipe.now())?;
        let inherited = inherited(recipe, &source, &text);
        if recipe.lora.is_none() {
            inherited.refuse_outside()?;
        }
        // Whatever is wrong with the data of any stage shows before the first one trains.
        let data: Vec<_> = recipe
            .stage
            .iter()
            .map(|stage| StageData::read(stage, recipe.seed, &text.encoder(&config), tell))
            .collect::<Result<_, _>>()?;
        for (index, stage) in recipe.stage.iter().enumerate() {
            if let Some(teacher) = &stage.teacher {
                Teacher::check(&format!("stage[{index}].{TEACHER}"), teacher, &text, &config)?;
            }
        }
        let steps: Vec<_> =
            recipe.stage.iter().zip(&data).map(|(stage, data)| stage.steps(data.mixture.epoch())).collect();
        let resolved = toml::to_string(recipe).map_err(|error| refused(&error))?;
        if worker.is_first() {
            out.clear_unfinished()?;
        }
        let mut model = Transformer::read(&source, recipe.dtype, worker.device)?;
        if let Some(start) = &recipe.lora {
            adapter::start(&mut model, start, recipe.seed)?;
        }
        let mut policy = LmPolicy::trained(model, Keep::Activations).among(worker.processes.clone());
        let origin = Origin {
            recipe: blake3::hash(resolved.as_bytes()).to_hex().to_string(),
            model: policy.model().fingerprint()?.to_hex().to_string(),
            data: StageData::fingerprint(&data),
        };
        worker.same("recipe, model or data", [&origin.recipe, &origin.model, &origin.data].map(String::clone))?;
        let search = Search { recipe, steps: &steps, folder: &checkpoints, metrics: &metrics_path };
        let mut found = None;
        let newest = worker.first(|| {
            found = if known { search.newest(&origin, tell)? } else { None };
            if !known {
                out.write(RECIPE, resolved.as_bytes())?;
            }
            OutputFolder::create(&checkpoints)?.clear_unfinished()?;
            Ok(found.as_ref().map(|found| found.checkpoint.progress().at))
        })?;
        let found = match (found, newest) {
            (None, Some(at)) => Some(search.at(at)?),
            (found, _) => found,
        };
        let checkpoints = OutputFolder::create(&checkpoints)?;
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
        let mut record = match worker.is_first() {
            true => Some(Written {
                metrics: Journal::cut(&metrics_path, length)?,
                events: EventFile::create(&out.path().join(TENSORBOARD), shown)?,
            }),
            false => None,
        };
        let cache = recipe.cache.as_deref().map(OutputFolder::create).transpose()?;
        for index in first..recipe.stage.len() {
            let mut stage = StageRun {
                run: self,
                index,
                stage: &recipe.stage[index],
                data: &data[index],
                steps: steps[index],
                before: index.checked_sub(1).map(|stage| Position { stage, step: steps[stage] }),
                made: steps[..index].iter().sum(),
                checkpoints: &checkpoints,
                origin: &origin,
                inherited: &inherited,
                record: record.as_mut(),
                best: None,
                teacher: None,
            };
            let resumed = resumed.filter(|_| index == first);
            let stopped = stage.run(&mut policy, cache.as_ref().unwrap_or(out), resumed)?;
            tell(Event::StageDone);
            if let Some(checkpoint) = stopped {
                return Ok(Ended::Stopped(checkpoint));
            }
        }
        worker.first(|| write_trained(&target, Appearing::New, recipe, &inherited, &policy))?;
        Ok(Ended::Finished(target))
    }
}

/// Writes what a checkpoint of a run holds, the newest unless a position is given, as the run itself would: a model, or adapters.
/// Answers its position.
///
/// # Errors
///
/// [`LmError::Checkpoint`] where there is none, or none of that position, and for one that is incomplete or damaged;
/// any other [`LmError`] for the run's recipe and model, and for what is there already.
pub fn export(run: &Path, at: Option<Position>, target: &Path) -> Result<Position, LmError> {
    let folder = run.join(CHECKPOINTS);
    let there = positions(&folder)?;
    let Some(at) = at.or(there.last().copied()).filter(|at| there.contains(at)) else {
        let known: Vec<_> = there.into_iter().map(Position::name).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let problem = match at {
            Some(at) => format!("there is no checkpoint {}; those that are there: {known}", at.name()),
            None => "there is no checkpoint".to_owned(),
        };
        return Err(LmError::Checkpoint { path: folder, problem });
    };
    folder::whole(target, Appearing::New, |new| {
        let recipe = Recipe::resolve(&run.join(RECIPE), &[])?;
        let checkpoint = Checkpoint::read(&folder.join(at.name()))?;
        let source = folder::find(&recipe.model)?;
        let text = Text::read(&source, &recipe.replaced(), recipe.now())?;
        let mut model = Transformer::read(&source, recipe.dtype, Device::Cpu)?;
        if let Some(start) = &recipe.lora {
            adapter::start(&mut model, start, recipe.seed)?;
        }
        let policy = LmPolicy::frozen(model);
        checkpoint.restore_weights(&policy)?;
        fill(new, &recipe, &inherited(&recipe, &source, &text), &policy)
    })?;
    Ok(at)
}

/// Files that the trained model takes over from the recipe's model.
fn inherited<'a>(recipe: &Recipe, source: &'a Path, text: &Text) -> Inherited<'a> {
    let eos = text.tokenizer.as_ref().map(Tokenizer::eos);
    Inherited {
        chat_template: recipe.chat_template.clone(),
        eos_token: recipe.eos_token.clone().zip(eos),
        ends: text.own_ends(),
        ..Inherited::new(source)
    }
}

/// Writes the trained adapters or the whole model as a folder that appears whole.
fn write_trained(
    target: &Path,
    appearing: Appearing,
    recipe: &Recipe,
    inherited: &Inherited<'_>,
    policy: &LmPolicy,
) -> Result<(), LmError> {
    folder::whole(target, appearing, |folder| fill(folder, recipe, inherited, policy))
}

/// Writes the files of such a folder.
fn fill(folder: &Path, recipe: &Recipe, inherited: &Inherited<'_>, policy: &LmPolicy) -> Result<(), LmError> {
    let parameters = policy.parameters();
    match policy.model().lora() {
        Some(lora) => adapter::fill(folder, &recipe.model, lora, Some(inherited), &parameters, recipe.dtype),
        None => folder::fill(folder, inherited, &parameters, recipe.dtype),
    }
}

fn refused(error: &toml::ser::Error) -> LmError {
    LmError::Recipe { origin: RECIPE.to_owned(), problem: error.to_string() }
}

/// Two runs in one folder would each undo what the other does.
fn lock(out: &OutputFolder) -> Result<FolderLock, LmError> {
    let problem = "another process trains into this folder";
    out.lock()?.ok_or_else(|| LmError::Taken { path: out.path().to_owned(), problem })
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
            problem: "a run is there already: with its recipe.toml, --resume continues it; another --out starts over",
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
            problem: format!(
                "{field}: the run that is to go on has {there}, and the recipe {here}; {} goes on with what was written",
                resumption(path)
            ),
        }),
    }
}

/// The command that resumes a run by the recipe that it wrote.
fn resumption(recipe: &Path) -> String {
    let out = recipe.parent().unwrap_or(Path::new("."));
    format!("`lm train {} --out {} --resume`", recipe.display(), out.display())
}

/// What a run goes on from.
struct Found {
    checkpoint: Checkpoint,
    /// What the stage began with, where its reference is asked and that is not the recipe's model.
    before: Option<Checkpoint>,
}

/// Where a run that goes on looks for its checkpoint.
struct Search<'a> {
    recipe: &'a Recipe,
    /// Of each stage.
    steps: &'a [u64],
    folder: &'a Path,
    metrics: &'a Path,
}

impl Search<'_> {
    /// The checkpoint of a position, held against its files.
    fn at(&self, at: Position) -> Result<Found, LmError> {
        let Self { recipe, steps, folder, metrics } = self;
        let path = folder.join(at.name());
        let refuse = |problem: String| LmError::Checkpoint { path: path.clone(), problem };
        let checkpoint = Checkpoint::read(&path)?;
        let progress = checkpoint.progress();
        if progress.at != at {
            return Err(refuse(format!("it says that it is {}", progress.at.name())));
        }
        let length = std::fs::metadata(metrics).map_or(0, |metadata| metadata.len());
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
    }

    /// The newest checkpoint that is complete. Others are passed over with a warning; where none is left, the run is refused.
    fn newest(&self, origin: &Origin, tell: &dyn Fn(Event<'_>)) -> Result<Option<Found>, LmError> {
        let mut problem = None;
        for at in positions(self.folder)?.into_iter().rev() {
            match self.at(at) {
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
}
