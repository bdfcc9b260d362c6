//! Odds-ratio preference optimisation: imitation of the chosen response, and a logistic loss on the ratio of odds.
//!
//! # Formula
//!
//! With m = (1/N) Σₜ log π(yₜ|sₜ), nats, the mean over a response, w the chosen and l the rejected one,
//! o = m − log(1 − eᵐ) the log-odds, mean over the step's pairs:
//!
//! L = −m_w − β log σ(o_w − o_l)
//!
//! Cotangent: with g = −β σ(o_l − o_w) and ∂o/∂m = 1 / (1 − eᵐ), each chosen token gets
//! (−1 + g ∂o/∂m_w) / N_w and each rejected token −g ∂o/∂m_l / N_l.
//!
//! # Source
//!
//! J. Hong et al., "ORPO: Monolithic Preference Optimization without Reference Model", arXiv 2403.07691, equations 6
//! and 7 (there β is written λ).
//!
//! # Departures
//!
//! Near certainty the odds are infinite. m above −2⁻⁵² counts as −2⁻⁵² in the odds, with no cotangent through them, so
//! that loss and cotangents are finite wherever log-probabilities are. The implicit reward is β m, as TRL logs it.
//!
//! # Examples
//!
//! One token each with probabilities 1/2 and 1/5, β = 0.25: odds 1 and 1/4, so o_w − o_l = ln 4 and
//! L = ln 2 + 0.25 ln(1 + 1/4) = 0.748933. g = −0.25 / 5 = −0.05, so the cotangents are −1 − 0.05 · 2 = −1.1 and
//! 0.05 / 0.8 = 0.0625.
//!
//! ```
//! # use objective::*;
//! # let responses = [Response { tokens: 0..1 }, Response { tokens: 1..2 }];
//! # let pairs = [Pair { chosen: 0, rejected: 1 }];
//! # let statistics = TokenStatistics { log_prob: vec![0.5_f64.ln(), 0.2_f64.ln()] };
//! # let constants = TokenConstants::default();
//! # let totals = StepTotals::of(&responses, &pairs);
//! # let orpo = orpo::Orpo::new(0.25)?;
//! # let batch = TokenBatch::new(&orpo.requirements(), &statistics, &constants, &responses, &pairs, totals)?;
//! # let mut evaluation = Evaluation::default();
//! orpo.evaluate(&batch, &mut evaluation);
//! assert!((evaluation.loss - 0.748933).abs() < 1e-6);
//! assert!((evaluation.cotangents.log_prob[0] + 1.1).abs() < 1e-12);
//! assert!((evaluation.cotangents.log_prob[1] - 0.0625).abs() < 1e-12);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::Objective;
use crate::batch::{Pair, TokenBatch};
use crate::evaluation::{Evaluation, Metric};
use crate::method::Method;
use crate::numerics::{log1mexp, sigmoid, softplus};
use crate::parameter::{Kind, NON_NEGATIVE, Parameter, ParameterError, Parameters, Reader};
use crate::requirements::{Anticipation, Data, Requirements, Statistic};

/// The registry's line.
pub const METHOD: Method = Method {
    name: "orpo",
    summary: "imitation of the chosen response plus an odds-ratio penalty, without a reference",
    source: "arXiv 2403.07691, equations 6 and 7",
    parameters: &[BETA],
    build,
};

/// β.
pub const BETA: Parameter = Parameter {
    name: "beta",
    kind: Kind::Number { default: 0.25, range: NON_NEGATIVE },
    purpose: "weight of the odds-ratio term (lambda in its paper)",
};

/// The mean log-probability above which the odds count as constant, nats.
const CERTAINTY: f64 = -f64::EPSILON;

/// Odds-ratio preference optimisation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Orpo {
    beta: f64,
}

/// Mean log-probability and log-odds of a response, and ∂log-odds/∂mean.
struct Odds {
    tokens: f64,
    mean: f64,
    log_odds: f64,
    slope: f64,
}

impl Orpo {
    /// ORPO with the weight β of its odds-ratio term.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] outside of 0 ≤ β ≤ 10⁶.
    pub fn new(beta: f64) -> Result<Self, ParameterError> {
        Ok(Self { beta: BETA.check(METHOD.name, beta)? })
    }
}

fn build(given: &Parameters) -> Result<Box<dyn Objective>, ParameterError> {
    let reader = Reader::new(METHOD.name, METHOD.parameters, given)?;
    Ok(Box::new(Orpo::new(reader.number(&BETA)?)?))
}

impl Objective for Orpo {
    fn requirements(&self) -> Requirements {
        Requirements {
            data: Data::Preferences,
            anticipation: Anticipation::Off,
            statistics: &[Statistic::LogProb],
            constants: &[],
        }
    }

    fn parameters(&self) -> Parameters {
        [(BETA.name.to_owned(), self.beta.into())].into()
    }

    fn fill(&self, batch: &TokenBatch<'_>, out: &mut Evaluation) {
        let scale = 1.0 / batch.totals().pairs as f64;
        for &Pair { chosen, rejected } in batch.pairs() {
            let (w, l) = (Odds::of(batch.log_prob(chosen)), Odds::of(batch.log_prob(rejected)));
            let ratio = w.log_odds - l.log_odds;
            out.loss += scale * (self.beta * softplus(-ratio) - w.mean);

            let pull = -self.beta * sigmoid(-ratio);
            let cotangents = [(chosen, (pull * w.slope - 1.0) / w.tokens), (rejected, -pull * l.slope / l.tokens)];
            for (response, cotangent) in cotangents {
                for slot in &mut out.cotangents.log_prob[batch.responses()[response].tokens.clone()] {
                    *slot += scale * cotangent;
                }
            }

            let sum_chosen = w.mean * w.tokens;
            out.metrics.record(Metric::RewardChosen, self.beta * w.mean);
            out.metrics.record(Metric::RewardRejected, self.beta * l.mean);
            out.metrics.record(Metric::RewardAccuracy, f64::from(self.beta * w.mean > self.beta * l.mean));
            out.metrics.record(Metric::RewardMargin, self.beta * (w.mean - l.mean));
            out.metrics.record(Metric::LogProbChosen, sum_chosen);
            out.metrics.record(Metric::LogProbRejected, l.mean * l.tokens);
            out.metrics.record(Metric::LogOddsChosen, w.log_odds);
            out.metrics.record(Metric::LogOddsRejected, l.log_odds);
            out.metrics.record(Metric::LogOddsRatio, ratio);
            out.metrics.record_sum(Metric::NegativeLogLikelihood, -sum_chosen, batch.log_prob(chosen).len());
        }
    }
}

impl Odds {
    fn of(log_prob: &[f64]) -> Self {
        let tokens = log_prob.len() as f64;
        let mean = log_prob.iter().sum::<f64>() / tokens;
        let (capped, slope) = if mean > CERTAINTY { (CERTAINTY, 0.0) } else { (mean, -1.0 / mean.exp_m1()) };
        Self { tokens, mean, log_odds: capped - log1mexp(capped), slope }
    }
}
