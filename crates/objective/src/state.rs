//! State of an objective between steps.

use serde::{Deserialize, Serialize};

/// Memory of an objective between steps, empty for most objectives. Checkpoints contain it.
///
/// Unused parts are not serialized:
///
/// ```
/// use objective::{ObjectiveState, RunningMean};
///
/// let empty = ObjectiveState::default();
/// assert_eq!(serde_json::to_string(&empty)?, "{}");
/// let state = ObjectiveState { rewards: RunningMean { count: 2, mean: 0.5 }, ..empty };
/// assert_eq!(serde_json::to_string(&state)?, r#"{"rewards":{"count":2,"mean":0.5}}"#);
/// assert_eq!(serde_json::from_str::<ObjectiveState>(r#"{"rewards":{"count":2,"mean":0.5}}"#)?, state);
/// Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ObjectiveState {
    /// Running mean of the rewards (`bco`).
    #[serde(skip_serializing_if = "RunningMean::is_empty")]
    pub rewards: RunningMean,
    /// States of a weighted sum's terms.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub terms: Vec<ObjectiveState>,
}

/// Running mean of numbers.
///
/// ```
/// use objective::RunningMean;
/// let mut rewards = RunningMean::default();
/// rewards.update(0.5, 2);
/// assert_eq!(rewards, RunningMean { count: 2, mean: 0.5 });
/// ```
///
/// Deserialization rejects a count that is not exact in 64-bit floats, and a mean beyond the range of rewards:
///
/// ```
/// use objective::RunningMean;
/// let read = |text: &str| serde_json::from_str::<RunningMean>(text).map_err(|error| error.to_string());
/// assert_eq!(read(r#"{"count": 9007199254740992, "mean": 0.5}"#), Ok(RunningMean { count: 1 << 53, mean: 0.5 }));
/// let error = read(r#"{"count": 18446744073709551615, "mean": 0.5}"#).unwrap_err();
/// assert!(error.starts_with("count: expected at most 9007199254740992, got 18446744073709551615"));
/// let error = read(r#"{"count": 2, "mean": 1e300}"#).unwrap_err();
/// assert!(error.starts_with("mean: expected -1e60 to 1e60, got 1e300"));
/// let error = read(r#"{"count": 0, "mean": 0.5}"#).unwrap_err();
/// assert!(error.starts_with("mean: expected 0 before the first number, got 0.5"));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Read")]
pub struct RunningMean {
    /// Number of observations.
    pub count: u64,
    /// Mean of the observations; 0 before the first.
    pub mean: f64,
}

/// Maximum count: beyond it, 64-bit floats skip integers.
const MOST_COUNTED: u64 = 1 << 53;

/// Maximum magnitude of a mean of rewards, which are at most a scale of 10⁶ times a sum of log-ratios.
const MOST_MEAN: f64 = 1e60;

/// The serialized form of a running mean.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    count: u64,
    mean: f64,
}

impl TryFrom<Read> for RunningMean {
    type Error = String;

    fn try_from(Read { count, mean }: Read) -> Result<Self, String> {
        if count > MOST_COUNTED {
            return Err(format!("count: expected at most {MOST_COUNTED}, got {count}"));
        }
        if !(-MOST_MEAN..=MOST_MEAN).contains(&mean) {
            return Err(format!("mean: expected -{MOST_MEAN:e} to {MOST_MEAN:e}, got {mean:e}"));
        }
        if count == 0 && mean != 0.0 {
            return Err(format!("mean: expected 0 before the first number, got {mean}"));
        }
        Ok(Self { count, mean })
    }
}

/// The mean does not depend on how the numbers are divided into parts:
///
/// ```
/// use objective::RunningMean;
/// let (mut whole, mut parts) = (RunningMean::default(), RunningMean::default());
/// whole.update(2.0, 4);
/// [3.0, 3.0, 1.0, 1.0].into_iter().for_each(|reward| parts.update(reward, 1));
/// assert_eq!(parts, whole);
/// ```
impl RunningMean {
    /// Whether there was no observation.
    ///
    /// ```
    /// use objective::RunningMean;
    /// assert!(RunningMean::default().is_empty());
    /// assert!(!RunningMean { count: 1, mean: 0.0 }.is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds `count` numbers with this mean. The count stops at 2⁵³, the last one up to which 64-bit floats represent
    /// every integer.
    ///
    /// ```
    /// let mut rewards = objective::RunningMean::default();
    /// rewards.update(1.0, 3);
    /// rewards.update(5.0, 1);
    /// assert_eq!(rewards.mean, 2.0);
    /// ```
    pub fn update(&mut self, mean: f64, count: u64) {
        self.count = self.count.saturating_add(count).min(MOST_COUNTED);
        if self.count > 0 {
            self.mean += (mean - self.mean) * (count as f64 / self.count as f64);
        }
    }
}
