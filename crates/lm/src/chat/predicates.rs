//! Jinja2's tests.

use minijinja::value::{Rest, ValueKind};
use minijinja::{Environment, Error, Value};

use super::arguments::{fail, integer, subject, text};
use super::remainder::remainder;

pub(super) fn register(environment: &mut Environment<'_>) {
    environment.add_test("iterable", |value: &Value| is_iterable(value));
    environment.add_test("sequence", |value: &Value| is_sequence(value));
    environment.add_test("number", |value: &Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool));
    environment.add_test("callable", |value: &Value| value.kind() == ValueKind::Plain || value.is_undefined());
    environment.add_test("boolean", |value: &Value| value.kind() == ValueKind::Bool);
    environment.add_test("lower", |value: &Value| {
        let text = value.to_string();
        text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase)
    });
    environment.add_test("upper", |value: &Value| {
        let text = value.to_string();
        text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase)
    });
    for (name, rest) in [("odd", 1), ("even", 0)] {
        environment.add_test(name, move |value: &Value| {
            let number = remainder(value, &Value::from(2))?;
            Ok::<_, Error>(number == Value::from(rest))
        });
    }
    environment
        .add_test("divisibleby", |value: &Value, by: &Value| Ok::<_, Error>(remainder(value, by)? == Value::from(0)));
    environment.add_test("in", |arguments: Rest<Value>| {
        let (value, rest) = subject(&arguments)?;
        let [container] = rest else { return Err(fail("in: expected one value")) };
        contains(container, value)
    });
    for name in ["startingwith", "endingwith"] {
        environment.remove_test(name);
    }
    environment.add_test("true", |value: &Value| value.kind() == ValueKind::Bool && value.is_true());
    environment.add_test("false", |value: &Value| value.kind() == ValueKind::Bool && !value.is_true());
    environment.add_test("integer", |value: &Value| value.is_integer() && integer(value).is_some());
}

/// Whether Python iterates over it.
pub(super) fn is_iterable(value: &Value) -> bool {
    // By its kind: to try it would spend a generator.
    match value.kind() {
        ValueKind::String | ValueKind::Undefined | ValueKind::Seq | ValueKind::Iterable => true,
        ValueKind::Map => !is_namespace(value),
        _ => false,
    }
}

/// Whether Python takes its length and its items.
fn is_sequence(value: &Value) -> bool {
    match value.kind() {
        ValueKind::String | ValueKind::Seq | ValueKind::Undefined => true,
        ValueKind::Map => !is_namespace(value),
        // Two lists, one behind the other; generators and views have no items by their places.
        ValueKind::Iterable => value.as_object().is_some_and(|object| object.type_name().contains("MergeSeq")),
        _ => false,
    }
}

pub(super) fn is_namespace(value: &Value) -> bool {
    value.as_object().is_some_and(|object| object.type_name().ends_with("Namespace"))
}

/// `value in container`.
fn contains(container: &Value, value: &Value) -> Result<bool, Error> {
    match container.kind() {
        ValueKind::String => Ok(text(container, "in")?.contains(text(value, "in")?)),
        ValueKind::Map => Ok(container.as_object().is_some_and(|map| map.get_value(value).is_some())),
        ValueKind::Seq | ValueKind::Iterable => Ok(container.try_iter()?.any(|item| item == *value)),
        ValueKind::Undefined => Ok(false),
        kind => Err(fail(format!("in: expected a container, got {kind}"))),
    }
}
