//! REINFORCE leave-one-out: each response against the mean of the others to the same prompt.
//!
//! # Formula
//!
//! With x the sum of log π − log π_behaviour over a response, its reward less β Σₜ (log π_behaviour − log π_ref), A the difference
//! to the mean of the others of its group (see [`group`](crate::group)), and ℓ the [clipped surrogate](crate::clip) at x, mean
//! over the step's responses of ℓ.
//!
//! Cotangent: ∂ℓ/∂x / responses on every token. On policy this is REINFORCE.
//!
//! # Source
//!
//! A. Ahmadian et al., "Back to Basics: Revisiting REINFORCE Style Optimization for Learning from Human Feedback in LLMs", arXiv
//! 2402.14740; the clip and β as in TRL's `RLOOTrainer`.
//!
//! # Departures
//!
//! None.
//!
//! # Examples
//!
//! On policy, A = ½, two tokens: L = −½, cotangents −½.
//!
//! ```
//! use objective::group::{GroupLoss, Sampled};
//!
//! let rloo = objective::rloo::Rloo::new(objective::clip::Clip::new("rloo", 0.2, 0.2, None)?);
//! let mut slots = [0.0; 2];
//! let response = Sampled { advantage: 0.5, log_prob: &[-1.0, -2.0], behaviour_log_prob: &[-1.0, -2.0] };
//! // Half of the weight of a response is each of its two tokens'.
//! assert_eq!(rloo.response(&response, 0.5, &mut slots).loss, -0.5);
//! assert_eq!(slots, [-0.5, -0.5]);
//! # Ok::<(), objective::ParameterError>(())
//! ```

use crate::batch::StepTotals;
use crate::clip::{CLIP, CLIP_HIGH, Clip};
use crate::group::{Clipped, GroupLoss, ResponseLoss, Sampled, beta, build};
use crate::method::Method;
use crate::numerics::sum_of_differences;
use crate::parameter::{Parameter, ParameterError, Parameters, Reader};
use crate::sampling::{epochs, samples};

/// The registry's line.
pub const METHOD: Method = Method {
    name: "rloo",
    summary: "REINFORCE, each response against the mean of the others to the same prompt",
    source: "arXiv 2402.14740",
    parameters: || vec![CLIP, CLIP_HIGH, BETA, samples(2), epochs(1)],
    build: build::<Rloo>,
};

/// β.
pub const BETA: Parameter = beta(0.05);

/// REINFORCE leave-one-out.
///
/// With β = 1 the better response's divergence from the reference, 1 nat, takes away all of its reward:
///
/// ```
/// # use objective::*;
/// let responses = [Response::rewarded(0..1, 0, 1.0), Response::rewarded(1..2, 0, 0.0)];
/// # let statistics = TokenStatistics { log_prob: vec![-1.0, -2.0], ..Default::default() };
/// let constants = TokenConstants {
///     behaviour_log_prob: vec![-1.0, -2.0],
///     reference_log_prob: vec![-2.0, -2.0],
///     ..Default::default()
/// };
/// # let totals = StepTotals::of(&responses, &[]);
/// let rloo = registry::build("rloo", &[("beta".to_owned(), 1.0.into())].into())?;
/// # let batch = TokenBatch::new(&rloo.requirements(), &statistics, &constants, &responses, &[], totals)?;
/// # let mut evaluation = Evaluation::default();
/// rloo.evaluate(&batch, &mut ObjectiveState::default(), &mut evaluation);
/// assert_eq!(evaluation.cotangents.log_prob, [0.0, 0.0]); // rewards 1 − 1 and 0 − 0
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rloo {
    clip: Clip,
}

/// The ratio is that of the whole response: of two tokens at 1.15 each it is 1.15² = 1.3225, and held back.
///
/// ```
/// # use objective::group::{Clipped, GroupLoss, ResponseLoss, Sampled};
/// # use objective::{clip::Clip, rloo::Rloo};
/// let rloo = Rloo::new(Clip::new("rloo", 0.25, 0.25, None)?);
/// let log_prob = [-1.0 + 1.15_f64.ln(); 2];
/// let response = Sampled { advantage: 1.0, log_prob: &log_prob, behaviour_log_prob: &[-1.0, -1.0] };
/// let loss = rloo.response(&response, 0.5, &mut [0.0; 2]);
/// assert_eq!(loss, ResponseLoss { loss: -1.25, clipped: Clipped { below: 0, above: 1 }, ratios: 1 });
/// # Ok::<(), objective::ParameterError>(())
/// ```
impl Rloo {
    /// The loss with clipped ratios.
    ///
    /// ```
    /// use objective::{clip::Clip, group::GroupLoss, rloo::Rloo};
    ///
    /// let rloo = Rloo::new(Clip::new("rloo", 0.2, 0.2, None)?);
    /// assert_eq!(rloo.own_parameters()["clip"], 0.2.into());
    /// # Ok::<(), objective::ParameterError>(())
    /// ```
    pub fn new(clip: Clip) -> Self {
        Self { clip }
    }
}

impl GroupLoss for Rloo {
    const METHOD: Method = METHOD;
    const BETA: Parameter = BETA;
    const PENALISES_REWARD: bool = true;

    fn read(reader: &Reader<'_>) -> Result<Self, ParameterError> {
        Ok(Self::new(Clip::read(METHOD.name, &(METHOD.parameters)(), reader)?))
    }

    fn own_parameters(&self) -> Parameters {
        self.clip.parameters(&(METHOD.parameters)())
    }

    fn share(&self, tokens: usize, totals: StepTotals) -> f64 {
        1.0 / (tokens as f64 * totals.responses as f64)
    }

    fn response(&self, response: &Sampled<'_>, share: f64, slots: &mut [f64]) -> ResponseLoss {
        let share = share * slots.len() as f64;
        let log_ratio = sum_of_differences(response.log_prob, response.behaviour_log_prob);
        let surrogate = self.clip.surrogate(log_ratio, response.advantage);
        slots.iter_mut().for_each(|slot| *slot += share * surrogate.slope);
        let mut clipped = Clipped::default();
        clipped.count(surrogate.clipped);
        ResponseLoss { loss: share * surrogate.loss, clipped, ratios: 1 }
    }
}
