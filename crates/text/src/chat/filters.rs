//! Jinja2's filters.

mod lists;
mod numbers;
mod texts;

use minijinja::value::{Rest, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, State, Value};

use super::arguments::{bind, fail, is_true, subject};
use super::objects::{DictView, Generator};
use super::predicates::is_namespace;
use super::{json, percent};

type Filter = fn(&mut State<'_, '_>, &[Value]) -> Result<Value, Error>;

pub(super) fn register(environment: &mut Environment<'_>) {
    // With functions that Jinja2 lacks, a template would work only here.
    for name in ["split", "lines", "bool", "chain", "zip", "pprint"] {
        environment.remove_filter(name);
    }
    let own: [(&'static str, Filter); 4] = [
        ("tojson", |state, arguments| json::tojson(state, arguments)),
        ("format", |state, arguments| {
            let (value, arguments) = subject(arguments)?;
            let format = super::python_text::python_str(state, value)?;
            percent::filter(state, &format, arguments)
        }),
        ("default", default),
        ("d", default),
    ];
    for (name, filter) in own.into_iter().chain(texts::FILTERS).chain(numbers::FILTERS).chain(lists::FILTERS) {
        environment.add_filter(name, move |state: &mut State<'_, '_>, arguments: Rest<ValueOrKwargs>| {
            filter(state, &arguments.into_values())
        });
    }
}

fn default(_state: &mut State<'_, '_>, arguments: &[Value]) -> Result<Value, Error> {
    let (value, arguments) = subject(arguments)?;
    let [default, boolean] = bind(arguments, ["default_value", "boolean"])?;
    let is_replaced = value.is_undefined() || (is_true(boolean.as_ref(), false) && !value.is_true());
    Ok(if is_replaced { default.unwrap_or_else(|| Value::from("")) } else { value.clone() })
}

/// The items that Python iterates over. Consumes fuel for them.
fn items(state: &State<'_, '_>, value: &Value) -> Result<Vec<Value>, Error> {
    state.consume_fuel(value.len().unwrap_or(0) as u64)?;
    match value.kind() {
        ValueKind::Undefined => Ok(Vec::new()),
        ValueKind::String => {
            Ok(value.as_str().unwrap_or_default().chars().map(|character| Value::from(character.to_string())).collect())
        }
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map if !is_namespace(value) => {
            if let Some(generator) = value.downcast_object_ref::<Generator>() {
                return Ok(generator.take());
            }
            Ok(value.try_iter()?.collect())
        }
        kind => Err(fail(format!("expected something to iterate over, got {kind}"))),
    }
}

/// The number of items, if Python's `len` accepts the value.
fn length(value: &Value) -> Result<usize, Error> {
    match value.kind() {
        ValueKind::Undefined => Ok(0),
        ValueKind::String => Ok(value.as_str().unwrap_or_default().chars().count()),
        _ if value.downcast_object_ref::<DictView>().is_none()
            && value.downcast_object_ref::<Generator>().is_some() =>
        {
            Err(fail("length: a generator has no length; convert it to a list"))
        }
        _ if is_namespace(value) => Err(fail("length: a namespace has no length")),
        kind => value.len().ok_or_else(|| fail(format!("length: {kind} has none"))),
    }
}
