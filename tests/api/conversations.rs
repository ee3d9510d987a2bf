//! Conversations: made at an account that the policy chooses, kept to it and to the key that made them, read, changed and
//! answered there and nowhere else.
//!
//! Start reading at [`each_request_reaches_the_account_that_made_the_conversation`].

use crate::config::{Config, MODEL};
use crate::stored::{self, json_of, send_body, storing, two_providers};
use crate::support::gateway::{CREDENTIAL, KEY, OTHER_KEY, compile, provider_table};
use crate::support::journal::Request;
use crate::support::{BodyEnd, Ending, Fault, Response, Script, ScriptedProvider, TestGateway};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tierway::domain::receipt::Outcome;
use tierway::store::memory::MemoryLedger;
use tierway::store::sqlite::{SqliteLedger, SqliteStateAccounts, WriterGuard};
use tierway::store::state_accounts::StateAccounts;
use tierway::store::{Stores, WallClock};

pub const PATH: &str = "/v1/conversations";
/// Every route below a conversation, with its method and a body for it; `ITEM` is the id of an item.
const ROUTES: [(&str, &str, &str); 7] = [
    ("GET", "", ""),
    ("POST", "", "{ \"metadata\":{\"a\":\"\\u0062\"} }"),
    ("GET", "/items", ""),
    ("POST", "/items", "{\"items\":[{\"type\":\"message\",\"role\":\"user\",\"content\":\"H\\u00e9\"}] }"),
    ("GET", "/items/ITEM", ""),
    ("DELETE", "/items/ITEM", ""),
    ("DELETE", "", ""),
];
const BODY: &str =
    "{ \"metadata\":{\"topic\":\"d\\u00e9mo\"},\"items\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"big\":1.10 }";

fn conversation(id: &str) -> String {
    format!(r#"{{ "id":"{id}","object":"conversation","created_at":1.0e9,"metadata":{{"a":"\u0062"}} }}"#)
}

fn item(id: &str) -> String {
    format!(r#"{{"id":"{id}","type":"message","role":"user","status":"completed", "content":[]}}"#)
}

fn list(conversation: &str) -> String {
    format!(r#"{{"object":"list", "data":[{}],"has_more":false}}"#, item(&item_of(conversation)))
}

fn item_of(conversation: &str) -> String {
    format!("msg_of_{conversation}")
}

/// What a provider with a store answers to `request` for a conversation; those that it makes are numbered.
pub fn answer(request: &Request, path: &str, prefix: &str, number: &AtomicU64) -> Script {
    let mut segments = path.split('/').skip(3);
    let [id, part, item_id] = [(); 3].map(|()| segments.next());
    let id = id.unwrap_or_default();
    json_of(match (&*request.method, id, part, item_id) {
        ("POST", "", None, None) => conversation(&format!("conv_{prefix}{}", number.fetch_add(1, Ordering::Relaxed))),
        ("GET" | "POST", id, None, None) => conversation(id),
        ("DELETE", id, None, None) => format!(r#"{{"id":"{id}", "object":"conversation.deleted","deleted":true}}"#),
        ("GET" | "POST", id, Some("items"), None) => list(id),
        ("GET", _, Some("items"), Some(item_id)) => item(item_id),
        ("DELETE", id, Some("items"), Some(_)) => conversation(id),
        other => panic!("no such request: {other:?}"),
    })
}

async fn asked(gateway: &TestGateway, method: &str, path: &str, body: &str) -> Response {
    send_body(gateway, KEY, method, path, body).await
}

/// The id of a new conversation of `key`.
async fn made(gateway: &TestGateway, key: &str) -> String {
    let answer = send_body(gateway, key, "POST", PATH, BODY).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["id"].as_str().expect("an id").to_owned()
}

/// A new conversation of `key` whose items were listed, so that they are known.
async fn listed(gateway: &TestGateway, key: &str) -> String {
    let id = made(gateway, key).await;
    let items = send_body(gateway, key, "GET", &format!("{PATH}/{id}/items"), "").await;
    assert_eq!((items.status, items.text()), (200, &*list(&id)));
    id
}

/// Conversations of [`KEY`] made by the first and the second provider.
async fn one_of_each(gateway: &TestGateway) -> [String; 2] {
    let (mut of_first, mut of_second) = (None, None);
    while of_first.is_none() || of_second.is_none() {
        let id = listed(gateway, KEY).await;
        let place = if id.starts_with("conv_a") { &mut of_first } else { &mut of_second };
        *place = Some(id);
    }
    [of_first, of_second].map(|id| id.expect("it was made"))
}

/// The path of a route below the conversation `id`.
fn place(id: &str, end: &str) -> String {
    format!("{PATH}/{id}{}", end.replace("ITEM", &item_of(id)))
}

fn responding(members: &str) -> String {
    format!("{{\"model\":\"{MODEL}\",\"input\":\"Hi\",{members}}}")
}

fn attempts(providers: &[ScriptedProvider]) -> usize {
    providers.iter().map(ScriptedProvider::attempts).sum()
}

#[tokio::test]
async fn each_request_reaches_the_account_that_made_the_conversation() {
    let (providers, gateway) = two_providers(|config| config).await;
    let ids = one_of_each(&gateway).await;
    let before = gateway.relay.entered() as usize;
    for (id, at) in ids.iter().zip([0, 1]) {
        let (maker, other) = (&providers[at], &providers[1 - at]);
        for (method, end, body) in ROUTES {
            let query = match (method, end) {
                (_, "") | ("DELETE", _) => "",
                ("GET", "/items") => "?limit=3&order=asc&after=msg_1&include[]=a.b",
                _ => "?include%5B%5D=a.b",
            };
            providers.iter().for_each(ScriptedProvider::clear);
            let answer = asked(&gateway, method, &format!("{}{query}", place(id, end)), body).await;
            let text = match (method, end) {
                ("DELETE", "") => format!(r#"{{"id":"{id}", "object":"conversation.deleted","deleted":true}}"#),
                (_, "/items") => list(id),
                ("GET", "/items/ITEM") => item(&item_of(id)),
                _ => conversation(id),
            };
            assert_eq!((answer.status, answer.end, answer.text()), (200, BodyEnd::Clean, &*text), "{method} {end}");
            let journal = maker.at_rest().await;
            let request = &journal.only().request;
            assert_eq!((&*request.method, &*request.path), (method, &*format!("{}{query}", place(id, end))));
            assert_eq!(request.header("authorization"), Some(&*format!("Bearer {CREDENTIAL}")));
            let content_type = (!body.is_empty()).then_some("application/json");
            assert_eq!((&request.body[..], request.header("content-type")), (body.as_bytes(), content_type));
            assert_ne!(request.header("idempotency-key"), Some("mine"), "it is bound to the key, or left out");
            assert_eq!(other.attempts(), 0);
        }
    }
    for receipt in gateway.receipts(gateway.relay.entered()).await.iter().skip(before) {
        assert_eq!(receipt.endpoint.map(|endpoint| endpoint.name()), Some("conversations"));
        assert_eq!((receipt.outcome, receipt.cost.0, receipt.attempts.len()), (Outcome::Served, 0, 1));
        assert_eq!((receipt.asked_model.as_deref(), receipt.usage.map(|usage| usage.total())), (None, Some(0)));
    }
}

/// Items come and go where their conversation is, and what is deleted is forgotten.
#[tokio::test]
async fn what_belongs_to_a_conversation_is_asked_of_its_account() {
    let (providers, gateway) = two_providers(|config| config).await;
    for id in one_of_each(&gateway).await {
        let at = usize::from(id.starts_with("conv_b"));
        let others = providers[1 - at].attempts();
        for (method, end, body) in ROUTES.into_iter().filter(|(_, end, _)| !end.is_empty()) {
            let answer = asked(&gateway, method, &place(&id, end), body).await;
            assert_eq!(answer.status, 200, "{method} {end}: {answer:?}");
        }
        let again = asked(&gateway, "GET", &place(&id, "/items/ITEM"), "").await;
        assert_eq!((again.status, &*again.code()), (404, "item_not_found"), "it was deleted");
        assert_eq!(asked(&gateway, "DELETE", &place(&id, ""), "").await.status, 200);
        for (method, end, body) in ROUTES {
            let answer = asked(&gateway, method, &place(&id, end), body).await;
            assert_eq!((answer.status, &*answer.code()), (404, "conversation_not_found"), "{method} {end}");
        }
        let gone = asked(&gateway, "POST", stored::PATH, &responding(&format!("\"conversation\":\"{id}\""))).await;
        assert_eq!((gone.status, &*gone.code()), (404, "conversation_not_found"));
        assert_eq!(providers[1 - at].attempts(), others);
    }
}

#[tokio::test]
async fn a_response_is_made_where_its_conversation_is() {
    let (providers, gateway) = two_providers(|config| config).await;
    let ids = one_of_each(&gateway).await;
    for (id, at) in ids.iter().zip([0, 1]) {
        for named in [format!("\"{id}\""), format!("{{ \"id\":\"{id}\"}}")] {
            for (rest, streams) in [("", false), (",\"stream\":true", true), (",\"store\":false", false)] {
                providers.iter().for_each(ScriptedProvider::clear);
                let body = responding(&format!("\"conversation\":{named}{rest}"));
                let answer = asked(&gateway, "POST", stored::PATH, &body).await;
                assert_eq!((answer.status, answer.end), (200, BodyEnd::Clean), "{answer:?}");
                let journal = providers[at].at_rest().await;
                assert_eq!(&journal.only().request.body[..], body.as_bytes());
                assert_eq!(providers[1 - at].attempts(), 0);
                let made = answer.text().split("resp_").nth(1).expect("it has an id");
                let made = format!("resp_{}", made.split('"').next().unwrap_or_default());
                let whole = if streams { stored::events(&made).concat() } else { stored::response(&made, "completed") };
                assert_eq!(answer.text(), whole);
                // What the response added may be asked for by its id, also where the response itself is not stored.
                let added = asked(&gateway, "GET", &format!("{PATH}/{id}/items/msg_{made}"), "").await;
                assert_eq!(added.status, 200, "{added:?}");
            }
        }
    }
}

/// Routes × owners: what is another key's is answered as what nobody made, and asked of nobody.
#[tokio::test]
async fn what_one_key_made_is_not_there_for_another() {
    let (providers, gateway) = two_providers(|config| config).await;
    for (owner, stranger) in [(KEY, OTHER_KEY), (OTHER_KEY, KEY)] {
        let theirs = listed(&gateway, owner).await;
        let own = listed(&gateway, stranger).await;
        let before = attempts(&providers);
        for (method, end, body) in ROUTES {
            let others = send_body(&gateway, stranger, method, &place(&theirs, end), body).await;
            let unknown = send_body(&gateway, stranger, method, &place("conv_unknown", end), body).await;
            assert_eq!((others.status, unknown.status), (404, 404), "{method} {end}");
            assert_eq!(others.text().replace(&theirs, "ID"), unknown.text().replace("conv_unknown", "ID"));
            let error = &others.json()["error"];
            assert_eq!(
                (&error["type"], &error["code"], &error["param"]),
                (&json!("invalid_request_error"), &json!("conversation_not_found"), &json!("conversation_id"))
            );
            assert_eq!(error["message"], format!("Conversation with id '{theirs}' not found."));
        }
        // An item of another key's, in a conversation of one's own.
        for method in ["GET", "DELETE"] {
            for item in [item_of(&theirs), "msg_unknown".to_owned()] {
                let answer = send_body(&gateway, stranger, method, &format!("{PATH}/{own}/items/{item}"), "").await;
                let error = &answer.json()["error"];
                assert_eq!((answer.status, &error["code"]), (404, &json!("item_not_found")), "{method} {item}");
                assert_eq!(error["param"], "item_id");
            }
        }
        // The same in what is added, or a conversation begins with, and in a request for a response.
        let items = format!("\"items\":[{{\"type\":\"item_reference\",\"id\":\"{}\"}}]", item_of(&theirs));
        for path in [PATH.to_owned(), place(&own, "/items")] {
            let answer = send_body(&gateway, stranger, "POST", &path, &format!("{{{items}}}")).await;
            assert_eq!((answer.status, &*answer.code()), (404, "item_not_found"), "{path}");
        }
        for named in [format!("\"{theirs}\""), "\"conv_unknown\"".to_owned(), format!("{{\"id\":\"{theirs}\"}}")] {
            let body = responding(&format!("\"conversation\":{named}"));
            let answer = send_body(&gateway, stranger, "POST", stored::PATH, &body).await;
            assert_eq!((answer.status, &*answer.code()), (404, "conversation_not_found"), "{named}");
        }
        assert_eq!(attempts(&providers), before);
        let kept = send_body(&gateway, owner, "GET", &place(&theirs, "/items/ITEM"), "").await;
        assert_eq!((kept.status, kept.text()), (200, &*item(&item_of(&theirs))));
    }
}

#[tokio::test]
async fn an_id_leads_nowhere_else() {
    let (providers, gateway) = two_providers(|config| config).await;
    let own = listed(&gateway, KEY).await;
    let before = attempts(&providers);
    let long = "x".repeat(600);
    for id in
        ["..", "%2e%2e", "..%2ffiles", "a%2Fb", "%252e", "a%3Fa=b", "a%23", "a%0d%0ahost:x", "%ff", "a%20b", &long]
    {
        for (method, end, body) in ROUTES {
            let path = format!("{PATH}/{id}{}", end.replace("ITEM", "msg_1"));
            let answer = asked(&gateway, method, &path, body).await;
            assert_eq!((answer.status, &*answer.code()), (404, "conversation_not_found"), "{method} {path}");
        }
        for method in ["GET", "DELETE"] {
            let answer = asked(&gateway, method, &format!("{PATH}/{own}/items/{id}"), "").await;
            assert_eq!((answer.status, &*answer.code()), (404, "item_not_found"), "{method} {id}: {answer:?}");
        }
    }
    for (method, path, status) in [
        ("GET", "", 405),
        ("DELETE", "", 405),
        ("PUT", "/conv_1", 405),
        ("DELETE", "/conv_1/items", 405),
        ("POST", "/conv_1/items/msg_1", 405),
        ("GET", "/conv_1/nothing", 404),
        ("GET", "/conv_1/items/msg_1/more", 404),
    ] {
        assert_eq!(asked(&gateway, method, &format!("{PATH}{path}"), "").await.status, status, "{method} {path}");
    }
    assert_eq!(attempts(&providers), before);
}

/// What a body may not hold is refused as in the input of a response, before anything is sent.
#[tokio::test]
async fn what_belongs_to_an_account_is_refused_in_items() {
    let (providers, gateway) = two_providers(|config| config).await;
    let id = made(&gateway, KEY).await;
    let before = attempts(&providers);
    let file = r#"{"items":[{"role":"user","content":[{"type":"input_file","file_id":"file-1"}]}]}"#;
    for (body, code) in [
        (file, "invalid_value"),
        ("{\"items\":[],\"items\":[]}", "invalid_value"),
        ("{\"items\":{}}", "invalid_value"),
        ("[]", "invalid_json"),
        ("{\"items\":[", "invalid_json"),
    ] {
        for path in [PATH.to_owned(), place(&id, "/items"), place(&id, "")] {
            let answer = asked(&gateway, "POST", &path, body).await;
            assert_eq!((answer.status, &*answer.code()), (400, code), "{path} {body}");
        }
    }
    assert_eq!(attempts(&providers), before);
}

/// Whatever fails there, nobody else is asked, and the client is told when to try again.
#[tokio::test]
async fn an_account_that_is_down_is_waited_for() {
    let (providers, gateway) = two_providers(|config| config).await;
    let [id, _] = one_of_each(&gateway).await;
    let others = providers[1].attempts();
    for (broken, status) in stored::failures() {
        for (method, end, body) in ROUTES {
            providers[0].answers(broken.clone());
            let answer = asked(&gateway, method, &place(&id, end), body).await;
            assert_eq!(answer.status, status, "{method} {end}: {answer:?}");
            if status == 503 {
                assert!(answer.retry_after().as_secs() >= 1, "{answer:?}");
                assert_eq!(answer.code(), "no_deployment_available");
            }
        }
    }
    providers[0].answers(storing("a"));
    assert_eq!(asked(&gateway, "GET", &place(&id, ""), "").await.status, 200, "what failed was no evidence");
    providers[0].break_with(Fault::PortClosed).await;
    for (method, end, body) in ROUTES {
        let answer = asked(&gateway, method, &place(&id, end), body).await;
        assert_eq!((answer.status, &*answer.code()), (503, "no_deployment_available"), "{answer:?}");
        assert!(answer.retry_after().as_millis() > 0);
    }
    let answer = asked(&gateway, "POST", stored::PATH, &responding(&format!("\"conversation\":\"{id}\""))).await;
    assert!((500..=504).contains(&answer.status), "{answer:?}");
    assert_eq!(providers[1].attempts(), others);
}

/// Whoever adds items twice has them twice: what may have arrived is not sent again by the gateway.
#[tokio::test]
async fn items_are_sent_once() {
    let (providers, gateway) = two_providers(|config| config).await;
    let [id, _] = one_of_each(&gateway).await;
    for (method, end, body) in ROUTES {
        providers[0].answers(Script::wire("").end(Ending::Rst));
        providers.iter().for_each(ScriptedProvider::clear);
        asked(&gateway, method, &place(&id, end), body).await;
        let expected = if (method, end) == ("POST", "/items") { 1 } else { 2 };
        assert_eq!(providers[0].attempts(), expected, "{method} {end}");
    }
}

/// Until an account answered nothing is bound: the next one is asked, and has the conversation.
#[tokio::test]
async fn a_conversation_is_made_by_the_next_account_where_one_fails() {
    for broken in [
        Script::status(500),
        Script::status(429),
        Script::status(401),
        Script::wire("").end(Ending::Rst),
        Script::status(404).json(&json!({"detail": "Not Found"})),
        json_of("{\"error\":{\"message\":\"x\"}}"),
        json_of("{\"id\":"),
    ] {
        let (providers, gateway) = two_providers(|config| config.routing("balance = \"ordered\"")).await;
        providers[0].answers(broken);
        let id = made(&gateway, KEY).await;
        assert!(id.starts_with("conv_b"), "{id}");
        let sent = providers[1].at_rest().await;
        assert_eq!((&*sent.only().request.path, &sent.only().request.body[..]), (PATH, BODY.as_bytes()));
        providers[0].answers(storing("a"));
        providers[0].clear();
        assert_eq!(asked(&gateway, "GET", &place(&id, ""), "").await.status, 200);
        assert_eq!(providers[0].attempts(), 0);
    }
    let (providers, gateway) = two_providers(|config| config).await;
    for provider in &providers {
        provider.break_with(Fault::PortClosed).await;
    }
    let answer = asked(&gateway, "POST", PATH, "").await;
    assert!(matches!(answer.status, 502 | 503), "{answer:?}");
}

#[tokio::test]
async fn a_refusal_of_the_provider_passes_and_a_body_may_be_missing() {
    let (providers, gateway) = two_providers(|config| config).await;
    assert_eq!(asked(&gateway, "POST", PATH, "").await.status, 200);
    let empty = providers.iter().find(|provider| provider.attempts() == 1).expect("one was asked").at_rest().await;
    assert_eq!((&empty.only().request.body[..], empty.only().request.header("content-type")), (&b""[..], None));
    let said = json!({"error": {"message": "No.", "type": "invalid_request_error", "param": "metadata", "code": "x"}});
    providers.iter().for_each(|provider| provider.answers(Script::status(400).json(&said)));
    let answer = asked(&gateway, "POST", PATH, "{\"metadata\":7}").await;
    assert_eq!((answer.status, answer.json()), (400, said));
}

/// Three models: `org/model` at both providers, `second` at the second alone, `plain` without Responses.
async fn three_models() -> ([ScriptedProvider; 2], TestGateway) {
    two_providers(|config| {
        let second = "[models.second]\nendpoints = [\"responses\"]\ndeployments = [{ provider = \"us\" }]\n";
        let plain = "[models.plain]\ndeployments = [{ provider = \"eu\" }]\n";
        let tiers = "[tiers.other]\nmodels = [\"second\"]\n[tiers.last]\nmodels = [\"plain\"]\n";
        config.routing("balance = \"ordered\"").more(&format!("{second}{plain}{tiers}"))
    })
    .await
}

#[tokio::test]
async fn it_is_made_for_a_model_that_the_query_names() {
    let (providers, gateway) = three_models().await;
    assert!(made(&gateway, KEY).await.starts_with("conv_a"));
    let of = async |query: &str| asked(&gateway, "POST", &format!("{PATH}?{query}"), BODY).await;
    for name in ["second", "other"] {
        let answer = of(&format!("model={name}")).await;
        assert!(answer.text().contains("conv_b"), "{name}: {answer:?}");
        let id = answer.json()["id"].as_str().expect("an id").to_owned();
        let body = format!("{{\"model\":\"second\",\"input\":\"Hi\",\"conversation\":\"{id}\"}}");
        assert_eq!(asked(&gateway, "POST", stored::PATH, &body).await.status, 200);
    }
    let journal = providers[1].at_rest().await;
    assert!(journal.requests().all(|request| !request.path.contains('?')), "the choice is the gateway's");
    for (name, status, code) in [
        ("nothing", 404, "model_not_found"),
        ("plain", 400, "invalid_value"),
        ("", 400, "invalid_value"),
        (&*"x".repeat(257), 400, "invalid_value"),
    ] {
        let answer = of(&format!("model={name}")).await;
        assert_eq!((answer.status, &*answer.code()), (status, code), "{name}: {answer:?}");
    }
    // What was made for a model is made where that is, or not at all.
    providers[1].answers(Script::status(500));
    assert!(of("model=second").await.status >= 500);
    assert!(made(&gateway, KEY).await.starts_with("conv_a"));
}

#[tokio::test]
async fn an_account_without_the_model_says_which_ones_it_has() {
    let (providers, gateway) = three_models().await;
    let id = made(&gateway, KEY).await;
    let before = attempts(&providers);
    let body = format!("{{\"model\":\"second\",\"input\":\"Hi\",\"conversation\":\"{id}\"}}");
    let answer = asked(&gateway, "POST", stored::PATH, &body).await;
    let error = &answer.json()["error"];
    assert_eq!((answer.status, &error["param"]), (400, &json!("model")), "{answer:?}");
    assert!(error["message"].as_str().is_some_and(|said| said.contains(&format!("'{MODEL}'"))), "{answer:?}");
    assert_eq!(attempts(&providers), before);
}

#[tokio::test]
async fn it_is_made_within_residency_and_by_nobody_without_responses() {
    let (providers, gateway) = two_providers(|config| config.policy("regions = [\"us-*\"]")).await;
    for _ in 0..8 {
        assert!(made(&gateway, KEY).await.starts_with("conv_b"));
    }
    assert_eq!(providers[0].attempts(), 0);
    gateway.reload(&Config::of(&providers[0]).text());
    let answer = asked(&gateway, "POST", PATH, "{}").await;
    let error = &answer.json()["error"];
    assert_eq!((answer.status, &error["code"]), (400, &json!("invalid_value")), "{answer:?}");
    let said = error["message"].as_str().expect("it says why");
    assert!(said.contains("No model serves conversations, a part of OpenAI's Responses"), "{said}");
    assert_eq!(providers[0].attempts(), 0);
}

/// A key whose regions changed does not reach what was made in one that it may not use any more.
#[tokio::test]
async fn residency_holds_for_what_was_made_before_it() {
    let (providers, gateway) = two_providers(|config| config).await;
    let [id, _] = one_of_each(&gateway).await;
    let other = provider_table("us", &providers[1], "us-east");
    let config = Config::of(&providers[0]).model("endpoints = [\"responses\"]").policy("regions = [\"us-*\"]");
    gateway.reload(&config.other_deployment("{ provider = \"us\" }").more(&other).text());
    let before = attempts(&providers);
    for (method, end, body) in ROUTES {
        let answer = asked(&gateway, method, &place(&id, end), body).await;
        assert_eq!((answer.status, &*answer.code()), (403, "residency_unavailable"), "{method} {end}: {answer:?}");
    }
    assert_eq!(attempts(&providers), before);
}

#[tokio::test]
async fn an_account_that_is_not_configured_any_more_is_said_to_be_gone() {
    let (providers, gateway) = two_providers(|config| config).await;
    let [id, kept] = one_of_each(&gateway).await;
    let attempts = providers[0].attempts();
    let config = Config::of(&providers[1]).model("endpoints = [\"responses\"]").text();
    gateway.reload(&config.replace("providers.eu", "providers.us").replace("\"eu\"", "\"us\""));
    for (method, end, body) in ROUTES {
        let answer = asked(&gateway, method, &place(&id, end), body).await;
        assert_eq!((answer.status, &*answer.code()), (410, "conversation_account_gone"), "{answer:?}");
    }
    let answer = asked(&gateway, "POST", stored::PATH, &responding(&format!("\"conversation\":\"{id}\""))).await;
    assert_eq!((answer.status, &*answer.code()), (410, "conversation_account_gone"), "{answer:?}");
    assert_eq!(asked(&gateway, "GET", &place(&kept, ""), "").await.status, 200);
    assert_eq!(providers[0].attempts(), attempts);
}

/// A gateway whose bindings are in the database at `path`.
async fn stored_at(path: &Path, config: &str) -> (TestGateway, WriterGuard) {
    let clock: WallClock = Arc::new(|| tierway::clock::Clock.unix_ms());
    let (durable, writing) = SqliteLedger::open(path, None, clock.clone()).expect("it is opened");
    let accounts = SqliteStateAccounts::of_gateway(path, durable.writer(), clock);
    let state_accounts = Arc::new(StateAccounts::durable(Arc::new(accounts), Vec::new()));
    let ledger = Arc::new(MemoryLedger::default());
    let stores = Stores { ledger: ledger.clone(), state_accounts, ..Stores::memory().await };
    (TestGateway::start_with_stores(compile(config), 1, ledger, stores).await, writing)
}

#[tokio::test]
async fn a_binding_outlives_the_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tierway.db");
    let provider = ScriptedProvider::start("eu").await;
    provider.answers(storing("a"));
    let config = Config::of(&provider).model("endpoints = [\"responses\"]").text();
    let (first, writing) = stored_at(&path, &config).await;
    let id = listed(&first, KEY).await;
    drop(first);
    drop(writing);
    let (second, _writing) = stored_at(&path, &config).await;
    let body = responding(&format!("\"conversation\":\"{id}\""));
    assert_eq!(asked(&second, "POST", stored::PATH, &body).await.status, 200);
    // An item of it is known without being listed again.
    for (method, end, body) in ROUTES.into_iter().filter(|(_, end, _)| *end != "/items") {
        let answer = asked(&second, method, &place(&id, end), body).await;
        assert_eq!(answer.status, 200, "{method} {end}: {answer:?}");
    }
}

#[tokio::test]
async fn it_counts_against_the_keys_limits() {
    let (providers, gateway) = two_providers(|config| config.policy("requests_per_minute = 3")).await;
    let id = made(&gateway, KEY).await;
    let mut statuses = Vec::new();
    for (method, end, body) in [ROUTES[0], ROUTES[2], ROUTES[3]] {
        statuses.push(asked(&gateway, method, &place(&id, end), body).await.status);
    }
    assert_eq!((statuses, attempts(&providers)), (vec![200, 200, 429], 3));
}
