//! A run: every stage of a recipe, its evaluations, and the model that comes out.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use ndarray_rand::rand_distr::{Distribution, StandardNormal};
use objective::{Anticipation, Metrics, ObjectiveState, Requirements};
use program::OutputFolder;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::Serialize;
use serde_json::{Map, Value};
use training::{Moment, StepReport, StepSettings, Workspace, evaluate, step};

use crate::adapter;
use crate::data::{Line, Record, encode_lines, read_records};
use crate::device::device;
use crate::error::LmError;
use crate::example::{Encoder, Example};
use crate::folder::{self, Text};
use crate::micro_batch::{LmMicroBatch, Plan, plan};
use crate::mixture::{Mixture, Place, Share};
use crate::model::Transformer;
use crate::model::tape::Keep;
use crate::optimizer::Optimizer;
use crate::policy::LmPolicy;
use crate::recipe::{DataSet, Keeping, Overlong, Recipe, Stage};
use crate::reference::{Kept, Reference, Wanted};

/// The folder of the trained model in the run's own.
pub const MODEL: &str = "model";
/// The folder of the trained adapters, where these are what is trained.
pub const ADAPTER: &str = "adapter";
/// The file of what was measured, a line a step and a line an evaluation.
pub const METRICS: &str = "metrics.jsonl";
/// The file of the recipe as it was resolved.
pub const RECIPE: &str = "recipe.toml";

/// What a run tells of itself while it runs.
#[derive(Debug)]
pub enum Event<'a> {
    /// A stage begins.
    Stage {
        /// Its number, from 0.
        stage: usize,
        /// How many there are.
        stages: usize,
        /// The method's name.
        method: &'static str,
        /// How many steps it has.
        steps: u64,
    },
    /// The reference's statistics are computed, in so many micro-batches.
    Reference(u64),
    /// One of them is.
    ReferenceDone,
    /// A step was made.
    Step(&'a Row),
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

/// Trains what the recipe says and writes the model, the metrics and the resolved recipe to a folder that has no model yet.
///
/// # Errors
///
/// Any [`LmError`]. The metrics up to the refused step are then in the folder, and no model is.
pub fn train(recipe: &Recipe, out: &OutputFolder, tell: &dyn Fn(Event<'_>)) -> Result<PathBuf, LmError> {
    let (name, already) = match recipe.lora {
        Some(_) => (ADAPTER, "an adapter is there already"),
        None => (MODEL, "a model is there already"),
    };
    let target = out.path().join(name);
    if target.exists() {
        let source = std::io::Error::new(std::io::ErrorKind::AlreadyExists, already);
        return Err(LmError::File { path: target, source });
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
    out.write(RECIPE, toml::to_string(recipe).map_err(|error| refused(&error))?.as_bytes())?;
    let mut metrics = MetricsFile::create(&out.path().join(METRICS))?;
    let mut model = Transformer::read(&source, recipe.dtype, device)?;
    if let Some(start) = &recipe.lora {
        adapter::start(&mut model, start, recipe.seed)?;
    }
    let mut policy = LmPolicy::trained(model, Keep::Activations);
    let cache = recipe.cache.as_deref().map(OutputFolder::create).transpose()?;
    for (index, (stage, data)) in recipe.stage.iter().zip(&data).enumerate() {
        let steps = stage.steps(data.mixture.epoch());
        let mut run = StageRun { recipe, index, stage, data, steps, tell, metrics: &mut metrics };
        run.run(&mut policy, cache.as_ref().unwrap_or(out))?;
        tell(Event::StageDone);
    }
    match policy.model().lora() {
        Some(lora) => adapter::write(&target, &recipe.model, lora, &policy.parameters(), recipe.dtype)?,
        None => folder::write(&target, &source, &policy.parameters(), recipe.dtype)?,
    }
    Ok(target)
}

fn refused(error: &toml::ser::Error) -> LmError {
    LmError::Recipe { origin: RECIPE.to_owned(), problem: error.to_string() }
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

    fn record(&self, Place { set, example }: Place) -> &Record<Example> {
        &self.sets[set][example].record
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

/// What a run appends to, a line at a time.
struct MetricsFile {
    path: PathBuf,
    file: File,
}

impl MetricsFile {
    fn create(path: &Path) -> Result<Self, LmError> {
        let file = File::create(path).map_err(|source| LmError::File { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), file })
    }

    fn append(&mut self, row: &Row) -> Result<(), LmError> {
        let fail = |source| LmError::File { path: self.path.clone(), source };
        let line = serde_json::to_string(row).map_err(|error| fail(error.into()))? + "\n";
        self.file.write_all(line.as_bytes()).map_err(fail)
    }
}

/// One stage while it runs.
struct StageRun<'a> {
    recipe: &'a Recipe,
    index: usize,
    stage: &'a Stage,
    data: &'a StageData,
    steps: u64,
    tell: &'a dyn Fn(Event<'_>),
    metrics: &'a mut MetricsFile,
}

impl StageRun<'_> {
    fn run(&mut self, policy: &mut LmPolicy, cache: &OutputFolder) -> Result<(), LmError> {
        let Self { recipe, stage, steps, .. } = *self;
        let objective = stage.method.objective();
        policy.keep(if stage.activation_checkpointing { Keep::LayerInputs } else { Keep::Activations });
        let reference = self.reference(policy, cache)?;
        let (index, stages) = (self.index, recipe.stage.len());
        (self.tell)(Event::Stage { stage: index, stages, method: stage.method.method().name, steps });
        let mut optimizer = Optimizer::new(stage.optimizer, stage.precision, recipe.seed ^ self.index as u64);
        let (mut state, mut workspace) = (ObjectiveState::default(), Workspace::default());
        for step_index in 0..steps {
            if step_index == 0 || (stage.evaluate_every > 0 && step_index % stage.evaluate_every == 0) {
                self.evaluate(policy, &reference, &state, step_index, &mut workspace)?;
            }
            let plans = self.plans(step_index)?;
            let micro_batches = self.micro_batches(policy, &reference, &plans)?;
            let (index, all) = (step_index as usize, steps as usize);
            let settings = StepSettings {
                learning_rate: stage.learning_rate * stage.schedule().factor(index, all),
                clip_norm: Some(stage.clip_norm),
                moment: Moment { warmup: stage.schedule().warmup(index, all), draw: self.draw(step_index) },
            };
            let report = step(policy, &mut optimizer, objective, &mut state, &micro_batches, settings, &mut workspace)
                .map_err(|source| self.refuse(step_index, source))?;
            let StepReport { loss, gradient_norm, metrics } = report;
            let row = Row {
                gradient_norm: Some(gradient_norm),
                learning_rate: Some(settings.learning_rate),
                ..self.row(step_index, false, loss, &metrics, &micro_batches)
            };
            self.metrics.append(&row)?;
            (self.tell)(Event::Step(&row));
        }
        self.evaluate(policy, &reference, &state, steps, &mut workspace)
    }

    /// The records of a step as micro-batches.
    fn plans(&self, step: u64) -> Result<Vec<Plan<'_>>, LmError> {
        let begin = step * self.stage.batch as u64;
        let places = self.data.mixture.examples(begin).take(self.stage.batch);
        let records: Vec<_> = places.map(|place| self.data.record(place)).collect();
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
                .map_err(|source| self.refuse(step, source))?;
        let row = self.row(step, true, loss, &metrics, &micro_batches);
        self.metrics.append(&row)?;
        (self.tell)(Event::Evaluation(&row));
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

    fn refuse(&self, step: u64, source: training::StepError<LmError>) -> LmError {
        LmError::Step { stage: self.index, step, source: Box::new(source) }
    }
}
