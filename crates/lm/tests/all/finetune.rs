//! Losses, gradients and twenty optimizer steps agree with PyTorch; `tests/oracles/finetune.py` recorded them in float64.

use crate::oracle::{answers, close, ids, model, numbers};
use lm::batch::{Packing, Sequence, States};
use lm::model::Transformer;
use lm::model::tape::Keep;
use lm::optimizer::{Optimizer, Precision};
use lm::policy::{Forward, LmPolicy};
use objective::{Configured, Data, Objective, ObjectiveState, Pair, Parameters, Response, TokenConstants};
use serde_json::Value;
use tch::no_grad;
use training::{
    MicroBatch, Moment, OptimizerSettings, Policy, Schedule, Shape, StepSettings, Workspace, accumulate,
    fill_reference, step,
};

pub(crate) type Batch = MicroBatch<States, Forward>;

pub(crate) struct PairOfIds {
    pub(crate) prompt: Vec<u32>,
    pub(crate) chosen: Vec<u32>,
    pub(crate) rejected: Vec<u32>,
}

pub(crate) fn pairs(answers: &Value) -> Vec<PairOfIds> {
    let pairs = answers["pairs"].as_array().unwrap();
    pairs
        .iter()
        .map(|pair| PairOfIds {
            prompt: ids(&pair["prompt_ids"]),
            chosen: ids(&pair["chosen_ids"]),
            rejected: ids(&pair["rejected_ids"]),
        })
        .collect()
}

/// The pairs as one micro-batch: all chosen responses, then all rejected ones where the objective compares.
pub(crate) fn batch(model: &Transformer, data: Data, pairs: &[PairOfIds], packing: Packing) -> Batch {
    let chosen = pairs.iter().map(|pair| (&pair.prompt, &pair.chosen));
    let rejected = pairs.iter().map(|pair| (&pair.prompt, &pair.rejected));
    let compares = data == Data::Preferences;
    let sequences: Vec<_> =
        chosen.chain(rejected.filter(|_| compares)).map(|(prompt, response)| Sequence { prompt, response }).collect();
    let mut responses = Vec::new();
    let mut tokens = Vec::new();
    for sequence in &sequences {
        let begin = tokens.len();
        tokens.extend(sequence.response.iter().map(|token| *token as usize));
        responses.push(Response::new(begin..tokens.len()));
    }
    let count = pairs.len();
    MicroBatch {
        states: States::new(model, &sequences, packing).unwrap(),
        reference: None,
        tokens,
        responses,
        pairs: (0..if compares { count } else { 0 })
            .map(|index| Pair { chosen: index, rejected: index + count })
            .collect(),
        constants: TokenConstants::default(),
    }
}

pub(crate) fn objective(method: &Value) -> Box<dyn Objective> {
    let parameters: Parameters = serde_json::from_value(method.clone()).unwrap();
    Configured::try_from(parameters).unwrap().into_objective()
}

/// The checkpoint with every weight multiplied.
fn reference(name: &str, scale: f64) -> LmPolicy {
    let model = model(name);
    for parameter in model.parameters() {
        no_grad(|| _ = parameter.shallow_clone().g_mul_scalar_(scale));
    }
    LmPolicy::frozen(model)
}

struct Case<'a> {
    checkpoint: &'a str,
    objective: Box<dyn Objective>,
    reference: LmPolicy,
}

impl<'a> Case<'a> {
    fn read(case: &'a Value) -> Self {
        let checkpoint = case["checkpoint"].as_str().unwrap();
        let reference = reference(checkpoint, case["reference_scale"].as_f64().unwrap());
        Self { checkpoint, objective: objective(&case["method"]), reference }
    }

    fn micro_batches(&self, policy: &LmPolicy, parts: &[&[PairOfIds]], packing: Packing) -> Vec<Batch> {
        let requirements = self.objective.requirements();
        let mut batches: Vec<_> =
            parts.iter().map(|pairs| batch(policy.model(), requirements.data, pairs, packing)).collect();
        fill_reference(&self.reference, &requirements, &mut batches).unwrap();
        batches
    }

    fn gradient(&self, parts: &[&[PairOfIds]], packing: Packing, keep: Keep) -> (f64, LmPolicy) {
        let mut policy = LmPolicy::trained(model(self.checkpoint), keep);
        let batches = self.micro_batches(&policy, parts, packing);
        let (mut state, mut workspace) = (ObjectiveState::default(), Workspace::default());
        let objective = &*self.objective;
        let (loss, _) =
            accumulate(&mut policy, objective, &mut state, &batches, Moment::default(), &mut workspace).unwrap();
        (loss, policy)
    }
}

pub(crate) fn flat(policy: &LmPolicy, index: usize) -> Vec<f64> {
    let (shape, _) = &policy.parameters()[index];
    let size: i64 = shape.size.iter().product();
    match &policy.gradients()[index] {
        Some(gradient) => Vec::try_from(gradient.flatten(0, -1).to_kind(tch::Kind::Double)).unwrap(),
        None => vec![0.0; usize::try_from(size).unwrap()],
    }
}

#[test]
fn losses_and_gradients_agree_with_pytorch() {
    let answers = answers("finetune.json");
    let pairs = pairs(&answers);
    for answer in answers["cases"].as_array().unwrap() {
        let name = answer["name"].as_str().unwrap();
        let case = Case::read(answer);
        for (packing, keep) in [
            (Packing::Padded, Keep::Activations),
            (Packing::Packed, Keep::Activations),
            (Packing::Padded, Keep::LayerInputs),
        ] {
            let what = format!("{name}, {packing}, {keep:?}");
            let (loss, policy) = case.gradient(&[&pairs], packing, keep);
            close(&[loss], &[answer["loss"].as_f64().unwrap()], 1e-5, &what);
            close(&[policy.gradient_norm().unwrap()], &[answer["gradient_norm"].as_f64().unwrap()], 1e-4, &what);
            let parameters = policy.parameters();
            for (parameter, expected) in answer["gradients"].as_object().unwrap() {
                let index = parameters.iter().position(|(shape, _)| shape.name == *parameter).unwrap();
                let gradient = flat(&policy, index);
                let stride = usize::try_from(expected["stride"].as_u64().unwrap()).unwrap();
                let values: Vec<f64> = gradient.iter().step_by(stride).take(6).copied().collect();
                let norm = gradient.iter().map(|value| value * value).sum::<f64>().sqrt();
                let what = format!("{what}, {parameter}");
                close(&values, &numbers(&expected["values"]), 1e-4, &what);
                close(&[norm], &[expected["norm"].as_f64().unwrap()], 1e-4, &what);
            }
        }
    }
}

#[test]
fn twenty_steps_agree_with_pytorch() {
    let answers = answers("finetune.json");
    let pairs = pairs(&answers);
    let schedule = Schedule { shape: Shape::Cosine, warmup_ratio: 0.1 };
    for answer in answers["runs"].as_array().unwrap() {
        let name = answer["name"].as_str().unwrap();
        let case = Case::read(answer);
        let mut parameters: Parameters = serde_json::from_value(answer["optimizer"].clone()).unwrap();
        parameters.remove("name");
        let optimizer = answer["optimizer"]["name"].as_str().unwrap();
        let settings = OptimizerSettings::build(optimizer, &parameters).unwrap();
        let mut optimizer = Optimizer::new(settings, Precision::Masters, 0);
        let mut policy = LmPolicy::trained(model(case.checkpoint), Keep::Activations);
        let batches = case.micro_batches(&policy, &[&pairs], Packing::Padded);
        let (mut state, mut workspace) = (ObjectiveState::default(), Workspace::default());
        let learning_rate = answer["learning_rate"].as_f64().unwrap();
        let (mut losses, mut norms) = (Vec::new(), Vec::new());
        for index in 0..20 {
            let settings = StepSettings {
                learning_rate: learning_rate * schedule.factor(index, 20),
                clip_norm: answers["max_gradient_norm"].as_f64(),
                moment: Moment::default(),
            };
            let objective = &*case.objective;
            let report =
                step(&mut policy, &mut optimizer, objective, &mut state, &batches, settings, &mut workspace).unwrap();
            losses.push(report.loss);
            norms.push(report.gradient_norm);
        }
        close(&losses, &numbers(&answer["losses"]), 1e-4, &format!("{name}: losses"));
        close(&norms, &numbers(&answer["gradient_norms"]), 1e-3, &format!("{name}: norms"));
    }
}
