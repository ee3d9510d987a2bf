//! What happens to every request before and after its route: it gets an id and a start time, a panic becomes
//! a 500, and web pages are told what they may read.
//!
//! Limits on connections and heads are in [`conn`](super::conn), limits on bodies in
//! [`upload`](super::upload). This is a value around the router and not a tower layer within it, which
//! would box every request's future once more. A call to an endpoint does not pass the router at all.
//!
//! Start reading at [`RequestHandler::handle`].

use super::conn::connection::Connection;
use super::cors::CrossOriginRequest;
use super::error::ApiError;
use super::headers::{REQUEST_ID, id_value};
use super::{AppState, Route, host, paths, serve};
use crate::clock::Clock;
use crate::domain::id::RequestId;
use crate::random::Rng;
use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use http::Extensions;
use std::fmt;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;
use tower::Service;

/// A request's id, when its head had been read, and where it came from.
#[derive(Clone)]
pub struct RequestArrival {
    /// Its id, sent as `x-request-id`.
    pub id: RequestId,
    /// The instant its head had been read.
    pub received: Instant,
    /// The connection it came on, where that is watched.
    pub connection: Option<Arc<Connection>>,
}

impl RequestArrival {
    /// The connection of the request with these extensions, where it is watched.
    pub fn connection(extensions: &Extensions) -> Option<&Arc<Connection>> {
        extensions.get::<Self>()?.connection.as_ref()
    }
}

/// A router with what every request to it needs.
#[derive(Clone)]
pub struct RequestHandler {
    router: Router,
    clock: Clock,
    rng: Arc<Rng>,
    /// What serves calls to endpoints, and whose configuration says which web pages may read the answers; `None` at an
    /// address that has no endpoints.
    clients: Option<Arc<AppState>>,
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
        Self { router, clock, rng, clients: None }
    }

    /// The same for clients of `app` too, and for web pages as far as its configuration allows.
    pub fn for_clients(self, app: Arc<AppState>) -> Self {
        Self { clients: Some(app), ..self }
    }

    /// The response to `request`, which came on `connection`. Every response has `x-request-id`.
    pub async fn handle(&self, request: Request, connection: Option<Arc<Connection>>) -> Response {
        let id = RequestId::new(self.clock.unix_ms(), self.rng.draw());
        let arrival = RequestArrival { id, received: self.clock.now(), connection };
        let cross_origin = self.clients.as_ref().and_then(|app| {
            let active = app.relay.active_config();
            CrossOriginRequest::of(&active.snapshot.server.cors, &request)
        });
        let mut response = match cross_origin.as_ref().and_then(CrossOriginRequest::preflight) {
            Some(preflight) => preflight,
            None => {
                let mut response = match host::is_clear(&request) {
                    true => Self::catch_panic(self.route(arrival, request)).await,
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

    /// A call to an endpoint by its exact path goes straight to what serves it: the router's search and its boxes cost as
    /// much as a tenth of a refusal (`make instructions`: 4,700 of 43,700).
    async fn route(&self, arrival: RequestArrival, mut request: Request) -> Response {
        if let Some(app) = &self.clients
            && let Some(endpoint) = paths::endpoint_called(request.method(), request.uri().path())
        {
            return serve(app.clone(), Route::Endpoint(endpoint), arrival, request).await;
        }
        request.extensions_mut().insert(arrival);
        self.router.clone().call(request).await.unwrap_or_else(|never| match never {})
    }

    /// A panic in a route becomes a 500, so that it does not abort the connection with the other
    /// requests on it. What the request held is released by its guards.
    async fn catch_panic(handled: impl Future<Output = Response>) -> Response {
        let mut handled = pin!(handled);
        let caught = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| handled.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Ok),
            // The future is never polled again.
            Err(panic) => Poll::Ready(Err(panic)),
        });
        match caught.await {
            Ok(response) => response,
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
        let response = RequestHandler::new(router, Clock, rng.clone()).handle(request, None).await;
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
