//! What an injected fault does to one attempt.
//!
//! It takes the place of what a provider would have done, so that everything behind it (the commit rule, the breakers,
//! the choice of what follows) meets a fault as it would meet the real one. Which attempts are concerned is decided
//! elsewhere.
//!
//! Start reading in [`open`].

use super::open::ask;
use super::providers::{UpstreamProvider, UpstreamReply, refused_with};
use super::{AttemptError, UpstreamRequest, error_reply};
use crate::clock::Clock;
use crate::domain::failure::Failure;
use crate::domain::fault::FaultEffect;

/// What is said of an attempt that was not sent.
const DETAIL: &str = "refused by an injected fault";

/// As [`open`](super::open::open), with `fault`.
pub(super) async fn open(
    fault: FaultEffect,
    provider: &UpstreamProvider,
    request: &UpstreamRequest<'_>,
    clock: Clock,
    heard: &mut (dyn FnMut() + Send),
) -> Result<UpstreamReply, AttemptError> {
    match fault {
        FaultEffect::Refuse => Err(AttemptError::new(Failure::Unreachable, DETAIL)),
        FaultEffect::Delay(by) => {
            clock.sleep(by).await;
            ask(provider, request, clock, heard).await
        }
        FaultEffect::Status(status) => {
            let reply = refused_with(request.call, status, DETAIL, clock.now());
            heard();
            Err(error_reply::read(reply, request.allowance, clock).await)
        }
        FaultEffect::Cut { frames } => {
            let mut reply = ask(provider, request, clock, heard).await?;
            reply.source.cut(request.call.metadata().stream.then_some(frames));
            Ok(reply)
        }
    }
}
