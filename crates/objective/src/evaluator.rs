//! The main entry point: an objective with its state and buffers, evaluated on borrowed data.

use crate::Objective;
use crate::batch::{BatchError, Pair, Response, StepTotals, TokenBatch};
use crate::data::TrainingData;
use crate::evaluation::{Evaluation, Metrics};
use crate::held::Held;
use crate::parameter::ParameterError;
use crate::requirements::{Data, Requirements};
use crate::state::ObjectiveState;

/// The kind of data that an objective learns from.
pub trait LearnsFrom {
    /// The data type: [`Demonstrations`](crate::Demonstrations), [`Pairs`](crate::Pairs),
    /// [`Labelled`](crate::Labelled), [`Groups`](crate::Groups), [`Rollouts`](crate::Rollouts), or any of them
    /// ([`Batch`](crate::Batch)).
    type Data<'a>: TrainingData;
}

impl LearnsFrom for Box<dyn Objective> {
    type Data<'a> = crate::Batch<'a>;
}

/// An objective with validated parameters, its state between steps, and its buffers.
///
/// Nothing is allocated once the buffers have grown.
///
/// ```
/// use objective::{Dpo, Pairs, Side};
///
/// let mut dpo = Dpo { beta: 0.5, ..Dpo::default() }.evaluator()?;
/// let side = Side { log_prob: &[-1.0], reference_log_prob: &[-1.0], ..Side::of(&[1]) };
/// assert_eq!(dpo.evaluate(&Pairs { chosen: side, rejected: side })?.loss, 2.0_f64.ln());
///
/// let error = Dpo { beta: -0.5, ..Dpo::default() }.evaluator().unwrap_err();
/// assert_eq!(error.to_string(), "dpo.beta: expected a number, 1e-9 <= beta <= 1e6, got -0.5");
/// Ok::<(), objective::Error>(())
/// ```
#[derive(Debug)]
pub struct Evaluator<O> {
    objective: O,
    requirements: Requirements,
    state: ObjectiveState,
    totals: Option<StepTotals>,
    evaluation: Evaluation,
    responses: Vec<Response>,
    pairs: Vec<Pair>,
}

/// A loss, its cotangents and metrics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answer<'a, C> {
    /// Contribution of the batch to the step's loss.
    pub loss: f64,
    /// Cotangents ∂loss/∂statistic of each response token.
    pub cotangents: C,
    /// Metrics of the batch.
    pub metrics: &'a Metrics,
}

/// Result type of [`Evaluator::evaluate`] for this objective.
pub type AnswerOf<'a, 'd, O> = Answer<'a, <<O as LearnsFrom>::Data<'d> as TrainingData>::Cotangents<'a>>;

impl<O: Objective + LearnsFrom> Evaluator<O> {
    /// Makes an evaluator in the objective's initial state.
    ///
    /// # Errors
    ///
    /// [`ParameterError`] for a parameter that is out of range or without effect under the others.
    pub fn new(objective: O) -> Result<Self, ParameterError> {
        objective.check()?;
        Ok(Self {
            requirements: objective.requirements(),
            objective,
            state: ObjectiveState::default(),
            totals: None,
            evaluation: Evaluation::default(),
            responses: Vec::new(),
            pairs: Vec::new(),
        })
    }

    /// Evaluates a batch, which is a whole step unless [`of_step`](Self::of_step) sets other totals.
    ///
    /// # Errors
    ///
    /// [`BatchError`] for data that do not fit the objective or one another; the objective's state is then unchanged.
    pub fn evaluate<'d>(&mut self, data: &O::Data<'d>) -> Result<AnswerOf<'_, 'd, O>, BatchError> {
        self.answer(data, None)
    }

    /// Evaluates a batch with the held numbers of another evaluation. The cotangents are the derivatives of this loss.
    ///
    /// Dynamic fine-tuning weights a token by its probability, which is held; with the weights of log π = −1 the loss
    /// is linear:
    ///
    /// ```
    /// use objective::{Demonstrations, Sft, Side, TokenWeighting};
    ///
    /// let at = |log_prob| Demonstrations(Side { log_prob, ..Side::of(&[1]) });
    /// let mut sft = Sft { weighting: TokenWeighting::Dft, ..Sft::default() }.evaluator()?;
    /// let slope = sft.evaluate(&at(&[-1.0]))?.cotangents.log_prob[0];
    /// let held = sft.held().clone();
    /// let difference = sft.evaluate_held(&at(&[-0.5]), &held)?.loss - sft.evaluate_held(&at(&[-1.5]), &held)?.loss;
    /// assert!((difference - slope).abs() < 1e-12);
    /// Ok::<(), objective::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`evaluate`](Self::evaluate).
    pub fn evaluate_held<'d>(&mut self, data: &O::Data<'d>, held: &Held) -> Result<AnswerOf<'_, 'd, O>, BatchError> {
        self.answer(data, Some(held))
    }

    /// Sets the counts of the whole step for the next evaluation, whose batch is a part of the step.
    pub fn of_step(&mut self, totals: StepTotals) -> &mut Self {
        self.totals = Some(totals);
        self
    }

    /// Borrows the objective.
    pub fn objective(&self) -> &O {
        &self.objective
    }

    /// Numbers behind a stop-gradient in the last evaluation.
    pub fn held(&self) -> &Held {
        &self.evaluation.held
    }

    /// State of the objective between steps.
    pub fn state(&self) -> &ObjectiveState {
        &self.state
    }

    /// State of the objective, to be restored from a checkpoint.
    pub fn state_mut(&mut self) -> &mut ObjectiveState {
        &mut self.state
    }

    fn answer<'d>(&mut self, data: &O::Data<'d>, held: Option<&Held>) -> Result<AnswerOf<'_, 'd, O>, BatchError> {
        let Self { objective, requirements, state, totals, evaluation, responses, pairs } = self;
        let data = data.batch();
        let expected = requirements.data;
        // Rollouts are accepted for groups without known groups and rewards.
        let fits = expected == Data::Rollouts && data.kind() == <&str>::from(Data::Groups);
        if <&str>::from(expected) != data.kind() && !fits {
            return Err(BatchError::Kind { expected, given: data.kind() });
        }
        let layout = data.lay_out(responses, pairs)?;
        let first = layout.first_tokens();
        let batch = TokenBatch::new(requirements, &layout, totals.take())?;
        match held {
            None => evaluation.evaluate(objective, &batch, state),
            Some(held) => evaluation.evaluate_held(objective, &batch, held),
        }
        let Evaluation { loss, cotangents, metrics, .. } = evaluation;
        Ok(Answer { loss: *loss, cotangents: O::Data::arrange(cotangents.cotangents(), first), metrics })
    }
}
