//! The fields of a training recipe, and their allowed values.

mod resolving;

use std::path::PathBuf;

use jiff::civil::{Date, DateTime};
use objective::{Anticipation, Configured, Freeze, Requirements, Source, Statistic};
use recipe::schema::names;
use schemars::JsonSchema;
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

pub use resolving::{declaration, default_now};

/// The list of stages.
const STAGE: &str = "stage";
/// The teacher of a stage: the model that `distillation` learns from.
pub(crate) const TEACHER: &str = "teacher";
/// Source of a stage's reference.
const REFERENCE: &str = "reference";

/// Maximum number of libtorch's threads, more than the cores of any machine.
const THREADS_MAX: usize = 1 << 12;
/// Maximum number of records of a step or a micro-batch, more than fit into any memory.
const RECORDS_MAX: usize = 1 << 20;
/// Maximum number of steps of a stage, so that the number of the stage's records does not overflow.
const STEPS_MAX: u64 = 1 << 40;

/// Everything that determines a run of `lm train`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Model to train: a folder, or a model of the hub as `owner/name`.
    pub model: String,
    /// Device that the model computes on: `cpu`, `cuda` or `cuda:INDEX`.
    #[schemars(extend("default" = "cpu"))]
    pub device: String,
    /// Type of the model's numbers, in computation and when it is saved.
    #[schemars(schema_with = "names::<Dtype>", extend("default" = "float32"))]
    pub dtype: Dtype,
    /// Seed of every source of randomness: the order of the data, the noise of lambda, and stochastic rounding.
    #[schemars(range(max = i64::MAX), extend("default" = 0))]
    pub seed: u64,
    /// Number of libtorch's threads on a CPU, on which the last bits of sums depend; 0 means one per core.
    #[schemars(range(max = THREADS_MAX), extend("default" = 0))]
    pub threads: usize,
    /// Date for chat templates that render it, so that no example depends on the day it is read.
    #[schemars(schema_with = "recipe::schema::date", extend("default" = "2024-07-26"))]
    pub date: Date,
    /// Jinja template that replaces the model's own chat template, also in the trained model. Base models have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<PathBuf>,
    /// Token that ends a response, in place of the tokenizer's `eos_token`, also in the trained model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eos_token: Option<String>,
    /// Folder of cached statistics of reference policies, by default the run's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<PathBuf>,
    /// Adapters to train while every other weight is frozen: `rank` and `alpha`, with `targets` and `rslora` if not
    /// their defaults, or `adapter = "FOLDER"` to continue one in PEFT's layout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<Start>,
    /// Stages in sequence, each beginning with the model of the previous one. A stage's field above the first stage
    /// applies to all stages.
    pub stage: Vec<Stage>,
}

/// A stage of training: one method on its data.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Order in which each data set is read.
    #[schemars(schema_with = "names::<Order>", extend("default" = "shuffled"))]
    pub order: Order,
    /// Maximum number of tokens of an example. Longer responses are truncated before their end markers.
    #[schemars(range(min = 1), extend("default" = 1024))]
    pub max_length: usize,
    /// Treatment of records that no method can learn from: malformed, empty or equal responses, prompts that leave no
    /// room for a response. `skip` counts them by kind, with the line of the first.
    #[schemars(schema_with = "names::<Invalid>", extend("default" = "error"))]
    pub invalid: Invalid,
    /// Records (demonstrations, pairs, labelled responses, groups) of an optimizer step.
    #[schemars(range(min = 1, max = RECORDS_MAX), extend("default" = 64))]
    pub batch: usize,
    /// Records that pass through the model at once. Results depend on it by rounding only.
    #[schemars(range(min = 1, max = RECORDS_MAX), extend("default" = 4))]
    pub micro_batch: usize,
    /// Arrangement of sequences in a batch. It changes results only by rounding.
    #[schemars(schema_with = "names::<Packing>", extend("default" = "packed"))]
    pub packing: Packing,
    /// Whether activations are computed a second time rather than kept: less memory, more time.
    #[schemars(extend("default" = false))]
    pub activation_checkpointing: bool,
    /// Number of epochs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = 1.0, "exclusiveMinimum" = 0.0, "x-instead-of" = "steps"))]
    pub epochs: Option<f64>,
    /// Length of the stage in optimizer steps, in place of `epochs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = STEPS_MAX), extend("x-instead-of" = "epochs"))]
    pub steps: Option<u64>,
    /// Maximum learning rate.
    #[schemars(extend("default" = 5e-7, "exclusiveMinimum" = 0.0))]
    pub learning_rate: f64,
    /// Course of the learning rate after its warm-up.
    #[schemars(schema_with = "names::<Shape>", extend("default" = "cosine"))]
    pub schedule: Shape,
    /// Share of the steps over which the learning rate rises from 0.
    #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0.1))]
    pub warmup_ratio: f64,
    /// Maximum norm of the gradient, to which it is clipped; `inf` does not clip.
    #[schemars(extend("default" = 10.0, "exclusiveMinimum" = 0.0, "x-infinite" = true))]
    pub clip_norm: f64,
    /// Treatment of small updates of 16-bit weights.
    #[schemars(schema_with = "names::<Precision>", extend("default" = "masters"))]
    pub precision: Precision,
    /// Source of the reference policy's statistics: computed before the stage and kept on disk (`cache`), or computed
    /// by a reference in memory (`hold`), which is the model without its adapters where it has some (`base`). With
    /// adapters, the default is `base` while they add nothing yet, and `hold` after that.
    #[schemars(schema_with = "names::<Keeping>", extend("default" = "cache"))]
    pub reference: Keeping,
    /// Model that distillation learns from, with the policy's tokenizer: a folder, or a model of the hub.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher: Option<String>,
    /// Steps from one evaluation to the next; 0 evaluates before the first step and after the last one only.
    #[schemars(extend("default" = 0))]
    pub evaluate_every: u64,
    /// Steps from one checkpoint to the next; 0 writes one at the end of the stage and on Ctrl-C or SIGTERM only.
    /// `--resume` continues a checkpoint bit for bit.
    #[schemars(extend("default" = 0))]
    pub checkpoint_every: u64,
    /// Number of the newest checkpoints that are kept.
    #[schemars(range(min = 1), extend("default" = 2))]
    pub keep_last: usize,
    /// Whether the model with the best held-out score of the stage is kept too, in OUT/best.
    #[schemars(extend("default" = false))]
    pub keep_best: bool,
    /// Metric that scores a model, greater values being better; by default the loss, smaller values being better.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best: Option<String>,
    /// Optimizer: a table of its `name` and parameters, which have PyTorch's defaults.
    #[schemars(schema_with = "recipe::schema::optimizer", extend("default" = { "name": "rmsprop" }))]
    pub optimizer: OptimizerSettings,
    /// Method: a table of its `name` and parameters, which have the defaults of the method. `ift` has
    /// `freeze_embeddings = "all"`, as its authors' code.
    pub method: Configured,
    /// Training data.
    #[schemars(length(min = 1))]
    pub data: Vec<DataSet>,
    /// Held-out data.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evaluation: Vec<DataSet>,
}

/// A file of data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataSet {
    /// File of JSON lines, a JSON list or Parquet.
    pub path: PathBuf,
    /// Weight in the mixture, by default the number of records, so that each is read once per epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub weight: Option<f64>,
    /// Part of each line that becomes a demonstration.
    #[serde(default)]
    #[schemars(schema_with = "names::<Learnt>")]
    pub learnt: Learnt,
    /// Number of the first records to read, not counting skipped ones; by default all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub limit: Option<usize>,
}

/// Treatment of records that no method can learn from: malformed, empty, equal, too long, of another kind, or
/// impossible to encode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, VariantNames, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Invalid {
    /// Report the first such record as an error, with its line.
    Error,
    /// Skip such records, and count them by kind.
    Skip,
}

/// Source of the reference policy's statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Display, EnumString, VariantNames, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Keeping {
    /// Statistics are computed before the stage and cached on disk, so that only one model is in memory.
    Cache,
    /// The reference stays in memory, and computes statistics on demand. If the model has adapters, only the adapters
    /// are copied.
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
                steps.min(STEPS_MAX)
            }
        }
    }

    fn validate(&self, place: &dyn Fn(&str) -> String) -> Result<(), LmError> {
        if self.keep_best && self.evaluation.is_empty() {
            return Err(refuse(&place("keep_best"), "false, as there are no held-out data to tell the best by", true));
        }
        if let Some(best) = self.best.as_ref().filter(|_| !self.keep_best) {
            return Err(refuse(&place("best"), "nothing, as keep_best is false", best));
        }
        for (index, set) in self.evaluation.iter().enumerate() {
            if let Some(weight) = set.weight {
                let field = place(&format!("evaluation[{index}].weight"));
                return Err(refuse(&field, "nothing, as every record is measured once", weight));
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
