//! Hinge loss on the margin of implicit rewards.
//!
//! # Formula
//!
//! With s_w and s_l the implicit scores of the chosen and the rejected response and β their scale, mean over the step's pairs:
//!
//! L = max(0, 1 − β (s_w − s_l))
//!
//! Cotangent: −β on s_w and +β on s_l where the margin is below 1, else 0.
//!
//! # Source
//!
//! Y. Zhao et al., "SLiC-HF: Sequence Likelihood Calibration with Human Feedback", arXiv 2305.10425, with DPO's implicit
//! reward as the score, as in T. Liu et al., arXiv 2309.06657, section 3.
//!
//! # Departures
//!
//! None.
//!
//! # Examples
//!
//! s_w − s_l = 1, β = 0.5: L = 1 − 0.5.
//!
//! ```
//! use objective::preference::{PairLoss, Scores};
//!
//! let scores = Scores { chosen: 1.0, rejected: 0.0, chosen_tokens: 1.0 };
//! let gradient = objective::hinge::Hinge.loss(0.5, &scores);
//! assert!((gradient.loss - 0.5).abs() < 1e-6);
//! assert!((gradient.chosen + 0.5).abs() < 1e-6);
//! assert!((gradient.rejected - 0.5).abs() < 1e-6);
//! ```

use crate::divergence::{DIVERGENCE, DIVERGENCE_ALPHA};
use crate::method::Method;
use crate::parameter::{ParameterError, Reader};
use crate::preference::{BETA, PairGradient, PairLoss, Scores, TAIL_WEIGHT, WEIGHTING, build};

/// The registry's line.
pub const METHOD: Method = Method {
    name: "hinge",
    summary: "hinge loss on the margin of implicit rewards",
    source: "arXiv 2305.10425; arXiv 2309.06657, section 3",
    parameters: &[BETA, DIVERGENCE, DIVERGENCE_ALPHA, TAIL_WEIGHT, WEIGHTING],
    build: build::<Hinge>,
};

/// Hinge loss on the margin of implicit rewards.
///
/// A pair whose margin is 1 or more no longer pulls:
///
/// ```
/// use objective::preference::{PairGradient, PairLoss, Scores};
///
/// let scores = Scores { chosen: 3.0, rejected: 0.0, chosen_tokens: 1.0 };
/// let gradient = objective::hinge::Hinge.loss(0.5, &scores);
/// assert_eq!(gradient, PairGradient { loss: 0.0, chosen: 0.0, rejected: 0.0 });
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hinge;

impl PairLoss for Hinge {
    const METHOD: Method = METHOD;

    fn read(_reader: &Reader<'_>, _beta: f64) -> Result<Self, ParameterError> {
        Ok(Self)
    }

    fn loss(&self, beta: f64, scores: &Scores) -> PairGradient {
        let slack = 1.0 - beta * (scores.chosen - scores.rejected);
        let slope = if slack > 0.0 { beta } else { 0.0 };
        PairGradient { loss: slack.max(0.0), chosen: -slope, rejected: slope }
    }
}
