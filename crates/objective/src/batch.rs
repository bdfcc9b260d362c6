//! What an objective reads: columns over response tokens, and the responses and pairs that they belong to.

use std::ops::{Range, RangeInclusive};

use enumset::EnumSet;

use crate::numerics::sum_of_differences;
use crate::requirements::{Constant, Coupling, Data, MOST, Requirements, Statistic};

/// Differentiable columns over response tokens; also the type of their cotangents. Unrequired columns are empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenStatistics {
    /// log π(yₜ|sₜ) of the policy in training, nats.
    pub log_prob: Vec<f64>,
    /// KL(π_ref || π) at sₜ, nats.
    pub reference_kl: Vec<f64>,
    /// −Σₐ π(a|sₜ) log π(a|sₜ), nats.
    pub entropy: Vec<f64>,
    /// V(sₜ), in units of reward.
    pub value: Vec<f64>,
    /// log Σₐ π(a|sₜ)², nats.
    pub log_sum_square_prob: Vec<f64>,
}

/// Columns over response tokens that the step does not differentiate. Unrequired columns are empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenConstants {
    /// log π_ref(yₜ|sₜ) of the frozen reference policy, nats.
    pub reference_log_prob: Vec<f64>,
    /// log π(yₜ|sₜ) of the policy that sampled the response, nats.
    pub behaviour_log_prob: Vec<f64>,
    /// V(sₜ) when the response was sampled, in units of reward.
    pub behaviour_value: Vec<f64>,
    /// How much better yₜ is than what the policy does at sₜ.
    pub advantage: Vec<f64>,
    /// The return that V(sₜ) is fitted to, in units of reward.
    pub returns: Vec<f64>,
}

/// One response: a contiguous range of tokens, and what is known of them as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// Its tokens' places in the columns.
    pub tokens: Range<usize>,
    /// What is known of it beside its tokens.
    pub feedback: Feedback,
}

/// What is known of a response beside its tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Feedback {
    /// Nothing: demonstrations, the responses of pairs, rollouts.
    #[default]
    None,
    /// It is as wished.
    Desirable,
    /// It is not.
    Undesirable,
    /// It belongs to another prompt than the one it follows here, and is not learned from.
    Mismatched,
    /// It has a reward, to be compared with those of its group.
    Reward {
        /// The group; responses of a group stand together, and groups are numbered upwards.
        group: usize,
        /// In any unit.
        reward: f64,
    },
}

/// A chosen and a rejected response to the same prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Index of the chosen response.
    pub chosen: usize,
    /// Index of the rejected response.
    pub rejected: usize,
}

/// Counts over the whole optimizer step, by which losses are divided: micro-batches add up to the step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepTotals {
    /// Response tokens, without those of mismatched responses.
    pub tokens: usize,
    /// Responses, without mismatched ones.
    pub responses: usize,
    /// Pairs.
    pub pairs: usize,
    /// Tokens of chosen responses, once a pair.
    pub chosen_tokens: usize,
}

/// A validated batch: what reaches an objective cannot fail there.
#[derive(Clone, Copy, Debug)]
pub struct TokenBatch<'a> {
    data: Data,
    statistics: &'a TokenStatistics,
    constants: &'a TokenConstants,
    responses: &'a [Response],
    pairs: &'a [Pair],
    totals: StepTotals,
}

/// Why a batch was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BatchError {
    /// No response at all.
    #[error("responses: at least one is needed")]
    NoResponse,
    /// A response without tokens.
    #[error("response {response}: at least one token is needed, got none")]
    EmptyResponse {
        /// Its index.
        response: usize,
    },
    /// Responses must cover the columns from first to last token, in order and without gaps.
    #[error("response {response}: expected tokens from {expected}, where the one before ends, got {given:?}")]
    Gap {
        /// Its index.
        response: usize,
        /// Where it must begin.
        expected: usize,
        /// Its range.
        given: Range<usize>,
    },
    /// A column of the wrong length.
    #[error("{column}: expected {expected} numbers, one a response token, got {given}")]
    Length {
        /// The column.
        column: &'static str,
        /// Response tokens.
        expected: usize,
        /// Its length.
        given: usize,
    },
    /// A value outside of its column's range.
    #[error("{column}: expected {least:e} to {most:e} nats at token {token} of response {response}, got {given}")]
    Value {
        /// The column.
        column: &'static str,
        /// Index of the response.
        response: usize,
        /// Place in the response.
        token: usize,
        /// The least value allowed.
        least: f64,
        /// The greatest value allowed.
        most: f64,
        /// Its value.
        given: f64,
    },
    /// A response whose feedback is not of the data's kind.
    #[error("response {response}: expected {expected} for {data}, got {given:?}", data = <&str>::from(.data))]
    Feedback {
        /// Its index.
        response: usize,
        /// What the step is made of.
        data: Data,
        /// What was expected.
        expected: &'static str,
        /// Its feedback.
        given: Feedback,
    },
    /// No response of a kind that the loss cannot do without.
    #[error("responses: at least one {expected} is needed, got none")]
    Missing {
        /// The kind.
        expected: &'static str,
    },
    /// A group that is not above the one before.
    #[error("response {response}: expected a group from {least}, as groups are numbered upwards, got {given}")]
    Group {
        /// Its index.
        response: usize,
        /// The group before.
        least: usize,
        /// Its group.
        given: usize,
    },
    /// A pair of responses that are not there, or of a response with itself.
    #[error("pair {pair}: expected two different responses below {responses}, got {chosen} and {rejected}")]
    Pair {
        /// Its index.
        pair: usize,
        /// Number of responses.
        responses: usize,
        /// Its chosen response.
        chosen: usize,
        /// Its rejected response.
        rejected: usize,
    },
    /// Preferences without a pair, or demonstrations with one.
    #[error("pairs: expected {expected} for {data}, got {given}", data = <&str>::from(.data))]
    Pairs {
        /// What the step is made of.
        data: Data,
        /// What was expected.
        expected: &'static str,
        /// Number of pairs.
        given: usize,
    },
    /// Totals of a step that are less than those of a part of it, or differ where the part must be the whole.
    #[error("totals.{field}: expected {at_least}the batch's own {own}, got {given}", at_least = if *.whole { "" } else { "at least " })]
    Totals {
        /// Which count.
        field: &'static str,
        /// Whether the batch must be the whole step, as its responses are coupled.
        whole: bool,
        /// The batch's own.
        own: usize,
        /// The count given.
        given: usize,
    },
}

impl TokenStatistics {
    /// A column by its name.
    pub fn column(&self, statistic: Statistic) -> &[f64] {
        match statistic {
            Statistic::LogProb => &self.log_prob,
            Statistic::ReferenceKl => &self.reference_kl,
            Statistic::Entropy => &self.entropy,
            Statistic::Value => &self.value,
            Statistic::LogSumSquareProb => &self.log_sum_square_prob,
        }
    }

    /// A column by its name, to be filled.
    pub fn column_mut(&mut self, statistic: Statistic) -> &mut Vec<f64> {
        match statistic {
            Statistic::LogProb => &mut self.log_prob,
            Statistic::ReferenceKl => &mut self.reference_kl,
            Statistic::Entropy => &mut self.entropy,
            Statistic::Value => &mut self.value,
            Statistic::LogSumSquareProb => &mut self.log_sum_square_prob,
        }
    }
}

impl TokenConstants {
    /// A column by its name.
    pub fn column(&self, constant: Constant) -> &[f64] {
        match constant {
            Constant::ReferenceLogProb => &self.reference_log_prob,
            Constant::BehaviourLogProb => &self.behaviour_log_prob,
            Constant::BehaviourValue => &self.behaviour_value,
            Constant::Advantage => &self.advantage,
            Constant::Return => &self.returns,
        }
    }

    /// A column by its name, to be filled.
    pub fn column_mut(&mut self, constant: Constant) -> &mut Vec<f64> {
        match constant {
            Constant::ReferenceLogProb => &mut self.reference_log_prob,
            Constant::BehaviourLogProb => &mut self.behaviour_log_prob,
            Constant::BehaviourValue => &mut self.behaviour_value,
            Constant::Advantage => &mut self.advantage,
            Constant::Return => &mut self.returns,
        }
    }
}

impl Response {
    /// A response of which nothing is known but its tokens.
    pub fn new(tokens: Range<usize>) -> Self {
        Self { tokens, feedback: Feedback::None }
    }

    /// A desirable response, or an undesirable one.
    pub fn labelled(tokens: Range<usize>, desirable: bool) -> Self {
        Self { tokens, feedback: if desirable { Feedback::Desirable } else { Feedback::Undesirable } }
    }

    /// A response with a reward, to be compared with those of its group.
    pub fn rewarded(tokens: Range<usize>, group: usize, reward: f64) -> Self {
        Self { tokens, feedback: Feedback::Reward { group, reward } }
    }

    /// Whether it is learned from.
    pub fn is_learned(&self) -> bool {
        self.feedback != Feedback::Mismatched
    }

    /// Itself, with its tokens that many places further on.
    pub fn shifted(&self, places: usize) -> Self {
        Self { tokens: self.tokens.start + places..self.tokens.end + places, ..*self }
    }
}

impl StepTotals {
    /// The counts of a batch that is a whole step.
    pub fn of(responses: &[Response], pairs: &[Pair]) -> Self {
        let learned = || responses.iter().filter(|response| response.is_learned());
        let length = |index: usize| responses.get(index).map_or(0, |response| response.tokens.len());
        Self {
            tokens: learned().map(|response| response.tokens.len()).sum(),
            responses: learned().count(),
            pairs: pairs.len(),
            chosen_tokens: pairs.iter().map(|pair| length(pair.chosen)).sum(),
        }
    }
}

impl std::iter::Sum for StepTotals {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), |sum, part| Self {
            tokens: sum.tokens + part.tokens,
            responses: sum.responses + part.responses,
            pairs: sum.pairs + part.pairs,
            chosen_tokens: sum.chosen_tokens + part.chosen_tokens,
        })
    }
}

impl<'a> TokenBatch<'a> {
    /// Validates a batch against an objective's requirements.
    ///
    /// Responses follow one another in the columns without gaps; `totals` counts the whole step.
    ///
    /// # Errors
    ///
    /// [`BatchError`] names the response, column, token, pair or count at fault.
    pub fn new(
        requirements: &Requirements,
        statistics: &'a TokenStatistics,
        constants: &'a TokenConstants,
        responses: &'a [Response],
        pairs: &'a [Pair],
        totals: StepTotals,
    ) -> Result<Self, BatchError> {
        let own = check_responses(responses, pairs)?;
        let data = requirements.data;
        match data {
            Data::Preferences if pairs.is_empty() => {
                return Err(BatchError::Pairs { data, expected: "at least one", given: 0 });
            }
            Data::Preferences => {}
            _ if !pairs.is_empty() => {
                return Err(BatchError::Pairs { data, expected: "none", given: pairs.len() });
            }
            _ => {}
        }
        check_feedback(data, responses)?;
        for statistic in EnumSet::all() {
            let required = requirements.statistics.contains(statistic);
            check_column(statistic.name(), statistic.range(), statistics.column(statistic), required, responses)?;
        }
        for constant in EnumSet::all() {
            let required = requirements.constants.contains(constant);
            check_column(constant.name(), constant.range(), constants.column(constant), required, responses)?;
        }
        let whole = requirements.coupling == Coupling::Step;
        for (field, own, given) in [
            ("tokens", own.tokens, totals.tokens),
            ("responses", own.responses, totals.responses),
            ("pairs", own.pairs, totals.pairs),
            ("chosen_tokens", own.chosen_tokens, totals.chosen_tokens),
        ] {
            if given < own || (whole && given != own) {
                return Err(BatchError::Totals { field, whole, own, given });
            }
        }
        Ok(Self { data, statistics, constants, responses, pairs, totals })
    }

    /// The same step as an objective over demonstrations sees it: of pairs, the chosen responses.
    pub(crate) fn demonstrations(self) -> Self {
        let StepTotals { pairs, chosen_tokens, .. } = self.totals;
        match self.data {
            Data::Preferences => {
                Self { totals: StepTotals { tokens: chosen_tokens, responses: pairs, ..self.totals }, ..self }
            }
            _ => self,
        }
    }

    /// The responses to imitate: all demonstrations, or the chosen response of each pair.
    pub fn demonstrated(&self) -> impl Iterator<Item = usize> + 'a {
        let (all, pairs) = match self.data {
            Data::Preferences => (0..0, self.pairs),
            _ => (0..self.responses.len(), &[] as &[Pair]),
        };
        all.chain(pairs.iter().map(|pair| pair.chosen))
    }

    /// The differentiable columns.
    pub fn statistics(&self) -> &'a TokenStatistics {
        self.statistics
    }

    /// The other columns.
    pub fn constants(&self) -> &'a TokenConstants {
        self.constants
    }

    /// The responses, never empty.
    pub fn responses(&self) -> &'a [Response] {
        self.responses
    }

    /// The pairs, empty for demonstrations.
    pub fn pairs(&self) -> &'a [Pair] {
        self.pairs
    }

    /// The counts of the whole step.
    pub fn totals(&self) -> StepTotals {
        self.totals
    }

    /// The policy's log-probabilities of one response, nats.
    pub fn log_prob(&self, response: usize) -> &'a [f64] {
        &self.statistics.log_prob[self.responses[response].tokens.clone()]
    }

    /// A required column of one response.
    pub fn constant(&self, constant: Constant, response: usize) -> &'a [f64] {
        &self.constants.column(constant)[self.responses[response].tokens.clone()]
    }

    /// log π − log π_ref summed over one response's first `shared` tokens, and over those beyond, nats.
    pub fn log_ratio_parts(&self, response: usize, shared: usize) -> (f64, f64) {
        let tokens = self.responses[response].tokens.clone();
        let policy = &self.statistics.log_prob[tokens.clone()];
        let reference = &self.constants.reference_log_prob[tokens];
        let shared = shared.min(policy.len());
        let body = sum_of_differences(&policy[..shared], &reference[..shared]);
        (body, sum_of_differences(&policy[shared..], &reference[shared..]))
    }

    /// log π − log π_ref summed over one response, nats.
    pub fn log_ratio(&self, response: usize) -> f64 {
        self.log_ratio_parts(response, usize::MAX).0
    }

    /// The required values of KL(π_ref || π) of one response, nats.
    pub fn reference_kl(&self, response: usize) -> &'a [f64] {
        &self.statistics.reference_kl[self.responses[response].tokens.clone()]
    }
}

fn check_responses(responses: &[Response], pairs: &[Pair]) -> Result<StepTotals, BatchError> {
    if responses.is_empty() {
        return Err(BatchError::NoResponse);
    }
    let mut end = 0;
    for (index, Response { tokens, .. }) in responses.iter().enumerate() {
        if tokens.is_empty() {
            return Err(BatchError::EmptyResponse { response: index });
        }
        if tokens.start != end {
            return Err(BatchError::Gap { response: index, expected: end, given: tokens.clone() });
        }
        end = tokens.end;
    }
    for (index, &Pair { chosen, rejected }) in pairs.iter().enumerate() {
        if chosen.max(rejected) >= responses.len() || chosen == rejected {
            return Err(BatchError::Pair { pair: index, responses: responses.len(), chosen, rejected });
        }
    }
    Ok(StepTotals::of(responses, pairs))
}

/// Responses must have feedback of the data's kind, and of each kind that the loss needs.
fn check_feedback(data: Data, responses: &[Response]) -> Result<(), BatchError> {
    let expected = match data {
        Data::Demonstrations | Data::Preferences | Data::Rollouts => "no feedback",
        Data::Labelled { mismatched: false } => "desirable or undesirable",
        Data::Labelled { mismatched: true } => "desirable, undesirable or mismatched",
        Data::Groups => "a finite reward of at most 1e30",
    };
    let mut least = 0;
    for (response, &Response { feedback: given, .. }) in responses.iter().enumerate() {
        let fits = match (data, given) {
            (Data::Demonstrations | Data::Preferences | Data::Rollouts, Feedback::None) => true,
            (Data::Labelled { .. }, Feedback::Desirable | Feedback::Undesirable) => true,
            (Data::Labelled { mismatched }, Feedback::Mismatched) => mismatched,
            (Data::Groups, Feedback::Reward { group, reward }) => {
                if group < least {
                    return Err(BatchError::Group { response, least, given: group });
                }
                least = group;
                (-MOST..=MOST).contains(&reward)
            }
            _ => false,
        };
        if !fits {
            return Err(BatchError::Feedback { response, data, expected, given });
        }
    }
    if !responses.iter().any(Response::is_learned) {
        return Err(BatchError::Missing { expected: "desirable or undesirable response" });
    }
    if data == (Data::Labelled { mismatched: true }) && responses.iter().all(Response::is_learned) {
        return Err(BatchError::Missing { expected: "mismatched response" });
    }
    Ok(())
}

fn check_column(
    column: &'static str,
    range: RangeInclusive<f64>,
    values: &[f64],
    required: bool,
    responses: &[Response],
) -> Result<(), BatchError> {
    let tokens = responses.last().map_or(0, |response| response.tokens.end);
    let expected = if required { tokens } else { 0 };
    if values.len() != expected {
        return Err(BatchError::Length { column, expected, given: values.len() });
    }
    // Without a way out of the loop the check takes as long as reading the column.
    if values.iter().fold(true, |valid, value| valid & range.contains(value)) {
        return Ok(());
    }
    let Some(place) = values.iter().position(|value| !range.contains(value)) else { return Ok(()) };
    let response = responses.partition_point(|response| response.tokens.end <= place);
    let token = place - responses[response].tokens.start;
    let (least, most) = range.into_inner();
    Err(BatchError::Value { column, response, token, least, most, given: values[place] })
}
