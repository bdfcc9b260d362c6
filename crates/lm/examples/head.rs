//! Measures time and memory of the statistics head beside a plain one, which computes all logits at once, for
//! `experiments/lm/head.py`.
//!
//! `cargo run -p lm --example head -- chunked|plain score|train VOCABULARY HIDDEN TOKENS REPEATS` prints one line of
//! JSON: `seconds` of each repeat, `peak_bytes` of memory beyond that before the first repeat, and the `sum` of
//! log-probabilities.

use std::time::Instant;

use anyhow::Context;
use lm::transformer::head::Head;
use objective::{Statistic, TokenStatistics};
use tch::{Device, Kind, Tensor, no_grad};
use training::Frozen;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [head, pass, vocabulary, hidden, tokens, repeats] = &arguments[..] else {
        anyhow::bail!("expected chunked|plain score|train VOCABULARY HIDDEN TOKENS REPEATS")
    };
    let (is_chunked, trains) = (head == "chunked", pass == "train");
    let (vocabulary, hidden, tokens): (i64, i64, i64) = (vocabulary.parse()?, hidden.parse()?, tokens.parse()?);
    tch::manual_seed(0);
    let weights = Tensor::f_randn([vocabulary, hidden], (Kind::Float, Device::Cpu))?.f_mul_scalar(0.05)?;
    let states = Tensor::f_randn([tokens, hidden], (Kind::Float, Device::Cpu))?;
    let taken: Vec<usize> = (0..tokens).map(|token| (token * 7919 % vocabulary) as usize).collect();
    let before = resident("VmRSS:")?;
    let (mut seconds, mut sum) = (Vec::new(), 0.0);
    for _ in 0..repeats.parse::<usize>()? {
        let begun = Instant::now();
        sum = if is_chunked {
            chunked(&states, &weights, &taken, trains)?
        } else {
            plain(&states, &weights, &taken, trains)?
        };
        seconds.push(begun.elapsed().as_secs_f64());
    }
    let peak_bytes = resident("VmHWM:")?.saturating_sub(before);
    println!("{}", serde_json::json!({"seconds": seconds, "peak_bytes": peak_bytes, "sum": sum}));
    Ok(())
}

fn chunked(states: &Tensor, weights: &Tensor, taken: &[usize], trains: bool) -> anyhow::Result<f64> {
    let head = Head { hidden: states, weights, kept: None };
    let mut statistics = TokenStatistics::default();
    head.statistics(Frozen::default(), taken, Statistic::LogProb.into(), &mut statistics)?;
    let sum = statistics.log_prob.iter().sum();
    if trains {
        statistics.log_prob.fill(-1.0 / taken.len() as f64);
        let mut gradient = weights.f_zeros_like()?;
        _ = head.pull_back(Frozen::default(), taken, &statistics, Some(&mut gradient))?;
    }
    Ok(sum)
}

fn plain(states: &Tensor, weights: &Tensor, taken: &[usize], trains: bool) -> anyhow::Result<f64> {
    let taken: Vec<i64> = taken.iter().map(|token| *token as i64).collect();
    let index = Tensor::f_from_slice(&taken)?.f_unsqueeze(-1)?;
    let log_probs = |states: &Tensor, weights: &Tensor| {
        let logits = states.f_matmul(&weights.f_transpose(0, 1)?)?;
        logits.f_log_softmax(-1, Kind::Float)?.f_gather(-1, &index, false)
    };
    if !trains {
        return Ok(no_grad(|| log_probs(states, weights)?.f_sum(Kind::Double))?.f_double_value(&[])?);
    }
    let leaf = |tensor: &Tensor| tensor.f_detach()?.f_set_requires_grad(true);
    let (states, weights) = (leaf(states)?, leaf(weights)?);
    let log_probs = log_probs(&states, &weights)?;
    let loss = log_probs.f_mean(Kind::Float)?.f_neg()?;
    _ = Tensor::f_run_backward(&[&loss], &[&states, &weights], false, false)?;
    Ok(log_probs.f_sum(Kind::Double)?.f_double_value(&[])?)
}

/// A number about the process's memory, bytes.
fn resident(figure: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(figure)).context("a figure of /proc/self/status")?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes * 1024)
}
