//! `tojson` as transformers defines it: Python's `json.dumps`.

use minijinja::value::{DynObject, ValueKind};
use minijinja::{Error, State, Value};

use super::arguments::{bind, fail, given, integer, is_true, size_or, subject, text};
use super::bounds::{MAX_DEPTH, pay};
use super::objects::{DictView, Generator};
use super::python_text::python_repr;
use crate::python_json::{JsonStyle, python_float};

pub(super) fn tojson(state: &State<'_, '_>, arguments: &[Value]) -> Result<Value, Error> {
    let (value, arguments) = subject(arguments)?;
    let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
    let [ascii, indent, separators, sort_keys] = bind(arguments, names)?;
    let indent = match given(indent) {
        None => None,
        Some(indent) => Some(match indent.as_str() {
            Some(indent) => indent.to_owned(),
            None => {
                let spaces = size_or(Some(&indent), 0, "indent")?;
                pay(state, spaces)?;
                " ".repeat(spaces)
            }
        }),
    };
    let mut style = JsonStyle { ascii: is_true(ascii.as_ref(), false), ..JsonStyle::new(indent) };
    if let Some(separators) = given(separators) {
        let separators: Vec<_> = separators.try_iter()?.collect();
        let [item, key] = separators.as_slice() else { return Err(fail("tojson: separators: expected two texts")) };
        style.item_separator = text(item, "separators")?.to_owned();
        style.key_separator = text(key, "separators")?.to_owned();
    }
    let mut writer =
        Writer { state, style, sort_keys: is_true(sort_keys.as_ref(), false), text: String::new(), paid: 0 };
    writer.value(value, 0)?;
    writer.pay()?;
    Ok(Value::from(writer.text))
}

struct Writer<'a, 'b, 'c> {
    state: &'a State<'b, 'c>,
    style: JsonStyle,
    sort_keys: bool,
    text: String,
    paid: usize,
}

impl Writer<'_, '_, '_> {
    fn pay(&mut self) -> Result<(), Error> {
        // Writing costs more than copying.
        pay(self.state, 8 * (self.text.len() - self.paid))?;
        self.paid = self.text.len();
        Ok(())
    }

    fn line(&mut self, depth: usize) -> Result<(), Error> {
        if self.text.len() > self.paid + 4096 {
            self.pay()?;
        }
        if let Some(indent) = &self.style.indent {
            pay(self.state, indent.len() * depth)?;
            self.text.push('\n');
            self.text.push_str(&indent.repeat(depth));
        }
        Ok(())
    }

    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > 2 * MAX_DEPTH {
            return Err(fail(format!("tojson: a value nests more than {} values deep", 2 * MAX_DEPTH)));
        }
        let refused =
            || fail(format!("tojson: {} cannot be represented in JSON", python_repr(value).unwrap_or_default()));
        match value.kind() {
            ValueKind::None => self.text.push_str("null"),
            ValueKind::Bool => self.text.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.text.push_str(&number(value)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default())?,
            ValueKind::Map => self.map(value.as_object().ok_or_else(refused)?, depth)?,
            ValueKind::Seq | ValueKind::Iterable => {
                let is_other = value.downcast_object_ref::<Generator>().is_some()
                    || value.downcast_object_ref::<DictView>().is_some()
                    || super::globals::range_of(value).is_some();
                if is_other {
                    return Err(refused());
                }
                self.text.push('[');
                let mut is_empty = true;
                for held in value.try_iter()? {
                    if !is_empty {
                        self.text.push_str(&self.style.item_separator.clone());
                    }
                    is_empty = false;
                    self.line(depth + 1)?;
                    self.value(&held, depth + 1)?;
                }
                if !is_empty {
                    self.line(depth)?;
                }
                self.text.push(']');
            }
            _ => return Err(refused()),
        }
        Ok(())
    }

    fn map(&mut self, map: &DynObject, depth: usize) -> Result<(), Error> {
        if map.type_name().ends_with("Namespace") {
            return Err(fail("tojson: a namespace cannot be represented in JSON"));
        }
        let mut pairs: Vec<_> = map.try_iter_pairs().into_iter().flatten().collect();
        if self.sort_keys {
            let all = |test: fn(&Value) -> bool| pairs.iter().all(|(key, _)| test(key));
            if !all(|key| key.as_str().is_some()) && !all(|key| integer(key).is_some() || key.is_number()) {
                return Err(fail("tojson: sort_keys: expected keys of one kind"));
            }
            pairs.sort_by(|(left, _), (right, _)| left.cmp(right));
        }
        self.text.push('{');
        let is_empty = pairs.is_empty();
        for (index, (key, held)) in pairs.into_iter().enumerate() {
            if index > 0 {
                self.text.push_str(&self.style.item_separator.clone());
            }
            self.line(depth + 1)?;
            match key.kind() {
                ValueKind::String => self.string(key.as_str().unwrap_or_default())?,
                ValueKind::None => self.string("null")?,
                ValueKind::Bool => self.string(if key.is_true() { "true" } else { "false" })?,
                ValueKind::Number => self.string(&number(&key))?,
                _ => return Err(fail(format!("tojson: expected text as a key, got {}", key.kind()))),
            }
            self.text.push_str(&self.style.key_separator.clone());
            self.value(&held, depth + 1)?;
        }
        if !is_empty {
            self.line(depth)?;
        }
        self.text.push('}');
        Ok(())
    }

    fn string(&mut self, text: &str) -> Result<(), Error> {
        self.text.push('"');
        for character in text.chars() {
            match character {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                '\u{8}' => self.text.push_str("\\b"),
                '\u{c}' => self.text.push_str("\\f"),
                '\0'..='\u{1f}' => self.text.push_str(&format!("\\u{:04x}", u32::from(character))),
                _ if self.style.ascii && !character.is_ascii() => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        self.text.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                _ => self.text.push(character),
            }
        }
        self.text.push('"');
        if self.text.len() > self.paid + 4096 { self.pay() } else { Ok(()) }
    }
}

fn number(value: &Value) -> String {
    match (integer(value), f64::try_from(value.clone())) {
        (Some(integer), _) => integer.to_string(),
        (None, Ok(number)) if !value.is_integer() => match number {
            _ if number.is_nan() => "NaN".to_owned(),
            f64::INFINITY => "Infinity".to_owned(),
            f64::NEG_INFINITY => "-Infinity".to_owned(),
            _ => python_float(number),
        },
        _ => value.to_string(),
    }
}
