//! Models as tensors.
//!
//! - [`model`]: the transformer, a decoder in the style of Llama.
//! - [`head`]: statistics of tokens from hidden states, and their pull-back.
//! - [`batch`]: sequences as tensors.

pub mod batch;
pub mod head;
pub mod model;
