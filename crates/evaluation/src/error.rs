//! Errors of comparisons and of judges.

use std::path::PathBuf;

use text::error::TextError;

/// An error of a comparison or of a judge.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    /// A file of results or of answers that cannot be read, or that contains an invalid record.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A file that cannot be written.
    #[error(transparent)]
    Output(#[from] program::OutputError),
    /// A folder that another process uses, or whose files have an unknown origin.
    #[error("{}: {problem}", path.display())]
    Taken {
        /// Path of the folder or of the file.
        path: PathBuf,
        /// Description of the problem.
        problem: &'static str,
    },
    /// A figure that could not be drawn.
    #[error("figure: {problem}")]
    Figure {
        /// Description of the error.
        problem: String,
    },
    /// A judge that does not answer.
    #[error("judge {url}: {problem}")]
    Judge {
        /// Address of the judge.
        url: String,
        /// Description of the error.
        problem: String,
    },
    /// A setting that is out of its range.
    #[error("{field}: expected {allowed}, got {given}")]
    Setting {
        /// Name of the setting.
        field: &'static str,
        /// Description of the allowed values.
        allowed: String,
        /// The given value.
        given: String,
    },
}

/// The error of a setting: its name, a description of the allowed values, and the given value.
pub(crate) fn refuse_setting(field: &'static str, allowed: impl Into<String>, given: impl ToString) -> EvaluationError {
    EvaluationError::Setting { field, allowed: allowed.into(), given: given.to_string() }
}
