//! The access log: one JSON object per request, on one line; for a reader at a terminal, one line of
//! [`TerminalWriter`].
//!
//! A line holds what its receipt holds: names and numbers, never a secret, a prompt or an answer.
//! The request's thread formats it, another one writes it. When the reader stalls, lines are dropped
//! and counted; no request waits. Of requests without a valid key, which cost their senders nothing, only some have a
//! line: whoever floods the gateway must not flood the log.
//!
//! Start reading at [`put_line`]: its fields are stable, and units end their names.

use super::line_writer::{LineWriterGuard, LineWriterHandle};
use super::rfc3339::Rfc3339Text;
use super::terminal_line::TerminalWriter;
use crate::domain::call::Endpoint;
use crate::domain::limit::LimitKind;
use crate::domain::money::NanoUsd;
use crate::domain::readable::readable;
use crate::domain::receipt::{AttemptRecord, PassedOverDeployment, Receipt};
use parking_lot::Mutex;
use std::io::Write;
use std::time::Duration;

/// The capacity of a line's buffer in bytes; most lines are shorter.
const USUAL_LINE: usize = 1024;

/// The most lines in a second for requests without a valid key.
const STRANGERS_PER_SECOND: u32 = 10;
/// The most seconds by which a request without a valid key ends after one that was received later.
const MOST_OUT_OF_ORDER_S: i64 = 60;

/// Writes one line per request, or none.
#[derive(Debug)]
pub struct AccessLog {
    lines: Option<LineWriterHandle>,
    /// How a line is written for a terminal; `None` for JSON.
    terminal: Option<TerminalWriter>,
    strangers: Mutex<StrangerSample>,
    /// Writes the last lines when it is dropped; `None` where the logs own the thread.
    _guard: Option<LineWriterGuard>,
}

impl AccessLog {
    /// No lines.
    pub fn off() -> Self {
        Self { lines: None, terminal: None, strangers: Mutex::default(), _guard: None }
    }

    /// Lines to `writer`, written by a thread that ends when this is dropped.
    pub fn to_writer(writer: Box<dyn Write + Send>) -> Self {
        let (lines, guard) = LineWriterHandle::to(writer);
        Self { lines: Some(lines), terminal: None, strangers: Mutex::default(), _guard: Some(guard) }
    }

    /// Lines between those of the logs: [`LogWriter::access`](super::log::LogWriter::access).
    pub(super) fn to_sender(lines: LineWriterHandle, terminal: Option<TerminalWriter>) -> Self {
        Self { lines: Some(lines), terminal, strangers: Mutex::default(), _guard: None }
    }

    /// Writes the line of `receipt`; without a valid key, only if few such requests had one in the same second.
    pub fn write(&self, receipt: &Receipt) {
        let Some(lines) = &self.lines else { return };
        let left_out = match receipt.key {
            Some(_) => 0,
            None => match self.strangers.lock().take(receipt.received_unix_ms) {
                Some(left_out) => left_out,
                None => return,
            },
        };
        let mut line = Vec::with_capacity(USUAL_LINE);
        match self.terminal {
            Some(terminal) => terminal.put(&mut line, receipt, left_out),
            None => put_line(&mut line, receipt, left_out),
        }
        lines.push(&line);
    }

    /// Returns how many lines were dropped, each time it is called.
    pub(super) fn dropped(&self) -> impl Fn() -> u64 + Send + Sync + use<> {
        let lines = self.lines.clone();
        move || lines.as_ref().map_or(0, LineWriterHandle::dropped)
    }
}

/// Which requests without a valid key have a line.
#[derive(Default, Debug)]
struct StrangerSample {
    /// The latest Unix second in which one was received.
    second: i64,
    /// Lines in that second.
    lines: u32,
    /// Requests without a line since the last one that has one.
    left_out: u64,
}

impl StrangerSample {
    /// Whether a request received at `unix_ms` has a line: how many had none since the last line.
    fn take(&mut self, unix_ms: i64) -> Option<u64> {
        let second = unix_ms.div_euclid(1_000);
        // Requests do not end in the order in which they were received; further back, the clock was set back.
        if second > self.second || second < self.second.saturating_sub(MOST_OUT_OF_ORDER_S) {
            (self.second, self.lines) = (second, 0);
        }
        if self.lines == STRANGERS_PER_SECOND {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// A field's name as it is written: behind the field before it, and before its value. It needs no escapes.
macro_rules! field {
    ($name:literal) => {
        concat!(",\"", $name, "\":")
    };
}

/// One line: the fields, in order. One that does not apply is left out. `left_out`: [`StrangerSample::take`].
fn put_line(line: &mut Vec<u8>, receipt: &Receipt, left_out: u64) {
    let served = receipt.served.as_ref();
    let usage = receipt.usage;
    let mut fields = JsonObjectWriter::open(line);
    // When the request was received, in UTC. The logs have the same three fields; the third distinguishes their lines
    // from these.
    fields.ascii(field!("timestamp"), |out| Rfc3339Text(receipt.received_unix_ms).put(out));
    fields.label(field!("level"), "INFO");
    fields.label(field!("target"), "access");
    fields.ascii(field!("request_id"), |out| out.extend_from_slice(&receipt.id.text()));
    fields.some_text(field!("key"), receipt.key.as_deref());
    fields.some_text(field!("team"), receipt.team.as_deref());
    fields.some_text(field!("policy"), receipt.policy.as_deref());
    fields.some_label(field!("endpoint"), receipt.endpoint.map(Endpoint::name));
    fields.some_text(field!("asked_model"), receipt.asked_model.as_deref().map(readable).as_deref());
    // What served it, or was tried last.
    fields.some_text(field!("model"), served.map(|served| &*served.model));
    fields.some_text(field!("deployment"), served.map(|served| &*served.deployment));
    fields.some_text(field!("tier"), served.and_then(|served| served.tier.as_deref()));
    fields.some_text(field!("region"), served.map(|served| &*served.region));
    // How the provider of `deployment` names the request.
    fields.some_text(field!("provider_request_id"), receipt.provider_request_id());
    fields.boolean(field!("stream"), receipt.stream);
    fields.number(field!("attempts"), receipt.attempts.len() as u64);
    // A single attempt is described by the other fields.
    if receipt.attempts.len() > 1 {
        fields.list(field!("attempt_list"), &receipt.attempts, put_attempt);
    }
    // Attempts to go on with an answer that broke off.
    let replays = receipt.replays().count();
    if replays > 0 {
        fields.number(field!("replays"), replays as u64);
    }
    // Where it was answered elsewhere than the plan first meant.
    if let Some((meant, _)) = receipt.meant_elsewhere() {
        fields.text(field!("meant_model"), &meant.model);
        fields.some_text(field!("meant_tier"), meant.tier.as_deref());
    }
    if !receipt.passed_over.is_empty() {
        fields.list(field!("passed_over"), &receipt.passed_over, put_passed_over);
    }
    fields.label(field!("outcome"), receipt.outcome.label());
    fields.label(field!("reason"), receipt.reason.label());
    fields.some_label(field!("limit"), receipt.limit.map(LimitKind::label));
    fields.number(field!("status"), receipt.status.into());
    if let Some(usage) = usage {
        fields.number(field!("input_tokens"), usage.input);
        fields.number(field!("cached_input_tokens"), usage.cached_input);
        fields.number(field!("output_tokens"), usage.output);
        fields.number(field!("reasoning_tokens"), usage.reasoning);
        fields.boolean(field!("estimated"), receipt.estimated);
    }
    // A string, so that no reader makes a float of money.
    fields.ascii(field!("cost_usd"), |out| out.extend_from_slice(receipt.cost.written(&mut [0; NanoUsd::LONGEST])));
    if let Some(first_token) = receipt.first_token {
        fields.ms(field!("first_token_ms"), first_token);
    }
    if let Some(failover) = receipt.failover {
        fields.ms(field!("failover_ms"), failover);
    }
    fields.ms(field!("duration_ms"), receipt.duration);
    fields.number(field!("overhead_us"), receipt.overhead.as_micros() as u64);
    if left_out > 0 {
        // How many requests without a valid key had no line of their own since the last one that has.
        fields.number(field!("left_out"), left_out);
    }
    fields.close();
    line.push(b'\n');
}

fn put_attempt(attempt: &AttemptRecord, into: &mut Vec<u8>) {
    let mut fields = JsonObjectWriter::open(into);
    fields.text(field!("deployment"), &attempt.deployment);
    fields.some_text(field!("tier"), attempt.tier.as_deref());
    fields.some_text(field!("region"), attempt.region.as_deref());
    fields.some_text(field!("provider_request_id"), attempt.provider_request_id.as_deref());
    fields.label(field!("reason"), attempt.reason.label());
    if let Some(started) = attempt.started {
        fields.ms(field!("started_ms"), started);
    }
    fields.ms(field!("duration_ms"), attempt.duration);
    fields.close();
}

fn put_passed_over(passed: &PassedOverDeployment, into: &mut Vec<u8>) {
    let mut fields = JsonObjectWriter::open(into);
    fields.text(field!("model"), &passed.model);
    fields.text(field!("deployment"), &passed.deployment);
    fields.some_text(field!("tier"), passed.tier.as_deref());
    fields.label(field!("why"), passed.why.label());
    if let Some(until) = passed.until {
        fields.ms(field!("until_ms"), until);
    }
    fields.close();
}

/// Writes a JSON object field by field. Every request writes one, and through serde it costs twice as
/// much (`docs/adr/0009-access-line-by-hand.md`).
struct JsonObjectWriter<'a> {
    out: &'a mut Vec<u8>,
    /// Where the object begins: with the first field's comma, until it is closed.
    start: usize,
}

impl<'a> JsonObjectWriter<'a> {
    fn open(out: &'a mut Vec<u8>) -> Self {
        let start = out.len();
        Self { out, start }
    }

    fn close(self) {
        match self.out.get_mut(self.start) {
            Some(comma) => *comma = b'{',
            None => self.out.push(b'{'),
        }
        self.out.push(b'}');
    }

    /// A field's name, made by `field!`: all of it in one piece, because a line has thirty (`make instructions`).
    fn name(&mut self, name: &'static str) {
        self.out.extend_from_slice(name.as_bytes());
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

    /// A word of ours, which needs no escapes.
    fn label(&mut self, name: &'static str, word: &'static str) {
        self.ascii(name, |out| out.extend_from_slice(word.as_bytes()));
    }

    fn some_label(&mut self, name: &'static str, word: Option<&'static str>) {
        if let Some(word) = word {
            self.label(name, word);
        }
    }

    fn number(&mut self, name: &'static str, number: u64) {
        self.name(name);
        put_number(self.out, number);
    }

    fn boolean(&mut self, name: &'static str, value: bool) {
        self.name(name);
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
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

    /// What `put` writes, in quotes. It must not need escapes.
    fn ascii(&mut self, name: &'static str, put: impl FnOnce(&mut Vec<u8>)) {
        self.name(name);
        self.out.push(b'"');
        put(self.out);
        self.out.push(b'"');
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

/// Names rarely need escapes; serde_json writes those that do.
fn put_string(out: &mut Vec<u8>, text: &str) {
    // Without a branch for each byte, so that many are looked at at once.
    if text.bytes().fold(false, |odd, byte| odd | (byte < b' ') | (byte == b'"') | (byte == b'\\')) {
        serde_json::to_writer(out, text).expect("writing to a Vec cannot fail");
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
    use std::sync::Arc;

    /// Keeps what is written to it.
    #[derive(Clone, Default)]
    struct MemorySink(Arc<Mutex<Vec<u8>>>);

    impl Write for MemorySink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(receipts: &[Receipt]) -> String {
        let sink = MemorySink::default();
        let log = AccessLog::to_writer(Box::new(sink.clone()));
        receipts.iter().for_each(|receipt| log.write(receipt));
        drop(log);
        let bytes = sink.0.lock().clone();
        String::from_utf8(bytes).expect("lines are UTF-8")
    }

    #[test]
    fn every_outcome_has_its_line() {
        insta::assert_snapshot!(written(&samples::receipts()));
    }

    #[test]
    fn every_field_is_documented() {
        let page = include_str!("../../docs/operations.md");
        let (_, section) = page.split_once("### Logs").expect("the page has a section on them");
        let mut receipts = samples::receipts();
        for attempt in receipts.iter_mut().flat_map(|receipt| &mut receipt.attempts) {
            attempt.provider_request_id = Some("x".into());
        }
        let text = written(&receipts);
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("one JSON object"));
        let undocumented = lines.flat_map(|line| {
            let inner = ["attempt_list", "passed_over"].map(|list| line[list][0].as_object().cloned());
            let own = line.as_object().cloned();
            inner.into_iter().chain([own]).flatten().flat_map(|object| object.into_iter().map(|(name, _)| name))
        });
        let undocumented: Vec<_> = undocumented.filter(|name| !section.contains(&format!("`{name}`"))).collect();
        assert_eq!(undocumented, Vec::<String>::new());
    }

    #[test]
    fn attempts_to_go_on_with_an_answer_are_counted() {
        let replays = |receipt: Receipt| {
            serde_json::from_str::<serde_json::Value>(&written(&[receipt])).expect("one JSON object")["replays"]
                .as_u64()
        };
        let mut receipt = samples::receipts().into_iter().find(|receipt| receipt.first_token.is_some()).expect("one");
        assert_eq!(replays(receipt.clone()), None);
        let first_token = receipt.first_token;
        receipt.attempts.last_mut().expect("it was sent").started = first_token.map(|at| at * 2);
        assert_eq!(replays(receipt), Some(1));
    }

    #[test]
    fn whoever_floods_the_gateway_without_a_key_does_not_flood_the_log() {
        let receipt = |key: Option<&str>, received_unix_ms| Receipt {
            key: key.map(Into::into),
            received_unix_ms,
            ..samples::refused()
        };
        const SECOND: i64 = 1_000;
        let flood = (0..50_000).map(|at| receipt(None, 100 * SECOND + at * 37 % SECOND));
        let known = (0..100).map(|at| receipt(Some("app"), 100 * SECOND + at));
        // Around the end of a second they end in any order.
        let mixed = (0..200).map(|at| receipt(None, 101 * SECOND - at % 2));
        let set_back = (0..2).map(|at| receipt(None, SECOND + at));
        let receipts: Vec<_> = flood.chain(known).chain(mixed).chain(set_back).collect();
        let text = written(&receipts);
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("one JSON object"));
        let (known, strangers): (Vec<_>, Vec<_>) = lines.partition(|line| line["key"].is_string());
        assert_eq!((known.len(), strangers.len()), (100, 10 + 10 + 2));
        let left_out: Vec<_> = strangers.iter().filter_map(|line| line["left_out"].as_u64()).collect();
        assert_eq!(left_out, [49_990, 190], "the first line after them counts them");
    }

    #[test]
    fn text_from_a_client_stays_inside_its_field() {
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
