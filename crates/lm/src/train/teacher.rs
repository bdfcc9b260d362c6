//! The teacher of a distillation stage: another model with the policy's tokenizer.

use std::path::Path;

use enumset::EnumSet;
use objective::{Constant, Requirements, Statistic, TokenStatistics};
use tch::Device;
use training::{Frozen, Policy};

use crate::checkpoint::config::{Dtype, ModelConfig, read_config};
use crate::checkpoint::folder::{self, Replaced, Text};
use crate::error::{LmError, refuse};
use crate::train::micro_batch::{LmMicroBatch, Plan};
use crate::train::policy::LmPolicy;
use crate::train::recipe::default_now;
use crate::transformer::batch::Packing;
use crate::transformer::model::Transformer;

/// A frozen model towards whose distributions a policy is trained.
#[derive(Debug)]
pub struct Teacher(LmPolicy);

impl Teacher {
    /// Rejects a teacher with another vocabulary than the policy's: log-probabilities of different vocabularies cannot
    /// be compared. `place` is the recipe's field.
    ///
    /// # Errors
    ///
    /// [`LmError::Record`] naming the teacher; any other [`LmError`] for a folder without a valid model.
    pub fn check(place: &str, name: &str, own: &Text, config: &ModelConfig) -> Result<(), LmError> {
        let source = folder::find(name)?;
        let theirs = read_config(&source)?;
        let text = Text::read(&source, &Replaced::default(), default_now()?)?;
        let is_same = match (&own.tokenizer, &text.tokenizer) {
            (Some(own), Some(theirs)) => own.has_vocabulary_of(theirs),
            (None, None) => true,
            _ => false,
        };
        if !is_same {
            return Err(refuse(
                place,
                "a model with the policy's tokenizer",
                format!("{name}, whose tokenizer differs"),
            ));
        }
        if theirs.vocabulary != config.vocabulary {
            let allowed = format!("a model with {} logits per token, like the policy", config.vocabulary);
            return Err(refuse(place, allowed, format!("{name}, which has {}", theirs.vocabulary)));
        }
        Ok(())
    }

    /// Reads the model of this name.
    ///
    /// # Errors
    ///
    /// Any [`LmError`] for a folder without a valid model.
    pub fn read(name: &str, dtype: Dtype, device: Device) -> Result<Self, LmError> {
        Ok(Self::of(Transformer::read(Path::new(&folder::find(name)?), dtype, device)?))
    }

    /// Makes a teacher of a model in memory.
    pub fn of(model: Transformer) -> Self {
        Self(LmPolicy::frozen(model))
    }

    /// Fills the columns of the teacher that an objective requires: its log-probabilities of the responses, and its
    /// distributions.
    ///
    /// # Errors
    ///
    /// [`LmError::Engine`] for a failure of libtorch.
    pub fn fill(
        &self,
        requirements: &Requirements,
        plan: &Plan<'_>,
        packing: Packing,
        micro_batch: &mut LmMicroBatch,
    ) -> Result<(), LmError> {
        // Rotary angles differ from model to model.
        let LmMicroBatch { states, tokens, .. } = plan.micro_batch(self.0.model(), packing)?;
        let forward = self.0.forward(&states)?;
        if requirements.constants.contains(Constant::TeacherLogProb) {
            let (wanted, mut statistics) = (EnumSet::only(Statistic::LogProb), TokenStatistics::default());
            self.0.statistics(&forward, Frozen::default(), &tokens, wanted, &mut statistics)?;
            micro_batch.constants.teacher_log_prob = statistics.log_prob;
        }
        micro_batch.teacher = requirements.teacher.is_some().then_some(forward);
        Ok(())
    }
}
