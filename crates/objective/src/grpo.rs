//! Group relative policy optimisation: clipped policy gradients on rewards compared within a group.
//!
//! # Formula
//!
//! With x the log-ratio log π − log π_behaviour, of a token (`ratio = token`) or its mean over a response of N tokens
//! (`ratio = sequence`, GSPO), ℓ the [clipped surrogate](crate::clip) at x, A the response's advantage (see
//! [`group`](crate::group)), per token ℓ and β times its [divergence](crate::token_divergence) from the reference, and
//! the mean:
//!
//! | `normalisation` | a token of the step weighs |
//! |---|---|
//! | `grpo` | 1 / (N · responses) |
//! | `bnpo`, `dapo` | 1 / tokens |
//! | `dr_grpo` | 1 / (`max_tokens` · responses) |
//!
//! Counts are those of the whole step. Cotangent: the weight times ∂ℓ/∂x, and times that of the divergence.
//!
//! # Source
//!
//! Z. Shao et al., "DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models", arXiv 2402.03300,
//! equation 3; `dapo` from arXiv 2503.14476, equation 8; `dr_grpo` from arXiv 2503.20783; `bnpo` from arXiv 2506.02864; GSPO
//! from arXiv 2507.18071.
//!
//! # Departures
//!
//! `dapo` divides by the tokens of the whole step, as TRL does. Its paper's equation 8 is the mean over prompts of each
//! prompt's own mean over the tokens of its group, which weighs tokens otherwise: of two groups with responses of 1 and
//! 1 and of 100 and 100 tokens, a token weighs 1/4 and 1/400 there and 1/202 here.
//!
//! `bnpo` and `dapo` are the same here: TRL's `bnpo` divides by the tokens of a micro-batch, so that its loss depends on how a
//! step is split; here every step is exact under any split. `dr_grpo` leaves `scale` as it is given, as TRL does; its paper has
//! `scale = none`. `ratio = sequence` goes with `normalisation = grpo` alone: under the others, which sum over tokens, longer
//! responses would weigh more, which GSPO does not mean (and LUSPO does: [`luspo`](crate::luspo)).
//!
//! # Examples
//!
//! Two responses of one token with rewards 1 and 0, on policy, `scale = none`: A = ±½, L = −½·½ + ½·½ = 0, cotangents ∓¼.
//!
//! ```
//! # use objective::*;
//! let responses = [Response::rewarded(0..1, 0, 1.0), Response::rewarded(1..2, 0, 0.0)];
//! # let statistics = TokenStatistics { log_prob: vec![-1.0, -2.0], ..Default::default() };
//! # let constants = TokenConstants { behaviour_log_prob: vec![-1.0, -2.0], ..Default::default() };
//! # let totals = StepTotals::of(&responses, &[]);
//! let grpo = registry::build("grpo", &[("scale".to_owned(), "none".into())].into())?;
//! # let batch = TokenBatch::new(&grpo.requirements(), &statistics, &constants, &responses, &[], totals)?;
//! # let mut evaluation = Evaluation::default();
//! grpo.evaluate(&batch, &mut ObjectiveState::default(), &mut evaluation);
//! assert_eq!(evaluation.loss, 0.0);
//! assert_eq!(evaluation.cotangents.log_prob, [-0.25, 0.25]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use strum::{EnumString, IntoStaticStr, VariantNames};

use crate::batch::StepTotals;
use crate::clip::{Bounded, CLIP, CLIP_HIGH, Clip, DELTA};
use crate::group::{Clipped, GroupLoss, ResponseLoss, SCALE, Sampled, beta, build};
use crate::method::Method;
use crate::numerics::sum_of_differences;
use crate::parameter::{Kind, Parameter, ParameterError, Parameters, Reader};
use crate::sampling::{epochs, samples};
use crate::token_divergence::{DIVERGENCE, DIVERGENCE_PLACE};

/// The registry's line.
pub const METHOD: Method = Method {
    name: "grpo",
    summary: "clipped policy gradients on rewards compared within a group",
    source: "arXiv 2402.03300, equation 3",
    parameters: || {
        vec![
            CLIP,
            CLIP_HIGH,
            DELTA,
            beta(0.0),
            DIVERGENCE,
            DIVERGENCE_PLACE,
            SCALE,
            NORMALISATION,
            MAX_TOKENS,
            RATIO,
            samples(8),
            epochs(1),
        ]
    },
    build: build::<Grpo>,
};

/// By what the loss is divided.
pub const NORMALISATION: Parameter = Parameter {
    name: "normalisation",
    kind: Kind::Choice { default: "grpo", options: Normalisation::VARIANTS },
    purpose: "mean over responses of the mean over their tokens, over all tokens, or over a fixed number of tokens",
};

/// The fixed number of tokens of `dr_grpo`.
pub const MAX_TOKENS: Parameter = Parameter {
    name: "max_tokens",
    kind: Kind::Count { default: 256, least: 1, most: 1 << 30 },
    purpose: "what each response's sum is divided by under normalisation = dr_grpo",
};

/// Whose ratio is clipped.
pub const RATIO: Parameter = Parameter {
    name: "ratio",
    kind: Kind::Choice { default: "token", options: Ratio::VARIANTS },
    purpose: "whether each token has its own importance ratio or all of a response share their geometric mean (GSPO)",
};

/// By what the loss is divided.
///
/// What a token of a response of 2 weighs in a step of 2 responses with 16 tokens:
///
/// ```
/// use objective::group::GroupLoss;
/// use objective::grpo::{Grpo, METHOD};
/// use objective::{StepTotals, parameter::Reader};
///
/// let totals = StepTotals { tokens: 16, responses: 2, ..Default::default() };
/// for (name, share) in [("grpo", 1.0 / 4.0), ("dapo", 1.0 / 16.0), ("dr_grpo", 1.0 / 512.0)] {
///     let given = [("normalisation".to_owned(), name.into())].into();
///     let grpo = Grpo::read(&Reader::new(METHOD.name, &(METHOD.parameters)(), &given)?)?;
///     assert_eq!(grpo.share(2, totals), share);
/// }
/// # Ok::<(), objective::ParameterError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Normalisation {
    /// Each response's tokens, then the step's responses.
    Grpo,
    /// The step's tokens.
    Bnpo,
    /// A fixed number of tokens for each response.
    DrGrpo,
    /// The step's tokens.
    Dapo,
}

/// Whose ratio is clipped.
///
/// ```
/// let given = [("normalisation".to_owned(), "dapo".into()), ("ratio".to_owned(), "sequence".into())].into();
/// let error = objective::registry::build("grpo", &given).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     r#"grpo.ratio: not used where normalisation = dapo, so it must not be set (got "sequence")"#
/// );
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Ratio {
    /// Each token's.
    Token,
    /// The geometric mean over a response.
    Sequence,
}

/// Group relative policy optimisation.
///
/// The upper bound of a ratio follows the lower one until it is set:
///
/// ```
/// let grpo = objective::registry::build("grpo", &[("clip".to_owned(), 0.1.into())].into())?;
/// assert_eq!(grpo.parameters()["clip_high"], 0.1.into());
/// assert!(!grpo.parameters().contains_key("delta"));
/// # Ok::<(), objective::RegistryError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grpo {
    clip: Clip,
    normalisation: Normalisation,
    max_tokens: usize,
    ratio: Ratio,
}

impl GroupLoss for Grpo {
    const METHOD: Method = METHOD;

    fn read(reader: &Reader<'_>) -> Result<Self, ParameterError> {
        let normalisation: Normalisation = reader.choice(&NORMALISATION)?;
        let name: &str = normalisation.into();
        if normalisation != Normalisation::DrGrpo {
            reader.refuse(&MAX_TOKENS, format_args!("normalisation = {name}"))?;
        }
        let ratio = match normalisation {
            Normalisation::Grpo => reader.choice(&RATIO)?,
            _ => {
                reader.refuse(&RATIO, format_args!("normalisation = {name}"))?;
                Ratio::Token
            }
        };
        let clip = Clip::read(METHOD.name, &(METHOD.parameters)(), reader)?;
        Ok(Self { clip, normalisation, max_tokens: reader.count(&MAX_TOKENS)?, ratio })
    }

    fn own_parameters(&self) -> Parameters {
        let (normalisation, ratio): (&str, &str) = (self.normalisation.into(), self.ratio.into());
        let mut parameters = self.clip.parameters(&(METHOD.parameters)());
        parameters.insert(NORMALISATION.name.to_owned(), normalisation.into());
        match self.normalisation {
            Normalisation::Grpo => drop(parameters.insert(RATIO.name.to_owned(), ratio.into())),
            Normalisation::DrGrpo => {
                parameters.insert(MAX_TOKENS.name.to_owned(), (self.max_tokens as f64).into());
            }
            Normalisation::Bnpo | Normalisation::Dapo => {}
        }
        parameters
    }

    fn share(&self, tokens: usize, totals: StepTotals) -> f64 {
        match self.normalisation {
            Normalisation::Grpo => 1.0 / (tokens as f64 * totals.responses as f64),
            Normalisation::Bnpo | Normalisation::Dapo => 1.0 / totals.tokens as f64,
            Normalisation::DrGrpo => 1.0 / (self.max_tokens as f64 * totals.responses as f64),
        }
    }

    fn response(&self, response: &Sampled<'_>, share: f64, slots: &mut [f64]) -> ResponseLoss {
        match self.ratio {
            Ratio::Token => by_token(response, share, slots, |log_ratio| {
                let surrogate = self.clip.surrogate(log_ratio, response.advantage);
                (surrogate.loss, surrogate.slope, surrogate.clipped)
            }),
            Ratio::Sequence => clipped_sequence(&self.clip, response, share, slots),
        }
    }
}

/// The sum over a response's tokens of a loss of their log-ratios, where `loss` returns the value, the slope and the
/// bound at which it is clipped.
pub(crate) fn by_token(
    response: &Sampled<'_>,
    share: f64,
    slots: &mut [f64],
    loss: impl Fn(f64) -> (f64, f64, Option<Bounded>),
) -> ResponseLoss {
    let (mut total, mut clipped) = (0.0, Clipped::default());
    for ((log_prob, behaviour), slot) in response.log_prob.iter().zip(response.behaviour_log_prob).zip(&mut *slots) {
        let (value, slope, bound) = loss(log_prob - behaviour);
        total += value;
        *slot += share * slope;
        clipped.count(bound);
    }
    ResponseLoss { loss: share * total, clipped, ratios: slots.len() }
}

/// The clipped surrogate of a response's geometric mean ratio, once a token.
pub(crate) fn clipped_sequence(clip: &Clip, response: &Sampled<'_>, share: f64, slots: &mut [f64]) -> ResponseLoss {
    let tokens = slots.len() as f64;
    let log_ratio = sum_of_differences(response.log_prob, response.behaviour_log_prob) / tokens;
    let surrogate = clip.surrogate(log_ratio, response.advantage);
    // Each of the N tokens has the loss ℓ, and moves x by 1/N.
    slots.iter_mut().for_each(|slot| *slot += share * surrogate.slope);
    let mut clipped = Clipped::default();
    clipped.count(surrogate.clipped);
    ResponseLoss { loss: share * tokens * surrogate.loss, clipped, ratios: 1 }
}
