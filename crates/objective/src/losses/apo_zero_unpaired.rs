//! Anchored preference optimisation on single responses.

use crate::losses::implement;
use crate::losses::labelled::{LabelLoss, bounded};
use crate::objective;
use crate::requirements::Coupling;

objective! {
    /// Anchored preference optimisation on single responses: KTO with its reference point at 0.
    ///
    /// Desirable responses rise and undesirable ones fall against the reference itself, without an estimate of the policy's
    /// drift. Each term depends on its own response alone, so it needs neither pairs nor mismatched responses.
    ///
    /// # Formula
    ///
    /// With r = β (log π − log π_ref) summed over a response, mean over the step's labelled responses:
    ///
    /// - desirable: w_D (1 − σ(r))
    /// - undesirable: w_U σ(r)
    ///
    /// Cotangent: ∓ w β σ(r) σ(−r).
    ///
    /// # Source
    ///
    /// K. D'Oosterlinck et al., "Anchored Preference Optimization and Contrastive Revisions: Addressing Underspecification in
    /// Alignment", arXiv 2408.06266, equation 7, one response at a time, as TRL's `apo_zero_unpaired`.
    ///
    /// # Departures
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// At the reference r = 0: L = ½, cotangent −¼ on a desirable response with β = 1.
    ///
    /// ```
    /// use objective::{ApoZeroUnpaired, Labelled, Side};
    ///
    /// let mut apo = ApoZeroUnpaired { beta: 1.0, ..ApoZeroUnpaired::default() }.evaluator()?;
    /// let answer = apo.evaluate(&Labelled {
    ///     responses: Side { log_prob: &[-1.0], reference_log_prob: &[-1.0], ..Side::of(&[1]) },
    ///     desirable: &[true],
    ///     mismatched: Side::of(&[]),
    /// })?;
    /// assert_eq!((answer.loss, answer.cotangents.log_prob), (0.5, &[-0.25][..]));
    /// Ok::<(), objective::Error>(())
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct ApoZeroUnpaired = "apo_zero_unpaired",
        "desirable responses raised and undesirable ones lowered against the reference", "arXiv 2408.06266, equation 7"
    {
        beta;
        label_weights;
    }
}

implement!(ApoZeroUnpaired, labelled, Labelled);

impl LabelLoss for ApoZeroUnpaired {
    const COUPLING: Coupling = Coupling::None;
    const MISMATCHED: bool = false;

    fn beta(&self) -> f64 {
        self.beta
    }

    fn weight(&self, desirable: bool) -> f64 {
        if desirable { self.desirable_weight } else { self.undesirable_weight }
    }

    fn label(&self, margin: f64) -> (f64, f64) {
        bounded(margin)
    }
}
