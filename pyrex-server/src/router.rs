//! [`router`]: every path of the server, and what they share.
//!
//! | path | needs an identity | answers |
//! |---|---|---|
//! | `POST /v1/chat/completions`, `/v1/completions`, `/v1/responses` | yes | [`generate`] |
//! | `POST /tokenize`, `/detokenize` | yes | [`tokens`] |
//! | `GET /v1/models`, `/v1/models/{id}`, `POST /v1/embeddings` | yes | [`models`] |
//! | `GET /metrics` | yes, for it tells of every tenant | [`Metrics`] |
//! | `GET /health/live`, `/health/ready` | no, for whoever watches has no key | [`health`] |
//! | `GET /`, `/docs`, `/openapi.json` | no, for they hold nothing of anybody | [`pages`] |
//!
//! [`observe`] goes around all of them. Whoever is needed and not known is told 401 before anything of theirs is read.

use crate::config::Config;
use crate::fetch::Fetcher;
use crate::generate;
use crate::health::{self, Readiness};
use crate::host::Host;
use crate::metrics::{self, Metrics};
use crate::pages::{self, Pages};
use crate::peer::Peer;
use crate::problem::Problem;
use crate::reading::Reading;
use crate::shutdown::Shutdown;
use crate::tenant::{Tenant, Tenants};
use crate::visit::{Ids, REQUEST_ID, Tally, observe};
use crate::{models, openapi, tokens};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use pyrex_core::{Error, Result};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// The paths as metrics and logs name them; any other is `other` there.
pub(crate) const ROUTES: &[&str] = &[
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/models",
    "/v1/models/{id}",
    "/tokenize",
    "/detokenize",
    "/metrics",
    "/health/live",
    "/health/ready",
    "/openapi.json",
    "/docs",
    "/",
];

/// How long a browser may remember what pages of other origins may do.
const CORS_MAX_AGE: Duration = Duration::from_secs(3600);

/// What all routes share.
pub(crate) struct App {
    pub(crate) host: Arc<dyn Host>,
    pub(crate) config: Config,
    pub(crate) metrics: Metrics,
    pub(crate) ids: Ids,
    pub(crate) readiness: Readiness,
    pub(crate) reading: Reading,
    pub(crate) pages: Pages,
    /// The document of the API.
    pub(crate) openapi: String,
    /// What the model is called.
    pub(crate) model: String,
    /// Since when it is served, in seconds since 1970.
    pub(crate) created: u64,
    tenants: Arc<Tenants>,
    shutdown: Shutdown,
}

/// The server's routes over `host`, for the tenants of `config`. Once `shutdown` has begun, requests are told to come again.
///
/// # Errors
/// `InvalidRequest` or `Io` if what the config says of images or origins cannot be held to.
pub fn router(
    host: Arc<dyn Host>,
    config: &Config,
    tenants: Arc<Tenants>,
    shutdown: Shutdown,
) -> Result<Router> {
    let cors = cors(&config.cors.origins)?;
    let app = Arc::new(App {
        metrics: Metrics::new(host.clone(), shutdown.clone()),
        host,
        ids: Ids::new(),
        readiness: Readiness::default(),
        pages: Pages::new(),
        openapi: openapi::written(config),
        reading: Reading::new(Fetcher::new(&config.images)?, config.limits.max_images),
        model: config.model.clone().unwrap_or_else(|| "pyrex".to_owned()),
        created: unix_seconds(),
        config: config.clone(),
        tenants,
        shutdown,
    });
    let routes = Router::new()
        .route("/v1/chat/completions", post(generate::chat))
        .route("/v1/completions", post(generate::completions))
        .route("/v1/responses", post(generate::responses))
        .route("/v1/embeddings", post(models::embeddings))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{id}", get(models::one))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
        .route("/metrics", get(scrape))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/openapi.json", get(openapi::document))
        .route("/docs", get(pages::docs))
        .route("/", get(pages::chat))
        .method_not_allowed_fallback(wrong_method)
        .fallback(no_such_path);
    let routes = match cors {
        Some(cors) => routes.layer(cors),
        None => routes,
    };
    Ok(routes.layer(from_fn_with_state(app.clone(), observe)).with_state(app))
}

impl App {
    /// Who asks.
    ///
    /// # Errors
    /// 401 or 403 if nobody may ask this way.
    pub(crate) fn identify(&self, request: &Request, tally: &Tally) -> Result<Tenant, Problem> {
        let authorization = request.headers().get(AUTHORIZATION);
        // Whoever runs the router without a listener of ours knows no peers.
        let nobody = Peer { address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), certificate: None };
        let peer = request.extensions().get::<Peer>().unwrap_or(&nobody);
        let tenant = self.tenants.identify(peer, authorization)?;
        // Nobody is identified twice.
        let _ = tally.tenant.set(tenant.name().to_owned());
        Ok(tenant)
    }

    /// # Errors
    /// 503 once the server is about to close.
    pub(crate) fn check_open(&self) -> Result<(), Problem> {
        match self.is_draining() {
            false => Ok(()),
            true => Err(Error::closed("the server is about to close").into()),
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.shutdown.is_begun()
    }
}

pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

async fn scrape(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let tally = Tally::of(&request);
    app.identify(&request, &tally)?;
    Ok(([(CONTENT_TYPE, metrics::CONTENT_TYPE)], app.metrics.text()).into_response())
}

async fn no_such_path(method: Method) -> Response {
    match method {
        // Of the server as a whole: `OPTIONS *`.
        Method::OPTIONS => (StatusCode::NO_CONTENT, [(ALLOW, "GET,HEAD,POST,OPTIONS")]).into_response(),
        _ => {
            let what = "there is nothing at this path: /docs says what there is";
            Problem::new(StatusCode::NOT_FOUND, "not_found", what).into_response()
        }
    }
}

/// The router adds which methods there are.
async fn wrong_method(method: Method) -> Response {
    match method {
        Method::OPTIONS => StatusCode::NO_CONTENT.into_response(),
        _ => {
            let what = "this path does not take this method, `allow` says which it takes";
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", what).into_response()
        }
    }
}

fn cors(origins: &[String]) -> Result<Option<CorsLayer>> {
    if origins.is_empty() {
        return Ok(None);
    }
    let no_origin = |origin: &String| {
        let unlike = |_| Error::invalid_request(format_args!("cors.origins: {origin:?} is no origin"));
        HeaderValue::from_str(origin).map_err(unlike)
    };
    let allowed = match origins.iter().any(|origin| origin == "*") {
        true => AllowOrigin::any(),
        false => AllowOrigin::list(origins.iter().map(no_origin).collect::<Result<Vec<_>>>()?),
    };
    let layer = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([AUTHORIZATION, CONTENT_TYPE, REQUEST_ID])
        .expose_headers([REQUEST_ID, RETRY_AFTER])
        .max_age(CORS_MAX_AGE);
    Ok(Some(layer))
}
