//! Binary classifier optimisation.

use crate::evaluation::{Metric, Metrics};
use crate::losses::implement;
use crate::losses::labelled::{LabelLoss, Rewards};
use crate::numerics::{sigmoid, softplus};
use crate::objective;
use crate::requirements::Coupling;
use crate::state::ObjectiveState;

objective! {
    /// Binary classifier optimisation: a classifier that separates desirable from undesirable responses by their
    /// reward.
    ///
    /// The policy itself is the classifier: the implicit reward is the logit of "this response is desirable". The
    /// boundary lies at the mean of all rewards seen so far, so that a drift of all rewards together changes no class.
    ///
    /// # Formula
    ///
    /// With r = β (log π − log π_ref) summed over a response and δ the mean of all rewards seen so far, this step's
    /// included, mean over the step's labelled responses:
    ///
    /// - desirable: −log σ(r − δ)
    /// - undesirable: −log σ(δ − r)
    ///
    /// Cotangent: ∓ β σ(−x) with x the argument of σ. δ is held; it couples the responses of a step, and its running
    /// mean is carried from step to step in [`ObjectiveState`].
    ///
    /// # Source
    ///
    /// S. Jung et al., "Binary Classifier Optimization for Large Language Model Alignment", arXiv 2404.04656, with δ
    /// the running mean of TRL's `BCOTrainer`.
    ///
    /// # Departures
    ///
    /// TRL can also weight undesirable responses by a classifier over embeddings of their prompts, which needs a
    /// second model and is not a function of token statistics. It updates δ per micro-batch, this loss per step.
    ///
    /// # Examples
    ///
    /// β = 1, rewards ½ (desirable) and −½ (undesirable): δ = 0, L = log(1 + e^(−½)) = 0.474077.
    ///
    /// ```
    /// use objective::{Bco, Labelled, Side};
    ///
    /// let mut bco = Bco { beta: 1.0 }.evaluator()?;
    /// let answer = bco.evaluate(&Labelled {
    ///     responses: Side { log_prob: &[-1.0, -2.0], reference_log_prob: &[-1.5, -1.5], ..Side::of(&[1, 1]) },
    ///     desirable: &[true, false],
    ///     mismatched: Side::of(&[]),
    /// })?;
    /// assert!((answer.loss - 0.474077).abs() < 1e-6);
    /// assert_eq!(bco.state().rewards.count, 2);
    /// Ok::<(), objective::Error>(())
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct Bco = "bco",
        "desirable and undesirable responses told apart by their reward, shifted by its running mean",
        "arXiv 2404.04656"
    {
        beta;
    }
}

implement!(Bco, labelled, Labelled);

impl LabelLoss for Bco {
    const COUPLING: Coupling = Coupling::Step;
    const MISMATCHED: bool = false;

    fn beta(&self) -> f64 {
        self.beta
    }

    fn shift(&self, rewards: &Rewards, state: &mut ObjectiveState) -> f64 {
        state.rewards.update(rewards.mean, rewards.count as u64);
        state.rewards.mean
    }

    fn label(&self, margin: f64) -> (f64, f64) {
        (softplus(-margin), -sigmoid(-margin))
    }

    fn record(&self, shift: f64, metrics: &mut Metrics) {
        metrics.record(Metric::RewardShift, shift);
    }
}
