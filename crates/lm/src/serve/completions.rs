//! `/v1/completions`: completions of prompts, and log-probabilities of the prompts' own tokens if they are echoed.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use serde::{Serialize, Serializer};
use serde_json::Value;
use text::data::prompt::Prompt;

use super::Server;
use super::answer::{self, Frame, Piece, Reading, Usage, Word};
use super::documented::COMPLETIONS;
use super::refusal::Refusal;
use super::request::{Budget, CommonFields, Detail, Fields, Length, short};
use super::stopping::Stop;
use super::wording::Wording;

/// Default of `max_tokens`.
const MAX_TOKENS: usize = 16;
/// Maximum of `logprobs`.
const MAX_TOP: usize = 5;

/// In-flight answers of one request.
struct Completion {
    common: CommonFields,
    /// Number of most probable tokens to report with each token; `None` if log-probabilities are not wanted.
    log_probs: Option<usize>,
    readings: Vec<Reading>,
}

impl Completion {
    /// Reads a request and adds its prompts to the model's queue.
    fn prepare(server: &Server, body: &[u8]) -> Result<Self, Refusal> {
        let mut fields = Fields::read(body)?;
        let common = CommonFields::read(&mut fields, server, &COMPLETIONS)?;
        let prompts = prompts(fields.value("prompt"))?;
        let length = match fields.count("max_tokens")? {
            Some(count) => Length::Exactly("max_tokens", count),
            None => Length::AtMost(MAX_TOKENS),
        };
        let log_probs = fields.count("logprobs")?;
        if let Some(given) = log_probs.filter(|count| *count > MAX_TOP) {
            return Err(Refusal::field("logprobs", format!("at most {MAX_TOP}"), given));
        }
        let echo = fields.flag("echo")?;
        fields.end()?;
        let places = server.queue(prompts.len())?;
        let (detail, longest) = (
            Detail { scores: echo && log_probs.is_some(), top: log_probs.unwrap_or(0) },
            server.longest_prompt(length),
        );
        let is_one = prompts.len() == 1;
        let mut budget = Budget::new(server);
        let (mut tasks, mut echoes) = (Vec::with_capacity(prompts.len()), Vec::with_capacity(prompts.len()));
        for (index, prompt) in prompts.into_iter().enumerate() {
            let name = if is_one { "prompt".to_owned() } else { format!("prompt[{index}]") };
            let tokens = server.wording.encode(&prompt, &name, longest)?;
            let task = common.task(server, tokens, index, length, detail)?;
            budget.take(&task, log_probs.is_some())?;
            echoes.push(match prompt {
                _ if !echo => None,
                Prompt::Text(text) => Some(text),
                _ => Some(server.wording.decode(&task.prompt).map_err(|error| Refusal::of_text(&error, &name))?),
            });
            tasks.push(task);
        }
        let prompts: Vec<Vec<u32>> = tasks.iter().map(|task| task.prompt.clone()).collect();
        let reports = server.submit(tasks, places)?;
        let stops: Arc<[Stop]> = common.stops.as_slice().into();
        let readings = prompts.into_iter().zip(echoes).zip(reports).map(|((prompt, echo), reports)| Reading {
            prompt,
            echo,
            words: log_probs.is_some(),
            stops: Arc::clone(&stops),
            reports,
        });
        let readings = readings.collect();
        Ok(Self { common, log_probs, readings })
    }
}

pub(super) async fn answer(State(server): State<Arc<Server>>, body: Bytes) -> Result<Response, Refusal> {
    let prepare = move |server: &Server| Completion::prepare(server, &body);
    let Completion { common, log_probs, readings } = server.prepare(prepare).await?;
    let prompt_tokens = readings.iter().map(|reading| reading.prompt.len()).sum();
    let count = readings.len();
    let pieces = answer::read(&server, readings);
    let frame = Frame::new(&server, "cmpl", "text_completion", common.seed);
    if !common.stream {
        let answers = answer::whole(pieces, count).await?;
        let completion = answers.iter().map(|piece| piece.tokens).sum();
        let choices = answers.iter().map(|piece| Choice::new(piece, log_probs, &mut 0, &server.wording)).collect();
        let usage = Usage { prompt: prompt_tokens, completion }.json();
        return Ok(frame.response(Answer { choices, usage: Some(usage) }));
    }
    let mut offsets = vec![0; count];
    let own = frame.clone();
    let events = move |piece: Piece| {
        if piece.text.is_empty() && piece.words.is_empty() && piece.finish.is_none() {
            return Vec::new();
        }
        let choice = Choice::new(&piece, log_probs, &mut offsets[piece.index], &server.wording);
        vec![own.text(Answer { choices: vec![choice], usage: None })]
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
    text: &'a str,
    logprobs: Option<LogProbs<'a>>,
    finish_reason: Option<&'static str>,
}

/// Log-probabilities of an answer's tokens.
#[derive(Serialize)]
struct LogProbs<'a> {
    tokens: Vec<&'a str>,
    token_logprobs: Vec<Option<f64>>,
    top_logprobs: Vec<Option<Tops<'a>>>,
    text_offset: Vec<usize>,
    bytes: Vec<&'a [u8]>,
}

/// The most probable tokens by their texts. Of several with the same text, the most probable one is kept.
struct Tops<'a> {
    word: &'a Word,
    wording: &'a Wording,
}

impl<'a> Choice<'a> {
    /// Converts a piece that begins after `offset` characters.
    fn new(piece: &'a Piece, log_probs: Option<usize>, offset: &mut usize, wording: &'a Wording) -> Self {
        let Piece { index, text, words, finish, .. } = piece;
        let logprobs = log_probs.map(|top| LogProbs::new(words, top, offset, wording));
        Self { index: *index, text, logprobs, finish_reason: *finish }
    }
}

impl<'a> LogProbs<'a> {
    fn new(words: &'a [Word], top: usize, offset: &mut usize, wording: &'a Wording) -> Self {
        let text_offset = words.iter().map(|word| {
            let before = *offset;
            *offset += word.characters as usize;
            before
        });
        let tops = |word: &'a Word| (top > 0 && word.log_prob.is_some()).then_some(Tops { word, wording });
        Self {
            text_offset: text_offset.collect(),
            tokens: words.iter().map(|word| wording.word(word.token)).collect(),
            token_logprobs: words.iter().map(|word| word.log_prob).collect(),
            top_logprobs: words.iter().map(tops).collect(),
            bytes: words.iter().map(|word| wording.bytes(word.token)).collect(),
        }
    }
}

impl Serialize for Tops<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { word, wording } = self;
        let text = |(token, _): &(u32, f64)| wording.word(*token);
        let is_first = |place: usize| !word.top[..place].iter().any(|before| text(before) == text(&word.top[place]));
        let shown = word.top.iter().enumerate().filter(|(place, _)| is_first(*place));
        serializer.collect_map(shown.map(|(_, top)| (text(top), top.1)))
    }
}

/// Reads the prompts: a text, texts, token ids or lists of token ids.
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
