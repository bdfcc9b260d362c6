//! What losses on groups of sampled responses share: advantages, the penalty of divergence, cotangents, metrics.
//!
//! # Formula
//!
//! Responses of a group answer the same prompt. With R a response's reward, mean and s (divided by n − 1) over its group:
//!
//! - `scale = group`: A = (R − mean) / (s + 10⁻⁴); `scale = batch`: s over the whole step; `scale = none`: A = R − mean
//! - leave-one-out (`rloo`): A = R − mean of the others of the group
//!
//! A response alone in its group has A = 0. A [`GroupLoss`] says what a response's loss is and what each of its tokens
//! weighs. With β > 0, β times an estimate of KL(π || π_ref) is added to each token's loss (see
//! [`token_divergence`](crate::token_divergence)), or, for `rloo`, β Σₜ (log π_behaviour − log π_ref) is taken from the
//! reward.
//!
//! # Source
//!
//! Z. Shao et al., "DeepSeekMath", arXiv 2402.03300, equations 3 and 4; `scale = none` from Z. Liu et al., "Understanding
//! R1-Zero-Like Training", arXiv 2503.20783; `scale = batch` from arXiv 2508.08221.

use enumset::EnumSet;
use strum::{EnumString, IntoStaticStr, VariantNames};

use crate::Objective;
use crate::batch::{Feedback, StepTotals, TokenBatch};
use crate::clip::Bounded;
use crate::evaluation::{Evaluation, Metric, Metrics};
use crate::held::Held;
use crate::method::Method;
use crate::numerics::sum_of_differences;
use crate::parameter::{Kind, NON_NEGATIVE, Parameter, ParameterError, Parameters, Reader};
use crate::requirements::{Constant, Coupling, Data, Requirements, Source};
use crate::sampling::Sampling;
use crate::state::ObjectiveState;
use crate::token_divergence::{DIVERGENCE, DIVERGENCE_PLACE, Estimator, Place, corrected};

/// β, as a method declares it with its own default.
///
/// ```
/// let beta = objective::group::beta(0.04);
/// assert_eq!((beta.default(), beta.allowed()), (0.04.into(), "a number, 0 <= beta <= 1e6".to_owned()));
/// ```
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
///
/// Rewards 1 and 0 have the mean ½ and the standard deviation √½:
///
/// ```
/// # use objective::*;
/// # let responses = [Response::rewarded(0..1, 0, 1.0), Response::rewarded(1..2, 0, 0.0)];
/// # let statistics = TokenStatistics { log_prob: vec![-1.0, -2.0], ..Default::default() };
/// # let constants = TokenConstants { behaviour_log_prob: vec![-1.0, -2.0], ..Default::default() };
/// # let totals = StepTotals::of(&responses, &[]);
/// # let advantage = |scale: &str| {
/// #     let grpo = registry::build("grpo", &[("scale".to_owned(), scale.into())].into())?;
/// #     let batch = TokenBatch::new(&grpo.requirements(), &statistics, &constants, &responses, &[], totals)?;
/// #     let mut evaluation = Evaluation::default();
/// #     grpo.evaluate(&batch, &mut ObjectiveState::default(), &mut evaluation);
/// #     Ok::<f64, Box<dyn std::error::Error>>(-2.0 * evaluation.cotangents.log_prob[0])
/// # };
/// assert_eq!(advantage("none")?, 0.5);
/// assert!((advantage("group")? - 0.5 / (0.5_f64.sqrt() + 1e-4)).abs() < 1e-12);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
///
/// Rewards 1 and 0 have advantages of ±½ over their mean and of ±1 over one another:
///
/// ```
/// # use objective::{group::*, *};
/// # let responses = [Response::rewarded(0..1, 0, 1.0), Response::rewarded(1..2, 0, 0.0)];
/// # let statistics = TokenStatistics { log_prob: vec![-1.0, -2.0], ..Default::default() };
/// # let constants = TokenConstants { behaviour_log_prob: vec![-1.0, -2.0], ..Default::default() };
/// # let totals = StepTotals::of(&responses, &[]);
/// # let sampling = Sampling { samples: 2, epochs: 1, gae_lambda: 1.0 };
/// let mut advantages = Vec::new();
/// for baseline in [Baseline::GroupMean(Scale::None), Baseline::LeaveOneOut] {
///     let cispo = Grouped::new(cispo::Cispo::new(5.0)?, 0.0, baseline, sampling)?;
/// #   let batch = TokenBatch::new(&cispo.requirements(), &statistics, &constants, &responses, &[], totals)?;
/// #   let mut evaluation = Evaluation::default();
///     cispo.evaluate(&batch, &mut ObjectiveState::default(), &mut evaluation);
///     advantages.push(evaluation.cotangents.log_prob.iter().map(|slot| -2.0 * slot).collect::<Vec<_>>());
/// }
/// assert_eq!(advantages, [[0.5, -0.5], [1.0, -1.0]]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Baseline {
    /// The mean of the group.
    GroupMean(Scale),
    /// The mean of the others of the group.
    LeaveOneOut,
}

/// A sampled response.
///
/// A bad response, on policy: each token is lowered.
///
/// ```
/// use objective::group::{GroupLoss, Sampled};
///
/// let response = Sampled { advantage: -1.0, log_prob: &[-0.5, -2.0], behaviour_log_prob: &[-0.5, -2.0], weights: &[1.0, 1.0] };
/// let mut slots = [0.0; 2];
/// objective::cispo::Cispo::new(5.0)?.response(&response, 0.5, &mut slots);
/// assert_eq!(slots, [0.5, 0.5]);
/// # Ok::<(), objective::ParameterError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampled<'a> {
    /// A.
    pub advantage: f64,
    /// log π of the policy in training, nats.
    pub log_prob: &'a [f64],
    /// log π of the policy that sampled it, nats.
    pub behaviour_log_prob: &'a [f64],
    /// Held weight of each token, if the loss holds any.
    pub weights: &'a [f64],
}

/// A response's loss.
///
/// Ratios of 1 and e, of which a bound of 2 holds the second back:
///
/// ```
/// use objective::group::{Clipped, GroupLoss, ResponseLoss, Sampled};
///
/// let response = Sampled { advantage: 1.0, log_prob: &[-1.0, -1.0], behaviour_log_prob: &[-1.0, -2.0], weights: &[1.0, 2.0] };
/// let loss = objective::cispo::Cispo::new(2.0)?.response(&response, 1.0, &mut [0.0; 2]);
/// assert_eq!(loss, ResponseLoss { loss: 1.0 + 2.0, clipped: Clipped { below: 0, above: 1 }, ratios: 2 });
/// # Ok::<(), objective::ParameterError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ResponseLoss {
    /// The response's part of the step's loss.
    pub loss: f64,
    /// Importance ratios that were held back.
    pub clipped: Clipped,
    /// Importance ratios.
    pub ratios: usize,
}

/// Numbers of clipped importance ratios, by bound.
///
/// ```
/// use objective::clip::Bounded;
/// use objective::group::Clipped;
///
/// let mut clipped = Clipped::default();
/// [Some(Bounded::Above), None, Some(Bounded::Above)].into_iter().for_each(|bound| clipped.count(bound));
/// assert_eq!(clipped, Clipped { below: 0, above: 2 });
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clipped {
    /// Number clipped at the lower bound.
    pub below: usize,
    /// Number clipped at the upper bound.
    pub above: usize,
}

/// Their shares of all ratios are metrics, in total and by bound:
///
/// ```
/// use objective::{Metric, Metrics, group::Clipped};
///
/// let mut metrics = Metrics::default();
/// Clipped { below: 1, above: 2 }.record(4, &mut metrics);
/// let shares = [Metric::ClipFraction, Metric::ClipFractionLow, Metric::ClipFractionHigh];
/// assert_eq!(shares.map(|share| metrics.mean(share)), [Some(0.75), Some(0.25), Some(0.5)]);
/// ```
impl Clipped {
    /// Counts a ratio under the bound at which it is clipped, if any.
    ///
    /// ```
    /// let mut clipped = objective::group::Clipped::default();
    /// clipped.count(Some(objective::clip::Bounded::Below));
    /// assert_eq!(clipped.below, 1);
    /// ```
    pub fn count(&mut self, bound: Option<Bounded>) {
        match bound {
            Some(Bounded::Below) => self.below += 1,
            Some(Bounded::Above) => self.above += 1,
            None => {}
        }
    }

    /// Records their shares of this many ratios as metrics.
    ///
    /// ```
    /// use objective::{Metric, Metrics, group::Clipped};
    ///
    /// let mut metrics = Metrics::default();
    /// Clipped::default().record(4, &mut metrics);
    /// assert_eq!(metrics.mean(Metric::ClipFractionHigh), Some(0.0));
    /// ```
    pub fn record(self, ratios: usize, metrics: &mut Metrics) {
        metrics.record_sum(Metric::ClipFraction, (self.below + self.above) as f64, ratios);
        metrics.record_sum(Metric::ClipFractionLow, self.below as f64, ratios);
        metrics.record_sum(Metric::ClipFractionHigh, self.above as f64, ratios);
    }
}

/// A loss on one response of a group; [`Grouped`] makes an objective of it.
///
/// A loss that the registry does not have, policy gradients without importance weights:
///
/// ```
/// use objective::group::{Clipped, GroupLoss, ResponseLoss, SCALE, Sampled, beta, build};
/// use objective::parameter::{ParameterError, Parameters, Reader};
/// use objective::{Method, StepTotals, sampling::samples};
///
/// #[derive(Debug)]
/// struct Reinforce;
///
/// impl GroupLoss for Reinforce {
///     const METHOD: Method = Method {
///         name: "reinforce",
///         summary: "policy gradients without importance weights",
///         source: "R. J. Williams, 1992",
///         parameters: || vec![beta(0.0), SCALE, samples(8)],
///         build: build::<Reinforce>,
///     };
///
///     fn read(_: &Reader<'_>) -> Result<Self, ParameterError> {
///         Ok(Self)
///     }
///
///     fn own_parameters(&self) -> Parameters {
///         Parameters::new()
///     }
///
///     fn share(&self, _: usize, totals: StepTotals) -> f64 {
///         1.0 / totals.tokens as f64
///     }
///
///     fn response(&self, response: &Sampled<'_>, share: f64, slots: &mut [f64]) -> ResponseLoss {
///         let pull = -share * response.advantage;
///         slots.iter_mut().for_each(|slot| *slot += pull);
///         let loss = pull * response.log_prob.iter().sum::<f64>();
///         ResponseLoss { loss, clipped: Clipped::default(), ratios: slots.len() }
///     }
/// }
///
/// let parameters = (Reinforce::METHOD.build)(&Parameters::new())?.parameters();
/// assert_eq!((&parameters["scale"], &parameters["samples"]), (&"group".into(), &8.0.into()));
/// # Ok::<(), ParameterError>(())
/// ```
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
    ///
    /// # Examples
    ///
    /// ```
    /// use objective::cispo::{Cispo, METHOD};
    /// use objective::group::GroupLoss;
    /// use objective::parameter::{Parameters, Reader};
    ///
    /// let given = Parameters::from([("max_ratio".to_owned(), 2.0.into())]);
    /// assert_eq!(Cispo::read(&Reader::new(METHOD.name, &(METHOD.parameters)(), &given)?)?, Cispo::new(2.0)?);
    /// # Ok::<(), objective::ParameterError>(())
    /// ```
    fn read(reader: &Reader<'_>) -> Result<Self, ParameterError>;

    /// Its own parameters in force.
    ///
    /// β, the scale and those of the sampling are not among them:
    ///
    /// ```
    /// use objective::group::GroupLoss;
    ///
    /// let cispo = objective::cispo::Cispo::new(2.0)?;
    /// assert_eq!(cispo.own_parameters(), [("max_ratio".to_owned(), 2.0.into())].into());
    /// # Ok::<(), objective::ParameterError>(())
    /// ```
    fn own_parameters(&self) -> Parameters;

    /// Appends the weights of a response's tokens that pass no gradient; none by default.
    fn hold(&self, _response: &Sampled<'_>, _weights: &mut Vec<f64>) {}

    /// What each token of a response of that many tokens weighs in the step's loss.
    ///
    /// One of 2 tokens, in a step of 2 responses with 16 tokens, under a mean over responses and under one over tokens:
    ///
    /// ```
    /// use objective::StepTotals;
    /// use objective::group::GroupLoss;
    ///
    /// let totals = StepTotals { tokens: 16, responses: 2, ..Default::default() };
    /// assert_eq!(objective::sapo::Sapo::new(1.0, 1.05)?.share(2, totals), 1.0 / 4.0);
    /// assert_eq!(objective::cispo::Cispo::new(5.0)?.share(2, totals), 1.0 / 16.0);
    /// # Ok::<(), objective::ParameterError>(())
    /// ```
    fn share(&self, tokens: usize, totals: StepTotals) -> f64;

    /// The loss of a response each of whose tokens weighs `share`; adds its derivatives by log π to `slots`.
    ///
    /// ```
    /// use objective::group::{GroupLoss, Sampled};
    ///
    /// let response = Sampled { advantage: 1.0, log_prob: &[-1.0], behaviour_log_prob: &[-1.0], weights: &[] };
    /// let mut slots = [3.0];
    /// assert_eq!(objective::sapo::Sapo::new(1.0, 1.05)?.response(&response, 0.5, &mut slots).loss, -1.0);
    /// assert_eq!(slots, [3.0 - 0.5]);
    /// # Ok::<(), objective::ParameterError>(())
    /// ```
    fn response(&self, response: &Sampled<'_>, share: f64, slots: &mut [f64]) -> ResponseLoss;
}

/// A loss on groups of sampled responses.
///
/// ```
/// use objective::group::{Baseline, Grouped, Scale};
/// use objective::{Constant, Coupling, Objective, Sampling};
///
/// let sampling = Sampling { samples: 8, epochs: 1, gae_lambda: 1.0 };
/// let cispo = Grouped::new(objective::cispo::Cispo::new(5.0)?, 0.0, Baseline::GroupMean(Scale::Group), sampling)?;
/// assert_eq!(cispo.requirements().constants, Constant::BehaviourLogProb);
/// assert_eq!(cispo.requirements().coupling, Coupling::Step); // a group is evaluated at once
/// # Ok::<(), objective::ParameterError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grouped<L> {
    loss: L,
    beta: f64,
    baseline: Baseline,
    sampling: Sampling,
}

/// Where its name says the baseline, as `rloo` does, there is no scale:
///
/// ```
/// use objective::{Parameters, registry};
///
/// for (name, scaled) in [("cispo", true), ("rloo", false)] {
///     assert_eq!(registry::build(name, &Parameters::new())?.parameters().contains_key("scale"), scaled);
/// }
/// # Ok::<(), objective::RegistryError>(())
/// ```
impl<L: GroupLoss> Grouped<L> {
    /// A loss with the weight β of the divergence from the reference, per nat.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] for a value out of its range.
    ///
    /// # Examples
    ///
    /// ```
    /// use objective::group::{Baseline, Grouped};
    ///
    /// let sampling = objective::Sampling { samples: 2, epochs: 1, gae_lambda: 1.0 };
    /// let loss = objective::cispo::Cispo::new(5.0)?;
    /// let error = Grouped::new(loss, -1.0, Baseline::LeaveOneOut, sampling).unwrap_err();
    /// assert_eq!(error.to_string(), "cispo.beta: expected a number, 0 <= beta <= 1e6, got -1");
    /// # Ok::<(), objective::ParameterError>(())
    /// ```
    pub fn new(loss: L, beta: f64, baseline: Baseline, sampling: Sampling) -> Result<Self, ParameterError> {
        Ok(Self { loss, beta: L::BETA.check(L::METHOD.name, beta)?, baseline, sampling })
    }
}

/// Builds a loss on groups, for the registry.
///
/// # Errors
///
/// [`ParameterError`] for a parameter that is unknown, out of range or without effect.
///
/// # Examples
///
/// ```
/// let luspo = objective::group::build::<objective::luspo::Luspo>(&[("scale".to_owned(), "none".into())].into())?;
/// assert_eq!(luspo.parameters()["scale"], "none".into());
/// # Ok::<(), objective::ParameterError>(())
/// ```
pub fn build<L: GroupLoss + 'static>(given: &Parameters) -> Result<Box<dyn Objective>, ParameterError> {
    let declared = &(L::METHOD.parameters)();
    let reader = Reader::new(L::METHOD.name, declared, given)?;
    let baseline = match declared.contains(&SCALE) {
        true => Baseline::GroupMean(reader.choice(&SCALE)?),
        false => Baseline::LeaveOneOut,
    };
    let sampling = Sampling::read(declared, &reader)?;
    let grouped = Grouped::new(L::read(&reader)?, reader.number(&L::BETA)?, baseline, sampling)?;
    if grouped.beta == 0.0 {
        reader.refuse(&DIVERGENCE, "beta = 0")?;
        reader.refuse(&DIVERGENCE_PLACE, "beta = 0")?;
    }
    let (Estimator::K3, Place::Corrected) = (reader.choice(&DIVERGENCE)?, reader.choice(&DIVERGENCE_PLACE)?);
    Ok(Box::new(grouped))
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
        if self.beta > 0.0 {
            let declared =
                [DIVERGENCE, DIVERGENCE_PLACE].into_iter().filter(|own| (L::METHOD.parameters)().contains(own));
            parameters.extend(declared.map(|own| (own.name.to_owned(), own.default())));
        }
        parameters.extend(self.sampling.parameters(&(L::METHOD.parameters)()));
        parameters
    }

    fn hold(&self, batch: &TokenBatch<'_>, _: &mut ObjectiveState, held: &mut Held) {
        let Held { responses: advantages, tokens: weights, metrics, .. } = held;
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
        self.baseline.subtract(batch, advantages, metrics);
        for (index, &advantage) in advantages.iter().enumerate() {
            let (log_prob, behaviour_log_prob) =
                (batch.log_prob(index), batch.constant(Constant::BehaviourLogProb, index));
            self.loss.hold(&Sampled { advantage, log_prob, behaviour_log_prob, weights: &[] }, weights);
        }
    }

    fn loss(&self, batch: &TokenBatch<'_>, held: &Held, out: &mut Evaluation) {
        let totals = batch.totals();
        let Evaluation { loss, cotangents, metrics, .. } = out;
        for (index, (response, &advantage)) in batch.responses().iter().zip(&held.responses).enumerate() {
            let log_prob = batch.log_prob(index);
            let behaviour_log_prob = batch.constant(Constant::BehaviourLogProb, index);
            let slots = &mut cotangents.log_prob[response.tokens.clone()];
            let share = self.loss.share(log_prob.len(), totals);
            let weights = held.tokens.get(response.tokens.clone()).unwrap_or_default();
            let sampled = Sampled { advantage, log_prob, behaviour_log_prob, weights };
            let ResponseLoss { loss: own, clipped, ratios } = self.loss.response(&sampled, share, slots);
            *loss += own;
            clipped.record(ratios, metrics);

            if self.beta > 0.0 && !L::PENALISES_REWARD {
                let reference = batch.constant(Constant::ReferenceLogProb, index);
                let mut divergence = 0.0;
                let columns = log_prob.iter().zip(behaviour_log_prob).zip(reference);
                for (((&log_prob, &behaviour), &reference), slot) in columns.zip(slots) {
                    let (value, slope) = corrected(log_prob, behaviour, reference);
                    divergence += value;
                    *slot += share * self.beta * slope;
                }
                *loss += share * self.beta * divergence;
                metrics.record(Metric::Kl, divergence);
            }
        }
    }
}

/// A response alone in its group, and responses of equal rewards, have nothing to be compared with:
///
/// ```
/// # use objective::*;
/// # let statistics = TokenStatistics { log_prob: vec![-1.0; 3], ..Default::default() };
/// # let constants = TokenConstants { behaviour_log_prob: vec![-1.0; 3], ..Default::default() };
/// # let grpo = registry::build("grpo", &Parameters::new())?;
/// let responses = [(0, 1.0), (1, 0.3), (1, 0.3)];
/// let responses = [0, 1, 2].map(|n| Response::rewarded(n..n + 1, responses[n].0, responses[n].1));
/// # let totals = StepTotals::of(&responses, &[]);
/// # let batch = TokenBatch::new(&grpo.requirements(), &statistics, &constants, &responses, &[], totals)?;
/// # let mut evaluation = Evaluation::default();
/// grpo.evaluate(&batch, &mut ObjectiveState::default(), &mut evaluation);
/// assert_eq!(evaluation.cotangents.log_prob, [0.0; 3]);
/// assert_eq!(evaluation.metrics.mean(Metric::ZeroAdvantageGroups), Some(1.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl Baseline {
    /// Replaces the rewards of a batch, less their penalties, by advantages.
    fn subtract(self, batch: &TokenBatch<'_>, rewards: &mut [f64], metrics: &mut Metrics) {
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
                metrics.record(Metric::ZeroAdvantageGroups, 1.0);
                metrics.record(Metric::RewardStandardDeviation, 0.0);
                continue;
            }
            // Relative to the first, so that equal rewards have advantages of exactly 0.
            let first = members[0];
            members.iter_mut().for_each(|reward| *reward -= first);
            let mean = members.iter().sum::<f64>() / size as f64;
            let own = deviation(members);
            metrics.record(Metric::ZeroAdvantageGroups, f64::from(members.iter().all(|reward| *reward == 0.0)));
            metrics.record(Metric::RewardStandardDeviation, own);
            let divisor = match self {
                Self::GroupMean(Scale::Group) => own + SCALE_OFFSET,
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
