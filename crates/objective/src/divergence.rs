//! The score that a log-ratio to the reference becomes under an f-divergence.
//!
//! # Formula
//!
//! DPO's implicit reward is β f'(π/π_ref) for the divergence D_f that keeps the policy near its reference. With
//! u = log π − log π_ref, nats:
//!
//! | `divergence` | f'(eᵘ) | derivative |
//! |---|---|---|
//! | `reverse_kl` | u | 1 |
//! | `forward_kl` | 1 − e⁻ᵘ | e⁻ᵘ |
//! | `js` | log 2 + log σ(u) | σ(−u) |
//! | `alpha` | (e^((α−1)u) − 1) / (α − 1) | e^((α−1)u) |
//!
//! α = 0 is `forward_kl`, and α → 1 is `reverse_kl`.
//!
//! # Source
//!
//! C. Wang et al., "Beyond Reverse KL: Generalizing Direct Preference Optimization with Diverse Divergence
//! Constraints", arXiv 2309.16240, Table 1; constants as in TRL.
//!
//! The implicit reward has a constant besides, which is the prompt's (the normaliser of the optimal policy), and f' one
//! of its own. Both cancel in a margin of summed scores. In one of means over tokens (`ipo`, `sigmoid_norm`) a constant
//! c leaves c/n_w − c/n_l, which is not 0 where the lengths n_w and n_l of the two responses differ. The constants
//! above make every score 0 at the reference.
//!
//! # Departures
//!
//! Exponentials of more than 100 nats go on along their tangent, so that scores and slopes stay finite (TRL overflows).

use strum::{EnumDiscriminants, EnumString, IntoStaticStr, VariantNames};

use crate::numerics::{box_cox, sigmoid, softplus};
use crate::parameter::{Kind, Parameter, ParameterError, Parameters, Reader, UNIT};

/// Which divergence keeps the policy near its reference.
pub const DIVERGENCE: Parameter = Parameter {
    name: "divergence",
    kind: Kind::Choice { default: "reverse_kl", options: DivergenceName::VARIANTS },
    purpose: "which divergence keeps the policy near its reference",
};

/// α of the alpha divergence.
pub const DIVERGENCE_ALPHA: Parameter = Parameter {
    name: "divergence_alpha",
    kind: Kind::Number { default: 0.5, range: UNIT },
    purpose: "order of the alpha divergence: 0 is forward_kl, 1 is reverse_kl",
};

/// An f-divergence between policy and reference.
///
/// Where the policy is twice as likely as the reference:
///
/// ```
/// use objective::divergence::Divergence;
///
/// let scores = [
///     (Divergence::ReverseKl, 2.0_f64.ln()),
///     (Divergence::ForwardKl, 0.5),
///     (Divergence::Js, (4.0_f64 / 3.0).ln()),
///     (Divergence::Alpha(0.5), 2.0 - 2.0_f64.sqrt()),
/// ];
/// for (divergence, score) in scores {
///     assert!((divergence.score(2.0_f64.ln()).0 - score).abs() < 1e-12);
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, EnumDiscriminants)]
#[strum_discriminants(name(DivergenceName), derive(EnumString, IntoStaticStr, VariantNames))]
#[strum_discriminants(strum(serialize_all = "snake_case"), doc = "The names of [`Divergence`].")]
pub enum Divergence {
    /// KL(π || π_ref), DPO's own.
    ReverseKl,
    /// KL(π_ref || π).
    ForwardKl,
    /// Jensen-Shannon.
    Js,
    /// The alpha divergence of order α in [0, 1].
    Alpha(f64),
}

/// At the reference every score is 0, and all slopes are 1 but that of Jensen-Shannon:
///
/// ```
/// # use objective::divergence::Divergence;
/// for divergence in [Divergence::ReverseKl, Divergence::ForwardKl, Divergence::Alpha(0.5)] {
///     assert_eq!(divergence.score(0.0), (0.0, 1.0));
/// }
/// assert_eq!(Divergence::Js.score(0.0), (0.0, 0.5));
/// ```
impl Divergence {
    /// The divergence that the parameters name.
    ///
    /// # Errors
    ///
    /// [`ParameterError`] for an unknown name, an α out of range, or one that is not used.
    ///
    /// # Examples
    ///
    /// ```
    /// use objective::divergence::{DIVERGENCE, DIVERGENCE_ALPHA, Divergence};
    /// use objective::parameter::{Parameters, Reader};
    ///
    /// let given = Parameters::from([("divergence".to_owned(), "alpha".into())]);
    /// let reader = Reader::new("example", &[DIVERGENCE, DIVERGENCE_ALPHA], &given)?;
    /// assert_eq!(Divergence::read(&reader)?, Divergence::Alpha(0.5));
    /// # Ok::<(), objective::ParameterError>(())
    /// ```
    pub fn read(reader: &Reader<'_>) -> Result<Self, ParameterError> {
        let name: DivergenceName = reader.choice(&DIVERGENCE)?;
        if name != DivergenceName::Alpha {
            let text: &str = name.into();
            reader.refuse(&DIVERGENCE_ALPHA, format_args!("{} = {text}", DIVERGENCE.name))?;
        }
        Ok(match name {
            DivergenceName::ReverseKl => Self::ReverseKl,
            DivergenceName::ForwardKl => Self::ForwardKl,
            DivergenceName::Js => Self::Js,
            DivergenceName::Alpha => Self::Alpha(reader.number(&DIVERGENCE_ALPHA)?),
        })
    }

    /// Itself, if its parameter is in its range.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] with the owner, the range and the value.
    ///
    /// # Examples
    ///
    /// ```
    /// let error = objective::divergence::Divergence::Alpha(1.5).check("dpo").unwrap_err();
    /// assert_eq!(error.to_string(), "dpo.divergence_alpha: expected a number, 0 <= divergence_alpha <= 1, got 1.5");
    /// ```
    pub fn check(self, owner: &'static str) -> Result<Self, ParameterError> {
        if let Self::Alpha(alpha) = self {
            DIVERGENCE_ALPHA.check(owner, alpha)?;
        }
        Ok(self)
    }

    /// The parameters in force.
    ///
    /// ```
    /// use objective::divergence::Divergence;
    ///
    /// assert_eq!(Divergence::Js.parameters(), [("divergence".to_owned(), "js".into())].into());
    /// assert_eq!(Divergence::Alpha(0.3).parameters()["divergence_alpha"], 0.3.into());
    /// ```
    pub fn parameters(self) -> Parameters {
        let name: &str = DivergenceName::from(self).into();
        let mut parameters = Parameters::from([(DIVERGENCE.name.to_owned(), name.into())]);
        if let Self::Alpha(alpha) = self {
            parameters.insert(DIVERGENCE_ALPHA.name.to_owned(), alpha.into());
        }
        parameters
    }

    /// The score of a log-ratio u (nats), and its derivative.
    ///
    /// Where the policy is half as likely as the reference, the forward divergence pulls it back with twice the slope:
    ///
    /// ```
    /// use objective::divergence::Divergence;
    ///
    /// let (score, slope) = Divergence::ForwardKl.score(0.5_f64.ln());
    /// assert!((score + 1.0).abs() < 1e-12 && (slope - 2.0).abs() < 1e-12);
    /// ```
    pub fn score(self, log_ratio: f64) -> (f64, f64) {
        match self {
            Self::ReverseKl => (log_ratio, 1.0),
            Self::ForwardKl => box_cox(-1.0, log_ratio),
            Self::Js => (std::f64::consts::LN_2 - softplus(-log_ratio), sigmoid(-log_ratio)),
            Self::Alpha(1.0) => (log_ratio, 1.0),
            Self::Alpha(alpha) => box_cox(alpha - 1.0, log_ratio),
        }
    }
}
