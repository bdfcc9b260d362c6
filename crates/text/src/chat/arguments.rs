//! Arguments of filters, methods and functions, bound to parameters as in Python.

use minijinja::value::{Kwargs, ValueKind, from_args};
use minijinja::{Error, ErrorKind, Value};

/// Creates the error of a call.
pub(super) fn fail(problem: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem.into())
}

/// Binds positional and named arguments to the parameters `names`.
///
/// # Errors
///
/// An error for too many arguments, for an unknown name, and for a duplicate argument.
pub(super) fn bind<const N: usize>(arguments: &[Value], names: [&str; N]) -> Result<[Option<Value>; N], Error> {
    let (positional, named): (&[Value], Kwargs) = from_args(arguments)?;
    if positional.len() > N {
        return Err(fail(format!("expected at most {N} arguments, got {}", positional.len())));
    }
    let mut bound = [const { None }; N];
    for (index, (name, place)) in names.iter().zip(&mut bound).enumerate() {
        let by_name: Option<Value> = if named.has(name) { Some(named.get(name)?) } else { None };
        *place = match (positional.get(index), by_name) {
            (Some(_), Some(_)) => return Err(fail(format!("{name}: given twice"))),
            (Some(value), None) => Some(value.clone()),
            (None, by_name) => by_name,
        };
    }
    named.assert_all_used()?;
    Ok(bound)
}

/// The first argument, which is the value that a filter or test is applied to, and the other arguments.
///
/// # Errors
///
/// An error for a call without arguments.
pub(super) fn subject(arguments: &[Value]) -> Result<(&Value, &[Value]), Error> {
    arguments.split_first().ok_or_else(|| fail("expected a value"))
}

/// The text of an argument.
///
/// # Errors
///
/// An error for a value that is not text.
pub(super) fn text<'a>(value: &'a Value, name: &str) -> Result<&'a str, Error> {
    value.as_str().ok_or_else(|| fail(format!("{name}: expected a text, got {}", value.kind())))
}

/// The integer of an argument. A truth value is an integer, as in Python.
pub(super) fn integer(value: &Value) -> Option<i128> {
    match value.kind() {
        ValueKind::Bool => Some(i128::from(value.is_true())),
        ValueKind::Number if value.is_integer() => i128::try_from(value.clone()).ok(),
        _ => None,
    }
}

/// The number of an argument, whether integer or float.
pub(super) fn number(value: &Value) -> Option<f64> {
    match value.kind() {
        ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
        ValueKind::Number => f64::try_from(value.clone()).ok(),
        _ => None,
    }
}

/// An integer argument, or `default` if it is absent.
///
/// # Errors
///
/// An error for a value that is not an integer.
pub(super) fn integer_or(value: Option<&Value>, default: i64, name: &str) -> Result<i64, Error> {
    match value {
        None => Ok(default),
        Some(value) => match integer(value) {
            Some(integer) => Ok(integer.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64),
            None => Err(fail(format!("{name}: expected an integer, got {}", value.kind()))),
        },
    }
}

/// A size argument that determines an allocation.
pub(super) fn size_or(value: Option<&Value>, default: i64, name: &str) -> Result<usize, Error> {
    let size = integer_or(value, default, name)?.max(0);
    usize::try_from(size).map_err(|_| fail(format!("{name}: too large")))
}

/// Truth of an optional argument, as Python defines it; `default` where it is absent.
pub(super) fn is_true(value: Option<&Value>, default: bool) -> bool {
    value.map_or(default, Value::is_true)
}

/// An argument, or `None` if it is absent or Python's `None`.
pub(super) fn given(value: Option<Value>) -> Option<Value> {
    value.filter(|value| !value.is_none())
}
