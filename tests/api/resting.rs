//! Providers that ask to be left alone: throttled deployments and refused credentials rest for exactly
//! as long as they should, and nobody is at fault.

use crate::support::gateway::{OPEN_DOOR, reached};
use crate::support::{Ask, Crowd, Fault, Script, ScriptedProvider, TestGateway, soon};
use serde_json::json;
use std::time::{Duration, Instant};

/// One model at one provider, with these settings of `[routing]`.
async fn one_region(routing: &str) -> (TestGateway, ScriptedProvider) {
    let only = ScriptedProvider::start("only").await;
    let config = format!(
        "{}[models.small]\ndeployments = [{{ provider = \"only\" }}]\n{OPEN_DOOR}[routing]\n{routing}",
        reached("only", &only, "east")
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

/// A provider throttles like this: it is left alone for about `rest`, and asked again just after it.
async fn check(status: u16, headers: &[(&str, &str)], rest: Duration) {
    let (gateway, only) = one_region("").await;
    only.answers_once(throttled(status, headers));
    let answer = Ask::chat("small").at(&gateway).await;
    let told = Instant::now();
    assert_eq!(answer.refusal(), (502, "upstream_error".into()), "{status} {headers:?}");
    assert_eq!(answer.attempts(), 1, "{status} {headers:?}: nobody else to ask");

    let mut crowd = Crowd::of(8, &gateway);
    let answers = crowd.ask(24, |_| Ask::chat("small")).await;
    let asked_for = told.elapsed();
    assert!(asked_for < rest / 2, "the machine is too slow for this test: {asked_for:?}");
    for answer in answers {
        assert_eq!(answer.refusal(), (503, "no_deployment_available".into()), "{status} {headers:?}");
        let wait = answer.told_to_wait();
        assert!(wait <= rest.mul_f64(1.2), "{status} {headers:?}: told to wait {wait:?} for a rest of {rest:?}");
        assert!(
            wait + asked_for + Duration::from_millis(100) >= rest.mul_f64(0.8),
            "{status} {headers:?}: told {wait:?}"
        );
    }
    assert_eq!(only.attempts(), 1, "{status} {headers:?}: it was not left alone");
    assert_eq!(gateway.transitions("only/small", r#"reason="throttled",to="resting""#), 1.0);
    assert_eq!(gateway.metric(r#"tierway_breaker_state{deployment="only/small",state="resting"}"#), 1.0);
}

#[tokio::test]
async fn a_throttled_deployment_rests_as_long_as_it_was_told() {
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
async fn a_deployment_throttled_without_a_time_rests_for_a_second() {
    check(429, &[], Duration::from_secs(1)).await;
}

/// The date this long from now, as HTTP writes it.
fn httpdate_in(wait: Duration) -> String {
    httpdate::fmt_http_date(std::time::SystemTime::now() + wait)
}

#[tokio::test]
async fn a_rest_is_no_fault_and_others_serve_meanwhile() {
    let (first, second) = (ScriptedProvider::start("first").await, ScriptedProvider::start("second").await);
    let config = format!(
        "{}{}[models.small]\ndeployments = [{{ provider = \"first\" }}, {{ provider = \"second\" }}]\n{OPEN_DOOR}
         [routing]\nbalance = \"ordered\"\n",
        reached("first", &first, "east"),
        reached("second", &second, "west"),
    );
    let gateway = TestGateway::start(&config).await;
    first.answers_once(throttled(429, &[("retry-after-ms", "1500")]));
    let answer = Ask::chat("small").at(&gateway).await;
    let told = Instant::now();
    assert_eq!((answer.said().as_deref(), answer.deployment(), answer.attempts()), (Ok("Hello"), "second/small", 2));
    let back = async {
        loop {
            let answer = Ask::chat("small").at(&gateway).await;
            assert_eq!((answer.said().as_deref(), answer.attempts()), (Ok("Hello"), 1));
            if answer.deployment() == "first/small" {
                return told.elapsed();
            }
        }
    };
    let rested = soon("the first to be asked again", back).await;
    println!("asked to rest for 1.5 s, asked again after {rested:.2?}");
    assert!(rested >= Duration::from_millis(1490), "asked again after {rested:?}");
    assert_eq!(first.attempts(), 2, "one probe, and it was good");
    assert_eq!(gateway.transitions("first/small", r#"reason="recovered",to="closed""#), 1.0);
}

#[tokio::test]
async fn a_request_waits_for_a_short_rest_where_that_is_allowed() {
    let (gateway, only) = one_region("retry_after_wait_max = \"2s\"").await;
    only.answers_once(throttled(429, &[("retry-after-ms", "600")]));
    let begun = Instant::now();
    let answer = Ask::chat("small").at(&gateway).await;
    assert_eq!((answer.said().as_deref(), answer.attempts()), (Ok("Hello"), 2));
    let arrivals: Vec<_> = only.journal().requests().map(|request| request.arrived).collect();
    let waited = arrivals[1] - arrivals[0];
    assert!(waited >= Duration::from_millis(590), "the second attempt came after {waited:?}");
    assert!(begun.elapsed() >= Duration::from_millis(600));
}

#[tokio::test]
async fn a_request_does_not_wait_for_a_long_rest() {
    let (gateway, only) = one_region("retry_after_wait_max = \"2s\"").await;
    only.answers_once(throttled(429, &[("retry-after", "30")]));
    let answer = Ask::chat("small").at(&gateway).await;
    assert_eq!(answer.refusal(), (502, "upstream_error".into()));
    let answer = Ask::chat("small").at(&gateway).await;
    assert_eq!(answer.refusal(), (503, "no_deployment_available".into()));
    assert!(answer.told_to_wait() > Duration::from_secs(25));
    assert_eq!(only.attempts(), 1);
}

#[tokio::test]
async fn a_deadline_is_not_waited_past() {
    let (gateway, only) = one_region("retry_after_wait_max = \"10s\"").await;
    only.answers_once(throttled(429, &[("retry-after", "5")]));
    let begun = Instant::now();
    let answer = Ask::chat("small").header("x-tierway-deadline-ms", "1000").at(&gateway).await;
    assert_eq!(answer.refusal(), (502, "upstream_error".into()));
    assert!(begun.elapsed() < Duration::from_secs(1), "waiting could not have helped");
    assert_eq!(only.attempts(), 1);
}

#[tokio::test]
async fn a_refused_credential_rests_alone() {
    let provider = ScriptedProvider::start("p").await;
    let config = reached("p", &provider, "east")
        .replace("\"env:CREDENTIAL\"", "[\"env:CREDENTIAL\", \"env:OTHER_KEY\"]")
        + "[models.small]\ndeployments = [{ provider = \"p\" }]\n"
        + OPEN_DOOR;
    let gateway = TestGateway::start(&config).await;
    let refused = Fault::Status401.script().expect("a script");
    let welcome = crate::support::chat(Default::default());
    let revoked = format!("Bearer {}", crate::support::gateway::CREDENTIAL);
    provider.answers(Script::by(move |request| match request.header("authorization") == Some(&revoked) {
        true => refused.clone(),
        false => welcome.clone(),
    }));
    let mut crowd = Crowd::of(4, &gateway);
    let statuses: Vec<_> = crowd.ask(40, |_| Ask::chat("small")).await.iter().map(|answer| answer.status).collect();
    assert!(statuses.iter().all(|status| [200, 502].contains(status)), "{statuses:?}");
    let refusals = gateway.sum(r#"tierway_attempts_total{deployment="p/small",reason="credential_refused"}"#);
    println!("{refusals} attempts met the revoked credential");
    assert!((1..=4).contains(&refusals), "as many as were under way when it was found out, not {refusals}");
    let answers = crowd.ask(40, |_| Ask::stream("small")).await;
    assert!(answers.iter().all(|answer| answer.said().as_deref() == Ok("Hello")), "the other credential goes on");
    assert_eq!(gateway.sum("tierway_breaker_transitions_total"), 0, "the deployment is well");
}

#[tokio::test]
async fn our_own_mistakes_are_never_the_clients() {
    for (fault, rest) in [(Fault::Status401, 30.0), (Fault::Status404, 60.0)] {
        let (gateway, only) = one_region("").await;
        only.break_with(fault).await;
        let answer = Ask::chat("small").at(&gateway).await;
        assert_eq!(answer.refusal(), (502, "upstream_error".into()), "{fault:?}");
        let answer = Ask::chat("small").at(&gateway).await;
        assert_eq!(answer.refusal(), (503, "no_deployment_available".into()), "{fault:?}");
        let wait = answer.told_to_wait().as_secs_f64();
        assert!((rest * 0.8 - 5.0..=rest * 1.2).contains(&wait), "{fault:?}: told to wait {wait} s");
        assert_eq!(only.attempts(), 1, "{fault:?}");
    }
}
