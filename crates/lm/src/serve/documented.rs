//! Fields of OpenAI's API that are not supported: values without effect are accepted, and values that would change the
//! answer are rejected with the field's name.

use serde_json::Value;

use super::refusal::Refusal;
use super::request::{Fields, short};

/// An unsupported field, and its values without effect.
pub(super) struct Unsupported {
    name: &'static str,
    /// Description of the allowed values for errors.
    allowed: &'static str,
    asks_nothing: fn(&Value) -> bool,
}

const fn field(name: &'static str, allowed: &'static str, asks_nothing: fn(&Value) -> bool) -> Unsupported {
    Unsupported { name, allowed, asks_nothing }
}

/// Unsupported fields of both routes.
const BOTH: [Unsupported; 6] = [
    field("n", "1", is_one),
    field("best_of", "1", is_one),
    field("presence_penalty", "0", is_zero),
    field("frequency_penalty", "0", is_zero),
    field("logit_bias", "no bias other than 0, as biases are not supported", |value| {
        value.as_object().is_some_and(|biases| biases.values().all(is_zero))
    }),
    // The caller's identity does not change the answer.
    field("user", "text", Value::is_string),
];

/// Unsupported fields of completions alone.
pub(super) const COMPLETIONS: [Unsupported; 1] =
    [field("suffix", "no suffix, as insertion is not supported", |value| value == "")];

/// Unsupported fields of chat completions alone.
pub(super) const CHAT: [Unsupported; 18] = [
    field("tools", "no tools, as tools are not supported", is_empty_list),
    field("functions", "no functions, as functions are not supported", is_empty_list),
    field("tool_choice", "\"none\" or \"auto\", as there are no tools", is_no_choice),
    field("function_call", "\"none\" or \"auto\", as there are no functions", is_no_choice),
    field("parallel_tool_calls", "true or false", Value::is_boolean),
    field("response_format", "{\"type\": \"text\"}, as other formats are not supported", |value| {
        value
            .as_object()
            .is_some_and(|format| format.len() == 1 && format.get("type").is_some_and(|kind| kind == "text"))
    }),
    field("modalities", "[\"text\"]", |value| *value == serde_json::json!(["text"])),
    field("audio", "no audio, as answers are text", |_| false),
    field("store", "false, as storage is not supported", |value| *value == false),
    field("reasoning_effort", "\"none\", as efforts are not supported", |value| value == "none"),
    field("verbosity", "\"medium\", as verbosity is not supported", |value| value == "medium"),
    field("web_search_options", "nothing, as web search is not supported", |_| false),
    // Priority, price and bookkeeping do not change the answer.
    field("prediction", "an object", Value::is_object),
    field("metadata", "an object", Value::is_object),
    field("service_tier", "text", Value::is_string),
    field("prompt_cache_key", "text", Value::is_string),
    field("prompt_cache_retention", "text", Value::is_string),
    field("safety_identifier", "text", Value::is_string),
];

/// Rejects unsupported values of the fields of both routes and of one route's own.
pub(super) fn refuse_unsupported(fields: &mut Fields, own: &[Unsupported]) -> Result<(), Refusal> {
    for Unsupported { name, allowed, asks_nothing } in BOTH.iter().chain(own) {
        if let Some(value) = fields.value(name)
            && !asks_nothing(&value)
        {
            return Err(fields.refuse(name, allowed, short(&value)));
        }
    }
    Ok(())
}

fn is_one(value: &Value) -> bool {
    value.as_f64() == Some(1.0)
}

fn is_zero(value: &Value) -> bool {
    value.as_f64() == Some(0.0)
}

fn is_empty_list(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty)
}

fn is_no_choice(value: &Value) -> bool {
    value == "none" || value == "auto"
}
