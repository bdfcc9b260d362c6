//! The shape of a model, from the `config.json` of a Hugging Face folder.
//!
//! Supported are Llama (1, 2, 3), Mistral, Gemma (the first) and Qwen2. Rotary positions may have the form of the hub's
//! files (`rope_theta`, `rope_scaling`) or of transformers 5 (`rope_parameters`). Defaults are those of transformers.
//! Fields that do not influence the model's function are ignored; an unsupported value that would change it is an
//! error.

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

/// Name of the file in a model's folder.
pub const CONFIG_FILE: &str = "config.json";

/// Shape of a decoder-only transformer.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Family of the model.
    pub architecture: Architecture,
    /// Size of the vocabulary, which is the number of rows of the embedding table.
    pub vocabulary: usize,
    /// Size of a hidden state.
    pub hidden_size: usize,
    /// Inner size of a layer's feed-forward network.
    pub intermediate_size: usize,
    /// Number of layers.
    pub layers: usize,
    /// Number of query heads.
    pub heads: usize,
    /// Number of key-value heads; each is shared by `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Size of a head; not always `hidden_size / heads`.
    pub head_dim: usize,
    /// Constant that the RMS norm adds to the mean square before the root.
    pub rms_norm_eps: f64,
    /// Whether the output weights are the embedding table.
    pub tied_embeddings: bool,
    /// Activation function of the feed-forward network's gate.
    pub activation: Activation,
    /// Linear maps that have a bias.
    pub biases: Biases,
    /// For each layer, the number of tokens that a query attends to, including its own; `None` for all tokens before
    /// it.
    pub windows: Vec<Option<usize>>,
    /// Rotary position embedding.
    pub rope: Rope,
    /// Maximum length of a sequence that the model supports, in tokens.
    pub positions: usize,
    /// Token that begins a sequence.
    pub bos: Option<u32>,
    /// Tokens that end a sequence.
    pub eos: Vec<u32>,
    /// Type in which the weights are stored, if the file names it.
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
    /// Gemma 1: scaled embeddings, and norms that multiply by 1 + w.
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
    /// SiLU, x · sigmoid(x).
    Silu,
    /// GELU, x · Φ(x), where Φ is the normal distribution function.
    Gelu,
    /// GELU with Φ approximated by tanh.
    GeluPytorchTanh,
}

/// Linear maps that have a bias.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Biases {
    /// Whether the maps to queries, keys and values have one.
    pub qkv: bool,
    /// Whether the output map of attention has one.
    pub output: bool,
    /// Whether the maps of the feed-forward network have one.
    pub feed_forward: bool,
}

/// Type of stored weights, by its name in PyTorch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Display, EnumString, VariantNames, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Dtype {
    /// 32-bit floating point.
    Float32,
    /// 16-bit floating point with 11 bits of precision.
    Float16,
    /// 16-bit floating point with 8 bits of precision and the exponent range of 32-bit numbers.
    Bfloat16,
}

/// Reads `config.json` of a model's folder.
///
/// # Errors
///
/// As [`parse_config`]; [`LmError::File`] if there is no such file.
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
            allowed: "0, as dropout is not supported in training; set it to 0 to train this model".to_owned(),
            given: given.to_string(),
        }),
    }
}

/// Parses the text of `config.json`. Errors refer to the file as `path`.
///
/// # Errors
///
/// [`LmError::Json`] for invalid JSON and fields of a wrong type, [`LmError::Field`] for an unsupported architecture or
/// value.
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
