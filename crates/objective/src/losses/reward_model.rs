//! The loss of a reward model.

use crate::batch::{Pair, TokenBatch};
use crate::columns::Statistic;
use crate::data::Pairs;
use crate::evaluation::{Evaluation, Metric};
use crate::evaluator::LearnsFrom;
use crate::held::Held;
use crate::numerics::{sigmoid, softplus};
use crate::objective;
use crate::parameter::NON_NEGATIVE;
use crate::requirements::{Data, Requirements};
use crate::{Objective, declared_parameters};

objective! {
    /// Bradley-Terry loss of a reward model: the chosen response's score above the rejected one's.
    ///
    /// A preference says which of two responses is better, and reinforcement learning wants a number for each. The
    /// model of Bradley and Terry says how probable a preference is from the difference of two scores; fitting it turns
    /// preferences into scores. Only differences are fitted, so an optional term keeps the scores of a pair around 0.
    ///
    /// # Formula
    ///
    /// With x the score of a response, which is that at its last token, and c the weight of the centring, mean over the
    /// step's pairs:
    ///
    /// L = −log σ(x_w − x_l) + c (x_w + x_l)²
    ///
    /// Cotangent on the last token's score: with g = −σ(x_l − x_w) and k = 2c (x_w + x_l), g + k of the chosen response
    /// and −g + k of the rejected one; 0 on the tokens before.
    ///
    /// # Source
    ///
    /// L. Ouyang et al., "Training language models to follow instructions with human feedback", arXiv 2203.02155,
    /// equation 1; centring: J. Eisenstein et al., "Helping or Herding?", arXiv 2312.09244, as TRL's
    /// `center_rewards_coefficient`.
    ///
    /// # Departures
    ///
    /// A margin that the data demand between two scores (TRL's column `margin`) is not a parameter: subtract
    /// it from the chosen scores, which gives the same loss and cotangents without centring.
    ///
    /// # Examples
    ///
    /// Scores 1 and 1 − ln 3: L = log(1 + 1/3) = 0.287682, and the cotangents are ∓¼.
    ///
    /// ```
    /// use objective::{Pairs, RewardModel, Side};
    ///
    /// let mut model = RewardModel::default().evaluator()?;
    /// let answer = model.evaluate(&Pairs {
    ///     chosen: Side { score: &[1.0], ..Side::of(&[1]) },
    ///     rejected: Side { score: &[1.0 - 3.0_f64.ln()], ..Side::of(&[1]) },
    /// })?;
    /// assert!((answer.loss - 0.287682).abs() < 1e-6);
    /// assert!((answer.cotangents.chosen.score[0] + 0.25).abs() < 1e-12);
    /// assert!((answer.cotangents.rejected.score[0] - 0.25).abs() < 1e-12);
    /// Ok::<(), objective::Error>(())
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct RewardModel = "reward_model", "Bradley-Terry loss of a reward model's scores",
        "arXiv 2203.02155, equation 1"
    {
        /// Weight of the squared sum of a pair's scores.
        centring: f64 [NON_NEGATIVE] = 0.0,
    }
}

impl LearnsFrom for RewardModel {
    type Data<'a> = Pairs<'a>;
}

impl Objective for RewardModel {
    fn requirements(&self) -> Requirements {
        Requirements { statistics: Statistic::Score.into(), weights: true, ..Requirements::new(Data::Preferences) }
    }

    declared_parameters!();

    fn loss(&self, batch: &TokenBatch<'_>, _: &Held, out: &mut Evaluation) {
        let share = 1.0 / batch.totals().pairs as f64;
        for &Pair { chosen, rejected } in batch.pairs() {
            let [x_chosen, x_rejected] =
                [chosen, rejected].map(|response| batch.statistic(Statistic::Score, response).last().unwrap_or(&0.0));
            let (margin, sum) = (x_chosen - x_rejected, x_chosen + x_rejected);
            let share = share * batch.weight(chosen);
            out.loss += share * (softplus(-margin) + self.centring * sum * sum);
            let (pull, centre) = (share * sigmoid(-margin), share * 2.0 * self.centring * sum);
            for (response, slope) in [(chosen, centre - pull), (rejected, centre + pull)] {
                let end = batch.responses()[response].tokens.end;
                out.cotangents.add(Statistic::Score, end - 1..end, slope);
            }
            out.metrics.record(Metric::RewardChosen, *x_chosen);
            out.metrics.record(Metric::RewardRejected, *x_rejected);
            out.metrics.record(Metric::RewardAccuracy, f64::from(margin > 0.0));
            out.metrics.record(Metric::RewardMargin, margin);
        }
    }
}
