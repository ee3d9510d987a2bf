//! The dashboard: the files of a page that operators open in a browser.
//!
//! The files hold nothing of this gateway, so anybody may read them; what the page shows it asks of the admin API. They are
//! built from `dashboard/` by `make dashboard` and compiled in. Without them, the page says how to build them.
//!
//! Start reading at [`routes`].

use super::AppState;
use super::ops::read_only;
use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
    REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Only what this address serves, nothing inline, in no frame, no form to elsewhere.
const POLICY: &str = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; \
                      object-src 'none'";
static OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
static RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// One file.
#[derive(Clone, Copy)]
struct DashboardFile {
    path: &'static str,
    content_type: &'static str,
    plain: &'static [u8],
    /// The same, compressed with gzip; `None`: it is small.
    gzip: Option<&'static [u8]>,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// A file that `make dashboard` wrote, and its compressed form beside it.
#[cfg(dashboard_is_built)]
macro_rules! built {
    ($path:literal, $content_type:expr, $name:literal) => {
        DashboardFile {
            path: $path,
            content_type: $content_type,
            plain: include_bytes!(concat!("../../dashboard/dist/", $name)),
            gzip: Some(include_bytes!(concat!("../../dashboard/dist/", $name, ".gz"))),
        }
    };
}

#[cfg(dashboard_is_built)]
static FILES: [DashboardFile; 4] = [
    built!("/", HTML, "index.html"),
    built!("/dashboard.css", CSS, "dashboard.css"),
    built!("/dashboard.js", SCRIPT, "dashboard.js"),
    built!("/dashboard.svg", SVG, "dashboard.svg"),
];

#[cfg(not(dashboard_is_built))]
const fn small(path: &'static str, content_type: &'static str, plain: &'static [u8]) -> DashboardFile {
    DashboardFile { path, content_type, plain, gzip: None }
}

#[cfg(not(dashboard_is_built))]
static FILES: [DashboardFile; 4] = [
    small("/", HTML, include_bytes!("dashboard/not_built.html")),
    small("/dashboard.css", CSS, include_bytes!("dashboard/not_built.css")),
    small("/dashboard.js", SCRIPT, b""),
    small("/dashboard.svg", SVG, include_bytes!("../../dashboard/public/dashboard.svg")),
];

/// One route for each file; `root` answers other methods at `/`.
pub(super) fn routes(root: MethodRouter<Arc<AppState>>) -> Router<Arc<AppState>> {
    FILES.iter().fold(Router::new(), |router, file| {
        let etag = etag(file.plain);
        let answer = move |request: Request| std::future::ready(respond(file, &etag, request.headers()));
        let route = if file.path == "/" { root.clone().get(answer) } else { read_only(get(answer)) };
        router.route(file.path, route)
    })
}

/// The file, or that the browser's copy with this `etag` is the same.
fn respond(file: &DashboardFile, etag: &HeaderValue, asked: &HeaderMap) -> Response {
    let is_same = asked.get_all(IF_NONE_MATCH).iter().any(|known| known == etag);
    let gzip = file.gzip.filter(|_| accepts_gzip(asked));
    let mut response = match (is_same, gzip) {
        (true, _) => StatusCode::NOT_MODIFIED.into_response(),
        (false, Some(gzip)) => ([(CONTENT_ENCODING, "gzip")], gzip).into_response(),
        (false, None) => file.plain.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(ETAG, etag.clone());
    for (name, value) in [
        (CONTENT_TYPE, file.content_type),
        // Asked for again each time, and then mostly the same.
        (CACHE_CONTROL, "no-cache"),
        (VARY, "accept-encoding"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (OPENER_POLICY.clone(), "same-origin"),
        (RESOURCE_POLICY.clone(), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn etag(content: &[u8]) -> HeaderValue {
    let digits: String = Sha256::digest(content).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    HeaderValue::try_from(format!("W/\"{digits}\"")).expect("digits are a header's value")
}

/// Whether gzip is among the codings that are accepted, with any weight but zero.
fn accepts_gzip(asked: &HeaderMap) -> bool {
    let values = asked.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let mut codings = values.flat_map(|value| value.split(','));
    codings.any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.trim().trim_start_matches("q=");
        name.trim().eq_ignore_ascii_case("gzip") && weight.parse().unwrap_or(1.0_f32) > 0.0
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    fn asked(headers: &[(HeaderName, &'static str)]) -> HeaderMap {
        headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn gzip_is_sent_to_who_accepts_it() {
        let check = |value: &'static str, expected: bool| {
            assert_eq!(accepts_gzip(&asked(&[(ACCEPT_ENCODING, value)])), expected, "{value}");
        };
        check("gzip", true);
        check("br, GZIP;q=0.5", true);
        check("gzip;q=0", false);
        check("br", false);
        check("", false);
        assert!(!accepts_gzip(&HeaderMap::new()));
    }

    #[tokio::test]
    async fn each_file_says_what_it_is_and_what_it_may_do() {
        for file in &FILES {
            let etag = etag(file.plain);
            let response = respond(file, &etag, &HeaderMap::new());
            let header = |name: HeaderName| response.headers()[name].to_str().expect("it is text").to_owned();
            assert_eq!((response.status(), header(CONTENT_TYPE)), (StatusCode::OK, file.content_type.to_owned()));
            assert!(header(CONTENT_SECURITY_POLICY).starts_with("default-src 'self';"));
            assert_eq!(header(X_CONTENT_TYPE_OPTIONS), "nosniff");
            let body = response.into_body().collect().await.expect("it is whole").to_bytes();
            assert_eq!(body, file.plain);
            let known = HeaderMap::from_iter([(IF_NONE_MATCH, etag.clone())]);
            assert_eq!(respond(file, &etag, &known).status(), StatusCode::NOT_MODIFIED);
        }
    }

    #[tokio::test]
    async fn what_is_compressed_is_the_same_file() {
        for (file, gzip) in FILES.iter().filter_map(|file| Some((file, file.gzip?))) {
            let response = respond(file, &etag(file.plain), &asked(&[(ACCEPT_ENCODING, "gzip")]));
            assert_eq!(response.headers()[CONTENT_ENCODING], "gzip");
            let mut plain = Vec::new();
            let mut decoder = async_compression::tokio::bufread::GzipDecoder::new(gzip);
            tokio::io::AsyncReadExt::read_to_end(&mut decoder, &mut plain).await.expect("it is gzip");
            assert_eq!(plain, file.plain, "{}", file.path);
        }
    }

    #[test]
    fn nothing_in_the_page_is_inline_or_from_elsewhere() {
        let html = std::str::from_utf8(FILES[0].plain).expect("it is text");
        let mut scripts = html.match_indices("<script").map(|(at, _)| &html[at..]);
        assert!(scripts.all(|script| script.split_once("></script>").is_some_and(|(tag, _)| tag.contains("src=\"/"))));
        for inline in ["<style", " style=", " onload=", " onclick=", "javascript:", "http://", "https://"] {
            assert!(!html.contains(inline), "{inline}");
        }
    }
}
