//! OpenAI's Responses: every byte but the model's name, whole and streamed; what is billed; and that what one account made for one key is found there, by that key alone.
//!
//! Start reading at [`every_byte_but_the_models_name_passes`].

use crate::config::{Config, MODEL};
use crate::support::gateway::{KEY, OTHER_KEY, provider_table};
use crate::support::journal::Request;
use crate::support::{BodyEnd, Fault, Response, Script, ScriptedProvider, TestGateway, TestRequest};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tierway::domain::reason::Reason;
use tierway::domain::receipt::Outcome;

const PATH: &str = "/v1/responses";
const ENDPOINTS: &str = "endpoints = [\"chat\", \"responses\"]";
const OTHER_APP: &str = "[[keys]]\nname = \"other\"\npolicy = \"all\"\nsecret = \"env:OTHER_KEY\"";

/// Input 100 of which 40 cached and 10 written to the cache, output 87 of which 64 reasoning.
const USAGE: &str = r#"{"input_tokens":100,"input_tokens_details":{"cached_tokens":40,"cache_write_tokens":10},"output_tokens":87,"output_tokens_details":{"reasoning_tokens":64},"total_tokens":187}"#;

/// A whole response, in a spelling that no serialiser would choose.
fn response(id: &str, status: &str) -> String {
    format!(
        r#"{{ "id":"{id}","object":"response","created_at":1.0e9,"status":"{status}","error":null,"model":"up\/stream", "output":[{{"type":"reasoning","id":"rs_{id}","summary":[],"encrypted_content":"gAAAA-{id}"}},{{"type":"message","id":"msg_{id}","role":"assistant","content":[{{"type":"output_text","text":"Hé\u0021","annotations":[]}}]}}],"usage":{USAGE},"big":12345678901234567890.10}}"#
    )
}

/// The events of a stream that answers the same.
fn events(id: &str) -> Vec<String> {
    let event = |name: &str, rest: String| format!("event: {name}\ndata: {{\"type\":\"{name}\",{rest}}}\n\n");
    vec![
        event(
            "response.created",
            format!(r#""sequence_number":0,"response":{{"id":"{id}","status":"in_progress","output":[]}}"#),
        ),
        event(
            "response.in_progress",
            format!(r#""sequence_number":1,"response":{{"id":"{id}","status":"in_progress"}}"#),
        ),
        event(
            "response.output_item.added",
            format!(r#""sequence_number":2,"output_index":0,"item":{{"type":"message","id":"msg_{id}","content":[]}}"#),
        ),
        event("response.output_text.delta", format!(r#""sequence_number":3,"item_id":"msg_{id}","delta":"Hé""#)),
        event("response.output_text.delta", format!(r#""sequence_number":4,"item_id":"msg_{id}","delta":"\u0021""#)),
        event("response.output_text.done", r#""sequence_number":5,"text":"Hé!""#.to_owned()),
        event(
            "response.output_item.done",
            format!(
                r#""sequence_number":6,"item":{{"type":"message","id":"msg_{id}","content":[{{"type":"output_text","text":"Hé!"}}]}}"#
            ),
        ),
        event("response.completed", format!(r#""sequence_number":7,"response":{}"#, response(id, "completed"))),
    ]
}

/// Answers as it was asked, with a new id each time: `resp_PREFIXn`.
fn answering(prefix: &'static str) -> Script {
    let number = Arc::new(AtomicU64::new(0));
    Script::by(move |request: &Request| {
        let id = format!("resp_{prefix}{}", number.fetch_add(1, Ordering::Relaxed));
        if request.json()["stream"] == true {
            return events(&id).into_iter().fold(Script::sse(), |script, event| script.body(event));
        }
        Script::status(200).header("content-type", "application/json").body(response(&id, "completed"))
    })
}

/// A body for [`MODEL`] with more members.
fn body(members: &str) -> String {
    format!("{{\"model\":\"{MODEL}\",\"input\":\"Hi\"{members}}}")
}

async fn asked(gateway: &TestGateway, body: &str) -> Response {
    gateway.post(PATH, &[], body).await
}

async fn gateway(provider: &ScriptedProvider, change: impl FnOnce(Config) -> Config) -> TestGateway {
    TestGateway::start(&change(Config::of(provider).model(ENDPOINTS)).text()).await
}

#[tokio::test]
async fn every_byte_but_the_models_name_passes() {
    let provider = ScriptedProvider::start("eu").await;
    let gateway = gateway(&provider, |config| config.deployment("upstream_model = \"up/stream\"")).await;
    for stream in [false, true] {
        provider.clear();
        provider.answers(answering("a"));
        let sent = format!(
            " {{\"x\":1.50,\"model\" : \"{MODEL}\",\"input\":[{{\"role\":\"user\",\"content\":\"\\u00e9\"}}], \"stream\":{stream},\"n\":1e2 }}"
        );
        let answer = asked(&gateway, &sent).await;
        assert_eq!((answer.status, answer.end), (200, BodyEnd::Clean), "{answer:?}");
        let expected = if stream { events("resp_a0").concat() } else { response("resp_a0", "completed") };
        assert_eq!(answer.text(), expected);
        let journal = provider.at_rest().await;
        let request = &journal.only().request;
        assert_eq!(request.path, PATH);
        assert_eq!(String::from_utf8_lossy(&request.body), sent.replace(MODEL, "up/stream"));
    }
}

#[tokio::test]
async fn tokens_are_billed_as_the_provider_counts_them() {
    let provider = ScriptedProvider::start("eu").await;
    let price = r#"price = { input = "1", cached_input = "0.1", cache_write = "2", output = "4" }"#;
    let gateway = gateway(&provider, |config| config.model(price)).await;
    provider.answers(answering("a"));
    for stream in [false, true] {
        let answer = asked(&gateway, &body(&format!(",\"stream\":{stream}"))).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    for receipt in gateway.receipts(2).await {
        let used = receipt.usage.expect("it was counted");
        assert_eq!((used.input, used.cached_input, used.output, used.reasoning), (100, 40, 87, 64));
        // 50 at $1, 40 at $0.10, 10 written at $2 and 87 at $4, each per million: in nano-dollars.
        assert_eq!(receipt.cost.0, 50 * 1_000 + 40 * 100 + 10 * 2_000 + 87 * 4_000);
        assert_eq!(
            (receipt.outcome, receipt.endpoint.map(|endpoint| endpoint.name())),
            (Outcome::Served, Some("responses"))
        );
    }
}

/// A budget pays: the ceiling is held for, lowered to the model's own where it is above, and a host's refusal is passed on.
#[tokio::test]
async fn a_budget_pays_for_a_response_with_a_ceiling_and_for_one_without() {
    let provider = ScriptedProvider::start("eu").await;
    let bounds = "price = { input = \"1\", output = \"4\" }\ncontext = 8000\nmax_output = 100";
    let budget = "budget = { limit = \"100\", window = \"month\" }";
    let gateway = gateway(&provider, |config| config.model(bounds).policy(budget)).await;
    for stream in [false, true] {
        for (ceiling, sent) in [
            ("", 100),
            (",\"max_output_tokens\":null", 100),
            (",\"max_output_tokens\":64", 64),
            (",\"max_output_tokens\":9000", 100),
        ] {
            let body = body(&format!(",\"stream\":{stream}{ceiling}"));
            provider.clear();
            provider.answers(answering("a"));
            assert_eq!(asked(&gateway, &body).await.status, 200, "{body}");
            assert_eq!(provider.at_rest().await.only().request.json()["max_output_tokens"], sent, "{body}");
            for (status, expected) in [(400, 400), (422, 422), (500, 502), (503, 502)] {
                provider.answers(
                    Script::status(status)
                        .json(&json!({"error": {"message": "Unknown parameter: 'max_output_tokens'."}})),
                );
                let answer = asked(&gateway, &body).await;
                assert_eq!(answer.status, expected, "{status}, {body}: {answer:?}");
            }
        }
    }
    assert!(gateway.receipts(gateway.relay.entered()).await.iter().all(|receipt| receipt.reason != Reason::Internal));
}

#[tokio::test]
async fn input_is_counted_for_nothing() {
    let provider = ScriptedProvider::start("eu").await;
    let price = r#"price = { input = "1", output = "4" }"#;
    let gateway = gateway(&provider, |config| config.model(price)).await;
    let counted = r#"{ "object":"response.input_tokens","input_tokens":11 }"#;
    provider.answers(Script::status(200).header("content-type", "application/json").body(counted));
    let answer = gateway.post("/v1/responses/input_tokens", &[], &body("")).await;
    assert_eq!((answer.status, answer.text()), (200, counted), "{answer:?}");
    let journal = provider.at_rest().await;
    assert_eq!(journal.only().request.path, "/v1/responses/input_tokens");
    assert_eq!(gateway.receipts(1).await[0].cost.0, 0);
    let others = gateway.post("/v1/responses/input_tokens", &[], &body(r#","previous_response_id":"resp_1""#)).await;
    assert_eq!(others.status, 404, "{others:?}");
}

#[tokio::test]
async fn what_is_not_served_is_refused_clearly() {
    let provider = ScriptedProvider::start("eu").await;
    let gateway = gateway(&provider, |config| {
        config.more("[models.plain]\ndeployments = [{ provider = \"eu\" }]\n[tiers.second]\nmodels = [\"plain\"]")
    })
    .await;
    let check = async |body: &str, status: u16, param: &str| {
        let answer = asked(&gateway, body).await;
        let error = &answer.json()["error"];
        assert_eq!((answer.status, error["param"].as_str()), (status, Some(param)), "{body}: {answer:?}");
        assert_eq!(error["type"], "invalid_request_error", "{body}");
    };
    check(r#"{"model":"plain","input":"Hi"}"#, 400, "model").await;
    check(r#"{"model":"nothing","input":"Hi"}"#, 404, "model").await;
    check(&body(r#","prompt":{"id":"pmpt_1"}"#), 400, "prompt").await;
    check(&body(r#","tools":[{"type":"file_search","vector_store_ids":["vs_1"]}]"#), 400, "tools").await;
    check(&body(r#","previous_response_id":"resp_of_nobody""#), 404, "previous_response_id").await;
    check(&body(r#","conversation":"conv_1""#), 404, "conversation").await;
    assert_eq!(provider.attempts(), 0);
    let wrong_method = gateway.get(PATH).await;
    assert_eq!((wrong_method.status, wrong_method.header("allow")), (405, Some("POST")));
}

#[tokio::test]
async fn a_providers_refusal_passes_as_it_came() {
    let provider = ScriptedProvider::start("eu").await;
    let gateway = gateway(&provider, |config| config).await;
    let refusal = json!({"error": {"message": "Unknown parameter: 'x'.", "type": "invalid_request_error", "param": "x", "code": "unknown_parameter"}});
    provider.answers(Script::status(400).json(&refusal));
    let answer = asked(&gateway, &body(",\"x\":1")).await;
    assert_eq!((answer.status, answer.json()), (400, refusal));
}

fn failed(code: &str) -> String {
    format!(
        "event: response.failed\ndata: {{\"type\":\"response.failed\",\"sequence_number\":4,\"response\":{{\"id\":\"r\",\"status\":\"failed\",\"error\":{{\"code\":\"{code}\",\"message\":\"x\"}}}}}}\n\n"
    )
}

/// Two providers of one model, of which a request tries the first one first.
async fn two_providers(policy: &str) -> ([ScriptedProvider; 2], TestGateway) {
    let [first, second] = [ScriptedProvider::start("eu").await, ScriptedProvider::start("us").await];
    first.answers(answering("a"));
    second.answers(answering("b"));
    let config = Config::of(&first).model(ENDPOINTS).other_deployment("{ provider = \"us\" }");
    let config = config.more(&provider_table("us", &second, "us-east")).more(OTHER_APP).policy(policy);
    let gateway = TestGateway::start(&config.text()).await;
    ([first, second], gateway)
}

#[tokio::test]
async fn what_fails_before_its_first_part_is_asked_for_elsewhere_unless_the_request_is_at_fault() {
    let ([first, second], gateway) = two_providers("").await;
    let opening = events("resp_x")[..3].concat();
    for provider in [&first, &second] {
        let other = if std::ptr::eq(provider, &first) { &second } else { &first };
        other.answers(answering("b"));
        for broken in [
            Script::sse().body(opening.clone()).body(failed("server_error")),
            Script::sse().body(opening.clone()).body(
                "event: error\ndata: {\"type\":\"error\",\"code\":\"rate_limit_exceeded\",\"message\":\"x\"}\n\n",
            ),
            Script::sse().body(opening.clone()),
            Script::status(503),
        ] {
            provider.answers(broken);
            for _ in 0..4 {
                let answer = asked(&gateway, &body(",\"stream\":true")).await;
                assert!(answer.status == 200 && answer.text().contains("\"response.completed\""), "{answer:?}");
            }
        }
        provider.answers(Script::status(200).header("content-type", "application/json").body(response("x", "failed")));
        for _ in 0..4 {
            let answer = asked(&gateway, &body("")).await;
            assert_eq!(answer.json()["status"], "completed", "{answer:?}");
        }
    }
    // Codex compacts at these words, wherever they stand.
    let refused = [opening, failed("context_length_exceeded")].concat();
    for provider in [&first, &second] {
        provider.answers(Script::sse().body(refused.clone()));
    }
    let answer = asked(&gateway, &body(",\"stream\":true")).await;
    assert_eq!((answer.text(), answer.end, answer.attempts()), (&refused[..], BodyEnd::Clean, 1), "{answer:?}");
}

#[tokio::test]
async fn a_failure_that_the_provider_says_itself_is_passed_on_and_counts_as_broken() {
    let provider = ScriptedProvider::start("eu").await;
    let gateway = gateway(&provider, |config| config).await;
    let said = [&events("resp_x")[..4].concat(), &failed("server_error")[..]].concat();
    provider.answers(Script::sse().body(said.clone()));
    let answer = asked(&gateway, &body(",\"stream\":true")).await;
    assert_eq!((answer.text(), answer.end), (&said[..], BodyEnd::Clean), "{answer:?}");
    let receipts = gateway.receipts(1).await;
    assert_eq!((receipts[0].outcome, receipts[0].reason), (Outcome::Broken, Reason::ErrorInside));
}

/// The id of the response in an answer.
fn id_of(answer: &Response) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    let text = answer.text();
    let start = text.find("resp_").unwrap_or_else(|| panic!("no id: {answer:?}"));
    text[start..].split('"').next().unwrap_or_default().to_owned()
}

/// Ways in which a request refers to what `id` made.
fn references(id: &str) -> [String; 4] {
    let input = |item: String| {
        format!("{{\"model\":\"{MODEL}\",\"input\":[{item},{{\"role\":\"user\",\"content\":\"And?\"}}]}}")
    };
    [
        body(&format!(",\"previous_response_id\":\"{id}\"")),
        input(format!(r#"{{"type":"item_reference","id":"msg_{id}"}}"#)),
        input(format!(r#"{{"type":"reasoning","id":"rs_{id}","summary":[]}}"#)),
        input(format!(r#"{{"type":"reasoning","id":"rs_{id}","summary":[],"encrypted_content":"gAAAA-{id}"}}"#)),
    ]
}

#[tokio::test]
async fn what_an_account_made_is_asked_for_there_and_nowhere_else() {
    let ([first, second], gateway) = two_providers("").await;
    let mut made = Vec::new();
    for turn in 0..24 {
        let answer = asked(&gateway, &body(&format!(",\"stream\":{}", turn % 2 == 0))).await;
        made.push(id_of(&answer));
    }
    assert!(["resp_a", "resp_b"].iter().all(|of| made.iter().any(|id| id.starts_with(of))), "both made some: {made:?}");
    for id in &made {
        let maker = if id.starts_with("resp_a") { &first } else { &second };
        for reference in references(id) {
            let before = (first.attempts(), second.attempts(), maker.attempts());
            let answer = asked(&gateway, &reference).await;
            assert_eq!(answer.status, 200, "{reference}: {answer:?}");
            assert_eq!(maker.attempts(), before.2 + 1, "{reference}");
            assert_eq!(first.attempts() + second.attempts(), before.0 + before.1 + 1, "{reference}");
        }
    }
    // Its account is down: nobody else is asked.
    let id = made.iter().find(|id| id.starts_with("resp_a")).expect("there is one");
    first.break_with(Fault::PortClosed).await;
    let before = second.attempts();
    for reference in references(id) {
        let answer = asked(&gateway, &reference).await;
        assert!(answer.status >= 500, "{answer:?}");
    }
    assert_eq!(second.attempts(), before);
}

#[tokio::test]
async fn what_was_made_for_one_key_is_not_there_for_another() {
    let ([first, second], gateway) = two_providers("").await;
    let mut made = Vec::new();
    for key in [KEY, OTHER_KEY] {
        let answer = TestRequest::new(PATH, body("")).with_key(key).send_to(&gateway).await;
        made.push((key, id_of(&answer)));
    }
    let before = first.attempts() + second.attempts();
    let mut served = 0;
    for (maker, id) in &made {
        for key in [KEY, OTHER_KEY] {
            for reference in references(id) {
                let answer = TestRequest::new(PATH, reference.clone()).with_key(key).send_to(&gateway).await;
                let expected = if key == *maker { 200 } else { 404 };
                assert_eq!(answer.status, expected, "{reference}: {answer:?}");
                served += u64::from(expected == 200);
            }
        }
    }
    assert_eq!((first.attempts() + second.attempts()) as u64, before as u64 + served);
    // An unknown one gets the same answer as another key's.
    let unknown = asked(&gateway, &references("resp_none")[0]).await;
    let others = asked(&gateway, &references(&made[1].1)[0]).await;
    let text = |answer: &Response, id: &str| answer.text().replace(id, "ID");
    assert_eq!(text(&unknown, "resp_none"), text(&others, &made[1].1));
    assert_eq!(unknown.json()["error"]["code"], "previous_response_not_found");
}

#[tokio::test]
async fn what_was_not_stored_cannot_be_referred_to_by_its_id() {
    let ([_first, _second], gateway) = two_providers("").await;
    let id = id_of(&asked(&gateway, &body(",\"store\":false")).await);
    let statuses: Vec<u16> = {
        let mut all = Vec::new();
        for reference in references(&id) {
            all.push(asked(&gateway, &reference).await.status);
        }
        all
    };
    assert_eq!(statuses, [404, 404, 404, 200], "what is encrypted is in the client's hands");
}

#[tokio::test]
async fn with_one_account_what_is_encrypted_may_be_from_anywhere() {
    let provider = ScriptedProvider::start("eu").await;
    let gateway = gateway(&provider, |config| config).await;
    provider.answers(answering("a"));
    let statuses = async |gateway: &TestGateway| {
        let answer = asked(gateway, &references("resp_elsewhere")[3]).await;
        answer.status
    };
    assert_eq!(statuses(&gateway).await, 200);
    let ([_first, _second], two) = two_providers("").await;
    assert_eq!(statuses(&two).await, 404);
}
