//! Every kind of provider: a request goes in, an [`UpstreamReply`] comes out that states its grammar.
//!
//! A kind of provider is one file here and one variant below. It prepares URL, credentials, headers and body; what
//! comes back is read by [`Grammar`], so that the commit rule, the meter and the body exist once. It never looks
//! at time limits and never judges an answer.
//!
//! Start reading in [`UpstreamProvider::open`].

mod coding;
mod cut;
mod fields;
mod model_refusals;
mod network;
mod sim;

use super::client::ClientTls;
use super::echoed_secrets::{ProviderSecrets, SecretFilter};
use super::held::HeldAnswer;
use super::{AttemptError, BuildError, ProviderProtocol, ProviderSetup, UpstreamRequest, classify};
use crate::clock::Clock;
use crate::domain::call::Endpoint;
use crate::domain::failure::Failure;
use crate::protocol::{BodyKind, Grammar};
use bytes::{Bytes, BytesMut};
use coding::{ContentCoding, DecodedBody};
use cut::CutBody;
use http::{HeaderMap, StatusCode};
use http_body::Body;
use model_refusals::ModelRefusals;
use network::NetworkProvider;
pub(super) use sim::refused_with;
use sim::{SimBody, SimProvider};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

/// The most that is read to see whether it is events, in bytes.
const MAX_UNCLEAR: usize = 64 * 1024;
/// The most blanks before a whole answer where events were asked for, in bytes.
const MAX_BLANKS: usize = 1024 * 1024;

/// One provider, compiled.
pub(super) struct UpstreamProvider {
    setup: ProviderSetup,
    wire: ProviderKind,
    usage_refusals: ModelRefusals,
    ceiling_refusals: ModelRefusals,
}

/// What is written into a request that its client did not write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct OwnMembers {
    /// The wish for usage, where the call says so.
    pub(super) ask_usage: bool,
    /// The ceiling of the output, where there is one, by its other name than the provider is set up with.
    pub(super) other_ceiling_name: bool,
}

enum ProviderKind {
    Network(Box<NetworkProvider>),
    Sim(SimProvider),
}

impl UpstreamProvider {
    /// Compiles `setup`.
    pub(super) fn build(setup: ProviderSetup, tls: &ClientTls) -> Result<Self, BuildError> {
        let wire = match &setup.protocol {
            ProviderProtocol::Network(host) => {
                ProviderKind::Network(Box::new(NetworkProvider::build(&setup, host, tls)?))
            }
            ProviderProtocol::Sim(sim) => ProviderKind::Sim(SimProvider::new(*sim)),
        };
        let never_asked = matches!(&setup.protocol, ProviderProtocol::Network(host) if !host.asks_usage);
        let (usage_refusals, ceiling_refusals) = (ModelRefusals::new(never_asked), ModelRefusals::new(false));
        Ok(Self { setup, wire, usage_refusals, ceiling_refusals })
    }

    /// What it was compiled from.
    pub(super) fn setup(&self) -> &ProviderSetup {
        &self.setup
    }

    /// Which of its models are not asked for usage.
    pub(super) fn usage_refusals(&self) -> &ModelRefusals {
        &self.usage_refusals
    }

    /// Which of its models take the ceiling of the output by its other name.
    pub(super) fn ceiling_refusals(&self) -> &ModelRefusals {
        &self.ceiling_refusals
    }

    /// Sends `request` with `own` and waits for the head of the reply.
    ///
    /// # Errors
    /// [`AttemptError`] when no head came.
    pub(super) async fn open(
        &self,
        request: &UpstreamRequest<'_>,
        own: OwnMembers,
        now: Instant,
    ) -> Result<UpstreamReply, AttemptError> {
        match &self.wire {
            ProviderKind::Network(host) => host.open(request, own, now).await,
            ProviderKind::Sim(sim) => Ok(sim.open(request, now)),
        }
    }

    /// Asks for its models and waits for the head of the reply; `None` if it is simulated.
    pub(super) async fn list_models(
        &self,
        credential: usize,
        now: Instant,
    ) -> Option<Result<UpstreamReply, AttemptError>> {
        match &self.wire {
            ProviderKind::Network(host) => Some(host.list_models(credential, now).await),
            ProviderKind::Sim(_) => None,
        }
    }

    /// Asks `endpoint` with an object that lacks all that it needs, and waits for the head of the reply; `None` if it is
    /// simulated.
    pub(super) async fn ask_endpoint(
        &self,
        endpoint: Endpoint,
        credential: usize,
        now: Instant,
    ) -> Option<Result<UpstreamReply, AttemptError>> {
        match &self.wire {
            ProviderKind::Network(host) => Some(host.ask_endpoint(endpoint, credential, now).await),
            ProviderKind::Sim(_) => None,
        }
    }
}

/// The head of a provider's reply and the bytes to come.
pub(super) struct UpstreamReply {
    /// As the provider sent it.
    pub(super) status: StatusCode,
    /// All of the provider's headers.
    pub(super) headers: HeaderMap,
    /// The body; its encoding is undone by [`undo_codings`](Self::undo_codings).
    pub(super) source: ReplySource,
    /// What the body is written in.
    pub(super) grammar: Grammar,
}

impl UpstreamReply {
    /// Undoes the codings that its `Content-Encoding` names, while it is read.
    ///
    /// # Errors
    /// It names more of them than any answer has.
    pub(super) fn undo_codings(&mut self) -> Result<(), AttemptError> {
        let SourceOrigin::Network(body) = &mut self.source.origin else { return Ok(()) };
        let codings = coding::of(&self.headers).map_err(|problem| AttemptError::new(Failure::Unreadable, problem))?;
        if !codings.is_empty() {
            self.source.origin =
                SourceOrigin::Decoded(Box::new(DecodedBody::new(Bytes::new(), std::mem::take(body), codings)));
        }
        Ok(())
    }
}

/// Where a reply's bytes come from. Dropping it cancels the provider's work.
pub(super) struct ReplySource {
    /// What was read and returned again.
    ahead: Option<Bytes>,
    /// What masks secrets of the provider; `None` where it is sent none.
    filter: Option<SecretFilter>,
    origin: SourceOrigin,
}

enum SourceOrigin {
    /// A connection.
    Network(reqwest::Body),
    /// A connection whose bytes are encoded.
    Decoded(Box<DecodedBody>),
    /// A simulation.
    Sim(Box<SimBody>),
    /// Any of these, up to where an injected fault breaks it.
    Cut(Box<CutBody>),
}

/// Why a reply's bytes end early.
#[derive(Debug)]
pub(super) enum SourceError {
    /// Its connection.
    Connection(reqwest::Error),
    /// They are not what their `Content-Encoding` says, or end within it.
    Coding(io::Error),
    /// An injected fault.
    Injected,
}

impl SourceOrigin {
    /// The next bytes, never empty; `None` at the end.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, SourceError>>> {
        match self {
            Self::Network(body) => poll_data(body, cx).map_err(SourceError::Connection),
            Self::Decoded(body) => body.poll_chunk(cx),
            Self::Sim(sim) => sim.poll_chunk(cx).map(|chunk| chunk.map(Ok)),
            Self::Cut(cut) => cut.poll_chunk(cx),
        }
    }
}

impl ReplySource {
    /// The body of a reply on a connection.
    pub(super) fn network(body: reqwest::Body) -> Self {
        Self { ahead: None, filter: None, origin: SourceOrigin::Network(body) }
    }

    /// The same without `secrets`.
    pub(super) fn without(self, secrets: Option<Arc<ProviderSecrets>>) -> Self {
        Self { filter: secrets.map(SecretFilter::new), ..self }
    }

    /// A simulation's.
    fn simulated(body: SimBody) -> Self {
        Self { ahead: None, filter: None, origin: SourceOrigin::Sim(Box::new(body)) }
    }

    /// Breaks it after so many frames of a stream; `None`: within a whole answer.
    pub(super) fn cut(&mut self, frames: Option<u32>) {
        let origin = std::mem::replace(&mut self.origin, SourceOrigin::Network(reqwest::Body::default()));
        self.origin = SourceOrigin::Cut(Box::new(CutBody::new(origin, frames)));
    }

    /// Puts `bytes` before what is to come; nothing else may have been put there.
    pub(super) fn put_back(&mut self, bytes: Bytes) {
        self.ahead = Some(bytes).filter(|bytes| !bytes.is_empty());
    }

    /// The next bytes, never empty; `None` at the end.
    pub(super) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, SourceError>>> {
        if let Some(ahead) = self.ahead.take() {
            return Poll::Ready(Some(Ok(ahead)));
        }
        let Some(filter) = &mut self.filter else { return self.origin.poll_chunk(cx) };
        while !filter.ended {
            match ready!(self.origin.poll_chunk(cx)) {
                Some(Ok(chunk)) => {
                    let passed = filter.pass(chunk);
                    if !passed.is_empty() {
                        return Poll::Ready(Some(Ok(passed)));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(Some(filter.end()).filter(|held| !held.is_empty()).map(Ok)),
            }
        }
        Poll::Ready(None)
    }

    /// Whether its bytes are events, whatever they are labelled; `label` is asked only where the first of them do not
    /// tell. They are read again, but for blanks before them. Calls `heard` for what comes before the first that counts.
    ///
    /// # Errors
    /// It broke off before, or its first bytes are neither events nor JSON; where events are `asked` for, blanks without end
    /// are neither.
    pub(super) async fn is_event_stream(
        &mut self,
        asked: bool,
        label: bool,
        heard: &mut (dyn FnMut() + Send),
    ) -> Result<bool, AttemptError> {
        let (mut start, mut blanks) = (Bytes::new(), 0);
        loop {
            let Some(chunk) = poll_fn(|cx| self.poll_chunk(cx)).await else {
                let is_json = BodyKind::of(&start) == Some(BodyKind::Json);
                self.put_back(start);
                return Ok(label && !is_json);
            };
            let chunk = chunk.map_err(|error| broken_body(&error))?;
            start = if start.is_empty() { chunk } else { [start, chunk].concat().into() };
            if let SourceOrigin::Network(body) = &mut self.origin
                && let Some(coding) = ContentCoding::unnamed(&start)
            {
                if let Some(filter) = &mut self.filter {
                    start = [start, filter.take_held()].concat().into();
                }
                let body = DecodedBody::new(std::mem::take(&mut start), std::mem::take(body), vec![coding]);
                self.origin = SourceOrigin::Decoded(Box::new(body));
                continue;
            }
            // A host may send blanks for as long as it works. One is kept: behind it there is no byte order mark.
            if start.len() > 1 && start.iter().all(u8::is_ascii_whitespace) {
                blanks += start.len() - 1;
                start = start.slice(start.len() - 1..);
            }
            let is_enough = blanks + start.len() >= MAX_UNCLEAR;
            let judged = match BodyKind::of(&start) {
                Some(BodyKind::Events) => Some(true),
                Some(BodyKind::Json) if !label => Some(false),
                Some(BodyKind::Other) if label => Some(true),
                Some(_) if BodyKind::has_data_line(&start) => Some(true),
                Some(BodyKind::Json) if is_enough => Some(false),
                Some(BodyKind::Other) if is_enough => return Err(neither()),
                None if is_enough && (label || !asked) => Some(label),
                None if blanks + start.len() >= MAX_BLANKS => return Err(neither()),
                _ => None,
            };
            if let Some(events) = judged {
                self.put_back(start);
                return Ok(events);
            }
            heard();
        }
    }

    /// How many bytes are to come, where the provider said so.
    pub(super) fn promised(&self) -> Option<u64> {
        let ahead = self.ahead.as_ref().map_or(0, Bytes::len) as u64;
        match &self.origin {
            SourceOrigin::Network(body) => body.size_hint().exact().map(|left| left.saturating_add(ahead)),
            SourceOrigin::Decoded(_) | SourceOrigin::Sim(_) | SourceOrigin::Cut(_) => None,
        }
    }

    /// All of its bytes, counted in `held`; a single read is not copied. Calls `heard` for each read.
    ///
    /// # Errors
    /// More than `limit` bytes, no room for them, or a connection that broke.
    pub(super) async fn collect(
        &mut self,
        limit: usize,
        held: &mut HeldAnswer,
        clock: Clock,
        heard: &mut (dyn FnMut() + Send),
    ) -> Result<Bytes, AttemptError> {
        let too_large = || AttemptError::new(Failure::Unreadable, format!("an answer of more than {limit} bytes"));
        if self.promised().is_some_and(|promised| promised > limit as u64) {
            return Err(too_large());
        }
        let (bytes, is_all) = self.collect_start(limit, held, clock, heard).await?;
        if is_all { Ok(bytes) } else { Err(too_large()) }
    }

    /// Its first `limit` bytes at most, counted in `held`, and whether those are all; a single read is not copied. Calls
    /// `heard` for each read.
    ///
    /// # Errors
    /// No room for them, or a connection that broke.
    pub(super) async fn collect_start(
        &mut self,
        limit: usize,
        held: &mut HeldAnswer,
        clock: Clock,
        heard: &mut (dyn FnMut() + Send),
    ) -> Result<(Bytes, bool), AttemptError> {
        let mut first = Bytes::new();
        let mut all = BytesMut::new();
        loop {
            let chunk = match poll_fn(|cx| self.poll_chunk(cx)).await {
                None if all.is_empty() => return Ok((first, true)),
                None => return Ok((all.freeze(), true)),
                Some(Err(error)) => return Err(broken_body(&error)),
                Some(Ok(chunk)) => chunk,
            };
            heard();
            let before = first.len().max(all.len());
            if before + chunk.len() > limit {
                let start = [if all.is_empty() { &first[..] } else { &all[..] }, &chunk[..limit - before]].concat();
                return Ok((start.into(), false));
            }
            // Where its length is known, there is room for all of it or none is taken.
            let promised = self.promised().map_or(0, |promised| promised.min(limit as u64)) as usize;
            held.hold(before + chunk.len() + promised, clock, heard).await?;
            match (first.is_empty(), all.is_empty()) {
                (true, _) => first = chunk,
                (false, true) => {
                    all.reserve(first.len() + chunk.len() + promised);
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
fn neither() -> AttemptError {
    AttemptError::new(Failure::Garbage, "neither events nor JSON")
}

pub(super) fn broken_body(error: &SourceError) -> AttemptError {
    match error {
        SourceError::Connection(error) => AttemptError::new(classify::broken_body(error), classify::describe(error)),
        SourceError::Coding(error) => AttemptError::new(classify::broken_coding(error), error.to_string()),
        SourceError::Injected => AttemptError::new(Failure::Truncated, "cut by an injected fault"),
    }
}

/// The next data of `body`, never empty; `None` at the end.
fn poll_data(body: &mut reqwest::Body, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, reqwest::Error>>> {
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
