//! Why a batch is refused.

use std::ops::Range;

use crate::batch::Feedback;
use crate::requirements::Data;

/// Why a batch was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BatchError {
    /// No response at all.
    #[error("responses: at least one is needed")]
    NoResponse,
    /// A response without tokens.
    #[error("{side}response {response}: at least one token is needed, got none")]
    EmptyResponse {
        /// `"chosen."`, `"rejected."`, `"mismatched."`, or nothing where a batch has one side.
        side: &'static str,
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
    #[error("{side}{column}: expected {expected} numbers, one a response token of a required column, got {given}")]
    Length {
        /// The side of the batch, as above.
        side: &'static str,
        /// The column.
        column: &'static str,
        /// Response tokens.
        expected: usize,
        /// Its length.
        given: usize,
    },
    /// A value outside of its column's range.
    #[error("{side}{column}: expected {least:e} to {most:e} at token {token} of response {response}, got {given}")]
    Value {
        /// The side of the batch, as above.
        side: &'static str,
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
    /// A reward outside of its range.
    #[error("reward: expected {least:e} to {most:e}, or none, for response {response}, got {given:e}")]
    Reward {
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
    /// Numbers that do not match the responses, one by one.
    #[error("{field}: expected {expected}, one {each}, got {given}")]
    Count {
        /// What was counted.
        field: &'static str,
        /// How many there must be.
        expected: usize,
        /// What each belongs to.
        each: &'static str,
        /// How many there are.
        given: usize,
    },
    /// A batch of another kind than the objective learns from.
    #[error("batch: expected {}, got {given}", <&str>::from(.expected))]
    Kind {
        /// What the objective learns from.
        expected: Data,
        /// The batch's kind.
        given: &'static str,
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
