//! Token-level direct preference optimisation.

use strum::{EnumString, IntoStaticStr, VariantNames};

use crate::batch::{Pair, TokenBatch};
use crate::columns::{Constant, Statistic};
use crate::data::Pairs;
use crate::evaluation::{Evaluation, Metric};
use crate::evaluator::LearnsFrom;
use crate::held::Held;
use crate::losses::preference::record_pair;
use crate::numerics::{sigmoid, softplus, sum};
use crate::objective;
use crate::parameter::{UNIT, choices};
use crate::requirements::{Data, Requirements};
use crate::state::ObjectiveState;
use crate::{Objective, declared_parameters};

/// Variants of [`Tdpo`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
pub enum TdpoVariant {
    /// The weight α is 1, and both divergences learn.
    #[strum(serialize = "1")]
    First,
    /// The divergence of the chosen response is held.
    #[default]
    #[strum(serialize = "2")]
    Second,
}

choices!(TdpoVariant);

objective! {
    /// Token-level DPO: DPO with the forward divergences of both responses in its margin.
    ///
    /// DPO depends only on the tokens of a response; the probabilities of all other tokens on the way are free to
    /// drift, and drifts faster along rejected responses. TDPO adds KL(π_ref || π) of every state to the margin, so
    /// that a pair also pulls the divergence along its rejected response towards that along its chosen one.
    ///
    /// # Formula
    ///
    /// With h = r_w − r_l the difference of log-ratios, K = Σₜ KL(π_ref || π) at sₜ, nats, summed over a response, and
    /// sg the stop-gradient, mean over the step's pairs:
    ///
    /// - variant 1: L = −log σ(β h − β (K_l − K_w))
    /// - variant 2: L = −log σ(β h − α β (K_l − sg(K_w)))
    ///
    /// Cotangents, with g = −σ(−z) and z the argument: ±β g on log π; −α β g on KL of the rejected response, and on
    /// that of the chosen one β g in variant 1. Variant 2 holds it.
    ///
    /// # Source
    ///
    /// Y. Zeng et al., "Token-level Direct Preference Optimization", arXiv 2404.11999, equations 16 to 18.
    ///
    /// # Departures
    ///
    /// None. Variant 1 has no α: setting it is an error.
    ///
    /// # Examples
    ///
    /// One token each, β = 1, α = ½, variant 2, at the reference but for KL: K_w = 0, K_l = 2: z = −1,
    /// L = log(1 + e) = 1.313262, g = −0.731059; the rejected token's KL gets 0.365529.
    ///
    /// ```
    /// use objective::{Pairs, Side, Tdpo};
    ///
    /// let mut tdpo = Tdpo { beta: 1.0, ..Tdpo::default() }.evaluator()?;
    /// let side = Side { log_prob: &[-1.0], reference_log_prob: &[-1.0], ..Side::of(&[1]) };
    /// let answer = tdpo.evaluate(&Pairs {
    ///     chosen: Side { reference_kl: &[0.0], ..side },
    ///     rejected: Side { reference_kl: &[2.0], ..side },
    /// })?;
    /// assert!((answer.loss - 1.313262).abs() < 1e-6);
    /// assert_eq!(answer.cotangents.chosen.reference_kl[0], 0.0);
    /// assert!((answer.cotangents.rejected.reference_kl[0] - 0.365529).abs() < 1e-6);
    /// Ok::<(), objective::Error>(())
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct Tdpo = "tdpo", "DPO with the forward divergences of both responses in its margin",
        "arXiv 2404.11999, equations 16 to 18"
    {
        beta;
        /// Weight of the divergences in the margin, in variant 2.
        alpha: f64 [UNIT] = 0.5
            => unused |own| (own.variant == TdpoVariant::First).then(|| "variant = 1".to_owned()),
        /// 1: alpha is 1 and both divergences learn; 2: that of the chosen response does not.
        variant: TdpoVariant = TdpoVariant::Second,
    }
}

impl LearnsFrom for Tdpo {
    type Data<'a> = Pairs<'a>;
}

impl Objective for Tdpo {
    fn requirements(&self) -> Requirements {
        Requirements {
            statistics: Statistic::LogProb | Statistic::ReferenceKl,
            constants: Constant::ReferenceLogProb.into(),
            weights: true,
            ..Requirements::new(Data::Preferences)
        }
    }

    declared_parameters!();

    fn hold(&self, batch: &TokenBatch<'_>, _: &mut ObjectiveState, held: &mut Held) {
        if self.variant == TdpoVariant::Second {
            held.responses.extend(batch.pairs().iter().map(|pair| divergence(batch, pair.chosen)));
        }
    }

    fn loss(&self, batch: &TokenBatch<'_>, held: &Held, out: &mut Evaluation) {
        let share = 1.0 / batch.totals().pairs as f64;
        // Weight of the divergences, and the share of it with which the chosen one is differentiated.
        let (alpha, learns) = match self.variant {
            TdpoVariant::First => (1.0, 1.0),
            TdpoVariant::Second => (self.alpha, 0.0),
        };
        for (index, &Pair { chosen, rejected }) in batch.pairs().iter().enumerate() {
            let scale = share * batch.weight(chosen);
            let [reward_chosen, reward_rejected] =
                [chosen, rejected].map(|response| self.beta * batch.log_ratio(response));
            let kl_rejected = divergence(batch, rejected);
            let kl_chosen = held.responses.get(index).map_or_else(|| divergence(batch, chosen), |held| *held);
            let margin = reward_chosen - reward_rejected - alpha * self.beta * (kl_rejected - kl_chosen);
            out.loss += scale * softplus(-margin);

            let slope = -scale * self.beta * sigmoid(-margin);
            for (response, log_prob, kl) in
                [(chosen, slope, learns * alpha * slope), (rejected, -slope, -alpha * slope)]
            {
                let tokens = batch.responses()[response].tokens.clone();
                out.cotangents.add(Statistic::LogProb, tokens.clone(), log_prob);
                out.cotangents.add(Statistic::ReferenceKl, tokens, kl);
            }
            let log_prob = [chosen, rejected].map(|response| sum(batch.log_prob(response)));
            let tokens = batch.log_prob(chosen).len();
            record_pair(log_prob, [reward_chosen, reward_rejected], tokens, &mut out.metrics);
            out.metrics.record(Metric::ZeroGradientPairs, f64::from(slope == 0.0));
        }
    }
}

/// Summed divergence K of a response.
fn divergence(batch: &TokenBatch<'_>, response: usize) -> f64 {
    sum(batch.statistic(Statistic::ReferenceKl, response))
}
