//! `GET /v1/models`: what a key may use, in OpenAI's shape plus `pricing`, `context_length` and
//! `regions`.
//!
//! It never names a deployment or a provider, and lists nothing the key may not use.

use crate::domain::pricing::Price;
use crate::domain::refusal::Refusal;
use crate::http::error::ApiError;
use crate::http::{App, ingress};
use crate::relay::ListedModel;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Uri};
use serde::Serialize;
use std::sync::Arc;

/// Every model, alias, tier and `Pro/` name this key may use.
pub async fn list(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    match app.relay.names(ingress::key(&headers).as_ref()) {
        Ok(names) => json(&List { object: "list", data: names.iter().map(Model::of).collect() }),
        Err(refusal) => ApiError::refused(&refusal).response(),
    }
}

/// One of them. Names hold slashes, written as they are or as `%2F`.
pub async fn retrieve(
    State(app): State<Arc<App>>,
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
    match names.iter().find(|listed| *listed.name == id) {
        Some(listed) => json(&Model::of(listed)),
        None => ApiError::refused(&Refusal::ModelNotFound { model: id.into(), nearest: Vec::new() }).response(),
    }
}

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Model<'a>>,
}

#[derive(Serialize)]
struct Model<'a> {
    id: &'a str,
    object: &'static str,
    /// Nobody knows when a model was made; clients want a number.
    created: u64,
    owned_by: &'static str,
    pricing: Option<Pricing>,
    context_length: Option<u64>,
    regions: &'a [Arc<str>],
}

/// In US dollars, as decimal strings: per million tokens, `request` per request.
#[derive(Serialize)]
struct Pricing {
    input: String,
    cached_input: String,
    output: String,
    request: String,
}

impl<'a> Model<'a> {
    fn of(listed: &'a ListedModel) -> Self {
        Self {
            id: &listed.name,
            object: "model",
            created: 0,
            owned_by: "tierway",
            pricing: listed.price.as_ref().map(Pricing::of),
            context_length: listed.context,
            regions: &listed.regions,
        }
    }
}

impl Pricing {
    fn of(price: &Price) -> Self {
        Self {
            input: price.input.usd_per_mtok(),
            cached_input: price.cached_input.usd_per_mtok(),
            output: price.output.usd_per_mtok(),
            request: price.request.to_string(),
        }
    }
}

fn json(value: &impl Serialize) -> Response {
    let body = serde_json::to_vec(value).expect("texts and numbers always serialise");
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}
