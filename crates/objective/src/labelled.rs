//! What losses on desirable and undesirable responses share: rewards, their shift, cotangents, metrics.
//!
//! With r = β (log π − log π_ref) a response's reward, b the shift and w the weight of its label, the mean over the step's
//! labelled responses of w ℓ(r − b) for desirable and w ℓ(b − r) for undesirable ones; a [`LabelLoss`] says what ℓ, b and w
//! are. No gradient passes through b.

use crate::Objective;
use crate::batch::{Feedback, TokenBatch};
use crate::evaluation::{Evaluation, Metric, Metrics};
use crate::method::Method;
use crate::numerics::sum;
use crate::parameter::{ParameterError, Parameters, Reader};
use crate::preference::BETA;
use crate::requirements::{Constant, Coupling, Data, Requirements};
use crate::state::ObjectiveState;

/// The rewards of a step, from which a loss takes their shift.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rewards {
    /// Number of labelled responses.
    pub count: usize,
    /// Mean reward of the labelled responses.
    pub mean: f64,
    /// Mean reward of the mismatched responses; 0 where none are asked for.
    pub mismatched: f64,
}

/// A loss on the reward of one labelled response; [`Labelled`] makes an objective of it.
pub trait LabelLoss: Send + Sync + std::fmt::Debug + Sized {
    /// The registry's line.
    const METHOD: Method;

    /// Whether responses of one step depend on one another.
    const COUPLING: Coupling;

    /// Whether mismatched responses are asked for.
    const MISMATCHED: bool;

    /// The loss that its own parameters describe.
    ///
    /// # Errors
    ///
    /// [`ParameterError`] for a value out of range or without effect.
    fn read(reader: &Reader<'_>) -> Result<Self, ParameterError>;

    /// Its own parameters in force.
    fn own_parameters(&self) -> Parameters {
        Parameters::new()
    }

    /// What a label counts.
    fn weight(&self, _desirable: bool) -> f64 {
        1.0
    }

    /// The shift b of this step's rewards; a constant to the gradient.
    fn shift(&self, rewards: &Rewards, state: &mut ObjectiveState) -> f64;

    /// ℓ and its derivative, finite for all finite arguments.
    fn loss(&self, margin: f64) -> (f64, f64);

    /// Metrics of this loss alone.
    fn record(&self, _beta: f64, _shift: f64, _metrics: &mut Metrics) {}
}

/// The mean over the step's labelled responses of a loss on their rewards.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Labelled<L> {
    loss: L,
    /// Per nat.
    beta: f64,
}

impl<L: LabelLoss> Labelled<L> {
    /// A loss with the scale β of its rewards.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] for a value out of its range.
    pub fn new(loss: L, beta: f64) -> Result<Self, ParameterError> {
        Ok(Self { loss, beta: BETA.check(L::METHOD.name, beta)? })
    }
}

/// Builds a loss on labelled responses, for the registry.
///
/// # Errors
///
/// [`ParameterError`] for a parameter that is unknown, out of range or without effect.
pub fn build<L: LabelLoss + 'static>(given: &Parameters) -> Result<Box<dyn Objective>, ParameterError> {
    let reader = Reader::new(L::METHOD.name, L::METHOD.parameters, given)?;
    Ok(Box::new(Labelled::new(L::read(&reader)?, reader.number(&BETA)?)?))
}

/// Prompt and response of each mismatched response that a step of so many labelled ones asks for: the prompt of one beside
/// the response of the next, around in a circle. No prompt meets its own response, whatever their number; a single one has
/// no partner.
///
/// ```
/// use objective::labelled::mismatches;
///
/// assert_eq!(mismatches(3).collect::<Vec<_>>(), [(0, 1), (1, 2), (2, 0)]);
/// assert_eq!(mismatches(1).count(), 0);
/// ```
pub fn mismatches(responses: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..responses).filter(move |_| responses > 1).map(move |prompt| (prompt, (prompt + 1) % responses))
}

impl<L: LabelLoss> Objective for Labelled<L> {
    fn requirements(&self) -> Requirements {
        Requirements {
            coupling: L::COUPLING,
            constants: Constant::ReferenceLogProb.into(),
            ..Requirements::new(Data::Labelled { mismatched: L::MISMATCHED })
        }
    }

    fn parameters(&self) -> Parameters {
        let mut parameters = self.loss.own_parameters();
        parameters.insert(BETA.name.to_owned(), self.beta.into());
        parameters
    }

    fn fill(&self, batch: &TokenBatch<'_>, state: &mut ObjectiveState, out: &mut Evaluation) {
        let Evaluation { loss, cotangents, metrics, scratch: rewards, .. } = out;
        rewards.clear();
        rewards.extend((0..batch.responses().len()).map(|response| self.beta * batch.log_ratio(response)));
        let shift = self.loss.shift(&self.summarise(batch, rewards), state);
        let share = 1.0 / batch.totals().responses as f64;
        for (index, (response, &reward)) in batch.responses().iter().zip(&*rewards).enumerate() {
            let (desirable, sign) = match response.feedback {
                Feedback::Desirable => (true, 1.0),
                Feedback::Undesirable => (false, -1.0),
                Feedback::Mismatched | Feedback::None | Feedback::Reward { .. } => continue,
            };
            let weight = share * self.loss.weight(desirable);
            let (value, slope) = self.loss.loss(sign * (reward - shift));
            *loss += weight * value;
            cotangents.log_prob[response.tokens.clone()].fill(weight * sign * self.beta * slope);

            let log_prob = batch.log_prob(index);
            let total = sum(log_prob);
            if desirable {
                metrics.record(Metric::RewardChosen, reward);
                metrics.record(Metric::LogProbChosen, total);
                metrics.record_sum(Metric::NegativeLogLikelihood, -total, log_prob.len());
            } else {
                metrics.record(Metric::RewardRejected, reward);
                metrics.record(Metric::LogProbRejected, total);
            }
        }
        self.loss.record(self.beta, shift, metrics);
    }
}

impl<L> Labelled<L> {
    fn summarise(&self, batch: &TokenBatch<'_>, rewards: &[f64]) -> Rewards {
        let (mut sums, mut counts) = ([0.0; 2], [0; 2]);
        for (response, reward) in batch.responses().iter().zip(rewards) {
            let kind = usize::from(!response.is_learned());
            sums[kind] += reward;
            counts[kind] += 1;
        }
        let [count, mismatched] = counts;
        Rewards { count, mean: sums[0] / count.max(1) as f64, mismatched: sums[1] / mismatched.max(1) as f64 }
    }
}
