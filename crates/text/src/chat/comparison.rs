//! Comparisons as in Python: chains of comparisons, an order only among values of one kind, and an `in` that does not
//! accept a number for a string.

use std::cmp::Ordering;

use minijinja::value::{Rest, ValueKind};
use minijinja::{Environment, Error, State, Value};

use super::arguments::{fail, integer, number, text};
use super::bounds::pay_for;
use super::predicates::is_map;

/// Name of the function that comparisons are translated to. Its arguments are values with operators between them.
pub(super) const COMPARISON: &str = "__comparison";

/// Jinja2's comparison tests, each with its operator.
const TESTS: [(&str, &str); 10] = [
    ("lt", "<"),
    ("lessthan", "<"),
    ("<", "<"),
    ("le", "<="),
    ("<=", "<="),
    ("gt", ">"),
    ("greaterthan", ">"),
    (">", ">"),
    ("ge", ">="),
    (">=", ">="),
];

pub(super) fn register(environment: &mut Environment<'_>) {
    environment.add_function(COMPARISON, |state: &State<'_, '_>, arguments: Rest<Value>| {
        let Some((mut left, steps)) = arguments.split_first() else { return Err(fail("expected values to compare")) };
        for step in steps.chunks_exact(2) {
            let [operator, right] = step else { break };
            if !holds(state, left, text(operator, "operator")?, right)? {
                return Ok(false);
            }
            left = right;
        }
        Ok(true)
    });
    for (name, operator) in TESTS.into_iter().chain([("in", "in")]) {
        environment.add_test(name, move |state: &State<'_, '_>, left: &Value, right: &Value| {
            holds(state, left, operator, right)
        });
    }
}

fn holds(state: &State<'_, '_>, left: &Value, operator: &str, right: &Value) -> Result<bool, Error> {
    match operator {
        "in" => return contains(state, right, left),
        "not in" => return contains(state, right, left).map(|contains| !contains),
        _ => {}
    }
    pay_for(state, left)?;
    pay_for(state, right)?;
    match operator {
        "==" => Ok(left == right),
        "!=" => Ok(left != right),
        "<" => compare(left, right).map(Ordering::is_lt),
        "<=" => compare(left, right).map(Ordering::is_le),
        ">" => compare(left, right).map(Ordering::is_gt),
        _ => compare(left, right).map(Ordering::is_ge),
    }
}

/// Compares values in Python's order; an error for values of different kinds.
pub(super) fn compare(left: &Value, right: &Value) -> Result<Ordering, Error> {
    if let (Some(left), Some(right)) = (integer(left), integer(right)) {
        return Ok(left.cmp(&right));
    }
    if let (Some(left), Some(right)) = (number(left), number(right)) {
        return Ok(left.partial_cmp(&right).unwrap_or(Ordering::Equal));
    }
    match (left.kind(), right.kind()) {
        (ValueKind::String, ValueKind::String) => Ok(left.as_str().cmp(&right.as_str())),
        (ValueKind::Seq, ValueKind::Seq) if left.is_tuple() == right.is_tuple() => {
            for (left, right) in left.try_iter()?.zip(right.try_iter()?) {
                if left != right {
                    return compare(&left, &right);
                }
            }
            Ok(left.len().cmp(&right.len()))
        }
        (left, right) => Err(fail(format!("expected values of one kind to compare, got {left} and {right}"))),
    }
}

/// Whether Python's `value in container` is true.
fn contains(state: &State<'_, '_>, container: &Value, value: &Value) -> Result<bool, Error> {
    match container.kind() {
        ValueKind::Undefined => Ok(false),
        ValueKind::Map if is_map(container) => {
            Ok(container.as_object().is_some_and(|map| map.get_value(value).is_some()))
        }
        ValueKind::String => {
            pay_for(state, container)?;
            Ok(text(container, "in")?.contains(text(value, "in")?))
        }
        ValueKind::Seq | ValueKind::Iterable => {
            pay_for(state, container)?;
            Ok(container.try_iter()?.any(|item| item == *value))
        }
        kind => Err(fail(format!("in: expected a container, got {kind}"))),
    }
}
