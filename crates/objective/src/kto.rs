//! Kahneman-Tversky optimisation: the value of a response against what the policy does elsewhere.
//!
//! # Formula
//!
//! With r = β (log π − log π_ref) summed over a response, and z₀ = max(0, mean of log π − log π_ref over the step's mismatched
//! responses), nats, an estimate of KL(π || π_ref), mean over the step's labelled responses:
//!
//! - desirable: w_D (1 − σ(r − β z₀))
//! - undesirable: w_U (1 − σ(β z₀ − r))
//!
//! Cotangent: ∓ w β σ(x) σ(−x) with x the argument of σ. z₀ passes no gradient; it couples the responses of a step.
//!
//! # Source
//!
//! K. Ethayarajh et al., "KTO: Model Alignment as Prospect Theoretic Optimization", arXiv 2402.01306, equation 7.
//!
//! # Departures
//!
//! The mean is over the whole step, not over the micro-batch (TRL: over the micro-batches that lie on different devices at the
//! same time). [`mismatches`](crate::labelled::mismatches) never puts a prompt beside its own response, and is at home with odd
//! numbers.
//!
//! # Examples
//!
//! β = 1, r = ½ desirable, z₀ = ½: x = 0, L = ½, cotangent −¼.
//!
//! ```
//! # use objective::*;
//! let responses = [
//!     Response::labelled(0..1, true),
//!     Response { tokens: 1..2, feedback: Feedback::Mismatched },
//! ];
//! # let statistics = TokenStatistics { log_prob: vec![-1.0, -1.0], ..Default::default() };
//! # let constants = TokenConstants { reference_log_prob: vec![-1.5, -1.5], ..Default::default() };
//! # let totals = StepTotals::of(&responses, &[]);
//! # let kto = labelled::Labelled::new(kto::Kto::new(1.0, 1.0)?, 1.0)?;
//! # let batch = TokenBatch::new(&kto.requirements(), &statistics, &constants, &responses, &[], totals)?;
//! # let mut evaluation = Evaluation::default();
//! kto.evaluate(&batch, &mut ObjectiveState::default(), &mut evaluation);
//! assert_eq!(evaluation.loss, 0.5);
//! assert_eq!(evaluation.cotangents.log_prob, [-0.25, 0.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::evaluation::{Metric, Metrics};
use crate::labelled::{LabelLoss, Rewards, build};
use crate::method::Method;
use crate::numerics::sigmoid;
use crate::parameter::{Kind, NON_NEGATIVE, Parameter, ParameterError, Parameters, Reader};
use crate::preference::BETA;
use crate::requirements::Coupling;
use crate::state::ObjectiveState;

/// The registry's line.
pub const METHOD: Method = Method {
    name: "kto",
    summary: "desirable and undesirable responses valued against the policy's drift elsewhere",
    source: "arXiv 2402.01306, equation 7",
    parameters: &[BETA, DESIRABLE_WEIGHT, UNDESIRABLE_WEIGHT],
    build: build::<Kto>,
};

/// w_D.
pub const DESIRABLE_WEIGHT: Parameter = Parameter {
    name: "desirable_weight",
    kind: Kind::Number { default: 1.0, range: NON_NEGATIVE },
    purpose: "what a desirable response counts",
};

/// w_U.
pub const UNDESIRABLE_WEIGHT: Parameter = Parameter {
    name: "undesirable_weight",
    kind: Kind::Number { default: 1.0, range: NON_NEGATIVE },
    purpose: "what an undesirable response counts",
};

/// What desirable and undesirable responses count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Weights {
    desirable: f64,
    undesirable: f64,
}

impl Weights {
    pub(crate) fn new(owner: &'static str, desirable: f64, undesirable: f64) -> Result<Self, ParameterError> {
        Ok(Self {
            desirable: DESIRABLE_WEIGHT.check(owner, desirable)?,
            undesirable: UNDESIRABLE_WEIGHT.check(owner, undesirable)?,
        })
    }

    pub(crate) fn parameters(&self) -> Parameters {
        [
            (DESIRABLE_WEIGHT.name.to_owned(), self.desirable.into()),
            (UNDESIRABLE_WEIGHT.name.to_owned(), self.undesirable.into()),
        ]
        .into()
    }

    pub(crate) fn of(&self, desirable: bool) -> f64 {
        if desirable { self.desirable } else { self.undesirable }
    }
}

/// 1 − σ(x) and its derivative: a loss that levels off on either side.
pub(crate) fn bounded(margin: f64) -> (f64, f64) {
    let wrong = sigmoid(-margin);
    (wrong, -wrong * sigmoid(margin))
}

/// Kahneman-Tversky optimisation.
///
/// A response far from where it should be is given up: its loss is 1, and it hardly pulls.
///
/// ```
/// use objective::labelled::LabelLoss;
///
/// let (loss, slope) = objective::kto::Kto::new(1.0, 1.0)?.loss(-40.0);
/// assert_eq!(loss, 1.0);
/// assert!((-1e-17..0.0).contains(&slope));
/// # Ok::<(), objective::ParameterError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kto {
    weights: Weights,
}

/// It asks for mismatched responses, from which the reference point comes:
///
/// ```
/// # use objective::{Coupling, Data, Objective, kto::Kto, labelled::Labelled};
/// let requirements = Labelled::new(Kto::new(1.0, 1.0)?, 0.1)?.requirements();
/// assert_eq!(requirements.data, Data::Labelled { mismatched: true });
/// assert_eq!(requirements.coupling, Coupling::Step);
/// # Ok::<(), objective::ParameterError>(())
/// ```
impl Kto {
    /// KTO with the weights of desirable and undesirable responses.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] for a value out of its range.
    ///
    /// # Examples
    ///
    /// ```
    /// let error = objective::kto::Kto::new(1.0, -1.0).unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "kto.undesirable_weight: expected a number, 0 <= undesirable_weight <= 1e6, got -1"
    /// );
    /// ```
    pub fn new(desirable_weight: f64, undesirable_weight: f64) -> Result<Self, ParameterError> {
        Ok(Self { weights: Weights::new(METHOD.name, desirable_weight, undesirable_weight)? })
    }
}

impl LabelLoss for Kto {
    const METHOD: Method = METHOD;
    const COUPLING: Coupling = Coupling::Step;
    const MISMATCHED: bool = true;

    fn read(reader: &Reader<'_>) -> Result<Self, ParameterError> {
        Self::new(reader.number(&DESIRABLE_WEIGHT)?, reader.number(&UNDESIRABLE_WEIGHT)?)
    }

    fn own_parameters(&self) -> Parameters {
        self.weights.parameters()
    }

    fn weight(&self, desirable: bool) -> f64 {
        self.weights.of(desirable)
    }

    fn shift(&self, rewards: &Rewards, _: &mut ObjectiveState) -> f64 {
        rewards.mismatched.max(0.0)
    }

    fn loss(&self, margin: f64) -> (f64, f64) {
        bounded(margin)
    }

    fn record(&self, beta: f64, shift: f64, metrics: &mut Metrics) {
        metrics.record(Metric::Kl, shift / beta);
    }
}
