//! What every request passes on its way to its handler and back.
//!
//! Two layers, in this order from the outside: [`arrival`], [`panic_net`]. Limits on connections,
//! heads and time are the server's, limits on bodies the ingress's.
//!
//! Start reading at [`wrap`].

use super::egress::REQUEST_ID;
use super::error::Row;
use crate::clock::Clock;
use crate::domain::id::RequestId;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use http::HeaderValue;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};
use uuid::{NoContext, Timestamp, Uuid};

/// A request's name and the moment its head had been read.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Its name.
    pub id: RequestId,
    /// When its head had been read.
    pub received: Instant,
}

/// `router` behind every layer.
pub fn wrap(router: Router, clock: Clock) -> Router {
    router.layer(from_fn(panic_net)).layer(from_fn_with_state(clock, arrival))
}

/// Outermost, so that whatever answers bears the request's name: gives every request one, and the
/// moment everything later is measured from.
async fn arrival(State(clock): State<Clock>, mut request: Request, next: Next) -> Response {
    let arrival = Arrival { id: new_id(clock), received: clock.now() };
    request.extensions_mut().insert(arrival);
    let mut response = next.run(request).await;
    let name = || HeaderValue::try_from(arrival.id.to_string()).expect("hex digits are a header value");
    response.headers_mut().entry(REQUEST_ID).or_insert_with(name);
    response
}

/// Around the handlers, so that a bug in one costs its own request and not the connection, with the
/// other requests on it: a panic becomes a 500. What the request held is released by its guards.
async fn panic_net(request: Request, next: Next) -> Response {
    let mut handled = pin!(next.run(request));
    let caught = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| handled.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Ok),
        // It is never polled again.
        Err(panic) => Poll::Ready(Err(panic)),
    });
    match caught.await {
        Ok(response) => response,
        Err(_) => Row::internal().response(),
    }
}

/// A UUID of version 7, in the time of our one clock.
fn new_id(clock: Clock) -> RequestId {
    let since_1970 = Duration::from_millis(clock.unix_ms().max(0) as u64);
    let at = Timestamp::from_unix(NoContext, since_1970.as_secs(), since_1970.subsec_nanos());
    RequestId(Uuid::new_v7(at).as_u128())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::routing::get;
    use http::StatusCode;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    async fn ask(path: &str) -> (StatusCode, Option<HeaderValue>, String) {
        #[allow(clippy::unused_async)] // a handler is async
        async fn panics() -> Response {
            panic!("on purpose")
        }
        let router = Router::new().route("/panics", get(panics)).route("/works", get(async || "works"));
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = wrap(router, Clock).oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (parts.status, parts.headers.get(REQUEST_ID).cloned(), String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn every_response_bears_a_name_of_its_own() {
        let mut names = std::collections::BTreeSet::new();
        for path in ["/works", "/works", "/panics", "/nowhere"] {
            let (_, name, _) = ask(path).await;
            let name = name.expect("a name").to_str().unwrap().to_owned();
            assert!(name.starts_with("req_") && name.len() == 36, "{name}");
            names.insert(name);
        }
        assert_eq!(names.len(), 4);
    }

    #[tokio::test]
    async fn a_panic_is_one_requests_internal_error() {
        let (status, _, body) = ask("/panics").await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(body.contains(r#""code":"internal_error""#) && !body.contains("on purpose"), "{body}");
        assert_eq!(ask("/works").await.0, StatusCode::OK);
    }

    #[test]
    fn names_are_uuids_of_version_seven_in_our_clocks_time() {
        let before = Clock.unix_ms() as u128;
        let id = new_id(Clock).0;
        let after = Clock.unix_ms() as u128;
        assert!((before..=after).contains(&(id >> 80)));
        assert_eq!(id >> 76 & 0xf, 7);
    }
}
