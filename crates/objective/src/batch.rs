//! What an objective reads: columns over response tokens, and the responses and pairs that they belong to.

use std::ops::{Range, RangeInclusive};

use enumset::EnumSet;
use serde::{Deserialize, Serialize};

use crate::numerics::sum_of_differences;
use crate::requirements::{Constant, Coupling, Data, Requirements, Statistic};

/// Differentiable columns over response tokens; also the type of their cotangents. Unrequired columns are empty.
///
/// A column that the objective does not ask for is refused:
///
/// ```
/// # use objective::*;
/// # let (responses, constants) = ([Response::new(0..1)], TokenConstants::default());
/// # let totals = StepTotals::of(&responses, &[]);
/// let statistics = TokenStatistics { log_prob: vec![-1.0], entropy: vec![0.5], ..Default::default() };
/// let requirements = Requirements::new(Data::Demonstrations);
/// let error = TokenBatch::new(&requirements, &statistics, &constants, &responses, &[], totals).unwrap_err();
/// assert_eq!(error.to_string(), "entropy: expected 0 numbers, one a response token of a required column, got 1");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
///
/// A column that the objective asks for must be there:
///
/// ```
/// # use objective::*;
/// # let (responses, constants) = ([Response::new(0..2)], TokenConstants::default());
/// # let totals = StepTotals::of(&responses, &[]);
/// # let statistics = TokenStatistics { log_prob: vec![-1.0, -2.0], ..Default::default() };
/// let requirements =
///     Requirements { constants: Constant::ReferenceLogProb.into(), ..Requirements::new(Data::Demonstrations) };
/// let error = TokenBatch::new(&requirements, &statistics, &constants, &responses, &[], totals).unwrap_err();
/// assert_eq!(error.to_string(), "reference_log_prob: expected 2 numbers, one a response token of a required column, got 0");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TokenConstants {
    /// log π_ref(yₜ|sₜ) of the frozen reference policy, nats.
    pub reference_log_prob: Vec<f64>,
    /// log π(yₜ|sₜ) that the trainer's own pass of the policy that sampled the response gives, nats.
    pub behaviour_log_prob: Vec<f64>,
    /// log π(yₜ|sₜ) that the sampler of the response reported, nats.
    pub rollout_log_prob: Vec<f64>,
    /// V(sₜ) when the response was sampled, in units of reward.
    pub behaviour_value: Vec<f64>,
    /// How much better yₜ is than what the policy does at sₜ; or how much better a response is, one number a response.
    pub advantage: Vec<f64>,
    /// Rewards of the responses: response after response, as many numbers for each; one that is not a number abstains.
    pub reward: Vec<f64>,
    /// The return that V(sₜ) is fitted to, in units of reward.
    pub returns: Vec<f64>,
}

/// One response: a contiguous range of tokens, and what is known of them as a whole.
///
/// Responses follow one another without gaps, prompts and padding left out:
///
/// ```
/// # use objective::*;
/// # let statistics = TokenStatistics { log_prob: vec![-1.0; 4], ..Default::default() };
/// # let (requirements, constants) = (Requirements::new(Data::Demonstrations), TokenConstants::default());
/// let responses = [Response::new(0..2), Response::new(3..4)];
/// # let totals = StepTotals::of(&responses, &[]);
/// let error = TokenBatch::new(&requirements, &statistics, &constants, &responses, &[], totals).unwrap_err();
/// assert_eq!(error.to_string(), "response 1: expected tokens from 2, where the one before ends, got 3..4");
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// Its tokens' places in the columns.
    pub tokens: Range<usize>,
    /// What is known of it beside its tokens.
    pub feedback: Feedback,
}

/// What is known of a response beside its tokens.
///
/// ```
/// # use objective::*;
/// # let statistics = TokenStatistics { log_prob: vec![-1.0], ..Default::default() };
/// # let (requirements, constants) = (Requirements::new(Data::Groups), TokenConstants::default());
/// let responses = [Response { tokens: 0..1, feedback: Feedback::Desirable }];
/// # let totals = StepTotals::of(&responses, &[]);
/// let error = TokenBatch::new(&requirements, &statistics, &constants, &responses, &[], totals).unwrap_err();
/// assert_eq!(error.to_string(), "response 0: expected a group or no feedback for groups, got a desirable response");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
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
    /// It belongs to a group, the responses to one prompt: they stand together, and groups are numbered upwards.
    Group(usize),
}

/// A chosen and a rejected response to the same prompt.
///
/// ```
/// # use objective::*;
/// # let statistics = TokenStatistics { log_prob: vec![-1.0, -2.0], ..Default::default() };
/// # let (requirements, constants) = (Requirements::new(Data::Preferences), TokenConstants::default());
/// # let responses = [Response::new(0..1), Response::new(1..2)];
/// let pairs = [Pair { chosen: 0, rejected: 1 }, Pair { chosen: 1, rejected: 1 }];
/// # let totals = StepTotals::of(&responses, &pairs);
/// let error = TokenBatch::new(&requirements, &statistics, &constants, &responses, &pairs, totals).unwrap_err();
/// assert_eq!(error.to_string(), "pair 1: expected two different responses below 2, got 1 and 1");
/// ```
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
/// use objective::{Response, StepTotals};
///
/// let micro_batches = [vec![Response::new(0..2)], vec![Response::new(0..3), Response::new(3..4)]];
/// let totals: StepTotals = micro_batches.iter().map(|responses| StepTotals::of(responses, &[])).sum();
/// assert_eq!((totals.responses, totals.tokens), (3, 6));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepTotals {
    /// Response tokens, without those of mismatched responses.
    pub tokens: usize,
    /// Responses, without mismatched ones.
    pub responses: usize,
    /// Pairs.
    pub pairs: usize,
    /// Tokens of chosen responses, once a pair.
    pub chosen_tokens: usize,
    /// Groups of responses to one prompt.
    pub groups: usize,
}

/// A validated batch: what reaches an objective cannot fail there.
///
/// Micro-batches with the totals of the whole step add up to its loss:
///
/// ```
/// use objective::*;
///
/// let sft = registry::build("sft", &Parameters::new())?;
/// let totals = StepTotals { tokens: 4, responses: 2, ..Default::default() };
/// let mut loss = 0.0;
/// for log_prob in [vec![-1.0, -3.0], vec![-2.0, -6.0]] {
///     let (responses, constants) = ([Response::new(0..2)], TokenConstants::default());
///     let statistics = TokenStatistics { log_prob, ..Default::default() };
///     let batch = TokenBatch::new(&sft.requirements(), &statistics, &constants, &responses, &[], totals)?;
///     let mut part = Evaluation::default();
///     sft.evaluate(&batch, &mut ObjectiveState::default(), &mut part);
///     loss += part.loss;
/// }
/// assert_eq!(loss, 3.0); // (1 + 3 + 2 + 6) / 4
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
///
/// ```
/// # use objective::*;
/// # let statistics = TokenStatistics { log_prob: vec![-1.0], ..Default::default() };
/// # let (requirements, constants) = (Requirements::new(Data::Demonstrations), TokenConstants::default());
/// let responses = [Response::new(0..1), Response::new(1..1)];
/// # let totals = StepTotals::of(&responses, &[]);
/// let error = TokenBatch::new(&requirements, &statistics, &constants, &responses, &[], totals).unwrap_err();
/// assert_eq!(error, BatchError::EmptyResponse { response: 1 });
/// assert_eq!(error.to_string(), "response 1: at least one token is needed, got none");
/// ```
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
    #[error("response {response}: expected tokens from {expected}, where the one before ends, got {}..{}", .given.start, .given.end)]
    Gap {
        /// Its index.
        response: usize,
        /// Where it must begin.
        expected: usize,
        /// Its range.
        given: Range<usize>,
    },
    /// A column of the wrong length.
    #[error("{column}: expected {expected} numbers, one a response token of a required column, got {given}")]
    Length {
        /// The column.
        column: &'static str,
        /// Response tokens.
        expected: usize,
        /// Its length.
        given: usize,
    },
    /// A value outside of its column's range.
    #[error("{column}: expected {least:e} to {most:e} at token {token} of response {response}, got {given}")]
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
    /// A number of a response outside of its column's range.
    #[error("{column}: expected {least:e} to {most:e} for response {response}, got {given}")]
    Number {
        /// The column.
        column: &'static str,
        /// Index of the response.
        response: usize,
        /// The least value allowed.
        least: f64,
        /// The greatest value allowed.
        most: f64,
        /// Its value.
        given: f64,
    },
    /// Rewards that are not as many for each response.
    #[error("reward: expected {} for each of {responses} responses, got {given} numbers", match each {
        Some(each) => format!("{each} numbers"),
        None => "at least one number, and as many".to_owned(),
    })]
    Rewards {
        /// How many a response must have, where it is fixed.
        each: Option<usize>,
        /// Number of responses.
        responses: usize,
        /// Number of rewards.
        given: usize,
    },
    /// A response whose feedback is not of the data's kind.
    #[error("response {response}: expected {expected} for {data}, got {}", describe(.given), data = <&str>::from(.data))]
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

/// Where the responses of a step are coupled, the columns of its micro-batches are put together:
///
/// ```
/// use objective::{Statistic, TokenStatistics};
///
/// let part = TokenStatistics { log_prob: vec![-1.0], entropy: vec![0.5], ..Default::default() };
/// let mut step = TokenStatistics::default();
/// for statistic in [Statistic::LogProb, Statistic::Entropy, Statistic::LogProb, Statistic::Entropy] {
///     step.column_mut(statistic).extend_from_slice(part.column(statistic));
/// }
/// assert_eq!((step.log_prob, step.entropy), (vec![-1.0, -1.0], vec![0.5, 0.5]));
/// ```
impl TokenStatistics {
    /// A column by its name.
    ///
    /// ```
    /// use objective::{Statistic, TokenStatistics};
    ///
    /// let statistics = TokenStatistics { value: vec![0.25], ..Default::default() };
    /// assert_eq!(statistics.column(Statistic::Value), [0.25]);
    /// assert!(statistics.column(Statistic::LogProb).is_empty());
    /// ```
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
    ///
    /// ```
    /// use objective::{Statistic, TokenStatistics};
    ///
    /// let mut statistics = TokenStatistics::default();
    /// statistics.column_mut(Statistic::ReferenceKl).push(0.5);
    /// assert_eq!(statistics.reference_kl, [0.5]);
    /// ```
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

/// A policy that is its own reference, as at the start of training:
///
/// ```
/// use objective::{Constant, TokenConstants, TokenStatistics};
///
/// let statistics = TokenStatistics { log_prob: vec![-1.0, -2.0], ..Default::default() };
/// let mut constants = TokenConstants::default();
/// constants.column_mut(Constant::ReferenceLogProb).clone_from(&statistics.log_prob);
/// assert_eq!(constants.column(Constant::ReferenceLogProb), statistics.log_prob);
/// ```
impl TokenConstants {
    /// A column by its name.
    ///
    /// ```
    /// use objective::{Constant, TokenConstants};
    ///
    /// let constants = TokenConstants { returns: vec![1.0, 0.5], ..Default::default() };
    /// assert_eq!(constants.column(Constant::Return), [1.0, 0.5]);
    /// ```
    pub fn column(&self, constant: Constant) -> &[f64] {
        match constant {
            Constant::ReferenceLogProb => &self.reference_log_prob,
            Constant::BehaviourLogProb => &self.behaviour_log_prob,
            Constant::RolloutLogProb => &self.rollout_log_prob,
            Constant::BehaviourValue => &self.behaviour_value,
            Constant::Advantage => &self.advantage,
            Constant::Reward => &self.reward,
            Constant::Return => &self.returns,
        }
    }

    /// A column by its name, to be filled.
    ///
    /// ```
    /// use objective::{Constant, TokenConstants};
    ///
    /// let mut constants = TokenConstants::default();
    /// constants.column_mut(Constant::Advantage).extend([0.5, -0.5]);
    /// assert_eq!(constants.advantage, [0.5, -0.5]);
    /// ```
    pub fn column_mut(&mut self, constant: Constant) -> &mut Vec<f64> {
        match constant {
            Constant::ReferenceLogProb => &mut self.reference_log_prob,
            Constant::BehaviourLogProb => &mut self.behaviour_log_prob,
            Constant::RolloutLogProb => &mut self.rollout_log_prob,
            Constant::BehaviourValue => &mut self.behaviour_value,
            Constant::Advantage => &mut self.advantage,
            Constant::Reward => &mut self.reward,
            Constant::Return => &mut self.returns,
        }
    }
}

/// Responses of a later micro-batch come behind those before it:
///
/// ```
/// use objective::Response;
///
/// let (first, second) = (Response::labelled(0..2, true), Response::labelled(0..3, false));
/// let step = [first.clone(), second.shifted(first.tokens.end)];
/// assert_eq!(step[1], Response::labelled(2..5, false));
/// ```
impl Response {
    /// A response of which nothing is known but its tokens.
    ///
    /// ```
    /// use objective::{Feedback, Response};
    ///
    /// assert_eq!(Response::new(0..2), Response { tokens: 0..2, feedback: Feedback::None });
    /// ```
    pub fn new(tokens: Range<usize>) -> Self {
        Self { tokens, feedback: Feedback::None }
    }

    /// A desirable response, or an undesirable one.
    ///
    /// ```
    /// use objective::{Feedback, Response};
    ///
    /// assert_eq!(Response::labelled(0..2, true).feedback, Feedback::Desirable);
    /// assert_eq!(Response::labelled(0..2, false).feedback, Feedback::Undesirable);
    /// ```
    pub fn labelled(tokens: Range<usize>, desirable: bool) -> Self {
        Self { tokens, feedback: if desirable { Feedback::Desirable } else { Feedback::Undesirable } }
    }

    /// A response of a group.
    ///
    /// ```
    /// use objective::{Feedback, Response};
    ///
    /// assert_eq!(Response::grouped(2..4, 1).feedback, Feedback::Group(1));
    /// ```
    pub fn grouped(tokens: Range<usize>, group: usize) -> Self {
        Self { tokens, feedback: Feedback::Group(group) }
    }

    /// The group that it belongs to, if any.
    pub(crate) fn group(&self) -> Option<usize> {
        match self.feedback {
            Feedback::Group(group) => Some(group),
            _ => None,
        }
    }

    /// Whether it is learned from.
    ///
    /// ```
    /// use objective::{Feedback, Response};
    ///
    /// assert!(Response::labelled(0..1, false).is_learned());
    /// assert!(!Response { tokens: 0..1, feedback: Feedback::Mismatched }.is_learned());
    /// ```
    pub fn is_learned(&self) -> bool {
        self.feedback != Feedback::Mismatched
    }

    /// Itself, with its tokens that many places further on.
    ///
    /// ```
    /// use objective::Response;
    ///
    /// assert_eq!(Response::grouped(0..2, 1).shifted(3), Response::grouped(3..5, 1));
    /// ```
    pub fn shifted(&self, places: usize) -> Self {
        Self { tokens: self.tokens.start + places..self.tokens.end + places, ..*self }
    }
}

/// A chosen response counts once for each pair that it is in:
///
/// ```
/// use objective::{Pair, Response, StepTotals};
///
/// let responses = [Response::new(0..2), Response::new(2..5), Response::new(5..6)];
/// let totals = StepTotals::of(&responses, &[Pair { chosen: 0, rejected: 1 }, Pair { chosen: 0, rejected: 2 }]);
/// assert_eq!(totals, StepTotals { tokens: 6, responses: 3, pairs: 2, chosen_tokens: 4, groups: 0 });
/// ```
impl StepTotals {
    /// The counts of a batch that is a whole step.
    ///
    /// ```
    /// use objective::{Feedback, Response, StepTotals};
    ///
    /// let mismatched = Response { tokens: 2..5, feedback: Feedback::Mismatched };
    /// let totals = StepTotals::of(&[Response::labelled(0..2, true), mismatched], &[]);
    /// assert_eq!((totals.responses, totals.tokens), (1, 2));
    /// ```
    pub fn of(responses: &[Response], pairs: &[Pair]) -> Self {
        let learned = || responses.iter().filter(|response| response.is_learned());
        let length = |index: usize| responses.get(index).map_or(0, |response| response.tokens.len());
        Self {
            tokens: learned().map(|response| response.tokens.len()).sum(),
            responses: learned().count(),
            pairs: pairs.len(),
            chosen_tokens: pairs.iter().map(|pair| length(pair.chosen)).sum(),
            groups: responses
                .chunk_by(|a, b| a.feedback == b.feedback)
                .filter(|members| members[0].group().is_some())
                .count(),
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

/// Columns are there as a whole and by response:
///
/// ```
/// # use objective::*;
/// # let (responses, constants) = ([Response::new(0..2), Response::new(2..3)], TokenConstants::default());
/// # let (requirements, totals) = (Requirements::new(Data::Demonstrations), StepTotals::of(&responses, &[]));
/// let statistics = TokenStatistics { log_prob: vec![-1.0, -2.0, -3.0], ..Default::default() };
/// let batch = TokenBatch::new(&requirements, &statistics, &constants, &responses, &[], totals)?;
/// let place = batch.responses()[1].tokens.clone();
/// assert_eq!(batch.statistics().log_prob[place], *batch.log_prob(1));
/// # Ok::<(), BatchError>(())
/// ```
impl<'a> TokenBatch<'a> {
    /// Validates a batch against an objective's requirements.
    ///
    /// Responses follow one another in the columns without gaps; `totals` counts the whole step.
    ///
    /// # Errors
    ///
    /// [`BatchError`] names the response, column, token, pair or count at fault.
    ///
    /// # Examples
    ///
    /// ```
    /// # use objective::*;
    /// # let (responses, constants) = ([Response::new(0..2)], TokenConstants::default());
    /// # let requirements = Requirements::new(Data::Demonstrations);
    /// # let statistics = TokenStatistics { log_prob: vec![-1.0, -2.0], ..Default::default() };
    /// let totals = StepTotals { tokens: 1, responses: 1, ..Default::default() };
    /// let error = TokenBatch::new(&requirements, &statistics, &constants, &responses, &[], totals).unwrap_err();
    /// assert_eq!(error.to_string(), "totals.tokens: expected at least the batch's own 2, got 1");
    /// ```
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
        check_feedback(data, requirements.grouped, responses)?;
        for statistic in EnumSet::all() {
            let required = requirements.statistics.contains(statistic);
            check_column(statistic.name(), statistic.range(), statistics.column(statistic), required, responses)?;
        }
        for constant in EnumSet::all() {
            let required = requirements.constants.contains(constant);
            let column = constants.column(constant);
            match constant {
                Constant::Reward => check_rewards(column, required, requirements.rewards, responses)?,
                Constant::Advantage if required && data == Data::Groups && column.len() == responses.len() => {
                    check_each(constant.name(), constant.range(), column)?;
                }
                _ => check_column(constant.name(), constant.range(), column, required, responses)?,
            }
        }
        let whole = requirements.coupling == Coupling::Step;
        for (field, own, given) in [
            ("tokens", own.tokens, totals.tokens),
            ("responses", own.responses, totals.responses),
            ("pairs", own.pairs, totals.pairs),
            ("chosen_tokens", own.chosen_tokens, totals.chosen_tokens),
            ("groups", own.groups, totals.groups),
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
    ///
    /// ```
    /// # use objective::*;
    /// # let (responses, constants) = ([Response::new(0..1), Response::new(1..2)], TokenConstants::default());
    /// # let statistics = TokenStatistics { log_prob: vec![-1.0, -2.0], ..Default::default() };
    /// let (requirements, pairs) = (Requirements::new(Data::Preferences), [Pair { chosen: 1, rejected: 0 }]);
    /// # let totals = StepTotals::of(&responses, &pairs);
    /// let batch = TokenBatch::new(&requirements, &statistics, &constants, &responses, &pairs, totals)?;
    /// assert_eq!(batch.demonstrated().collect::<Vec<_>>(), [1]);
    /// # Ok::<(), BatchError>(())
    /// ```
    pub fn demonstrated(&self) -> impl Iterator<Item = usize> + 'a {
        let (all, pairs) = match self.data {
            Data::Preferences => (0..0, self.pairs),
            _ => (0..self.responses.len(), &[] as &[Pair]),
        };
        all.chain(pairs.iter().map(|pair| pair.chosen))
    }

    /// The differentiable columns.
    ///
    /// ```
    /// # use objective::*;
    /// # let (responses, constants) = ([Response::new(0..1)], TokenConstants::default());
    /// # let (requirements, totals) = (Requirements::new(Data::Demonstrations), StepTotals::of(&responses, &[]));
    /// # let statistics = TokenStatistics { log_prob: vec![-1.0], ..Default::default() };
    /// let batch = TokenBatch::new(&requirements, &statistics, &constants, &responses, &[], totals)?;
    /// assert_eq!(batch.statistics(), &statistics);
    /// # Ok::<(), BatchError>(())
    /// ```
    pub fn statistics(&self) -> &'a TokenStatistics {
        self.statistics
    }

    /// The other columns.
    ///
    /// ```
    /// # use objective::*;
    /// # let (responses, constants) = ([Response::new(0..1)], TokenConstants::default());
    /// # let (requirements, totals) = (Requirements::new(Data::Demonstrations), StepTotals::of(&responses, &[]));
    /// # let statistics = TokenStatistics { log_prob: vec![-1.0], ..Default::default() };
    /// let batch = TokenBatch::new(&requirements, &statistics, &constants, &responses, &[], totals)?;
    /// assert!(batch.constants().reference_log_prob.is_empty()); // not required
    /// # Ok::<(), BatchError>(())
    /// ```
    pub fn constants(&self) -> &'a TokenConstants {
        self.constants
    }

    /// The responses, never empty.
    ///
    /// ```
    /// # use objective::*;
    /// # let constants = TokenConstants::default();
    /// # let statistics = TokenStatistics { log_prob: vec![-1.0, -2.0, -3.0], ..Default::default() };
    /// let responses = [Response::new(0..2), Response::new(2..3)];
    /// # let (requirements, totals) = (Requirements::new(Data::Demonstrations), StepTotals::of(&responses, &[]));
    /// let batch = TokenBatch::new(&requirements, &statistics, &constants, &responses, &[], totals)?;
    /// assert_eq!(batch.responses().iter().map(|response| response.tokens.len()).collect::<Vec<_>>(), [2, 1]);
    /// # Ok::<(), BatchError>(())
    /// ```
    pub fn responses(&self) -> &'a [Response] {
        self.responses
    }

    /// The pairs, empty for demonstrations.
    ///
    /// ```
    /// # use objective::*;
    /// # let (responses, constants) = ([Response::new(0..1), Response::new(1..2)], TokenConstants::default());
    /// # let statistics = TokenStatistics { log_prob: vec![-1.0, -2.0], ..Default::default() };
    /// let (requirements, pairs) = (Requirements::new(Data::Preferences), [Pair { chosen: 1, rejected: 0 }]);
    /// # let totals = StepTotals::of(&responses, &pairs);
    /// let batch = TokenBatch::new(&requirements, &statistics, &constants, &responses, &pairs, totals)?;
    /// assert_eq!(batch.pairs(), pairs);
    /// # Ok::<(), BatchError>(())
    /// ```
    pub fn pairs(&self) -> &'a [Pair] {
        self.pairs
    }

    /// The counts of the whole step.
    ///
    /// ```
    /// # use objective::*;
    /// # let (responses, constants) = ([Response::new(0..2)], TokenConstants::default());
    /// # let requirements = Requirements::new(Data::Demonstrations);
    /// # let statistics = TokenStatistics { log_prob: vec![-1.0, -2.0], ..Default::default() };
    /// let totals = StepTotals { tokens: 8, responses: 3, ..Default::default() }; // of which this batch has 2 and 1
    /// let batch = TokenBatch::new(&requirements, &statistics, &constants, &responses, &[], totals)?;
    /// assert_eq!(batch.totals().tokens, 8);
    /// # Ok::<(), BatchError>(())
    /// ```
    pub fn totals(&self) -> StepTotals {
        self.totals
    }

    /// The policy's log-probabilities of one response, nats.
    ///
    /// # Panics
    ///
    /// Where there is no such response; so do the other columns of one, and where the column was not required.
    ///
    /// ```
    /// # use objective::*;
    /// # let (responses, constants) = ([Response::new(0..2), Response::new(2..3)], TokenConstants::default());
    /// # let (requirements, totals) = (Requirements::new(Data::Demonstrations), StepTotals::of(&responses, &[]));
    /// let statistics = TokenStatistics { log_prob: vec![-1.0, -2.0, -3.0], ..Default::default() };
    /// let batch = TokenBatch::new(&requirements, &statistics, &constants, &responses, &[], totals)?;
    /// assert_eq!((batch.log_prob(0), batch.log_prob(1)), (&[-1.0, -2.0][..], &[-3.0][..]));
    /// # Ok::<(), BatchError>(())
    /// ```
    pub fn log_prob(&self, response: usize) -> &'a [f64] {
        &self.statistics.log_prob[self.responses[response].tokens.clone()]
    }

    /// The group of a response, if there is such a response and it has one.
    pub(crate) fn group(&self, response: usize) -> Option<usize> {
        self.responses.get(response)?.group()
    }

    /// The required rewards of one response.
    pub(crate) fn rewards(&self, response: usize) -> &'a [f64] {
        let each = self.constants.reward.len() / self.responses.len();
        &self.constants.reward[response * each..(response + 1) * each]
    }

    /// A required column of one response.
    ///
    /// ```
    /// # use objective::*;
    /// # let responses = [Response::new(0..2), Response::new(2..3)];
    /// # let statistics = TokenStatistics { log_prob: vec![-1.0; 3], ..Default::default() };
    /// # let totals = StepTotals::of(&responses, &[]);
    /// let requirements = Requirements { constants: Constant::Advantage.into(), ..Requirements::new(Data::Rollouts) };
    /// let constants = TokenConstants { advantage: vec![0.5, 0.25, -0.75], ..Default::default() };
    /// let batch = TokenBatch::new(&requirements, &statistics, &constants, &responses, &[], totals)?;
    /// assert_eq!(batch.constant(Constant::Advantage, 1), [-0.75]);
    /// # Ok::<(), BatchError>(())
    /// ```
    pub fn constant(&self, constant: Constant, response: usize) -> &'a [f64] {
        &self.constants.column(constant)[self.responses[response].tokens.clone()]
    }

    /// A response's part of a statistic.
    pub fn statistic(&self, statistic: Statistic, response: usize) -> &'a [f64] {
        &self.statistics.column(statistic)[self.responses[response].tokens.clone()]
    }

    /// log π − log π_ref summed over one response's first `shared` tokens, and over those beyond, nats.
    ///
    /// ```
    /// # use objective::*;
    /// # let responses = [Response::new(0..3)];
    /// # let totals = StepTotals::of(&responses, &[]);
    /// # let requirements =
    /// #     Requirements { constants: Constant::ReferenceLogProb.into(), ..Requirements::new(Data::Demonstrations) };
    /// let statistics = TokenStatistics { log_prob: vec![-1.0, -2.0, -3.0], ..Default::default() };
    /// let constants = TokenConstants { reference_log_prob: vec![-1.5, -3.0, -7.0], ..Default::default() };
    /// let batch = TokenBatch::new(&requirements, &statistics, &constants, &responses, &[], totals)?;
    /// assert_eq!(batch.log_ratio_parts(0, 2), (1.5, 4.0));
    /// # Ok::<(), BatchError>(())
    /// ```
    pub fn log_ratio_parts(&self, response: usize, shared: usize) -> (f64, f64) {
        let tokens = self.responses[response].tokens.clone();
        let policy = &self.statistics.log_prob[tokens.clone()];
        let reference = &self.constants.reference_log_prob[tokens];
        let shared = shared.min(policy.len());
        let body = sum_of_differences(&policy[..shared], &reference[..shared]);
        (body, sum_of_differences(&policy[shared..], &reference[shared..]))
    }

    /// log π − log π_ref summed over one response, nats.
    ///
    /// ```
    /// # use objective::*;
    /// # let responses = [Response::new(0..2)];
    /// # let totals = StepTotals::of(&responses, &[]);
    /// # let requirements =
    /// #     Requirements { constants: Constant::ReferenceLogProb.into(), ..Requirements::new(Data::Demonstrations) };
    /// let statistics = TokenStatistics { log_prob: vec![-1.0, -2.0], ..Default::default() };
    /// let constants = TokenConstants { reference_log_prob: vec![-1.5, -3.0], ..Default::default() };
    /// let batch = TokenBatch::new(&requirements, &statistics, &constants, &responses, &[], totals)?;
    /// assert_eq!(batch.log_ratio(0), 1.5);
    /// # Ok::<(), BatchError>(())
    /// ```
    pub fn log_ratio(&self, response: usize) -> f64 {
        self.log_ratio_parts(response, usize::MAX).0
    }

    /// The required values of KL(π_ref || π) of one response, nats.
    ///
    /// ```
    /// # use objective::*;
    /// # let (responses, constants) = ([Response::new(0..1), Response::new(1..3)], TokenConstants::default());
    /// # let totals = StepTotals::of(&responses, &[]);
    /// # let requirements =
    /// #     Requirements { statistics: Statistic::ReferenceKl.into(), ..Requirements::new(Data::Demonstrations) };
    /// let statistics = TokenStatistics { reference_kl: vec![0.0, 0.5, 0.25], ..Default::default() };
    /// let batch = TokenBatch::new(&requirements, &statistics, &constants, &responses, &[], totals)?;
    /// assert_eq!(batch.reference_kl(1), [0.5, 0.25]);
    /// # Ok::<(), BatchError>(())
    /// ```
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
fn check_feedback(data: Data, grouped: bool, responses: &[Response]) -> Result<(), BatchError> {
    let expected = match data {
        Data::Demonstrations | Data::Preferences | Data::Rollouts => "no feedback",
        Data::Labelled { mismatched: false } => "desirable or undesirable",
        Data::Labelled { mismatched: true } => "desirable, undesirable or mismatched",
        Data::Groups if grouped => "a group",
        Data::Groups => "a group or no feedback",
    };
    let mut least = 0;
    for (response, &Response { feedback: given, .. }) in responses.iter().enumerate() {
        let fits = match (data, given) {
            (Data::Demonstrations | Data::Preferences | Data::Rollouts, Feedback::None) => true,
            (Data::Labelled { .. }, Feedback::Desirable | Feedback::Undesirable) => true,
            (Data::Labelled { mismatched }, Feedback::Mismatched) => mismatched,
            (Data::Groups, Feedback::Group(group)) => {
                if group < least {
                    return Err(BatchError::Group { response, least, given: group });
                }
                least = group;
                true
            }
            (Data::Groups, Feedback::None) => !grouped,
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

/// Feedback in words, for an error.
fn describe(feedback: &Feedback) -> String {
    match feedback {
        Feedback::None => "no feedback".to_owned(),
        Feedback::Desirable => "a desirable response".to_owned(),
        Feedback::Undesirable => "an undesirable response".to_owned(),
        Feedback::Mismatched => "a mismatched response".to_owned(),
        Feedback::Group(group) => format!("the group {group}"),
    }
}

/// Rewards must be as many for each response, and numbers or abstaining.
fn check_rewards(
    values: &[f64],
    required: bool,
    each: Option<usize>,
    responses: &[Response],
) -> Result<(), BatchError> {
    let (column, given) = ("reward", values.len());
    let count = responses.len();
    if !required || given == 0 || given % count != 0 || each.is_some_and(|each| given != each * count) {
        return match (required, each) {
            (false, _) if given == 0 => Ok(()),
            (false, _) => Err(BatchError::Length { column, expected: 0, given }),
            (true, each) => Err(BatchError::Rewards { each, responses: count, given }),
        };
    }
    let range = Constant::Reward.range();
    match values.iter().position(|value| !value.is_nan() && !range.contains(value)) {
        None => Ok(()),
        Some(place) => Err(of_response(column, range, place / (given / count), values[place])),
    }
}

/// Numbers of responses must be in their range.
fn check_each(column: &'static str, range: RangeInclusive<f64>, values: &[f64]) -> Result<(), BatchError> {
    match values.iter().position(|value| !range.contains(value)) {
        None => Ok(()),
        Some(response) => Err(of_response(column, range, response, values[response])),
    }
}

fn of_response(column: &'static str, range: RangeInclusive<f64>, response: usize, given: f64) -> BatchError {
    let (least, most) = range.into_inner();
    BatchError::Number { column, response, least, most, given }
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
