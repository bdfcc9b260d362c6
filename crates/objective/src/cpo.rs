//! Contrastive preference optimisation: DPO without a reference, and imitation of the chosen response.
//!
//! # Formula
//!
//! With s the sum of log π over a response's tokens, nats, and N_w the chosen response's length, mean over the step's pairs:
//!
//! L = −log σ(β (s_w − s_l)) − α s_w / N_w
//!
//! Cotangent: −β σ(−z) − α/N_w on s_w and β σ(−z) on s_l, with z = β (s_w − s_l).
//!
//! # Source
//!
//! H. Xu et al., "Contrastive Preference Optimization: Pushing the Boundaries of LLM Performance in Machine Translation",
//! arXiv 2401.08417, equation 6.
//!
//! # Departures
//!
//! The likelihood is a mean over each chosen response's tokens, then over pairs; TRL's is a mean over all tokens of the
//! micro-batch, which no split into micro-batches preserves. They agree where the chosen responses are equally long.
//!
//! # Examples
//!
//! s_w = s_l = −1, two tokens: L = ln 2 + ½.
//!
//! ```
//! use objective::preference::{PairLoss, Scores};
//!
//! let scores = Scores { chosen: -1.0, rejected: -1.0, chosen_tokens: 2.0 };
//! let gradient = objective::cpo::Cpo::new(1.0)?.loss(1.0, &scores);
//! assert!((gradient.loss - (2.0_f64.ln() + 0.5)).abs() < 1e-6);
//! assert!((gradient.chosen + 1.0).abs() < 1e-6);
//! assert!((gradient.rejected - 0.5).abs() < 1e-6);
//! # Ok::<(), objective::ParameterError>(())
//! ```

use crate::method::Method;
use crate::numerics::{sigmoid, softplus};
use crate::parameter::{Kind, NON_NEGATIVE, Parameter, ParameterError, Parameters, Reader};
use crate::preference::{BETA, Normalisation, PairGradient, PairLoss, Score, Scores, build};

/// The registry's line.
pub const METHOD: Method = Method {
    name: "cpo",
    summary: "DPO without a reference, plus imitation of the chosen response",
    source: "arXiv 2401.08417, equation 6",
    parameters: &[BETA, ALPHA],
    build: build::<Cpo>,
};

/// α.
pub const ALPHA: Parameter = Parameter {
    name: "alpha",
    kind: Kind::Number { default: 1.0, range: NON_NEGATIVE },
    purpose: "weight of the chosen response's likelihood",
};

/// Contrastive preference optimisation.
///
/// It scores by likelihood, so that no reference is asked for:
///
/// ```
/// use objective::preference::{PairLoss, Pairwise};
/// use objective::{Objective, cpo::Cpo};
///
/// assert!(!Pairwise::new(Cpo::new(1.0)?, 0.1, Cpo::SCORE)?.requirements().need_reference());
/// # Ok::<(), objective::ParameterError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cpo {
    alpha: f64,
}

/// With α = 0 only the contrast is left, which is ln 2 between equally likely responses:
///
/// ```
/// # use objective::cpo::Cpo;
/// # use objective::preference::{PairLoss, Scores};
/// let scores = Scores { chosen: -1.0, rejected: -1.0, chosen_tokens: 2.0 };
/// assert_eq!(Cpo::new(0.0)?.loss(0.1, &scores).loss, std::f64::consts::LN_2);
/// # Ok::<(), objective::ParameterError>(())
/// ```
impl Cpo {
    /// The loss with the weight α of the likelihood.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] for a value out of its range.
    ///
    /// # Examples
    ///
    /// ```
    /// let error = objective::cpo::Cpo::new(-1.0).unwrap_err();
    /// assert_eq!(error.to_string(), "cpo.alpha: expected a number, 0 <= alpha <= 1e6, got -1");
    /// ```
    pub fn new(alpha: f64) -> Result<Self, ParameterError> {
        Ok(Self { alpha: ALPHA.check(METHOD.name, alpha)? })
    }
}

impl PairLoss for Cpo {
    const METHOD: Method = METHOD;
    const SCORE: Score = Score::Likelihood { normalisation: Normalisation::Sum };

    fn read(reader: &Reader<'_>, _beta: f64) -> Result<Self, ParameterError> {
        Self::new(reader.number(&ALPHA)?)
    }

    fn own_parameters(&self) -> Parameters {
        [(ALPHA.name.to_owned(), self.alpha.into())].into()
    }

    fn loss(&self, beta: f64, scores: &Scores) -> PairGradient {
        let margin = beta * (scores.chosen - scores.rejected);
        let (slope, imitation) = (-beta * sigmoid(-margin), self.alpha / scores.chosen_tokens);
        PairGradient {
            loss: softplus(-margin) - imitation * scores.chosen,
            chosen: slope - imitation,
            rejected: -slope,
        }
    }
}
