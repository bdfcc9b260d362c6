//! Importance ratios of the policy in training to the policy that sampled the responses.

use strum::{EnumString, IntoStaticStr, VariantNames};

use super::numbers::Numbers;
use crate::numerics::sum_of_differences;

/// Importance ratio of the policy in training to the policy that sampled the response.
///
/// A policy gradient estimated from the responses of an older policy weights each by how much more likely the policy in
/// training makes it. The ratio of a whole response is the exact weight and the noisiest one; the ratio of a token is
/// the common approximation; the geometric mean over a response lies between them, at a scale that does not depend on
/// the length.
///
/// # Formula
///
/// With uₜ = log π − log π_behaviour of a token and N the response's tokens:
///
/// | `ratio` | x of token t | ∂x/∂log π of token s |
/// |---|---|---|
/// | `token` | uₜ | 1 where s = t |
/// | `sequence` | mean of u | 1/N |
/// | `sequence_token` | mean of u, which passes the gradient of token t alone | 1 where s = t |
/// | `product` | sum of u: the whole response's ratio | 1 |
/// | `none` | no ratio: the loss is −A log π | |
///
/// Where a correction rejects tokens, means and sums are over those that it keeps.
///
/// `sequence_token` holds log π of each token minus the mean of u, and subtracts it from log π again. Where |log π| is
/// so large that this rounds, digits of the mean of u are lost; beyond 10¹⁶ nats, all of them.
///
/// # Source
///
/// `token`: arXiv 1707.06347; `sequence`: C. Zheng et al., "GSPO", arXiv 2507.18071, equation 7; `sequence_token`:
/// equations 13 and 14 there; `product`: TRL's `RLOOTrainer`; `none`: R. J. Williams, 1992, and GPG, arXiv 2504.02546.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Ratio {
    /// Ratio of each token.
    #[default]
    Token,
    /// Geometric mean of the ratios over a response.
    Sequence,
    /// Geometric mean over a response, with the gradient of the token alone.
    SequenceToken,
    /// Ratio of the whole response, which is the product of its tokens' ratios.
    Product,
    /// No ratio: the responses are treated as samples of the policy in training.
    None,
}

/// Sum of log π − log π_behaviour over a response's tokens with a nonzero weight, and their number.
pub(super) fn log_ratio(log_prob: &[f64], behaviour: &[f64], shares: Numbers<'_>) -> (f64, f64) {
    match shares {
        Numbers::Same(_) => (sum_of_differences(log_prob, behaviour), log_prob.len() as f64),
        Numbers::Each(shares) => {
            let columns = log_prob.iter().zip(behaviour).zip(shares).filter(|(_, share)| **share > 0.0);
            columns.fold((0.0, 0.0), |(sum, count), ((own, other), _)| (sum + (own - other), count + 1.0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejected_tokens_are_left_out_of_a_responses_ratio() {
        let (own, other) = ([-1.0, -2.0, -3.0], [-1.5, -1.0, -5.0]);
        assert_eq!(log_ratio(&own, &other, Numbers::Same(0.25)), (1.5, 3.0));
        assert_eq!(log_ratio(&own, &other, Numbers::Each(&[0.5, 0.0, 0.5])), (2.5, 2.0));
        assert_eq!(log_ratio(&own, &other, Numbers::Each(&[0.0; 3])), (0.0, 0.0));
    }
}
