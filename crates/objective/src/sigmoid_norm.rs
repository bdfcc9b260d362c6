//! Length-normalised DPO.
//!
//! # Formula
//!
//! With s the implicit score divided by the response's length, mean over the step's pairs:
//!
//! L = −log σ(β (s_w − s_l))
//!
//! Cotangent: ∂L/∂z = −σ(−z) with z = β (s_w − s_l).
//!
//! # Source
//!
//! R. Rafailov et al., arXiv 2305.18290, equation 7, on scores per token as in Y. Meng et al., arXiv 2405.14734, section 2.2;
//! as TRL's `sigmoid_norm`.
//!
//! # Departures
//!
//! From DPO's derivation: the constants of a [divergence](crate::divergence) do not cancel where the lengths of a pair
//! differ.
//!
//! # Examples
//!
//! At the reference z = 0: L = ln 2.
//!
//! ```
//! use objective::preference::{PairLoss, Scores};
//!
//! let scores = Scores { chosen: 0.0, rejected: 0.0, chosen_tokens: 1.0 };
//! let gradient = objective::sigmoid_norm::SigmoidNorm.loss(1.0, &scores);
//! assert!((gradient.loss - 2.0_f64.ln()).abs() < 1e-6);
//! assert!((gradient.chosen + 0.5).abs() < 1e-6);
//! assert!((gradient.rejected - 0.5).abs() < 1e-6);
//! ```

use crate::divergence::{DIVERGENCE, DIVERGENCE_ALPHA};
use crate::method::Method;
use crate::numerics::{sigmoid, softplus};
use crate::parameter::{ParameterError, Reader};
use crate::preference::{BETA, PairGradient, PairLoss, Score, Scores, WEIGHTING, build};

/// The registry's line.
pub const METHOD: Method = Method {
    name: "sigmoid_norm",
    summary: "DPO on implicit rewards per token",
    source: "arXiv 2305.18290, equation 7, per token",
    parameters: &[BETA, DIVERGENCE, DIVERGENCE_ALPHA, WEIGHTING],
    build: build::<SigmoidNorm>,
};

/// Length-normalised DPO.
///
/// Between the same scores it is DPO; what differs is that a score is a mean over tokens:
///
/// ```
/// use objective::preference::{PairLoss, Score, Scores};
/// use objective::{dpo::Dpo, sigmoid_norm::SigmoidNorm};
///
/// let scores = Scores { chosen: 0.5, rejected: -1.0, chosen_tokens: 1.0 };
/// assert_eq!(SigmoidNorm.loss(2.0, &scores), Dpo::new(0.0)?.loss(2.0, &scores));
/// assert_eq!((SigmoidNorm::SCORE, Dpo::SCORE), (Score::MEAN_LOG_RATIO, Score::LOG_RATIO));
/// # Ok::<(), objective::ParameterError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SigmoidNorm;

impl PairLoss for SigmoidNorm {
    const METHOD: Method = METHOD;
    const SCORE: Score = Score::MEAN_LOG_RATIO;

    fn read(_reader: &Reader<'_>, _beta: f64) -> Result<Self, ParameterError> {
        Ok(Self)
    }

    fn loss(&self, beta: f64, scores: &Scores) -> PairGradient {
        let margin = beta * (scores.chosen - scores.rejected);
        let slope = -beta * sigmoid(-margin);
        PairGradient { loss: softplus(-margin), chosen: slope, rejected: -slope }
    }
}
