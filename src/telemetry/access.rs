//! The access log: one JSON object per request, on one line.
//!
//! A line holds what its receipt holds: names and numbers, never a secret, a prompt or an answer.
//! The request's thread formats it and hands it over; another one writes, and when nobody reads
//! what it writes, lines are dropped and counted rather than requests held up.
//!
//! The fields are those of [`Line`], their units end their names, and they are stable.

use super::rfc3339::Rfc3339;
use crate::domain::call::Endpoint;
use crate::domain::readable::readable;
use crate::domain::receipt::{AttemptRecord, Receipt};
use crate::domain::refusal::LimitKind;
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::fmt;
use std::io::Write;
use std::time::Duration;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

/// Lines waiting to be written; more are dropped. Under a second of a very busy gateway, some
/// megabytes at most: a reader slower than that is slower for good.
const WAITING: usize = 16_384;

/// Where the lines go.
#[derive(Debug)]
pub struct AccessLog {
    writer: Option<NonBlocking>,
    /// Dropped after `writer`: waits, for a second at most, for what was handed over to be written.
    _worker: Option<WorkerGuard>,
}

impl AccessLog {
    /// No lines.
    pub fn off() -> Self {
        Self { writer: None, _worker: None }
    }

    /// To `writer`, by a thread of its own, which ends when this is dropped.
    pub fn to_writer(writer: Box<dyn Write + Send>) -> Self {
        let (writer, worker) = in_background(writer);
        Self { writer: Some(writer), _worker: Some(worker) }
    }

    /// Beside the logs: [`Logs::access`](super::log::Logs::access).
    pub(super) fn beside(writer: NonBlocking) -> Self {
        Self { writer: Some(writer), _worker: None }
    }

    /// Writes the line of `receipt`.
    pub fn write(&self, receipt: &Receipt) {
        let Some(writer) = &self.writer else { return };
        let mut line = serde_json::to_vec(&Line(receipt)).expect("a line has string keys and finite numbers");
        line.push(b'\n');
        // Handing over never fails; a line that finds no room is counted as dropped.
        let _ = writer.clone().write_all(&line);
    }

    /// The count of lines dropped, to be read later.
    pub(super) fn dropped(&self) -> Dropped {
        Dropped(self.writer.as_ref().map(NonBlocking::error_counter))
    }
}

/// How many lines found no room.
pub(super) struct Dropped(Option<ErrorCounter>);

impl Dropped {
    /// Until now.
    pub(super) fn lines(&self) -> u64 {
        self.0.as_ref().map_or(0, |counter| counter.dropped_lines() as u64)
    }
}

/// Hands lines to a thread that writes them. It flushes when no more lines wait, so behind a
/// buffer many lines become one write.
pub(super) fn in_background(writer: impl Write + Send + 'static) -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default().buffered_lines_limit(WAITING).thread_name("tierway-log").finish(writer)
}

/// One line: the fields, in order. One that does not apply is left out.
struct Line<'a>(&'a Receipt);

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let receipt = self.0;
        let served = receipt.served.as_ref();
        let mut fields = Fields(serializer.serialize_map(None)?);
        // When the request was received, in UTC.
        fields.put("time", &Shown(Rfc3339(receipt.received_unix_ms)))?;
        // Tells these lines from those of the logs, which have the same field.
        fields.put("target", "access")?;
        fields.put("request_id", &Shown(receipt.id))?;
        fields.put_some("key", receipt.key.as_deref())?;
        fields.put_some("team", receipt.team.as_deref())?;
        fields.put_some("policy", receipt.policy.as_deref())?;
        fields.put_some("endpoint", receipt.endpoint.map(Endpoint::name))?;
        fields.put_some("asked_model", receipt.asked_model.as_deref().map(readable))?;
        // What served it, or was tried last.
        fields.put_some("model", served.map(|served| &*served.model))?;
        fields.put_some("deployment", served.map(|served| &*served.deployment))?;
        fields.put_some("tier", served.and_then(|served| served.tier.as_deref()))?;
        fields.put_some("region", served.map(|served| &*served.region))?;
        fields.put("stream", &receipt.stream)?;
        fields.put("attempts", &receipt.attempts.len())?;
        // One attempt is told by the fields around it.
        fields.put_some("attempt_list", (receipt.attempts.len() > 1).then_some(Attempts(&receipt.attempts)))?;
        fields.put("outcome", receipt.outcome.label())?;
        fields.put("reason", receipt.reason.label())?;
        fields.put_some("limit", receipt.limit.map(LimitKind::label))?;
        fields.put("status", &receipt.status)?;
        fields.put_some("input_tokens", receipt.usage.map(|usage| usage.input))?;
        fields.put_some("cached_input_tokens", receipt.usage.map(|usage| usage.cached_input))?;
        fields.put_some("output_tokens", receipt.usage.map(|usage| usage.output))?;
        fields.put_some("reasoning_tokens", receipt.usage.map(|usage| usage.reasoning))?;
        fields.put_some("estimated", receipt.usage.map(|_| receipt.estimated))?;
        // A string: money is never a float, in no reader either.
        fields.put("cost_usd", &Shown(receipt.cost))?;
        fields.put_some("first_token_ms", receipt.first_token.map(ms))?;
        fields.put("duration_ms", &ms(receipt.duration))?;
        fields.put("overhead_us", &receipt.overhead.as_micros())?;
        fields.0.end()
    }
}

/// The attempts of one line.
struct Attempts<'a>(&'a [AttemptRecord]);

impl Serialize for Attempts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Try))
    }
}

struct Try<'a>(&'a AttemptRecord);

impl Serialize for Try<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = Fields(serializer.serialize_map(None)?);
        fields.put("deployment", &*self.0.deployment)?;
        fields.put_some("tier", self.0.tier.as_deref())?;
        fields.put("reason", self.0.reason.label())?;
        fields.put("duration_ms", &ms(self.0.duration))?;
        fields.0.end()
    }
}

/// An object being written.
struct Fields<M>(M);

impl<M: SerializeMap> Fields<M> {
    fn put(&mut self, name: &'static str, value: &(impl Serialize + ?Sized)) -> Result<(), M::Error> {
        self.0.serialize_entry(name, value)
    }

    fn put_some(&mut self, name: &'static str, value: Option<impl Serialize>) -> Result<(), M::Error> {
        value.map_or(Ok(()), |value| self.put(name, &value))
    }
}

/// A value written as it is shown, in quotes.
struct Shown<T>(T);

impl<T: fmt::Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Milliseconds, exact to the microsecond.
fn ms(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1_000.0
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

    #[test]
    fn a_reader_that_stalls_costs_lines_and_not_time() {
        /// Never returns from a write before it is let go.
        struct Stalled(std::sync::mpsc::Receiver<()>);
        impl Write for Stalled {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let _ = self.0.recv();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (let_go, stalled) = std::sync::mpsc::channel();
        let log = AccessLog::to_writer(Box::new(Stalled(stalled)));
        let dropped = log.dropped();
        let receipt = samples::refused();
        for _ in 0..WAITING + 100 {
            log.write(&receipt);
        }
        // One line at most is in the writer's hands.
        assert!((99..=100).contains(&dropped.lines()), "{}", dropped.lines());
        drop(let_go);
    }
}
