//! Jinja2's tests.

use minijinja::value::ValueKind;
use minijinja::{Environment, Error, State, Value};

use super::arguments::{fail, integer};
use super::objects::Cycler;
use super::python_text::python_str;
use super::remainder::remainder;

/// Name of the filter around the values of a loop, which rejects `None`.
pub(super) const ITERATED: &str = "__iterated";

pub(super) fn register(environment: &mut Environment<'_>) {
    environment.add_test("iterable", |value: &Value| is_iterable(value));
    environment.add_test("sequence", |value: &Value| is_sequence(value));
    environment.add_test("number", |value: &Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool));
    environment.add_test("mapping", |value: &Value| is_map(value));
    environment.add_test("callable", |value: &Value| {
        let is_called = value.kind() == ValueKind::Plain && value.downcast_object_ref::<Cycler>().is_none();
        is_called || value.is_undefined() || is_a(value, "Macro")
    });
    environment.add_filter(ITERATED, |value: Value| match is_iterable(&value) {
        true => Ok(value),
        false => Err(fail(format!("expected something to iterate over, got {}", value.kind()))),
    });
    environment.add_test("boolean", |value: &Value| value.kind() == ValueKind::Bool);
    environment.add_test("lower", |state: &State<'_, '_>, value: &Value| {
        let text = python_str(state, value)?;
        Ok::<_, Error>(text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase))
    });
    environment.add_test("upper", |state: &State<'_, '_>, value: &Value| {
        let text = python_str(state, value)?;
        Ok::<_, Error>(text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase))
    });
    for (name, rest) in [("odd", 1), ("even", 0)] {
        environment.add_test(name, move |value: &Value| {
            let number = remainder(value, &Value::from(2))?;
            Ok::<_, Error>(number == Value::from(rest))
        });
    }
    environment
        .add_test("divisibleby", |value: &Value, by: &Value| Ok::<_, Error>(remainder(value, by)? == Value::from(0)));
    for name in ["startingwith", "endingwith"] {
        environment.remove_test(name);
    }
    environment.add_test("true", |value: &Value| value.kind() == ValueKind::Bool && value.is_true());
    environment.add_test("false", |value: &Value| value.kind() == ValueKind::Bool && !value.is_true());
    environment.add_test("integer", |value: &Value| value.is_integer() && integer(value).is_some());
}

/// Tests whether Python can iterate over a value.
pub(super) fn is_iterable(value: &Value) -> bool {
    // Decides by the kind of the value, as iteration would consume a generator.
    match value.kind() {
        ValueKind::String | ValueKind::Undefined | ValueKind::Seq | ValueKind::Iterable => true,
        ValueKind::Map => is_map(value),
        _ => false,
    }
}

/// Tests whether Python's `len` and item access accept a value.
fn is_sequence(value: &Value) -> bool {
    match value.kind() {
        ValueKind::String | ValueKind::Seq | ValueKind::Undefined => true,
        ValueKind::Map => is_map(value),
        // Concatenated lists are sequences; generators and views have no items by index.
        ValueKind::Iterable => value.as_object().is_some_and(|object| object.type_name().contains("MergeSeq")),
        _ => false,
    }
}

/// Tests whether a value is a dictionary. The engine takes namespaces, macros and the variable `loop` for dictionaries.
pub(super) fn is_map(value: &Value) -> bool {
    value.kind() == ValueKind::Map && !["Namespace", "Macro", "Loop"].iter().any(|name| is_a(value, name))
}

pub(super) fn is_namespace(value: &Value) -> bool {
    is_a(value, "Namespace")
}

/// Tests whether a value is an object of the engine's type with this name.
fn is_a(value: &Value, name: &str) -> bool {
    value.as_object().is_some_and(|object| object.type_name().ends_with(name))
}
