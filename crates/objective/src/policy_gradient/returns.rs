//! Returns and advantages of sampled responses.

/// Appends generalised advantage estimates and the returns that the value function is fitted to, one per token.
///
/// # Formula
///
/// With rₜ the reward on yₜ, Vₜ the value of sₜ, V after the last token the `bootstrap` (0 where the episode ended, the
/// value of the state where it was cut off), δₜ = rₜ + γ Vₜ₊₁ − Vₜ:
///
/// Aₜ = δₜ + γ λ Aₜ₊₁, Rₜ = Aₜ + Vₜ
///
/// # Source
///
/// J. Schulman et al., "High-Dimensional Continuous Control Using Generalized Advantage Estimation", arXiv 1506.02438,
/// equation 16.
///
/// # Examples
///
/// λ = 1 is the discounted return less the value, λ = 0 the one-step difference δ:
///
/// ```
/// let (mut advantages, mut returns) = (Vec::new(), Vec::new());
/// let (rewards, values) = ([0.0, 1.0], [0.25, 0.5]);
/// objective::generalised_advantages(&rewards, &values, 0.0, 0.5, 1.0, &mut advantages, &mut returns);
/// assert_eq!(advantages, [0.25, 0.5]);
/// assert_eq!(returns, [0.5, 1.0]);
/// ```
///
/// # Panics
///
/// Never: of rewards and values of different lengths, the shorter counts.
pub fn generalised_advantages(
    rewards: &[f64],
    values: &[f64],
    bootstrap: f64,
    discount: f64,
    lambda: f64,
    advantages: &mut Vec<f64>,
    returns: &mut Vec<f64>,
) {
    let begin = advantages.len();
    let (mut next_value, mut next_advantage) = (bootstrap, 0.0);
    for (reward, value) in rewards.iter().zip(values).rev() {
        next_advantage = reward + discount * next_value - value + discount * lambda * next_advantage;
        next_value = *value;
        advantages.push(next_advantage);
    }
    advantages[begin..].reverse();
    returns.extend(advantages[begin..].iter().zip(values).map(|(advantage, value)| advantage + value));
}

/// Shifts and scales advantages to mean 0 and standard deviation 1 (divided by their number). Equal ones become 0.
///
/// ```
/// let mut advantages = [1.0, 3.0];
/// objective::normalise(&mut advantages);
/// assert!((advantages[0] + 1.0).abs() < 1e-7 && (advantages[1] - 1.0).abs() < 1e-7);
///
/// let mut equal = [0.1; 3]; // whose mean is not 0.1 to the last bit
/// objective::normalise(&mut equal);
/// assert_eq!(equal, [0.0; 3]);
/// ```
pub fn normalise(advantages: &mut [f64]) {
    /// Offset that keeps rounding errors of nearly equal advantages from being magnified.
    const OFFSET: f64 = 1e-8;
    let count = advantages.len() as f64;
    let mean = advantages.iter().sum::<f64>() / count;
    if advantages.iter().all(|advantage| *advantage == advantages[0]) {
        advantages.fill(0.0);
        return;
    }
    let deviation = (advantages.iter().map(|advantage| (advantage - mean).powi(2)).sum::<f64>() / count).sqrt();
    advantages.iter_mut().for_each(|advantage| *advantage = (*advantage - mean) / (deviation + OFFSET));
}
