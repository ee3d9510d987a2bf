//! Every door and every way to knock: route × method × Host × spelling of the path, taken from the
//! router itself. Without a key nobody is told anything but what is open to all.
//!
//! Start reading at [`no_door_opens_without_a_key`]; a new route needs a row in [`DOORS`].

use crate::config::Config;
use crate::support::gateway::{ADMIN_TOKEN, KEY, OTHER_KEY};
use crate::support::{Client, ScriptedProvider, TestGateway};
use std::collections::BTreeMap;
use tierway::http::request_handler::RequestHandler;
use tierway::http::{ops_handler, public_handler};

/// Who may open a door.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Door {
    /// Anybody, by GET or HEAD.
    Open,
    /// Whoever has a key.
    Key,
    /// Operators, here where the metrics have a token.
    Token,
    /// Operators: what lies below `/admin`, known or not.
    Admin,
}

/// Every route there is.
const DOORS: [(&str, Door); 20] = [
    ("/admin/v1/credits", Door::Admin),
    ("/admin/v1/credits/grants", Door::Admin),
    ("/admin/v1/keys", Door::Admin),
    ("/admin/v1/keys/{name}", Door::Admin),
    ("/admin/v1/keys/{name}/rotate", Door::Admin),
    ("/admin/v1/ledger", Door::Admin),
    ("/admin/v1/ledger/{request_id}", Door::Admin),
    ("/admin/v1/openapi.json", Door::Admin),
    ("/admin/v1/teams", Door::Admin),
    ("/admin/v1/teams/{name}", Door::Admin),
    ("/admin/v1/usage", Door::Admin),
    ("/healthz", Door::Open),
    ("/livez", Door::Open),
    ("/metrics", Door::Token),
    ("/readyz", Door::Open),
    ("/v1/chat/completions", Door::Key),
    ("/v1/completions", Door::Key),
    ("/v1/embeddings", Door::Key),
    ("/v1/models", Door::Key),
    ("/v1/models/{*id}", Door::Key),
];
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"];
const HOSTS: [&str; 5] = ["tests", "localhost", "127.0.0.1:1", "admin.internal", ""];
/// What is presented instead of a key.
const NO_KEYS: [&str; 4] = [
    "",
    "authorization: Bearer tw_wrong\r\n",
    "authorization: Basic dHc6dHc=\r\n",
    "cookie: key=tw_test_canary_client_key\r\nx-api-key: tw_test_canary_client_key\r\n",
];

/// The path of a route, with something in its place.
fn filled(route: &str) -> String {
    route.replace("{*id}", "org%2Fmodel").replace("{name}", "app").replace("{request_id}", "req_1")
}

/// The spellings of a path, the plain one first.
fn spellings(path: &str) -> Vec<String> {
    let first = path.as_bytes()[1];
    let encoded = format!("/%{first:02x}{}", &path[2..]);
    let last = path.rfind('/').expect("a path begins with a slash");
    let (dir, name) = path.split_at(last + 1);
    vec![
        path.to_owned(),
        format!("{path}?key={KEY}"),
        format!("http://elsewhere{path}"),
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

/// The paths that `router` knows, as it prints itself.
fn paths(entry: &RequestHandler) -> Vec<String> {
    let pattern = regex::Regex::new(r#"RouteId\(\d+\): "([^"]*)""#).expect("the pattern is one");
    let printed = format!("{entry:?}");
    // What takes the rest has paths of its own, that no client can ask for.
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
    let rows: Vec<String> = DOORS.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(paths(&public_handler(gateway.app.clone(), true)), rows);
    let operators: Vec<String> = rows.into_iter().filter(|path| !path.starts_with("/v1")).collect();
    assert_eq!(paths(&ops_handler(gateway.app.clone())), operators);
}

/// Asks without a body; the status.
async fn ask(client: &mut Client, method: &str, path: &str, host: &str, headers: &str) -> u16 {
    client.send(format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n{headers}\r\n")).await;
    match method {
        // No body follows, whatever its length is said to be.
        "HEAD" => client.head().await.0,
        _ => client.response().await.status,
    }
}

#[tokio::test]
async fn no_door_opens_without_a_key() {
    let (gateway, provider) = gateway().await;
    let mut client = gateway.connect().await;
    let mut knocks = 0;
    for (route, door) in DOORS {
        let route = filled(route);
        for (spelling, path) in spellings(&route).iter().enumerate() {
            for method in METHODS {
                let mut reported = BTreeMap::new();
                for host in HOSTS {
                    for headers in if host == "tests" { &NO_KEYS[..] } else { &NO_KEYS[..1] } {
                        let status = ask(&mut client, method, path, host, headers).await;
                        reported.entry(status).or_insert((host, headers));
                        knocks += 1;
                    }
                }
                let case = format!("{method} {path}: {reported:?}");
                assert_eq!(reported.len(), 1, "one answer whatever the host and whoever asks: {case}");
                let open = door == Door::Open && spelling < 3 && matches!(method, "GET" | "HEAD");
                let reported = reported.into_keys().next();
                assert!(if open { reported == Some(200) } else { matches!(reported, Some(401 | 404 | 405)) }, "{case}");
                let plain = path.strip_prefix("http://elsewhere").unwrap_or(path);
                let beyond = plain.starts_with("/v1/") || plain.starts_with("/admin/");
                assert_eq!(reported == Some(401), beyond || is_metrics(door, spelling, method), "{case}");
            }
        }
    }
    println!("{knocks} knocks");
    assert_eq!(provider.attempts(), 0);
}

fn is_metrics(door: Door, spelling: usize, method: &str) -> bool {
    door == Door::Token && spelling < 3 && matches!(method, "GET" | "HEAD")
}

/// An operator's token opens no door of a client's, and a client's key none of an operator's.
#[tokio::test]
async fn a_key_opens_only_the_doors_it_is_for() {
    let (gateway, provider) = gateway().await;
    let mut client = gateway.connect().await;
    for (route, door) in DOORS {
        let path = filled(route);
        for (secret, opens) in
            [(ADMIN_TOKEN, &[Door::Token, Door::Admin][..]), (KEY, &[Door::Key]), (OTHER_KEY, &[Door::Token])]
        {
            let bearer = format!("authorization: Bearer {secret}\r\n");
            let status = ask(&mut client, "GET", &path, "tests", &bearer).await;
            assert_eq!(status == 401, door != Door::Open && !opens.contains(&door), "{path} with {secret}: {status}");
        }
    }
    assert_eq!(provider.attempts(), 0);
}
