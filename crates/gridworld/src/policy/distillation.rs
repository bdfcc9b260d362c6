//! Divergences of a policy from a teacher's distributions, and the columns that an objective requires of a teacher.

use objective::{Constant, Requirements, TeacherDivergence};
use training::MicroBatch;

use crate::policy::network::{Forward, States};
use crate::world::policy_table::TransitionMatrix;

/// Fills the columns that an objective requires of a teacher: its log-probabilities of the actions taken, and its
/// distributions.
pub fn fill(teacher: &TransitionMatrix, requirements: &Requirements, batches: &mut [MicroBatch<States, Forward>]) {
    if !requirements.need_teacher() {
        return;
    }
    for batch in batches {
        let forward = Forward::of(teacher, &batch.states.cells);
        if requirements.constants.contains(Constant::TeacherLogProb) {
            let rows = forward.log_policy.iter().zip(&batch.tokens);
            batch.constants.teacher_log_prob = rows.map(|(row, &token)| row[token]).collect();
        }
        batch.teacher = requirements.teacher.is_some().then_some(forward);
    }
}

/// Divergence of a policy from a teacher in one state, from their log-probabilities of all actions, which are finite.
pub fn divergence(kind: TeacherDivergence, policy: &[f64], teacher: &[f64]) -> f64 {
    // Rounding may make a divergence of equal policies negative.
    match kind {
        TeacherDivergence::ForwardKl => kl(teacher, policy),
        TeacherDivergence::ReverseKl => kl(policy, teacher),
        TeacherDivergence::JensenShannon { beta } => {
            let terms = policy.iter().zip(teacher).map(|(&own, &other)| {
                let mixture = mixture(beta, own, other);
                beta * other.exp() * (other - mixture) + (1.0 - beta) * own.exp() * (own - mixture)
            });
            terms.sum()
        }
    }
    .max(0.0)
}

/// Adds the derivatives of the divergence by the policy's logits, times `scale`.
pub fn pull_back(kind: TeacherDivergence, scale: f64, policy: &[f64], teacher: &[f64], slots: &mut [f64]) {
    let pairs = || policy.iter().copied().zip(teacher.iter().copied());
    // The distribution that the policy is compared with, and the weight of the divergence's derivative.
    let (weight, against): (f64, &dyn Fn(f64, f64) -> f64) = match kind {
        TeacherDivergence::ForwardKl => {
            let pulls = pairs().map(|(own, other)| scale * (own.exp() - other.exp()));
            slots.iter_mut().zip(pulls).for_each(|(slot, pull)| *slot += pull);
            return;
        }
        TeacherDivergence::ReverseKl => (1.0, &|_, other| other),
        TeacherDivergence::JensenShannon { beta } => (1.0 - beta, &move |own, other| mixture(beta, own, other)),
    };
    let mean: f64 = pairs().map(|(own, other)| own.exp() * (own - against(own, other))).sum();
    for (slot, (own, other)) in slots.iter_mut().zip(pairs()) {
        *slot += scale * weight * own.exp() * (own - against(own, other) - mean);
    }
}

/// Divergence KL(p || q) from log-probabilities.
fn kl(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum()
}

/// Log-probability log (β e^teacher + (1 − β) e^policy) of a mixture.
fn mixture(beta: f64, policy: f64, teacher: f64) -> f64 {
    let (own, other) = (policy + (-beta).ln_1p(), teacher + beta.ln());
    own.max(other) + (-(own - other).abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_softmax(logits: &serde_json::Value) -> Vec<f64> {
        let logits: Vec<f64> = logits.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect();
        let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|logit| (logit - most).exp()).sum();
        logits.iter().map(|logit| logit - most - sum.ln()).collect()
    }

    fn kind(beta: f64) -> TeacherDivergence {
        match beta {
            0.0 => TeacherDivergence::ForwardKl,
            1.0 => TeacherDivergence::ReverseKl,
            beta => TeacherDivergence::JensenShannon { beta },
        }
    }

    fn recorded() -> serde_json::Value {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/oracles/distillation.json");
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    #[test]
    fn divergences_and_their_derivatives_agree_with_trl() {
        let cases = recorded()["cases"].as_array().unwrap().clone();
        assert_eq!(cases.len(), 120);
        for case in cases {
            let beta = case["beta"].as_f64().unwrap_or(f64::from(case["divergence"] == "reverse_kl"));
            let [policy, teacher] = ["logits", "teacher"].map(|column| log_softmax(&case[column]));
            let value = divergence(kind(beta), &policy, &teacher);
            let expected = case["value"].as_f64().unwrap();
            assert!((value - expected).abs() <= 1e-12 * expected.max(1.0), "{}: {value}, {expected}", case["name"]);
            let mut slots = vec![0.0; policy.len()];
            pull_back(kind(beta), 1.0, &policy, &teacher, &mut slots);
            for (slot, expected) in slots.iter().zip(case["cotangent"].as_array().unwrap()) {
                let expected = expected.as_f64().unwrap();
                let apart = (slot - expected).abs();
                assert!(apart <= 1e-12 * expected.abs().max(1.0), "{}: {slot}, {expected}", case["name"]);
            }
        }
    }

    #[test]
    fn the_mean_over_a_steps_tokens_is_trls() {
        for step in recorded()["steps"].as_array().unwrap() {
            let kind = kind(step["beta"].as_f64().unwrap());
            let rows = |column: &str| -> Vec<Vec<f64>> {
                step[column]
                    .as_array()
                    .unwrap()
                    .iter()
                    .flat_map(|rows| rows.as_array().unwrap())
                    .map(log_softmax)
                    .collect()
            };
            let (policy, teacher) = (rows("logits"), rows("teacher"));
            let divergences: Vec<_> = policy.iter().zip(&teacher).map(|(p, q)| divergence(kind, p, q)).collect();
            let lengths: Vec<_> =
                step["logits"].as_array().unwrap().iter().map(|r| r.as_array().unwrap().len()).collect();
            let side = objective::Side { teacher_divergence: &divergences, ..objective::Side::of(&lengths) };
            let mut distillation = objective::Distillation::default().evaluator().unwrap();
            let answer = distillation.evaluate(&objective::Demonstrations(side)).unwrap();
            assert!((answer.loss - step["loss"].as_f64().unwrap()).abs() < 1e-12);
            let expected = step["cotangent"].as_array().unwrap().iter().flat_map(|rows| rows.as_array().unwrap());
            let pulls = answer.cotangents.teacher_divergence;
            for (((policy, teacher), pull), expected) in policy.iter().zip(&teacher).zip(pulls).zip(expected) {
                let mut slots = vec![0.0; policy.len()];
                pull_back(kind, *pull, policy, teacher, &mut slots);
                for (slot, expected) in slots.iter().zip(expected.as_array().unwrap()) {
                    assert!((slot - expected.as_f64().unwrap()).abs() < 1e-12);
                }
            }
        }
    }

    #[test]
    fn a_policy_that_is_its_teacher_has_no_divergence_and_no_derivative() {
        let policy = [-0.3, -1.9, -2.7, -3.1];
        for beta in [0.0, 0.3, 1.0] {
            assert!(divergence(kind(beta), &policy, &policy) < 1e-15);
            let mut slots = [0.0; 4];
            pull_back(kind(beta), 1.0, &policy, &policy, &mut slots);
            assert!(slots.iter().all(|slot| slot.abs() < 1e-15), "{slots:?}");
        }
    }
}
