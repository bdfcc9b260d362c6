//! Metrics as TensorBoard event files.
//!
//! Event files contain the time of day, so the reproducible record of a run is its metrics file.
//!
//! A file is a sequence of records: a 64-bit length, its checksum, a message of that many bytes, and its checksum.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crc_fast::{CrcAlgorithm, checksum};
use prost::Message;

use crate::error::LmError;
use crate::train::run::Row;

/// Name of the folder in the run's folder.
pub const TENSORBOARD: &str = "tensorboard";
/// Version that readers expect in a file's first record.
const FILE_VERSION: &str = "brain.Event:2";
/// Session status that makes readers discard events of later steps in other files.
const START: i32 = 1;

/// The message `tensorflow.Event`, without the fields that are not used here.
#[derive(Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
    #[prost(message, optional, tag = "7")]
    session: Option<Session>,
}

#[derive(Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    values: Vec<Measured>,
}

#[derive(Message)]
struct Measured {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, tag = "2")]
    value: f32,
}

#[derive(Message)]
struct Session {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// An open event file.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// Creates a file in the folder, which is created if necessary. Readers then discard events of `step` and later
    /// steps in other files.
    ///
    /// # Errors
    ///
    /// [`LmError::File`] for a file that cannot be written.
    pub fn create(folder: &Path, step: u64) -> Result<Self, LmError> {
        let fail = |path: &Path| {
            let path = path.to_owned();
            move |source| LmError::File { path, source }
        };
        std::fs::create_dir_all(folder).map_err(fail(folder))?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Readers sort files by name.
        let name =
            format!("events.out.tfevents.{:010}.{:09}.{}", since.as_secs(), since.subsec_nanos(), std::process::id());
        let path = folder.join(name);
        let file = File::create_new(&path).map_err(fail(&path))?;
        let mut events = Self { path, file };
        events.append(Event { file_version: Some(FILE_VERSION.to_owned()), ..Event::at(0) })?;
        events.append(Event { session: Some(Session { status: START }), ..Event::at(step) })?;
        Ok(events)
    }

    /// Appends the measurements of a row, at a step of the whole run.
    ///
    /// # Errors
    ///
    /// [`LmError::File`] for a file that cannot be written.
    pub fn row(&mut self, step: u64, row: &Row) -> Result<(), LmError> {
        let kind = if row.held_out { "held_out" } else { "train" };
        let own =
            [("loss", Some(row.loss)), ("gradient_norm", row.gradient_norm), ("learning_rate", row.learning_rate)];
        let metrics = row.metrics.iter().map(|(name, value)| (name.as_str(), value.as_f64()));
        let values = own.into_iter().chain(metrics).filter_map(|(name, value)| {
            // The format has 32-bit numbers.
            Some(Measured { tag: format!("{kind}/{name}"), value: value? as f32 })
        });
        self.append(Event { summary: Some(Summary { values: values.collect() }), ..Event::at(step) })
    }

    fn append(&mut self, event: Event) -> Result<(), LmError> {
        let message = event.encode_to_vec();
        let length = (message.len() as u64).to_le_bytes();
        let record = [&length[..], &masked(&length), &message, &masked(&message)].concat();
        self.file.write_all(&record).map_err(|source| LmError::File { path: self.path.clone(), source })
    }
}

impl Event {
    fn at(step: u64) -> Self {
        let wall_time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        Self { wall_time, step: i64::try_from(step).unwrap_or(i64::MAX), ..Self::default() }
    }
}

/// The format's checksum: CRC-32C, masked so that the checksum of data that contain checksums stays reliable.
fn masked(bytes: &[u8]) -> [u8; 4] {
    let sum = checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32;
    sum.rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares with the standard check value of CRC-32C, and with TensorBoard's own Python.
    #[test]
    fn checksums_are_those_of_tensorboard() {
        assert_eq!(checksum(CrcAlgorithm::Crc32Iscsi, b"123456789"), 0xe306_9283);
        assert_eq!(u32::from_le_bytes(masked(b"123456789")), 0xc78a_b0e5);
    }

    #[test]
    fn a_record_reads_as_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut events = EventFile::create(folder.path(), 3).unwrap();
        let row = Row {
            stage: 0,
            step: 3,
            held_out: false,
            loss: 0.5,
            metrics: serde_json::Map::from_iter([("margin".to_owned(), 2.0.into())]),
            gradient_norm: Some(1.5),
            learning_rate: None,
            tokens: 7,
        };
        events.row(3, &row).unwrap();
        let bytes = std::fs::read(&events.path).unwrap();
        let (mut rest, mut found) = (&bytes[..], Vec::new());
        while !rest.is_empty() {
            let length = usize::try_from(u64::from_le_bytes(rest[..8].try_into().unwrap())).unwrap();
            assert_eq!(rest[8..12], masked(&rest[..8]));
            let message = &rest[12..12 + length];
            assert_eq!(rest[12 + length..16 + length], masked(message));
            found.push(Event::decode(message).unwrap());
            rest = &rest[16 + length..];
        }
        assert_eq!(found[0].file_version.as_deref(), Some(FILE_VERSION));
        assert_eq!((found[1].step, found[1].session.as_ref().unwrap().status), (3, START));
        let values: Vec<_> =
            found[2].summary.as_ref().unwrap().values.iter().map(|one| (one.tag.as_str(), one.value)).collect();
        assert_eq!(values, [("train/loss", 0.5), ("train/gradient_norm", 1.5), ("train/margin", 2.0)]);
    }
}
