//! From what a client sent to a [`RawRequest`]: key, options, the headers that are passed on, and a body
//! that is read when `relay` asks for it.
//!
//! It never refuses: whatever is wrong is passed on as a value and refused by `relay`, so that it gets a
//! receipt. A header that is not on the list here is not passed on: no cookie, no credential, no host.
//!
//! Start reading at [`read`].

use super::request_handler::RequestArrival;
use super::upload::Upload;
use super::{AppState, Route, paths, stored_responses};
use crate::domain::body_member::ListedMembers;
use crate::domain::call::{BodyProblem, Call, Endpoint};
use crate::domain::memory::InFlightAllowance;
use crate::domain::refusal::Refusal;
use crate::domain::secret::Secret;
use crate::domain::stored_response::StoredRequest;
use crate::protocol::{self, Dialect, meant_for, read_request, read_stored};
use crate::relay::{CallReader, RawRequest, RequestOptions, RequestTarget};
use axum::extract::Request;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION};
use http::{HeaderMap, HeaderName};
use std::time::Duration;

/// Where Azure's clients send the key.
const API_KEY: HeaderName = HeaderName::from_static("api-key");
/// Where Anthropic's clients send the key.
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// Where model APIs take a key. Only the first three are read here; another hop may read any of them.
static KEY_HEADERS: [HeaderName; 4] = [AUTHORIZATION, API_KEY, X_API_KEY, HeaderName::from_static("x-goog-api-key")];
static NO_FALLBACK: HeaderName = HeaderName::from_static("x-tierway-no-fallback");
static DEADLINE: HeaderName = HeaderName::from_static("x-tierway-deadline-ms");
/// How long the official clients wait, in seconds: Python's and Node's.
static CLIENT_TIMEOUTS: [HeaderName; 2] =
    [HeaderName::from_static("x-stainless-read-timeout"), HeaderName::from_static("x-stainless-timeout")];
/// A client that waits longer does not limit anything.
const LONGEST_CLIENT_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
/// Headers that are passed on to the provider, besides those of the dialect and names that begin with
/// [`CLIENT_METADATA`].
const FORWARDED: [&str; 5] = ["accept", "content-type", "traceparent", "tracestate", "idempotency-key"];
/// Headers by which the official clients describe themselves.
const CLIENT_METADATA: &str = "x-stainless-";

/// The body of a call to `endpoint`, not read yet.
pub struct UploadReader {
    endpoint: Endpoint,
    upload: Upload,
    /// What is asked of a stored response or a conversation.
    stored: Option<StoredRequest>,
    /// The model that the query names, where the body names none.
    model: Option<String>,
}

impl CallReader for UploadReader {
    async fn read(self, allowance: InFlightAllowance, listed: &ListedMembers) -> Result<Call, BodyProblem> {
        let has_body = self.stored.as_ref().is_none_or(|stored| stored.action.has_body());
        let body = if has_body { self.upload.gather(allowance).await? } else { Bytes::new() };
        let call = match self.stored {
            Some(stored) => read_stored(stored, body, listed)?,
            None => read_request(self.endpoint, body, listed)?,
        };
        match self.model {
            Some(model) => meant_for(call, &model),
            None => Ok(call),
        }
    }
}

/// The request as `relay` takes it.
pub fn read(app: &AppState, route: Route, arrival: &RequestArrival, request: Request) -> RawRequest<UploadReader> {
    let (parts, body) = request.into_parts();
    let active = app.relay.active_config();
    let upload = Upload::new(body, &parts.headers, active.snapshot.server.max_body_bytes, app.clock);
    let target = match route {
        Route::Endpoint(endpoint) => {
            let model = (endpoint == Endpoint::Conversations).then(|| paths::parameter(&parts.uri, "model")).flatten();
            RequestTarget::Call { endpoint, body: UploadReader { endpoint, upload, stored: None, model } }
        }
        Route::Stored(action) => {
            let (endpoint, stored) = (Endpoint::about(action), Some(stored_responses::read(action, &parts.uri)));
            RequestTarget::Call { endpoint, body: UploadReader { endpoint, upload, stored, model: None } }
        }
        Route::UnknownUrl => RequestTarget::UnknownUrl { path: parts.uri.path().into() },
        Route::WrongMethod { allow } => RequestTarget::WrongMethod { allow },
    };
    let listed = active.forwarded();
    let dialect = route.dialect(&parts.headers);
    RawRequest {
        id: arrival.id,
        received: arrival.received,
        key: key(&parts.headers),
        target,
        options: options(&parts.headers),
        headers: forwarded_headers(&parts.headers, dialect),
        listed_headers: listed_headers(&parts.headers, &listed.headers, dialect),
        query: parts.uri.query().filter(|_| listed.query).map(Box::from),
        active,
    }
}

/// The key a client presents: `Authorization: Bearer KEY`, `api-key: KEY` or `x-api-key: KEY`. Blanks around it, and a scheme written
/// twice, are what libraries make of a key that was pasted with more than the key.
///
/// # Errors
/// [`Refusal::SeveralKeys`], if there are two different ones: another hop may have looked at the other one.
pub fn key(headers: &HeaderMap) -> Result<Option<Secret>, Refusal> {
    let (mut presented, mut is_key) = (None, false);
    for name in &KEY_HEADERS {
        for value in headers.get_all(name) {
            let value = value.as_bytes().trim_ascii();
            let text = without_schemes(value);
            let has_scheme = text.len() < value.len();
            // What another scheme presents, such as `Basic`, is for another hop and is no key.
            let is_of_other_scheme = *name == AUTHORIZATION && !has_scheme && text.contains(&b' ');
            if text.is_empty() || is_of_other_scheme {
                continue;
            }
            if presented.is_some_and(|other| other != text) {
                return Err(Refusal::SeveralKeys);
            }
            presented = Some(text);
            is_key |= *name == API_KEY || *name == X_API_KEY || *name == AUTHORIZATION && has_scheme;
        }
    }
    let key = presented.filter(|text| is_key && text.is_ascii()).and_then(|text| std::str::from_utf8(text).ok());
    Ok(key.map(Secret::new))
}

/// What follows `Bearer` and blanks in `text`, which has none around it, as often as that is there; `text` if it is not.
fn without_schemes(mut text: &[u8]) -> &[u8] {
    const SCHEME: &[u8] = b"bearer";
    while let Some((scheme, rest)) = text.split_at_checked(SCHEME.len())
        && scheme.eq_ignore_ascii_case(SCHEME)
        && rest.first().is_none_or(|byte| matches!(byte, b' ' | b'\t'))
    {
        text = rest.trim_ascii();
    }
    text
}

/// Our own headers by which a client sets options of its request.
///
/// # Errors
/// [`Refusal::BadHeader`] for one that is given twice or holds anything but what it may.
pub fn options(headers: &HeaderMap) -> Result<RequestOptions, Refusal> {
    let no_fallback = option(headers, &NO_FALLBACK, |text| match text {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    })?;
    let deadline = option(headers, &DEADLINE, |text| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|ms| digits && *ms > 0).map(Duration::from_millis)
    })?;
    let client_timeout = CLIENT_TIMEOUTS.iter().filter_map(|name| client_timeout(headers, name)).min();
    Ok(RequestOptions { no_fallback: no_fallback.unwrap_or_default(), deadline, client_timeout })
}

/// What a client's library says of its own timeout. Nobody wrote that by hand: what cannot be one is ignored.
fn client_timeout(headers: &HeaderMap, name: &HeaderName) -> Option<Duration> {
    let mut values = headers.get_all(name).iter();
    let (value, more) = (values.next()?.to_str().ok()?.trim(), values.next());
    let plain = value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let seconds = value.parse().ok().filter(|_| plain && more.is_none())?;
    let timeout = Duration::try_from_secs_f64(seconds).ok()?;
    (!timeout.is_zero() && timeout <= LONGEST_CLIENT_TIMEOUT).then_some(timeout)
}

/// One header of ours, which may be given once.
fn option<T>(
    headers: &HeaderMap,
    name: &'static HeaderName,
    read: fn(&str) -> Option<T>,
) -> Result<Option<T>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let (first, more) = (values.next(), values.next());
    let Some(value) = first else { return Ok(None) };
    let read = value.to_str().ok().and_then(|text| read(text.trim())).filter(|_| more.is_none());
    read.map(Some).ok_or(Refusal::BadHeader { name: name.as_str() })
}

/// The headers that are passed on to every provider of `dialect`, without those that `Connection` keeps to this hop.
pub fn forwarded_headers(headers: &HeaderMap, dialect: Dialect) -> HeaderMap {
    // Most requests have no such header, and official clients a dozen of those that are passed on.
    let names_some = headers.contains_key(CONNECTION);
    let is_forwarded =
        |name: &HeaderName| is_always_forwarded(name, dialect) && !(names_some && is_for_this_hop(name, headers));
    let mut passed = HeaderMap::new();
    for (name, value) in headers.iter().filter(|(name, _)| is_forwarded(name)) {
        passed.append(name.clone(), value.clone());
    }
    passed
}

fn is_always_forwarded(name: &HeaderName, dialect: Dialect) -> bool {
    let lists = [&FORWARDED[..], protocol::forwarded_headers(dialect)];
    lists.into_iter().any(|list| list.contains(&name.as_str())) || name.as_str().starts_with(CLIENT_METADATA)
}

/// Whether `Connection` keeps the header to this hop.
fn is_for_this_hop(name: &HeaderName, headers: &HeaderMap) -> bool {
    // As bytes: a list that is not ASCII names headers all the same.
    let mut named = headers.get_all(CONNECTION).iter().flat_map(|list| list.as_bytes().split(|byte| *byte == b','));
    named.any(|item| item.trim_ascii().eq_ignore_ascii_case(name.as_str().as_bytes()))
}

/// Of a client's headers those that some provider's configuration lists, `listed`, and not every provider gets.
fn listed_headers(headers: &HeaderMap, listed: &[HeaderName], dialect: Dialect) -> HeaderMap {
    let mut passed = HeaderMap::new();
    for name in listed.iter().filter(|name| !is_always_forwarded(name, dialect) && !is_for_this_hop(name, headers)) {
        for value in headers.get_all(name) {
            passed.append(name, value.clone());
        }
    }
    passed
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn what_a_provider_lists_is_kept_for_it() {
        let sent = headers(&[
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-two", "3"),
            ("x-hop", "4"),
            ("accept", "a"),
            ("cookie", "c"),
            ("connection", "x-hop"),
        ]);
        let listed = ["x-two", "x-hop", "accept", "x-none"].map(HeaderName::from_static);
        let kept = listed_headers(&sent, &listed, Dialect::Chat);
        let kept: Vec<_> = kept.iter().map(|(n, v)| format!("{n}: {}", v.to_str().expect("it is text"))).collect();
        assert_eq!(kept, ["x-two: 2", "x-two: 3"]);
        assert!(listed_headers(&sent, &[], Dialect::Chat).is_empty());
    }

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_key_comes_as_bearer_or_as_api_key() {
        let check = |list: &[(&'static str, &'static str)], expected: Option<&str>| {
            let key = key(&headers(list)).expect("there is one at most");
            assert_eq!(key.as_ref().map(Secret::expose), expected, "{list:?}");
        };
        check(&[("authorization", "Bearer sk-1")], Some("sk-1"));
        check(&[("authorization", "bearer  sk-1 ")], Some("sk-1"));
        check(&[("authorization", " Bearer\tsk-1\t ")], Some("sk-1"));
        check(&[("authorization", "Bearer Bearer sk-1")], Some("sk-1"));
        check(&[("authorization", "Bearer  bearer   BEARER sk-1")], Some("sk-1"));
        check(&[("api-key", " Bearer sk-2 ")], Some("sk-2"));
        check(&[("authorization", "BearerBearer sk-1")], None);
        check(&[("authorization", "Bearer sk 1")], Some("sk 1"));
        check(&[("api-key", "sk-2")], Some("sk-2"));
        check(&[("authorization", "Bearer sk-1"), ("api-key", "sk-1"), ("x-api-key", "sk-1")], Some("sk-1"));
        check(&[("authorization", "Bearer sk-1"), ("authorization", "Bearer  sk-1")], Some("sk-1"));
        check(&[("authorization", "sk-1"), ("api-key", "sk-1")], Some("sk-1"));
        check(&[("authorization", "Bearer "), ("api-key", "sk-2")], Some("sk-2"));
        check(&[("authorization", "Bearer sk-1"), ("api-key", "")], Some("sk-1"));
        check(&[("authorization", "Basic c2s6"), ("api-key", "sk-2")], Some("sk-2"));
        check(&[("authorization", "sk-1")], None);
        check(&[("authorization", "Bearer ")], None);
        check(&[("api-key", " ")], None);
        check(&[("x-api-key", "sk-3")], Some("sk-3"));
        check(&[("x-api-key", "sk-3"), ("authorization", "sk-3")], Some("sk-3"));
        check(&[("x-goog-api-key", "sk-3")], None);
        check(&[("x-goog-api-key", "sk-3"), ("authorization", "sk-3")], None);
        check(&[], None);
    }

    #[test]
    fn two_different_keys_are_none() {
        let names = ["authorization", "api-key", "x-api-key", "x-goog-api-key"];
        let first = |name| if name == "authorization" { "Bearer sk-1" } else { "sk-1" };
        for one in names {
            for other in names {
                for second in ["sk-2", "Bearer sk-2", "bearer\tBearer sk-2", "SK-1", "sk-1,sk-1", "sk-1 sk-1"] {
                    // A text with a blank is of another scheme, unless it is after `Bearer`.
                    let second =
                        if other == "authorization" && second == "sk-1 sk-1" { "Bearer sk-1 sk-1" } else { second };
                    let both = headers(&[(one, first(one)), (other, second)]);
                    assert!(matches!(key(&both), Err(Refusal::SeveralKeys)), "{one}, {other}: {second}");
                }
            }
        }
        let mut hidden = headers(&[("authorization", "Bearer sk-1")]);
        hidden.append("x-api-key", HeaderValue::from_bytes(b"sk-1\xff").expect("a header may hold it"));
        assert!(matches!(key(&hidden), Err(Refusal::SeveralKeys)));
    }

    #[test]
    fn options_are_read_exactly_or_refused() {
        let check = |list: &[(&'static str, &'static str)], expected: Result<(bool, Option<u64>), &'static str>| {
            let read = options(&headers(list));
            let read = read.map(|options| (options.no_fallback, options.deadline.map(|d| d.as_millis() as u64)));
            assert_eq!(read, expected.map_err(|name| Refusal::BadHeader { name }), "{list:?}");
        };
        check(&[], Ok((false, None)));
        check(&[(NO_FALLBACK.as_str(), "true"), (DEADLINE.as_str(), "1500")], Ok((true, Some(1500))));
        check(&[(NO_FALLBACK.as_str(), "1")], Ok((true, None)));
        check(&[(NO_FALLBACK.as_str(), "false")], Ok((false, None)));
        check(&[(NO_FALLBACK.as_str(), " 0 ")], Ok((false, None)));
        for bad in ["", "yes", "TRUE", "2", "true,true"] {
            check(&[(NO_FALLBACK.as_str(), bad)], Err(NO_FALLBACK.as_str()));
        }
        for bad in ["", "0", "-1", "+5", "1.5", "1s", "99999999999999999999"] {
            check(&[(DEADLINE.as_str(), bad)], Err(DEADLINE.as_str()));
        }
        check(&[(DEADLINE.as_str(), "5"), (DEADLINE.as_str(), "6")], Err(DEADLINE.as_str()));
        check(&[(NO_FALLBACK.as_str(), "true"), (NO_FALLBACK.as_str(), "true")], Err(NO_FALLBACK.as_str()));
    }

    #[test]
    fn a_clients_own_timeout_is_a_hint() {
        let check = |list: &[(&'static str, &'static str)], millis: Option<u64>| {
            let read = options(&headers(list)).expect("a hint is never refused");
            assert_eq!(read.client_timeout, millis.map(Duration::from_millis), "{list:?}");
        };
        let [python, node] = CLIENT_TIMEOUTS.each_ref().map(|name| name.as_str());
        check(&[], None);
        check(&[(python, "600")], Some(600_000));
        check(&[(python, "600.0")], Some(600_000));
        check(&[(node, " 0.25 ")], Some(250));
        check(&[(python, "60"), (node, "20")], Some(20_000));
        check(&[(python, "20"), (node, "60")], Some(20_000));
        check(&[(python, "86400")], Some(86_400_000));
        for bad in
            ["", ".", "0", "0.0", "-1", "+1", "1e3", "inf", "NaN", "None", "10s", "1.2.3", "86401", "9999999999999999"]
        {
            check(&[(python, bad)], None);
            check(&[(python, bad), (node, "5")], Some(5_000));
        }
        check(&[(python, "5"), (python, "5")], None);
        check(&[(python, "5"), (python, "5"), (node, "7")], Some(7_000));
    }

    #[test]
    fn only_listed_headers_are_forwarded() {
        let sent = headers(&[
            ("host", "elsewhere"),
            ("authorization", "Bearer sk-1"),
            ("api-key", "sk-1"),
            ("cookie", "a=b"),
            ("x-forwarded-for", "10.0.0.1"),
            ("openai-organization", "org"),
            ("x-tierway-deadline-ms", "5"),
            ("content-length", "2"),
            ("accept-encoding", "gzip"),
            ("accept", "text/event-stream"),
            ("content-type", "application/json"),
            ("traceparent", "00-a-b-01"),
            ("tracestate", "v=1"),
            ("tracestate", "w=2"),
            ("idempotency-key", "k"),
            ("openai-beta", "x=y"),
            ("x-stainless-lang", "python"),
            ("x-stainless-os", "Linux"),
            ("connection", "keep-alive, X-Stainless-OS"),
        ]);
        let passed = forwarded_headers(&sent, Dialect::Chat);
        let passed: Vec<_> = passed.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        let mut expected = vec![
            "accept: text/event-stream",
            "content-type: application/json",
            "traceparent: 00-a-b-01",
            "tracestate: v=1",
            "tracestate: w=2",
            "idempotency-key: k",
            "openai-beta: x=y",
            "x-stainless-lang: python",
        ];
        let mut passed: Vec<&str> = passed.iter().map(String::as_str).collect();
        passed.sort_unstable();
        expected.sort_unstable();
        assert_eq!(passed, expected);
    }

    #[test]
    fn what_connection_names_stays_whatever_else_it_holds() {
        let mut sent = headers(&[("x-stainless-os", "Linux"), ("x-stainless-lang", "python")]);
        let list = HeaderValue::from_bytes(b"X-Stainless-OS, \xff").expect("a header may hold it");
        sent.insert(CONNECTION, list);
        let passed = forwarded_headers(&sent, Dialect::Chat);
        assert_eq!(passed.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-stainless-lang"]);
    }
}
