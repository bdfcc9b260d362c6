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
//! None in value. The loss is computed as log(1 + e^(−βh)) + ε βh, which is exactly ln 2 where the policy is its own
//! reference and neither overflows nor cancels where it is far away.
//!
//! # Examples
//!
//! r_w = 2, r_l = −1, β = 0.1: h = 3, L = log(1 + e^−0.3) = 0.554355, ∂L/∂h = −0.1 / (1 + e^0.3) = −0.0425557.
//!
//! ```
//! # use objective::*;
//! # let responses = [Response { tokens: 0..1 }, Response { tokens: 1..2 }];
//! # let pairs = [Pair { chosen: 0, rejected: 1 }];
//! # let statistics = TokenStatistics { log_prob: vec![-1.0, -2.0] };
//! # let constants = TokenConstants { reference_log_prob: vec![-3.0, -1.0] };
//! # let totals = StepTotals::of(&responses, &pairs);
//! # let dpo = dpo::Dpo::new(0.1, 0.0)?;
//! # let batch = TokenBatch::new(&dpo.requirements(), &statistics, &constants, &responses, &pairs, totals)?;
//! # let mut evaluation = Evaluation::default();
//! dpo.evaluate(&batch, &mut evaluation);
//! assert!((evaluation.loss - 0.554355).abs() < 1e-6);
//! assert!((evaluation.cotangents.log_prob[0] + 0.0425557).abs() < 1e-7);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::ops::Bound;

use crate::Objective;
use crate::batch::{Pair, TokenBatch};
use crate::evaluation::{Evaluation, Metric};
use crate::method::Method;
use crate::numerics::{sigmoid, softplus};
use crate::parameter::{Kind, POSITIVE, Parameter, ParameterError, Parameters, Reader};
use crate::requirements::{Anticipation, Constant, Data, Requirements, Statistic};

/// The registry's line.
pub const METHOD: Method = Method {
    name: "dpo",
    summary: "direct preference optimisation against a frozen reference",
    source: "arXiv 2305.18290, equation 7; cDPO for label smoothing",
    parameters: &[BETA, LABEL_SMOOTHING],
    build,
};

/// β, per nat.
pub const BETA: Parameter = Parameter {
    name: "beta",
    kind: Kind::Number { default: 0.1, range: POSITIVE },
    purpose: "scale of the implicit reward beta (log pi - log pi_ref), per nat",
};

/// ε.
pub const LABEL_SMOOTHING: Parameter = Parameter {
    name: "label_smoothing",
    kind: Kind::Number { default: 0.0, range: (Bound::Included(0.0), Bound::Included(0.5)) },
    purpose: "probability that a preference is the wrong way round",
};

/// Direct preference optimisation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dpo {
    beta: f64,
    label_smoothing: f64,
}

impl Dpo {
    /// DPO with β (per nat) and label smoothing ε.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] outside of 0 < β ≤ 10⁶ and 0 ≤ ε ≤ 0.5.
    pub fn new(beta: f64, label_smoothing: f64) -> Result<Self, ParameterError> {
        Ok(Self {
            beta: BETA.check(METHOD.name, beta)?,
            label_smoothing: LABEL_SMOOTHING.check(METHOD.name, label_smoothing)?,
        })
    }
}

fn build(given: &Parameters) -> Result<Box<dyn Objective>, ParameterError> {
    let reader = Reader::new(METHOD.name, METHOD.parameters, given)?;
    Ok(Box::new(Dpo::new(reader.number(&BETA)?, reader.number(&LABEL_SMOOTHING)?)?))
}

impl Objective for Dpo {
    fn requirements(&self) -> Requirements {
        Requirements {
            data: Data::Preferences,
            anticipation: Anticipation::Off,
            statistics: &[Statistic::LogProb],
            constants: &[Constant::ReferenceLogProb],
        }
    }

    fn parameters(&self) -> Parameters {
        [(BETA.name.to_owned(), self.beta.into()), (LABEL_SMOOTHING.name.to_owned(), self.label_smoothing.into())]
            .into()
    }

    fn fill(&self, batch: &TokenBatch<'_>, out: &mut Evaluation) {
        let scale = 1.0 / batch.totals().pairs as f64;
        for &Pair { chosen, rejected } in batch.pairs() {
            let (reward_chosen, reward_rejected) =
                (self.beta * batch.log_ratio(chosen), self.beta * batch.log_ratio(rejected));
            let margin = reward_chosen - reward_rejected;
            out.loss += scale * (softplus(-margin) + self.label_smoothing * margin);

            let cotangent = scale * self.beta * (self.label_smoothing - sigmoid(-margin));
            for (response, sign) in [(chosen, 1.0), (rejected, -1.0)] {
                for slot in &mut out.cotangents.log_prob[batch.responses()[response].tokens.clone()] {
                    *slot += sign * cotangent;
                }
            }

            out.metrics.record(Metric::RewardChosen, reward_chosen);
            out.metrics.record(Metric::RewardRejected, reward_rejected);
            out.metrics.record(Metric::RewardAccuracy, f64::from(margin > 0.0));
            out.metrics.record(Metric::RewardMargin, margin);
            out.metrics.record(Metric::LogProbChosen, batch.log_prob(chosen).iter().sum());
            out.metrics.record(Metric::LogProbRejected, batch.log_prob(rejected).iter().sum());
        }
    }
}
