//! Formatting of values as Python's `str` and `repr` format them, with limits.

use minijinja::value::{DynObject, ValueKind};
use minijinja::{Error, State, Value};

use super::arguments::{fail, integer};
use super::bounds::MAX_DEPTH;
use super::objects::{DictView, Generator, Group};
use crate::python_json::python_float;

/// Maximum length of a string that is made without consuming fuel.
const MAX_TEXT: usize = 64 << 20;

/// Formats a value as `str(value)` does, and consumes fuel for it.
///
/// # Errors
///
/// An error for a text that the fuel does not cover, and for too deep nesting.
pub(super) fn python_str(state: &State<'_, '_>, value: &Value) -> Result<String, Error> {
    let limit = state
        .fuel_levels()
        .map_or(MAX_TEXT, |(_, left)| usize::try_from(left).map_or(MAX_TEXT, |left| left.saturating_mul(64)));
    let mut text = Bounded { text: String::new(), limit: limit.min(MAX_TEXT) };
    write_str(&mut text, value)?;
    state.consume_fuel(text.text.len() as u64 / 16)?;
    Ok(text.text)
}

/// Formats a value as `repr(value)` does.
///
/// # Errors
///
/// An error for a text that is too long, and for too deep nesting.
pub(super) fn python_repr(value: &Value) -> Result<String, Error> {
    let mut text = Bounded { text: String::new(), limit: MAX_TEXT };
    write_repr(&mut text, value, 0)?;
    Ok(text.text)
}

pub(super) struct Bounded {
    pub(super) text: String,
    pub(super) limit: usize,
}

impl Bounded {
    pub(super) fn push(&mut self, text: &str) -> Result<(), Error> {
        if self.text.len() + text.len() > self.limit {
            return Err(fail(format!("a text is longer than {} bytes", self.limit)));
        }
        self.text.push_str(text);
        Ok(())
    }
}

fn write_str(text: &mut Bounded, value: &Value) -> Result<(), Error> {
    match value.as_str() {
        Some(value) => text.push(value),
        None if value.is_undefined() => Ok(()),
        None => write_repr(text, value, 0),
    }
}

fn write_repr(text: &mut Bounded, value: &Value, depth: usize) -> Result<(), Error> {
    if depth > 2 * MAX_DEPTH {
        return Err(fail(format!("a value nests more than {} values deep", 2 * MAX_DEPTH)));
    }
    match value.kind() {
        ValueKind::Undefined => text.push("Undefined"),
        ValueKind::None => text.push("None"),
        ValueKind::Bool => text.push(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number => match integer(value) {
            Some(integer) => text.push(&integer.to_string()),
            None => match f64::try_from(value.clone()) {
                Ok(number) if !value.is_integer() => text.push(&python_float(number)),
                _ => text.push(&value.to_string()),
            },
        },
        ValueKind::String => write_text(text, value.as_str().unwrap_or_default()),
        ValueKind::Map => {
            let object = value.as_object();
            let is_namespace = object.is_some_and(|object| object.type_name().ends_with("Namespace"));
            text.push(if is_namespace { "<Namespace {" } else { "{" })?;
            for (index, (key, held)) in object.and_then(DynObject::try_iter_pairs).into_iter().flatten().enumerate() {
                text.push(if index > 0 { ", " } else { "" })?;
                write_repr(text, &key, depth + 1)?;
                text.push(": ")?;
                write_repr(text, &held, depth + 1)?;
            }
            text.push(if is_namespace { "}>" } else { "}" })
        }
        ValueKind::Seq | ValueKind::Iterable => {
            if value.downcast_object_ref::<Generator>().is_some() {
                return text.push("<generator object>");
            }
            if let Some(view) = value.downcast_object_ref::<DictView>() {
                text.push(view.name)?;
                text.push("([")?;
                write_items(text, view.values.iter().cloned(), depth)?;
                return text.push("])");
            }
            if let Some((begin, end, step)) = super::globals::range_of(value) {
                return text.push(&match step {
                    1 => format!("range({begin}, {end})"),
                    _ => format!("range({begin}, {end}, {step})"),
                });
            }
            let is_tuple = value.is_tuple() || value.downcast_object_ref::<Group>().is_some();
            let (begin, end) = match (is_tuple, value.len()) {
                (true, Some(1)) => ("(", ",)"),
                (true, _) => ("(", ")"),
                _ => ("[", "]"),
            };
            text.push(begin)?;
            write_items(text, value.try_iter()?, depth)?;
            text.push(end)
        }
        _ => text.push(&value.to_string()),
    }
}

fn write_items(text: &mut Bounded, items: impl Iterator<Item = Value>, depth: usize) -> Result<(), Error> {
    for (index, held) in items.enumerate() {
        text.push(if index > 0 { ", " } else { "" })?;
        write_repr(text, &held, depth + 1)?;
    }
    Ok(())
}

fn write_text(text: &mut Bounded, value: &str) -> Result<(), Error> {
    let quote = if value.contains('\'') && !value.contains('"') { "\"" } else { "'" };
    text.push(quote)?;
    let mut buffer = [0; 4];
    for character in value.chars() {
        match character {
            '\\' => text.push("\\\\")?,
            '\n' => text.push("\\n")?,
            '\r' => text.push("\\r")?,
            '\t' => text.push("\\t")?,
            '\'' if quote == "'" => text.push("\\'")?,
            _ if is_printable(character) => text.push(character.encode_utf8(&mut buffer))?,
            _ => text.push(&match u32::from(character) {
                code @ 0..=0xff => format!("\\x{code:02x}"),
                code @ 0x100..=0xffff => format!("\\u{code:04x}"),
                code => format!("\\U{code:08x}"),
            })?,
        }
    }
    text.push(quote)
}

/// Python's `str.isprintable` for one character, as far as strings use it: `repr` escapes control characters and white
/// space other than the space.
pub(super) fn is_printable(character: char) -> bool {
    character == ' '
        || !(character.is_control()
            || character.is_whitespace()
            || matches!(character, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e000}'..='\u{f8ff}' | '\u{fff9}'..='\u{fffb}' | '\u{fffe}'..='\u{ffff}'))
}
