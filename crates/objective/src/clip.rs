//! Proximal policy optimisation's clipped surrogate of the policy gradient.
//!
//! # Formula
//!
//! With ρ = exp x the importance ratio to the policy that sampled the response and A its advantage:
//!
//! ℓ = −min(min(ρ, δ) A, clip(ρ, 1 − ε, 1 + ε') A)
//!
//! Without the second clip δ, min(ρ, δ) is ρ. ∂ℓ/∂x is −ρ A where the minimum moves with ρ and 0 where it is clipped.
//!
//! # Source
//!
//! J. Schulman et al., "Proximal Policy Optimization Algorithms", arXiv 1707.06347, equation 7; ε' ≠ ε from DAPO, arXiv
//! 2503.14476; δ from INTELLECT-2, arXiv 2505.07291.

use std::ops::Bound;

use crate::numerics::exponential;
use crate::parameter::{Kind, Parameter, ParameterError, Parameters, Reader, UNIT};

/// ε.
pub const CLIP: Parameter = Parameter {
    name: "clip",
    kind: Kind::Number { default: 0.2, range: UNIT },
    purpose: "how far below 1 an importance ratio may fall before it stops to count, and above it where clip_high is not set",
};

/// ε'.
pub const CLIP_HIGH: Parameter = Parameter {
    name: "clip_high",
    kind: Kind::Derived { default: "clip", range: (Bound::Included(0.0), Bound::Included(1e6)) },
    purpose: "how far above 1 an importance ratio may rise before it stops to count",
};

/// δ.
pub const DELTA: Parameter = Parameter {
    name: "delta",
    kind: Kind::Derived { default: "off", range: (Bound::Excluded(1.0), Bound::Included(1e6)) },
    purpose: "the greatest importance ratio that a negative advantage counts with (two-sided clipping)",
};

/// Which importance ratios are held back.
///
/// Without δ a negative advantage counts with any ratio, however great:
///
/// ```
/// use objective::clip::Clip;
///
/// let x = 4.0_f64.ln();
/// let [free, two_sided] = [None, Some(3.0)].map(|delta| Clip::new("example", 0.2, 0.2, delta));
/// assert!((free?.surrogate(x, -1.0).loss - 4.0).abs() < 1e-12);
/// assert_eq!(two_sided?.surrogate(x, -1.0).loss, 3.0);
/// # Ok::<(), objective::ParameterError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clip {
    low: f64,
    high: f64,
    delta: Option<f64>,
}

/// The loss of one ratio.
///
/// On policy the slope is that of the policy gradient, −A, and nothing is held back:
///
/// ```
/// use objective::clip::{Clip, Surrogate};
///
/// let clip = Clip::new("example", 0.2, 0.2, None)?;
/// assert_eq!(clip.surrogate(0.0, 2.0), Surrogate { loss: -2.0, slope: -2.0, clipped: None });
/// # Ok::<(), objective::ParameterError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Surrogate {
    /// ℓ.
    pub loss: f64,
    /// ∂ℓ/∂x.
    pub slope: f64,
    /// The bound at which the ratio is clipped, if it is.
    pub clipped: Option<Bounded>,
}

/// The bound at which an importance ratio is clipped.
///
/// The upper bound limits the gain of a token with a positive advantage, the lower bound the loss of one with a
/// negative advantage:
///
/// ```
/// use objective::clip::{Bounded, Clip};
///
/// let clip = Clip::new("example", 0.2, 0.2, None)?;
/// assert_eq!(clip.surrogate(0.5, 1.0).clipped, Some(Bounded::Above));
/// assert_eq!(clip.surrogate(-0.5, -1.0).clipped, Some(Bounded::Below));
/// assert_eq!(clip.surrogate(-0.5, 1.0).clipped, None);
/// # Ok::<(), objective::ParameterError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bounded {
    /// The lower bound, 1 − ε.
    Below,
    /// The upper bound, 1 + ε', or δ.
    Above,
}

/// With ε' > ε an unlikely token may gain more than it may lose:
///
/// ```
/// # use objective::clip::Clip;
/// let (narrow, wide) = (Clip::new("example", 0.2, 0.2, None)?, Clip::new("example", 0.2, 0.28, None)?);
/// let x = 1.25_f64.ln();
/// assert!(narrow.surrogate(x, 1.0).clipped.is_some() && wide.surrogate(x, 1.0).clipped.is_none());
/// # Ok::<(), objective::ParameterError>(())
/// ```
impl Clip {
    /// Ratios held within 1 − `low` and 1 + `high`, and below `delta`, which with a negative advantage nothing else does.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] for a value out of its range.
    ///
    /// # Examples
    ///
    /// ```
    /// let error = objective::clip::Clip::new("grpo", 1.5, 0.2, None).unwrap_err();
    /// assert_eq!(error.to_string(), "grpo.clip: expected a number, 0 <= clip <= 1, got 1.5");
    /// ```
    pub fn new(owner: &'static str, low: f64, high: f64, delta: Option<f64>) -> Result<Self, ParameterError> {
        Ok(Self {
            low: CLIP.check(owner, low)?,
            high: CLIP_HIGH.check(owner, high)?,
            delta: delta.map(|delta| DELTA.check(owner, delta)).transpose()?,
        })
    }

    /// The clipping that the declared parameters describe.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] for a value out of its range.
    pub(crate) fn read(
        owner: &'static str,
        declared: &[Parameter],
        reader: &Reader<'_>,
    ) -> Result<Self, ParameterError> {
        let low = reader.number(&CLIP)?;
        let high = if declared.contains(&CLIP_HIGH) { reader.derived(&CLIP_HIGH)? } else { None };
        let delta = if declared.contains(&DELTA) { reader.derived(&DELTA)? } else { None };
        Self::new(owner, low, high.unwrap_or(low), delta)
    }

    /// The parameters in force, of those declared.
    pub(crate) fn parameters(&self, declared: &[Parameter]) -> Parameters {
        let mut parameters =
            Parameters::from([(CLIP.name.to_owned(), self.low.into()), (CLIP_HIGH.name.to_owned(), self.high.into())]);
        parameters.extend(self.delta.map(|delta| (DELTA.name.to_owned(), delta.into())));
        parameters.retain(|name, _| declared.iter().any(|parameter| parameter.name == name));
        parameters
    }

    /// ℓ at a log-ratio x.
    ///
    /// ```
    /// let clip = objective::clip::Clip::new("example", 0.2, 0.2, None)?;
    /// let x = 1.5_f64.ln();
    /// assert_eq!((clip.surrogate(x, 1.0).loss, clip.surrogate(x, 1.0).slope), (-1.2, 0.0));
    /// assert!((clip.surrogate(x, -1.0).loss - 1.5).abs() < 1e-12);
    /// # Ok::<(), objective::ParameterError>(())
    /// ```
    pub fn surrogate(&self, log_ratio: f64, advantage: f64) -> Surrogate {
        let (ratio, slope) = exponential(log_ratio);
        let (low, high, delta) = (1.0 - self.low, 1.0 + self.high, self.delta.unwrap_or(f64::INFINITY));
        // Which ratio the minimum has follows from the bounds and the sign of A: products that round to the same number
        // do not decide it.
        let (least, most) = if advantage > 0.0 { (0.0, high.min(delta)) } else { (low, high.max(delta)) };
        let (held, clipped) = match advantage != 0.0 {
            true if ratio > most => (most, Some(Bounded::Above)),
            true if ratio < least => (least, Some(Bounded::Below)),
            _ => (ratio, None),
        };
        let slope = if clipped.is_none() { slope } else { 0.0 };
        Surrogate { loss: -held * advantage, slope: -slope * advantage, clipped }
    }
}
