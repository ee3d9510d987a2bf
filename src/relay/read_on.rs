//! Reading an answer to its end after its client has left, for providers that go on and are paid for it.
//!
//! Limits, money and the deployment's slot stay taken until then, so that nothing of it is free, and the request's own
//! time bounds it. Before the commit point the request goes on as a task of its own, with the attempts that are in
//! flight and no others; after it the body is read. When the gateway stops, what is left is charged in full.
//!
//! Start reading in [`Relay::serve_to_end`], then [`client_left`].

use super::deliver::{ReplyEnd, ReplyInFlight};
use super::early_head::EarlyHead;
use super::request::CallReader;
use super::{ErrorReply, RawRequest, Relay, SuccessReply, WaitingClient};
use crate::config::OnAbandon;
use crate::domain::failure::Failure;
use std::future::{pending, poll_fn};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Whether a request's client still waits, and whether an attempt is in flight that is read on without it.
#[derive(Default)]
pub(super) struct ClientState {
    left: AtomicBool,
    /// Attempts at providers that go on.
    reading: AtomicU32,
}

/// Held while an attempt is in flight at a provider that goes on.
pub(super) struct ReadingHandle<'a>(&'a ClientState);

impl ClientState {
    /// Whether the client has left: no further attempt is to be made.
    pub(super) fn has_left(&self) -> bool {
        self.left.load(Ordering::Acquire)
    }

    /// An attempt at a provider that goes on is in flight until the mark is dropped.
    pub(super) fn mark(&self) -> ReadingHandle<'_> {
        self.reading.fetch_add(1, Ordering::AcqRel);
        ReadingHandle(self)
    }
}

impl Drop for ReadingHandle<'_> {
    fn drop(&mut self) {
        self.0.reading.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Ends what is read without a client.
pub(super) struct StopEvent(watch::Sender<bool>);

impl Default for StopEvent {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl StopEvent {
    /// Ends all of it, and waits until it has been settled.
    pub(super) async fn stop(&self) {
        self.0.send_replace(true);
        self.0.closed().await;
    }
}

impl Relay {
    /// Serves `raw`, which may get a `head` before its answer. Where its client leaves while an attempt is in flight that is to be read on, it goes on without.
    ///
    /// # Errors
    /// [`ErrorReply`], which must be sent to the client.
    pub(super) async fn serve_to_end<R: CallReader + 'static>(
        self: Arc<Self>,
        raw: RawRequest<R>,
        head: Option<Arc<EarlyHead>>,
    ) -> Result<SuccessReply, ErrorReply> {
        let client = Arc::new(ClientState::default());
        let (presence, mut stop) = (client.clone(), self.context.stop.0.subscribe());
        let task = tokio::spawn(async move {
            let waiting = WaitingClient { state: Some(&presence), head: head.as_deref() };
            tokio::select! {
                biased;
                result = self.serve_for(raw, waiting) => Some(result),
                _ = stop.wait_for(|stopped| *stopped) => None,
            }
        });
        let mut serving = AwaitedTask { task, client };
        match (&mut serving.task).await {
            Ok(Some(result)) => result,
            Err(failed) if failed.is_panic() => resume_unwind(failed.into_panic()),
            // The gateway has stopped, and no client is left.
            Ok(None) | Err(_) => pending().await,
        }
    }
}

/// A request whose client waits for it; dropping it means that the client left.
struct AwaitedTask {
    task: JoinHandle<Option<Result<SuccessReply, ErrorReply>>>,
    client: Arc<ClientState>,
}

impl Drop for AwaitedTask {
    fn drop(&mut self) {
        self.client.left.store(true, Ordering::Release);
        if self.client.reading.load(Ordering::Acquire) == 0 {
            self.task.abort();
        }
    }
}

/// Ends `reply`, whose client left; reads it to its end before, in a task of its own, where its provider goes on.
pub(super) fn client_left(reply: ReplyInFlight) {
    let more = reply.body.exact_len().is_none() && !reply.body.is_complete();
    let reads_on = more && reply.guard.state.on_abandon == OnAbandon::ReadOn;
    let Some(runtime) = Handle::try_current().ok().filter(|_| reads_on) else {
        return reply.end(ReplyEnd::ClientLeft);
    };
    let mut stop = reply.guard.context().stop.0.subscribe();
    runtime.spawn(async move {
        let mut reply = reply;
        tokio::select! {
            biased;
            () = read_to_end(&mut reply) => {}
            _ = stop.wait_for(|stopped| *stopped) => {}
        }
        reply.end(ReplyEnd::ReadOn);
    });
}

/// Reads what comes, up to the end, an error or the end of the request's time, and keeps nothing of it.
async fn read_to_end(reply: &mut ReplyInFlight) {
    while let Some(Ok(_)) = poll_fn(|cx| reply.body.poll_frames(cx)).await {
        if let Some(now) = reply.body.heard_at() {
            reply.permit.heard(now);
        }
    }
}

impl ReplyEnd {
    /// Whether we leave the provider, and not it us.
    pub(super) fn is_ours(&self) -> bool {
        match self {
            Self::ClientLeft | Self::ReadOn | Self::Stopped(_) => true,
            Self::Broken(failure) => matches!(failure, Failure::Deadline | Failure::IdleTimeout),
            Self::Complete => false,
        }
    }
}
