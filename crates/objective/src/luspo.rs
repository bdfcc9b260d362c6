//! Length-unbiased sequence policy optimisation: GSPO with each response weighing its length.
//!
//! # Formula
//!
//! With x the mean of log π − log π_behaviour over a response of N tokens and ℓ the [clipped surrogate](crate::clip) at x, mean
//! over the step's responses of N ℓ.
//!
//! Cotangent: ∂ℓ/∂x / responses: a token pulls as much in a long response as in a short one.
//!
//! # Source
//!
//! "Length-Unbiased Sequence Policy Optimization", arXiv 2602.05261, as TRL's `luspo`.
//!
//! # Departures
//!
//! The ratio is always the sequence's; TRL also lets it be the token's, against the method's meaning.
//!
//! # Examples
//!
//! On policy, two tokens, A = 1: L = −2, cotangents −1.
//!
//! ```
//! use objective::group::{GroupLoss, Sampled};
//!
//! let luspo = objective::luspo::Luspo::new(objective::clip::Clip::new("luspo", 0.2, 0.2, None)?);
//! let mut slots = [0.0; 2];
//! let response = Sampled { advantage: 1.0, log_prob: &[-1.0, -2.0], behaviour_log_prob: &[-1.0, -2.0] };
//! assert_eq!(luspo.response(&response, 1.0, &mut slots).loss, -2.0);
//! assert_eq!(slots, [-1.0, -1.0]);
//! # Ok::<(), objective::ParameterError>(())
//! ```

use crate::batch::StepTotals;
use crate::clip::{CLIP, CLIP_HIGH, Clip, DELTA};
use crate::group::{GroupLoss, ResponseLoss, SCALE, Sampled, beta, build};
use crate::grpo::clipped_sequence;
use crate::method::Method;
use crate::parameter::{ParameterError, Parameters, Reader};
use crate::sampling::{epochs, samples};
use crate::token_divergence::{DIVERGENCE, DIVERGENCE_PLACE};

/// The registry's line.
pub const METHOD: Method = Method {
    name: "luspo",
    summary: "clipped policy gradients by response, each weighing its length",
    source: "arXiv 2602.05261",
    parameters: || vec![CLIP, CLIP_HIGH, DELTA, beta(0.0), DIVERGENCE, DIVERGENCE_PLACE, SCALE, samples(8), epochs(1)],
    build: build::<Luspo>,
};

/// Length-unbiased sequence policy optimisation.
///
/// A token weighs the same in a response of any length:
///
/// ```
/// use objective::{StepTotals, clip::Clip, group::GroupLoss, luspo::Luspo};
///
/// let luspo = Luspo::new(Clip::new("luspo", 0.2, 0.2, None)?);
/// let totals = StepTotals { tokens: 1002, responses: 2, ..Default::default() };
/// assert_eq!((luspo.share(2, totals), luspo.share(1000, totals)), (0.5, 0.5));
/// # Ok::<(), objective::ParameterError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Luspo {
    clip: Clip,
}

/// What one token gained another may have lost: the response's ratio is the geometric mean of its tokens'.
///
/// ```
/// # use objective::group::{Clipped, GroupLoss, ResponseLoss, Sampled};
/// # use objective::{clip::Clip, luspo::Luspo};
/// let luspo = Luspo::new(Clip::new("luspo", 0.2, 0.2, None)?);
/// let response = Sampled { advantage: 1.0, log_prob: &[-1.0, -1.0], behaviour_log_prob: &[-1.5, -0.5] };
/// let loss = luspo.response(&response, 1.0, &mut [0.0; 2]);
/// assert_eq!(loss, ResponseLoss { loss: -2.0, clipped: Clipped::default(), ratios: 1 });
/// # Ok::<(), objective::ParameterError>(())
/// ```
impl Luspo {
    /// The loss with clipped ratios.
    ///
    /// ```
    /// use objective::{clip::Clip, group::GroupLoss, luspo::Luspo};
    ///
    /// let luspo = Luspo::new(Clip::new("luspo", 0.2, 0.28, None)?);
    /// assert_eq!(luspo.own_parameters()["clip_high"], 0.28.into());
    /// # Ok::<(), objective::ParameterError>(())
    /// ```
    pub fn new(clip: Clip) -> Self {
        Self { clip }
    }
}

impl GroupLoss for Luspo {
    const METHOD: Method = METHOD;

    fn read(reader: &Reader<'_>) -> Result<Self, ParameterError> {
        Ok(Self::new(Clip::read(METHOD.name, &(METHOD.parameters)(), reader)?))
    }

    fn own_parameters(&self) -> Parameters {
        self.clip.parameters(&(METHOD.parameters)())
    }

    fn share(&self, _: usize, totals: StepTotals) -> f64 {
        1.0 / totals.responses as f64
    }

    fn response(&self, response: &Sampled<'_>, share: f64, slots: &mut [f64]) -> ResponseLoss {
        clipped_sequence(&self.clip, response, share, slots)
    }
}
