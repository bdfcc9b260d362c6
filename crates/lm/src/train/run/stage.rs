//! One stage of a run: its steps, its evaluations, its checkpoints.

use std::path::PathBuf;

use ndarray_rand::rand_distr::{Distribution, StandardNormal};
use objective::{Anticipation, Metrics, ObjectiveState};
use program::OutputFolder;
use serde_json::Value;
use text::data::Line;
use text::example::Example;
use text::mixture::Place;
use text::random::generator;
use training::{Step, StepError, StepReport, StepSettings};

use super::data::StageData;
use super::metrics::{Row, Written};
use super::{BEST, Event, Run, write_trained};
use crate::checkpoint::folder::{Appearing, Inherited};
use crate::error::{LmError, refuse};
use crate::train::checkpoint::{Checkpoint, Origin, Position, Progress, positions};
use crate::train::micro_batch::{LmMicroBatch, Plan, plan};
use crate::train::optimizer::Optimizer;
use crate::train::policy::LmPolicy;
use crate::train::recipe::{Keeping, Stage};
use crate::train::reference::{Kept, Reference, Wanted};
use crate::train::teacher::Teacher;
use crate::transformer::model::tape::Keep;

/// Name of the score that is the loss, of which smaller values are better.
const LOSS: &str = "loss";

/// A stage in progress.
pub(super) struct StageRun<'a> {
    pub(super) run: Run<'a>,
    pub(super) index: usize,
    pub(super) stage: &'a Stage,
    pub(super) data: &'a StageData,
    pub(super) steps: u64,
    /// Position at which the stage before ended.
    pub(super) before: Option<Position>,
    /// Number of steps of all earlier stages of the run.
    pub(super) made: u64,
    pub(super) checkpoints: &'a OutputFolder,
    pub(super) origin: &'a Origin,
    /// Files that the written model takes over from the recipe's model.
    pub(super) inherited: &'a Inherited<'a>,
    /// Files of measurements, in the first process only.
    pub(super) record: Option<&'a mut Written>,
    pub(super) best: Option<f64>,
    /// Teacher of the method, if it has one.
    pub(super) teacher: Option<Teacher>,
}

/// State that changes from step to step, besides the policy.
struct Learning<'a> {
    optimizer: Optimizer,
    step: Step<'a>,
}

impl<'a> StageRun<'a> {
    /// Runs the stage; returns the checkpoint if it was stopped.
    pub(super) fn run(
        &mut self,
        policy: &mut LmPolicy,
        cache: &OutputFolder,
        resumed: Option<&Checkpoint>,
    ) -> Result<Option<PathBuf>, LmError> {
        let Self { run: Run { worker, recipe, stops, tell, .. }, stage, steps, .. } = *self;
        policy.keep(if stage.activation_checkpointing { Keep::LayerInputs } else { Keep::Activations });
        let reference = self.reference(policy, cache)?;
        let teacher =
            stage.teacher.as_ref().map(|name| Teacher::read(name, recipe.dtype, worker.device)).transpose()?;
        self.teacher = teacher;
        let optimizer = Optimizer::new(stage.optimizer, stage.precision, recipe.seed ^ self.index as u64);
        let mut learning = Learning { optimizer, step: Step::new(stage.method.objective()) };
        let mut done = 0;
        if let Some(checkpoint) = resumed {
            checkpoint.restore_weights(policy)?;
            checkpoint.restore_optimizer(policy, &mut learning.optimizer)?;
            let Progress { at, state, best, .. } = checkpoint.progress();
            done = at.step;
            learning.step.state_mut().clone_from(state);
            self.best = *best;
        }
        let (index, stages) = (self.index, recipe.stage.len());
        tell(Event::Stage { stage: index, stages, method: stage.method.method().name, steps, done });
        for step_index in done..steps {
            let before = self.progress(step_index, learning.step.state());
            let made = self.make(step_index, policy, &reference, &mut learning);
            self.rescue(made, before, policy, &learning)?;
            let after = step_index + 1;
            let is_stopped = worker.any(stops())?;
            let is_due = stage.checkpoint_every > 0 && after.is_multiple_of(stage.checkpoint_every);
            // After the last step, the end of the stage precedes a stop.
            if after < steps && (is_stopped || is_due) {
                let progress = self.progress(after, learning.step.state());
                let checkpoint = worker.first(|| self.save(progress, policy, &learning))?;
                if is_stopped {
                    return Ok(Some(checkpoint));
                }
            }
        }
        let before = self.progress(steps, learning.step.state());
        let evaluated = self.evaluate(policy, &reference, &mut learning.step, steps);
        self.rescue(evaluated, before, policy, &learning)?;
        let progress = self.progress(steps, learning.step.state());
        let checkpoint = worker.first(|| self.save(progress, policy, &learning))?;
        Ok(worker.any(stops())?.then_some(checkpoint))
    }

    /// Evaluates the policy if it is due, and makes a step.
    fn make(
        &mut self,
        step_index: u64,
        policy: &mut LmPolicy,
        reference: &Reference,
        learning: &mut Learning<'a>,
    ) -> Result<(), LmError> {
        let Self { stage, steps, .. } = *self;
        let Learning { optimizer, step } = learning;
        if step_index == 0 || (stage.evaluate_every > 0 && step_index.is_multiple_of(stage.evaluate_every)) {
            self.evaluate(policy, reference, step, step_index)?;
        }
        let plans = self.plans(step_index)?;
        let micro_batches = self.micro_batches(policy, reference, self.own(&plans))?;
        let (index, all) = (step_index as usize, steps as usize);
        let settings = StepSettings {
            learning_rate: stage.learning_rate * stage.schedule().factor(index, all),
            clip_norm: Some(stage.clip_norm),
            lambda: step.requirements().anticipation.at(stage.schedule().warmup(index, all), self.draw(step_index)),
        };
        let report = step
            .take(policy, optimizer, &micro_batches, settings)
            .map_err(|source| self.refuse(step_index, self.places(step_index, &source), source))?;
        let StepReport { loss, gradient_norm, metrics } = report;
        let row = Row {
            gradient_norm: Some(gradient_norm),
            learning_rate: Some(settings.learning_rate),
            ..self.row(step_index, false, loss, &metrics, &plans)
        };
        let sequences = plans.iter().flat_map(|plan| &plan.sequences);
        let tokens = sequences.map(|sequence| sequence.prompt.len() + sequence.response.len()).sum();
        self.append(&row)?;
        (self.run.tell)(Event::Step { row: &row, tokens });
        Ok(())
    }

    fn append(&mut self, row: &Row) -> Result<(), LmError> {
        let Some(record) = &mut self.record else { return Ok(()) };
        record.append(row)?;
        record.events.row(self.made + row.step, row)
    }

    fn progress(&self, step: u64, state: &ObjectiveState) -> Progress {
        Progress {
            at: Position { stage: self.index, step },
            origin: self.origin.clone(),
            metrics: self.record.as_ref().map_or(0, |record| record.metrics.length()),
            state: state.clone(),
            best: self.best,
        }
    }

    /// Writes a checkpoint, and removes older ones that are no longer needed.
    fn save(&self, progress: Progress, policy: &LmPolicy, learning: &Learning<'_>) -> Result<PathBuf, LmError> {
        // A checkpoint relies on the metrics lines before it.
        self.record.as_ref().map_or(Ok(()), |record| record.metrics.sync())?;
        let at = progress.at;
        let written = Checkpoint::write(self.checkpoints, progress, policy, &learning.optimizer)?;
        // Until the stage is complete, its reference needs the initial weights.
        let is_needed = at.step < self.steps && Wanted::of(&self.stage.requirements()).is_some();
        let needed = self.before.filter(|_| is_needed);
        // Later ones are damaged, or the run would have resumed from them.
        let passed: Vec<_> =
            positions(self.checkpoints.path())?.into_iter().filter(|position| *position <= at).collect();
        for old in &passed[..passed.len().saturating_sub(self.stage.keep_last)] {
            if Some(*old) != needed {
                self.checkpoints.remove_folder(&old.name())?;
            }
        }
        Ok(written)
    }

    /// Writes a checkpoint of the state before a step that diverged.
    fn rescue(
        &self,
        made: Result<(), LmError>,
        before: Progress,
        policy: &LmPolicy,
        learning: &Learning<'_>,
    ) -> Result<(), LmError> {
        let Err(error) = made else { return Ok(()) };
        // An update may fail half-way, a loss may not: then the state is the one before the step.
        let is_whole = matches!(&error, LmError::Step { source, .. } if !matches!(**source, StepError::Policy(_)));
        // The state before the first step is already on disk.
        if is_whole
            && self.run.worker.is_first()
            && before.at.step > 0
            && let Err(other) = self.save(before, policy, learning)
        {
            (self.run.tell)(Event::Warning(&other));
        }
        Err(error)
    }

    /// Records of a step, by their places in the files.
    fn lines(&self, step: u64) -> impl Iterator<Item = (Place, &Line<Example>)> {
        let begin = step * self.stage.batch as u64;
        let places = self.data.mixture.examples(begin).take(self.stage.batch);
        places.map(|place| (place, self.data.line(place)))
    }

    /// Files and lines of the records of a step, or of the micro-batch with the error.
    fn places(&self, step: u64, error: &StepError<LmError>) -> Vec<(PathBuf, usize)> {
        let places: Vec<_> =
            self.lines(step).map(|(place, line)| (self.stage.data[place.set].path.clone(), line.line)).collect();
        match error {
            StepError::Policy(_) => Vec::new(),
            StepError::Batch { micro_batch, .. } => {
                let all = places.chunks(self.stage.micro_batch);
                let own = self.run.worker.share(all.len());
                all.skip(own.start).nth(*micro_batch).unwrap_or_default().to_vec()
            }
            StepError::Step { .. } | StepError::Split { .. } | StepError::Diverged { .. } | StepError::Ranks(_) => {
                places
            }
        }
    }

    /// Plans the records of a step as micro-batches.
    fn plans(&self, step: u64) -> Result<Vec<Plan<'_>>, LmError> {
        let records: Vec<_> = self.lines(step).map(|(_, line)| &line.record).collect();
        Ok(plan(&self.stage.requirements(), &records, self.stage.micro_batch)?)
    }

    fn evaluation_plans(&self) -> Result<Vec<Plan<'_>>, LmError> {
        let records: Vec<_> = self.data.evaluation.iter().map(|line| &line.record).collect();
        Ok(plan(&self.stage.requirements(), &records, self.stage.micro_batch)?)
    }

    /// This process's share of plans.
    fn own<'b, 'c>(&self, plans: &'b [Plan<'c>]) -> &'b [Plan<'c>] {
        &plans[self.run.worker.share(plans.len())]
    }

    fn reference(&self, policy: &LmPolicy, cache: &OutputFolder) -> Result<Reference, LmError> {
        let Some(wanted) = Wanted::of(&self.stage.requirements()) else { return Ok(Reference::None) };
        match self.stage.reference {
            Keeping::Hold => Ok(Reference::Held(Box::new(policy.copy()?))),
            Keeping::Base => Ok(Reference::Held(Box::new(policy.base()?))),
            Keeping::Cache => {
                let mut plans = self.own(&self.evaluation_plans()?).to_vec();
                for step in 0..self.steps {
                    plans.extend_from_slice(self.own(&self.plans(step)?));
                }
                let begun = |micro_batches| (self.run.tell)(Event::Reference(micro_batches));
                let done = || (self.run.tell)(Event::ReferenceDone);
                let frozen = policy.view()?;
                let packing = self.stage.packing;
                Ok(Reference::Kept(Kept::read_or_compute(&frozen, wanted, &plans, packing, cache, begun, done)?))
            }
        }
    }

    fn micro_batches(
        &self,
        policy: &LmPolicy,
        reference: &Reference,
        plans: &[Plan<'_>],
    ) -> Result<Vec<LmMicroBatch>, LmError> {
        let (requirements, packing) = (self.stage.requirements(), self.stage.packing);
        let mut micro_batches = reference.micro_batches(&requirements, policy.model(), plans, packing)?;
        if let Some(teacher) = &self.teacher {
            for (plan, micro_batch) in plans.iter().zip(&mut micro_batches) {
                teacher.fill(&requirements, plan, packing, micro_batch)?;
            }
        }
        Ok(micro_batches)
    }

    fn evaluate(
        &mut self,
        policy: &LmPolicy,
        reference: &Reference,
        step: &mut Step<'_>,
        step_index: u64,
    ) -> Result<(), LmError> {
        if self.data.evaluation.is_empty() {
            return Ok(());
        }
        let plans = self.evaluation_plans()?;
        let micro_batches = self.micro_batches(policy, reference, self.own(&plans))?;
        let lambda = step.requirements().anticipation.at(1.0, 0.0);
        let (loss, metrics) = step
            .evaluate(&policy.view()?, &micro_batches, lambda)
            .map_err(|source| self.refuse(step_index, Vec::new(), source))?;
        let row = self.row(step_index, true, loss, &metrics, &plans);
        self.append(&row)?;
        (self.run.tell)(Event::Evaluation(&row));
        self.keep_best(policy, &row)
    }

    /// Writes the model if its score is better than all before.
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
            let target = self.run.out.path().join(BEST);
            let write = || write_trained(&target, Appearing::Instead, self.run.recipe, self.inherited, policy);
            self.run.worker.first(write)?;
            self.best = Some(score);
        }
        Ok(())
    }

    fn row(&self, step: u64, held_out: bool, loss: f64, metrics: &Metrics, plans: &[Plan<'_>]) -> Row {
        let metrics = metrics.iter().map(|(metric, mean)| (metric.to_owned(), mean.into()));
        Row {
            stage: self.index,
            step,
            held_out,
            loss,
            metrics: metrics.collect(),
            gradient_norm: None,
            learning_rate: None,
            tokens: plans.iter().flat_map(|plan| &plan.sequences).map(|sequence| sequence.response.len()).sum(),
        }
    }

    /// Noise of λ at a step, determined by seed, stage and step.
    fn draw(&self, step: u64) -> f64 {
        if self.stage.requirements().anticipation == Anticipation::Off {
            return 0.0;
        }
        StandardNormal.sample(&mut generator([self.run.recipe.seed, self.index as u64, step]))
    }

    fn refuse(&self, step: u64, records: Vec<(PathBuf, usize)>, source: StepError<LmError>) -> LmError {
        LmError::Step { stage: self.index, step, records, source: Box::new(source) }
    }
}
