//! Results of a study as typed rows: `analysis` defines the numbers, `summary` formats them.

use std::collections::BTreeMap;

use program::statistics::NORMAL;
use serde::{Deserialize, Deserializer, Serialize};

use super::{Question, Study};

/// Results of a study.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudyReport {
    /// Version of the program that trained.
    pub version: String,
    /// The study that was run.
    pub study: Study,
    /// Amount of training: numbers of designs, runs and readings.
    pub scale: Scale,
    /// Number of diverged runs, by method.
    pub diverged: BTreeMap<String, usize>,
    /// Results on the claimed order.
    pub order: OrderReport,
    /// All pairs of the claimed order's methods, in that order.
    pub pairs: Vec<PairReport>,
    /// Answers to the study's claims.
    pub questions: Vec<Answer>,
}

/// Amount of training: numbers of designs, runs and readings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scale {
    /// Number of designs.
    pub designs: usize,
    /// Number of runs, over designs, methods and seeds.
    pub runs: usize,
    /// Number of readings of each method.
    pub readings: usize,
}

/// A share of readings, with its 95% interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Number of designs.
    pub designs: usize,
    /// Share of the readings.
    pub share: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

/// A mean over designs, and the half-width of its 95% interval; none for a single design.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The mean over designs; NaN if no design has a value, which JSON writes as null.
    #[serde(deserialize_with = "number_or_null")]
    pub mean: f64,
    /// Half-width of the interval.
    pub ci95: Option<f64>,
}

/// Frequency with which an order holds, and the factors that it depends on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrderReport {
    /// Labels of the methods, smallest distance first.
    pub order: Vec<String>,
    /// Share of the readings in which the order of the mean distances holds.
    pub holds: Share,
    /// Share of the readings in which each neighbouring pair of the order differs significantly.
    pub significant: Share,
    /// Effects of the factors on whether the order holds, the strongest first.
    pub effects: Vec<Effect>,
    /// Region of the space in which the order holds most often.
    pub region: Region,
    /// Readings in which the order holds most clearly.
    pub examples: Vec<Example>,
}

/// Frequency with which one method ends closer than another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairReport {
    /// Method that is claimed to end closer.
    pub closer: String,
    /// Method that is claimed to end further away.
    pub further: String,
    /// Share of the readings in which the mean distance of `closer` is the smaller one.
    pub holds: Share,
    /// Share of the readings in which `closer` ends significantly closer.
    pub significant: Share,
    /// Share of the readings in which `closer` ends significantly further away.
    pub reversed: Share,
    /// Distance of the method that is claimed to be further, minus that of the other.
    pub difference: Estimate,
    /// Effects of the factors on whether the order holds, the strongest first.
    pub effects: Vec<Effect>,
}

impl Effect {
    /// The 95% interval of η², from the intervals of its levels' shares.
    ///
    /// With the weight wₗ and the share pₗ of each level, p = Σ wₗ pₗ, and η² = Σ wₗ (pₗ − p)² / (p (1 − p)), the delta
    /// method gives Var η² = Σ (∂η²/∂pₗ)² Var pₗ, where ∂η²/∂pₗ = wₗ (2 (pₗ − p) − η² (1 − 2p)) / (p (1 − p)).
    pub fn interval(&self) -> (f64, f64) {
        let designs: usize = self.levels.iter().map(|level| level.holds.designs).sum();
        let weight = |level: &LevelEffect| level.holds.designs as f64 / designs as f64;
        let mean: f64 = self.levels.iter().map(|level| weight(level) * level.holds.share).sum();
        let total = mean * (1.0 - mean);
        if designs == 0 || total <= 0.0 {
            return (0.0, 1.0);
        }
        let variance = |level: &LevelEffect| {
            let slope = 2.0 * (level.holds.share - mean) - self.explained * (1.0 - 2.0 * mean);
            let error = (level.holds.high - level.holds.low) / (2.0 * NORMAL);
            (weight(level) * slope / total * error).powi(2)
        };
        let half = NORMAL * self.levels.iter().map(variance).sum::<f64>().sqrt();
        ((self.explained - half).max(0.0), (self.explained + half).min(1.0))
    }
}

/// Effect of a factor on whether an order holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// Name of the factor.
    pub factor: String,
    /// Effect size η²: the share of the variance that the factor's levels explain.
    pub explained: f64,
    /// Effect of each level.
    pub levels: Vec<LevelEffect>,
}

/// Effect of one level of a factor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LevelEffect {
    /// Name of the level.
    pub level: String,
    /// Share of the readings in which the order holds at this level.
    pub holds: Share,
    /// Share of the readings in which the order holds significantly at this level.
    pub significant: Share,
    /// Distance of the last method minus that of the first, at this level.
    pub difference: Estimate,
}

/// Levels at which an order holds most often. They are added one by one, each the level that raises the share most in
/// the designs of even number; the shares are confirmed on those of odd number, which are not used for the choice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Region {
    /// Factors and their levels.
    pub levels: Vec<(String, String)>,
    /// Share among the designs on which the region was found.
    pub found: Share,
    /// Share among the designs that were not used to find the region.
    pub confirmed: Share,
    /// Share of the readings, among the designs that were not used to find the region, in which each neighbouring pair
    /// of the order differs significantly.
    pub confirmed_significant: Share,
}

/// A reading in which the order holds clearly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// Number of the design.
    pub design: usize,
    /// Name of the stop.
    pub stop: String,
    /// Name of the distance.
    pub distance: String,
    /// Minimum, over the neighbouring pairs of the order, of the difference divided by the half-width of its interval.
    /// Above 1, all differences are significant.
    pub clarity: f64,
}

/// An answer to a question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Claim that is answered.
    pub question: Question,
    /// Answers by the levels of the claim's factor, or over all.
    pub levels: Vec<LevelAnswer>,
    /// Readings in which the order holds most clearly.
    pub examples: Vec<Example>,
}

/// An answer at a level.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LevelAnswer {
    /// Level of the factor; `None` if the claim names no factor.
    pub level: Option<String>,
    /// Share of the readings in which the order holds.
    pub holds: Share,
    /// Share of the readings in which each neighbouring pair of the order differs significantly.
    pub significant: Share,
    /// Share of the readings in which the reverse of the order holds significantly.
    pub reversed: Share,
    /// Distance of the last method minus that of the first.
    pub difference: Estimate,
    /// That difference divided by the greater of the two distances: minimum and maximum over the readings.
    #[serde(deserialize_with = "numbers_or_null")]
    pub relative: (f64, f64),
    /// Median of the ratio of the first method's standard deviation over seeds to the last method's.
    #[serde(deserialize_with = "number_or_null")]
    pub spread: f64,
}

fn number_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

fn numbers_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(f64, f64), D::Error> {
    let (one, other) = <(Option<f64>, Option<f64>)>::deserialize(deserializer)?;
    Ok((one.unwrap_or(f64::NAN), other.unwrap_or(f64::NAN)))
}

#[cfg(test)]
mod tests {
    use rand::Rng;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    /// Computes the effect of a factor from two numbers for each level: the designs in which the order holds, and all
    /// designs.
    fn effect(counts: &[(usize, usize)]) -> Effect {
        let designs: usize = counts.iter().map(|(_, of)| of).sum();
        let mean = counts.iter().map(|(holding, _)| holding).sum::<usize>() as f64 / designs as f64;
        let levels: Vec<_> = counts
            .iter()
            .map(|&(holding, of)| {
                let share = holding as f64 / of as f64;
                let half = NORMAL * (share * (1.0 - share) / of as f64).sqrt();
                let holds = Share { designs: of, share, low: share - half, high: share + half };
                let difference = Estimate { mean: 0.0, ci95: None };
                LevelEffect { level: String::new(), holds, significant: holds, difference }
            })
            .collect();
        let between = levels.iter().map(|level| level.holds.designs as f64 * (level.holds.share - mean).powi(2));
        let explained = between.sum::<f64>() / designs as f64 / (mean * (1.0 - mean));
        Effect { factor: String::new(), explained, levels }
    }

    #[test]
    fn the_interval_of_an_effect_covers_its_true_value_in_95_of_100_studies() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for shares in [[0.2, 0.5, 0.6], [0.5, 0.55, 0.45], [0.05, 0.1, 0.3]] {
            let mean = shares.iter().sum::<f64>() / 3.0;
            let exact = shares.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / 3.0 / (mean * (1.0 - mean));
            let covers = (0..1000).filter(|_| {
                let mut draw = |share: f64| (0..800).filter(|_| rng.random::<f64>() < share).count();
                let (low, high) = effect(&shares.map(|share| (draw(share), 800))).interval();
                (low..=high).contains(&exact)
            });
            // 950 ± 7 of 1000, and a little less for a value near 0, where the estimate is biased.
            let covers = covers.count();
            assert!((920..=975).contains(&covers), "{shares:?}: {covers}");
        }
    }

    #[test]
    fn a_factor_without_effect_has_an_interval_from_0() {
        assert_eq!(effect(&[(200, 400), (201, 400)]).interval().0, 0.0);
    }
}
