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
//! # let responses = [0, 1, 2, 3].map(|token| Response { tokens: token..token + 1 });
//! # let pairs = [Pair { chosen: 0, rejected: 2 }, Pair { chosen: 1, rejected: 3 }];
//! # let statistics = TokenStatistics { log_prob: vec![-1.0, -3.0, -3.0, -3.0], ..Default::default() };
//! # let constants = TokenConstants { reference_log_prob: vec![-1.0, -2.0, -2.0, -2.0] };
//! # let totals = StepTotals::of(&responses, &pairs);
//! # let aot = transport::Transport::new(transport::Comparison::Aot, 1.0, 0.0)?;
//! # let batch = TokenBatch::new(&aot.requirements(), &statistics, &constants, &responses, &pairs, totals)?;
//! # let mut evaluation = Evaluation::default();
//! aot.evaluate(&batch, &mut evaluation);
//! assert!((evaluation.loss - 0.503204).abs() < 1e-6);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::Objective;
use crate::batch::{Pair, TokenBatch};
use crate::dpo::LABEL_SMOOTHING;
use crate::evaluation::Evaluation;
use crate::method::Method;
use crate::numerics::{sigmoid, softplus, sum};
use crate::parameter::{ParameterError, Parameters, Reader};
use crate::preference::{BETA, record_pair};
use crate::requirements::{Anticipation, Constant, Coupling, Data, Requirements, Statistic};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Margins under the policy and under the reference.
    Aot,
    /// Log-ratios of chosen and of rejected responses.
    AotUnpaired,
}

/// Alignment via optimal transport.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transport {
    comparison: Comparison,
    beta: f64,
    label_smoothing: f64,
}

impl Transport {
    /// Optimal transport with β (per nat) and label smoothing ε.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] for a value out of its range.
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
            data: Data::Preferences,
            coupling: Coupling::Step,
            anticipation: Anticipation::Off,
            statistics: &[Statistic::LogProb],
            constants: &[Constant::ReferenceLogProb],
        }
    }

    fn parameters(&self) -> Parameters {
        [(BETA.name.to_owned(), self.beta.into()), (LABEL_SMOOTHING.name.to_owned(), self.label_smoothing.into())]
            .into()
    }

    fn fill(&self, batch: &TokenBatch<'_>, out: &mut Evaluation) {
        let scale = 1.0 / batch.totals().pairs as f64;
        let (mut u, mut v): (Vec<_>, Vec<_>) = batch.pairs().iter().map(|pair| self.values(batch, pair)).unzip();
        let (u_order, v_order) = (ranking(&u), ranking(&v));
        let mut slopes: Vec<_> = u_order
            .iter()
            .zip(&v_order)
            .map(|(&above, &below)| {
                let margin = self.beta * (u[above] - v[below]);
                out.loss += scale * (softplus(-margin) + self.label_smoothing * margin);
                scale * self.beta * (self.label_smoothing - sigmoid(-margin))
            })
            .collect();
        assign(&mut u, &u_order, &slopes);
        slopes.iter_mut().for_each(|slope| *slope = -*slope);
        assign(&mut v, &v_order, &slopes);

        for (&Pair { chosen, rejected }, (u, v)) in batch.pairs().iter().zip(u.into_iter().zip(v)) {
            let pulls = match self.comparison {
                // The reference's margins in v are constants.
                Comparison::Aot => [(chosen, u), (rejected, -u)],
                Comparison::AotUnpaired => [(chosen, u), (rejected, v)],
            };
            for (response, pull) in pulls {
                let tokens = batch.responses()[response].tokens.clone();
                out.cotangents.log_prob[tokens].iter_mut().for_each(|slot| *slot += pull);
            }
            let sides = [chosen, rejected];
            let rewards = sides.map(|response| self.beta * batch.log_ratio(response));
            let log_prob = sides.map(|response| sum(batch.log_prob(response)));
            record_pair(log_prob, rewards, batch.log_prob(chosen).len(), &mut out.metrics);
        }
    }
}

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

/// Indices from the least value to the greatest.
fn ranking(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<_> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    order
}

/// Replaces each value by the slope of its rank; tied values share theirs.
fn assign(values: &mut [f64], order: &[usize], slopes: &[f64]) {
    let mut rank = 0;
    for tied in order.chunk_by(|&a, &b| values[a] == values[b]).map(<[usize]>::to_vec).collect::<Vec<_>>() {
        let shared = slopes[rank..rank + tied.len()].iter().sum::<f64>() / tied.len() as f64;
        tied.iter().for_each(|&index| values[index] = shared);
        rank += tied.len();
    }
}
