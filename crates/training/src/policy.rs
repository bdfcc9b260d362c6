//! What the host of a policy implements, once, to be trained by every objective.

use enumset::EnumSet;
use objective::{
    Freeze, Pair, Requirements, Response, Statistic, StepTotals, TeacherDivergence, TokenConstants, TokenStatistics,
};

use crate::ranks::Ranks;

/// A differentiable policy: states in, token statistics out, cotangents back into a gradient that it keeps.
pub trait Policy {
    /// Encoded states of a micro-batch, one for each response token.
    type States;
    /// What a forward pass keeps for its statistics and its pull-back.
    type Forward;
    /// The optimizer's settings and state.
    type Optimizer;
    /// Why the host failed.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The policy's distribution at every state.
    ///
    /// # Errors
    ///
    /// The host's own.
    fn forward(&self, states: &Self::States) -> Result<Self::Forward, Self::Error>;

    /// The states fused with the policy's own one-step prediction, (1 − λ) E(s*ₜ) + λ E(s^θₜ), by a gradient-free forward.
    /// s^θₜ is where the greedy action at s*ₜ₋₁ leads; a response's first state anticipates itself. λ is in [0, 1].
    ///
    /// # Errors
    ///
    /// The host's own.
    fn anticipate(&self, states: &Self::States, lambda: f64, freeze: Freeze) -> Result<Self::States, Self::Error>;

    /// Fills the wanted columns of `out` for the actions `tokens`, one for each state; leaves the others empty.
    /// `frozen` has the forward passes of other policies over the same states, present where their distributions are
    /// wanted.
    ///
    /// # Errors
    ///
    /// The host's own.
    fn statistics(
        &self,
        forward: &Self::Forward,
        frozen: Frozen<'_, Self::Forward>,
        tokens: &[usize],
        wanted: EnumSet<Statistic>,
        out: &mut TokenStatistics,
    ) -> Result<(), Self::Error>;

    /// Adds the pulled-back cotangents to the gradient. The other arguments are those that the statistics came from.
    ///
    /// # Formula
    ///
    /// With p the policy's distribution, z its logits, y the action and H the entropy: ∂/∂z log p_y = e_y − p, ∂/∂z
    /// KL(p_ref || p) = p − p_ref, ∂/∂z H = −p (log p + H) and ∂/∂z log Σ p² = 2 (p²/Σ p² − p); [`TeacherDivergence`]
    /// has those of a teacher's. What is pulled back from values goes to the value function.
    ///
    /// # Errors
    ///
    /// The host's own.
    fn pull_back(
        &mut self,
        states: &Self::States,
        forward: Self::Forward,
        frozen: Frozen<'_, Self::Forward>,
        tokens: &[usize],
        cotangents: &TokenStatistics,
    ) -> Result<(), Self::Error>;

    /// The processes that take each step together; none where this one is alone.
    fn ranks(&self) -> Option<&dyn Ranks<Self::Error>> {
        None
    }

    /// Adds the gradients of all processes up, in each of them.
    ///
    /// # Errors
    ///
    /// The host's own.
    fn sum_gradient(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Sets the gradient to zero.
    fn clear_gradient(&mut self);

    /// The Euclidean norm of the gradient over all parameters.
    ///
    /// # Errors
    ///
    /// The host's own.
    fn gradient_norm(&self) -> Result<f64, Self::Error>;

    /// One optimizer step along the gradient times `gradient_scale`.
    ///
    /// # Errors
    ///
    /// The host's own.
    fn update(
        &mut self,
        optimizer: &mut Self::Optimizer,
        learning_rate: f64,
        gradient_scale: f64,
    ) -> Result<(), Self::Error>;
}

/// Forward passes of frozen policies over the states of a micro-batch.
#[derive(Debug)]
pub struct Frozen<'a, F> {
    /// That of the reference policy.
    pub reference: Option<&'a F>,
    /// That of a teacher, and the policy's divergence from it that is wanted.
    pub teacher: Option<(&'a F, TeacherDivergence)>,
}

impl<F> Copy for Frozen<'_, F> {}

impl<F> Clone for Frozen<'_, F> {
    fn clone(&self) -> Self {
        *self
    }
}

/// None.
impl<F> Default for Frozen<'_, F> {
    fn default() -> Self {
        Self { reference: None, teacher: None }
    }
}

/// The micro-batches of a policy.
pub type MicroBatchOf<P> = MicroBatch<<P as Policy>::States, <P as Policy>::Forward>;

/// A part of an optimizer step that goes through the policy at once. Response tokens only: prompts and padding are the
/// host's affair.
#[derive(Clone, Debug, PartialEq)]
pub struct MicroBatch<S, F> {
    /// Encoded states, one for each response token.
    pub states: S,
    /// The frozen reference policy's forward pass over the states, where a statistic needs its distribution.
    pub reference: Option<F>,
    /// A teacher's forward pass over the states, where a statistic needs its distribution.
    pub teacher: Option<F>,
    /// The action taken in each state.
    pub tokens: Vec<usize>,
    /// Responses, one behind the other. Groups are numbered through the step.
    pub responses: Vec<Response>,
    /// Pairs of responses; empty for demonstrations.
    pub pairs: Vec<Pair>,
    /// Columns that the step does not differentiate.
    pub constants: TokenConstants,
}

impl<S, F> MicroBatch<S, F> {
    /// What a step with these requirements reads of frozen policies.
    pub fn frozen(&self, requirements: &Requirements) -> Frozen<'_, F> {
        Frozen { reference: self.reference.as_ref(), teacher: self.teacher.as_ref().zip(requirements.teacher) }
    }

    /// The micro-batch's own counts.
    pub fn totals(&self) -> StepTotals {
        StepTotals::of(&self.responses, &self.pairs)
    }
}
