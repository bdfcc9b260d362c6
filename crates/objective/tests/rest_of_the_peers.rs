//! Known answers of losses on pairs, of scores and of a teacher's log-probabilities (`tests/oracles/rest.json`).
#![allow(clippy::unwrap_used, reason = "a test that cannot read its data fails")]

use objective::{
    Batch, Demonstrations, Error, Evaluator, Objective, Pairs, Parameters, Rollouts, Side, Value, registry,
};
use serde_json::Value as Json;

const TOLERANCE: f64 = 1e-12;

/// The columns of one side, flat.
#[derive(Default)]
struct Flat {
    lengths: Vec<usize>,
    columns: Vec<(String, Vec<f64>)>,
}

impl Flat {
    fn of(side: &Json) -> Self {
        let mut flat = Self::default();
        for (name, column) in side.as_object().unwrap() {
            let rows = column.as_array().unwrap();
            let rows: Vec<Vec<f64>> = rows.iter().map(numbers).collect();
            if name != "weight" && name != "advantage" {
                flat.lengths = rows.iter().map(Vec::len).collect();
            }
            flat.columns.push((name.clone(), rows.concat()));
        }
        flat
    }

    fn side(&self) -> Side<'_> {
        let column = |wanted: &str| {
            self.columns.iter().find(|(name, _)| name == wanted).map_or(&[][..], |(_, column)| column.as_slice())
        };
        Side {
            log_prob: column("log_prob"),
            reference_log_prob: column("reference_log_prob"),
            behaviour_log_prob: column("behaviour_log_prob"),
            teacher_log_prob: column("teacher_log_prob"),
            advantage: column("advantage"),
            score: column("score"),
            weight: column("weight"),
            ..Side::of(&self.lengths)
        }
    }
}

/// Numbers of a row, which may be a single number.
fn numbers(row: &Json) -> Vec<f64> {
    match row.as_array() {
        Some(row) => row.iter().map(|value| value.as_f64().unwrap()).collect(),
        None => vec![row.as_f64().unwrap()],
    }
}

fn evaluator(name: &str, given: &Parameters) -> Evaluator<Box<dyn Objective>> {
    Evaluator::new(registry::build(name, given).unwrap()).unwrap()
}

fn compare(case: &str, what: &str, own: &[f64], expected: &[f64]) {
    assert_eq!(own.len(), expected.len(), "{case}: {what}");
    for (own, expected) in own.iter().zip(expected) {
        let apart = (own - expected).abs() / expected.abs().max(1.0);
        assert!(apart <= TOLERANCE, "{case}: {what} {own}, expected {expected}");
    }
}

fn cases() -> Vec<Json> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/oracles/rest.json");
    let recorded: Json = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    recorded["cases"].as_array().unwrap().clone()
}

/// The objective's name and its parameters, without `loss` and `alpha` of `tpo`, which belong to the case.
fn objective(case: &Json) -> (String, Parameters) {
    let mut given = Parameters::new();
    for (name, value) in case["line"]["objective"].as_object().unwrap() {
        let value = match value {
            Json::String(text) => Value::Text(text.clone()),
            number => Value::Number(number.as_f64().unwrap()),
        };
        given.insert(name.clone(), value);
    }
    let name = given.remove("name").map(|name| name.to_string()).unwrap_or_default();
    let name = name.trim_matches('"');
    (name.trim_start_matches("weighted ").to_owned(), given)
}

#[test]
fn losses_agree_with_trl() {
    let mut seen = std::collections::BTreeMap::new();
    for case in cases() {
        let label = case["name"].as_str().unwrap();
        let (name, mut given) = objective(&case);
        *seen.entry(name.clone()).or_insert(0) += 1;
        let line = &case["line"];
        let [mut chosen, rejected, gold, sampled] =
            ["chosen", "rejected", "gold", "groups"].map(|side| line.get(side).map_or_else(Flat::default, Flat::of));
        let flat = |side: &str, column: &str| -> Vec<f64> {
            case["cotangents"][side][column].as_array().unwrap().iter().flat_map(numbers).collect()
        };
        let expected = case["loss"].as_f64().unwrap();
        if name == "a2po" || name == "iw_opd" {
            let mut own = evaluator(&name, &given);
            let answer = own.evaluate(&Batch::Rollouts(Rollouts(sampled.side()))).unwrap();
            compare(label, "loss", &[answer.loss], &[expected]);
            compare(label, "cotangents", answer.cotangents.log_prob, &flat("groups", "log_prob"));
            if let Some(advantages) = case.get("advantage") {
                let advantages: Vec<f64> = advantages.as_array().unwrap().iter().flat_map(numbers).collect();
                compare(label, "advantages", &own.held().tokens, &advantages);
            }
            continue;
        }
        let (mut method, mut imitation) = (name.as_str(), 0.0);
        if name == "tpo" {
            let (loss, smoothing) = (given["loss"].clone(), given["label_smoothing"].clone());
            let Some(Value::Number(alpha)) = given.insert("alpha".to_owned(), 0.0.into()) else { panic!("no alpha") };
            imitation = alpha;
            method = "cpo";
            if loss == "tpo_l".into() {
                method = "simpo";
                given.retain(|name, _| name != "loss" && name != "alpha");
            } else if loss == "ipo".into() {
                given.insert("normalisation".to_owned(), "mean".into());
            }
            if smoothing == 0.0.into() {
                given.remove("label_smoothing");
            }
        }
        if let Some(margins) = line.get("margin") {
            // The margin is a part of the chosen score, which centring would read as well.
            if given["centring"] != 0.0.into() {
                continue;
            }
            let (_, scores) = &mut chosen.columns[0];
            scores.iter_mut().zip(numbers(margins)).for_each(|(score, margin)| *score -= margin);
        }
        let mut own = evaluator(method, &given);
        let pairs = Batch::Pairs(Pairs { chosen: chosen.side(), rejected: rejected.side() });
        let answer = own.evaluate(&pairs).unwrap();
        let mut loss = answer.loss;
        let (column, cotangents) = match method {
            "reward_model" => ("score", answer.cotangents.score),
            _ => ("log_prob", answer.cotangents.log_prob),
        };
        compare(label, "cotangents", cotangents, &[flat("chosen", column), flat("rejected", column)].concat());
        if imitation > 0.0 {
            let mut sft = evaluator("sft", &Parameters::new());
            let answer = sft.evaluate(&Batch::Demonstrations(Demonstrations(gold.side()))).unwrap();
            loss += imitation * answer.loss;
            let pulled: Vec<_> = answer.cotangents.log_prob.iter().map(|pull| imitation * pull).collect();
            compare(label, "cotangents of the gold responses", &pulled, &flat("gold", "log_prob"));
        }
        compare(label, "loss", &[loss], &[expected]);
    }
    assert_eq!(seen.values().sum::<i32>(), 86, "{seen:?}");
}

#[test]
fn weights_of_one_change_nothing_and_a_weight_of_two_counts_twice() -> Result<(), Error> {
    let mut sft = evaluator("sft", &[("normalisation".to_owned(), "response".into())].into());
    let mut loss = |weight: &[f64]| -> Result<f64, Error> {
        let demonstrations = Demonstrations(Side { log_prob: &[-1.0, -2.0, -4.0], weight, ..Side::of(&[1, 2]) });
        Ok(sft.evaluate(&Batch::Demonstrations(demonstrations))?.loss)
    };
    assert_eq!([loss(&[])?, loss(&[1.0, 1.0])?, loss(&[2.0, 1.0])?], [2.0, 2.0, 2.5]);
    Ok(())
}

#[test]
fn weights_are_refused_where_they_would_be_ignored() {
    let side = Side { log_prob: &[-1.0], ..Side::of(&[1]) };
    let refusal =
        |name: &str, batch: Batch<'_>| evaluator(name, &Parameters::new()).evaluate(&batch).unwrap_err().to_string();
    let weighted = Side { weight: &[1.0], ..side };
    let error = refusal("ift", Batch::Demonstrations(Demonstrations(weighted)));
    assert_eq!(error, "weight: expected 0, one a response that is weighted, got 1");
    let error = refusal("cpo", Batch::Pairs(Pairs { chosen: side, rejected: weighted }));
    assert_eq!(error, "weight: expected 0, one a response that is weighted, got 1");
    let negative = Side { weight: &[-1.0], ..side };
    let error = refusal("cpo", Batch::Pairs(Pairs { chosen: negative, rejected: side }));
    assert_eq!(error, "weight: expected 0e0 to 1e30 at token 0 of response 0, got -1");
}

#[test]
fn a_parameter_of_another_loss_is_refused() {
    let refusal = |name: &str, given: &Parameters| registry::build(name, given).unwrap_err().to_string();
    let given = [("loss".to_owned(), "hinge".into()), ("label_smoothing".to_owned(), 0.1.into())].into();
    let expected = "cpo.label_smoothing: not used where loss = hinge, so it must not be set (got 0.1)";
    assert_eq!(refusal("cpo", &given), expected);
    let expected = "distillation.beta: not used where divergence = forward_kl, so it must not be set (got 0.3)";
    assert_eq!(refusal("distillation", &[("beta".to_owned(), 0.3.into())].into()), expected);
    let expected = "distillation.samples: not used where responses = given, so it must not be set (got 4)";
    assert_eq!(refusal("distillation", &[("samples".to_owned(), 4.0.into())].into()), expected);
}

#[test]
fn the_expected_gradient_of_on_policy_distillation_is_that_of_the_reverse_kl() -> Result<(), Error> {
    let (policy, teacher) = ([0.5_f64, 0.2, 0.3], [0.1_f64, 0.6, 0.3]);
    let mut opd = evaluator("iw_opd", &[("gamma".to_owned(), 0.0.into())].into());
    let mut gradient = [0.0; 3];
    for (action, (p, q)) in policy.iter().zip(teacher).enumerate() {
        let (log_prob, teacher_log_prob) = ([p.ln()], [q.ln()]);
        let answer = opd.evaluate(&Batch::Rollouts(Rollouts(Side {
            log_prob: &log_prob,
            behaviour_log_prob: &log_prob,
            teacher_log_prob: &teacher_log_prob,
            ..Side::of(&[1])
        })))?;
        // The action's probability, times what its log-probability pulls back to the logits.
        for (other, slot) in gradient.iter_mut().enumerate() {
            *slot += p * answer.cotangents.log_prob[0] * (f64::from(other == action) - policy[other]);
        }
    }
    let ratios: Vec<f64> = policy.iter().zip(teacher).map(|(p, q)| (p / q).ln()).collect();
    let divergence: f64 = policy.iter().zip(&ratios).map(|(p, ratio)| p * ratio).sum();
    let expected: Vec<f64> = policy.iter().zip(&ratios).map(|(p, ratio)| p * (ratio - divergence)).collect();
    compare("reverse KL", "gradient", &gradient, &expected);
    Ok(())
}
