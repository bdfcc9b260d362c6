//! Robust DPO: an unbiased estimate of DPO's loss under flipped preferences.
//!
//! # Formula
//!
//! With z = β (s_w − s_l) the margin of implicit rewards and ε < 1/2 the rate of flipped pairs, mean over the step's pairs:
//!
//! L = (−(1 − ε) log σ(z) + ε log σ(−z)) / (1 − 2ε) = −log σ(z) − ε z / (1 − 2ε)
//!
//! Cotangent: ∂L/∂z = −σ(−z) − ε / (1 − 2ε).
//!
//! # Source
//!
//! S. R. Chowdhury, A. Kini and N. Natarajan, "Provably Robust DPO: Aligning Language Models with Noisy Feedback",
//! arXiv 2403.00409, equation 12.
//!
//! # Departures
//!
//! None in value; the second form neither overflows nor cancels. The default ε = 0.1 is ours: with 0 the loss is DPO's.
//!
//! # Examples
//!
//! z = 0, ε = 1/4: L = ln 2, ∂L/∂z = −1/2 − 1/2.
//!
//! ```
//! use objective::preference::{PairLoss, Scores};
//!
//! let scores = Scores { chosen: 0.0, rejected: 0.0, chosen_tokens: 1.0 };
//! let gradient = objective::robust::Robust::new(0.25)?.loss(1.0, &scores);
//! assert!((gradient.loss - 2.0_f64.ln()).abs() < 1e-6);
//! assert!((gradient.chosen + 1.0).abs() < 1e-6);
//! assert!((gradient.rejected - 1.0).abs() < 1e-6);
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
    name: "robust",
    summary: "DPO corrected for a known rate of flipped preferences",
    source: "arXiv 2403.00409, equation 12",
    parameters: &[BETA, LABEL_SMOOTHING, DIVERGENCE, DIVERGENCE_ALPHA, TAIL_WEIGHT, WEIGHTING],
    build: build::<Robust>,
};

/// ε.
pub const LABEL_SMOOTHING: Parameter = Parameter {
    name: "label_smoothing",
    kind: Kind::Number { default: 0.1, range: (Bound::Included(0.0), Bound::Excluded(0.5)) },
    purpose: "rate of preferences that are the wrong way round",
};

/// Robust DPO.
///
/// Its mean over preferences flipped at the rate ε is the DPO loss of the true one:
///
/// ```
/// use objective::preference::{PairLoss, Scores};
/// use objective::{dpo::Dpo, robust::Robust};
///
/// let (right, flipped) = (
///     Scores { chosen: 1.0, rejected: 0.0, chosen_tokens: 1.0 },
///     Scores { chosen: 0.0, rejected: 1.0, chosen_tokens: 1.0 },
/// );
/// let robust = Robust::new(0.25)?;
/// let mean = 0.75 * robust.loss(1.0, &right).loss + 0.25 * robust.loss(1.0, &flipped).loss;
/// assert!((mean - Dpo::new(0.0)?.loss(1.0, &right).loss).abs() < 1e-12);
/// # Ok::<(), objective::ParameterError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Robust {
    label_smoothing: f64,
}

/// With ε = 0 it is DPO:
///
/// ```
/// # use objective::preference::{PairLoss, Scores};
/// # use objective::{dpo::Dpo, robust::Robust};
/// let scores = Scores { chosen: 2.0, rejected: 1.5, chosen_tokens: 1.0 };
/// assert_eq!(Robust::new(0.0)?.loss(1.0, &scores), Dpo::new(0.0)?.loss(1.0, &scores));
/// # Ok::<(), objective::ParameterError>(())
/// ```
impl Robust {
    /// The loss with label smoothing ε.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] for a value out of its range.
    ///
    /// # Examples
    ///
    /// ```
    /// let error = objective::robust::Robust::new(0.5).unwrap_err();
    /// assert_eq!(error.to_string(), "robust.label_smoothing: expected a number, 0 <= label_smoothing < 0.5, got 0.5");
    /// ```
    pub fn new(label_smoothing: f64) -> Result<Self, ParameterError> {
        Ok(Self { label_smoothing: LABEL_SMOOTHING.check(METHOD.name, label_smoothing)? })
    }
}

impl PairLoss for Robust {
    const METHOD: Method = METHOD;

    fn read(reader: &Reader<'_>, _beta: f64) -> Result<Self, ParameterError> {
        Self::new(reader.number(&LABEL_SMOOTHING)?)
    }

    fn own_parameters(&self) -> Parameters {
        [(LABEL_SMOOTHING.name.to_owned(), self.label_smoothing.into())].into()
    }

    fn loss(&self, beta: f64, scores: &Scores) -> PairGradient {
        let margin = beta * (scores.chosen - scores.rejected);
        let bias = self.label_smoothing / (1.0 - 2.0 * self.label_smoothing);
        let slope = beta * (-sigmoid(-margin) - bias);
        PairGradient { loss: softplus(-margin) - bias * margin, chosen: slope, rejected: -slope }
    }
}
