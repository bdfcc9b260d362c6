//! Measurements of a run, and the files that they are appended to.

use program::Journal;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::LmError;
use crate::train::tensorboard::EventFile;

/// A line of the metrics file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Number of the stage, from 0.
    pub stage: usize,
    /// Number of steps of the stage before this one, or before the evaluation.
    pub step: u64,
    /// Whether the data were held out from training.
    pub held_out: bool,
    /// The objective's loss.
    pub loss: f64,
    /// Metrics of the objective, by the names that are customary in the field.
    #[serde(flatten)]
    pub metrics: Map<String, Value>,
    /// Norm of the gradient before clipping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradient_norm: Option<f64>,
    /// Learning rate of the step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// Number of response tokens in the loss.
    pub tokens: usize,
}

/// Files that a run appends to.
pub(super) struct Written {
    pub(super) metrics: Journal,
    pub(super) events: EventFile,
}

impl Written {
    /// Appends a line to the metrics.
    pub(super) fn append(&mut self, row: &Row) -> Result<(), LmError> {
        Ok(self.metrics.append_unsynced(&self.metrics.json(row)?)?)
    }
}
