//! What every request passes on its way to its handler and back: it is given a name and a moment,
//! and a panic costs it alone.
//!
//! Limits on connections, heads and time are the server's, limits on bodies the ingress's. It is a
//! value around the router and not layers within it, which would box every request's future once more.
//!
//! Start reading at [`EntryPoint::answer`].

use super::egress::{REQUEST_ID, id_value};
use super::error::ApiError;
use crate::clock::Clock;
use crate::domain::id::RequestId;
use crate::random::Rng;
use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;
use tower::Service;

/// A request's name and the moment its head had been read.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Its name.
    pub id: RequestId,
    /// When its head had been read.
    pub received: Instant,
}

/// A router, and what comes before it.
#[derive(Clone, Debug)]
pub struct EntryPoint {
    router: Router,
    clock: Clock,
    rng: Arc<Rng>,
}

impl EntryPoint {
    /// The way to `router`.
    pub fn new(router: Router, clock: Clock, rng: Arc<Rng>) -> Self {
        Self { router, clock, rng }
    }

    /// The router's answer. Whatever answers, the response bears the request's name.
    pub async fn answer(&self, mut request: Request) -> Response {
        let id = RequestId::new(self.clock.unix_ms(), self.rng.draw());
        request.extensions_mut().insert(Arrival { id, received: self.clock.now() });
        let mut response = self.caught(request).await;
        response.headers_mut().entry(REQUEST_ID).or_insert_with(|| id_value(id));
        response
    }

    /// A bug in a handler costs its own request and not the connection, with the other requests on
    /// it: a panic becomes a 500. What the request held is released by its guards.
    async fn caught(&self, request: Request) -> Response {
        let mut router = self.router.clone();
        let mut handled = pin!(async move { router.call(request).await });
        let caught = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| handled.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Ok),
            // It is never polled again.
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
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = EntryPoint::new(router, Clock, rng.clone()).answer(request).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (parts.status, parts.headers.get(REQUEST_ID).cloned(), String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn every_response_bears_a_name_of_its_own() {
        let rng = Arc::new(Rng::seeded(1));
        let mut names = std::collections::BTreeSet::new();
        for path in ["/works", "/works", "/panics", "/nowhere"] {
            let (_, name, _) = ask(path, &rng).await;
            let name = name.expect("a name").to_str().unwrap().to_owned();
            assert!(name.starts_with("req_") && name.len() == 36, "{name}");
            names.insert(name);
        }
        assert_eq!(names.len(), 4);
    }

    #[tokio::test]
    async fn a_panic_is_one_requests_internal_error() {
        let rng = Arc::new(Rng::seeded(1));
        let (status, _, body) = ask("/panics", &rng).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(body.contains(r#""code":"internal_error""#) && !body.contains("on purpose"), "{body}");
        assert_eq!(ask("/works", &rng).await.0, StatusCode::OK);
    }
}
