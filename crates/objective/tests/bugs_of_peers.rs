//! Bugs that alignment libraries are known for, each as a property that holds here, through the public door alone.
//!
//! What concerns more than this crate is proved elsewhere:
//!
//! | bug | test |
//! |---|---|
//! | gradient accumulation changes the scale, also through a network | `gradient_accumulation_gives_the_gradient_of_the_whole_step` in `tests/tests/lake_properties.rs` |
//! | a zero gradient under plausible metrics, seen in the parameters | `cells_that_share_inputs_are_visited_each_and_all_that_has_a_gradient_learns`, `every_statistic_is_pulled_back` there |
//! | the reference differs from the policy at the first step of a run | `dpo_starts_at_ln_2_on_the_lake` there |
//! | the first or the last response token is lost | `the_first_and_the_last_token_of_every_response_count` in `tests/tests/known_bugs.rs` |
//! | an option is accepted and ignored, for every parameter | `no_option_is_accepted_and_ignored` there |
//! | one metric at two scales, for losses on pairs | `one_metric_means_one_quantity_at_one_scale_whatever_the_loss` there |
//! | the order of packed responses shows | `the_order_of_responses_or_pairs_changes_nothing_else` in `tests/tests/objective_properties.rs` |
//! | estimators of divergences whose gradient is another's, along whole responses | `on_policy_each_estimator_in_each_place_descends_what_the_table_says` in `exact_expectations.rs` |
//! | the last of two equal JSON keys wins, in the line protocol | `a_key_that_stands_twice_is_refused_by_its_name_wherever_it_stands` in `tests/tests/known_answers.rs` |
//! | the end of a response is masked because it equals padding, prompts are learned from, the boundary is moved by joint tokenisation, truncation removes the response, two tokens begin the text | the tests of `crates/lm`, as no objective sees them |
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed check is a panic")]

mod responses;

use std::f64::consts::LN_2;

use objective::parameter::Kind;
use objective::{
    Constant, Coupling, Data, Demonstrations, Error, Groups, METHODS, Metric, Objective, Pairs, PolicyGradient,
    Requirements, Sft, Side, StepTotals, Value,
};

use self::responses::{Responses, assert_close, build};

/// Responses of many lengths.
fn ragged() -> Responses {
    Responses::of(&[5, 2, 12, 1, 4, 6])
}

fn requirements(name: &str, given: &[(&str, Value)]) -> Requirements {
    build(name, given).unwrap().objective().requirements()
}

/// Policy gradients on groups: all presets, and the general method.
fn group_methods() -> impl Iterator<Item = &'static str> {
    let is_preset = |name: &str| {
        let parameters = (METHODS.iter().find(|method| method.name == name).unwrap().parameters)();
        parameters.iter().any(|parameter| parameter.name == "trust_region")
    };
    METHODS.iter().map(|method| method.name).filter(move |name| is_preset(name) && *name != "ppo")
}

/// Parameters for given advantages and no divergence, which some presets have in the reward.
fn given() -> Vec<(&'static str, Value)> {
    vec![("advantage", "given".into()), ("beta", 0.0.into())]
}

/// The parameters for given advantages and others.
fn with(others: &[(&'static str, Value)]) -> Vec<(&'static str, Value)> {
    given().into_iter().chain(others.iter().cloned()).collect()
}

/// Every method whose losses of responses or pairs are uncoupled, with given advantages for sampled ones.
fn uncoupled() -> Vec<(&'static str, Vec<(&'static str, Value)>)> {
    let all = METHODS.iter().map(|method| {
        let parameters = if group_methods().any(|name| name == method.name) { given() } else { Vec::new() };
        (method.name, parameters)
    });
    all.filter(|(name, given)| requirements(name, given).coupling == Coupling::None).collect()
}

/// Parts of a step of six responses: a pair each, or a response each.
fn parts(requirements: &Requirements) -> Vec<Vec<usize>> {
    match requirements.data {
        Data::Preferences => (0..3).map(|pair| vec![pair, 3 + pair]).collect(),
        Data::Labelled { mismatched: true } => vec![(0..6).collect()],
        _ => (0..6).map(|response| vec![response]).collect(),
    }
}

fn totals_of(responses: &Responses, requirements: &Requirements) -> StepTotals {
    responses.with_batch(requirements, |batch| batch.totals())
}

// Scale: accumulation, means of means, packing.

#[test]
fn micro_batches_of_any_lengths_have_the_loss_and_the_gradient_of_the_step() {
    let (step, methods) = (ragged(), uncoupled());
    assert!(methods.len() > 40, "{}", methods.len());
    for (name, given) in methods {
        let requirements = requirements(name, &given);
        let (whole, totals) = (step.evaluate(name, &given), totals_of(&step, &requirements));
        let mut loss = 0.0;
        for part in parts(&requirements) {
            let own = step.select(&part).try_evaluate(name, &given, Some(totals)).unwrap();
            loss += own.loss;
            let expected: Vec<_> = part.iter().flat_map(|&own| step.tokens(own)).collect();
            let first = &whole.cotangents[..step.log_prob.len()];
            let expected: Vec<_> = expected.into_iter().map(|token| first[token]).collect();
            assert_close(&own.cotangents[..expected.len()], &expected, 1e-15, name);
        }
        assert_close(&[loss], &[whole.loss], 1e-13, name);
    }
}

#[test]
fn a_mean_over_tokens_of_sampled_responses_is_divided_once_in_one_two_three_or_six_parts() {
    let step = ragged();
    for name in ["bnpo", "dapo", "cispo", "vespo", "dppo_tv"] {
        let whole = step.evaluate(name, &given()).loss;
        let totals = StepTotals { tokens: 30, responses: 6, ..StepTotals::default() };
        for size in [1, 2, 3, 6] {
            let parts: Vec<Vec<usize>> = (0..6).collect::<Vec<_>>().chunks(size).map(<[usize]>::to_vec).collect();
            let part = |part: &Vec<usize>| step.select(part).try_evaluate(name, &given(), Some(totals)).unwrap().loss;
            assert_close(&[parts.iter().map(part).sum()], &[whole], 1e-14, name);
        }
    }
}

#[test]
fn a_mean_over_tokens_is_no_mean_of_the_means_of_micro_batches() -> Result<(), Error> {
    let mut sft = Sft::default().evaluator()?;
    let totals = StepTotals { tokens: 4, responses: 2, ..StepTotals::default() };
    let (mut loss, mut metrics) = (0.0, objective::Metrics::default());
    for log_prob in [&[-4.0][..], &[-1.0; 3]] {
        let lengths = [log_prob.len()];
        let demonstrations = Demonstrations(Side { log_prob, ..Side::of(&lengths) });
        let answer = sft.of_step(totals).evaluate(&demonstrations)?;
        loss += answer.loss;
        metrics.merge(answer.metrics);
    }
    // The mean of the means 4 and 1 is 2.5.
    assert_eq!((loss, metrics.mean(Metric::NegativeLogLikelihood)), (1.75, Some(1.75)));
    Ok(())
}

#[test]
fn a_pair_packed_among_others_counts_as_it_does_alone() {
    let step = ragged();
    for method in METHODS {
        let requirements = requirements(method.name, &[]);
        // A sum has a mean over tokens in it.
        if requirements.data != Data::Preferences || requirements.coupling == Coupling::Step || method.name == "sum" {
            continue;
        }
        let packed = step.evaluate(method.name, &[]);
        for part in parts(&requirements) {
            let alone = step.select(&part).evaluate(method.name, &[]);
            let expected: Vec<_> = part.iter().flat_map(|&own| &packed.log_prob[step.tokens(own)]).collect();
            let expected: Vec<_> = expected.into_iter().map(|cotangent| 3.0 * cotangent).collect();
            assert_close(&alone.log_prob, &expected, 1e-14, method.name);
        }
    }
}

#[test]
fn a_response_packed_among_others_counts_as_it_does_alone() {
    let step = ragged();
    let by_response = |name, parameters: &[(&'static str, Value)]| (name, parameters.to_vec());
    for (name, given) in [
        by_response("sft", &[("normalisation", "response".into())]),
        by_response("ift", &[]),
        by_response("distillation", &[("normalisation", "response".into())]),
        by_response("grpo", &given()),
        by_response("gspo", &given()),
        by_response("topr", &given()),
    ] {
        let packed = step.evaluate(name, &given);
        let alone: f64 = (0..6).map(|own| step.select(&[own]).evaluate(name, &given).loss).sum();
        assert_close(&[packed.loss], &[alone / 6.0], 1e-14, name);
    }
}

// Certainty, and the first step.

#[test]
fn the_odds_of_a_certain_response_are_finite_on_either_side() {
    let edges = [0.0, -5e-324, -1e-300, -2.0_f64.powi(-53), -2.0_f64.powi(-52), -1e-12, -745.2, -1e30];
    for chosen in edges {
        for rejected in edges {
            let pair = Responses { log_prob: vec![chosen, rejected], ..Responses::of(&[1, 1]) };
            assert!(pair.evaluate("orpo", &[]).is_finite(), "{chosen:e}, {rejected:e}");
        }
    }
}

#[test]
fn the_odds_near_certainty_keep_their_digits() {
    // The chosen response has odds of 1; log(1 − e^m) of the rejected one is −27.631021115929048 (mpmath 1.3, 40
    // digits), of which 1 − e^m as it stands leaves five digits.
    let pair = Responses { log_prob: vec![-LN_2, -1e-12], ..Responses::of(&[1, 1]) };
    let odds: f64 = 27.631_021_115_929_048 - 1e-12;
    let expected = LN_2 + odds + (-odds).exp().ln_1p();
    assert_close(&[pair.evaluate("orpo", &[("beta", 1.0.into())]).loss], &[expected], 1e-15, "orpo");
}

#[test]
fn a_policy_that_is_its_reference_has_a_loss_of_exactly_ln_2_and_no_margin() {
    let mut start = Responses::of(&[5, 12, 1, 7]);
    start.reference_log_prob.clone_from(&start.log_prob);
    start.entropy.fill(0.0); // KL(π_ref || π)
    for (name, given) in [
        ("dpo", vec![]),
        ("dpo", vec![("label_smoothing", 0.1.into())]),
        ("dpo", vec![("tail_weight", 0.5.into())]),
        ("dpo", vec![("divergence", "forward_kl".into())]),
        ("dpo", vec![("divergence", "js".into())]),
        ("dpo", vec![("divergence", "alpha".into())]),
        ("online_dpo", vec![]),
        ("sigmoid_norm", vec![]),
        ("tdpo", vec![]),
        ("aot", vec![]),
        ("aot_unpaired", vec![]),
    ] {
        let answer = start.evaluate(name, &given);
        assert_eq!(answer.loss, LN_2, "{name} {given:?}");
        assert_eq!(answer.metrics.mean(Metric::RewardMargin), Some(0.0), "{name} {given:?}");
        assert_eq!(answer.metrics.mean(Metric::RewardAccuracy), Some(0.0), "{name} {given:?}");
        assert!(answer.log_prob.iter().all(|cotangent| *cotangent != 0.0), "{name} {given:?}");
    }
}

// What is accepted has an effect.

#[test]
fn an_empty_response_is_refused_by_its_place_under_every_method() {
    let mut lost = ragged();
    lost.lengths = vec![5, 2, 12, 0, 5, 6];
    for method in METHODS {
        let error = lost.try_evaluate(method.name, &[], None).unwrap_err().to_string();
        let second = matches!(requirements(method.name, &[]).data, Data::Preferences);
        let mismatched = requirements(method.name, &[]).data == Data::Labelled { mismatched: true };
        let place = if second || mismatched { "response 0" } else { "response 3" };
        assert!(error.contains(place) && error.contains("token"), "{}: {error}", method.name);
    }
}

#[test]
fn a_column_that_counts_the_prompt_in_is_refused_on_the_side_that_does() -> Result<(), Error> {
    let own = Side { log_prob: &[-1.0; 2], reference_log_prob: &[-1.0; 2], ..Side::of(&[2]) };
    let mut dpo = objective::Dpo::default().evaluator()?;
    dpo.evaluate(&Pairs { chosen: own, rejected: own })?;
    for field in ["log_prob", "reference_log_prob"] {
        let longer = match field {
            "log_prob" => Side { log_prob: &[-1.0; 5], ..own },
            _ => Side { reference_log_prob: &[-1.0; 5], ..own },
        };
        for (side, pairs) in
            [("chosen", Pairs { chosen: longer, rejected: own }), ("rejected", Pairs { chosen: own, rejected: longer })]
        {
            let error = dpo.evaluate(&pairs).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{side}.{field}: expected 2 numbers")), "{error}");
        }
    }
    Ok(())
}

#[test]
fn a_column_that_a_method_does_not_read_is_refused() {
    let step = ragged();
    for method in METHODS {
        let own = requirements(method.name, &[]);
        for constant in [Constant::ReferenceLogProb, Constant::RolloutLogProb, Constant::TeacherLogProb] {
            if own.constants.contains(constant) {
                continue;
            }
            let mut more = own;
            more.constants |= constant;
            let error = step
                .with_batch(&more, |batch| build(method.name, &[]).unwrap().evaluate(batch).unwrap_err().to_string());
            let expected = format!("{}: expected 0 numbers", constant.name());
            assert!(error.contains(&expected), "{}: {error}", method.name);
        }
    }
}

#[test]
fn a_parameter_that_does_not_exist_is_refused_by_every_method() {
    for method in METHODS {
        let error = build(method.name, &[("learning_rate", 0.1.into())]).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}.learning_rate: unknown parameter", method.name)), "{error}");
    }
}

#[test]
fn a_parameter_of_a_preset_is_in_force_or_refused_by_its_name() {
    let (mut accepted, mut refused) = (0, 0);
    for method in METHODS {
        for parameter in (method.parameters)() {
            let value: Value = match parameter.kind {
                Kind::Number { .. } | Kind::Derived { .. } => 0.9.into(),
                Kind::Count { least, .. } => ((least + 1) as f64).into(),
                Kind::Choice { options, .. } => options[options.len() - 1].into(),
                Kind::Switch { default } => (!default).into(),
                Kind::Terms { .. } => continue,
            };
            match build(method.name, &[(parameter.name, value.clone())]) {
                Ok(own) => {
                    accepted += 1;
                    let in_force = own.objective().parameters();
                    assert_eq!(in_force.get(parameter.name), Some(&value), "{}.{}", method.name, parameter.name);
                }
                Err(error) => {
                    refused += 1;
                    let error = error.to_string();
                    // A choice may leave another one without sense, and the error names that one.
                    assert!(error.contains(parameter.name) || error.contains(&value.to_string()), "{error}");
                }
            }
        }
    }
    assert!(accepted > 300 && refused > 300, "{accepted}, {refused}");
}

// One metric, one quantity.

#[test]
fn the_reward_metric_is_the_mean_reward_whatever_the_preset_makes_of_it() {
    let step = ragged();
    let mean = step.reward.iter().sum::<f64>() / 6.0;
    for name in group_methods() {
        let metric = step.evaluate(name, &[]).metrics.mean(Metric::Reward);
        assert_close(&[metric.unwrap()], &[mean], 1e-15, name);
    }
}

#[test]
fn the_divergence_metric_is_that_of_a_response_whatever_its_weight_its_place_and_the_aggregation() {
    let step = ragged().on_policy();
    for (divergence, of_token) in
        [("k1", (|d| d) as fn(f64) -> f64), ("k2", |d| 0.5 * d * d), ("k3", |d| (-d).exp() - 1.0 + d)]
    {
        let drifts = step.log_prob.iter().zip(&step.reference_log_prob).map(|(own, reference)| own - reference);
        let mean = drifts.map(of_token).sum::<f64>() / 6.0;
        for beta in [0.01, 1.0] {
            for place in ["loss", "corrected", "reward"] {
                for aggregation in ["token_mean", "response_mean", "response_sum", "fixed_length", "prompt_mean"] {
                    let metrics = step
                        .evaluate(
                            "grpo",
                            &[
                                ("beta", beta.into()),
                                ("divergence", divergence.into()),
                                ("divergence_place", place.into()),
                                ("aggregation", aggregation.into()),
                            ],
                        )
                        .metrics;
                    let what = format!("{divergence} {beta} {place} {aggregation}");
                    assert_close(&[metrics.mean(Metric::Kl).unwrap()], &[mean], 1e-13, &what);
                }
            }
        }
    }
}

// A gradient of zero shows.

#[test]
fn a_gradient_that_a_bound_takes_away_shows_in_the_clip_fraction() {
    // Both tokens became much likelier, with an advantage that would make them likelier still.
    let drifted = Responses {
        log_prob: vec![-0.1, -0.2],
        behaviour_log_prob: vec![-3.0, -2.5],
        advantage: vec![1.0, 0.5],
        ..Responses::of(&[1, 1])
    };
    for name in ["grpo", "gspo", "gspo_token", "luspo", "gmpo", "dppo_tv", "dppo_kl", "clip_cov"] {
        let answer = drifted.evaluate(name, &given());
        assert_eq!(answer.log_prob, [0.0; 2], "{name}");
        assert_eq!(answer.metrics.mean(Metric::ClipFraction), Some(1.0), "{name}");
        assert_eq!(answer.metrics.mean(Metric::ClipFractionHigh), Some(1.0), "{name}");
        let falling = Responses { advantage: vec![-1.0, -0.5], ..drifted.clone() };
        let answer = falling.evaluate(name, &given());
        assert!(answer.log_prob.iter().all(|cotangent| *cotangent > 0.0), "{name}");
        assert_eq!(answer.metrics.mean(Metric::ClipFraction), Some(0.0), "{name}");
    }
}

#[test]
fn a_pair_without_a_gradient_is_counted_beside_one_with_a_gradient() {
    let mut pairs = Responses::of(&[1; 4]);
    pairs.reference_log_prob = vec![-50.0, -1.0, -1.0, -1.0];
    pairs.log_prob = vec![-1.0, -1.0, -50.0, -1.0];
    let answer = pairs.evaluate("hinge", &[]);
    assert_eq!(answer.metrics.mean(Metric::ZeroGradientPairs), Some(0.5));
    assert_eq!(answer.metrics.mean(Metric::RewardAccuracy), Some(0.5));
    assert!(answer.log_prob[0] == 0.0 && answer.log_prob[2] == 0.0);
    assert!(answer.log_prob[1] != 0.0 && answer.log_prob[3] != 0.0);
}

// Masks.

const MASKS: [&str; 3] = ["mask_token", "mask_sequence", "mask_geometric"];
const AGGREGATIONS: [&str; 5] = ["token_mean", "response_mean", "response_sum", "fixed_length", "prompt_mean"];

/// Responses of a sampler that agrees with the trainer except on these tokens.
fn disagreeing(mut responses: Responses, tokens: &[usize]) -> Responses {
    responses.rollout_log_prob.clone_from(&responses.behaviour_log_prob);
    tokens.iter().for_each(|&token| responses.rollout_log_prob[token] -= 3.0);
    responses
}

#[test]
fn a_step_of_which_every_token_is_rejected_has_a_loss_of_zero_and_no_gradient() {
    let step = ragged();
    let all: Vec<_> = (0..step.log_prob.len()).collect();
    let step = disagreeing(step, &all);
    for correction in MASKS {
        for aggregation in AGGREGATIONS {
            let choices = with(&[("correction", correction.into()), ("aggregation", aggregation.into())]);
            for name in group_methods() {
                // Its weight of a response has a part for each token.
                if name == "vespo" && correction != "mask_token" {
                    continue;
                }
                let answer = step.evaluate(name, &choices);
                assert!(answer.is_zero() && answer.is_finite(), "{name} {choices:?}: {answer:?}");
                assert_eq!(answer.metrics.mean(Metric::Rejected), Some(1.0), "{name} {choices:?}");
            }
        }
    }
}

#[test]
fn a_rejected_response_among_others_divides_nothing_by_zero() {
    let step = disagreeing(ragged(), &[0, 1, 2, 3, 4]);
    for correction in MASKS {
        for aggregation in AGGREGATIONS {
            let choices = with(&[("correction", correction.into()), ("aggregation", aggregation.into())]);
            for name in group_methods().filter(|name| *name != "vespo") {
                let answer = step.evaluate(name, &choices);
                assert!(answer.is_finite(), "{name} {choices:?}: {answer:?}");
                assert_eq!(answer.log_prob[..5], [0.0; 5], "{name} {choices:?}");
                assert!(answer.log_prob[5..].iter().any(|cotangent| *cotangent != 0.0), "{name} {choices:?}");
            }
        }
    }
}

#[test]
fn rejected_tokens_leave_the_denominator() {
    let step = disagreeing(Responses::of(&[4, 4]), &[1, 2, 5, 6, 7]);
    let kept = [0, 3, 4];
    let few = |column: &[f64]| kept.map(|token| column[token]).to_vec();
    let alone = Responses {
        lengths: vec![2, 1],
        log_prob: few(&step.log_prob),
        behaviour_log_prob: few(&step.behaviour_log_prob),
        rollout_log_prob: few(&step.rollout_log_prob),
        advantage: few(&step.advantage),
        ..step.clone()
    };
    for aggregation in AGGREGATIONS {
        for name in ["grpo", "cispo", "sapo", "gmpo", "dppo_tv", "dro"] {
            let choices = with(&[("correction", "mask_token".into()), ("aggregation", aggregation.into())]);
            let (some, all) = (step.evaluate(name, &choices), alone.evaluate(name, &choices));
            assert_close(&[some.loss], &[all.loss], 1e-14, name);
            assert_close(&few(&some.log_prob), &all.log_prob, 1e-14, name);
        }
    }
}

#[test]
fn tokens_of_weight_zero_stay_in_the_denominator_where_their_paper_keeps_them() {
    let step = disagreeing(Responses::of(&[4]).on_policy(), &[1, 2]);
    let answer = step.evaluate("icepop", &with(&[("correction_max", 2.0.into())]));
    let expected = [0, 3].map(|token: usize| -step.advantage[token] / 4.0);
    assert_close(&[answer.log_prob[0], answer.log_prob[3]], &expected, 1e-15, "icepop");
    assert_eq!(answer.log_prob[1..3], [0.0; 2]);
}

#[test]
fn a_token_that_is_rejected_has_no_part_in_the_ratio_of_its_response() {
    for name in ["gspo", "gspo_token", "luspo", "rloo", "gmpo", "topr"] {
        let choices = with(&[("correction", "mask_token".into())]);
        let step = disagreeing(Responses::of(&[3]).on_policy(), &[1]);
        let answer = step.evaluate(name, &choices);
        let mut moved = step.clone();
        moved.log_prob[1] -= 0.5;
        assert_eq!(moved.evaluate(name, &choices), answer, "{name}");
        assert_eq!(answer.log_prob[1], 0.0, "{name}");
        assert!(answer.log_prob[0] != 0.0 && answer.log_prob[2] != 0.0, "{name}");
        moved.log_prob[2] -= 0.01;
        assert!(moved.evaluate(name, &choices).loss != answer.loss, "{name}");
    }
}

#[test]
fn a_rejected_token_has_no_loss_of_any_kind() {
    let choices = [
        ("correction", Value::from("mask_token")),
        ("beta", 0.1.into()),
        ("entropy_coefficient", 0.1.into()),
        ("value_coefficient", 0.5.into()),
    ];
    let step = disagreeing(Responses::of(&[3]), &[1]);
    let answer = step.evaluate("ppo", &choices);
    let of_token = |token: usize| -> Vec<f64> { answer.cotangents.iter().skip(token).step_by(3).copied().collect() };
    assert_eq!(of_token(1), [0.0; 3]); // of log π, H and V
    assert!(of_token(0).iter().chain(&of_token(2)).all(|cotangent| *cotangent != 0.0), "{answer:?}");
}

// Estimators of divergences.

const POLICY: [f64; 3] = [0.5, 0.2, 0.3];
const REFERENCE: [f64; 3] = [0.1, 0.6, 0.3];
const SAMPLER: [f64; 3] = [0.25, 0.35, 0.4];

/// Expected gradient by the logits of a divergence with weight 1, over all actions of one state, sampled by `sampler`.
fn expected_gradient(divergence: &str, place: &str, sampler: [f64; 3]) -> [f64; 3] {
    let choices = [
        ("advantage", Value::from("given")),
        ("beta", 1.0.into()),
        ("divergence", divergence.into()),
        ("divergence_place", place.into()),
    ];
    let mut gradient = [0.0; 3];
    for (action, probability) in sampler.into_iter().enumerate() {
        let action_of = |policy: [f64; 3]| vec![policy[action].ln()];
        let sample = Responses {
            log_prob: action_of(POLICY),
            reference_log_prob: action_of(REFERENCE),
            behaviour_log_prob: action_of(sampler),
            advantage: vec![0.0],
            ..Responses::of(&[1])
        };
        let pull = probability * sample.evaluate("grpo", &choices).log_prob[0];
        for (other, slot) in gradient.iter_mut().enumerate() {
            *slot += pull * (f64::from(u8::from(other == action)) - POLICY[other]);
        }
    }
    gradient
}

/// Gradient of KL(π || π_ref) by the logits: p (log (p/q) − KL).
fn reverse() -> [f64; 3] {
    let ratio = |action: usize| (POLICY[action] / REFERENCE[action]).ln();
    let divergence: f64 = (0..3).map(|action| POLICY[action] * ratio(action)).sum();
    [0, 1, 2].map(|action| POLICY[action] * (ratio(action) - divergence))
}

/// Gradient of KL(π_ref || π) by the logits: p − q.
fn forward() -> [f64; 3] {
    [0, 1, 2].map(|action| POLICY[action] - REFERENCE[action])
}

#[test]
fn k1_in_the_loss_has_an_expected_gradient_of_zero() {
    assert_close(&expected_gradient("k1", "loss", POLICY), &[0.0; 3], 1e-15, "k1");
}

#[test]
fn k2_in_the_loss_descends_the_divergence_of_the_policy_from_the_reference() {
    assert_close(&expected_gradient("k2", "loss", POLICY), &reverse(), 1e-15, "k2");
}

#[test]
fn k3_in_the_loss_descends_the_divergence_of_the_reference_from_the_policy() {
    assert_close(&expected_gradient("k3", "loss", POLICY), &forward(), 1e-15, "k3");
}

#[test]
fn the_default_divergence_descends_that_of_the_policy_from_the_reference_whoever_sampled() {
    for sampler in [POLICY, SAMPLER, REFERENCE] {
        for divergence in ["k1", "k3"] {
            assert_close(&expected_gradient(divergence, "corrected", sampler), &reverse(), 1e-14, divergence);
        }
    }
    let defaults = PolicyGradient { beta: 0.1, ..PolicyGradient::default() }.parameters();
    assert_eq!([&defaults["divergence"], &defaults["divergence_place"]], [&"k3".into(), &"corrected".into()]);
}

// Bounds.

#[test]
fn a_value_within_its_clip_keeps_its_gradient_whatever_rounding_does() -> Result<(), Error> {
    let mut ppo =
        PolicyGradient { value_clip: Some(0.2), entropy_coefficient: 0.0, ..PolicyGradient::ppo() }.evaluator()?;
    // V_behaviour + (V − V_behaviour) rounds to more than V in the first: the clipped error is the greater one.
    for (behaviour, value) in [(-0.1, 0.05), (0.1, 0.25), (0.3, 0.45), (1.0 / 3.0, 0.5), (0.7, 0.8)] {
        let answer = ppo.evaluate(&Groups {
            responses: Side {
                log_prob: &[-1.0],
                behaviour_log_prob: &[-1.0],
                advantage: &[0.0],
                value: &[value],
                behaviour_value: &[behaviour],
                returns: &[0.0],
                ..Side::of(&[1])
            },
            group: &[],
            reward: &[],
        })?;
        assert_eq!(answer.cotangents.value, [value], "{behaviour} {value}");
    }
    Ok(())
}

#[test]
fn a_ratio_within_its_clip_keeps_its_gradient_however_small_the_advantage() {
    // 1.15 A and 1.2 A round to the same number, so products do not say on which side of its bound the ratio is.
    for advantage in [5e-324, -5e-324, 1e-320, -1e-320, 1e-3, -1e-3] {
        let own = Responses {
            log_prob: vec![-1.0],
            behaviour_log_prob: vec![-1.0 - 1.15_f64.ln()],
            advantage: vec![advantage],
            ..Responses::of(&[1])
        };
        let pull = own.evaluate("grpo", &given()).log_prob[0];
        assert!(pull * advantage.signum() < 0.0, "{advantage:e}: {pull:e}");
    }
}

#[test]
fn a_ratio_at_its_bound_is_not_beyond_it() {
    for name in ["grpo", "gspo", "gmpo", "dppo_tv", "dppo_kl"] {
        for advantage in [1.0, -1.0] {
            let own = Responses { advantage: vec![advantage], ..Responses::of(&[1]).on_policy() };
            let answer = own.evaluate(name, &with(&[("clip", 0.0.into()), ("clip_high", 0.0.into())]));
            assert_eq!(answer.log_prob, [-advantage], "{name}");
            assert_eq!(answer.metrics.mean(Metric::ClipFraction), Some(0.0), "{name}");
        }
    }
}

// Groups that teach nothing, and ties.

#[test]
fn equal_rewards_have_no_gradient_under_any_preset_whatever_their_mean_rounds_to() {
    for reward in [0.1, -0.3, 1e-17, 1e17] {
        // Of three numbers 0.1 the mean is not 0.1.
        let step = Responses { reward: vec![reward; 6], group: vec![0, 0, 0, 1, 1, 1], ..ragged().on_policy() };
        for name in group_methods() {
            let answer = step.evaluate(name, &[("beta", 0.0.into())]);
            assert!(answer.log_prob.iter().all(|cotangent| *cotangent == 0.0), "{name} {reward:e}: {answer:?}");
        }
        for scale in ["group", "batch", "none"] {
            assert!(step.evaluate("grpo", &[("scale", scale.into())]).log_prob == [0.0; 30], "{scale} {reward:e}");
        }
    }
}

#[test]
fn equal_advantages_normalise_to_exactly_zero() {
    for value in [0.1, -0.7, 1e-300, 1e300] {
        let mut equal = [value; 7];
        objective::normalise(&mut equal);
        assert_eq!(equal, [0.0; 7]);
    }
}

#[test]
fn a_group_of_one_trains_on_nothing_and_a_metric_says_so() {
    let step = Responses { group: (0..6).collect(), ..ragged() };
    for name in group_methods() {
        // Their advantages are no comparison within a group.
        if ["remax", "reinforce_plus_plus"].contains(&name) {
            continue;
        }
        let answer = step.evaluate(name, &[("beta", 0.0.into())]);
        let idle = answer.log_prob.iter().all(|cotangent| *cotangent == 0.0);
        // These two pull back to the policy that sampled, whatever the advantage.
        assert!(idle || ["dro", "kl_cov"].contains(&name), "{name}: {answer:?}");
        assert_eq!(answer.metrics.mean(Metric::ZeroAdvantageGroups), Some(1.0), "{name}");
        assert_eq!(answer.metrics.mean(Metric::RewardStandardDeviation), Some(0.0), "{name}");
    }
}

#[test]
fn a_group_of_equal_rewards_is_counted_beside_one_that_teaches() {
    let step = Responses { reward: vec![1.0, 1.0, 1.0, 0.0, 1.0, 1.0], ..ragged() };
    for name in ["grpo", "rloo", "max_rl", "opo", "reinforce_plus_plus_baseline"] {
        let answer = step.evaluate(name, &[("beta", 0.0.into())]);
        assert_eq!(answer.metrics.mean(Metric::ZeroAdvantageGroups), Some(2.0 / 3.0), "{name}");
    }
}

#[test]
fn rewards_that_differ_in_their_last_bit_or_near_zero_are_no_tie() {
    for (low, high) in [(1e-300, 2e-300), (1.0, f64::next_up(1.0)), (-5e-324, 5e-324)] {
        let pair = Responses { reward: vec![low, high], ..Responses::of(&[1, 1]).on_policy() };
        for name in ["gpg", "dr_grpo", "opo"] {
            let answer = pair.evaluate(name, &[]);
            assert_eq!(answer.metrics.mean(Metric::ZeroAdvantageGroups), Some(0.0), "{name} {low:e}");
            // The least numbers are halved to nothing by the mean over the step.
            let shows = low > -5e-324;
            assert!(!shows || (answer.log_prob[0] > 0.0 && answer.log_prob[1] < 0.0), "{name} {low:e}: {answer:?}");
        }
        let best = [("advantage", "pass_at_k".into()), ("pass_k", 2.0.into()), ("scale", "none".into())];
        let answer = pair.evaluate("policy_gradient", &best);
        assert!(answer.log_prob[0] == 0.0 && answer.log_prob[1] < 0.0, "{low:e}: {answer:?}");
    }
}

#[test]
fn a_margin_however_small_counts_as_right_and_none_as_wrong() {
    for (reference, right) in [(-1.0, 0.0), (f64::next_down(-1.0), 1.0), (f64::next_up(-1.0), 0.0)] {
        let pair = Responses {
            log_prob: vec![-1.0, -1.0],
            reference_log_prob: vec![reference, -1.0],
            ..Responses::of(&[1, 1])
        };
        let accuracy = pair.evaluate("dpo", &[]).metrics.mean(Metric::RewardAccuracy);
        assert_eq!(accuracy, Some(right), "{reference:e}");
    }
}

#[test]
fn transport_ties_only_scores_that_are_equal() {
    // The second score is above the first by the last bit, so that each has the slope of its own rank.
    let at = |score: f64| Responses {
        log_prob: vec![-1.0, -score, -2.0, -9.0],
        reference_log_prob: vec![-1.0; 4],
        ..Responses::of(&[1; 4])
    };
    let tied = at(1.0).evaluate("aot_unpaired", &[]).log_prob;
    assert_eq!(tied[0], tied[1]);
    for apart in [f64::next_down(1.0), f64::next_up(1.0)] {
        let answer = at(apart).evaluate("aot_unpaired", &[]).log_prob;
        assert!(answer[0] != answer[1] && (answer[0] < answer[1]) == (apart > 1.0), "{answer:?}");
    }
}

#[test]
fn a_group_that_stands_in_two_places_is_refused() {
    let step = Responses { group: vec![0, 0, 1, 1, 0, 0], ..ragged() };
    for name in group_methods() {
        let error = step.try_evaluate(name, &[], None).unwrap_err().to_string();
        assert!(error.contains("response 4") && error.contains("group"), "{name}: {error}");
    }
}

// JSON.

#[test]
fn a_parameter_that_stands_twice_is_refused_and_not_the_last_one_taken() {
    let twice = r#"{"name": "dpo", "beta": 0.1, "beta": 0.2}"#;
    let error = strict_json::from_slice_with_path::<objective::Configured>(twice.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("beta"), "{error}");
}
