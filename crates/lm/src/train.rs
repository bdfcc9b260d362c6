//! Training runs.
//!
//! - [`recipe`]: the settings of a run.
//! - [`run`]: the stages of a recipe, their evaluations, and the resulting model.
//! - [`policy`]: a language model as the policy that objectives train.
//! - [`micro_batch`]: records as micro-batches.
//! - [`mod@reference`]: the log-probabilities of a frozen reference policy.
//! - [`teacher`]: the teacher of a distillation stage.
//! - [`optimizer`]: RMSprop, AdamW and SGD over a model's tensors.
//! - [`ranks`]: several processes of one run.
//! - [`checkpoint`]: the state of a run between two steps, from which it resumes.
//! - [`tensorboard`]: metrics as TensorBoard event files.

pub mod checkpoint;
pub mod micro_batch;
pub mod optimizer;
pub mod policy;
pub mod ranks;
pub mod recipe;
pub mod reference;
pub mod run;
pub mod teacher;
pub mod tensorboard;
