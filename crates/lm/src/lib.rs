//! Fine-tunes Hugging Face language models with the alignment objectives.
//!
//! - [`checkpoint`]: models as files: configuration, weights, adapters, and the folder that contains them.
//! - [`transformer`]: models as tensors: layers, the statistics head, and batches of sequences.
//! - [`train`]: training runs: recipes, policies, optimizers, references, teachers, processes and saved states.
//! - [`engine`]: generation of responses, many at a time.
//! - [`mod@serve`]: an OpenAI-compatible HTTP server of a model.
//! - [`inspect`]: log-probabilities of responses, and summaries of models and of memory.
//! - [`device`]: the device that computes, and [`transfer`] of numbers to it.
//! - [`link`]: the connection between the processes of a run.
//! - [`error`]: errors of the fine-tuner.

pub mod checkpoint;
mod cuda;
pub mod device;
pub mod engine;
pub mod error;
pub mod inspect;
pub mod link;
pub mod serve;
pub mod train;
pub mod transfer;
pub mod transformer;
