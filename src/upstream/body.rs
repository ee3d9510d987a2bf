//! The rest of an answer after the commit point, handed out as it comes.
//!
//! It watches the silence between frames and the request's own deadline, and ends with a failure
//! rather than pretend that a broken answer is whole. A slow reader never counts against the
//! provider: only waiting for it does. It never retries; what is out is out.
//!
//! Start reading in [`AnswerBody::poll_frames`].

use super::stream::Stream;
use super::{Limit, Patience};
use crate::clock::Clock;
use crate::domain::failure::Failure;
use crate::domain::usage::Usage;
use bytes::Bytes;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::time::Sleep;

/// How long the end of a connection may come after `[DONE]` for the connection to be used again.
const LINGER: Duration = Duration::from_millis(50);

/// The body of an [`Answer`](super::Answer). Dropping it cancels the provider's work.
pub struct AnswerBody(Kind);

enum Kind {
    Whole { bytes: Option<Bytes>, usage: Option<Usage> },
    Live(Box<Live>),
}

impl AnswerBody {
    /// A whole answer.
    pub(super) fn whole(bytes: Bytes, usage: Option<Usage>) -> Self {
        Self(Kind::Whole { bytes: Some(bytes), usage })
    }

    /// The rest of `stream`, after `first`.
    pub(super) fn stream(stream: Stream, first: Bytes, patience: Patience, clock: Clock) -> Self {
        let wait =
            Wait { idle: patience.idle, left: patience.idle, since: None, deadline: patience.deadline, sleep: None };
        Self(Kind::Live(Box::new(Live { stream, first: Some(first), wait, clock, over: false })))
    }

    /// What comes next: whole frames, all that one read brought. `None` at the end of a complete
    /// answer; after a failure, too.
    ///
    /// # Errors
    /// The stream broke: nothing of it may be presented as complete.
    pub fn poll_frames(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        match &mut self.0 {
            Kind::Whole { bytes, .. } => Poll::Ready(bytes.take().map(Ok)),
            Kind::Live(live) => live.poll_frames(cx),
        }
    }

    /// Tokens as the provider counted them, once it said.
    pub fn usage(&self) -> Option<Usage> {
        match &self.0 {
            Kind::Whole { usage, .. } => *usage,
            Kind::Live(live) => live.stream.meter().usage(),
        }
    }

    /// Its length in bytes, where it is known before the end: a whole answer not yet handed out.
    pub fn exact_len(&self) -> Option<u64> {
        match &self.0 {
            Kind::Whole { bytes, .. } => bytes.as_ref().map(|bytes| bytes.len() as u64),
            Kind::Live(_) => None,
        }
    }

    /// Whether everything was handed out and nothing is missing.
    pub fn is_complete(&self) -> bool {
        match &self.0 {
            Kind::Whole { bytes, .. } => bytes.is_none(),
            Kind::Live(live) => live.first.is_none() && live.stream.is_complete(),
        }
    }

    /// Frames that carried a token so far, for guessing usage; 0 for a whole answer.
    pub fn output_frames(&self) -> u64 {
        match &self.0 {
            Kind::Whole { .. } => 0,
            Kind::Live(live) => live.stream.meter().token_frames(),
        }
    }
}

struct Live {
    stream: Stream,
    /// What came up to the commit point.
    first: Option<Bytes>,
    wait: Wait,
    clock: Clock,
    over: bool,
}

impl Live {
    fn poll_frames(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        while !self.over {
            let now = self.clock.now();
            if now >= self.wait.deadline && !self.stream.is_complete() {
                return self.end(Some(Failure::Deadline));
            }
            match self.stream.poll_batch(cx) {
                Poll::Ready(Some(Ok(batch))) => {
                    self.wait.heard(now, batch.alive);
                    if !batch.bytes.is_empty() {
                        return Poll::Ready(Some(Ok(batch.bytes)));
                    }
                }
                Poll::Ready(Some(Err(broken))) => return self.end(Some(broken.failure())),
                Poll::Ready(None) => return self.end(None),
                Poll::Pending => {
                    let done = self.stream.is_complete();
                    let Poll::Ready(failure) = self.wait.poll_over(cx, now, done) else { return Poll::Pending };
                    return self.end((!done).then_some(failure));
                }
            }
        }
        Poll::Ready(None)
    }

    fn end(&mut self, failure: Option<Failure>) -> Poll<Option<Result<Bytes, Failure>>> {
        self.over = true;
        self.stream.cancel();
        Poll::Ready(failure.map(Err))
    }
}

/// How long the provider may still be silent.
struct Wait {
    idle: Duration,
    /// What is left of `idle` since the last payload, as of `since`.
    left: Duration,
    /// Since when we have been waiting for it; `None` while it is the client we wait for.
    since: Option<Instant>,
    deadline: Instant,
    /// Armed at some moment not after the one that counts: moving it on for each frame would cost
    /// more than letting it fire in vain now and then.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Wait {
    /// Something came at `now`; only a payload ends the silence.
    fn heard(&mut self, now: Instant, alive: bool) {
        let waited = self.since.take().map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.left = if alive { self.idle } else { self.left.saturating_sub(waited) };
    }

    /// Nothing is there at `now`; ready when that has lasted too long, with what it means.
    fn poll_over(&mut self, cx: &mut Context<'_>, now: Instant, done: bool) -> Poll<Failure> {
        let left = if done { LINGER } else { self.left };
        let since = *self.since.get_or_insert(now);
        let limit = Limit::earlier(since, left, Failure::IdleTimeout, self.deadline);
        let at = tokio::time::Instant::from_std(limit.at);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if sleep.deadline() > at {
            sleep.as_mut().reset(at);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if sleep.deadline() >= at {
                return Poll::Ready(limit.failure);
            }
            sleep.as_mut().reset(at);
        }
        Poll::Pending
    }
}
