//! `/tokenize` and `/detokenize`: the vocabulary and the template, without an answer.

use crate::models::JSON;
use crate::problem::Problem;
use crate::reading::{Fetch, MAX_INLINE_LEN};
use crate::router::App;
use crate::visit::Tally;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use pyrex_core::SamplingParams;
use pyrex_openai::{Context, read_detokenize, read_tokenize};
use std::sync::Arc;

/// `POST /tokenize`: never done where it arrives, for a picture may have to be decoded.
pub(crate) async fn tokenize(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let tally = Tally::of(&request);
    app.identify(&request, &tally)?;
    let engine = app.host.engine()?;
    let body = app.body(request, &tally).await?;
    let reader = app.clone();
    let read = move |fetch: Fetch<'_>| {
        let defaults = SamplingParams::from_model(engine.spec());
        let asked = read_tokenize(&body, &Context { defaults: &defaults, fetch })?;
        reader.check_model(asked.model.as_deref())?;
        reader.reading.check_images(asked.prompt())?;
        Ok(asked.body(&engine)?)
    };
    Ok((JSON, app.reading.long(read).await?).into_response())
}

/// `POST /detokenize`
pub(crate) async fn detokenize(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let tally = Tally::of(&request);
    app.identify(&request, &tally)?;
    let engine = app.host.engine()?;
    let body = app.body(request, &tally).await?;
    let (reader, is_short) = (app.clone(), body.len() <= MAX_INLINE_LEN);
    let read = move |_: Fetch<'_>| {
        let asked = read_detokenize(&body)?;
        reader.check_model(asked.model.as_deref())?;
        Ok(asked.body(&engine)?)
    };
    let said = match is_short {
        true => app.reading.short(read).await?,
        false => app.reading.long(read).await?,
    };
    Ok((JSON, said).into_response())
}
