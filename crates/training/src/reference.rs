//! Columns of a frozen reference policy.

use objective::{Constant, Requirements, Statistic, TokenStatistics};

use crate::policy::{Frozen, MicroBatch, MicroBatchOf, Policy};

/// Fills the columns that an objective requires of a frozen reference policy, once before training: constants, and the
/// forward pass if a statistic needs the reference's whole distribution.
///
/// # Errors
///
/// An error of the reference policy.
pub fn fill_reference<P: Policy>(
    reference: &P,
    requirements: &Requirements,
    micro_batches: &mut [MicroBatchOf<P>],
) -> Result<(), P::Error> {
    if !requirements.need_reference() {
        return Ok(());
    }
    let mut statistics = TokenStatistics::default();
    for MicroBatch { states, reference: kept, tokens, constants, .. } in micro_batches {
        let forward = reference.forward(states)?;
        if requirements.constants.contains(Constant::ReferenceLogProb) {
            reference.statistics(&forward, Frozen::default(), tokens, Statistic::LogProb.into(), &mut statistics)?;
            constants.reference_log_prob.clone_from(&statistics.log_prob);
        }
        *kept = requirements.statistics.contains(Statistic::ReferenceKl).then_some(forward);
    }
    Ok(())
}
