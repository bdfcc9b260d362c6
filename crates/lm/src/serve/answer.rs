//! What is told of sequences as pieces of an answer, to be sent as they come or all at once.

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
use crate::engine::schedule::Told;
use crate::error::LmError;

/// Pieces that wait for a client.
const WAITING: usize = 64;

/// A sequence, and how it becomes text.
pub(super) struct Reading {
    pub(super) prompt: Vec<u32>,
    /// The prompt's text, where the answer begins with it.
    pub(super) echo: Option<String>,
    /// Whether the answer tells how probable its tokens are.
    pub(super) words: bool,
    pub(super) stops: Arc<[Stop]>,
    pub(super) told: Receiver<Result<Told, String>>,
}

/// Some of an answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Piece {
    /// Whose.
    pub(super) index: usize,
    pub(super) text: String,
    pub(super) words: Vec<Word>,
    /// Tokens of the response.
    pub(super) tokens: usize,
    /// Why nothing follows.
    pub(super) finish: Option<&'static str>,
}

/// A token of an answer.
#[derive(Clone, Debug)]
pub(super) struct Word {
    pub(super) token: u32,
    /// Number of characters whose first byte is the token's.
    pub(super) characters: u32,
    /// log π of it, in nats, unless it is the first of a prompt.
    pub(super) log_prob: Option<f64>,
    /// The most probable ones there, the greatest first.
    pub(super) top: Vec<(u32, f64)>,
}

/// Fields that every part of an answer has.
#[derive(Clone, Serialize)]
pub(super) struct Frame {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    /// Seed of the answer, with which the same request gets the same answer.
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

    /// A part of an answer.
    pub(super) fn text(&self, own: impl Serialize) -> String {
        // Numbers and texts by the names of fields are always JSON.
        serde_json::to_string(&Framed { frame: self, own }).unwrap_or_default()
    }

    /// A whole answer.
    pub(super) fn response(&self, own: impl Serialize) -> Response {
        ([(CONTENT_TYPE, "application/json")], self.text(own)).into_response()
    }
}

/// How many tokens an answer cost.
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

/// Reads sequences, and answers their pieces as they come. Where nobody takes these any more, the sequences end.
pub(super) fn read(server: &Arc<Server>, readings: Vec<Reading>) -> Receiver<Result<Piece, Refusal>> {
    let (to, pieces) = mpsc::channel(WAITING);
    let deadline = Instant::now() + server.settings.limits.answer;
    for (index, reading) in readings.into_iter().enumerate() {
        let (server, to) = (Arc::clone(server), to.clone());
        tokio::spawn(async move {
            let late = |server: &Server| {
                let message = format!("there was no answer within {} s", server.settings.limits.answer.as_secs_f64());
                Refusal::new(StatusCode::GATEWAY_TIMEOUT, message)
            };
            tokio::select! {
                () = to.closed() => {}
                read = tokio::time::timeout_at(deadline, follow(&server, reading, index, &to)) => {
                    match read {
                        Ok(Ok(())) => {}
                        Ok(Err(refusal)) => _ = to.send(Err(refusal)).await,
                        // Whoever takes nothing is not told.
                        Err(_) => _ = to.try_send(Err(late(&server))),
                    }
                }
            }
        });
    }
    pieces
}

/// Sends a sequence's pieces until its end, or until nobody takes them.
async fn follow(
    server: &Server,
    reading: Reading,
    index: usize,
    to: &Sender<Result<Piece, Refusal>>,
) -> Result<(), Refusal> {
    let Reading { prompt, mut echo, words, stops, mut told } = reading;
    let fail = |error: TextError| Refusal::of_text(&error, "prompt");
    let word = |Scored { token, log_prob, top }: Scored| Word {
        token,
        characters: server.wording.characters(token),
        log_prob: Some(log_prob),
        top,
    };
    let mut growing = server.wording.grow(&prompt).map_err(fail)?;
    let mut stopping = Stopping::new(&stops);
    while let Some(told) = told.recv().await {
        let mut piece = Piece { index, ..Piece::default() };
        let told = told.map_err(|message| Refusal::internal(&message))?;
        if let Some(echo) = echo.take() {
            piece.text = echo;
            if let Told::Prompt(_) = told {
                piece.words.extend(prompt.first().map(|&token| Word {
                    token,
                    characters: server.wording.characters(token),
                    log_prob: None,
                    top: Vec::new(),
                }));
            }
        }
        match told {
            Told::Prompt(scores) => {
                piece.words.extend(scores.into_iter().map(word));
            }
            Told::Token(scored) => {
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
            Told::End(finish) => {
                let (text, stops) = stopping.push(&growing.rest().map_err(fail)?);
                piece.text.push_str(&text);
                if !stops {
                    piece.text.push_str(&stopping.rest());
                }
                piece.finish = Some(if stops { Finish::Stop } else { finish }.into());
            }
            Told::NotNumbers => {
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

/// The whole answers of so many sequences.
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

/// Answers pieces as events: those that `events` makes of each, what `end` makes of how many tokens there were, and `[DONE]`.
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
