//! What `check` says of providers: what is odd about how they are configured, and with `--live` what they answer.

use super::{Place, check, text};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Output;

/// A provider that answers every request of a connection with what `answer` makes of its first line and credential: JSON,
/// or a stream. It ends with the test's process.
pub(super) fn provider(answer: impl Fn(&str, &str) -> (u16, String) + Send + 'static) -> String {
    provider_with("", answer)
}

/// The same with a line of its own in every head, which ends with CRLF.
pub(super) fn provider_with(
    own: &'static str,
    answer: impl Fn(&str, &str) -> (u16, String) + Send + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let url = format!("http://{}/v1", listener.local_addr().expect("it is bound"));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream);
            let (mut first, mut credential, mut line, mut length) = (String::new(), String::new(), String::new(), 0);
            let _ = reader.read_line(&mut first);
            while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                if line.to_ascii_lowercase().starts_with("authorization:") {
                    credential = line.trim().rsplit(' ').next().unwrap_or_default().to_owned();
                }
                if let Some(given) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = given.trim().parse().unwrap_or(0);
                }
                line.clear();
            }
            let _ = reader.read_exact(&mut vec![0; length]);
            let (status, body) = answer(first.trim(), &credential);
            let kind = if body.starts_with("data: ") { "text/event-stream" } else { "application/json" };
            let _ = write!(
                reader.get_mut(),
                "HTTP/1.1 {status} It\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n{own}connection: close\r\n\r\n\
                 {body}",
                body.len()
            );
        }
    });
    url
}

fn table(name: &str, url: &str, credentials: &str, model: &str) -> String {
    format!(
        "[providers.{name}]\nprotocol = \"openai\"\nbase_url = \"{url}\"\ncredential = {credentials}\n\
         [models.\"{name}-model\"]\ndeployments = [{{ provider = \"{name}\", upstream_model = \"{model}\" }}]\n"
    )
}

fn checked(place: &Place, args: &[&str]) -> Output {
    let mut command = place.command(args);
    command.env("GOOD_KEY", "sk-good").env("BAD_KEY", "sk-canary-refused").env("OUR_KEY", "tw_demo_canary");
    command.output().expect("the binary starts")
}

const LIST: &str = r#"{"object":"list","data":[{"id":"listed"},{"id":"other"}]}"#;

/// Lists its models to one credential.
fn listing() -> String {
    provider(|line, credential| match (line, credential) {
        ("GET /v1/models HTTP/1.1", "sk-good") => (200, LIST.to_owned()),
        // What has no model is refused; the host has no other path.
        ("POST /v1/chat/completions HTTP/1.1", "sk-good") => (400, r#"{"error":{"message":"No model."}}"#.to_owned()),
        (_, "sk-good") => (404, r#"{"detail":"Not Found"}"#.to_owned()),
        (_, refused) => (401, format!(r#"{{"error":{{"message":"Incorrect API key provided: {refused}"}}}}"#)),
    })
}

#[test]
fn each_credential_is_tried_against_its_provider() {
    let url = listing();
    let place = Place::with(&table("first", &url, "[\"env:GOOD_KEY\", \"env:BAD_KEY\"]", "listed"));
    let output = checked(&place, &["check", "--live"]);
    check(&output, 1, &[]);
    let shown = text(&output.stdout);
    let rows: Vec<&str> = shown.lines().filter(|line| line.starts_with("first ")).collect();
    assert!(rows.len() == 2 && shown.contains("OK: 1 providers"), "{shown}");
    assert!(rows[0].contains("GOOD_KEY") && rows[0].contains("200") && rows[0].contains("1 of 1"), "{shown}");
    assert!(rows[1].contains("BAD_KEY") && rows[1].contains("401") && rows[1].contains("Incorrect API key"), "{shown}");
    assert!(!shown.contains("canary"), "what a provider repeats of a credential is masked: {shown}");
}

#[test]
fn all_is_well_where_every_model_is_listed() {
    let url = listing();
    let sim = "[providers.sim]\nprotocol = \"sim\"\n[models.demo]\ndeployments = [{ provider = \"sim\" }]\n";
    let place = Place::with(&format!("{}{sim}", table("first", &url, "\"env:GOOD_KEY\"", "listed")));
    let output = checked(&place, &["check", "--live"]);
    check(&output, 0, &[]);
    assert!(text(&output.stdout).contains("simulated"), "{}", text(&output.stdout));
    let object: serde_json::Value =
        serde_json::from_slice(&checked(&place, &["check", "--live", "--json"]).stdout).expect("JSON alone");
    assert_eq!(object["ok"], true, "{object}");
    let row = &object["providers"][0];
    assert_eq!((&row["provider"], &row["credential"]), (&"first".into(), &"GOOD_KEY".into()));
    assert_eq!((&row["status"], &row["models_listed"]), (&200.into(), &2.into()));
    assert_eq!(row["models_missing"], serde_json::json!([]));
    assert_eq!(object["providers"][1]["simulated"], true);
}

#[test]
fn what_is_not_listed_not_there_or_not_reached_is_said() {
    let url = listing();
    let nobody = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let gone = format!("http://{}/v1", nobody.local_addr().expect("it is bound"));
    drop(nobody);
    let place = Place::with(
        &[
            table("misnamed", &url, "\"env:GOOD_KEY\"", "mislabeled"),
            table("misplaced", url.trim_end_matches("/v1"), "\"env:GOOD_KEY\"", "listed"),
            table("gone", &gone, "\"env:GOOD_KEY\"", "listed"),
        ]
        .concat(),
    );
    let output = checked(&place, &["check", "--live"]);
    check(&output, 1, &[]);
    let shown = text(&output.stdout);
    let row = |name: &str| shown.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    assert!(row("misnamed").contains("0 of 1") && row("misnamed").contains("not listed: mislabeled"), "{shown}");
    assert!(row("misplaced").contains("404") && row("misplaced").contains("no /models below the base URL"), "{shown}");
    assert!(row("gone").contains("connect"), "{shown}");
    check(&checked(&place, &["check"]), 0, &[]);
    check(&checked(&place, &["check", "--json"]), 2, &["--live"]);
}

#[test]
fn endpoints_that_a_host_does_not_have_are_named() {
    let url = listing();
    let serving = |model: &str, endpoints: &str| {
        format!("{}endpoints = [{endpoints}]\n", table(model, &url, "\"env:GOOD_KEY\"", "listed"))
    };
    let place = Place::with(
        &[serving("has", "\"chat\""), serving("lacks", "\"chat\", \"responses\", \"embeddings\"")].concat(),
    );
    let output = checked(&place, &["check", "--live"]);
    check(&output, 1, &[]);
    let shown = text(&output.stdout);
    let row = |name: &str| shown.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    assert!(row("has").trim_end().ends_with("1 of 1"), "{shown}");
    assert!(row("lacks").contains("1 of 1") && row("lacks").contains("it has no /embeddings, /responses"), "{shown}");
    let object: serde_json::Value =
        serde_json::from_slice(&checked(&place, &["check", "--live", "--json"]).stdout).expect("JSON alone");
    let of = |name: &str| {
        let rows = object["providers"].as_array().expect("a list");
        rows.iter().find(|row| row["provider"] == name).expect("it has a row")["endpoints_missing"].clone()
    };
    assert_eq!((of("has"), of("lacks")), (serde_json::json!([]), serde_json::json!(["embeddings", "responses"])));
}

#[test]
fn odd_providers_are_warned_about_and_asked_nothing() {
    let place = Place::with(
        &[
            table("whole", "https://a.example/v1/chat/completions", "\"env:GOOD_KEY\"", "m"),
            table("bare", "https://api.openai.com", "\"env:GOOD_KEY\"", "m"),
            table("open", "http://a.example/v1", "\"env:GOOD_KEY\"", "m"),
            table("ours", "https://a.example/v1", "\"env:OUR_KEY\"", "m"),
            table("usual", "https://b.example/v1", "\"env:GOOD_KEY\"", "m"),
        ]
        .concat(),
    );
    let output = checked(&place, &["check"]);
    check(
        &output,
        0,
        &[
            "warning: providers.whole.base_url: it ends in the path of an endpoint",
            "write https://a.example/v1\n",
            "warning: providers.bare.base_url: the API of this host is known to be at https://api.openai.com/v1",
            "warning: providers.open.base_url: http is not encrypted",
            "warning: providers.ours.credential: OUR_KEY begins as a key of a Tierway gateway does",
        ],
    );
    let said = text(&output.stderr);
    assert!(!said.contains("usual") && !said.contains("canary"), "{said}");
}

#[test]
fn init_leaves_out_a_key_of_a_gateway() {
    let place = Place::empty();
    let mut command = place.command(&["init"]);
    command.env("OPENAI_API_KEY", "tw_demo_canary").env("GROQ_API_KEY", "gsk-canary");
    let output = command.output().expect("the binary starts");
    check(&output, 0, &["warning: OPENAI_API_KEY holds a key of a Tierway gateway", "from GROQ_API_KEY"]);
    let written = std::fs::read_to_string(place.config()).expect("it was written");
    assert!(!written.contains("OPENAI_API_KEY") && written.contains("env:GROQ_API_KEY"), "{written}");
    let mut command = place.command(&["init", "--force"]);
    command.env("OPENAI_API_KEY", "sk-canary").env("OPENAI_BASE_URL", "http://llm.example:8000/v1/models");
    let output = command.output().expect("the binary starts");
    check(
        &output,
        0,
        &[
            "warning: OPENAI_BASE_URL is set, and the file asks https://api.openai.com/v1",
            "warning: OPENAI_BASE_URL: it ends in the path of an endpoint",
            "warning: OPENAI_BASE_URL: http is not encrypted",
        ],
    );
    let written = std::fs::read_to_string(place.config()).expect("it was written");
    assert!(!written.contains("llm.example") && !written.contains("canary"), "{written}");
}
