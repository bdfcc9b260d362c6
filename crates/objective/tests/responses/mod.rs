//! Responses with every column that an objective may need, and the evaluation of any registered objective on them.

use std::ops::Range;

use objective::{
    Answer, Batch, Constant, Cotangents, Data, Demonstrations, Error, Evaluator, Groups, Labelled, Objective, Pairs,
    Parameters, Requirements, Rollouts, Side, Statistic, StepTotals, Value, registry,
};

/// Concatenated responses.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Responses {
    pub(crate) lengths: Vec<usize>,
    pub(crate) group: Vec<usize>,
    pub(crate) reward: Vec<f64>,
    pub(crate) desirable: Vec<bool>,
    pub(crate) log_prob: Vec<f64>,
    pub(crate) reference_log_prob: Vec<f64>,
    pub(crate) behaviour_log_prob: Vec<f64>,
    pub(crate) rollout_log_prob: Vec<f64>,
    /// Numbers for the columns advantage, return and value.
    pub(crate) advantage: Vec<f64>,
    /// Numbers for all non-negative columns.
    pub(crate) entropy: Vec<f64>,
}

/// A column of a sine wave with this frequency.
fn wave(tokens: usize, frequency: f64) -> Vec<f64> {
    (0..tokens).map(|token| (frequency * (token + 1) as f64).sin()).collect()
}

impl Responses {
    /// Responses of these lengths, two to a prompt, with numbers of every kind.
    pub(crate) fn of(lengths: &[usize]) -> Self {
        let tokens = lengths.iter().sum();
        let log_prob: Vec<f64> = wave(tokens, 1.1).iter().map(|wave| -1.5 + wave).collect();
        let near = |frequency, apart: f64| -> Vec<f64> {
            log_prob.iter().zip(wave(tokens, frequency)).map(|(own, wave)| (own + apart * wave).min(-0.01)).collect()
        };
        Self {
            lengths: lengths.to_vec(),
            group: (0..lengths.len()).map(|response| response / 2).collect(),
            reward: wave(lengths.len(), 2.7),
            desirable: (0..lengths.len()).map(|response| response % 2 == 0).collect(),
            reference_log_prob: near(1.9, 0.5),
            behaviour_log_prob: near(2.3, 0.3),
            rollout_log_prob: near(0.7, 0.6),
            advantage: wave(tokens, 5.9),
            entropy: wave(tokens, 0.4).iter().map(|wave| 1.1 + wave).collect(),
            log_prob,
        }
    }

    /// Range of the tokens of a response.
    pub(crate) fn tokens(&self, response: usize) -> Range<usize> {
        let begin = self.lengths[..response].iter().sum();
        begin..begin + self.lengths[response]
    }

    /// Some of the responses, in this order; their groups are numbered anew.
    pub(crate) fn select(&self, responses: &[usize]) -> Self {
        let flat = |column: &[f64]| responses.iter().flat_map(|&own| column[self.tokens(own)].to_vec()).collect();
        let first = responses.first().map_or(0, |&own| self.group[own]);
        Self {
            lengths: responses.iter().map(|&own| self.lengths[own]).collect(),
            group: responses.iter().map(|&own| self.group[own].saturating_sub(first)).collect(),
            reward: responses.iter().map(|&own| self.reward[own]).collect(),
            desirable: responses.iter().map(|&own| self.desirable[own]).collect(),
            log_prob: flat(&self.log_prob),
            reference_log_prob: flat(&self.reference_log_prob),
            behaviour_log_prob: flat(&self.behaviour_log_prob),
            rollout_log_prob: flat(&self.rollout_log_prob),
            advantage: flat(&self.advantage),
            entropy: flat(&self.entropy),
        }
    }

    /// The same responses as the policy's own: the behaviour policy and its sampler are the policy.
    pub(crate) fn on_policy(mut self) -> Self {
        self.behaviour_log_prob.clone_from(&self.log_prob);
        self.rollout_log_prob.clone_from(&self.log_prob);
        self
    }

    /// The required columns of some responses.
    fn side<'a>(&'a self, requirements: &Requirements, responses: Range<usize>) -> Side<'a> {
        let begin: usize = self.lengths[..responses.start].iter().sum();
        let end = begin + self.lengths[responses.clone()].iter().sum::<usize>();
        let some = |required: bool, column: &'a [f64]| if required { &column[begin..end] } else { &[] };
        let statistic = |own, column| some(requirements.statistics.contains(own), column);
        let constant = |own, column| some(requirements.constants.contains(own), column);
        Side {
            log_prob: statistic(Statistic::LogProb, &self.log_prob),
            reference_kl: statistic(Statistic::ReferenceKl, &self.entropy),
            entropy: statistic(Statistic::Entropy, &self.entropy),
            value: statistic(Statistic::Value, &self.advantage),
            log_sum_square_prob: statistic(Statistic::LogSumSquareProb, &self.reference_log_prob),
            teacher_divergence: statistic(Statistic::TeacherDivergence, &self.entropy),
            score: statistic(Statistic::Score, &self.advantage),
            reference_log_prob: constant(Constant::ReferenceLogProb, &self.reference_log_prob),
            behaviour_log_prob: constant(Constant::BehaviourLogProb, &self.behaviour_log_prob),
            rollout_log_prob: constant(Constant::RolloutLogProb, &self.rollout_log_prob),
            behaviour_value: constant(Constant::BehaviourValue, &self.entropy),
            advantage: constant(Constant::Advantage, &self.advantage),
            returns: constant(Constant::Return, &self.entropy),
            teacher_log_prob: constant(Constant::TeacherLogProb, &self.reference_log_prob),
            ..Side::of(&self.lengths[responses])
        }
    }

    /// Passes the responses as data of the required kind: in pairs and with mismatched responses, the second half are
    /// the rejected or mismatched ones.
    pub(crate) fn with_batch<T>(&self, requirements: &Requirements, then: impl FnOnce(&Batch<'_>) -> T) -> T {
        let (count, half) = (self.lengths.len(), self.lengths.len() / 2);
        let all = || self.side(requirements, 0..count);
        match requirements.data {
            Data::Demonstrations => then(&Demonstrations(all()).into()),
            Data::Rollouts => then(&Rollouts(all()).into()),
            Data::Preferences => {
                let [chosen, rejected] = [0..half, half..count].map(|side| self.side(requirements, side));
                then(&Pairs { chosen, rejected }.into())
            }
            Data::Labelled { mismatched } => {
                let own = if mismatched { half } else { count };
                let [responses, mismatched] = [0..own, own..count].map(|side| self.side(requirements, side));
                then(&Labelled { responses, desirable: &self.desirable[..own], mismatched }.into())
            }
            Data::Groups => {
                let rewarded = requirements.constants.contains(Constant::Reward);
                // The greedy response's reward, where it is asked for, is that of the next response.
                let next = |response: usize| self.reward[(response + 1) % count];
                let reward: Vec<_> = match (rewarded, requirements.rewards) {
                    (false, _) => Vec::new(),
                    (true, Some(2)) => (0..count).flat_map(|own| [self.reward[own], next(own)]).collect(),
                    (true, _) => self.reward.clone(),
                };
                let group = if requirements.grouped { &self.group[..] } else { &[] };
                then(&Groups { responses: all(), group, reward: &reward }.into())
            }
        }
    }

    /// Evaluates an objective by its name, or returns the error.
    pub(crate) fn try_evaluate(
        &self,
        name: &str,
        given: &[(&str, Value)],
        totals: Option<StepTotals>,
    ) -> Result<Owned, Error> {
        let mut evaluator = build(name, given)?;
        if let Some(totals) = totals {
            evaluator.of_step(totals);
        }
        self.with_batch(&evaluator.objective().requirements(), |batch| Ok(evaluator.evaluate(batch).map(Owned::of)?))
    }

    /// Evaluates an objective by its name.
    pub(crate) fn evaluate(&self, name: &str, given: &[(&str, Value)]) -> Owned {
        self.try_evaluate(name, given, None).unwrap_or_else(|error| panic!("{name} {given:?}: {error}"))
    }
}

/// An evaluator of the objective of this name with these parameters.
pub(crate) fn build(name: &str, given: &[(&str, Value)]) -> Result<Evaluator<Box<dyn Objective>>, Error> {
    let given: Parameters = given.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    Ok(Evaluator::new(registry::build(name, &given)?)?)
}

/// An evaluation that outlives its evaluator.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Owned {
    pub(crate) loss: f64,
    pub(crate) log_prob: Vec<f64>,
    /// Concatenated cotangents of every column.
    pub(crate) cotangents: Vec<f64>,
    pub(crate) metrics: objective::Metrics,
}

impl Owned {
    fn of(answer: Answer<'_, Cotangents<'_>>) -> Self {
        let Cotangents { log_prob, reference_kl, entropy, value, log_sum_square_prob, teacher_divergence, score } =
            answer.cotangents;
        let all = [log_prob, reference_kl, entropy, value, log_sum_square_prob, teacher_divergence, score];
        Self {
            loss: answer.loss,
            log_prob: log_prob.to_vec(),
            cotangents: all.concat(),
            metrics: answer.metrics.clone(),
        }
    }

    /// Whether the loss and all cotangents are 0.
    pub(crate) fn is_zero(&self) -> bool {
        self.loss == 0.0 && self.cotangents.iter().all(|cotangent| *cotangent == 0.0)
    }

    /// Whether the loss, the cotangents and the metrics are finite.
    pub(crate) fn is_finite(&self) -> bool {
        let metrics = self.metrics.iter().map(|(_, value)| value);
        self.cotangents.iter().copied().chain([self.loss]).chain(metrics).all(f64::is_finite)
    }
}

/// Asserts that numbers agree to a relative error, or to an absolute one around 0.
pub(crate) fn assert_close(ours: &[f64], theirs: &[f64], error: f64, what: &str) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (place, (own, other)) in ours.iter().zip(theirs).enumerate() {
        assert!((own - other).abs() <= error * other.abs().max(1.0), "{what} [{place}]: {own:e}, expected {other:e}");
    }
}
