//! DiscoPOP: a blend of the logistic and the exponential loss that a language model discovered.
//!
//! # Formula
//!
//! With z = β (s_w − s_l) and the blend m = σ(z/τ), mean over the step's pairs:
//!
//! L = (1 − m) log(1 + e⁻ᶻ) + m e⁻ᶻ
//!
//! Cotangent: ∂L/∂z = −(1 − m) σ(−z) − m e⁻ᶻ + m (1 − m) (e⁻ᶻ − log(1 + e⁻ᶻ)) / τ.
//!
//! # Source
//!
//! C. Lu et al., "Discovering Preference Optimization Algorithms with and for Large Language Models", arXiv 2406.08414,
//! equation 5 (log-ratio modulated loss), τ = 0.05.
//!
//! # Departures
//!
//! e⁻ᶻ and m are multiplied as exponents, so that the loss is finite where e⁻ᶻ alone overflows; τ above 1 is refused, because
//! the loss would then grow exponentially for wrong pairs.
//!
//! # Examples
//!
//! z = 0, τ = ½: m = ½, L = ½ ln 2 + ½.
//!
//! ```
//! use objective::preference::{PairLoss, Scores};
//!
//! let scores = Scores { chosen: 0.0, rejected: 0.0, chosen_tokens: 1.0 };
//! let gradient = objective::discopop::Discopop::new(0.5)?.loss(1.0, &scores);
//! assert!((gradient.loss - (0.5 * 2.0_f64.ln() + 0.5)).abs() < 1e-6);
//! assert!((gradient.chosen - (-0.75 + 0.5 * (1.0 - 2.0_f64.ln()))).abs() < 1e-6);
//! assert!((gradient.rejected - (0.75 - 0.5 * (1.0 - 2.0_f64.ln()))).abs() < 1e-6);
//! # Ok::<(), objective::ParameterError>(())
//! ```

use std::ops::Bound;

use crate::divergence::{DIVERGENCE, DIVERGENCE_ALPHA};
use crate::method::Method;
use crate::numerics::{sigmoid, softplus};
use crate::parameter::{Kind, Parameter, ParameterError, Parameters, Reader};
use crate::preference::{BETA, PairGradient, PairLoss, Scores, TAIL_WEIGHT, WEIGHTING, build};

/// The registry's line.
pub const METHOD: Method = Method {
    name: "discopop",
    summary: "a discovered blend of logistic and exponential loss",
    source: "arXiv 2406.08414, equation 5",
    parameters: &[BETA, TAU, DIVERGENCE, DIVERGENCE_ALPHA, TAIL_WEIGHT, WEIGHTING],
    build: build::<Discopop>,
};

/// τ.
pub const TAU: Parameter = Parameter {
    name: "tau",
    kind: Kind::Number { default: 0.05, range: (Bound::Included(1e-9), Bound::Included(1.0)) },
    purpose: "margin over which the blend turns from logistic to exponential",
};

/// DiscoPOP.
///
/// Beyond a few τ it is the exponential loss of right pairs and the logistic loss of wrong ones:
///
/// ```
/// use objective::discopop::Discopop;
/// use objective::preference::{PairLoss, Scores};
///
/// let loss = |chosen: f64| -> Result<f64, objective::ParameterError> {
///     Ok(Discopop::new(0.05)?.loss(1.0, &Scores { chosen, rejected: 0.0, chosen_tokens: 1.0 }).loss)
/// };
/// assert!((loss(1.0)? - (-1.0_f64).exp()).abs() < 1e-8);
/// assert!((loss(-1.0)? - 1.0_f64.exp().ln_1p()).abs() < 1e-8);
/// # Ok::<(), objective::ParameterError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Discopop {
    tau: f64,
}

/// At a margin of 0 both losses count half, whatever the width:
///
/// ```
/// # use objective::discopop::Discopop;
/// # use objective::preference::{PairLoss, Scores};
/// let scores = Scores { chosen: 0.0, rejected: 0.0, chosen_tokens: 1.0 };
/// assert_eq!(Discopop::new(0.05)?.loss(1.0, &scores).loss, Discopop::new(1.0)?.loss(1.0, &scores).loss);
/// # Ok::<(), objective::ParameterError>(())
/// ```
impl Discopop {
    /// The loss with the blend's width τ.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] for a value out of its range.
    ///
    /// # Examples
    ///
    /// ```
    /// let error = objective::discopop::Discopop::new(2.0).unwrap_err();
    /// assert_eq!(error.to_string(), "discopop.tau: expected a number, 1e-9 <= tau <= 1, got 2");
    /// ```
    pub fn new(tau: f64) -> Result<Self, ParameterError> {
        Ok(Self { tau: TAU.check(METHOD.name, tau)? })
    }
}

impl PairLoss for Discopop {
    const METHOD: Method = METHOD;

    fn read(reader: &Reader<'_>, _beta: f64) -> Result<Self, ParameterError> {
        Self::new(reader.number(&TAU)?)
    }

    fn own_parameters(&self) -> Parameters {
        [(TAU.name.to_owned(), self.tau.into())].into()
    }

    fn loss(&self, beta: f64, scores: &Scores) -> PairGradient {
        let margin = beta * (scores.chosen - scores.rejected);
        let (blend, rest) = (sigmoid(margin / self.tau), sigmoid(-margin / self.tau));
        let exponential = (-margin - softplus(-margin / self.tau)).exp();
        let logistic = softplus(-margin);
        let turning = rest * (exponential - blend * logistic) / self.tau;
        let slope = beta * (turning - rest * sigmoid(-margin) - exponential);
        PairGradient { loss: rest * logistic + exponential, chosen: slope, rejected: -slope }
    }
}
