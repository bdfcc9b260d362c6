//! Binary classifier optimisation on pairs, without a reward shift.
//!
//! # Formula
//!
//! With a = β s_w and b = β s_l the implicit rewards, mean over the step's pairs:
//!
//! L = −log σ(a) − log σ(−b)
//!
//! Cotangent: ∂L/∂a = −σ(−a), ∂L/∂b = σ(b).
//!
//! # Source
//!
//! S. Jung et al., "Binary Classifier Optimization for Large Language Model Alignment", arXiv 2404.04656, with its reward
//! shift at 0; as TRL's `bco_pair`.
//!
//! # Departures
//!
//! None.
//!
//! # Examples
//!
//! At the reference, a = b = 0: L = 2 ln 2.
//!
//! ```
//! use objective::preference::{PairLoss, Scores};
//!
//! let scores = Scores { chosen: 0.0, rejected: 0.0, chosen_tokens: 1.0 };
//! let gradient = objective::bco_pair::BcoPair.loss(1.0, &scores);
//! assert!((gradient.loss - (2.0 * 2.0_f64.ln())).abs() < 1e-6);
//! assert!((gradient.chosen + 0.5).abs() < 1e-6);
//! assert!((gradient.rejected - 0.5).abs() < 1e-6);
//! ```

use crate::method::Method;
use crate::numerics::{sigmoid, softplus};
use crate::parameter::{ParameterError, Reader};
use crate::preference::{BETA, PairGradient, PairLoss, Scores, WEIGHTING, build};

/// The registry's line.
pub const METHOD: Method = Method {
    name: "bco_pair",
    summary: "chosen classified as desirable, rejected as undesirable",
    source: "arXiv 2404.04656",
    parameters: &[BETA, WEIGHTING],
    build: build::<BcoPair>,
};

/// Binary classifier optimisation on pairs, without a reward shift.
///
/// At equal rewards of 1 the rejected response, which is on the wrong side of 0, pulls more:
///
/// ```
/// use objective::preference::{PairLoss, Scores};
///
/// let scores = Scores { chosen: 1.0, rejected: 1.0, chosen_tokens: 1.0 };
/// let gradient = objective::bco_pair::BcoPair.loss(1.0, &scores);
/// assert!((gradient.chosen + 0.268941).abs() < 1e-6); // −σ(−1)
/// assert!((gradient.rejected - 0.731059).abs() < 1e-6); // σ(1)
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BcoPair;

impl PairLoss for BcoPair {
    const METHOD: Method = METHOD;

    fn read(_reader: &Reader<'_>, _beta: f64) -> Result<Self, ParameterError> {
        Ok(Self)
    }

    fn loss(&self, beta: f64, scores: &Scores) -> PairGradient {
        let (a, b) = (beta * scores.chosen, beta * scores.rejected);
        PairGradient { loss: softplus(-a) + softplus(b), chosen: -beta * sigmoid(-a), rejected: beta * sigmoid(b) }
    }
}
