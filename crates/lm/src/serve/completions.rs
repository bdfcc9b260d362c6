//! `/v1/completions`: prompts go on, and are scored where they are echoed.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::Server;
use super::answer::{self, Piece, Reading, Usage, Word};
use super::refusal::Refusal;
use super::request::{Asked, Detail, Fields, Length, short};
use crate::data::prompt::Prompt;

/// Tokens that follow unless it is said.
const MAX_TOKENS: usize = 16;
/// The most of the most probable tokens that are told.
const MOST: usize = 5;

/// What is asked here alone.
struct Completion {
    prompts: Vec<Prompt>,
    length: Length,
    echo: bool,
    /// How many of the most probable tokens are told with each token, if that is told of.
    log_probs: Option<usize>,
}

impl Completion {
    fn read(fields: &mut Fields) -> Result<Self, Refusal> {
        let prompts = prompts(fields.value("prompt"))?;
        let length = match fields.count("max_tokens")? {
            Some(asked) => Length::Asked("max_tokens", asked),
            None => Length::AtMost(MAX_TOKENS),
        };
        let log_probs = fields.count("logprobs")?;
        if let Some(given) = log_probs.filter(|count| *count > MOST) {
            return Err(Refusal::field("logprobs", format!("at most {MOST}"), given));
        }
        Ok(Self { prompts, length, echo: fields.flag("echo")?, log_probs })
    }
}

pub(super) async fn answer(State(server): State<Arc<Server>>, body: Body) -> Result<Response, Refusal> {
    let mut fields = Fields::receive(&server, body).await?;
    let asked = Asked::read(&mut fields, &server)?;
    let completion = Completion::read(&mut fields)?;
    fields.end()?;
    let Completion { prompts, length, echo, log_probs } = completion;
    let detail = Detail { scores: echo && log_probs.is_some(), top: log_probs.unwrap_or(0) };
    let is_one = prompts.len() == 1;
    let (mut tasks, mut echoes) = (Vec::with_capacity(prompts.len()), Vec::with_capacity(prompts.len()));
    for (index, prompt) in prompts.into_iter().enumerate() {
        let name = if is_one { "prompt".to_owned() } else { format!("prompt[{index}]") };
        let tokens = server.wording.encode(&prompt).map_err(|error| Refusal::of(&error, &name))?;
        let text = match prompt {
            _ if !echo => None,
            Prompt::Text(text) => Some(text),
            _ => Some(server.wording.decode(&tokens).map_err(|error| Refusal::of(&error, &name))?),
        };
        tasks.push(asked.task(&server, tokens, index, length, detail)?);
        echoes.push(text);
    }
    let prompts: Vec<Vec<u32>> = tasks.iter().map(|task| task.prompt.clone()).collect();
    let prompt_tokens = prompts.iter().map(Vec::len).sum();
    let told = server.submit(tasks)?;
    let count = told.len();
    let readings = prompts.into_iter().zip(echoes).zip(told).map(|((prompt, echo), told)| Reading {
        prompt,
        echo,
        words: log_probs.is_some(),
        stops: asked.stops.clone(),
        told,
    });
    let pieces = answer::read(&server, readings.collect());
    let frame = server.frame("cmpl", "text_completion");
    if !asked.stream {
        let answers = answer::whole(pieces, count).await?;
        let completion = answers.iter().map(|piece| piece.tokens).sum();
        let choices: Vec<Value> = answers.into_iter().map(|piece| choice(piece, log_probs, &mut 0)).collect();
        let usage = Usage { prompt: prompt_tokens, completion }.json();
        return Ok(Json(frame(json!({"choices": choices, "usage": usage}))).into_response());
    }
    let mut offsets = vec![0; count];
    let own = frame.clone();
    let events = move |piece: Piece| {
        if piece.text.is_empty() && piece.words.is_empty() && piece.finish.is_none() {
            return Vec::new();
        }
        let index = piece.index;
        vec![own(json!({"choices": [choice(piece, log_probs, &mut offsets[index])]}))]
    };
    Ok(answer::stream(pieces, events, move |completion| {
        let usage = Usage { prompt: prompt_tokens, completion }.json();
        asked.usage.then(|| frame(json!({"choices": [], "usage": usage})))
    }))
}

/// A piece of an answer whose tokens before it had `offset` characters.
fn choice(piece: Piece, log_probs: Option<usize>, offset: &mut usize) -> Value {
    let Piece { index, text, words, finish, .. } = piece;
    let log_probs = log_probs.map(|top| told(&words, top, offset));
    json!({"index": index, "text": text, "logprobs": log_probs, "finish_reason": finish})
}

/// How probable tokens are.
fn told(words: &[Word], top: usize, offset: &mut usize) -> Value {
    let [mut tokens, mut log_probs, mut tops, mut offsets]: [Vec<Value>; 4] = Default::default();
    for Word { text, log_prob, top: others } in words {
        tokens.push(text.as_str().into());
        log_probs.push((*log_prob).into());
        tops.push(match log_prob {
            Some(_) if top > 0 => {
                others.iter().map(|(text, log_prob)| (text.clone(), Value::from(*log_prob))).collect()
            }
            _ => Value::Null,
        });
        offsets.push((*offset).into());
        *offset += text.chars().count();
    }
    let fields = [("tokens", tokens), ("token_logprobs", log_probs), ("top_logprobs", tops), ("text_offset", offsets)];
    fields.into_iter().map(|(name, values)| (name.to_owned(), Value::Array(values))).collect::<Map<_, _>>().into()
}

/// The prompts: a text, texts, token ids or lists of them.
fn prompts(value: Option<Value>) -> Result<Vec<Prompt>, Refusal> {
    const ALLOWED: &str = "text, token ids, or a list of texts or of lists of token ids";
    let refuse = |given: &Value| Err(Refusal::field("prompt", ALLOWED, short(given)));
    match value {
        None => Err(Refusal::field("prompt", ALLOWED, "nothing")),
        Some(Value::String(text)) => Ok(vec![Prompt::Text(text)]),
        Some(Value::Array(values)) => match values.first() {
            None => refuse(&Value::Array(values)),
            Some(Value::Number(_)) => Ok(vec![Prompt::Ids(ids("prompt", &values)?)]),
            Some(_) => {
                let prompt = |(index, value): (usize, &Value)| match value {
                    Value::String(text) => Ok(Prompt::Text(text.clone())),
                    Value::Array(values) => ids(&format!("prompt[{index}]"), values).map(Prompt::Ids),
                    other => Err(Refusal::field(format!("prompt[{index}]"), "text or token ids", short(other))),
                };
                values.iter().enumerate().map(prompt).collect()
            }
        },
        Some(other) => refuse(&other),
    }
}

fn ids(name: &str, values: &[Value]) -> Result<Vec<u32>, Refusal> {
    let id = |(index, value): (usize, &Value)| {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| Refusal::field(format!("{name}[{index}]"), "a token id", short(value)))
    };
    values.iter().enumerate().map(id).collect()
}
