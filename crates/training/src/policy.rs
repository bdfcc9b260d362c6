//! The trait that the host of a policy implements once, to be trained by every objective.

use enumset::EnumSet;
use objective::{
    Freeze, Pair, Requirements, Response, Statistic, StepTotals, TeacherDivergence, TokenConstants, TokenStatistics,
};

use crate::ranks::Ranks;

/// A differentiable policy: it maps states to token statistics, and pulls cotangents back into a gradient that it
/// stores.
pub trait Policy {
    /// Encoded states of a micro-batch, one for each response token.
    type States;
    /// Results of a forward pass that statistics and the pull-back need.
    type Forward;
    /// Settings and state of the optimizer.
    type Optimizer;
    /// Error of the host.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Computes the policy's distribution at every state.
    ///
    /// # Errors
    ///
    /// An error of the host.
    fn forward(&self, states: &Self::States) -> Result<Self::Forward, Self::Error>;

    /// Fuses the states with the policy's own one-step prediction, (1 − λ) E(s*ₜ) + λ E(s^θₜ), by a gradient-free
    /// forward pass. s^θₜ is the state after the greedy action at s*ₜ₋₁; a response's first state is its own
    /// prediction. λ is in [0, 1].
    ///
    /// # Errors
    ///
    /// An error of the host.
    fn anticipate(&self, states: &Self::States, lambda: f64, freeze: Freeze) -> Result<Self::States, Self::Error>;

    /// Fills the wanted columns of `out` for the actions `tokens`, one for each state, and empties the others. `frozen`
    /// has forward passes of other policies over the same states, if their distributions are needed.
    ///
    /// # Errors
    ///
    /// An error of the host.
    fn statistics(
        &self,
        forward: &Self::Forward,
        frozen: Frozen<'_, Self::Forward>,
        tokens: &[usize],
        wanted: EnumSet<Statistic>,
        out: &mut TokenStatistics,
    ) -> Result<(), Self::Error>;

    /// Pulls the cotangents back and adds the result to the gradient. The other arguments are those that the statistics
    /// were computed from.
    ///
    /// # Formula
    ///
    /// With p the policy's distribution, z its logits, y the action and H the entropy: ∂/∂z log p_y = e_y − p, ∂/∂z
    /// KL(p_ref || p) = p − p_ref, ∂/∂z H = −p (log p + H) and ∂/∂z log Σ p² = 2 (p²/Σ p² − p); [`TeacherDivergence`]
    /// has the derivatives of its divergences. Cotangents of values are pulled back into the value function.
    ///
    /// # Errors
    ///
    /// An error of the host.
    fn pull_back(
        &mut self,
        states: &Self::States,
        forward: Self::Forward,
        frozen: Frozen<'_, Self::Forward>,
        tokens: &[usize],
        cotangents: &TokenStatistics,
    ) -> Result<(), Self::Error>;

    /// The processes that take each step together; `None` if there is only one.
    fn ranks(&self) -> Option<&dyn Ranks<Self::Error>> {
        None
    }

    /// Sums the gradients of all processes. Each process receives the sum.
    ///
    /// # Errors
    ///
    /// An error of the host.
    fn sum_gradient(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Sets the gradient to zero.
    fn clear_gradient(&mut self);

    /// Euclidean norm of the gradient over all parameters.
    ///
    /// # Errors
    ///
    /// An error of the host.
    fn gradient_norm(&self) -> Result<f64, Self::Error>;

    /// Updates the parameters with the gradient times `gradient_scale`.
    ///
    /// # Errors
    ///
    /// An error of the host.
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
    /// Forward pass of the reference policy.
    pub reference: Option<&'a F>,
    /// Forward pass of a teacher, and the divergence from it to compute.
    pub teacher: Option<(&'a F, TeacherDivergence)>,
}

impl<F> Copy for Frozen<'_, F> {}

impl<F> Clone for Frozen<'_, F> {
    fn clone(&self) -> Self {
        *self
    }
}

/// No frozen policy.
impl<F> Default for Frozen<'_, F> {
    fn default() -> Self {
        Self { reference: None, teacher: None }
    }
}

/// The micro-batch type of a policy.
pub type MicroBatchOf<P> = MicroBatch<<P as Policy>::States, <P as Policy>::Forward>;

/// A part of an optimizer step that goes through the policy at once. It has response tokens only; prompts and padding
/// are internal to the host.
#[derive(Clone, Debug, PartialEq)]
pub struct MicroBatch<S, F> {
    /// Encoded states, one for each response token.
    pub states: S,
    /// Forward pass of the frozen reference policy over the states, if a statistic needs its distribution.
    pub reference: Option<F>,
    /// Forward pass of a teacher over the states, if a statistic needs its distribution.
    pub teacher: Option<F>,
    /// Action taken in each state.
    pub tokens: Vec<usize>,
    /// Lengths and groups of the concatenated responses. Groups are numbered throughout the step.
    pub responses: Vec<Response>,
    /// Pairs of responses; empty for demonstrations.
    pub pairs: Vec<Pair>,
    /// Columns that the step does not differentiate.
    pub constants: TokenConstants,
}

impl<S, F> MicroBatch<S, F> {
    /// Forward passes of frozen policies that a step with these requirements reads.
    pub fn frozen(&self, requirements: &Requirements) -> Frozen<'_, F> {
        Frozen { reference: self.reference.as_ref(), teacher: self.teacher.as_ref().zip(requirements.teacher) }
    }

    /// Counts of this micro-batch.
    pub fn totals(&self) -> StepTotals {
        StepTotals::of(&self.responses, &self.pairs)
    }
}
