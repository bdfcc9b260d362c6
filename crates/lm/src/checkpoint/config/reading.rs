//! Parsing of `config.json`: its fields, the defaults of transformers for absent fields, and the rejection of
//! unsupported values.

use std::path::Path;

use serde::{Deserialize, Deserializer};
use strum::VariantNames;

use super::rope::RawRope;
use super::{Activation, Architecture, Biases, Dtype, ModelConfig};
use crate::error::LmError;

/// Maximum of each size, so that the product of two does not overflow.
const MAX_SIZE: usize = (1 << 31) - 1;
/// Maximum number of layers, each of which has named tensors.
const MAX_LAYERS: usize = 10_000;
/// Maximum number of parameters, a thousand times as many as the largest models have.
const MAX_PARAMETERS: u128 = 1 << 50;

/// Fields of `config.json`. Absent and null fields are `None`.
#[derive(Deserialize)]
pub(super) struct Raw {
    architectures: Option<Vec<String>>,
    model_type: Option<String>,
    vocab_size: Option<usize>,
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    hidden_act: Option<String>,
    hidden_activation: Option<String>,
    rms_norm_eps: Option<f64>,
    tie_word_embeddings: Option<bool>,
    max_position_embeddings: Option<usize>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    use_bidirectional_attention: Option<bool>,
    quantization_config: Option<serde_json::Value>,
    use_sliding_window: Option<bool>,
    #[serde(default, deserialize_with = "present")]
    sliding_window: Option<Option<usize>>,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
    pub(super) rope_theta: Option<f64>,
    pub(super) rope_scaling: Option<RawRope>,
    pub(super) rope_parameters: Option<RawRope>,
    #[serde(default, deserialize_with = "present")]
    bos_token_id: Option<Option<u32>>,
    #[serde(default, deserialize_with = "present")]
    eos_token_id: Option<Option<OneOrMore>>,
    torch_dtype: Option<String>,
    dtype: Option<String>,
}

#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(u32),
    More(Vec<u32>),
}

/// Deserializes a field whose default is not null, so that null and absence differ.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Defaults of transformers that differ between model families.
struct Defaults {
    model_type: &'static str,
    kv_heads: Option<usize>,
    head_dim: Option<usize>,
    activation: &'static str,
    tied_embeddings: bool,
    positions: usize,
    sliding_window: Option<usize>,
    bos: Option<u32>,
    eos: Option<u32>,
}

impl Architecture {
    fn defaults(self) -> Defaults {
        let llama = Defaults {
            model_type: "llama",
            kv_heads: None,
            head_dim: None,
            activation: "silu",
            tied_embeddings: false,
            positions: 2048,
            sliding_window: None,
            bos: Some(1),
            eos: Some(2),
        };
        match self {
            Self::Llama => llama,
            Self::Mistral => Defaults {
                model_type: "mistral",
                kv_heads: Some(8),
                positions: 4096 * 32,
                sliding_window: Some(4096),
                ..llama
            },
            Self::Gemma => Defaults {
                model_type: "gemma",
                kv_heads: Some(16),
                head_dim: Some(256),
                activation: "gelu_pytorch_tanh",
                tied_embeddings: true,
                positions: 8192,
                bos: Some(2),
                eos: Some(1),
                ..llama
            },
            Self::Qwen2 => Defaults {
                model_type: "qwen2",
                kv_heads: Some(32),
                positions: 32768,
                sliding_window: Some(4096),
                bos: None,
                eos: None,
                ..llama
            },
        }
    }
}

/// A parsed file, and its path for errors.
pub(super) struct Reader<'a> {
    pub(super) path: &'a Path,
    pub(super) raw: Raw,
}

impl Reader<'_> {
    pub(super) fn read(&self) -> Result<ModelConfig, LmError> {
        let raw = &self.raw;
        let architecture = self.architecture()?;
        let defaults = architecture.defaults();
        self.reject_unsupported(architecture)?;
        let vocabulary = self.size("vocab_size", raw.vocab_size)?;
        let hidden_size = self.size("hidden_size", raw.hidden_size)?;
        let layers = self.size("num_hidden_layers", raw.num_hidden_layers)?;
        if layers > MAX_LAYERS {
            return Err(self.field("num_hidden_layers", format!("at most {MAX_LAYERS}"), layers));
        }
        let heads = self.size("num_attention_heads", raw.num_attention_heads)?;
        let kv_heads =
            self.size("num_key_value_heads", raw.num_key_value_heads.or(defaults.kv_heads).or(Some(heads)))?;
        if !heads.is_multiple_of(kv_heads) {
            return Err(self.field("num_key_value_heads", format!("a divisor of the {heads} heads"), kv_heads));
        }
        let qwen2 = architecture == Architecture::Qwen2;
        let attention_bias = raw.attention_bias.unwrap_or(false);
        let bos = raw.bos_token_id.unwrap_or(defaults.bos);
        let eos = match raw.eos_token_id.clone().unwrap_or(defaults.eos.map(OneOrMore::One)) {
            None => Vec::new(),
            Some(OneOrMore::One(id)) => vec![id],
            Some(OneOrMore::More(ids)) => ids,
        };
        for (field, ids) in [("bos_token_id", bos.as_slice()), ("eos_token_id", &eos)] {
            if let Some(id) = ids.iter().find(|id| **id as usize >= vocabulary) {
                return Err(self.field(field, format!("below vocab_size = {vocabulary}"), id));
            }
        }
        self.check_parameters(ModelConfig {
            architecture,
            vocabulary,
            hidden_size,
            intermediate_size: self.size("intermediate_size", raw.intermediate_size)?,
            layers,
            heads,
            kv_heads,
            head_dim: self.head_dim(hidden_size, heads, &defaults)?,
            rms_norm_eps: self.positive("rms_norm_eps", raw.rms_norm_eps.unwrap_or(1e-6))?,
            tied_embeddings: raw.tie_word_embeddings.unwrap_or(defaults.tied_embeddings),
            activation: self.activation(architecture, &defaults)?,
            biases: Biases {
                qkv: attention_bias || qwen2,
                output: attention_bias && !qwen2,
                feed_forward: raw.mlp_bias.unwrap_or(false),
            },
            windows: self.windows(architecture, layers, &defaults)?,
            rope: self.rope()?,
            positions: self
                .size("max_position_embeddings", raw.max_position_embeddings.or(Some(defaults.positions)))?,
            bos,
            eos,
            dtype: self.dtype()?,
        })
    }

    pub(super) fn field(&self, field: &str, allowed: impl ToString, given: impl ToString) -> LmError {
        let (path, field) = (self.path.to_owned(), field.to_owned());
        LmError::Field { path, field, allowed: allowed.to_string(), given: given.to_string() }
    }

    /// Parses a name out of a closed set of values.
    fn named<T: std::str::FromStr + VariantNames>(&self, field: &str, name: &str) -> Result<T, LmError> {
        name.parse().map_err(|_| self.field(field, format!("one of {}", T::VARIANTS.join(", ")), name))
    }

    pub(super) fn size(&self, field: &str, value: Option<usize>) -> Result<usize, LmError> {
        match value {
            Some(value) if value > MAX_SIZE => Err(self.field(field, format!("at most {MAX_SIZE}"), value)),
            Some(value) if value > 0 => Ok(value),
            Some(value) => Err(self.field(field, "at least 1", value)),
            None => Err(self.field(field, "at least 1", "nothing")),
        }
    }

    /// Checks the sizes together: their products must fit into memory addresses.
    fn check_parameters(&self, config: ModelConfig) -> Result<ModelConfig, LmError> {
        let product = |left: usize, right: usize| (left as u128) * (right as u128);
        let ModelConfig { vocabulary, hidden_size, intermediate_size, layers, heads, kv_heads, head_dim, .. } = config;
        for (field, count) in [("num_attention_heads", heads), ("num_key_value_heads", kv_heads)] {
            if product(count, head_dim) > MAX_SIZE as u128 {
                let allowed = format!("heads that have at most {MAX_SIZE} numbers together, {head_dim} in each");
                return Err(self.field(field, allowed, count));
            }
        }
        let heads = product(2, heads * head_dim) + product(2, kv_heads * head_dim);
        let layer = (heads + product(3, intermediate_size)).saturating_mul(hidden_size as u128);
        let parameters =
            layer.saturating_mul(layers as u128).saturating_add(product(2, vocabulary) * hidden_size as u128);
        if parameters > MAX_PARAMETERS {
            let field = "vocab_size, hidden_size, intermediate_size, num_hidden_layers";
            return Err(self.field(field, format!("at most {MAX_PARAMETERS} parameters"), parameters));
        }
        Ok(config)
    }

    pub(super) fn positive(&self, field: &str, value: f64) -> Result<f64, LmError> {
        if value > 0.0 { Ok(value) } else { Err(self.field(field, "a number above 0", value)) }
    }

    pub(super) fn at_least_one(&self, field: &str, value: Option<f64>) -> Result<f64, LmError> {
        match value {
            Some(value) if value >= 1.0 => Ok(value),
            Some(value) => Err(self.field(field, "at least 1", value)),
            None => Err(self.field(field, "at least 1", "nothing")),
        }
    }

    fn architecture(&self) -> Result<Architecture, LmError> {
        let architecture: Architecture = match self.raw.architectures.as_deref() {
            Some([name]) => self.named("architectures", name)?,
            given => {
                let allowed = format!("exactly one of {}", Architecture::VARIANTS.join(", "));
                return Err(self.field(
                    "architectures",
                    allowed,
                    given.map_or("nothing".into(), |names| names.join(", ")),
                ));
            }
        };
        let expected = architecture.defaults().model_type;
        match &self.raw.model_type {
            Some(given) if given != expected => {
                Err(self.field("model_type", format!("{expected} for {architecture}"), given))
            }
            _ => Ok(architecture),
        }
    }

    /// Rejects fields whose values would give the model an unsupported function.
    fn reject_unsupported(&self, architecture: Architecture) -> Result<(), LmError> {
        let raw = &self.raw;
        if raw.use_bidirectional_attention == Some(true) {
            return Err(self.field("use_bidirectional_attention", "false", true));
        }
        if let Some(given) = &raw.quantization_config {
            return Err(self.field("quantization_config", "nothing, as quantised weights are not supported", given));
        }
        let (attention_bias, mlp_bias) = match architecture {
            Architecture::Llama => (None, None),
            Architecture::Gemma => (None, Some(false)),
            Architecture::Mistral => (Some(false), Some(false)),
            // Qwen2 always has biases on queries, keys and values, and never on the output, whatever the file says.
            Architecture::Qwen2 => (Some(true), Some(false)),
        };
        for (field, given, only) in
            [("attention_bias", raw.attention_bias, attention_bias), ("mlp_bias", raw.mlp_bias, mlp_bias)]
        {
            if let (Some(given), Some(only)) = (given, only)
                && given != only
            {
                return Err(self.field(field, format!("{only} or nothing for {architecture}"), given));
            }
        }
        Ok(())
    }

    fn head_dim(&self, hidden_size: usize, heads: usize, defaults: &Defaults) -> Result<usize, LmError> {
        let head_dim = match self.raw.head_dim.or(defaults.head_dim) {
            Some(head_dim) => head_dim,
            None if hidden_size.is_multiple_of(heads) => hidden_size / heads,
            None => {
                let allowed = format!("given, as the {heads} heads do not divide hidden_size = {hidden_size}");
                return Err(self.field("head_dim", allowed, "nothing"));
            }
        };
        let head_dim =
            self.size("head_dim", Some(head_dim)).or_else(|error| if head_dim == 0 { Ok(0) } else { Err(error) })?;
        // Rotary positions rotate pairs of numbers.
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return Err(self.field("head_dim", "an even number above 0", head_dim));
        }
        Ok(head_dim)
    }

    fn activation(&self, architecture: Architecture, defaults: &Defaults) -> Result<Activation, LmError> {
        let raw = &self.raw;
        let (field, name) = match (architecture, &raw.hidden_activation, &raw.hidden_act) {
            // Gemma's first files say `gelu` and mean its tanh approximation; `hidden_activation` was added to correct
            // them.
            (Architecture::Gemma, Some(name), _) => ("hidden_activation", name.as_str()),
            (Architecture::Gemma, None, Some(name)) if name == "gelu" => return Ok(Activation::GeluPytorchTanh),
            (_, _, Some(name)) => ("hidden_act", name.as_str()),
            (_, _, None) => ("hidden_act", defaults.activation),
        };
        self.named(field, name)
    }

    fn windows(
        &self,
        architecture: Architecture,
        layers: usize,
        defaults: &Defaults,
    ) -> Result<Vec<Option<usize>>, LmError> {
        let raw = &self.raw;
        let window = raw.sliding_window.unwrap_or(defaults.sliding_window);
        if window == Some(0) {
            return Err(self.field("sliding_window", "at least 1 or null", 0));
        }
        if let Some(window) = window {
            self.size("sliding_window", Some(window))?;
        }
        let (window, first) = match architecture {
            Architecture::Mistral => (window, 0),
            Architecture::Qwen2 => {
                (window.filter(|_| raw.use_sliding_window == Some(true)), raw.max_window_layers.unwrap_or(28))
            }
            Architecture::Llama | Architecture::Gemma => match window {
                None => (None, 0),
                Some(given) => return Err(self.field("sliding_window", format!("null for {architecture}"), given)),
            },
        };
        let windows: Vec<_> = (0..layers).map(|layer| window.filter(|_| layer >= first)).collect();
        let Some(types) = &raw.layer_types else { return Ok(windows) };
        if types.len() != layers {
            return Err(self.field("layer_types", format!("one for each of {layers} layers"), types.len()));
        }
        let mut typed = Vec::with_capacity(layers);
        for (layer, name) in types.iter().enumerate() {
            let sliding = match name.as_str() {
                "full_attention" => None,
                "sliding_attention" if window.is_some() => window,
                given => {
                    let sliding = window.map_or("", |_| " or sliding_attention");
                    return Err(self.field(
                        &format!("layer_types[{layer}]"),
                        format!("full_attention{sliding}"),
                        given,
                    ));
                }
            };
            // Only Qwen2 reads this list; for other families it must agree with `sliding_window`.
            if architecture != Architecture::Qwen2 && sliding != windows[layer] {
                return Err(self.field(
                    &format!("layer_types[{layer}]"),
                    "a type that agrees with sliding_window",
                    name,
                ));
            }
            typed.push(sliding);
        }
        Ok(typed)
    }

    fn dtype(&self) -> Result<Option<Dtype>, LmError> {
        let (field, name) = match (&self.raw.dtype, &self.raw.torch_dtype) {
            (Some(name), _) => ("dtype", name),
            (None, Some(name)) => ("torch_dtype", name),
            (None, None) => return Ok(None),
        };
        self.named(field, name).map(Some)
    }
}
