//! What an objective asks of the host that evaluates it.

use enumset::EnumSet;
use strum::{EnumString, IntoStaticStr, VariantNames};

use crate::columns::{Constant, Statistic};
use crate::sampling::Sampling;

/// What an objective asks of its host.
///
/// A host reads them before it fills a batch:
///
/// ```
/// use objective::{Constant, Data, Objective, Statistic, Tdpo};
///
/// let requirements = Tdpo::default().requirements();
/// assert_eq!(requirements.data, Data::Preferences);
/// assert_eq!(requirements.statistics, Statistic::LogProb | Statistic::ReferenceKl);
/// assert_eq!(requirements.constants, Constant::ReferenceLogProb);
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
    /// Whether the data may weigh their responses, or pairs.
    pub weights: bool,
    /// The divergence from a teacher that a statistic is, where the objective reads one.
    pub teacher: Option<TeacherDivergence>,
    /// Whether the group of each response must be known.
    pub grouped: bool,
    /// Number of rewards a response, where the objective fixes it.
    pub rewards: Option<usize>,
}

impl Requirements {
    /// Given data, uncoupled responses, demonstrated states, and the policy's log-probabilities alone.
    pub fn new(data: Data) -> Self {
        Self {
            data,
            source: Source::Given,
            coupling: Coupling::None,
            anticipation: Anticipation::Off,
            statistics: Statistic::LogProb.into(),
            constants: EnumSet::empty(),
            weights: false,
            teacher: None,
            grouped: false,
            rewards: None,
        }
    }

    /// Whether anything is asked of a teacher.
    pub fn need_teacher(&self) -> bool {
        self.constants.contains(Constant::TeacherLogProb) || self.teacher.is_some()
    }

    /// Whether anything is asked of the frozen reference policy.
    pub fn need_reference(&self) -> bool {
        self.constants.contains(Constant::ReferenceLogProb) || self.statistics.contains(Statistic::ReferenceKl)
    }
}

/// A divergence between the distributions of a teacher and of the policy in one state.
///
/// # Formula
///
/// With q the teacher's distribution, p the policy's, z its logits, m = β q + (1 − β) p, sums over all actions, nats:
///
/// - forward KL: D = Σ q log (q/p), ∂D/∂z = p − q
/// - reverse KL: D = Σ p log (p/q), ∂D/∂z = p (log (p/q) − D)
/// - generalised Jensen-Shannon: D = β Σ q log (q/m) + (1 − β) K with K = Σ p log (p/m),
///   ∂D/∂z = (1 − β) p (log (p/m) − K)
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TeacherDivergence {
    /// KL(teacher || π).
    ForwardKl,
    /// KL(π || teacher).
    ReverseKl,
    /// Generalised Jensen-Shannon divergence.
    JensenShannon {
        /// Weight β of the teacher in the mixture, 0 < β < 1.
        beta: f64,
    },
}

/// What a step is made of.
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
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Source {
    /// A data set.
    Given,
    /// The policy itself, anew every few steps.
    Sampled(Sampling),
}

/// Whether a response's loss depends on the others of the step: optimal transport sorts the scores of all pairs of the
/// step, and a mean over pairs depends on none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coupling {
    /// It does not: the losses of micro-batches add up.
    None,
    /// It does: the host gathers the whole step's columns, evaluates them at once, and pulls each micro-batch's part
    /// back.
    Step,
}

/// Whether the training forward pass reads demonstrated or anticipated states.
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

impl Anticipation {
    /// λ of one step ([`Lambda::at`]); 0 where no state is anticipated.
    ///
    /// ```
    /// use objective::{Anticipation, Freeze, Lambda};
    ///
    /// let lambda = Lambda { least: 0.0, most: 0.5, noise: 0.0 };
    /// assert_eq!(Anticipation::Residual { lambda, freeze: Freeze::None }.at(0.5, 0.0), 0.25);
    /// assert_eq!(Anticipation::Off.at(0.5, 0.0), 0.0);
    /// ```
    pub fn at(self, warmup: f64, draw: f64) -> f64 {
        match self {
            Self::Off => 0.0,
            Self::Residual { lambda, .. } => lambda.at(warmup, draw),
        }
    }
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

impl Lambda {
    /// The same λ at every step.
    pub fn constant(lambda: f64) -> Self {
        Self { least: lambda, most: lambda, noise: 0.0 }
    }

    /// λ + z · noise · λ within [0, 1], at this share of the warm-up, with z drawn from the standard normal
    /// distribution.
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
