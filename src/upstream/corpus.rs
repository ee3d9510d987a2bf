//! The streams of the corpus (`tests/corpus`), cut in two at every byte, and at all of them: what goes out and how it
//! ends is the same. That it is right is shown over sockets, by the tests there.

use super::providers::UpstreamReply;
use super::stream::AnswerStream;
use super::testing::{call, fed};
use crate::domain::failure::Failure;
use crate::domain::memory::InFlightAllowance;
use crate::protocol::Grammar;
use crate::protocol::chat::answer::ChatQuirks;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::Path;
use std::task::{Context, Poll, Waker};

/// Longer bodies repeat what shorter ones show.
const LONGEST: usize = 2 * 1024;
const LEAST_STREAMS: usize = 100;

/// Of a case's file, what its bytes are made of.
#[derive(Deserialize)]
struct CaseFile {
    reply: CaseReply,
}

#[derive(Deserialize)]
struct CaseReply {
    #[serde(default)]
    body: String,
    newline: Option<String>,
    #[serde(default)]
    replace: Vec<Replacement>,
}

#[derive(Deserialize)]
struct Replacement {
    mark: String,
    text: String,
    times: Option<usize>,
}

impl CaseReply {
    /// The body before any content coding.
    fn bytes(&self) -> Bytes {
        let newline = match self.newline.as_deref() {
            None | Some("lf") => "\n",
            Some("crlf") => "\r\n",
            Some("cr") => "\r",
            Some(other) => panic!("no newline is called {other}"),
        };
        let text = self.body.replace('\n', newline);
        let replaced = self.replace.iter().fold(text, |text, replacement| {
            text.replace(&replacement.mark, &replacement.text.repeat(replacement.times.unwrap_or(1)))
        });
        replaced.into()
    }
}

/// The different bodies of all cases.
fn bodies() -> BTreeSet<Bytes> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/cases");
    let files =
        std::fs::read_dir(folder).expect("the corpus is there").map(|entry| entry.expect("it can be read").path());
    let bodies = files.map(|path| {
        let text = std::fs::read_to_string(&path).expect("a case is text");
        let case: CaseFile = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        case.reply.bytes()
    });
    bodies.filter(|body| !body.is_empty() && body.len() <= LONGEST).collect()
}

/// What goes out of these reads, and how it ends.
fn run(reads: impl IntoIterator<Item = Bytes>) -> (Vec<u8>, Option<Failure>) {
    let (status, headers, source) = (StatusCode::OK, HeaderMap::new(), fed(reads));
    let grammar = Grammar::Chat(ChatQuirks::default());
    let call = call(r#"{"model":"m","stream":true}"#);
    let reply = UpstreamReply { status, headers, source, grammar };
    let mut stream = AnswerStream::new(reply, &call, &InFlightAllowance::default());
    let (mut cx, mut out) = (Context::from_waker(Waker::noop()), Vec::new());
    loop {
        match stream.poll_batch(&mut cx) {
            Poll::Ready(Some(Ok(batch))) => out.extend_from_slice(&batch.bytes),
            Poll::Ready(Some(Err(broken))) => return (out, Some(broken.failure())),
            Poll::Ready(None) => return (out, None),
            Poll::Pending => panic!("the source never waits"),
        }
    }
}

#[test]
fn the_streams_of_the_corpus_read_the_same_however_they_are_cut() {
    let bodies = bodies();
    assert!(bodies.len() >= LEAST_STREAMS, "{}", bodies.len());
    for body in bodies {
        let whole = run([body.clone()]);
        for cut in 1..body.len() {
            let parts = run([body.slice(..cut), body.slice(cut..)]);
            assert!(parts == whole, "cut at {cut}: {}\n{parts:?}\nnot {whole:?}", body.escape_ascii());
        }
        let bytes = run((0..body.len()).map(|at| body.slice(at..=at)));
        assert!(bytes == whole, "in single bytes: {}\n{bytes:?}\nnot {whole:?}", body.escape_ascii());
    }
}
