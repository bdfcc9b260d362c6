//! Requirements of an objective for the host that evaluates it.

use enumset::EnumSet;
use strum::{EnumString, IntoStaticStr, VariantNames};

use crate::columns::{Constant, Statistic};
use crate::sampling::Sampling;

/// Requirements of an objective for its host.
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
    /// Kind of the data.
    pub data: Data,
    /// Origin of the responses.
    pub source: Source,
    /// Whether a response's loss depends on the others of the step.
    pub coupling: Coupling,
    /// Whether states are fused with the policy's own one-step prediction before the forward pass.
    pub anticipation: Anticipation,
    /// Columns that the policy must fill; the cotangents have the same columns.
    pub statistics: EnumSet<Statistic>,
    /// Columns that must be known before the step.
    pub constants: EnumSet<Constant>,
    /// Whether the data may have weights of responses or pairs.
    pub weights: bool,
    /// The divergence that the teacher's statistic contains, if the objective reads one.
    pub teacher: Option<TeacherDivergence>,
    /// Whether the group of each response must be known.
    pub grouped: bool,
    /// Number of rewards per response, if the objective fixes it.
    pub rewards: Option<usize>,
}

impl Requirements {
    /// Requirements of given data, uncoupled responses, demonstrated states, and only the policy's log-probabilities.
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

    /// Whether the objective needs a teacher.
    pub fn need_teacher(&self) -> bool {
        self.constants.contains(Constant::TeacherLogProb) || self.teacher.is_some()
    }

    /// Whether the objective needs the frozen reference policy.
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
    /// Forward divergence KL(teacher || π).
    ForwardKl,
    /// Reverse divergence KL(π || teacher).
    ReverseKl,
    /// Generalised Jensen-Shannon divergence.
    JensenShannon {
        /// Weight β of the teacher in the mixture, 0 < β < 1.
        beta: f64,
    },
}

/// Kind of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Data {
    /// Responses to imitate.
    Demonstrations,
    /// Pairs of a chosen and a rejected response to the same prompt.
    Preferences,
    /// Responses labelled as desirable or undesirable.
    Labelled {
        /// Whether the step also has mismatched responses, which follow other prompts and are not learned from.
        mismatched: bool,
    },
    /// Responses with rewards, compared within groups of responses to the same prompt.
    Groups,
    /// Responses with advantages.
    Rollouts,
}

/// Origin of the responses of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Source {
    /// A data set.
    Given,
    /// The policy itself, with new samples every few steps.
    Sampled(Sampling),
}

/// Whether a response's loss depends on the other responses of the step, as in optimal transport, which sorts the
/// scores of all pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coupling {
    /// Uncoupled: the losses of micro-batches add up.
    None,
    /// Coupled: the host gathers the whole step's columns, evaluates them at once, and pulls each micro-batch's part
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
        /// Weight λ of the policy's own prediction.
        lambda: Lambda,
        /// Encodings through which no gradient passes.
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

/// λ over a run: it rises linearly from `least` to `most` while the learning rate warms up, and is then constant.
///
/// ```
/// let lambda = objective::Lambda { least: 0.0, most: 0.5, noise: 0.0 };
/// assert_eq!([0.0, 0.5, 1.0].map(|warmup| lambda.at(warmup, 0.0)), [0.0, 0.25, 0.5]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lambda {
    /// λ at the first step, in [0, 1].
    pub least: f64,
    /// λ after the warm-up, in [0, 1].
    pub most: f64,
    /// Standard deviation of the noise, as a fraction of λ.
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

/// Encodings of an anticipated state through which no gradient passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Freeze {
    /// Neither encoding.
    None,
    /// A stop-gradient on E(s^θₜ) alone.
    Anticipated,
    /// A stop-gradient on both encodings.
    All,
}
