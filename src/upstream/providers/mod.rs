//! Every kind of provider: a request goes in, an [`UpstreamReply`] comes out that states its grammar.
//!
//! A kind of provider is one file here and one variant below. It prepares URL, credentials, headers and body; what
//! comes back is read by [`Grammar`], so that the commit rule, the meter and the body exist once. It never looks
//! at time limits and never judges an answer.
//!
//! Start reading in [`UpstreamProvider::open`].

mod openai;
mod sim;

use super::client::ClientTls;
use super::{AttemptError, BuildError, ProviderProtocol, ProviderSetup, UpstreamRequest, classify};
use crate::protocol::Grammar;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::Body;
use openai::OpenAiHost;
use sim::{SimBody, SimProvider};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

/// One provider, compiled.
pub(super) struct UpstreamProvider {
    setup: ProviderSetup,
    wire: ProviderKind,
}

enum ProviderKind {
    OpenAi(Box<OpenAiHost>),
    Sim(SimProvider),
}

impl UpstreamProvider {
    /// Compiles `setup`.
    pub(super) fn build(setup: ProviderSetup, tls: &ClientTls) -> Result<Self, BuildError> {
        let wire = match &setup.protocol {
            ProviderProtocol::OpenAi(host) => ProviderKind::OpenAi(Box::new(OpenAiHost::build(&setup, host, tls)?)),
            ProviderProtocol::Sim(sim) => ProviderKind::Sim(SimProvider::new(*sim)),
        };
        Ok(Self { setup, wire })
    }

    /// What it was compiled from.
    pub(super) fn setup(&self) -> &ProviderSetup {
        &self.setup
    }

    /// Sends `request` and waits for the head of the reply.
    ///
    /// # Errors
    /// [`AttemptError`] when no head came.
    pub(super) async fn open(
        &self,
        request: &UpstreamRequest<'_>,
        now: Instant,
    ) -> Result<UpstreamReply, AttemptError> {
        match &self.wire {
            ProviderKind::OpenAi(host) => host.open(request, now).await,
            ProviderKind::Sim(sim) => Ok(sim.open(request, now)),
        }
    }
}

/// The head of a provider's reply and the bytes to come.
pub(super) struct UpstreamReply {
    /// As the provider sent it.
    pub(super) status: StatusCode,
    /// All of the provider's headers.
    pub(super) headers: HeaderMap,
    /// The body, encoding undone.
    pub(super) source: ReplySource,
    /// What the body is written in.
    pub(super) grammar: Grammar,
}

/// Where a reply's bytes come from. Dropping it cancels the provider's work.
pub(super) enum ReplySource {
    /// A connection.
    Network(reqwest::Body),
    /// A simulation.
    Sim(SimBody),
}

impl ReplySource {
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
