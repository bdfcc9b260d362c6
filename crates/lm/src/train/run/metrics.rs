//! What a run measures, and the files that it appends that to.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use program::output::open_journal;
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
    pub(super) metrics: MetricsFile,
    pub(super) events: EventFile,
}

/// A file that grows a line at a time.
pub(super) struct MetricsFile {
    path: PathBuf,
    file: File,
    pub(super) length: u64,
}

impl MetricsFile {
    /// The file as it was when it had so many bytes.
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
