//! The fields of a training recipe, and their allowed values.

mod resolving;

use std::path::PathBuf;

use jiff::civil::{Date, DateTime};
use objective::{Anticipation, Configured, Freeze, Requirements, Source, Statistic};
use serde::{Deserialize, Serialize};
use strum::{Display, EnumString, VariantNames};
use text::data::Learnt;
use text::mixture::Order;
use training::{OptimizerSettings, Schedule, Shape};

use crate::checkpoint::config::Dtype;
use crate::checkpoint::folder::Replaced;
use crate::checkpoint::lora::Start;
use crate::error::{LmError, refuse};
use crate::train::optimizer::Precision;
use crate::transformer::batch::Packing;

pub use resolving::default_now;

/// The list of stages.
const STAGE: &str = "stage";
/// The teacher of a stage: the model that `distillation` learns from.
pub(crate) const TEACHER: &str = "teacher";
/// Source of a stage's reference.
const REFERENCE: &str = "reference";

/// Limit of the engine's threads, more than any machine has cores.
const MOST_THREADS: usize = 1 << 12;
/// Limit of records of a step or a micro-batch, more than fit into any memory.
const MOST_RECORDS: usize = 1 << 20;
/// Limit of steps of a stage, so that the number of all its records can be counted.
const MOST_STEPS: u64 = 1 << 40;

/// Everything that determines a run.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// A folder, or a model of the hub as `owner/name`.
    pub model: String,
    /// Device that the model computes on.
    pub device: String,
    /// Type of the model's numbers, in computation and when it is saved.
    pub dtype: Dtype,
    /// Seed of every source of randomness.
    pub seed: u64,
    /// Number of libtorch's threads on a CPU: the order of a sum depends on it, and so do its last bits.
    pub threads: usize,
    /// Date for chat templates that render it.
    pub date: Date,
    /// A chat template, in place of the model's own; the trained model has it then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<PathBuf>,
    /// The token that ends a response, in place of the tokenizer's `eos_token`; the trained model's tokenizer has it
    /// then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eos_token: Option<String>,
    /// Folder of cached statistics of reference policies, by default the run's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<PathBuf>,
    /// The adapters that are trained, if not every weight is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<Start>,
    /// Stages in sequence, each beginning with the model of the previous one.
    pub stage: Vec<Stage>,
}

/// One method on its data.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// The order in which each data set is read.
    pub order: Order,
    /// The longest example, in tokens.
    pub max_length: usize,
    /// Treatment of records that no method can learn from.
    pub invalid: Invalid,
    /// Records of a step.
    pub batch: usize,
    /// Records that go through the model at once.
    pub micro_batch: usize,
    /// Arrangement of sequences in a batch.
    pub packing: Packing,
    /// Whether activations are computed a second time rather than kept.
    pub activation_checkpointing: bool,
    /// Number of epochs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<f64>,
    /// Optimizer steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// The greatest learning rate.
    pub learning_rate: f64,
    /// Course of the learning rate after its warm-up.
    pub schedule: Shape,
    /// Share of the steps over which the learning rate rises from 0.
    pub warmup_ratio: f64,
    /// The greatest norm of the gradient; may be infinite.
    pub clip_norm: f64,
    /// Treatment of small updates of 16-bit weights.
    pub precision: Precision,
    /// Source of the reference policy's statistics.
    pub reference: Keeping,
    /// The model that distillation learns from, a folder or a model of the hub, with the policy's tokenizer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher: Option<String>,
    /// Steps from one evaluation to the next; 0 for one before and one after.
    pub evaluate_every: u64,
    /// Steps from one checkpoint to the next; 0 for one at the stage's end.
    pub checkpoint_every: u64,
    /// The newest checkpoints that stay.
    pub keep_last: usize,
    /// Whether the model with the best held-out score stays too.
    pub keep_best: bool,
    /// The score: a metric, of which more is better; the loss, of which less is, unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best: Option<String>,
    /// The optimizer.
    pub optimizer: OptimizerSettings,
    /// The method, by name, with its parameters.
    pub method: Configured,
    /// Training data.
    pub data: Vec<DataSet>,
    /// Held-out data.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evaluation: Vec<DataSet>,
}

/// A file of data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSet {
    /// JSON lines, a JSON list or Parquet.
    pub path: PathBuf,
    /// Weight in the mixture, by default the number of records, so that each is read once per epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// Part of each line that becomes a demonstration.
    #[serde(default)]
    pub learnt: Learnt,
    /// Number of its first records to read, not counting skipped ones; all unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// Treatment of records that no method can learn from: malformed, empty, equal, too long, of another kind, or
/// impossible to encode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Invalid {
    /// Report the first as an error, with its line.
    Error,
    /// Skip them, and count them by kind.
    Skip,
}

/// Source of the reference policy's statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Display, EnumString, VariantNames, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Keeping {
    /// Statistics are computed before the stage and cached on disk, so that only one model is in memory.
    Cache,
    /// The reference stays in memory, and computes statistics on demand. With adapters, only these are copied.
    Hold,
    /// The model without its adapters computes statistics on demand.
    Base,
}

impl Recipe {
    /// Replacements for the model's own chat template and `eos_token`.
    pub fn replaced(&self) -> Replaced {
        Replaced { chat_template: self.chat_template.clone(), eos_token: self.eos_token.clone() }
    }

    /// Date and time for chat templates that render it.
    pub fn now(&self) -> DateTime {
        self.date.at(0, 0, 0, 0)
    }

    fn validate(&self) -> Result<(), LmError> {
        if self.dtype == Dtype::Float16 {
            return Err(refuse("dtype", "float32 or bfloat16, as small gradients vanish in float16", self.dtype));
        }
        if self.threads > MOST_THREADS {
            return Err(refuse("threads", format!("0 to {MOST_THREADS}; 0 is one a core"), self.threads));
        }
        for (index, stage) in self.stage.iter().enumerate() {
            let place = |field: &str| format!("{STAGE}[{index}].{field}");
            stage.validate(&place)?;
            let freeze = match stage.requirements().anticipation {
                Anticipation::Residual { freeze, .. } => freeze,
                Anticipation::Off => Freeze::All,
            };
            match &self.lora {
                None if stage.reference == Keeping::Base => {
                    return Err(refuse(&place(REFERENCE), "cache or hold, as there are no adapters", stage.reference));
                }
                Some(_) if freeze != Freeze::All => {
                    let allowed = "freeze_embeddings = \"all\", as adapters leave the embeddings as they are";
                    return Err(refuse(&place("method"), allowed, <&str>::from(freeze)));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Stage {
    /// The learning rate's course.
    pub fn schedule(&self) -> Schedule {
        Schedule { shape: self.schedule, warmup_ratio: self.warmup_ratio }
    }

    /// Requirements of the method.
    pub fn requirements(&self) -> Requirements {
        self.method.objective().requirements()
    }

    /// Number of steps of the stage, given the number of records of an epoch.
    pub fn steps(&self, epoch: u64) -> u64 {
        match (self.steps, self.epochs) {
            (Some(steps), _) => steps,
            (None, epochs) => {
                let steps = (epochs.unwrap_or(1.0) * epoch as f64 / self.batch as f64).ceil().max(1.0) as u64;
                steps.min(MOST_STEPS)
            }
        }
    }

    fn validate(&self, place: &dyn Fn(&str) -> String) -> Result<(), LmError> {
        let at_least_one = [
            ("max_length", self.max_length),
            ("batch", self.batch),
            ("micro_batch", self.micro_batch),
            ("keep_last", self.keep_last),
            ("data", self.data.len()),
            ("steps", self.steps.map_or(1, |steps| usize::try_from(steps).unwrap_or(usize::MAX))),
        ];
        for (field, value) in at_least_one {
            if value == 0 {
                return Err(refuse(&place(field), "at least 1", 0));
            }
        }
        for (field, value) in [("batch", self.batch), ("micro_batch", self.micro_batch)] {
            if value > MOST_RECORDS {
                return Err(refuse(&place(field), format!("at most {MOST_RECORDS}"), value));
            }
        }
        if let Some(steps) = self.steps.filter(|steps| *steps > MOST_STEPS) {
            return Err(refuse(&place("steps"), format!("at most {MOST_STEPS}"), steps));
        }
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            return Err(refuse(&place("learning_rate"), "a finite number above 0", self.learning_rate));
        }
        if self.clip_norm.is_nan() || self.clip_norm <= 0.0 {
            return Err(refuse(&place("clip_norm"), "a number above 0, or inf", self.clip_norm));
        }
        if self.keep_best && self.evaluation.is_empty() {
            return Err(refuse(&place("keep_best"), "false, as there are no held-out data to tell the best by", true));
        }
        if let Some(best) = self.best.as_ref().filter(|_| !self.keep_best) {
            return Err(refuse(&place("best"), "nothing, as keep_best is false", best));
        }
        if let Some(epochs) = self.epochs.filter(|epochs| !(*epochs > 0.0 && epochs.is_finite())) {
            return Err(refuse(&place("epochs"), "a finite number above 0", epochs));
        }
        if !(0.0..=1.0).contains(&self.warmup_ratio) {
            return Err(refuse(&place("warmup_ratio"), "0 to 1", self.warmup_ratio));
        }
        for (list, sets) in [("data", &self.data), ("evaluation", &self.evaluation)] {
            for (index, set) in sets.iter().enumerate() {
                let place = |field: &str| place(&format!("{list}[{index}].{field}"));
                if let Some(weight) = set.weight.filter(|weight| !(*weight > 0.0 && weight.is_finite())) {
                    return Err(refuse(&place("weight"), "a finite number above 0", weight));
                }
                if list == "evaluation"
                    && let Some(weight) = set.weight
                {
                    return Err(refuse(&place("weight"), "nothing, as every record is measured once", weight));
                }
                if set.limit == Some(0) {
                    return Err(refuse(&place("limit"), "at least 1", 0));
                }
            }
        }
        let requirements = self.requirements();
        match (&self.teacher, requirements.need_teacher()) {
            (None, true) => {
                let allowed = "a model with the policy's tokenizer, as the method learns from a teacher";
                return Err(refuse(&place(TEACHER), allowed, "nothing"));
            }
            (Some(teacher), false) => {
                return Err(refuse(&place(TEACHER), "nothing, as the method learns from no teacher", teacher));
            }
            _ => {}
        }
        let sampled = matches!(requirements.source, Source::Sampled(_));
        let is_headed = !requirements.statistics.is_disjoint(Statistic::Value | Statistic::Score);
        if is_headed || (sampled && !is_grouped(&requirements)) {
            let allowed = "a method that learns from data: it has no environment to sample responses in, and no head of \
                           values or scores";
            return Err(refuse(&place("method"), allowed, self.method.method().name));
        }
        Ok(())
    }
}

/// Whether responses with rewards are compared within groups: these may come from a file.
fn is_grouped(requirements: &Requirements) -> bool {
    requirements.data == objective::Data::Groups
}

fn fail(origin: &str, problem: impl ToString) -> LmError {
    LmError::Recipe { origin: origin.to_owned(), problem: problem.to_string() }
}
