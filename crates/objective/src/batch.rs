//! What an objective reads: columns over response tokens, and the responses and pairs that they belong to.

use std::ops::{Range, RangeInclusive};

use crate::numerics::sum_of_differences;
use crate::requirements::{Constant, Data, Requirements, Statistic};

/// Differentiable columns over response tokens; also the type of their cotangents. Unrequired columns are empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenStatistics {
    /// log π(yₜ|sₜ) of the policy in training, nats.
    pub log_prob: Vec<f64>,
    /// KL(π_ref || π) at sₜ, nats.
    pub reference_kl: Vec<f64>,
}

/// Columns over response tokens that the step does not differentiate. Unrequired columns are empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenConstants {
    /// log π_ref(yₜ|sₜ) of the frozen reference policy, nats.
    pub reference_log_prob: Vec<f64>,
}

/// One response: a contiguous range of tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Its tokens' places in the columns.
    pub tokens: Range<usize>,
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
    /// Response tokens.
    pub tokens: usize,
    /// Responses.
    pub responses: usize,
    /// Pairs.
    pub pairs: usize,
}

/// A validated batch: what reaches an objective cannot fail there.
#[derive(Clone, Copy, Debug)]
pub struct TokenBatch<'a> {
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
    /// Totals of a step that are less than those of a part of it.
    #[error("totals.{field}: expected at least the batch's own {own}, got {given}")]
    Totals {
        /// Which count.
        field: &'static str,
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
        }
    }

    /// A column by its name, to be filled.
    pub fn column_mut(&mut self, statistic: Statistic) -> &mut Vec<f64> {
        match statistic {
            Statistic::LogProb => &mut self.log_prob,
            Statistic::ReferenceKl => &mut self.reference_kl,
        }
    }
}

impl TokenConstants {
    /// A column by its name.
    pub fn column(&self, constant: Constant) -> &[f64] {
        match constant {
            Constant::ReferenceLogProb => &self.reference_log_prob,
        }
    }

    /// A column by its name, to be filled.
    pub fn column_mut(&mut self, constant: Constant) -> &mut Vec<f64> {
        match constant {
            Constant::ReferenceLogProb => &mut self.reference_log_prob,
        }
    }
}

impl StepTotals {
    /// The counts of a batch that is a whole step.
    pub fn of(responses: &[Response], pairs: &[Pair]) -> Self {
        Self {
            tokens: responses.iter().map(|response| response.tokens.len()).sum(),
            responses: responses.len(),
            pairs: pairs.len(),
        }
    }
}

impl std::iter::Sum for StepTotals {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), |sum, part| Self {
            tokens: sum.tokens + part.tokens,
            responses: sum.responses + part.responses,
            pairs: sum.pairs + part.pairs,
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
        match requirements.data {
            Data::Demonstrations if !pairs.is_empty() => {
                return Err(BatchError::Pairs { data: Data::Demonstrations, expected: "none", given: pairs.len() });
            }
            Data::Preferences if pairs.is_empty() => {
                return Err(BatchError::Pairs { data: Data::Preferences, expected: "at least one", given: 0 });
            }
            _ => {}
        }
        for &statistic in Statistic::ALL {
            let required = requirements.statistics.contains(&statistic);
            check_column(statistic.name(), statistic.range(), statistics.column(statistic), required, responses)?;
        }
        for &constant in Constant::ALL {
            let required = requirements.constants.contains(&constant);
            check_column(constant.name(), constant.range(), constants.column(constant), required, responses)?;
        }
        for (field, own, given) in [
            ("tokens", own.tokens, totals.tokens),
            ("responses", own.responses, totals.responses),
            ("pairs", own.pairs, totals.pairs),
        ] {
            if given < own {
                return Err(BatchError::Totals { field, own, given });
            }
        }
        Ok(Self { statistics, constants, responses, pairs, totals })
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
    for (index, Response { tokens }) in responses.iter().enumerate() {
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
