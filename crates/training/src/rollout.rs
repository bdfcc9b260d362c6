//! Columns of responses that the policy sampled itself.

use objective::{
    Constant, Requirements, Source, Statistic, TokenConstants, TokenStatistics, generalised_advantages, normalise,
};

use crate::policy::{Frozen, MicroBatchOf, Policy};

/// Outcome of a response in its environment.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Reward of each token.
    pub rewards: Vec<f64>,
    /// Value of the state after the last token: 0 if the episode ended, V if it was truncated.
    pub bootstrap: f64,
}

/// Fills the columns that an objective requires of the behaviour policy, before the policy learns from the responses:
/// log-probabilities, values, and advantages normalised over the step. `outcomes` has one entry per response of each
/// micro-batch.
///
/// # Errors
///
/// An error of the policy.
pub fn fill_behaviour<P: Policy>(
    policy: &P,
    requirements: &Requirements,
    discount: f64,
    micro_batches: &mut [MicroBatchOf<P>],
    outcomes: &[Vec<Outcome>],
) -> Result<(), P::Error> {
    let needs = |constant| requirements.constants.contains(constant);
    let filled_elsewhere = Constant::ReferenceLogProb | Constant::TeacherLogProb | Constant::Reward;
    if requirements.constants.is_subset(filled_elsewhere) {
        return Ok(());
    }
    let lambda = match requirements.source {
        Source::Sampled(sampling) => sampling.gae_lambda,
        Source::Given => 1.0,
    };
    let valued = requirements.statistics.contains(Statistic::Value);
    let (mut statistics, mut advantages, mut returned) = (TokenStatistics::default(), Vec::new(), Vec::new());
    for (micro_batch, outcomes) in micro_batches.iter_mut().zip(outcomes) {
        let forward = policy.forward(&micro_batch.states)?;
        let wanted = requirements.statistics & (Statistic::LogProb | Statistic::Value);
        policy.statistics(&forward, Frozen::default(), &micro_batch.tokens, wanted, &mut statistics)?;
        if !valued {
            statistics.value.resize(micro_batch.tokens.len(), 0.0);
        }
        returned.clear();
        for (response, Outcome { rewards, bootstrap }) in micro_batch.responses.iter().zip(outcomes) {
            let values = &statistics.value[response.tokens.clone()];
            let (bootstrap, advantages) = (*bootstrap, &mut advantages);
            generalised_advantages(rewards, values, bootstrap, discount, lambda, advantages, &mut returned);
        }
        let TokenConstants { behaviour_log_prob, rollout_log_prob, behaviour_value, returns, .. } =
            &mut micro_batch.constants;
        for (constant, column, source) in [
            (Constant::BehaviourLogProb, behaviour_log_prob, &statistics.log_prob),
            // The trainer itself was the sampler.
            (Constant::RolloutLogProb, rollout_log_prob, &statistics.log_prob),
            (Constant::BehaviourValue, behaviour_value, &statistics.value),
            (Constant::Return, returns, &returned),
        ] {
            if needs(constant) {
                column.clone_from(source);
            }
        }
    }
    if needs(Constant::Advantage) {
        normalise(&mut advantages);
        let mut rest = &*advantages;
        for micro_batch in micro_batches {
            let (own, others) = rest.split_at(micro_batch.tokens.len());
            micro_batch.constants.advantage = own.to_vec();
            rest = others;
        }
    }
    Ok(())
}
