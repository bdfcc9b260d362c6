//! What a run measures, and the files that it appends that to.

use program::Journal;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::LmError;
use crate::train::tensorboard::EventFile;

/// A line of the metrics.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The stage, from 0.
    pub stage: usize,
    /// Steps that the stage had made before this one, or before the evaluation.
    pub step: u64,
    /// Whether the data were those that are not learnt.
    pub held_out: bool,
    /// The objective's loss.
    pub loss: f64,
    /// What the field logs beside it, by its names.
    #[serde(flatten)]
    pub metrics: Map<String, Value>,
    /// Of the gradient, before clipping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradient_norm: Option<f64>,
    /// Of the step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// Response tokens that the loss is over.
    pub tokens: usize,
}

/// What a run appends to.
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
