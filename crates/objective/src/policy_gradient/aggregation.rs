//! Aggregations: the weight of a token in the step's loss.

use strum::{EnumString, IntoStaticStr, VariantNames};

/// Weight of a token in the step's loss.
///
/// Responses differ in length, so a mean can be over tokens or responses. A mean over tokens lets long responses
/// dominate the step; a mean over responses gives each the same weight, so that a token of a long response counts
/// little; a sum divided by a fixed length does neither, and is the one whose gradient is a policy gradient's without
/// bias.
///
/// # Formula
///
/// N is the number of the response's tokens, T, R and P those of the step's tokens, responses and prompts (groups), and
/// Tₚ that of the tokens of the response's group:
///
/// | `aggregation` | a token weighs | expected gradient on policy of −A log π |
/// |---|---|---|
/// | `token_mean` | 1 / T | a ratio of sums: biased where lengths differ |
/// | `response_mean` | 1 / (N R) | E\[A ∇log π(y) / N\] |
/// | `response_sum` | 1 / R | E\[A ∇log π(y)\], the policy gradient |
/// | `fixed_length` | 1 / (`max_tokens` R) | E\[A ∇log π(y)\] / `max_tokens` |
/// | `prompt_mean` | 1 / (Tₚ P) | a mean over prompts of ratios of sums |
///
/// Counts are those of the whole step, less what a correction rejects.
///
/// # Source
///
/// `token_mean`: TRL's `bnpo` and `dapo`; `response_mean`: arXiv 2402.03300, equation 3; `response_sum`: "LUSPO", arXiv
/// 2602.05261; `fixed_length`: arXiv 2503.20783; `prompt_mean`: DAPO, arXiv 2503.14476, equation 8.
///
/// # Departures
///
/// TRL's `dapo` is `token_mean`, which weighs tokens otherwise than DAPO's equation 8: for two groups with responses of
/// 1 and 1 and of 100 and 100 tokens, a token weighs 1/4 and 1/400 by `prompt_mean` and 1/202 by `token_mean`. TRL's
/// `bnpo` divides by the tokens of a micro-batch, so that its loss depends on how a step is split; here every step is
/// exact under any split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Aggregation {
    /// The mean over the step's tokens.
    TokenMean,
    /// The mean over responses of the mean over their tokens.
    #[default]
    ResponseMean,
    /// The mean over responses of the sum over their tokens.
    ResponseSum,
    /// The mean over responses of the sum over their tokens, divided by a fixed length.
    FixedLength,
    /// The mean over prompts of the mean over the tokens of their responses.
    PromptMean,
}

/// Counts by which losses are divided.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counts {
    /// Number of tokens of the step.
    pub(super) tokens: usize,
    /// Number of responses of the step.
    pub(super) responses: usize,
    /// Number of groups of the step.
    pub(super) groups: usize,
}

impl Aggregation {
    /// Weight of each of a response's tokens.
    pub(super) fn share(self, tokens: usize, group_tokens: usize, max_tokens: usize, step: Counts) -> f64 {
        let responses = step.responses as f64;
        match self {
            Self::TokenMean => 1.0 / step.tokens as f64,
            Self::ResponseMean => 1.0 / (tokens as f64 * responses),
            Self::ResponseSum => 1.0 / responses,
            Self::FixedLength => 1.0 / (max_tokens as f64 * responses),
            Self::PromptMean => 1.0 / (group_tokens as f64 * step.groups as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_weighs_what_its_table_says() {
        let step = Counts { tokens: 202, responses: 4, groups: 2 };
        for (aggregation, short, long) in [
            (Aggregation::TokenMean, 1.0 / 202.0, 1.0 / 202.0),
            (Aggregation::ResponseMean, 1.0 / 4.0, 1.0 / 400.0),
            (Aggregation::ResponseSum, 1.0 / 4.0, 1.0 / 4.0),
            (Aggregation::FixedLength, 1.0 / 1024.0, 1.0 / 1024.0),
            (Aggregation::PromptMean, 1.0 / 4.0, 1.0 / 400.0),
        ] {
            assert_eq!(aggregation.share(1, 2, 256, step), short);
            assert_eq!(aggregation.share(100, 200, 256, step), long);
        }
    }
}
