//! What a client's path names when its base URL is not quite right.
//!
//! A base URL is an address and `/v1`. Without the `/v1`, with two of them, with doubled or trailing slashes, or with
//! what stands before the `/v1` at a host that a client was moved from, a path still names one endpoint and is served as
//! that one. Anything else is no path: nothing here guesses, and nothing leads to a path of operators.
//!
//! Start reading at [`canonical`].

use crate::domain::call::Endpoint;
use crate::domain::stored_response::StoredRequestKind;
use http::{Method, Uri};
use percent_encoding::percent_decode_str;

/// The segment that every client's path begins with.
const VERSION: &str = "v1";
/// The list of models, and what a model's own path begins with.
const MODELS: &str = "models";
/// What a stored response's path begins with; its id follows.
pub(super) const RESPONSES: &str = "responses";
/// The same of a conversation's.
pub(super) const CONVERSATIONS: &str = "conversations";
/// What stands before `/v1` in the base URLs of other hosts: whoever moves a client from there may replace the host alone.
const OTHER_HOSTS: [&str; 3] = ["api", "inference", "openai"];

/// The paths that only tell of the gateway's health.
pub(super) const HEALTH: [&str; 3] = ["/healthz", "/livez", "/readyz"];

/// The endpoint that a request calls whose path is spelled exactly; `None` where only the router knows what it is.
pub(super) fn endpoint_called(method: &Method, path: &str) -> Option<Endpoint> {
    let path = path.strip_prefix('/')?.strip_prefix(VERSION)?;
    Endpoint::ALL.into_iter().find(|endpoint| endpoint.path() == path).filter(|_| method == Method::POST)
}

/// The path that `path` means, percent-encoded as it came; `None` where it names no endpoint, or not one alone.
pub(super) fn canonical(path: &str) -> Option<String> {
    let segments: Vec<&str> = segments(path).collect();
    let mut rest = segments.as_slice();
    if let [host, VERSION, ..] = rest
        && OTHER_HOSTS.contains(host)
    {
        rest = &rest[1..];
    }
    while let [VERSION, below @ ..] = rest {
        rest = below;
    }
    let is_endpoint = |endpoint: &Endpoint| segments_of(*endpoint).eq(rest.iter().copied());
    match rest {
        [MODELS] => Some(format!("/{VERSION}/{MODELS}")),
        [MODELS, id @ ..] => Some(format!("/{VERSION}/{MODELS}/{}", id.join("/"))),
        _ => Endpoint::ALL
            .iter()
            .find(|endpoint| is_endpoint(endpoint))
            .map(|endpoint| {
                let path = endpoint.path();
                format!("/{VERSION}{path}")
            })
            .or_else(|| stored(rest)),
    }
}

/// Whether `path` is one of clients: whoever has no key learns nothing else of it.
pub(super) fn is_of_clients(path: &str) -> bool {
    path.starts_with("/v1/") || segments(path).next() == Some(VERSION) || canonical(path).is_some()
}

/// The model that a path below the list of models names, decoded and without doubled or trailing slashes; `None` where
/// nothing but slashes follows. A slash that is written `%2F` belongs to the name.
pub(super) fn model_name(path: &str) -> Option<String> {
    let name = segments(path).skip_while(|segment| *segment != MODELS).skip(1).collect::<Vec<_>>().join("/");
    (!name.is_empty()).then(|| percent_decode_str(&name).decode_utf8_lossy().into_owned())
}

/// The canonical path of what `segments`, those behind the version, name; `None` where it is nothing of a stored response or
/// a conversation.
fn stored(segments: &[&str]) -> Option<String> {
    let [collection @ (RESPONSES | CONVERSATIONS), _, end @ ..] = segments else { return None };
    let is_known = |action: &StoredRequestKind| {
        let end = if action.names_item() { end.split_last()?.1 } else { end };
        let is_of_it = action.is_of_conversation() == (*collection == CONVERSATIONS);
        (is_of_it && self::segments(action.path_end()).eq(end.iter().copied())).then_some(())
    };
    StoredRequestKind::ALL.iter().find_map(is_known).map(|()| format!("/{VERSION}/{}", segments.join("/")))
}

/// The first parameter `name` of the query.
pub(super) fn parameter(uri: &Uri, name: &str) -> Option<String> {
    let mut given = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = given.find(|(given, _)| *given == name)?;
    Some(percent_decode_str(value).decode_utf8_lossy().into_owned())
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}

fn segments_of(endpoint: Endpoint) -> impl Iterator<Item = &'static str> {
    segments(endpoint.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_names_one_endpoint_is_that_one() {
        let check = |path: &str, expected: &str| assert_eq!(canonical(path).as_deref(), Some(expected), "{path}");
        let chat = "/v1/chat/completions";
        for path in [
            "/v1/chat/completions",
            "/chat/completions",
            "/v1/v1/chat/completions",
            "/v1/v1/v1/chat/completions",
            "//v1//chat/completions/",
            "/v1/chat/completions//",
            "//chat//completions",
            "/openai/v1/chat/completions",
            "/api/v1/v1/chat/completions/",
            "/inference/v1/chat/completions",
        ] {
            check(path, chat);
        }
        check("/completions", "/v1/completions");
        check("/v1/v1/embeddings/", "/v1/embeddings");
        check("/models", "/v1/models");
        check("/v1/models/", "/v1/models");
        check("/v1//models//org/model/", "/v1/models/org/model");
        check("/models/org%2Fmodel", "/v1/models/org%2Fmodel");
        check("/responses//resp_1/", "/v1/responses/resp_1");
        check("/openai/v1/responses/resp%2F1/cancel", "/v1/responses/resp%2F1/cancel");
        check("/v1/v1/responses/resp_1/input_items", "/v1/responses/resp_1/input_items");
        check("/responses/input_tokens", "/v1/responses/input_tokens");
        check("//conversations/", "/v1/conversations");
        check("/openai/v1/conversations//conv_1/", "/v1/conversations/conv_1");
        check("/conversations/conv_1/items//", "/v1/conversations/conv_1/items");
        check("/v1/v1/conversations/conv_1/items/msg%2F1", "/v1/conversations/conv_1/items/msg%2F1");
        // A model may be called by any words: after `models` nothing is taken for an endpoint.
        check("/v1/models/v1/completions", "/v1/models/v1/completions");
    }

    #[test]
    fn an_exact_path_is_called_as_its_canonical_one_is() {
        let post = |path: &str| endpoint_called(&Method::POST, path);
        for endpoint in Endpoint::ALL {
            let path = canonical(endpoint.path()).expect("it is a path");
            assert_eq!(post(&path), Some(endpoint));
            assert_eq!(endpoint_called(&Method::GET, &path), None);
            for other in [endpoint.path().to_owned(), format!("{path}/"), format!("/{path}"), format!("{path}?a=b")] {
                assert_eq!(post(&other), None, "{other}");
            }
        }
        assert_eq!(post("/v1/models"), None);
    }

    #[test]
    fn every_endpoint_is_reached_without_the_version_too() {
        for endpoint in Endpoint::ALL {
            assert_eq!(canonical(endpoint.path()), Some(format!("/v1{}", endpoint.path())));
        }
    }

    #[test]
    fn what_names_none_or_two_is_no_path() {
        for path in [
            "",
            "/",
            "/v1",
            "/v1/",
            "/v1/v1",
            "/chat",
            "/v1/chat",
            "/v1/nothing",
            "/v1/chat/completions/chat/completions",
            "/v1/chat/completions/models",
            "/v1/embeddings/completions",
            "/v1/responses/resp_1/nothing",
            "/v1/responses/resp_1/cancel/cancel",
            "/v1/responses/resp_1/items",
            "/v1/conversations/conv_1/cancel",
            "/v1/conversations/conv_1/items/msg_1/items",
            "/v2/chat/completions",
            "/V1/chat/completions",
            "/v1/Chat/completions",
            "/v1/../chat/completions",
            "/./v1/chat/completions",
            "/v1;x/chat/completions",
            "/v1%2Fchat/completions",
            "/v1/chat%2Fcompletions",
            "/v1%2F%2Fchat%2Fcompletions",
            "/%76%31/chat/completions",
            "/openai/chat/completions",
            "/openai/deployments/m/chat/completions",
            "/openai/api/v1/chat/completions",
            "/elsewhere/v1/chat/completions",
            "/metrics/chat/completions",
            "/admin",
            "/admin/v1/keys",
            "/admin/v1/chat/completions",
            "/admin/v1/models",
            "/v1/admin/v1/keys",
            "/v1/v1/admin",
            "/v1/metrics",
            "//metrics",
            "/healthz/",
            "/v1/healthz",
        ] {
            assert_eq!(canonical(path), None, "{path}");
        }
    }

    #[test]
    fn a_models_name_keeps_the_slashes_that_it_encodes() {
        let check = |path: &str, expected: Option<&str>| assert_eq!(model_name(path).as_deref(), expected, "{path}");
        check("/v1/models/model", Some("model"));
        check("/v1/models/org//model/", Some("org/model"));
        check("/v1/models/org%2Fmodel", Some("org/model"));
        check("/v1/models/org%2F%2Fmodel%2f/", Some("org//model/"));
        check("/v1/models/models/a", Some("models/a"));
        check("/v1/models/%2F", Some("/"));
        check("/v1/models//", None);
    }

    #[test]
    fn paths_of_operators_are_never_clients() {
        let check = |path: &str, expected: bool| assert_eq!(is_of_clients(path), expected, "{path}");
        check("/v1/nothing", true);
        check("/v1", true);
        check("//v1/nothing", true);
        check("/chat/completions", true);
        for path in
            ["/admin/v1/keys", "//admin/v1/keys", "/metrics", "/healthz", "/readyz", "/elsewhere", "/v10/models"]
        {
            check(path, false);
        }
    }
}
