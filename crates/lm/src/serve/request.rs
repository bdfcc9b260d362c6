//! Parsing and validation of requests, field by field.

use std::sync::Arc;

use axum::http::StatusCode;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{self, Receiver};

use super::documented::{Unsupported, refuse_unsupported};
use super::refusal::Refusal;
use super::sampling_fields;
use super::stopping::{Stop, stops};
use super::wording::TOO_LONG;
use super::worker::{Job, max_reports};
use super::{Server, json};
use crate::engine::sampling::Sampling;
use crate::engine::schedule::{Report, Task};

/// Fields of a request, or of an object within it, that have not been read yet.
pub(super) struct Fields {
    fields: Map<String, Value>,
    /// Path of the object in error messages.
    place: String,
}

/// Fields that both routes have.
pub(super) struct CommonFields {
    pub(super) sampling: Option<Sampling>,
    /// Repetition penalty for tokens that already occur in the prompt or the answer.
    penalty: f64,
    /// Seed of the request, or a random one.
    pub(super) seed: u64,
    pub(super) stops: Vec<Stop>,
    /// Tokens that end the answer, including the model's own.
    ends: Vec<u32>,
    pub(super) stream: bool,
    /// Whether the last event of a stream has token counts.
    pub(super) usage: bool,
}

/// Maximum number of the answer's tokens.
#[derive(Clone, Copy)]
pub(super) enum Length {
    /// An explicit number from this field, which must fit.
    Exactly(&'static str, usize),
    /// A maximum, reduced to the available room.
    AtMost(usize),
}

/// Outputs that are wanted for a prompt's tokens.
#[derive(Clone, Copy)]
pub(super) struct Detail {
    /// Whether the prompt's own tokens are scored.
    pub(super) scores: bool,
    /// Number of most probable tokens to report with each token.
    pub(super) top: usize,
}

impl Fields {
    /// Parses a request's body.
    pub(super) fn read(body: &[u8]) -> Result<Self, Refusal> {
        json::object(body).map(|fields| Self { fields, place: String::new() })
    }

    /// Fields of an object within the body.
    pub(super) fn within(place: &str, fields: Map<String, Value>) -> Self {
        Self { fields, place: format!("{place}.") }
    }

    /// Rejects a field's value.
    pub(super) fn refuse(&self, name: &str, allowed: impl AsRef<str>, given: impl ToString) -> Refusal {
        Refusal::field(format!("{}{name}", self.place), allowed, given)
    }

    /// Takes a field's value, if it is given and not null.
    pub(super) fn value(&mut self, name: &str) -> Option<Value> {
        self.fields.remove(name).filter(|value| !value.is_null())
    }

    /// Takes a field's value of a type.
    pub(super) fn take<T: DeserializeOwned>(&mut self, name: &str, allowed: &str) -> Result<Option<T>, Refusal> {
        let Some(value) = self.value(name) else { return Ok(None) };
        match T::deserialize(&value) {
            Ok(taken) => Ok(Some(taken)),
            Err(_) => Err(self.refuse(name, allowed, short(&value))),
        }
    }

    /// Takes a number of tokens.
    pub(super) fn count(&mut self, name: &str) -> Result<Option<usize>, Refusal> {
        self.take(name, "a whole number of at least 0")
    }

    /// Takes a boolean, false by default.
    pub(super) fn flag(&mut self, name: &str) -> Result<bool, Refusal> {
        Ok(self.take(name, "true or false")?.unwrap_or(false))
    }

    /// Rejects fields that were not read.
    pub(super) fn end(self) -> Result<(), Refusal> {
        let Self { fields, place } = self;
        match fields.into_iter().find(|(_, value)| !value.is_null()) {
            Some((name, _)) => {
                let name = format!("{place}{name}");
                Err(Refusal::body(format!("{name}: unknown field")).with_param(&name))
            }
            None => Ok(()),
        }
    }
}

impl CommonFields {
    /// Reads the fields that both routes have, and rejects unsupported values of this route's fields.
    pub(super) fn read(fields: &mut Fields, server: &Server, unsupported: &[Unsupported]) -> Result<Self, Refusal> {
        let name = &server.settings.name;
        if let Some(model) = fields.take::<String>("model", "a name")?
            && model != *name
        {
            return Err(server.no_such_model(&model));
        }
        refuse_unsupported(fields, unsupported)?;
        let (sampling, penalty) = sampling_fields::read(fields, server)?;
        let seed = match fields.value("seed").filter(|seed| *seed != -1) {
            Some(seed) => seed.as_u64().ok_or_else(|| {
                Refusal::field("seed", "a whole number of at least 0, or -1 for a random one", short(&seed))
            })?,
            // The number is small enough to be exact in every client's JSON.
            None => rand::random::<u64>() >> 11,
        };
        let stream = fields.flag("stream")?;
        let usage = match fields.take::<Map<String, Value>>("stream_options", "an object")? {
            Some(options) => {
                let mut options = Fields::within("stream_options", options);
                let usage = options.flag("include_usage")?;
                // Padding of events does not change the answer.
                _ = options.flag("include_obfuscation")?;
                options.end()?;
                if usage && !stream {
                    return Err(Refusal::field("stream_options", "nothing without stream", "include_usage"));
                }
                usage
            }
            None => false,
        };
        let (mut texts, mut ends) = (Vec::new(), server.ends.clone());
        for stop in stops(fields)? {
            match server.wording.special_token(&stop) {
                Some(token) => ends.push(token),
                None => texts.push(Stop::new(&stop)),
            }
        }
        Ok(Self { sampling, penalty, seed, stops: texts, ends, stream, usage })
    }

    /// Makes the task of a prompt.
    pub(super) fn task(
        &self,
        server: &Server,
        prompt: Vec<u32>,
        index: usize,
        length: Length,
        detail: Detail,
    ) -> Result<Task, Refusal> {
        let limits = &server.settings.limits;
        let positions = server.positions();
        let longest = server.longest_prompt(length);
        if prompt.len() > longest {
            let what = if longest < positions { ", as at least one follows" } else { "" };
            let allowed = format!("at most {longest} tokens{what}");
            return Err(Refusal::field("prompt", allowed, prompt.len()).with_code(TOO_LONG));
        }
        let room = (positions - prompt.len()).min(limits.max_tokens);
        let max_tokens = match length {
            Length::Exactly(field, count) if count > room => {
                let behind = format!("{room} after {} tokens of the prompt", prompt.len());
                // The error names the strictest of the three limits.
                let allowed = if room == limits.max_tokens {
                    format!("at most {room}, as the server's --max-tokens is {room}")
                } else if positions == server.config.positions {
                    format!("at most {behind}, as the model's max_position_embeddings is {positions}")
                } else {
                    format!("at most {behind}, as the server's --cache-tokens is {positions}")
                };
                return Err(Refusal::field(field, allowed, count));
            }
            Length::Exactly(_, count) => count,
            Length::AtMost(most) => most.min(room),
        };
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(index as u64);
        let Detail { scores, top } = detail;
        Ok(Task {
            prompt,
            max_tokens,
            sampling: self.sampling,
            penalty: self.penalty,
            rng,
            stop: self.ends.clone(),
            scores,
            top,
        })
    }
}

impl Server {
    /// Runs slow work on threads that serve no connection, a limited number at a time.
    pub(super) async fn prepare<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let turn = Arc::clone(&self.preparing).acquire_owned().await.map_err(|_| Refusal::gone())?;
        let server = Arc::clone(self);
        let work = move || {
            let prepared = work(&server);
            drop(turn);
            prepared
        };
        let failed = |_| Refusal::internal("the request could not be read");
        tokio::task::spawn_blocking(work).await.map_err(failed)?
    }

    /// Reserves places in the queue for all the prompts, or rejects the request if there are too few.
    pub(super) fn queue(&self, prompts: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let queue = self.settings.limits.queue;
        if prompts > queue {
            return Err(Refusal::field("prompt", format!("at most {queue} prompts"), prompts));
        }
        let busy = || Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too many prompts are waiting; try again later");
        let wanted = u32::try_from(prompts).map_err(|_| busy())?;
        Arc::clone(&self.places).try_acquire_many_owned(wanted).map_err(|_| busy())
    }

    /// Adds tasks to the queue, each with the place that was reserved for it.
    pub(super) fn submit(
        &self,
        tasks: Vec<Task>,
        mut places: OwnedSemaphorePermit,
    ) -> Result<Vec<Receiver<Result<Report, String>>>, Refusal> {
        let (mut jobs, mut reports) = (Vec::with_capacity(tasks.len()), Vec::with_capacity(tasks.len()));
        for task in tasks {
            let (client, answers) = mpsc::channel(max_reports(&task));
            let place = places.split(1).ok_or_else(Refusal::gone)?;
            jobs.push(Job { task, client, place });
            reports.push(answers);
        }
        self.jobs.try_send(jobs).map_err(|_| Refusal::gone())?;
        Ok(reports)
    }

    /// Maximum number of tokens of a sequence.
    fn positions(&self) -> usize {
        self.config.positions.min(self.settings.limits.cache_tokens)
    }

    /// Maximum number of tokens of a prompt. It leaves room for at least one token of the answer, unless the answer
    /// must be empty.
    pub(super) fn longest_prompt(&self, length: Length) -> usize {
        self.positions() - usize::from(!matches!(length, Length::Exactly(_, 0)))
    }
}

/// Limits of a request over all of its prompts, as the whole answer is in memory at once.
pub(super) struct Budget {
    tokens: usize,
    scores: usize,
}

impl Budget {
    /// Maximum number of tokens of prompts and answers.
    const TOKENS: usize = 1 << 20;
    /// Maximum number of log-probabilities: of each reported token, and of the most probable ones at its position.
    const SCORES: usize = 1 << 20;

    pub(super) fn new(server: &Server) -> Self {
        Self { tokens: Self::TOKENS.max(server.positions()), scores: Self::SCORES }
    }

    /// Subtracts a task's share. `is_scored` says whether the answer has the log-probabilities of its tokens.
    pub(super) fn take(&mut self, task: &Task, is_scored: bool) -> Result<(), Refusal> {
        let Task { prompt, max_tokens, scores, top, .. } = task;
        self.tokens = self.tokens.checked_sub(prompt.len() + max_tokens).ok_or_else(|| {
            let allowed = format!("at most {} tokens in all prompts and their answers", Self::TOKENS);
            Refusal::field("prompt", allowed, "more")
        })?;
        if !is_scored {
            return Ok(());
        }
        let scored = if *scores { prompt.len() } else { 0 } + max_tokens;
        self.scores = self.scores.checked_sub(scored.saturating_mul(1 + top)).ok_or_else(|| {
            let allowed =
                format!("at most {} log-probabilities, those of the most probable tokens included", Self::SCORES);
            Refusal::field("logprobs", allowed, "more")
        })?;
        Ok(())
    }
}

/// JSON of a value, truncated if it is long.
pub(super) fn short(value: &Value) -> String {
    const SHORT: usize = 60;
    /// Writer that keeps only the first characters.
    struct Beginning(Vec<u8>);
    impl std::io::Write for Beginning {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.extend(bytes.iter().take(5 * SHORT));
            match self.0.len() >= 5 * SHORT {
                true => Err(std::io::ErrorKind::WriteZero.into()),
                false => Ok(bytes.len()),
            }
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut beginning = Beginning(Vec::new());
    let is_whole = serde_json::to_writer(&mut beginning, value).is_ok();
    let text = String::from_utf8_lossy(&beginning.0);
    match text.char_indices().nth(SHORT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None if is_whole => text.into_owned(),
        None => format!("{text}…"),
    }
}
