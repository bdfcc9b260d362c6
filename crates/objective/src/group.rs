//! What losses on groups of sampled responses share: advantages, the penalty of divergence, cotangents, metrics.
//!
//! # Formula
//!
//! Responses of a group answer the same prompt. With R a response's reward, mean and s (divided by n − 1) over its group:
//!
//! - `scale = group`: A = (R − mean) / (s + 10⁻⁴); `scale = batch`: s over the whole step; `scale = none`: A = R − mean
//! - leave-one-out (`rloo`): A = R − mean of the others of the group
//!
//! A response alone in its group has A = 0. A [`GroupLoss`] says what a response's loss is and what each of its tokens weighs.
//! With β > 0, β (eᵘ − u − 1) with u = log π_ref − log π is added to each token's loss (k3, an unbiased estimate of
//! KL(π || π_ref) that is never negative; J. Schulman, "Approximating KL Divergence", 2020), or, for `rloo`, β Σₜ (log π_behaviour
//! − log π_ref) is taken from the reward.
//!
//! # Source
//!
//! Z. Shao et al., "DeepSeekMath", arXiv 2402.03300, equations 3 and 4; `scale = none` from Z. Liu et al., "Understanding
//! R1-Zero-Like Training", arXiv 2503.20783; `scale = batch` from arXiv 2508.08221.

use enumset::EnumSet;
use strum::{EnumString, IntoStaticStr, VariantNames};

use crate::Objective;
use crate::batch::{Feedback, StepTotals, TokenBatch};
use crate::evaluation::{Evaluation, Metric};
use crate::method::Method;
use crate::numerics::{exponential_excess, sum_of_differences};
use crate::parameter::{Kind, NON_NEGATIVE, Parameter, ParameterError, Parameters, Reader};
use crate::requirements::{Constant, Coupling, Data, Requirements, Source};
use crate::sampling::Sampling;
use crate::state::ObjectiveState;

/// β, as a method declares it with its own default.
pub const fn beta(default: f64) -> Parameter {
    Parameter {
        name: "beta",
        kind: Kind::Number { default, range: NON_NEGATIVE },
        purpose: "weight of the divergence from the reference, per nat; 0 needs no reference",
    }
}

/// By what advantages are divided.
pub const SCALE: Parameter = Parameter {
    name: "scale",
    kind: Kind::Choice { default: "group", options: Scale::VARIANTS },
    purpose: "the standard deviation that advantages are divided by",
};

/// By what advantages are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Scale {
    /// The standard deviation of the group's rewards.
    Group,
    /// That of the whole step's rewards.
    Batch,
    /// Nothing.
    None,
}

/// What is added to a standard deviation before it divides.
const SCALE_OFFSET: f64 = 1e-4;

/// What a reward is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Baseline {
    /// The mean of the group.
    GroupMean(Scale),
    /// The mean of the others of the group.
    LeaveOneOut,
}

/// A sampled response.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampled<'a> {
    /// A.
    pub advantage: f64,
    /// log π of the policy in training, nats.
    pub log_prob: &'a [f64],
    /// log π of the policy that sampled it, nats.
    pub behaviour_log_prob: &'a [f64],
}

/// A response's loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ResponseLoss {
    /// The response's part of the step's loss.
    pub loss: f64,
    /// Importance ratios that were held back.
    pub clipped: usize,
    /// Importance ratios.
    pub ratios: usize,
}

/// A loss on one response of a group; [`Grouped`] makes an objective of it.
pub trait GroupLoss: Send + Sync + std::fmt::Debug + Sized {
    /// The registry's line.
    const METHOD: Method;

    /// The weight of the divergence from the reference.
    const BETA: Parameter = beta(0.0);

    /// Whether the divergence is taken from the reward rather than added to the loss of each token.
    const PENALISES_REWARD: bool = false;

    /// The loss that its own parameters describe.
    ///
    /// # Errors
    ///
    /// [`ParameterError`] for a value out of range or without effect.
    fn read(reader: &Reader<'_>) -> Result<Self, ParameterError>;

    /// Its own parameters in force.
    fn own_parameters(&self) -> Parameters;

    /// What each token of a response of that many tokens weighs in the step's loss.
    fn share(&self, tokens: usize, totals: StepTotals) -> f64;

    /// The loss of a response each of whose tokens weighs `share`; adds its derivatives by log π to `slots`.
    fn response(&self, response: &Sampled<'_>, share: f64, slots: &mut [f64]) -> ResponseLoss;
}

/// A loss on groups of sampled responses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grouped<L> {
    loss: L,
    beta: f64,
    baseline: Baseline,
    sampling: Sampling,
}

impl<L: GroupLoss> Grouped<L> {
    /// A loss with the weight β of the divergence from the reference, per nat.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] for a value out of its range.
    pub fn new(loss: L, beta: f64, baseline: Baseline, sampling: Sampling) -> Result<Self, ParameterError> {
        Ok(Self { loss, beta: L::BETA.check(L::METHOD.name, beta)?, baseline, sampling })
    }
}

/// Builds a loss on groups, for the registry.
///
/// # Errors
///
/// [`ParameterError`] for a parameter that is unknown, out of range or without effect.
pub fn build<L: GroupLoss + 'static>(given: &Parameters) -> Result<Box<dyn Objective>, ParameterError> {
    let declared = L::METHOD.parameters;
    let reader = Reader::new(L::METHOD.name, declared, given)?;
    let baseline = match declared.contains(&SCALE) {
        true => Baseline::GroupMean(reader.choice(&SCALE)?),
        false => Baseline::LeaveOneOut,
    };
    let sampling = Sampling::read(declared, &reader)?;
    Ok(Box::new(Grouped::new(L::read(&reader)?, reader.number(&L::BETA)?, baseline, sampling)?))
}

impl<L: GroupLoss> Objective for Grouped<L> {
    fn requirements(&self) -> Requirements {
        let reference = if self.beta > 0.0 { Constant::ReferenceLogProb.into() } else { EnumSet::empty() };
        Requirements {
            source: Source::Sampled(self.sampling),
            coupling: Coupling::Step,
            constants: reference | Constant::BehaviourLogProb,
            ..Requirements::new(Data::Groups)
        }
    }

    fn parameters(&self) -> Parameters {
        let mut parameters = self.loss.own_parameters();
        parameters.insert(L::BETA.name.to_owned(), self.beta.into());
        if let Baseline::GroupMean(scale) = self.baseline {
            let scale: &str = scale.into();
            parameters.insert(SCALE.name.to_owned(), scale.into());
        }
        parameters.extend(self.sampling.parameters(L::METHOD.parameters));
        parameters
    }

    fn fill(&self, batch: &TokenBatch<'_>, _: &mut ObjectiveState, out: &mut Evaluation) {
        let totals = batch.totals();
        let Evaluation { loss, cotangents, metrics, scratch: advantages, .. } = out;
        advantages.clear();
        for (index, response) in batch.responses().iter().enumerate() {
            let Feedback::Reward { reward, .. } = response.feedback else { continue };
            metrics.record(Metric::Reward, reward);
            let penalty = if L::PENALISES_REWARD && self.beta > 0.0 {
                let drift = sum_of_differences(
                    batch.constant(Constant::BehaviourLogProb, index),
                    batch.constant(Constant::ReferenceLogProb, index),
                );
                metrics.record(Metric::Kl, drift);
                self.beta * drift
            } else {
                0.0
            };
            advantages.push(reward - penalty);
        }
        self.baseline.subtract(batch, advantages);

        for (index, (response, &advantage)) in batch.responses().iter().zip(&*advantages).enumerate() {
            let log_prob = batch.log_prob(index);
            let behaviour_log_prob = batch.constant(Constant::BehaviourLogProb, index);
            let slots = &mut cotangents.log_prob[response.tokens.clone()];
            let share = self.loss.share(log_prob.len(), totals);
            let sampled = Sampled { advantage, log_prob, behaviour_log_prob };
            let ResponseLoss { loss: own, clipped, ratios } = self.loss.response(&sampled, share, slots);
            *loss += own;
            metrics.record_sum(Metric::ClipFraction, clipped as f64, ratios);

            if self.beta > 0.0 && !L::PENALISES_REWARD {
                let reference = batch.constant(Constant::ReferenceLogProb, index);
                let mut divergence = 0.0;
                for ((log_prob, reference), slot) in log_prob.iter().zip(reference).zip(slots) {
                    let (excess, slope) = exponential_excess(reference - log_prob);
                    divergence += excess;
                    *slot -= share * self.beta * slope;
                }
                *loss += share * self.beta * divergence;
                metrics.record(Metric::Kl, divergence);
            }
        }
    }
}

impl Baseline {
    /// Replaces the rewards of a batch by advantages.
    fn subtract(self, batch: &TokenBatch<'_>, rewards: &mut [f64]) {
        let whole = deviation(rewards);
        let group = |response: usize| match batch.responses()[response].feedback {
            Feedback::Reward { group, .. } => group,
            _ => 0,
        };
        let mut begin = 0;
        while begin < rewards.len() {
            let size = (begin..rewards.len()).take_while(|&index| group(index) == group(begin)).count();
            let members = &mut rewards[begin..begin + size];
            begin += size;
            if size == 1 {
                members.fill(0.0);
                continue;
            }
            // Relative to the first, so that equal rewards have advantages of exactly 0.
            let first = members[0];
            members.iter_mut().for_each(|reward| *reward -= first);
            let mean = members.iter().sum::<f64>() / size as f64;
            let divisor = match self {
                Self::GroupMean(Scale::Group) => deviation(members) + SCALE_OFFSET,
                Self::GroupMean(Scale::Batch) => whole + SCALE_OFFSET,
                Self::GroupMean(Scale::None) => 1.0,
                // R − (n mean − R)/(n − 1) = (R − mean) n/(n − 1).
                Self::LeaveOneOut => (size - 1) as f64 / size as f64,
            };
            members.iter_mut().for_each(|reward| *reward = (*reward - mean) / divisor);
        }
    }
}

/// The standard deviation of a sample, divided by n − 1; 0 of a single number.
fn deviation(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    if count > 1.0 { (squares / (count - 1.0)).sqrt() } else { 0.0 }
}
