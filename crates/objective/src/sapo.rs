//! Soft adaptive policy optimisation: a smooth gate in place of clipping.
//!
//! # Formula
//!
//! With ρ = π / π_behaviour of a token, A the response's advantage (see [`group`](crate::group)), and the temperature τ that of its
//! sign (A ≤ 0 counts as negative), mean over the step's responses of the mean over their tokens:
//!
//! ℓ = −A (4/τ) σ(τ (ρ − 1))
//!
//! Cotangent: −4 A ρ σ(y) σ(−y) with y = τ (ρ − 1), times the token's weight: −A on policy, and towards 0
//! as ρ grows.
//!
//! # Source
//!
//! C. Gao et al., "Soft Adaptive Policy Optimization", arXiv 2511.20347; temperatures of TRL.
//!
//! # Departures
//!
//! None.
//!
//! # Examples
//!
//! On policy, A = 1, τ = 1: L = −4 · ½ = −2, cotangent −1.
//!
//! ```
//! use objective::group::{GroupLoss, Sampled};
//!
//! let sapo = objective::sapo::Sapo::new(1.0, 1.05)?;
//! let mut slots = [0.0];
//! let response = Sampled { advantage: 1.0, log_prob: &[-1.0], behaviour_log_prob: &[-1.0] };
//! assert_eq!(sapo.response(&response, 1.0, &mut slots).loss, -2.0);
//! assert_eq!(slots, [-1.0]);
//! # Ok::<(), objective::ParameterError>(())
//! ```

use crate::batch::StepTotals;
use crate::group::{GroupLoss, ResponseLoss, SCALE, Sampled, beta, build};
use crate::grpo::by_token;
use crate::method::Method;
use crate::numerics::{exponential, sigmoid};
use crate::parameter::{Kind, Parameter, ParameterError, Parameters, Reader, SCALE as TEMPERATURE};
use crate::sampling::{epochs, samples};
use crate::token_divergence::{DIVERGENCE, DIVERGENCE_PLACE};

/// The registry's line.
pub const METHOD: Method = Method {
    name: "sapo",
    summary: "policy gradients through a smooth gate in place of clipping",
    source: "arXiv 2511.20347",
    parameters: || {
        vec![
            POSITIVE_TEMPERATURE,
            NEGATIVE_TEMPERATURE,
            beta(0.0),
            DIVERGENCE,
            DIVERGENCE_PLACE,
            SCALE,
            samples(8),
            epochs(1),
        ]
    },
    build: build::<Sapo>,
};

/// τ of positive advantages.
pub const POSITIVE_TEMPERATURE: Parameter = Parameter {
    name: "positive_temperature",
    kind: Kind::Number { default: 1.0, range: TEMPERATURE },
    purpose: "how fast the gate closes on responses with a positive advantage",
};

/// τ of the others.
pub const NEGATIVE_TEMPERATURE: Parameter = Parameter {
    name: "negative_temperature",
    kind: Kind::Number { default: 1.05, range: TEMPERATURE },
    purpose: "how fast the gate closes on the others",
};

/// Soft adaptive policy optimisation.
///
/// A token twenty times as likely as when it was sampled hardly pulls:
///
/// ```
/// use objective::group::{GroupLoss, Sampled};
/// use objective::sapo::Sapo;
///
/// let response = Sampled { advantage: 1.0, log_prob: &[-1.0], behaviour_log_prob: &[-4.0] }; // ρ = e³
/// let mut slots = [0.0];
/// Sapo::new(1.0, 1.05)?.response(&response, 1.0, &mut slots);
/// assert!((-1e-6..0.0).contains(&slots[0]));
/// # Ok::<(), objective::ParameterError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sapo {
    positive: f64,
    negative: f64,
}

/// On policy the cotangent is −A under either temperature:
///
/// ```
/// # use objective::group::{GroupLoss, Sampled};
/// # use objective::sapo::Sapo;
/// let sapo = Sapo::new(1.0, 2.0)?;
/// for advantage in [0.5, -0.5] {
///     let mut slots = [0.0];
///     sapo.response(&Sampled { advantage, log_prob: &[-1.0], behaviour_log_prob: &[-1.0] }, 1.0, &mut slots);
///     assert_eq!(slots, [-advantage]);
/// }
/// # Ok::<(), objective::ParameterError>(())
/// ```
impl Sapo {
    /// The loss with the temperatures of positive advantages and of the others.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] for a value out of its range.
    ///
    /// # Examples
    ///
    /// ```
    /// let error = objective::sapo::Sapo::new(1.0, 0.0).unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "sapo.negative_temperature: expected a number, 1e-9 <= negative_temperature <= 1e6, got 0"
    /// );
    /// ```
    pub fn new(positive_temperature: f64, negative_temperature: f64) -> Result<Self, ParameterError> {
        Ok(Self {
            positive: POSITIVE_TEMPERATURE.check(METHOD.name, positive_temperature)?,
            negative: NEGATIVE_TEMPERATURE.check(METHOD.name, negative_temperature)?,
        })
    }
}

impl GroupLoss for Sapo {
    const METHOD: Method = METHOD;

    fn read(reader: &Reader<'_>) -> Result<Self, ParameterError> {
        Self::new(reader.number(&POSITIVE_TEMPERATURE)?, reader.number(&NEGATIVE_TEMPERATURE)?)
    }

    fn own_parameters(&self) -> Parameters {
        [
            (POSITIVE_TEMPERATURE.name.to_owned(), self.positive.into()),
            (NEGATIVE_TEMPERATURE.name.to_owned(), self.negative.into()),
        ]
        .into()
    }

    fn share(&self, tokens: usize, totals: StepTotals) -> f64 {
        1.0 / (tokens as f64 * totals.responses as f64)
    }

    fn response(&self, response: &Sampled<'_>, share: f64, slots: &mut [f64]) -> ResponseLoss {
        let advantage = response.advantage;
        let temperature = if advantage > 0.0 { self.positive } else { self.negative };
        by_token(response, share, slots, |log_ratio| {
            let (ratio, slope) = exponential(log_ratio);
            let gate = temperature * (ratio - 1.0);
            let open = sigmoid(gate);
            (-advantage * 4.0 / temperature * open, -advantage * 4.0 * (open * sigmoid(-gate)) * slope, None)
        })
    }
}
