//! Tokens a second of every objective, loss and cotangents, on one thread.
//!
//! Responses are 16 to 512 tokens long. `experiments/speed/objective.py` sets the same work in PyTorch beside it.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use objective::{
    Data, Evaluation, METHODS, Pair, Parameters, Requirements, Response, StepTotals, TokenBatch, TokenConstants,
    TokenStatistics,
};

/// Lengths and values from a linear congruential generator: the benchmark needs variety, not randomness.
struct Variety(u64);

impl Variety {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

struct Work {
    statistics: TokenStatistics,
    constants: TokenConstants,
    responses: Vec<Response>,
    pairs: Vec<Pair>,
}

fn work(requirements: &Requirements, tokens: usize) -> Work {
    let mut variety = Variety(1);
    let mut responses: Vec<Response> = Vec::new();
    while responses.len() % 2 == 1 || responses.last().is_none_or(|last| last.tokens.end < tokens) {
        let start = responses.last().map_or(0, |last| last.tokens.end);
        responses.push(Response { tokens: start..start + 16 + (497.0 * variety.next()) as usize });
    }
    let end = responses.last().map_or(0, |last| last.tokens.end);
    let mut column = |sign: f64| (0..end).map(|_| sign * (0.01 + 3.0 * variety.next())).collect::<Vec<_>>();
    let (mut statistics, mut constants) = (TokenStatistics::default(), TokenConstants::default());
    for &statistic in requirements.statistics {
        let sign = if *statistic.range().end() > 0.0 { 1.0 } else { -1.0 };
        *statistics.column_mut(statistic) = column(sign);
    }
    for &constant in requirements.constants {
        *constants.column_mut(constant) = column(-1.0);
    }
    let pairs = match requirements.data {
        Data::Demonstrations => Vec::new(),
        Data::Preferences => (0..responses.len() / 2).map(|p| Pair { chosen: 2 * p, rejected: 2 * p + 1 }).collect(),
    };
    Work { statistics, constants, responses, pairs }
}

fn objectives(criterion: &mut Criterion) {
    for method in METHODS {
        let objective = (method.build)(&Parameters::new()).unwrap();
        let requirements = objective.requirements();
        let mut group = criterion.benchmark_group(method.name);
        for tokens in [1 << 10, 1 << 16, 1 << 20] {
            let Work { statistics, constants, responses, pairs } = work(&requirements, tokens);
            let totals = StepTotals::of(&responses, &pairs);
            let mut evaluation = Evaluation::default();
            group.throughput(Throughput::Elements(totals.tokens as u64));
            group.bench_function(BenchmarkId::from_parameter(tokens), |bencher| {
                bencher.iter(|| {
                    let batch =
                        TokenBatch::new(&requirements, &statistics, &constants, &responses, &pairs, totals).unwrap();
                    objective.evaluate(black_box(&batch), &mut evaluation);
                    black_box(evaluation.loss)
                });
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(std::time::Duration::from_millis(300))
        .measurement_time(std::time::Duration::from_secs(1));
    targets = objectives
}
criterion_main!(benches);
