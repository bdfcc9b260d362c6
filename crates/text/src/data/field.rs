//! Readers of one field of a line: text, turns, token ids, numbers.

use objective::Constant;
use serde_json::{Map, Value};
use strum::VariantNames;

use super::unusable::Unusable;
use crate::chat::{Message, Role};
use crate::error::{TextError, refuse};

/// Content of a prompt or response, in either of TRL's two conventions.
pub(super) enum Content {
    Text(String),
    Turns(Vec<Message>),
}

impl Content {
    pub(super) fn is(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Turns(_) => "a list of turns",
        }
    }
}

pub(super) fn content(fields: &Map<String, Value>, field: &str) -> Result<Content, TextError> {
    content_of(fields.get(field), field)
}

/// Reads the content of a value; `place` is its name in errors.
pub(super) fn content_of(value: Option<&Value>, place: &str) -> Result<Content, TextError> {
    match value {
        Some(Value::String(text)) => Ok(Content::Text(text.clone())),
        Some(Value::Array(turns)) => turns
            .iter()
            .enumerate()
            .map(|(index, turn)| message(turn, &format!("{place}[{index}]")))
            .collect::<Result<_, _>>()
            .map(Content::Turns),
        other => Err(refuse(place, "text or a list of turns", given(other))),
    }
}

/// Reads a list of any values.
pub(super) fn list<'a>(
    fields: &'a Map<String, Value>,
    field: &str,
    allowed: &str,
) -> Result<&'a Vec<Value>, TextError> {
    match fields.get(field) {
        Some(Value::Array(values)) => Ok(values),
        other => Err(refuse(field, allowed, given(other))),
    }
}

pub(super) fn ids(fields: &Map<String, Value>, field: &str) -> Result<Vec<u32>, TextError> {
    ids_of(fields.get(field), field)
}

/// Reads the token ids of a value; `place` is its name in errors.
pub(super) fn ids_of(value: Option<&Value>, place: &str) -> Result<Vec<u32>, TextError> {
    match value {
        Some(Value::Array(ids)) if ids.is_empty() => {
            Err(Unusable::Empty.because(refuse(place, "at least 1 token id", "none")))
        }
        Some(Value::Array(ids)) => ids
            .iter()
            .enumerate()
            .map(|(index, id)| {
                let fits = id.as_u64().and_then(|id| u32::try_from(id).ok());
                fits.ok_or_else(|| {
                    refuse(&format!("{place}[{index}]"), format!("a token id, an integer from 0 to {}", u32::MAX), id)
                })
            })
            .collect(),
        other => Err(refuse(place, "a list of token ids", given(other))),
    }
}

/// Reads a number that a column permits; `place` is its name in errors.
pub(super) fn number_of(value: &Value, place: &str, column: Constant) -> Result<f64, TextError> {
    let (min, max) = column.range().into_inner();
    let number = value.as_f64().filter(|number| column.range().contains(number));
    number.ok_or_else(|| refuse(place, format!("a number from {min:?} to {max:?}"), value))
}

pub(super) fn verdict(fields: &Map<String, Value>, field: &str) -> Result<bool, TextError> {
    match fields.get(field) {
        Some(Value::Bool(verdict)) => Ok(*verdict),
        other => Err(refuse(field, "true or false", given(other))),
    }
}

fn given(value: Option<&Value>) -> String {
    value.map_or_else(|| "nothing".to_owned(), Value::to_string)
}

fn message(turn: &Value, place: &str) -> Result<Message, TextError> {
    let Value::Object(fields) = turn else {
        return Err(refuse(place, "a turn {\"role\": ..., \"content\": ...}", turn));
    };
    if let Some(unknown) = fields.keys().find(|field| !["role", "content"].contains(&field.as_str())) {
        return Err(refuse(&format!("{place}.{unknown}"), "one of the fields role, content", "an unknown field"));
    }
    let text = |field: &str, allowed: &str| match fields.get(field) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(refuse(&format!("{place}.{field}"), allowed, other.to_string())),
        None => Err(refuse(&format!("{place}.{field}"), allowed, "nothing")),
    };
    let roles = format!("one of {}", Role::VARIANTS.join(", "));
    let name = text("role", &roles)?;
    let role = name.parse().map_err(|_| refuse(&format!("{place}.role"), roles, name))?;
    Ok(Message { role, content: text("content", "text")? })
}
