//! Self-play preference optimisation with certain preferences.
//!
//! # Formula
//!
//! With s = log π − log π_ref summed over a response, mean over the step's pairs:
//!
//! L = (s_w − 1/(2β))² + (s_l + 1/(2β))²
//!
//! Cotangent: 2 (s_w − 1/(2β)) on s_w, 2 (s_l + 1/(2β)) on s_l.
//!
//! # Source
//!
//! Y. Wu et al., "Self-Play Preference Optimization for Language Model Alignment", arXiv 2405.00675, equation 4.7 with the
//! winner's probability 1; 1/β is the paper's η, 10³.
//!
//! # Departures
//!
//! None.
//!
//! # Examples
//!
//! β = ½: the targets are ±1, both scores are ½ away.
//!
//! ```
//! use objective::preference::{PairLoss, Scores};
//!
//! let scores = Scores { chosen: 0.5, rejected: -0.5, chosen_tokens: 1.0 };
//! let gradient = objective::sppo_hard::SppoHard.loss(0.5, &scores);
//! assert!((gradient.loss - 0.5).abs() < 1e-6);
//! assert!((gradient.chosen + 1.0).abs() < 1e-6);
//! assert!((gradient.rejected - 1.0).abs() < 1e-6);
//! ```

use crate::method::Method;
use crate::parameter::{Kind, Parameter, ParameterError, Reader, SCALE};
use crate::preference::{PairGradient, PairLoss, Scores, WEIGHTING, build};

/// The registry's line.
pub const METHOD: Method = Method {
    name: "sppo_hard",
    summary: "log-ratios regressed on plus and minus 1/(2 beta)",
    source: "arXiv 2405.00675, equation 4.7",
    parameters: &[BETA, WEIGHTING],
    build: build::<SppoHard>,
};

/// β.
pub const BETA: Parameter = Parameter {
    name: "beta",
    kind: Kind::Number { default: 1e-3, range: SCALE },
    purpose: "the log-ratios' targets are plus and minus 1/(2 beta) nats",
};

/// Self-play preference optimisation with certain preferences.
///
/// Each score has a target of its own: here the chosen one is at it, and the rejected one is 1 above.
///
/// ```
/// use objective::preference::{PairGradient, PairLoss, Scores};
///
/// let scores = Scores { chosen: 1.0, rejected: 0.0, chosen_tokens: 1.0 }; // the targets are 1 and −1
/// let gradient = objective::sppo_hard::SppoHard.loss(0.5, &scores);
/// assert_eq!(gradient, PairGradient { loss: 1.0, chosen: 0.0, rejected: 2.0 });
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SppoHard;

impl PairLoss for SppoHard {
    const METHOD: Method = METHOD;
    const BETA: Parameter = BETA;

    fn read(_reader: &Reader<'_>, _beta: f64) -> Result<Self, ParameterError> {
        Ok(Self)
    }

    fn loss(&self, beta: f64, scores: &Scores) -> PairGradient {
        let target = 0.5 / beta;
        let (chosen, rejected) = (scores.chosen - target, scores.rejected + target);
        PairGradient { loss: chosen * chosen + rejected * rejected, chosen: 2.0 * chosen, rejected: 2.0 * rejected }
    }
}
