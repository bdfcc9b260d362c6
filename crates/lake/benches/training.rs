//! Seconds of a whole run of the default recipe, 300 steps from initial parameters to distance, by method, on one
//! thread.
#![allow(missing_docs, clippy::unwrap_used)]

use criterion::{Criterion, criterion_group, criterion_main};
use lake::experiment::Experiment;
use lake::recipe::{Overrides, Recipe};

fn runs(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("run");
    for method in ["sft", "ift", "dpo", "tdpo", "ppo", "grpo"] {
        let one_seed = [("seeds".to_owned(), 1.into())].into_iter().collect();
        let overrides = Overrides { fields: one_seed, methods: vec![method.to_owned()], ..Overrides::default() };
        let experiment = Experiment::new(Recipe::resolve(None, &overrides).unwrap()).unwrap();
        group.bench_function(method, |bencher| bencher.iter(|| experiment.run(|| ()).unwrap()));
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = runs
}
criterion_main!(benches);
