//! On-policy distillation from the teacher's log-probabilities of sampled tokens.

use crate::batch::TokenBatch;
use crate::columns::{Constant, Statistic};
use crate::data::Rollouts;
use crate::evaluation::Evaluation;
use crate::evaluator::LearnsFrom;
use crate::held::Held;
use crate::objective;
use crate::parameter::NON_NEGATIVE;
use crate::requirements::{Data, Requirements, Source};
use crate::sampling::Sampling;
use crate::state::ObjectiveState;
use crate::{Objective, declared_parameters};

objective! {
    /// On-policy distillation: policy gradients whose advantage is the teacher's log-probability of each sampled token.
    ///
    /// The policy writes, and the teacher marks every token by how much more probable it would have made it. So the
    /// policy learns in the states that it really reaches, and a teacher gives one number a token. IW-OPD adds a
    /// weight: an early token decides what the later ones can be, so tokens before most of the disagreement count up to
    /// 1 + γ times.
    ///
    /// # Formula
    ///
    /// With aₜ = log π_teacher(yₜ|sₜ) − log π_behaviour(yₜ|sₜ), nats, over a response, mean over the step's tokens:
    ///
    /// L = −Aₜ log π(yₜ|sₜ), Aₜ = aₜ (1 + γ (1 − Σₖ﹤ₜ |aₖ| / Σₖ |aₖ|))
    ///
    /// Aₜ is held. Cotangent: −Aₜ / tokens. With γ = 0, on responses of the policy itself, the expected gradient is
    /// that of KL(π || teacher) in the states that were sampled, summed over a response and divided by the step's
    /// tokens. It is also what `policy_gradient` computes with `advantage = given`, `ratio = none` and aₜ as its
    /// advantages: to use its trust regions or corrections, give aₜ there.
    ///
    /// # Source
    ///
    /// "On the Position Bias of On-Policy Distillation", arXiv 2606.22600, as TRL 1.16's `iw_opd`; γ = 0: K. Lu and
    /// Thinking Machines Lab, "On-Policy Distillation", 2025; R. Agarwal et al., arXiv 2306.13649.
    ///
    /// # Departures
    ///
    /// Where every aₜ is 0 the weights are undefined and Aₜ is 0; TRL divides by at least 1e-8.
    ///
    /// # Examples
    ///
    /// γ = 1, a = (1, −1): the weights are 2 and 3/2, so the cotangents are −2/2 and 1.5/2.
    ///
    /// ```
    /// use objective::{IwOpd, Rollouts, Side};
    ///
    /// let mut opd = IwOpd { gamma: 1.0, ..IwOpd::default() }.evaluator()?;
    /// let answer = opd.evaluate(&Rollouts(Side {
    ///     log_prob: &[-2.0, -1.0],
    ///     behaviour_log_prob: &[-2.0, -1.0],
    ///     teacher_log_prob: &[-1.0, -2.0],
    ///     ..Side::of(&[2])
    /// }))?;
    /// assert_eq!(answer.cotangents.log_prob, [-1.0, 0.75]);
    /// Ok::<(), objective::Error>(())
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct IwOpd = "iw_opd", "policy gradients on a teacher's log-probabilities of sampled tokens",
        "arXiv 2606.22600; arXiv 2306.13649"
    {
        /// Additional weight of tokens before any disagreement; 0 is on-policy distillation.
        gamma: f64 [NON_NEGATIVE] = 0.5,
        /// Responses sampled for each prompt.
        samples: usize [1, 65_536] = 1,
    }
}

impl LearnsFrom for IwOpd {
    type Data<'a> = Rollouts<'a>;
}

impl Objective for IwOpd {
    fn requirements(&self) -> Requirements {
        Requirements {
            source: Source::Sampled(Sampling { samples: self.samples, epochs: 1, gae_lambda: 1.0 }),
            constants: Constant::BehaviourLogProb | Constant::TeacherLogProb,
            weights: true,
            ..Requirements::new(Data::Rollouts)
        }
    }

    declared_parameters!();

    fn hold(&self, batch: &TokenBatch<'_>, _: &mut ObjectiveState, held: &mut Held) {
        for response in 0..batch.responses().len() {
            let teacher = batch.constant(Constant::TeacherLogProb, response);
            let behaviour = batch.constant(Constant::BehaviourLogProb, response);
            let differences = || teacher.iter().zip(behaviour).map(|(teacher, behaviour)| teacher - behaviour);
            let total: f64 = differences().map(f64::abs).sum();
            let mut before = 0.0;
            held.tokens.extend(differences().map(|difference| {
                let rest = if total > 0.0 { 1.0 - before / total } else { 0.0 };
                before += difference.abs();
                difference * (1.0 + self.gamma * rest)
            }));
        }
    }

    fn loss(&self, batch: &TokenBatch<'_>, held: &Held, out: &mut Evaluation) {
        let share = 1.0 / batch.totals().tokens as f64;
        for (index, response) in batch.responses().iter().enumerate() {
            let (tokens, share) = (response.tokens.clone(), share * batch.weight(index));
            let slots = out.cotangents.slots(Statistic::LogProb, tokens.clone());
            for ((log_prob, advantage), slot) in batch.log_prob(index).iter().zip(&held.tokens[tokens]).zip(slots) {
                let pull = -share * advantage;
                *slot += pull;
                out.loss += pull * log_prob;
            }
        }
    }
}
