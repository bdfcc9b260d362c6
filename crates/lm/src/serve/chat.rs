//! `/v1/chat/completions`: the assistant's next message, by the model's chat template.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use serde_json::{Value, json};
use text::data::prompt::Prompt;

use super::Server;
use super::answer::{self, Frame, Piece, Reading, Usage, Word};
use super::documented::CHAT;
use super::messages::messages;
use super::refusal::Refusal;
use super::request::{Budget, CommonFields, Detail, Fields, Length};
use super::wording::Wording;

/// Maximum of `top_logprobs`.
const MAX_TOP: usize = 20;

/// An in-flight answer.
struct Chat {
    common: CommonFields,
    /// Whether the answer has the log-probabilities of its tokens.
    words: bool,
    reading: Reading,
}

impl Chat {
    /// Reads a request and adds it to the model's queue.
    fn prepare(server: &Server, body: &[u8]) -> Result<Self, Refusal> {
        let mut fields = Fields::read(body)?;
        let common = CommonFields::read(&mut fields, server, &CHAT)?;
        let messages = messages(fields.value("messages"))?;
        let (old, new) = (fields.count("max_tokens")?, fields.count("max_completion_tokens")?);
        let length = match (old, new) {
            (Some(_), Some(given)) => {
                return Err(Refusal::field("max_completion_tokens", "nothing beside max_tokens", given));
            }
            (Some(count), None) => Length::Exactly("max_tokens", count),
            (None, Some(count)) => Length::Exactly("max_completion_tokens", count),
            (None, None) => Length::AtMost(usize::MAX),
        };
        let words = fields.flag("logprobs")?;
        let top = fields.count("top_logprobs")?.unwrap_or(0);
        if top > 0 && !words {
            return Err(Refusal::field("top_logprobs", "nothing without logprobs", top));
        }
        if top > MAX_TOP {
            return Err(Refusal::field("top_logprobs", format!("at most {MAX_TOP}"), top));
        }
        fields.end()?;
        let places = server.queue(1)?;
        let longest = server.longest_prompt(length);
        let prompt = server.wording.encode(&Prompt::Conversation(messages), "messages", longest)?;
        let task = common.task(server, prompt.clone(), 0, length, Detail { scores: false, top })?;
        Budget::new(server).take(&task, words)?;
        let reports = server.submit(vec![task], places)?.pop().ok_or_else(Refusal::gone)?;
        let reading = Reading { prompt, echo: None, words, stops: common.stops.as_slice().into(), reports };
        Ok(Self { common, words, reading })
    }
}

pub(super) async fn answer(State(server): State<Arc<Server>>, body: Bytes) -> Result<Response, Refusal> {
    let Chat { common, words, reading } = server.prepare(move |server| Chat::prepare(server, &body)).await?;
    let prompt_tokens = reading.prompt.len();
    let pieces = answer::read(&server, vec![reading]);
    if !common.stream {
        let frame = Frame::new(&server, "chatcmpl", "chat.completion", common.seed);
        let answers = answer::whole(pieces, 1).await?;
        let completion = answers.iter().map(|piece| piece.tokens).sum();
        let choice = |piece: &Piece| {
            let message = json!({"role": "assistant", "content": piece.text});
            Choice {
                index: 0,
                message: Some(message),
                delta: None,
                logprobs: words.then(|| LogProbs::new(piece, &server.wording)),
                finish_reason: piece.finish,
            }
        };
        let choices = answers.iter().map(choice).collect();
        let usage = Usage { prompt: prompt_tokens, completion }.json();
        return Ok(frame.response(Answer { choices, usage: Some(usage) }));
    }
    let frame = Frame::new(&server, "chatcmpl", "chat.completion.chunk", common.seed);
    let own = frame.clone();
    let mut is_first = true;
    let events = move |piece: Piece| {
        let event = |delta: Value, logprobs: Option<LogProbs<'_>>, finish_reason: Option<&'static str>| {
            let choice = Choice { index: 0, message: None, delta: Some(delta), logprobs, finish_reason };
            own.text(Answer { choices: vec![choice], usage: None })
        };
        let mut events = Vec::new();
        if std::mem::replace(&mut is_first, false) {
            events.push(event(json!({"role": "assistant", "content": ""}), None, None));
        }
        if !piece.text.is_empty() || !piece.words.is_empty() {
            let logprobs = words.then(|| LogProbs::new(&piece, &server.wording));
            events.push(event(json!({"content": piece.text}), logprobs, None));
        }
        if piece.finish.is_some() {
            events.push(event(json!({}), None, piece.finish));
        }
        events
    };
    Ok(answer::stream(pieces, events, move |completion| {
        let usage = Usage { prompt: prompt_tokens, completion }.json();
        common.usage.then(|| frame.text(Answer { choices: Vec::new(), usage: Some(usage) }))
    }))
}

/// A response or an event of a stream.
#[derive(Serialize)]
struct Answer<'a> {
    choices: Vec<Choice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Value>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<Value>,
    logprobs: Option<LogProbs<'a>>,
    finish_reason: Option<&'static str>,
}

/// Log-probabilities of an answer's tokens.
#[derive(Serialize)]
struct LogProbs<'a> {
    content: Vec<TokenLogProb<'a>>,
}

#[derive(Serialize)]
struct TokenLogProb<'a> {
    #[serde(flatten)]
    token: Token<'a>,
    top_logprobs: Vec<Token<'a>>,
}

#[derive(Serialize)]
struct Token<'a> {
    token: &'a str,
    logprob: f64,
    bytes: &'a [u8],
}

impl<'a> LogProbs<'a> {
    fn new(piece: &Piece, wording: &'a Wording) -> Self {
        let token = |token: u32, logprob| Token { token: wording.word(token), logprob, bytes: wording.bytes(token) };
        let entry = |word: &Word| TokenLogProb {
            token: token(word.token, word.log_prob.unwrap_or(0.0)),
            top_logprobs: word.top.iter().map(|(other, log_prob)| token(*other, *log_prob)).collect(),
        };
        Self { content: piece.words.iter().map(entry).collect() }
    }
}
