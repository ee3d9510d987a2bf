//! The head of a stream that is held: what its client gets while the answer is not whole.
//!
//! Clients, and proxies on the way, give up on a connection on which nothing comes. So a stream that is not whole after
//! [`OPEN_AFTER`] gets its head, and comments from then on. What fails after that is said in the stream, because the
//! status has been sent. Whether a request is a stream is known only once its body is read, and whether it is refused
//! only once money and limits are taken: until then there is no head to send.
//!
//! Start reading in [`Relay::serve_held`].

use super::deliver::ReplyBody;
use super::error::StreamFailure;
use super::request::{CallReader, ErrorReply, RawRequest, ResponseMetadata, SuccessReply};
use super::state::RequestState;
use super::{Relay, ServeFuture, WaitingClient};
use crate::domain::memory::InFlightAllowance;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long an answer may take before its head is sent: proxies give up after 30 to 60 s.
const OPEN_AFTER: Duration = Duration::from_secs(15);
/// How soon a request is looked at again whose body was not read by then.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What the head of a stream holds, once attempts are made for it.
#[derive(Default)]
pub(super) struct EarlyHead(Mutex<Option<(ResponseMetadata, InFlightAllowance)>>);

impl EarlyHead {
    /// From now on the head may be sent.
    fn offer(&self, metadata: ResponseMetadata, allowance: InFlightAllowance) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((metadata, allowance));
    }

    /// The head of a stream whose answer is still being made by `answering`; it is given back where there is none yet.
    fn reply(&self, answering: ServeFuture<'static>) -> Result<SuccessReply, ServeFuture<'static>> {
        let Some((metadata, allowance)) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return Err(answering);
        };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        let body = ReplyBody::made_later(Box::pin(async move {
            let answer = answering.await;
            answer.map(|reply| reply.body).map_err(|error| StreamFailure::Unanswered(error.sent_in_stream()))
        }));
        Ok(SuccessReply { status: StatusCode::OK, headers, metadata, stream: true, allowance, body })
    }
}

impl WaitingClient<'_> {
    /// Attempts are made for it from now on: the head of a stream may be sent.
    pub(super) fn may_get_head(self, state: &RequestState, allowance: &InFlightAllowance) {
        if let Some(head) = self.head.filter(|_| state.stream) {
            head.offer(ResponseMetadata::of(state, None), allowance.clone());
        }
    }
}

impl Relay {
    /// Serves `raw` where streams are held.
    ///
    /// # Errors
    /// [`ErrorReply`], which must be sent to the client.
    pub(super) async fn serve_held<R: CallReader + 'static>(
        self: Arc<Self>,
        raw: RawRequest<R>,
    ) -> Result<SuccessReply, ErrorReply> {
        let clock = self.context.clock;
        let mut at = raw.received + OPEN_AFTER;
        let head = Arc::new(EarlyHead::default());
        let mut answering = self.answer_held(raw, head.clone());
        loop {
            tokio::select! {
                biased;
                answer = &mut answering => return answer,
                () = clock.sleep_until(at) => {}
            }
            answering = match head.reply(answering) {
                Ok(reply) => return Ok(reply),
                Err(answering) => answering,
            };
            at = clock.now() + LOOK_AGAIN;
        }
    }

    fn answer_held<R: CallReader + 'static>(
        self: Arc<Self>,
        raw: RawRequest<R>,
        head: Arc<EarlyHead>,
    ) -> ServeFuture<'static> {
        match raw.active.may_read_on() {
            true => Box::pin(self.serve_to_end(raw, Some(head))),
            false => {
                Box::pin(async move { self.serve_for(raw, WaitingClient { state: None, head: Some(&head) }).await })
            }
        }
    }
}
