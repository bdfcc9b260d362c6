//! Identity preference optimisation: a squared loss on the margin of log-ratios.
//!
//! # Formula
//!
//! With s the log-ratio to the reference (a mean over the response's tokens, or their sum), mean over the step's pairs:
//!
//! L = (s_w − s_l − 1/(2β))²
//!
//! Cotangent: ±2 (s_w − s_l − 1/(2β)).
//!
//! # Source
//!
//! M. G. Azar et al., "A General Theoretical Paradigm to Understand Learning from Human Preferences", arXiv 2310.12036,
//! equation 17; β is the paper's τ.
//!
//! # Departures
//!
//! The paper does not say over what the log-ratio runs; its authors confirmed the mean over tokens to TRL, which is the
//! default here too. `normalisation = sum` is the plain reading. The constants of a [divergence](crate::divergence) do
//! not cancel under a mean where the lengths of a pair differ.
//!
//! # Examples
//!
//! β = ½: the margin's target is 1, s_w − s_l = ½.
//!
//! ```
//! use objective::preference::{PairLoss, Scores};
//!
//! let scores = Scores { chosen: 0.5, rejected: 0.0, chosen_tokens: 1.0 };
//! let gradient = objective::ipo::Ipo.loss(0.5, &scores);
//! assert!((gradient.loss - 0.25).abs() < 1e-6);
//! assert!((gradient.chosen + 1.0).abs() < 1e-6);
//! assert!((gradient.rejected - 1.0).abs() < 1e-6);
//! ```

use crate::divergence::{DIVERGENCE, DIVERGENCE_ALPHA};
use crate::method::Method;
use crate::parameter::{Kind, Parameter, ParameterError, Reader, SCALE};
use crate::preference::{NORMALISATION, PairGradient, PairLoss, Score, Scores, WEIGHTING, build};

/// The registry's line.
pub const METHOD: Method = Method {
    name: "ipo",
    summary: "squared loss on the distance of the margin from 1/(2 beta)",
    source: "arXiv 2310.12036, equation 17",
    parameters: &[BETA, NORMALISATION, DIVERGENCE, DIVERGENCE_ALPHA, WEIGHTING],
    build: build::<Ipo>,
};

/// β.
pub const BETA: Parameter = Parameter {
    name: "beta",
    kind: Kind::Number { default: 0.1, range: SCALE },
    purpose: "the margin's target is 1/(2 beta) nats (tau in its paper)",
};

/// Identity preference optimisation.
///
/// A margin beyond its target is drawn back, which keeps the policy near the reference:
///
/// ```
/// use objective::preference::{PairGradient, PairLoss, Scores};
///
/// let scores = Scores { chosen: 2.0, rejected: 0.0, chosen_tokens: 1.0 }; // the target is 1
/// assert_eq!(objective::ipo::Ipo.loss(0.5, &scores), PairGradient { loss: 1.0, chosen: 2.0, rejected: -2.0 });
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ipo;

impl PairLoss for Ipo {
    const METHOD: Method = METHOD;
    const BETA: Parameter = BETA;
    const SCORE: Score = Score::MEAN_LOG_RATIO;

    fn read(_reader: &Reader<'_>, _beta: f64) -> Result<Self, ParameterError> {
        Ok(Self)
    }

    fn loss(&self, beta: f64, scores: &Scores) -> PairGradient {
        let excess = scores.chosen - scores.rejected - 0.5 / beta;
        PairGradient { loss: excess * excess, chosen: 2.0 * excess, rejected: -2.0 * excess }
    }
}
