//! [`Metrics`]: what Prometheus is told. What requests did is counted as they end; how the engine stands is read when asked.
//!
//! A label is the name of a tenant, of a route or of an outcome. All three come from the configuration or from this program,
//! never from a client: nobody can make series without end. `rate(pyrex_prefix_cache_hit_tokens_total[5m])` over
//! `…_query_tokens_total` is the hit rate, as vLLM has it.

use crate::host::Host;
use crate::shutdown::Shutdown;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use pyrex_core::EngineStats;
use std::fmt;
use std::sync::Arc;

/// What the text of [`Metrics::text`] is.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper ends of the buckets, in seconds: up to the first token, between two, and a whole request.
const TTFT_SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
const INTER_TOKEN_SECONDS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];
const DURATION_SECONDS: &[f64] =
    &[0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];

/// Whose request it was.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfTenant {
    pub(crate) tenant: String,
}

/// Which request it was, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfRequest {
    pub(crate) tenant: String,
    pub(crate) endpoint: &'static str,
    pub(crate) outcome: &'static str,
}

/// Where it was sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfEndpoint {
    pub(crate) endpoint: &'static str,
}

type Histograms<S> = Family<S, Histogram, fn() -> Histogram>;

/// All that is measured here.
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) requests: Family<OfRequest, Counter>,
    pub(crate) in_flight: Gauge,
    pub(crate) duration: Histograms<OfEndpoint>,
    pub(crate) ttft: Histograms<OfTenant>,
    pub(crate) inter_token: Histograms<OfTenant>,
    pub(crate) prompt_tokens: Family<OfTenant, Counter>,
    pub(crate) cached_tokens: Family<OfTenant, Counter>,
    pub(crate) generation_tokens: Family<OfTenant, Counter>,
    pub(crate) request_bytes: Family<OfEndpoint, Counter>,
    pub(crate) response_bytes: Family<OfEndpoint, Counter>,
}

impl Metrics {
    /// Metrics of requests, and of the engine of `host`.
    pub(crate) fn new(host: Arc<dyn Host>, shutdown: Shutdown) -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("pyrex"),
            requests: Family::default(),
            in_flight: Gauge::default(),
            duration: Family::new_with_constructor(|| Histogram::new(DURATION_SECONDS.iter().copied())),
            ttft: Family::new_with_constructor(|| Histogram::new(TTFT_SECONDS.iter().copied())),
            inter_token: Family::new_with_constructor(|| Histogram::new(INTER_TOKEN_SECONDS.iter().copied())),
            prompt_tokens: Family::default(),
            cached_tokens: Family::default(),
            generation_tokens: Family::default(),
            request_bytes: Family::default(),
            response_bytes: Family::default(),
        };
        metrics.register();
        metrics.registry.register_collector(Box::new(EngineCollector { host, shutdown }));
        metrics
    }

    fn register(&mut self) {
        let Self { registry, .. } = self;
        registry.register("requests", "Requests answered, by what became of them", self.requests.clone());
        registry.register("requests_in_flight", "Requests that are being answered", self.in_flight.clone());
        let mut seconds =
            |name: &str, help: &str, metric| registry.register_with_unit(name, help, Unit::Seconds, metric);
        seconds(
            "time_to_first_token",
            "From the first byte of a request to its first token",
            self.ttft.clone(),
        );
        seconds("inter_token_latency", "Between two tokens of a request", self.inter_token.clone());
        registry.register_with_unit(
            "request_duration",
            "From the first byte of a request to the last of its answer",
            Unit::Seconds,
            self.duration.clone(),
        );
        registry.register("prompt_tokens", "Tokens of prompts, images included", self.prompt_tokens.clone());
        registry.register(
            "cached_prompt_tokens",
            "Tokens of prompts that were remembered",
            self.cached_tokens.clone(),
        );
        registry.register("generation_tokens", "Tokens chosen for clients", self.generation_tokens.clone());
        registry.register_with_unit(
            "request",
            "Bodies of requests that were read",
            Unit::Bytes,
            self.request_bytes.clone(),
        );
        registry.register_with_unit(
            "response",
            "Bodies of answers that were sent",
            Unit::Bytes,
            self.response_bytes.clone(),
        );
    }

    /// The text of a scrape.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a string takes everything");
        text
    }
}

/// Reads the engine's own account at each scrape.
struct EngineCollector {
    host: Arc<dyn Host>,
    shutdown: Shutdown,
}

impl fmt::Debug for EngineCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EngineCollector")
    }
}

impl Collector for EngineCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut told = Telling(encoder);
        let engine = self.host.engine();
        told.gauge("engine_up", "Whether there is an engine", f64::from(u8::from(engine.is_ok())))?;
        let draining = f64::from(u8::from(self.shutdown.is_begun()));
        told.gauge("draining", "Whether no more requests are taken", draining)?;
        let Ok(engine) = engine else { return Ok(()) };
        let stats = engine.stats();
        told.queue(&stats)?;
        told.cache(&stats)?;
        told.steps(&stats)
    }
}

struct Telling<'a>(DescriptorEncoder<'a>);

impl Telling<'_> {
    fn queue(&mut self, stats: &EngineStats) -> fmt::Result {
        self.gauge("requests_waiting", "Requests that wait for their turn", stats.num_waiting as f64)?;
        self.gauge("requests_running", "Requests in the batch", stats.num_running as f64)?;
        self.gauge("requests_paused", "Requests whose answer nobody reads", stats.num_paused as f64)?;
        self.gauge("sequences", "Sequences that hold cache blocks", stats.num_leases as f64)
    }

    fn cache(&mut self, stats: &EngineStats) -> fmt::Result {
        self.gauge("kv_blocks", "Cache blocks in all", stats.num_blocks as f64)?;
        self.gauge("kv_blocks_free", "Cache blocks that nobody holds", stats.num_free_blocks as f64)?;
        self.gauge("kv_blocks_cached", "Cache blocks that are remembered", stats.num_cached_blocks as f64)?;
        let help = "Tokens of prompts that were looked up in the cache";
        self.counter("prefix_cache_query_tokens", help, stats.prefix_tokens)?;
        self.counter("prefix_cache_hit_tokens", "Tokens that the cache still held", stats.prefix_hit_tokens)?;
        self.counter("image_cache_queries", "Images that steps asked for", stats.image_lookups)?;
        self.counter("image_cache_hits", "Images that were encoded before", stats.image_hits)?;
        self.counter("preemptions", "Sequences that gave their blocks to others", stats.preemptions)
    }

    fn steps(&mut self, stats: &EngineStats) -> fmt::Result {
        self.counter(
            "engine_computed_tokens",
            "Tokens computed, of prompts and answers",
            stats.computed_tokens,
        )?;
        self.counter("engine_generated_tokens", "Tokens chosen", stats.generated_tokens)?;
        self.gauge("engine_tokens_per_second", "Tokens chosen per second", stats.tokens_per_second)?;
        self.counter("engine_steps", "Steps that ended well", stats.num_steps)?;
        self.counter("engine_failed_steps", "Steps that failed or were given up", stats.num_failed_steps)?;
        self.gauge("engine_last_step_seconds", "How long the last step took", stats.last_step_ms / 1e3)?;
        let running = stats.running_step_ms.unwrap_or(0.0) / 1e3;
        self.gauge("engine_running_step_seconds", "How long the step that runs now has run", running)?;
        let times = &stats.step_times;
        let parts = [
            ("plan", times.plan_ms),
            ("encode_images", times.encode_images_ms),
            ("forward", times.forward_ms),
            ("sample", times.sample_ms),
            ("deliver", times.deliver_ms),
        ];
        let help = "Where the time of steps went";
        let counter = ConstCounter::new(0.0);
        let mut family =
            self.0.encode_descriptor("engine_step_seconds", help, None, counter.metric_type())?;
        for (part, spent_ms) in parts {
            ConstCounter::new(spent_ms / 1e3).encode(family.encode_family(&[("part", part)])?)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let gauge = ConstGauge::new(value);
        gauge.encode(self.0.encode_descriptor(name, help, None, gauge.metric_type())?)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let counter = ConstCounter::new(value);
        counter.encode(self.0.encode_descriptor(name, help, None, counter.metric_type())?)
    }
}
