//! Tokens per second of every objective, loss and cotangents, on one thread, compared with the limit of the memory:
//! `limit` only reads a column of log π and writes a column of cotangents, which every loss has to do.
//!
//! Responses are 16 to 512 tokens long. `experiments/speed/objective.py` sets the same work in PyTorch beside it.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use objective::numerics::sum;
use objective::{METHODS, Parameters};

use crate::work::Work;

mod work;

const TOKENS: [usize; 3] = [1 << 10, 1 << 16, 1 << 20];

fn limit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("limit");
    for tokens in TOKENS {
        let (column, mut slots) = (vec![-1.0; tokens], vec![0.0; tokens]);
        group.throughput(Throughput::Elements(tokens as u64));
        group.bench_function(BenchmarkId::from_parameter(tokens), |bencher| {
            bencher.iter(|| {
                slots.fill(black_box(-1.0));
                sum(black_box(&column)) + black_box(&slots)[0]
            });
        });
    }
    group.finish();
}

fn objectives(criterion: &mut Criterion) {
    for method in METHODS {
        let mut group = criterion.benchmark_group(method.name);
        for tokens in TOKENS {
            let mut work = Work::new(method, &Parameters::new(), tokens);
            group.throughput(Throughput::Elements(work.totals.tokens as u64));
            group.bench_function(BenchmarkId::from_parameter(tokens), |bencher| {
                bencher.iter(|| black_box(&mut work).evaluate());
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = limit, objectives
}
criterion_main!(benches);
