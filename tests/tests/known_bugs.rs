//! Bugs that alignment libraries are known for, each a property that holds here.
//!
//! Those that concern the gradient through a network (gradient accumulation that changes the scale, token-normalised
//! losses of groups divided by the number of micro-batches once more, a zero gradient under plausible metrics, a
//! reference that differs from the policy at the first step) are in `lake_properties.rs`; ORPO near certainty, and
//! padded, packed and single sequences that disagree (micro-batches add up, order changes nothing), in
//! `objective_properties.rs`. What goes wrong before there are response tokens (special tokens, masks, truncation) no
//! objective can see; it can only refuse a response that was lost.

use objective::parameter::Kind;
use objective::{
    Constant, Data, Evaluation, METHODS, Method, Metric, Objective, ObjectiveState, Parameters, Statistic, StepTotals,
    Value, registry,
};
use tests::{OwnedBatch, Token, Tokens, assert_close};

fn responses() -> Vec<Tokens> {
    let token = |place: usize| {
        let wave = |frequency: f64| 1.1 + (frequency * place as f64).sin();
        Token {
            log_prob: -wave(1.0),
            reference_log_prob: -wave(1.7),
            reference_kl: wave(2.3),
            behaviour_log_prob: -2.0 * wave(3.1),
            value: wave(4.3) - 1.1,
            advantage: wave(5.9) - 1.1,
        }
    };
    [0..5, 5..7, 7..19, 19..20, 20..24, 24..30].map(|places| places.map(token).collect()).into()
}

fn build(method: &Method, parameters: &[(&str, Value)]) -> Box<dyn Objective> {
    let parameters: Parameters = parameters.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
    (method.build)(&parameters).unwrap_or_else(|error| panic!("{error}"))
}

fn evaluate(objective: &dyn Objective) -> Evaluation {
    OwnedBatch::new(&objective.requirements(), &responses()).evaluate(objective)
}

/// Other parameters that must be set for a parameter to have an effect.
fn company(method: &str, parameter: &str) -> Vec<(&'static str, Value)> {
    match (method, parameter) {
        (_, "divergence_alpha") => vec![("divergence", "alpha".into())],
        ("distillation", "beta") => vec![("divergence", "jensen_shannon".into())],
        ("distillation", "samples") => vec![("responses", "sampled".into())],
        // Losses and their share of the response differ by a factor, which cancels but under softmax and log.
        ("ift", "item") => vec![("norm", "softmax".into())],
        (_, "discount") => vec![("advantage", "batch".into())],
        (_, "pass_k") => vec![("advantage", "pass_at_k".into()), ("scale", "none".into())],
        (_, "gae_lambda" | "value_coefficient") => vec![("advantage", "gae".into())],
        (_, "value_clip") => vec![("advantage", "gae".into()), ("value_coefficient", 1.0.into())],
        ("policy_gradient", "ratio") => vec![("trust_region", "none".into())],
        (_, "min_ratio" | "max_ratio") => vec![("trust_region", "cispo".into())],
        (_, "positive_temperature" | "negative_temperature") => vec![("trust_region", "sapo".into())],
        (_, "positive_k" | "positive_lambda" | "negative_k" | "negative_lambda") => {
            vec![("trust_region", "vespo".into())]
        }
        (_, "quadratic_weight") => vec![("trust_region", "quadratic".into())],
        (_, "covariance_share" | "covariance_weight") => vec![("trust_region", "kl_cov".into())],
        (_, "covariance_min" | "covariance_max") => {
            let bound = if parameter == "covariance_min" { ("covariance_max", 1e3) } else { ("covariance_min", 0.0) };
            vec![("trust_region", "clip_cov".into()), ("covariance_share", 1.0.into()), (bound.0, bound.1.into())]
        }
        (_, "correction_min" | "correction_max") => vec![("correction", "truncate_token".into())],
        ("policy_gradient", "max_tokens") => vec![("aggregation", "fixed_length".into())],
        // Without a weight there is no divergence.
        ("policy_gradient", "divergence" | "divergence_place" | "divergence_clip") => vec![("beta", 0.1.into())],
        _ => Vec::new(),
    }
}

#[test]
fn no_option_is_accepted_and_ignored() {
    for method in METHODS {
        // A preset is the whole with other defaults.
        let parameters = (method.parameters)();
        let is_preset = parameters.iter().any(|parameter| parameter.name == "trust_region");
        if is_preset && method.name != "policy_gradient" {
            continue;
        }
        for parameter in parameters {
            // Of one reward a response, both ways are the same.
            if parameter.name == "rewards" {
                continue;
            }
            let values: Vec<Value> = match parameter.kind {
                Kind::Number { range, .. } | Kind::Derived { range, .. } => {
                    let shift = if std::ops::RangeBounds::contains(&range, &0.25) { 0.0 } else { 1.0 };
                    vec![(0.25 + shift).into(), (0.35 + shift).into()]
                }
                Kind::Count { .. } => vec![2.0.into(), 3.0.into()],
                Kind::Terms { .. } => {
                    ["hinge", "ipo"].map(|name| Value::Terms(vec![[("name".to_owned(), name.into())].into()])).into()
                }
                // Equal by intent: where a response has one advantage, where no token has a covariance between the
                // bounds, and where no weight is out of bounds.
                Kind::Choice { options, .. } => {
                    let equal = ["sequence_token", "clip_cov", "mask_token", "mask_sequence", "mask_geometric"];
                    options.iter().filter(|option| !equal.contains(option)).map(|option| Value::from(*option)).collect()
                }
                Kind::Switch { .. } => vec![false.into(), true.into()],
            };
            // A new value may leave the defaults of others unused, but never itself.
            let variants: Vec<_> = values
                .iter()
                .filter(|value| !(parameter.name == "divergence" && **value == Value::from("alpha")))
                .map(|value| {
                    let mut given = company(method.name, parameter.name);
                    given.push((parameter.name, value.clone()));
                    let objective = build(method, &given);
                    let evaluation = evaluate(&*objective);
                    (evaluation.loss, evaluation.cotangents().clone(), format!("{:?}", objective.requirements()))
                })
                .collect();
            for (index, variant) in variants.iter().enumerate() {
                assert!(
                    !variants[..index].contains(variant),
                    "{}.{}: {:?}",
                    method.name,
                    parameter.name,
                    values[index]
                );
            }
        }
    }
}

#[test]
fn one_metric_means_one_quantity_at_one_scale_whatever_the_loss() {
    let chosen = &responses()[..3];
    let tokens: usize = chosen.iter().map(Vec::len).sum();
    let sum: f64 = chosen.iter().flatten().map(|token| token.log_prob).sum();
    for method in METHODS {
        let objective = build(method, &[]);
        if !objective.requirements().statistics.contains(Statistic::LogProb) {
            continue;
        }
        let pairs = match objective.requirements().data {
            Data::Preferences => true,
            Data::Demonstrations => false,
            Data::Labelled { .. } | Data::Groups | Data::Rollouts => continue,
        };
        let all = if pairs { responses() } else { chosen.to_vec() };
        let metrics = OwnedBatch::new(&objective.requirements(), &all).evaluate(&*objective).metrics;
        let expected = -sum / tokens as f64;
        assert_close(&[metrics.mean(Metric::NegativeLogLikelihood).unwrap()], &[expected], 1e-13, 0.0, method.name);
        if pairs {
            assert_close(&[metrics.mean(Metric::LogProbChosen).unwrap()], &[sum / 3.0], 1e-13, 0.0, method.name);
            let margin = metrics.mean(Metric::RewardMargin).unwrap();
            let rewards = [Metric::RewardChosen, Metric::RewardRejected].map(|metric| metrics.mean(metric).unwrap());
            assert_close(&[margin], &[rewards[0] - rewards[1]], 1e-12, 1e-12, method.name);
        }
    }
}

#[test]
fn the_first_and_the_last_token_of_every_response_count() {
    let mut on_policy = responses();
    for token in on_policy.iter_mut().flatten() {
        (token.behaviour_log_prob, token.advantage) = (token.log_prob, 0.5);
        // A teacher that agrees with the policy would teach nothing, and neither would rewards of mean 0 to max_rl.
        token.reference_log_prob -= 0.125;
        token.value += 1.5;
    }
    for method in METHODS {
        // What `clip_cov` leaves out, it leaves out on purpose: here are bounds between which no token's covariance
        // lies.
        let none = [("covariance_min", 1e3.into()), ("covariance_max", 1e3.into())];
        let objective = build(method, if method.name == "clip_cov" { &none } else { &[] });
        let mut batch = OwnedBatch::new(&objective.requirements(), &on_policy);
        if objective.requirements().constants.contains(Constant::RolloutLogProb) {
            batch.constants.rollout_log_prob.clone_from(&batch.constants.behaviour_log_prob);
        }
        let first = objective.requirements().statistics.iter().next().unwrap();
        let cotangents = batch.evaluate(&*objective).cotangents().column(first).to_vec();
        for response in batch.responses.iter().filter(|response| response.is_learned()) {
            let (first, last) = (cotangents[response.tokens.start], cotangents[response.tokens.end - 1]);
            assert!(first != 0.0 && last != 0.0, "{}: {response:?}", method.name);
        }
    }
}

#[test]
fn a_loss_is_divided_by_the_steps_counts_once() {
    // Three parts of a step, each told the whole step's totals, add up; nothing divides by the number of parts again.
    for name in ["sft", "ift"] {
        let objective = registry::build(name, &Parameters::new()).unwrap();
        let whole = OwnedBatch::new(&objective.requirements(), &responses());
        let parts = (0..whole.responses.len()).map(|response| whole.select(&[response]).evaluate(&*objective).loss);
        assert_close(&[parts.sum()], &[whole.evaluate(&*objective).loss], 1e-13, 0.0, name);
    }
}

#[test]
fn an_empty_response_is_an_error_and_never_zero_or_not_a_number() {
    for method in METHODS {
        let objective = build(method, &[]);
        let mut all = responses();
        all[2].clear();
        let batch = OwnedBatch::new(&objective.requirements(), &all);
        let (columns, state) = (batch.columns(), &mut ObjectiveState::default());
        let error = Evaluation::default().update(&*objective, state, &columns, batch.totals).unwrap_err();
        assert!(error.to_string().contains("response 2"), "{}", method.name);
        assert_eq!(StepTotals::of(&batch.responses, &batch.pairs), batch.totals);
    }
}
