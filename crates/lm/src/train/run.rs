//! A run: every stage of a recipe, its evaluations, and the resulting model.

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

/// Name of the trained model's folder in the run's folder.
pub const MODEL: &str = "model";
/// Name of the trained adapters' folder, if adapters are trained.
pub const ADAPTER: &str = "adapter";
/// Name of the folder of the model or the adapters with the best held-out score.
pub const BEST: &str = "best";
/// Name of the metrics file, with a line per step and per evaluation.
pub const METRICS: &str = "metrics.jsonl";
/// Name of the file with the resolved recipe.
pub const RECIPE: &str = "recipe.toml";

/// Beginning of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// A new run in an empty folder.
    Anew,
    /// Resumption from the newest checkpoint in the folder, or a new run if there is none.
    Resumed,
}

/// End of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The run is complete, and the model is in this folder.
    Finished(PathBuf),
    /// The run was stopped, and can be resumed from this checkpoint.
    Stopped(PathBuf),
}

/// An event of a run, for progress messages.
#[derive(Debug)]
pub enum Event<'a> {
    /// A problem that does not stop the run.
    Warning(&'a LmError),
    /// Records of a data file were skipped, as no method can learn from them.
    Skipped {
        /// Path of the file.
        path: &'a Path,
        /// Number of records of the file that were read.
        records: usize,
        /// The skipped records.
        skipped: &'a Skipped,
    },
    /// The run resumes from a checkpoint.
    Resumed(Position),
    /// A stage begins or resumes.
    Stage {
        /// Number of the stage, from 0.
        stage: usize,
        /// Total number of stages.
        stages: usize,
        /// Name of the method.
        method: &'static str,
        /// Number of steps of the stage.
        steps: u64,
        /// Number of the stage's steps that were completed before.
        done: u64,
    },
    /// Statistics of the reference will be computed, in this many micro-batches.
    Reference(u64),
    /// The reference's statistics of one micro-batch are computed.
    ReferenceDone,
    /// A step is complete.
    Step {
        /// Measurements of the step.
        row: &'a Row,
        /// Number of prompt and response tokens that went through the model.
        tokens: usize,
    },
    /// An evaluation of the policy on held-out data.
    Evaluation(&'a Row),
    /// A stage is complete.
    StageDone,
}

/// Settings of a run.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// This process. The first of several processes writes files and reports events; the others read its files, so all
    /// of them must see the same folder.
    pub worker: &'a Worker,
    /// Recipe of the run.
    pub recipe: &'a Recipe,
    /// Folder of the model, the metrics, the checkpoints and the resolved recipe.
    pub out: &'a OutputFolder,
    /// Where the run begins.
    pub start: Start,
    /// Whether to stop, checked after each step.
    pub stops: &'a dyn Fn() -> bool,
    /// Receiver of events.
    pub tell: &'a dyn Fn(Event<'_>),
}

impl Run<'_> {
    /// Trains all stages of the recipe, and writes the model.
    ///
    /// A resumed run begins its stage from the stage's initial weights, to have the same reference, and then restores
    /// the checkpoint's state: everything else is a function of the recipe and the step.
    ///
    /// # Errors
    ///
    /// Any [`LmError`]. After a failed step, the folder has the metrics up to it and a checkpoint of the state before
    /// it, but no model.
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
        // Reads the data of all stages first, so that errors in them show before any training.
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
        // The metrics of completed stages stay.
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

/// Writes the model or the adapters of a checkpoint, the newest one by default, as the run itself would. Returns its
/// position.
///
/// # Errors
///
/// [`LmError::Checkpoint`] if there is none or none of that position, and for one that is incomplete or damaged; any
/// other [`LmError`] for the run's recipe and model, and for an existing target.
pub fn export(run: &Path, at: Option<Position>, target: &Path) -> Result<Position, LmError> {
    let folder = run.join(CHECKPOINTS);
    let there = positions(&folder)?;
    let Some(at) = at.or(there.last().copied()).filter(|at| there.contains(at)) else {
        let known: Vec<_> = there.into_iter().map(Position::name).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let problem = match at {
            Some(at) => format!("there is no checkpoint {}; existing ones: {known}", at.name()),
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

/// Writes the trained adapters or the whole model as a folder that appears once it is complete.
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

/// Locks the folder of a run, as two runs in one folder would overwrite each other's files.
fn lock(out: &OutputFolder) -> Result<FolderLock, LmError> {
    let problem = "another process is training into this folder";
    out.lock()?.ok_or_else(|| LmError::Taken { path: out.path().to_owned(), problem })
}

/// Rejects a folder whose contents would be overwritten.
fn is_free(target: &Path, parts: [&Path; 2]) -> Result<(), LmError> {
    if target.exists() {
        let source = std::io::Error::new(std::io::ErrorKind::AlreadyExists, "the trained model exists already");
        return Err(LmError::File { path: target.to_owned(), source });
    }
    match parts.into_iter().find(|part| part.exists()) {
        Some(part) => Err(LmError::Taken {
            path: part.to_owned(),
            problem: "it contains a run already: with its recipe.toml, --resume continues it; another --out starts over",
        }),
        None => Ok(()),
    }
}

/// Whether the folder has a run of this recipe; a run of another recipe is an error.
fn is_known(recipe: &Recipe, path: &Path) -> Result<bool, LmError> {
    if !path.exists() {
        return Ok(false);
    }
    match Recipe::resolve(path, &[])?.difference(recipe)? {
        None => Ok(true),
        Some((field, there, here)) => Err(LmError::Recipe {
            origin: path.display().to_string(),
            problem: format!(
                "{field}: the run to resume has {there}, but the recipe has {here}; to resume it unchanged, use {}",
                resumption(path)
            ),
        }),
    }
}

/// Command that resumes a run with the recipe that it wrote.
fn resumption(recipe: &Path) -> String {
    let out = recipe.parent().unwrap_or(Path::new("."));
    format!("`lm train {} --out {} --resume`", recipe.display(), out.display())
}

/// Checkpoints from which a run resumes.
struct Found {
    checkpoint: Checkpoint,
    /// Checkpoint with the initial weights of the stage, if its reference needs them and they are not the recipe's
    /// model.
    before: Option<Checkpoint>,
}

/// Search for the checkpoint to resume from.
struct Search<'a> {
    recipe: &'a Recipe,
    /// Number of steps of each stage.
    steps: &'a [u64],
    folder: &'a Path,
    metrics: &'a Path,
}

impl Search<'_> {
    /// Reads and verifies the checkpoint of a position.
    fn at(&self, at: Position) -> Result<Found, LmError> {
        let Self { recipe, steps, folder, metrics } = self;
        let path = folder.join(at.name());
        let refuse = |problem: String| LmError::Checkpoint { path: path.clone(), problem };
        let checkpoint = Checkpoint::read(&path)?;
        let progress = checkpoint.progress();
        if progress.at != at {
            return Err(refuse(format!("its contents are those of {}", progress.at.name())));
        }
        let length = std::fs::metadata(metrics).map_or(0, |metadata| metadata.len());
        if progress.metrics > length {
            let problem =
                format!("{METRICS} has {length} bytes, fewer than the {} at the checkpoint", progress.metrics);
            return Err(refuse(problem));
        }
        let needs_reference =
            recipe.stage.get(at.stage).is_some_and(|stage| Wanted::of(&stage.requirements()).is_some());
        let begun = steps.get(at.stage).is_some_and(|steps| at.step < *steps);
        let before = match at.stage.checked_sub(1).filter(|_| needs_reference && begun) {
            Some(stage) => Some(Checkpoint::read(&folder.join(Position { stage, step: steps[stage] }.name()))?),
            None => None,
        };
        Ok(Found { checkpoint, before })
    }

    /// Finds the newest complete checkpoint. Others are skipped with a warning; an error if none is left.
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
