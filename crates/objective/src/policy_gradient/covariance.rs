//! Selection of the tokens with the greatest covariance between log-probability and advantage.
//!
//! A policy loses its entropy through the few tokens that are both likely and rewarded: the change of entropy in a step
//! is, to first order, minus the covariance of log π and A. Clip-Cov takes the gradient of some of them away, and
//! KL-Cov ties them to the policy that sampled them.
//!
//! # Formula
//!
//! The covariance of a token is (A − mean A)(log π − mean log π), means over the step's tokens. With n tokens and share
//! s = `covariance_share`, max(1, ⌊s n⌋) tokens are selected: the greatest of all for `kl_cov`; for `clip_cov` the
//! greatest of those that lie strictly between `covariance_min` and `covariance_max` and are not clipped anyway, or
//! fewer where there are fewer.
//!
//! # Source
//!
//! G. Cui et al., "The Entropy Mechanism of Reinforcement Learning for Reasoning Language Models", arXiv 2505.22617,
//! and verl 0.9.1's `clip_cov` and `kl_cov`.
//!
//! # Departures
//!
//! verl's `clip_cov` samples among the tokens between the two bounds; objectives have no randomness, so the greatest of
//! them are taken. Of equal covariances the earlier token counts as the greater.

/// Selects the tokens of the greatest covariance among those that are `kept` and satisfy `admits`, and writes their
/// positions to `selected`.
pub(super) fn greatest(
    share: f64,
    (log_prob, advantage): (&[f64], &[f64]),
    kept: impl Fn(usize) -> bool,
    admits: impl Fn(usize, f64) -> bool,
    scratch: &mut Vec<f64>,
    selected: &mut Vec<usize>,
) {
    let tokens = || (0..log_prob.len()).filter(|&token| kept(token));
    let count = tokens().count() as f64;
    let mean_advantage = tokens().map(|token| advantage[token]).sum::<f64>() / count;
    let mean_log_prob = tokens().map(|token| log_prob[token]).sum::<f64>() / count;
    scratch.clear();
    let columns = log_prob.iter().zip(advantage);
    scratch.extend(columns.map(|(log_prob, advantage)| (advantage - mean_advantage) * (log_prob - mean_log_prob)));
    let wanted = ((share * count) as usize).max(1);
    selected.clear();
    selected.extend(tokens().filter(|&token| admits(token, scratch[token])));
    if selected.len() > wanted {
        selected.select_nth_unstable_by(wanted, |&a, &b| scratch[b].total_cmp(&scratch[a]).then(a.cmp(&b)));
        selected.truncate(wanted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_covariances_that_are_admitted_are_selected() {
        // The means are −2.5 and 0.
        let (log_prob, advantages) = ([-1.0, -2.0, -3.0, -4.0], [2.0, -1.0, 0.0, -1.0]);
        let select = |share: f64, admits: fn(usize, f64) -> bool| {
            let (mut scratch, mut selected) = (Vec::new(), Vec::new());
            greatest(share, (&log_prob, &advantages), |_| true, admits, &mut scratch, &mut selected);
            selected.sort_unstable();
            (scratch, selected)
        };
        assert_eq!(select(0.25, |_, _| true), (vec![3.0, -0.5, 0.0, 1.5], vec![0]));
        assert_eq!(select(0.5, |_, _| true).1, [0, 3]);
        assert_eq!(select(0.5, |_, covariance| covariance < 3.0).1, [2, 3]);
        assert_eq!(select(1e-9, |token, _| token != 0).1, [3]);
        assert!(select(1.0, |_, _| false).1.is_empty());
    }
}
