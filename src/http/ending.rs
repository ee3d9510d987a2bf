//! An answer's body on its way to the client, and how a broken stream ends.
//!
//! A truncated answer must never look complete: after the last good frame come one `error` event and
//! an aborted transport, since some clients notice only the one and some only the other. The trap is
//! that hyper drops what it was handed in the same turn as a body's error, and that an HTTP/2 reset
//! throws away what is still queued. So the body waits until the event has left, and only then errs.
//!
//! Start reading at [`AnswerBody`].

use super::error::Row;
use super::wire::Wire;
use crate::clock::Clock;
use crate::relay::{Broken, ReplyBody};
use crate::telemetry::InFlight;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::time::Sleep;

/// How often a silent stream says that it lives: proxies on the way give up after 30 to 60 s.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long a client that does not read may hold up the end of a broken stream.
const LAST_WORD_PATIENCE: Duration = Duration::from_secs(5);
/// A comment: clients ignore it.
const COMMENT: Bytes = Bytes::from_static(b": keep-alive\n\n");
/// An empty line between events: clients ignore it.
const BLANK: Bytes = Bytes::from_static(b"\n");

/// Fires when streams must end, whatever they still have to say.
pub type Stop = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where an answer's bytes come from.
pub trait Source: Send + Unpin + 'static {
    /// The next bytes: whole frames on a stream. `None` is the honest end.
    fn poll_frames(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>>;
    /// Ends it from our side.
    fn cut(&mut self) -> Broken;
    /// All its bytes, where known.
    fn exact_len(&self) -> Option<u64>;
}

impl Source for ReplyBody {
    fn poll_frames(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        self.poll_frames(cx)
    }

    fn cut(&mut self) -> Broken {
        self.cut()
    }

    fn exact_len(&self) -> Option<u64> {
        self.exact_len()
    }
}

/// The transport is to be aborted: HTTP/1.1 closes without the last chunk, HTTP/2 resets the stream.
#[derive(Debug, thiserror::Error)]
#[error("the answer broke off")]
pub struct Aborted;

/// An answer on its way out. Dropping it before its end drops its source, which then knows that the
/// client left.
pub struct AnswerBody<S> {
    source: S,
    stage: Stage,
    /// `None` for a whole answer.
    streaming: Option<Streaming>,
    /// Bytes a whole answer has still to send, where known.
    remaining: Option<u64>,
    /// The request counts as in flight until its body ends.
    _in_flight: InFlight,
}

enum Stage {
    Flowing,
    /// The error event was handed out.
    Leaving(LastWord),
    Ended,
}

/// Waits until the error event has left.
struct LastWord {
    wire: Arc<Wire>,
    /// On HTTP/2 two empty lines follow the event. A stream takes one buffer at a time there
    /// (`server::MAX_SEND_BUFFER`), so that being asked for more after the first line says that all of
    /// the event is in the connection's own buffer, out of a reset's reach. That buffer is flushed by
    /// another task, perhaps already: the second line makes sure that a flush is still to come.
    blanks_due: u8,
    /// The flushes there had been when the event was out of reach; one more, and it is all gone.
    since: Option<u64>,
    patience: Pin<Box<Sleep>>,
}

struct Streaming {
    clock: Clock,
    /// `None` where nobody watches the connection: the last word cannot be waited for then.
    wire: Option<Arc<Wire>>,
    stop: Stop,
    /// When the last byte was handed out. The timer is moved only when it fires, not at each frame.
    heard: Instant,
    keep_alive: Pin<Box<Sleep>>,
    /// Whether what was handed out ends with a whole frame: a comment may follow.
    between_frames: bool,
}

impl<S: Source> AnswerBody<S> {
    /// A whole answer.
    pub fn whole(source: S, in_flight: InFlight) -> Self {
        let remaining = source.exact_len();
        Self { source, stage: Stage::Flowing, streaming: None, remaining, _in_flight: in_flight }
    }

    /// A stream of events, going out on `wire`, to be ended early when `stop` fires.
    pub fn stream(source: S, in_flight: InFlight, wire: Option<Arc<Wire>>, stop: Stop, clock: Clock) -> Self {
        let heard = clock.now();
        let keep_alive = Box::pin(tokio::time::sleep_until((heard + KEEP_ALIVE).into()));
        let streaming = Streaming { clock, wire, stop, heard, keep_alive, between_frames: true };
        Self { source, stage: Stage::Flowing, streaming: Some(streaming), remaining: None, _in_flight: in_flight }
    }

    fn poll_flowing(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Aborted>>> {
        match self.source.poll_frames(cx) {
            Poll::Ready(Some(Ok(bytes))) => {
                self.note(&bytes, cx);
                Poll::Ready(Some(Ok(bytes)))
            }
            Poll::Ready(Some(Err(broken))) => Poll::Ready(Some(self.break_off(broken))),
            Poll::Ready(None) => {
                self.stage = Stage::Ended;
                Poll::Ready(None)
            }
            Poll::Pending => {
                let Some(streaming) = &mut self.streaming else { return Poll::Pending };
                if streaming.stop.as_mut().poll(cx).is_ready() {
                    let broken = self.source.cut();
                    return Poll::Ready(Some(self.break_off(broken)));
                }
                ready!(streaming.poll_silence(cx));
                Poll::Ready(Some(Ok(COMMENT)))
            }
        }
    }

    fn note(&mut self, bytes: &Bytes, cx: &mut Context<'_>) {
        if let Some(streaming) = &mut self.streaming {
            streaming.heard = streaming.clock.now();
            streaming.between_frames = ends_frame(bytes);
        }
        if let Some(remaining) = &mut self.remaining {
            *remaining = remaining.saturating_sub(bytes.len() as u64);
            if *remaining == 0 {
                // hyper does not ask again once `content-length` is reached; the source must still
                // learn that its end was reached and not its client lost.
                let _ = self.source.poll_frames(cx);
                self.stage = Stage::Ended;
            }
        }
    }

    /// The error event, for a stream whose end can be watched; the transport's abort otherwise.
    fn break_off(&mut self, broken: Broken) -> Result<Bytes, Aborted> {
        let wire = self.streaming.as_ref().and_then(|streaming| streaming.wire.clone());
        let Some(wire) = wire else {
            self.stage = Stage::Ended;
            return Err(Aborted);
        };
        let patience = Box::pin(tokio::time::sleep(LAST_WORD_PATIENCE));
        let blanks_due = if wire.is_http2() { 2 } else { 0 };
        self.stage = Stage::Leaving(LastWord { blanks_due, wire, since: None, patience });
        Ok(error_event(broken))
    }

    fn poll_leaving(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Aborted>>> {
        let Stage::Leaving(word) = &mut self.stage else { return Poll::Ready(None) };
        if word.blanks_due > 1 {
            word.blanks_due -= 1;
            return Poll::Ready(Some(Ok(BLANK)));
        }
        let since = *word.since.get_or_insert_with(|| word.wire.flushes());
        if std::mem::take(&mut word.blanks_due) == 1 {
            return Poll::Ready(Some(Ok(BLANK)));
        }
        if word.wire.poll_flushed(since, cx).is_pending() {
            ready!(word.patience.as_mut().poll(cx));
        }
        self.stage = Stage::Ended;
        Poll::Ready(Some(Err(Aborted)))
    }
}

impl<S: Source> Body for AnswerBody<S> {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let next = match self.stage {
            Stage::Flowing => self.poll_flowing(cx),
            Stage::Leaving(_) => self.poll_leaving(cx),
            Stage::Ended => Poll::Ready(None),
        };
        next.map(|end| end.map(|result| result.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.stage, Stage::Ended)
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Streaming {
    /// Ready when the client has heard nothing for [`KEEP_ALIVE`] and stands between two frames.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.keep_alive.as_mut().poll(cx));
            let now = self.clock.now();
            let silent = now >= self.heard + KEEP_ALIVE;
            if silent {
                self.heard = now;
            }
            self.keep_alive.as_mut().reset((self.heard + KEEP_ALIVE).into());
            if silent && self.between_frames {
                return Poll::Ready(());
            }
        }
    }
}

/// What a broken stream says last.
fn error_event(broken: Broken) -> Bytes {
    let mut event = b"data: ".to_vec();
    event.extend(Row::broken(broken).json());
    event.extend(b"\n\n");
    event.into()
}

fn ends_frame(bytes: &[u8]) -> bool {
    [&b"\n\n"[..], b"\r\n\r\n", b"\r\r"].iter().any(|end| bytes.ends_with(end))
}
