//! SimPO: a logistic loss on mean log-probabilities with a target margin, without a reference.
//!
//! # Formula
//!
//! With m the mean of log π over a response's tokens, nats, and γ the target margin, mean over the step's pairs:
//!
//! L = −log σ(β (m_w − m_l) − γ)
//!
//! Cotangent: ∂L/∂z = −σ(−z) with z the argument, z' = ±β.
//!
//! # Source
//!
//! Y. Meng, M. Xia and D. Chen, "SimPO: Simple Preference Optimization with a Reference-Free Reward", arXiv 2405.14734,
//! equation 6.
//!
//! # Departures
//!
//! None. The target margin (γ there; γ is always a discount here) follows β as 0.8 β until it is set.
//!
//! # Examples
//!
//! β = 2, γ = 1, m_w − m_l = ½: z = 0, L = ln 2.
//!
//! ```
//! use objective::preference::{PairLoss, Scores};
//!
//! let scores = Scores { chosen: -0.5, rejected: -1.0, chosen_tokens: 1.0 };
//! let gradient = objective::simpo::Simpo::new(1.0)?.loss(2.0, &scores);
//! assert!((gradient.loss - 2.0_f64.ln()).abs() < 1e-6);
//! assert!((gradient.chosen + 1.0).abs() < 1e-6);
//! assert!((gradient.rejected - 1.0).abs() < 1e-6);
//! # Ok::<(), objective::ParameterError>(())
//! ```

use crate::method::Method;
use crate::numerics::{sigmoid, softplus};
use crate::parameter::{Kind, NON_NEGATIVE, Parameter, ParameterError, Parameters, Reader, SCALE};
use crate::preference::{Normalisation, PairGradient, PairLoss, Score, Scores, build};

/// The registry's line.
pub const METHOD: Method = Method {
    name: "simpo",
    summary: "logistic loss on mean log-probabilities with a target margin",
    source: "arXiv 2405.14734, equation 6",
    parameters: &[BETA, TARGET_MARGIN],
    build: build::<Simpo>,
};

/// β.
pub const BETA: Parameter = Parameter {
    name: "beta",
    kind: Kind::Number { default: 2.0, range: SCALE },
    purpose: "scale of the mean log-probability, per nat",
};

/// γ of its paper.
pub const TARGET_MARGIN: Parameter = Parameter {
    name: "target_margin",
    kind: Kind::Derived { default: "0.8 beta", range: NON_NEGATIVE },
    purpose: "margin between the rewards that a pair should have (gamma in its paper)",
};

/// The target margin's share of β until it is set.
const TARGET_SHARE: f64 = 0.8;

/// SimPO.
///
/// Until it is set, the target margin follows β:
///
/// ```
/// let simpo = objective::registry::build("simpo", &[("beta".to_owned(), 10.0.into())].into())?;
/// assert_eq!(simpo.parameters()["target_margin"], 8.0.into());
/// # Ok::<(), objective::RegistryError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Simpo {
    target_margin: f64,
}

/// A margin that falls short of its target by 40 pulls with all of β:
///
/// ```
/// # use objective::preference::{PairLoss, Scores};
/// # use objective::simpo::Simpo;
/// let scores = Scores { chosen: -1.0, rejected: -1.0, chosen_tokens: 1.0 };
/// let gradient = Simpo::new(40.0)?.loss(2.0, &scores);
/// assert_eq!((gradient.loss, gradient.chosen), (40.0, -2.0));
/// # Ok::<(), objective::ParameterError>(())
/// ```
impl Simpo {
    /// The loss with a target margin.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] for a value out of its range.
    ///
    /// # Examples
    ///
    /// ```
    /// let error = objective::simpo::Simpo::new(-1.0).unwrap_err();
    /// assert_eq!(error.to_string(), "simpo.target_margin: expected a number, 0 <= target_margin <= 1e6, got -1");
    /// ```
    pub fn new(target_margin: f64) -> Result<Self, ParameterError> {
        Ok(Self { target_margin: TARGET_MARGIN.check(METHOD.name, target_margin)? })
    }
}

impl PairLoss for Simpo {
    const METHOD: Method = METHOD;
    const BETA: Parameter = BETA;
    const SCORE: Score = Score::Likelihood { normalisation: Normalisation::Mean };

    fn read(reader: &Reader<'_>, beta: f64) -> Result<Self, ParameterError> {
        Self::new(reader.derived(&TARGET_MARGIN)?.unwrap_or(TARGET_SHARE * beta))
    }

    fn own_parameters(&self) -> Parameters {
        [(TARGET_MARGIN.name.to_owned(), self.target_margin.into())].into()
    }

    fn loss(&self, beta: f64, scores: &Scores) -> PairGradient {
        let margin = beta * (scores.chosen - scores.rejected) - self.target_margin;
        let slope = -beta * sigmoid(-margin);
        PairGradient { loss: softplus(-margin), chosen: slope, rejected: -slope }
    }
}
