//! Published policy gradients as presets: each is [`PolicyGradient`] with other defaults, and takes all of its
//! parameters.

use super::{Advantage, Aggregation, Correction, Estimator, Place, PolicyGradient, Ratio, Rewards, Scale, TrustRegion};
use crate::Objective;
use crate::method::Method;
use crate::parameter::{ParameterError, Parameters, Registered, declared, read};

/// Builds an objective whose defaults are a preset's.
fn build(
    name: &'static str,
    preset: &PolicyGradient,
    given: &Parameters,
) -> Result<Box<dyn Objective>, ParameterError> {
    refuse_former_names(name, given)?;
    let own = read(name, preset, given)?;
    own.check_choices(name)?;
    Ok(Box::new(own))
}

/// Checks an objective whose fields were set. A field without effect must have its default value, or the value of the
/// preset from which the objective was made.
pub(super) fn check(own: &PolicyGradient) -> Result<(), ParameterError> {
    let name = PolicyGradient::METHOD.name;
    let by_default = crate::parameter::check(name, &PolicyGradient::default(), own);
    if by_default.is_err() && !PRESETS.iter().any(|preset| crate::parameter::check(name, &preset(), own).is_ok()) {
        return by_default;
    }
    own.check_choices(name)
}

/// Error for former names of parameters, with their new names.
fn refuse_former_names(owner: &'static str, given: &Parameters) -> Result<(), ParameterError> {
    for (former, successor) in [
        (
            "normalisation",
            "aggregation (response_mean for grpo, token_mean for bnpo and dapo, fixed_length for dr_grpo)",
        ),
        ("episodes", "samples"),
    ] {
        if given.contains_key(former) {
            let (name, allowed) = (former.to_owned(), format!("its successor {successor}"));
            return Err(ParameterError::Unknown { owner, name, allowed });
        }
    }
    Ok(())
}

/// Declares presets: a constructor and a registry entry for each.
macro_rules! presets {
    ($($(#[doc = $doc:literal])* $name:ident, $summary:literal, $source:literal, { $($field:ident: $value:expr),* $(,)? };)*) => {
        /// Published methods: each is a set of choices.
        impl PolicyGradient {
            $(
                $(#[doc = $doc])*
                pub fn $name() -> Self {
                    Self { $($field: $value,)* ..Self::default() }
                }
            )*
        }

        /// Constructors of all presets.
        const PRESETS: &[fn() -> PolicyGradient] = &[$(PolicyGradient::$name,)*];

        /// Registry entries of the presets and of the general method.
        pub(crate) const METHODS: &[Method] = &[
            $(
                Method {
                    name: stringify!($name),
                    summary: $summary,
                    documentation: concat!($($doc, "\n"),*),
                    source: $source,
                    parameters: || declared(&PolicyGradient::$name()),
                    build: |given| build(stringify!($name), &PolicyGradient::$name(), given),
                },
            )*
            Method {
                build: |given| build("policy_gradient", &PolicyGradient::default(), given),
                ..PolicyGradient::METHOD
            },
        ];
    };
}

presets! {
    /// Clipped policy gradients on rewards compared within a group.
    grpo, "clipped policy gradients on rewards compared within a group", "arXiv 2402.03300, equation 3", {};

    /// GRPO without its two biases: advantages are not divided, and sums are divided by a fixed length.
    dr_grpo, "GRPO without division by lengths and deviations", "arXiv 2503.20783, section 3.2", {
        scale: Scale::None, aggregation: Aggregation::FixedLength,
    };

    /// GRPO with a higher upper bound and a mean over tokens.
    dapo, "GRPO with a higher upper bound and a mean over tokens", "arXiv 2503.14476, equation 8, as TRL", {
        clip_high: Some(0.28), aggregation: Aggregation::TokenMean,
    };

    /// GRPO with a mean over tokens.
    bnpo, "GRPO with a mean over tokens", "arXiv 2506.02864, as TRL", { aggregation: Aggregation::TokenMean };

    /// Clipped policy gradients on the geometric mean of a response's ratios.
    gspo, "GRPO with the geometric mean of a response's ratios", "arXiv 2507.18071, equation 5", {
        ratio: Ratio::Sequence, clip: 3e-4, clip_high: Some(4e-4),
    };

    /// GSPO with each token's own gradient, so that advantages may differ by token.
    gspo_token, "GSPO with each token's own gradient", "arXiv 2507.18071, equation 13", {
        ratio: Ratio::SequenceToken, clip: 3e-4, clip_high: Some(4e-4),
    };

    /// Policy gradients whose importance weights are clipped, not their tokens.
    cispo, "policy gradients with clipped importance weights", "arXiv 2506.13585, equations 4 and 5; max_ratio from arXiv 2510.13786", {
        trust_region: TrustRegion::Cispo, aggregation: Aggregation::TokenMean,
    };

    /// Policy gradients through a smooth gate in place of clipping.
    sapo, "policy gradients through a smooth gate in place of clipping", "arXiv 2511.20347", {
        trust_region: TrustRegion::Sapo,
    };

    /// GSPO with each response weighted by its length.
    luspo, "clipped policy gradients by response, each weighing its length", "arXiv 2602.05261", {
        ratio: Ratio::Sequence, aggregation: Aggregation::ResponseSum,
    };

    /// Policy gradients weighted by a gamma density of the response's importance ratio.
    vespo, "policy gradients weighted by a gamma density of the response's importance ratio", "arXiv 2602.10693", {
        trust_region: TrustRegion::Vespo, aggregation: Aggregation::TokenMean,
    };

    /// Policy gradients on the geometric mean of clipped ratios, which outliers move less than their arithmetic mean.
    gmpo, "policy gradients on the geometric mean of clipped ratios", "arXiv 2507.20673, equation 4", {
        trust_region: TrustRegion::GeometricMean, clip: 0.4,
    };

    /// REINFORCE, each response against the mean of the others to the same prompt.
    rloo, "REINFORCE, each response against the mean of the others to the same prompt", "arXiv 2402.14740", {
        advantage: Advantage::LeaveOneOut, ratio: Ratio::Product, beta: 0.05, divergence: Estimator::K1,
        divergence_place: Place::Reward, samples: 2,
    };

    /// PPO without a value function: discounted returns, whitened over the step.
    reinforce_plus_plus, "clipped policy gradients on returns whitened over the step", "arXiv 2501.03262", {
        advantage: Advantage::Batch, divergence: Estimator::K1, divergence_place: Place::Reward,
        aggregation: Aggregation::TokenMean,
    };

    /// REINFORCE++ with the mean of the group as baseline before whitening.
    reinforce_plus_plus_baseline, "REINFORCE++ with the mean of the group as baseline", "arXiv 2501.03262", {
        advantage: Advantage::BatchBaseline, divergence: Estimator::K2, divergence_place: Place::Loss,
        aggregation: Aggregation::TokenMean,
    };

    /// REINFORCE, each response against the greedy response to the same prompt.
    remax, "REINFORCE, each response against the greedy response", "arXiv 2310.10505", {
        advantage: Advantage::Greedy, ratio: Ratio::None, trust_region: TrustRegion::None,
        aggregation: Aggregation::ResponseSum,
    };

    /// REINFORCE on rewards compared within a group, without ratios and clipping.
    gpg, "policy gradients on rewards compared within a group, without ratios", "arXiv 2504.02546", {
        scale: Scale::None, ratio: Ratio::None, trust_region: TrustRegion::None, aggregation: Aggregation::TokenMean,
    };

    /// REINFORCE with the baseline of the least variance where a response's score grows with its length.
    opo, "REINFORCE with a baseline weighted by lengths", "arXiv 2505.23585", {
        advantage: Advantage::LengthWeighted, ratio: Ratio::None, trust_region: TrustRegion::None,
        aggregation: Aggregation::ResponseSum,
    };

    /// Policy gradients towards the likelihood of success rather than its probability: hard prompts count more.
    max_rl, "policy gradients towards the logarithm of the success rate", "arXiv 2602.02710", {
        advantage: Advantage::MaxRl, ratio: Ratio::None, trust_region: TrustRegion::None,
        aggregation: Aggregation::ResponseSum,
    };

    /// GRPO on several rewards that are compared one by one.
    gdpo, "GRPO on several rewards that are compared one by one", "arXiv 2601.05242", { rewards: Rewards::Apart };

    /// Policy gradients without the tokens whose probability moved too far.
    dppo_tv, "policy gradients masked by the difference of probabilities", "arXiv 2602.04879", {
        trust_region: TrustRegion::TotalVariation, clip: 0.15, aggregation: Aggregation::TokenMean,
    };

    /// Policy gradients without the tokens whose binary divergence grew too far.
    dppo_kl, "policy gradients masked by the divergence of a token's probability", "arXiv 2602.04879", {
        trust_region: TrustRegion::BinaryKl, clip: 0.05, aggregation: Aggregation::TokenMean,
    };

    /// Log-likelihood weighted by advantages, with a quadratic penalty of the log-ratio.
    dro, "advantage-weighted likelihood with a quadratic penalty", "arXiv 2405.19107, as verl 0.9.1", {
        scale: Scale::None, trust_region: TrustRegion::Quadratic, aggregation: Aggregation::TokenMean,
    };

    /// REINFORCE off policy: good responses are imitated, and bad ones are weighted by how likely the policy still is
    /// to sample them.
    topr, "policy gradients with truncated ratios of bad responses", "arXiv 2503.14286, section 3", {
        scale: Scale::None, trust_region: TrustRegion::Topr, aggregation: Aggregation::ResponseSum,
    };

    /// Clipped policy gradients without the tokens that would cost the most entropy.
    clip_cov, "clipped policy gradients without the tokens of the greatest covariance", "arXiv 2505.22617", {
        trust_region: TrustRegion::ClipCov, aggregation: Aggregation::TokenMean,
    };

    /// Policy gradients with a penalty on the tokens that would cost the most entropy.
    kl_cov, "policy gradients with a penalty on the tokens of the greatest covariance", "arXiv 2505.22617", {
        trust_region: TrustRegion::KlCov, aggregation: Aggregation::TokenMean,
    };

    /// GRPO with truncated importance weights for a sampler that differs from the trainer.
    tis, "GRPO with truncated weights for a sampler that is not the trainer", "F. Yao et al., 2025", {
        correction: Correction::TruncateToken, aggregation: Aggregation::TokenMean,
    };

    /// GRPO that rejects responses on which sampler and trainer disagree.
    mis, "GRPO that rejects responses on which sampler and trainer disagree", "J. Liu et al., 2025", {
        correction: Correction::MaskSequence, aggregation: Aggregation::TokenMean,
    };

    /// GRPO without the tokens on which sampler and trainer disagree.
    icepop, "GRPO without the tokens on which sampler and trainer disagree", "arXiv 2510.18855", {
        correction: Correction::Icepop, aggregation: Aggregation::TokenMean,
    };

    /// Clipped policy gradients on estimated advantages, beside a value function.
    ppo, "clipped policy gradients on estimated advantages, beside a value function", "arXiv 1707.06347, equations 7 and 9", {
        advantage: Advantage::Gae, aggregation: Aggregation::TokenMean, value_coefficient: 1.0,
        entropy_coefficient: 0.01, samples: 16, epochs: 4,
    };
}
