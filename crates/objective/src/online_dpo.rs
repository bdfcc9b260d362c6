//! DPO on pairs that the policy itself samples, ranked by their returns.
//!
//! # Formula
//!
//! [`dpo`](crate::dpo)'s. The host samples responses to each prompt from the policy in training, and takes the one of the greatest
//! return as chosen and the one of the least as rejected; responses of equal returns give no pair.
//!
//! # Source
//!
//! S. Guo et al., "Direct Language Model Alignment from Online AI Feedback", arXiv 2402.04792; "Intuitive Fine-Tuning", arXiv
//! 2405.11870, equation (34).
//!
//! # Departures
//!
//! Pairs are ranked by the environment's return rather than by a model.
//!
//! # Examples
//!
//! It evaluates as [`dpo`](crate::dpo) does; what differs is where its pairs come from:
//!
//! ```
//! use objective::{Parameters, Source, registry};
//!
//! let online = registry::build("online_dpo", &Parameters::new())?;
//! let Source::Sampled(sampling) = online.requirements().source else { panic!("it samples") };
//! assert_eq!(sampling.samples, 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::Objective;
use crate::batch::TokenBatch;
use crate::divergence::{DIVERGENCE, DIVERGENCE_ALPHA};
use crate::dpo::{Dpo, LABEL_SMOOTHING};
use crate::evaluation::Evaluation;
use crate::held::Held;
use crate::method::Method;
use crate::parameter::{ParameterError, Parameters, Reader};
use crate::preference::{BETA, Pairwise, TAIL_WEIGHT, WEIGHTING};
use crate::requirements::{Requirements, Source};
use crate::sampling::{Sampling, samples};
use crate::state::ObjectiveState;

/// The registry's line.
pub const METHOD: Method = Method {
    name: "online_dpo",
    summary: "DPO on pairs sampled from the policy and ranked by their returns",
    source: "arXiv 2402.04792; arXiv 2405.11870, equation 34",
    parameters: &[BETA, LABEL_SMOOTHING, DIVERGENCE, DIVERGENCE_ALPHA, TAIL_WEIGHT, WEIGHTING, samples(2)],
    build,
};

/// DPO on sampled pairs.
///
/// Its columns are those of `dpo`:
///
/// ```
/// use objective::{Parameters, Requirements, Source, registry};
///
/// let [online, offline] = ["online_dpo", "dpo"].map(|name| registry::build(name, &Parameters::new()));
/// let requirements = Requirements { source: Source::Given, ..online?.requirements() };
/// assert_eq!(requirements, offline?.requirements());
/// # Ok::<(), objective::RegistryError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OnlineDpo {
    dpo: Pairwise<Dpo>,
    sampling: Sampling,
}

fn build(given: &Parameters) -> Result<Box<dyn Objective>, ParameterError> {
    let reader = Reader::new(METHOD.name, METHOD.parameters, given)?;
    Ok(Box::new(OnlineDpo { dpo: Pairwise::read(&reader)?, sampling: Sampling::read(METHOD.parameters, &reader)? }))
}

impl Objective for OnlineDpo {
    fn requirements(&self) -> Requirements {
        Requirements { source: Source::Sampled(self.sampling), ..self.dpo.requirements() }
    }

    fn parameters(&self) -> Parameters {
        let mut parameters = self.dpo.parameters();
        parameters.extend(self.sampling.parameters(METHOD.parameters));
        parameters
    }

    fn hold(&self, batch: &TokenBatch<'_>, state: &mut ObjectiveState, held: &mut Held) {
        self.dpo.hold(batch, state, held);
    }

    fn loss(&self, batch: &TokenBatch<'_>, held: &Held, out: &mut Evaluation) {
        self.dpo.loss(batch, held, out);
    }
}
