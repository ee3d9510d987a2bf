//! An SLA probe as the request of a client: it takes the path of every other one from its head on, only without a
//! connection.
//!
//! Start reading at [`send`].

use super::request_handler::RequestHandler;
use crate::domain::call::Endpoint;
use crate::domain::secret::Secret;
use crate::domain::sla::probe::SlaProbe;
use crate::protocol::chat::probe as asked;
use axum::body::Body;
use http::Request;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http_body_util::BodyExt;

/// A probe that takes longer has failed; an answer to one is a few tokens.
const DEADLINE_MS: u64 = 60_000;

/// Sends `probe` with its key through `handler`, and reads the answer to its end. How it went is on its receipt.
pub async fn send(handler: &RequestHandler, probe: &SlaProbe, secret: &Secret) {
    let path = if probe.endpoint == Endpoint::Embeddings { "/v1/embeddings" } else { "/v1/chat/completions" };
    let request = Request::post(path)
        .header(HOST, "sla-probe")
        .header(AUTHORIZATION, format!("Bearer {}", secret.expose()))
        .header(CONTENT_TYPE, "application/json")
        .header("x-tierway-deadline-ms", DEADLINE_MS)
        .body(Body::from(asked::body(probe.endpoint, &probe.model)));
    let Ok(request) = request else { return };
    let answer = handler.handle(request, None).await;
    // An answer that breaks off has left a receipt that says so.
    drop(answer.into_body().collect().await);
}
