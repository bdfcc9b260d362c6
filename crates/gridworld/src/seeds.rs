//! Streams of random numbers: each source of randomness has its own stream of a seed, so that its numbers do not depend
//! on how many the other sources use.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// Stream of a run's seed for initial parameters. Every further source of randomness has its own stream, so that a new
/// source does not change the numbers of others.
pub const INITIALISATION: u64 = 0;
/// Stream of the noise of λ.
pub const LAMBDA_NOISE: u64 = 1;
/// Stream of a value head's initial parameters.
pub const VALUE_HEAD: u64 = 2;
/// Stream of the actions that the policy samples.
pub const ACTION: u64 = 3;
/// Stream of the lake's slips in sampled episodes.
pub const SLIP: u64 = 4;
/// Stream of the actions that are sampled to explain a policy.
pub const EXPLAINED_ACTION: u64 = 5;
/// Stream of the lake's slips in episodes that explain a policy.
pub const EXPLAINED_SLIP: u64 = 6;
/// Stream of the cells in which a policy is wrong before training.
pub const START: u64 = 8;
/// Stream of a parameterised target's initial parameters.
pub const TARGET: u64 = 9;
/// Stream from which random lakes are sampled. Its number is greater than those of an experiment's runs.
pub const LAKE: u64 = 256;
/// Stream from which random trajectories are sampled. Its number is greater than those of an experiment's runs and of
/// random lakes.
pub const WORD: u64 = 257;

/// A stream of a run's seed, different from those of other stages.
pub fn stream(seed: u64, stage: usize, number: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream((stage as u64) << 32 | number);
    rng
}

/// Samples an index in proportion to the weights, whose sum is `total`; the last index if rounding leaves the sum below
/// the random number, and `None` if all weights are 0.
pub fn draw(weights: &[f64], total: f64, rng: &mut ChaCha8Rng) -> Option<usize> {
    let mut left = total * rng.random::<f64>();
    let mut last = None;
    for (place, &weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
        last = Some(place);
        if left < weight {
            break;
        }
        left -= weight;
    }
    last
}
