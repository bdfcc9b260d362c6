//! Agreement with the peers' recorded answers, by the line protocol of the `evaluate` example;
//! `tests/oracles/README.md` says where each comes from.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed check is a panic")]

#[path = "../examples/evaluate/protocol.rs"]
mod protocol;

use objective::{Groups, Pairs, PolicyGradient, RewardModel, Side, generalised_advantages};
use serde_json::Value;

/// Recorded answers of this name.
fn oracle(name: &str) -> Value {
    let path = format!("{}/../../tests/oracles/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error}: {value}"))
}

/// Concatenated numbers of several responses, and the length of each.
fn flat(rows: &Value) -> (Vec<f64>, Vec<usize>) {
    let rows: Vec<_> = rows.as_array().unwrap().iter().map(numbers).collect();
    (rows.concat(), rows.iter().map(Vec::len).collect())
}

/// Asserts that numbers agree to a relative error, or to an absolute one for numbers that should be 0.
fn assert_close(ours: &[f64], theirs: &[f64], relative: f64, absolute: f64, what: &str) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (index, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        let error = (ours - theirs).abs();
        assert!(error <= relative * theirs.abs() + absolute, "{what} [{index}]: {ours:e}, expected {theirs:e}");
    }
}

#[test]
fn losses_agree_with_pytorch() {
    agrees_with("objective", 1e-15);
}

#[test]
fn losses_on_pairs_agree_with_trl() {
    agrees_with("preference", 1e-15);
}

#[test]
fn losses_on_labelled_responses_agree_with_trl() {
    agrees_with("labelled", 1e-15);
}

#[test]
fn losses_on_groups_agree_with_trl() {
    // PyTorch differentiates σ as σ (1 − σ), which rounds where σ is all but 1.
    agrees_with("groups", 1e-14);
}

#[test]
fn bco_and_ppo_agree_with_the_last_trl_that_has_them() {
    agrees_with("retired", 1e-15);
}

#[test]
fn advantages_are_those_of_the_last_trl_that_estimates_them() {
    for case in oracle("retired")["advantages"].as_array().unwrap() {
        let (mut advantages, mut returns) = (Vec::new(), Vec::new());
        let [discount, lambda] = ["discount", "lambda"].map(|name| case[name].as_f64().unwrap());
        let [rewards, values] = ["rewards", "values"].map(|name| numbers(&case[name]));
        generalised_advantages(&rewards, &values, 0.0, discount, lambda, &mut advantages, &mut returns);
        assert_close(&advantages, &numbers(&case["advantages"]), 1e-12, 1e-15, "advantages");
        assert_close(&returns, &numbers(&case["returns"]), 1e-12, 1e-15, "returns");
    }
}

#[test]
fn every_weight_of_the_released_propagation_agrees_with_pytorch() {
    // Softmax weights subtract losses of about 100 nats from one another.
    agrees_with("ift", 1e-14);
}

/// Line of a case; responses are repeated if the case asks for long ones.
fn lengthened(case: &Value) -> Value {
    let mut line = case["line"].clone();
    let repeat = case["repeat"].as_u64().unwrap_or(1) as usize;
    let sides = line.as_object_mut().unwrap().values_mut().filter_map(Value::as_object_mut);
    for response in sides.flat_map(|side| side.values_mut()).filter_map(Value::as_array_mut).flatten() {
        if let Some(tokens) = response.as_array_mut() {
            *tokens = std::iter::repeat_n(tokens.clone(), repeat).flatten().collect();
        }
    }
    line
}

fn agrees_with(oracle_name: &str, rounding: f64) {
    agree(oracle(oracle_name)["cases"].as_array().unwrap(), rounding);
}

#[test]
fn policy_gradients_agree_with_verl_and_trl() {
    let oracle = oracle("policy_gradient");
    // What rejects tokens leaves the denominator here, and what gives them a weight of 0 does not.
    let is_ours = |case: &&Value| {
        let correction = case["line"]["objective"]["correction"].as_str().unwrap_or("none");
        let ways = [case["weights"].as_str(), case["denominator"].as_str()];
        match (ways, correction.starts_with("mask")) {
            ([None, None], _) => true,
            (ways, true) => ways == [Some("importance"), Some("kept")],
            ([_, denominator], false) => denominator == Some("all"),
        }
    };
    // verl whitens the sum of several advantages over tokens, the paper over responses.
    let over_tokens = |case: &&Value| !case["name"].as_str().unwrap().starts_with("gdpo, whitened over tokens");
    let cases = ["cases", "rewarded", "ppo"].into_iter().flat_map(|part| oracle[part].as_array().unwrap());
    let cases: Vec<_> = cases.filter(is_ours).filter(over_tokens).cloned().collect();
    assert!(cases.len() > 440, "{}", cases.len());
    agree(&cases, 1e-13);

    // A preset with the parameters that its choices leave open is the same objective.
    let preset = |case: &Value| {
        let mut objective = case.get("preset")?.clone();
        if objective["name"] == "rloo" {
            objective["beta"] = 0.0.into(); // the divergence in the reward needs rewards
        }
        let mut case = case.clone();
        case["line"]["objective"] = objective;
        Some(case)
    };
    agree(&cases.iter().filter_map(preset).collect::<Vec<_>>(), 1e-13);
}

/// Compares cases; where terms cancel, an error of `rounding` times the largest term is allowed.
fn agree(cases: &[Value], rounding: f64) {
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let answer = protocol::answer(lengthened(case).to_string().as_bytes()).unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer.get("error"), None, "{name}");
        let scalar = |value: &Value| [value.as_f64().unwrap()];
        let objective = &case["line"]["objective"];
        let terms = objective["terms"].as_array().into_iter().flatten();
        let beta = terms.chain([objective]).filter_map(|term| term["beta"].as_f64()).fold(0.0, f64::max);
        let sides = case["cotangents"].as_object().unwrap();
        let stride = case["stride"].as_u64().unwrap_or(1) as usize;
        // The advantages of a group cancel in its loss, but for the rounding of each token's part.
        let parts = || sides["groups"]["log_prob"].as_array().unwrap().iter().flat_map(numbers);
        let cancelled: f64 = if sides.contains_key("groups") { parts().map(f64::abs).sum() } else { 0.0 };
        let cancelled = stride as f64 * cancelled;
        assert_close(&scalar(&answer["loss"]), &scalar(&case["loss"]), 1e-12, rounding * cancelled + 1e-300, name);
        assert_eq!(answer["cotangents"].as_object().unwrap().len(), sides.len(), "{name}");
        for (side, columns) in sides {
            for (column, theirs) in columns.as_object().unwrap() {
                let ours = answer["cotangents"][side][column].as_array().unwrap();
                for (ours, theirs) in ours.iter().zip(theirs.as_array().unwrap()) {
                    let theirs = numbers(theirs);
                    let ours: Vec<_> = numbers(ours).into_iter().step_by(stride).collect();
                    let absolute = rounding * theirs.iter().fold(beta, |most: f64, c| most.max(c.abs()));
                    assert_close(&ours, &theirs, 1e-12, absolute, &format!("{name}, {side}.{column}"));
                }
            }
        }
        // The peer keeps its accuracies in float32.
        for (metric, theirs) in case["metrics"].as_object().into_iter().flatten() {
            assert_close(&scalar(&answer["metrics"][metric]), &scalar(theirs), 1e-7, 0.0, &format!("{name}, {metric}"));
        }
    }
}

#[test]
fn losses_agree_with_open_rlhf() {
    agrees_with("open_rlhf", 1e-14);
}

#[test]
fn the_loss_of_values_agrees_with_open_rlhf() {
    for case in oracle("open_rlhf")["values"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let [(value, lengths), (behaviour, _), (returns, _), (cotangents, _)] =
            ["value", "behaviour_value", "return", "cotangents"].map(|column| flat(&case[column]));
        let value_clip = case["clip"].as_f64();
        let ppo = PolicyGradient { value_clip, entropy_coefficient: 0.0, ..PolicyGradient::ppo() };
        let log_prob = vec![-1.0; value.len()];
        let mut ppo = ppo.evaluator().unwrap();
        let responses = Side {
            log_prob: &log_prob,
            behaviour_log_prob: &log_prob,
            advantage: &vec![0.0; value.len()],
            value: &value,
            behaviour_value: if value_clip.is_some() { &behaviour } else { &[] },
            returns: &returns,
            ..Side::of(&lengths)
        };
        let answer = ppo.evaluate(&Groups { responses, group: &[], reward: &[] }).unwrap();
        assert_close(&[answer.loss], &[case["loss"].as_f64().unwrap()], 1e-12, 0.0, name);
        assert_close(answer.cotangents.value, &cotangents, 1e-12, 1e-15, name);
    }
}

#[test]
fn the_loss_of_reward_models_agrees_with_open_rlhf() {
    for case in oracle("open_rlhf")["rewards"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let [mut chosen, rejected] = ["chosen", "rejected"].map(|side| numbers(&case[side]));
        let margins = if case["margin"].is_null() { vec![0.0; chosen.len()] } else { numbers(&case["margin"]) };
        chosen.iter_mut().zip(margins).for_each(|(score, margin)| *score -= margin);
        let lengths = vec![1; chosen.len()];
        let mut model = RewardModel::default().evaluator().unwrap();
        let answer = model
            .evaluate(&Pairs {
                chosen: Side { score: &chosen, ..Side::of(&lengths) },
                rejected: Side { score: &rejected, ..Side::of(&lengths) },
            })
            .unwrap();
        assert_close(&[answer.loss], &[case["loss"].as_f64().unwrap()], 1e-12, 0.0, name);
        let [own, other] = [0, 1].map(|side| numbers(&case["cotangents"][side]));
        assert_close(answer.cotangents.chosen.score, &own, 1e-12, 1e-15, name);
        assert_close(answer.cotangents.rejected.score, &other, 1e-12, 1e-15, name);
    }
}
