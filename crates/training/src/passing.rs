//! The pass of a micro-batch through a policy, and the pull-back.

use objective::{Anticipation, Requirements, TokenColumns, TokenStatistics};

use crate::policy::{MicroBatch, MicroBatchOf, Policy};

/// Access to a policy within a step.
pub(crate) enum Passing<'p, P> {
    /// The policy in training, whose gradient is computed.
    Trained(&'p mut P),
    /// A policy that is only evaluated.
    Evaluated(&'p P),
}

impl<P> Passing<'_, P> {
    /// Borrows the policy.
    pub(crate) fn get(&self) -> &P {
        match self {
            Self::Trained(policy) => policy,
            Self::Evaluated(policy) => policy,
        }
    }
}

/// Anticipated states, if the objective needs them, and the forward pass.
pub(crate) type Passed<P> = (Option<<P as Policy>::States>, <P as Policy>::Forward);

/// Columns of a micro-batch with its statistics.
pub(crate) fn columns<'a, S, F>(
    micro_batch: &'a MicroBatch<S, F>,
    statistics: &'a TokenStatistics,
) -> TokenColumns<'a> {
    let MicroBatch { constants, responses, pairs, .. } = micro_batch;
    TokenColumns { statistics, constants, responses, pairs }
}

/// Runs a micro-batch through the policy and fills its statistics.
pub(crate) fn forward<P: Policy>(
    policy: &P,
    requirements: &Requirements,
    micro_batch: &MicroBatchOf<P>,
    lambda: f64,
    statistics: &mut TokenStatistics,
) -> Result<Passed<P>, P::Error> {
    let MicroBatch { states, tokens, .. } = micro_batch;
    let anticipated = match requirements.anticipation {
        Anticipation::Off => None,
        Anticipation::Residual { freeze, .. } => Some(policy.anticipate(states, lambda, freeze)?),
    };
    let forward = policy.forward(anticipated.as_ref().unwrap_or(states))?;
    let frozen = micro_batch.frozen(requirements);
    policy.statistics(&forward, frozen, tokens, requirements.statistics, statistics)?;
    Ok((anticipated, forward))
}

/// Pulls the cotangents of a micro-batch back into the gradient.
pub(crate) fn pull_back<P: Policy>(
    policy: &mut P,
    requirements: &Requirements,
    micro_batch: &MicroBatchOf<P>,
    (anticipated, forward): Passed<P>,
    cotangents: &TokenStatistics,
) -> Result<(), P::Error> {
    let MicroBatch { states, tokens, .. } = micro_batch;
    let states = anticipated.as_ref().unwrap_or(states);
    policy.pull_back(states, forward, micro_batch.frozen(requirements), tokens, cotangents)
}
