//! Alignment via optimal transport.

use crate::batch::{Pair, TokenBatch};
use crate::columns::{Constant, Statistic};
use crate::data::Pairs;
use crate::evaluation::{Evaluation, Metric};
use crate::evaluator::LearnsFrom;
use crate::held::Held;
use crate::losses::dpo::smoothed;
use crate::losses::preference::record_pair;
use crate::numerics::sum;
use crate::objective;
use crate::requirements::{Coupling, Data, Requirements};
use crate::{Objective, declared_parameters};

objective! {
    /// Alignment via optimal transport: the policy's distribution of margins is moved above the reference's.
    ///
    /// DPO compares each pair with its own reference margin, which a few extreme pairs can pay for. Here the margins of
    /// a step are sorted, and the k-th smallest under the policy is compared with the k-th smallest under the
    /// reference. The whole distribution must rise, its worst pairs with it.
    ///
    /// # Formula
    ///
    /// With x₍ₖ₎ the k-th smallest value of x over the step's n pairs, z = β (u₍ₖ₎ − v₍ₖ₎) and ε the label smoothing:
    ///
    /// L = (1/n) Σₖ −(1 − ε) log σ(z₍ₖ₎) − ε log σ(−z₍ₖ₎)
    ///
    /// | method | u | v |
    /// |---|---|---|
    /// | `aot` | log π_w − log π_l | log π_ref,w − log π_ref,l |
    /// | `aot_unpaired` | log π_w − log π_ref,w | log π_l − log π_ref,l |
    ///
    /// Cotangent: β (ε − σ(−z₍ₖ₎))/n on the value that is the k-th, with sign + in u and − in v. Sorting couples the
    /// pairs of a step: the host gathers the whole step's columns before it evaluates.
    ///
    /// # Source
    ///
    /// I. Melnyk et al., "Distributional Preference Alignment of LLMs via Optimal Transport", arXiv 2406.05882,
    /// Algorithm 1.
    ///
    /// # Departures
    ///
    /// If values tie, the slopes of their ranks are shared among them, so that the order of the pairs has no influence.
    ///
    /// # Examples
    ///
    /// Two pairs with u = (2, 0), v = (1, 0), β = 1: sorted, z = (0, 1), so L = (ln 2 + log(1 + e⁻¹))/2 = 0.503204.
    ///
    /// ```
    /// use objective::{Aot, Pairs, Side};
    ///
    /// let mut aot = Aot { beta: 1.0, ..Aot::default() }.evaluator()?;
    /// let answer = aot.evaluate(&Pairs {
    ///     chosen: Side { log_prob: &[-1.0, -1.0], reference_log_prob: &[-1.0, -1.0], ..Side::of(&[1, 1]) },
    ///     rejected: Side { log_prob: &[-3.0, -1.0], reference_log_prob: &[-2.0, -1.0], ..Side::of(&[1, 1]) },
    /// })?;
    /// assert!((answer.loss - 0.503204).abs() < 1e-6);
    /// Ok::<(), objective::Error>(())
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct Aot = "aot", "the policy's distribution of margins moved above the reference's",
        "arXiv 2406.05882, Algorithm 1"
    {
        beta;
        label_smoothing;
    }
}

objective! {
    /// Alignment via optimal transport on unpaired responses: the distribution of chosen rewards is moved above that of
    /// rejected ones.
    ///
    /// The k-th smallest reward of the chosen responses is compared with the k-th smallest of the rejected ones,
    /// whichever prompts they belong to.
    ///
    /// # Formula
    ///
    /// With r₍ₖ₎ the k-th smallest implicit reward log π(y) − log π_ref(y) over the step's n pairs, w of the chosen and
    /// l of the rejected responses, z₍ₖ₎ = β (r_w,₍ₖ₎ − r_l,₍ₖ₎) and ε the label smoothing:
    ///
    /// L = (1/n) Σₖ −(1 − ε) log σ(z₍ₖ₎) − ε log σ(−z₍ₖ₎)
    ///
    /// The cotangent is that of [`Aot`].
    ///
    /// # Examples
    ///
    /// Chosen rewards (1, 0), rejected ones (0, 1): sorted, both margins are 0, though one pair is the wrong way round.
    ///
    /// ```
    /// use objective::{AotUnpaired, Pairs, Side};
    ///
    /// let mut aot = AotUnpaired { beta: 1.0, ..AotUnpaired::default() }.evaluator()?;
    /// let answer = aot.evaluate(&Pairs {
    ///     chosen: Side { log_prob: &[-1.0, -1.0], reference_log_prob: &[-2.0, -1.0], ..Side::of(&[1, 1]) },
    ///     rejected: Side { log_prob: &[-1.0, -1.0], reference_log_prob: &[-1.0, -2.0], ..Side::of(&[1, 1]) },
    /// })?;
    /// assert_eq!(answer.loss, 2.0_f64.ln());
    /// Ok::<(), objective::Error>(())
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct AotUnpaired = "aot_unpaired", "the distribution of chosen rewards moved above that of rejected ones",
        "arXiv 2406.05882, Algorithm 1"
    {
        beta;
        label_smoothing;
    }
}

/// Quantities that are sorted and compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    /// Margins of the policy are compared with those of the reference.
    Margins,
    /// Rewards of chosen responses are compared with those of rejected ones.
    Rewards,
}

macro_rules! transport {
    ($type:ty, $comparison:expr) => {
        #[automatically_derived]
        impl LearnsFrom for $type {
            type Data<'a> = Pairs<'a>;
        }

        #[automatically_derived]
        impl Objective for $type {
            fn requirements(&self) -> Requirements {
                Requirements {
                    coupling: Coupling::Step,
                    constants: Constant::ReferenceLogProb.into(),
                    ..Requirements::new(Data::Preferences)
                }
            }

            declared_parameters!();

            fn loss(&self, batch: &TokenBatch<'_>, _: &Held, out: &mut Evaluation) {
                loss($comparison, self.beta, self.label_smoothing, batch, out);
            }
        }
    };
}

transport!(Aot, Comparison::Margins);
transport!(AotUnpaired, Comparison::Rewards);

fn loss(comparison: Comparison, beta: f64, label_smoothing: f64, batch: &TokenBatch<'_>, out: &mut Evaluation) {
    let pairs = batch.pairs().len();
    let scale = 1.0 / batch.totals().pairs as f64;
    let Evaluation { loss, cotangents, metrics, scratch, order, .. } = out;
    scratch.clear();
    scratch.extend(batch.pairs().iter().map(|pair| comparison.values(batch, pair).0));
    scratch.extend(batch.pairs().iter().map(|pair| comparison.values(batch, pair).1));
    scratch.resize(3 * pairs, 0.0);
    let (u, rest) = scratch.split_at_mut(pairs);
    let (v, slopes) = rest.split_at_mut(pairs);
    order.clear();
    order.extend((0..pairs).chain(0..pairs));
    let (u_order, v_order) = order.split_at_mut(pairs);
    u_order.sort_unstable_by(|&a, &b| u[a].total_cmp(&u[b]));
    v_order.sort_unstable_by(|&a, &b| v[a].total_cmp(&v[b]));

    for ((&above, &below), slope) in u_order.iter().zip(&*v_order).zip(&mut *slopes) {
        let (value, derivative) = smoothed(label_smoothing, beta * (u[above] - v[below]));
        *loss += scale * value;
        *slope = scale * beta * derivative;
    }
    assign(u, u_order, slopes);
    slopes.iter_mut().for_each(|slope| *slope = -*slope);
    assign(v, v_order, slopes);

    for (&Pair { chosen, rejected }, (&u, &v)) in batch.pairs().iter().zip(u.iter().zip(&*v)) {
        let pulls = match comparison {
            // The reference's margins in v are constants.
            Comparison::Margins => [(chosen, u), (rejected, -u)],
            Comparison::Rewards => [(chosen, u), (rejected, v)],
        };
        for (response, pull) in pulls {
            cotangents.add(Statistic::LogProb, batch.responses()[response].tokens.clone(), pull);
        }
        let sides = [chosen, rejected];
        let rewards = sides.map(|response| beta * batch.log_ratio(response));
        let log_prob = sides.map(|response| sum(batch.log_prob(response)));
        record_pair(log_prob, rewards, batch.log_prob(chosen).len(), metrics);
        metrics.record(Metric::ZeroGradientPairs, f64::from(pulls.iter().all(|(_, pull)| *pull == 0.0)));
    }
}

impl Comparison {
    /// The quantities u and v of a pair.
    fn values(self, batch: &TokenBatch<'_>, pair: &Pair) -> (f64, f64) {
        let policy = |response: usize| sum(batch.log_prob(response));
        let reference = |response: usize| sum(batch.constant(Constant::ReferenceLogProb, response));
        let (chosen, rejected) = (pair.chosen, pair.rejected);
        match self {
            Self::Margins => (policy(chosen) - policy(rejected), reference(chosen) - reference(rejected)),
            Self::Rewards => (batch.log_ratio(chosen), batch.log_ratio(rejected)),
        }
    }
}

/// Replaces each value by the slope of its rank; ties share the mean of theirs.
fn assign(values: &mut [f64], order: &[usize], slopes: &[f64]) {
    let mut rank = 0;
    while let Some(&first) = order.get(rank) {
        let tied = order[rank..].iter().take_while(|&&index| values[index] == values[first]).count();
        let shared = slopes[rank..rank + tied].iter().sum::<f64>() / tied as f64;
        order[rank..rank + tied].iter().for_each(|&index| values[index] = shared);
        rank += tied;
    }
}
