//! Importance ratios of whole responses, several tokens at a time.

use crate::numerics::{NEAR, STEEPEST, exp_near, exp_slice, extent};

/// Number of tokens whose ratios are computed together.
pub(super) const BLOCK: usize = 64;

/// Log-ratios of a block of tokens, and the slopes of their exponentials.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    log_ratios: [f64; BLOCK],
    slopes: [f64; BLOCK],
}

/// eˣ continued along its tangent beyond x = 100, where it has this slope, as in
/// [`exponential`](crate::numerics::exponential).
pub(super) fn along_tangent(log_ratio: f64, slope: f64) -> f64 {
    slope * (1.0 + (log_ratio - STEEPEST).max(0.0))
}

impl Block {
    pub(super) fn new() -> Self {
        Self { log_ratios: [0.0; BLOCK], slopes: [0.0; BLOCK] }
    }

    /// The log-ratios and slopes of at most [`BLOCK`] tokens, and the least and the greatest of the log-ratios.
    pub(super) fn fill(&mut self, log_prob: &[f64], behaviour: &[f64]) -> (&[f64], &[f64], (f64, f64)) {
        let tokens = log_prob.len().min(behaviour.len()).min(BLOCK);
        let (log_ratios, slopes) = (&mut self.log_ratios[..tokens], &mut self.slopes[..tokens]);
        for ((own, other), log_ratio) in log_prob.iter().zip(behaviour).zip(&mut *log_ratios) {
            *log_ratio = own - other;
        }
        let extent = extent(log_ratios);
        let pairs = slopes.iter_mut().zip(&*log_ratios);
        if -NEAR <= extent.0 && extent.1 <= NEAR {
            pairs.for_each(|(slope, log_ratio)| *slope = exp_near(*log_ratio));
        } else {
            pairs.for_each(|(slope, log_ratio)| *slope = log_ratio.min(STEEPEST));
            exp_slice(slopes);
        }
        (log_ratios, slopes, extent)
    }
}

/// Calls a function with every token's position, its log-ratio, and the value and slope of its ratio.
pub(super) fn for_each_ratio(log_prob: &[f64], behaviour: &[f64], mut each: impl FnMut(usize, f64, (f64, f64))) {
    let mut block = Block::new();
    let blocks = log_prob.chunks(BLOCK).zip(behaviour.chunks(BLOCK));
    for (begin, (own, other)) in blocks.enumerate().map(|(index, columns)| (index * BLOCK, columns)) {
        let (log_ratios, slopes, _) = block.fill(own, other);
        for (place, (&log_ratio, &slope)) in log_ratios.iter().zip(slopes).enumerate() {
            each(begin + place, log_ratio, (along_tangent(log_ratio, slope), slope));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerics::exponential;

    #[test]
    fn ratios_are_those_of_one_token_at_a_time() {
        let log_prob: Vec<f64> = (0..200).map(|token| -f64::from(token) * 0.7).collect();
        let behaviour: Vec<f64> = (0..200).map(|token| -f64::from(token * token % 131)).collect();
        let mut seen = 0;
        for_each_ratio(&log_prob, &behaviour, |token, log_ratio, (value, slope)| {
            assert_eq!((token, log_ratio), (seen, log_prob[token] - behaviour[token]));
            let (expected, expected_slope) = exponential(log_ratio);
            assert!((value - expected).abs() <= 1e-15 * expected, "{log_ratio}");
            assert!((slope - expected_slope).abs() <= 1e-15 * expected_slope, "{log_ratio}");
            seen += 1;
        });
        assert_eq!(seen, 200);
    }
}
