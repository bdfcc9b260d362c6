//! EXO on pairs: the reverse KL from the policy's preference to the smoothed label.
//!
//! # Formula
//!
//! With z = β (s_w − s_l), q = σ(z) the policy's preference and 1 − ε the label's, mean over the step's pairs:
//!
//! L = q (log q − log(1 − ε)) + (1 − q) (log(1 − q) − log ε)
//!
//! Cotangent: ∂L/∂z = q (1 − q) (z − log((1 − ε)/ε)).
//!
//! # Source
//!
//! H. Ji et al., "Towards Efficient Exact Optimization of Language Model Alignment", arXiv 2402.00856, equation 16.
//!
//! # Departures
//!
//! None. The default ε = 10⁻³ is the one that TRL recommends; 0 would make the loss infinite and is refused.
//!
//! # Examples
//!
//! z = 0, ε = 1/4: q = 1/2, L = −½ ln(3/16) − ln 2 = 0.143841, ∂L/∂z = −¼ ln 3.
//!
//! ```
//! use objective::preference::{PairLoss, Scores};
//!
//! let scores = Scores { chosen: 0.0, rejected: 0.0, chosen_tokens: 1.0 };
//! let gradient = objective::exo_pair::ExoPair::new(0.25)?.loss(1.0, &scores);
//! assert!((gradient.loss - (-0.5 * (0.75_f64 * 0.25).ln() - 2.0_f64.ln())).abs() < 1e-6);
//! assert!((gradient.chosen - (-0.25 * 3.0_f64.ln())).abs() < 1e-6);
//! assert!((gradient.rejected - (0.25 * 3.0_f64.ln())).abs() < 1e-6);
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
    name: "exo_pair",
    summary: "reverse KL from the policy's preference to a smoothed label",
    source: "arXiv 2402.00856, equation 16",
    parameters: &[BETA, LABEL_SMOOTHING, DIVERGENCE, DIVERGENCE_ALPHA, TAIL_WEIGHT, WEIGHTING],
    build: build::<ExoPair>,
};

/// ε.
pub const LABEL_SMOOTHING: Parameter = Parameter {
    name: "label_smoothing",
    kind: Kind::Number { default: 1e-3, range: (Bound::Included(1e-9), Bound::Included(0.5)) },
    purpose: "probability that a preference is the wrong way round",
};

/// EXO on pairs.
///
/// A divergence is 0 where the policy's preference is the label's, z = log((1 − ε)/ε):
///
/// ```
/// use objective::exo_pair::ExoPair;
/// use objective::preference::{PairLoss, Scores};
///
/// let scores = Scores { chosen: 3.0_f64.ln(), rejected: 0.0, chosen_tokens: 1.0 };
/// let gradient = ExoPair::new(0.25)?.loss(1.0, &scores);
/// assert!(gradient.loss.abs() < 1e-12 && gradient.chosen.abs() < 1e-12);
/// # Ok::<(), objective::ParameterError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExoPair {
    label_smoothing: f64,
}

/// Its loss is at most −log ε: a pair that is far the wrong way round no longer pulls.
///
/// ```
/// # use objective::exo_pair::ExoPair;
/// # use objective::preference::{PairLoss, Scores};
/// let scores = Scores { chosen: -1000.0, rejected: 0.0, chosen_tokens: 1.0 };
/// let gradient = ExoPair::new(0.25)?.loss(1.0, &scores);
/// assert!((gradient.loss - 4.0_f64.ln()).abs() < 1e-12);
/// assert_eq!(gradient.chosen, 0.0);
/// # Ok::<(), objective::ParameterError>(())
/// ```
impl ExoPair {
    /// The loss with label smoothing ε.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] for a value out of its range.
    ///
    /// # Examples
    ///
    /// ```
    /// let error = objective::exo_pair::ExoPair::new(0.0).unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "exo_pair.label_smoothing: expected a number, 1e-9 <= label_smoothing <= 0.5, got 0"
    /// );
    /// ```
    pub fn new(label_smoothing: f64) -> Result<Self, ParameterError> {
        Ok(Self { label_smoothing: LABEL_SMOOTHING.check(METHOD.name, label_smoothing)? })
    }
}

impl PairLoss for ExoPair {
    const METHOD: Method = METHOD;

    fn read(reader: &Reader<'_>, _beta: f64) -> Result<Self, ParameterError> {
        Self::new(reader.number(&LABEL_SMOOTHING)?)
    }

    fn own_parameters(&self) -> Parameters {
        [(LABEL_SMOOTHING.name.to_owned(), self.label_smoothing.into())].into()
    }

    fn loss(&self, beta: f64, scores: &Scores) -> PairGradient {
        let margin = beta * (scores.chosen - scores.rejected);
        let (right, wrong) = (sigmoid(margin), sigmoid(-margin));
        let (log_right, log_wrong) = ((-self.label_smoothing).ln_1p(), self.label_smoothing.ln());
        let loss = right * (-softplus(-margin) - log_right) + wrong * (-softplus(margin) - log_wrong);
        let slope = beta * right * wrong * (margin - log_right + log_wrong);
        PairGradient { loss, chosen: slope, rejected: -slope }
    }
}
