//! The rest of an answer after the commit point, returned as it comes.
//!
//! It watches the silence between frames and the request's own deadline, and ends with a failure
//! rather than pretend that a broken answer is whole. A slow reader never counts against the
//! provider: only waiting for it does. It never retries: what was returned cannot be taken back.
//!
//! Start reading in [`AnswerBody::poll_frames`].

use super::request::{TimeLimit, Timeouts};
use super::stream::AnswerStream;
use crate::clock::Clock;
use crate::domain::estimate::UsageTally;
use crate::domain::failure::Failure;
use crate::domain::provider_state::StateId;
use crate::protocol::Grammar;
use bytes::Bytes;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::time::Sleep;

/// How long after the end of the answer the end of its bytes may come for the connection to be used again.
const LINGER: Duration = Duration::from_millis(50);

/// How long a stream that has said everything may be silent before it is ended for its provider: its count of tokens
/// may follow, and its own end.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// How long nothing may come within an answer before that counts against its deployment. The answer goes on: whoever is
/// only slow has until `idle`.
const STALLED_AFTER: Duration = Duration::from_secs(20);

/// The body of an [`UpstreamAnswer`](super::UpstreamAnswer). Dropping it cancels the provider's work.
pub struct AnswerBody(BodyForm);

enum BodyForm {
    Whole { bytes: Option<Bytes>, grammar: Grammar, tally: UsageTally, made: Vec<StateId> },
    Stream(Box<StreamBody>),
}

impl AnswerBody {
    /// A whole answer, in the provider's `grammar`, with what was `made` by it.
    pub(super) fn whole(bytes: Bytes, grammar: Grammar, tally: UsageTally, made: Vec<StateId>) -> Self {
        Self(BodyForm::Whole { bytes: Some(bytes), grammar, tally, made })
    }

    /// The rest of `stream`, after `first`.
    pub(super) fn stream(stream: AnswerStream, first: Bytes, timeouts: Timeouts, clock: Clock) -> Self {
        let silence = SilenceTimer {
            idle: timeouts.idle,
            left: longest_silence(timeouts.idle, stream.is_finished()),
            since: None,
            deadline: timeouts.deadline,
            sleep: None,
            stalled: false,
        };
        Self(BodyForm::Stream(Box::new(StreamBody {
            stream,
            first: Some(first),
            heard_at: None,
            silence,
            clock,
            over: false,
        })))
    }

    /// What comes next: whole frames, all that one read brought. `None` at the end of a complete
    /// answer; after a failure, too.
    ///
    /// # Errors
    /// The stream broke: nothing of it may be presented as complete.
    pub fn poll_frames(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        match &mut self.0 {
            BodyForm::Whole { bytes, .. } => Poll::Ready(bytes.take().map(Ok)),
            BodyForm::Stream(stream) => stream.poll_frames(cx),
        }
    }

    /// What the provider made since this was asked, and later requests may refer to.
    pub fn take_made(&mut self) -> Vec<StateId> {
        match &mut self.0 {
            BodyForm::Whole { made, .. } => std::mem::take(made),
            BodyForm::Stream(stream) => stream.stream.take_made(),
        }
    }

    /// The first of that.
    pub fn first_made(&self) -> Option<StateId> {
        match &self.0 {
            BodyForm::Whole { made, .. } => made.first().copied(),
            BodyForm::Stream(stream) => stream.stream.first_made(),
        }
    }

    /// Whether its failure, if it failed, was said to the client in words that it knows: nothing is to be added.
    pub fn failure_said(&self) -> bool {
        match &self.0 {
            BodyForm::Whole { .. } => false,
            BodyForm::Stream(stream) => stream.stream.failure_said(),
        }
    }

    /// The number that the next event of a stream would have, where events are numbered.
    pub fn next_number(&self) -> u64 {
        match &self.0 {
            BodyForm::Whole { .. } => 0,
            BodyForm::Stream(stream) => stream.stream.next_number(),
        }
    }

    /// When the latest frames of a stream came from its provider.
    pub fn heard_at(&self) -> Option<Instant> {
        match &self.0 {
            BodyForm::Whole { .. } => None,
            BodyForm::Stream(stream) => stream.heard_at,
        }
    }

    /// Whether nothing has come of it for so long that it counts against its deployment, although it may go on.
    pub fn is_stalled(&self) -> bool {
        match &self.0 {
            BodyForm::Whole { .. } => false,
            BodyForm::Stream(stream) => stream.silence.stalled,
        }
    }

    /// Since when its provider is waited for in the middle of the answer.
    pub fn waited_since(&self) -> Option<Instant> {
        match &self.0 {
            BodyForm::Whole { .. } => None,
            BodyForm::Stream(stream) => stream.silence.since.filter(|_| !stream.stream.is_finished()),
        }
    }

    /// What is known of its tokens by now.
    pub fn tally(&self) -> UsageTally {
        match &self.0 {
            BodyForm::Whole { tally, .. } => *tally,
            BodyForm::Stream(stream) => stream.stream.tally(),
        }
    }

    /// Bytes of text in a whole answer that was not returned yet: it is read for that once more.
    pub fn whole_text_bytes(&self) -> Option<u64> {
        match &self.0 {
            BodyForm::Whole { bytes, grammar, .. } => bytes.as_ref().map(|bytes| grammar.text_bytes(bytes)),
            BodyForm::Stream(_) => None,
        }
    }

    /// Its length in bytes, where it is known before the end: a whole answer not yet returned.
    pub fn exact_len(&self) -> Option<u64> {
        match &self.0 {
            BodyForm::Whole { bytes, .. } => bytes.as_ref().map(|bytes| bytes.len() as u64),
            BodyForm::Stream(_) => None,
        }
    }

    /// Whether everything was returned and nothing is missing.
    pub fn is_complete(&self) -> bool {
        match &self.0 {
            BodyForm::Whole { bytes, .. } => bytes.is_none(),
            BodyForm::Stream(stream) => stream.first.is_none() && stream.stream.is_complete(),
        }
    }
}

struct StreamBody {
    stream: AnswerStream,
    /// What came up to the commit point.
    first: Option<Bytes>,
    heard_at: Option<Instant>,
    silence: SilenceTimer,
    clock: Clock,
    over: bool,
}

impl StreamBody {
    fn poll_frames(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        while !self.over {
            let now = self.clock.now();
            if now >= self.silence.deadline && !self.stream.is_complete() {
                return self.run_out(Failure::Deadline);
            }
            match self.stream.poll_batch(cx) {
                Poll::Ready(Some(Ok(batch))) => {
                    self.silence.note(now, batch.alive || batch.pinged, self.stream.is_finished());
                    self.heard_at = Some(now);
                    if !batch.bytes.is_empty() {
                        return Poll::Ready(Some(Ok(batch.bytes)));
                    }
                }
                Poll::Ready(Some(Err(broken))) => return self.end(Some(broken.failure())),
                Poll::Ready(None) => return self.end(None),
                Poll::Pending => {
                    let done = self.stream.is_complete();
                    let Poll::Ready(failure) = self.silence.poll_over(cx, now, done) else { return Poll::Pending };
                    return self.run_out(failure);
                }
            }
        }
        Poll::Ready(None)
    }

    /// Its time is over: that ends an answer of which all came, and breaks any other.
    fn run_out(&mut self, failure: Failure) -> Poll<Option<Result<Bytes, Failure>>> {
        if self.stream.is_finished() {
            return Poll::Ready(Some(Ok(self.stream.close())));
        }
        let is_complete = self.stream.is_complete();
        self.end((!is_complete).then_some(failure))
    }

    fn end(&mut self, failure: Option<Failure>) -> Poll<Option<Result<Bytes, Failure>>> {
        self.over = true;
        self.stream.cancel();
        Poll::Ready(failure.map(Err))
    }
}

/// How long the provider may still be silent.
struct SilenceTimer {
    idle: Duration,
    /// What is left of `idle` since the last payload, as of `since`.
    left: Duration,
    /// Since when we have been waiting for it; `None` while it is the client we wait for.
    since: Option<Instant>,
    deadline: Instant,
    /// Armed at some moment not after the one that counts: moving it on for each frame would cost
    /// more than letting it fire in vain now and then.
    sleep: Option<Pin<Box<Sleep>>>,
    /// It has lasted for [`STALLED_AFTER`].
    stalled: bool,
}

/// How long a stream may be silent: what may follow one that has finished is not waited for long.
fn longest_silence(idle: Duration, finished: bool) -> Duration {
    if finished { idle.min(GRACE) } else { idle }
}

impl SilenceTimer {
    /// Something came at `now`; only a payload ends the silence.
    fn note(&mut self, now: Instant, alive: bool, finished: bool) {
        let waited = self.since.take().map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let longest = longest_silence(self.idle, finished);
        self.left = if alive { longest } else { self.left.saturating_sub(waited).min(longest) };
        self.stalled &= !alive;
    }

    /// Nothing is there at `now`; ready when that has lasted too long, with what it means.
    fn poll_over(&mut self, cx: &mut Context<'_>, now: Instant, done: bool) -> Poll<Failure> {
        let left = if done { LINGER } else { self.left };
        let since = *self.since.get_or_insert(now);
        let limit = TimeLimit::earlier(since, left, Failure::IdleTimeout, self.deadline);
        // Where less is left, it is over, or all of the answer came.
        let until_stall = left.checked_sub(self.idle.saturating_sub(STALLED_AFTER)).filter(|_| !self.stalled && !done);
        let stall_at = until_stall.map(|until| since + until).filter(|at| *at < limit.at);
        let mut at = tokio::time::Instant::from_std(stall_at.unwrap_or(limit.at));
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if sleep.deadline() > at {
            sleep.as_mut().reset(at);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if sleep.deadline() >= at {
                if stall_at.is_none() || self.stalled {
                    return Poll::Ready(limit.failure);
                }
                self.stalled = true;
                at = tokio::time::Instant::from_std(limit.at);
            }
            sleep.as_mut().reset(at);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::memory::InFlightAllowance;
    use crate::protocol::chat::answer::ChatQuirks;
    use crate::upstream::providers::UpstreamReply;
    use crate::upstream::testing::{call, drain, feed};
    use http::{HeaderMap, StatusCode};
    use std::future::poll_fn;
    use std::io;
    use tokio::sync::mpsc::UnboundedSender;
    use tokio::time::{advance, timeout};

    const GOOD: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n";
    const STOP: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}\n\n";
    const DONE: &str = "data: [DONE]\n\n";

    struct Provider(Option<UnboundedSender<io::Result<Bytes>>>);

    impl Provider {
        fn sends(&self, frames: &[&str]) {
            let sender = self.0.as_ref().expect("it has not ended yet");
            sender.send(Ok(frames.concat().into())).expect("the body is alive");
        }

        /// Whether its work was cancelled.
        fn is_cancelled(&self) -> bool {
            self.0.as_ref().is_some_and(UnboundedSender::is_closed)
        }
    }

    /// A provider and a body past its commit point, with these timeouts in seconds.
    fn committed(idle: u64, deadline: u64) -> (Provider, AnswerBody) {
        let (provider, stream) = begun();
        (provider, body(stream, "first;", idle, deadline))
    }

    fn begun() -> (Provider, AnswerStream) {
        let (sender, source) = feed();
        let (status, headers) = (StatusCode::OK, HeaderMap::new());
        let grammar = Grammar::Chat(ChatQuirks::default());
        let call = call(r#"{"model":"m","stream":true}"#);
        let reply = UpstreamReply { status, headers, source, grammar };
        let stream = AnswerStream::new(reply, &call, &InFlightAllowance::default());
        (Provider(Some(sender)), stream)
    }

    fn body(stream: AnswerStream, first: &'static str, idle: u64, deadline: u64) -> AnswerBody {
        let seconds = Duration::from_secs;
        let timeouts = Timeouts {
            first_token: seconds(1),
            whole: seconds(1),
            idle: seconds(idle),
            deadline: Clock.now() + seconds(deadline),
        };
        AnswerBody::stream(stream, Bytes::from_static(first.as_bytes()), timeouts, Clock)
    }

    async fn next(body: &mut AnswerBody) -> Option<Result<Bytes, Failure>> {
        poll_fn(|cx| body.poll_frames(cx)).await
    }

    fn seconds_since(start: Instant) -> u64 {
        Clock.now().duration_since(start).as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_it_and_cancels_the_provider() {
        let (provider, mut body) = committed(30, 600);
        let start = Clock.now();
        provider.sends(&[GOOD]);
        assert_eq!(drain(&mut body).await, (format!("first;{GOOD}"), Some(Failure::IdleTimeout)));
        assert_eq!(seconds_since(start), 30);
        assert!(provider.is_cancelled() && !body.is_complete());
        assert!(next(&mut body).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stall_is_noted_long_before_it_ends_the_answer() {
        let (provider, mut body) = committed(120, 600);
        let start = Clock.now();
        assert!(next(&mut body).await.is_some());
        let not_yet = timeout(Duration::from_secs(19), next(&mut body)).await;
        assert!(not_yet.is_err() && !body.is_stalled());
        assert_eq!(body.waited_since(), Some(start));
        // A comment is no part of an answer.
        provider.sends(&[": c\n\n"]);
        assert!(next(&mut body).await.is_some_and(|comment| comment.is_ok()));
        let stalls = timeout(Duration::from_secs(2), next(&mut body)).await;
        assert!(stalls.is_err() && body.is_stalled());
        provider.sends(&[GOOD]);
        assert!(next(&mut body).await.is_some_and(|frame| frame.is_ok()) && !body.is_stalled());
        let begun = Clock.now();
        assert_eq!(drain(&mut body).await.1, Some(Failure::IdleTimeout));
        assert_eq!((seconds_since(begun), body.is_stalled()), (120, true));
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_said_everything_does_not_stall() {
        let (provider, mut body) = committed(120, 600);
        provider.sends(&[GOOD, STOP]);
        assert_eq!(drain(&mut body).await.1, None);
        assert!(!body.is_stalled());
    }

    #[tokio::test(start_paused = true)]
    async fn only_payloads_end_a_silence() {
        let (provider, mut body) = committed(30, 600);
        let start = Clock.now();
        let sending = async {
            for sent in [GOOD, ": c\n\n", ": c\n\n"] {
                tokio::time::sleep(Duration::from_secs(14)).await;
                provider.sends(&[sent]);
            }
        };
        let ((out, failure), ()) = tokio::join!(drain(&mut body), sending);
        assert_eq!((out.matches("data").count(), failure), (1, Some(Failure::IdleTimeout)));
        // 30 s after the payload at 14 s, whatever comments come.
        assert_eq!(seconds_since(start), 44);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_does_not_count_against_the_provider() {
        let (provider, mut body) = committed(30, 600);
        assert!(next(&mut body).await.is_some_and(|first| first.is_ok()));
        provider.sends(&[GOOD]);
        assert_eq!(next(&mut body).await, Some(Ok(GOOD.into())));
        advance(Duration::from_secs(120)).await;
        assert!(timeout(Duration::from_secs(29), next(&mut body)).await.is_err(), "the silence begins when we wait");
        provider.sends(&[GOOD]);
        assert_eq!(next(&mut body).await, Some(Ok(GOOD.into())));
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_ends_silent_and_busy_streams() {
        let (provider, mut body) = committed(30, 30);
        assert_eq!(drain(&mut body).await.1, Some(Failure::Deadline));
        assert!(provider.is_cancelled());

        let (provider, mut body) = committed(30, 50);
        let start = Clock.now();
        let sending = async {
            while !provider.is_cancelled() {
                provider.sends(&[GOOD]);
                tokio::time::sleep(Duration::from_secs(7)).await;
            }
        };
        let ((_, failure), ()) = tokio::join!(drain(&mut body), sending);
        assert_eq!((failure, seconds_since(start) / 10), (Some(Failure::Deadline), 5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_stays_open_after_done_is_not_waited_for() {
        let (provider, mut body) = committed(30, 600);
        provider.sends(&[GOOD, STOP, DONE]);
        let start = Clock.now();
        assert_eq!(drain(&mut body).await, (["first;", GOOD, STOP, DONE].concat(), None));
        assert_eq!(seconds_since(start), 0);
        assert!(provider.is_cancelled() && body.is_complete());
    }

    fn breaks(provider: &mut Provider) {
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        let sender = provider.0.take().expect("it has not ended yet");
        sender.send(Err(reset)).expect("the body is alive");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_breaks_before_the_finish_is_no_end() {
        let (mut provider, mut body) = committed(30, 600);
        provider.sends(&[GOOD]);
        breaks(&mut provider);
        assert_eq!(drain(&mut body).await, (["first;", GOOD].concat(), Some(Failure::Reset)));
        assert!(!body.is_complete());
        assert_eq!((body.tally().counted, body.tally().frames), (None, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_breaks_behind_the_finish_ends_a_whole_answer() {
        let (mut provider, mut body) = committed(30, 600);
        provider.sends(&[GOOD, STOP, USAGE, "data: {\"cho"]);
        breaks(&mut provider);
        assert_eq!(drain(&mut body).await, (["first;", GOOD, STOP, USAGE, DONE].concat(), None));
        assert!(body.is_complete() && body.tally().is_final);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_held_behind_the_finish_is_ended_within_the_grace() {
        for (deadline, ended_at) in [(600, 3999), (3, 3000)] {
            let (provider, mut body) = committed(30, deadline);
            let start = Clock.now();
            let sending = async {
                provider.sends(&[GOOD, STOP]);
                tokio::time::sleep(GRACE - Duration::from_millis(1)).await;
                provider.sends(&[USAGE]);
                // Neither a comment nor what is no part of an answer puts the end off.
                while !provider.is_cancelled() {
                    provider.sends(&[": c\n\n", "data: ping\n\n"]);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            };
            let reading = async {
                let (out, failure) = drain(&mut body).await;
                (out.replace(": c\n\n", ""), failure, (Clock.now() - start).as_millis())
            };
            let (read, ()) = tokio::join!(reading, sending);
            assert_eq!(read, (["first;", GOOD, STOP, USAGE, DONE].concat(), None, ended_at));
            assert!(body.is_complete());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_finished_at_the_commit_point_is_ended_within_the_grace_too() {
        let (provider, mut stream) = begun();
        provider.sends(&[GOOD, STOP]);
        let first = poll_fn(|cx| stream.poll_batch(cx)).await;
        assert!(matches!(first, Some(Ok(first)) if first.good));
        let (mut body, start) = (body(stream, "first;", 30, 600), Clock.now());
        assert_eq!(drain(&mut body).await, (["first;", DONE].concat(), None));
        assert_eq!(Clock.now() - start, GRACE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_whole_answer_is_complete_once_it_was_taken() {
        let tally = UsageTally { text_bytes: 7, ..UsageTally::default() };
        let mut body =
            AnswerBody::whole(Bytes::from_static(b"{}"), Grammar::Chat(ChatQuirks::default()), tally, Vec::new());
        assert!(!body.is_complete());
        assert_eq!(drain(&mut body).await, ("{}".into(), None));
        assert!(body.is_complete());
        assert_eq!(body.tally(), tally);
    }
}
