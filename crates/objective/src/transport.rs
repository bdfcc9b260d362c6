//! Alignment via optimal transport: the distributions of scores over the step are compared, not the pairs.
//!
//! # Formula
//!
//! With x₍ₖ₎ the k-th smallest value of x over the step's n pairs, z = β (u₍ₖ₎ − v₍ₖ₎) and ε the label smoothing:
//!
//! L = (1/n) Σₖ −(1 − ε) log σ(z₍ₖ₎) − ε log σ(−z₍ₖ₎)
//!
//! | method | u | v |
//! |---|---|---|
//! | `aot` | log π_w − log π_l | log π_ref,w − log π_ref,l |
//! | `aot_unpaired` | log π_w − log π_ref,w | log π_l − log π_ref,l |
//!
//! Cotangent: β (ε − σ(−z₍ₖ₎))/n on the value that is the k-th, with sign + in u and − in v. Sorting couples the pairs of a
//! step: the host gathers the whole step's columns before it evaluates.
//!
//! # Source
//!
//! I. Melnyk et al., "Distributional Preference Alignment of LLMs via Optimal Transport", arXiv 2406.05882, Algorithm 1.
//!
//! # Departures
//!
//! Where values tie, the slopes of their ranks are shared among them, so that no order of the pairs shows.
//!
//! # Examples
//!
//! Two pairs with u = (2, 0), v = (1, 0), β = 1: sorted, z = (0, 1) belongs to pairs 1 and 0, so
//! L = (ln 2 + log(1 + e⁻¹))/2 = 0.503204.
//!
//! ```
//! # use objective::*;
//! # let responses = [0, 1, 2, 3].map(|token| Response::new(token..token + 1));
//! # let pairs = [Pair { chosen: 0, rejected: 2 }, Pair { chosen: 1, rejected: 3 }];
//! # let statistics = TokenStatistics { log_prob: vec![-1.0, -3.0, -3.0, -3.0], ..Default::default() };
//! # let constants = TokenConstants { reference_log_prob: vec![-1.0, -2.0, -2.0, -2.0], ..Default::default() };
//! # let totals = StepTotals::of(&responses, &pairs);
//! # let aot = transport::Transport::new(transport::Comparison::Aot, 1.0, 0.0)?;
//! # let batch = TokenBatch::new(&aot.requirements(), &statistics, &constants, &responses, &pairs, totals)?;
//! # let mut evaluation = Evaluation::default();
//! aot.evaluate(&batch, &mut ObjectiveState::default(), &mut evaluation);
//! assert!((evaluation.loss - 0.503204).abs() < 1e-6);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::Objective;
use crate::batch::{Pair, TokenBatch};
use crate::dpo::LABEL_SMOOTHING;
use crate::evaluation::{Evaluation, Metric, add};
use crate::held::Held;
use crate::method::Method;
use crate::numerics::{sigmoid, softplus, sum};
use crate::parameter::{ParameterError, Parameters, Reader};
use crate::preference::{BETA, record_pair};
use crate::requirements::{Constant, Coupling, Data, Requirements};

/// The registry's line of `aot`.
pub const AOT: Method = Method {
    name: "aot",
    summary: "the policy's distribution of margins moved above the reference's",
    source: "arXiv 2406.05882, Algorithm 1",
    parameters: &[BETA, LABEL_SMOOTHING],
    build: |given| build(Comparison::Aot, AOT.name, given),
};

/// The registry's line of `aot_unpaired`.
pub const AOT_UNPAIRED: Method = Method {
    name: "aot_unpaired",
    summary: "the distribution of chosen rewards moved above that of rejected ones",
    source: "arXiv 2406.05882, Algorithm 1",
    parameters: &[BETA, LABEL_SMOOTHING],
    build: |given| build(Comparison::AotUnpaired, AOT_UNPAIRED.name, given),
};

/// Which two distributions are compared.
///
/// One pair: margins of 1 under the policy and of 0 under the reference, log-ratios of 2 and of 1.
///
/// ```
/// # use objective::{transport::*, *};
/// # let (responses, pairs) = ([Response::new(0..1), Response::new(1..2)], [Pair { chosen: 0, rejected: 1 }]);
/// # let totals = StepTotals::of(&responses, &pairs);
/// # let mut evaluation = Evaluation::default();
/// let statistics = TokenStatistics { log_prob: vec![-1.0, -2.0], ..Default::default() };
/// let constants = TokenConstants { reference_log_prob: vec![-3.0, -3.0], ..Default::default() };
/// let mut cotangents = Vec::new();
/// for comparison in [Comparison::Aot, Comparison::AotUnpaired] {
///     let aot = Transport::new(comparison, 1.0, 0.0)?;
/// #   let batch = TokenBatch::new(&aot.requirements(), &statistics, &constants, &responses, &pairs, totals)?;
///     aot.evaluate(&batch, &mut ObjectiveState::default(), &mut evaluation);
///     assert!((evaluation.loss - 0.313262).abs() < 1e-6); // log(1 + e⁻¹): a single pair leaves nothing to sort
///     cotangents.push(evaluation.cotangents.clone());
/// }
/// assert_eq!(cotangents[0], cotangents[1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Margins under the policy and under the reference.
    Aot,
    /// Log-ratios of chosen and of rejected responses.
    AotUnpaired,
}

/// Alignment via optimal transport.
///
/// All responses of a step are needed at once, so that its totals are the batch's own:
///
/// ```
/// # use objective::{transport::*, *};
/// # let (responses, pairs) = ([Response::new(0..1), Response::new(1..2)], [Pair { chosen: 0, rejected: 1 }]);
/// # let statistics = TokenStatistics { log_prob: vec![-1.0, -2.0], ..Default::default() };
/// # let constants = TokenConstants { reference_log_prob: vec![-3.0, -3.0], ..Default::default() };
/// let aot = Transport::new(Comparison::Aot, 1.0, 0.0)?;
/// let totals = StepTotals { tokens: 4, responses: 4, pairs: 2, chosen_tokens: 2 };
/// let error = TokenBatch::new(&aot.requirements(), &statistics, &constants, &responses, &pairs, totals).unwrap_err();
/// assert_eq!(error.to_string(), "totals.tokens: expected the batch's own 2, got 4");
/// # Ok::<(), ParameterError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transport {
    comparison: Comparison,
    beta: f64,
    label_smoothing: f64,
}

/// Whichever is compared, the parameters are those of DPO's logistic loss:
///
/// ```
/// # use objective::Objective;
/// # use objective::transport::{Comparison, Transport};
/// let aot = Transport::new(Comparison::Aot, 0.5, 0.25)?;
/// assert_eq!(aot.parameters(), Transport::new(Comparison::AotUnpaired, 0.5, 0.25)?.parameters());
/// assert_eq!(aot.parameters()["label_smoothing"], 0.25.into());
/// # Ok::<(), objective::ParameterError>(())
/// ```
impl Transport {
    /// Optimal transport with β (per nat) and label smoothing ε.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] for a value out of its range.
    ///
    /// # Examples
    ///
    /// ```
    /// use objective::transport::{Comparison, Transport};
    ///
    /// let error = Transport::new(Comparison::AotUnpaired, 0.0, 0.0).unwrap_err();
    /// assert_eq!(error.to_string(), "aot_unpaired.beta: expected a number, 1e-9 <= beta <= 1e6, got 0");
    /// ```
    pub fn new(comparison: Comparison, beta: f64, label_smoothing: f64) -> Result<Self, ParameterError> {
        let owner = match comparison {
            Comparison::Aot => AOT.name,
            Comparison::AotUnpaired => AOT_UNPAIRED.name,
        };
        let label_smoothing = LABEL_SMOOTHING.check(owner, label_smoothing)?;
        Ok(Self { comparison, beta: BETA.check(owner, beta)?, label_smoothing })
    }
}

fn build(
    comparison: Comparison,
    owner: &'static str,
    given: &Parameters,
) -> Result<Box<dyn Objective>, ParameterError> {
    let reader = Reader::new(owner, &[BETA, LABEL_SMOOTHING], given)?;
    Ok(Box::new(Transport::new(comparison, reader.number(&BETA)?, reader.number(&LABEL_SMOOTHING)?)?))
}

impl Objective for Transport {
    fn requirements(&self) -> Requirements {
        Requirements {
            coupling: Coupling::Step,
            constants: Constant::ReferenceLogProb.into(),
            ..Requirements::new(Data::Preferences)
        }
    }

    fn parameters(&self) -> Parameters {
        [(BETA.name.to_owned(), self.beta.into()), (LABEL_SMOOTHING.name.to_owned(), self.label_smoothing.into())]
            .into()
    }

    fn loss(&self, batch: &TokenBatch<'_>, _: &Held, out: &mut Evaluation) {
        let pairs = batch.pairs().len();
        let scale = 1.0 / batch.totals().pairs as f64;
        let Evaluation { loss, cotangents, metrics, scratch, order, .. } = out;
        scratch.clear();
        scratch.extend(batch.pairs().iter().map(|pair| self.values(batch, pair).0));
        scratch.extend(batch.pairs().iter().map(|pair| self.values(batch, pair).1));
        scratch.resize(3 * pairs, 0.0);
        let (u, rest) = scratch.split_at_mut(pairs);
        let (v, slopes) = rest.split_at_mut(pairs);
        order.clear();
        order.extend((0..pairs).chain(0..pairs));
        let (u_order, v_order) = order.split_at_mut(pairs);
        u_order.sort_unstable_by(|&a, &b| u[a].total_cmp(&u[b]));
        v_order.sort_unstable_by(|&a, &b| v[a].total_cmp(&v[b]));

        for ((&above, &below), slope) in u_order.iter().zip(&*v_order).zip(&mut *slopes) {
            let margin = self.beta * (u[above] - v[below]);
            *loss += scale * (softplus(-margin) + self.label_smoothing * margin);
            *slope = scale * self.beta * (self.label_smoothing - sigmoid(-margin));
        }
        assign(u, u_order, slopes);
        slopes.iter_mut().for_each(|slope| *slope = -*slope);
        assign(v, v_order, slopes);

        for (&Pair { chosen, rejected }, (&u, &v)) in batch.pairs().iter().zip(u.iter().zip(&*v)) {
            let pulls = match self.comparison {
                // The reference's margins in v are constants.
                Comparison::Aot => [(chosen, u), (rejected, -u)],
                Comparison::AotUnpaired => [(chosen, u), (rejected, v)],
            };
            for (response, pull) in pulls {
                add(&mut cotangents.log_prob[batch.responses()[response].tokens.clone()], pull);
            }
            let sides = [chosen, rejected];
            let rewards = sides.map(|response| self.beta * batch.log_ratio(response));
            let log_prob = sides.map(|response| sum(batch.log_prob(response)));
            record_pair(log_prob, rewards, batch.log_prob(chosen).len(), metrics);
            metrics.record(Metric::ZeroGradientPairs, f64::from(pulls.iter().all(|(_, pull)| *pull == 0.0)));
        }
    }
}

/// At the reference both distributions are the same, and the loss is ln 2:
///
/// ```
/// # use objective::{transport::*, *};
/// # let responses = [0, 1, 2, 3].map(|token| Response::new(token..token + 1));
/// # let pairs = [Pair { chosen: 0, rejected: 1 }, Pair { chosen: 2, rejected: 3 }];
/// # let totals = StepTotals::of(&responses, &pairs);
/// let statistics = TokenStatistics { log_prob: vec![-1.0, -2.0, -3.0, -1.5], ..Default::default() };
/// let constants = TokenConstants { reference_log_prob: statistics.log_prob.clone(), ..Default::default() };
/// let aot = Transport::new(Comparison::Aot, 1.0, 0.0)?;
/// # let batch = TokenBatch::new(&aot.requirements(), &statistics, &constants, &responses, &pairs, totals)?;
/// # let mut evaluation = Evaluation::default();
/// aot.evaluate(&batch, &mut ObjectiveState::default(), &mut evaluation);
/// assert_eq!(evaluation.loss, std::f64::consts::LN_2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl Transport {
    fn values(&self, batch: &TokenBatch<'_>, pair: &Pair) -> (f64, f64) {
        let of = |column: &[f64], response: usize| sum(&column[batch.responses()[response].tokens.clone()]);
        match self.comparison {
            Comparison::Aot => {
                let margin = |column: &[f64]| of(column, pair.chosen) - of(column, pair.rejected);
                (margin(&batch.statistics().log_prob), margin(&batch.constants().reference_log_prob))
            }
            Comparison::AotUnpaired => (batch.log_ratio(pair.chosen), batch.log_ratio(pair.rejected)),
        }
    }
}

/// Replaces each value by the slope of its rank; tied values share theirs.
fn assign(values: &mut [f64], order: &[usize], slopes: &[f64]) {
    let mut rank = 0;
    while let Some(&first) = order.get(rank) {
        let tied = order[rank..].iter().take_while(|&&index| values[index] == values[first]).count();
        let shared = slopes[rank..rank + tied].iter().sum::<f64>() / tied as f64;
        order[rank..rank + tied].iter().for_each(|&index| values[index] = shared);
        rank += tied;
    }
}
