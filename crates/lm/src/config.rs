//! A model's shape, as `config.json` of a Hugging Face folder says it.
//!
//! Llama (1, 2, 3), Mistral, Gemma (the first) and Qwen2. Rotary positions are read as the hub's files write them (`rope_theta`,
//! `rope_scaling`) and as transformers 5 does (`rope_parameters`). Defaults are those of transformers. A file has many fields that
//! say nothing about the function that the model is, and these are passed over; one that would change it is never ignored.

use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize};
use strum::{Display, EnumString, IntoStaticStr, VariantNames};

use crate::error::LmError;

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

/// Rotary positions.
///
/// # Formula
///
/// Position m turns the i-th pair of a head's numbers by the angle m fᵢ, where unscaled fᵢ = θ^(−2i / head_dim).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// The base θ.
    pub theta: f64,
    /// How frequencies are changed for sequences that are longer than the pretrained ones.
    pub scaling: RopeScaling,
}

/// How rotary frequencies are scaled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// As they are.
    Default,
    /// All divided by `factor`.
    Linear {
        /// What they are divided by, at least 1.
        factor: f64,
    },
    /// Llama 3: long wavelengths are divided by `factor`, short ones stay, and those between are interpolated.
    Llama3 {
        /// What low frequencies are divided by, at least 1.
        factor: f64,
        /// Wavelengths above `original_positions / low_freq_factor` are long.
        low_freq_factor: f64,
        /// Wavelengths below `original_positions / high_freq_factor` are short.
        high_freq_factor: f64,
        /// The longest sequence before scaling, in tokens.
        original_positions: usize,
    },
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
    let text = std::fs::read_to_string(&path).map_err(|source| LmError::File { path: path.clone(), source })?;
    parse_config(&path, &text)
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
/// let config = lm::config::parse_config("config.json".as_ref(), text)?;
/// assert_eq!((config.head_dim, config.rope.theta), (8, 500_000.0));
/// # Ok::<(), lm::error::LmError>(())
/// ```
pub fn parse_config(path: &Path, text: &str) -> Result<ModelConfig, LmError> {
    let mut json = serde_json::Deserializer::from_str(text);
    let raw: Raw = serde_path_to_error::deserialize(&mut json).map_err(|error| LmError::Json {
        path: path.to_owned(),
        field: error.path().to_string(),
        source: error.into_inner(),
    })?;
    json.end().map_err(|source| LmError::Json { path: path.to_owned(), field: ".".to_owned(), source })?;
    Reader { path, raw }.read()
}

/// The fields as the file has them. What is missing is none, as is what is null.
#[derive(Deserialize)]
struct Raw {
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
    attention_dropout: Option<f64>,
    use_bidirectional_attention: Option<bool>,
    quantization_config: Option<serde_json::Value>,
    use_sliding_window: Option<bool>,
    #[serde(default, deserialize_with = "present")]
    sliding_window: Option<Option<usize>>,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
    rope_theta: Option<f64>,
    rope_scaling: Option<RawRope>,
    rope_parameters: Option<RawRope>,
    #[serde(default, deserialize_with = "present")]
    bos_token_id: Option<Option<u32>>,
    #[serde(default, deserialize_with = "present")]
    eos_token_id: Option<Option<OneOrMore>>,
    torch_dtype: Option<String>,
    dtype: Option<String>,
}

#[derive(Clone, Deserialize)]
struct RawRope {
    rope_type: Option<String>,
    /// What `rope_type` was called before.
    r#type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<usize>,
    partial_rotary_factor: Option<f64>,
}

#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(u32),
    More(Vec<u32>),
}

/// Tells a field that is null from one that is missing, where the default is not null.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// What transformers takes where the file says nothing and families differ.
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

struct Reader<'a> {
    path: &'a Path,
    raw: Raw,
}

impl Reader<'_> {
    fn read(&self) -> Result<ModelConfig, LmError> {
        let raw = &self.raw;
        let architecture = self.architecture()?;
        let defaults = architecture.defaults();
        self.refuse_what_is_not_computed(architecture)?;
        let vocabulary = self.size("vocab_size", raw.vocab_size)?;
        let hidden_size = self.size("hidden_size", raw.hidden_size)?;
        let layers = self.size("num_hidden_layers", raw.num_hidden_layers)?;
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
        Ok(ModelConfig {
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

    fn field(&self, field: &str, allowed: impl ToString, given: impl ToString) -> LmError {
        let (path, field) = (self.path.to_owned(), field.to_owned());
        LmError::Field { path, field, allowed: allowed.to_string(), given: given.to_string() }
    }

    /// A value by its name, one of a closed set.
    fn named<T: std::str::FromStr + VariantNames>(&self, field: &str, name: &str) -> Result<T, LmError> {
        name.parse().map_err(|_| self.field(field, format!("one of {}", T::VARIANTS.join(", ")), name))
    }

    fn size(&self, field: &str, value: Option<usize>) -> Result<usize, LmError> {
        match value {
            Some(value) if value > 0 => Ok(value),
            Some(value) => Err(self.field(field, "at least 1", value)),
            None => Err(self.field(field, "at least 1", "nothing")),
        }
    }

    fn positive(&self, field: &str, value: f64) -> Result<f64, LmError> {
        if value > 0.0 { Ok(value) } else { Err(self.field(field, "a number above 0", value)) }
    }

    fn at_least_one(&self, field: &str, value: Option<f64>) -> Result<f64, LmError> {
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

    /// Fields that would make the model another function than the one that we compute.
    fn refuse_what_is_not_computed(&self, architecture: Architecture) -> Result<(), LmError> {
        let raw = &self.raw;
        if let Some(given) = raw.attention_dropout.filter(|dropout| *dropout != 0.0) {
            return Err(self.field("attention_dropout", "0", given));
        }
        if raw.use_bidirectional_attention == Some(true) {
            return Err(self.field("use_bidirectional_attention", "false", true));
        }
        if let Some(given) = &raw.quantization_config {
            return Err(self.field("quantization_config", "nothing: weights that are not quantised", given));
        }
        let (attention_bias, mlp_bias) = match architecture {
            Architecture::Llama => (None, None),
            Architecture::Gemma => (None, Some(false)),
            Architecture::Mistral => (Some(false), Some(false)),
            // Queries, keys and values have one whatever a file says, the output has none.
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
        // Rotary positions turn pairs of numbers.
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return Err(self.field("head_dim", "an even number above 0", head_dim));
        }
        Ok(head_dim)
    }

    fn activation(&self, architecture: Architecture, defaults: &Defaults) -> Result<Activation, LmError> {
        let raw = &self.raw;
        let (field, name) = match (architecture, &raw.hidden_activation, &raw.hidden_act) {
            // Gemma's first files say `gelu` and mean its approximation; `hidden_activation` came to correct them.
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
            // Only Qwen2 decides by this list; elsewhere it may repeat what holds anyway.
            if architecture != Architecture::Qwen2 && sliding != windows[layer] {
                return Err(self.field(&format!("layer_types[{layer}]"), "what sliding_window says", name));
            }
            typed.push(sliding);
        }
        Ok(typed)
    }

    fn rope(&self) -> Result<Rope, LmError> {
        let raw = &self.raw;
        let (place, scaling) = match (&raw.rope_parameters, &raw.rope_scaling) {
            (Some(_), Some(_)) => {
                return Err(self.field("rope_scaling", "nothing beside rope_parameters", "both"));
            }
            (Some(parameters), None) => ("rope_parameters", Some(parameters)),
            (None, scaling) => ("rope_scaling", scaling.as_ref()),
        };
        let inner_theta = scaling.and_then(|scaling| scaling.rope_theta);
        if let (Some(outer), Some(inner)) = (raw.rope_theta, inner_theta)
            && outer != inner
        {
            return Err(self.field("rope_theta", format!("{inner}, as {place} says"), outer));
        }
        let theta = self.positive("rope_theta", inner_theta.or(raw.rope_theta).unwrap_or(10_000.0))?;
        let scaling = match scaling {
            Some(scaling) => self.scaling(place, scaling)?,
            None => RopeScaling::Default,
        };
        Ok(Rope { theta, scaling })
    }

    fn scaling(&self, place: &str, raw: &RawRope) -> Result<RopeScaling, LmError> {
        let field = |name: &str| format!("{place}.{name}");
        if let Some(given) = raw.partial_rotary_factor.filter(|factor| *factor != 1.0) {
            return Err(self.field(&field("partial_rotary_factor"), "1", given));
        }
        let factor = || self.at_least_one(&field("factor"), raw.factor);
        let name = match (&raw.rope_type, &raw.r#type) {
            (Some(name), Some(other)) if name != other => {
                return Err(self.field(&field("type"), format!("{name}, as rope_type says"), other));
            }
            (Some(name), _) | (None, Some(name)) => name,
            (None, None) if place == "rope_parameters" => return Ok(RopeScaling::Default),
            (None, None) => return Err(self.field(&field("rope_type"), "default, linear or llama3", "nothing")),
        };
        match name.as_str() {
            "default" => Ok(RopeScaling::Default),
            "linear" => Ok(RopeScaling::Linear { factor: factor()? }),
            "llama3" => {
                let low_freq_factor =
                    self.positive(&field("low_freq_factor"), raw.low_freq_factor.unwrap_or(f64::NAN))?;
                let high_freq_factor =
                    self.positive(&field("high_freq_factor"), raw.high_freq_factor.unwrap_or(f64::NAN))?;
                // Frequencies between the two are interpolated, and divided by their difference.
                if high_freq_factor <= low_freq_factor {
                    let allowed = format!("above low_freq_factor = {low_freq_factor}");
                    return Err(self.field(&field("high_freq_factor"), allowed, high_freq_factor));
                }
                let name = field("original_max_position_embeddings");
                let original_positions = self.size(&name, raw.original_max_position_embeddings)?;
                Ok(RopeScaling::Llama3 { factor: factor()?, low_freq_factor, high_freq_factor, original_positions })
            }
            given => Err(self.field(&field("rope_type"), "one of default, linear, llama3", given)),
        }
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn sizes(architecture: &str) -> Value {
        json!({"architectures": [architecture], "vocab_size": 96, "hidden_size": 32, "intermediate_size": 64,
            "num_hidden_layers": 2, "num_attention_heads": 4})
    }

    fn with(mut config: Value, fields: Value) -> Value {
        config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        config
    }

    fn parse(config: &Value) -> Result<ModelConfig, LmError> {
        parse_config("config.json".as_ref(), &config.to_string())
    }

    #[track_caller]
    fn refused(architecture: &str, fields: Value, message: &str) {
        assert_eq!(
            parse(&with(sizes(architecture), fields)).unwrap_err().to_string(),
            format!("config.json: {message}")
        );
    }

    #[test]
    fn llama_takes_the_defaults_of_transformers() {
        let config = parse(&sizes("LlamaForCausalLM")).unwrap();
        let expected = ModelConfig {
            architecture: Architecture::Llama,
            vocabulary: 96,
            hidden_size: 32,
            intermediate_size: 64,
            layers: 2,
            heads: 4,
            kv_heads: 4,
            head_dim: 8,
            rms_norm_eps: 1e-6,
            tied_embeddings: false,
            activation: Activation::Silu,
            biases: Biases::default(),
            windows: vec![None, None],
            rope: Rope { theta: 10_000.0, scaling: RopeScaling::Default },
            positions: 2048,
            bos: Some(1),
            eos: vec![2],
            dtype: None,
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn rope_is_read_as_the_hub_and_as_transformers_5_write_it() {
        let llama3 = json!({"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192, "rope_type": "llama3"});
        let hub = json!({"rope_theta": 500000.0, "rope_scaling": llama3});
        let transformers5 = json!({"rope_parameters": with(llama3, json!({"rope_theta": 500000.0}))});
        let scaling =
            RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_positions: 8192 };
        for fields in [hub, transformers5] {
            let config = parse(&with(sizes("LlamaForCausalLM"), fields)).unwrap();
            assert_eq!(config.rope, Rope { theta: 500_000.0, scaling });
        }
        for fields in [
            json!({"rope_scaling": {"type": "linear", "factor": 2.0}}),
            json!({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}}),
        ] {
            let config = parse(&with(sizes("LlamaForCausalLM"), fields)).unwrap();
            assert_eq!(config.rope, Rope { theta: 10_000.0, scaling: RopeScaling::Linear { factor: 2.0 } });
        }
        let unscaled = json!({"rope_parameters": {"rope_theta": 1000.0, "rope_type": "default"}, "rope_scaling": null});
        assert_eq!(parse(&with(sizes("LlamaForCausalLM"), unscaled)).unwrap().rope.scaling, RopeScaling::Default);
    }

    #[test]
    fn rope_that_is_unknown_or_contradicts_itself_is_refused() {
        let refused = |fields, message| refused("LlamaForCausalLM", fields, message);
        refused(
            json!({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}),
            "rope_scaling.rope_type: expected one of default, linear, llama3, got yarn",
        );
        refused(json!({"rope_scaling": {"type": "linear"}}), "rope_scaling.factor: expected at least 1, got nothing");
        refused(
            json!({"rope_theta": 1.0, "rope_parameters": {"rope_theta": 2.0}}),
            "rope_theta: expected 2, as rope_parameters says, got 1",
        );
        refused(
            json!({"rope_parameters": {"rope_theta": 2.0}, "rope_scaling": {"type": "linear", "factor": 2.0}}),
            "rope_scaling: expected nothing beside rope_parameters, got both",
        );
        refused(
            json!({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192}}),
            "rope_scaling.high_freq_factor: expected above low_freq_factor = 4, got 4",
        );
        refused(
            json!({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}),
            "rope_parameters.partial_rotary_factor: expected 1, got 0.5",
        );
    }

    #[test]
    fn mistral_slides_unless_its_window_is_null() {
        let mistral = with(sizes("MistralForCausalLM"), json!({"num_key_value_heads": 2}));
        assert_eq!(parse(&mistral).unwrap().windows, [Some(4096); 2]);
        assert_eq!(parse(&with(mistral.clone(), json!({"sliding_window": 16}))).unwrap().windows, [Some(16); 2]);
        assert_eq!(parse(&with(mistral, json!({"sliding_window": null}))).unwrap().windows, [None; 2]);
    }

    #[test]
    fn gemma_ties_its_embeddings_and_means_the_approximate_gelu() {
        for fields in [
            json!({}),
            json!({"hidden_act": "gelu"}),
            json!({"hidden_act": "gelu", "hidden_activation": null}),
            json!({"hidden_act": "gelu", "hidden_activation": "gelu_pytorch_tanh"}),
        ] {
            let gemma = with(sizes("GemmaForCausalLM"), json!({"num_key_value_heads": 1}));
            let config = parse(&with(gemma, fields)).unwrap();
            assert_eq!(config.activation, Activation::GeluPytorchTanh);
            assert_eq!((config.head_dim, config.kv_heads), (256, 1));
            assert!(config.tied_embeddings);
            assert_eq!((config.bos, config.eos), (Some(2), vec![1]));
        }
    }

    #[test]
    fn qwen2_has_biases_where_others_have_none_and_slides_from_a_layer_on() {
        let qwen2 = with(sizes("Qwen2ForCausalLM"), json!({"num_key_value_heads": 2, "sliding_window": 8}));
        let config = parse(&qwen2).unwrap();
        assert_eq!(config.biases, Biases { qkv: true, output: false, feed_forward: false });
        assert_eq!(config.windows, [None; 2]);
        assert_eq!((config.bos, config.eos), (None, vec![]));
        let sliding = with(qwen2, json!({"use_sliding_window": true, "max_window_layers": 1}));
        assert_eq!(parse(&sliding).unwrap().windows, [None, Some(8)]);
        let types = json!({"layer_types": ["sliding_attention", "full_attention"]});
        assert_eq!(parse(&with(sliding, types)).unwrap().windows, [Some(8), None]);
    }

    #[test]
    fn ends_are_one_token_or_a_list_and_precision_has_two_names() {
        let fields = json!({"eos_token_id": [2, 3], "bos_token_id": null, "torch_dtype": "bfloat16"});
        let config = parse(&with(sizes("LlamaForCausalLM"), fields)).unwrap();
        assert_eq!((config.bos, config.eos, config.dtype), (None, vec![2, 3], Some(Dtype::Bfloat16)));
        let config = parse(&with(sizes("LlamaForCausalLM"), json!({"dtype": "float16"}))).unwrap();
        assert_eq!(config.dtype, Some(Dtype::Float16));
    }

    #[test]
    fn a_head_may_be_wider_than_its_share() {
        let config = parse(&with(sizes("LlamaForCausalLM"), json!({"head_dim": 16}))).unwrap();
        assert_eq!((config.head_dim, config.hidden_size / config.heads), (16, 8));
    }

    #[test]
    fn what_is_not_computed_is_refused_by_name() {
        let known = "LlamaForCausalLM, MistralForCausalLM, GemmaForCausalLM, Qwen2ForCausalLM";
        refused("GPT2LMHeadModel", json!({}), &format!("architectures: expected one of {known}, got GPT2LMHeadModel"));
        refused(
            "LlamaForCausalLM",
            json!({"architectures": null}),
            &format!("architectures: expected exactly one of {known}, got nothing"),
        );
        for (architecture, fields, message) in [
            (
                "LlamaForCausalLM",
                json!({"model_type": "qwen2"}),
                "model_type: expected llama for LlamaForCausalLM, got qwen2",
            ),
            (
                "LlamaForCausalLM",
                json!({"hidden_act": "relu"}),
                "hidden_act: expected one of silu, gelu, gelu_pytorch_tanh, got relu",
            ),
            ("LlamaForCausalLM", json!({"hidden_size": null}), "hidden_size: expected at least 1, got nothing"),
            ("LlamaForCausalLM", json!({"num_hidden_layers": 0}), "num_hidden_layers: expected at least 1, got 0"),
            (
                "LlamaForCausalLM",
                json!({"num_key_value_heads": 3}),
                "num_key_value_heads: expected a divisor of the 4 heads, got 3",
            ),
            ("LlamaForCausalLM", json!({"head_dim": 7}), "head_dim: expected an even number above 0, got 7"),
            (
                "LlamaForCausalLM",
                json!({"hidden_size": 33}),
                "head_dim: expected given, as the 4 heads do not divide hidden_size = 33, got nothing",
            ),
            (
                "LlamaForCausalLM",
                json!({"eos_token_id": [2, 96]}),
                "eos_token_id: expected below vocab_size = 96, got 96",
            ),
            ("LlamaForCausalLM", json!({"rms_norm_eps": -1.0}), "rms_norm_eps: expected a number above 0, got -1"),
            (
                "LlamaForCausalLM",
                json!({"torch_dtype": "int8"}),
                "torch_dtype: expected one of float32, float16, bfloat16, got int8",
            ),
            ("LlamaForCausalLM", json!({"attention_dropout": 0.1}), "attention_dropout: expected 0, got 0.1"),
            (
                "LlamaForCausalLM",
                json!({"sliding_window": 8}),
                "sliding_window: expected null for LlamaForCausalLM, got 8",
            ),
            (
                "LlamaForCausalLM",
                json!({"layer_types": ["full_attention", "chunked_attention"]}),
                "layer_types[1]: expected full_attention, got chunked_attention",
            ),
            (
                "LlamaForCausalLM",
                json!({"quantization_config": {"bits": 4}}),
                "quantization_config: expected nothing: weights that are not quantised, got {\"bits\":4}",
            ),
            (
                "MistralForCausalLM",
                json!({"num_key_value_heads": 2, "attention_bias": true}),
                "attention_bias: expected false or nothing for MistralForCausalLM, got true",
            ),
            (
                "GemmaForCausalLM",
                json!({"use_bidirectional_attention": true}),
                "use_bidirectional_attention: expected false, got true",
            ),
        ] {
            refused(architecture, fields, message);
        }
    }

    #[test]
    fn a_field_of_another_type_is_named() {
        let error = parse(&with(sizes("LlamaForCausalLM"), json!({"rope_scaling": {"factor": "8"}}))).unwrap_err();
        let message = error.to_string();
        assert!(message.starts_with("config.json: rope_scaling.factor: invalid type: string \"8\""), "{message}");
        let cut = parse_config("config.json".as_ref(), "{\"vocab_size\": 3").unwrap_err().to_string();
        assert!(cut.starts_with("config.json: ") && cut.contains("EOF"), "{cut}");
    }
}
