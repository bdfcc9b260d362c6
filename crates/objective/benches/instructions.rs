//! Counts instructions and allocations of the hot loops under Valgrind, which other load on the machine does not
//! disturb.
//!
//! Every method must stay within the same number of instructions a token at 4k and at 64k tokens, so that its time is
//! linear in them, and, once its buffers have grown, allocate nothing. Needs Valgrind and `cargo install
//! gungraun-runner`.
#![allow(missing_docs, clippy::unwrap_used)]

use gungraun::prelude::*;
use gungraun::{Callgrind, Dhat, DhatMetric, EventKind, LibraryBenchmarkConfig};
use objective::{Anticipation, METHODS, Method, Parameters, Requirements, Source};

use crate::work::Work;

mod work;

/// Maximum number of instructions per token of losses that only sum the log-probabilities of each response.
const OF_SUMS: u64 = 26;
/// Maximum number of instructions per token of losses with one exponential or logarithm per token.
const OF_EXPONENTIALS: u64 = 190;
/// Maximum number of instructions per token of losses with several exponentials per token: of a ratio, a gate, a mask
/// or a correction, and of the divergence from a reference.
const OF_CHOICES: u64 = 370;

fn within(instructions: u64) -> LibraryBenchmarkConfig {
    let mut config = LibraryBenchmarkConfig::default();
    config
        .tool(Callgrind::default().hard_limits([(EventKind::Ir, instructions)]))
        .tool(Dhat::default().hard_limits([(DhatMetric::TotalBlocks, 0_u64)]));
    config
}

/// A method, parameters that differ from its defaults as JSON, and a number of tokens.
type Case = (&'static str, &'static str, usize);

/// Policy gradients with masks, divergences, corrections, and ratios of whole responses.
const CHOICES: &[(&str, &str)] = &[
    ("dppo_tv", "{}"),
    ("dppo_kl", "{}"),
    ("clip_cov", "{}"),
    ("kl_cov", "{}"),
    ("tis", "{}"),
    ("mis", "{}"),
    ("icepop", "{}"),
    ("grpo", r#"{"beta": 0.1}"#),
    ("grpo", r#"{"beta": 0.1, "divergence_place": "loss"}"#),
    ("grpo", r#"{"beta": 0.1, "divergence": "k2", "divergence_clip": 10.0}"#),
    ("gspo", r#"{"beta": 0.1}"#),
    ("sapo", r#"{"beta": 0.1}"#),
    ("policy_gradient", r#"{"ratio": "product"}"#),
    ("policy_gradient", r#"{"correction": "truncate_token"}"#),
    ("policy_gradient", r#"{"correction": "truncate_geometric"}"#),
    ("policy_gradient", r#"{"correction": "mask_token", "beta": 0.1}"#),
    ("policy_gradient", r#"{"correction": "mask_sequence"}"#),
    ("policy_gradient", r#"{"correction": "off_policy_sequence"}"#),
    ("policy_gradient", r#"{"advantage": "given"}"#),
];

fn choices(tokens: usize) -> impl Iterator<Item = Case> {
    CHOICES.iter().map(move |&(name, parameters)| (name, parameters, tokens))
}

/// Methods outside of `CHOICES`, with a number of tokens: those that only sum log-probabilities, or those with one
/// exponential per token.
fn methods(tokens: usize, sums: bool) -> impl Iterator<Item = Case> {
    let adds_up = |requirements: Requirements| {
        requirements.source == Source::Given && requirements.anticipation == Anticipation::Off
    };
    let named = move |method: &Method| {
        let requirements = (method.build)(&Parameters::new()).unwrap().requirements();
        let is_sum = adds_up(requirements) && method.name != "sum";
        (is_sum == sums).then_some((method.name, "{}", tokens))
    };
    METHODS.iter().filter(|method| !CHOICES.contains(&(method.name, "{}"))).filter_map(named)
}

/// A step whose buffers have grown to their final size.
fn grown((name, parameters, tokens): Case) -> Work {
    let parameters: Parameters = serde_json::from_str(parameters).unwrap();
    let mut work = Work::new(objective::registry::find(name).unwrap(), &parameters, tokens);
    work.evaluate();
    work
}

#[library_benchmark(setup = grown)]
#[benches::sums_of_4k_tokens(iter = methods(1 << 12, true), config = within(OF_SUMS << 12))]
#[benches::sums_of_64k_tokens(iter = methods(1 << 16, true), config = within(OF_SUMS << 16))]
#[benches::exponentials_of_4k_tokens(iter = methods(1 << 12, false), config = within(OF_EXPONENTIALS << 12))]
#[benches::exponentials_of_64k_tokens(iter = methods(1 << 16, false), config = within(OF_EXPONENTIALS << 16))]
#[benches::choices_of_4k_tokens(iter = choices(1 << 12), config = within(OF_CHOICES << 12))]
#[benches::choices_of_64k_tokens(iter = choices(1 << 16), config = within(OF_CHOICES << 16))]
fn evaluate(mut work: Work) -> Work {
    work.evaluate();
    work
}

library_benchmark_group!(name = objectives, benchmarks = evaluate);

main!(library_benchmark_groups = objectives);
