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

/// The registry's line.
pub const METHOD: Method = Method {
    name: "luspo",
    summary: "clipped policy gradients by response, each weighing its length",
    source: "arXiv 2602.05261",
    parameters: &[CLIP, CLIP_HIGH, DELTA, beta(0.0), SCALE, samples(8), epochs(1)],
    build: build::<Luspo>,
};

/// Length-unbiased sequence policy optimisation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Luspo {
    clip: Clip,
}

impl Luspo {
    /// The loss with clipped ratios.
    pub fn new(clip: Clip) -> Self {
        Self { clip }
    }
}

impl GroupLoss for Luspo {
    const METHOD: Method = METHOD;

    fn read(reader: &Reader<'_>) -> Result<Self, ParameterError> {
        Ok(Self::new(Clip::read(METHOD.name, METHOD.parameters, reader)?))
    }

    fn own_parameters(&self) -> Parameters {
        self.clip.parameters(METHOD.parameters)
    }

    fn share(&self, _: usize, totals: StepTotals) -> f64 {
        1.0 / totals.responses as f64
    }

    fn response(&self, response: &Sampled<'_>, share: f64, slots: &mut [f64]) -> ResponseLoss {
        clipped_sequence(&self.clip, response, share, slots)
    }
}
