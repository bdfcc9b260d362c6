//! Losses, gradients and twenty optimizer steps agree with PyTorch; `tests/oracles/finetune.py` recorded them in
//! float64.

use lm::checkpoint::config::Dtype;
use lm::train::micro_batch::{LmMicroBatch, plan};
use lm::train::optimizer::{Optimizer, Precision};
use lm::train::policy::LmPolicy;
use lm::train::reference::Reference;
use lm::transformer::batch::Packing;
use lm::transformer::model::tape::Keep;
use objective::{Configured, Data, Objective};
use serde_json::Value;
use tch::no_grad;
use text::data::Record;
use text::example::Example;
use training::{OptimizerSettings, Policy, Schedule, Shape, Step, StepSettings};

use crate::oracle::{answers, close, ids, model, model_in, numbers};

/// All combinations of packing and of kept intermediate results.
pub(crate) const WAYS: [(Packing, Keep); 3] =
    [(Packing::Padded, Keep::Activations), (Packing::Packed, Keep::Activations), (Packing::Padded, Keep::LayerInputs)];

/// A chosen and a rejected response.
pub(crate) type PairOfIds = [Example; 2];

pub(crate) fn pairs(answers: &Value) -> Vec<PairOfIds> {
    let example =
        |pair: &Value, side: &str| Example { prompt: ids(&pair["prompt_ids"]), response: ids(&pair[side]), end: 0 };
    let pairs = answers["pairs"].as_array().unwrap().iter();
    pairs.map(|pair| ["chosen_ids", "rejected_ids"].map(|side| example(pair, side))).collect()
}

/// The pairs as one micro-batch, or their chosen responses for an imitating objective.
pub(crate) fn micro_batch(
    policy: &LmPolicy,
    objective: &dyn Objective,
    reference: LmPolicy,
    pairs: &[PairOfIds],
    packing: Packing,
) -> Vec<LmMicroBatch> {
    let requirements = objective.requirements();
    let record = |[chosen, rejected]: &PairOfIds| match requirements.data {
        Data::Preferences => Record::Preference { chosen: chosen.clone(), rejected: rejected.clone() },
        _ => Record::Demonstration(chosen.clone()),
    };
    let records: Vec<_> = pairs.iter().map(record).collect();
    let plans = plan(&requirements, &records.iter().collect::<Vec<_>>(), records.len()).unwrap();
    let reference = Reference::Held(Box::new(reference));
    reference.micro_batches(&requirements, policy.model(), &plans, packing).unwrap()
}

/// Computes the loss of a step, and leaves its gradient in the policy.
pub(crate) fn gradient(policy: &mut LmPolicy, objective: &dyn Objective, batches: &[LmMicroBatch]) -> f64 {
    let mut step = Step::new(objective);
    let lambda = step.requirements().anticipation.at(1.0, 0.0);
    step.accumulate(policy, batches, lambda).unwrap().0
}

/// Compares a recorded loss, the norm of its gradient, and `entries` of each parameter's gradient with the policy's.
#[track_caller]
pub(crate) fn agrees(policy: &LmPolicy, loss: f64, answer: &Value, entries: usize, what: &str) {
    close(&[loss], &[answer["loss"].as_f64().unwrap()], 1e-5, what);
    close(&[policy.gradient_norm().unwrap()], &[answer["gradient_norm"].as_f64().unwrap()], 1e-4, what);
    let parameters = policy.parameters();
    for (parameter, expected) in answer["gradients"].as_object().unwrap() {
        let index = parameters.iter().position(|(shape, _)| shape.name == *parameter).unwrap();
        let gradient = flat(policy, index);
        let stride = usize::try_from(expected["stride"].as_u64().unwrap()).unwrap();
        let values: Vec<f64> = gradient.iter().step_by(stride).take(entries).copied().collect();
        let norm = gradient.iter().map(|value| value * value).sum::<f64>().sqrt();
        let what = format!("{what}, {parameter}");
        close(&values, &numbers(&expected["values"]), 1e-4, &what);
        close(&[norm], &[expected["norm"].as_f64().unwrap()], 1e-4, &what);
    }
}

/// Compares recorded losses and gradient norms of optimizer steps, at these learning rates, with the policy's.
#[track_caller]
pub(crate) fn steps_agree(
    policy: &mut LmPolicy,
    objective: &dyn Objective,
    batches: &[LmMicroBatch],
    (optimizer, clip_norm, answer): (&Value, Option<f64>, &Value),
    learning_rates: impl IntoIterator<Item = f64>,
) {
    let settings: OptimizerSettings = serde_json::from_value(optimizer.clone()).unwrap();
    let mut optimizer = Optimizer::new(settings, Precision::Masters, 0);
    let mut step = Step::new(objective);
    let lambda = step.requirements().anticipation.at(1.0, 0.0);
    let (mut losses, mut norms) = (Vec::new(), Vec::new());
    for learning_rate in learning_rates {
        let settings = StepSettings { learning_rate, clip_norm, lambda };
        let report = step.take(policy, &mut optimizer, batches, settings).unwrap();
        losses.push(report.loss);
        norms.push(report.gradient_norm);
    }
    close(&losses, &numbers(&answer["losses"]), 1e-4, &format!("{}: losses", answer["name"]));
    close(&norms, &numbers(&answer["gradient_norms"]), 1e-3, &format!("{}: norms", answer["name"]));
}

pub(crate) fn objective(method: &Value) -> Box<dyn Objective> {
    serde_json::from_value::<Configured>(method.clone()).unwrap().into_objective()
}

/// The checkpoint with every weight multiplied.
pub(crate) fn scaled(name: &str, scale: f64) -> LmPolicy {
    let model = model(name);
    for parameter in model.parameters() {
        no_grad(|| _ = parameter.shallow_clone().g_mul_scalar_(scale));
    }
    LmPolicy::frozen(model)
}

fn flat(policy: &LmPolicy, index: usize) -> Vec<f64> {
    let (shape, _) = &policy.parameters()[index];
    let size: i64 = shape.size.iter().product();
    match &policy.gradients()[index] {
        Some(gradient) => Vec::try_from(gradient.flatten(0, -1).to_kind(tch::Kind::Double)).unwrap(),
        None => vec![0.0; usize::try_from(size).unwrap()],
    }
}

/// The checkpoint as a policy, and the recorded pairs as its micro-batch with the recorded reference.
fn case(
    answer: &Value,
    pairs: &[PairOfIds],
    (packing, keep): (Packing, Keep),
) -> (LmPolicy, Box<dyn Objective>, Vec<LmMicroBatch>) {
    let name = answer["checkpoint"].as_str().unwrap();
    let (policy, objective) = (LmPolicy::trained(model(name), keep), objective(&answer["method"]));
    let reference = scaled(name, answer["reference_scale"].as_f64().unwrap());
    let batches = micro_batch(&policy, &*objective, reference, pairs, packing);
    (policy, objective, batches)
}

#[test]
fn losses_and_gradients_agree_with_pytorch() {
    let answers = answers("finetune.json");
    let pairs = pairs(&answers);
    for answer in answers["cases"].as_array().unwrap() {
        for way in WAYS {
            let (mut policy, objective, batches) = case(answer, &pairs, way);
            let loss = gradient(&mut policy, &*objective, &batches);
            agrees(&policy, loss, answer, 6, &format!("{}, {way:?}", answer["name"]));
        }
    }
}

#[test]
fn sixteen_bits_are_near_pytorch_in_sixty_four() {
    let answers = answers("finetune.json");
    let pairs = pairs(&answers);
    for answer in answers["cases"].as_array().unwrap() {
        let objective = objective(&answer["method"]);
        let name = answer["checkpoint"].as_str().unwrap();
        for (packing, keep) in WAYS {
            let what = format!("{}, {packing}, {keep:?}", answer["name"]);
            let mut policy = LmPolicy::trained(model_in(name, Dtype::Bfloat16), keep);
            let reference = scaled(name, answer["reference_scale"].as_f64().unwrap());
            let batches = micro_batch(&policy, &*objective, reference, &pairs, packing);
            let loss = gradient(&mut policy, &*objective, &batches);
            // Differences of up to 0.02 were observed and, where the greedy token differs, 0.085.
            close(&[loss], &[answer["loss"].as_f64().unwrap()], 0.03, &what);
            close(&[policy.gradient_norm().unwrap()], &[answer["gradient_norm"].as_f64().unwrap()], 0.1, &what);
        }
    }
}

#[test]
fn twenty_steps_agree_with_pytorch() {
    let answers = answers("finetune.json");
    let pairs = pairs(&answers);
    let schedule = Schedule { shape: Shape::Cosine, warmup_ratio: 0.1 };
    for answer in answers["runs"].as_array().unwrap() {
        let (mut policy, objective, batches) = case(answer, &pairs, WAYS[0]);
        let greatest = answer["learning_rate"].as_f64().unwrap();
        let recorded = (&answer["optimizer"], answers["max_gradient_norm"].as_f64(), answer);
        let learning_rates = (0..20).map(|index| greatest * schedule.factor(index, 20));
        steps_agree(&mut policy, &*objective, &batches, recorded, learning_rates);
    }
}
