//! Adapters agree with PEFT (`tests/oracles/lora.py` recorded it in float64), and with training every weight.

use lm::checkpoint::adapter::{Use, apply, begin, read_lora, write};
use lm::checkpoint::config::Dtype;
use lm::checkpoint::folder;
use lm::checkpoint::lora::{Lora, Projection};
use lm::checkpoint::weights::Weights;
use lm::error::LmError;
use lm::inspect::score::{Score, ScoredRecord, score};
use lm::train::micro_batch::LmMicroBatch;
use lm::train::optimizer::{Optimizer, Precision};
use lm::train::policy::LmPolicy;
use lm::transformer::batch::Packing;
use lm::transformer::model::Transformer;
use lm::transformer::model::tape::Keep;
use objective::{Objective, Parameters};
use proptest::prelude::*;
use serde_json::{Value, json};
use strum::IntoEnumIterator;
use tch::{Device, Kind, Tensor, no_grad};
use text::data::Record;
use training::{OptimizerSettings, Policy};

use crate::finetune::{PairOfIds, WAYS, agrees, gradient, micro_batch, objective, pairs, steps_agree};
use crate::oracle::{adapter, answers, checkpoint, close, device, model, model_in, numbers};

fn adapted(checkpoint: &str, name: &str) -> Transformer {
    let mut model = model(checkpoint);
    apply(&mut model, &adapter(name), Use::Trained).unwrap();
    model
}

fn checkpoint_of<'a>(answers: &'a Value, name: &Value) -> &'a str {
    let adapters = answers["adapters"].as_array().unwrap();
    adapters.iter().find(|adapter| adapter["name"] == *name).unwrap()["checkpoint"].as_str().unwrap()
}

/// Log-probabilities of all chosen and rejected responses, alternating.
fn log_probs(policy: &LmPolicy, pairs: &[PairOfIds]) -> Vec<Vec<f64>> {
    let records: Vec<_> = pairs.iter().flatten().cloned().map(Record::Demonstration).collect();
    let mut found = Vec::new();
    score(policy, &records, 1, |record| {
        let ScoredRecord::Response(Score { log_prob, .. }) = record else { panic!("a demonstration") };
        found.push(log_prob);
        Ok::<_, LmError>(())
    })
    .unwrap();
    found
}

/// A micro-batch whose reference is the model without its adapters.
fn against_base(
    policy: &LmPolicy,
    objective: &dyn Objective,
    pairs: &[PairOfIds],
    packing: Packing,
) -> Vec<LmMicroBatch> {
    micro_batch(policy, objective, policy.base().unwrap(), pairs, packing)
}

#[test]
fn log_probs_with_an_adapter_agree_with_peft() {
    let answers = answers("lora.json");
    let pairs = pairs(&answers);
    for answer in answers["adapters"].as_array().unwrap() {
        let name = answer["name"].as_str().unwrap();
        let policy = LmPolicy::frozen(adapted(answer["checkpoint"].as_str().unwrap(), name));
        for (found, expected) in log_probs(&policy, &pairs).iter().zip(answer["log_prob"].as_array().unwrap()) {
            close(found, &numbers(expected), 1e-5, name);
        }
    }
}

#[test]
fn losses_and_gradients_agree_with_peft() {
    let answers = answers("lora.json");
    let pairs = pairs(&answers);
    for answer in answers["cases"].as_array().unwrap() {
        let name = answer["adapter"].as_str().unwrap();
        let objective = objective(&answer["method"]);
        for (packing, keep) in WAYS {
            let what = format!("{}, {packing}, {keep:?}", answer["name"]);
            let mut policy = LmPolicy::trained(adapted(checkpoint_of(&answers, &answer["adapter"]), name), keep);
            let batches = against_base(&policy, &*objective, &pairs, packing);
            let loss = gradient(&mut policy, &*objective, &batches);
            agrees(&policy, loss, answer, 4, &what);
            // No other tensor has a gradient.
            let recorded = answer["gradients"].as_object().unwrap().len();
            assert_eq!((policy.parameters().len(), policy.gradients().len()), (recorded, recorded), "{what}");
        }
    }
}

#[test]
fn ten_steps_agree_with_peft_and_leave_the_base_as_it_is() {
    let answers = answers("lora.json");
    let pairs = pairs(&answers);
    for answer in answers["runs"].as_array().unwrap() {
        let objective = objective(&answer["method"]);
        let name = checkpoint_of(&answers, &answer["adapter"]);
        let mut policy = LmPolicy::trained(adapted(name, answer["adapter"].as_str().unwrap()), Keep::Activations);
        let batches = against_base(&policy, &*objective, &pairs, Packing::Padded);
        let recorded = (&answers["optimizer"], answers["max_gradient_norm"].as_f64(), answer);
        let learning_rates = [answers["learning_rate"].as_f64().unwrap(); 10];
        steps_agree(&mut policy, &*objective, &batches, recorded, learning_rates);
        let untouched = model(name);
        let frozen = policy.model().parameters();
        assert!(frozen.into_iter().zip(untouched.parameters()).all(|(a, b)| a == b && !a.requires_grad()), "{name}");
    }
}

#[test]
fn an_adapter_that_begins_is_its_reference_to_the_last_bit() {
    let answers = answers("lora.json");
    let pairs = pairs(&answers);
    let targets: Vec<_> = Projection::iter().collect();
    let lora = Lora::new(4, 8.0, &targets, false).unwrap();
    for (method, expected) in [
        (r#"{"name": "dpo"}"#, std::f64::consts::LN_2),
        (r#"{"name": "tdpo", "variant": 2, "alpha": 0.5}"#, std::f64::consts::LN_2),
        (r#"{"name": "ipo"}"#, 25.0),
    ] {
        let objective = objective(&serde_json::from_str(method).unwrap());
        for name in ["llama", "gemma", "qwen2"] {
            for dtype in [Dtype::Float32, Dtype::Bfloat16] {
                let mut model = model_in(name, dtype);
                begin(&mut model, &lora, 3).unwrap();
                let mut policy = LmPolicy::trained(model, Keep::Activations);
                let batches = against_base(&policy, &*objective, &pairs, Packing::Packed);
                assert_eq!(gradient(&mut policy, &*objective, &batches), expected, "{method}, {name}, {dtype}");
                assert!(policy.gradient_norm().unwrap() > 0.0);
            }
        }
    }
}

/// An adapter of this rank with random numbers.
fn random(model: &Transformer, lora: &Lora) -> Weights {
    let tensors = lora.shapes(model.config()).into_iter();
    let tensors = tensors.map(|shape| (shape.name, Tensor::randn(&shape.size[..], (Kind::Float, Device::Cpu)) * 0.2));
    Weights::new("random".as_ref(), tensors.collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    /// If A is orthogonal and its rank is the whole input size, B A can be any matrix, and a step of B changes W + s B
    /// A as a step of W would: the gradient of B is s (dL/dW) Aᵀ, with dL/dW the gradient of the merged model when
    /// every weight is trained. At any rank, the gradient of A is s Bᵀ (dL/dW).
    #[test]
    fn gradients_are_those_of_the_merged_weights_by_the_chain_rule(
        name in prop::sample::select(vec!["llama", "gemma", "llama-sharded", "qwen2-sliding"]),
        method in prop::sample::select(vec!["sft", "dpo", "tdpo", "simpo"]),
        rank in prop::sample::select(vec![1_usize, 5, 32, 70]),
        rslora in any::<bool>(),
        seed in any::<u32>(),
    ) {
        tch::manual_seed(i64::from(seed));
        let pairs = pairs(&answers("lora.json"));
        let objective = objective(&json!({"name": method}));
        let lora = Lora::new(rank, 1.5, &Projection::iter().collect::<Vec<_>>(), rslora).unwrap();
        let mut model = model(name);
        let weights = random(&model, &lora);
        model.adapt(lora.clone(), weights).unwrap();
        for (index, (shape, tensor)) in model.trained().into_iter().enumerate() {
            // A square A, of full rank, is made orthogonal.
            if index % 2 == 0 && shape.size[0] == shape.size[1] {
                let (orthogonal, _) = Tensor::linalg_qr(tensor, "reduced");
                no_grad(|| tensor.shallow_clone().copy_(&orthogonal));
            }
        }
        let merged = model.merged().unwrap();
        let scaling = lora.scaling();
        let mut policy = LmPolicy::trained(model, Keep::Activations);
        let mut full = LmPolicy::trained(merged, Keep::Activations);
        let batches = against_base(&policy, &*objective, &pairs, Packing::Padded);
        let losses = [gradient(&mut policy, &*objective, &batches), gradient(&mut full, &*objective, &batches)];
        close(&losses[..1], &losses[1..], 1e-5, "loss");
        let of_weights: std::collections::HashMap<String, &Tensor> = full.parameters().into_iter()
            .zip(full.gradients())
            .filter_map(|((shape, _), gradient)| Some((format!("base_model.model.{}", shape.name), gradient.as_ref()?)))
            .collect();
        // Rounding anywhere affects all entries, so differences are relative to the largest entry of the whole
        // gradient.
        let largest = full.gradients().iter().flatten().chain(policy.gradients().iter().flatten())
            .map(|gradient| gradient.abs().max().double_value(&[]))
            .fold(0.0, f64::max);
        let parameters = policy.parameters();
        for (pair, gradients) in parameters.chunks_exact(2).zip(policy.gradients().chunks_exact(2)) {
            let [(shape, a), (_, b)] = pair else { panic!("two") };
            let of_weight = of_weights[&shape.name.replace("lora_A.", "")];
            let expected = [b.transpose(0, 1).matmul(of_weight) * scaling, of_weight.matmul(&a.transpose(0, 1)) * scaling];
            for (gradient, expected) in gradients.iter().zip(expected) {
                let error = (gradient.as_ref().unwrap() - &expected).abs().max().double_value(&[]);
                prop_assert!(error <= 1e-4 * largest, "{}: {error} of {largest}", shape.name);
            }
            if rank == usize::try_from(a.size()[1]).unwrap() {
                // s (dL/dB) A = s² dL/dW: a step of B changes W + s B A by s² times what a step of W would.
                let moved = gradients[1].as_ref().unwrap().matmul(a) * scaling;
                let expected = of_weight * (scaling * scaling);
                let error = (moved - &expected).abs().max().double_value(&[]);
                prop_assert!(error <= 1e-4 * largest, "{}: {error} of {largest}", shape.name);
            }
        }
    }
}

/// With s = 1 and the rows of the identity as A, of the widest map's input size, the gradient of B is that of W, and
/// zero in the columns that A omits. An optimizer that treats each number separately then changes W + B A as it would
/// change W: ten steps of AdamW on B alone have the losses of ten steps on every linear map of the layers.
#[test]
fn an_adapter_of_full_rank_trains_as_the_weights_do() {
    let pairs = pairs(&answers("lora.json"));
    let without_decay = Parameters::from([("weight_decay".to_owned(), 0.0.into())]);
    let settings = OptimizerSettings::build("adamw", &without_decay).unwrap();
    let name = "mistral";
    let rank = model(name).config().intermediate_size;
    let targets: Vec<_> = Projection::iter().collect();
    let lora = Lora::new(rank, rank as f64, &targets, false).unwrap();
    for method in ["sft", "dpo", "tdpo", "simpo", "ift"] {
        let objective = objective(&json!({"name": method}));
        let mut adapted = model(name);
        begin(&mut adapted, &lora, 0).unwrap();
        for tensor in adapted.adapters().into_iter().step_by(2) {
            let identity = Tensor::eye_m(rank as i64, tensor.size()[1], (Kind::Float, Device::Cpu));
            no_grad(|| tensor.shallow_clone().copy_(&identity));
        }
        let mut policy = LmPolicy::trained(adapted, Keep::Activations);
        let batches = against_base(&policy, &*objective, &pairs, Packing::Padded);
        let mut full = LmPolicy::trained(model(name), Keep::Activations);
        let names: Vec<String> = full.parameters().into_iter().map(|(shape, _)| shape.name).collect();
        let is_adapted = |name: &String| targets.iter().any(|target| name.ends_with(&format!("{target}.weight")));
        let (mut own, mut other) =
            (Optimizer::new(settings, Precision::Masters, 0), Optimizer::new(settings, Precision::Masters, 0));
        let mut losses = [Vec::new(), Vec::new()];
        for _ in 0..10 {
            losses[0].push(gradient(&mut policy, &*objective, &batches));
            losses[1].push(gradient(&mut full, &*objective, &batches));
            // In one model only B is trained, and in the other only the adapted maps.
            let only = |gradients: &[Option<Tensor>], chosen: &dyn Fn(usize) -> bool| -> Vec<Option<Tensor>> {
                let gradients = gradients.iter().enumerate();
                gradients
                    .map(|(index, gradient)| gradient.as_ref().filter(|_| chosen(index)).map(Tensor::shallow_clone))
                    .collect()
            };
            let gradients = only(policy.gradients(), &|index| index % 2 == 1);
            own.update(&policy.model().adapters(), &gradients, 1e-3, 1.0).unwrap();
            let gradients = only(full.gradients(), &|index| is_adapted(&names[index]));
            other.update(&full.model().parameters(), &gradients, 1e-3, 1.0).unwrap();
            policy.clear_gradient();
            full.clear_gradient();
        }
        assert!(losses[0][9] < losses[0][0], "{method}: {losses:?}");
        close(&losses[0], &losses[1], 1e-5, method);
    }
}

#[test]
fn merged_weights_answer_as_the_adapted_model_does() {
    let answers = answers("lora.json");
    let pairs = pairs(&answers);
    for answer in answers["adapters"].as_array().unwrap() {
        let (name, checkpoint_name) = (answer["name"].as_str().unwrap(), answer["checkpoint"].as_str().unwrap());
        let policy = LmPolicy::frozen(adapted(checkpoint_name, name));
        let merged = policy.model().merged().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("merged");
        folder::write(&target, &checkpoint(checkpoint_name), &merged.trained(), Dtype::Float32).unwrap();
        let merged = LmPolicy::frozen(Transformer::read(&target, Dtype::Float32, device()).unwrap());
        for (found, expected) in log_probs(&merged, &pairs).iter().zip(log_probs(&policy, &pairs)) {
            close(found, &expected, 1e-5, name);
        }
    }
}

#[test]
fn what_is_written_is_read_back_and_what_is_wrong_is_named() {
    let model = adapted("gemma", "gemma");
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("adapter");
    let lora = model.lora().unwrap();
    write(&target, "owner/name", lora, &model.trained(), Dtype::Float32).unwrap();
    assert_eq!(read_lora(&target, Use::Trained).unwrap(), read_lora(&adapter("gemma"), Use::Trained).unwrap());
    let mut again = crate::oracle::model("gemma");
    apply(&mut again, &target, Use::Trained).unwrap();
    assert!(model.adapters().into_iter().zip(again.adapters()).all(|(a, b)| a == b));
    // An existing folder is not overwritten.
    write(&target, "owner/name", lora, &model.trained(), Dtype::Float32).unwrap_err();
    let refused = |checkpoint: &str, message: &str| {
        let error = apply(&mut crate::oracle::model(checkpoint), &target, Use::Trained).unwrap_err().to_string();
        assert!(
            error.contains("adapter_model.safetensors: base_model.model.model.layers.") && error.contains(message),
            "{error}"
        );
    };
    refused("llama", "expected the shape");
    refused("qwen2-sliding", "expected the shape");
}

#[test]
fn a_copy_keeps_its_adapters_and_shares_the_base() {
    let model = adapted("llama", "llama");
    let copy = model.copy().unwrap();
    let bytes = |tensor: &Tensor| tensor.data_ptr() as usize;
    assert!(model.parameters().into_iter().zip(copy.parameters()).all(|(a, b)| bytes(a) == bytes(b)));
    assert!(model.adapters().into_iter().zip(copy.adapters()).all(|(a, b)| bytes(a) != bytes(b) && a == b));
    assert!(model.base().unwrap().adapters().is_empty());
}

/// Tests every kind of adapter in the files that `tests/oracles/peft_types.py` recorded.
#[test]
fn every_kind_of_adapters_that_peft_has_but_one_is_refused_by_its_name() {
    let answers = answers("peft_types.json");
    let mut kinds = 0;
    for config in answers["configs"].as_array().unwrap() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("adapter_config.json"), config.to_string()).unwrap();
        let found = read_lora(folder.path(), Use::Applied);
        if config["peft_type"] == "LORA" {
            found.unwrap();
            continue;
        }
        let error = found.unwrap_err().to_string();
        let expected = "peft_type: expected \"LORA\", the only kind of adapter that is supported, got ";
        assert!(error.ends_with(&format!("{expected}{}", config["peft_type"])), "{error}");
        kinds += 1;
    }
    assert!(kinds > 20, "{kinds}");
}
