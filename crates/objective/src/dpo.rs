//! Direct preference optimisation: a logistic loss on the difference of implicit rewards.
//!
//! # Formula
//!
//! With r = Σₜ (log π(yₜ|sₜ) − log π_ref(yₜ|sₜ)), nats, summed over a response, w the chosen and l the rejected one,
//! h = r_w − r_l, ε the label smoothing, mean over the step's pairs:
//!
//! L = −(1 − ε) log σ(βh) − ε log σ(−βh)
//!
//! Cotangent: ∂L/∂h = β (ε − σ(−βh)), with sign + for each chosen and − for each rejected token.
//!
//! # Source
//!
//! R. Rafailov et al., "Direct Preference Optimization", arXiv 2305.18290, equation 7; label smoothing: E. Mitchell,
//! "A note on DPO with noisy preferences" (cDPO), 2023.
//!
//! # Departures
//!
//! `divergence` and `tail_weight` generalise r; their defaults give the paper's. The loss is computed as log(1 + e^(−βh)) + ε βh, which is exactly ln 2 where the policy is its own
//! reference and neither overflows nor cancels where it is far away.
//!
//! # Examples
//!
//! r_w = 2, r_l = −1, β = 0.1: h = 3, L = log(1 + e^−0.3) = 0.554355, ∂L/∂h = −0.1 / (1 + e^0.3) = −0.0425557.
//!
//! ```
//! # use objective::*;
//! # let responses = [Response::new(0..1), Response::new(1..2)];
//! # let pairs = [Pair { chosen: 0, rejected: 1 }];
//! # let statistics = TokenStatistics { log_prob: vec![-1.0, -2.0], ..Default::default() };
//! # let constants = TokenConstants { reference_log_prob: vec![-3.0, -1.0], ..Default::default() };
//! # let totals = StepTotals::of(&responses, &pairs);
//! # let dpo = preference::Pairwise::new(dpo::Dpo::new(0.0)?, 0.1, preference::Score::LOG_RATIO)?;
//! # let batch = TokenBatch::new(&dpo.requirements(), &statistics, &constants, &responses, &pairs, totals)?;
//! # let mut evaluation = Evaluation::default();
//! dpo.evaluate(&batch, &mut ObjectiveState::default(), &mut evaluation);
//! assert!((evaluation.loss - 0.554355).abs() < 1e-6);
//! assert!((evaluation.cotangents.log_prob[0] + 0.0425557).abs() < 1e-7);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::ops::Bound;

use crate::divergence::{DIVERGENCE, DIVERGENCE_ALPHA};
use crate::method::Method;
use crate::numerics::{sigmoid, softplus};
use crate::parameter::{Kind, Parameter, ParameterError, Parameters, Reader};
use crate::preference::{BETA, PairGradient, PairLoss, Scores, TAIL_WEIGHT, WEIGHTING, build};

/// The registry's line.
pub const METHOD: Method = Method {
    name: "dpo",
    summary: "direct preference optimisation against a frozen reference",
    source: "arXiv 2305.18290, equation 7; cDPO for label smoothing",
    parameters: &[BETA, LABEL_SMOOTHING, DIVERGENCE, DIVERGENCE_ALPHA, TAIL_WEIGHT, WEIGHTING],
    build: build::<Dpo>,
};

/// ε.
pub const LABEL_SMOOTHING: Parameter = Parameter {
    name: "label_smoothing",
    kind: Kind::Number { default: 0.0, range: (Bound::Included(0.0), Bound::Included(0.5)) },
    purpose: "probability that a preference is the wrong way round",
};

/// Direct preference optimisation.
///
/// A pair that is far the wrong way round pulls with β, however far it is:
///
/// ```
/// use objective::preference::{PairGradient, PairLoss, Scores};
///
/// let scores = Scores { chosen: -1000.0, rejected: 0.0, chosen_tokens: 1.0 };
/// let gradient = objective::dpo::Dpo::new(0.0)?.loss(0.5, &scores);
/// assert_eq!(gradient, PairGradient { loss: 500.0, chosen: -0.5, rejected: 0.5 });
/// # Ok::<(), objective::ParameterError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dpo {
    label_smoothing: f64,
}

/// Label smoothing gives the margin an optimum, βh = log((1 − ε)/ε):
///
/// ```
/// # use objective::dpo::Dpo;
/// # use objective::preference::{PairLoss, Scores};
/// let scores = Scores { chosen: 3.0_f64.ln(), rejected: 0.0, chosen_tokens: 1.0 };
/// assert!(Dpo::new(0.25)?.loss(1.0, &scores).chosen.abs() < 1e-12);
/// # Ok::<(), objective::ParameterError>(())
/// ```
impl Dpo {
    /// The loss with label smoothing ε.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] for a value out of its range.
    ///
    /// # Examples
    ///
    /// ```
    /// let error = objective::dpo::Dpo::new(0.6).unwrap_err();
    /// assert_eq!(error.to_string(), "dpo.label_smoothing: expected a number, 0 <= label_smoothing <= 0.5, got 0.6");
    /// ```
    pub fn new(label_smoothing: f64) -> Result<Self, ParameterError> {
        Ok(Self { label_smoothing: LABEL_SMOOTHING.check(METHOD.name, label_smoothing)? })
    }
}

impl PairLoss for Dpo {
    const METHOD: Method = METHOD;

    fn read(reader: &Reader<'_>, _beta: f64) -> Result<Self, ParameterError> {
        Self::new(reader.number(&LABEL_SMOOTHING)?)
    }

    fn own_parameters(&self) -> Parameters {
        [(LABEL_SMOOTHING.name.to_owned(), self.label_smoothing.into())].into()
    }

    fn loss(&self, beta: f64, scores: &Scores) -> PairGradient {
        let margin = beta * (scores.chosen - scores.rejected);
        let slope = beta * (self.label_smoothing - sigmoid(-margin));
        PairGradient { loss: softplus(-margin) + self.label_smoothing * margin, chosen: slope, rejected: -slope }
    }
}
