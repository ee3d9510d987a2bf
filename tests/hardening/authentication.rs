//! Who may use which route: route × method × Host × spelling of the path, with the routes taken from
//! the router itself. A client without a key reads only what is open to all.
//!
//! Start reading at [`no_route_is_served_without_a_key`]; a new route needs a row in [`ROUTES`].

use crate::config::Config;
use crate::support::gateway::{ADMIN_TOKEN, KEY, OTHER_KEY};
use crate::support::{Client, ScriptedProvider, TestGateway};
use std::collections::BTreeMap;
use tierway::http::request_handler::RequestHandler;
use tierway::http::{ops_handler, public_handler};

/// Who may use a route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum RouteAccess {
    /// Anybody, by GET or HEAD.
    Open,
    /// The same, if they name a host as HTTP demands: files of the dashboard, which hold nothing of the gateway.
    Page,
    /// Clients with a key.
    Key,
    /// Operators, and whoever has the metrics token.
    Token,
    /// Operators. Every path below `/admin`, known or not.
    Admin,
}

/// Every route.
const ROUTES: [(&str, RouteAccess); 48] = [
    ("/", RouteAccess::Page),
    ("/admin/v1/audit", RouteAccess::Admin),
    ("/admin/v1/configuration", RouteAccess::Admin),
    ("/admin/v1/credits", RouteAccess::Admin),
    ("/admin/v1/credits/grants", RouteAccess::Admin),
    ("/admin/v1/deployments/{name}/resume", RouteAccess::Admin),
    ("/admin/v1/faults", RouteAccess::Admin),
    ("/admin/v1/faults/{id}", RouteAccess::Admin),
    ("/admin/v1/gateway", RouteAccess::Admin),
    ("/admin/v1/history", RouteAccess::Admin),
    ("/admin/v1/keys", RouteAccess::Admin),
    ("/admin/v1/keys/{name}", RouteAccess::Admin),
    ("/admin/v1/keys/{name}/rotate", RouteAccess::Admin),
    ("/admin/v1/ledger", RouteAccess::Admin),
    ("/admin/v1/ledger/{request_id}", RouteAccess::Admin),
    ("/admin/v1/live", RouteAccess::Admin),
    ("/admin/v1/openapi.json", RouteAccess::Admin),
    ("/admin/v1/posture", RouteAccess::Admin),
    ("/admin/v1/session", RouteAccess::Admin),
    ("/admin/v1/sla", RouteAccess::Admin),
    ("/admin/v1/status", RouteAccess::Admin),
    ("/admin/v1/teams", RouteAccess::Admin),
    ("/admin/v1/teams/{name}", RouteAccess::Admin),
    ("/admin/v1/usage", RouteAccess::Admin),
    ("/dashboard.css", RouteAccess::Page),
    ("/dashboard.js", RouteAccess::Page),
    ("/dashboard.svg", RouteAccess::Page),
    ("/healthz", RouteAccess::Open),
    ("/livez", RouteAccess::Open),
    ("/metrics", RouteAccess::Token),
    ("/readyz", RouteAccess::Open),
    ("/v1/chat/completions", RouteAccess::Key),
    ("/v1/completions", RouteAccess::Key),
    ("/v1/conversations", RouteAccess::Key),
    ("/v1/conversations/{id}", RouteAccess::Key),
    ("/v1/conversations/{id}/items", RouteAccess::Key),
    ("/v1/conversations/{id}/items/{item_id}", RouteAccess::Key),
    ("/v1/embeddings", RouteAccess::Key),
    ("/v1/messages", RouteAccess::Key),
    ("/v1/messages/count_tokens", RouteAccess::Key),
    ("/v1/models", RouteAccess::Key),
    ("/v1/models/{*id}", RouteAccess::Key),
    ("/v1/responses", RouteAccess::Key),
    ("/v1/responses/compact", RouteAccess::Key),
    ("/v1/responses/input_tokens", RouteAccess::Key),
    ("/v1/responses/{id}", RouteAccess::Key),
    ("/v1/responses/{id}/cancel", RouteAccess::Key),
    ("/v1/responses/{id}/input_items", RouteAccess::Key),
];
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"];
const HOSTS: [&str; 4] = ["tests", "localhost", "127.0.0.1:1", "admin.internal"];
/// Headers that are not a key.
const NO_KEYS: [&str; 4] = [
    "",
    "authorization: Bearer tw_wrong\r\n",
    "authorization: Basic dHc6dHc=\r\n",
    "cookie: key=tw_test_canary_client_key\r\nx-goog-api-key: tw_test_canary_client_key\r\n",
];

/// The path of a route with its parameters filled in.
fn filled(route: &str) -> String {
    route
        .replace("{*id}", "org%2Fmodel")
        .replace("{name}", "app")
        .replace("{request_id}", "req_1")
        .replace("{id}", "1")
        .replace("{item_id}", "2")
}

impl RouteAccess {
    fn is_open(self) -> bool {
        matches!(self, Self::Open | Self::Page)
    }
}

/// The spellings of a path, the plain one first.
fn spellings(path: &str) -> Vec<String> {
    if path == "/" {
        return ["/", "/?key=KEY", "http://HOST/", "//", "/.", "/livez/..", "/%2f", "/;x"].map(str::to_owned).into();
    }
    let first = path.as_bytes()[1];
    let encoded = format!("/%{first:02x}{}", &path[2..]);
    let last = path.rfind('/').expect("a path begins with a slash");
    let (dir, name) = path.split_at(last + 1);
    vec![
        path.to_owned(),
        format!("{path}?key={KEY}"),
        format!("http://HOST{path}"),
        encoded,
        format!("{dir}%{:02x}{}", name.as_bytes()[0], &name[1..]),
        format!("{path}/"),
        format!("/{path}"),
        format!("/.{path}"),
        format!("/livez/..{path}"),
        format!("{path};x"),
        format!("{path}%2f"),
        path.to_uppercase(),
    ]
}

/// The paths in the router's `Debug` output.
fn paths(handler: &RequestHandler) -> Vec<String> {
    let pattern = regex::Regex::new(r#"RouteId\(\d+\): "([^"]*)""#).expect("the pattern is valid");
    let printed = format!("{handler:?}");
    // The fallback router has internal paths that no client can request.
    let (routes, _) = printed.split_once("fallback_router").expect("a router has a fallback");
    let mut paths: Vec<_> = pattern.captures_iter(routes).map(|found| found[1].to_owned()).collect();
    paths.sort();
    paths.dedup();
    paths
}

async fn gateway() -> (TestGateway, ScriptedProvider) {
    let provider = ScriptedProvider::start("eu").await;
    let config = Config::of(&provider).telemetry("metrics_token = \"env:OTHER_KEY\"");
    (TestGateway::start(&config.text()).await, provider)
}

#[tokio::test]
async fn every_route_has_a_row() {
    let (gateway, _provider) = gateway().await;
    let rows: Vec<String> = ROUTES.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(paths(&public_handler(gateway.app.clone(), true)), rows);
    let (clients, operators): (Vec<String>, Vec<String>) = rows.into_iter().partition(|path| path.starts_with("/v1"));
    assert_eq!(paths(&ops_handler(gateway.app.clone())), operators);
    assert_eq!(paths(&public_handler(gateway.app.clone(), false)), clients);
}

/// Sends a request without a body; the status of the answer.
async fn ask(client: &mut Client, method: &str, path: &str, host: &str, headers: &str) -> u16 {
    client.send(format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n{headers}\r\n")).await;
    match method {
        // No body follows, whatever `content-length` is.
        "HEAD" => client.head().await.0,
        _ => client.response().await.status,
    }
}

#[tokio::test]
async fn no_route_is_served_without_a_key() {
    let (gateway, provider) = gateway().await;
    let mut client = gateway.connect().await;
    let mut sent = 0;
    for (route, access) in ROUTES {
        let route = filled(route);
        for (spelling, path) in spellings(&route).iter().enumerate() {
            for method in METHODS {
                let mut statuses = BTreeMap::new();
                for host in HOSTS {
                    for headers in if host == "tests" { &NO_KEYS[..] } else { &NO_KEYS[..1] } {
                        let status = ask(&mut client, method, &path.replace("HOST", host), host, headers).await;
                        statuses.entry(status).or_insert((host, headers));
                        sent += 1;
                    }
                }
                let case = format!("{method} {path}: {statuses:?}");
                assert_eq!(statuses.len(), 1, "one status whatever the host and the headers: {case}");
                let open = access.is_open() && spelling < 3 && matches!(method, "GET" | "HEAD");
                let status = statuses.into_keys().next();
                assert!(if open { status == Some(200) } else { matches!(status, Some(401 | 404 | 405)) }, "{case}");
                let plain = path.strip_prefix("http://HOST").unwrap_or(path);
                // A doubled slash is forgiven to clients alone.
                let beyond = plain.trim_start_matches('/').starts_with("v1/") || plain.starts_with("/admin/");
                assert_eq!(status == Some(401), beyond || is_metrics(access, spelling, method), "{case}");
            }
        }
    }
    println!("{sent} requests");
    assert_eq!(provider.attempts(), 0);
}

/// Spellings that are forgiven in clients' paths, and others that a proxy may have let through.
fn bent(path: &str) -> Vec<String> {
    let all = [
        format!("/{path}"),
        format!("{path}/"),
        format!("{path}//"),
        path.replace('/', "//"),
        path.replace('/', "%2f").replacen("%2f", "/", 1),
        format!("/v1{path}"),
        format!("/v1/v1{path}"),
        format!("//v1/{path}/"),
        format!("/openai/v1{path}"),
        format!("/openai{path}"),
        format!("/api/v1{path}"),
        format!("/inference/v1{path}"),
        format!("/models{path}"),
        format!("/v1/models{path}"),
        format!("/v1/models/../..{path}"),
        format!("/v1/..{path}"),
        format!("/v1/%2e%2e{path}"),
        format!("/v1/..%2f{}", &path[1..]),
        format!("/chat/completions{path}"),
        format!("{path}/chat/completions"),
        format!("{path}/v1/models"),
    ];
    // With a single slash there is none to encode.
    all.into_iter().filter(|spelling| spelling != path).collect()
}

/// What is forgiven to clients' paths leads to none of the operators', whoever asks and at whichever address.
#[tokio::test]
async fn operators_routes_have_one_spelling() {
    let (gateway, provider) = gateway().await;
    let mut client = gateway.connect().await;
    // Every path begins with the first one, which is none in another spelling.
    let routes = || ROUTES.iter().filter(|(route, access)| *access != RouteAccess::Key && *route != "/");
    // One secret after the other: whoever presents ever new ones waits.
    for secret in [ADMIN_TOKEN, KEY, OTHER_KEY] {
        let bearer = format!("authorization: Bearer {secret}\r\n");
        for path in routes().flat_map(|(route, _)| bent(&filled(route))) {
            for method in ["GET", "POST", "DELETE", "OPTIONS"] {
                let status = ask(&mut client, method, &path, "tests", &bearer).await;
                assert!(matches!(status, 401 | 404 | 405), "{method} {path} with {secret}: {status}");
                assert!(status != 405 || path.contains("/models/"), "{method} {path} with {secret}: no route");
            }
        }
    }
    assert_eq!(provider.attempts(), 0);
}

/// Whoever reads the request elsewhere could take the other key or the other host.
#[tokio::test]
async fn no_route_reads_two_keys_or_two_hosts() {
    let (gateway, provider) = gateway().await;
    let mut client = gateway.connect().await;
    for (route, access) in ROUTES {
        let path = filled(route);
        for secret in [KEY, ADMIN_TOKEN, OTHER_KEY] {
            for other in ["api-key: tw_other", "x-api-key: tw_other", "authorization: Bearer tw_other"] {
                let both = format!("authorization: Bearer {secret}\r\n{other}\r\n");
                let status = ask(&mut client, "GET", &path, "tests", &both).await;
                let open = access.is_open();
                assert_eq!(status, if open { 200 } else { 400 }, "{path} with {both}");
            }
            let bearer = format!("authorization: Bearer {secret}\r\n");
            for hosts in ["a\r\nhost: b", "a, b", "a b"] {
                assert_eq!(ask(&mut client, "GET", &path, hosts, &bearer).await, 400, "{path} for {hosts}");
            }
            let status = ask(&mut client, "GET", &format!("http://elsewhere{path}"), "tests", &bearer).await;
            assert_eq!(status, 400, "{path} at two hosts");
        }
        client.send(format!("GET {path} HTTP/1.1\r\nauthorization: Bearer {KEY}\r\n\r\n")).await;
        let is_health = access == RouteAccess::Open;
        assert_eq!(client.response().await.status, if is_health { 200 } else { 400 }, "{path} without a host");
    }
    assert_eq!(provider.attempts(), 0);
}

fn is_metrics(access: RouteAccess, spelling: usize, method: &str) -> bool {
    access == RouteAccess::Token && spelling < 3 && matches!(method, "GET" | "HEAD")
}

/// An operator's token is no key for clients' routes, and a client's key none for operators' routes.
#[tokio::test]
async fn a_secret_is_accepted_only_by_the_routes_it_is_for() {
    let (gateway, provider) = gateway().await;
    let mut client = gateway.connect().await;
    for (route, access) in ROUTES {
        let path = filled(route);
        for (secret, accepted) in [
            (ADMIN_TOKEN, &[RouteAccess::Token, RouteAccess::Admin][..]),
            (KEY, &[RouteAccess::Key]),
            (OTHER_KEY, &[RouteAccess::Token]),
        ] {
            let bearer = format!("authorization: Bearer {secret}\r\n");
            // The body of one of the answers does not end.
            let status = ask(&mut client, "HEAD", &path, "tests", &bearer).await;
            assert_eq!(
                status == 401,
                !access.is_open() && !accepted.contains(&access),
                "{path} with {secret}: {status}"
            );
        }
    }
    assert_eq!(provider.attempts(), 0);
}
