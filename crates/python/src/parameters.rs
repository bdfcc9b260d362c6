//! Values of parameters, between Python and Rust.

use objective::{Parameters, Value};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyList, PyString};

use crate::error::type_error;

/// Reads the parameters in a dictionary.
pub(crate) fn read(given: Option<&Bound<'_, PyDict>>) -> PyResult<Parameters> {
    let read = |(name, value): (Bound<'_, PyAny>, Bound<'_, PyAny>)| {
        let name: String = name.extract()?;
        let value = read_value(&name, &value)?;
        Ok((name, value))
    };
    given.map_or_else(|| Ok(Parameters::new()), |given| given.iter().map(read).collect())
}

fn read_value(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Value> {
    if let Ok(switch) = value.cast::<PyBool>() {
        return Ok(Value::Switch(switch.is_true()));
    }
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(Value::Text(text.extract()?));
    }
    if let Ok(number) = value.extract::<f64>() {
        return Ok(Value::Number(number));
    }
    if let Ok(terms) = value.extract::<Vec<Bound<'_, PyDict>>>() {
        return Ok(Value::Terms(terms.iter().map(|term| read(Some(term))).collect::<PyResult<_>>()?));
    }
    Err(type_error(format_args!(
        "{name}: expected a number, a name, True, False or a list of methods, got {}",
        value.repr()?
    )))
}

/// The parameters as a dictionary.
pub(crate) fn write<'py>(py: Python<'py>, parameters: &Parameters) -> PyResult<Bound<'py, PyDict>> {
    let dictionary = PyDict::new(py);
    for (name, value) in parameters {
        dictionary.set_item(name, write_value(py, value)?)?;
    }
    Ok(dictionary)
}

/// A value as a Python object.
pub(crate) fn write_value<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        Value::Switch(switch) => PyBool::new(py, *switch).to_owned().into_any(),
        Value::Number(number) => PyFloat::new(py, *number).into_any(),
        Value::Text(text) => PyString::new(py, text).into_any(),
        Value::Terms(terms) => {
            let terms = terms.iter().map(|term| write(py, term)).collect::<PyResult<Vec<_>>>()?;
            PyList::new(py, terms)?.into_any()
        }
    })
}
