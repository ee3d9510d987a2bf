//! What a body means here, and what it means to a provider in another language.
//!
//! Bodies are made up so that readers of JSON may differ over them: names in another case, in characters that fold to
//! ours, escaped or given twice, numbers in odd notations, members in odd places. What passes is edited as on its way to
//! a provider, and read by programs in Go, Python and JavaScript, each with nothing but its standard library: every one
//! of their readings is ours, or a refusal.
//!
//! Start reading in [`every_reader_reads_what_the_gateway_reads`]; `make readers` tries more.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread;

use bytes::Bytes;
use fastrand::Rng;
use http_body::Body;
use serde_json::{Value, json};
use tierway::domain::body_member::ListedMembers;
use tierway::domain::call::{Call, Endpoint, Feature};
use tierway::protocol::chat::request::read_request;
use tierway::protocol::edit::provider_body;

/// Bodies and seed where the environment says nothing.
const BODIES: usize = 4_000;
const SEED: u64 = 1;
/// Refused by default at every host; see `src/config/compile/body_rules.rs`.
const DENIED: &str = "__proto__";

#[test]
fn every_reader_reads_what_the_gateway_reads() {
    let number = |name: &str, otherwise: u64| match std::env::var(name) {
        Ok(text) if !text.is_empty() => text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")),
        _ => otherwise,
    };
    let (bodies, seed) = (number("TIERWAY_READERS_BODIES", BODIES as u64), number("TIERWAY_READERS_SEED", SEED));
    let listed = ListedMembers::of([DENIED.into()]);
    let mut rng = Rng::with_seed(seed);
    let (mut sent, mut expected) = (Vec::new(), Vec::new());
    for _ in 0..bodies {
        let body = Bytes::from(body(&mut rng));
        let Ok(call) = read_request(Endpoint::Chat, body, &listed) else { continue };
        if call.metadata().given.is_empty() {
            sent.push(provider_bytes(&call));
            expected.push(reading(&call));
        }
    }
    // Neither most of them refused nor none: else nothing would be compared.
    let passed = sent.len() as u64 * 100 / bodies;
    assert!((15..90).contains(&passed), "{passed} % passed");
    let sent: Arc<[Vec<u8>]> = sent.into();
    let mut compared = 0;
    for (language, reader) in readers() {
        let mut taken = 0;
        for (at, readings) in read(reader, &sent).enumerate() {
            let readings: Vec<Value> = serde_json::from_str(&readings.expect("a reader writes text")).expect("JSON");
            for reading in readings.iter().filter(|reading| !reading.is_null()) {
                taken += 1;
                let text = sent[at].escape_ascii();
                assert_eq!(comparable(reading), expected[at], "{language} reads {text}");
            }
            compared = at + 1;
        }
        assert_eq!(compared, sent.len(), "{language} did not read them all");
        assert!(taken > compared / 4, "{language} refused nearly all of them: {taken} of {compared}");
        println!("{language}: {taken} readings of {compared} bodies, of {bodies} made with seed {seed}, are ours");
    }
}

/// Model, stream, wish for usage, choices, ceiling, images: as the gateway reads them of what it sends.
fn reading(call: &Call) -> Value {
    let metadata = call.metadata();
    // Beyond 2^53 readers differ by rounding, and no model is that long.
    let ceiling = metadata.max_output.map(|tokens| tokens.min(1 << 53));
    let images = metadata.features.contains(Feature::Vision);
    json!([SERVED, metadata.stream, metadata.choices, ceiling, images])
}

/// A reader's words in the same form: of two ceilings the higher one is held.
fn comparable(reading: &Value) -> Value {
    let whole = |value: &Value| value.as_f64().map(|number| number as u64);
    // Zero is no ceiling: hosts differ over what they make of it.
    let ceiling = whole(&reading[4]).max(whole(&reading[5])).filter(|tokens| *tokens > 0);
    let stream = reading[1].as_bool();
    // The gateway asks for usage itself.
    assert!(stream != Some(true) || reading[2] == json!(true), "no usage is asked for: {reading}");
    json!([reading[0], stream, whole(&reading[3]).unwrap_or(1), ceiling, reading[6]])
}

/// What the provider calls the model.
const SERVED: &str = "served/model";

fn provider_bytes(call: &Call) -> Vec<u8> {
    let model = Bytes::from(json!(SERVED).to_string());
    let mut pieces = provider_body(call, &model, true, None);
    let mut all = Vec::new();
    let cx = &mut Context::from_waker(Waker::noop());
    while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut pieces).poll_frame(cx) {
        all.extend_from_slice(&frame.into_data().expect("a piece is data"));
    }
    all
}

/// The readers, each in a process of its own.
fn readers() -> [(&'static str, Child); 3] {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/readers");
    let mut python = Command::new("python3");
    python.arg(here.join("reader.py"));
    let mut node = Command::new("node");
    node.arg(here.join("reader.mjs"));
    [("Go", Command::new(go_reader(&here))), ("Python", python), ("JavaScript", node)].map(|(language, mut command)| {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        (language, child.unwrap_or_else(|error| panic!("{language}: {error}; `make setup` installs what is missing")))
    })
}

/// The compiled reader in Go.
fn go_reader(here: &Path) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let program = folder.join("reader-in-go");
    let built = Command::new("go")
        .args(["build", "-o"])
        .args([&program, &here.join("reader.go")])
        .env("GOCACHE", folder.join("go-cache"))
        .env("GO111MODULE", "off")
        .status();
    let built = built.unwrap_or_else(|error| panic!("go: {error}; `make setup` installs what is missing"));
    assert!(built.success(), "the reader in Go cannot be built");
    program
}

/// What `reader` says of each of `bodies`, line by line.
fn read(mut reader: Child, bodies: &Arc<[Vec<u8>]>) -> impl Iterator<Item = std::io::Result<String>> {
    let (mut stdin, stdout) = (reader.stdin.take().expect("piped"), reader.stdout.take().expect("piped"));
    let bodies = bodies.clone();
    thread::spawn(move || {
        for body in bodies.iter() {
            let length = u32::try_from(body.len()).expect("bodies are short").to_be_bytes();
            if stdin.write_all(&[&length[..], body].concat()).is_err() {
                return;
            }
        }
    });
    let mut lines = BufReader::new(stdout).lines();
    std::iter::from_fn(move || {
        let line = lines.next();
        if line.is_none() {
            assert!(reader.wait().is_ok_and(|status| status.success()), "a reader failed");
        }
        line
    })
}

/// A body over which readers may differ.
fn body(rng: &mut Rng) -> String {
    let models = [r#""m""#, r#""\u006d""#, r#""dear""#, r#""m""#, r#""a/b""#, r#""m""#, "7"];
    let mut members = vec![member(rng, "model", |rng| one_of(rng, &models))];
    for (name, value, percent) in MEMBERS {
        let mut percent = *percent;
        while rng.u8(..100) < percent {
            members.push(member(rng, name, value));
            // Seldom again.
            percent = 4;
        }
    }
    rng.shuffle(&mut members);
    let body = format!("{}{{{}}}", space(rng), members.join(","));
    if rng.u8(..100) < 5 { spoilt(rng, &body) } else { body }
}

type ValueMaker = fn(&mut Rng) -> String;

/// Members, how their values are made, and in how many of a hundred bodies they are.
const MEMBERS: &[(&str, ValueMaker, u8)] = &[
    ("stream", |rng| one_of(rng, &["true", "true", "true", "false", "false", "null", "1", "\"true\""]), 50),
    ("stream_options", stream_options, 30),
    ("n", number, 30),
    ("max_tokens", number, 30),
    ("max_completion_tokens", number, 30),
    ("messages", messages, 50),
    ("temperature", number, 20),
    ("metadata", |rng| one_of(rng, &["null", r#"{"model":"x","Model":"y","n":9}"#]), 20),
    ("tools", |rng| one_of(rng, &["[]", TOOLS]), 20),
    ("response_format", |rng| one_of(rng, &["null", r#"{"type":"json_object"}"#, r#"{"Type":"json_schema"}"#]), 10),
    (DENIED, |rng| one_of(rng, &["1", r#"{"stream":true,"n":3,"max_tokens":7}"#]), 8),
];
const TOOLS: &str = r#"[{"type":"function","function":{"name":"f","parameters":{"Model":{"N":1}}}}]"#;

fn stream_options(rng: &mut Rng) -> String {
    let usage = member(rng, "include_usage", |rng| one_of(rng, &["true", "false", "null"]));
    one_of(rng, &["null", "{}", r#"{"x":1}"#, &format!("{{{usage}}}")])
}

fn number(rng: &mut Rng) -> String {
    let usual = ["1", "2", "5", "128", "1.0", "2e0", "0.5e1", "null"];
    let odd = [
        "0",
        "-0",
        "100.0",
        "-1",
        "1.5",
        "129",
        "\"5\"",
        "true",
        "9007199254740993",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
        "1e999",
        "01",
    ];
    if rng.u8(..4) > 0 { one_of(rng, &usual) } else { one_of(rng, &odd) }
}

fn messages(rng: &mut Rng) -> String {
    let part = |rng: &mut Rng| {
        let types = [r#""text""#, r#""image_url""#, r#""input_image""#, r#""imag\u0065_url""#, "null"];
        let kind = member(rng, "type", |rng| one_of(rng, &types));
        let text = member(rng, "text", |rng| one_of(rng, &[r#""image_url""#, r#""a""#]));
        one_of(rng, &[&format!("{{{kind}}}"), &format!("{{{kind},{text}}}"), &format!("{{{text},{kind}}}")])
    };
    let parts = format!("[{},{}]", part(rng), part(rng));
    let contents = [r#""hello""#, "null", r#""{\"type\":\"image_url\"}""#, &parts, &parts];
    let content = one_of(rng, &contents);
    let content = format!("{}:{content}", spelled(rng, "content"));
    one_of(rng, &["[]", "null", &format!("[{{\"role\":\"user\",{content}}}]"), &format!("[{{{content}}},{{}}]")])
}

fn member(rng: &mut Rng, name: &str, value: impl Fn(&mut Rng) -> String) -> String {
    let name = spelled(rng, name);
    format!("{}{name}{}:{}{}{}", space(rng), space(rng), space(rng), value(rng), space(rng))
}

/// `name` as a JSON string: mostly as it is, at times so that some reader takes it for `name` and another one does not.
fn spelled(rng: &mut Rng, name: &str) -> String {
    let kind = rng.u8(..100);
    let mut text = String::from("\"");
    for letter in name.chars() {
        let odd = rng.u8(..4) == 0;
        let letter = match (kind, letter, odd) {
            (0, _, true) => letter.to_ascii_uppercase(),
            (1, 's', _) => '\u{17f}',
            (1, 'k', _) => '\u{212a}',
            (1, 'i', _) => 'ı',
            (2, 'e', true) => 'é',
            _ => letter,
        };
        // Writing to a string cannot fail.
        let _ = match kind {
            3..6 if odd => write!(text, "\\u{:04x}", u32::from(letter)),
            0 | 1 if rng.bool() => write!(text, "\\u{:04X}", u32::from(letter)),
            _ => write!(text, "{letter}"),
        };
    }
    text = match kind {
        6 => text.replace("st", "ﬆ"),
        7 => text.replace("ss", "ß"),
        _ => text,
    };
    text + one_of(rng, if kind == 8 { &["\\u0000\"", " \"", "s\""] } else { &["\""] }).as_str()
}

/// `body` with a character put in, left out or changed.
fn spoilt(rng: &mut Rng, body: &str) -> String {
    let mut letters: Vec<char> = body.chars().collect();
    let at = rng.usize(..letters.len());
    let put = one_of(rng, &["", "\"", "\\", "{", "}", "[", "]", ",", ":", "1", "\u{feff}", "\u{0}", "'", "e", "//"]);
    letters.splice(at..at + usize::from(rng.bool()), put.chars());
    letters.into_iter().collect()
}

fn space(rng: &mut Rng) -> String {
    one_of(rng, &["", "", "", "", "", " ", "\n\t"])
}

fn one_of(rng: &mut Rng, all: &[&str]) -> String {
    all[rng.usize(..all.len())].to_owned()
}
