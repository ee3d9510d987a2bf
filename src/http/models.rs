//! `GET /v1/models`: what a key may use.
//!
//! It never names a deployment or a provider, and lists nothing the key may not use. How a model is written is in
//! `protocol::chat::models`.

use crate::domain::refusal::Refusal;
use crate::http::error::ApiError;
use crate::http::{AppState, ingress, paths};
use crate::protocol::chat::models::{ModelEntry, ModelList};
use crate::relay::ListedModel;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Uri};
use std::sync::Arc;

/// Every model, alias, tier and `Pro/` name this key may use.
pub async fn list(State(app): State<Arc<AppState>>, headers: HeaderMap) -> Response {
    match app.relay.names(ingress::key(&headers).as_ref()) {
        Ok(names) => listed_all(&names),
        Err(refusal) => ApiError::refused(&refusal).response(),
    }
}

/// One of them. Names hold slashes, written as they are or as `%2F`.
pub async fn retrieve(
    State(app): State<Arc<AppState>>,
    id: Result<Path<String>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let names = match app.relay.names(ingress::key(&headers).as_ref()) {
        Ok(names) => names,
        Err(refusal) => return ApiError::refused(&refusal).response(),
    };
    // An id that is not UTF-8 once decoded is no model's name.
    let id = id.map_or_else(|_| uri.path().trim_start_matches("/v1/models/").to_owned(), |Path(id)| id);
    let called = |id: &str| names.iter().find(|listed| *listed.name == *id);
    let Some(plain) = paths::model_name(uri.path()) else { return listed_all(&names) };
    match called(&id).or_else(|| called(&plain)) {
        Some(listed) => json(listed_model(listed).json()),
        None => ApiError::refused(&Refusal::ModelNotFound { model: id.into(), nearest: Vec::new() }).response(),
    }
}

fn listed_all(names: &[ListedModel]) -> Response {
    json(ModelList::new(names.iter().map(listed_model)).json())
}

fn listed_model(listed: &ListedModel) -> ModelEntry<'_> {
    ModelEntry::new(&listed.name, listed.price.as_ref(), listed.context, &listed.regions)
}

fn json(body: Vec<u8>) -> Response {
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}
