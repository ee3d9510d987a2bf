//! What happens to every request before and after its route: it gets an id and a start time, a panic becomes
//! a 500, and web pages are told what they may read.
//!
//! Limits on connections and heads are in [`conn`](super::conn), limits on bodies in
//! [`upload`](super::upload). This is a value around the router and not a tower layer within it, which
//! would box every request's future once more.
//!
//! Start reading at [`RequestHandler::handle`].

use super::cors::CrossOriginRequest;
use super::error::ApiError;
use super::headers::{REQUEST_ID, id_value};
use super::host;
use crate::clock::Clock;
use crate::domain::id::RequestId;
use crate::random::Rng;
use crate::relay::Relay;
use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use std::fmt;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;
use tower::Service;

/// A request's id, and when its head had been read.
#[derive(Clone, Copy, Debug)]
pub struct RequestArrival {
    /// Its id, sent as `x-request-id`.
    pub id: RequestId,
    /// The instant its head had been read.
    pub received: Instant,
}

/// A router with what every request to it needs.
#[derive(Clone)]
pub struct RequestHandler {
    router: Router,
    clock: Clock,
    rng: Arc<Rng>,
    /// Whose configuration says which web pages may read the answers; `None`: none may.
    pages: Option<Arc<Relay>>,
}

impl fmt::Debug for RequestHandler {
    /// Only its routes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHandler").field("router", &self.router).finish_non_exhaustive()
    }
}

impl RequestHandler {
    /// Sends requests to `router`.
    pub fn new(router: Router, clock: Clock, rng: Arc<Rng>) -> Self {
        Self { router, clock, rng, pages: None }
    }

    /// The same for web pages too, as far as the configuration of `relay` allows.
    pub fn for_pages(self, relay: Arc<Relay>) -> Self {
        Self { pages: Some(relay), ..self }
    }

    /// The router's response. Every response has `x-request-id`.
    pub async fn handle(&self, mut request: Request) -> Response {
        let id = RequestId::new(self.clock.unix_ms(), self.rng.draw());
        request.extensions_mut().insert(RequestArrival { id, received: self.clock.now() });
        let cross_origin = self.pages.as_ref().and_then(|relay| {
            let active = relay.active_config();
            CrossOriginRequest::of(&active.snapshot.server.cors, &request)
        });
        let mut response = match cross_origin.as_ref().and_then(CrossOriginRequest::preflight) {
            Some(preflight) => preflight,
            None => {
                let mut response = match host::is_clear(&request) {
                    true => self.catch_panic(request).await,
                    false => ApiError::unclear_host().response(),
                };
                if let Some(cross_origin) = cross_origin {
                    cross_origin.allow(response.headers_mut());
                }
                response
            }
        };
        response.headers_mut().entry(REQUEST_ID).or_insert_with(|| id_value(id));
        response
    }

    /// A panic in a route becomes a 500, so that it does not abort the connection with the other
    /// requests on it. What the request held is released by its guards.
    async fn catch_panic(&self, request: Request) -> Response {
        let mut router = self.router.clone();
        let mut handled = pin!(async move { router.call(request).await });
        let caught = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| handled.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Ok),
            // The future is never polled again.
            Err(panic) => Poll::Ready(Err(panic)),
        });
        match caught.await {
            Ok(Ok(response)) => response,
            Err(_) => ApiError::internal().response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::routing::get;
    use http::{HeaderValue, StatusCode};
    use http_body_util::BodyExt;

    async fn ask(path: &str, rng: &Arc<Rng>) -> (StatusCode, Option<HeaderValue>, String) {
        #[allow(clippy::unused_async)] // a handler is async
        async fn panics() -> Response {
            panic!("on purpose")
        }
        let router = Router::new().route("/panics", get(panics)).route("/works", get(async || "works"));
        let request = Request::get(path).header("host", "tests").body(Body::empty()).unwrap();
        let response = RequestHandler::new(router, Clock, rng.clone()).handle(request).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (parts.status, parts.headers.get(REQUEST_ID).cloned(), String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn every_response_has_an_id_of_its_own() {
        let rng = Arc::new(Rng::seeded(1));
        let mut ids = std::collections::BTreeSet::new();
        for path in ["/works", "/works", "/panics", "/nowhere"] {
            let (_, id, _) = ask(path, &rng).await;
            let id = id.expect("an id").to_str().unwrap().to_owned();
            assert!(id.starts_with("req_") && id.len() == 36, "{id}");
            ids.insert(id);
        }
        assert_eq!(ids.len(), 4);
    }

    #[tokio::test]
    async fn a_panic_becomes_a_500_of_its_own_request_alone() {
        let rng = Arc::new(Rng::seeded(1));
        let (status, _, body) = ask("/panics", &rng).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(body.contains(r#""code":"internal_error""#) && !body.contains("on purpose"), "{body}");
        assert_eq!(ask("/works", &rng).await.0, StatusCode::OK);
    }
}
