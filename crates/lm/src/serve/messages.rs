//! Messages of a conversation as clients send them, including messages of earlier answers.

use serde_json::Value;
use strum::VariantNames;
use text::chat::{Message, Role};

use super::refusal::Refusal;
use super::request::{Fields, short};

/// Reads the conversation of a request, and rejects fields that the chat template would not render.
pub(super) fn messages(value: Option<Value>) -> Result<Vec<Message>, Refusal> {
    let allowed = "a list of messages, at least one";
    let turns = match value {
        Some(Value::Array(turns)) if !turns.is_empty() => turns,
        Some(other) => return Err(Refusal::field("messages", allowed, short(&other))),
        None => return Err(Refusal::field("messages", allowed, "nothing")),
    };
    turns.into_iter().enumerate().map(|(index, turn)| message(turn, format!("messages[{index}]"))).collect()
}

fn message(turn: Value, place: String) -> Result<Message, Refusal> {
    let mut fields = match turn {
        Value::Object(fields) => Fields::within(&place, fields),
        other => {
            return Err(Refusal::field(place, "a message such as {\"role\": ..., \"content\": ...}", short(&other)));
        }
    };
    let roles = format!("one of {}", Role::VARIANTS.join(", "));
    let role = match fields.value("role") {
        Some(value) => value
            .as_str()
            .and_then(|role| role.parse().ok())
            .ok_or_else(|| fields.refuse("role", &roles, short(&value)))?,
        None => return Err(fields.refuse("role", &roles, "nothing")),
    };
    // Templates render neither the name of a speaker nor the id of a tool call.
    _ = fields.take::<String>("name", "text")?;
    if role == Role::Tool {
        _ = fields.take::<String>("tool_call_id", "text")?;
    }
    if role == Role::Assistant {
        // Fields of an answer's message besides its content. Citations do not change the text.
        _ = fields.take::<Vec<Value>>("annotations", "a list")?;
        for name in ["tool_calls", "function_call", "refusal", "audio"] {
            if let Some(value) = fields.value(name).filter(|value| value.as_array().is_none_or(|list| !list.is_empty()))
            {
                return Err(fields.refuse(name, "nothing, as the chat template does not render it", short(&value)));
            }
        }
    }
    let content = match fields.value("content") {
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => {
            let part = |(index, part)| text_part(part, format!("{place}.content[{index}]"));
            parts.into_iter().enumerate().map(part).collect::<Result<_, _>>()?
        }
        other => {
            let given = other.map_or_else(|| "nothing".to_owned(), |value| short(&value));
            return Err(fields.refuse("content", "text or a list of parts", given));
        }
    };
    fields.end()?;
    Ok(Message { role, content })
}

/// Text of a part. Other kinds of parts are rejected.
fn text_part(part: Value, place: String) -> Result<String, Refusal> {
    let mut fields = match part {
        Value::Object(fields) => Fields::within(&place, fields),
        other => {
            return Err(Refusal::field(place, "a part such as {\"type\": \"text\", \"text\": ...}", short(&other)));
        }
    };
    let kind = fields.value("type");
    if kind.as_ref().is_none_or(|kind| kind != "text") {
        let given = kind.map_or_else(|| "nothing".to_owned(), |kind| short(&kind));
        return Err(fields.refuse("type", "\"text\"", given));
    }
    let text = fields.take::<String>("text", "text")?;
    fields.end()?;
    text.ok_or_else(|| Refusal::field(format!("{place}.text"), "text", "nothing"))
}
