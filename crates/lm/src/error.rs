//! Errors of the fine-tuner: of models, recipes, runs, devices and answers.

use std::path::PathBuf;

use text::error::TextError;

/// An error of the fine-tuner.
#[derive(Debug, thiserror::Error)]
pub enum LmError {
    /// A tokenizer, a chat template or data that cannot be used.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// A link in a model's folder to a file outside the folder, which is not copied.
    #[error(
        "{}: leads to {}, which is not copied into a model that may be published: expected a file within {}",
        path.display(), target.display(), folder.display()
    )]
    Outside {
        /// Path of the link.
        path: PathBuf,
        /// The target of the link.
        target: PathBuf,
        /// The model's folder.
        folder: PathBuf,
    },
    /// A file that is not JSON, or a field of another type.
    #[error("{}: {field}: {source}", path.display())]
    Json {
        /// Path of the file.
        path: PathBuf,
        /// Path of the field, or `.` for the whole file.
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
    /// An invalid recipe.
    #[error("{origin}: {problem}")]
    Recipe {
        /// Path of the recipe, or `--set`.
        origin: String,
        /// Description of the error and of its position.
        problem: String,
    },
    /// A training step that failed. The parameters are those before the step.
    #[error("stage {stage}, step {step}: {source}{}", list(records))]
    Step {
        /// Number of the stage, from 0.
        stage: usize,
        /// Number of the step, from 0.
        step: u64,
        /// Files and lines of the step's records.
        records: Vec<(PathBuf, usize)>,
        /// Reason of the failure.
        source: Box<training::StepError<LmError>>,
    },
    /// A checkpoint that a run cannot resume from.
    #[error("{}: {problem}", path.display())]
    Checkpoint {
        /// Folder of the checkpoint.
        path: PathBuf,
        /// Description of the error.
        problem: String,
    },
    /// A file or folder that exists already, or that another run uses.
    #[error("{}: {problem}", path.display())]
    Taken {
        /// Path of the file or folder.
        path: PathBuf,
        /// Description of the problem and of its remedy.
        problem: &'static str,
    },
    /// A device whose name is invalid, or that this machine does not have.
    #[error("device \"{name}\": {problem}")]
    Device {
        /// The given name.
        name: String,
        /// Description of the error.
        problem: String,
    },
    /// An address that the server cannot listen on.
    #[error("{address}: {source}")]
    Address {
        /// Address that the server should listen on.
        address: std::net::SocketAddr,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// A failed connection to the other processes of a run.
    #[error("{problem}")]
    Link {
        /// Description of the error.
        problem: String,
    },
    /// Another process of the run that failed.
    #[error("process {rank}: {problem}")]
    Process {
        /// Rank of the process, from 0.
        rank: usize,
        /// Description of the error.
        problem: String,
    },
    /// A model that is neither a folder nor available on the hub.
    #[error("model \"{name}\": {problem}")]
    Model {
        /// The given name.
        name: String,
        /// Description of the error.
        problem: String,
    },
    /// An invalid or truncated file of weights.
    #[error("{}: {problem}", path.display())]
    Weights {
        /// Path of the file.
        path: PathBuf,
        /// Description of the error.
        problem: String,
    },
    /// An invalid tensor of a checkpoint.
    #[error("{}: {tensor} {problem}", path.display())]
    Weight {
        /// Path of the file, or of the folder if no file contains the tensor.
        path: PathBuf,
        /// Name of the tensor.
        tensor: String,
        /// Description of the error.
        problem: String,
    },
    /// An error of libtorch, most often because a GPU's memory is full.
    #[error("libtorch: {}", first_line(.0))]
    Engine(#[from] tch::TchError),
    /// A statistic that cannot be computed here.
    #[error(
        "{statistic}: a language model has no such column here: no value function, and no reference unless one is given"
    )]
    Statistic {
        /// Name of the statistic.
        statistic: &'static str,
    },
    /// A field with a value that is not allowed.
    #[error("{field}: expected {allowed}, got {given}")]
    Record {
        /// Name of the field.
        field: String,
        /// Description of the allowed values.
        allowed: String,
        /// The given value.
        given: String,
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
    /// Logits that are NaN.
    #[error("prompts[{prompt}]: the model's logits are NaN: its weights are not finite, or overflow in its type")]
    Logits {
        /// Index of the prompt.
        prompt: usize,
    },
}

/// Maximum number of records that an error lists.
const LISTED: usize = 8;

fn list(records: &[(PathBuf, usize)]) -> String {
    if records.is_empty() {
        return String::new();
    }
    let places: Vec<_> = records.iter().take(LISTED).map(|(path, line)| format!("{}:{line}", path.display())).collect();
    let more = match records.len().saturating_sub(LISTED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("; its records: {}{more}", places.join(", "))
}

/// The first line of libtorch's message, without the stack trace that follows.
fn first_line(error: &tch::TchError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// The error of a field: its name, a description of the allowed values, and the given value.
pub(crate) fn refuse(field: &str, allowed: impl Into<String>, given: impl ToString) -> LmError {
    LmError::Record { field: field.to_owned(), allowed: allowed.into(), given: given.to_string() }
}

/// The error of a setting: its name, a description of the allowed values, and the given value.
pub(crate) fn refuse_setting(field: &'static str, allowed: impl Into<String>, given: impl ToString) -> LmError {
    LmError::Setting { field, allowed: allowed.into(), given: given.to_string() }
}

impl From<training::RanksError<LmError>> for LmError {
    fn from(error: training::RanksError<LmError>) -> Self {
        match error {
            training::RanksError::Link(error) => error,
            training::RanksError::Other { rank, problem } => Self::Process { rank, problem },
        }
    }
}

impl From<program::OutputError> for LmError {
    fn from(program::OutputError { path, source }: program::OutputError) -> Self {
        Self::File { path, source }
    }
}
