//! One provider's event stream on its way through: frames in, the bytes to pass on out.
//!
//! It cuts reads into frames, has the provider's grammar read each, counts what it reads, and ends with a failure
//! where the grammar finds the answer incomplete. What is not changed is not copied. It knows nothing of time or
//! of the commit point.
//!
//! Start reading in [`AnswerStream::poll_batch`].

use super::AttemptError;
use super::classify;
use super::held::{HeldAnswer, MAX_HELD_ANSWER};
use super::meter::AnswerMeter;
use super::providers::{ReplySource, SourceError, UpstreamReply, broken_body};
use crate::domain::call::Call;
use crate::domain::estimate::UsageTally;
use crate::domain::failure::Failure;
use crate::domain::memory::InFlightAllowance;
use crate::domain::provider_state::StateId;
use crate::protocol::sse::{Frame, SseReader, missing_end};
use crate::protocol::{BYTE_ORDER_MARK, FrameEdit, FrameError, Moment, StreamReader};
use bytes::{Bytes, BytesMut};
use std::ops::Range;
use std::task::{Context, Poll, ready};

/// Why a frame is not passed on that is larger than what is free.
const NO_ROOM: &str = "there was no room for a large frame beside those that wait to be read";

/// A provider's stream being read.
pub(super) struct AnswerStream {
    /// `None` once nothing more is wanted: dropping it cancels the provider's work.
    source: Option<ReplySource>,
    framing: SseReader,
    /// The unfinished frame.
    held: HeldAnswer,
    reader: StreamReader,
    meter: AnswerMeter,
    /// What the provider made and was not asked about yet.
    made: Vec<StateId>,
    /// The provider said itself that the answer failed, in words that its client knows, and they were passed on.
    failure_said: bool,
    /// How many bytes went through the framing: where the next frame begins in the stream.
    framed: u64,
    /// How many bytes were pushed into the framing.
    pushed: u64,
    /// What the last read brought after its batch.
    failure: Option<StreamError>,
    complete: bool,
}

/// What one read brought.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct FrameBatch {
    /// To pass on; empty when there was nothing but what is hidden, or no whole frame.
    pub(super) bytes: Bytes,
    /// A frame with a payload was among it: the provider is at work.
    pub(super) alive: bool,
    /// A sign of life was among it that is no part of an answer.
    pub(super) pinged: bool,
    /// A good frame was among it.
    pub(super) good: bool,
}

/// Why a stream cannot be passed on.
#[derive(Debug)]
pub(super) enum StreamError {
    /// Its content, or what is missing of it; with a line for the log.
    Failure(Failure, &'static str),
    /// Where its bytes come from.
    Source(SourceError),
}

impl StreamError {
    /// What it means after the commit point.
    pub(super) fn failure(&self) -> Failure {
        match self {
            Self::Failure(failure, _) => *failure,
            Self::Source(SourceError::Coding(error)) => classify::broken_coding(error),
            Self::Source(SourceError::Connection(error)) if classify::broken_body(error) == Failure::Garbage => {
                Failure::Garbage
            }
            Self::Source(SourceError::Connection(_) | SourceError::Injected) => Failure::Reset,
        }
    }
}

/// What it means before the commit point.
impl From<StreamError> for AttemptError {
    fn from(broken: StreamError) -> Self {
        match broken {
            StreamError::Failure(failure, detail) => Self::new(failure, detail),
            StreamError::Source(error) => broken_body(&error),
        }
    }
}

impl AnswerStream {
    /// The stream in `reply`, an answer to `call`, whose large frames count in `allowance`.
    pub(super) fn new(reply: UpstreamReply, call: &Call, allowance: &InFlightAllowance) -> Self {
        Self {
            source: Some(reply.source),
            framing: SseReader::new(MAX_HELD_ANSWER),
            held: HeldAnswer::none(allowance),
            reader: reply.grammar.stream_reader(call),
            meter: AnswerMeter::default(),
            made: Vec::new(),
            failure_said: false,
            framed: 0,
            pushed: 0,
            failure: None,
            complete: false,
        }
    }

    /// What is known of its tokens so far.
    pub(super) fn tally(&self) -> UsageTally {
        self.meter.tally(self.complete)
    }

    /// What the provider made since this was asked.
    pub(super) fn take_made(&mut self) -> Vec<StateId> {
        std::mem::take(&mut self.made)
    }

    /// The first of that.
    pub(super) fn first_made(&self) -> Option<StateId> {
        self.made.first().copied()
    }

    /// Whether its failure, if it failed, was said to the client.
    pub(super) fn failure_said(&self) -> bool {
        self.failure_said
    }

    /// The number that its next event would have, where events are numbered.
    pub(super) fn next_number(&self) -> u64 {
        self.reader.next_number()
    }

    /// Whether the answer is whole: the last bytes of it were returned.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether all of the answer came and only its end is missing: nothing that follows makes it incomplete.
    pub(super) fn is_finished(&self) -> bool {
        self.reader.is_finished() && !self.complete
    }

    /// Ends it where it is, once it is finished: what is missing of a complete one.
    pub(super) fn close(&mut self) -> Bytes {
        let last = self.end();
        self.source = None;
        last.bytes
    }

    /// Cancels the provider's work; nothing more will come.
    pub(super) fn cancel(&mut self) {
        self.source = None;
        self.failure = None;
    }

    /// What the next read brings, `None` at the end of a complete answer. After the answer's own end it goes on
    /// reading, and ignoring, up to the end of the bytes, so that the connection can be used again.
    pub(super) fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<FrameBatch, StreamError>>> {
        loop {
            if let Some(error) = self.failure.take() {
                self.source = None;
                return Poll::Ready(Some(Err(error)));
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
                Some(Err(error)) if !self.is_finished() => self.failure = Some(StreamError::Source(error)),
                None if self.complete => self.source = None,
                // A connection that breaks behind the answer has only omitted its end.
                Some(Err(_)) | None => {
                    let last = self.end();
                    self.source = None;
                    return Poll::Ready(Some(Ok(last)));
                }
            }
        }
    }

    fn read(&mut self, chunk: Bytes) -> FrameBatch {
        let mut out = BatchBuilder::new(chunk.clone(), self.pushed);
        self.pushed += chunk.len() as u64;
        self.framing.push(chunk);
        while !self.is_over() {
            match self.framing.next_frame() {
                Ok(Some(frame)) => self.take(frame, &mut out),
                Ok(None) => break,
                Err(_) if self.is_finished() => self.add_end(&mut out),
                Err(_) => self.fail(Failure::Unreadable, "a frame of more than 64 MiB"),
            }
        }
        if !self.held.try_hold(self.framing.held()) && !self.is_over() {
            match self.is_finished() {
                true => self.add_end(&mut out),
                false => self.fail(Failure::NotHeld, NO_ROOM),
            }
        }
        let FrameBatch { bytes, alive, pinged, good } = out.into_batch();
        if let Some(bytes) = self.held.passed_on(bytes) {
            return FrameBatch { bytes, alive, pinged, good };
        }
        self.complete = false;
        self.fail(Failure::NotHeld, NO_ROOM);
        FrameBatch { bytes: Bytes::new(), alive, pinged, good: false }
    }

    /// The end of the source: what is left of it, and the grammar's own end where the provider forgot it.
    fn end(&mut self) -> FrameBatch {
        let mut out = BatchBuilder::new(Bytes::new(), self.pushed);
        while !self.is_over()
            && let Some(frame) = self.framing.finish()
        {
            self.take(frame, &mut out);
        }
        if !self.is_over() {
            self.add_end(&mut out);
        }
        out.into_batch()
    }

    fn add_end(&mut self, out: &mut BatchBuilder) {
        match self.reader.end() {
            Ok(closing) => {
                out.copy(closing);
                self.complete = true;
            }
            Err(detail) => self.fail(Failure::Truncated, detail),
        }
    }

    fn is_over(&self) -> bool {
        self.complete || self.failure.is_some()
    }

    fn fail(&mut self, failure: Failure, detail: &'static str) {
        self.failure = Some(StreamError::Failure(failure, detail));
    }

    fn take(&mut self, mut frame: Frame, out: &mut BatchBuilder) {
        let mut at = self.framed;
        self.framed += frame.raw.len() as u64;
        // Some clients take a byte order mark for a part of the field's name, and lose the frame.
        if frame.raw.starts_with(BYTE_ORDER_MARK) {
            at += BYTE_ORDER_MARK.len() as u64;
            frame.raw = frame.raw.slice(BYTE_ORDER_MARK.len()..);
        }
        let Some(event) = frame.event() else {
            // A cut comment is of no use to anybody, and a blank payload is JSON to no client.
            if frame.terminated && frame.data.is_none() {
                out.pass(at, &frame.raw);
            }
            return;
        };
        let (mut good, mut fault, mut end, mut failed) = (false, false, false, false);
        let read = self.reader.read(event, |moment| {
            good |= moment.is_good();
            fault |= moment == Moment::Fault;
            end |= moment == Moment::End;
            failed |= moment == Moment::Failed;
            if let Moment::Made(id) = moment {
                self.made.push(id);
            }
            self.meter.note(moment);
        });
        match read {
            Err(FrameError::Incomplete(detail)) => return self.fail(Failure::Truncated, detail),
            // The beginning of a frame behind all that was asked for.
            Err(FrameError::Malformed(_)) if !frame.terminated && self.reader.end().is_ok() => return,
            Err(FrameError::Malformed(_)) if !frame.terminated => {
                return self.fail(Failure::Truncated, "the stream ended within a frame");
            }
            Err(FrameError::Malformed(detail)) => return self.fail(Failure::Garbage, detail),
            Ok(_) if fault => return self.fail(Failure::ErrorInside, "an error frame"),
            Ok(FrameEdit::Keep) => out.pass(at, &frame.raw),
            Ok(FrameEdit::Unname(span)) => {
                frame.unname();
                frame.write_without(span, |bytes| out.copy(bytes));
            }
            Ok(FrameEdit::Ping) => {
                out.pinged = true;
                // A cut one is of no use to anybody.
                if frame.terminated {
                    out.pass(at, &frame.raw);
                }
                return;
            }
            Ok(FrameEdit::Cut(span)) => frame.write_without(span, |bytes| out.copy(bytes)),
            Ok(FrameEdit::Drop) => {
                out.alive = true;
                return;
            }
            Ok(FrameEdit::Ignore) => return,
        }
        out.alive = true;
        if !frame.terminated {
            out.copy(missing_end(&frame.raw));
        }
        // The line feed that may follow is not waited for.
        if end && frame.raw.ends_with(b"\r\n\r") {
            out.copy(b"\n");
        }
        out.good |= good;
        self.complete |= end;
        if failed {
            self.failure_said = true;
            self.fail(Failure::ErrorInside, "the answer failed, and says so");
        }
    }
}

/// What goes out of one read, as one piece: a slice of it while nothing was changed, a copy from the
/// first change on.
struct BatchBuilder {
    chunk: Bytes,
    /// Where the chunk begins in the stream.
    chunk_at: u64,
    held: PassedBytes,
    alive: bool,
    pinged: bool,
    good: bool,
}

enum PassedBytes {
    Slice(Range<usize>),
    Copy(BytesMut),
}

impl BatchBuilder {
    fn new(chunk: Bytes, chunk_at: u64) -> Self {
        Self { chunk, chunk_at, held: PassedBytes::Slice(0..0), alive: false, pinged: false, good: false }
    }

    /// Passes on `raw`, which begins at `at` in the stream, unchanged.
    fn pass(&mut self, at: u64, raw: &Bytes) {
        let start = at.checked_sub(self.chunk_at).map(|start| start as usize);
        match (&mut self.held, start) {
            (PassedBytes::Slice(range), Some(start)) if range.start == range.end => *range = start..start + raw.len(),
            (PassedBytes::Slice(range), Some(start)) if range.end == start && start + raw.len() <= self.chunk.len() => {
                range.end += raw.len();
            }
            // It began in an earlier read and was put together: it may be large.
            (PassedBytes::Slice(range), None) if range.start == range.end => {
                (self.held, self.chunk, self.chunk_at) = (PassedBytes::Slice(0..raw.len()), raw.clone(), at);
            }
            _ => self.copy(raw),
        }
    }

    /// Adds bytes that are not in the chunk, or not where they stood.
    fn copy(&mut self, bytes: &[u8]) {
        if let PassedBytes::Slice(range) = &self.held {
            let mut copy = BytesMut::with_capacity(self.chunk.len() + bytes.len());
            copy.extend_from_slice(&self.chunk[range.clone()]);
            self.held = PassedBytes::Copy(copy);
        }
        if let PassedBytes::Copy(copy) = &mut self.held {
            copy.extend_from_slice(bytes);
        }
    }

    fn into_batch(self) -> FrameBatch {
        let bytes = match self.held {
            PassedBytes::Slice(range) => self.chunk.slice(range),
            PassedBytes::Copy(copy) => copy.freeze(),
        };
        FrameBatch { bytes, alive: self.alive, pinged: self.pinged, good: self.good }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::call::{Endpoint, RequestMetadata, Splice};
    use crate::protocol::Grammar;
    use crate::protocol::chat::answer::ChatQuirks;
    use crate::upstream::testing::{fed, metadata};
    use http::{HeaderMap, StatusCode};
    use std::task::Waker;

    const BODY: &str = r#"{"model":"m","stream":true}"#;
    /// A stream as OpenAI sends it to who asked for usage.
    const SAMPLE: &str = concat!(
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}],\"usage\":null}\n\n",
        ": ping\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}],\"usage\":null}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":null}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}\n\n",
        "data: [DONE]\n\n",
    );
    const GOOD: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n";
    const STOP: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    const DONE: &str = "data: [DONE]\n\n";

    struct Case {
        metadata: RequestMetadata,
        quirks: ChatQuirks,
    }

    impl Case {
        fn plain() -> Self {
            Self { metadata: metadata(BODY), quirks: ChatQuirks::default() }
        }

        /// The client did not ask for usage; we did.
        fn hiding() -> Self {
            let ask_usage = Some(Splice { at: 1..1, with: Bytes::new() });
            Self { metadata: RequestMetadata { ask_usage, ..metadata(BODY) }, quirks: ChatQuirks::default() }
        }

        fn stream(&self, reads: &[&[u8]]) -> AnswerStream {
            let (headers, grammar) = (HeaderMap::new(), Grammar::Chat(self.quirks));
            let source = fed(reads.iter().map(|read| Bytes::copy_from_slice(read)));
            let call = Call::new(Endpoint::Chat, Bytes::from_static(BODY.as_bytes()), self.metadata.clone());
            AnswerStream::new(
                UpstreamReply { status: StatusCode::OK, headers, source, grammar },
                &call,
                &InFlightAllowance::default(),
            )
        }

        /// What goes out of these reads, and how it ends.
        fn run(&self, reads: &[&[u8]]) -> (String, Option<Failure>) {
            let mut stream = self.stream(reads);
            let (batches, failure) = batches(&mut stream);
            assert_eq!(stream.is_complete(), failure.is_none());
            let bytes: Vec<u8> = batches.iter().flat_map(|batch| &batch.bytes).copied().collect();
            (String::from_utf8(bytes).expect("tests send text"), failure)
        }
    }

    fn batches(stream: &mut AnswerStream) -> (Vec<FrameBatch>, Option<Failure>) {
        let mut cx = Context::from_waker(Waker::noop());
        let mut all = Vec::new();
        loop {
            match stream.poll_batch(&mut cx) {
                Poll::Ready(Some(Ok(batch))) => all.push(batch),
                Poll::Ready(Some(Err(broken))) => return (all, Some(broken.failure())),
                Poll::Ready(None) => return (all, None),
                Poll::Pending => panic!("the source never waits"),
            }
        }
    }

    #[test]
    fn a_stream_cut_anywhere_is_never_presented_as_complete() {
        let finished = SAMPLE.find("\"stop\"").expect("the sample finishes");
        let finished = finished + SAMPLE[finished..].find("\n").expect("its frame ends");
        for case in [Case::plain(), Case::hiding()] {
            for cut in 0..SAMPLE.len() {
                let (out, failure) = case.run(&[&SAMPLE.as_bytes()[..cut]]);
                if cut < finished {
                    assert_eq!(failure, Some(Failure::Truncated), "cut at {cut}");
                }
                assert_eq!(out.contains("[DONE]"), failure.is_none(), "cut at {cut}: {out}");
                assert!(!out.contains("[DONE]") || out.ends_with(DONE), "cut at {cut}: {out}");
            }
        }
    }

    #[test]
    fn a_whole_stream_passes_byte_for_byte_however_it_is_read() {
        for cut in 0..SAMPLE.len() {
            let (head, tail) = SAMPLE.as_bytes().split_at(cut);
            assert_eq!(Case::plain().run(&[head, tail]), (SAMPLE.to_owned(), None), "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = SAMPLE.as_bytes().chunks(1).collect();
        assert_eq!(Case::plain().run(&bytes), (SAMPLE.to_owned(), None));
    }

    #[test]
    fn byte_order_marks_are_left_out() {
        let mark = "\u{feff}";
        let marked = [mark, GOOD, mark, "event: x\n", GOOD, mark, STOP, mark, DONE].concat();
        let expected = [GOOD, "event: x\n", GOOD, STOP, DONE].concat();
        for cut in 0..marked.len() {
            let (head, tail) = marked.as_bytes().split_at(cut);
            assert_eq!(Case::plain().run(&[head, tail]), (expected.clone(), None), "cut at {cut}");
        }
    }

    #[test]
    fn usage_we_asked_for_is_read_and_hidden_however_it_is_read() {
        let without = SAMPLE.replace(",\"usage\":null", "");
        let frame = without.find("data: {\"choices\":[],").expect("the sample has a usage frame");
        let expected = format!("{}{DONE}", &without[..frame]);
        for cut in 0..SAMPLE.len() {
            let (head, tail) = SAMPLE.as_bytes().split_at(cut);
            let mut stream = Case::hiding().stream(&[head, tail]);
            let (batches, failure) = batches(&mut stream);
            let out: Vec<u8> = batches.iter().flat_map(|batch| &batch.bytes).copied().collect();
            assert_eq!((String::from_utf8_lossy(&out), failure), (expected.as_str().into(), None), "cut at {cut}");
            assert_eq!(stream.tally().counted.map(|usage| (usage.input, usage.output)), Some((3, 1)));
        }
    }

    #[test]
    fn hiding_takes_the_usage_and_not_a_byte_more() {
        let check = |frame: &str, expected: &str| {
            let (out, failure) = Case::hiding().run(&[frame.as_bytes(), STOP.as_bytes()]);
            assert_eq!((out, failure), (format!("{expected}{STOP}{DONE}"), None));
        };
        check("data: {\"usage\":null,\"choices\":[]}\n\n", "");
        check("data:{\"a\": 1.0 , \"usage\" : null }\r\n\r\n", "data:{\"a\": 1.0  }\r\n\r\n");
        check("data: {\"usage\":{\"prompt_tokens\":1},\"x\":[2]}\n\n", "data: {\"x\":[2]}\n\n");
        check("data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n\n", "");
        check("data: {\"choices\":[{\"usage\":null}]}\n\n", "data: {\"choices\":[{\"usage\":null}]}\n\n");
        check(": c\nid: 1\ndata: {\"a\":1,\"usage\":null}\nretry: 2\n\n", ": c\nid: 1\ndata: {\"a\":1}\nretry: 2\n\n");
        check("event: e\ndata: {\"a\":1,\ndata: \"usage\":null}\n\n", "event: e\ndata: {\"a\":1}\n\n");
        check(
            "event: error\ndata: {\"choices\":[{\"text\":\"x\"}],\"usage\":null}\n\n",
            "data: {\"choices\":[{\"text\":\"x\"}]}\n\n",
        );
    }

    #[test]
    fn what_one_read_brings_goes_out_as_one_slice_of_it() {
        let read = Bytes::from([GOOD, ": c\n\n", GOOD, "data: {\"ch"].concat());
        let source = fed([read.clone(), Bytes::from("oices\":[]}\n\n")]);
        let mut stream = AnswerStream { source: Some(source), ..Case::plain().stream(&[]) };
        let (batches, _) = batches(&mut stream);
        assert_eq!(batches[0].bytes.as_ptr(), read.as_ptr());
        assert_eq!(batches[0].bytes.len(), 2 * GOOD.len() + 5);
        assert_eq!((batches[0].good, batches[0].alive), (true, true));
        assert_eq!(batches[1].bytes, "data: {\"choices\":[]}\n\n");
    }

    #[test]
    fn the_end_is_judged_by_what_finished() {
        let check = |case: &Case, stream: &[&str], out: &str, failure: Option<Failure>| {
            assert_eq!(case.run(&[stream.concat().as_bytes()]), (out.to_owned(), failure), "{stream:?}");
        };
        let plain = Case::plain();
        let truncated = Some(Failure::Truncated);
        let whole = [GOOD, STOP, DONE].concat();
        check(&plain, &[GOOD, STOP, DONE], &whole, None);
        check(&plain, &[GOOD, STOP], &whole, None);
        check(&plain, &[GOOD, STOP, ": c"], &whole, None);
        check(&plain, &[GOOD, STOP, "data: [DONE]"], &whole, None);
        check(&plain, &[GOOD, STOP, DONE, "whatever", GOOD], &whole, None);
        check(&plain, &[GOOD, STOP.trim_end()], &whole, None);
        check(&plain, &[GOOD, STOP, "data: [DO"], &whole, None);
        check(&plain, &[GOOD, STOP, "data: {oops\n\n", "data: {\"error\":1}\n\ndata: {\"cho"], &whole, None);
        check(&plain, &[GOOD, STOP, GOOD, "data: {"], &[GOOD, STOP, GOOD, DONE].concat(), None);
        check(&plain, &[GOOD, "data: {\"error\":1}\n\n", STOP], GOOD, Some(Failure::ErrorInside));
        check(&plain, &[GOOD, DONE], GOOD, truncated);
        check(&plain, &[GOOD], GOOD, truncated);
        check(&plain, &[], "", truncated);
        let optional = ChatQuirks { finish_reason_optional: true, ..ChatQuirks::default() };
        let lenient = Case { quirks: optional, ..Case::plain() };
        check(&lenient, &[GOOD, DONE], &[GOOD, DONE].concat(), None);
        check(&lenient, &[GOOD], GOOD, truncated);
        let two = Case { metadata: RequestMetadata { choices: 2, ..metadata(BODY) }, ..Case::plain() };
        check(&two, &[GOOD, STOP, DONE], &whole, None);
        let begun = GOOD.replace("\"index\":0", "\"index\":1");
        check(&two, &[GOOD, &begun, STOP, DONE], &[GOOD, &begun, STOP].concat(), truncated);
        let second = STOP.replace("\"index\":0", "\"index\":1");
        check(&two, &[&second, GOOD, STOP, DONE], &[&second, GOOD, STOP, DONE].concat(), None);
        // A choice that was not asked for need not end; one with another number is the one that was asked for.
        check(&plain, &[GOOD, &begun, STOP, DONE], &[GOOD, &begun, STOP, DONE].concat(), None);
        check(&plain, &[&begun, &second, DONE], &[&begun, &second, DONE].concat(), None);
        check(&plain, &[GOOD, &begun, &second, DONE], &[GOOD, &begun, &second].concat(), truncated);
    }

    #[test]
    fn what_is_no_frame_of_an_answer_ends_it() {
        // What goes out of the frame, or the failure that it is.
        let check = |quirks: ChatQuirks, frame: &str, expected: Result<&str, Failure>| {
            let case = Case { quirks, ..Case::plain() };
            let (out, failure) = case.run(&[[GOOD, frame, STOP].concat().as_bytes()]);
            let passed = expected.map_or(GOOD.to_owned(), |passed| [GOOD, passed, STOP, DONE].concat());
            assert_eq!((out, failure), (passed, expected.err()), "{frame}");
        };
        let strict = ChatQuirks::default();
        check(strict, "data: {\"error\":{\"message\":\"x\"}}\n\n", Err(Failure::ErrorInside));
        check(strict, "event: error\ndata: x\n\n", Err(Failure::ErrorInside));
        check(strict, "event: error\ndata: {\"error\":\"x\"}\n\n", Err(Failure::ErrorInside));
        check(strict, "event: error\ndata: {\"message\":\"x\"}\n\n", Ok(""));
        check(strict, "data: {\"object\":\"error\",\"message\":\"x\"}\n\n", Err(Failure::ErrorInside));
        check(strict, "data: {\"code\":\"busy\",\"message\":\"x\"}\n\n", Err(Failure::ErrorInside));
        check(strict, &format!("data: \u{feff}{}", &GOOD[6..]), Ok(GOOD));
        let part = format!("event: error\n{GOOD}");
        check(strict, &part, Ok(GOOD));
        for fine in
            [r#"{"error":0}"#, r#"{"code":"OK","message":"x"}"#, r#"{"object":"error","choices":[{"delta":{}}]}"#]
        {
            let frame = format!("data: {fine}\n\n");
            check(strict, &frame, Ok(&frame));
        }
        check(strict, "data: {oops\n\n", Err(Failure::Garbage));
        for ignored in
            ["data: ping\n\n", "data: : keepalive\n\n", "data: [1]\n\n", "event: ping\ndata: {}\n\n", "data: \n\n"]
        {
            check(strict, ignored, Ok(""));
        }
        for passed in ["event: ping\n\n", ": c\n\n"] {
            check(strict, passed, Ok(passed));
        }
        let forgiving = ChatQuirks { skip_malformed_frames: true, ..strict };
        for passed in ["data: ping\n\n", "data: {oops\n\n"] {
            check(forgiving, passed, Ok(passed));
        }
        check(forgiving, "data: {\"error\":1}\n\n", Err(Failure::ErrorInside));
    }

    #[test]
    fn a_frame_may_be_as_large_as_a_picture() {
        let picture = format!("data: {{\"choices\":[{{\"delta\":{{\"images\":[\"{}\"]}}}}]}}\n\n", "x".repeat(3 << 20));
        let bytes = [&picture, GOOD, STOP].concat();
        let reads: Vec<&[u8]> = bytes.as_bytes().chunks(64 * 1024).collect();
        let (out, failure) = Case::plain().run(&reads);
        assert!(out == [&bytes, DONE].concat() && failure.is_none(), "{failure:?}");
        let mut stream = Case::plain().stream(&[GOOD.as_bytes(), &[b'x'; 2048]]);
        stream.framing = SseReader::new(1024);
        let (sent, failure) = batches(&mut stream);
        assert_eq!((sent[0].bytes.as_ref(), failure), (GOOD.as_bytes(), Some(Failure::Unreadable)));
    }

    /// A stream of Messages.
    const OF_MESSAGES: &str = concat!(
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":3,\"output_tokens\":1}}}\n\n",
        "event: ping\ndata: {\"type\": \"ping\"}\n\n",
        "event: content_block_delta\r\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"Hi\"} , \"n\":1.0e+3}\r\n\r\n",
        ": comment\n\n",
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":5}}\n\n",
        "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
    );

    fn of_messages(reads: &[&[u8]]) -> (Vec<FrameBatch>, Option<Failure>) {
        let source = fed(reads.iter().map(|read| Bytes::copy_from_slice(read)));
        let call = Call::new(Endpoint::Messages, Bytes::from_static(BODY.as_bytes()), metadata(BODY));
        let reply =
            UpstreamReply { status: StatusCode::OK, headers: HeaderMap::new(), source, grammar: Grammar::Messages };
        batches(&mut AnswerStream::new(reply, &call, &InFlightAllowance::default()))
    }

    fn text_of(batches: &[FrameBatch]) -> String {
        let bytes: Vec<u8> = batches.iter().flat_map(|batch| &batch.bytes).copied().collect();
        String::from_utf8(bytes).expect("the sample is text")
    }

    #[test]
    fn messages_pass_byte_for_byte_however_they_are_read() {
        for cut in 0..=OF_MESSAGES.len() {
            let (start, rest) = OF_MESSAGES.as_bytes().split_at(cut);
            let reads: Vec<&[u8]> = [start, rest].into_iter().filter(|read| !read.is_empty()).collect();
            let (passed, failure) = of_messages(&reads);
            assert_eq!((text_of(&passed), failure), (OF_MESSAGES.to_owned(), None), "read in two at {cut}");
        }
    }

    #[test]
    fn messages_cut_anywhere_are_never_presented_as_complete() {
        let whole = OF_MESSAGES.trim_end().len();
        for cut in 0..OF_MESSAGES.len() {
            let (passed, failure) = of_messages(&[&OF_MESSAGES.as_bytes()[..cut]]);
            let text = text_of(&passed);
            let is_whole = cut >= whole;
            assert_eq!(failure, (!is_whole).then_some(Failure::Truncated), "cut at {cut}: {text}");
            assert_eq!(text.contains("message_stop"), is_whole, "cut at {cut}: {text}");
            assert!(OF_MESSAGES.starts_with(text.trim_end()), "cut at {cut}: {text}");
        }
    }

    #[test]
    fn a_ping_is_a_sign_of_life_and_no_frame_of_the_answer() {
        let (passed, _) = of_messages(&[b"event: ping\ndata: {\"type\":\"ping\"}\n\n"]);
        assert_eq!((passed[0].alive, passed[0].pinged, passed[0].good), (false, true, false));
        assert!(!passed[0].bytes.is_empty());
    }
}
