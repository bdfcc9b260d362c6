//! Policy gradients as one objective with six choices.

mod advantage;
mod aggregation;
mod clipped;
mod correction;
mod covariance;
mod divergence;
mod exponentials;
mod hold;
mod loss;
mod numbers;
pub(crate) mod presets;
mod ratio;
mod returns;
mod scores;
mod shares;
mod trust_region;
mod value;
mod view;
mod weights;

use enumset::EnumSet;

pub use self::advantage::{Advantage, Rewards, Scale};
pub use self::aggregation::Aggregation;
pub use self::correction::Correction;
pub use self::divergence::{Estimator, Place};
pub use self::ratio::Ratio;
pub use self::returns::{generalised_advantages, normalise};
pub use self::trust_region::TrustRegion;

use crate::columns::{Constant, Statistic};
use crate::objective;
use crate::parameter::{NON_NEGATIVE, ParameterError, Parameters, SCALE, UNIT, choices, in_force};
use crate::requirements::{Coupling, Data, Requirements, Source};
use crate::sampling::Sampling;
use crate::{Evaluation, Groups, Held, LearnsFrom, Objective, ObjectiveState, TokenBatch};

choices!(Advantage, Rewards, Scale, Aggregation, Correction, Estimator, Place, Ratio, TrustRegion);

/// Range of a ratio that may also be unbounded.
const RATIO: crate::parameter::Interval = (std::ops::Bound::Excluded(0.0), std::ops::Bound::Included(1e6));
/// Range of the second bound on ratios.
const ABOVE_ONE: crate::parameter::Interval = (std::ops::Bound::Excluded(1.0), std::ops::Bound::Included(1e6));
/// Range of a decay.
const DECAY: crate::parameter::Interval = (std::ops::Bound::Included(1e-4), std::ops::Bound::Included(1e6));
/// Range of a nonzero share.
const SHARE: crate::parameter::Interval = (std::ops::Bound::Excluded(0.0), std::ops::Bound::Included(1.0));

objective! {
    /// A policy gradient on sampled responses; its default is group relative policy optimisation.
    ///
    /// A policy gradient learns from its own attempts: it raises the probability of the responses that turned out
    /// better than expected and lowers that of the others. Every published variant answers the same six questions, each
    /// independently of the rest: relative to which baseline (`advantage`), how to reweight responses of an older
    /// policy (`ratio`), how far one step may go (`trust_region`), how to correct a sampler that differs from the
    /// trainer (`correction`), what keeps the policy near a reference (`divergence`), and which weight a token has
    /// (`aggregation`). A published name is a preset, made by a constructor of its own: a set of answers.
    ///
    /// # Formula
    ///
    /// With ℓₜ the loss that the trust region makes of a token's advantage and ratio, cₜ the correction's weight, eₜ =
    /// 1 for the share `entropy_share` of the step's tokens with the highest entropy H and 0 for the others, kₜ the
    /// divergence's estimate, and sₜ what a token weighs:
    ///
    /// L = Σₜ sₜ (cₜ eₜ ℓₜ + β kₜ − c_H Hₜ + c_V vₜ)
    ///
    /// v is the value function's loss, where there is one. Everything but log π, H and V in it is held: advantages,
    /// weights, masks and counts are computed by [`hold`](crate::Objective::hold) and pass no gradient. The formulas,
    /// sources and departures of a choice are in its own file:
    ///
    /// | choice | type |
    /// |---|---|
    /// | advantage | [`Advantage`], [`Scale`], [`Rewards`] |
    /// | ratio | [`Ratio`] |
    /// | trust region | [`TrustRegion`] |
    /// | correction | [`Correction`] |
    /// | divergence | [`Estimator`], [`Place`] |
    /// | aggregation | [`Aggregation`] |
    ///
    /// # Expected gradients
    ///
    /// On policy, with `scale = none`, no divergence and no clipping in force, a step of one group of G responses:
    ///
    /// | preset | expected gradient |
    /// |---|---|
    /// | `rloo`, `remax` | ∇E\[R\] |
    /// | `dr_grpo` | (G − 1)/G ∇E\[R\] / `max_tokens` |
    /// | `luspo`, `topr` | (G − 1)/G ∇E\[R\] |
    /// | `opo` | ∇E\[R\] less what a baseline that includes the response itself takes: (G − 1)/G ∇E\[R\] for equal lengths |
    /// | `max_rl` | of rewards 0 and 1 with success p: the gradient of −Σ_{k=1}^{G−1} (1 − p)ᵏ/k, which tends to log p |
    /// | `grpo`, `gspo`, `gspo_token`, `gmpo`, `sapo` | (G − 1)/G times the covariance of R with ∇log π(y)/N, N the response's length: (G − 1)/G ∇E\[R\]/N for equal lengths |
    /// | `dapo`, `bnpo`, `cispo`, `vespo`, `gpg`, `dppo_tv`, `dppo_kl`, `dro`, `clip_cov`, `kl_cov`, `tis`, `mis`, `icepop` | a ratio of sums over the step's tokens: (G − 1)/G ∇E\[R\]/N for equal lengths N |
    ///
    /// `scale = group` divides each prompt by the standard deviation of its rewards: prompts that are nearly always or
    /// nearly never solved count more. `reinforce_plus_plus` and `reinforce_plus_plus_baseline` are whitened: of an
    /// expected direction that depends on the step. `dro` adds the gradient of its penalty, `kl_cov` none on policy,
    /// and `clip_cov` leaves tokens out.
    ///
    /// # Examples
    ///
    /// Rewards 1 and 0 of two responses of one token, on policy: A = ±½, and each response weighs half.
    ///
    /// ```
    /// use objective::{Groups, PolicyGradient, Scale, Side};
    ///
    /// let mut grpo = PolicyGradient { scale: Scale::None, ..PolicyGradient::default() }.evaluator()?;
    /// let answer = grpo.evaluate(&Groups {
    ///     responses: Side { log_prob: &[-1.0, -2.0], behaviour_log_prob: &[-1.0, -2.0], ..Side::of(&[1, 1]) },
    ///     group: &[0, 0],
    ///     reward: &[1.0, 0.0],
    /// })?;
    /// assert_eq!((answer.loss, &answer.cotangents.log_prob[..]), (0.0, &[-0.25, 0.25][..]));
    /// # Ok::<(), objective::Error>(())
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct PolicyGradient = "policy_gradient", "policy gradients on sampled responses, by six choices",
        "the sources of its choices"
    {
        /// Baseline that a response's reward is compared with.
        advantage: Advantage = Advantage::GroupMean,
        /// Standard deviation that advantages are divided by.
        scale: Scale = Scale::Group => unused |own| {
            (!own.advantage.is_scaled()).then(|| named("advantage", own.advantage))
        },
        /// Combination of several rewards of a response into one advantage.
        rewards: Rewards = Rewards::Together => unused |own| {
            (own.advantage != Advantage::GroupMean).then(|| named("advantage", own.advantage))
        },
        /// Discount of rewards per token.
        discount: f64 [UNIT] = 1.0 => unused |own| {
            (own.advantage != Advantage::Batch).then(|| named("advantage", own.advantage))
        },
        /// Number of responses of which the best counts, at most the group's.
        pass_k: usize [2, 65_536] = 8 => unused |own| {
            (own.advantage != Advantage::PassAtK).then(|| named("advantage", own.advantage))
        },
        /// How far rewards reach back into advantages: 0 is one step, 1 the whole response.
        gae_lambda: f64 [UNIT] = 0.95 => unused |own| {
            (own.advantage != Advantage::Gae).then(|| named("advantage", own.advantage))
        },
        /// Importance ratio: the probability in training relative to the policy that sampled the response.
        ratio: Ratio = Ratio::Token => unused |own| {
            (!own.trust_region.has_ratio()).then(|| named("trust_region", own.trust_region))
        },
        /// Limit of how far a step may move away from the policy that sampled the responses.
        trust_region: TrustRegion = TrustRegion::Clip,
        /// Lower bound: how far an importance ratio may fall below 1 (clip, clip_cov), a log-ratio below 0
        /// (geometric_mean), a probability (total_variation), or the divergence of one that falls (binary_kl); also the
        /// upper one where clip_high is not set.
        clip: f64 [UNIT] = 0.2 => unused |own| (!own.has_bounds()).then(|| named("trust_region", own.trust_region)),
        /// Upper bound, with the same meanings.
        clip_high: Option<f64> [NON_NEGATIVE, "clip"] = None
            => unused |own| (!own.has_bounds()).then(|| named("trust_region", own.trust_region))
            => follows |own| Some(own.clip),
        /// Maximum importance ratio of a negative advantage (two-sided clipping).
        delta: Option<f64> [ABOVE_ONE, "off"] = None => unused |own| {
            (own.trust_region != TrustRegion::Clip).then(|| named("trust_region", own.trust_region))
        },
        /// Maximum importance ratio that weights a token.
        max_ratio: Option<f64> [RATIO, "5 for cispo, 20 for total_variation and binary_kl"] = None
            => unused |own| own.default_max_ratio().is_none().then(|| named("trust_region", own.trust_region))
            => follows |own| own.default_max_ratio(),
        /// Minimum importance ratio that weights a token.
        min_ratio: f64 [NON_NEGATIVE] = 0.0 => unused |own| {
            (own.trust_region != TrustRegion::Cispo).then(|| named("trust_region", own.trust_region))
        },
        /// How fast the gate closes on responses with a positive advantage.
        positive_temperature: f64 [SCALE] = 1.0 => unused |own| own.without(TrustRegion::Sapo),
        /// How fast the gate closes on responses with a zero or negative advantage.
        negative_temperature: f64 [SCALE] = 1.05 => unused |own| own.without(TrustRegion::Sapo),
        /// Power of the ratio, for positive advantages: how fast weights fall below a ratio of 1.
        positive_k: f64 [NON_NEGATIVE] = 2.0 => unused |own| own.without(TrustRegion::Vespo),
        /// Decay with the ratio, for positive advantages: how fast weights fall above a ratio of 1.
        positive_lambda: f64 [DECAY] = 3.0 => unused |own| own.without(TrustRegion::Vespo),
        /// Power of the ratio, for negative advantages: how fast weights fall below a ratio of 1.
        negative_k: f64 [NON_NEGATIVE] = 3.0 => unused |own| own.without(TrustRegion::Vespo),
        /// Decay with the ratio, for negative advantages: how fast weights fall above a ratio of 1.
        negative_lambda: f64 [DECAY] = 2.0 => unused |own| own.without(TrustRegion::Vespo),
        /// Weight of the squared log-ratio, per squared nat.
        quadratic_weight: f64 [NON_NEGATIVE] = 1.0 => unused |own| own.without(TrustRegion::Quadratic),
        /// Share of the step's tokens that are selected by their covariance, at least one token.
        covariance_share: f64 [SHARE] = 2e-4 => unused |own| {
            (!own.has_covariance()).then(|| named("trust_region", own.trust_region))
        },
        /// Covariance above which a token may be selected.
        covariance_min: f64 [NON_NEGATIVE] = 1.0 => unused |own| own.without(TrustRegion::ClipCov),
        /// Covariance below which a token may be selected.
        covariance_max: f64 [NON_NEGATIVE] = 5.0 => unused |own| own.without(TrustRegion::ClipCov),
        /// Weight of a selected token's absolute log-ratio, per nat.
        covariance_weight: f64 [NON_NEGATIVE] = 1.0 => unused |own| own.without(TrustRegion::KlCov),
        /// Correction for a sampler whose probabilities differ from the trainer's.
        correction: Correction = Correction::None,
        /// Minimum weight of the correction.
        correction_min: Option<f64> [NON_NEGATIVE, "0.5 for icepop, otherwise 0"] = None
            => unused |own| {
                matches!(own.correction, Correction::None | Correction::OffPolicySequence)
                    .then(|| named("correction", own.correction))
            }
            => follows |own| Some(own.correction.default_bounds()[0]),
        /// Maximum weight of the correction; for off_policy_sequence the maximum mean of log-ratios, nats.
        correction_max: Option<f64> [NON_NEGATIVE, "5 for icepop, 0.5 for off_policy_sequence, otherwise 2"] = None
            => unused |own| (own.correction == Correction::None).then(|| named("correction", own.correction))
            => follows |own| Some(own.correction.default_bounds()[1]),
        /// Weight of the divergence from the reference, per nat; 0 needs no reference.
        beta: f64 [NON_NEGATIVE] = 0.0,
        /// Estimator of the divergence from a sampled token, where beta > 0.
        divergence: Estimator = Estimator::K3 => unused |own| own.without_divergence(),
        /// Place of the divergence, where beta > 0: corrected adds it to the loss, times the token's importance ratio.
        divergence_place: Place = Place::Corrected => unused |own| own.without_divergence(),
        /// Maximum log-ratio to the reference that the divergence counts, in both directions, nats.
        divergence_clip: Option<f64> [RATIO, "off"] = None => unused |own| own.without_divergence(),
        /// Weight of a token in the step's loss.
        aggregation: Aggregation = Aggregation::ResponseMean,
        /// Length that each response's sum is divided by, tokens.
        max_tokens: usize [1, 1 << 30] = 256 => unused |own| {
            (own.aggregation != Aggregation::FixedLength).then(|| named("aggregation", own.aggregation))
        },
        /// Weight of the policy's entropy, per nat.
        entropy_coefficient: f64 [NON_NEGATIVE] = 0.0,
        /// Share of the step's tokens, those with the highest entropy, that the policy learns from.
        entropy_share: f64 [SHARE] = 1.0,
        /// Weight of the value function's squared error; 0 needs no value function.
        value_coefficient: f64 [NON_NEGATIVE] = 0.0 => unused |own| {
            (!own.advantage.is_column()).then(|| named("advantage", own.advantage))
        },
        /// How far the value may move from where it was when the response was sampled.
        value_clip: Option<f64> [RATIO, "off"] = None
            => unused |own| (own.value_coefficient == 0.0).then(|| "value_coefficient = 0".to_owned()),
        /// Number of responses sampled for each prompt.
        samples: usize [2, 65_536] = 8 => unused |own| own.without_sampling(),
        /// Number of optimizer steps on the same responses before new ones are sampled.
        epochs: usize [1, 1_000] = 1 => unused |own| own.without_sampling(),
    }
}

/// Formats a setting for an error.
fn named(name: &str, value: impl Into<&'static str>) -> String {
    format!("{name} = {}", value.into())
}

impl PolicyGradient {
    fn has_bounds(&self) -> bool {
        matches!(
            self.trust_region,
            TrustRegion::Clip
                | TrustRegion::ClipCov
                | TrustRegion::GeometricMean
                | TrustRegion::TotalVariation
                | TrustRegion::BinaryKl
        )
    }

    fn without(&self, region: TrustRegion) -> Option<String> {
        (self.trust_region != region).then(|| named("trust_region", self.trust_region))
    }

    /// Whether tokens are selected by their covariance.
    fn has_covariance(&self) -> bool {
        matches!(self.trust_region, TrustRegion::ClipCov | TrustRegion::KlCov)
    }

    fn without_divergence(&self) -> Option<String> {
        (self.beta == 0.0).then(|| "beta = 0".to_owned())
    }

    fn without_sampling(&self) -> Option<String> {
        (self.advantage == Advantage::Given).then(|| named("advantage", self.advantage))
    }

    fn default_max_ratio(&self) -> Option<f64> {
        match self.trust_region {
            TrustRegion::Cispo => Some(5.0),
            TrustRegion::TotalVariation | TrustRegion::BinaryKl => Some(20.0),
            _ => None,
        }
    }

    /// Lower and upper bound, in the quantity that the trust region bounds.
    fn bounds(&self) -> [f64; 2] {
        [self.clip, self.clip_high.unwrap_or(self.clip)]
    }

    fn max_ratio(&self) -> f64 {
        self.max_ratio.or(self.default_max_ratio()).unwrap_or(f64::INFINITY)
    }

    fn correction_bounds(&self) -> [f64; 2] {
        let [least, most] = self.correction.default_bounds();
        [self.correction_min.unwrap_or(least), self.correction_max.unwrap_or(most)]
    }

    fn place(&self) -> Option<Place> {
        (self.beta > 0.0).then_some(self.divergence_place)
    }

    /// Whether the loss needs the policy that sampled the responses.
    fn needs_behaviour(&self) -> bool {
        self.ratio != Ratio::None
            || self.correction != Correction::None
            || matches!(self.place(), Some(Place::Corrected | Place::Reward))
    }

    /// Whether a response's loss depends on others of the step.
    fn is_coupled(&self) -> bool {
        !self.advantage.is_column() || self.correction.rejects() || self.entropy_share < 1.0 || self.has_covariance()
    }

    /// Rejects choices that contradict one another.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] with the contradicting choice and its remaining values.
    pub(crate) fn check_choices(&self, owner: &'static str) -> Result<(), ParameterError> {
        let refuse = |name: &'static str, allowed: String, given: String| {
            Err(ParameterError::Invalid { owner, name, allowed, given })
        };
        let quoted = |name: &'static str| format!("{name:?}");
        if self.ratio == Ratio::None && self.trust_region != TrustRegion::None {
            return refuse("trust_region", "none where ratio = none".to_owned(), quoted(self.trust_region.into()));
        }
        if !self.trust_region.has_ratio() && self.ratio != Ratio::Token {
            let region = named("trust_region", self.trust_region);
            return refuse("ratio", format!("token where {region}"), quoted(self.ratio.into()));
        }
        if self.place() == Some(Place::Reward) {
            let allowed = if self.advantage.is_column() {
                named("loss or corrected where advantage", self.advantage)
            } else if self.rewards == Rewards::Apart && self.advantage == Advantage::GroupMean {
                "loss or corrected where rewards = apart".to_owned()
            } else {
                String::new()
            };
            if !allowed.is_empty() {
                return refuse("divergence_place", allowed, quoted(self.divergence_place.into()));
            }
        }
        if self.advantage == Advantage::Gae && self.aggregation == Aggregation::PromptMean {
            let allowed = "token_mean, response_mean, response_sum or fixed_length where advantage = gae".to_owned();
            return refuse("aggregation", allowed, quoted(self.aggregation.into()));
        }
        if self.trust_region == TrustRegion::Vespo
            && !matches!(
                self.correction,
                Correction::None | Correction::TruncateToken | Correction::MaskToken | Correction::Icepop
            )
        {
            let allowed = "none, truncate_token, mask_token or icepop where trust_region = vespo".to_owned();
            return refuse("correction", allowed, quoted(self.correction.into()));
        }
        let [least, most] = self.correction_bounds();
        if self.correction != Correction::None && least > most {
            return refuse("correction_max", format!("at least correction_min = {least}"), most.to_string());
        }
        if self.trust_region == TrustRegion::ClipCov && self.covariance_min > self.covariance_max {
            let allowed = format!("at least covariance_min = {}", self.covariance_min);
            return refuse("covariance_max", allowed, self.covariance_max.to_string());
        }
        if self.trust_region == TrustRegion::Cispo && self.min_ratio > self.max_ratio() {
            let allowed = format!("at most max_ratio = {}", self.max_ratio());
            return refuse("min_ratio", allowed, self.min_ratio.to_string());
        }
        Ok(())
    }
}

/// Rollouts, for `advantage = gae`, have no groups and rewards.
impl LearnsFrom for PolicyGradient {
    type Data<'a> = Groups<'a>;
}

impl Objective for PolicyGradient {
    fn requirements(&self) -> Requirements {
        let mut constants = EnumSet::empty();
        let mut statistics = EnumSet::only(Statistic::LogProb);
        if self.needs_behaviour() {
            constants |= Constant::BehaviourLogProb;
        }
        if self.correction != Correction::None {
            constants |= Constant::RolloutLogProb;
        }
        if self.beta > 0.0 {
            constants |= Constant::ReferenceLogProb;
        }
        if self.advantage.is_column() {
            constants |= Constant::Advantage;
            if self.value_coefficient > 0.0 {
                statistics |= Statistic::Value;
                constants |= Constant::Return;
                if self.value_clip.is_some() {
                    constants |= Constant::BehaviourValue;
                }
            }
        }
        if !self.advantage.is_column() {
            constants |= Constant::Reward;
        }
        if self.entropy_coefficient > 0.0 || self.entropy_share < 1.0 {
            statistics |= Statistic::Entropy;
        }
        let sampling = Sampling { samples: self.samples, epochs: self.epochs, gae_lambda: self.gae_lambda };
        Requirements {
            source: if self.advantage == Advantage::Given { Source::Given } else { Source::Sampled(sampling) },
            coupling: if self.is_coupled() { Coupling::Step } else { Coupling::None },
            statistics,
            constants,
            grouped: !self.advantage.is_column() || self.aggregation == Aggregation::PromptMean,
            rewards: (self.advantage == Advantage::Greedy).then_some(2),
            ..Requirements::new(if self.advantage == Advantage::Gae { Data::Rollouts } else { Data::Groups })
        }
    }

    fn parameters(&self) -> Parameters {
        in_force(self)
    }

    fn check(&self) -> Result<(), ParameterError> {
        presets::check(self)
    }

    fn hold(&self, batch: &TokenBatch<'_>, _: &mut ObjectiveState, held: &mut Held) {
        hold::hold(self, batch, held);
    }

    fn loss(&self, batch: &TokenBatch<'_>, held: &Held, out: &mut Evaluation) {
        loss::loss(self, batch, held, out);
    }
}
