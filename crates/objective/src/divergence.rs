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
//! C. Wang et al., "Beyond Reverse KL: Generalizing Direct Preference Optimization with Diverse Divergence Constraints",
//! arXiv 2309.16240, Table 1; constants as in TRL, which cancel in a margin.
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

impl Divergence {
    /// The divergence that the parameters name.
    ///
    /// # Errors
    ///
    /// [`ParameterError`] for an unknown name, an α out of range, or one that is not used.
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
    pub fn check(self, owner: &'static str) -> Result<Self, ParameterError> {
        if let Self::Alpha(alpha) = self {
            DIVERGENCE_ALPHA.check(owner, alpha)?;
        }
        Ok(self)
    }

    /// The parameters in force.
    pub fn parameters(self) -> Parameters {
        let name: &str = DivergenceName::from(self).into();
        let mut parameters = Parameters::from([(DIVERGENCE.name.to_owned(), name.into())]);
        if let Self::Alpha(alpha) = self {
            parameters.insert(DIVERGENCE_ALPHA.name.to_owned(), alpha.into());
        }
        parameters
    }

    /// The score of a log-ratio u (nats), and its derivative.
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
