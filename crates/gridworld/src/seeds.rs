//! Streams of random numbers: each source of randomness has its own stream of a seed, so that no result depends on what
//! is drawn beside it.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// The stream of a run's seed that initial parameters are drawn from. Every further source of randomness takes its own
/// stream, so that adding one changes no other's numbers.
pub const INITIALISATION: u64 = 0;
/// The stream of the noise of λ.
pub const LAMBDA_NOISE: u64 = 1;
/// The stream of a value head's initial parameters.
pub const VALUE_HEAD: u64 = 2;
/// The stream of the actions that the policy samples.
pub const ACTION: u64 = 3;
/// The stream of the lake's slips in sampled episodes.
pub const SLIP: u64 = 4;
/// The stream of the actions that are sampled to explain a policy.
pub const EXPLAINED_ACTION: u64 = 5;
/// The stream of the lake's slips where a policy is explained.
pub const EXPLAINED_SLIP: u64 = 6;
/// The stream of the cells in which a policy is wrong before training.
pub const START: u64 = 8;
/// The stream of a parameterised target's initial parameters.
pub const TARGET: u64 = 9;
/// The stream of the seed that lakes are drawn from, beyond those of an experiment's runs.
pub const LAKE: u64 = 256;
/// The stream of the seed that words are drawn from, beyond those of an experiment's runs and of generated lakes.
pub const WORD: u64 = 257;

/// A stream of a run's seed, apart from those of other stages.
pub fn stream(seed: u64, stage: usize, number: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream((stage as u64) << 32 | number);
    rng
}

/// A place, as often as its share in the total says; the last place where rounding leaves the sum below the draw, and none where
/// all weights are 0.
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
