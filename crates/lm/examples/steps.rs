//! Measures time and memory of optimizer steps on one batch, for `experiments/lm/speed.py`.
//!
//! `cargo run -p lm --example steps -- MODEL DATA.jsonl METHOD OPTIMIZER STEPS [WORD...]` prints one line of JSON:
//! `seconds` of each step, `losses`, `tokens` of the batch, the `attention` kernel, and `peak_bytes` of the process's
//! memory. METHOD is JSON such as `{"name": "dpo"}`. Words: padded, checkpointing, held (the reference is a second
//! model), cuda, bfloat16 (with stochastic rounding), and random (random weights; MODEL then needs only a
//! configuration).

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use lm::checkpoint::config::{Dtype, ModelConfig, read_config};
use lm::checkpoint::weights::Weights;
use lm::device::device;
use lm::train::micro_batch::plan;
use lm::train::optimizer::{Optimizer, Precision};
use lm::train::policy::LmPolicy;
use lm::train::reference::Reference;
use lm::transformer::batch::Packing;
use lm::transformer::model::attention::kernel;
use lm::transformer::model::tape::Keep;
use lm::transformer::model::{Shape, Transformer, shapes};
use objective::{Configured, Parameters};
use tch::{Cuda, Device, Tensor};
use text::data::{Learnt, encode_lines, read_records};
use text::example::Encoder;
use training::{OptimizerSettings, Step, StepSettings};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, data, method, optimizer, steps, rest @ ..] = &arguments[..] else {
        anyhow::bail!("expected MODEL DATA.jsonl METHOD OPTIMIZER STEPS [WORD...]")
    };
    let has = |word: &str| rest.iter().any(|given| given == word);
    let packing = if has("padded") { Packing::Padded } else { Packing::Packed };
    let keep = if has("checkpointing") { Keep::LayerInputs } else { Keep::Activations };
    let (folder, data) = (Path::new(model), Path::new(data));
    let objective = serde_json::from_str::<Configured>(method)?.into_objective();
    let requirements = objective.requirements();
    let learnt = if requirements.data == objective::Data::Demonstrations { Learnt::Chosen } else { Learnt::Last };
    let config = read_config(folder)?;
    let encoder = Encoder { tokenizer: None, template: None, vocabulary: config.vocabulary };
    let lines = encode_lines(data, &read_records(data, learnt)?, &encoder, usize::MAX)?;
    let dtype = if has("bfloat16") { Dtype::Bfloat16 } else { Dtype::Float32 };
    let device = device(if has("cuda") { "cuda" } else { "cpu" })?;
    let model = if has("random") { random(config, dtype, device)? } else { Transformer::read(folder, dtype, device)? };
    let mut policy = LmPolicy::trained(model, keep);
    let records: Vec<_> = lines.iter().map(|line| &line.record).collect();
    let plans = plan(&requirements, &records, records.len())?;
    let held = has("held");
    // Before training, the policy equals its reference: unless the reference is held, a view of the policy serves as it
    // and takes no memory.
    let reference = Reference::Held(Box::new(if held { policy.copy()? } else { policy.view()? }));
    let ask = |policy: &LmPolicy| reference.micro_batches(&requirements, policy.model(), &plans, packing);
    let mut micro_batches = ask(&policy)?;
    let settings = OptimizerSettings::build(optimizer, &Parameters::new())?;
    let mut optimizer = Optimizer::new(settings, Precision::Stochastic, 0);
    let mut step = Step::new(&*objective);
    let lambda = requirements.anticipation.at(1.0, 0.0);
    let settings = StepSettings { learning_rate: 1e-6, clip_norm: Some(10.0), lambda };
    let (mut seconds, mut losses) = (Vec::new(), Vec::new());
    for _ in 0..steps.parse::<usize>()? {
        let begun = Instant::now();
        if held {
            micro_batches = ask(&policy)?;
        }
        let report = step.take(&mut policy, &mut optimizer, &micro_batches, settings)?;
        if let Device::Cuda(index) = device {
            Cuda::synchronize(index as i64);
        }
        seconds.push(begun.elapsed().as_secs_f64());
        losses.push(report.loss);
    }
    let peak_bytes = peak_bytes()?;
    let sequences = plans.iter().flat_map(|plan| &plan.sequences);
    let lengths: Vec<usize> = sequences.map(|sequence| sequence.prompt.len() + sequence.response.len()).collect();
    let (config, kind) = (policy.model().config(), policy.model().kind());
    let longest = lengths.iter().copied().max().unwrap_or(1);
    let attention = kernel(config, kind, device, longest)?.map(|kernel| kernel.to_string());
    let tokens: usize = lengths.iter().sum();
    println!(
        "{}",
        serde_json::json!({"seconds": seconds, "losses": losses, "tokens": tokens, "attention": attention, "peak_bytes": peak_bytes})
    );
    Ok(())
}

/// A model of this shape with random weights.
fn random(config: ModelConfig, dtype: Dtype, device: Device) -> anyhow::Result<Transformer> {
    tch::manual_seed(0);
    let mut tensors = HashMap::new();
    for Shape { name, size } in shapes(&config) {
        let is_norm = name.contains("norm");
        let numbers = || match is_norm {
            true => Tensor::f_ones(&size[..], (dtype.kind(), device)),
            false => Tensor::f_randn(&size[..], (dtype.kind(), device))?.f_mul_scalar(0.02),
        };
        tensors.insert(name, numbers()?);
    }
    Ok(Transformer::new(config, Weights::new(Path::new("drawn"), tensors))?)
}

/// Peak memory of the process, bytes.
fn peak_bytes() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM in /proc/self/status")?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes * 1024)
}
