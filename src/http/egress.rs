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
use crate::domain::id::RequestId;
use crate::domain::limit::RateLimitStatus;
use crate::protocol::Dialect;
use crate::relay::{ErrorReply, ResponseMetadata, SuccessReply};
use crate::telemetry::InFlight;
use axum::body::Body;
use axum::response::Response;
use http::header::{CACHE_CONTROL, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};
use std::sync::Arc;
use std::time::Duration;

/// The request's id, on every response.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MODEL: HeaderName = HeaderName::from_static("x-tierway-model");
const DEPLOYMENT: HeaderName = HeaderName::from_static("x-tierway-deployment");
const TIER: HeaderName = HeaderName::from_static("x-tierway-tier");
const REGION: HeaderName = HeaderName::from_static("x-tierway-region");
const ATTEMPTS: HeaderName = HeaderName::from_static("x-tierway-attempts");
const OVERHEAD: HeaderName = HeaderName::from_static("x-tierway-overhead-us");
const CLAMPED: HeaderName = HeaderName::from_static("x-tierway-clamped");
const COST: HeaderName = HeaderName::from_static("x-tierway-cost-usd");
/// At least as many headers as are added to an answer.
const OURS: usize = 16;
/// nginx keeps a stream in its buffers unless this header forbids it.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
const REQUESTS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
];
const TOKENS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];

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
    let SuccessReply { status, headers, metadata, stream, body } = reply;
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
    write(&metadata, response.headers_mut());
    response
}

fn failed(error_reply: ErrorReply, dialect: Dialect) -> Response {
    let mut response = match ApiError::of(&error_reply.error) {
        Ok(row) => {
            log(error_reply.metadata.id, &row);
            row.response_in(dialect)
        }
        Err(rejection) => passed_on(rejection),
    };
    write(&error_reply.metadata, response.headers_mut());
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

fn write(metadata: &ResponseMetadata, headers: &mut HeaderMap) {
    headers.reserve(OURS);
    headers.insert(REQUEST_ID, id_value(metadata.id));
    if let Some(served) = &metadata.served {
        name(&MODEL, &served.model, headers);
        name(&DEPLOYMENT, &served.deployment, headers);
        if let Some(tier) = &served.tier {
            name(&TIER, tier, headers);
        }
        name(&REGION, &served.region, headers);
    }
    if let Some(cost) = metadata.cost {
        headers.insert(COST, HeaderValue::try_from(cost.to_string()).expect("digits are a header value"));
    }
    if let Some(tokens) = metadata.clamped {
        let value = HeaderValue::try_from(format!("max_tokens={tokens}"));
        headers.insert(CLAMPED, value.expect("digits are a header value"));
    }
    headers.insert(ATTEMPTS, HeaderValue::from(metadata.attempts));
    headers.insert(OVERHEAD, HeaderValue::from(metadata.overhead.as_micros() as u64));
    for (names, left) in [(REQUESTS, metadata.requests), (TOKENS, metadata.tokens)] {
        if let Some(left) = left {
            rate(names, left, headers);
        }
    }
}

/// A request's id as a header.
pub fn id_value(id: RequestId) -> HeaderValue {
    HeaderValue::from_bytes(&id.text()).expect("hex digits are a header value")
}

/// A configured name may hold what no header can; such a header is left out.
fn name(header: &HeaderName, name: &str, headers: &mut HeaderMap) {
    if let Ok(value) = HeaderValue::from_bytes(name.as_bytes()) {
        headers.insert(header, value);
    }
}

fn rate([limit, remaining, reset]: [HeaderName; 3], left: RateLimitStatus, headers: &mut HeaderMap) {
    headers.insert(limit, HeaderValue::from(left.limit));
    headers.insert(remaining, HeaderValue::from(left.remaining));
    headers.insert(reset, HeaderValue::try_from(spell(left.reset)).expect("digits are a header value"));
}

/// A duration as OpenAI spells it: `250ms`, `1s`, `6m0s`; rounded up, so that it is never too early.
fn spell(duration: Duration) -> String {
    let ms = duration.as_secs() * 1_000 + u64::from(duration.subsec_nanos().div_ceil(1_000_000));
    match (ms, ms.div_ceil(1000)) {
        (0, _) => "0s".to_owned(),
        (1..=999, _) => format!("{ms}ms"),
        (_, seconds @ 0..=59) => format!("{seconds}s"),
        (_, seconds) => format!("{}m{}s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::money::NanoUsd;
    use crate::domain::receipt::ServingDeployment;

    #[test]
    fn durations_are_spelled_like_openai_spells_them() {
        let check = |micros: u64, expected: &str| assert_eq!(spell(Duration::from_micros(micros)), expected);
        check(0, "0s");
        check(1, "1ms");
        check(250_000, "250ms");
        check(999_001, "1s");
        check(1_000_000, "1s");
        check(1_000_001, "2s");
        check(59_000_000, "59s");
        check(59_000_001, "1m0s");
        check(360_000_000, "6m0s");
    }

    fn written(metadata: &ResponseMetadata) -> String {
        let mut headers = HeaderMap::new();
        write(metadata, &mut headers);
        let mut lines: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
        lines.sort();
        lines.join("\n")
    }

    fn refused() -> ResponseMetadata {
        ResponseMetadata {
            id: RequestId(0x0190_0000_0000_7000_8000_0000_0000_0001),
            served: None,
            attempts: 0,
            overhead: Duration::from_nanos(81_900),
            cost: None,
            clamped: None,
            requests: None,
            tokens: None,
        }
    }

    #[test]
    fn an_answer_says_what_served_it() {
        let served = ServingDeployment {
            model: "deepseek-ai/DeepSeek-V4-Flash".into(),
            deployment: "global-us/deepseek-ai/DeepSeek-V4-Flash".into(),
            tier: Some("default".into()),
            region: "us-east".into(),
        };
        let left = |limit, remaining| RateLimitStatus { limit, remaining, reset: Duration::from_millis(1500) };
        insta::assert_snapshot!(written(&ResponseMetadata {
            served: Some(served),
            attempts: 2,
            cost: Some(NanoUsd(21_300)),
            clamped: Some(1024),
            requests: Some(left(50, 49)),
            tokens: Some(left(200_000, 198_500)),
            ..refused()
        }));
    }

    #[test]
    fn a_refusal_says_only_what_is_true_of_it() {
        insta::assert_snapshot!(written(&refused()));
    }

    #[test]
    fn a_name_that_no_header_can_hold_is_left_out() {
        let served =
            ServingDeployment { model: "a\nb".into(), deployment: "d".into(), tier: None, region: "é".into() };
        let written = written(&ResponseMetadata { served: Some(served), ..refused() });
        assert!(!written.contains("x-tierway-model") && written.contains("x-tierway-region"), "{written}");
    }
}
