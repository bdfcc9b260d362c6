//! Distillation from a teacher's whole distributions.

use std::ops::Bound;

use strum::{EnumString, IntoStaticStr, VariantNames};

use crate::batch::TokenBatch;
use crate::columns::Statistic;
use crate::data::Demonstrations;
use crate::evaluation::{Evaluation, Metric};
use crate::evaluator::LearnsFrom;
use crate::held::Held;
use crate::losses::sft::Normalisation;
use crate::numerics::sum;
use crate::objective;
use crate::parameter::{Interval, choices};
use crate::requirements::{Data, Requirements, Source, TeacherDivergence};
use crate::sampling::Sampling;
use crate::{Objective, declared_parameters};

/// The kind of a [`TeacherDivergence`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum DistillationDivergence {
    /// Forward divergence KL(teacher || π): the policy must give probability to everything that the teacher would do.
    #[default]
    ForwardKl,
    /// Reverse divergence KL(π || teacher): the policy must not do what the teacher would not do.
    ReverseKl,
    /// The generalised Jensen-Shannon divergence, between the two.
    JensenShannon,
}

/// The responses that [`Distillation`] learns from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum DistillationResponses {
    /// Responses of a data set.
    #[default]
    Given,
    /// Responses sampled from the policy.
    Sampled,
}

/// Range 0 < β < 1.
const BETWEEN: Interval = (Bound::Excluded(0.0), Bound::Excluded(1.0));

choices!(DistillationDivergence, DistillationResponses);

objective! {
    /// Distillation: the policy's distribution at every token moves towards a teacher's.
    ///
    /// A demonstrated token says what to do in one state; a teacher says how good everything else would have been.
    /// Distillation compares whole distributions, so one response teaches as much as many samples. On the policy's own
    /// responses it also teaches in the states where the policy's mistakes lead, which no demonstration visits.
    ///
    /// # Formula
    ///
    /// With Dₜ the divergence between teacher and policy at sₜ, nats ([`TeacherDivergence`] has the formulas and their
    /// derivatives by the logits), over the step's responses i of Nᵢ tokens:
    ///
    /// - `normalisation = token`: L = Σᵢ Σₜ Dₜ / (response tokens of the step)
    /// - `normalisation = response`: L = Σᵢ (Σₜ Dₜ / Nᵢ) / (responses of the step)
    ///
    /// Cotangent: ∂L/∂Dₜ = 1 / tokens, or 1 / (Nᵢ · responses). Which tokens the responses have does not matter, only
    /// which states they visit; no gradient passes through the choice of sampled ones.
    ///
    /// # Source
    ///
    /// R. Agarwal et al., "On-Policy Distillation of Language Models: Learning from Self-Generated Mistakes" (GKD),
    /// arXiv 2306.13649, equations 1 to 3. Policies that distil from themselves behind another prompt (SDFT, arXiv
    /// 2601.19897; SDPO, arXiv 2601.20802) are this loss with another teacher.
    ///
    /// # Departures
    ///
    /// In TRL β = 0 and 1 of `jensen_shannon` mean the two KL divergences, though its limits there are 0; here they
    /// have names of their own, and β lies between. GKD mixes given and sampled responses at random; here a step has
    /// one or the other.
    ///
    /// # Examples
    ///
    /// Divergences of 1 and 3 in a response of two tokens: L = 2.
    ///
    /// ```
    /// use objective::{Demonstrations, Distillation, Objective, Side, Statistic};
    ///
    /// let mut distillation = Distillation::default().evaluator()?;
    /// assert_eq!(distillation.objective().requirements().statistics, Statistic::TeacherDivergence);
    /// let side = Side { teacher_divergence: &[1.0, 3.0], ..Side::of(&[2]) };
    /// let answer = distillation.evaluate(&Demonstrations(side))?;
    /// assert_eq!((answer.loss, answer.cotangents.teacher_divergence), (2.0, &[0.5, 0.5][..]));
    /// Ok::<(), objective::Error>(())
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct Distillation = "distillation", "the policy's distributions drawn to a teacher's",
        "arXiv 2306.13649, equations 1 to 3"
    {
        /// Divergence between the distributions of the teacher and of the policy.
        divergence: DistillationDivergence = DistillationDivergence::ForwardKl,
        /// Weight of the teacher in the mixture of the Jensen-Shannon divergence.
        beta: f64 [BETWEEN] = 0.5 => unused |own| own.unweighted(),
        /// Whether losses are averaged over all tokens of the step, or first over the tokens of each response and then
        /// over responses.
        normalisation: Normalisation = Normalisation::Token,
        /// Whether the responses are given or sampled from the policy.
        responses: DistillationResponses = DistillationResponses::Given,
        /// Responses sampled for each prompt.
        samples: usize [1, 65_536] = 1
            => unused |own| (own.responses == DistillationResponses::Given).then(|| "responses = given".to_owned()),
    }
}

impl LearnsFrom for Distillation {
    type Data<'a> = Demonstrations<'a>;
}

impl Distillation {
    fn unweighted(&self) -> Option<String> {
        let name = <&str>::from(self.divergence);
        (self.divergence != DistillationDivergence::JensenShannon).then(|| format!("divergence = {name}"))
    }
}

impl Objective for Distillation {
    fn requirements(&self) -> Requirements {
        let teacher = match self.divergence {
            DistillationDivergence::ForwardKl => TeacherDivergence::ForwardKl,
            DistillationDivergence::ReverseKl => TeacherDivergence::ReverseKl,
            DistillationDivergence::JensenShannon => TeacherDivergence::JensenShannon { beta: self.beta },
        };
        let source = match self.responses {
            DistillationResponses::Given => Source::Given,
            DistillationResponses::Sampled => {
                Source::Sampled(Sampling { samples: self.samples, epochs: 1, gae_lambda: 1.0 })
            }
        };
        Requirements {
            source,
            statistics: Statistic::TeacherDivergence.into(),
            weights: true,
            teacher: Some(teacher),
            ..Requirements::new(Data::Demonstrations)
        }
    }

    declared_parameters!();

    fn loss(&self, batch: &TokenBatch<'_>, _: &Held, out: &mut Evaluation) {
        let totals = batch.totals();
        // Beside terms that compare pairs, only chosen responses are imitated.
        for response in batch.demonstrated() {
            let tokens = batch.responses()[response].tokens.clone();
            let divergence = sum(batch.statistic(Statistic::TeacherDivergence, response));
            let scale = batch.weight(response)
                / match self.normalisation {
                    Normalisation::Token => totals.tokens as f64,
                    Normalisation::Response => tokens.len() as f64 * totals.responses as f64,
                };
            out.loss += scale * divergence;
            out.metrics.record_sum(Metric::TeacherDivergence, divergence, tokens.len());
            out.cotangents.add(Statistic::TeacherDivergence, tokens, scale);
        }
    }
}
