//! Transformers as tensors: the model, its statistics head, and the batches that it reads.
//!
//! - [`model`]: the transformer, a decoder in the style of Llama.
//! - [`head`]: token statistics from hidden states, and the pull-back of their cotangents.
//! - [`batch`]: sequences as tensors.

pub mod batch;
pub mod head;
pub mod model;
