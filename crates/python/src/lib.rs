//! The losses of `objective` for Python: the native half of the package `objective_lake`.
//!
//! Python's half arranges a trainer's columns (padded, packed or listed; NumPy, PyTorch or JAX) as flat arrays. This
//! half removes the masked tokens, validates and evaluates the rest without Python's lock, and arranges the cotangents
//! like the arrays.

use pyo3::prelude::*;

mod columns;
mod documentation;
mod error;
mod method;
mod objective;
mod parameters;
mod totals;

/// The native half of `objective_lake`.
#[pymodule(name = "_core")]
mod core {
    #[pymodule_export]
    use super::columns::all;
    #[pymodule_export]
    use super::method::{Method, Parameter, methods, metrics};
    #[pymodule_export]
    use super::objective::{Held, Objective};

    /// The version of the package.
    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "the name that Python's tools read")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
