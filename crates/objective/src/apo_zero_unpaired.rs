//! Anchored preference optimisation on single responses: KTO with its reference point at 0.
//!
//! # Formula
//!
//! With r = β (log π − log π_ref) summed over a response, mean over the step's labelled responses:
//!
//! - desirable: w_D (1 − σ(r))
//! - undesirable: w_U σ(r)
//!
//! Cotangent: ∓ w β σ(r) σ(−r).
//!
//! # Source
//!
//! K. D'Oosterlinck et al., "Anchored Preference Optimization and Contrastive Revisions: Addressing Underspecification in
//! Alignment", arXiv 2408.06266, equation 7, one response at a time, as TRL's `apo_zero_unpaired`. Each term depends on its own
//! response alone, so it needs no pairs.
//!
//! # Departures
//!
//! None. The anchor is 0 by definition: no mismatched responses are asked for.
//!
//! # Examples
//!
//! At the reference r = 0: L = ½, cotangent −¼ on a desirable response with β = 1.
//!
//! ```
//! use objective::labelled::LabelLoss;
//!
//! let apo = objective::apo_zero_unpaired::ApoZeroUnpaired::new(1.0, 1.0)?;
//! assert_eq!(apo.loss(0.0), (0.5, -0.25));
//! # Ok::<(), objective::ParameterError>(())
//! ```

use crate::kto::{DESIRABLE_WEIGHT, UNDESIRABLE_WEIGHT, Weights, bounded};
use crate::labelled::{LabelLoss, Rewards, build};
use crate::method::Method;
use crate::parameter::{ParameterError, Parameters, Reader};
use crate::preference::BETA;
use crate::requirements::Coupling;
use crate::state::ObjectiveState;

/// The registry's line.
pub const METHOD: Method = Method {
    name: "apo_zero_unpaired",
    summary: "desirable responses raised and undesirable ones lowered against the reference",
    source: "arXiv 2408.06266, equation 7",
    parameters: &[BETA, DESIRABLE_WEIGHT, UNDESIRABLE_WEIGHT],
    build: build::<ApoZeroUnpaired>,
};

/// Anchored preference optimisation on single responses.
///
/// The two responses of a pair add up to the pair's loss in `apo_zero`:
///
/// ```
/// use objective::labelled::LabelLoss;
/// use objective::preference::{PairLoss, Scores};
/// use objective::{apo_zero::ApoZero, apo_zero_unpaired::ApoZeroUnpaired};
///
/// let pair = Scores { chosen: 2.0, rejected: 0.5, chosen_tokens: 1.0 };
/// let single = ApoZeroUnpaired::new(1.0, 1.0)?;
/// assert_eq!(single.loss(2.0).0 + single.loss(-0.5).0, ApoZero.loss(1.0, &pair).loss);
/// # Ok::<(), objective::ParameterError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ApoZeroUnpaired {
    weights: Weights,
}

/// Rewards are not shifted, whatever their mean:
///
/// ```
/// # use objective::labelled::{LabelLoss, Rewards};
/// # use objective::{ObjectiveState, apo_zero_unpaired::ApoZeroUnpaired};
/// let rewards = Rewards { count: 2, mean: 3.0, mismatched: 0.0 };
/// assert_eq!(ApoZeroUnpaired::new(1.0, 1.0)?.shift(&rewards, &mut ObjectiveState::default()), 0.0);
/// # Ok::<(), objective::ParameterError>(())
/// ```
impl ApoZeroUnpaired {
    /// The loss with the weights of desirable and undesirable responses.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] for a value out of its range.
    ///
    /// # Examples
    ///
    /// ```
    /// let error = objective::apo_zero_unpaired::ApoZeroUnpaired::new(-1.0, 1.0).unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "apo_zero_unpaired.desirable_weight: expected a number, 0 <= desirable_weight <= 1e6, got -1"
    /// );
    /// ```
    pub fn new(desirable_weight: f64, undesirable_weight: f64) -> Result<Self, ParameterError> {
        Ok(Self { weights: Weights::new(METHOD.name, desirable_weight, undesirable_weight)? })
    }
}

impl LabelLoss for ApoZeroUnpaired {
    const METHOD: Method = METHOD;
    const COUPLING: Coupling = Coupling::None;
    const MISMATCHED: bool = false;

    fn read(reader: &Reader<'_>) -> Result<Self, ParameterError> {
        Self::new(reader.number(&DESIRABLE_WEIGHT)?, reader.number(&UNDESIRABLE_WEIGHT)?)
    }

    fn own_parameters(&self) -> Parameters {
        self.weights.parameters()
    }

    fn weight(&self, desirable: bool) -> f64 {
        self.weights.of(desirable)
    }

    fn shift(&self, _: &Rewards, _: &mut ObjectiveState) -> f64 {
        0.0
    }

    fn loss(&self, margin: f64) -> (f64, f64) {
        bounded(margin)
    }
}
