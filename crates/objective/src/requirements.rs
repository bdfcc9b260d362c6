//! What an objective asks of the host that evaluates it.

use strum::{EnumString, IntoStaticStr, VariantNames};

/// What an objective asks of its host.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Requirements {
    /// What a step is made of.
    pub data: Data,
    /// Whether states are fused with the policy's own one-step prediction before the forward pass.
    pub anticipation: Anticipation,
    /// Columns that the policy must fill; the cotangents have the same ones.
    pub statistics: &'static [Statistic],
    /// Columns that must be known before the step.
    pub constants: &'static [Constant],
}

/// What a step is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Data {
    /// Responses to imitate.
    Demonstrations,
    /// Pairs of a chosen and a rejected response to the same prompt.
    Preferences,
}

/// One differentiable number per response token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Statistic {
    /// log π(yₜ|sₜ) of the policy in training, nats.
    LogProb,
}

/// One number per response token that the step does not differentiate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Constant {
    /// log π_ref(yₜ|sₜ) of the frozen reference policy, nats.
    ReferenceLogProb,
}

impl Statistic {
    /// Every statistic.
    pub const ALL: &'static [Statistic] = &[Statistic::LogProb];

    /// The column's name.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

impl Constant {
    /// Every constant.
    pub const ALL: &'static [Constant] = &[Constant::ReferenceLogProb];

    /// The column's name.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// Whether the training forward pass reads demonstrated or anticipated states.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Anticipation {
    /// Demonstrated states.
    Off,
    /// (1 − λ) E(s*ₜ) + λ E(s^θₜ): the demonstrated state's encoding fused with that of the state to which the policy's
    /// greedy action at s*ₜ₋₁ leads.
    Residual {
        /// λ, the weight of the policy's own prediction, in [0, 1].
        lambda: f64,
        /// Which encodings pass no gradient.
        freeze: Freeze,
    },
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
