//! The expected gradient of the divergence that group losses add is that of KL(π || π_ref), by enumeration of all
//! responses.
//!
//! Three actions, and a state for each beginning of a response, so that policies differ from state to state. The
//! expectation over whole responses is a sum of 3 or 27 terms, and of their squares for groups of two.

use std::ops::Range;

use objective::{
    Constant, Evaluation, Objective, ObjectiveState, Parameters, Response, StepTotals, TokenColumns, Value,
};
use objective::{TokenConstants, TokenStatistics, registry};
use tests::assert_close;

const ACTIONS: usize = 3;

/// Log-probabilities of the actions, a state an entry.
type Policy = Vec<[f64; ACTIONS]>;

/// The states are the beginnings: 1 + 3 + 9 for responses of three tokens, in the order of their length and then of
/// their actions.
fn policy(states: usize, frequency: f64) -> Policy {
    let logits = |state: usize| [0, 1, 2].map(|action| 1.5 * (frequency * (3 * state + action + 1) as f64).sin());
    let normalised = |logits: [f64; ACTIONS]| {
        let sum = logits.iter().map(|logit| logit.exp()).sum::<f64>().ln();
        logits.map(|logit| logit - sum)
    };
    (0..states).map(|state| normalised(logits(state))).collect()
}

/// A response's states and actions.
type Walk = Vec<(usize, usize)>;

/// Every response of so many tokens.
fn walks(tokens: usize) -> Vec<Walk> {
    (0..ACTIONS.pow(tokens as u32))
        .map(|number| {
            let mut state = 0;
            (0..tokens)
                .map(|token| {
                    let action = number / ACTIONS.pow(token as u32) % ACTIONS;
                    let here = state;
                    state = ACTIONS * state + action + 1;
                    (here, action)
                })
                .collect()
        })
        .collect()
}

fn along(policy: &Policy, walk: &Walk) -> Vec<f64> {
    walk.iter().map(|&(state, action)| policy[state][action]).collect()
}

fn probability(policy: &Policy, walk: &Walk) -> f64 {
    along(policy, walk).iter().sum::<f64>().exp()
}

/// Cotangents of a group of responses, each with its reward.
fn cotangents(objective: &dyn Objective, policies: [&Policy; 3], group: &[(&Walk, f64)]) -> Vec<f64> {
    let [policy, behaviour, reference] = policies;
    let column = |policy: &Policy| group.iter().flat_map(|(walk, _)| along(policy, walk)).collect();
    let statistics = TokenStatistics { log_prob: column(policy), ..Default::default() };
    let needs_reference = objective.requirements().constants.contains(Constant::ReferenceLogProb);
    let constants = TokenConstants {
        behaviour_log_prob: column(behaviour),
        reference_log_prob: if needs_reference { column(reference) } else { Vec::new() },
        ..Default::default()
    };
    let place = |index: usize, length: usize| -> Range<usize> { index * length..(index + 1) * length };
    let responses: Vec<_> = group
        .iter()
        .enumerate()
        .map(|(index, (walk, reward))| Response::rewarded(place(index, walk.len()), 0, *reward))
        .collect();
    let totals = StepTotals::of(&responses, &[]);
    let columns = TokenColumns { statistics: &statistics, constants: &constants, responses: &responses, pairs: &[] };
    let mut evaluation = Evaluation::default();
    evaluation.update(objective, &mut ObjectiveState::default(), &columns, totals).unwrap();
    evaluation.cotangents.log_prob
}

/// Adds the gradient by the logits that cotangents of a response's log-probabilities have, times `weight`.
fn pull_back(policy: &Policy, walk: &Walk, cotangents: &[f64], weight: f64, gradient: &mut [[f64; ACTIONS]]) {
    for (&(state, action), cotangent) in walk.iter().zip(cotangents) {
        for (other, slot) in gradient[state].iter_mut().enumerate() {
            *slot += weight * cotangent * (f64::from(u8::from(other == action)) - policy[state][other].exp());
        }
    }
}

/// The gradient of Σₜ KL(π || π_ref) at the states that the behaviour policy visits, their distribution held.
fn gradient_of_divergence(policies: [&Policy; 3], tokens: usize) -> Vec<[f64; ACTIONS]> {
    let [policy, behaviour, reference] = policies;
    let mut gradient = vec![[0.0; ACTIONS]; policy.len()];
    for walk in walks(tokens) {
        let weight = probability(behaviour, &walk);
        for &(state, _) in &walk {
            let (own, other) = (policy[state], reference[state]);
            let kl: f64 = own.iter().zip(other).map(|(own, other)| own.exp() * (own - other)).sum();
            for (slot, (own, other)) in gradient[state].iter_mut().zip(own.into_iter().zip(other)) {
                *slot += weight * own.exp() * (own - other - kl);
            }
        }
    }
    gradient
}

/// What a token weighs in a step of two responses of this length.
type Share = fn(f64) -> f64;

/// A method, its parameters, and what its tokens weigh.
type Case = (&'static str, Vec<(&'static str, Value)>, Share);

/// Every method that adds the divergence, with the parameters that change how tokens are weighed or ratios are taken.
fn methods() -> Vec<Case> {
    let mean: Share = |length| 1.0 / (2.0 * length);
    vec![
        ("grpo", vec![], mean),
        ("grpo", vec![("ratio", "sequence".into()), ("clip", 0.01.into())], mean),
        ("grpo", vec![("normalisation", "dapo".into()), ("delta", 1.5.into())], mean),
        ("grpo", vec![("normalisation", "dr_grpo".into()), ("max_tokens", 5.0.into())], |_| 1.0 / 10.0),
        ("cispo", vec![("max_ratio", 1.1.into())], mean),
        ("sapo", vec![], mean),
        ("luspo", vec![], |_| 1.0 / 2.0),
        ("vespo", vec![], mean),
    ]
}

#[test]
fn the_expected_gradient_of_the_divergence_is_that_of_kl_from_policy_to_reference_on_and_off_policy() {
    const BETA: f64 = 0.3;
    for tokens in [1, 3] {
        let states = (0..tokens).map(|token| ACTIONS.pow(token as u32)).sum();
        let [own, lagging, reference] = [1.0, 1.7, 2.9].map(|frequency| policy(states, frequency));
        for behaviour in [&own, &lagging] {
            let policies = [&own, behaviour, &reference];
            let expected = gradient_of_divergence(policies, tokens);
            let largest = expected.iter().flatten().fold(0.0, |most: f64, slot| most.max(slot.abs()));
            for (name, parameters, share) in methods() {
                let build = |beta: f64| {
                    let beta = ("beta".to_owned(), beta.into());
                    let given = parameters.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
                    registry::build(name, &given.chain([beta]).collect::<Parameters>()).unwrap()
                };
                // What β adds to the gradient of groups of two whose rewards differ.
                let (with, without) = (build(BETA), build(0.0));
                let mut gradient = vec![[0.0; ACTIONS]; states];
                let all = walks(tokens);
                for (i, first) in all.iter().enumerate() {
                    for (j, second) in all.iter().enumerate() {
                        let weight = probability(behaviour, first) * probability(behaviour, second);
                        let group = [(first, i as f64), (second, 0.5 * j as f64 + 0.25)];
                        let [with, without] = [&with, &without].map(|o| cotangents(&**o, policies, &group));
                        let added: Vec<_> = with.iter().zip(without).map(|(with, without)| with - without).collect();
                        pull_back(&own, first, &added[..tokens], weight, &mut gradient);
                        pull_back(&own, second, &added[tokens..], weight, &mut gradient);
                    }
                }
                // Two responses, each with the same expectation.
                let scale = 2.0 * share(tokens as f64) * BETA;
                let flat = |gradient: &[[f64; ACTIONS]]| gradient.iter().flatten().map(|slot| slot / scale).collect();
                let ours: Vec<f64> = flat(&gradient);
                let theirs: Vec<f64> = expected.iter().flatten().copied().collect();
                assert_close(&ours, &theirs, 0.0, 1e-12 * largest, &format!("{name}, {parameters:?}, {tokens} tokens"));
            }
        }
    }
}

#[test]
fn the_divergence_has_a_place_and_an_estimator_only_where_it_has_a_weight() {
    for name in ["grpo", "cispo", "sapo", "luspo", "vespo"] {
        let parameters = |beta: f64| {
            registry::build(name, &Parameters::from([("beta".to_owned(), beta.into())])).unwrap().parameters()
        };
        assert_eq!(parameters(0.1)["divergence"], "k3".into());
        assert_eq!(parameters(0.1)["divergence_place"], "corrected".into());
        assert!(!parameters(0.0).contains_key("divergence") && !parameters(0.0).contains_key("divergence_place"));
        for (key, value) in [("divergence", "k3"), ("divergence_place", "corrected")] {
            let given = Parameters::from([(key.to_owned(), value.into())]);
            let error = registry::build(name, &given).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name}.{key}: not used where beta = 0")), "{error}");
        }
    }
}
