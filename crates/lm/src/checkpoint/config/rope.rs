//! Rotary positions in `config.json`, in the form of the hub's files and in that of transformers 5.

use serde::Deserialize;

use super::reading::Reader;
use crate::error::LmError;

/// Rotary position embedding.
///
/// # Formula
///
/// Position m rotates the i-th pair of a head's numbers by the angle m fᵢ, where unscaled fᵢ = θ^(−2i / head_dim).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// Base θ of the frequencies.
    pub theta: f64,
    /// Scaling of the frequencies for sequences longer than those of pretraining.
    pub scaling: RopeScaling,
}

/// Scaling of rotary frequencies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// No scaling.
    Default,
    /// Division of all frequencies by `factor`.
    Linear {
        /// Divisor of the frequencies, at least 1.
        factor: f64,
    },
    /// Llama 3: frequencies of long wavelengths are divided by `factor`, those of short ones are unchanged, and those
    /// between are interpolated.
    Llama3 {
        /// Divisor of low frequencies, at least 1.
        factor: f64,
        /// Bound of long wavelengths: those above `original_positions / low_freq_factor`.
        low_freq_factor: f64,
        /// Bound of short wavelengths: those below `original_positions / high_freq_factor`.
        high_freq_factor: f64,
        /// Maximum length of a sequence in pretraining, in tokens.
        original_positions: usize,
    },
}

/// Fields of `config.json` about rotary positions.
#[derive(Clone, Deserialize)]
pub(super) struct RawRope {
    rope_type: Option<String>,
    /// Former name of `rope_type`.
    r#type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<usize>,
    partial_rotary_factor: Option<f64>,
}

impl Reader<'_> {
    pub(super) fn rope(&self) -> Result<Rope, LmError> {
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
                // The interpolation divides by the difference of the two.
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
}
