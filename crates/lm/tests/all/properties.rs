//! Invariances of losses and gradients: the split into micro-batches, padding, packing, order, kept intermediate
//! results, and the number of processes.
//!
//! Sums are computed in different orders, so equality is up to 32-bit rounding: 1e-5 for losses, and 1e-4 of the
//! largest entry of the whole gradient for its entries. Most agree to 1e-6; differences of 1.05e-5 were observed where
//! advantages within a group nearly cancel. A misplaced token or a leaking mask causes a thousand times as much.

use crate::finetune::{gradient, scaled};
use crate::oracle::{device, model};
use crate::ranks::together;
use lm::train::micro_batch::plan;
use lm::train::optimizer::{Optimizer, Precision};
use lm::train::policy::LmPolicy;
use lm::train::ranks::Worker;
use lm::train::reference::Reference;
use lm::transformer::batch::Packing;
use lm::transformer::model::tape::Keep;
use objective::{Metrics, Parameters, TokenConstants, registry};
use proptest::prelude::*;
use tch::{Kind, Tensor};
use text::data::Record;
use text::example::Example;
use training::OptimizerSettings;

/// A way to compute a step.
#[derive(Clone, Copy, Debug)]
struct Way {
    size: usize,
    packing: Packing,
    keep: Keep,
    processes: usize,
}

const WAYS: [Way; 8] = [
    Way { size: 64, packing: Packing::Padded, keep: Keep::Activations, processes: 1 },
    Way { size: 64, packing: Packing::Packed, keep: Keep::Activations, processes: 1 },
    Way { size: 1, packing: Packing::Padded, keep: Keep::Activations, processes: 1 },
    Way { size: 2, packing: Packing::Packed, keep: Keep::LayerInputs, processes: 1 },
    Way { size: 3, packing: Packing::Padded, keep: Keep::LayerInputs, processes: 1 },
    Way { size: 3, packing: Packing::Packed, keep: Keep::Activations, processes: 1 },
    Way { size: 1, packing: Packing::Packed, keep: Keep::Activations, processes: 2 },
    // The last of these processes has no micro-batch.
    Way { size: 3, packing: Packing::Padded, keep: Keep::Activations, processes: 3 },
];

fn example() -> impl Strategy<Value = Example> {
    let ids = |least, most| prop::collection::vec(3_u32..96, least..=most);
    (ids(1, 9), ids(1, 9)).prop_map(|(prompt, response)| Example { prompt, response, end: 0 })
}

/// Records of the kind that a method learns from.
fn records(method: &str) -> BoxedStrategy<Vec<Record<Example>>> {
    let pair = (example(), example()).prop_map(|(chosen, rejected)| Record::Preference { chosen, rejected });
    match method {
        "sft" | "ift" => prop::collection::vec(example().prop_map(Record::Demonstration), 4..7).boxed(),
        "kto" | "bco" => {
            let labelled = (example(), any::<bool>());
            prop::collection::vec(labelled, 4..7)
                .prop_map(|labelled| {
                    let record = |(index, (response, desirable)): (usize, _)| {
                        // Both labels occur, as bco compares them.
                        Record::Labelled { response, desirable: if index < 2 { index == 0 } else { desirable } }
                    };
                    labelled.into_iter().enumerate().map(record).collect()
                })
                .boxed()
        }
        "grpo" | "rloo" => {
            let known =
                (-1.0..1.0_f64).prop_map(|reward| TokenConstants { reward: vec![reward], ..TokenConstants::default() });
            let group = prop::collection::vec((example(), known), 2..4).prop_map(Record::Group);
            prop::collection::vec(group, 4..7).boxed()
        }
        _ => prop::collection::vec(pair, 4..7).boxed(),
    }
}

/// Loss, metrics and gradients of a step.
type Step = (f64, Metrics, Vec<Option<Tensor>>);

/// Computes a step whose reference is another model.
fn step(name: &str, method: &str, records: &[Record<Example>], way: Way) -> Step {
    let mut steps = together(way.processes, |worker| step_of(worker, name, method, records, way)).into_iter();
    let step = steps.next().unwrap();
    // All processes must have the same result.
    for (loss, metrics, gradients) in steps {
        assert_eq!((loss, &metrics), (step.0, &step.1));
        assert_eq!(gradients, step.2);
    }
    step
}

fn step_of(worker: &Worker, name: &str, method: &str, records: &[Record<Example>], way: Way) -> Step {
    let objective = registry::build(method, &Parameters::new()).unwrap();
    let requirements = objective.requirements();
    let mut policy = LmPolicy::trained(model(name), way.keep).among(worker.processes.clone());
    let reference = Reference::Held(Box::new(scaled(name, 0.9)));
    let plans = plan(&requirements, &records.iter().collect::<Vec<_>>(), way.size).unwrap();
    let plans = &plans[worker.share(plans.len())];
    let micro_batches = reference.micro_batches(&requirements, policy.model(), plans, way.packing).unwrap();
    let lambda = requirements.anticipation.at(1.0, 0.0);
    let (loss, metrics) = training::Step::new(&*objective).accumulate(&mut policy, &micro_batches, lambda).unwrap();
    let gradients = policy.gradients().iter().map(|gradient| gradient.as_ref().map(Tensor::shallow_clone)).collect();
    (loss, metrics, gradients)
}

#[track_caller]
fn same(found: &Step, expected: &Step, what: &str) {
    assert!((found.0 - expected.0).abs() <= 1e-5 * expected.0.abs().max(1.0), "{what}: {} {}", found.0, expected.0);
    let entry = |gradient: &Tensor| gradient.abs().max().double_value(&[]);
    let largest = expected.2.iter().flatten().map(entry).fold(0.0, f64::max);
    for (index, (found, expected)) in found.2.iter().zip(&expected.2).enumerate() {
        match (found, expected) {
            (Some(found), Some(expected)) => {
                let error = entry(&(found - expected));
                assert!(error <= 1e-4 * largest, "{what}, parameter {index}: {error} of {largest}");
            }
            (None, None) => {}
            other => panic!("{what}, parameter {index}: {other:?}"),
        }
    }
}

/// Uncoupled and coupled objectives, every kind of data, anticipated states, and statistics of whole distributions.
const METHODS: [&str; 10] = ["sft", "ift", "dpo", "orpo", "simpo", "tdpo", "aot", "kto", "bco", "grpo"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_split_padding_or_checkpointing_changes_a_step(
        cases in METHODS.map(records),
    ) {
        for (method, records) in METHODS.iter().zip(&cases) {
            for name in ["llama-sharded", "qwen2-sliding"] {
                let expected = step(name, method, records, WAYS[0]);
                for way in &WAYS[1..] {
                    same(&step(name, method, records, *way), &expected, &format!("{method}, {name}, {way:?}"));
                }
            }
        }
    }

    #[test]
    fn the_order_of_pairs_does_not_matter(records in records("dpo")) {
        let reversed: Vec<_> = records.iter().rev().cloned().collect();
        for method in ["dpo", "orpo", "simpo", "tdpo", "aot"] {
            same(&step("gemma", method, &reversed, WAYS[0]), &step("gemma", method, &records, WAYS[0]), method);
        }
    }
}

#[test]
fn a_policy_that_is_its_own_reference_has_a_loss_of_ln_2_to_the_last_bit() {
    let records = [Record::Preference {
        chosen: Example { prompt: vec![3, 4, 5], response: vec![6, 7, 8], end: 0 },
        rejected: Example { prompt: vec![3, 4, 5], response: vec![9], end: 0 },
    }];
    let objective = registry::build("dpo", &Parameters::new()).unwrap();
    let mut policy = LmPolicy::trained(model("mistral"), Keep::Activations);
    let reference = Reference::Held(Box::new(policy.copy().unwrap()));
    let requirements = objective.requirements();
    let plans = plan(&requirements, &[&records[0]], 1).unwrap();
    let micro_batches = reference.micro_batches(&requirements, policy.model(), &plans, Packing::Packed).unwrap();
    let loss = gradient(&mut policy, &*objective, &micro_batches);
    assert_eq!(loss, std::f64::consts::LN_2);
}

#[test]
fn frozen_encodings_pass_no_gradient_to_an_untied_table() {
    let record = Record::Demonstration(Example { prompt: vec![3, 4], response: vec![5, 6, 7], end: 0 });
    let largest = |freeze: &str| {
        let objective = registry::build("ift", &[("freeze_embeddings".to_owned(), freeze.into())].into()).unwrap();
        let mut policy = LmPolicy::trained(model("llama"), Keep::Activations);
        let requirements = objective.requirements();
        let plans = plan(&requirements, &[&record], 1).unwrap();
        let micro_batches =
            Reference::None.micro_batches(&requirements, policy.model(), &plans, Packing::Padded).unwrap();
        gradient(&mut policy, &*objective, &micro_batches);
        policy.gradients()[0].as_ref().map_or(0.0, |gradient| gradient.abs().max().double_value(&[]))
    };
    assert_eq!(largest("all"), 0.0);
    assert!(largest("anticipated") > 0.0 && largest("none") > 0.0);
}

#[test]
fn random_rounding_has_the_right_mean() {
    // 2⁻¹⁰ is an eighth of the distance from 1 to the next number in 16 bits, 1 + 2⁻⁷.
    let elements = 1 << 20;
    let weights = Tensor::ones([elements], (Kind::BFloat16, device()));
    let gradient = Some(Tensor::full([elements], -1.0, (Kind::Float, device())));
    let settings = OptimizerSettings::build("sgd", &Parameters::new()).unwrap();
    let mut optimizer = Optimizer::new(settings, Precision::Stochastic, 7);
    optimizer.update(&[&weights], &[gradient.as_ref().map(Tensor::shallow_clone)], 2.0_f64.powi(-10), 1.0).unwrap();
    let mean = (weights.to_kind(Kind::Double).mean(Kind::Double).double_value(&[]) - 1.0) * 1024.0;
    // Its standard deviation is √(1/8 · 7/8 / 2²⁰) · 8 = 0.0026.
    assert!((mean - 1.0).abs() < 0.013, "{mean}");
    let mut masters = Optimizer::new(settings, Precision::Masters, 7);
    let kept = Tensor::ones([4], (Kind::BFloat16, device()));
    for _ in 0..8 {
        masters
            .update(&[&kept], &[Some(Tensor::full([4], -1.0, (Kind::Float, device())))], 2.0_f64.powi(-10), 1.0)
            .unwrap();
    }
    assert_eq!(kept.double_value(&[0]), 1.0 + 2.0_f64.powi(-7));
}
