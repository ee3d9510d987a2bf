//! Limits of a key and of a deployment: exactly the allowed number of requests is served, all others are
//! refused with a time to retry. The sliding window is tested in `domain/limit.rs`; these tests cover the
//! HTTP layer.

use crate::support::client::Response;
use crate::support::gateway::{ALLOW_ALL, KEY, OTHER_KEY, provider_table};
use crate::support::{
    ChatAnswer, Client, Gate, Script, ScriptedProvider, TestClients, TestGateway, TestRequest, Usage, chat,
};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::task::JoinSet;

/// Clients that send at the same time.
const CONNECTIONS: usize = 32;
/// The length of every rate limit's window.
const MINUTE: Duration = Duration::from_secs(60);

/// A gateway whose policy has these limits, for two keys.
async fn limited(limits: &str) -> (TestGateway, ScriptedProvider) {
    let provider = ScriptedProvider::start("p").await;
    let config = format!(
        r#"{}
        [models.small]
        deployments = [{{ provider = "p" }}]
        [policies.limited]
        models = ["*"]
        {limits}
        [[keys]]
        name   = "one"
        policy = "limited"
        secret = "env:TEST_KEY"
        [[keys]]
        name   = "other"
        policy = "limited"
        secret = "env:OTHER_KEY"
        "#,
        provider_table("p", &provider, "east")
    );
    (TestGateway::start(&config).await, provider)
}

/// Requests of many clients at once, each on a connection of its own; their answers are awaited later.
struct ConcurrentRequests(JoinSet<Response>);

impl ConcurrentRequests {
    fn send(clients: usize, gateway: &TestGateway, request: &TestRequest) -> Self {
        let (addr, mut concurrent) = (gateway.addr, JoinSet::new());
        for _ in 0..clients {
            let request = request.clone();
            concurrent.spawn(async move {
                let mut client = Client::connect(addr).await;
                request.send(&mut client).await;
                client.response().await
            });
        }
        Self(concurrent)
    }

    async fn answers(self) -> Vec<Response> {
        self.0.join_all().await
    }
}

/// Splits answers into those that were served and those that were refused because of a limit.
fn served_and_refused(answers: Vec<Response>) -> (Vec<Response>, Vec<Response>) {
    let (served, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.chat_text().is_ok());
    for answer in &refused {
        assert_eq!(answer.refusal(), (429, "rate_limit_exceeded".into()));
        assert_eq!(answer.json()["error"]["type"], "rate_limit_error");
        assert_eq!(answer.attempts(), 0);
    }
    (served, refused)
}

/// `x-ratelimit-limit-…` and `x-ratelimit-remaining-…` of requests or tokens.
fn limit_and_remaining(answer: &Response, of: &str) -> (u64, u64) {
    (answer.number(&format!("x-ratelimit-limit-{of}")), answer.number(&format!("x-ratelimit-remaining-{of}")))
}

/// `x-ratelimit-reset-…`, which is in whole seconds up to a minute.
fn reset(answer: &Response, of: &str) -> Duration {
    let header = answer.header(&format!("x-ratelimit-reset-{of}")).unwrap_or_else(|| panic!("no reset: {answer:?}"));
    match header {
        "1m0s" => MINUTE,
        seconds => Duration::from_secs(seconds.trim_end_matches('s').parse().unwrap_or_else(|_| panic!("{header}"))),
    }
}

#[tokio::test]
async fn of_many_requests_exactly_as_many_as_a_minute_allows_are_served() {
    let (gateway, provider) = limited("requests_per_minute = 50").await;
    let answers = TestClients::new(CONNECTIONS, &gateway).send_all(400, |_| TestRequest::chat("small")).await;
    let (served, refused) = served_and_refused(answers);
    assert_eq!((served.len(), refused.len(), provider.attempts()), (50, 350, 50));

    let remaining: BTreeSet<_> = served.iter().map(|answer| limit_and_remaining(answer, "requests")).collect();
    assert_eq!(
        remaining,
        (0..50).map(|remaining| (50, remaining)).collect(),
        "each answer reports what was left after it"
    );
    for answer in served.iter().chain(&refused) {
        assert!(reset(answer, "requests") <= MINUTE, "{answer:?}");
        assert_eq!(answer.header("x-ratelimit-limit-tokens"), None, "there is no such limit");
    }
    for answer in &refused {
        assert_eq!(limit_and_remaining(answer, "requests"), (50, 0));
        let wait = answer.retry_after();
        assert!(wait <= MINUTE && wait > MINUTE / 2, "the first of the minute comes back after {wait:?}");
        let reset = reset(answer, "requests");
        assert!(reset >= wait && reset < wait + Duration::from_secs(1), "{reset:?} and {wait:?} speak of one moment");
    }
    assert_eq!(gateway.metric(r#"tierway_limit_refusals_total{limit="requests_per_minute",policy="limited"}"#), 350.0);
}

#[tokio::test]
async fn each_key_has_its_own_limit() {
    let (gateway, _provider) = limited("requests_per_minute = 3\ntokens_per_minute = 1000\nmax_concurrent = 3").await;
    let (served, refused) = served_and_refused(
        ConcurrentRequests::send(CONNECTIONS, &gateway, &TestRequest::chat("small").with_member(r#""max_tokens":1"#))
            .answers()
            .await,
    );
    assert_eq!((served.len(), refused.len()), (3, CONNECTIONS - 3));
    let answer =
        TestRequest::chat("small").with_member(r#""max_tokens":1"#).with_key(OTHER_KEY).send_to(&gateway).await;
    assert_eq!(answer.chat_text().as_deref(), Ok("Hello"));
    assert_eq!(limit_and_remaining(&answer, "requests"), (3, 2));
    assert_eq!(limit_and_remaining(&answer, "tokens").0, 1000);
}

/// A chat that reserves exactly `tokens` tokens at admission: a quarter of its bytes, and its ceiling.
fn request_taking(tokens: u64, request: TestRequest) -> TestRequest {
    // Padding keeps the length independent of the number.
    let with = |ceiling| request.clone().with_member(&format!(r#""max_tokens":{ceiling:>6}"#));
    let input = with(1).body().len().div_ceil(4) as u64;
    with(tokens - input)
}

/// The provider is still working: a disconnect does not release its tokens.
#[tokio::test]
async fn tokens_stay_reserved_when_the_client_disconnects_during_an_attempt() {
    let (gateway, provider) = limited("tokens_per_minute = 1000").await;
    let gate = Gate::new();
    provider.answers(chat(ChatAnswer::default()).wait_before_headers(&gate));
    let mut client = gateway.connect().await;
    request_taking(600, TestRequest::chat("small")).send(&mut client).await;
    gate.reached(1).await;
    drop(client);
    gateway.receipts(1).await;
    gate.open();
    let answer = request_taking(600, TestRequest::chat("small")).send_to(&gateway).await;
    assert_eq!(answer.refusal(), (429, "rate_limit_exceeded".into()));
    assert_eq!(limit_and_remaining(&answer, "tokens"), (1000, 400));
}

#[tokio::test]
async fn tokens_are_reserved_before_a_request_is_sent() {
    let (gateway, provider) = limited("tokens_per_minute = 1000").await;
    let gate = Gate::new();
    provider.answers(chat(ChatAnswer::default()).wait_before_headers(&gate));
    let concurrent = ConcurrentRequests::send(CONNECTIONS, &gateway, &request_taking(100, TestRequest::chat("small")));
    // Ten requests reserve all tokens; what they return when they end comes too late for the others.
    gate.reached(10).await;
    gateway.receipts(CONNECTIONS as u64 - 10).await;
    gate.open();
    let (served, refused) = served_and_refused(concurrent.answers().await);
    assert_eq!((served.len(), refused.len(), provider.attempts()), (10, CONNECTIONS - 10, 10));
    let remaining: BTreeSet<_> = served.iter().map(|answer| limit_and_remaining(answer, "tokens")).collect();
    assert_eq!(remaining, (0..10).map(|number| (1000, 100 * number)).collect());
    for answer in &refused {
        assert_eq!(limit_and_remaining(answer, "tokens"), (1000, 0));
        let wait = answer.retry_after();
        assert!(wait <= MINUTE && wait > MINUTE / 2, "{wait:?}");
    }
    assert_eq!(gateway.metric(r#"tierway_limit_refusals_total{limit="tokens_per_minute",policy="limited"}"#), 22.0);
}

/// An answer that reports `tokens` tokens in total.
fn answer_using(tokens: u64) -> Script {
    chat(ChatAnswer {
        usage: Usage { prompt: 20, completion: tokens - 20, ..Usage::default() },
        ..ChatAnswer::default()
    })
}

#[tokio::test]
async fn reserved_tokens_are_corrected_to_used_tokens() {
    for stream in [false, true] {
        let (gateway, provider) = limited("tokens_per_minute = 1000").await;
        let request = |tokens| {
            request_taking(tokens, if stream { TestRequest::stream("small") } else { TestRequest::chat("small") })
        };
        // Of 500 reserved, 30 were used: 470 are returned.
        provider.answers(answer_using(30));
        let answer = request(500).send_to(&gateway).await;
        assert_eq!(limit_and_remaining(&answer, "tokens"), (1000, 500));
        gateway.receipts(1).await;
        // 100 were reserved and 900 used: 800 become debt.
        provider.answers(answer_using(900));
        let answer = request(100).send_to(&gateway).await;
        assert_eq!(limit_and_remaining(&answer, "tokens"), (1000, 870));
        gateway.receipts(2).await;
        // 70 are left: 60 fit, 100 do not, and nothing is reserved for those.
        let (_, refused) = served_and_refused(vec![request(100).send_to(&gateway).await]);
        assert_eq!(limit_and_remaining(&refused[0], "tokens"), (1000, 70));
        refused[0].retry_after();
        provider.answers(answer_using(60));
        let answer = request(60).send_to(&gateway).await;
        assert_eq!(limit_and_remaining(&answer, "tokens"), (1000, 10));
    }
}

#[tokio::test]
async fn a_request_larger_than_the_limit_is_refused_without_a_retry() {
    let (gateway, provider) = limited("tokens_per_minute = 1000").await;
    let answer = request_taking(1001, TestRequest::chat("small")).send_to(&gateway).await;
    assert_eq!(answer.refusal(), (429, "rate_limit_exceeded".into()));
    answer.assert_no_retry();
    assert_eq!(request_taking(1000, TestRequest::stream("small")).send_to(&gateway).await.status, 200);
    assert_eq!(provider.attempts(), 1);
}

#[tokio::test]
async fn concurrent_requests_are_limited_exactly() {
    let (gateway, provider) = limited("max_concurrent = 8").await;
    let gate = Gate::new();
    provider.answers(chat(ChatAnswer { frames: 3, ..ChatAnswer::default() }).wait_after_frame(2, &gate));
    // Streams hold their slot until their body ends.
    let concurrent = ConcurrentRequests::send(CONNECTIONS, &gateway, &TestRequest::stream("small"));
    gate.reached(8).await;
    gateway.receipts(CONNECTIONS as u64 - 8).await;
    provider.answers(chat(ChatAnswer::default()));
    assert_eq!(
        TestRequest::chat("small").with_key(OTHER_KEY).send_to(&gateway).await.chat_text().as_deref(),
        Ok("Hello")
    );
    gate.open();
    let (served, refused) = served_and_refused(concurrent.answers().await);
    assert_eq!((served.len(), refused.len()), (8, CONNECTIONS - 8));
    refused.iter().for_each(|answer| assert!(answer.retry_after() <= Duration::from_secs(2)));
    gateway.receipts(CONNECTIONS as u64 + 1).await;
    assert_eq!(
        TestRequest::stream("small").with_key(KEY).send_to(&gateway).await.chat_text().as_deref(),
        Ok("Hello"),
        "slots are released"
    );
}

/// One model at two providers, each with a limit of two concurrent requests.
async fn two_small_deployments() -> (TestGateway, ScriptedProvider, ScriptedProvider) {
    let (first, second) = (ScriptedProvider::start("first").await, ScriptedProvider::start("second").await);
    let config = format!(
        "{}{}[models.small]\ndeployments = [
           {{ provider = \"first\", max_concurrent = 2 }}, {{ provider = \"second\", max_concurrent = 2 }},
         ]\n{ALLOW_ALL}[routing]\nbalance = \"ordered\"\n",
        provider_table("first", &first, "east"),
        provider_table("second", &second, "west"),
    );
    (TestGateway::start(&config).await, first, second)
}

#[tokio::test]
async fn a_full_deployment_is_skipped_and_a_request_without_capacity_is_refused() {
    let (gateway, first, second) = two_small_deployments().await;
    let gate = Gate::new();
    for provider in [&first, &second] {
        provider.answers(chat(ChatAnswer::default()).wait_before_headers(&gate));
    }
    let concurrent = ConcurrentRequests::send(4, &gateway, &TestRequest::chat("small"));
    gate.reached(4).await;
    assert_eq!((first.attempts(), second.attempts()), (2, 2));
    for request in [TestRequest::chat("small"), TestRequest::stream("small")] {
        let answer = request.send_to(&gateway).await;
        assert_eq!(answer.refusal(), (429, "slow_down".into()));
        assert_eq!(answer.attempts(), 0);
        let wait = answer.retry_after();
        assert!((700..=1300).contains(&wait.as_millis()), "a second, give or take 30 %, not {wait:?}");
    }
    gate.open();
    for answer in concurrent.answers().await {
        assert_eq!((answer.chat_text().as_deref(), answer.attempts()), (Ok("Hello"), 1));
    }
    gateway.receipts(6).await;
    assert_eq!(TestRequest::chat("small").send_to(&gateway).await.deployment(), "first/small", "slots are released");
}

/// Requests that are refused whenever they are sent, with what is read of each.
fn refusals() -> Vec<(TestRequest, u16)> {
    vec![
        (TestRequest::new("/v1/chat/completions", "{"), 400),
        (TestRequest::new("/v1/chat/completions", r#"{"model": 1}"#), 400),
        (TestRequest::chat("small").header("x-tierway-deadline-ms", "soon"), 400),
        (TestRequest::new("/v1/embeddings", r#"{"model":"small","input":"x"}"#), 400),
        (TestRequest::chat("other"), 403),
        (TestRequest::chat("unknown"), 404),
        (TestRequest::new("/v1/no/such/path", "{}"), 404),
        (TestRequest::new("/v1/chat/completions", " ".repeat(64 * 1024)), 413),
        (TestRequest::chat("small").header("content-encoding", "lzma"), 415),
    ]
}

/// A gateway with a limit of requests, which refuses each of [`refusals`].
async fn refusing(requests: usize) -> (TestGateway, ScriptedProvider) {
    let provider = ScriptedProvider::start("p").await;
    let config = format!(
        r#"{}
        [server]
        max_body = "32KiB"
        [models.small]
        endpoints = ["chat"]
        deployments = [{{ provider = "p" }}]
        [models.other]
        deployments = [{{ provider = "p" }}]
        [policies.limited]
        models = ["small"]
        requests_per_minute = {requests}
        [[keys]]
        name   = "one"
        policy = "limited"
        secret = "env:TEST_KEY"
        [[keys]]
        name   = "other"
        policy = "limited"
        secret = "env:OTHER_KEY"
        "#,
        provider_table("p", &provider, "east")
    );
    (TestGateway::start(&config).await, provider)
}

#[tokio::test]
async fn as_many_requests_are_refused_as_a_minute_allows_and_then_none_is_read() {
    let (gateway, provider) = refusing(9).await;
    for (request, status) in refusals() {
        assert_eq!(request.send_to(&gateway).await.status, status, "{}", request.body());
    }
    // Neither the body nor the end of it is sent, and the answer comes all the same.
    let mut client = gateway.connect().await;
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\nauthorization: Bearer {KEY}\r\ncontent-length: 90\r\n\r\n"
    );
    client.send(head).await;
    let answer = client.response().await;
    assert_eq!(answer.refusal(), (429, "rate_limit_exceeded".into()));
    assert!(answer.text().contains("9 refused requests a minute"), "{}", answer.text());
    let wait = answer.retry_after();
    assert!(wait <= MINUTE && wait > MINUTE / 2, "{wait:?}");
    assert_eq!(gateway.get("/v1/models").await.status, 429);
    assert_eq!(provider.attempts(), 0);
    assert_eq!(gateway.metric(r#"tierway_limit_refusals_total{limit="refused_per_minute",policy="limited"}"#), 1.0);
    let other = TestRequest::chat("small").with_key(OTHER_KEY).send_to(&gateway).await;
    assert_eq!((other.chat_text().as_deref(), limit_and_remaining(&other, "requests")), (Ok("Hello"), (9, 8)));
}

#[tokio::test]
async fn a_model_that_is_asked_for_by_its_path_and_not_found_is_a_refusal_too() {
    let (gateway, _provider) = refusing(2).await;
    for status in [404, 404, 429] {
        assert_eq!(gateway.get("/v1/models/unknown").await.status, status);
    }
    assert_eq!(TestRequest::chat("small").send_to(&gateway).await.status, 429);
}

#[tokio::test]
async fn neither_a_limit_nor_a_providers_own_refusal_counts_among_the_refused() {
    let (gateway, provider) = refusing(3).await;
    provider.answers(Script::status(400).body("no"));
    for status in [400, 400, 400, 429, 429, 429, 429] {
        assert_eq!(TestRequest::chat("small").send_to(&gateway).await.status, status);
    }
    let answer = TestRequest::chat("small").send_to(&gateway).await;
    assert!(answer.text().contains("This key's limit is 3 requests a minute"), "{}", answer.text());
    assert_eq!(TestRequest::chat("unknown").send_to(&gateway).await.status, 404, "nothing was refused so far");
}

#[tokio::test]
async fn at_the_same_time_no_more_are_refused_than_a_minute_allows() {
    let (gateway, _provider) = refusing(10).await;
    let answers = ConcurrentRequests::send(CONNECTIONS, &gateway, &TestRequest::chat("unknown")).answers().await;
    let not_found = answers.iter().filter(|answer| answer.status == 404).count();
    assert_eq!((not_found, answers.iter().filter(|answer| answer.status == 429).count()), (10, CONNECTIONS - 10));
}
