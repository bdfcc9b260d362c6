//! Why the language model's host refused.

use std::path::{Path, PathBuf};

/// Why the language model's host refused.
#[derive(Debug, thiserror::Error)]
pub enum LmError {
    /// A file that cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A link in a model's folder to a file outside it, which is not copied.
    #[error(
        "{}: leads to {}, which is not copied into a model that may be published: expected a file within {}",
        path.display(), target.display(), folder.display()
    )]
    Outside {
        /// The link.
        path: PathBuf,
        /// The target of the link.
        target: PathBuf,
        /// The model's folder.
        folder: PathBuf,
    },
    /// A git-lfs pointer in place of a file.
    #[error("{}: expected the file itself, got a pointer of git-lfs: `git lfs pull` in its folder fetches the file", path.display())]
    Pointer {
        /// The file.
        path: PathBuf,
    },
    /// A file that is not JSON, or a field of another type.
    #[error("{}: {field}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The field, or `.` for the whole file.
        field: String,
        /// What is wrong, and where.
        source: serde_json::Error,
    },
    /// A field of a file.
    #[error("{}: {field}: expected {allowed}, got {given}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// What is allowed.
        allowed: String,
        /// The value given.
        given: String,
    },
    /// A tokenizer that is none.
    #[error("{}: {problem}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// The error.
        problem: String,
    },
    /// A chat template that is none, or that refused a conversation.
    #[error("{}: {problem}", path.display())]
    Template {
        /// The file that it came from.
        path: PathBuf,
        /// What is wrong, and where.
        problem: String,
    },
    /// A recipe.
    #[error("{origin}: {problem}")]
    Recipe {
        /// The file, or `--set`.
        origin: String,
        /// What is wrong, and where.
        problem: String,
    },
    /// A step that was refused. The parameters are those before it.
    #[error("stage {stage}, step {step}: {source}{}", told(records))]
    Step {
        /// The stage, from 0.
        stage: usize,
        /// The step, from 0.
        step: u64,
        /// The files and lines of its records.
        records: Vec<(PathBuf, usize)>,
        /// Why.
        source: Box<training::StepError<LmError>>,
    },
    /// A checkpoint that a run cannot go on from.
    #[error("{}: {problem}", path.display())]
    Checkpoint {
        /// Its folder.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// A folder that another run has written to, or writes to.
    #[error("{}: {problem}", path.display())]
    Taken {
        /// What is there.
        path: PathBuf,
        /// What can be done.
        problem: &'static str,
    },
    /// A figure that could not be drawn.
    #[error("figure: {problem}")]
    Figure {
        /// Why not.
        problem: String,
    },
    /// A device that is none, or is not there.
    #[error("device \"{name}\": {problem}")]
    Device {
        /// Its name.
        name: String,
        /// The error.
        problem: String,
    },
    /// An address that cannot be listened at.
    #[error("{address}: {source}")]
    Address {
        /// The address.
        address: std::net::SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// Other processes of a run that cannot be reached.
    #[error("{problem}")]
    Link {
        /// Why not.
        problem: String,
    },
    /// Another process of a run that cannot go on.
    #[error("process {rank}: {problem}")]
    Process {
        /// Its number, from 0.
        rank: usize,
        /// Why not.
        problem: String,
    },
    /// A model that is neither here nor on the hub.
    #[error("model \"{name}\": {problem}")]
    Model {
        /// Its name.
        name: String,
        /// The error.
        problem: String,
    },
    /// A file of weights that is none, or is cut.
    #[error("{}: {problem}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// The error.
        problem: String,
    },
    /// A tensor of a checkpoint.
    #[error("{}: {tensor} {problem}", path.display())]
    Weight {
        /// The file, or the folder where it is in none.
        path: PathBuf,
        /// Its name.
        tensor: String,
        /// The error.
        problem: String,
    },
    /// The engine failed; a GPU without memory for more is the usual cause.
    #[error("libtorch: {}", first_line(.0))]
    Engine(#[from] tch::TchError),
    /// A statistic that cannot be computed here.
    #[error(
        "{statistic}: a language model has no such column here: no value function, and no reference unless one is given"
    )]
    Statistic {
        /// Its name.
        statistic: &'static str,
    },
    /// A file that is not Parquet, or is damaged.
    #[error("{}: {source}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        source: parquet::errors::ParquetError,
    },
    /// A line of a data file.
    #[error("{}:{line}: {source}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// The error.
        source: Box<LmError>,
    },
    /// A row of a Parquet file.
    #[error("{}: row {row}: {source}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Its row, from 1.
        row: usize,
        /// The error.
        source: Box<LmError>,
    },
    /// A record of a JSON list.
    #[error("{}: record {record}: {source}", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// Its place in the list, from 1.
        record: usize,
        /// The error.
        source: Box<LmError>,
    },
    /// A record that no method can learn from.
    #[error("{source}")]
    Unusable {
        /// The kind of the problem.
        kind: crate::data::unusable::Unusable,
        /// The error.
        source: Box<LmError>,
    },
    /// A judge that does not answer.
    #[error("judge {url}: {problem}")]
    Judge {
        /// Where it was asked.
        url: String,
        /// Why it did not answer.
        problem: String,
    },
    /// A field of a record of data, or of a mixture of data.
    #[error("{field}: expected {allowed}, got {given}")]
    Record {
        /// The field, or `record` for the whole.
        field: String,
        /// What is allowed.
        allowed: String,
        /// What was given.
        given: String,
    },
    /// A setting that is out of its range.
    #[error("{field}: expected {allowed}, got {given}")]
    Setting {
        /// The setting.
        field: &'static str,
        /// What is allowed.
        allowed: String,
        /// The value given.
        given: String,
    },
    /// A model that answers a prompt with logits that are not numbers.
    #[error(
        "prompts[{prompt}]: the model's logits are not numbers: its weights are not, or its type is too narrow for them"
    )]
    Logits {
        /// The prompt's index.
        prompt: usize,
    },
    /// A conversation whose prompt the chat template does not render as the beginning of the whole.
    #[error(
        "the chat template renders the prompt as {prompt:?}, with which the whole conversation does not begin: {whole:?}"
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
        /// Number of its tokens.
        tokens: usize,
        /// The model's number of positions.
        positions: usize,
    },
    /// An example that no truncation makes fit.
    #[error(
        "{prompt} prompt tokens, a token of the response and its {end} end markers are more than max_length = {max_length}"
    )]
    Length {
        /// Prompt tokens.
        prompt: usize,
        /// Tokens at the response's end that must stay.
        end: usize,
        /// The greatest length, in tokens.
        max_length: usize,
    },
}

impl LmError {
    /// What is wrong with a record of a JSON list.
    pub(crate) fn entry(path: &Path, record: usize, source: Self) -> Self {
        Self::Entry { path: path.to_owned(), record, source: Box::new(source) }
    }
}

/// As many places of records as help to find what is wrong with them.
const TOLD: usize = 8;

fn told(records: &[(PathBuf, usize)]) -> String {
    if records.is_empty() {
        return String::new();
    }
    let places: Vec<_> = records.iter().take(TOLD).map(|(path, line)| format!("{}:{line}", path.display())).collect();
    let more = match records.len().saturating_sub(TOLD) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("; its records: {}{more}", places.join(", "))
}

/// What an error of the engine says before its list of calls.
fn first_line(error: &tch::TchError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// The refusal of a record's field.
pub(crate) fn refuse(field: &str, allowed: impl Into<String>, given: impl ToString) -> LmError {
    LmError::Record { field: field.to_owned(), allowed: allowed.into(), given: given.to_string() }
}

/// The refusal of a setting.
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
