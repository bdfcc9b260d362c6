//! Times optimizer steps on one batch, and says how much memory the process took: what `experiments/lm/speed.py` compares.
//!
//! `cargo run -p lm --example steps -- MODEL DATA.jsonl METHOD OPTIMIZER STEPS [padded] [checkpointing] [held]` prints one line of JSON,
//! METHOD being JSON too, as `{"name": "dpo"}`: `seconds` of each step, `losses`, and `peak_bytes` of the process.

use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use lm::batch::Packing;
use lm::config::{Dtype, read_config};
use lm::data::{Learnt, encode_lines, read_records};
use lm::example::Encoder;
use lm::micro_batch::plan;
use lm::model::Transformer;
use lm::model::tape::Keep;
use lm::optimizer::{Optimizer, Precision};
use lm::policy::LmPolicy;
use lm::reference::Reference;
use objective::{Configured, ObjectiveState, Parameters};
use tch::Device;
use training::{Moment, OptimizerSettings, StepSettings, Workspace, step};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, data, method, optimizer, steps, rest @ ..] = &arguments[..] else {
        anyhow::bail!("expected MODEL DATA.jsonl METHOD OPTIMIZER STEPS [padded] [checkpointing] [held]")
    };
    let asked = |word: &str| rest.iter().any(|given| given == word);
    let packing = if asked("padded") { Packing::Padded } else { Packing::Packed };
    let keep = if asked("checkpointing") { Keep::LayerInputs } else { Keep::Activations };
    let (folder, data) = (Path::new(model), Path::new(data));
    let objective = serde_json::from_str::<Configured>(method)?.into_objective();
    let requirements = objective.requirements();
    let learnt = if requirements.data == objective::Data::Demonstrations { Learnt::Chosen } else { Learnt::Last };
    let encoder = Encoder { tokenizer: None, template: None, vocabulary: read_config(folder)?.vocabulary };
    let lines = encode_lines(data, &read_records(data, learnt)?, &encoder, usize::MAX)?;
    let mut policy = LmPolicy::trained(Transformer::read(folder, Dtype::Float32, Device::Cpu)?, keep);
    let records: Vec<_> = lines.iter().map(|line| &line.record).collect();
    let plans = plan(&requirements, &records, records.len())?;
    let held = asked("held");
    // The policy has not moved yet: unless the reference is held, a view of it is its own reference, and takes no memory.
    let reference = Reference::Held(Box::new(if held { policy.copy()? } else { policy.view()? }));
    let ask = |policy: &LmPolicy| reference.micro_batches(&requirements, policy.model(), &plans, packing);
    let mut micro_batches = ask(&policy)?;
    let settings = OptimizerSettings::build(optimizer, &Parameters::new())?;
    let mut optimizer = Optimizer::new(settings, Precision::Masters, 0);
    let (mut state, mut workspace) = (ObjectiveState::default(), Workspace::default());
    let settings = StepSettings { learning_rate: 1e-6, clip_norm: Some(10.0), moment: Moment::default() };
    let (mut seconds, mut losses) = (Vec::new(), Vec::new());
    for _ in 0..steps.parse::<usize>()? {
        let begun = Instant::now();
        if held {
            micro_batches = ask(&policy)?;
        }
        let report =
            step(&mut policy, &mut optimizer, &*objective, &mut state, &micro_batches, settings, &mut workspace)?;
        seconds.push(begun.elapsed().as_secs_f64());
        losses.push(report.loss);
    }
    let peak_bytes = peak_bytes()?;
    println!("{}", serde_json::json!({"seconds": seconds, "losses": losses, "peak_bytes": peak_bytes}));
    Ok(())
}

/// The most memory that the process had at a time.
fn peak_bytes() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM in /proc/self/status")?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes * 1024)
}
