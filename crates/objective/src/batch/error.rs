//! Errors of batches.

use std::ops::Range;

use crate::batch::Feedback;
use crate::requirements::Data;

/// Reason why a batch is rejected.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BatchError {
    /// A batch without responses.
    #[error("responses: at least one is needed")]
    NoResponse,
    /// A response without tokens.
    #[error("{side}response {response}: at least one token is needed, got none")]
    EmptyResponse {
        /// Side of the batch: `"chosen."`, `"rejected."`, `"mismatched."`, or empty for a batch with one side.
        side: &'static str,
        /// Index of the response.
        response: usize,
    },
    /// Responses that do not cover the columns from first to last token, in order and without gaps.
    #[error("response {response}: expected tokens from {expected}, where the one before ends, got {}..{}", .given.start, .given.end)]
    Gap {
        /// Index of the response.
        response: usize,
        /// Token at which the response must begin.
        expected: usize,
        /// Given range of tokens.
        given: Range<usize>,
    },
    /// A column of the wrong length.
    #[error("{side}{column}: expected {expected} numbers, one a response token of a required column, got {given}")]
    Length {
        /// Side of the batch, as in [`EmptyResponse`](Self::EmptyResponse).
        side: &'static str,
        /// Name of the column.
        column: &'static str,
        /// Number of response tokens.
        expected: usize,
        /// Length of the column.
        given: usize,
    },
    /// A value outside of its column's range.
    #[error("{side}{column}: expected {least:e} to {most:e} at token {token} of response {response}, got {given}")]
    Value {
        /// Side of the batch, as in [`EmptyResponse`](Self::EmptyResponse).
        side: &'static str,
        /// Name of the column.
        column: &'static str,
        /// Index of the response.
        response: usize,
        /// Index of the token in the response.
        token: usize,
        /// Minimum of the allowed values.
        least: f64,
        /// Maximum of the allowed values.
        most: f64,
        /// Given value.
        given: f64,
    },
    /// A reward outside of its range.
    #[error("reward: expected {least:e} to {most:e}, or none, for response {response}, got {given:e}")]
    Reward {
        /// Index of the response.
        response: usize,
        /// Minimum of the allowed values.
        least: f64,
        /// Maximum of the allowed values.
        most: f64,
        /// Given value.
        given: f64,
    },
    /// Rewards whose number is not the same for each response.
    #[error("reward: expected {} for each of {responses} responses, got {given} numbers", match each {
        Some(each) => format!("{each} numbers"),
        None => "at least one number, and as many".to_owned(),
    })]
    Rewards {
        /// Required number of rewards per response, if it is fixed.
        each: Option<usize>,
        /// Number of responses.
        responses: usize,
        /// Number of rewards.
        given: usize,
    },
    /// A response with feedback of another kind than the data's.
    #[error("response {response}: expected {expected} for {data}, got {}", describe(.given), data = <&str>::from(.data))]
    Feedback {
        /// Index of the response.
        response: usize,
        /// Kind of the data.
        data: Data,
        /// Description of the allowed feedback.
        expected: &'static str,
        /// Given feedback.
        given: Feedback,
    },
    /// A batch without a response of a kind that the loss needs.
    #[error("responses: at least one {expected} is needed, got none")]
    Missing {
        /// Description of the missing kind.
        expected: &'static str,
    },
    /// A group whose number is not above that of the previous one.
    #[error("response {response}: expected a group from {least}, as groups are numbered upwards, got {given}")]
    Group {
        /// Index of the response.
        response: usize,
        /// Number of the previous group.
        least: usize,
        /// Number of the response's group.
        given: usize,
    },
    /// A pair of a response with itself, or of responses that do not exist.
    #[error("pair {pair}: expected two different responses below {responses}, got {chosen} and {rejected}")]
    Pair {
        /// Index of the pair.
        pair: usize,
        /// Number of responses.
        responses: usize,
        /// Index of the pair's chosen response.
        chosen: usize,
        /// Index of the pair's rejected response.
        rejected: usize,
    },
    /// A batch of preferences without a pair, or of other data with one.
    #[error("pairs: expected {expected} for {data}, got {given}", data = <&str>::from(.data))]
    Pairs {
        /// Kind of the data.
        data: Data,
        /// Description of the allowed number of pairs.
        expected: &'static str,
        /// Number of pairs.
        given: usize,
    },
    /// A list whose length differs from the number of responses.
    #[error("{field}: expected {expected}, one {each}, got {given}")]
    Count {
        /// Name of the list.
        field: &'static str,
        /// Required length.
        expected: usize,
        /// Name of the things that the entries belong to.
        each: &'static str,
        /// Given length.
        given: usize,
    },
    /// A batch of another kind than the objective learns from.
    #[error("batch: expected {}, got {given}", <&str>::from(.expected))]
    Kind {
        /// Kind that the objective learns from.
        expected: Data,
        /// Kind of the batch.
        given: &'static str,
    },
    /// Totals of a step that are smaller than those of a part of it, or that differ although the part must be the
    /// whole.
    #[error("totals.{field}: expected {at_least}the batch's own {own}, got {given}", at_least = if *.whole { "" } else { "at least " })]
    Totals {
        /// Name of the count.
        field: &'static str,
        /// Whether the batch must be the whole step because its responses are coupled.
        whole: bool,
        /// Count of the batch itself.
        own: usize,
        /// Given count.
        given: usize,
    },
}

/// Description of feedback for an error.
fn describe(feedback: &Feedback) -> String {
    match feedback {
        Feedback::None => "no feedback".to_owned(),
        Feedback::Desirable => "a desirable response".to_owned(),
        Feedback::Undesirable => "an undesirable response".to_owned(),
        Feedback::Mismatched => "a mismatched response".to_owned(),
        Feedback::Group(group) => format!("the group {group}"),
    }
}
