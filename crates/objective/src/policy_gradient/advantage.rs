//! Advantages: the difference between a response's reward and a baseline.

use std::ops::Range;

use strum::{EnumString, IntoStaticStr, VariantNames};

use crate::evaluation::{Metric, Metrics};

/// Baseline that a response's reward is compared with.
///
/// A policy gradient raises the probability of what turned out better than expected and lowers the rest. What
/// "expected" means is the baseline. A baseline that does not depend on the response leaves the expected gradient as it
/// is and only lowers its variance; one that includes the response itself shrinks the gradient.
///
/// # Formula
///
/// R is a response's reward and n its length; mean and standard deviation s (divided by G − 1) are over its group of G
/// responses to the same prompt. The last column is the expected gradient on policy of the mean over responses of A log
/// π(y), with log π(y) summed over the response.
///
/// | `advantage` | A | expected gradient |
/// |---|---|---|
/// | `given` | a column of the batch, a number a token or a number a response | the host's |
/// | `group_mean` | (R − mean) / (s + 10⁻⁴) with `scale = group`; s of the whole step with `batch`; R − mean with `none` | `none`: (G − 1)/G ∇E\[R\] |
/// | `leave_one_out` | R − mean of the others of the group | ∇E\[R\] |
/// | `batch` | Rₜ = Σ_{k≥t} γ^{k−t} r_k with r the reward on the last token, whitened over the step's tokens | biased by the whitening |
/// | `batch_baseline` | R − mean, whitened over the step's tokens | biased by the whitening |
/// | `length_weighted` | R − Σ n R / Σ n over the group | ∇E\[R\] − E\[n/Σn R s(y)\]: (G − 1)/G ∇E\[R\] for equal lengths |
/// | `greedy` | R − the reward of the greedy response, the second of the two numbers that a response's reward has | ∇E\[R\] |
/// | `max_rl` | (R − mean) / mean, and 0 where the mean is not positive | rewards of 0 and 1: ∇ −Σ_{k=1}^{G−1} (1 − p)ᵏ/k |
/// | `pass_at_k` | the mean over the sets of k of the group that include the response of max R − max R of the others, over s + 10⁻⁴ as in `scale` | `none`: ∇E\[max of k\]/k |
/// | `gae` | generalised advantage estimates that the host makes with a value function | see [`generalised_advantages`](crate::generalised_advantages) |
///
/// p is the probability of a reward of 1. Whitening subtracts the mean over tokens and divides by √(variance + 10⁻⁸),
/// the variance divided by the number of tokens less one. A response alone in its group has A = 0, and so has one whose
/// rewards all abstain; a reward that abstains is left out of its mean. Several rewards a response are added before
/// they are compared (`rewards = together`), or compared one by one, added, and then divided by their standard
/// deviation over the step's responses + 10⁻⁴ after their mean is subtracted (`rewards = apart`, GDPO).
///
/// # Source
///
/// `group_mean`: Z. Shao et al., "DeepSeekMath", arXiv 2402.03300, section 4.1.2; `scale = none`: Z. Liu et al., arXiv
/// 2503.20783; `scale = batch`: arXiv 2508.08221. `leave_one_out`: A. Ahmadian et al., arXiv 2402.14740. `batch`,
/// `batch_baseline`: J. Hu, "REINFORCE++", arXiv 2501.03262. `length_weighted`: Y. Hao et al., "OPO", arXiv 2505.23585.
/// `greedy`: Z. Li et al., "ReMax", arXiv 2310.10505. `max_rl`: F. Tajwar et al., "Maximum Likelihood Reinforcement
/// Learning", arXiv 2602.02710: with K successes among N responses of scores Sᵢ the estimate is K⁻¹ Σ rᵢ Sᵢ − N⁻¹ Σ Sᵢ
/// = N⁻¹ Σ (rᵢ − r̄)/r̄ Sᵢ. `pass_at_k`: Y. Tang et al., arXiv 2503.19595. `rewards = apart`: "GDPO", arXiv 2601.05242.
///
/// # Departures
///
/// MaxRL subtracts the control variate N⁻¹ Σ Sᵢ also where no response succeeds, so that its order is G; here, as in
/// its authors' code, such a group has A = 0, and the order is G − 1. verl takes the whole group as k and gives a
/// response alone in its group its reward as advantage. OPO's optimal baseline weighs by the squared norm of the score,
/// for which its paper puts the length. verl whitens the sum of GDPO's advantages over tokens instead of responses.
/// verl's GPG multiplies all advantages of a step by its responses over those with a reward that is not 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Advantage {
    /// Advantages from the host, one number per token or per response.
    Given,
    /// The reward minus the mean of the group, which includes the response.
    #[default]
    GroupMean,
    /// The reward minus the mean of the other responses of the group.
    LeaveOneOut,
    /// Discounted returns, whitened over the step.
    Batch,
    /// The reward minus the mean of the group, whitened over the step.
    BatchBaseline,
    /// The reward minus the mean of the group weighted by lengths.
    LengthWeighted,
    /// The reward minus that of the greedy response to the same prompt.
    Greedy,
    /// The reward minus the mean of the group, divided by that mean.
    MaxRl,
    /// The reward minus the best of the other responses, over sets of `pass_k` responses.
    PassAtK,
    /// Generalised advantage estimates from the host.
    Gae,
}

/// The standard deviation that advantages are divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Scale {
    /// The standard deviation of the group's rewards.
    #[default]
    Group,
    /// The standard deviation of the whole step's rewards.
    Batch,
    /// One: advantages are not divided.
    None,
}

/// Combination of several rewards of a response into one advantage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Rewards {
    /// Rewards are added, and the sums compared.
    #[default]
    Together,
    /// Rewards are compared separately; the advantages are added, then shifted and scaled over the step's responses.
    Apart,
}

impl Advantage {
    /// Whether advantages are a column of the batch.
    pub(super) fn is_column(self) -> bool {
        matches!(self, Self::Given | Self::Gae)
    }

    /// Whether advantages are divided by a standard deviation.
    pub(super) fn is_scaled(self) -> bool {
        matches!(self, Self::GroupMean | Self::PassAtK)
    }
}

/// Number added to a standard deviation before the division.
const SCALE_OFFSET: f64 = 1e-4;

/// Number added to a variance before the division by its root.
const VARIANCE_OFFSET: f64 = 1e-8;

/// Replaces the scores of a step, one per response, by advantages. A NaN score means no reward, and its advantage is 0.
/// `group` contains the group of each response, and `length` returns a response's number of tokens.
pub(super) fn compare(
    (advantage, scale, pass_k): (Advantage, Scale, usize),
    groups: impl Iterator<Item = Range<usize>>,
    length: impl Fn(usize) -> usize,
    scores: &mut [f64],
    order: &mut Vec<usize>,
    metrics: &mut Metrics,
) {
    let whole = if scale == Scale::Batch { deviation(scores) } else { 0.0 };
    for place in groups {
        let begin = place.start;
        let members = &mut scores[place];
        let present = || members.iter().copied().filter(|score| !score.is_nan());
        let (size, first) = (present().count(), present().next().unwrap_or(0.0));
        if size < 2 {
            members.fill(0.0);
            metrics.record(Metric::ZeroAdvantageGroups, 1.0);
            metrics.record(Metric::RewardStandardDeviation, 0.0);
            continue;
        }
        // Values relative to the first, so that equal rewards have advantages of exactly 0.
        members.iter_mut().for_each(|score| *score -= first);
        let present = || members.iter().copied().filter(|score| !score.is_nan());
        let mean = present().sum::<f64>() / size as f64;
        let own = deviation(members);
        metrics.record(Metric::ZeroAdvantageGroups, f64::from(present().all(|score| score == 0.0)));
        metrics.record(Metric::RewardStandardDeviation, own);
        let scaled = match scale {
            Scale::Group => own + SCALE_OFFSET,
            Scale::Batch => whole + SCALE_OFFSET,
            Scale::None => 1.0,
        };
        let (baseline, divisor) = match advantage {
            Advantage::GroupMean => (mean, scaled),
            // R − (G mean − R)/(G − 1) = (R − mean) G/(G − 1).
            Advantage::LeaveOneOut => (mean, (size - 1) as f64 / size as f64),
            Advantage::LengthWeighted => {
                let (mut tokens, mut total) = (0.0, 0.0);
                for (index, score) in members.iter().enumerate().filter(|(_, score)| !score.is_nan()) {
                    let own = length(begin + index) as f64;
                    tokens += own;
                    total += own * score;
                }
                (total / tokens, 1.0)
            }
            Advantage::MaxRl if mean + first > 0.0 => (mean, mean + first),
            Advantage::MaxRl => (mean, f64::INFINITY),
            Advantage::PassAtK => {
                best_of(pass_k.min(size), members, order);
                (0.0, scaled)
            }
            _ => (mean, 1.0),
        };
        for score in members {
            *score = if score.is_nan() { 0.0 } else { (*score - baseline) / divisor };
        }
    }
}

/// Replaces each score by its mean gain over all sets of `k` scores that include it. The gain in a set is the maximum
/// of the set minus the maximum of the other scores, so that it is 0 unless the score itself is the maximum.
fn best_of(k: usize, scores: &mut [f64], order: &mut Vec<usize>) {
    order.clear();
    order.extend((0..scores.len()).filter(|&index| !scores[index].is_nan()));
    order.sort_unstable_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    // From one score to the next greater, the mean grows by their difference times the share of the sets of the greater
    // whose others are all below it: C(rank, k − 1) / C(size − 1, k − 1).
    let mut share = 1.0;
    for rank in (1..order.len()).rev() {
        scores[order[rank]] = share * (scores[order[rank]] - scores[order[rank - 1]]);
        share *= (rank + 1).saturating_sub(k) as f64 / rank as f64;
    }
    let mut gain = 0.0;
    for (rank, &place) in order.iter().enumerate() {
        gain += if rank == 0 { 0.0 } else { scores[place] };
        scores[place] = gain;
    }
}

/// Shifts and scales numbers, one per token, to mean 0 and variance 1 (with n − 1). NaN values are skipped and become
/// 0; equal values become 0.
pub(super) fn whiten(values: &mut [f64]) {
    let divisor = deviation(values).hypot(VARIANCE_OFFSET.sqrt());
    centre_and_divide(values, divisor);
}

/// Shifts and scales the advantages of a step's responses to mean 0 and a standard deviation of approximately 1. NaN
/// values are omitted and become 0.
pub(super) fn standardise(values: &mut [f64]) {
    let divisor = deviation(values) + SCALE_OFFSET;
    centre_and_divide(values, divisor);
}

/// Subtracts the mean of all values other than NaN, and divides by `divisor`. NaN values become 0.
fn centre_and_divide(values: &mut [f64], divisor: f64) {
    let present = || values.iter().copied().filter(|value| !value.is_nan());
    // Values relative to the first, so that equal values become exactly 0.
    let (count, first) = (present().count() as f64, present().next().unwrap_or(0.0));
    let mean = present().map(|value| value - first).sum::<f64>() / count;
    for value in values {
        *value = if value.is_nan() { 0.0 } else { (*value - first - mean) / divisor };
    }
}

/// Replaces the rewards of a response's tokens by their discounted returns, with another reward on the last token.
pub(super) fn discounted(reward: f64, discount: f64, tokens: &mut [f64]) {
    let mut rest = reward;
    for token in tokens.iter_mut().rev() {
        rest += *token;
        *token = rest;
        rest *= discount;
    }
}

/// The standard deviation (with n − 1) of all values other than NaN; 0 for a single value.
fn deviation(values: &[f64]) -> f64 {
    let present = || values.iter().copied().filter(|value| !value.is_nan());
    let count = present().count() as f64;
    let mean = present().sum::<f64>() / count;
    let squares: f64 = present().map(|value| (value - mean).powi(2)).sum();
    if count > 1.0 { (squares / (count - 1.0)).sqrt() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advantages(advantage: Advantage, scale: Scale, pass_k: usize, scores: &[f64], lengths: &[usize]) -> Vec<f64> {
        let mut scores = scores.to_vec();
        let groups = std::iter::once(0..scores.len());
        let (mut order, mut metrics) = (Vec::new(), Metrics::default());
        compare((advantage, scale, pass_k), groups, |index| lengths[index], &mut scores, &mut order, &mut metrics);
        scores
    }

    fn close(ours: &[f64], theirs: &[f64]) {
        assert_eq!(ours.len(), theirs.len());
        for (own, other) in ours.iter().zip(theirs) {
            assert!((own - other).abs() <= 1e-14 * other.abs().max(1.0), "{ours:?}, {theirs:?}");
        }
    }

    #[test]
    fn advantages_are_those_computed_by_hand() {
        let (rewards, lengths) = ([1.0, 0.0, 0.0, 1.0, 3.0], [1, 2, 3, 4, 10]);
        let of = |advantage| advantages(advantage, Scale::None, 2, &rewards, &lengths);
        close(&of(Advantage::GroupMean), &[0.0, -1.0, -1.0, 0.0, 2.0]);
        close(&of(Advantage::LeaveOneOut), &[0.0, -1.25, -1.25, 0.0, 2.5]);
        close(&of(Advantage::MaxRl), &[0.0, -1.0, -1.0, 0.0, 2.0]); // the mean is 1
        close(&of(Advantage::LengthWeighted), &[-0.75, -1.75, -1.75, -0.75, 1.25]); // 35 / 20
        let own = (6.0_f64 / 4.0).sqrt() + 1e-4;
        let scaled = advantages(Advantage::GroupMean, Scale::Group, 2, &rewards, &lengths);
        close(&scaled, &[0.0, -1.0 / own, -1.0 / own, 0.0, 2.0 / own]);
    }

    #[test]
    fn the_best_of_k_is_the_mean_over_all_sets_by_enumeration() {
        let rewards = [0.3, -1.0, 2.0, 0.3, 0.9, 5.0];
        for k in 2..=6 {
            let mut expected = [0.0; 6];
            let mut sets = [0.0; 6];
            for set in (0_u32..64).filter(|set| set.count_ones() as usize == k) {
                let has = |index: usize| set >> index & 1 == 1;
                let best = |without: usize| {
                    (0..6).filter(|&i| has(i) && i != without).map(|i| rewards[i]).fold(f64::NEG_INFINITY, f64::max)
                };
                for index in (0..6).filter(|&index| has(index)) {
                    expected[index] += best(usize::MAX) - best(index);
                    sets[index] += 1.0;
                }
            }
            let expected: Vec<_> = expected.iter().zip(sets).map(|(sum, sets)| sum / sets).collect();
            close(&advantages(Advantage::PassAtK, Scale::None, k, &rewards, &[1; 6]), &expected);
        }
    }

    #[test]
    fn a_reward_that_abstains_is_left_out_of_every_mean() {
        let ours = advantages(Advantage::LeaveOneOut, Scale::None, 2, &[1.0, f64::NAN, 0.0], &[1; 3]);
        close(&ours, &[1.0, 0.0, -1.0]);
        close(&advantages(Advantage::GroupMean, Scale::Group, 2, &[1.0, f64::NAN], &[1; 2]), &[0.0, 0.0]);
        close(&advantages(Advantage::PassAtK, Scale::None, 2, &[1.0, f64::NAN, 3.0], &[1; 3]), &[0.0, 0.0, 2.0]);
    }

    #[test]
    fn equal_rewards_have_no_advantage_whatever_their_mean_rounds_to() {
        for advantage in [
            Advantage::GroupMean,
            Advantage::LeaveOneOut,
            Advantage::LengthWeighted,
            Advantage::MaxRl,
            Advantage::PassAtK,
        ] {
            assert_eq!(advantages(advantage, Scale::Group, 2, &[0.1; 3], &[1, 2, 7]), [0.0; 3]);
        }
        let mut values = [0.1; 7];
        whiten(&mut values);
        assert_eq!(values, [0.0; 7]);
    }

    #[test]
    fn whitened_numbers_have_mean_zero_and_variance_one() {
        let mut values = [1.0, 2.0, f64::NAN, 3.0, 6.0];
        whiten(&mut values);
        let deviation = (14.0_f64 / 3.0 + 1e-8).sqrt();
        close(&values, &[-2.0 / deviation, -1.0 / deviation, 0.0, 0.0, 3.0 / deviation]);
    }

    #[test]
    fn returns_discount_later_rewards() {
        let mut tokens = [1.0, 2.0, 0.0];
        discounted(4.0, 0.5, &mut tokens);
        assert_eq!(tokens, [3.0, 4.0, 4.0]);
    }
}
