//! `generation_config.json` of a model's folder: tokens that end a response, and default sampling parameters.
//!
//! Libraries interpret the file differently. transformers samples only if `do_sample` is true, and then from the 50
//! most probable tokens unless `top_k` is set. vLLM ignores `do_sample` and takes absent fields from its API's
//! defaults. `lm generate` follows transformers, `lm serve` follows vLLM.

use std::path::Path;

use serde_json::{Map, Value};
use text::json;

use crate::error::LmError;

/// Name of the file in a model's folder.
pub const GENERATION_CONFIG_FILE: &str = "generation_config.json";

/// Default of `top_k` in transformers where `do_sample` is true.
const TOP_K: usize = 50;

/// Unsupported fields that change what transformers generates, each with the values that have no effect.
const UNSUPPORTED: [(&str, &[f64]); 25] = [
    ("bad_words_ids", &[]),
    ("begin_suppress_tokens", &[]),
    ("constraints", &[]),
    ("encoder_repetition_penalty", &[1.0]),
    ("epsilon_cutoff", &[0.0]),
    ("eta_cutoff", &[0.0]),
    ("exponential_decay_length_penalty", &[]),
    ("force_words_ids", &[]),
    ("forced_bos_token_id", &[]),
    ("forced_eos_token_id", &[]),
    ("guidance_scale", &[1.0]),
    ("max_time", &[]),
    ("min_length", &[0.0]),
    ("min_new_tokens", &[0.0]),
    ("no_repeat_ngram_size", &[0.0]),
    ("num_beam_groups", &[1.0]),
    ("num_beams", &[1.0]),
    ("penalty_alpha", &[0.0]),
    ("renormalize_logits", &[]),
    ("sequence_bias", &[]),
    ("stop_strings", &[]),
    ("suppress_tokens", &[]),
    ("top_h", &[]),
    ("typical_p", &[1.0]),
    ("watermarking_config", &[]),
];

/// Sampling parameters, each of which may be absent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SamplingParameters {
    /// Divisor of the logits; 0 takes the most probable token.
    pub temperature: Option<f64>,
    /// Number of most probable tokens to sample from; 0 means all.
    pub top_k: Option<usize>,
    /// Total probability of the most probable tokens to sample from; 1 means all.
    pub top_p: Option<f64>,
    /// Minimum probability of a sampled token, as a fraction of the greatest probability; 0 means any.
    pub min_p: Option<f64>,
    /// Repetition penalty: positive logits of tokens that already occur in the text are divided by it, negative ones
    /// are multiplied; 1 means no penalty.
    pub repetition_penalty: Option<f64>,
}

/// Contents of `generation_config.json`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationConfig {
    /// Tokens that end a response, if the file names them. They replace those of `config.json`.
    pub eos: Option<Vec<u32>>,
    /// Whether transformers samples tokens instead of taking the most probable one.
    pub do_sample: bool,
    /// Default sampling parameters.
    pub sampling: SamplingParameters,
    /// Unsupported fields of the file that change what transformers generates.
    pub unsupported: Vec<&'static str>,
}

impl SamplingParameters {
    /// Fills absent parameters from the other set.
    fn or(self, other: Self) -> Self {
        Self {
            temperature: self.temperature.or(other.temperature),
            top_k: self.top_k.or(other.top_k),
            top_p: self.top_p.or(other.top_p),
            min_p: self.min_p.or(other.min_p),
            repetition_penalty: self.repetition_penalty.or(other.repetition_penalty),
        }
    }

    /// Removes the file's `top_k`, `top_p` and `min_p`, which have no effect at temperature 0, and keeps those in
    /// `given`, which are then rejected as errors of the user.
    fn uncut(self, given: Self) -> Self {
        Self { top_k: given.top_k, top_p: given.top_p, min_p: given.min_p, ..self }
    }

    /// Removes parameters that have no effect.
    fn effective(self) -> Self {
        Self {
            top_k: self.top_k.filter(|top_k| *top_k != 0),
            top_p: self.top_p.filter(|top_p| *top_p != 1.0),
            min_p: self.min_p.filter(|min_p| *min_p != 0.0),
            repetition_penalty: self.repetition_penalty.filter(|penalty| *penalty != 1.0),
            ..self
        }
    }
}

impl GenerationConfig {
    /// Reads the file of a model's folder; empty if there is none.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn of(folder: &Path) -> Result<Self, LmError> {
        let path = folder.join(GENERATION_CONFIG_FILE);
        if path.exists() { Self::read(&path) } else { Ok(Self::default()) }
    }

    /// Reads a `generation_config.json`.
    ///
    /// # Errors
    ///
    /// [`LmError::File`], [`LmError::Json`], and [`LmError::Field`] for a value that is out of range.
    pub fn read(path: &Path) -> Result<Self, LmError> {
        Reader { path, fields: json::read(path)? }.read()
    }

    /// Combines the options `given` with the file as transformers does, for `lm generate`.
    #[must_use]
    pub fn as_transformers(&self, given: SamplingParameters) -> SamplingParameters {
        let own = match self.do_sample {
            true => SamplingParameters { temperature: Some(1.0), top_k: Some(TOP_K), ..SamplingParameters::default() },
            false => SamplingParameters::default(),
        };
        let greedy = SamplingParameters { temperature: Some(0.0), ..SamplingParameters::default() };
        let file =
            if self.do_sample { self.sampling } else { SamplingParameters { temperature: None, ..self.sampling } };
        Self::resolved(given, file.or(own).or(greedy))
    }

    /// Combines a request's fields `given` with the file as vLLM does, for `lm serve`.
    #[must_use]
    pub fn as_vllm(&self, given: SamplingParameters) -> SamplingParameters {
        let own = SamplingParameters { temperature: Some(1.0), ..SamplingParameters::default() };
        Self::resolved(given, self.sampling.or(own))
    }

    fn resolved(given: SamplingParameters, defaults: SamplingParameters) -> SamplingParameters {
        let sampling = given.or(defaults);
        let sampling = if sampling.temperature == Some(0.0) { sampling.uncut(given) } else { sampling };
        sampling.effective()
    }
}

/// Parsed file, and its path for errors.
struct Reader<'a> {
    path: &'a Path,
    fields: Map<String, Value>,
}

impl Reader<'_> {
    fn read(&self) -> Result<GenerationConfig, LmError> {
        let sampling = SamplingParameters {
            temperature: self.number("temperature", "a number of at least 0", |given| given >= 0.0)?,
            top_k: self.whole("top_k")?,
            top_p: self.number("top_p", "greater than 0, at most 1", |given| given > 0.0 && given <= 1.0)?,
            min_p: self.number("min_p", "0 to 1", |given| (0.0..=1.0).contains(&given))?,
            repetition_penalty: self.number("repetition_penalty", "a number above 0", |given| given > 0.0)?,
        };
        let do_sample = match self.field("do_sample") {
            None => false,
            Some(value) => value.as_bool().ok_or_else(|| self.refuse("do_sample", "true or false", value))?,
        };
        let asks = |(field, nothing): &(&'static str, &[f64])| match self.field(field) {
            None | Some(Value::Bool(false)) => false,
            Some(Value::Array(list)) => !list.is_empty(),
            Some(value) => value.as_f64().is_none_or(|value| !nothing.contains(&value)),
        };
        let unsupported = UNSUPPORTED.iter().filter(|field| asks(field)).map(|(field, _)| *field).collect();
        Ok(GenerationConfig { eos: self.eos()?, do_sample, sampling, unsupported })
    }

    /// Value of a field, unless it is absent or null.
    fn field(&self, name: &str) -> Option<&Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    fn refuse(&self, field: &str, allowed: &str, given: &Value) -> LmError {
        let (path, field, allowed) = (self.path.to_owned(), field.to_owned(), allowed.to_owned());
        LmError::Field { path, field, allowed, given: given.to_string() }
    }

    fn number(&self, field: &str, allowed: &str, is_allowed: fn(f64) -> bool) -> Result<Option<f64>, LmError> {
        let Some(value) = self.field(field) else { return Ok(None) };
        match value.as_f64().filter(|given| given.is_finite() && is_allowed(*given)) {
            Some(given) => Ok(Some(given)),
            None => Err(self.refuse(field, allowed, value)),
        }
    }

    fn whole(&self, field: &str) -> Result<Option<usize>, LmError> {
        let Some(value) = self.field(field) else { return Ok(None) };
        // Both 0 and -1 mean all tokens.
        let given = if value.as_i64() == Some(-1) { Some(0) } else { value.as_u64() };
        match given.and_then(|given| usize::try_from(given).ok()) {
            Some(given) => Ok(Some(given)),
            None => Err(self.refuse(field, "a whole number of at least 0, or -1", value)),
        }
    }

    fn eos(&self) -> Result<Option<Vec<u32>>, LmError> {
        const FIELD: &str = "eos_token_id";
        let Some(value) = self.field(FIELD) else { return Ok(None) };
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids = match value {
            Value::Array(values) => values.iter().map(id).collect(),
            value => id(value).map(|id| vec![id]),
        };
        ids.map(Some).ok_or_else(|| self.refuse(FIELD, "a token id, or a list of them", value))
    }
}

/// Contents of `generation_config.json` for a model that was trained to end its responses with `ends`; `None` if the
/// source's file, or its absence, already implies them. `source` is the folder of the model before training, `config`
/// the fields of its `config.json`, and `known` the end tokens that these name.
///
/// # Errors
///
/// As [`GenerationConfig::read`].
pub(crate) fn with_ends(
    source: &Path,
    config: &Map<String, Value>,
    known: &[u32],
    ends: &[u32],
) -> Result<Option<Map<String, Value>>, LmError> {
    let path = source.join(GENERATION_CONFIG_FILE);
    let is_there = path.exists();
    let known = GenerationConfig::of(source)?.eos.unwrap_or_else(|| known.to_vec());
    let mut all: Vec<u32> = ends.iter().copied().filter(|end| !known.contains(end)).collect();
    if all.is_empty() {
        return Ok(None);
    }
    all.extend(known);
    let mut fields: Map<String, Value> = if is_there {
        json::read(&path)?
    } else {
        // Readers of this file ignore these fields of `config.json`.
        let tokens = ["bos_token_id", "pad_token_id"].into_iter();
        tokens
            .filter_map(|name| Some((name.to_owned(), config.get(name).filter(|id| !id.is_null())?.clone())))
            .collect()
    };
    fields.insert("eos_token_id".to_owned(), all.into());
    Ok(Some(fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<GenerationConfig, String> {
        let reader = Reader { path: "g.json".as_ref(), fields: serde_json::from_str(text).unwrap() };
        reader.read().map_err(|error| error.to_string())
    }

    fn sampling(temperature: f64, top_k: Option<usize>, top_p: Option<f64>) -> SamplingParameters {
        SamplingParameters { temperature: Some(temperature), top_k, top_p, ..SamplingParameters::default() }
    }

    #[test]
    fn a_file_that_says_do_sample_is_drawn_from_as_transformers_does_and_any_by_serve_as_vllm_does() {
        let nothing = SamplingParameters::default();
        let file = parse(r#"{"do_sample": true, "temperature": 0.6, "top_p": 0.9, "eos_token_id": [7, 8]}"#).unwrap();
        assert_eq!(file.eos, Some(vec![7, 8]));
        assert_eq!(file.as_transformers(nothing), sampling(0.6, Some(50), Some(0.9)));
        assert_eq!(file.as_vllm(nothing), sampling(0.6, None, Some(0.9)));
        // Without `do_sample` transformers takes the most probable token.
        let file = parse(r#"{"temperature": 0.6, "top_k": 20, "eos_token_id": 7}"#).unwrap();
        assert_eq!((file.eos.as_deref(), file.as_transformers(nothing)), (Some(&[7][..]), sampling(0.0, None, None)));
        assert_eq!(file.as_vllm(nothing), sampling(0.6, Some(20), None));
        // Without a file nothing is sampled, and requests have the API's temperature.
        let none = GenerationConfig::default();
        assert_eq!(
            (none.as_transformers(nothing), none.as_vllm(nothing)),
            (sampling(0.0, None, None), sampling(1.0, None, None))
        );
    }

    #[test]
    fn whatever_a_file_says_can_be_said_otherwise() {
        let text = r#"{"do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.9, "min_p": 0.1, "repetition_penalty": 1.2}"#;
        let file = parse(text).unwrap();
        let penalised = |sampling: SamplingParameters| SamplingParameters { repetition_penalty: Some(1.2), ..sampling };
        let off =
            SamplingParameters { top_k: Some(0), top_p: Some(1.0), min_p: Some(0.0), ..SamplingParameters::default() };
        assert_eq!(file.as_transformers(off), penalised(sampling(0.6, None, None)));
        // At temperature 0 the file's truncations are dropped, and its other parameters are kept.
        let greedy = SamplingParameters { temperature: Some(0.0), ..SamplingParameters::default() };
        assert_eq!(file.as_transformers(greedy), penalised(sampling(0.0, None, None)));
        assert_eq!(
            file.as_vllm(SamplingParameters { top_k: Some(3), ..greedy }),
            penalised(sampling(0.0, Some(3), None))
        );
        let plain = SamplingParameters { repetition_penalty: Some(1.0), ..greedy };
        assert_eq!(file.as_vllm(plain), sampling(0.0, None, None));
    }

    #[test]
    fn values_out_of_range_are_rejected_and_unsupported_fields_are_named() {
        for (text, message) in [
            (r#"{"temperature": -1}"#, "g.json: temperature: expected a number of at least 0, got -1"),
            (r#"{"top_k": 1.5}"#, "g.json: top_k: expected a whole number of at least 0, or -1, got 1.5"),
            (r#"{"top_p": 0}"#, "g.json: top_p: expected greater than 0, at most 1, got 0"),
            (r#"{"min_p": 2}"#, "g.json: min_p: expected 0 to 1, got 2"),
            (r#"{"repetition_penalty": 0}"#, "g.json: repetition_penalty: expected a number above 0, got 0"),
            (r#"{"do_sample": 1}"#, "g.json: do_sample: expected true or false, got 1"),
            (
                r#"{"eos_token_id": [1, "a"]}"#,
                "g.json: eos_token_id: expected a token id, or a list of them, got [1,\"a\"]",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err(), message);
        }
        let text = r#"{"num_beams": 4, "typical_p": 1.0, "no_repeat_ngram_size": 3, "bad_words_ids": [], "min_length": 0, "top_k": -1}"#;
        assert_eq!(parse(text).unwrap().unsupported, ["no_repeat_ngram_size", "num_beams"]);
    }
}
