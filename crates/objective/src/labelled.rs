//! What losses on desirable and undesirable responses share: rewards, their shift, cotangents, metrics.
//!
//! With r = β (log π − log π_ref) a response's reward, b the shift and w the weight of its label, the mean over the step's
//! labelled responses of w ℓ(r − b) for desirable and w ℓ(b − r) for undesirable ones; a [`LabelLoss`] says what ℓ, b and w
//! are. No gradient passes through b.

use crate::Objective;
use crate::batch::{Feedback, TokenBatch};
use crate::evaluation::{Evaluation, Metric, Metrics, add};
use crate::held::Held;
use crate::method::Method;
use crate::numerics::sum;
use crate::parameter::{ParameterError, Parameters, Reader};
use crate::preference::BETA;
use crate::requirements::{Constant, Coupling, Data, Requirements};
use crate::state::ObjectiveState;

/// The rewards of a step, from which a loss takes their shift.
///
/// KTO takes its shift from the mismatched responses, BCO from the labelled ones:
///
/// ```
/// use objective::ObjectiveState;
/// use objective::labelled::{LabelLoss, Rewards};
///
/// let rewards = Rewards { count: 4, mean: 0.25, mismatched: 0.5 };
/// let mut state = ObjectiveState::default();
/// assert_eq!(objective::kto::Kto::new(1.0, 1.0)?.shift(&rewards, &mut state), 0.5);
/// assert_eq!(objective::bco::Bco.shift(&rewards, &mut state), 0.25);
/// # Ok::<(), objective::ParameterError>(())
/// ```
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
///
/// A loss that the registry does not have, a hinge on rewards:
///
/// ```
/// use objective::labelled::{LabelLoss, Labelled, Rewards, build};
/// use objective::parameter::{ParameterError, Reader};
/// use objective::{Coupling, Data, Method, Objective, ObjectiveState, preference::BETA};
///
/// #[derive(Debug)]
/// struct LabelHinge;
///
/// impl LabelLoss for LabelHinge {
///     const METHOD: Method = Method {
///         name: "label_hinge",
///         summary: "what rewards fall short of 1 or exceed -1",
///         source: "C. Cortes and V. Vapnik, 1995",
///         parameters: &[BETA],
///         build: build::<LabelHinge>,
///     };
///     const COUPLING: Coupling = Coupling::None;
///     const MISMATCHED: bool = false;
///
///     fn read(_: &Reader<'_>) -> Result<Self, ParameterError> {
///         Ok(Self)
///     }
///
///     fn shift(&self, _: &Rewards, _: &mut ObjectiveState) -> f64 {
///         0.0
///     }
///
///     fn loss(&self, margin: f64) -> (f64, f64) {
///         ((1.0 - margin).max(0.0), if margin < 1.0 { -1.0 } else { 0.0 })
///     }
/// }
///
/// let objective = Labelled::new(LabelHinge, 0.5)?;
/// assert_eq!(objective.requirements().data, Data::Labelled { mismatched: false });
/// assert_eq!([0.25, 2.0].map(|margin| LabelHinge.loss(margin)), [(0.75, -1.0), (0.0, 0.0)]);
/// # Ok::<(), ParameterError>(())
/// ```
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
    ///
    /// # Examples
    ///
    /// ```
    /// use objective::kto::{Kto, METHOD};
    /// use objective::labelled::LabelLoss;
    /// use objective::parameter::{Parameters, Reader};
    ///
    /// let given = Parameters::from([("desirable_weight".to_owned(), 1.5.into())]);
    /// assert_eq!(Kto::read(&Reader::new(METHOD.name, METHOD.parameters, &given)?)?, Kto::new(1.5, 1.0)?);
    /// # Ok::<(), objective::ParameterError>(())
    /// ```
    fn read(reader: &Reader<'_>) -> Result<Self, ParameterError>;

    /// Its own parameters in force.
    ///
    /// β is not among them:
    ///
    /// ```
    /// use objective::labelled::LabelLoss;
    ///
    /// let names: Vec<_> = objective::kto::Kto::new(1.5, 1.0)?.own_parameters().into_keys().collect();
    /// assert_eq!(names, ["desirable_weight", "undesirable_weight"]);
    /// # Ok::<(), objective::ParameterError>(())
    /// ```
    fn own_parameters(&self) -> Parameters {
        Parameters::new()
    }

    /// What a label counts.
    ///
    /// ```
    /// use objective::labelled::LabelLoss;
    ///
    /// let kto = objective::kto::Kto::new(1.5, 0.5)?;
    /// assert_eq!((kto.weight(true), kto.weight(false)), (1.5, 0.5));
    /// # Ok::<(), objective::ParameterError>(())
    /// ```
    fn weight(&self, _desirable: bool) -> f64 {
        1.0
    }

    /// The shift b of this step's rewards; a constant to the gradient.
    ///
    /// ```
    /// use objective::ObjectiveState;
    /// use objective::labelled::{LabelLoss, Rewards};
    ///
    /// let rewards = Rewards { count: 1, mean: 0.0, mismatched: -0.5 };
    /// let shift = objective::kto::Kto::new(1.0, 1.0)?.shift(&rewards, &mut ObjectiveState::default());
    /// assert_eq!(shift, 0.0); // a divergence is not negative
    /// # Ok::<(), objective::ParameterError>(())
    /// ```
    fn shift(&self, rewards: &Rewards, state: &mut ObjectiveState) -> f64;

    /// ℓ and its derivative, finite for all finite arguments.
    ///
    /// ```
    /// use objective::labelled::LabelLoss;
    ///
    /// assert_eq!(objective::bco::Bco.loss(0.0), (std::f64::consts::LN_2, -0.5));
    /// assert_eq!(objective::bco::Bco.loss(-1e300), (1e300, -1.0));
    /// ```
    fn loss(&self, margin: f64) -> (f64, f64);

    /// Metrics of this loss alone.
    ///
    /// KTO's shift is β times an estimate of the divergence from the reference:
    ///
    /// ```
    /// use objective::labelled::LabelLoss;
    /// use objective::{Metric, Metrics};
    ///
    /// let mut metrics = Metrics::default();
    /// objective::kto::Kto::new(1.0, 1.0)?.record(0.5, 0.25, &mut metrics);
    /// assert_eq!(metrics.mean(Metric::Kl), Some(0.5));
    /// # Ok::<(), objective::ParameterError>(())
    /// ```
    fn record(&self, _beta: f64, _shift: f64, _metrics: &mut Metrics) {}
}

/// The mean over the step's labelled responses of a loss on their rewards.
///
/// At the reference the desirable and the undesirable response have the same loss and opposite cotangents:
///
/// ```
/// # use objective::{labelled::*, *};
/// # let statistics = TokenStatistics { log_prob: vec![-1.0, -2.0], ..Default::default() };
/// # let constants = TokenConstants { reference_log_prob: vec![-1.0, -2.0], ..Default::default() };
/// let responses = [Response::labelled(0..1, true), Response::labelled(1..2, false)];
/// # let totals = StepTotals::of(&responses, &[]);
/// let apo = Labelled::new(apo_zero_unpaired::ApoZeroUnpaired::new(1.0, 1.0)?, 1.0)?;
/// # let batch = TokenBatch::new(&apo.requirements(), &statistics, &constants, &responses, &[], totals)?;
/// # let mut evaluation = Evaluation::default();
/// apo.evaluate(&batch, &mut ObjectiveState::default(), &mut evaluation);
/// assert_eq!((evaluation.loss, evaluation.cotangents.log_prob), (0.5, vec![-0.125, 0.125]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Labelled<L> {
    loss: L,
    /// Per nat.
    beta: f64,
}

/// ```
/// use objective::labelled::Labelled;
/// use objective::{Coupling, Objective};
///
/// let bco = Labelled::new(objective::bco::Bco, 0.5)?;
/// assert_eq!(bco.parameters(), [("beta".to_owned(), 0.5.into())].into());
/// assert_eq!(bco.requirements().coupling, Coupling::Step);
/// # Ok::<(), objective::ParameterError>(())
/// ```
impl<L: LabelLoss> Labelled<L> {
    /// A loss with the scale β of its rewards.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] for a value out of its range.
    ///
    /// # Examples
    ///
    /// ```
    /// let error = objective::labelled::Labelled::new(objective::bco::Bco, 0.0).unwrap_err();
    /// assert_eq!(error.to_string(), "bco.beta: expected a number, 1e-9 <= beta <= 1e6, got 0");
    /// ```
    pub fn new(loss: L, beta: f64) -> Result<Self, ParameterError> {
        Ok(Self { loss, beta: BETA.check(L::METHOD.name, beta)? })
    }
}

/// Builds a loss on labelled responses, for the registry.
///
/// # Errors
///
/// [`ParameterError`] for a parameter that is unknown, out of range or without effect.
///
/// # Examples
///
/// ```
/// let bco = objective::labelled::build::<objective::bco::Bco>(&objective::Parameters::new())?;
/// assert_eq!(bco.parameters()["beta"], 0.1.into());
/// # Ok::<(), objective::ParameterError>(())
/// ```
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

    fn hold(&self, batch: &TokenBatch<'_>, state: &mut ObjectiveState, held: &mut Held) {
        let shift = self.loss.shift(&self.summarise(batch), state);
        held.responses.push(shift);
        self.loss.record(self.beta, shift, &mut held.metrics);
    }

    fn loss(&self, batch: &TokenBatch<'_>, held: &Held, out: &mut Evaluation) {
        let Evaluation { loss, cotangents, metrics, .. } = out;
        let shift = held.responses[0];
        let share = 1.0 / batch.totals().responses as f64;
        for (index, response) in batch.responses().iter().enumerate() {
            let (desirable, sign) = match response.feedback {
                Feedback::Desirable => (true, 1.0),
                Feedback::Undesirable => (false, -1.0),
                Feedback::Mismatched | Feedback::None | Feedback::Reward { .. } => continue,
            };
            let reward = self.beta * batch.log_ratio(index);
            let weight = share * self.loss.weight(desirable);
            let (value, slope) = self.loss.loss(sign * (reward - shift));
            *loss += weight * value;
            add(&mut cotangents.log_prob[response.tokens.clone()], weight * sign * self.beta * slope);

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
    }
}

/// Rewards of labelled and of mismatched responses are averaged apart:
///
/// ```
/// # use objective::*;
/// # let (kto, mismatched) = (registry::build("kto", &Parameters::new())?, Feedback::Mismatched);
/// let responses = [
///     Response::labelled(0..1, true),
///     Response { tokens: 1..2, feedback: mismatched },
///     Response { tokens: 2..3, feedback: mismatched },
/// ];
/// let statistics = TokenStatistics { log_prob: vec![-1.0, -1.0, -1.0], ..Default::default() };
/// let constants = TokenConstants { reference_log_prob: vec![-5.0, -1.5, -2.5], ..Default::default() };
/// # let totals = StepTotals::of(&responses, &[]);
/// # let batch = TokenBatch::new(&kto.requirements(), &statistics, &constants, &responses, &[], totals)?;
/// # let mut evaluation = Evaluation::default();
/// kto.evaluate(&batch, &mut ObjectiveState::default(), &mut evaluation);
/// assert!((evaluation.metrics.mean(Metric::Kl).unwrap_or_default() - 1.0).abs() < 1e-12); // (½ + 1½) / 2
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl<L> Labelled<L> {
    fn summarise(&self, batch: &TokenBatch<'_>) -> Rewards {
        let (mut sums, mut counts) = ([0.0; 2], [0; 2]);
        for (index, response) in batch.responses().iter().enumerate() {
            let kind = usize::from(!response.is_learned());
            sums[kind] += self.beta * batch.log_ratio(index);
            counts[kind] += 1;
        }
        let [count, mismatched] = counts;
        Rewards { count, mean: sums[0] / count.max(1) as f64, mismatched: sums[1] / mismatched.max(1) as f64 }
    }
}
