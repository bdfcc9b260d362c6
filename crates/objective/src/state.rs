//! What an objective carries from one step to the next.

use serde::{Deserialize, Serialize};

/// What must survive a step: empty for most objectives. A run's record and a checkpoint carry it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ObjectiveState {
    /// The rewards seen so far (`bco`).
    #[serde(skip_serializing_if = "RunningMean::is_empty")]
    pub rewards: RunningMean,
    /// The states of a weighted sum's terms.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub terms: Vec<ObjectiveState>,
}

/// The mean of a stream of numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunningMean {
    /// Numbers seen.
    pub count: u64,
    /// Their mean; 0 before the first.
    pub mean: f64,
}

impl RunningMean {
    /// Whether no number has been seen.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Takes in `count` numbers of this mean.
    ///
    /// ```
    /// let mut rewards = objective::state::RunningMean::default();
    /// rewards.update(1.0, 3);
    /// rewards.update(5.0, 1);
    /// assert_eq!(rewards.mean, 2.0);
    /// ```
    pub fn update(&mut self, mean: f64, count: u64) {
        self.count += count;
        if self.count > 0 {
            self.mean += (mean - self.mean) * (count as f64 / self.count as f64);
        }
    }
}
