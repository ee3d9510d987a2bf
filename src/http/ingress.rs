//! From what a client sent to a [`RawRequest`]: key, knobs, the headers that may travel on, and a body
//! that is read when the corridor asks for it.
//!
//! The door never says no: whatever is wrong travels on as a value and is refused in the corridor, so
//! that it leaves a receipt. What is not on the list here does not travel: no cookie, no credential,
//! no host.
//!
//! Start reading at [`read`].

use super::layers::Arrival;
use super::openai::peek::peek;
use super::upload::Upload;
use super::{App, Asked};
use crate::domain::refusal::Refusal;
use crate::domain::secret::Secret;
use crate::relay::{Knobs, RawRequest, Wanted};
use axum::body::Body;
use http::header::{AUTHORIZATION, CONNECTION};
use http::{HeaderMap, HeaderName, Request};
use std::time::Duration;

/// Also a place for the key, as Azure's clients have it.
const API_KEY: &str = "api-key";
const NO_FALLBACK: &str = "x-tierway-no-fallback";
const DEADLINE: &str = "x-tierway-deadline-ms";
/// What travels on to the provider, beside names that begin with [`CLIENT_FACTS`].
const TRAVELS: [&str; 6] = ["accept", "content-type", "traceparent", "tracestate", "idempotency-key", "openai-beta"];
/// What the official clients tell of themselves.
const CLIENT_FACTS: &str = "x-stainless-";

/// The request as the corridor takes it.
pub fn read(app: &App, asked: Asked, request: Request<Body>) -> RawRequest {
    let (parts, body) = request.into_parts();
    let arrival = parts.extensions.get::<Arrival>().expect("a layer gives every request one");
    let live = app.relay.live();
    let upload = Upload::new(body, &parts.headers, live.front(), app.held.clone(), app.clock);
    let wanted = match asked {
        Asked::Endpoint(endpoint) => {
            let read = Box::pin(async move { peek(endpoint, upload.gather().await?) });
            Wanted::Call { endpoint, read }
        }
        Asked::UnknownUrl => Wanted::UnknownUrl { path: parts.uri.path().into() },
        Asked::WrongMethod { allow } => Wanted::WrongMethod { allow },
    };
    RawRequest {
        id: arrival.id,
        received: arrival.received,
        live,
        key: key(&parts.headers),
        wanted,
        knobs: knobs(&parts.headers),
        headers: travelling(&parts.headers),
    }
}

/// The key a client presents: `Authorization: Bearer KEY`, else `api-key: KEY`.
pub fn key(headers: &HeaderMap) -> Option<Secret> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.to_str().ok()?.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let plain = || headers.get(API_KEY).and_then(|value| value.to_str().ok()).map(str::trim);
    bearer.or_else(plain).filter(|text| !text.is_empty()).map(Secret::new)
}

fn knobs(headers: &HeaderMap) -> Result<Knobs, Refusal> {
    let no_fallback = knob(headers, NO_FALLBACK, |text| match text {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    })?;
    let deadline = knob(headers, DEADLINE, |text| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|ms| digits && *ms > 0).map(Duration::from_millis)
    })?;
    Ok(Knobs { no_fallback: no_fallback.unwrap_or_default(), deadline })
}

/// One header of ours, which may be given once.
fn knob<T>(headers: &HeaderMap, name: &'static str, read: fn(&str) -> Option<T>) -> Result<Option<T>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let (first, more) = (values.next(), values.next());
    let Some(value) = first else { return Ok(None) };
    let read = value.to_str().ok().and_then(|text| read(text.trim())).filter(|_| more.is_none());
    read.map(Some).ok_or(Refusal::BadHeader { name })
}

/// The headers that travel on, without those that `Connection` keeps to this hop.
fn travelling(headers: &HeaderMap) -> HeaderMap {
    let this_hop_only = |name: &HeaderName| {
        let mut named = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
        named.any(|list| list.split(',').any(|item| item.trim().eq_ignore_ascii_case(name.as_str())))
    };
    let travels = |name: &HeaderName| {
        (TRAVELS.contains(&name.as_str()) || name.as_str().starts_with(CLIENT_FACTS)) && !this_hop_only(name)
    };
    let mut travelling = HeaderMap::new();
    for (name, value) in headers.iter().filter(|(name, _)| travels(name)) {
        travelling.append(name.clone(), value.clone());
    }
    travelling
}
