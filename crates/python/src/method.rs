//! The list of methods and their parameters.

use objective::registry::GIVEN;
use objective::{METHODS, Metric, Parameters};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use strum::IntoEnumIterator;

use crate::documentation::docstring;
use crate::error::value_error;
use crate::parameters::write_value;

/// A method: its summary, the data that it learns from, its parameters and its source.
#[pyclass(frozen, get_all, module = "objective_lake")]
pub(crate) struct Method {
    name: &'static str,
    summary: &'static str,
    data: &'static str,
    columns: Vec<&'static str>,
    parameters: Py<PyDict>,
    source: &'static str,
    doc: String,
}

/// A parameter of a method: its default, its allowed values and its purpose.
#[pyclass(frozen, get_all, module = "objective_lake")]
pub(crate) struct Parameter {
    name: &'static str,
    default: Py<PyAny>,
    range: String,
    purpose: &'static str,
}

/// Every method by its name.
///
/// A method has a `summary`, the `data` that it learns from, the `columns` that it reads at its default parameters, its
/// `parameters` (by name, each with `default`, `range` and `purpose`), its `source`, and `doc`: its formula.
#[pyfunction]
pub(crate) fn methods(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let methods = PyDict::new(py);
    for method in METHODS.iter().chain(GIVEN) {
        let parameters = PyDict::new(py);
        for parameter in (method.parameters)() {
            let (name, purpose, range) = (parameter.name, parameter.purpose, parameter.allowed());
            let default = write_value(py, &parameter.default())?.unbind();
            parameters.set_item(name, Parameter { name, default, range, purpose })?;
        }
        let requirements = (method.build)(&Parameters::new()).map_err(value_error)?.requirements();
        let name = method.name;
        let method = Method {
            name,
            summary: method.summary,
            data: requirements.data.into(),
            columns: crate::columns::names(&requirements).collect(),
            parameters: parameters.unbind(),
            source: method.source,
            doc: docstring(method.documentation),
        };
        methods.set_item(name, method)?;
    }
    Ok(methods)
}

/// The name of every metric that an objective may report.
#[pyfunction]
pub(crate) fn metrics() -> Vec<&'static str> {
    Metric::iter().map(<&str>::from).collect()
}

#[pymethods]
impl Method {
    fn __repr__(&self) -> String {
        format!("<{}: {}; {}>", self.name, self.summary, self.source)
    }
}

#[pymethods]
impl Parameter {
    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("<{} = {}: {}; {}>", self.name, self.default.bind(py).repr()?, self.range, self.purpose))
    }
}
