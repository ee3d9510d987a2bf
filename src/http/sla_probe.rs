//! An SLA probe as the request of a client: it takes the path of every other one from its head on, only without a
//! connection.
//!
//! Start reading at [`send`].

use super::request_handler::RequestHandler;
use crate::domain::call::Endpoint;
use crate::domain::secret::Secret;
use crate::domain::sla::probe::SlaProbe;
use axum::body::Body;
use http::Request;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http_body_util::BodyExt;
use serde_json::json;

/// A probe that takes longer has failed; an answer to one is a few tokens.
const DEADLINE_MS: u64 = 60_000;
/// Room for a short answer. With less, models that think first give none.
const MAX_TOKENS: u64 = 16;

/// Sends `probe` with its key through `handler`, and reads the answer to its end. How it went is on its receipt.
pub async fn send(handler: &RequestHandler, probe: &SlaProbe, secret: &Secret) {
    let model = &*probe.model;
    let (path, body) = match probe.endpoint {
        Endpoint::Embeddings => ("/v1/embeddings", json!({ "model": model, "input": "ping" })),
        _ => {
            let messages = json!([{ "role": "user", "content": "Answer with the word pong." }]);
            let call = json!({ "model": model, "messages": messages, "max_tokens": MAX_TOKENS, "stream": true });
            ("/v1/chat/completions", call)
        }
    };
    let request = Request::post(path)
        .header(HOST, "sla-probe")
        .header(AUTHORIZATION, format!("Bearer {}", secret.expose()))
        .header(CONTENT_TYPE, "application/json")
        .header("x-tierway-deadline-ms", DEADLINE_MS)
        .body(Body::from(body.to_string()));
    let Ok(request) = request else { return };
    let answer = handler.handle(request, None).await;
    // An answer that breaks off has left a receipt that says so.
    drop(answer.into_body().collect().await);
}
