//! Requests that refer to what one account made, ten thousand of them at random, while accounts fail: each goes to that
//! account or nowhere.
//!
//! Start reading at [`a_pinned_request_never_moves`].

use crate::conversations;
use crate::support::gateway::{CREDENTIAL, provider_table};
use crate::support::journal::Request;
use crate::support::{Ending, Response, Script, ScriptedProvider, TestClients, TestDialect, TestGateway, TestRequest};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Every case is reproducible from it.
const SEED: u64 = 0x91_44_ed;
const CASES: usize = 10_000;
/// Requests that are sent at the same time.
const AT_ONCE: usize = 32;
/// Responses that the cases refer to.
const MADE: usize = 64;
/// The variable of the second credential is another name for a key of the tests.
const OTHER_CREDENTIAL: &str = crate::support::gateway::OTHER_KEY;

/// The name of the account that a request came with: its provider, and which of its credentials.
fn account_of(request: &Request) -> String {
    let credential = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    let which = match credential {
        Some(CREDENTIAL) => "first",
        Some(OTHER_CREDENTIAL) => "second",
        other => panic!("no credential of this provider: {other:?}"),
    };
    format!("{}-{which}", request.provider)
}

/// How an account fails at the request with this number, if it does.
fn failure(case: u64) -> Option<Script> {
    match fastrand::Rng::with_seed(SEED ^ case.wrapping_mul(0x9e37_79b9)).u64(..100) {
        0..6 => Some(Script::status(500)),
        6..12 => Some(Script::status(503)),
        12..15 => Some(Script::status(529)),
        15..17 => Some(Script::status(429)),
        17..22 => Some(Script::wire("").end(Ending::Rst)),
        22..25 => Some(Script::sse().cut_after_frame(0, Ending::Fin)),
        25..27 => {
            Some(Script::status(404).header("content-type", "application/json").body(r#"{"detail":"Not Found"}"#))
        }
        _ => None,
    }
}

/// An answer with an id that names its account: whoever reads it knows who made it.
fn answer(request: &Request, number: u64) -> Script {
    let id = format!("resp_{}_{number}", account_of(request));
    if request.path.starts_with(conversations::PATH) {
        let whole = format!(r#"{{"id":"conv_{id}","object":"conversation","created_at":1,"metadata":{{}}}}"#);
        return Script::status(200).header("content-type", "application/json").body(whole);
    }
    let whole = format!(
        r#"{{"id":"{id}","object":"response","status":"completed","output":[{{"type":"reasoning","id":"rs_{id}","summary":[],"encrypted_content":"gAAAA-{id}"}},{{"type":"message","id":"msg_{id}","role":"assistant","content":[{{"type":"output_text","text":"Hello"}}]}}]}}"#
    );
    if !request.streams() {
        return Script::status(200).header("content-type", "application/json").body(whole);
    }
    let event = |name: &str, rest: &str| format!("event: {name}\ndata: {{\"type\":\"{name}\",{rest}}}\n\n");
    Script::sse()
        .body(event("response.created", &format!(r#""response":{{"id":"{id}","status":"in_progress"}}"#)))
        .body(event("response.output_text.delta", r#""delta":"Hello""#))
        .body(event("response.completed", &format!(r#""response":{whole}"#)))
}

async fn provider(name: &str) -> ScriptedProvider {
    let provider = ScriptedProvider::start(name).await;
    let number = Arc::new(AtomicU64::new(0));
    provider.answers(Script::by(move |request| {
        let failing = request.json()["metadata"]["case"].as_str().and_then(|case| failure(case.parse().ok()?));
        failing.unwrap_or_else(|| answer(request, number.fetch_add(1, Ordering::Relaxed)))
    }));
    provider
}

/// Two models, each at two providers with two credentials each: four accounts.
fn config(providers: [&ScriptedProvider; 2]) -> String {
    let [a, b] = [("a", providers[0]), ("b", providers[1])].map(|(name, provider)| {
        provider_table(name, provider, name).replace("\"env:CREDENTIAL\"", "[\"env:CREDENTIAL\", \"env:OTHER_KEY\"]")
    });
    let served = "endpoints = [\"responses\"]\ndeployments = [{ provider = \"a\" }, { provider = \"b\" }]\n";
    format!(
        "{a}{b}[models.one]\n{served}[models.two]\n{served}[tiers.default]\nmodels = [\"one\", \"two\"]\n\
         [policies.all]\ntiers = [\"*\"]\n[[keys]]\nname = \"app\"\npolicy = \"all\"\nsecret = \"env:TEST_KEY\"\n\
         [routing]\nretry_after_wait_max = \"10ms\"\nbreaker = {{ open = \"5ms\", open_max = \"20ms\" }}\n"
    )
}

/// The response that an answer holds: `resp_a-first_7`.
fn id_of(answer: &Response) -> String {
    let text = answer.text();
    let start = text.find("resp_").unwrap_or_else(|| panic!("no id: {answer:?}"));
    text[start..].split('"').next().unwrap_or_default().to_owned()
}

fn maker_of(id: &str) -> &str {
    id.trim_start_matches("resp_").split('_').next().unwrap_or_default()
}

/// A request of this number that refers to one of `made`, or of the conversations `begun`, in one of several ways.
fn case(number: usize, made: &[String], begun: &[String]) -> TestRequest {
    let mut rng = fastrand::Rng::with_seed(SEED.wrapping_add(number as u64));
    let id = &made[rng.usize(..made.len())];
    let model = if rng.bool() { "one" } else { "two" };
    let conversation = &begun[rng.usize(..begun.len())];
    let (previous, item) = match rng.u8(..6) {
        4 => (format!(",\"conversation\":\"conv_{conversation}\""), String::new()),
        5 => (format!(",\"conversation\":{{\"id\":\"conv_{conversation}\"}}"), String::new()),
        0 => (format!(",\"previous_response_id\":\"{id}\""), String::new()),
        1 => (String::new(), format!(r#"{{"type":"item_reference","id":"msg_{id}"}},"#)),
        2 => (String::new(), format!(r#"{{"type":"reasoning","id":"rs_{id}","summary":[]}},"#)),
        _ => (String::new(), format!(r#"{{"type":"reasoning","summary":[],"encrypted_content":"gAAAA-{id}"}},"#)),
    };
    let stream = rng.bool();
    let body = format!(
        r#"{{"model":"{model}","stream":{stream},"metadata":{{"case":"{number}"}},"store":false{previous},"input":[{item}{{"role":"user","content":"And?"}}]}}"#
    );
    TestRequest::new(TestDialect::Responses.path(), body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pinned_request_never_moves() {
    let providers = [provider("a").await, provider("b").await];
    let gateway = TestGateway::start(&config([&providers[0], &providers[1]])).await;
    let mut clients = TestClients::new(AT_ONCE, &gateway);
    let first = |number: usize| {
        let body = format!(r#"{{"model":"one","input":"Hi","stream":{}}}"#, number.is_multiple_of(2));
        TestRequest::new(TestDialect::Responses.path(), body)
    };
    let made: Arc<Vec<String>> = Arc::new(clients.send_all(MADE, first).await.iter().map(id_of).collect());
    let beginning = |_| TestRequest::new(conversations::PATH, "{}");
    let begun: Arc<Vec<String>> = Arc::new(clients.send_all(MADE, beginning).await.iter().map(id_of).collect());
    for account in ["a-first", "a-second", "b-first", "b-second"] {
        for ids in [&made, &begun] {
            assert!(ids.iter().any(|id| maker_of(id) == account), "{account} made nothing: {ids:?}");
        }
    }
    providers.iter().for_each(ScriptedProvider::clear);
    println!("seed {SEED}");
    let of_cases = (made.clone(), begun.clone());
    let answers = clients.send_all(CASES, move |number| case(number, &of_cases.0, &of_cases.1)).await;
    let mut served = 0;
    for (number, answer) in answers.iter().enumerate() {
        let is_served = answer.status == 200;
        assert!(is_served || matches!(answer.status, 404 | 429 | 500..=599), "{number}: {answer:?}");
        served += usize::from(is_served);
    }
    let mut asked = 0;
    for provider in &providers {
        for request in provider.at_rest().await.requests() {
            let body = request.json();
            let item = &body["input"][0];
            let conversation = &body["conversation"];
            let conversations = [conversation, &conversation["id"]];
            let others = [&body["previous_response_id"], &item["id"], &item["encrypted_content"]];
            let referred = others.into_iter().chain(conversations);
            let referred = referred.filter_map(Value::as_str).find_map(|text| text.split_once("resp_"));
            let maker = referred.map(|(_, id)| maker_of(id).to_owned());
            assert_eq!(maker, Some(account_of(request)), "{}", String::from_utf8_lossy(&request.body));
            asked += 1;
        }
    }
    println!("{CASES} requests, {served} served, {asked} attempts, each at the account that made what it refers to");
    assert!(served > CASES / 4 && asked > served, "{served} served of {asked} attempts");
}
