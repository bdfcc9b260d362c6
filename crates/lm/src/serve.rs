//! An OpenAI-compatible HTTP server of a model.
//!
//! | route | answers |
//! |---|---|
//! | `POST /v1/completions` | how prompts go on, and how probable they are |
//! | `POST /v1/chat/completions` | the assistant's next turn |
//! | `GET /v1/models` | the model's name |
//! | `GET /health` | whether requests are taken |
//! | `GET /metrics` | counts, for Prometheus |
//!
//! One thread has the model (`worker.rs`), and lets everything that was asked go on together. Requests come over many connections
//! (`connections.rs`), are held against what is known and allowed (`request.rs`) and wait in a queue that is bounded.

mod answer;
mod chat;
mod completions;
mod connections;
mod documented;
mod drawing;
mod json;
mod messages;
mod metrics;
mod origin;
mod places;
mod refusal;
mod request;
mod routes;
mod stopping;
mod wording;
mod worker;
mod write_timeout;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};

use crate::checkpoint::config::ModelConfig;
use crate::checkpoint::folder::Text;
use crate::checkpoint::generation_config::GenerationConfig;
use crate::engine::generate::STEP;
use crate::engine::schedule::Room;
use crate::error::{LmError, refuse_setting};
use crate::transformer::model::Transformer;
use metrics::Metrics;
use wording::Wording;
use worker::Job;

/// Limit of requests that are tokenized at the same time: this takes time, and memory that grows with their texts.
const PREPARED: usize = 2;

/// Where a model answers, and to whom.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where. Beyond this machine only with a key. Port 0 is one that is free.
    pub address: SocketAddr,
    /// What every request has to bring as `Authorization: Bearer`, if anything.
    pub api_key: Option<String>,
    /// What the model is called.
    pub name: String,
    /// Host names that requests to a server on a loopback address may have, besides localhost and IP addresses. If
    /// there are any, a server on another address rejects other names too.
    pub host_names: Vec<String>,
    /// How much it takes.
    pub limits: Limits,
}

/// How much a server takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sequences that go on together, at least 1.
    pub batch: usize,
    /// Prompts that are answered or wait, at least 1. Others are refused until some are done.
    pub queue: usize,
    /// Tokens whose keys and values are kept, those of prompts that were answered too; at least as many as the longest request has.
    pub cache_tokens: usize,
    /// The most tokens of an answer, at least 1.
    pub max_tokens: usize,
    /// The most bytes of a request's body.
    pub body_bytes: usize,
    /// Time limit of an answer.
    pub answer: Duration,
    /// Time limit for a client to send a request, and to receive each part of an answer.
    pub request: Duration,
    /// Time that in-flight answers have to finish when the server shuts down.
    pub grace: Duration,
    /// Limit of open connections, at least 1. At most half of them may be idle or serve paths that need no key; beyond
    /// that, those that are idle for longest are closed.
    pub connections: usize,
    /// Limit of open connections of one client address, at least 1.
    pub connections_per_address: usize,
}

/// What answers requests.
struct Server {
    settings: Settings,
    config: ModelConfig,
    wording: Wording,
    /// Sampling defaults, for fields that a request does not have.
    generation: GenerationConfig,
    /// Tokens that end an answer.
    ends: Vec<u32>,
    /// Where requests wait for the model.
    jobs: mpsc::Sender<Vec<Job>>,
    /// Places in the queue.
    places: Arc<Semaphore>,
    /// Permits to tokenize a request.
    preparing: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    /// When the model was there, in seconds since 1970.
    created: u64,
}

impl Settings {
    /// Refuses what cannot be, before a model is read.
    ///
    /// # Errors
    ///
    /// [`LmError::Setting`].
    pub fn validate(&self) -> Result<(), LmError> {
        if self.api_key.as_ref().is_some_and(String::is_empty) {
            return Err(refuse_setting("api_key", "a key that is not empty", "\"\""));
        }
        if self.api_key.is_none() && !self.address.ip().is_loopback() {
            let allowed = "an address of this machine alone, as 127.0.0.1, unless there is an API key";
            return Err(refuse_setting("host", allowed, self.address.ip()));
        }
        let Limits { batch, queue, cache_tokens, max_tokens, body_bytes, connections, .. } = self.limits;
        let Limits { answer, request, grace: _, connections_per_address, .. } = self.limits;
        let counts = [
            ("batch", batch),
            ("queue", queue),
            ("cache_tokens", cache_tokens),
            ("max_tokens", max_tokens),
            ("body_bytes", body_bytes),
            ("connections", connections),
            ("connections_per_address", connections_per_address),
        ];
        if let Some((field, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return Err(refuse_setting(field, "at least 1", "0"));
        }
        let times = [("answer", answer), ("request", request)];
        match times.into_iter().find(|(_, time)| time.is_zero()) {
            Some((field, _)) => Err(refuse_setting(field, "more than no time", "0")),
            None => Ok(()),
        }
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// Answers requests until `stops` says so, and then those that are on their way. `ready` is told the address as soon as it is open.
///
/// # Errors
///
/// [`LmError::Setting`]; [`LmError::Address`] for an address that cannot be opened; [`LmError::Text`].
pub fn serve(
    model: Transformer,
    text: Text,
    settings: Settings,
    ready: impl FnOnce(SocketAddr),
    stops: &dyn Fn() -> bool,
) -> Result<(), LmError> {
    settings.validate()?;
    let config = model.config().clone();
    let limits = settings.limits;
    let address = settings.address;
    let fail = |source| LmError::Address { address, source };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(fail)?;
    let listener = runtime.block_on(TcpListener::bind(address)).map_err(fail)?;
    let opened = listener.local_addr().map_err(fail)?;
    let (jobs, queue) = mpsc::channel(limits.queue);
    let metrics = Arc::new(Metrics::default());
    let (generation, ends) = (text.generation.clone(), text.ends(&config));
    let wording = Wording::new(text, config.vocabulary)?;
    let created = now();
    let places = Arc::new(Semaphore::new(limits.queue));
    let preparing = Arc::new(Semaphore::new(PREPARED));
    let room = Room { sequences: limits.batch, tokens: limits.cache_tokens, step: STEP };
    let told = Arc::clone(&metrics);
    let worker = std::thread::spawn(move || worker::work(&model, room, queue, &told));
    let server =
        Arc::new(Server { settings, config, wording, generation, ends, jobs, places, preparing, metrics, created });
    ready(opened);
    runtime.block_on(connections::answer(listener, server, stops));
    // What was given up is dropped here, and with it the last that could ask the worker for anything.
    runtime.shutdown_timeout(Duration::from_secs(1));
    // A thread that panicked has told why.
    _ = worker.join();
    Ok(())
}
