//! A micro-batch on its way through a policy, and back.

use objective::{Anticipation, Requirements, TokenColumns, TokenStatistics};

use crate::policy::{MicroBatch, MicroBatchOf, Policy};

/// A policy on its way through a step.
pub(crate) enum Passing<'p, P> {
    /// It gets a gradient.
    Trained(&'p mut P),
    /// It is evaluated alone.
    Evaluated(&'p P),
}

impl<P> Passing<'_, P> {
    /// The policy, to be read.
    pub(crate) fn get(&self) -> &P {
        match self {
            Self::Trained(policy) => policy,
            Self::Evaluated(policy) => policy,
        }
    }
}

/// Anticipated states, where the objective asks for them, and the forward pass.
pub(crate) type Passed<P> = (Option<<P as Policy>::States>, <P as Policy>::Forward);

/// A micro-batch's columns, with its statistics.
pub(crate) fn columns<'a, S, F>(
    micro_batch: &'a MicroBatch<S, F>,
    statistics: &'a TokenStatistics,
) -> TokenColumns<'a> {
    let MicroBatch { constants, responses, pairs, .. } = micro_batch;
    TokenColumns { statistics, constants, responses, pairs }
}

/// Takes a micro-batch through the policy and fills its statistics.
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
