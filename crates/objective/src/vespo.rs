//! Variational sequence-level soft policy optimisation: policy gradients weighted by a gamma density of the response's ratio.
//!
//! # Formula
//!
//! With w = π / π_behaviour of a whole response, its logarithm clamped to ±20 nats a token and to [log 10⁻⁸, 20] over all, A its
//! advantage (see [`group`](crate::group)), k and λ those of its sign (A ≥ 0 counts as positive), and sg the stop-gradient, mean
//! over the step's tokens:
//!
//! ℓ = −sg(φ(w)) A log π, φ(w) = wᵏ e^(λ (1 − w))
//!
//! Cotangent: −φ(w) A / tokens.
//!
//! # Source
//!
//! "VESPO: Variational Sequence-Level Soft Policy Optimization", arXiv 2602.10693, as TRL's `vespo`, with its parameters and
//! clamps.
//!
//! # Departures
//!
//! The logarithm of a weight ends at 100, so that weights stay finite whatever the parameters.
//!
//! # Examples
//!
//! On policy φ(1) = 1: L = −A log π.
//!
//! ```
//! use objective::group::{GroupLoss, Sampled};
//!
//! let vespo = objective::vespo::Vespo::new([2.0, 3.0], [3.0, 2.0])?;
//! let mut slots = [0.0];
//! let response = Sampled { advantage: 1.0, log_prob: &[-1.5], behaviour_log_prob: &[-1.5] };
//! assert_eq!(vespo.response(&response, 1.0, &mut slots).loss, 1.5);
//! assert_eq!(slots, [-1.0]);
//! # Ok::<(), objective::ParameterError>(())
//! ```

use crate::batch::StepTotals;
use crate::group::{Clipped, GroupLoss, ResponseLoss, SCALE, Sampled, beta, build};
use crate::method::Method;
use crate::numerics::sum;
use crate::parameter::{Kind, NON_NEGATIVE, Parameter, ParameterError, Parameters, Reader};
use crate::sampling::{epochs, samples};
use crate::token_divergence::{DIVERGENCE, DIVERGENCE_PLACE};
use std::ops::Bound;

/// The registry's line.
pub const METHOD: Method = Method {
    name: "vespo",
    summary: "policy gradients weighted by a gamma density of the response's importance ratio",
    source: "arXiv 2602.10693",
    parameters: || {
        vec![
            POSITIVE_K,
            POSITIVE_LAMBDA,
            NEGATIVE_K,
            NEGATIVE_LAMBDA,
            beta(0.0),
            DIVERGENCE,
            DIVERGENCE_PLACE,
            SCALE,
            samples(8),
            epochs(1),
        ]
    },
    build: build::<Vespo>,
};

const fn k(name: &'static str, default: f64) -> Parameter {
    Parameter {
        name,
        kind: Kind::Number { default, range: NON_NEGATIVE },
        purpose: "power of the ratio: how fast weights fall below a ratio of 1",
    }
}

const fn lambda(name: &'static str, default: f64) -> Parameter {
    Parameter {
        name,
        kind: Kind::Number { default, range: (Bound::Included(1e-4), Bound::Included(1e6)) },
        purpose: "decay with the ratio: how fast weights fall above a ratio of 1",
    }
}

/// k of positive advantages.
pub const POSITIVE_K: Parameter = k("positive_k", 2.0);
/// λ of positive advantages.
pub const POSITIVE_LAMBDA: Parameter = lambda("positive_lambda", 3.0);
/// k of negative advantages.
pub const NEGATIVE_K: Parameter = k("negative_k", 3.0);
/// λ of negative advantages.
pub const NEGATIVE_LAMBDA: Parameter = lambda("negative_lambda", 2.0);

/// The range of a token's log-ratio, nats.
const TOKEN_BOUND: f64 = 20.0;
/// The greatest log-ratio of a response, nats.
const GREATEST: f64 = 20.0;
/// log 10⁻⁸, its least, nats.
const LEAST: f64 = -18.420_680_743_952_367;
/// The greatest logarithm of a weight: beyond it, weights are the same.
const HEAVIEST: f64 = 100.0;

/// Variational sequence-level soft policy optimisation.
///
/// A good response twice as likely as when it was sampled weighs φ(2) = 2² e⁻³:
///
/// ```
/// use objective::group::{GroupLoss, Sampled};
/// use objective::vespo::Vespo;
///
/// let log_prob = [-1.0 + 2.0_f64.ln()];
/// let mut slots = [0.0];
/// let response = Sampled { advantage: 1.0, log_prob: &log_prob, behaviour_log_prob: &[-1.0] };
/// Vespo::new([2.0, 3.0], [3.0, 2.0])?.response(&response, 1.0, &mut slots);
/// assert!((slots[0] + 4.0 * (-3.0_f64).exp()).abs() < 1e-12);
/// # Ok::<(), objective::ParameterError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Vespo {
    positive: [f64; 2],
    negative: [f64; 2],
}

/// The weight is greatest at the ratio k/λ, here ½:
///
/// ```
/// # use objective::group::{GroupLoss, Sampled};
/// # use objective::vespo::Vespo;
/// let vespo = Vespo::new([2.0, 4.0], [3.0, 2.0])?;
/// let [below, at, above] = [0.4_f64, 0.5, 0.6].map(|ratio| {
///     let (log_prob, mut slots) = ([-1.0 + ratio.ln()], [0.0]);
///     let response = Sampled { advantage: 1.0, log_prob: &log_prob, behaviour_log_prob: &[-1.0] };
///     vespo.response(&response, 1.0, &mut slots);
///     -slots[0]
/// });
/// assert!((at - 0.25 * 2.0_f64.exp()).abs() < 1e-12); // (½)² e^(4 (1 − ½))
/// assert!(at > below && at > above);
/// # Ok::<(), objective::ParameterError>(())
/// ```
impl Vespo {
    /// The loss with k and λ of positive and of negative advantages.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] for a value out of its range.
    ///
    /// # Examples
    ///
    /// ```
    /// let error = objective::vespo::Vespo::new([2.0, 0.0], [3.0, 2.0]).unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "vespo.positive_lambda: expected a number, 0.0001 <= positive_lambda <= 1e6, got 0"
    /// );
    /// ```
    pub fn new(positive: [f64; 2], negative: [f64; 2]) -> Result<Self, ParameterError> {
        let check = |parameters: [Parameter; 2], values: [f64; 2]| {
            Ok([parameters[0].check(METHOD.name, values[0])?, parameters[1].check(METHOD.name, values[1])?])
        };
        Ok(Self {
            positive: check([POSITIVE_K, POSITIVE_LAMBDA], positive)?,
            negative: check([NEGATIVE_K, NEGATIVE_LAMBDA], negative)?,
        })
    }

    /// φ(w) of a response.
    fn weight(&self, response: &Sampled<'_>) -> f64 {
        let Sampled { advantage, log_prob, behaviour_log_prob, .. } = response;
        let [k, lambda] = if *advantage >= 0.0 { self.positive } else { self.negative };
        let ratios = log_prob.iter().zip(*behaviour_log_prob).map(|(own, behaviour)| own - behaviour);
        let log_ratio = ratios.map(|ratio| ratio.clamp(-TOKEN_BOUND, TOKEN_BOUND)).sum::<f64>().clamp(LEAST, GREATEST);
        (lambda + k * log_ratio - lambda * log_ratio.exp()).min(HEAVIEST).exp()
    }
}

impl GroupLoss for Vespo {
    const METHOD: Method = METHOD;

    fn read(reader: &Reader<'_>) -> Result<Self, ParameterError> {
        Self::new(
            [reader.number(&POSITIVE_K)?, reader.number(&POSITIVE_LAMBDA)?],
            [reader.number(&NEGATIVE_K)?, reader.number(&NEGATIVE_LAMBDA)?],
        )
    }

    fn own_parameters(&self) -> Parameters {
        let names =
            [POSITIVE_K, POSITIVE_LAMBDA, NEGATIVE_K, NEGATIVE_LAMBDA].map(|parameter| parameter.name.to_owned());
        names.into_iter().zip(self.positive.into_iter().chain(self.negative).map(Into::into)).collect()
    }

    fn share(&self, _: usize, totals: StepTotals) -> f64 {
        1.0 / totals.tokens as f64
    }

    fn hold(&self, response: &Sampled<'_>, weights: &mut Vec<f64>) {
        weights.resize(weights.len() + response.log_prob.len(), self.weight(response));
    }

    fn response(&self, response: &Sampled<'_>, share: f64, slots: &mut [f64]) -> ResponseLoss {
        let pull = -share * response.weights[0] * response.advantage;
        slots.iter_mut().for_each(|slot| *slot += pull);
        ResponseLoss { loss: pull * sum(response.log_prob), clipped: Clipped::default(), ratios: 1 }
    }
}
