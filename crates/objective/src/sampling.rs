//! Sampling of responses from the policy, for objectives that learn from them.

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
    /// Number of responses per prompt.
    pub samples: usize,
    /// Number of optimizer steps on the same responses.
    pub epochs: usize,
    /// λ of generalised advantage estimation, if the objective needs advantages.
    pub gae_lambda: f64,
}
