//! Learning rates over a run.

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantNames};

/// Course of the learning rate after its warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, EnumString, IntoStaticStr, VariantNames)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Shape {
    /// A constant factor of 1.
    Constant,
    /// Half a cosine wave from 1 to 0.
    Cosine,
    /// A linear decrease from 1 to 0.
    Linear,
}

/// A schedule of the learning rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Course of the factor after the warm-up.
    pub shape: Shape,
    /// Fraction of the run's steps, in [0, 1], over which the factor rises from 0 to 1.
    pub warmup_ratio: f64,
}

impl Schedule {
    /// Factor of the learning rate at step k of K, k from 0.
    ///
    /// # Formula
    ///
    /// With W = ⌈warmup_ratio · K⌉: k/W for k < W, so that the first step of a warm-up changes nothing; then 1, or (1 +
    /// cos(π (k − W)/(K − W)))/2, or (K − k)/(K − W), as in the schedules of Hugging Face `transformers`.
    pub fn factor(&self, step: usize, steps: usize) -> f64 {
        let rise = self.warmup(step, steps);
        if rise < 1.0 {
            return rise;
        }
        let warmup = self.warmup_steps(steps);
        let (step, steps) = (step as f64, steps as f64);
        let decay = (steps - warmup).max(1.0);
        match self.shape {
            Shape::Constant => 1.0,
            Shape::Cosine => (0.5 * (1.0 + (std::f64::consts::PI * (step - warmup) / decay).cos())).max(0.0),
            Shape::Linear => ((steps - step) / decay).max(0.0),
        }
    }

    /// Completed fraction of the warm-up at step k of K, in [0, 1]; 1 without a warm-up.
    pub fn warmup(&self, step: usize, steps: usize) -> f64 {
        let warmup = self.warmup_steps(steps);
        if (step as f64) < warmup { step as f64 / warmup } else { 1.0 }
    }

    fn warmup_steps(&self, steps: usize) -> f64 {
        (self.warmup_ratio * steps as f64).ceil()
    }
}
