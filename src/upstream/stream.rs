//! One provider's event stream on its way through: frames in, the bytes to pass on out.
//!
//! It cuts reads into frames, lets the meter see each, hides the usage the client did not ask for
//! and judges the end: `[DONE]` leaves here only after every choice has finished. What it does not
//! change it does not copy. It knows nothing of time or of the commit point.
//!
//! Start reading in [`Stream::poll_batch`].

use super::classify;
use super::meter::Meter;
use super::providers::{Reply, Source, Tolerance};
use super::splice::member_span;
use super::sse::{Frame, FrameKind, SseReader};
use crate::domain::call::Call;
use crate::domain::failure::Failure;
use bytes::{Bytes, BytesMut};
use std::ops::Range;
use std::task::{Context, Poll, ready};

/// The largest frame. Images and audio come in frames of some hundred KiB.
const MAX_FRAME: usize = 1024 * 1024;
const DONE: &[u8] = b"data: [DONE]\n\n";

/// A provider's stream being read.
pub(super) struct Stream {
    /// `None` once nothing more is wanted: dropping it cancels the provider's work.
    source: Option<Source>,
    reader: SseReader,
    meter: Meter,
    tolerance: Tolerance,
    /// We asked for usage and the client did not.
    hide_usage: bool,
    expected_choices: u32,
    /// How many bytes went through the reader: where the next frame begins in the stream.
    framed: u64,
    /// How many bytes were pushed into the reader.
    pushed: u64,
    /// What the last read brought after its batch.
    failure: Option<Broken>,
    complete: bool,
}

/// What one read brought.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Batch {
    /// To pass on; empty when there was nothing but what is hidden, or no whole frame.
    pub(super) bytes: Bytes,
    /// A frame with a payload was among it: the provider is at work.
    pub(super) alive: bool,
    /// A good frame was among it.
    pub(super) good: bool,
}

/// Why a stream cannot be passed on.
#[derive(Debug)]
pub(super) enum Broken {
    /// By what it said, or did not say; with a line for the log.
    Failure(Failure, &'static str),
    /// By its connection.
    Transport(reqwest::Error),
}

impl Broken {
    /// What it means after the commit point.
    pub(super) fn failure(&self) -> Failure {
        match self {
            Self::Failure(failure, _) => *failure,
            Self::Transport(error) if classify::broken_body(error) == Failure::Garbage => Failure::Garbage,
            Self::Transport(_) => Failure::Reset,
        }
    }
}

impl Stream {
    /// The stream in `reply`, an answer to `call`.
    pub(super) fn new(reply: Reply, call: &Call) -> Self {
        Self {
            source: Some(reply.source),
            reader: SseReader::new(MAX_FRAME),
            meter: Meter::default(),
            tolerance: reply.tolerance,
            hide_usage: call.facts().ask_usage.is_some(),
            expected_choices: call.expected_choices(),
            framed: 0,
            pushed: 0,
            failure: None,
            complete: false,
        }
    }

    /// What was metered so far.
    pub(super) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Whether the answer is whole: the last bytes of it were handed out.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Cancels the provider's work; nothing more will come.
    pub(super) fn cancel(&mut self) {
        self.source = None;
        self.failure = None;
    }

    /// What the next read brings, `None` at the end of a complete answer. After `[DONE]` it goes on
    /// reading, and ignoring, up to the end, so that the connection can be used again.
    pub(super) fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Batch, Broken>>> {
        loop {
            if let Some(broken) = self.failure.take() {
                self.source = None;
                return Poll::Ready(Some(Err(broken)));
            }
            let Some(source) = &mut self.source else { return Poll::Ready(None) };
            let read = ready!(source.poll_chunk(cx));
            match read {
                Some(_) if self.complete => {
                    if read.is_some_and(|read| read.is_err()) {
                        self.source = None;
                    }
                }
                Some(Ok(chunk)) => return Poll::Ready(Some(Ok(self.read(chunk)))),
                Some(Err(error)) => self.failure = Some(Broken::Transport(error)),
                None if self.complete => self.source = None,
                None => {
                    let last = self.end();
                    self.source = None;
                    return Poll::Ready(Some(Ok(last)));
                }
            }
        }
    }

    fn read(&mut self, chunk: Bytes) -> Batch {
        let mut out = Out::new(chunk.clone(), self.pushed);
        self.pushed += chunk.len() as u64;
        self.reader.push(chunk);
        while !self.is_over() {
            match self.reader.next_frame() {
                Ok(Some(frame)) => self.take(frame, &mut out),
                Ok(None) => break,
                Err(_) => self.fail(Failure::Garbage, "a frame of more than 1 MiB"),
            }
        }
        out.into_batch()
    }

    /// The end of the source: what is left of it, and `[DONE]` where the provider forgot it.
    fn end(&mut self) -> Batch {
        let mut out = Out::new(Bytes::new(), self.pushed);
        while !self.is_over()
            && let Some(frame) = self.reader.finish()
        {
            self.take(frame, &mut out);
        }
        if !self.is_over() {
            match self.meter.all_finished(self.expected_choices) {
                true => self.finish(&mut out, DONE),
                false => self.fail(Failure::Truncated, "the stream ended without every finish_reason"),
            }
        }
        out.into_batch()
    }

    fn is_over(&self) -> bool {
        self.complete || self.failure.is_some()
    }

    fn fail(&mut self, failure: Failure, detail: &'static str) {
        self.failure = Some(Broken::Failure(failure, detail));
    }

    fn finish(&mut self, out: &mut Out, done: &[u8]) {
        out.copy(done);
        self.complete = true;
    }

    fn take(&mut self, frame: Frame, out: &mut Out) {
        let at = self.framed;
        self.framed += frame.raw.len() as u64;
        let payload = frame.data.as_ref().filter(|data| !data.trim_ascii().is_empty());
        match (frame.kind, payload) {
            (FrameKind::Done, _) => self.take_done(&frame, at, out),
            (FrameKind::Data, Some(payload)) => self.take_data(&frame, payload, at, out),
            // A torn comment is of no use to anybody.
            (FrameKind::Data | FrameKind::Comment, _) if !frame.terminated => {}
            (FrameKind::Data | FrameKind::Comment, _) => out.pass(at, &frame.raw),
        }
    }

    fn take_done(&mut self, frame: &Frame, at: u64, out: &mut Out) {
        if !self.tolerance.finish_reason_optional && !self.meter.all_finished(self.expected_choices) {
            return self.fail(Failure::Truncated, "[DONE] came without every finish_reason");
        }
        out.pass(at, &frame.raw);
        if !frame.terminated {
            out.copy(blank_line(&frame.raw));
        }
        self.complete = true;
    }

    fn take_data(&mut self, frame: &Frame, payload: &Bytes, at: u64, out: &mut Out) {
        if frame.event.as_deref() == Some(b"error") {
            return self.fail(Failure::ErrorInside, "an error frame");
        }
        out.alive = true;
        match self.meter.read(payload) {
            Err(_) if !frame.terminated => return self.fail(Failure::Truncated, "the stream ended within a frame"),
            Err(_) if self.tolerance.skip_malformed_frames => out.pass(at, &frame.raw),
            Err(_) => return self.fail(Failure::Garbage, "a frame that is no completion"),
            Ok(seen) if seen.error => return self.fail(Failure::ErrorInside, "an error frame"),
            Ok(seen) => {
                out.good |= seen.good;
                match seen.usage.filter(|_| self.hide_usage) {
                    Some(_) if seen.usage_only => return,
                    Some(usage) => hide(frame, payload, usage, out),
                    None => out.pass(at, &frame.raw),
                }
            }
        }
        if !frame.terminated {
            out.copy(blank_line(&frame.raw));
        }
    }
}

/// Passes `frame` on without the member whose value is `usage`, a slice of `payload`.
fn hide(frame: &Frame, payload: &Bytes, usage: &str, out: &mut Out) {
    let start = usage.as_ptr().addr() - payload.as_ptr().addr();
    let cut = member_span(payload, start..start + usage.len());
    if let Some(at) = place_in(&frame.raw, payload) {
        out.copy(&frame.raw[..at + cut.start]);
        out.copy(&frame.raw[at + cut.end..]);
        return;
    }
    // The payload came in several `data` lines and is a text of its own: it goes out line by line.
    if let Some(event) = &frame.event {
        out.copy(&[b"event: ", &event[..], b"\n"].concat());
    }
    let left = [&payload[..cut.start], &payload[cut.end..]].concat();
    for line in left.split(|&byte| byte == b'\n') {
        out.copy(&[b"data: ", line, b"\n"].concat());
    }
    if frame.terminated {
        out.copy(b"\n");
    }
}

/// Where `part` lies in `all`, when it is a slice of it.
fn place_in(all: &Bytes, part: &Bytes) -> Option<usize> {
    let at = part.as_ptr().addr().checked_sub(all.as_ptr().addr())?;
    (at.checked_add(part.len())? <= all.len()).then_some(at)
}

/// What a last frame without its blank line lacks.
fn blank_line(raw: &[u8]) -> &'static [u8] {
    if raw.ends_with(b"\n") { b"\n" } else { b"\n\n" }
}

/// What goes out of one read, as one piece: a slice of it while nothing was changed, a copy from the
/// first change on.
struct Out {
    chunk: Bytes,
    /// Where the chunk begins in the stream.
    chunk_at: u64,
    held: Held,
    alive: bool,
    good: bool,
}

enum Held {
    Slice(Range<usize>),
    Copy(BytesMut),
}

impl Out {
    fn new(chunk: Bytes, chunk_at: u64) -> Self {
        Self { chunk, chunk_at, held: Held::Slice(0..0), alive: false, good: false }
    }

    /// Passes on `raw`, which begins at `at` in the stream, unchanged.
    fn pass(&mut self, at: u64, raw: &Bytes) {
        let start = at.checked_sub(self.chunk_at).map(|start| start as usize);
        match (&mut self.held, start) {
            (Held::Slice(range), Some(start)) if range.start == range.end => *range = start..start + raw.len(),
            (Held::Slice(range), Some(start)) if range.end == start => range.end += raw.len(),
            _ => self.copy(raw),
        }
    }

    /// Adds bytes that are not in the chunk, or not where they stood.
    fn copy(&mut self, bytes: &[u8]) {
        if let Held::Slice(range) = &self.held {
            let mut copy = BytesMut::with_capacity(self.chunk.len() + bytes.len());
            copy.extend_from_slice(&self.chunk[range.clone()]);
            self.held = Held::Copy(copy);
        }
        if let Held::Copy(copy) = &mut self.held {
            copy.extend_from_slice(bytes);
        }
    }

    fn into_batch(self) -> Batch {
        let bytes = match self.held {
            Held::Slice(range) => self.chunk.slice(range),
            Held::Copy(copy) => copy.freeze(),
        };
        Batch { bytes, alive: self.alive, good: self.good }
    }
}
