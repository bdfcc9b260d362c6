//! `/v1/chat/completions`: the assistant's next turn, by the model's chat template.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Server;
use super::answer::{self, Piece, Reading, Usage, Word};
use super::refusal::Refusal;
use super::request::{Asked, Detail, Fields, Length, short};
use crate::chat::{Message, Role};
use crate::data::prompt::Prompt;

/// The most of the most probable tokens that are told.
const MOST: usize = 20;

/// A turn as it is sent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Turn {
    role: Role,
    content: Content,
    /// Who of several, which templates are not told.
    #[serde(rename = "name")]
    _name: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum Part {
    Text { text: String },
}

pub(super) async fn answer(State(server): State<Arc<Server>>, body: Body) -> Result<Response, Refusal> {
    let mut fields = Fields::receive(&server, body).await?;
    let asked = Asked::read(&mut fields, &server)?;
    let messages = messages(fields.value("messages"))?;
    let (old, new) = (fields.count("max_tokens")?, fields.count("max_completion_tokens")?);
    let length = match (old, new) {
        (Some(_), Some(given)) => {
            return Err(Refusal::field("max_completion_tokens", "nothing beside max_tokens", given));
        }
        (Some(asked), None) => Length::Asked("max_tokens", asked),
        (None, Some(asked)) => Length::Asked("max_completion_tokens", asked),
        (None, None) => Length::AtMost(usize::MAX),
    };
    let words = fields.flag("logprobs")?;
    let top = fields.count("top_logprobs")?;
    match top {
        Some(given) if !words => return Err(Refusal::field("top_logprobs", "nothing without logprobs", given)),
        Some(given) if given > MOST => return Err(Refusal::field("top_logprobs", format!("at most {MOST}"), given)),
        _ => {}
    }
    fields.end()?;
    let refuse = |error| Refusal::of(&error, "messages");
    let prompt = server.wording.encode(&Prompt::Conversation(messages)).map_err(refuse)?;
    let detail = Detail { scores: false, top: top.unwrap_or(0) };
    let task = asked.task(&server, prompt.clone(), 0, length, detail)?;
    let prompt_tokens = prompt.len();
    let told = server.submit(vec![task])?;
    let reading = |told| Reading { prompt: prompt.clone(), echo: None, words, stops: asked.stops.clone(), told };
    let pieces = answer::read(&server, told.into_iter().map(reading).collect());
    if !asked.stream {
        let frame = server.frame("chatcmpl", "chat.completion");
        let answers = answer::whole(pieces, 1).await?;
        let completion = answers.iter().map(|piece| piece.tokens).sum();
        let choices: Vec<Value> = answers.iter().map(|piece| {
            let message = json!({"role": "assistant", "content": piece.text});
            json!({"index": 0, "message": message, "logprobs": told_of(piece, words), "finish_reason": piece.finish})
        }).collect();
        let usage = Usage { prompt: prompt_tokens, completion }.json();
        return Ok(Json(frame(json!({"choices": choices, "usage": usage}))).into_response());
    }
    let frame = server.frame("chatcmpl", "chat.completion.chunk");
    let own = frame.clone();
    let mut is_first = true;
    let events = move |piece: Piece| {
        let event = |delta: Value, log_probs: Option<Value>, finish: Option<&str>| {
            own(json!({"choices": [{"index": 0, "delta": delta, "logprobs": log_probs, "finish_reason": finish}]}))
        };
        let mut events = Vec::new();
        if std::mem::replace(&mut is_first, false) {
            events.push(event(json!({"role": "assistant", "content": ""}), None, None));
        }
        if !piece.text.is_empty() || !piece.words.is_empty() {
            events.push(event(json!({"content": piece.text}), told_of(&piece, words), None));
        }
        if piece.finish.is_some() {
            events.push(event(json!({}), None, piece.finish));
        }
        events
    };
    Ok(answer::stream(pieces, events, move |completion| {
        let usage = Usage { prompt: prompt_tokens, completion }.json();
        asked.usage.then(|| frame(json!({"choices": [], "usage": usage})))
    }))
}

/// How probable an answer's tokens are, if that is asked.
fn told_of(piece: &Piece, is_asked: bool) -> Option<Value> {
    let told = |text: &str, log_prob: f64| json!({"token": text, "logprob": log_prob, "bytes": text.as_bytes()});
    let word = |Word { text, log_prob, top }: &Word| {
        let mut word = told(text, log_prob.unwrap_or(0.0));
        word["top_logprobs"] = top.iter().map(|(text, log_prob)| told(text, *log_prob)).collect();
        word
    };
    is_asked.then(|| json!({"content": piece.words.iter().map(word).collect::<Vec<_>>()}))
}

fn messages(value: Option<Value>) -> Result<Vec<Message>, Refusal> {
    let allowed = "a list of turns, at least one";
    let turns = match value {
        Some(Value::Array(turns)) if !turns.is_empty() => turns,
        Some(other) => return Err(Refusal::field("messages", allowed, short(&other))),
        None => return Err(Refusal::field("messages", allowed, "nothing")),
    };
    let message = |(index, turn): (usize, Value)| {
        let Turn { role, content, .. } = serde_path_to_error::deserialize(turn).map_err(|error| {
            let param = match error.path().to_string().as_str() {
                "." => format!("messages[{index}]"),
                path => format!("messages[{index}].{path}"),
            };
            Refusal::body(format!("{param}: {}", error.into_inner())).with_param(&param)
        })?;
        let content = match content {
            Content::Text(text) => text,
            Content::Parts(parts) => parts.into_iter().map(|Part::Text { text }| text).collect(),
        };
        Ok(Message { role, content })
    };
    turns.into_iter().enumerate().map(message).collect()
}
