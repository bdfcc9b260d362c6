//! What is asked, field by field: each is known, within its range, and possible for the model.

use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::StatusCode;
use http_body_util::LengthLimitError;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::sync::mpsc::{self, Receiver};

use super::drawing;
use super::refusal::Refusal;
use super::worker::{Job, told_at_most};
use super::{Limits, Server};
use crate::generate::engine::{Task, Told};
use crate::generate::sampling::Sampling;

/// The fields of a request that were not read yet.
pub(super) struct Fields(Map<String, Value>);

/// What both routes ask for.
pub(super) struct Asked {
    pub(super) sampling: Option<Sampling>,
    /// Of tokens that are there already.
    penalty: f64,
    pub(super) seed: Option<u64>,
    pub(super) stops: Vec<String>,
    /// Tokens that end the answer, with the model's own.
    ends: Vec<u32>,
    pub(super) stream: bool,
    /// Whether the end of a stream counts tokens.
    pub(super) usage: bool,
}

/// How many tokens may follow.
#[derive(Clone, Copy)]
pub(super) enum Length {
    /// So many, of this field.
    Asked(&'static str, usize),
    /// So many, or as many as there is room for.
    AtMost(usize),
}

/// What is told about a prompt.
#[derive(Clone, Copy)]
pub(super) struct Detail {
    /// Whether its own tokens are scored.
    pub(super) scores: bool,
    /// How many of the most probable tokens are told with each.
    pub(super) top: usize,
}

impl Fields {
    /// Of a body, for which its sender has as much time as the server gives.
    pub(super) async fn receive(server: &Server, body: Body) -> Result<Self, Refusal> {
        let Limits { body_bytes, request, .. } = server.settings.limits;
        let Ok(read) = tokio::time::timeout(request, to_bytes(body, body_bytes)).await else {
            let message = format!("the request did not arrive within {} s", request.as_secs_f64());
            return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, message));
        };
        let bytes = read.map_err(|error| {
            let is_long = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source())
                .any(|error| error.is::<LengthLimitError>());
            match is_long {
                true => {
                    let message = format!("body: expected at most {body_bytes} bytes");
                    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message)
                }
                false => Refusal::body(format!("body: {error}")),
            }
        })?;
        Self::parse(&bytes)
    }

    fn parse(bytes: &Bytes) -> Result<Self, Refusal> {
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(other) => Err(Refusal::body(format!("body: expected a JSON object, got {}", short(&other)))),
            Err(error) => Err(Refusal::body(format!("body: expected a JSON object: {error}"))),
        }
    }

    /// A field's value, if it is given and not null.
    pub(super) fn value(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    /// The same, of a type.
    pub(super) fn take<T: DeserializeOwned>(&mut self, name: &str, allowed: &str) -> Result<Option<T>, Refusal> {
        let Some(value) = self.value(name) else { return Ok(None) };
        match T::deserialize(&value) {
            Ok(taken) => Ok(Some(taken)),
            Err(_) => Err(Refusal::field(name, allowed, short(&value))),
        }
    }

    /// A number of tokens.
    pub(super) fn count(&mut self, name: &str) -> Result<Option<usize>, Refusal> {
        self.take(name, "a whole number of at least 0")
    }

    /// Whether it is so; not so unless it is said.
    pub(super) fn flag(&mut self, name: &str) -> Result<bool, Refusal> {
        Ok(self.take(name, "true or false")?.unwrap_or(false))
    }

    /// A field that has one value alone, as whatever else it asks for is not done here.
    fn only(&mut self, name: &str, only: f64) -> Result<(), Refusal> {
        match self.value(name) {
            Some(value) if value.as_f64() != Some(only) => Err(Refusal::field(name, only.to_string(), short(&value))),
            _ => Ok(()),
        }
    }

    /// Refuses what was not read.
    pub(super) fn end(self) -> Result<(), Refusal> {
        match self.0.keys().next() {
            Some(name) => Err(Refusal::body(format!("{name}: no such field here")).with_param(name)),
            None => Ok(()),
        }
    }
}

impl Asked {
    pub(super) fn read(fields: &mut Fields, server: &Server) -> Result<Self, Refusal> {
        let name = &server.settings.name;
        if let Some(model) = fields.take::<String>("model", "a name")?
            && model != *name
        {
            let refusal = Refusal::new(StatusCode::NOT_FOUND, format!("model: expected {name:?}, got {model:?}"));
            return Err(refusal.with_param("model").with_code("model_not_found"));
        }
        for (name, only) in [("n", 1.0), ("best_of", 1.0), ("presence_penalty", 0.0), ("frequency_penalty", 0.0)] {
            fields.only(name, only)?;
        }
        // Who asks makes no difference.
        _ = fields.take::<String>("user", "text")?;
        let (sampling, penalty) = drawing::read(fields, server)?;
        let seed = fields.take("seed", "a whole number of at least 0")?;
        let stream = fields.flag("stream")?;
        let usage = match fields.take::<Map<String, Value>>("stream_options", "an object")? {
            Some(_) if !stream => return Err(Refusal::field("stream_options", "nothing without stream", "an object")),
            Some(options) => {
                let mut options = Fields(options);
                let usage = options.flag("include_usage")?;
                options.end()?;
                usage
            }
            None => false,
        };
        let (mut texts, mut ends) = (Vec::new(), server.ends.clone());
        for stop in stops(fields)? {
            match server.wording.special_token(&stop) {
                Some(token) => ends.push(token),
                None => texts.push(stop),
            }
        }
        Ok(Self { sampling, penalty, seed, stops: texts, ends, stream, usage })
    }

    /// A prompt's task.
    pub(super) fn task(
        &self,
        server: &Server,
        prompt: Vec<u32>,
        index: usize,
        length: Length,
        detail: Detail,
    ) -> Result<Task, Refusal> {
        let limits = &server.settings.limits;
        let positions = server.config.positions.min(limits.cache_tokens);
        let follows = !matches!(length, Length::Asked(_, 0));
        let longest = positions - usize::from(follows);
        if prompt.len() > longest {
            let what = if follows { ", as at least one follows" } else { "" };
            let allowed = format!("at most {longest} tokens{what}");
            return Err(Refusal::field("prompt", allowed, prompt.len()).with_code("context_length_exceeded"));
        }
        let room = (positions - prompt.len()).min(limits.max_tokens);
        let max_tokens = match length {
            Length::Asked(field, asked) if asked > room => {
                let behind = format!("{room} behind {} tokens of the prompt", prompt.len());
                // The one of the three that leaves the least room.
                let allowed = if room == limits.max_tokens {
                    format!("at most {room}, as the server's --max-tokens is {room}")
                } else if positions == server.config.positions {
                    format!("at most {behind}, as the model's max_position_embeddings is {positions}")
                } else {
                    format!("at most {behind}, as the server's --cache-tokens is {positions}")
                };
                return Err(Refusal::field(field, allowed, asked));
            }
            Length::Asked(_, asked) => asked,
            Length::AtMost(most) => most.min(room),
        };
        let rng = match self.seed {
            Some(seed) => {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                rng.set_stream(index as u64);
                rng
            }
            None => ChaCha8Rng::from_os_rng(),
        };
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
    /// Lets tasks wait for the model, all or none of them; where there are not as many places, later may be better.
    pub(super) fn submit(self: &Arc<Self>, tasks: Vec<Task>) -> Result<Vec<Receiver<Result<Told, String>>>, Refusal> {
        let queue = self.settings.limits.queue;
        if tasks.len() > queue {
            return Err(Refusal::field("prompt", format!("at most {queue} prompts"), tasks.len()));
        }
        let busy = || Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too many prompts are waiting; try again later");
        let wanted = u32::try_from(tasks.len()).map_err(|_| busy())?;
        let mut places = Arc::clone(&self.places).try_acquire_many_owned(wanted).map_err(|_| busy())?;
        let (mut jobs, mut told) = (Vec::with_capacity(tasks.len()), Vec::with_capacity(tasks.len()));
        for task in tasks {
            let (asker, answers) = mpsc::channel(told_at_most(&task));
            let place = places.split(1).ok_or_else(busy)?;
            jobs.push(Job { task, asker, place });
            told.push(answers);
        }
        self.jobs.try_send(jobs).map_err(|_| Refusal::gone())?;
        Ok(told)
    }
}

fn stops(fields: &mut Fields) -> Result<Vec<String>, Refusal> {
    let allowed = "text, or a list of texts, none of them empty";
    let stops = match fields.value("stop") {
        None => Vec::new(),
        Some(Value::String(stop)) => vec![stop],
        Some(value) => {
            serde_json::from_value(value.clone()).map_err(|_| Refusal::field("stop", allowed, short(&value)))?
        }
    };
    match stops.iter().any(String::is_empty) {
        true => Err(Refusal::field("stop", allowed, "an empty one")),
        false => Ok(stops),
    }
}

/// A value as it was given, or the beginning of a long one.
pub(super) fn short(value: &Value) -> String {
    const SHORT: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(SHORT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
