//! Which host a request is for: the gateway serves any, but another hop may choose by it, and must read the same one.
//!
//! Start reading at [`is_clear`].

use super::paths::HEALTH;
use http::header::HOST;
use http::{Request, Uri, Version};

/// Whether `request` names exactly one host, whatever it is: not two, and not another one in its URL than in its header.
/// HTTP/1.0 need not name any, and whoever only asks for the gateway's health may be too simple to.
pub(super) fn is_clear<B>(request: &Request<B>) -> bool {
    let mut values = request.headers().get_all(HOST).iter();
    let (value, more) = (values.next().filter(|value| !value.is_empty()), values.next());
    let named = value.map(|value| host_and_port(value.as_bytes()));
    let uri = request.uri();
    match (named, uri.authority()) {
        _ if more.is_some() => false,
        (Some(None), _) => false,
        (Some(named), Some(authority)) => {
            let default = default_port(uri);
            match (named, host_and_port(authority.as_str().as_bytes())) {
                (Some((host, port)), Some((other, other_port))) => {
                    host.eq_ignore_ascii_case(other) && port.or(default) == other_port.or(default)
                }
                _ => false,
            }
        }
        (Some(_), None) => true,
        (None, Some(_)) if request.version() >= Version::HTTP_2 => true,
        (None, _) => request.version() < Version::HTTP_11 || HEALTH.contains(&uri.path()),
    }
}

/// The port of a URL that names none.
fn default_port(uri: &Uri) -> Option<u16> {
    match uri.scheme_str() {
        Some("http") => Some(80),
        Some("https") => Some(443),
        _ => None,
    }
}

/// The parts of `HOST` or `HOST:PORT`; `None` where it is neither. A list, which a hop may have made of two headers, is
/// none.
fn host_and_port(text: &[u8]) -> Option<(&[u8], Option<u16>)> {
    let is_named = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(byte);
    let is_numbered = |byte: &u8| byte.is_ascii_hexdigit() || b":.%".contains(byte) || is_named(byte);
    let end = match text.first()? {
        b'[' => text.iter().position(|byte| *byte == b']').map(|at| at + 1),
        _ => text.iter().position(|byte| *byte == b':'),
    };
    let (host, port) = text.split_at(end.unwrap_or(text.len()));
    let is_host = match host {
        [b'[', inside @ .., b']'] => !inside.is_empty() && inside.iter().all(is_numbered),
        plain => !plain.is_empty() && plain.iter().all(is_named),
    };
    let port = match port {
        [] | b":" => None,
        [b':', digits @ ..] if digits.iter().all(u8::is_ascii_digit) => {
            Some(std::str::from_utf8(digits).ok()?.parse().ok()?)
        }
        _ => return None,
    };
    is_host.then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(version: Version, uri: &str, hosts: &[&str]) -> Request<()> {
        let mut request = Request::builder().version(version).uri(uri);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        request.body(()).expect("the case is a request")
    }

    #[test]
    fn a_request_is_for_one_host() {
        let check = |uri: &str, hosts: &[&str], expected: bool| {
            assert_eq!(is_clear(&request(Version::HTTP_11, uri, hosts)), expected, "{uri} {hosts:?}");
        };
        for host in
            ["a", "A.example", "a:80", "a:", "127.0.0.1:8080", "[::1]", "[::1]:80", "[fe80::1%25lo]", "a_b.local"]
        {
            check("/v1/models", &[host], true);
            check(&format!("http://{}/v1/models", host.trim_end_matches(':')), &[host], true);
        }
        for host in [
            "", "a b", "a,b", "a, b", "user@a", "a/x", "a?x", "a#x", "a\\b", "a:b", "a:99999", "a:-1", "a:8:8", "[::1",
            "[]", "::1", "[::1]x", "\u{e9}", "http://a",
        ] {
            check("/v1/models", &[host], false);
        }
        check("/v1/models", &[], false);
        check("/v1/models", &["a", "a"], false);
        check("/v1/models", &["a", "b"], false);
        check("/v1/models", &["", "a"], false);
        check("http://a/v1/models", &["b"], false);
        check("http://a/v1/models", &[], false);
        check("http://a/v1/models", &["A"], true);
        check("http://a:80/v1/models", &["a"], true);
        check("https://a/v1/models", &["a:443"], true);
        check("https://a/v1/models", &["a:80"], false);
        check("http://a:81/v1/models", &["a"], false);
        check("http://user@a/v1/models", &["a"], false);
        check("http://user@a/v1/models", &["user@a"], false);
    }

    #[test]
    fn health_and_old_clients_need_none() {
        for path in HEALTH {
            assert!(
                is_clear(&request(Version::HTTP_11, path, &[])) && is_clear(&request(Version::HTTP_11, path, &[""]))
            );
            assert!(!is_clear(&request(Version::HTTP_11, path, &["a", "b"])), "two are two everywhere");
            assert!(!is_clear(&request(Version::HTTP_11, path, &["a b"])));
        }
        assert!(is_clear(&request(Version::HTTP_10, "/v1/models", &[])));
        assert!(!is_clear(&request(Version::HTTP_10, "/v1/models", &["a", "b"])));
        assert!(!is_clear(&request(Version::HTTP_11, "/metrics", &[])));
        assert!(!is_clear(&request(Version::HTTP_11, "/healthz/", &[])));
    }

    #[test]
    fn http_2_names_it_in_its_url() {
        let check = |uri: &str, hosts: &[&str], expected: bool| {
            assert_eq!(is_clear(&request(Version::HTTP_2, uri, hosts)), expected, "{uri} {hosts:?}");
        };
        check("https://a/v1/models", &[], true);
        check("https://a/v1/models", &["a"], true);
        check("https://a/v1/models", &["b"], false);
        check("https://a/v1/models", &["a", "a"], false);
        check("/v1/models", &["a"], true);
        check("/v1/models", &[], false);
    }
}
