//! Steps per second of the environment under a random policy, on one thread.
//!
//! `experiments/speed/solver.py` runs Gymnasium and EnvPool beside it.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lake::world::environment::Environment;
use lake::world::map::{Action, Map};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

const STEPS: usize = 100_000;

/// Steps of a uniform policy, which begins again at the start after each episode. Returns the return.
fn walk(environment: &Environment, rng: &mut ChaCha8Rng) -> f64 {
    let start = environment.map().start();
    let (mut cell, mut steps, mut total) = (start, 0, 0.0);
    for _ in 0..STEPS {
        // Two bits for the action, 53 others for the slip.
        let bits = rng.random::<u64>();
        let draw = (bits >> 11) as f64 / (1_u64 << 53) as f64;
        let outcome = environment.step(cell, Action::ALL[(bits & 3) as usize], draw);
        total += outcome.reward;
        steps += 1;
        cell = outcome.next;
        if outcome.terminated || steps == environment.horizon() {
            (cell, steps) = (start, 0);
        }
    }
    total
}

fn steps(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("steps");
    group.throughput(Throughput::Elements(STEPS as u64));
    for (name, map, slippery) in [("4x4", "4x4", false), ("4x4-slippery", "4x4", true), ("8x8-slippery", "8x8", true)] {
        let environment = Environment::new(Map::load(map).unwrap(), slippery);
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        group.bench_function(name, |bencher| bencher.iter(|| walk(black_box(&environment), &mut rng)));
    }
    group.finish();
}

criterion_group!(benches, steps);
criterion_main!(benches);
