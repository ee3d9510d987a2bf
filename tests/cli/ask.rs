//! `tierway ask` against a running gateway.

use super::providers::provider;
use super::{APP_KEY, CONFIG, Place, Running, check, text};
use std::io::Write;
use std::process::Stdio;

/// A gateway, and a command beside it that knows where it is.
fn gateway(config: &str) -> (Place, Running) {
    let place = Place::with(config);
    let running = place.serve(&["serve"]);
    (place, running)
}

fn ask(place: &Place, running: &Running, args: &[&str]) -> std::process::Output {
    let mut command = place.command(&[&["ask"], args].concat());
    command.env("OPENAI_BASE_URL", format!("http://{}/v1", running.addr)).env("OPENAI_API_KEY", APP_KEY);
    command.output().expect("the binary starts")
}

#[test]
fn an_answer_is_shown_as_it_comes_and_its_headers_where_they_are_wanted() {
    let (place, running) = gateway(CONFIG);
    let output = ask(&place, &running, &["Hi", "there"]);
    check(&output, 0, &[]);
    let shown = text(&output.stdout);
    assert!(!shown.trim().is_empty() && shown.ends_with('\n'), "{shown:?}");
    assert_eq!(text(&output.stderr), "", "nothing else is said");
    let output = ask(&place, &running, &["--model", "acme/small", "--headers", "--system", "Be brief.", "Hi"]);
    check(&output, 0, &["HTTP/1.1 200 OK", "x-tierway-model: acme/small", "x-request-id: req_"]);
    running.stop();
}

#[test]
fn json_is_the_whole_answer() {
    let (place, running) = gateway(CONFIG);
    let output = ask(&place, &running, &["--json", "Hi"]);
    check(&output, 0, &[]);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(answer["choices"][0]["message"]["content"].is_string(), "{answer}");
    running.stop();
}

#[test]
fn a_question_can_come_from_a_pipe() {
    let (place, running) = gateway(CONFIG);
    let ask = |question: &str| {
        let mut command = place.command(&["ask", "--url", &format!("http://{}", running.addr), "--key", APP_KEY]);
        command.args(["--model", "acme/small"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        child.stdin.take().expect("stdin is piped").write_all(question.as_bytes()).expect("it reads");
        child.wait_with_output().expect("it was started here")
    };
    let output = ask("Why is the sky blue?\n");
    check(&output, 0, &[]);
    assert!(!output.stdout.is_empty());
    check(&ask(" \n"), 2, &["stdin has no question"]);
    running.stop();
}

#[test]
fn what_is_refused_says_why_and_where_to_look() {
    let (place, running) = gateway(CONFIG);
    let output = ask(&place, &running, &["--model", "acme/none", "Hi"]);
    check(&output, 1, &["404 Not Found model_not_found", "tierway explain --request req_"]);
    let mut wrong = place.command(&["ask", "--url", &format!("http://{}/v1", running.addr), "--key", "wrong"]);
    let output = wrong.args(["--model", "acme/small", "Hi"]).output().expect("the binary starts");
    check(&output, 1, &["401 Unauthorized invalid_api_key"]);
    assert!(output.stdout.is_empty());
    running.stop();
}

#[test]
fn an_answer_that_breaks_off_is_not_taken_for_a_whole_one() {
    let begun = r#"{"id":"x","object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":{"content":"Half of"}}]}"#;
    let url = provider(move |_, _| (200, format!("data: {begun}\n\n")));
    let broken = CONFIG
        .replace("protocol = \"sim\"\nfirst_token = \"0ms\"", &format!("protocol = \"openai\"\nbase_url = \"{url}\""));
    let (place, running) = gateway(&broken);
    let output = ask(&place, &running, &["Hi"]);
    check(&output, 1, &["the answer broke off: "]);
    assert_eq!(text(&output.stdout), "Half of\n");
    running.stop();
}

#[test]
fn what_is_missing_is_named() {
    let place = Place::with(CONFIG);
    check(&place.run(&["ask", "Hi"]), 2, &["there is no key", "--key"]);
    let named = |args: &[&str]| place.run(&[&["ask", "--key", APP_KEY, "--model", "x"], args].concat());
    check(&named(&["Hi"]), 2, &["the configuration lets the system choose the port", "--url"]);
    // A port that was free a moment ago: nobody listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
    check(&named(&["--url", &format!("http://{free}"), "Hi"]), 1, &["no gateway answers at http://127.0.0.1:"]);
    check(&named(&["--url", "ftp://x", "Hi"]), 2, &["http://127.0.0.1:8080"]);
}
