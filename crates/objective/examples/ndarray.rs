//! A host in a few lines: a table of logits, one row a state, that learns from one pair of responses by DPO.
//!
//! Log-probabilities go in, cotangents come out, and ∂ log π(y|s)/∂z = e_y − π takes them back to the logits.

use ndarray::{Array2, Axis};
use objective::{
    Evaluation, ObjectiveState, Pair, Parameters, Response, StepTotals, TokenBatch, TokenConstants, TokenStatistics,
    registry,
};

fn main() -> anyhow::Result<()> {
    let dpo = registry::build("dpo", &Parameters::new())?;
    // Two tokens of the chosen response, then one of the rejected: in which state, and which.
    let (states, tokens) = ([0, 1, 0], [2, 0, 1]);
    let (responses, pairs) = ([Response::new(0..2), Response::new(2..3)], [Pair { chosen: 0, rejected: 1 }]);
    let totals = StepTotals::of(&responses, &pairs);

    let mut logits = Array2::<f64>::zeros((2, 3));
    let log_policy = |logits: &Array2<f64>| {
        let normaliser = logits.mapv(f64::exp).sum_axis(Axis(1)).ln().insert_axis(Axis(1));
        logits - &normaliser
    };
    let log_prob = |log_policy: &Array2<f64>| states.iter().zip(tokens).map(|(&s, y)| log_policy[[s, y]]).collect();
    let reference: Vec<f64> = log_prob(&log_policy(&logits));

    let constants = TokenConstants { reference_log_prob: reference, ..Default::default() };
    let (mut state, mut evaluation) = (ObjectiveState::default(), Evaluation::default());
    for step in 0..=200 {
        let log_policy = log_policy(&logits);
        let statistics = TokenStatistics { log_prob: log_prob(&log_policy), ..Default::default() };
        let batch = TokenBatch::new(&dpo.requirements(), &statistics, &constants, &responses, &pairs, totals)?;
        dpo.evaluate(&batch, &mut state, &mut evaluation);
        for ((&s, y), cotangent) in states.iter().zip(tokens).zip(&evaluation.cotangents.log_prob) {
            logits.row_mut(s).scaled_add(*cotangent, &log_policy.row(s).mapv(f64::exp));
            logits[[s, y]] -= cotangent;
        }
        if step % 50 == 0 {
            println!("step {step:3}: loss {:.4}, T(a|s) {:.3}", evaluation.loss, log_policy.mapv(f64::exp));
        }
    }
    Ok(())
}
