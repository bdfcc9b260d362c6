//! Errors of the lake.

use std::path::PathBuf;

use gridworld::GridError;
use objective::{ParameterError, RegistryError};
use recipe::refusal::{did_you_mean, nearest};
use training::{OptimizerError, StepError};

/// An error of the lake.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    /// An error of a map, a name, a solver or a network.
    #[error(transparent)]
    Grid(#[from] GridError),
    /// A named trajectory that this map does not have, although maps may have it.
    #[error("trajectory {trajectory}: {problem}")]
    NoTrajectory {
        /// Name of the trajectory.
        trajectory: String,
        /// Reason, and a remedy.
        problem: String,
    },
    /// An invalid value of a recipe's field.
    #[error("{field}: expected {allowed}, got {given}")]
    Field {
        /// Name of the field.
        field: String,
        /// Description of the allowed values.
        allowed: String,
        /// Given value.
        given: String,
    },
    /// A refused field of a recipe.
    #[error(transparent)]
    Refused(#[from] recipe::Refusal),
    /// A recipe that is not TOML, or a field of another type.
    #[error("{path}: {problem}")]
    Parse {
        /// File, or option of the command line.
        path: String,
        /// Description of the error, with its position.
        problem: String,
    },
    /// A file that cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Path of the file or folder.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// An unknown method, or an invalid parameter of one.
    #[error(transparent)]
    Registry(RegistryError),
    /// An invalid parameter.
    #[error(transparent)]
    Parameter(ParameterError),
    /// An unknown optimizer, or an invalid parameter of one.
    #[error(transparent)]
    Optimizer(OptimizerError),
    /// An unknown name, with similar existing names.
    #[error("{error}{meant}")]
    Misspelled {
        /// Error about the name.
        error: Box<LakeError>,
        /// Question that suggests names.
        meant: String,
    },
    /// A run with a failed step.
    #[error("{method}, seed {seed}, step {step}: {source}")]
    Step {
        /// Label of the method.
        method: String,
        /// Seed of the run.
        seed: u64,
        /// Number of the step, from 0.
        step: usize,
        /// Error of the step.
        source: Box<StepError<std::convert::Infallible>>,
    },
    /// A run that ended without a policy because it diverged.
    #[error("{method}, seed {seed}: the policy diverged at learning rate {learning_rate}; a smaller one may help")]
    Diverged {
        /// Label of the method.
        method: String,
        /// Seed of the run.
        seed: u64,
        /// Learning rate of the recipe.
        learning_rate: f64,
    },
    /// An error in a design of a study.
    #[error("design {number}: {source}")]
    Design {
        /// Number of the design.
        number: usize,
        /// Error that occurred in the design.
        source: Box<LakeError>,
    },
    /// An error in a level of a study's factor.
    #[error("factor {factor}, level \"{level}\": {source}")]
    Level {
        /// Name of the factor.
        factor: String,
        /// Name of the level.
        level: String,
        /// Error that the level causes.
        source: Box<LakeError>,
    },
    /// An invalid file of a study's results.
    #[error("{path}: {problem}")]
    Shard {
        /// Path of the file or folder.
        path: PathBuf,
        /// Description of the error, and a remedy.
        problem: String,
    },
    /// A file without a policy for this lake.
    #[error("policy {path}: {problem}")]
    Policy {
        /// Path of the file.
        path: PathBuf,
        /// Description of the error, with its position, the expected and the given value.
        problem: String,
    },
    /// A figure that could not be drawn.
    #[error("figure {figure}: {problem}")]
    Figure {
        /// File name of the figure.
        figure: String,
        /// Description of the error.
        problem: String,
    },
    /// A page that could not be made.
    #[error("page: {problem}")]
    Page {
        /// Description of the error.
        problem: String,
    },
}

/// Adds suggestions to the error if existing names are similar to the given one.
pub(crate) fn suggest<'a>(error: LakeError, given: &str, names: impl IntoIterator<Item = &'a str>) -> LakeError {
    match nearest(given, names) {
        names if names.is_empty() => error,
        names => LakeError::Misspelled { error: Box::new(error), meant: did_you_mean(&names) },
    }
}

impl From<RegistryError> for LakeError {
    fn from(error: RegistryError) -> Self {
        match &error {
            RegistryError::Unknown { name, allowed } => {
                let (name, allowed) = (name.clone(), allowed.clone());
                suggest(Self::Registry(error), &name, allowed.split(", "))
            }
            RegistryError::Parameter(parameter) => parameter.clone().into(),
            _ => Self::Registry(error),
        }
    }
}

impl From<ParameterError> for LakeError {
    fn from(error: ParameterError) -> Self {
        match &error {
            ParameterError::Unknown { name, allowed, .. } => {
                let (name, allowed) = (name.clone(), allowed.clone());
                suggest(Self::Parameter(error), &name, allowed.split(", "))
            }
            _ => Self::Parameter(error),
        }
    }
}

impl From<OptimizerError> for LakeError {
    fn from(error: OptimizerError) -> Self {
        match &error {
            OptimizerError::Unknown { name, allowed } => {
                let (name, allowed) = (name.clone(), allowed.clone());
                suggest(Self::Optimizer(error), &name, allowed.split(", "))
            }
            OptimizerError::Parameter(parameter) => parameter.clone().into(),
        }
    }
}

#[cfg(feature = "program")]
impl From<program::OutputError> for LakeError {
    fn from(program::OutputError { path, source }: program::OutputError) -> Self {
        Self::File { path, source }
    }
}
