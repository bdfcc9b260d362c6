//! What is counted, as Prometheus reads it.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// What is counted.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    /// Requests that were answered, by route and status.
    pub(super) requests: Family<Answered, Counter>,
    /// How long each took until its answer began, seconds.
    pub(super) seconds: Histogram,
    /// Prompts that are answered or wait.
    pub(super) queued: Gauge,
    /// Sequences that go on.
    pub(super) running: Gauge,
    /// Tokens that went through the model.
    pub(super) computed: Counter,
    /// Tokens of prompts that were known before.
    pub(super) known: Counter,
    /// Tokens that were answered.
    pub(super) generated: Counter,
    /// Steps of the model.
    pub(super) steps: Counter,
}

/// How a request was answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Answered {
    pub(super) route: String,
    pub(super) status: u16,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("lm");
        let requests = Family::default();
        let seconds = Histogram::new(exponential_buckets(0.001, 4.0, 10));
        let (queued, running) = (Gauge::default(), Gauge::default());
        let [computed, known, generated, steps]: [Counter; 4] = Default::default();
        registry.register("requests", "Requests that were answered", requests.clone());
        registry.register_with_unit("request", "Time until an answer begins", Unit::Seconds, seconds.clone());
        registry.register("queued_prompts", "Prompts that are answered or wait", queued.clone());
        registry.register("running_sequences", "Sequences that go on", running.clone());
        registry.register("computed_tokens", "Tokens that went through the model", computed.clone());
        registry.register("known_tokens", "Tokens of prompts that were known before", known.clone());
        registry.register("generated_tokens", "Tokens that were answered", generated.clone());
        registry.register("steps", "Steps of the model", steps.clone());
        Self { registry, requests, seconds, queued, running, computed, known, generated, steps }
    }
}

impl Metrics {
    /// All of it as text.
    pub(super) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
