//! Kahneman-Tversky optimisation.

use crate::evaluation::{Metric, Metrics};
use crate::losses::implement;
use crate::losses::labelled::{LabelLoss, Rewards, bounded};
use crate::objective;
use crate::requirements::Coupling;
use crate::state::ObjectiveState;

objective! {
    /// Kahneman-Tversky optimisation: each response is valued relative to the policy's average drift on other
    /// responses.
    ///
    /// Pairs are rare, but a label "good" or "bad" on a single response is cheap. KTO raises desirable responses and
    /// lowers undesirable ones, each against the policy's average drift from its reference on responses to other
    /// prompts. Far from that point a response hardly pulls, as people value gains and losses: hopeless and finished
    /// cases are left alone.
    ///
    /// # Formula
    ///
    /// With r = β (log π − log π_ref) summed over a response, and z₀ = max(0, mean of log π − log π_ref over the step's
    /// mismatched responses), nats, an estimate of KL(π || π_ref), mean over the step's labelled responses:
    ///
    /// - desirable: w_D (1 − σ(r − β z₀))
    /// - undesirable: w_U (1 − σ(β z₀ − r))
    ///
    /// Cotangent: ∓ w β σ(x) σ(−x) with x the argument of σ. z₀ is held; it couples the responses of a step.
    ///
    /// # Source
    ///
    /// K. Ethayarajh et al., "KTO: Model Alignment as Prospect Theoretic Optimization", arXiv 2402.01306, equation 7.
    ///
    /// # Departures
    ///
    /// The mean is over the whole step, not over the micro-batch (TRL: over the micro-batches that lie on different
    /// devices at the same time). [`mismatches`](crate::mismatches) never puts a prompt beside its own response, and
    /// takes odd numbers.
    ///
    /// # Examples
    ///
    /// β = 1, r = ½ desirable, z₀ = ½: x = 0, L = ½, cotangent −¼.
    ///
    /// ```
    /// use objective::{Kto, Labelled, Side};
    ///
    /// let mut kto = Kto { beta: 1.0, ..Kto::default() }.evaluator()?;
    /// let answer = kto.evaluate(&Labelled {
    ///     responses: Side { log_prob: &[-1.0], reference_log_prob: &[-1.5], ..Side::of(&[1]) },
    ///     desirable: &[true],
    ///     mismatched: Side { log_prob: &[-2.0], reference_log_prob: &[-2.5], ..Side::of(&[1]) },
    /// })?;
    /// assert_eq!((answer.loss, answer.cotangents.log_prob), (0.5, &[-0.25][..]));
    /// Ok::<(), objective::Error>(())
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct Kto = "kto", "desirable and undesirable responses valued against the policy's drift elsewhere",
        "arXiv 2402.01306, equation 7"
    {
        beta;
        label_weights;
    }
}

implement!(Kto, labelled, Labelled);

impl LabelLoss for Kto {
    const COUPLING: Coupling = Coupling::Step;
    const MISMATCHED: bool = true;

    fn beta(&self) -> f64 {
        self.beta
    }

    fn weight(&self, desirable: bool) -> f64 {
        if desirable { self.desirable_weight } else { self.undesirable_weight }
    }

    fn shift(&self, rewards: &Rewards, _: &mut ObjectiveState) -> f64 {
        rewards.mismatched.max(0.0)
    }

    fn label(&self, margin: f64) -> (f64, f64) {
        bounded(margin)
    }

    fn record(&self, shift: f64, metrics: &mut Metrics) {
        metrics.record(Metric::Kl, shift / self.beta);
    }
}
