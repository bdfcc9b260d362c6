//! How an objective that learns from the policy's own responses samples them.

/// How responses are sampled from the policy in training.
///
/// ```
/// use objective::{Objective, PolicyGradient, Source};
///
/// let ppo = PolicyGradient { samples: 32, ..PolicyGradient::ppo() };
/// let Source::Sampled(sampling) = ppo.requirements().source else { unreachable!("it samples") };
/// assert_eq!((sampling.samples, sampling.epochs, sampling.gae_lambda), (32, 4, 0.95));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Responses for each prompt.
    pub samples: usize,
    /// Optimizer steps on the same responses.
    pub epochs: usize,
    /// λ of generalised advantage estimation, where advantages are asked for.
    pub gae_lambda: f64,
}
