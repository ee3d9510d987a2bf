//! The doorway to every wire protocol: an order goes in, a [`Reply`] in OpenAI's format comes out.
//!
//! A protocol is one file here and one variant below. It prepares URL, headers and body; where it
//! speaks another format than OpenAI's it also translates the bytes that come back, so that the
//! commit rule, the meter and the body exist once. It never looks at time limits and never judges
//! an answer.

mod openai;
mod sim;

use super::client::Tls;
use super::{AttemptError, BuildError, Protocol, ProviderSetup, UpstreamRequest, classify};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::Body;
use openai::Host;
use sim::{Sim, SimBody};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

/// One provider, compiled.
pub(super) struct Provider {
    setup: ProviderSetup,
    wire: Wire,
}

enum Wire {
    OpenAi(Box<Host>),
    Sim(Sim),
}

impl Provider {
    /// Compiles `setup`.
    pub(super) fn build(setup: ProviderSetup, tls: &Tls) -> Result<Self, BuildError> {
        let wire = match &setup.protocol {
            Protocol::OpenAi(host) => Wire::OpenAi(Box::new(Host::build(&setup, host, tls)?)),
            Protocol::Sim(sim) => Wire::Sim(Sim::new(*sim)),
        };
        Ok(Self { setup, wire })
    }

    /// What it was compiled from.
    pub(super) fn setup(&self) -> &ProviderSetup {
        &self.setup
    }

    /// Sends `order` and waits for the head of the reply.
    ///
    /// # Errors
    /// [`AttemptError`] when no head came.
    pub(super) async fn open(&self, order: &UpstreamRequest<'_>, now: Instant) -> Result<Reply, AttemptError> {
        match &self.wire {
            Wire::OpenAi(host) => host.open(order, now).await,
            Wire::Sim(sim) => Ok(sim.open(order, now)),
        }
    }
}

/// The head of a provider's reply and the bytes to come.
pub(super) struct Reply {
    /// As the provider sent it.
    pub(super) status: StatusCode,
    /// All of the provider's headers.
    pub(super) headers: HeaderMap,
    /// The body in OpenAI's format, encoding undone.
    pub(super) source: Source,
    /// What to forgive in it.
    pub(super) tolerance: Tolerance,
}

/// What a provider is known to do otherwise than OpenAI.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Tolerance {
    /// `[DONE]` completes a stream although a `finish_reason` is missing.
    pub(super) finish_reason_optional: bool,
    /// Frames that are not JSON are passed on.
    pub(super) skip_malformed_frames: bool,
}

/// Where a reply's bytes come from. Dropping it cancels the provider's work.
pub(super) enum Source {
    /// A connection.
    Network(reqwest::Body),
    /// A simulation.
    Sim(SimBody),
}

impl Source {
    /// The next bytes, never empty; `None` at the end.
    pub(super) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, reqwest::Error>>> {
        let body = match self {
            Self::Network(body) => body,
            Self::Sim(sim) => return sim.poll_chunk(cx).map(|chunk| chunk.map(Ok)),
        };
        loop {
            match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Poll::Ready(Some(Ok(data))),
                    // Trailers and empty reads say nothing.
                    Ok(_) | Err(_) => {}
                },
            }
        }
    }

    /// How many bytes are to come, where the provider said so.
    pub(super) fn promised(&self) -> Option<u64> {
        match self {
            Self::Network(body) => body.size_hint().exact(),
            Self::Sim(_) => None,
        }
    }
}

/// A request that brought no head.
fn unanswered(error: &reqwest::Error) -> AttemptError {
    AttemptError::new(classify::unanswered(error), classify::describe(error))
}
