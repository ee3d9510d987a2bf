//! Sends one attempt and brings its answer back, or says what went wrong.
//!
//! An [`Order`] goes in; an [`Answer`] comes out once the commit point is reached (the first good
//! frame of a stream, the whole of a whole answer), a [`Missed`] otherwise. This room never decides
//! what happens next, and knows nothing of keys, teams or budgets. Dropping what it handed out, at
//! any point, cancels the provider's work.
//!
//! Start reading in [`Upstreams::send`], then [`answer`] for the commit rule.

mod answer;
mod body;
mod classify;
mod client;
mod meter;
mod providers;
mod splice;
pub mod sse;
mod stream;
#[cfg(test)]
mod testing;

pub use body::AnswerBody;

use crate::clock::Clock;
use crate::domain::call::Call;
use crate::domain::chance::Draw;
use crate::domain::failure::Failure;
use crate::domain::id::ProviderId;
use bytes::Bytes;
use client::Tls;
use http::{HeaderMap, HeaderValue, StatusCode};
use providers::Provider;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Everything that can be sent to, compiled once per snapshot.
pub struct Upstreams {
    /// By [`ProviderId`].
    providers: Vec<Arc<Provider>>,
    tls: Tls,
    clock: Clock,
}

impl Upstreams {
    /// Compiles `setups`, in their order. A provider whose setup is among `previous` unchanged keeps
    /// its warm connections.
    ///
    /// # Errors
    /// A base URL that is none, or a TLS configuration the system does not let us have.
    pub fn build(setups: Vec<ProviderSetup>, previous: Option<&Self>, clock: Clock) -> Result<Self, BuildError> {
        let tls = previous.map_or_else(Tls::load, |old| Ok(old.tls.clone()))?;
        let old = previous.map_or(&[][..], |old| &old.providers);
        let providers = setups
            .into_iter()
            .map(|setup| match old.iter().find(|provider| *provider.setup() == setup) {
                Some(unchanged) => Ok(unchanged.clone()),
                None => Provider::build(setup, &tls).map(Arc::new),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { providers, tls, clock })
    }

    /// Sends one attempt and waits for the commit point.
    ///
    /// # Errors
    /// [`Missed`]: nothing of it may reach the client, except a rejection given as it came.
    ///
    /// # Panics
    /// When `order.provider` is of another snapshot.
    pub async fn send(&self, order: Order<'_>) -> Result<Answer, Missed> {
        let now = self.clock.now();
        let limit = order.patience.until_commit(now, order.call.facts().stream);
        if limit.at <= now {
            return Err(Missed::new(limit.failure, "no time was left to send it"));
        }
        let provider = &self.providers[order.provider.index()];
        tokio::select! {
            biased;
            end = answer::obtain(provider, &order, self.clock) => end,
            () = self.clock.sleep_until(limit.at) => Err(Missed::new(limit.failure, "time ran out before the commit point")),
        }
    }
}

/// One provider as configured.
#[derive(Clone, PartialEq, Debug)]
pub struct ProviderSetup {
    /// Its configured name.
    pub name: Arc<str>,
    /// How to speak to it.
    pub protocol: Protocol,
    /// How long a connection, TLS included, may take to stand.
    pub connect_timeout: Duration,
}

/// The wire protocols we speak.
#[derive(Clone, PartialEq, Debug)]
pub enum Protocol {
    /// OpenAI's, as spoken by most hosts.
    OpenAi(OpenAiSetup),
    /// No network: a simulated provider.
    Sim(SimSetup),
}

/// A host that speaks OpenAI's protocol, and where it differs.
#[derive(Clone, PartialEq)]
pub struct OpenAiSetup {
    /// Up to and including its `/v1`; a query string is kept on every request.
    pub base_url: String,
    /// Whole `Authorization` values; none is sent when empty.
    pub credentials: Vec<HeaderValue>,
    /// HTTP/2: by prior knowledge over `http://`, where the host agrees over `https://`.
    pub http2: bool,
    /// The host is known to leave `finish_reason` out; `[DONE]` alone then completes a stream.
    pub finish_reason_optional: bool,
    /// The host is known to send frames that are not JSON: they are passed on instead of failing the stream.
    pub skip_malformed_frames: bool,
}

impl fmt::Debug for OpenAiSetup {
    /// Without the credentials, and without the URL, which may hold one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenAiSetup")
            .field("credentials", &self.credentials.len())
            .field("http2", &self.http2)
            .field("finish_reason_optional", &self.finish_reason_optional)
            .field("skip_malformed_frames", &self.skip_malformed_frames)
            .finish_non_exhaustive()
    }
}

/// How a simulated provider behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SimSetup {
    /// From the request to the first token.
    pub first_token: Duration,
    /// Tokens per second and choice after the first; 0 is all at once.
    pub tokens_per_second: u32,
    /// How many of 10,000 requests fail with a 500.
    pub error_rate_bp: u32,
}

/// The name a provider knows a model by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UpstreamModel {
    name: Arc<str>,
    json: Bytes,
}

impl UpstreamModel {
    /// The model its provider calls `name`.
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), json: serde_json::Value::from(name).to_string().into() }
    }

    /// As configured.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// As a JSON string, quotes included.
    fn json(&self) -> &Bytes {
        &self.json
    }
}

/// One attempt to make.
#[derive(Clone, Copy)]
pub struct Order<'a> {
    /// Where to.
    pub provider: ProviderId,
    /// Which of the provider's credentials to use.
    pub credential: usize,
    /// What the provider calls the model.
    pub model: &'a UpstreamModel,
    /// The request.
    pub call: &'a Call,
    /// The client's headers that may travel on; the allow-list is the front door's.
    pub headers: &'a HeaderMap,
    /// How long to wait for what.
    pub patience: Patience,
    /// Dice for this attempt.
    pub draw: Draw,
}

/// How long an attempt may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patience {
    /// From sending to the first good frame of a stream.
    pub first_token: Duration,
    /// From sending to the last byte of a whole answer.
    pub whole: Duration,
    /// Between two data frames of a stream after the commit point.
    pub idle: Duration,
    /// When the request's own time is over, whatever it is doing.
    pub deadline: Instant,
}

impl Patience {
    /// What ends the wait for the commit point of an attempt sent at `now`.
    fn until_commit(&self, now: Instant, stream: bool) -> Limit {
        let (span, failure) = match stream {
            true => (self.first_token, Failure::FirstTokenTimeout),
            false => (self.whole, Failure::WholeTimeout),
        };
        Limit::earlier(now, span, failure, self.deadline)
    }
}

/// A moment, and what it means when it comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Limit {
    at: Instant,
    failure: Failure,
}

impl Limit {
    /// `span` after `from`, or the deadline where that is not later: it says nothing about the provider.
    fn earlier(from: Instant, span: Duration, failure: Failure, deadline: Instant) -> Self {
        match from.checked_add(span) {
            Some(at) if at < deadline => Self { at, failure },
            _ => Self { at: deadline, failure: Failure::Deadline },
        }
    }
}

/// A provider's answer. Holding one means the commit point was reached.
pub struct Answer {
    /// A 2xx.
    pub status: StatusCode,
    /// `content-type`, `openai-processing-ms` and `openai-version`, where the provider sent them.
    pub headers: HeaderMap,
    /// The rest, to be polled to its end.
    pub body: AnswerBody,
}

/// An attempt that failed before the commit point.
#[derive(Debug)]
pub struct Missed {
    /// What went wrong.
    pub failure: Failure,
    /// With [`Failure::Rejected`] and [`Failure::ContextTooLong`]: the provider's own words, for the client.
    pub rejection: Option<Rejection>,
    /// One line for the log: no bodies, no secrets.
    pub detail: Box<str>,
}

impl Missed {
    fn new(failure: Failure, detail: impl Into<Box<str>>) -> Self {
        Self { failure, rejection: None, detail: detail.into() }
    }
}

/// A provider's refusal of the request itself, given to the client as it came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rejection {
    /// A 4xx.
    pub status: StatusCode,
    /// Of `body`.
    pub content_type: Option<HeaderValue>,
    /// As it came, at most 1 MiB.
    pub body: Bytes,
}

/// Why a configuration cannot be sent to.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The URL is none, is not HTTP or has no host.
    #[error("provider `{provider}`: base_url {problem}")]
    BaseUrl {
        /// Whose.
        provider: Arc<str>,
        /// What is wrong with it, as the end of a sentence.
        problem: String,
    },
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    /// The HTTP client cannot be set up.
    #[error("provider `{provider}`: the HTTP client cannot be set up: {problem}")]
    Client {
        /// Whose.
        provider: Arc<str>,
        /// What the client library says.
        problem: String,
    },
}
