//! Measurements of a run, and the files that they are appended to.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use program::output::open_journal;
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
    pub(super) metrics: MetricsFile,
    pub(super) events: EventFile,
}

/// A file that grows by whole lines.
pub(super) struct MetricsFile {
    path: PathBuf,
    file: File,
    pub(super) length: u64,
}

impl MetricsFile {
    /// Opens the file and truncates it to this length.
    pub(super) fn open(path: &Path, length: u64) -> Result<Self, LmError> {
        let mut file = open_journal(path)?;
        let cut = file.set_len(length).and_then(|()| file.seek(SeekFrom::End(0)));
        cut.map_err(|source| LmError::File { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), file, length })
    }

    pub(super) fn append(&mut self, row: &Row) -> Result<(), LmError> {
        let fail = |source| LmError::File { path: self.path.clone(), source };
        let line = serde_json::to_string(row).map_err(|error| fail(error.into()))? + "\n";
        self.file.write_all(line.as_bytes()).map_err(fail)?;
        self.length += line.len() as u64;
        Ok(())
    }

    pub(super) fn sync(&self) -> Result<(), LmError> {
        self.file.sync_data().map_err(|source| LmError::File { path: self.path.clone(), source })
    }
}
