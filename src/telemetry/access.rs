//! The access log: one JSON object per request, on one line.
//!
//! A line holds what its receipt holds: names and numbers, never a secret, a prompt or an answer.
//! The request's thread formats it and hands it over; another one writes, and when nobody reads
//! what it writes, lines are dropped and counted rather than requests held up.
//!
//! The fields are those of [`put_line`], their units end their names, and they are stable.

use super::lines::{Lines, Writing};
use super::rfc3339::Rfc3339;
use crate::domain::call::Endpoint;
use crate::domain::readable::readable;
use crate::domain::receipt::{AttemptRecord, Receipt};
use crate::domain::refusal::LimitKind;
use std::fmt;
use std::io::Write;
use std::time::Duration;

/// Most lines have room in this many bytes.
const USUAL_LINE: usize = 1024;

/// Where the lines go.
#[derive(Debug)]
pub struct AccessLog {
    lines: Option<Lines>,
    /// Dropped after `lines`: the last of them are written then.
    _writing: Option<Writing>,
}

impl AccessLog {
    /// No lines.
    pub fn off() -> Self {
        Self { lines: None, _writing: None }
    }

    /// To `writer`, by a thread of its own, which ends when this is dropped.
    pub fn to_writer(writer: Box<dyn Write + Send>) -> Self {
        let (lines, writing) = Lines::to(writer);
        Self { lines: Some(lines), _writing: Some(writing) }
    }

    /// Beside the logs: [`Logs::access`](super::log::Logs::access).
    pub(super) fn beside(lines: Lines) -> Self {
        Self { lines: Some(lines), _writing: None }
    }

    /// Writes the line of `receipt`.
    pub fn write(&self, receipt: &Receipt) {
        let Some(lines) = &self.lines else { return };
        let mut line = Vec::with_capacity(USUAL_LINE);
        put_line(&mut line, receipt);
        lines.permit(&line);
    }

    /// The lines, to be asked later how many were dropped.
    pub(super) fn dropped(&self) -> impl Fn() -> u64 + Send + Sync + use<> {
        let lines = self.lines.clone();
        move || lines.as_ref().map_or(0, Lines::dropped)
    }
}

/// One line: the fields, in order. One that does not apply is left out.
fn put_line(line: &mut Vec<u8>, receipt: &Receipt) {
    let served = receipt.served.as_ref();
    let usage = receipt.usage;
    let mut fields = Object::open(line);
    // When the request was received, in UTC.
    fields.shown("time", Rfc3339(receipt.received_unix_ms));
    // Tells these lines from those of the logs, which have the same field.
    fields.text("target", "access");
    fields.shown("request_id", receipt.id);
    fields.some_text("key", receipt.key.as_deref());
    fields.some_text("team", receipt.team.as_deref());
    fields.some_text("policy", receipt.policy.as_deref());
    fields.some_text("endpoint", receipt.endpoint.map(Endpoint::name));
    fields.some_text("asked_model", receipt.asked_model.as_deref().map(readable).as_deref());
    // What served it, or was tried last.
    fields.some_text("model", served.map(|served| &*served.model));
    fields.some_text("deployment", served.map(|served| &*served.deployment));
    fields.some_text("tier", served.and_then(|served| served.tier.as_deref()));
    fields.some_text("region", served.map(|served| &*served.region));
    fields.truth("stream", receipt.stream);
    fields.number("attempts", receipt.attempts.len() as u64);
    // One attempt is told by the fields around it.
    if receipt.attempts.len() > 1 {
        fields.list("attempt_list", &receipt.attempts, put_attempt);
    }
    fields.text("outcome", receipt.outcome.label());
    fields.text("reason", receipt.reason.label());
    fields.some_text("limit", receipt.limit.map(LimitKind::label));
    fields.number("status", receipt.status.into());
    if let Some(usage) = usage {
        fields.number("input_tokens", usage.input);
        fields.number("cached_input_tokens", usage.cached_input);
        fields.number("output_tokens", usage.output);
        fields.number("reasoning_tokens", usage.reasoning);
        fields.truth("estimated", receipt.estimated);
    }
    // A string: money is never a float, in no reader either.
    fields.shown("cost_usd", receipt.cost);
    if let Some(first_token) = receipt.first_token {
        fields.ms("first_token_ms", first_token);
    }
    fields.ms("duration_ms", receipt.duration);
    fields.number("overhead_us", receipt.overhead.as_micros() as u64);
    fields.close();
    line.push(b'\n');
}

fn put_attempt(attempt: &AttemptRecord, into: &mut Vec<u8>) {
    let mut fields = Object::open(into);
    fields.text("deployment", &attempt.deployment);
    fields.some_text("tier", attempt.tier.as_deref());
    fields.text("reason", attempt.reason.label());
    fields.ms("duration_ms", attempt.duration);
    fields.close();
}

/// A JSON object being written. By hand, because every request writes one: through serde the same
/// line cost five times as much (`cargo bench --bench parts`).
struct Object<'a> {
    out: &'a mut Vec<u8>,
    /// What stands before the next field.
    before: &'static [u8],
}

impl<'a> Object<'a> {
    fn open(out: &'a mut Vec<u8>) -> Self {
        Self { out, before: b"{\"" }
    }

    fn close(self) {
        self.out.push(b'}');
    }

    /// A field's name: a plain word, written as it stands.
    fn name(&mut self, name: &'static str) {
        self.out.extend_from_slice(self.before);
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.before = b",\"";
    }

    fn text(&mut self, name: &'static str, text: &str) {
        self.name(name);
        put_string(self.out, text);
    }

    fn some_text(&mut self, name: &'static str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    fn number(&mut self, name: &'static str, number: u64) {
        self.name(name);
        put_number(self.out, number);
    }

    fn truth(&mut self, name: &'static str, truth: bool) {
        self.name(name);
        self.out.extend_from_slice(if truth { b"true" } else { b"false" });
    }

    /// Milliseconds, exact to the microsecond.
    fn ms(&mut self, name: &'static str, duration: Duration) {
        self.name(name);
        let us = duration.as_micros() as u64;
        put_number(self.out, us / 1_000);
        let part = us % 1_000;
        let digits = [b'.', digit(part / 100), digit(part / 10), digit(part)];
        let shown = match (part % 100, part % 10) {
            (0, _) => 2,
            (_, 0) => 3,
            _ => 4,
        };
        self.out.extend_from_slice(&digits[..shown]);
    }

    /// A value written as it is shown, in quotes: digits, letters and points, nothing to escape.
    fn shown(&mut self, name: &'static str, value: impl fmt::Display) {
        self.name(name);
        write!(self.out, "\"{value}\"").expect("memory takes every byte");
    }

    fn list<T>(&mut self, name: &'static str, items: &[T], put: impl Fn(&T, &mut Vec<u8>)) {
        self.name(name);
        for (at, item) in items.iter().enumerate() {
            self.out.push(if at == 0 { b'[' } else { b',' });
            put(item, self.out);
        }
        self.out.push(b']');
    }
}

fn put_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn digit(number: u64) -> u8 {
    b'0' + (number % 10) as u8
}

/// Names need no escape as a rule; what does is escaped as JSON has it.
fn put_string(out: &mut Vec<u8>, text: &str) {
    if text.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        serde_json::to_writer(out, text).expect("memory takes every byte");
        return;
    }
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::samples;
    use std::io;
    use std::sync::{Arc, Mutex};

    /// Keeps what is written.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no thread panicked").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(receipts: &[Receipt]) -> String {
        let page = Page::default();
        let log = AccessLog::to_writer(Box::new(page.clone()));
        receipts.iter().for_each(|receipt| log.write(receipt));
        drop(log);
        let bytes = page.0.lock().expect("no thread panicked").clone();
        String::from_utf8(bytes).expect("lines are UTF-8")
    }

    #[test]
    fn every_outcome_has_its_line() {
        insta::assert_snapshot!(written(&samples::receipts()));
    }

    #[test]
    fn what_a_client_wrote_stays_inside_its_field() {
        let check = |asked: &str, expected: &str| {
            let mut receipt = samples::refused();
            receipt.asked_model = Some(asked.into());
            let lines = written(&[receipt]);
            assert_eq!(lines.matches('\n').count(), 1, "{lines}");
            let line: serde_json::Value = serde_json::from_str(&lines).expect("a line is one JSON object");
            assert_eq!(line["asked_model"], expected);
            assert_eq!(line["outcome"], "refused");
        };
        check("org/model-1", "org/model-1");
        check("a\"b\\", "a\"b\\");
        check("x\n{\"outcome\":\"served\"}", "x\u{fffd}{\"outcome\":\"served\"}");
        check("\u{1b}[2J\u{9b}31m\u{7f}\0", "\u{fffd}[2J\u{fffd}31m\u{fffd}\u{fffd}");
        check("a\u{202e}b\u{2028}c", "a\u{fffd}b\u{fffd}c");
        check("modèle-日本", "modèle-日本");
        check(&"é".repeat(256), &"é".repeat(256));
        check(&"x".repeat(100_000), &format!("{}…", "x".repeat(256)));
    }
}
