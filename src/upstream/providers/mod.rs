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
use crate::domain::failure::Failure;
use crate::protocol::Grammar;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body::Body;
use openai::OpenAiHost;
use sim::{SimBody, SimProvider};
use std::future::poll_fn;
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

    /// All of its bytes; a single read is not copied. Calls `heard` for each read.
    ///
    /// # Errors
    /// More than `limit` bytes, or a connection that broke.
    pub(super) async fn collect(
        &mut self,
        limit: usize,
        heard: &mut (dyn FnMut() + Send),
    ) -> Result<Bytes, AttemptError> {
        let too_large = || AttemptError::new(Failure::Unreadable, format!("an answer of more than {limit} bytes"));
        if self.promised().is_some_and(|promised| promised > limit as u64) {
            return Err(too_large());
        }
        let mut first = Bytes::new();
        let mut all = BytesMut::new();
        loop {
            let chunk = match poll_fn(|cx| self.poll_chunk(cx)).await {
                None if all.is_empty() => return Ok(first),
                None => return Ok(all.freeze()),
                Some(Err(error)) => return Err(broken_body(&error)),
                Some(Ok(chunk)) => chunk,
            };
            heard();
            if first.len().max(all.len()) + chunk.len() > limit {
                return Err(too_large());
            }
            match (first.is_empty(), all.is_empty()) {
                (true, _) => first = chunk,
                (false, true) => {
                    all.reserve(first.len() + chunk.len() + self.promised().unwrap_or(0) as usize);
                    all.extend_from_slice(&first);
                    all.extend_from_slice(&chunk);
                }
                (false, false) => all.extend_from_slice(&chunk),
            }
        }
    }
}

/// A request that brought no head.
fn unanswered(error: &reqwest::Error) -> AttemptError {
    AttemptError::new(classify::unanswered(error), classify::describe(error))
}

/// A body that broke off before the commit point.
fn broken_body(error: &reqwest::Error) -> AttemptError {
    AttemptError::new(classify::broken_body(error), classify::describe(error))
}
