//! Why the lake refused.

use std::path::PathBuf;

use objective::{ParameterError, RegistryError};
use training::{OptimizerError, StepError};

use crate::spelling::suggest;

/// Why the lake refused.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    /// A map that is none.
    #[error("map {map}: {problem}")]
    Map {
        /// Its name or path.
        map: String,
        /// What is wrong with it, what was expected, and what was given.
        problem: String,
    },
    /// A trajectory that the map does not have or allow.
    #[error("trajectory {trajectory}: {problem}")]
    Trajectory {
        /// Its name or word.
        trajectory: String,
        /// What is wrong with it, at which step.
        problem: String,
    },
    /// A trajectory that maps may have, and this one does not.
    #[error("trajectory {trajectory}: {problem}")]
    NoTrajectory {
        /// Its name.
        trajectory: String,
        /// Why it does not, and what to do.
        problem: String,
    },
    /// A cell whose best action cannot be decided, as the error bounds of its actions' values overlap.
    #[error("optimal policy: in row {row}, column {column}, the actions {actions} cannot be told apart: {problem}")]
    Undecided {
        /// The cell's row, from 1.
        row: usize,
        /// Its column, from 1.
        column: usize,
        /// The actions that may be optimal.
        actions: String,
        /// The reason why rounding does not separate them.
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
    /// A refused field of a recipe.
    #[error(transparent)]
    Refused(#[from] recipe::Refusal),
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
    /// A network whose parameters do not fit its layers.
    #[error("network: {0}")]
    Network(#[from] ndarray::ShapeError),
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
