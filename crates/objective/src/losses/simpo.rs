//! Simple preference optimisation.

use crate::losses::implement;
use crate::losses::preference::{MarginLoss, Reduction, Score};
use crate::numerics::{sigmoid, softplus};
use crate::objective;
use crate::parameter::{NON_NEGATIVE, SCALE};

/// Share of β that the target margin follows.
const TARGET_SHARE: f64 = 0.8;

objective! {
    /// SimPO: a logistic loss on mean log-probabilities with a target margin, without a reference.
    ///
    /// What a policy generates is ranked by its own mean log-probability, not by a ratio to a reference. SimPO trains that
    /// very number: the chosen response's mean must exceed the rejected one's by a target. It needs no second model, and a
    /// mean does not favour long responses.
    ///
    /// # Formula
    ///
    /// With m the mean of log π over a response's tokens, nats, and γ the target margin, mean over the step's pairs:
    ///
    /// L = −log σ(β (m_w − m_l) − γ)
    ///
    /// Cotangent: ∂L/∂z = −σ(−z) with z the argument; ∂z/∂m = ±β.
    ///
    /// # Source
    ///
    /// Y. Meng, M. Xia and D. Chen, "SimPO: Simple Preference Optimization with a Reference-Free Reward", arXiv 2405.14734,
    /// equation 6.
    ///
    /// # Departures
    ///
    /// None. The target margin (γ there; γ is always a discount here) follows β as 0.8 β until it is set.
    ///
    /// # Examples
    ///
    /// β = 2, γ = 1, m_w − m_l = ½: z = 0, L = ln 2.
    ///
    /// ```
    /// use objective::{Pairs, Side, Simpo};
    ///
    /// let mut simpo = Simpo { target_margin: Some(1.0), ..Simpo::default() }.evaluator()?;
    /// let answer = simpo.evaluate(&Pairs {
    ///     chosen: Side { log_prob: &[-0.5], ..Side::of(&[1]) },
    ///     rejected: Side { log_prob: &[-1.0], ..Side::of(&[1]) },
    /// })?;
    /// assert_eq!((answer.loss, answer.cotangents.chosen.log_prob[0]), (2.0_f64.ln(), -1.0));
    /// Ok::<(), objective::Error>(())
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct Simpo = "simpo", "logistic loss on mean log-probabilities with a target margin",
        "arXiv 2405.14734, equation 6"
    {
        /// Scale of the mean log-probability, per nat.
        beta: f64 [SCALE] = 2.0,
        /// Margin between the rewards that a pair should have (gamma in its paper).
        target_margin: Option<f64> [NON_NEGATIVE, "0.8 beta"] = None => follows |own| Some(own.target_margin()),
    }
}

implement!(Simpo, preference, Pairs);

impl Simpo {
    fn target_margin(&self) -> f64 {
        self.target_margin.unwrap_or(TARGET_SHARE * self.beta)
    }
}

impl MarginLoss for Simpo {
    fn beta(&self) -> f64 {
        self.beta
    }

    fn score(&self) -> Score {
        Score::Likelihood(Reduction::Mean)
    }

    fn margin(&self, z: f64) -> (f64, f64) {
        let excess = z - self.target_margin();
        (softplus(-excess), -sigmoid(-excess))
    }
}
