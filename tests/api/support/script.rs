//! Scripts: what a provider answers, in which pieces, with which waits, and how the answer ends.
//!
//! A script is a value; it is played for a request and may look at it. Cuts and waits compose with
//! every script, ready-made or not: `chat_stream("Hello", 3).cut_after_frame(2, Ending::Rst)`.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::{
    gate::Wait,
    journal::Request,
    wire::{Answer, Head, Part, WireStep},
};

/// How a script ends after its last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As HTTP requires, with the last chunk; the connection stays open. After a cut of the body this is
    /// the hardest case: only the content shows that something is missing.
    Clean,
    /// FIN: closed without the last chunk, or before `Content-Length` is reached.
    Fin,
    /// RST, after what was written.
    Rst,
    /// The connection stays open and silent.
    Stall,
}

impl Ending {
    /// Every way a stream can be cut.
    pub const ALL: [Ending; 4] = [Ending::Clean, Ending::Fin, Ending::Rst, Ending::Stall];
}

/// What to answer; clones answer the same.
#[derive(Clone)]
pub struct Script {
    make: Arc<dyn Fn(&Request) -> Answer + Send + Sync>,
}

impl Script {
    /// An answer with this status and no body until one is added.
    pub fn status(status: u16) -> Self {
        Self::head(status, false)
    }

    /// A 200 with an event stream, one chunk per frame.
    pub fn sse() -> Self {
        Self::head(200, true).header("content-type", "text/event-stream; charset=utf-8")
    }

    /// These bytes instead of an HTTP answer.
    pub fn wire(bytes: impl Into<Bytes>) -> Self {
        Self::of(Answer::new(None)).body(bytes)
    }

    /// A script chosen by the request.
    pub fn by(choose: impl Fn(&Request) -> Script + Send + Sync + 'static) -> Self {
        Self { make: Arc::new(move |request| choose(request).answer(request)) }
    }

    /// Adds a header.
    pub fn header(self, name: &str, value: &str) -> Self {
        let header = (name.to_owned(), value.to_owned());
        self.map(move |answer| {
            let head = answer.head.as_mut();
            let head = head.expect("bytes that are not HTTP have no headers");
            head.headers.push(header.clone());
        })
    }

    /// Adds a piece of body: on an event stream a complete frame, including its empty line.
    pub fn body(self, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        self.map(move |answer| answer.parts.push(Part::Frame(bytes.clone())))
    }

    /// Adds a JSON body and its content type.
    pub fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }

    /// Adds a frame `data: …`.
    pub fn frame(self, data: &str) -> Self {
        self.body(format!("data: {data}\n\n"))
    }

    /// Adds the frame `data: [DONE]`.
    pub fn done(self) -> Self {
        self.frame("[DONE]")
    }

    /// Waits here: after everything added so far.
    pub fn wait(self, wait: impl Into<Wait>) -> Self {
        self.wait_after_frame(usize::MAX, wait)
    }

    /// Waits before the first byte of the answer.
    pub fn wait_before_headers(self, wait: impl Into<Wait>) -> Self {
        let wait = wait.into();
        self.map(move |answer| answer.before_head.push(wait.clone()))
    }

    /// Waits after this many frames; 0 is after the headers.
    pub fn wait_after_frame(self, count: usize, wait: impl Into<Wait>) -> Self {
        let wait = wait.into();
        self.map(move |answer| {
            let at = answer.after_frame(count);
            answer.parts.insert(at, Part::Wait(wait.clone()));
        })
    }

    /// Ends like this after the last byte.
    pub fn end(self, ending: Ending) -> Self {
        self.map(move |answer| answer.ending = ending)
    }

    /// Sends the first `bytes` of the body in well-formed chunks, then ends like this. Waits before the cut
    /// stay; a cut past the end sends everything and still ends like this.
    pub fn cut_at_body_byte(self, bytes: usize, ending: Ending) -> Self {
        self.map(move |answer| answer.cut_body(bytes, ending))
    }

    /// Sends `count` frames (0: only the headers), then ends like this. The body of a whole answer is one
    /// frame.
    pub fn cut_after_frame(self, count: usize, ending: Ending) -> Self {
        self.map(move |answer| {
            let bytes = answer.frames().take(count).map(Bytes::len).sum();
            answer.cut_body(bytes, ending);
        })
    }

    /// Sends the first `bytes` of the serialised answer, head and chunk sizes included, then ends like
    /// this; a clean end cannot follow half a chunk.
    pub fn cut_at_wire_byte(self, bytes: usize, ending: Ending) -> Self {
        assert_ne!(ending, Ending::Clean, "cut the body to end cleanly");
        self.map(move |answer| {
            answer.wire_cut = Some(bytes);
            answer.ending = ending;
        })
    }

    /// The body of the answer to this request, frame by frame.
    pub fn frames_for(&self, request: &Request) -> Vec<Bytes> {
        self.answer(request).frames().cloned().collect()
    }

    /// The serialised answer to this request.
    pub fn wire_for(&self, request: &Request) -> Bytes {
        let steps = self.answer(request).steps().into_iter();
        let writes = steps.filter_map(|act| match act {
            WireStep::Write(bytes) => Some(bytes),
            WireStep::Wait(_) => None,
        });
        Bytes::from(writes.collect::<Vec<_>>().concat())
    }

    pub(super) fn answer(&self, request: &Request) -> Answer {
        (self.make)(request)
    }

    fn head(status: u16, chunked: bool) -> Self {
        Self::of(Answer::new(Some(Head { status, headers: Vec::new(), chunked })))
    }

    fn of(answer: Answer) -> Self {
        Self { make: Arc::new(move |_| answer.clone()) }
    }

    fn map(self, change: impl Fn(&mut Answer) + Send + Sync + 'static) -> Self {
        Self {
            make: Arc::new(move |request| {
                let mut answer = self.answer(request);
                change(&mut answer);
                answer
            }),
        }
    }
}
