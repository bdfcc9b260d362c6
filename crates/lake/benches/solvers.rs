//! Time of every solver on slippery lakes with a hole in ten cells, to an error bound of 1e-8 at discount 0.99, on one
//! thread.
//!
//! `experiments/speed/solver.py` solves the same lakes with QuantEcon in one run with it.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lake::solver::{Solver, solve};
use lake::world::environment::Environment;
use lake::world::map::Map;

const SIDES: [usize; 4] = [64, 200, 1000, 2000];

fn solvers(criterion: &mut Criterion) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let mut group = criterion.benchmark_group("solvers");
    group.sample_size(10).warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_secs(2));
    for side in SIDES {
        let map = Map::load(&format!("generated:{side}x{side},holes=0.1,seed=0")).unwrap();
        let environment = Environment::new(map, true);
        group.throughput(Throughput::Elements((side * side) as u64));
        for solver in Solver::ALL {
            // The others take seconds there.
            if side < 1000 || matches!(solver, Solver::Accelerated | Solver::Prioritised) {
                let id = BenchmarkId::new(<&str>::from(solver), side);
                group.bench_function(id, |bencher| {
                    bencher.iter(|| pool.install(|| solve(black_box(&environment), 0.99, solver, 1e-8)));
                });
            }
        }
    }
    group.finish();
}

criterion_group!(benches, solvers);
criterion_main!(benches);
