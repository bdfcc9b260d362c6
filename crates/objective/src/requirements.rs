//! What an objective asks of the host that evaluates it.

use std::ops::RangeInclusive;

use enumset::{EnumSet, EnumSetType};
use strum::{EnumString, IntoStaticStr, VariantNames};

use crate::sampling::Sampling;

/// The greatest magnitude that a column may hold. It bounds every product below overflow.
pub const MOST: f64 = 1e30;

/// What an objective asks of its host.
///
/// A host reads them before it fills a batch:
///
/// ```
/// use objective::{Constant, Data, Parameters, Statistic, registry};
///
/// let requirements = registry::build("tdpo", &Parameters::new())?.requirements();
/// assert_eq!(requirements.data, Data::Preferences);
/// assert_eq!(requirements.statistics, Statistic::LogProb | Statistic::ReferenceKl);
/// assert_eq!(requirements.constants, Constant::ReferenceLogProb);
/// # Ok::<(), objective::RegistryError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Requirements {
    /// What a step is made of.
    pub data: Data,
    /// Where its responses come from.
    pub source: Source,
    /// Whether a response's loss depends on the others of the step.
    pub coupling: Coupling,
    /// Whether states are fused with the policy's own one-step prediction before the forward pass.
    pub anticipation: Anticipation,
    /// Columns that the policy must fill; the cotangents have the same ones.
    pub statistics: EnumSet<Statistic>,
    /// Columns that must be known before the step.
    pub constants: EnumSet<Constant>,
    /// Whether the group of each response must be known.
    pub grouped: bool,
    /// Number of rewards a response, where the objective fixes it.
    pub rewards: Option<usize>,
}

/// An objective of its own names what it asks for beyond the least:
///
/// ```
/// use objective::{Data, Requirements, Statistic};
///
/// let requirements =
///     Requirements { statistics: Statistic::LogProb | Statistic::Entropy, ..Requirements::new(Data::Demonstrations) };
/// assert!(!requirements.need_reference());
/// ```
impl Requirements {
    /// Given data, uncoupled responses, demonstrated states, and the policy's log-probabilities alone.
    ///
    /// ```
    /// use objective::{Data, Requirements, Source, Statistic};
    ///
    /// let requirements = Requirements::new(Data::Preferences);
    /// assert_eq!((requirements.source, requirements.statistics), (Source::Given, Statistic::LogProb.into()));
    /// assert!(requirements.constants.is_empty());
    /// ```
    pub fn new(data: Data) -> Self {
        Self {
            data,
            source: Source::Given,
            coupling: Coupling::None,
            anticipation: Anticipation::Off,
            statistics: Statistic::LogProb.into(),
            constants: EnumSet::empty(),
            grouped: false,
            rewards: None,
        }
    }

    /// Whether anything is asked of the frozen reference policy.
    ///
    /// Group relative policy optimisation asks for the reference where the divergence from it has a weight:
    ///
    /// ```
    /// use objective::registry;
    ///
    /// let grpo = |beta: f64| registry::build("grpo", &[("beta".to_owned(), beta.into())].into());
    /// assert!(!grpo(0.0)?.requirements().need_reference());
    /// assert!(grpo(0.04)?.requirements().need_reference());
    /// # Ok::<(), objective::RegistryError>(())
    /// ```
    pub fn need_reference(&self) -> bool {
        self.constants.contains(Constant::ReferenceLogProb) || self.statistics.contains(Statistic::ReferenceKl)
    }
}

/// What a step is made of.
///
/// ```
/// use objective::{Data, Parameters, registry};
///
/// let data = |name: &str| registry::build(name, &Parameters::new()).map(|method| method.requirements().data);
/// assert_eq!(data("kto")?, Data::Labelled { mismatched: true });
/// assert_eq!(data("bco")?, Data::Labelled { mismatched: false });
/// assert_eq!(data("rloo")?, Data::Groups);
/// # Ok::<(), objective::RegistryError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Data {
    /// Responses to imitate.
    Demonstrations,
    /// Pairs of a chosen and a rejected response to the same prompt.
    Preferences,
    /// Responses that are desirable or not.
    Labelled {
        /// Whether responses to other prompts than their own stand beside them, which are not learned from.
        mismatched: bool,
    },
    /// Responses with rewards, compared within groups that answer the same prompt.
    Groups,
    /// Responses with advantages.
    Rollouts,
}

/// Where the responses of a step come from.
///
/// ```
/// use objective::{Parameters, Source, registry};
///
/// let source = |name: &str| registry::build(name, &Parameters::new()).map(|method| method.requirements().source);
/// assert_eq!(source("dpo")?, Source::Given);
/// assert!(matches!(source("online_dpo")?, Source::Sampled(_)));
/// # Ok::<(), objective::RegistryError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Source {
    /// A data set.
    Given,
    /// The policy itself, anew every few steps.
    Sampled(Sampling),
}

/// Whether a response's loss depends on the others of the step.
///
/// Optimal transport sorts the scores of all pairs of the step; a mean over pairs does not:
///
/// ```
/// use objective::{Coupling, Parameters, registry};
///
/// assert_eq!(registry::build("dpo", &Parameters::new())?.requirements().coupling, Coupling::None);
/// assert_eq!(registry::build("aot", &Parameters::new())?.requirements().coupling, Coupling::Step);
/// # Ok::<(), objective::RegistryError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coupling {
    /// It does not: the losses of micro-batches add up.
    None,
    /// It does: the host gathers the whole step's columns, evaluates them at once, and pulls each micro-batch's part back.
    Step,
}

/// One differentiable number per response token.
///
/// ```
/// use objective::{Statistic, TokenStatistics};
///
/// let statistics = TokenStatistics { entropy: vec![0.5], ..Default::default() };
/// assert_eq!(statistics.column(Statistic::Entropy), [0.5]);
/// ```
#[derive(Debug, Hash, IntoStaticStr, EnumSetType)]
#[strum(serialize_all = "snake_case")]
pub enum Statistic {
    /// log π(yₜ|sₜ) of the policy in training, nats.
    LogProb,
    /// KL(π_ref || π) at sₜ, the divergence of the policy in training from the frozen reference, nats.
    ReferenceKl,
    /// −Σₐ π(a|sₜ) log π(a|sₜ), nats.
    Entropy,
    /// V(sₜ), the value function's estimate of the return, in units of reward.
    Value,
    /// log Σₐ π(a|sₜ)², nats: the log-probability that two draws from the policy agree.
    LogSumSquareProb,
}

/// One number per response token that the step does not differentiate.
///
/// ```
/// use objective::{Constant, TokenConstants};
///
/// let constants = TokenConstants { advantage: vec![-1.0], ..Default::default() };
/// assert_eq!(constants.column(Constant::Advantage), [-1.0]);
/// ```
#[derive(Debug, Hash, IntoStaticStr, EnumSetType)]
#[strum(serialize_all = "snake_case")]
pub enum Constant {
    /// log π_ref(yₜ|sₜ) of the frozen reference policy, nats.
    ReferenceLogProb,
    /// log π(yₜ|sₜ) that the trainer's own pass of the policy that sampled the response gives, nats.
    BehaviourLogProb,
    /// log π(yₜ|sₜ) that the sampler of the response reported, nats.
    RolloutLogProb,
    /// V(sₜ) when the response was sampled, in units of reward.
    BehaviourValue,
    /// How much better yₜ is than what the policy does at sₜ, usually normalised over the step.
    Advantage,
    /// The return that V(sₜ) is fitted to, in units of reward.
    Return,
    /// Rewards of a response, as many numbers for each response.
    Reward,
}

/// Errors name a column and its range:
///
/// ```
/// use objective::*;
///
/// let responses = [Response::new(0..1)];
/// let statistics = TokenStatistics { log_prob: vec![0.1], ..Default::default() };
/// let (requirements, totals) = (Requirements::new(Data::Demonstrations), StepTotals::of(&responses, &[]));
/// let error =
///     TokenBatch::new(&requirements, &statistics, &TokenConstants::default(), &responses, &[], totals).unwrap_err();
/// assert_eq!(error.to_string(), "log_prob: expected -1e30 to 0e0 at token 0 of response 0, got 0.1");
/// ```
impl Statistic {
    /// The column's name.
    ///
    /// ```
    /// assert_eq!(objective::Statistic::LogSumSquareProb.name(), "log_sum_square_prob");
    /// ```
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// What a batch may hold.
    ///
    /// ```
    /// use objective::Statistic;
    ///
    /// assert!(Statistic::LogProb.range().contains(&0.0) && !Statistic::LogProb.range().contains(&1e-9));
    /// assert!(!Statistic::Entropy.range().contains(&f64::NAN));
    /// ```
    pub fn range(self) -> RangeInclusive<f64> {
        match self {
            Statistic::LogProb => -MOST..=0.0,
            Statistic::ReferenceKl | Statistic::Entropy => 0.0..=MOST,
            Statistic::Value => -MOST..=MOST,
            // No distribution over fewer than 2⁹² outcomes is flatter.
            Statistic::LogSumSquareProb => -64.0..=0.0,
        }
    }
}

/// Constants are filled by name, once, before the step:
///
/// ```
/// use objective::{Constant, TokenConstants};
///
/// let mut constants = TokenConstants::default();
/// for constant in Constant::BehaviourLogProb | Constant::Advantage {
///     constants.column_mut(constant).push(-0.5);
///     assert!(constant.range().contains(&-0.5));
/// }
/// assert_eq!((constants.behaviour_log_prob, constants.advantage), (vec![-0.5], vec![-0.5]));
/// ```
impl Constant {
    /// The column's name.
    ///
    /// ```
    /// assert_eq!(objective::Constant::ReferenceLogProb.name(), "reference_log_prob");
    /// ```
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// What a batch may hold.
    ///
    /// ```
    /// use objective::Constant;
    ///
    /// assert!(Constant::Return.range().contains(&3.5));
    /// assert!(!Constant::BehaviourLogProb.range().contains(&3.5));
    /// ```
    pub fn range(self) -> RangeInclusive<f64> {
        match self {
            Constant::ReferenceLogProb | Constant::BehaviourLogProb | Constant::RolloutLogProb => -MOST..=0.0,
            Constant::BehaviourValue | Constant::Advantage | Constant::Return | Constant::Reward => -MOST..=MOST,
        }
    }
}

/// Whether the training forward pass reads demonstrated or anticipated states.
///
/// ```
/// use objective::{Anticipation, Freeze, Lambda, Parameters, registry};
///
/// let ift = registry::build("ift", &Parameters::new())?;
/// let residual = Anticipation::Residual { lambda: Lambda::constant(0.2), freeze: Freeze::None };
/// assert_eq!(ift.requirements().anticipation, residual);
/// # Ok::<(), objective::RegistryError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Anticipation {
    /// Demonstrated states.
    Off,
    /// (1 − λ) E(s*ₜ) + λ E(s^θₜ): the demonstrated state's encoding fused with that of the state to which the policy's
    /// greedy action at s*ₜ₋₁ leads.
    Residual {
        /// λ, the weight of the policy's own prediction.
        lambda: Lambda,
        /// Which encodings pass no gradient.
        freeze: Freeze,
    },
}

/// λ over a run: it rises along a line from `least` to `most` while the learning rate warms up, and then stays.
///
/// ```
/// let lambda = objective::Lambda { least: 0.0, most: 0.5, noise: 0.0 };
/// assert_eq!([0.0, 0.5, 1.0].map(|warmup| lambda.at(warmup, 0.0)), [0.0, 0.25, 0.5]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lambda {
    /// At the first step, in [0, 1].
    pub least: f64,
    /// After the warm-up, in [0, 1].
    pub most: f64,
    /// Standard deviation of its noise, as a share of λ.
    pub noise: f64,
}

/// Noise is a share of λ: where λ is 0, so is its noise.
///
/// ```
/// let lambda = objective::Lambda { least: 0.0, most: 0.5, noise: 0.5 };
/// assert_eq!([0.0, 1.0].map(|warmup| lambda.at(warmup, 1.0)), [0.0, 0.75]);
/// ```
impl Lambda {
    /// The same λ at every step.
    ///
    /// ```
    /// let lambda = objective::Lambda::constant(0.2);
    /// assert_eq!([0.0, 1.0].map(|warmup| lambda.at(warmup, 3.0)), [0.2, 0.2]);
    /// ```
    pub fn constant(lambda: f64) -> Self {
        Self { least: lambda, most: lambda, noise: 0.0 }
    }

    /// λ + z · noise · λ within [0, 1], at this share of the warm-up, with z drawn from the standard normal distribution.
    ///
    /// ```
    /// let lambda = objective::Lambda { least: 0.5, most: 0.5, noise: 0.5 };
    /// assert_eq!([-4.0, -1.0, 0.0, 4.0].map(|draw| lambda.at(1.0, draw)), [0.0, 0.25, 0.5, 1.0]);
    /// ```
    pub fn at(self, warmup: f64, draw: f64) -> f64 {
        let lambda = self.least + (self.most - self.least) * warmup;
        (lambda + draw * self.noise * lambda).clamp(0.0, 1.0)
    }
}

/// Which encodings of an anticipated state pass no gradient.
///
/// ```
/// let given = [("freeze_embeddings".to_owned(), "half".into())].into();
/// let error = objective::registry::build("ift", &given).unwrap_err();
/// assert_eq!(error.to_string(), r#"ift.freeze_embeddings: expected one of none, anticipated, all, got "half""#);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Freeze {
    /// Both encodings learn.
    None,
    /// A stop-gradient on E(s^θₜ) alone.
    Anticipated,
    /// A stop-gradient on both encodings.
    All,
}
