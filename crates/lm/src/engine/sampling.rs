//! Sampling of one token from a model's logits.

use std::cmp::Ordering;

use rand::Rng;

use crate::checkpoint::generation_config::SamplingParameters;
use crate::error::{LmError, refuse_setting};

/// Description for errors of the allowed value of a truncation parameter at temperature 0.
const UNUSED: &str = "nothing at temperature 0, as it would have no effect";

/// Sampling distribution: the model's distribution with a temperature and truncations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divisor of the logits, greater than 0.
    pub temperature: f64,
    /// Number of most probable tokens to sample from; `None` means all.
    pub top_k: Option<usize>,
    /// Minimum total probability of the tokens to sample from; `None` means 1.
    pub top_p: Option<f64>,
    /// Minimum probability of a sampled token, as a fraction of the greatest probability; `None` means 0.
    pub min_p: Option<f64>,
}

/// A token that may be sampled, with its weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Id of the token.
    pub token: u32,
    /// Unnormalised probability, greater than 0.
    pub weight: f64,
}

impl Sampling {
    /// Makes a sampling distribution; `None` for temperature 0, at which the most probable token is taken.
    ///
    /// # Errors
    ///
    /// [`LmError::Setting`] for a temperature below 0, `top_k` below 1, `top_p` outside of (0, 1], and either of the
    /// last two at temperature 0.
    pub fn new(temperature: f64, top_k: Option<usize>, top_p: Option<f64>) -> Result<Option<Self>, LmError> {
        if !(temperature.is_finite() && temperature >= 0.0) {
            return Err(refuse_setting("temperature", "a number of at least 0", temperature));
        }
        if top_k == Some(0) {
            return Err(refuse_setting("top_k", "at least 1", "0"));
        }
        if let Some(top_p) = top_p.filter(|top_p| !(*top_p > 0.0 && *top_p <= 1.0)) {
            return Err(refuse_setting("top_p", "greater than 0, at most 1", top_p));
        }
        if temperature > 0.0 {
            return Ok(Some(Self { temperature, top_k, top_p, min_p: None }));
        }
        match (top_k, top_p) {
            (Some(top_k), _) => Err(refuse_setting("top_k", UNUSED, top_k)),
            (None, Some(top_p)) => Err(refuse_setting("top_p", UNUSED, top_p)),
            (None, None) => Ok(None),
        }
    }

    /// Makes the sampling distribution, and returns it with the repetition penalty (1 means none).
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), and [`LmError::Setting`] for `min_p` outside of [0, 1] or at temperature 0, and for a
    /// penalty that is not a finite number above 0. Absent parameters have no effect; an absent temperature is 1.
    pub fn of(parameters: SamplingParameters) -> Result<(Option<Self>, f64), LmError> {
        let SamplingParameters { temperature, top_k, top_p, min_p, repetition_penalty } = parameters;
        let penalty = repetition_penalty.unwrap_or(1.0);
        if !(penalty.is_finite() && penalty > 0.0) {
            return Err(refuse_setting("repetition_penalty", "a number above 0", penalty));
        }
        if let Some(min_p) = min_p.filter(|min_p| !(0.0..=1.0).contains(min_p)) {
            return Err(refuse_setting("min_p", "0 to 1", min_p));
        }
        match (Self::new(temperature.unwrap_or(1.0), top_k, top_p)?, min_p) {
            (Some(sampling), min_p) => Ok((Some(Self { min_p, ..sampling }), penalty)),
            (None, Some(min_p)) => Err(refuse_setting("min_p", UNUSED, min_p)),
            (None, None) => Ok((None, penalty)),
        }
    }

    /// Samples a token. `logits` are those of all tokens, shifted so that the greatest is 0. Returns `None` if they are
    /// NaN.
    pub fn draw(&self, logits: &[f32], rng: &mut impl Rng) -> Option<u32> {
        pick(&self.candidates(logits), rng.random()).map(|candidate| candidate.token)
    }

    /// Tokens that may be sampled: temperature is applied first, then `top_k`, then `top_p` to the rest, and then
    /// `min_p`.
    pub fn candidates(&self, logits: &[f32]) -> Vec<Candidate> {
        let weights = logits.iter().map(|logit| (f64::from(*logit) / self.temperature).exp());
        let candidates = (0..).zip(weights).map(|(token, weight)| Candidate { token, weight });
        let mut candidates: Vec<_> = candidates.filter(|candidate| candidate.weight > 0.0).collect();
        if let Some(top_k) = self.top_k {
            keep_top_k(&mut candidates, top_k);
        }
        if let Some(top_p) = self.top_p {
            keep_top_p(&mut candidates, top_p);
        }
        if let Some(min_p) = self.min_p {
            keep_min_p(&mut candidates, min_p);
        }
        candidates
    }
}

/// Tokens with the `count` greatest logits in decreasing order, and on ties the first tokens.
pub fn most_probable(logits: &[f32], count: usize) -> Vec<u32> {
    let mut found: Vec<u32> = Vec::with_capacity(count + 1);
    for (token, logit) in (0..).zip(logits) {
        let last = found.last().map(|token| logits[*token as usize]);
        if found.len() == count && last.is_none_or(|last| *logit <= last) {
            continue;
        }
        let place = found.partition_point(|before| logits[*before as usize] >= *logit);
        found.insert(place, token);
        found.truncate(count);
    }
    found
}

/// Keeps the `top_k` greatest weights, and on ties those of the first tokens.
pub fn keep_top_k(candidates: &mut Vec<Candidate>, top_k: usize) {
    if (1..candidates.len()).contains(&top_k) {
        candidates.select_nth_unstable_by(top_k - 1, greatest_first);
        candidates.truncate(top_k);
        // The sampled token must not depend on the order in which the selection leaves the candidates.
        candidates.sort_unstable_by(greatest_first);
    }
}

/// Keeps the smallest number of the greatest weights whose sum is at least `top_p` of the total, and on ties those of
/// the first tokens.
pub fn keep_top_p(candidates: &mut Vec<Candidate>, top_p: f64) {
    let total: f64 = candidates.iter().map(|candidate| candidate.weight).sum();
    // All weights below this bound sum to less than what may be dropped, so none of them is kept, and most calls sort
    // few.
    let bound = (1.0 - top_p) * total / candidates.len() as f64;
    candidates.retain(|candidate| candidate.weight >= bound);
    candidates.sort_unstable_by(greatest_first);
    let mut sum = 0.0;
    let reaches = candidates.iter().position(|candidate| {
        sum += candidate.weight;
        sum >= top_p * total
    });
    // If rounding keeps the sum below, all are kept.
    candidates.truncate(reaches.map_or(candidates.len(), |last| last + 1));
}

/// Keeps weights of at least this fraction of the greatest.
pub fn keep_min_p(candidates: &mut Vec<Candidate>, min_p: f64) {
    let greatest = candidates.iter().map(|candidate| candidate.weight).fold(0.0, f64::max);
    candidates.retain(|candidate| candidate.weight >= min_p * greatest);
}

/// Applies the repetition penalty once to each of the tokens `before`, for logits z − max z and max z as `greatest`: z
/// is divided by the penalty if it is positive and multiplied if it is negative, as in arXiv 1909.05858 and
/// transformers. The greatest logit is 0 again afterwards.
pub fn penalise(logits: &mut [f32], greatest: f32, before: &[u32], penalty: f64) {
    let mut before = before.to_vec();
    before.sort_unstable();
    before.dedup();
    for token in before {
        if let Some(logit) = logits.get_mut(token as usize) {
            let raw = f64::from(*logit) + f64::from(greatest);
            let penalised = if raw < 0.0 { raw * penalty } else { raw / penalty };
            *logit = (penalised - f64::from(greatest)) as f32;
        }
    }
    let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    logits.iter_mut().for_each(|logit| *logit -= greatest);
}

fn greatest_first(a: &Candidate, b: &Candidate) -> Ordering {
    b.weight.total_cmp(&a.weight).then(a.token.cmp(&b.token))
}

/// Candidate at this fraction, in [0, 1), of the cumulative weights; the last one if rounding leaves the sum below it.
fn pick(candidates: &[Candidate], share: f64) -> Option<Candidate> {
    let total: f64 = candidates.iter().map(|candidate| candidate.weight).sum();
    let mut left = share * total;
    for candidate in candidates {
        if left < candidate.weight {
            return Some(*candidate);
        }
        left -= candidate.weight;
    }
    candidates.last().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(weights: &[f64]) -> Vec<Candidate> {
        (0..).zip(weights).map(|(token, weight)| Candidate { token, weight: *weight }).collect()
    }

    fn tokens(candidates: &[Candidate]) -> Vec<u32> {
        candidates.iter().map(|candidate| candidate.token).collect()
    }

    fn top_k(weights: &[f64], top_k: usize) -> Vec<u32> {
        let mut candidates = candidates(weights);
        keep_top_k(&mut candidates, top_k);
        tokens(&candidates)
    }

    fn top_p(weights: &[f64], top_p: f64) -> Vec<u32> {
        let mut candidates = candidates(weights);
        keep_top_p(&mut candidates, top_p);
        tokens(&candidates)
    }

    #[test]
    fn top_k_keeps_the_most_probable_and_of_equal_ones_the_first() {
        let weights = [0.1, 0.2, 0.4, 0.2, 0.1];
        assert_eq!(top_k(&weights, 1), [2]);
        assert_eq!(top_k(&weights, 2), [2, 1]);
        assert_eq!(top_k(&weights, 3), [2, 1, 3]);
        assert_eq!(top_k(&weights, 9), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn the_most_probable_tokens_come_in_their_order_and_of_equal_ones_the_first() {
        let logits = [-3.0, -1.0, 0.0, -1.0, 0.0, -2.0];
        assert_eq!(most_probable(&logits, 1), [2]);
        assert_eq!(most_probable(&logits, 5), [2, 4, 1, 3, 5]);
        assert_eq!(most_probable(&logits, 9), [2, 4, 1, 3, 5, 0]);
        assert!(most_probable(&logits, 0).is_empty());
    }

    #[test]
    fn top_p_keeps_the_smallest_set_with_at_least_that_mass() {
        // Sums of powers of 2 are exact, so the test distinguishes "at least" from "more than".
        let weights = [0.125, 0.5, 0.125, 0.25];
        assert_eq!(top_p(&weights, 0.25), [1]);
        assert_eq!(top_p(&weights, 0.5), [1]);
        assert_eq!(top_p(&weights, 0.500001), [1, 3]);
        assert_eq!(top_p(&weights, 0.75), [1, 3]);
        assert_eq!(top_p(&weights, 0.8), [1, 3, 0]);
        assert_eq!(top_p(&weights, 1.0), [1, 3, 0, 2]);
    }

    #[test]
    fn what_is_skipped_before_sorting_is_what_sorting_would_cut() {
        let mut state = 1_u64;
        for round in 0..200 {
            let weights: Vec<f64> = (0..50)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (12.0 * (state >> 11) as f64 / (1_u64 << 53) as f64).exp()
                })
                .collect();
            let top_p_of_all = f64::from(round % 20 + 1) / 20.5;
            let mut sorted = candidates(&weights);
            sorted.sort_by(greatest_first);
            let total: f64 = weights.iter().sum();
            let mut sum = 0.0;
            let kept = sorted
                .iter()
                .take_while(|candidate| {
                    let before = sum;
                    sum += candidate.weight;
                    before < top_p_of_all * total
                })
                .count();
            assert_eq!(top_p(&weights, top_p_of_all), tokens(&sorted[..kept]));
        }
    }

    #[test]
    fn top_p_is_of_what_top_k_left_at_the_temperature() {
        // At temperature 2 the weights 1, 1/4, 1/16 and 1/64 become 1, 1/2, 1/4 and 1/8. Of the first three, 1 and 1/2
        // are 6/7.
        let logits: Vec<f32> = (0..4).map(|power| -(power as f32) * 4_f32.ln()).collect();
        let kept = |top_k, top_p| tokens(&Sampling { temperature: 2.0, top_k, top_p, min_p: None }.candidates(&logits));
        assert_eq!(kept(Some(3), Some(0.85)), [0, 1]);
        assert_eq!(kept(None, Some(0.85)), [0, 1, 2]);
        assert_eq!(kept(Some(3), None), [0, 1, 2]);
        assert_eq!(kept(None, None), [0, 1, 2, 3]);
    }

    #[test]
    fn min_p_keeps_what_has_a_share_of_the_greatest_probability_at_the_temperature() {
        let logits: Vec<f32> = [1.0_f32, 0.25, 0.125, 0.0625].map(f32::ln).to_vec();
        let kept = |temperature, min_p| {
            let parameters = SamplingParameters {
                temperature: Some(temperature),
                min_p: Some(min_p),
                ..SamplingParameters::default()
            };
            tokens(&Sampling::of(parameters).unwrap().0.unwrap().candidates(&logits))
        };
        assert_eq!(kept(1.0, 0.2), [0, 1]);
        assert_eq!(kept(1.0, 0.0), [0, 1, 2, 3]);
        // At temperature 2 the weights are 1, 0.5, 0.35 and 0.25.
        assert_eq!(kept(2.0, 0.3), [0, 1, 2]);
        let refused = |parameters| Sampling::of(parameters).unwrap_err().to_string();
        let parameters =
            SamplingParameters { temperature: Some(0.0), min_p: Some(0.5), ..SamplingParameters::default() };
        assert_eq!(refused(parameters), format!("min_p: expected {UNUSED}, got 0.5"));
        let parameters = SamplingParameters { repetition_penalty: Some(0.0), ..SamplingParameters::default() };
        assert_eq!(refused(parameters), "repetition_penalty: expected a number above 0, got 0");
    }

    #[test]
    fn tokens_that_were_there_are_penalised_once_towards_minus_infinity() {
        // z is 3, 1, -2 and 2.
        let mut logits = vec![0.0, -2.0, -5.0, -1.0];
        penalise(&mut logits, 3.0, &[0, 2, 0, 9], 2.0);
        // 1.5, 1, -4 and 2.
        assert_eq!(logits, [-0.5, -1.0, -6.0, 0.0]);
    }

    #[test]
    fn a_share_of_all_weights_is_a_candidate() {
        let candidates = candidates(&[2.0, 1.0, 1.0]);
        let picked = |share| pick(&candidates, share).unwrap().token;
        assert_eq!([0.0, 0.49, 0.5, 0.74, 0.75, 0.99, 1.0].map(picked), [0, 0, 1, 1, 2, 2, 2]);
    }

    #[test]
    fn logits_that_are_no_numbers_and_temperatures_near_0_do_no_harm() {
        use rand_chacha::ChaCha8Rng;
        use rand_chacha::rand_core::SeedableRng;
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let sampling = Sampling { temperature: f64::MIN_POSITIVE, top_k: Some(3), top_p: Some(0.5), min_p: None };
        assert_eq!(sampling.draw(&[f32::NAN; 4], &mut rng), None);
        assert_eq!(sampling.draw(&[-1.0, 0.0, -1e30], &mut rng), Some(1));
    }
}
