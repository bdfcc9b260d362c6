//! Errors of maps, names, solvers and networks.

use std::path::PathBuf;

use recipe::Refusal;

/// An error of a map, a name, a solver or a network.
#[derive(Debug, thiserror::Error)]
pub enum GridError {
    /// An invalid map.
    #[error("map {map}: {problem}")]
    Map {
        /// Name or path of the map.
        map: String,
        /// Description of the error, with the expected and the given value.
        problem: String,
    },
    /// A file that cannot be read.
    #[error("{path}: {source}")]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// A trajectory that the map does not allow.
    #[error("trajectory {trajectory}: {problem}")]
    Trajectory {
        /// Name or word of the trajectory.
        trajectory: String,
        /// Description of the error, with the step.
        problem: String,
    },
    /// A name with a parameter that is not allowed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A cell whose best action cannot be decided, as the error bounds of its actions' values overlap.
    #[error("optimal policy: in row {row}, column {column}, the actions {actions} cannot be distinguished: {problem}")]
    Undecided {
        /// Row of the cell, from 1.
        row: usize,
        /// Column of the cell, from 1.
        column: usize,
        /// Actions that may be optimal.
        actions: String,
        /// Reason why rounding does not separate the actions.
        problem: String,
    },
    /// Parameters that do not fit the layers of a network.
    #[error("network: expected {expected} parameters, got {given}")]
    Parameters {
        /// Number of parameters of the network.
        expected: usize,
        /// Number of parameters given.
        given: usize,
    },
}
