//! The columns of held numbers: which of them an objective has, depending on its parameters, and their positions.

use std::ops::Range;

use super::numbers::Numbers;
use super::{Advantage, Correction, PolicyGradient, Ratio, TrustRegion};
use crate::batch::TokenBatch;
use crate::held::Held;

/// The columns of held numbers that are present, with one number per token each: advantages, weights, shares,
/// penalties and anchors.
fn present(own: &PolicyGradient) -> [bool; 5] {
    let selects = own.has_covariance();
    let weighted = own.trust_region.is_weighted()
        || own.trust_region == TrustRegion::ClipCov
        || own.correction != Correction::None
        || own.entropy_share < 1.0;
    [
        own.advantage == Advantage::Batch || selects,
        weighted,
        own.correction.rejects(),
        own.trust_region == TrustRegion::KlCov,
        own.ratio == Ratio::SequenceToken,
    ]
}

/// The columns of held numbers, to be filled. Absent columns are empty.
pub(super) struct Columns<'a> {
    pub(super) advantages: &'a mut [f64],
    pub(super) weights: &'a mut [f64],
    pub(super) shares: &'a mut [f64],
    pub(super) penalties: &'a mut [f64],
    pub(super) anchors: &'a mut [f64],
}

impl<'a> Columns<'a> {
    /// Columns of this many tokens, all 0.
    pub(super) fn new(own: &PolicyGradient, tokens: usize, all: &'a mut Vec<f64>) -> Self {
        let lengths = present(own).map(|present| if present { tokens } else { 0 });
        all.resize(lengths.iter().sum(), 0.0);
        let mut rest = all.as_mut_slice();
        let [advantages, weights, shares, penalties, anchors] = lengths.map(|length| {
            let (column, others) = std::mem::take(&mut rest).split_at_mut(length);
            rest = others;
            column
        });
        Self { advantages, weights, shares, penalties, anchors }
    }
}

/// The held numbers of a batch, as the loss reads them.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    by_response: &'a [f64],
    responses: usize,
    given: &'a [f64],
    advantages: Option<&'a [f64]>,
    weights: Option<&'a [f64]>,
    shares: Option<&'a [f64]>,
    penalties: Option<&'a [f64]>,
    anchors: Option<&'a [f64]>,
}

impl<'a> View<'a> {
    pub(super) fn of(own: &PolicyGradient, batch: &TokenBatch<'a>, held: &'a Held) -> Self {
        let present = present(own);
        let tokens = held.tokens.len().checked_div(present.into_iter().filter(|own| *own).count()).unwrap_or(0);
        let mut rest = held.tokens.as_slice();
        let [advantages, weights, shares, penalties, anchors] = present.map(|present| {
            let (column, others) = rest.split_at(if present { tokens } else { 0 });
            rest = others;
            present.then_some(column)
        });
        Self {
            by_response: &held.responses,
            responses: batch.responses().len(),
            given: if own.advantage.is_column() { batch.columns().advantage } else { &[] },
            advantages,
            weights,
            shares,
            penalties,
            anchors,
        }
    }

    /// Advantages of a response's tokens.
    pub(super) fn advantage(&self, response: usize, tokens: Range<usize>) -> Numbers<'a> {
        match self.advantages {
            Some(column) => Numbers::Each(&column[tokens]),
            None if self.given.is_empty() => Numbers::Same(self.by_response[response]),
            None => of_column(self.given, self.responses, response, tokens),
        }
    }

    /// Weight of each of a response's tokens in the step.
    pub(super) fn share(&self, response: usize, tokens: Range<usize>) -> Numbers<'a> {
        match self.shares {
            Some(column) => Numbers::Each(&column[tokens]),
            None => Numbers::Same(self.by_response[self.responses + response]),
        }
    }

    /// Weights of the tokens in the policy's loss, if they differ.
    pub(super) fn weights(&self, tokens: Range<usize>) -> Option<&'a [f64]> {
        self.weights.map(|column| &column[tokens])
    }

    /// Anchors: log π of each token minus the logarithm of its response's ratio, if the gradient of each token's loss
    /// passes through that token alone.
    pub(super) fn anchors(&self, tokens: Range<usize>) -> Option<&'a [f64]> {
        self.anchors.map(|column| &column[tokens])
    }

    /// The weights of the absolute log-ratios that are penalised.
    pub(super) fn penalties(&self, tokens: Range<usize>) -> Option<&'a [f64]> {
        self.penalties.map(|column| &column[tokens])
    }
}

/// The numbers of a response in a column that has one per response, or one per token.
pub(super) fn of_column(column: &[f64], responses: usize, response: usize, tokens: Range<usize>) -> Numbers<'_> {
    if column.len() == responses { Numbers::Same(column[response]) } else { Numbers::Each(&column[tokens]) }
}
