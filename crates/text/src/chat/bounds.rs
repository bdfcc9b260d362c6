//! Limits of a template: of its work and memory, in proportion to the size of its input, and of the depth and size of
//! its values.
//!
//! The engine counts work and bytes as fuel, and knows the size of a result before making it. It limits neither the
//! nesting of values nor how often a value is a part of another: the filter of this module measures every value that
//! contains others when it is made ([`super::dialect`] adds the filter).

use minijinja::value::{Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::objects::Generator;

/// Name of the filter that limits a value.
pub(super) const BOUNDED: &str = "__bounded";
/// Name of the filter that limits a value of a namespace. The value must not contain a namespace, which could contain
/// itself.
pub(super) const HELD: &str = "__held";
/// Maximum nesting of a value.
pub(super) const MAX_DEPTH: usize = 64;
/// Maximum number of values within a value, counted as often as each is a part of it.
const MAX_VALUES: u64 = 1_000_000;
/// Fuel for every conversation: instructions, and blocks of 64 bytes.
const FUEL: u64 = 2_000_000;
/// Additional fuel for each message.
const FUEL_A_MESSAGE: u64 = 2_000;
/// Number of bytes of messages for each additional unit of fuel.
const BYTES_A_FUEL: u64 = 4;

/// Fuel for this number of messages and bytes.
pub(super) fn fuel(messages: usize, bytes: usize) -> u64 {
    FUEL + FUEL_A_MESSAGE * messages as u64 + bytes as u64 / BYTES_A_FUEL
}

/// Maximum length of a rendered conversation, in bytes.
pub(super) fn max_output(bytes: usize) -> usize {
    (4 << 20) + bytes.saturating_mul(8)
}

pub(super) fn register(environment: &mut Environment<'_>) {
    environment.add_filter(BOUNDED, |state: &State<'_, '_>, value: Value, _rest: Rest<Value>| {
        Walk { state, left: MAX_VALUES, refuse_namespaces: false }.value(&value, 0).map(|()| value)
    });
    environment.add_filter(HELD, |state: &State<'_, '_>, value: Value, _rest: Rest<Value>| {
        Walk { state, left: MAX_VALUES, refuse_namespaces: true }.value(&value, 0).map(|()| value)
    });
}

/// Consumes fuel for bytes that are about to be made.
///
/// # Errors
///
/// An error if too little fuel remains.
pub(super) fn pay(state: &State<'_, '_>, bytes: usize) -> Result<(), Error> {
    state.consume_fuel(bytes as u64 / 64)
}

/// Consumes fuel for a value that is about to be read as a whole.
///
/// # Errors
///
/// An error if too little fuel remains.
pub(super) fn pay_for(state: &State<'_, '_>, value: &Value) -> Result<(), Error> {
    match value.as_str() {
        Some(text) => pay(state, text.len()),
        None => {
            state.consume_fuel(value.len().unwrap_or(0) as u64)?;
            Walk { state, left: MAX_VALUES, refuse_namespaces: false }.value(value, 0)
        }
    }
}

struct Walk<'a, 'b, 'c> {
    state: &'a State<'b, 'c>,
    left: u64,
    refuse_namespaces: bool,
}

impl Walk<'_, '_, '_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let Some(object) = value.as_object() else { return Ok(()) };
        let fail = |problem: String| Err(Error::new(ErrorKind::InvalidOperation, problem));
        if depth > MAX_DEPTH {
            return fail(format!("a value nests more than {MAX_DEPTH} values deep"));
        }
        if self.refuse_namespaces && object.type_name().ends_with("Namespace") {
            return fail("a namespace holds a namespace".to_owned());
        }
        // Iteration would consume a generator.
        if let Some(generator) = value.downcast_object_ref::<Generator>() {
            return self.values(generator.peek().into_iter(), depth);
        }
        let length = match value.kind() {
            ValueKind::Map | ValueKind::Seq | ValueKind::Iterable => value.len().unwrap_or(0) as u64,
            _ => return Ok(()),
        };
        if value.kind() == ValueKind::Map {
            self.values(object.try_iter_pairs().into_iter().flatten().map(|(_, held)| held), depth)
        } else {
            // A long range contains no nested values.
            if super::globals::range_of(value).is_some() {
                return self.count(length);
            }
            self.values(object.try_iter().into_iter().flatten(), depth)
        }
    }

    fn values(&mut self, values: impl Iterator<Item = Value>, depth: usize) -> Result<(), Error> {
        for held in values {
            self.count(1)?;
            self.value(&held, depth + 1)?;
        }
        Ok(())
    }

    fn count(&mut self, values: u64) -> Result<(), Error> {
        match self.left.checked_sub(values) {
            Some(left) => self.left = left,
            None => {
                let problem = format!("a value holds more than {MAX_VALUES} values");
                return Err(Error::new(ErrorKind::InvalidOperation, problem));
            }
        }
        if self.left.is_multiple_of(16) { self.state.consume_fuel(1) } else { Ok(()) }
    }
}
