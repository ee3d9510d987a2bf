//! Hosts that do not have an endpoint that is configured for them: found out, remembered for that endpoint alone, passed
//! over, and said in the client's dialect; and that no key can make others believe it.
//!
//! Start reading at [`a_missing_endpoint_is_passed_over_and_nothing_else_is`].

use crate::support::gateway::{ADMIN_TOKEN, KEY, OTHER_KEY, provider_table};
use crate::support::journal::Request;
use crate::support::{Response, Script, ScriptedProvider, TestGateway, TestRequest, soon};
use serde_json::{Value, json};

/// What hosts say whose router knows no such path.
const MISSING: [(u16, &str, &str); 6] = [
    (404, "application/json", r#"{"detail":"Not Found"}"#),
    (404, "text/plain", "404 page not found"),
    (
        404,
        "application/json",
        r#"{"error":{"message":"Invalid URL (POST /v1/x)","type":"invalid_request_error","param":null,"code":null}}"#,
    ),
    (404, "text/html", "<html>\r\n<head><title>404 Not Found</title></head>\r\n<body></body></html>"),
    (404, "text/plain", ""),
    (405, "application/json", r#"{"detail":"Method Not Allowed"}"#),
];

fn missing((status, content_type, body): (u16, &str, &'static str)) -> Script {
    Script::status(status).header("content-type", content_type).body(body)
}

/// Every endpoint with a body that it is asked with, what of its dialect's error holds the message, and an answer.
fn endpoints() -> [(&'static str, &'static str, &'static str); 4] {
    [
        (
            "/v1/chat/completions",
            r#"{"model":"m","messages":[]}"#,
            r#"{"choices":[{"index":0,"message":{"content":"x"},"finish_reason":"stop"}]}"#,
        ),
        ("/v1/embeddings", r#"{"model":"m","input":"x"}"#, r#"{"data":[{"index":0,"embedding":[1]}]}"#),
        (
            "/v1/responses",
            r#"{"model":"m","input":"x","store":false}"#,
            r#"{"id":"r","object":"response","status":"completed","output":[{"type":"message","content":[{"type":"output_text","text":"x"}]}]}"#,
        ),
        (
            "/v1/responses/input_tokens",
            r#"{"model":"m","input":"x"}"#,
            r#"{"object":"response.input_tokens","input_tokens":1}"#,
        ),
    ]
}

fn answer_at(path: &str) -> Script {
    let (_, _, answer) = endpoints().into_iter().find(|(of, ..)| *of == path).expect("the path is configured");
    Script::status(200).header("content-type", "application/json").body(answer)
}

/// Has all endpoints but the one at `path`, of which it says `what`.
fn lacking(path: &'static str, what: (u16, &'static str, &'static str)) -> Script {
    Script::by(move |request: &Request| if request.path == path { missing(what) } else { answer_at(&request.path) })
}

fn having_all() -> Script {
    Script::by(|request: &Request| answer_at(&request.path))
}

const KEYS: &str = "[policies.all]\ntiers = [\"*\"]\nmodels = [\"*\"]\n\
    [[keys]]\nname = \"app\"\npolicy = \"all\"\nsecret = \"env:TEST_KEY\"\n\
    [[keys]]\nname = \"other\"\npolicy = \"all\"\nsecret = \"env:OTHER_KEY\"\n";
const SERVED: &str = "endpoints = [\"chat\", \"embeddings\", \"responses\"]\n";

/// `m` at these providers in this order, and `spare` at the last one, which no plan for `m` has.
fn config(providers: &[&ScriptedProvider]) -> String {
    let names: Vec<String> = (0..providers.len()).map(|number| format!("r{number}")).collect();
    let tables: String =
        names.iter().zip(providers).map(|(name, provider)| provider_table(name, provider, name)).collect();
    let all: Vec<String> = names.iter().map(|name| format!("{{ provider = \"{name}\" }}")).collect();
    format!(
        "[routing]\nbalance = \"ordered\"\n{tables}[models.m]\n{SERVED}deployments = [{}]\n[models.spare]\n{SERVED}\
         deployments = [{}]\n[tiers.default]\nmodels = [\"m\"]\n{KEYS}",
        all.join(", "),
        all[all.len() - 1]
    )
}

/// The endpoints that operators read that `r0` lacks.
async fn missing_at(gateway: &TestGateway) -> Value {
    let mut client = gateway.connect().await;
    client.get("/admin/v1/status", &[("authorization", &format!("Bearer {ADMIN_TOKEN}"))]).await;
    client.response().await.json()["deployments"][0]["missing_endpoints"].clone()
}

async fn ask(gateway: &TestGateway, path: &'static str, key: &str) -> Response {
    let (_, body, _) = endpoints().into_iter().find(|(of, ..)| *of == path).expect("the path is configured");
    TestRequest::new(path, body).with_key(key).send_to(gateway).await
}

#[tokio::test]
async fn a_missing_endpoint_is_passed_over_and_nothing_else_is() {
    for what in MISSING {
        for (path, ..) in endpoints() {
            let [first, second] = [ScriptedProvider::start("r0").await, ScriptedProvider::start("r1").await];
            first.answers(lacking(path, what));
            second.answers(having_all());
            let gateway = TestGateway::start(&config(&[&first, &second])).await;
            let attempts = |answer: &Response| answer.header("x-tierway-attempts").map(str::to_owned);
            for expected in ["2", "2", "1", "1"] {
                let answer = ask(&gateway, path, KEY).await;
                assert_eq!((answer.status, attempts(&answer).as_deref()), (200, Some(expected)), "{path} {what:?}");
            }
            for (other, ..) in endpoints().into_iter().filter(|(other, ..)| *other != path) {
                let answer = ask(&gateway, other, KEY).await;
                assert_eq!(answer.header("x-tierway-deployment"), Some("r0/m"), "{other} beside {path} {what:?}");
            }
            // That says nothing to another team, which finds out by itself.
            let answer = ask(&gateway, path, OTHER_KEY).await;
            assert_eq!((answer.status, attempts(&answer).as_deref()), (200, Some("2")), "{path} {what:?}");
            assert_eq!(gateway.sum("tierway_breaker_transitions_total"), 0, "{path} {what:?}");
            let counted = "tierway_attempts_total{deployment=\"r0/m\",reason=\"upstream_no_endpoint\"}";
            assert_eq!(gateway.metric(counted), 3.0, "{path} {what:?}");
        }
    }
}

#[tokio::test]
async fn where_no_deployment_has_it_the_error_names_models_that_do() {
    for deployments in [1, 2] {
        let [first, second, spare] = [
            ScriptedProvider::start("r0").await,
            ScriptedProvider::start("r1").await,
            ScriptedProvider::start("r2").await,
        ];
        let lacks = [&first, &second];
        let gateway = {
            let mut text = config(&lacks[..deployments]);
            text = text.replace("[tiers.default]", &format!("{}[tiers.default]", provider_table("r2", &spare, "r2")));
            let of_spare = text.rfind("deployments = [").expect("the spare has one");
            let last = format!("r{}", deployments - 1);
            text.replace_range(of_spare.., &text[of_spare..].replacen(&last, "r2", 1));
            TestGateway::start(&text).await
        };
        spare.answers(having_all());
        for what in MISSING {
            lacks.iter().for_each(|provider| provider.answers(lacking("/v1/responses", what)));
            for turn in 0..4 {
                let answer = ask(&gateway, "/v1/responses", KEY).await;
                let error = &answer.json()["error"];
                assert_eq!((answer.status, &error["param"]), (400, &json!("model")), "{turn} {what:?}: {answer:?}");
                let message = error["message"].as_str().expect("a message");
                assert!(
                    message.contains("'m' does not serve OpenAI's Responses") && message.contains("'spare'"),
                    "{message}"
                );
                assert_eq!(answer.header("x-should-retry"), Some("false"));
            }
            // It is the host's doing: the key is not counted as one that asks for nonsense.
            assert_eq!(ask(&gateway, "/v1/chat/completions", KEY).await.status, 200, "{what:?}");
        }
    }
}

#[tokio::test]
async fn the_refusal_is_in_anthropics_words_too() {
    let provider = ScriptedProvider::start("r0").await;
    provider.answers(missing(MISSING[0]));
    let table = provider_table("r0", &provider, "r0").replace("\"openai\"", "\"anthropic\"");
    let config = format!(
        "{table}[models.m]\ndeployments = [{{ provider = \"r0\" }}]\n[tiers.default]\nmodels = [\"m\"]\n{KEYS}"
    );
    let gateway = TestGateway::start(&config).await;
    for path in ["/v1/messages", "/v1/messages/count_tokens"] {
        let body = r#"{"model":"m","max_tokens":5,"messages":[]}"#;
        let answer = TestRequest::new(path, body).send_to(&gateway).await;
        let error = answer.json();
        assert_eq!(
            (answer.status, &error["type"], &error["error"]["type"]),
            (400, &json!("error"), &json!("invalid_request_error"))
        );
        let message = error["error"]["message"].as_str().expect("a message");
        assert!(message.contains("does not serve") && message.contains("No other model"), "{message}");
    }
}

#[tokio::test]
async fn it_is_asked_again_and_a_reload_forgets() {
    let provider = ScriptedProvider::start("r0").await;
    let text = config(&[&provider]);
    let gateway = TestGateway::start(&text).await;
    provider.answers(lacking("/v1/responses", MISSING[0]));
    for _ in 0..3 {
        assert_eq!(ask(&gateway, "/v1/responses", KEY).await.status, 400);
    }
    let missing = async || missing_at(&gateway).await;
    assert_eq!(missing().await, json!(["responses"]));
    // Nothing else serves: once in a while it is not refused unheard, and an answer ends it.
    provider.answers(having_all());
    let heard = async { while ask(&gateway, "/v1/responses", KEY).await.status != 200 {} };
    soon("the endpoint to be asked again", heard).await;
    assert_eq!(missing().await, json!([]));
    let other = ScriptedProvider::start("r1").await;
    other.answers(having_all());
    let text = config(&[&provider, &other]);
    gateway.reload(&text);
    provider.answers(lacking("/v1/responses", MISSING[5]));
    for _ in 0..3 {
        assert_eq!(ask(&gateway, "/v1/responses", KEY).await.status, 200);
    }
    let asked = |provider: &ScriptedProvider| provider.attempts();
    let before = asked(&provider);
    assert_eq!(ask(&gateway, "/v1/responses", KEY).await.status, 200);
    assert_eq!(asked(&provider), before, "it is passed over");
    gateway.reload(&text.replace("balance = \"ordered\"", "balance = \"ordered\"\nmax_attempts = 2"));
    assert_eq!(ask(&gateway, "/v1/responses", KEY).await.status, 200);
    assert_eq!(asked(&provider), before + 1, "the reload forgot it");
}

/// A host that fetches what a client names may answer with what it got. A key that makes it do so meets that alone, and where
/// the endpoint answers others not even its own requests are kept from it.
#[tokio::test]
async fn no_key_can_make_others_believe_it() {
    for deployments in [1, 2] {
        let providers = [ScriptedProvider::start("r0").await, ScriptedProvider::start("r1").await];
        for provider in &providers {
            provider.answers(Script::by(|request: &Request| {
                let marked = request.json()["metadata"]["poison"] == true;
                if marked { missing(MISSING[0]) } else { answer_at(&request.path) }
            }));
        }
        let used: Vec<&ScriptedProvider> = providers.iter().take(deployments).collect();
        let gateway = TestGateway::start(&config(&used)).await;
        let poison = r#"{"model":"m","input":"x","store":false,"metadata":{"poison":true}}"#;
        let poisoned = async || TestRequest::new("/v1/responses", poison).send_to(&gateway).await;
        // Before anybody was answered: of the others nobody pays.
        for _ in 0..4 {
            assert_eq!(poisoned().await.status, 400);
        }
        for _ in 0..4 {
            let answer = ask(&gateway, "/v1/responses", OTHER_KEY).await;
            assert_eq!((answer.status, answer.attempts()), (200, 1));
        }
        // After an answer: nothing rests at all, whoever asks.
        for _ in 0..20 {
            assert_eq!(poisoned().await.status, 400);
            for key in [KEY, OTHER_KEY] {
                let answer = ask(&gateway, "/v1/responses", key).await;
                assert_eq!((answer.status, answer.attempts()), (200, 1), "{answer:?}");
                assert_eq!(answer.header("x-tierway-deployment"), Some("r0/m"));
            }
        }
    }
}

/// A stored response that a host no longer has is no endpoint that it lacks: the client gets the host's own words.
#[tokio::test]
async fn what_a_request_refers_to_may_be_what_was_not_found() {
    let provider = ScriptedProvider::start("r0").await;
    provider.answers(Script::by(|request: &Request| {
        let refers = request.json()["previous_response_id"].is_string();
        if refers { missing(MISSING[0]) } else { answer_at(&request.path) }
    }));
    let gateway = TestGateway::start(&config(&[&provider])).await;
    assert_eq!(TestRequest::new("/v1/responses", r#"{"model":"m","input":"x"}"#).send_to(&gateway).await.status, 200);
    let gone = r#"{"model":"m","input":"x","previous_response_id":"r"}"#;
    for _ in 0..4 {
        let answer = TestRequest::new("/v1/responses", gone).send_to(&gateway).await;
        assert_eq!((answer.status, answer.text()), (404, MISSING[0].2));
    }
    assert_eq!(missing_at(&gateway).await, json!([]));
}
