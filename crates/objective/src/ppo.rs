//! Proximal policy optimisation: clipped policy gradients on estimated advantages, beside a value function.
//!
//! # Formula
//!
//! With x = log π − log π_behaviour of a token, A its advantage and ℓ the [clipped surrogate](crate::clip) at x, V the value,
//! R its return (see [`returns`](crate::returns)), H the policy's entropy, mean over the step's tokens:
//!
//! L = ℓ + c_V max((V − R)², (V̂ − R)²)/2 − c_H H
//!
//! V̂ = V_behaviour + clip(V − V_behaviour, ±v) with `value_clip` = v, otherwise V. Cotangents: ∂ℓ/∂x on log π, c_V (V − R) on V
//! where the maximum moves with it, −c_H on H, each divided by the step's tokens.
//!
//! # Source
//!
//! J. Schulman et al., "Proximal Policy Optimization Algorithms", arXiv 1707.06347, equations 7 and 9.
//!
//! # Departures
//!
//! Advantages and returns are constants that the host prepares once a sample, normalised over the step. With `value_coefficient`
//! = 0 no value function is asked for, and advantages are λ-returns. TRL's value clip is on (0.2) by default, and its entropy is
//! not part of the loss.
//!
//! # Examples
//!
//! One token, on policy, A = 1, V = 0, R = 1, H = 1, c_V = 1, c_H = 0.01: L = −1 + ½ − 0.01.
//!
//! ```
//! # use objective::*;
//! # let responses = [Response::new(0..1)];
//! # let statistics = TokenStatistics { log_prob: vec![-1.0], value: vec![0.0], entropy: vec![1.0], ..Default::default() };
//! # let constants = TokenConstants {
//! #     behaviour_log_prob: vec![-1.0], advantage: vec![1.0], returns: vec![1.0], ..Default::default() };
//! # let totals = StepTotals::of(&responses, &[]);
//! let ppo = registry::build("ppo", &Parameters::new())?;
//! # let batch = TokenBatch::new(&ppo.requirements(), &statistics, &constants, &responses, &[], totals)?;
//! # let mut evaluation = Evaluation::default();
//! ppo.evaluate(&batch, &mut ObjectiveState::default(), &mut evaluation);
//! assert!((evaluation.loss + 0.51).abs() < 1e-15);
//! assert_eq!(evaluation.cotangents.log_prob, [-1.0]);
//! assert_eq!(evaluation.cotangents.value, [-1.0]);
//! assert_eq!(evaluation.cotangents.entropy, [-0.01]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::Objective;
use crate::batch::TokenBatch;
use crate::clip::{CLIP, Clip};
use crate::evaluation::{Evaluation, Metric};
use crate::group::Clipped;
use crate::held::Held;
use crate::method::Method;
use crate::numerics::sum;
use crate::parameter::{Kind, NON_NEGATIVE, POSITIVE, Parameter, ParameterError, Parameters, Reader};
use crate::requirements::{Constant, Data, Requirements, Source, Statistic};
use crate::sampling::{GAE_LAMBDA, Sampling, epochs, samples};

/// The registry's line.
pub const METHOD: Method = Method {
    name: "ppo",
    summary: "clipped policy gradients on estimated advantages, beside a value function",
    source: "arXiv 1707.06347, equations 7 and 9",
    parameters: || {
        vec![
            CLIP,
            VALUE_COEFFICIENT,
            VALUE_CLIP,
            ENTROPY_COEFFICIENT,
            GAE_LAMBDA,
            Parameter { name: "episodes", ..samples(16) },
            epochs(4),
        ]
    },
    build,
};

/// c_V.
pub const VALUE_COEFFICIENT: Parameter = Parameter {
    name: "value_coefficient",
    kind: Kind::Number { default: 1.0, range: NON_NEGATIVE },
    purpose: "weight of the value function's squared error; 0 does without a value function",
};

/// v.
pub const VALUE_CLIP: Parameter = Parameter {
    name: "value_clip",
    kind: Kind::Derived { default: "off", range: POSITIVE },
    purpose: "how far the value may move from where it was when the response was sampled",
};

/// c_H.
pub const ENTROPY_COEFFICIENT: Parameter = Parameter {
    name: "entropy_coefficient",
    kind: Kind::Number { default: 0.01, range: NON_NEGATIVE },
    purpose: "weight of the policy's entropy, per nat",
};

/// Proximal policy optimisation.
///
/// Without a weight of the value function none is asked for, and clipping it is an error:
///
/// ```
/// use objective::{Constant, Statistic, registry};
///
/// let without = [("value_coefficient".to_owned(), 0.0.into())];
/// let requirements = registry::build("ppo", &without.clone().into())?.requirements();
/// assert_eq!(requirements.statistics, Statistic::LogProb | Statistic::Entropy);
/// assert_eq!(requirements.constants, Constant::BehaviourLogProb | Constant::Advantage);
///
/// let given = without.into_iter().chain([("value_clip".to_owned(), 0.2.into())]).collect();
/// assert_eq!(
///     registry::build("ppo", &given).unwrap_err().to_string(),
///     "ppo.value_clip: not used where value_coefficient = 0, so it must not be set (got 0.2)"
/// );
/// # Ok::<(), objective::RegistryError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ppo {
    clip: Clip,
    value_coefficient: f64,
    value_clip: Option<f64>,
    entropy_coefficient: f64,
    sampling: Sampling,
}

fn build(given: &Parameters) -> Result<Box<dyn Objective>, ParameterError> {
    let reader = Reader::new(METHOD.name, &(METHOD.parameters)(), given)?;
    let value_coefficient = reader.number(&VALUE_COEFFICIENT)?;
    if value_coefficient == 0.0 {
        reader.refuse(&VALUE_CLIP, "value_coefficient = 0")?;
    }
    Ok(Box::new(Ppo {
        clip: Clip::read(METHOD.name, &(METHOD.parameters)(), &reader)?,
        value_coefficient,
        value_clip: reader.derived(&VALUE_CLIP)?,
        entropy_coefficient: reader.number(&ENTROPY_COEFFICIENT)?,
        sampling: Sampling::read(&(METHOD.parameters)(), &reader)?,
    }))
}

impl Objective for Ppo {
    fn requirements(&self) -> Requirements {
        let mut requirements = Requirements {
            source: Source::Sampled(self.sampling),
            constants: Constant::BehaviourLogProb | Constant::Advantage,
            ..Requirements::new(Data::Rollouts)
        };
        if self.value_coefficient > 0.0 {
            requirements.statistics |= Statistic::Value;
            requirements.constants |= Constant::Return;
        }
        if self.value_clip.is_some() {
            requirements.constants |= Constant::BehaviourValue;
        }
        if self.entropy_coefficient > 0.0 {
            requirements.statistics |= Statistic::Entropy;
        }
        requirements
    }

    fn parameters(&self) -> Parameters {
        let mut parameters = self.clip.parameters(&(METHOD.parameters)());
        parameters.insert(VALUE_COEFFICIENT.name.to_owned(), self.value_coefficient.into());
        parameters.extend(self.value_clip.map(|clip| (VALUE_CLIP.name.to_owned(), clip.into())));
        parameters.insert(ENTROPY_COEFFICIENT.name.to_owned(), self.entropy_coefficient.into());
        parameters.extend(self.sampling.parameters(&(METHOD.parameters)()));
        parameters
    }

    fn loss(&self, batch: &TokenBatch<'_>, _: &Held, out: &mut Evaluation) {
        let share = 1.0 / batch.totals().tokens as f64;
        let (statistics, constants) = (batch.statistics(), batch.constants());
        let columns = statistics.log_prob.iter().zip(&constants.behaviour_log_prob).zip(&constants.advantage);
        let mut clipped = Clipped::default();
        for (((log_prob, behaviour), &advantage), slot) in columns.zip(&mut out.cotangents.log_prob) {
            let surrogate = self.clip.surrogate(log_prob - behaviour, advantage);
            out.loss += share * surrogate.loss;
            *slot = share * surrogate.slope;
            clipped.count(surrogate.clipped);
        }
        let tokens = statistics.log_prob.len();
        clipped.record(tokens, &mut out.metrics);

        if self.value_coefficient > 0.0 {
            let scale = share * self.value_coefficient;
            let mut total = 0.0;
            for (token, slot) in out.cotangents.value.iter_mut().enumerate() {
                let behaviour = self.value_clip.map(|clip| (constants.behaviour_value[token], clip));
                let (loss, slope) = value_loss(statistics.value[token], constants.returns[token], behaviour);
                total += loss;
                *slot = scale * slope;
            }
            out.loss += scale * total;
            out.metrics.record_sum(Metric::ValueLoss, total, tokens);
        }
        if self.entropy_coefficient > 0.0 {
            let entropy = sum(&statistics.entropy);
            out.loss -= share * self.entropy_coefficient * entropy;
            out.cotangents.entropy.fill(-share * self.entropy_coefficient);
            out.metrics.record_sum(Metric::Entropy, entropy, tokens);
        }
    }
}

/// max((V − R)², (V̂ − R)²)/2 and its derivative by V.
fn value_loss(value: f64, returned: f64, behaviour: Option<(f64, f64)>) -> (f64, f64) {
    let error = value - returned;
    if let Some((behaviour, clip)) = behaviour {
        let moved = value - behaviour;
        let held = behaviour + moved.clamp(-clip, clip);
        // The clip's own bounds decide: within them V̂ is V, whatever rounding makes of V_behaviour + (V −
        // V_behaviour). Beyond them V̂ lies between V_behaviour and V, and is the further from R where R lies on V's
        // side of the middle.
        let further = if moved > clip { error + (held - returned) < 0.0 } else { error + (held - returned) > 0.0 };
        if moved.abs() > clip && further {
            return ((held - returned).powi(2) / 2.0, 0.0);
        }
    }
    (error * error / 2.0, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inside_the_clip_the_value_has_its_gradient_whatever_rounding_does() {
        // V − V_behaviour = 0.15 is within 0.2; V_behaviour + 0.15 rounds to more than V.
        assert_eq!(value_loss(0.05, 0.0, Some((-0.1, 0.2))), (0.05 * 0.05 / 2.0, 0.05));
        for step in 0..4000 {
            let value = f64::from(step) * 1e-4 - 0.2;
            for behaviour in [-0.1, 0.0, 0.3, 1e-3, 1.0 / 3.0] {
                for returned in [-1.0, 0.0, 0.1, 1.0] {
                    if (value - behaviour).abs() <= 0.2 {
                        let error = value - returned;
                        let expected = (error * error / 2.0, error);
                        assert_eq!(value_loss(value, returned, Some((behaviour, 0.2))), expected);
                    }
                }
            }
        }
    }

    #[test]
    fn outside_the_clip_the_greater_error_counts_and_only_the_values_own_has_a_gradient() {
        // V = 1, V̂ = 0.2: a return beyond V is further from V̂, one below V̂ further from V.
        assert_eq!(value_loss(1.0, 2.0, Some((0.0, 0.2))), (1.8 * 1.8 / 2.0, 0.0));
        assert_eq!(value_loss(1.0, -1.0, Some((0.0, 0.2))), (2.0, 2.0));
        assert_eq!(value_loss(-1.0, -2.0, Some((0.0, 0.2))), (1.8 * 1.8 / 2.0, 0.0));
        assert_eq!(value_loss(-1.0, 1.0, Some((0.0, 0.2))), (2.0, -2.0));
        // Just beyond the clip, with a return on the other side: V̂ may round to V or past it, and the gradient is V's.
        for behaviour in [-0.1, 0.1, 0.3, 0.7] {
            let value = f64::next_up(behaviour + 0.2);
            assert_eq!(value_loss(value, -1.0, Some((behaviour, 0.2))).1, value + 1.0);
        }
    }
}
