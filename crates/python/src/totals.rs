//! Counts of a whole step.

use objective::StepTotals;

/// Counts of tokens, responses, pairs, chosen tokens and groups of a whole step; the batch's own count replaces a
/// missing one.
pub(crate) type Given = [Option<i64>; 5];

/// The names of the counts, in their order.
const NAMES: [&str; 5] = ["tokens", "responses", "pairs", "chosen_tokens", "groups"];

/// The counts of a step that a batch is a part of.
///
/// # Errors
///
/// A sentence for a count below 0.
pub(crate) fn of_step(given: Given, batch: StepTotals) -> Result<StepTotals, String> {
    let mut counts = counts(batch);
    for ((name, own), given) in NAMES.into_iter().zip(&mut counts).zip(given) {
        if let Some(given) = given {
            *own = usize::try_from(given)
                .map_err(|_| format!("totals.{name}: expected a whole number, 0 <= {name}, got {given}"))?;
        }
    }
    let [tokens, responses, pairs, chosen_tokens, groups] = counts;
    Ok(StepTotals { tokens, responses, pairs, chosen_tokens, groups })
}

/// The counts in their order.
pub(crate) fn counts(totals: StepTotals) -> [usize; 5] {
    let StepTotals { tokens, responses, pairs, chosen_tokens, groups } = totals;
    [tokens, responses, pairs, chosen_tokens, groups]
}
