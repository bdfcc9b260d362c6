//! A model's shape, as `config.json` of a Hugging Face folder says it.
//!
//! Llama (1, 2, 3), Mistral, Gemma (the first) and Qwen2. Rotary positions are read as the hub's files write them (`rope_theta`,
//! `rope_scaling`) and as transformers 5 does (`rope_parameters`). Defaults are those of transformers. A file has many fields that
//! say nothing about the function that the model is, and these are passed over; one that would change it is never ignored.

mod reading;
mod rope;
#[cfg(test)]
mod tests;

use std::path::Path;

use serde::{Deserialize, Serialize};
use strum::{Display, EnumString, IntoStaticStr, VariantNames};

use crate::error::LmError;
use reading::{Raw, Reader};
pub use rope::{Rope, RopeScaling};
use text::json;

/// The file's name in a model's folder.
pub const CONFIG_FILE: &str = "config.json";

/// A decoder-only transformer's shape.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Which family of models it is of.
    pub architecture: Architecture,
    /// Number of tokens that it knows, the rows of its embedding table.
    pub vocabulary: usize,
    /// Numbers in a hidden state.
    pub hidden_size: usize,
    /// Numbers between the two halves of a layer's feed-forward network.
    pub intermediate_size: usize,
    /// Number of layers.
    pub layers: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values; each is shared by `heads / kv_heads` heads of queries.
    pub kv_heads: usize,
    /// Numbers in a head. Not always `hidden_size / heads`.
    pub head_dim: usize,
    /// What is added to the mean square before its root.
    pub rms_norm_eps: f64,
    /// The output's weights are the embedding table.
    pub tied_embeddings: bool,
    /// The feed-forward network's gate.
    pub activation: Activation,
    /// Which linear maps have a bias.
    pub biases: Biases,
    /// For each layer, how many tokens a query sees, itself included; none means all before it.
    pub windows: Vec<Option<usize>>,
    /// Rotary positions.
    pub rope: Rope,
    /// The longest sequence that the model was made for, in tokens.
    pub positions: usize,
    /// The token that begins a sequence.
    pub bos: Option<u32>,
    /// The tokens that end one.
    pub eos: Vec<u32>,
    /// What the weights are stored in, where the file says so.
    pub dtype: Option<Dtype>,
}

/// A family of models, by the name of its class in transformers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Display, EnumString, IntoStaticStr, VariantNames)]
pub enum Architecture {
    /// Llama 1, 2 and 3.
    #[strum(serialize = "LlamaForCausalLM")]
    Llama,
    /// Mistral: attention within a sliding window.
    #[strum(serialize = "MistralForCausalLM")]
    Mistral,
    /// Gemma, the first: scaled embeddings, and norms that multiply by 1 + w.
    #[strum(serialize = "GemmaForCausalLM")]
    Gemma,
    /// Qwen2 and 2.5: biases of queries, keys and values.
    #[strum(serialize = "Qwen2ForCausalLM")]
    Qwen2,
}

/// A feed-forward network's activation function, by its name in transformers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Display, EnumString, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Activation {
    /// x · sigmoid(x).
    Silu,
    /// x · Φ(x), Φ the normal distribution function.
    Gelu,
    /// The same with Φ approximated by tanh.
    GeluPytorchTanh,
}

/// Which linear maps have a bias.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Biases {
    /// Queries, keys and values.
    pub qkv: bool,
    /// The output of attention.
    pub output: bool,
    /// The feed-forward network.
    pub feed_forward: bool,
}

/// What weights are stored in, by its name in PyTorch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Display, EnumString, VariantNames, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Dtype {
    /// 32 bits.
    Float32,
    /// 16 bits, 11 of them of precision.
    Float16,
    /// 16 bits, 8 of them of precision and the range of 32.
    Bfloat16,
}

/// Reads `config.json` of a model's folder.
///
/// # Errors
///
/// As [`parse_config`]; [`LmError::File`] where there is no such file.
pub fn read_config(folder: &Path) -> Result<ModelConfig, LmError> {
    let path = folder.join(CONFIG_FILE);
    parse_config(&path, &json::read_text(&path)?)
}

/// Refuses to train a model with `attention_dropout`, which is not supported here. It has an effect in training only.
///
/// # Errors
///
/// As [`read_config`].
pub fn refuse_dropout(folder: &Path) -> Result<(), LmError> {
    const FIELD: &str = "attention_dropout";
    let path = folder.join(CONFIG_FILE);
    let fields: serde_json::Map<String, serde_json::Value> = json::read(&path)?;
    match fields.get(FIELD).filter(|given| !given.is_null() && given.as_f64() != Some(0.0)) {
        None => Ok(()),
        Some(given) => Err(LmError::Field {
            path,
            field: FIELD.to_owned(),
            allowed: "0, as models are trained without dropout here; set it to 0 to train this model".to_owned(),
            given: given.to_string(),
        }),
    }
}

/// The model that the text of `config.json` describes. `path` is what errors call it.
///
/// # Errors
///
/// [`LmError::Json`] for text that is not JSON and fields of another type, [`LmError::Field`] for an architecture or a value
/// that is none of those that we compute.
///
/// # Examples
///
/// ```
/// let text = r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 96, "hidden_size": 32, "intermediate_size": 64,
///     "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "rope_theta": 500000.0}"#;
/// let config = lm::checkpoint::config::parse_config("config.json".as_ref(), text)?;
/// assert_eq!((config.head_dim, config.rope.theta), (8, 500_000.0));
/// # Ok::<(), lm::error::LmError>(())
/// ```
pub fn parse_config(path: &Path, text: &str) -> Result<ModelConfig, LmError> {
    let mut json = serde_json::Deserializer::from_str(text);
    let raw: Raw = serde_path_to_error::deserialize(strict_json::Strict(&mut json)).map_err(|error| LmError::Json {
        path: path.to_owned(),
        field: error.path().to_string(),
        source: error.into_inner(),
    })?;
    json.end().map_err(|source| LmError::Json { path: path.to_owned(), field: ".".to_owned(), source })?;
    Reader { path, raw }.read()
}
