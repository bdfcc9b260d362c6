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
//! # use objective::{preference::PairLoss, *};
//! # let responses = [Response::new(0..1), Response::new(1..2)];
//! # let pairs = [Pair { chosen: 0, rejected: 1 }];
//! # let statistics = TokenStatistics { log_prob: vec![0.5_f64.ln(), 0.2_f64.ln()], ..Default::default() };
//! # let constants = TokenConstants::default();
//! # let totals = StepTotals::of(&responses, &pairs);
//! # let orpo = preference::Pairwise::new(orpo::Orpo, 0.25, orpo::Orpo::SCORE)?;
//! # let batch = TokenBatch::new(&orpo.requirements(), &statistics, &constants, &responses, &pairs, totals)?;
//! # let mut evaluation = Evaluation::default();
//! orpo.evaluate(&batch, &mut ObjectiveState::default(), &mut evaluation);
//! assert!((evaluation.loss - 0.748933).abs() < 1e-6);
//! assert!((evaluation.cotangents.log_prob[0] + 1.1).abs() < 1e-12);
//! assert!((evaluation.cotangents.log_prob[1] - 0.0625).abs() < 1e-12);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::evaluation::{Metric, Metrics};
use crate::method::Method;
use crate::numerics::{log1mexp, sigmoid, softplus};
use crate::parameter::{Kind, NON_NEGATIVE, Parameter, ParameterError, Reader};
use crate::preference::{Normalisation, PairGradient, PairLoss, Score, Scores, build};

/// The registry's line.
pub const METHOD: Method = Method {
    name: "orpo",
    summary: "imitation of the chosen response plus an odds-ratio penalty, without a reference",
    source: "arXiv 2403.07691, equations 6 and 7",
    parameters: &[BETA],
    build: build::<Orpo>,
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
///
/// A certain response has finite odds, and no cotangent through them, only that of its imitation:
///
/// ```
/// use objective::preference::{PairLoss, Scores};
///
/// let scores = Scores { chosen: 0.0, rejected: 0.5_f64.ln(), chosen_tokens: 1.0 };
/// let gradient = objective::orpo::Orpo.loss(0.25, &scores);
/// assert_eq!(gradient.chosen, -1.0);
/// assert!(gradient.loss < 1e-15);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Orpo;

/// The log-odds of a mean log-probability, and their derivative by it.
struct Odds {
    log_odds: f64,
    slope: f64,
}

impl PairLoss for Orpo {
    const METHOD: Method = METHOD;
    const BETA: Parameter = BETA;
    const SCORE: Score = Score::Likelihood { normalisation: Normalisation::Mean };

    fn read(_reader: &Reader<'_>, _beta: f64) -> Result<Self, ParameterError> {
        Ok(Self)
    }

    fn loss(&self, beta: f64, scores: &Scores) -> PairGradient {
        let (w, l) = (Odds::of(scores.chosen), Odds::of(scores.rejected));
        let ratio = w.log_odds - l.log_odds;
        let pull = -beta * sigmoid(-ratio);
        PairGradient {
            loss: beta * softplus(-ratio) - scores.chosen,
            chosen: pull * w.slope - 1.0,
            rejected: -pull * l.slope,
        }
    }

    fn record(&self, scores: &Scores, metrics: &mut Metrics) {
        let (w, l) = (Odds::of(scores.chosen), Odds::of(scores.rejected));
        metrics.record(Metric::LogOddsChosen, w.log_odds);
        metrics.record(Metric::LogOddsRejected, l.log_odds);
        metrics.record(Metric::LogOddsRatio, w.log_odds - l.log_odds);
    }
}

impl Odds {
    fn of(mean: f64) -> Self {
        let (capped, slope) = if mean > CERTAINTY { (CERTAINTY, 0.0) } else { (mean, -1.0 / mean.exp_m1()) };
        Self { log_odds: capped - log1mexp(capped), slope }
    }
}
