//! An OpenAI-compatible HTTP server of a model.
//!
//! | route | response |
//! |---|---|
//! | `POST /v1/completions` | completions of prompts, and log-probabilities of their tokens |
//! | `POST /v1/chat/completions` | the assistant's next message |
//! | `GET /v1/models` | name of the model |
//! | `GET /health` | whether the server accepts requests |
//! | `GET /metrics` | metrics in the format of Prometheus |
//!
//! One thread owns the model (`worker.rs`) and generates for all in-flight requests together. Requests arrive over many
//! connections (`connections.rs`), are validated (`request.rs`), and wait in a bounded queue.

mod answer;
mod chat;
mod completions;
mod connections;
mod documented;
mod json;
mod messages;
mod metrics;
mod origin;
mod places;
mod refusal;
mod request;
mod routes;
mod sampling_fields;
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

/// Maximum number of requests that are tokenized at the same time, as tokenization takes time, and memory in proportion
/// to the text.
const PREPARED: usize = 2;

/// Settings of a server.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Address to listen on. An address other than a loopback address requires an API key. Port 0 picks a free port.
    pub address: SocketAddr,
    /// Key that every request must send as `Authorization: Bearer KEY`, if any.
    pub api_key: Option<String>,
    /// Name of the model in responses.
    pub name: String,
    /// Host names that requests to a server on a loopback address may use, besides localhost and IP addresses. If the
    /// list is not empty, a server on another address rejects other names too.
    pub host_names: Vec<String>,
    /// Limits on requests and connections.
    pub limits: Limits,
}

/// Limits of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of sequences that are generated at the same time, at least 1.
    pub batch: usize,
    /// Maximum number of prompts that are in flight or queued, at least 1. Further requests are rejected until some
    /// finish.
    pub queue: usize,
    /// Size of the cache of keys and values, tokens, including those of finished requests; at least the length of the
    /// longest request.
    pub cache_tokens: usize,
    /// Maximum number of tokens of an answer, at least 1.
    pub max_tokens: usize,
    /// Maximum number of bytes of a request's body.
    pub body_bytes: usize,
    /// Time limit per answer.
    pub answer: Duration,
    /// Time limit for a client to send a request, and to receive each part of an answer.
    pub request: Duration,
    /// Time that in-flight answers have to finish when the server shuts down.
    pub grace: Duration,
    /// Maximum number of open connections, at least 1. At most half of them may be idle or serve paths that need no
    /// key; beyond that, the connections that have been idle for longest are closed.
    pub connections: usize,
    /// Maximum number of open connections per client address, at least 1.
    pub connections_per_address: usize,
}

/// State that all request handlers share.
struct Server {
    settings: ServerSettings,
    config: ModelConfig,
    wording: Wording,
    /// Defaults of sampling parameters that a request does not set.
    generation: GenerationConfig,
    /// Tokens that end an answer.
    ends: Vec<u32>,
    /// Sending end of the queue to the worker.
    jobs: mpsc::Sender<Vec<Job>>,
    /// Semaphore of the places in the queue.
    places: Arc<Semaphore>,
    /// Semaphore that limits the number of requests tokenized at the same time.
    preparing: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    /// Time at which the model was loaded, in seconds since 1970.
    created: u64,
}

impl ServerSettings {
    /// Validates the settings before the model is loaded.
    ///
    /// # Errors
    ///
    /// [`LmError::Setting`] for a setting that is out of its range.
    pub fn validate(&self) -> Result<(), LmError> {
        if self.api_key.as_ref().is_some_and(String::is_empty) {
            return Err(refuse_setting("api_key", "a non-empty key", "\"\""));
        }
        if self.api_key.is_none() && !self.address.ip().is_loopback() {
            let allowed = "a loopback address such as 127.0.0.1, unless an API key is set";
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
            Some((field, _)) => Err(refuse_setting(field, "a duration above 0", "0")),
            None => Ok(()),
        }
    }
}

/// Current time, in seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// Serves requests until `stops` returns true, and then finishes those in flight. Calls `ready` with the address as
/// soon as it accepts connections.
///
/// # Errors
///
/// [`LmError::Setting`]; [`LmError::Address`] for an address that cannot be opened; [`LmError::Text`].
pub fn serve(
    model: Transformer,
    text: Text,
    settings: ServerSettings,
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
    let worker_metrics = Arc::clone(&metrics);
    let worker = std::thread::spawn(move || worker::work(&model, room, queue, &worker_metrics));
    let server =
        Arc::new(Server { settings, config, wording, generation, ends, jobs, places, preparing, metrics, created });
    ready(opened);
    runtime.block_on(connections::answer(listener, server, stops));
    // Drops the handlers of abandoned requests, and with them the last senders to the worker's queue.
    runtime.shutdown_timeout(Duration::from_secs(1));
    // A thread that panicked has already printed its message.
    _ = worker.join();
    Ok(())
}
