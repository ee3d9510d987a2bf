//! `GET /v1/models`: what a key may use.
//!
//! It never names a deployment or a provider, and lists nothing the key may not use. How a model is written is in
//! `protocol::chat::models`, and for clients of Anthropic's API in `protocol::messages::models`.

use crate::domain::refusal::{Refusal, SecretTarget};
use crate::http::error::ApiError;
use crate::http::request_handler::RequestArrival;
use crate::http::{AppState, ingress, paths};
use crate::protocol::chat::models::{ModelEntry, ModelList};
use crate::protocol::messages::models::{ModelDescription, ModelPage};
use crate::protocol::{Dialect, dialect_of_client};
use crate::relay::ListedModel;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{Extensions, HeaderMap};
use std::sync::Arc;

/// Every model, alias, tier and `Pro/` name this key may use.
pub async fn list(State(app): State<Arc<AppState>>, request: Request) -> Response {
    match names(&app, request.headers(), request.extensions()).await {
        Ok(names) => listed_all(&names, &request),
        Err(refused) => refused,
    }
}

/// One of them. Names hold slashes, written as they are or as `%2F`.
pub async fn retrieve(
    State(app): State<Arc<AppState>>,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    let uri = request.uri();
    let names = match names(&app, request.headers(), request.extensions()).await {
        Ok(names) => names,
        Err(refused) => return refused,
    };
    // An id that is not UTF-8 once decoded is no model's name.
    let id = id.map_or_else(|_| uri.path().trim_start_matches("/v1/models/").to_owned(), |Path(id)| id);
    let called = |id: &str| names.iter().find(|listed| *listed.name == *id);
    let Some(plain) = paths::model_name(uri.path()) else { return listed_all(&names, &request) };
    match called(&id).or_else(|| called(&plain)) {
        Some(listed) => match dialect(request.headers()) {
            Dialect::Chat | Dialect::Responses => json(listed_model(listed).json()),
            Dialect::Messages => json(described_model(listed).json()),
        },
        None => {
            let key = ingress::key(request.headers()).ok().flatten();
            let refusal = Refusal::ModelNotFound { model: id.into(), nearest: Vec::new() };
            let error = ApiError::refused(&app.relay.count_refused(key.as_ref(), refusal));
            error.response_in(dialect(request.headers()), None)
        }
    }
}

/// What the key of a request may use.
///
/// # Errors
/// The answer to a key that is refused, or to several.
async fn names(app: &AppState, headers: &HeaderMap, extensions: &Extensions) -> Result<Vec<ListedModel>, Response> {
    let connection = RequestArrival::connection(extensions);
    let refusal = match ingress::key(headers).and_then(|key| app.relay.names(key.as_ref())) {
        Ok(names) => {
            if let Some(connection) = connection {
                connection.key_accepted();
            }
            return Ok(names);
        }
        Err(refusal) => refusal,
    };
    if let Refusal::InvalidKey(why) = &refusal {
        let delay = app.note_refused(connection.map(|connection| &**connection), SecretTarget::Clients, why);
        app.peer_refusals.wait(delay, app.clock).await;
    }
    Err(ApiError::refused(&refusal).response_in(dialect(headers), None))
}

fn dialect(headers: &HeaderMap) -> Dialect {
    dialect_of_client(|name| headers.contains_key(name))
}

fn listed_all(names: &[ListedModel], request: &Request) -> Response {
    match dialect(request.headers()) {
        Dialect::Chat | Dialect::Responses => json(ModelList::new(names.iter().map(listed_model)).json()),
        Dialect::Messages => {
            let models: Vec<ModelDescription<'_>> = names.iter().map(described_model).collect();
            json(ModelPage::of(&models, |name| paths::parameter(request.uri(), name)).json())
        }
    }
}

fn described_model(listed: &ListedModel) -> ModelDescription<'_> {
    ModelDescription::new(&listed.name, listed.context)
}

fn listed_model(listed: &ListedModel) -> ModelEntry<'_> {
    ModelEntry::new(&listed.name, listed.price.as_ref(), listed.context, &listed.regions)
}

fn json(body: Vec<u8>) -> Response {
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}
