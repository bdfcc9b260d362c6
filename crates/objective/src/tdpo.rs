//! Token-level DPO: DPO with the forward divergences of both responses in its margin.
//!
//! # Formula
//!
//! With h = r_w − r_l the difference of log-ratios, K = Σₜ KL(π_ref || π) at sₜ, nats, summed over a response, and sg the
//! stop-gradient, mean over the step's pairs:
//!
//! - variant 1: L = −log σ(β h − β (K_l − K_w))
//! - variant 2: L = −log σ(β h − α β (K_l − sg(K_w)))
//!
//! Cotangents, with g = −σ(−z) and z the argument: ±β g on log π; −α β g on KL of the rejected response, and on that of the
//! chosen one β g in variant 1 and 0 in variant 2, which is the stop-gradient.
//!
//! # Source
//!
//! Y. Zeng et al., "Token-level Direct Preference Optimization", arXiv 2404.11999, equations 16 to 18.
//!
//! # Departures
//!
//! None. Variant 1 has no α: setting it is an error.
//!
//! # Examples
//!
//! One token each, β = 1, α = ½, variant 2, at the reference but for KL: K_w = 0, K_l = 2: z = −1, L = log(1 + e) = 1.313262,
//! g = −0.731059; the rejected token's KL gets 0.365529.
//!
//! ```
//! # use objective::*;
//! # let responses = [Response::new(0..1), Response::new(1..2)];
//! # let pairs = [Pair { chosen: 0, rejected: 1 }];
//! # let statistics = TokenStatistics { log_prob: vec![-1.0, -2.0], reference_kl: vec![0.0, 2.0], ..Default::default() };
//! # let constants = TokenConstants { reference_log_prob: vec![-1.0, -2.0], ..Default::default() };
//! # let totals = StepTotals::of(&responses, &pairs);
//! # let tdpo = tdpo::Tdpo::new(1.0, tdpo::Variant::Second { alpha: 0.5 })?;
//! # let batch = TokenBatch::new(&tdpo.requirements(), &statistics, &constants, &responses, &pairs, totals)?;
//! # let mut evaluation = Evaluation::default();
//! tdpo.evaluate(&batch, &mut ObjectiveState::default(), &mut evaluation);
//! assert!((evaluation.loss - 1.313262).abs() < 1e-6);
//! assert_eq!(evaluation.cotangents.reference_kl[0], 0.0);
//! assert!((evaluation.cotangents.reference_kl[1] - 0.365529).abs() < 1e-6);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use strum::{EnumDiscriminants, EnumString, IntoStaticStr, VariantNames};

use crate::Objective;
use crate::batch::{Pair, TokenBatch};
use crate::evaluation::{Evaluation, Metric, add};
use crate::held::Held;
use crate::method::Method;
use crate::numerics::{sigmoid, softplus, sum};
use crate::parameter::{Kind, Parameter, ParameterError, Parameters, Reader, UNIT};
use crate::preference::{BETA, record_pair};
use crate::requirements::{Constant, Data, Requirements, Statistic};
use crate::state::ObjectiveState;

/// The registry's line.
pub const METHOD: Method = Method {
    name: "tdpo",
    summary: "DPO with the forward divergences of both responses in its margin",
    source: "arXiv 2404.11999, equations 16 to 18",
    parameters: &[BETA, ALPHA, VARIANT],
    build,
};

/// α.
pub const ALPHA: Parameter = Parameter {
    name: "alpha",
    kind: Kind::Number { default: 0.5, range: UNIT },
    purpose: "weight of the divergences in the margin, in variant 2",
};

/// Which of the paper's two.
pub const VARIANT: Parameter = Parameter {
    name: "variant",
    kind: Kind::Choice { default: "2", options: VariantName::VARIANTS },
    purpose: "1: alpha is 1 and both divergences learn; 2: that of the chosen response does not",
};

/// Which of the paper's two.
///
/// The first has no α:
///
/// ```
/// let given = [("variant".to_owned(), 1.0.into()), ("alpha".to_owned(), 0.5.into())].into();
/// let error = objective::registry::build("tdpo", &given).unwrap_err();
/// assert_eq!(error.to_string(), "tdpo.alpha: not used where variant = 1, so it must not be set (got 0.5)");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, EnumDiscriminants)]
#[strum_discriminants(name(VariantName), derive(EnumString, IntoStaticStr, VariantNames))]
#[strum_discriminants(doc = "The names of [`Variant`].")]
pub enum Variant {
    /// TDPO₁.
    #[strum_discriminants(strum(serialize = "1"))]
    First,
    /// TDPO₂.
    #[strum_discriminants(strum(serialize = "2"))]
    Second {
        /// Weight of the divergences.
        alpha: f64,
    },
}

/// Token-level DPO.
///
/// In the first variant the divergence of the chosen response learns too, here with β g = −σ(2) = −0.880797:
///
/// ```
/// # use objective::tdpo::{Tdpo, Variant};
/// # use objective::*;
/// # let (responses, pairs) = ([Response::new(0..1), Response::new(1..2)], [Pair { chosen: 0, rejected: 1 }]);
/// let statistics = TokenStatistics { log_prob: vec![-1.0, -2.0], reference_kl: vec![0.0, 2.0], ..Default::default() };
/// # let constants = TokenConstants { reference_log_prob: vec![-1.0, -2.0], ..Default::default() };
/// # let totals = StepTotals::of(&responses, &pairs);
/// let tdpo = Tdpo::new(1.0, Variant::First)?;
/// # let batch = TokenBatch::new(&tdpo.requirements(), &statistics, &constants, &responses, &pairs, totals)?;
/// # let mut evaluation = Evaluation::default();
/// tdpo.evaluate(&batch, &mut ObjectiveState::default(), &mut evaluation);
/// let [chosen, rejected] = evaluation.cotangents.reference_kl[..] else { panic!("one a token") };
/// assert!((chosen + 0.880797).abs() < 1e-6 && (rejected - 0.880797).abs() < 1e-6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tdpo {
    beta: f64,
    variant: Variant,
}

/// It differentiates a divergence from the reference, which the host must supply beside the log-probabilities:
///
/// ```
/// # use objective::tdpo::{Tdpo, Variant};
/// # use objective::{Objective, Statistic};
/// let requirements = Tdpo::new(0.1, Variant::First)?.requirements();
/// assert_eq!(requirements.statistics, Statistic::LogProb | Statistic::ReferenceKl);
/// # Ok::<(), objective::ParameterError>(())
/// ```
impl Tdpo {
    /// TDPO with β, per nat, in one of its variants.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] for a value out of its range.
    ///
    /// # Examples
    ///
    /// ```
    /// use objective::tdpo::{Tdpo, Variant};
    ///
    /// let error = Tdpo::new(0.1, Variant::Second { alpha: 2.0 }).unwrap_err();
    /// assert_eq!(error.to_string(), "tdpo.alpha: expected a number, 0 <= alpha <= 1, got 2");
    /// ```
    pub fn new(beta: f64, variant: Variant) -> Result<Self, ParameterError> {
        if let Variant::Second { alpha } = variant {
            ALPHA.check(METHOD.name, alpha)?;
        }
        Ok(Self { beta: BETA.check(METHOD.name, beta)?, variant })
    }
}

fn build(given: &Parameters) -> Result<Box<dyn Objective>, ParameterError> {
    let reader = Reader::new(METHOD.name, METHOD.parameters, given)?;
    let variant = match reader.choice(&VARIANT)? {
        VariantName::First => {
            reader.refuse(&ALPHA, "variant = 1")?;
            Variant::First
        }
        VariantName::Second => Variant::Second { alpha: reader.number(&ALPHA)? },
    };
    Ok(Box::new(Tdpo::new(reader.number(&BETA)?, variant)?))
}

impl Objective for Tdpo {
    fn requirements(&self) -> Requirements {
        Requirements {
            statistics: Statistic::LogProb | Statistic::ReferenceKl,
            constants: Constant::ReferenceLogProb.into(),
            ..Requirements::new(Data::Preferences)
        }
    }

    fn parameters(&self) -> Parameters {
        let variant: &str = VariantName::from(self.variant).into();
        let mut parameters =
            Parameters::from([(BETA.name.to_owned(), self.beta.into()), (VARIANT.name.to_owned(), variant.into())]);
        if let Variant::Second { alpha } = self.variant {
            parameters.insert(ALPHA.name.to_owned(), alpha.into());
        }
        parameters
    }

    fn hold(&self, batch: &TokenBatch<'_>, _: &mut ObjectiveState, held: &mut Held) {
        if let Variant::Second { .. } = self.variant {
            held.responses.extend(batch.pairs().iter().map(|pair| sum(batch.reference_kl(pair.chosen))));
        }
    }

    fn loss(&self, batch: &TokenBatch<'_>, held: &Held, out: &mut Evaluation) {
        let scale = 1.0 / batch.totals().pairs as f64;
        // The weight of the divergences, and the share of it through which the chosen one learns.
        let (alpha, learns) = match self.variant {
            Variant::First => (1.0, 1.0),
            Variant::Second { alpha } => (alpha, 0.0),
        };
        for (index, &Pair { chosen, rejected }) in batch.pairs().iter().enumerate() {
            let [reward_chosen, reward_rejected] =
                [chosen, rejected].map(|response| self.beta * batch.log_ratio(response));
            let kl_rejected = sum(batch.reference_kl(rejected));
            let kl_chosen = held.responses.get(index).map_or_else(|| sum(batch.reference_kl(chosen)), |held| *held);
            let margin = reward_chosen - reward_rejected - alpha * self.beta * (kl_rejected - kl_chosen);
            out.loss += scale * softplus(-margin);

            let slope = -scale * self.beta * sigmoid(-margin);
            for (response, log_prob, kl) in
                [(chosen, slope, learns * alpha * slope), (rejected, -slope, -alpha * slope)]
            {
                let tokens = batch.responses()[response].tokens.clone();
                add(&mut out.cotangents.log_prob[tokens.clone()], log_prob);
                add(&mut out.cotangents.reference_kl[tokens], kl);
            }
            let log_prob = [chosen, rejected].map(|response| sum(batch.log_prob(response)));
            let tokens = batch.log_prob(chosen).len();
            record_pair(log_prob, [reward_chosen, reward_rejected], tokens, &mut out.metrics);
            out.metrics.record(Metric::ZeroGradientPairs, f64::from(slope == 0.0));
        }
    }
}
