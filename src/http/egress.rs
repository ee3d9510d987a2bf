//! From the reply of the request path to what the client reads: status, our headers, the body's stream.
//!
//! Provider headers arrive here already filtered by an allow-list; nothing is taken from the request. The text of
//! an error is decided in [`error`](super::error), how a stream ends in [`ending`](super::ending).
//!
//! Start reading at [`answer`].

use super::AppState;
use super::conn::connection::Connection;
use super::conn::lifecycle::LifecyclePhase;
use super::ending::OutgoingBody;
use super::error::{ApiError, passed_on};
use super::headers::{id_value, write_metadata};
use crate::domain::id::RequestId;
use crate::protocol::{Dialect, request_id_header};
use crate::relay::{ErrorReply, SuccessReply};
use crate::telemetry::InFlight;
use axum::body::Body;
use axum::response::Response;
use http::header::{CACHE_CONTROL, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};
use std::sync::Arc;

/// nginx keeps a stream in its buffers unless this header forbids it.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// What an answer is sent with.
pub struct ResponseContext<'a> {
    /// Its lifecycle ends streams.
    pub app: &'a AppState,
    /// What the client speaks.
    pub dialect: Dialect,
    /// The connection, where it is watched.
    pub connection: Option<Arc<Connection>>,
    /// The request counts as in flight until its body has ended.
    pub in_flight: InFlight,
}

/// The response to a request that was served or refused.
pub fn answer(result: Result<SuccessReply, ErrorReply>, outlet: ResponseContext<'_>) -> Response {
    match result {
        Ok(reply) => served(reply, outlet),
        Err(error_reply) => failed(error_reply, outlet.dialect),
    }
}

fn served(reply: SuccessReply, outlet: ResponseContext<'_>) -> Response {
    let SuccessReply { status, headers, metadata, stream, body, .. } = reply;
    let ResponseContext { app, dialect, connection, in_flight } = outlet;
    let body = if stream {
        let stop = Box::pin(app.lifecycle.reached(LifecyclePhase::Cutting));
        OutgoingBody::stream(body, in_flight, connection, stop, dialect, app.clock)
    } else {
        OutgoingBody::whole(body, in_flight)
    };
    let mut response = Response::new(Body::new(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    if stream {
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response.headers_mut().insert(BUFFERING, HeaderValue::from_static("no"));
    }
    write_metadata(&metadata, response.headers_mut());
    name_request(dialect, metadata.id, response.headers_mut());
    response
}

/// Where clients of `dialect` look for the request's name, unless the provider gave it one.
fn name_request(dialect: Dialect, id: RequestId, headers: &mut HeaderMap) {
    if let Some(name) = request_id_header(dialect) {
        headers.entry(HeaderName::from_static(name)).or_insert_with(|| id_value(id));
    }
}

fn failed(error_reply: ErrorReply, dialect: Dialect) -> Response {
    let mut response = match ApiError::of(&error_reply.error) {
        Ok(row) => {
            log(error_reply.metadata.id, &row);
            row.response_in(dialect, Some(error_reply.metadata.id))
        }
        Err(rejection) => passed_on(rejection),
    };
    write_metadata(&error_reply.metadata, response.headers_mut());
    name_request(dialect, error_reply.metadata.id, response.headers_mut());
    error_reply.send(response.status());
    response
}

/// One line, where the error becomes a response; the access log has the rest.
fn log(id: RequestId, row: &ApiError) {
    match row.status {
        StatusCode::INTERNAL_SERVER_ERROR => tracing::error!(request_id = %id, code = row.code, "{}", row.log),
        status if status.is_server_error() => tracing::warn!(request_id = %id, code = row.code, "{}", row.log),
        _ => tracing::debug!(request_id = %id, code = row.code, "{}", row.log),
    }
}
