//! Web pages that call `/v1` from a browser: which ones may, and what they may read of the answer.
//!
//! Only clients' paths, never those of operators, and never with what a browser adds by itself: a page presents a key as
//! any other client does. A preflight is answered here, before a key is looked at, and leaves no receipt. Whether a page
//! may read an answer is said on every answer, errors and streams too; a request is served the same either way. It
//! is a value around the router like [`RequestHandler`](super::request_handler::RequestHandler), for the same reason, and
//! looks at the active configuration each time, so that a reload changes it.
//!
//! Start reading at [`CrossOriginRequest::of`].

use super::headers::EXPOSED;
use super::paths;
use crate::config::CorsSettings;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

/// The methods of clients' paths.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST");
/// The headers that are allowed where a preflight names none.
const HEADERS: HeaderValue = HeaderValue::from_static("accept, api-key, authorization, content-type, idempotency-key");
/// How long a browser need not ask again, in seconds: an origin that is taken from the configuration is forgotten then.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");
/// What a preflight's answer depends on.
const PREFLIGHT_VARY: HeaderValue =
    HeaderValue::from_static("origin, access-control-request-method, access-control-request-headers");

/// A request to a client's path while cross-origin requests are allowed at all.
pub(super) struct CrossOriginRequest {
    /// Who may read the answer; `None`: no page of another origin.
    allowed: Option<HeaderValue>,
    /// The headers that a preflight asks for; `None`: it is no preflight.
    preflight: Option<HeaderValue>,
}

impl CrossOriginRequest {
    /// What `request` is under `settings`; `None` where nothing is to be said.
    pub(super) fn of(settings: &CorsSettings, request: &Request) -> Option<Self> {
        if settings.origins.is_empty() || !paths::is_of_clients(request.uri().path()) {
            return None;
        }
        let headers = request.headers();
        let origin = headers.get(ORIGIN);
        // Scheme and host are the same in any case; browsers write them in lower case.
        let is_listed = |origin: &&HeaderValue| {
            settings.origins.iter().any(|listed| origin.as_bytes().eq_ignore_ascii_case(listed.as_bytes()))
        };
        let allowed = match (settings.any, origin) {
            (_, None) => None,
            (true, Some(_)) => Some(HeaderValue::from_static("*")),
            (false, Some(_)) => origin.filter(is_listed).cloned(),
        };
        let asks = request.method() == Method::OPTIONS
            && origin.is_some()
            && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        let wanted = || headers.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned().unwrap_or(HEADERS);
        Some(Self { allowed, preflight: asks.then(wanted) })
    }

    /// The answer to a preflight; `None` if the request is none.
    pub(super) fn preflight(&self) -> Option<Response> {
        let wanted = self.preflight.clone()?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(VARY, PREFLIGHT_VARY);
        if let Some(allowed) = &self.allowed {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed.clone());
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            // Clients add headers of their own, which we read past: whatever is asked for may be sent.
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted);
            headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        }
        Some(response)
    }

    /// Says on an answer who may read it.
    pub(super) fn allow(self, headers: &mut HeaderMap) {
        headers.append(VARY, HeaderValue::from_static("origin"));
        if let Some(allowed) = self.allowed {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "https://app.example.com";

    fn settings(origins: &[&str]) -> CorsSettings {
        CorsSettings { any: origins.contains(&"*"), origins: origins.iter().map(ToString::to_string).collect() }
    }

    fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).expect("the case is a request")
    }

    #[test]
    fn an_origin_is_allowed_exactly() {
        let check = |origins: &[&str], origin: &str, expected: Option<&str>| {
            let request = request("POST", "/v1/embeddings", &[("origin", origin)]);
            let said = CrossOriginRequest::of(&settings(origins), &request).expect("it is a client's path");
            let mut headers = HeaderMap::new();
            said.allow(&mut headers);
            let allowed = headers.get(ACCESS_CONTROL_ALLOW_ORIGIN).map(|value| value.to_str().expect("text"));
            assert_eq!(allowed, expected, "{origin} of {origins:?}");
            assert_eq!(headers.contains_key(ACCESS_CONTROL_EXPOSE_HEADERS), expected.is_some());
            assert_eq!(headers[VARY], "origin");
            assert!(!headers.contains_key("access-control-allow-credentials"));
        };
        check(&[PAGE], PAGE, Some(PAGE));
        check(&["http://localhost:3000", PAGE], PAGE, Some(PAGE));
        check(&[PAGE], "HTTPS://App.Example.com", Some("HTTPS://App.Example.com"));
        check(&["*"], PAGE, Some("*"));
        check(&["*"], "null", Some("*"));
        for origin in [
            "https://app.example.com.evil.example",
            "http://app.example.com",
            "https://app.example.com:8443",
            "null",
            "",
        ] {
            check(&[PAGE], origin, None);
        }
    }

    #[test]
    fn only_clients_paths_and_only_where_it_is_configured() {
        let check = |origins: &[&str], path: &str, expected: bool| {
            let request = request("GET", path, &[("origin", PAGE)]);
            assert_eq!(CrossOriginRequest::of(&settings(origins), &request).is_some(), expected, "{path} {origins:?}");
        };
        check(&[], "/v1/models", false);
        for path in ["/v1/models", "/v1/nothing", "/chat/completions"] {
            check(&[PAGE], path, true);
        }
        for path in ["/admin/v1/keys", "/metrics", "/healthz", "/readyz", "/"] {
            check(&["*"], path, false);
        }
    }

    #[test]
    fn a_preflight_gets_what_it_asks_for() {
        let asks = [("origin", PAGE), ("access-control-request-method", "POST")];
        let named = [asks[0], asks[1], ("access-control-request-headers", "authorization,x-stainless-os")];
        let check = |method: &str, headers: &[(&str, &str)], expected: Option<&str>| {
            let request = request(method, "/v1/chat/completions", headers);
            let said = CrossOriginRequest::of(&settings(&[PAGE]), &request).expect("it is a client's path");
            let answer = said.preflight();
            let allowed = answer.as_ref().map(|answer| {
                assert_eq!(answer.status(), StatusCode::NO_CONTENT);
                answer.headers()[ACCESS_CONTROL_ALLOW_HEADERS].to_str().expect("text")
            });
            assert_eq!(allowed, expected, "{method} {headers:?}");
        };
        check("OPTIONS", &named, Some("authorization,x-stainless-os"));
        check("OPTIONS", &asks, HEADERS.to_str().ok());
        check("OPTIONS", &asks[..1], None);
        check("OPTIONS", &asks[1..], None);
        check("POST", &named, None);
    }
}
