//! Functions of chat templates: those of Jinja2, and those of transformers.

use std::fmt;
use std::sync::Arc;

use jiff::civil::DateTime;
use minijinja::value::{Enumerator, Kwargs, Object, ObjectRepr, Rest, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Environment, Error, State, Value};

use super::arguments::{bind, fail, integer};
use super::objects::{Cycler, Joiner};
use super::percent;
use super::remainder::{REMAINDER, remainder};

/// Maximum length of a range, which is that of Jinja2's sandbox.
const MAX_RANGE: i64 = 100_000;

pub(super) fn register(environment: &mut Environment<'_>, now: DateTime) {
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> { Err(fail(message)) });
    environment.add_function("strftime_now", move |format: String| {
        jiff::fmt::strtime::format(&format, now).map_err(|error| fail(format!("strftime_now: {error}")))
    });
    environment.add_function("range", |arguments: Rest<ValueOrKwargs>| Range::of(&arguments.into_values()));
    environment.add_function("dict", |arguments: Rest<ValueOrKwargs>| dict(&arguments.into_values()));
    environment.add_function("cycler", |values: Rest<ValueOrKwargs>| Cycler::value(values.into_values()));
    environment.add_function("joiner", |arguments: Rest<ValueOrKwargs>| {
        let [separator] = bind(&arguments.into_values(), ["sep"])?;
        Ok::<_, Error>(Joiner::value(separator.unwrap_or_else(|| Value::from(", "))))
    });
    let builtin = environment.globals().find(|(name, _)| *name == "namespace").map(|(_, function)| function);
    environment.add_function("namespace", move |state: &mut State<'_, '_>, arguments: Rest<ValueOrKwargs>| {
        let attributes = dict(&arguments.into_values())?;
        for name in attributes.try_iter()? {
            if name.as_str().is_some_and(|name| name.starts_with('_')) {
                return Err(fail(format!(
                    "expected a name without an underscore at its beginning in a namespace, got {name}"
                )));
            }
        }
        let held = state.apply_filter(super::bounds::HELD, &[attributes])?;
        match &builtin {
            Some(builtin) => builtin.call(state, &[held]),
            None => Err(fail("namespace: the engine lacks this function")),
        }
    });
    environment.add_function(REMAINDER, |state: &mut State<'_, '_>, left: Value, right: Value| match left.as_str() {
        Some(format) => percent::format(state, format, &right),
        None => remainder(&left, &right),
    });
    environment.remove_global("debug");
}

/// Calls `dict(map, **more)`, which also accepts pairs.
fn dict(arguments: &[Value]) -> Result<Value, Error> {
    let (positional, named): (&[Value], Kwargs) = from_args(arguments)?;
    let mut pairs: Vec<(Value, Value)> = Vec::new();
    match positional {
        [] => {}
        [map] if map.kind() == ValueKind::Map => {
            pairs.extend(map.as_object().and_then(|map| map.try_iter_pairs()).into_iter().flatten());
        }
        [list] => {
            for pair in list.try_iter()? {
                let pair: Vec<_> = pair.try_iter()?.collect();
                match <[Value; 2]>::try_from(pair) {
                    Ok([key, value]) => pairs.push((key, value)),
                    Err(other) => return Err(fail(format!("dict: expected pairs, got {} values", other.len()))),
                }
            }
        }
        _ => return Err(fail("dict: expected one map")),
    }
    for name in named.args() {
        pairs.push((Value::from(name), named.get(name)?));
    }
    named.assert_all_used()?;
    Ok(Value::from_pairs(pairs))
}

/// A range, as `range(begin, end, step)` returns it.
#[derive(Debug)]
struct Range {
    begin: i64,
    end: i64,
    step: i64,
    length: usize,
}

impl Range {
    fn of(arguments: &[Value]) -> Result<Value, Error> {
        let number = |value: &Value| {
            let number = integer(value).and_then(|number| i64::try_from(number).ok());
            number.ok_or_else(|| fail(format!("range: expected an integer, got {value}")))
        };
        let (begin, end, step) = match arguments {
            [end] => (0, number(end)?, 1),
            [begin, end] => (number(begin)?, number(end)?, 1),
            [begin, end, step] => (number(begin)?, number(end)?, number(step)?),
            _ => return Err(fail(format!("range: expected 1 to 3 integers, got {}", arguments.len()))),
        };
        let distance = if step > 0 { i128::from(end) - i128::from(begin) } else { i128::from(begin) - i128::from(end) };
        let length = match i128::from(step).abs() {
            0 => return Err(fail("range: expected a step that is not 0")),
            step => (distance.max(0) + step - 1) / step,
        };
        match usize::try_from(length) {
            Ok(length) if length <= MAX_RANGE as usize => Ok(Value::from_object(Self { begin, end, step, length })),
            _ => Err(fail(format!("range: expected at most {MAX_RANGE} numbers, got {length}"))),
        }
    }
}

impl Object for Range {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let index = i64::try_from(integer(key)?).ok().filter(|index| *index >= 0 && (*index as usize) < self.length)?;
        Some(Value::from(self.begin + index * self.step))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.length)
    }

    fn render(self: &Arc<Self>, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "range({}, {})", self.begin, self.end)
    }
}

/// Begin, end and step of a value that is a range.
pub(super) fn range_of(value: &Value) -> Option<(i64, i64, i64)> {
    value.downcast_object_ref::<Range>().map(|range| (range.begin, range.end, range.step))
}
