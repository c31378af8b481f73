//! The one model that is served, and what it cannot do.

use crate::problem::Problem;
use crate::router::App;
use crate::visit::Tally;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::response::{IntoResponse, Response};
use pyrex_openai::{model_body, models_body};
use std::sync::Arc;

/// What the bodies of this server are, but for streams and pages.
pub(crate) const JSON: [(HeaderName, &str); 1] = [(CONTENT_TYPE, "application/json")];

/// `GET /v1/models`
pub(crate) async fn list(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    app.identify(&request, &Tally::of(&request))?;
    Ok((JSON, models_body(&[(&app.model, app.created)])).into_response())
}

/// `GET /v1/models/{id}`
pub(crate) async fn one(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    app.identify(&request, &Tally::of(&request))?;
    // What is no text is no model's name either.
    app.check_model(Some(id.as_deref().map_or("", |id| id)))?;
    Ok((JSON, model_body(&app.model, app.created)).into_response())
}

/// `POST /v1/embeddings`: no model of the families there are has any.
pub(crate) async fn embeddings(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    app.identify(&request, &Tally::of(&request))?;
    let what = format!("the model {:?} makes text and has no embeddings", app.model);
    Err(Problem::new(StatusCode::NOT_FOUND, "not_supported_by_model", what))
}

impl App {
    /// # Errors
    /// 404 if the client means another model than the one there is.
    pub(crate) fn check_model(&self, named: Option<&str>) -> Result<(), Problem> {
        let Some(other) = named.filter(|named| *named != self.model) else { return Ok(()) };
        let other: String = other.chars().take(64).collect();
        let what = format!("the model {other:?} is not served here, expected {:?}", self.model);
        Err(Problem::at(StatusCode::NOT_FOUND, "model_not_found", what, Some("model")))
    }
}
