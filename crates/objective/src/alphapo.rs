//! AlphaPO: SimPO with a reward whose shape a parameter bends.
//!
//! # Formula
//!
//! With m the mean of log π over a response's tokens, nats, p̄ = eᵐ and γ the target margin, mean over the step's pairs:
//!
//! L = −log σ(β (u_w − u_l) − γ), u = (1 − p̄^(−α)) / α
//!
//! α → 0 is SimPO, u = m; it is what α = 0 computes. Cotangent: ∓ β σ(−z) p̄^(−α) with z the argument.
//!
//! # Source
//!
//! A. Gupta et al., "AlphaPO: Reward Shape Matters for LLM Alignment", arXiv 2501.03884; defaults from its Table 3
//! (Mistral-Instruct).
//!
//! # Departures
//!
//! Powers of more than 100 nats go on along their tangent, so that rewards stay finite (TRL overflows). The reported
//! rewards are SimPO's β m: one metric means one quantity.
//!
//! # Examples
//!
//! α = 1, β = 1, γ = 0, m_w = 0, m_l = −ln 2: u_w = 0, u_l = −1, L = log(1 + e⁻¹) = 0.313262.
//!
//! ```
//! use objective::preference::{PairLoss, Scores};
//!
//! let scores = Scores { chosen: 0.0, rejected: -(2.0_f64.ln()), chosen_tokens: 1.0 };
//! let gradient = objective::alphapo::AlphaPo::new(1.0, 0.0)?.loss(1.0, &scores);
//! assert!((gradient.loss - 0.313262).abs() < 1e-6);
//! assert!((gradient.rejected - 2.0 * 0.268941).abs() < 1e-6);
//! # Ok::<(), objective::ParameterError>(())
//! ```

use std::ops::Bound;

use crate::method::Method;
use crate::numerics::{box_cox, sigmoid, softplus};
use crate::parameter::{Kind, NON_NEGATIVE, Parameter, ParameterError, Parameters, Reader, SCALE};
use crate::preference::{Normalisation, PairGradient, PairLoss, Score, Scores, build};

/// The registry's line.
pub const METHOD: Method = Method {
    name: "alphapo",
    summary: "SimPO with a reward whose shape alpha bends",
    source: "arXiv 2501.03884",
    parameters: &[BETA, ALPHA, TARGET_MARGIN],
    build: build::<AlphaPo>,
};

/// β.
pub const BETA: Parameter = Parameter {
    name: "beta",
    kind: Kind::Number { default: 2.5, range: SCALE },
    purpose: "scale of the reward, per unit of reward",
};

/// α.
pub const ALPHA: Parameter = Parameter {
    name: "alpha",
    kind: Kind::Number { default: 0.25, range: (Bound::Included(-10.0), Bound::Included(10.0)) },
    purpose: "shape of the reward: 0 is SimPO's log-probability",
};

/// γ of its paper.
pub const TARGET_MARGIN: Parameter = Parameter {
    name: "target_margin",
    kind: Kind::Number { default: 0.1, range: NON_NEGATIVE },
    purpose: "margin between the rewards that a pair should have (gamma in its paper)",
};

/// AlphaPO.
///
/// With α = 0 it is SimPO:
///
/// ```
/// use objective::preference::{PairLoss, Scores};
/// use objective::{alphapo::AlphaPo, simpo::Simpo};
///
/// let scores = Scores { chosen: -0.5, rejected: -2.0, chosen_tokens: 1.0 };
/// assert_eq!(AlphaPo::new(0.0, 1.0)?.loss(2.0, &scores), Simpo::new(1.0)?.loss(2.0, &scores));
/// # Ok::<(), objective::ParameterError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AlphaPo {
    alpha: f64,
    target_margin: f64,
}

/// Of two responses of probability ½, α = 1 doubles the pull and α = −1 halves it:
///
/// ```
/// # use objective::alphapo::AlphaPo;
/// # use objective::preference::{PairLoss, Scores};
/// let scores = Scores { chosen: 0.5_f64.ln(), rejected: 0.5_f64.ln(), chosen_tokens: 1.0 };
/// for (alpha, pull) in [(-1.0, 0.25), (0.0, 0.5), (1.0, 1.0)] {
///     assert!((AlphaPo::new(alpha, 0.0)?.loss(1.0, &scores).rejected - pull).abs() < 1e-12);
/// }
/// # Ok::<(), objective::ParameterError>(())
/// ```
impl AlphaPo {
    /// The loss with the shape α and a target margin.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] for a value out of its range.
    ///
    /// # Examples
    ///
    /// ```
    /// let error = objective::alphapo::AlphaPo::new(11.0, 0.1).unwrap_err();
    /// assert_eq!(error.to_string(), "alphapo.alpha: expected a number, -10 <= alpha <= 10, got 11");
    /// ```
    pub fn new(alpha: f64, target_margin: f64) -> Result<Self, ParameterError> {
        let owner = METHOD.name;
        Ok(Self { alpha: ALPHA.check(owner, alpha)?, target_margin: TARGET_MARGIN.check(owner, target_margin)? })
    }

    fn reward(&self, mean: f64) -> (f64, f64) {
        if self.alpha == 0.0 { (mean, 1.0) } else { box_cox(-self.alpha, mean) }
    }
}

impl PairLoss for AlphaPo {
    const METHOD: Method = METHOD;
    const BETA: Parameter = BETA;
    const SCORE: Score = Score::Likelihood { normalisation: Normalisation::Mean };

    fn read(reader: &Reader<'_>, _beta: f64) -> Result<Self, ParameterError> {
        Self::new(reader.number(&ALPHA)?, reader.number(&TARGET_MARGIN)?)
    }

    fn own_parameters(&self) -> Parameters {
        let Self { alpha, target_margin } = *self;
        [(ALPHA.name.to_owned(), alpha.into()), (TARGET_MARGIN.name.to_owned(), target_margin.into())].into()
    }

    fn loss(&self, beta: f64, scores: &Scores) -> PairGradient {
        let ((chosen, chosen_slope), (rejected, rejected_slope)) =
            (self.reward(scores.chosen), self.reward(scores.rejected));
        let margin = beta * (chosen - rejected) - self.target_margin;
        let slope = -beta * sigmoid(-margin);
        PairGradient { loss: softplus(-margin), chosen: slope * chosen_slope, rejected: -slope * rejected_slope }
    }
}
