//! Scores of log-ratios to the reference under an f-divergence.
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
//! The implicit reward also has a constant per prompt (the normaliser of the optimal policy), and f' has another one
//! of its own. Both cancel in a margin of summed scores. In one of means over tokens (`ipo`, `sigmoid_norm`) a constant
//! c leaves c/n_w − c/n_l, which is not 0 where the lengths n_w and n_l of the two responses differ. The constants
//! above make every score 0 at the reference.
//!
//! # Departures
//!
//! Exponentials of more than 100 nats continue along their tangent, so that scores and slopes stay finite (TRL
//! overflows).

use strum::{EnumString, IntoStaticStr, VariantNames};

use crate::numerics::{box_cox, sigmoid, softplus};
use crate::parameter::choices;

/// An f-divergence between policy and reference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Divergence {
    /// KL(π || π_ref), DPO's own.
    #[default]
    ReverseKl,
    /// Forward divergence KL(π_ref || π).
    ForwardKl,
    /// Jensen-Shannon divergence.
    Js,
    /// The alpha divergence, whose order is a separate parameter.
    Alpha,
}

choices!(Divergence);

impl Divergence {
    /// Setting under which the order has no effect.
    pub fn without_order(self) -> Option<String> {
        (self != Self::Alpha).then(|| format!("divergence = {}", <&str>::from(self)))
    }

    /// The score of a log-ratio (nats) under the divergence of this order, and its derivative.
    ///
    /// Where the policy is twice as likely as the reference, and half as likely:
    ///
    /// ```
    /// use objective::Divergence;
    ///
    /// let (score, slope) = Divergence::ForwardKl.score(0.5, 2.0_f64.ln());
    /// assert!((score - 0.5).abs() < 1e-12 && (slope - 0.5).abs() < 1e-12);
    /// let (score, slope) = Divergence::ForwardKl.score(0.5, 0.5_f64.ln());
    /// assert!((score + 1.0).abs() < 1e-12 && (slope - 2.0).abs() < 1e-12);
    /// ```
    pub fn score(self, order: f64, log_ratio: f64) -> (f64, f64) {
        match self {
            Self::ReverseKl => (log_ratio, 1.0),
            Self::ForwardKl => box_cox(-1.0, log_ratio),
            Self::Js => (jensen_shannon(log_ratio), sigmoid(-log_ratio)),
            Self::Alpha if order == 1.0 => (log_ratio, 1.0),
            Self::Alpha => box_cox(order - 1.0, log_ratio),
        }
    }
}

/// log 2 + log σ(u), computed without cancellation near the reference.
fn jensen_shannon(log_ratio: f64) -> f64 {
    // Below this, the two terms are far apart, and e⁻ᵘ may overflow.
    const FAR: f64 = -1.0;
    if log_ratio > FAR { -((-log_ratio).exp_m1() / 2.0).ln_1p() } else { std::f64::consts::LN_2 - softplus(-log_ratio) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_score_of_jensen_and_shannon_keeps_its_digits_near_the_reference() {
        // u/2 − u²/8 + u⁴/192 is log 2 + log σ(u) to within u⁶/2880.
        for u in [1e-300_f64, 1e-12, -1e-12, 1e-6, -1e-6, 1e-3, -1e-3] {
            let expected = u / 2.0 - u * u / 8.0 + u.powi(4) / 192.0;
            let (score, _) = Divergence::Js.score(0.5, u);
            assert!((score / expected - 1.0).abs() < 1e-15, "{u}: {score:e}, {expected:e}");
        }
        let (near, far) = (jensen_shannon(-1.0 + 1e-12), jensen_shannon(-1.0 - 1e-12));
        assert!((near - far).abs() < 1e-11);
    }
}
