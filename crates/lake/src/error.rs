//! Why the lake refused.

use std::path::PathBuf;

use gridworld::GridError;
use gridworld::spelling::{SpellingError, suggestion};
use objective::{ParameterError, RegistryError};
use training::{OptimizerError, StepError};

/// Why the lake refused.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    /// A map, a name, a solver or a network.
    #[error(transparent)]
    Grid(#[from] GridError),
    /// A trajectory that maps may have, and this one does not.
    #[error("trajectory {trajectory}: {problem}")]
    NoTrajectory {
        /// Its name.
        trajectory: String,
        /// Why it does not, and what to do.
        problem: String,
    },
    /// A recipe's field.
    #[error("{field}: expected {allowed}, got {given}")]
    Field {
        /// The field.
        field: String,
        /// What is allowed.
        allowed: String,
        /// The value given.
        given: String,
    },
    /// A recipe that is not TOML, or a field of another type.
    #[error("{path}: {problem}")]
    Parse {
        /// The file, or the option.
        path: String,
        /// What is wrong, and where.
        problem: String,
    },
    /// A file that cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A method or one of its parameters.
    #[error(transparent)]
    Registry(RegistryError),
    /// A parameter.
    #[error(transparent)]
    Parameter(ParameterError),
    /// An optimizer or one of its parameters.
    #[error(transparent)]
    Optimizer(OptimizerError),
    /// A refused name, with existing names that are spelled like it.
    #[error("{error}; did you mean {meant}?")]
    Misspelled {
        /// The refusal of the name.
        error: Box<LakeError>,
        /// The suggested names.
        meant: String,
    },
    /// A run that a step refused.
    #[error("{method}, seed {seed}, step {step}: {source}")]
    Step {
        /// The method's label.
        method: String,
        /// The run's seed.
        seed: u64,
        /// The step, from 0.
        step: usize,
        /// Why.
        source: Box<StepError<std::convert::Infallible>>,
    },
    /// A run that ended without a policy.
    #[error("{method}, seed {seed}: the policy diverged at learning rate {learning_rate}; a smaller one may help")]
    Diverged {
        /// The method's label.
        method: String,
        /// The run's seed.
        seed: u64,
        /// The recipe's learning rate.
        learning_rate: f64,
    },
    /// A design of a study.
    #[error("design {number}: {source}")]
    Design {
        /// Its number.
        number: usize,
        /// Why.
        source: Box<LakeError>,
    },
    /// A level of a study's factor.
    #[error("factor {factor}, level \"{level}\": {source}")]
    Level {
        /// The factor.
        factor: String,
        /// The level.
        level: String,
        /// Why.
        source: Box<LakeError>,
    },
    /// A file of a study's results.
    #[error("{path}: {problem}")]
    Shard {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A file that holds no policy of the lake.
    #[error("policy {path}: {problem}")]
    Policy {
        /// The file.
        path: PathBuf,
        /// What is wrong, where, what was expected, and what was given.
        problem: String,
    },
    /// A figure that could not be drawn.
    #[error("figure {figure}: {problem}")]
    Figure {
        /// Its file name.
        figure: String,
        /// Why.
        problem: String,
    },
    /// A page that could not be made.
    #[error("page: {problem}")]
    Page {
        /// Why.
        problem: String,
    },
}

/// The error, with suggestions if existing names are spelled like the given one.
pub(crate) fn suggest<'a>(error: LakeError, given: &str, names: impl IntoIterator<Item = &'a str>) -> LakeError {
    match suggestion(given, names) {
        None => error,
        Some(meant) => LakeError::Misspelled { error: Box::new(error), meant },
    }
}

impl From<SpellingError> for LakeError {
    fn from(error: SpellingError) -> Self {
        Self::Grid(error.into())
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
