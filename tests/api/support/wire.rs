//! One answer before it is serialised: a head, parts, an ending, and where it is cut.
//!
//! Everything between two waits is written at once, so that the reader sees the last bytes and the abort
//! of the transport together, which is the harder case. Each part is one HTTP chunk.

use bytes::{Bytes, BytesMut};
use http::StatusCode;

use super::{gate::Wait, script::Ending};

/// An answer to one request; a script makes a fresh one each time.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) head: Option<Head>,
    pub(super) before_head: Vec<Wait>,
    pub(super) parts: Vec<Part>,
    pub(super) ending: Ending,
    /// The `Content-Length` header, where it differs from what is sent.
    pub(super) promised: Option<usize>,
    pub(super) wire_cut: Option<usize>,
}

/// Status and headers, without those for the framing.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) chunked: bool,
}

/// A piece of the body, or a wait within it.
#[derive(Clone, Debug)]
pub(super) enum Part {
    Frame(Bytes),
    Wait(Wait),
}

/// The provider's next step.
#[derive(Clone, Debug)]
pub(super) enum WireStep {
    Write(Bytes),
    Wait(Wait),
}

impl Answer {
    pub(super) fn new(head: Option<Head>) -> Self {
        Self { head, before_head: Vec::new(), parts: Vec::new(), ending: Ending::Clean, promised: None, wire_cut: None }
    }

    /// The pieces of the body in order.
    pub(super) fn frames(&self) -> impl Iterator<Item = &Bytes> {
        self.parts.iter().filter_map(|part| match part {
            Part::Frame(frame) => Some(frame),
            Part::Wait(_) => None,
        })
    }

    /// Where in `parts` the answer goes on after its first `count` frames.
    pub(super) fn after_frame(&self, count: usize) -> usize {
        let is_frame = |(_, part): &(usize, &Part)| matches!(part, Part::Frame(_));
        let mut frames = self.parts.iter().enumerate().filter(is_frame);
        match count {
            0 => 0,
            _ => frames.nth(count - 1).map_or(self.parts.len(), |(at, _)| at + 1),
        }
    }

    /// Keeps the first `bytes` of the body and the waits up to there. With a clean end, `Content-Length`
    /// is what is sent; with any other it stays that of the whole body.
    pub(super) fn cut_body(&mut self, bytes: usize, ending: Ending) {
        if ending != Ending::Clean && self.promised.is_none() {
            self.promised = Some(self.frames().map(Bytes::len).sum());
        }
        let mut left = bytes;
        let mut cut = false;
        self.parts.retain_mut(|part| {
            if let (Part::Frame(frame), false) = (part, cut) {
                cut = frame.len() > left;
                frame.truncate(left);
                left -= frame.len();
                return !frame.is_empty();
            }
            !cut
        });
        self.ending = ending;
    }

    /// The answer as writes and waits.
    pub(super) fn steps(&self) -> Vec<WireStep> {
        let mut recorder = StepRecorder::new(self.wire_cut);
        self.before_head.iter().for_each(|wait| recorder.wait(wait));
        let chunked = self.head.as_ref().is_some_and(|head| head.chunked);
        if let Some(head) = &self.head {
            recorder.write(self.head_on_the_wire(head).as_bytes());
        }
        for part in &self.parts {
            match part {
                Part::Wait(wait) => recorder.wait(wait),
                Part::Frame(frame) if chunked => {
                    recorder.write(format!("{:x}\r\n", frame.len()).as_bytes());
                    recorder.write(frame);
                    recorder.write(b"\r\n");
                }
                Part::Frame(frame) => recorder.write(frame),
            }
        }
        // A cut of the serialised answer, unlike one of the body, keeps the answer whole and sends its start.
        if chunked && (self.ending == Ending::Clean || self.wire_cut.is_some()) {
            recorder.write(b"0\r\n\r\n");
        }
        recorder.steps()
    }

    fn head_on_the_wire(&self, head: &Head) -> String {
        let reason =
            StatusCode::from_u16(head.status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Unnamed");
        let mut text = format!("HTTP/1.1 {} {reason}\r\n", head.status);
        for (name, value) in &head.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        match head.chunked {
            true => text.push_str("transfer-encoding: chunked\r\n\r\n"),
            false => {
                let sent = self.frames().map(Bytes::len).sum();
                let promised = self.promised.unwrap_or(sent);
                text.push_str(&format!("content-length: {promised}\r\n\r\n"));
            }
        }
        text
    }
}

/// Joins writes, and ignores everything after a write that had to be cut short.
struct StepRecorder {
    steps: Vec<WireStep>,
    joined: BytesMut,
    remaining: usize,
    cut: bool,
}

impl StepRecorder {
    fn new(limit: Option<usize>) -> Self {
        Self { steps: Vec::new(), joined: BytesMut::new(), remaining: limit.unwrap_or(usize::MAX), cut: false }
    }

    fn write(&mut self, bytes: &[u8]) {
        let taken = bytes.len().min(self.remaining);
        self.cut |= taken < bytes.len();
        self.remaining -= taken;
        self.joined.extend_from_slice(&bytes[..taken]);
    }

    fn wait(&mut self, wait: &Wait) {
        if !self.cut {
            self.flush();
            self.steps.push(WireStep::Wait(wait.clone()));
        }
    }

    fn flush(&mut self) {
        if !self.joined.is_empty() {
            self.steps.push(WireStep::Write(self.joined.split().freeze()));
        }
    }

    fn steps(mut self) -> Vec<WireStep> {
        self.flush();
        self.steps
    }
}
