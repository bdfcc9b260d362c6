//! Metrics of the server in the format of Prometheus.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Metrics of the server.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    /// Number of answered requests, by route and status.
    pub(super) requests: Family<Answered, Counter>,
    /// Time from a request to the beginning of its answer, seconds.
    pub(super) seconds: Histogram,
    /// Number of prompts in flight or queued.
    pub(super) queued: Gauge,
    /// Number of sequences that are being generated.
    pub(super) running: Gauge,
    /// Number of tokens that went through the model.
    pub(super) computed: Counter,
    /// Number of prompt tokens that were found in the cache.
    pub(super) known: Counter,
    /// Number of generated tokens.
    pub(super) generated: Counter,
    /// Number of steps of the model.
    pub(super) steps: Counter,
}

/// Labels of an answered request.
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
        registry.register("requests", "Number of answered requests", requests.clone());
        registry.register_with_unit(
            "request",
            "Time from a request to the beginning of its answer",
            Unit::Seconds,
            seconds.clone(),
        );
        registry.register("queued_prompts", "Number of prompts in flight or queued", queued.clone());
        registry.register("running_sequences", "Number of sequences that are being generated", running.clone());
        registry.register("computed_tokens", "Number of tokens that went through the model", computed.clone());
        registry.register("known_tokens", "Number of prompt tokens found in the cache", known.clone());
        registry.register("generated_tokens", "Number of generated tokens", generated.clone());
        registry.register("steps", "Number of steps of the model", steps.clone());
        Self { registry, requests, seconds, queued, running, computed, known, generated, steps }
    }
}

impl Metrics {
    /// Formats all metrics as text.
    pub(super) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
