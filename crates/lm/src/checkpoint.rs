//! Models as files, in the layout of Hugging Face folders.
//!
//! - [`config`]: the shape of a model, from `config.json`.
//! - [`generation_config`]: the tokens that end a response and the sampling defaults, from `generation_config.json`.
//! - [`weights`]: the weights of a model, from one or several files of safetensors.
//! - `finite`: the check that all weights are finite.
//! - [`folder`]: the folder of a model, on this machine or on the hub.
//! - [`lora`]: the linear maps that have low-rank adapters, and their first values.
//! - [`adapter`]: low-rank adapters as PEFT's files.
//! - [`mod@merge`]: the addition of adapters to the weights of their model.

pub mod adapter;
pub mod config;
pub(crate) mod finite;
pub mod folder;
pub mod generation_config;
pub mod lora;
pub mod merge;
pub mod weights;
