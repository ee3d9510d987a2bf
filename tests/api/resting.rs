//! Resting: throttled deployments and refused credentials rest exactly as long as they should, and neither
//! counts as a fault.

use crate::support::gateway::{ALLOW_ALL, CREDENTIAL, provider_table};
use crate::support::{Fault, Script, ScriptedProvider, TestClients, TestGateway, TestRequest, chat, soon};
use serde_json::json;
use std::time::{Duration, Instant};

/// One model at one provider, with these settings of `[routing]`.
async fn one_region(routing: &str) -> (TestGateway, ScriptedProvider) {
    let only = ScriptedProvider::start("only").await;
    let config = format!(
        "{}[models.small]\ndeployments = [{{ provider = \"only\" }}]\n{ALLOW_ALL}[routing]\n{routing}",
        provider_table("only", &only, "east")
    );
    (TestGateway::start(&config).await, only)
}

/// Too many requests, with these headers.
fn throttled(status: u16, headers: &[(&str, &str)]) -> Script {
    let refused = Script::status(status).json(&json!({
        "error": {"message": "Slow down", "type": "requests", "param": null, "code": "rate_limit_exceeded"},
    }));
    headers.iter().fold(refused, |script, (name, value)| script.header(name, value))
}

/// After three throttling answers in a row the deployment rests for about `rest`, and clients see when to retry.
async fn check(status: u16, headers: &[(&str, &str)], rest: Duration) {
    let (gateway, only) = one_region("retry_after_wait_max = \"0s\"\nmax_attempts = 1").await;
    for _ in 0..3 {
        only.answers_once(throttled(status, headers));
    }
    for _ in 0..3 {
        let answer = TestRequest::chat("small").send_to(&gateway).await;
        assert_eq!(answer.refusal(), (503, "no_deployment_available".into()), "{status} {headers:?}");
        assert_eq!(answer.attempts(), 1, "{status} {headers:?}: there is no other deployment");
        assert_eq!(answer.header("x-should-retry"), Some("true"));
    }
    let begun = Instant::now();
    assert_eq!(gateway.transitions("only/small", r#"reason="throttled",to="resting""#), 1.0);

    let (least, most) = (rest.mul_f64(0.8), rest.mul_f64(1.2));
    for answer in TestClients::new(8, &gateway).send_all(24, |_| TestRequest::chat("small")).await {
        let elapsed = begun.elapsed();
        if answer.status == 200 {
            assert!(elapsed >= least, "{status} {headers:?}: asked again after {elapsed:?}");
            continue;
        }
        assert_eq!(answer.refusal(), (503, "no_deployment_available".into()), "{status} {headers:?}");
        let wait = answer.retry_after();
        assert!(wait <= most, "{status} {headers:?}: a retry after {wait:?} for a rest of {rest:?}");
        assert!(wait + elapsed >= least, "{status} {headers:?}: a retry after {wait:?} for a rest of {rest:?}");
    }
    let arrivals: Vec<_> = only.journal().requests().map(|request| request.arrived).collect();
    assert!(
        arrivals.iter().skip(3).all(|arrived| *arrived - arrivals[0] >= least),
        "{status} {headers:?}: it did not rest"
    );
}

#[tokio::test]
async fn a_throttled_deployment_rests_as_long_as_its_provider_asks() {
    check(429, &[("retry-after", "7")], Duration::from_secs(7)).await;
    check(503, &[("retry-after", "7")], Duration::from_secs(7)).await;
    check(429, &[("retry-after-ms", "6500")], Duration::from_millis(6500)).await;
    check(
        429,
        &[("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", "6m0s")],
        Duration::from_secs(300),
    )
    .await;
    check(429, &[("retry-after", "86400")], Duration::from_secs(300)).await;
    let date = httpdate_in(Duration::from_secs(40));
    check(429, &[("retry-after", &date)], Duration::from_secs(40)).await;
}

#[tokio::test]
async fn a_deployment_throttled_without_a_time_is_asked_again_where_nothing_else_is_left() {
    let (gateway, only) = one_region("max_attempts = 1").await;
    for _ in 0..3 {
        only.answers_once(throttled(429, &[]));
    }
    for _ in 0..3 {
        let answer = TestRequest::chat("small").send_to(&gateway).await;
        assert_eq!(answer.refusal(), (503, "no_deployment_available".into()));
    }
    assert_eq!(gateway.transitions("only/small", r#"reason="throttled",to="resting""#), 1.0);
    let answer = TestRequest::chat("small").send_to(&gateway).await;
    assert_eq!(answer.chat_text().as_deref(), Ok("Hello"), "a trial finds it well");
    assert_eq!(gateway.transitions("only/small", r#"reason="recovered",to="closed""#), 1.0);
}

/// The HTTP date this long from now.
fn httpdate_in(wait: Duration) -> String {
    httpdate::fmt_http_date(std::time::SystemTime::now() + wait)
}

#[tokio::test]
async fn a_rest_is_no_fault_and_others_serve_meanwhile() {
    let (first, second) = (ScriptedProvider::start("first").await, ScriptedProvider::start("second").await);
    let config = format!(
        "{}{}[models.small]\ndeployments = [{{ provider = \"first\" }}, {{ provider = \"second\" }}]\n{ALLOW_ALL}
         [routing]\nbalance = \"ordered\"\n",
        provider_table("first", &first, "east"),
        provider_table("second", &second, "west"),
    );
    let gateway = TestGateway::start(&config).await;
    first.answers_once(throttled(429, &[("retry-after-ms", "1500")]));
    let answer = TestRequest::chat("small").send_to(&gateway).await;
    assert_eq!(
        (answer.chat_text().as_deref(), answer.deployment(), answer.attempts()),
        (Ok("Hello"), "second/small", 2)
    );
    let back = async {
        loop {
            let answer = TestRequest::chat("small").send_to(&gateway).await;
            assert_eq!((answer.chat_text().as_deref(), answer.attempts()), (Ok("Hello"), 1));
            if answer.deployment() == "first/small" {
                return;
            }
        }
    };
    soon("the first to be asked again", back).await;
    let arrivals: Vec<_> = first.journal().requests().map(|request| request.arrived).collect();
    let rested = arrivals[1] - arrivals[0];
    println!("asked to rest for 1.5 s, asked again after {rested:.2?}");
    assert!(rested >= Duration::from_millis(1500), "asked again after {rested:?}");
    assert_eq!(gateway.sum("tierway_breaker_transitions_total"), 0, "one throttle is asked last and no rest");
}

#[tokio::test]
async fn a_request_waits_for_a_short_rest_where_that_is_allowed() {
    let (gateway, only) = one_region("retry_after_wait_max = \"2s\"").await;
    only.answers_once(throttled(429, &[("retry-after-ms", "600")]));
    let begun = Instant::now();
    let answer = TestRequest::chat("small").send_to(&gateway).await;
    assert_eq!((answer.chat_text().as_deref(), answer.attempts()), (Ok("Hello"), 2));
    let arrivals: Vec<_> = only.journal().requests().map(|request| request.arrived).collect();
    let waited = arrivals[1] - arrivals[0];
    assert!(waited >= Duration::from_millis(600), "the second attempt came after {waited:?}");
    assert!(begun.elapsed() >= Duration::from_millis(600));
}

#[tokio::test]
async fn a_request_does_not_wait_for_a_long_rest() {
    let (gateway, only) = one_region("retry_after_wait_max = \"2s\"").await;
    only.answers_once(throttled(429, &[("retry-after", "30")]));
    let begun = Instant::now();
    let answer = TestRequest::chat("small").send_to(&gateway).await;
    assert_eq!(answer.refusal(), (503, "no_deployment_available".into()));
    assert_eq!(answer.header("x-should-retry"), Some("true"));
    assert!(answer.retry_after() > Duration::from_secs(25));
    assert!(begun.elapsed() < Duration::from_secs(20), "waiting could not have helped");
    assert_eq!(only.attempts(), 1);
    // One throttle rests nothing: the next request is served.
    assert_eq!(TestRequest::chat("small").send_to(&gateway).await.chat_text().as_deref(), Ok("Hello"));
}

#[tokio::test]
async fn a_deadline_is_not_waited_past() {
    let (gateway, only) = one_region("retry_after_wait_max = \"10s\"").await;
    only.answers_once(throttled(429, &[("retry-after", "5")]));
    let begun = Instant::now();
    let answer = TestRequest::chat("small").header("x-tierway-deadline-ms", "1000").send_to(&gateway).await;
    assert_eq!(answer.refusal(), (503, "no_deployment_available".into()));
    assert!(begun.elapsed() < Duration::from_secs(1), "waiting could not have helped");
    assert_eq!(only.attempts(), 1);
}

#[tokio::test]
async fn a_refused_credential_rests_without_other_credentials() {
    let provider = ScriptedProvider::start("p").await;
    let config = provider_table("p", &provider, "east")
        .replace("\"env:CREDENTIAL\"", "[\"env:CREDENTIAL\", \"env:OTHER_KEY\"]")
        + "[models.small]\ndeployments = [{ provider = \"p\" }]\n"
        + ALLOW_ALL;
    let gateway = TestGateway::start(&config).await;
    let refused = Fault::Status401.script().expect("a script");
    let welcome = chat(Default::default());
    let revoked = format!("Bearer {}", CREDENTIAL);
    provider.answers(Script::by(move |request| match request.header("authorization") == Some(&revoked) {
        true => refused.clone(),
        false => welcome.clone(),
    }));
    let mut clients = TestClients::new(4, &gateway);
    let statuses: Vec<_> =
        clients.send_all(40, |_| TestRequest::chat("small")).await.iter().map(|answer| answer.status).collect();
    assert!(statuses.iter().all(|status| *status == 200), "the other one is used in the same request: {statuses:?}");
    let refusals = gateway.sum(r#"tierway_attempts_total{deployment="p/small",reason="credential_refused"}"#);
    println!("{refusals} attempts met the revoked credential");
    assert!((1..=5).contains(&refusals), "as many as were under way when it was found out, not {refusals}");
    let answers = clients.send_all(40, |_| TestRequest::stream("small")).await;
    assert!(answers.iter().all(|answer| answer.chat_text().as_deref() == Ok("Hello")), "the other credential goes on");
    assert_eq!(gateway.sum("tierway_breaker_transitions_total"), 0, "the deployment is well");
}

#[tokio::test]
async fn another_credential_does_not_inherit_the_rest_of_the_refused_one() {
    let provider = ScriptedProvider::start("p").await;
    let model = "[models.small]\ndeployments = [{ provider = \"p\" }]\n";
    let revoked = provider_table("p", &provider, "east") + model + ALLOW_ALL;
    let gateway = TestGateway::start(&revoked).await;
    provider.break_with(Fault::Status401).await;
    for _ in 0..2 {
        let answer = TestRequest::chat("small").send_to(&gateway).await;
        assert_eq!(answer.refusal(), (502, "upstream_error".into()));
    }
    provider.heal().await;
    gateway.reload(&revoked.replace("\"env:CREDENTIAL\"", "\"env:OTHER_KEY\""));
    let answer = TestRequest::chat("small").send_to(&gateway).await;
    assert_eq!(answer.chat_text().as_deref(), Ok("Hello"));
}

#[tokio::test]
async fn errors_of_the_gateways_own_setup_are_never_the_clients_fault() {
    let (gateway, only) = one_region("").await;
    only.break_with(Fault::Status401).await;
    for _ in 0..5 {
        let answer = TestRequest::chat("small").send_to(&gateway).await;
        assert_eq!(answer.refusal(), (502, "upstream_error".into()));
    }
    // What the only provider says of a model it does not know may be the request's fault: the client reads it.
    only.break_with(Fault::Status404).await;
    let answer = TestRequest::chat("small").send_to(&gateway).await;
    assert_eq!(answer.status, 404);
}
