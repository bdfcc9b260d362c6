//! Clipped importance sampling policy optimisation: policy gradients whose importance weights are clipped, not their tokens.
//!
//! # Formula
//!
//! With ρ = π / π_behaviour of a token, A the response's advantage (see [`group`](crate::group)) and sg the stop-gradient, mean
//! over the step's tokens:
//!
//! ℓ = −sg(min(ρ, c)) A log π
//!
//! Cotangent: −min(ρ, c) A / tokens. No token's gradient is dropped.
//!
//! # Source
//!
//! MiniMax, "MiniMax-M1: Scaling Test-Time Compute Efficiently with Lightning Attention", arXiv 2506.13585, equations 4 and 5;
//! c = 5 from D. Khatri et al., "The Art of Scaling Reinforcement Learning Compute for LLMs" (ScaleRL), arXiv 2510.13786.
//!
//! # Departures
//!
//! c bounds the ratio itself, as in TRL, where it is called ε_high and is 0.2 unless set. The share of clipped ratios counts those
//! of positive advantages alone, as TRL's does.
//!
//! # Examples
//!
//! ρ = 1, A = ±1 of two tokens with log π = −1 and −2: L = (1 − 2)/2, cotangents ∓½.
//!
//! ```
//! use objective::group::{GroupLoss, Sampled};
//!
//! let cispo = objective::cispo::Cispo::new(5.0)?;
//! let mut slots = [0.0];
//! let response = Sampled { advantage: 1.0, log_prob: &[-1.0], behaviour_log_prob: &[-1.0] };
//! assert_eq!(cispo.response(&response, 0.5, &mut slots).loss, 0.5);
//! assert_eq!(slots, [-0.5]);
//! # Ok::<(), objective::ParameterError>(())
//! ```

use crate::batch::StepTotals;
use crate::group::{Clipped, GroupLoss, ResponseLoss, SCALE, Sampled, beta, build};
use crate::method::Method;
use crate::numerics::exponential;
use crate::parameter::{Kind, POSITIVE, Parameter, ParameterError, Parameters, Reader};
use crate::sampling::{epochs, samples};
use crate::token_divergence::{DIVERGENCE, DIVERGENCE_PLACE};

/// The registry's line.
pub const METHOD: Method = Method {
    name: "cispo",
    summary: "policy gradients with clipped importance weights",
    source: "arXiv 2506.13585, equations 4 and 5",
    parameters: || vec![MAX_RATIO, beta(0.0), DIVERGENCE, DIVERGENCE_PLACE, SCALE, samples(8), epochs(1)],
    build: build::<Cispo>,
};

/// c.
pub const MAX_RATIO: Parameter = Parameter {
    name: "max_ratio",
    kind: Kind::Number { default: 5.0, range: POSITIVE },
    purpose: "the greatest importance ratio that a token is weighted with",
};

/// Clipped importance sampling policy optimisation.
///
/// A token ten times as likely as when it was sampled still pulls, with the bound as its weight:
///
/// ```
/// use objective::cispo::Cispo;
/// use objective::group::{GroupLoss, Sampled};
///
/// let behaviour_log_prob = [-1.0 - 10.0_f64.ln()];
/// let response = Sampled { advantage: 1.0, log_prob: &[-1.0], behaviour_log_prob: &behaviour_log_prob };
/// let mut slots = [0.0];
/// assert_eq!(Cispo::new(5.0)?.response(&response, 1.0, &mut slots).clipped.above, 1);
/// assert_eq!(slots, [-5.0]);
/// # Ok::<(), objective::ParameterError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cispo {
    max_ratio: f64,
}

/// Small ratios are not bounded:
///
/// ```
/// # use objective::cispo::Cispo;
/// # use objective::group::{GroupLoss, Sampled};
/// let log_prob = [-1.0 - 10.0_f64.ln()];
/// let response = Sampled { advantage: 1.0, log_prob: &log_prob, behaviour_log_prob: &[-1.0] };
/// let mut slots = [0.0];
/// assert_eq!(Cispo::new(5.0)?.response(&response, 1.0, &mut slots).clipped.below, 0);
/// assert!((slots[0] + 0.1).abs() < 1e-12);
/// # Ok::<(), objective::ParameterError>(())
/// ```
impl Cispo {
    /// The loss with the bound c of the importance ratios.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] for a value out of its range.
    ///
    /// # Examples
    ///
    /// ```
    /// let error = objective::cispo::Cispo::new(0.0).unwrap_err();
    /// assert_eq!(error.to_string(), "cispo.max_ratio: expected a number, 0 < max_ratio <= 1e6, got 0");
    /// ```
    pub fn new(max_ratio: f64) -> Result<Self, ParameterError> {
        Ok(Self { max_ratio: MAX_RATIO.check(METHOD.name, max_ratio)? })
    }
}

impl GroupLoss for Cispo {
    const METHOD: Method = METHOD;

    fn read(reader: &Reader<'_>) -> Result<Self, ParameterError> {
        Self::new(reader.number(&MAX_RATIO)?)
    }

    fn own_parameters(&self) -> Parameters {
        [(MAX_RATIO.name.to_owned(), self.max_ratio.into())].into()
    }

    fn share(&self, _: usize, totals: StepTotals) -> f64 {
        1.0 / totals.tokens as f64
    }

    fn hold(&self, response: &Sampled<'_>, weights: &mut Vec<f64>) {
        let ratios = response.log_prob.iter().zip(response.behaviour_log_prob);
        weights.extend(ratios.map(|(log_prob, behaviour)| exponential(log_prob - behaviour).0.min(self.max_ratio)));
    }

    fn response(&self, response: &Sampled<'_>, share: f64, slots: &mut [f64]) -> ResponseLoss {
        let Sampled { advantage, log_prob, behaviour_log_prob, weights } = response;
        let (mut loss, mut clipped) = (0.0, Clipped::default());
        let columns = log_prob.iter().zip(*behaviour_log_prob).zip(*weights);
        for (((log_prob, behaviour), weight), slot) in columns.zip(&mut *slots) {
            let pull = -share * weight * advantage;
            *slot += pull;
            loss += pull * log_prob;
            clipped.above += usize::from(exponential(log_prob - behaviour).0 > self.max_ratio && *advantage > 0.0);
        }
        ResponseLoss { loss, clipped, ratios: slots.len() }
    }
}
