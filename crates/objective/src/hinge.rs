//! Hinge loss on the margin of implicit rewards.
//!
//! # Formula
//!
//! With s_w and s_l the implicit scores of the chosen and the rejected response and β their scale, mean over the step's pairs:
//!
//! L = max(0, 1 − β (s_w − s_l))
//!
//! Cotangent: −β on s_w and +β on s_l where the margin is below 1, else 0.
//!
//! # Source
//!
//! Y. Zhao et al., "SLiC-HF: Sequence Likelihood Calibration with Human Feedback", arXiv 2305.10425, with DPO's implicit
//! reward as the score, as in T. Liu et al., arXiv 2309.06657, section 3.
//!
//! # Departures
//!
//! None.
//!
//! # Examples
//!
//! s_w − s_l = 1, β = 0.5: L = 1 − 0.5.
//!
//! ```
//! use objective::preference::{PairLoss, Scores};
//!
//! let scores = Scores { chosen: 1.0, rejected: 0.0, chosen_tokens: 1.0 };
//! let gradient = objective::hinge::Hinge::new(0.5, objective::preference::Score::LOG_RATIO)?.loss(&scores);
//! assert!((gradient.loss - (0.5)).abs() < 1e-6);
//! assert!((gradient.chosen - (-0.5)).abs() < 1e-6);
//! assert!((gradient.rejected - (0.5)).abs() < 1e-6);
//! # Ok::<(), objective::ParameterError>(())
//! ```

use crate::Objective;
use crate::divergence::{DIVERGENCE, DIVERGENCE_ALPHA};
use crate::method::Method;
use crate::parameter::{ParameterError, Parameters, Reader};
use crate::preference::{BETA, PairGradient, PairLoss, Score, Scores, TAIL_WEIGHT};

/// The registry's line.
pub const METHOD: Method = Method {
    name: "hinge",
    summary: "hinge loss on the margin of implicit rewards",
    source: "arXiv 2305.10425; arXiv 2309.06657, section 3",
    parameters: &[BETA, DIVERGENCE, DIVERGENCE_ALPHA, TAIL_WEIGHT],
    build,
};

/// Hinge loss on the margin of implicit rewards.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hinge {
    beta: f64,
    score: Score,
}

impl Hinge {
    /// The hinge loss with β (per nat) and what responses are scored by.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] for a value out of its range.
    pub fn new(beta: f64, score: Score) -> Result<Self, ParameterError> {
        Ok(Self { beta: BETA.check(METHOD.name, beta)?, score })
    }
}

fn build(given: &Parameters) -> Result<Box<dyn Objective>, ParameterError> {
    let reader = Reader::new(METHOD.name, METHOD.parameters, given)?;
    Ok(Box::new(Hinge::new(reader.number(&BETA)?, Score::read(&reader)?)?))
}

impl PairLoss for Hinge {
    fn score(&self) -> Score {
        self.score
    }

    fn in_force(&self) -> Parameters {
        let mut parameters = self.score.parameters();
        parameters.insert(BETA.name.to_owned(), self.beta.into());
        parameters
    }

    fn loss(&self, scores: &Scores) -> PairGradient {
        let slack = 1.0 - self.beta * (scores.chosen - scores.rejected);
        let slope = if slack > 0.0 { self.beta } else { 0.0 };
        PairGradient { loss: slack.max(0.0), chosen: -slope, rejected: slope }
    }

    fn reward(&self, score: f64) -> f64 {
        self.beta * score
    }
}
