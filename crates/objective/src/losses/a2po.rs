//! Policy optimisation by regression on optimal advantages.

use crate::batch::TokenBatch;
use crate::columns::{Constant, Statistic};
use crate::data::Rollouts;
use crate::evaluation::Evaluation;
use crate::evaluator::LearnsFrom;
use crate::held::Held;
use crate::numerics::sum;
use crate::objective;
use crate::parameter::SCALE;
use crate::requirements::{Data, Requirements};
use crate::{Objective, declared_parameters};

objective! {
    /// A*-PO: implicit rewards regressed on estimated optimal advantages.
    ///
    /// The optimum of reward minus β KL is known in closed form: its log-ratio to the reference, times β, is the reward
    /// less the optimal value of the prompt. That value depends on the reference alone, so it is estimated once, from
    /// the reference's own responses, before training. What is left is a squared error with one response a prompt: no
    /// critic, no clipping, no groups.
    ///
    /// # Formula
    ///
    /// With r the log-ratio to the reference, nats, summed over a response, and A its advantage, mean over the step's
    /// responses:
    ///
    /// L = (β r − A)²
    ///
    /// Cotangent: 2 β (β r − A) on each token. The host computes A = R − V*, V* = η log mean exp(R/η) over responses
    /// that the reference gave to the same prompt. Advantages a token are added up over the response.
    ///
    /// # Source
    ///
    /// K. Brantley et al., "Accelerating RL for LLM Reasoning with Optimal Advantage Regression", arXiv 2505.20686 (β
    /// is its β₂, η its β₁).
    ///
    /// # Departures
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// β = ½, r = 1, A = 1: L = (½ − 1)² = ¼, cotangent 2 · ½ · (−½) = −½.
    ///
    /// ```
    /// use objective::{A2po, Rollouts, Side};
    ///
    /// let mut a2po = A2po { beta: 0.5 }.evaluator()?;
    /// let answer = a2po.evaluate(&Rollouts(Side {
    ///     log_prob: &[-1.0],
    ///     reference_log_prob: &[-2.0],
    ///     advantage: &[1.0],
    ///     ..Side::of(&[1])
    /// }))?;
    /// assert_eq!((answer.loss, answer.cotangents.log_prob), (0.25, &[-0.5][..]));
    /// Ok::<(), objective::Error>(())
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct A2po = "a2po", "implicit rewards regressed on estimated optimal advantages", "arXiv 2505.20686" {
        /// Scale of the implicit reward beta (log pi - log pi_ref), per nat.
        beta: f64 [SCALE] = 1e-3,
    }
}

impl LearnsFrom for A2po {
    type Data<'a> = Rollouts<'a>;
}

impl Objective for A2po {
    fn requirements(&self) -> Requirements {
        let constants = Constant::ReferenceLogProb | Constant::Advantage;
        Requirements { constants, weights: true, ..Requirements::new(Data::Rollouts) }
    }

    declared_parameters!();

    fn loss(&self, batch: &TokenBatch<'_>, _: &Held, out: &mut Evaluation) {
        let share = 1.0 / batch.totals().responses as f64;
        for (index, response) in batch.responses().iter().enumerate() {
            let advantage = sum(batch.constant(Constant::Advantage, index));
            let reward = self.beta * batch.log_ratio(index);
            let (excess, share) = (reward - advantage, share * batch.weight(index));
            out.loss += share * excess * excess;
            out.cotangents.add(Statistic::LogProb, response.tokens.clone(), share * 2.0 * self.beta * excess);
        }
    }
}
