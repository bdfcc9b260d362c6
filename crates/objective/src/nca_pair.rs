//! Noise contrastive alignment on pairs.
//!
//! # Formula
//!
//! With a = β s_w and b = β s_l the implicit rewards, mean over the step's pairs:
//!
//! L = −log σ(a) − ½ log σ(−a) − ½ log σ(−b)
//!
//! Cotangent: ∂L/∂a = −σ(−a) + ½ σ(a), ∂L/∂b = ½ σ(b). Each reward has an optimum of its own, not only their difference.
//!
//! # Source
//!
//! H. Chen et al., "Noise Contrastive Alignment of Language Models with Explicit Rewards", arXiv 2402.05369, for two
//! responses of which one has all the reward; as TRL's `nca_pair`.
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
//! let gradient = objective::nca_pair::NcaPair.loss(1.0, &scores);
//! assert!((gradient.loss - (2.0 * 2.0_f64.ln())).abs() < 1e-6);
//! assert!((gradient.chosen + 0.25).abs() < 1e-6);
//! assert!((gradient.rejected - 0.25).abs() < 1e-6);
//! ```

use crate::method::Method;
use crate::numerics::{sigmoid, softplus};
use crate::parameter::{ParameterError, Reader};
use crate::preference::{BETA, PairGradient, PairLoss, Scores, WEIGHTING, build};

/// The registry's line.
pub const METHOD: Method = Method {
    name: "nca_pair",
    summary: "each response classified against noise: rewards are absolute",
    source: "arXiv 2402.05369",
    parameters: &[BETA, WEIGHTING],
    build: build::<NcaPair>,
};

/// Noise contrastive alignment on pairs.
///
/// The chosen reward has its optimum at ln 2, whatever the rejected one's is:
///
/// ```
/// use objective::preference::{PairLoss, Scores};
///
/// for rejected in [-3.0, 0.0, 3.0] {
///     let scores = Scores { chosen: 2.0_f64.ln(), rejected, chosen_tokens: 1.0 };
///     assert!(objective::nca_pair::NcaPair.loss(1.0, &scores).chosen.abs() < 1e-12);
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NcaPair;

impl PairLoss for NcaPair {
    const METHOD: Method = METHOD;

    fn read(_reader: &Reader<'_>, _beta: f64) -> Result<Self, ParameterError> {
        Ok(Self)
    }

    fn loss(&self, beta: f64, scores: &Scores) -> PairGradient {
        let (a, b) = (beta * scores.chosen, beta * scores.rejected);
        PairGradient {
            loss: softplus(-a) + 0.5 * softplus(a) + 0.5 * softplus(b),
            chosen: beta * (0.5 * sigmoid(a) - sigmoid(-a)),
            rejected: beta * 0.5 * sigmoid(b),
        }
    }
}
