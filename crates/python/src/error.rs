//! Errors as Python exceptions, with the same messages as in Rust.

use pyo3::PyErr;
use pyo3::exceptions::{PyTypeError, PyValueError};

/// `ValueError` with the error's message.
pub(crate) fn value_error(error: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// `TypeError` with the error's message.
pub(crate) fn type_error(error: impl std::fmt::Display) -> PyErr {
    PyTypeError::new_err(error.to_string())
}
