//! Spans to an OpenTelemetry collector, as protobuf over HTTP. What a span says is what the log says of it.

use crate::fail::Failure;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::fmt;
use std::pin::Pin;
use std::time::Duration;
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::Registry;
use ureq::Agent;
use ureq::http::Uri;

/// Where a collector takes spans, unless the URL has a path of its own.
const TRACES: &str = "/v1/traces";
/// A collector that has not answered by then gets the next spans.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer of a collector that is read, in bytes.
const MAX_ANSWER_BYTES: u64 = 1 << 20;

/// What makes a subscriber tell a collector of spans, and what sends them. The sender has a thread of its own.
///
/// # Errors
/// If the URL is none.
pub(crate) fn layer(
    url: &str,
) -> Result<(Box<dyn Layer<Registry> + Send + Sync>, SdkTracerProvider), Failure> {
    let wrong = |error: &dyn fmt::Display| Failure::Usage(format!("--otlp {url:?}: {error}"));
    let uri: Uri = url.parse().map_err(|error| wrong(&error))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(wrong(&"expected one such as http://localhost:4318"));
    }
    let endpoint = match uri.path() {
        "" | "/" => format!("{}{TRACES}", url.trim_end_matches('/')),
        _ => url.to_owned(),
    };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(endpoint)
        .with_protocol(Protocol::HttpBinary)
        .with_http_client(Client::new())
        .build()
        .map_err(|error| wrong(&error))?;
    let resource = Resource::builder().with_service_name("pyrex").build();
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("pyrex"));
    Ok((layer.boxed(), provider))
}

/// Goes nowhere but to the collector.
#[derive(Debug)]
struct Client {
    agent: Agent,
}

impl Client {
    fn new() -> Self {
        let config = Agent::config_builder().http_status_as_error(false).max_redirects(0).proxy(None);
        Self { agent: config.timeout_global(Some(TIMEOUT)).build().new_agent() }
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let mut response = self.agent.run(Request::from_parts(parts, body.to_vec()))?;
        let body = response.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_vec()?;
        let (parts, _) = response.into_parts();
        Ok(Response::from_parts(parts, body.into()))
    }
}

type Sent<'f> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'f>>;

/// Blocks the sender's thread, which does nothing else.
impl HttpClient for Client {
    fn send_bytes<'s, 'f>(&'s self, request: Request<Bytes>) -> Sent<'f>
    where
        's: 'f,
        Self: 'f,
    {
        Box::pin(async move { self.send(request) })
    }
}
