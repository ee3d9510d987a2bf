//! A minimal proxy as a reference: it looks the key up, parses `model` and forwards everything, with the
//! usual server and the usual client.
//!
//! It must never grow: no limit, no breaker, no metric. The difference to Tierway is the cost of Tierway's
//! features.

use anyhow::anyhow;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::response::Response;
use axum::routing::post;
use axum::serve::ListenerExt;
use http::{HeaderMap, StatusCode, Uri, header};
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

struct Pass {
    client: reqwest::Client,
    origin: String,
    keys: HashSet<String>,
}

#[derive(Deserialize)]
struct Asked<'a> {
    #[serde(borrow)]
    model: Cow<'a, str>,
}

/// Serves until it is ended.
pub(crate) fn serve(listen: SocketAddr, provider: String, key: String) -> anyhow::Result<()> {
    rustls::crypto::aws_lc_rs::default_provider().install_default().map_err(|_| anyhow!("TLS was set up twice"))?;
    let pass = Pass { client: reqwest::Client::builder().build()?, origin: provider, keys: HashSet::from([key]) };
    let router = Router::new()
        .route("/v1/chat/completions", post(handle))
        .route("/v1/embeddings", post(handle))
        .layer(DefaultBodyLimit::max(32 << 20))
        .with_state(Arc::new(pass));
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let listener = tokio::net::TcpListener::bind(listen).await?.tap_io(|stream| {
            // As other servers do; a failure only affects latency.
            let _ = stream.set_nodelay(true);
        });
        Ok(axum::serve(listener, router).await?)
    })
}

async fn handle(State(pass): State<Arc<Pass>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let key = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    if !key.is_some_and(|key| pass.keys.contains(key)) {
        return refuse(StatusCode::UNAUTHORIZED);
    }
    match serde_json::from_slice::<Asked<'_>>(&body) {
        Ok(asked) if !asked.model.is_empty() => {}
        _ => return refuse(StatusCode::BAD_REQUEST),
    }
    let url = format!("{}{}", pass.origin, uri.path());
    let sent = pass.client.post(url).header(header::CONTENT_TYPE, "application/json").body(body).send();
    match sent.await {
        Ok(answer) => http::Response::from(answer).map(Body::new),
        Err(_) => refuse(StatusCode::BAD_GATEWAY),
    }
}

fn refuse(status: StatusCode) -> Response {
    let mut response = Response::new(Body::from(r#"{"error":{"message":"refused","type":"refused"}}"#));
    *response.status_mut() = status;
    response
}
