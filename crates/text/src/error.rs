//! Errors about tokenizers, chat templates and data.

use std::path::{Path, PathBuf};

use crate::data::unusable::Unusable;

/// An error about a tokenizer, a chat template or data.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// A file that cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// A git-lfs pointer in place of a file.
    #[error("{}: expected the file itself, got a pointer of git-lfs: `git lfs pull` in its folder fetches the file", path.display())]
    Pointer {
        /// Path of the file.
        path: PathBuf,
    },
    /// A file that is not JSON, or a field of another type.
    #[error("{}: {field}: {source}", path.display())]
    Json {
        /// Path of the file.
        path: PathBuf,
        /// Name of the field, or `.` for the whole file.
        field: String,
        /// Error with its line and column.
        source: serde_json::Error,
    },
    /// A field of a file with a value that is not allowed.
    #[error("{}: {field}: expected {allowed}, got {given}", path.display())]
    Field {
        /// Path of the file.
        path: PathBuf,
        /// Name of the field.
        field: String,
        /// Description of the allowed values.
        allowed: String,
        /// The given value.
        given: String,
    },
    /// An invalid tokenizer file, or a text that the tokenizer cannot process.
    #[error("{}: {problem}", path.display())]
    Tokenizer {
        /// Path of the tokenizer file.
        path: PathBuf,
        /// Description of the error.
        problem: String,
    },
    /// An invalid chat template, or a template that rejected a conversation.
    #[error("{}: {problem}", path.display())]
    Template {
        /// Path of the file that contains the template.
        path: PathBuf,
        /// Description of the error, with its position in the template.
        problem: String,
    },
    /// A file that is not Parquet, or is damaged.
    #[error("{}: {source}", path.display())]
    Parquet {
        /// Path of the file.
        path: PathBuf,
        /// Error of the Parquet reader.
        source: parquet::errors::ParquetError,
    },
    /// An error in a line of a data file.
    #[error("{}:{line}: {source}", path.display())]
    Line {
        /// Path of the file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// Error in the line.
        source: Box<TextError>,
    },
    /// An error in a row of a Parquet file.
    #[error("{}: row {row}: {source}", path.display())]
    Row {
        /// Path of the file.
        path: PathBuf,
        /// Number of the row, from 1.
        row: usize,
        /// Error in the row.
        source: Box<TextError>,
    },
    /// An error in a record of a JSON list.
    #[error("{}: record {record}: {source}", path.display())]
    Entry {
        /// Path of the file.
        path: PathBuf,
        /// Position of the record in the list, from 1.
        record: usize,
        /// Error in the record.
        source: Box<TextError>,
    },
    /// A record that no method can learn from.
    #[error("{source}")]
    Unusable {
        /// Kind of the problem.
        kind: Unusable,
        /// Error that names the field.
        source: Box<TextError>,
    },
    /// A field of a data record or of a mixture of data sets with a value that is not allowed.
    #[error("{field}: expected {allowed}, got {given}")]
    Record {
        /// Name of the field, or `record` for the whole record.
        field: String,
        /// Description of the allowed values.
        allowed: String,
        /// The given value.
        given: String,
    },
    /// A conversation whose rendered prompt is not the beginning of the rendered conversation.
    #[error(
        "the chat template renders the prompt as {prompt:?}, but the whole conversation begins differently: {whole:?}"
    )]
    Boundary {
        /// The rendered prompt.
        prompt: String,
        /// The rendered conversation.
        whole: String,
    },
    /// An example that is longer than the model's `max_position_embeddings`.
    #[error(
        "expected at most {positions} tokens, the model's max_position_embeddings, got {tokens}; --max-length {tokens} scores it \
         none the less"
    )]
    Positions {
        /// Number of tokens of the example.
        tokens: usize,
        /// Number of positions of the model.
        positions: usize,
    },
    /// An example that is too long however much of its response is truncated.
    #[error(
        "{prompt} prompt tokens, a token of the response and its {end} end markers are more than max_length = {max_length}"
    )]
    Length {
        /// Number of prompt tokens.
        prompt: usize,
        /// Number of end markers of the response, which are never truncated.
        end: usize,
        /// Maximum number of tokens of an example.
        max_length: usize,
    },
}

impl TextError {
    /// The error of a record of a JSON list, numbered from 1.
    pub fn entry(path: &Path, record: usize, source: Self) -> Self {
        Self::Entry { path: path.to_owned(), record, source: Box::new(source) }
    }
}

/// The error of a record's field: its name, a description of the allowed values, and the given value.
pub fn refuse(field: &str, allowed: impl Into<String>, given: impl ToString) -> TextError {
    TextError::Record { field: field.to_owned(), allowed: allowed.into(), given: given.to_string() }
}
