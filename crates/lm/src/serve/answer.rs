//! Conversion of the engine's reports about sequences into parts of an HTTP response, sent as a stream or as a whole.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};
use text::error::TextError;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use super::Server;
use super::refusal::Refusal;
use super::stopping::{Stop, Stopping};
use crate::engine::generate::{Finish, Scored};
use crate::engine::schedule::Report;
use crate::error::LmError;

/// Number of pieces that are buffered for a client.
const WAITING: usize = 64;

/// A sequence in progress, with the settings of its conversion into text.
pub(super) struct Reading {
    pub(super) prompt: Vec<u32>,
    /// Text of the prompt, if the answer repeats it.
    pub(super) echo: Option<String>,
    /// Whether the answer has the log-probabilities of its tokens.
    pub(super) words: bool,
    pub(super) stops: Arc<[Stop]>,
    pub(super) reports: Receiver<Result<Report, String>>,
}

/// A piece of an answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Piece {
    /// Index of the sequence in the request.
    pub(super) index: usize,
    pub(super) text: String,
    pub(super) words: Vec<Word>,
    /// Number of response tokens in this piece.
    pub(super) tokens: usize,
    /// Reason of the end; `None` if more pieces follow.
    pub(super) finish: Option<&'static str>,
}

/// A token of an answer.
#[derive(Clone, Debug)]
pub(super) struct Word {
    pub(super) token: u32,
    /// Number of characters whose first byte belongs to the token.
    pub(super) characters: u32,
    /// log π of the token, nats; `None` for the first token of a prompt.
    pub(super) log_prob: Option<f64>,
    /// The most probable tokens at this position, in decreasing order.
    pub(super) top: Vec<(u32, f64)>,
}

/// Fields that every part of a response has.
#[derive(Clone, Serialize)]
pub(super) struct Frame {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    /// Seed of the answer, with which the same request gets the same answer again.
    seed: u64,
}

#[derive(Serialize)]
struct Framed<'a, T> {
    #[serde(flatten)]
    frame: &'a Frame,
    #[serde(flatten)]
    own: T,
}

impl Frame {
    pub(super) fn new(server: &Server, prefix: &str, object: &'static str, seed: u64) -> Self {
        static ANSWERS: AtomicU64 = AtomicU64::new(0);
        let id = format!("{prefix}-{:x}-{}", server.created, ANSWERS.fetch_add(1, Ordering::Relaxed));
        Self { id, object, created: super::now(), model: server.settings.name.clone(), seed }
    }

    /// JSON of a part of a response.
    pub(super) fn text(&self, own: impl Serialize) -> String {
        // A structure of numbers and strings always serializes to JSON.
        serde_json::to_string(&Framed { frame: self, own }).unwrap_or_default()
    }

    /// A complete HTTP response.
    pub(super) fn response(&self, own: impl Serialize) -> Response {
        ([(CONTENT_TYPE, "application/json")], self.text(own)).into_response()
    }
}

/// Token counts of an answer.
#[derive(Clone, Copy)]
pub(super) struct Usage {
    pub(super) prompt: usize,
    pub(super) completion: usize,
}

impl Usage {
    pub(super) fn json(self) -> Value {
        let Self { prompt, completion } = self;
        json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion})
    }
}

/// Converts sequences in the background, and returns their pieces as a stream. When the receiver is dropped, the
/// sequences are cancelled.
pub(super) fn read(server: &Arc<Server>, readings: Vec<Reading>) -> Receiver<Result<Piece, Refusal>> {
    let (to, pieces) = mpsc::channel(WAITING);
    let deadline = Instant::now() + server.settings.limits.answer;
    for (index, reading) in readings.into_iter().enumerate() {
        let (server, to) = (Arc::clone(server), to.clone());
        tokio::spawn(async move {
            let late = |server: &Server| {
                let message =
                    format!("the answer exceeded its time limit of {} s", server.settings.limits.answer.as_secs_f64());
                Refusal::new(StatusCode::GATEWAY_TIMEOUT, message)
            };
            tokio::select! {
                () = to.closed() => {}
                read = tokio::time::timeout_at(deadline, follow(&server, reading, index, &to)) => {
                    match read {
                        Ok(Ok(())) => {}
                        Ok(Err(refusal)) => _ = to.send(Err(refusal)).await,
                        // A client that receives nothing gets no error.
                        Err(_) => _ = to.try_send(Err(late(&server))),
                    }
                }
            }
        });
    }
    pieces
}

/// Sends a sequence's pieces until its end, or until the receiver is dropped.
async fn follow(
    server: &Server,
    reading: Reading,
    index: usize,
    to: &Sender<Result<Piece, Refusal>>,
) -> Result<(), Refusal> {
    let Reading { prompt, mut echo, words, stops, mut reports } = reading;
    let fail = |error: TextError| Refusal::of_text(&error, "prompt");
    let word = |Scored { token, log_prob, top }: Scored| Word {
        token,
        characters: server.wording.characters(token),
        log_prob: Some(log_prob),
        top,
    };
    let mut growing = server.wording.grow(&prompt).map_err(fail)?;
    let mut stopping = Stopping::new(&stops);
    while let Some(report) = reports.recv().await {
        let mut piece = Piece { index, ..Piece::default() };
        let report = report.map_err(|message| Refusal::internal(&message))?;
        if let Some(echo) = echo.take() {
            piece.text = echo;
            if let Report::Prompt(_) = report {
                piece.words.extend(prompt.first().map(|&token| Word {
                    token,
                    characters: server.wording.characters(token),
                    log_prob: None,
                    top: Vec::new(),
                }));
            }
        }
        match report {
            Report::Prompt(scores) => {
                piece.words.extend(scores.into_iter().map(word));
            }
            Report::Token(scored) => {
                piece.tokens = 1;
                if !server.ends.contains(&scored.token) {
                    let (text, stops) = stopping.push(&growing.push(scored.token).map_err(fail)?);
                    piece.text.push_str(&text);
                    piece.finish = stops.then_some("stop");
                }
                if words {
                    let is_special = server.wording.is_special(scored.token);
                    let word = word(scored);
                    piece.words.push(if is_special { Word { characters: 0, ..word } } else { word });
                }
            }
            Report::End(finish) => {
                let (text, stops) = stopping.push(&growing.rest().map_err(fail)?);
                piece.text.push_str(&text);
                if !stops {
                    piece.text.push_str(&stopping.rest());
                }
                piece.finish = Some(if stops { Finish::Stop } else { finish }.into());
            }
            Report::NotNumbers => {
                let message = LmError::Logits { prompt: index }.to_string();
                return Err(Refusal::internal(&message));
            }
        }
        let is_end = piece.finish.is_some();
        if to.send(Ok(piece)).await.is_err() || is_end {
            return Ok(());
        }
    }
    Err(Refusal::gone())
}

/// Collects the complete answers of `sequences` sequences.
pub(super) async fn whole(mut pieces: Receiver<Result<Piece, Refusal>>, count: usize) -> Result<Vec<Piece>, Refusal> {
    let mut answers: Vec<_> = (0..count).map(|index| Piece { index, ..Piece::default() }).collect();
    while let Some(piece) = pieces.recv().await {
        let Piece { index, text, words, tokens, finish } = piece?;
        let answer = &mut answers[index];
        answer.text.push_str(&text);
        answer.words.extend(words);
        answer.tokens += tokens;
        answer.finish = finish.or(answer.finish);
    }
    Ok(answers)
}

/// Sends an answer as server-sent events: those to which `events` converts each piece, the one to which `end` converts
/// the token count, if any, and finally `[DONE]`.
pub(super) fn stream(
    mut pieces: Receiver<Result<Piece, Refusal>>,
    mut events: impl FnMut(Piece) -> Vec<String> + Send + 'static,
    end: impl FnOnce(usize) -> Option<String> + Send + 'static,
) -> Response {
    let (to, answers) = mpsc::channel::<Result<Event, Infallible>>(WAITING);
    tokio::spawn(async move {
        let send = async |data: String| to.send(Ok(Event::default().data(data))).await.is_ok();
        let mut tokens = 0;
        loop {
            let piece = tokio::select! {
                () = to.closed() => return,
                piece = pieces.recv() => piece,
            };
            match piece {
                None => break,
                Some(Ok(piece)) => {
                    tokens += piece.tokens;
                    for event in events(piece) {
                        if !send(event).await {
                            return;
                        }
                    }
                }
                Some(Err(refusal)) => {
                    send(refusal.json().to_string()).await;
                    return;
                }
            }
        }
        if let Some(usage) = end(tokens) {
            send(usage).await;
        }
        _ = to.send(Ok(Event::default().data("[DONE]"))).await;
    });
    Sse::new(ReceiverStream::new(answers)).keep_alive(KeepAlive::default()).into_response()
}
