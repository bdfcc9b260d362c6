//! Responses, pairs, and the validated batch that an objective reads.

mod check;
mod error;

use std::ops::Range;

use enumset::EnumSet;
use serde::{Deserialize, Serialize};

pub(crate) use self::check::check;
pub use self::error::BatchError;
use crate::columns::{Constant, Side, Statistic, TokenConstants, TokenStatistics};
use crate::numerics::sum_of_differences;
use crate::requirements::{Data, Requirements};

/// One response: a contiguous range of tokens, and feedback on the whole. Responses follow one another without gaps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// Range of the response's tokens in the columns.
    pub tokens: Range<usize>,
    /// Feedback on the whole response.
    pub feedback: Feedback,
}

/// Feedback on a whole response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Feedback {
    /// No feedback: demonstrations, the responses of pairs, rollouts.
    #[default]
    None,
    /// The response is desirable.
    Desirable,
    /// The response is undesirable.
    Undesirable,
    /// The response belongs to another prompt than the one before it, and is not learned from.
    Mismatched,
    /// The response belongs to a group of responses to one prompt. A group is contiguous, and groups are numbered
    /// upwards.
    Group(usize),
}

/// A chosen and a rejected response to the same prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// Index of the chosen response.
    pub chosen: usize,
    /// Index of the rejected response.
    pub rejected: usize,
}

/// Counts over the whole optimizer step, by which losses are divided: micro-batches add up to the step.
///
/// ```
/// use objective::{Demonstrations, Sft, Side, StepTotals};
///
/// let parts: [&[f64]; 2] = [&[-1.0, -3.0], &[-2.0, -6.0]];
/// let totals = StepTotals { tokens: 4, responses: 2, ..StepTotals::default() };
/// let mut sft = Sft::default().evaluator()?;
/// let mut loss = 0.0;
/// for log_prob in parts {
///     loss += sft.of_step(totals).evaluate(&Demonstrations(Side { log_prob, ..Side::of(&[2]) }))?.loss;
/// }
/// assert_eq!(loss, 3.0); // (1 + 3 + 2 + 6) / 4
/// Ok::<(), objective::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepTotals {
    /// Number of response tokens, without those of mismatched responses.
    pub tokens: usize,
    /// Number of responses, without mismatched ones.
    pub responses: usize,
    /// Number of pairs.
    pub pairs: usize,
    /// Number of tokens of chosen responses, counted once per pair.
    pub chosen_tokens: usize,
    /// Number of groups of responses to one prompt.
    pub groups: usize,
}

/// Columns of a host that stores responses in one flat order, and pairs as their indices.
#[derive(Clone, Copy, Debug)]
pub struct TokenColumns<'a> {
    /// Differentiable columns.
    pub statistics: &'a TokenStatistics,
    /// Constant columns.
    pub constants: &'a TokenConstants,
    /// Responses, without gaps.
    pub responses: &'a [Response],
    /// Pairs of responses, if the objective compares.
    pub pairs: &'a [Pair],
}

/// Layout of a batch's responses: columns on one side or on two, with the tokens of the second side after those of the
/// first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout<'a> {
    pub(crate) sides: [Side<'a>; 2],
    /// Names of the sides in errors, each with a full stop after it.
    pub(crate) names: [&'static str; 2],
    pub(crate) first_responses: usize,
    pub(crate) responses: &'a [Response],
    pub(crate) pairs: &'a [Pair],
}

impl<'a> From<&TokenColumns<'a>> for Layout<'a> {
    fn from(&TokenColumns { statistics, constants, responses, pairs }: &TokenColumns<'a>) -> Self {
        Self {
            sides: [Side::borrow(statistics, constants), Side::default()],
            names: ["", ""],
            first_responses: responses.len(),
            responses,
            pairs,
        }
    }
}

impl Layout<'_> {
    /// Number of tokens on the first side.
    pub(crate) fn first_tokens(&self) -> usize {
        self.responses[..self.first_responses].last().map_or(0, |response| response.tokens.end)
    }
}

/// A validated batch that an objective reads. Only an [`Evaluator`](crate::Evaluator) or an
/// [`Evaluation`](crate::Evaluation) makes one, from columns that it has checked against the requirements of this
/// objective. So no objective can fail.
#[derive(Clone, Copy, Debug)]
pub struct TokenBatch<'a> {
    data: Data,
    statistics: EnumSet<Statistic>,
    sides: [Side<'a>; 2],
    first_tokens: usize,
    responses: &'a [Response],
    pairs: &'a [Pair],
    totals: StepTotals,
}

impl Response {
    /// A response without feedback.
    pub fn new(tokens: Range<usize>) -> Self {
        Self { tokens, feedback: Feedback::None }
    }

    /// A response with a label.
    pub fn labelled(tokens: Range<usize>, desirable: bool) -> Self {
        Self { tokens, feedback: if desirable { Feedback::Desirable } else { Feedback::Undesirable } }
    }

    /// A response in a group.
    pub fn grouped(tokens: Range<usize>, group: usize) -> Self {
        Self { tokens, feedback: Feedback::Group(group) }
    }

    /// Group of the response, if it has one.
    pub(crate) fn group(&self) -> Option<usize> {
        match self.feedback {
            Feedback::Group(group) => Some(group),
            _ => None,
        }
    }

    /// Whether the response is learned from, as all but mismatched responses are.
    pub fn is_learned(&self) -> bool {
        self.feedback != Feedback::Mismatched
    }

    /// The response with its range moved by this many tokens, to where a later micro-batch lies in a step.
    pub fn shifted(&self, places: usize) -> Self {
        Self { tokens: self.tokens.start + places..self.tokens.end + places, ..*self }
    }
}

impl StepTotals {
    /// The counts of a batch that is a whole step. A chosen response counts once for each pair that it is in.
    ///
    /// ```
    /// use objective::{Pair, Response, StepTotals};
    ///
    /// let responses = [Response::new(0..2), Response::new(2..5), Response::new(5..6)];
    /// let totals = StepTotals::of(&responses, &[Pair { chosen: 0, rejected: 1 }, Pair { chosen: 0, rejected: 2 }]);
    /// assert_eq!(totals, StepTotals { tokens: 6, responses: 3, pairs: 2, chosen_tokens: 4, groups: 0 });
    /// ```
    pub fn of(responses: &[Response], pairs: &[Pair]) -> Self {
        let learned = || responses.iter().filter(|response| response.is_learned());
        let length = |index: usize| responses.get(index).map_or(0, |response| response.tokens.len());
        Self {
            tokens: learned().map(|response| response.tokens.len()).sum(),
            responses: learned().count(),
            pairs: pairs.len(),
            chosen_tokens: pairs.iter().map(|pair| length(pair.chosen)).sum(),
            groups: responses.chunk_by(|a, b| a.feedback == b.feedback).filter(|run| run[0].group().is_some()).count(),
        }
    }
}

impl std::iter::Sum for StepTotals {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), |sum, part| Self {
            tokens: sum.tokens.saturating_add(part.tokens),
            responses: sum.responses.saturating_add(part.responses),
            pairs: sum.pairs.saturating_add(part.pairs),
            chosen_tokens: sum.chosen_tokens.saturating_add(part.chosen_tokens),
            groups: sum.groups.saturating_add(part.groups),
        })
    }
}

impl<'a> TokenBatch<'a> {
    /// Makes a batch of these columns, in a step with these totals or in a step of its own.
    ///
    /// # Errors
    ///
    /// [`BatchError`] for columns that do not fit the requirements or one another.
    pub(crate) fn new(
        requirements: &Requirements,
        layout: &Layout<'a>,
        totals: Option<StepTotals>,
    ) -> Result<Self, BatchError> {
        let totals = check(requirements, layout, totals)?;
        let &Layout { sides, responses, pairs, .. } = layout;
        let Requirements { data, statistics, .. } = *requirements;
        Ok(Self { data, statistics, sides, first_tokens: layout.first_tokens(), responses, pairs, totals })
    }

    /// The batch as demonstrations: a batch of pairs becomes its chosen responses.
    pub(crate) fn demonstrations(self) -> Self {
        let StepTotals { pairs, chosen_tokens, .. } = self.totals;
        match self.data {
            Data::Preferences => {
                Self { totals: StepTotals { tokens: chosen_tokens, responses: pairs, ..self.totals }, ..self }
            }
            _ => self,
        }
    }

    /// Statistics that the batch has.
    pub(crate) fn statistics(&self) -> EnumSet<Statistic> {
        self.statistics
    }

    /// Indices of the responses to imitate: all of them, or the chosen ones of pairs, once per pair.
    pub fn demonstrated(&self) -> impl Iterator<Item = usize> + 'a {
        let (all, pairs) = match self.data {
            Data::Preferences => (0..0, self.pairs),
            _ => (0..self.responses.len(), &[] as &[Pair]),
        };
        all.chain(pairs.iter().map(|pair| pair.chosen))
    }

    /// Responses with the ranges of their tokens in the cotangents.
    pub fn responses(&self) -> &'a [Response] {
        self.responses
    }

    /// Pairs of responses.
    pub fn pairs(&self) -> &'a [Pair] {
        self.pairs
    }

    /// Counts over the step.
    pub fn totals(&self) -> StepTotals {
        self.totals
    }

    /// Number of response tokens in the batch.
    pub fn tokens(&self) -> usize {
        self.responses.last().map_or(0, |response| response.tokens.end)
    }

    /// Columns of a batch with one side.
    pub(crate) fn columns(&self) -> &Side<'a> {
        &self.sides[0]
    }

    /// Log-probabilities of a response.
    pub fn log_prob(&self, response: usize) -> &'a [f64] {
        self.part(response, |side| side.log_prob)
    }

    /// Values of a statistic for a response's tokens.
    pub fn statistic(&self, statistic: Statistic, response: usize) -> &'a [f64] {
        self.part(response, |side| side.statistic(statistic))
    }

    /// Group of the response, if the response exists and has one.
    pub(crate) fn group(&self, response: usize) -> Option<usize> {
        self.responses.get(response)?.group()
    }

    /// Values of a constant column for a response. Advantages may be one number per response; every response has the
    /// same number of rewards.
    pub fn constant(&self, constant: Constant, response: usize) -> &'a [f64] {
        let side = &self.sides[0];
        if constant == Constant::Reward {
            let each = side.reward.len() / self.responses.len();
            return &side.reward[response * each..(response + 1) * each];
        }
        if constant == Constant::Advantage && side.advantage.len() == self.responses.len() {
            return &side.advantage[response..=response];
        }
        self.part(response, |side| side.constant(constant))
    }

    /// Weight of a response; for a chosen response, the weight of its pair.
    pub fn weight(&self, response: usize) -> f64 {
        self.sides[0].weight.get(response).copied().unwrap_or(1.0)
    }

    /// Log-ratio of a response, Σₜ log π − log π_ref, nats.
    pub fn log_ratio(&self, response: usize) -> f64 {
        sum_of_differences(self.log_prob(response), self.constant(Constant::ReferenceLogProb, response))
    }

    fn part(&self, response: usize, column: impl Fn(&Side<'a>) -> &'a [f64]) -> &'a [f64] {
        let Range { start, end } = self.responses[response].tokens;
        match start < self.first_tokens {
            true => &column(&self.sides[0])[start..end],
            false => &column(&self.sides[1])[start - self.first_tokens..end - self.first_tokens],
        }
    }
}
