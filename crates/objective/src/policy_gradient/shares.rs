//! Weights of tokens in the step.

use std::ops::Range;

use super::aggregation::Counts;
use super::{Aggregation, PolicyGradient};
use crate::batch::TokenBatch;

/// Groups of a batch: ranges of responses to one prompt.
pub(super) fn groups<'a>(batch: &TokenBatch<'a>) -> impl Iterator<Item = Range<usize>> + use<'a> {
    let batch = *batch;
    let mut begin = 0;
    std::iter::from_fn(move || {
        let own = begin;
        let first = batch.group(own)?;
        while batch.group(begin) == Some(first) {
            begin += 1;
        }
        Some(own..begin)
    })
}

/// Fills the weights of tokens in the step: one number per response, or one per token if some are rejected.
pub(super) fn fill_shares(own: &PolicyGradient, batch: &TokenBatch<'_>, kept: &mut [f64], shares: &mut [f64]) {
    let totals = batch.totals();
    let rejects = own.correction.rejects();
    let count = |place: Range<usize>| match rejects {
        true => kept[place].iter().filter(|kept| **kept > 0.0).count(),
        false => place.len(),
    };
    let by_prompt = own.aggregation == Aggregation::PromptMean;
    let span = |members: Range<usize>| {
        let responses = batch.responses();
        responses[members.start].tokens.start..responses[members.end - 1].tokens.end
    };
    // Where tokens are rejected the batch is the whole step.
    let step = match rejects {
        true => Counts {
            tokens: count(0..kept.len()),
            responses: batch.responses().iter().filter(|response| count(response.tokens.clone()) > 0).count(),
            groups: if by_prompt {
                groups(batch).filter(|members| count(span(members.clone())) > 0).count()
            } else {
                0
            },
        },
        false => Counts { tokens: totals.tokens, responses: totals.responses, groups: totals.groups },
    };
    let share = |tokens: usize, group: usize| match tokens {
        0 => 0.0,
        tokens => own.aggregation.share(tokens, group, own.max_tokens, step),
    };
    for (response, slot) in batch.responses().iter().zip(&mut *shares) {
        *slot = if by_prompt { 0.0 } else { share(count(response.tokens.clone()), 0) };
    }
    if by_prompt {
        for members in groups(batch) {
            let tokens = count(span(members.clone()));
            shares[members].fill(share(tokens, tokens));
        }
    }
    if rejects {
        for (response, share) in batch.responses().iter().zip(shares) {
            kept[response.tokens.clone()].iter_mut().for_each(|kept| *kept *= *share);
        }
    }
}
