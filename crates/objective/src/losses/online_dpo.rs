//! Direct preference optimisation on sampled pairs.

use crate::losses::dpo::smoothed;
use crate::losses::implement;
use crate::losses::preference::{MarginLoss, Reduction, implicit_score};
use crate::objective;
use crate::requirements::Source;
use crate::sampling::Sampling;

objective! {
    /// DPO on pairs that the policy itself samples, ranked by their returns.
    ///
    /// The pairs of a data set grow stale: they come from another policy, and the one in training soon writes neither of their
    /// responses. Here each step samples new responses and ranks them, so the policy is corrected on what it does now.
    ///
    /// # Formula
    ///
    /// That of [`Dpo`](crate::Dpo). The host samples responses to each prompt from the policy in training, and takes the one
    /// of the greatest return as chosen and the one of the smallest as rejected; responses of equal returns give no pair.
    ///
    /// # Source
    ///
    /// S. Guo et al., "Direct Language Model Alignment from Online AI Feedback", arXiv 2402.04792; "Intuitive Fine-Tuning",
    /// arXiv 2405.11870, equation (34).
    ///
    /// # Departures
    ///
    /// Pairs are ranked by the environment's return rather than by a model.
    ///
    /// # Examples
    ///
    /// ```
    /// use objective::{OnlineDpo, Pairs, Side};
    ///
    /// let mut online = OnlineDpo { samples: 4, ..OnlineDpo::default() }.evaluator()?;
    /// let side = Side { log_prob: &[-1.0], reference_log_prob: &[-1.0], ..Side::of(&[1]) };
    /// let answer = online.evaluate(&Pairs { chosen: side, rejected: side })?;
    /// assert_eq!(answer.loss, 2.0_f64.ln());
    /// Ok::<(), objective::Error>(())
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct OnlineDpo = "online_dpo", "DPO on pairs sampled from the policy and ranked by their returns",
        "arXiv 2402.04792; arXiv 2405.11870, equation 34"
    {
        beta;
        label_smoothing;
        divergence;
        tail_weight;
        weighting;
        /// Responses sampled for each prompt.
        samples: usize [2, 65_536] = 2,
    }
}

implement!(OnlineDpo, preference, Pairs);

impl MarginLoss for OnlineDpo {
    implicit_score!(own: own.tail_weight, Reduction::Sum);

    fn source(&self) -> Source {
        Source::Sampled(Sampling { samples: self.samples, epochs: 1, gae_lambda: 1.0 })
    }

    fn margin(&self, z: f64) -> (f64, f64) {
        smoothed(self.label_smoothing, z)
    }
}
