//! Random numbers that are functions of a seed and a place, so that no generator has a state to save.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// Returns the generator for a seed and a place; any three other numbers give another generator.
pub fn generator(key: [u64; 3]) -> ChaCha8Rng {
    let mut bytes = [0; 32];
    for (part, number) in bytes.chunks_exact_mut(8).zip(key) {
        part.copy_from_slice(&number.to_le_bytes());
    }
    ChaCha8Rng::from_seed(bytes)
}
