//! A minimal host: a table of logits, one row per state, that learns from one pair of responses by DPO.
//!
//! Log-probabilities go in, cotangents come out, and ∂ log π(y|s)/∂z = e_y − π pulls them back to the logits.

use ndarray::{Array2, Axis};
use objective::{Dpo, Pairs, Side};

fn main() -> anyhow::Result<()> {
    let mut dpo = Dpo::default().evaluator()?;
    // Two tokens of the chosen response, then one of the rejected: in which state, and which.
    let (states, tokens) = ([0, 1, 0], [2, 0, 1]);

    let mut logits = Array2::<f64>::zeros((2, 3));
    let log_policy = |logits: &Array2<f64>| {
        let normaliser = logits.mapv(f64::exp).sum_axis(Axis(1)).ln().insert_axis(Axis(1));
        logits - &normaliser
    };
    let log_prob = |log_policy: &Array2<f64>| -> Vec<f64> {
        states.iter().zip(tokens).map(|(&s, y)| log_policy[[s, y]]).collect()
    };
    let reference = log_prob(&log_policy(&logits));

    for step in 0..=200 {
        let log_policy = log_policy(&logits);
        let policy = log_prob(&log_policy);
        let answer = dpo.evaluate(&Pairs {
            chosen: Side { log_prob: &policy[..2], reference_log_prob: &reference[..2], ..Side::of(&[2]) },
            rejected: Side { log_prob: &policy[2..], reference_log_prob: &reference[2..], ..Side::of(&[1]) },
        })?;
        let cotangents = [answer.cotangents.chosen.log_prob, answer.cotangents.rejected.log_prob].concat();
        for ((&s, y), cotangent) in states.iter().zip(tokens).zip(&cotangents) {
            logits.row_mut(s).scaled_add(*cotangent, &log_policy.row(s).mapv(f64::exp));
            logits[[s, y]] -= cotangent;
        }
        if step % 50 == 0 {
            println!("step {step:3}: loss {:.4}, T(a|s) {:.3}", answer.loss, log_policy.mapv(f64::exp));
        }
    }
    Ok(())
}
