//! Binary classifier optimisation: desirable and undesirable responses told apart by their reward.
//!
//! # Formula
//!
//! With r = β (log π − log π_ref) summed over a response and δ the mean of all rewards seen so far, this step's included,
//! mean over the step's labelled responses:
//!
//! - desirable: −log σ(r − δ)
//! - undesirable: −log σ(δ − r)
//!
//! Cotangent: ∓ β σ(−x) with x the argument of σ. δ passes no gradient; it couples the responses of a step, and its running mean
//! is carried from step to step in [`ObjectiveState`].
//!
//! # Source
//!
//! S. Jung et al., "Binary Classifier Optimization for Large Language Model Alignment", arXiv 2404.04656, with δ the
//! running mean of TRL's `BCOTrainer`.
//!
//! # Departures
//!
//! TRL also offers to weigh undesirable responses by a classifier over embeddings of their prompts; that needs a model beside
//! the policy and is no function of token statistics. It updates δ once a micro-batch, we once a step.
//!
//! # Examples
//!
//! β = 1, rewards ½ (desirable) and −½ (undesirable): δ = 0, L = log(1 + e^(−½)) = 0.474077.
//!
//! ```
//! # use objective::*;
//! # let responses = [Response::labelled(0..1, true), Response::labelled(1..2, false)];
//! # let statistics = TokenStatistics { log_prob: vec![-1.0, -1.0], ..Default::default() };
//! # let constants = TokenConstants { reference_log_prob: vec![-1.5, -0.5], ..Default::default() };
//! # let totals = StepTotals::of(&responses, &[]);
//! # let bco = labelled::Labelled::new(bco::Bco, 1.0)?;
//! # let batch = TokenBatch::new(&bco.requirements(), &statistics, &constants, &responses, &[], totals)?;
//! # let (mut state, mut evaluation) = (ObjectiveState::default(), Evaluation::default());
//! bco.evaluate(&batch, &mut state, &mut evaluation);
//! assert!((evaluation.loss - 0.474077).abs() < 1e-6);
//! assert_eq!(state.rewards.count, 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::evaluation::{Metric, Metrics};
use crate::labelled::{LabelLoss, Rewards, build};
use crate::method::Method;
use crate::numerics::{sigmoid, softplus};
use crate::parameter::{ParameterError, Reader};
use crate::preference::BETA;
use crate::requirements::Coupling;
use crate::state::ObjectiveState;

/// The registry's line.
pub const METHOD: Method = Method {
    name: "bco",
    summary: "desirable and undesirable responses told apart by their reward, shifted by its running mean",
    source: "arXiv 2404.04656",
    parameters: &[BETA],
    build: build::<Bco>,
};

/// Binary classifier optimisation.
///
/// The shift is the mean over all steps so far:
///
/// ```
/// use objective::ObjectiveState;
/// use objective::bco::Bco;
/// use objective::labelled::{LabelLoss, Rewards};
///
/// let mut state = ObjectiveState::default();
/// assert_eq!(Bco.shift(&Rewards { count: 2, mean: 1.0, mismatched: 0.0 }, &mut state), 1.0);
/// assert_eq!(Bco.shift(&Rewards { count: 2, mean: 3.0, mismatched: 0.0 }, &mut state), 2.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bco;

impl LabelLoss for Bco {
    const METHOD: Method = METHOD;
    const COUPLING: Coupling = Coupling::Step;
    const MISMATCHED: bool = false;

    fn read(_: &Reader<'_>) -> Result<Self, ParameterError> {
        Ok(Self)
    }

    fn shift(&self, rewards: &Rewards, state: &mut ObjectiveState) -> f64 {
        state.rewards.update(rewards.mean, rewards.count as u64);
        state.rewards.mean
    }

    fn loss(&self, margin: f64) -> (f64, f64) {
        (softplus(-margin), -sigmoid(-margin))
    }

    fn record(&self, _: f64, shift: f64, metrics: &mut Metrics) {
        metrics.record(Metric::RewardShift, shift);
    }
}
