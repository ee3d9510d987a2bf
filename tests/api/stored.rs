//! What is asked of a response that its provider keeps: it goes to the account that made it, for the key that it was made
//! for, and comes back as it is.
//!
//! Start reading at [`each_request_reaches_the_account_that_made_the_response`].

use crate::config::{Config, MODEL};
use crate::conversations;
use crate::support::gateway::{CREDENTIAL, KEY, OTHER_KEY, provider_table};
use crate::support::journal::Request;
use crate::support::{BodyEnd, Ending, Fault, Response, Script, ScriptedProvider, TestGateway, TestRequest};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tierway::domain::receipt::Outcome;

pub const PATH: &str = "/v1/responses";
const ENDPOINTS: &str = "endpoints = [\"responses\"]\nprice = { input = \"1\", output = \"4\" }";
const OTHER_APP: &str = "[[keys]]\nname = \"other\"\npolicy = \"all\"\nsecret = \"env:OTHER_KEY\"";
/// Every route, with the method that it takes.
const ROUTES: [(&str, &str); 4] = [("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")];

/// A response in a spelling that no serialiser would choose, with what it used.
pub fn response(id: &str, status: &str) -> String {
    format!(
        r#"{{ "id":"{id}","object":"response","created_at":1.0e9,"status":"{status}","model":"up\/stream", "output":[{{"type":"message","id":"msg_{id}","role":"assistant","content":[{{"type":"output_text","text":"H\u00e9"}}]}}],"usage":{{"input_tokens":100,"output_tokens":7,"total_tokens":107}},"big":12345678901234567890.10}}"#
    )
}

/// The events of a response, numbered from 0.
pub fn events(id: &str) -> Vec<String> {
    let event = |name: &str, rest: String| format!("event: {name}\ndata: {{\"type\":\"{name}\",{rest}}}\n\n");
    vec![
        event("response.created", format!(r#""sequence_number":0,"response":{{"id":"{id}","status":"queued"}}"#)),
        event("response.output_text.delta", r#""sequence_number":1,"delta":"H""#.to_owned()),
        event("response.output_text.delta", r#""sequence_number":2,"delta":"i""#.to_owned()),
        event("response.completed", format!(r#""sequence_number":3,"response":{}"#, response(id, "completed"))),
    ]
}

pub fn json_of(text: impl Into<String>) -> Script {
    Script::status(200).header("content-type", "application/json").body(text.into())
}

/// What a provider with a store answers, its ids beginning with `resp_PREFIX` and `conv_PREFIX`.
pub fn storing(prefix: &'static str) -> Script {
    let number = Arc::new(AtomicU64::new(0));
    Script::by(move |request: &Request| {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        if path.starts_with(conversations::PATH) {
            return conversations::answer(request, path, prefix, &number);
        }
        let id = path.split('/').nth(3).unwrap_or_default();
        match (request.method.as_str(), path.split('/').nth(4)) {
            ("POST", None) if request.streams() => {
                let id = format!("resp_{prefix}{}", number.fetch_add(1, Ordering::Relaxed));
                events(&id).iter().fold(Script::sse(), |script, event| script.body(event.clone()))
            }
            ("POST", None) => {
                let id = format!("resp_{prefix}{}", number.fetch_add(1, Ordering::Relaxed));
                json_of(response(&id, "completed"))
            }
            ("POST", Some("cancel")) => json_of(response(id, "cancelled")),
            ("GET", None) if query.contains("stream=true") => {
                let after = query.split('&').find_map(|pair| pair.strip_prefix("starting_after=")?.parse().ok());
                let first = after.map_or(0, |after: usize| after + 1);
                events(id)[first..].iter().fold(Script::sse(), |script, event| script.body(event.clone()))
            }
            ("GET", None) => json_of(response(id, "completed")),
            ("GET", Some("input_items")) => {
                json_of(format!(r#"{{"object":"list", "data":[{{"id":"msg_of_{id}","type":"message"}}]}}"#))
            }
            ("DELETE", None) => json_of(format!(r#"{{"id":"{id}", "object":"response.deleted","deleted":true}}"#)),
            other => panic!("no such request: {other:?}"),
        }
    })
}

async fn send(gateway: &TestGateway, key: &str, method: &str, path: &str) -> Response {
    send_body(gateway, key, method, path, "").await
}

pub async fn send_body(gateway: &TestGateway, key: &str, method: &str, path: &str, body: &str) -> Response {
    let mut client = gateway.connect().await;
    let head = format!("{method} {path} HTTP/1.1\r\nhost: tests\r\nauthorization: Bearer {key}\r\n");
    client.send(format!("{head}idempotency-key: mine\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
    client.response().await
}

async fn asked(gateway: &TestGateway, method: &str, path: &str) -> Response {
    send(gateway, KEY, method, path).await
}

/// Makes a response for `key`; returns its id.
pub async fn made(gateway: &TestGateway, key: &str) -> String {
    let body = format!("{{\"model\":\"{MODEL}\",\"input\":\"Hi\"}}");
    let answer = TestRequest::new(PATH, body).with_key(key).send_to(gateway).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["id"].as_str().expect("an id").to_owned()
}

/// Two providers of one model, each with its own ids.
pub async fn two_providers(change: impl FnOnce(Config) -> Config) -> ([ScriptedProvider; 2], TestGateway) {
    let [first, second] = [ScriptedProvider::start("eu").await, ScriptedProvider::start("us").await];
    first.answers(storing("a"));
    second.answers(storing("b"));
    let config = Config::of(&first).model(ENDPOINTS).other_deployment("{ provider = \"us\" }");
    let config = change(config.more(&provider_table("us", &second, "us-east")).more(OTHER_APP));
    let gateway = TestGateway::start(&config.text()).await;
    ([first, second], gateway)
}

/// Responses of [`KEY`] made by the first and the second provider.
async fn one_of_each(gateway: &TestGateway) -> [String; 2] {
    let (mut of_first, mut of_second) = (None, None);
    while of_first.is_none() || of_second.is_none() {
        let id = made(gateway, KEY).await;
        let place = if id.starts_with("resp_a") { &mut of_first } else { &mut of_second };
        *place = Some(id);
    }
    [of_first, of_second].map(|id| id.expect("it was made"))
}

#[tokio::test]
async fn each_request_reaches_the_account_that_made_the_response() {
    let (providers, gateway) = two_providers(|config| config).await;
    let ids = one_of_each(&gateway).await;
    let before = gateway.relay.entered();
    for (id, at) in ids.iter().zip([0, 1]) {
        let (maker, other) = (&providers[at], &providers[1 - at]);
        for (method, end, query, text) in [
            ("GET", "", "", response(id, "completed")),
            ("GET", "", "?include[]=a.b&include%5B%5D=c&key=tw_secret", response(id, "completed")),
            ("GET", "", "?stream=true", events(id).concat()),
            ("GET", "", "?stream=true&starting_after=1", events(id)[2..].concat()),
            (
                "GET",
                "/input_items",
                "?limit=3&order=asc&after=msg_1",
                format!(r#"{{"object":"list", "data":[{{"id":"msg_of_{id}","type":"message"}}]}}"#),
            ),
            ("POST", "/cancel", "", response(id, "cancelled")),
            ("DELETE", "", "", format!(r#"{{"id":"{id}", "object":"response.deleted","deleted":true}}"#)),
        ] {
            providers.iter().for_each(ScriptedProvider::clear);
            let answer = asked(&gateway, method, &format!("{PATH}/{id}{end}{query}")).await;
            assert_eq!(
                (answer.status, answer.end, answer.text()),
                (200, BodyEnd::Clean, &*text),
                "{method} {end}{query}"
            );
            let journal = maker.at_rest().await;
            let request = &journal.only().request;
            let query = query.replace("&key=tw_secret", "");
            assert_eq!((&*request.method, &*request.path), (method, &*format!("{PATH}/{id}{end}{query}")));
            assert_eq!(request.header("authorization"), Some(&*format!("Bearer {CREDENTIAL}")));
            assert_eq!((&request.body[..], request.header("content-type")), (&b""[..], None));
            assert_ne!(request.header("idempotency-key"), Some("mine"), "it is bound to the key, or left out");
            assert_eq!(other.attempts(), 0);
        }
    }
    for receipt in gateway.receipts(gateway.relay.entered()).await.iter().skip(before as usize) {
        assert_eq!(receipt.endpoint.map(|endpoint| endpoint.name()), Some("stored_responses"));
        assert_eq!((receipt.outcome, receipt.cost.0, receipt.attempts.len()), (Outcome::Served, 0, 1));
        assert_eq!((receipt.asked_model.as_deref(), receipt.usage.map(|usage| usage.total())), (None, Some(0)));
    }
}

/// Routes × owners: what is another key's is answered as what nobody made, and asked of nobody.
#[tokio::test]
async fn what_was_made_for_one_key_is_not_there_for_another() {
    let (providers, gateway) = two_providers(|config| config).await;
    for (owner, stranger) in [(KEY, OTHER_KEY), (OTHER_KEY, KEY)] {
        for (method, end) in ROUTES {
            let id = made(&gateway, owner).await;
            let before: usize = providers.iter().map(ScriptedProvider::attempts).sum();
            let read = |id: &str| format!("{PATH}/{id}{end}");
            let others = send(&gateway, stranger, method, &read(&id)).await;
            let unknown = send(&gateway, stranger, method, &read("resp_unknown")).await;
            assert_eq!((others.status, unknown.status), (404, 404), "{method} {end}");
            assert_eq!(others.text().replace(&id, "ID"), unknown.text().replace("resp_unknown", "ID"));
            let error = &others.json()["error"];
            assert_eq!(
                (&error["type"], &error["code"]),
                (&json!("invalid_request_error"), &json!("response_not_found"))
            );
            assert_eq!(error["message"], format!("Response with id '{id}' not found."));
            assert_eq!(providers.iter().map(ScriptedProvider::attempts).sum::<usize>(), before);
            assert_eq!(send(&gateway, owner, method, &read(&id)).await.status, 200, "{method} {end}");
        }
        let items = made(&gateway, owner).await;
        assert_eq!(send(&gateway, owner, "GET", &format!("{PATH}/{items}/input_items")).await.status, 200);
        for (key, status) in [(owner, 200), (stranger, 404)] {
            let body = format!(
                r#"{{"model":"{MODEL}","input":[{{"type":"item_reference","id":"msg_of_{items}"}},{{"role":"user","content":"And?"}}]}}"#
            );
            let answer = TestRequest::new(PATH, body).with_key(key).send_to(&gateway).await;
            assert_eq!(answer.status, status, "what is listed may be referred to: {answer:?}");
        }
    }
}

#[tokio::test]
async fn an_id_leads_nowhere_else() {
    let (providers, gateway) = two_providers(|config| config).await;
    let long = "x".repeat(600);
    for id in [
        "..",
        ".",
        "%2e%2e",
        "..%2ffiles",
        "a%2Fb",
        "%252e",
        "a%3Fstream=true",
        "a%23",
        "a%0d%0ahost:x",
        "%ff",
        "a%20b",
        &long,
    ] {
        for (method, end) in ROUTES {
            let answer = asked(&gateway, method, &format!("{PATH}/{id}{end}")).await;
            assert_eq!((answer.status, &*answer.code()), (404, "response_not_found"), "{method} {id}{end}: {answer:?}");
        }
    }
    for (method, path, status) in [
        ("POST", "resp_1", 405),
        ("GET", "resp_1/cancel", 405),
        ("DELETE", "resp_1/input_items", 405),
        ("GET", "resp_1/nothing", 404),
        ("POST", "compact", 404),
    ] {
        assert_eq!(asked(&gateway, method, &format!("{PATH}/{path}")).await.status, status, "{method} {path}");
    }
    assert!(providers.iter().all(|provider| provider.attempts() == 0));
}

#[tokio::test]
async fn what_is_deleted_is_forgotten() {
    let (providers, gateway) = two_providers(|config| config).await;
    let id = made(&gateway, KEY).await;
    assert_eq!(asked(&gateway, "GET", &format!("{PATH}/{id}")).await.status, 200);
    assert_eq!(asked(&gateway, "DELETE", &format!("{PATH}/{id}")).await.status, 200);
    providers.iter().for_each(ScriptedProvider::clear);
    for (method, end) in ROUTES {
        assert_eq!(asked(&gateway, method, &format!("{PATH}/{id}{end}")).await.status, 404, "{method} {end}");
    }
    let body = format!("{{\"model\":\"{MODEL}\",\"input\":\"Hi\",\"previous_response_id\":\"{id}\"}}");
    assert_eq!(gateway.post(PATH, &[], &body).await.status, 404);
    assert!(providers.iter().all(|provider| provider.attempts() == 0));
}

/// How an account fails, and what its client gets for it.
pub fn failures() -> [(Script, u16); 8] {
    [
        (Script::status(500), 503),
        (Script::status(503).header("retry-after", "7"), 503),
        (Script::status(429).header("retry-after", "7"), 503),
        (Script::wire("").end(Ending::Rst), 503),
        (Script::status(401), 502),
        (json_of("{\"id\":"), 502),
        (json_of("{\"error\":{\"message\":\"x\"}}"), 502),
        (Script::status(200).header("content-length", "99999999999").end(Ending::Stall), 502),
    ]
}

/// Whatever fails there, nobody else is asked, and the client is told when to try again.
#[tokio::test]
async fn an_account_that_is_down_is_waited_for() {
    let (providers, gateway) = two_providers(|config| config).await;
    let [id, _] = one_of_each(&gateway).await;
    let others = providers[1].attempts();
    for (broken, status) in failures() {
        for (method, end) in ROUTES {
            providers[0].answers(broken.clone());
            let answer = asked(&gateway, method, &format!("{PATH}/{id}{end}")).await;
            assert_eq!(answer.status, status, "{method} {end}: {answer:?}");
            if status == 503 {
                assert!(answer.retry_after().as_secs() >= 1, "{answer:?}");
                assert_eq!(answer.code(), "no_deployment_available");
            }
        }
    }
    providers[0].answers(storing("a"));
    assert_eq!(asked(&gateway, "GET", &format!("{PATH}/{id}")).await.status, 200, "what failed was no evidence");
    providers[0].break_with(Fault::PortClosed).await;
    for (method, end) in ROUTES {
        let answer = asked(&gateway, method, &format!("{PATH}/{id}{end}")).await;
        assert_eq!((answer.status, &*answer.code()), (503, "no_deployment_available"), "{answer:?}");
        assert!(answer.retry_after().as_millis() > 0);
    }
    assert_eq!(providers[1].attempts(), others);
}

#[tokio::test]
async fn what_the_provider_says_of_the_response_passes_and_counts_for_nothing() {
    let provider = ScriptedProvider::start("eu").await;
    provider.answers(storing("a"));
    // One failure would open the breaker.
    let config = Config::of(&provider).model(ENDPOINTS).text();
    let config = config.replace("failures = 1000000, min_requests = 1000000", "failures = 1");
    let gateway = TestGateway::start(&config).await;
    let id = made(&gateway, KEY).await;
    for (status, code) in [(404, "not_found"), (400, "invalid_request"), (409, "conflict"), (405, "no_method")] {
        let said = json!({"error": {"message": "No.", "type": "invalid_request_error", "param": null, "code": code}});
        provider.answers(Script::status(status).json(&said));
        for (method, end) in ROUTES {
            let answer = asked(&gateway, method, &format!("{PATH}/{id}{end}")).await;
            assert_eq!((answer.status, answer.json()), (status, said.clone()), "{method} {end}");
        }
    }
    provider.answers(storing("b"));
    made(&gateway, KEY).await;
}

#[tokio::test]
async fn an_account_that_is_not_configured_any_more_is_said_to_be_gone() {
    let (providers, gateway) = two_providers(|config| config).await;
    let [id, kept] = one_of_each(&gateway).await;
    let attempts = providers[0].attempts();
    let config = Config::of(&providers[1]).text().replace("providers.eu", "providers.us").replace("\"eu\"", "\"us\"");
    gateway.reload(&config);
    for (method, end) in ROUTES {
        let answer = asked(&gateway, method, &format!("{PATH}/{id}{end}")).await;
        assert_eq!((answer.status, &*answer.code()), (410, "response_account_gone"), "{answer:?}");
    }
    assert_eq!(asked(&gateway, "GET", &format!("{PATH}/{kept}")).await.status, 200);
    assert_eq!(providers[0].attempts(), attempts);
}

#[tokio::test]
async fn a_stored_stream_that_breaks_is_never_complete() {
    let (providers, gateway) = two_providers(|config| config).await;
    let [id, _] = one_of_each(&gateway).await;
    let frames = events(&id);
    for after in 1..frames.len() {
        for ending in [Ending::Clean, Ending::Fin, Ending::Rst] {
            let script = frames.iter().fold(Script::sse(), |script, event| script.body(event.clone()));
            providers[0].answers(script.cut_after_frame(after, ending));
            let answer = asked(&gateway, "GET", &format!("{PATH}/{id}?stream=true")).await;
            assert_eq!(answer.status, 200);
            assert!(answer.text().starts_with(&frames[..after].concat()), "{answer:?}");
            assert!(!answer.text().contains("response.completed"), "{answer:?}");
            assert!(
                answer.text().contains("upstream_stream_interrupted") && answer.end != BodyEnd::Clean,
                "{answer:?}"
            );
        }
    }
    // What the response itself came to is no fault of the transfer.
    let failed = "event: response.failed\ndata: {\"type\":\"response.failed\",\"sequence_number\":1,\"response\":{\"id\":\"r\",\"status\":\"failed\",\"error\":{\"code\":\"server_error\",\"message\":\"x\"}}}\n\n";
    providers[0].answers(Script::sse().body(frames[0].clone()).body(failed));
    let answer = asked(&gateway, "GET", &format!("{PATH}/{id}?stream=true")).await;
    assert_eq!((answer.text(), answer.end), (&*format!("{}{failed}", frames[0]), BodyEnd::Clean));
}

#[tokio::test]
async fn it_counts_against_the_keys_limits() {
    let (providers, gateway) = two_providers(|config| config.policy("requests_per_minute = 3")).await;
    let id = made(&gateway, KEY).await;
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(asked(&gateway, "GET", &format!("{PATH}/{id}")).await.status);
    }
    assert_eq!(statuses, [200, 200, 429]);
    assert_eq!(providers.iter().map(ScriptedProvider::attempts).sum::<usize>(), 3);
}
