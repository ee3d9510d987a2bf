//! Sends one attempt to a provider and returns its answer, or what went wrong.
//!
//! An [`UpstreamRequest`] goes in; an [`UpstreamAnswer`] comes out once the commit point is reached (the first good
//! frame of a stream, the whole of a whole answer), an [`AttemptError`] otherwise. It never decides what happens
//! next, and knows nothing of keys, teams or budgets; what a provider's bytes mean it asks of `protocol`. Dropping
//! what it returned, at any point, cancels the provider's work.
//!
//! Start reading in [`Upstreams::send`], then [`answer`] for the commit rule.

pub mod answer;
mod body;
pub mod classify;
mod client;
mod connection_check;
mod content_type;
#[cfg(test)]
mod corpus;
mod echoed_secrets;
mod endpoint_reply;
mod error_reply;
mod fold;
mod held;
mod injected;
pub mod meter;
mod models_reply;
mod open;
mod provider_request_id;
mod providers;
mod replay;
mod request;
mod setup;
mod stream;
#[cfg(test)]
mod testing;
mod whole_answer;

pub use answer::UpstreamAnswer;
pub use body::AnswerBody;
pub use connection_check::{ConnectionFault, ConnectionKind, ConnectionProblem, ConnectionRecord};
pub use models_reply::ModelsReply;
pub use replay::ReplayableAnswer;
pub use request::{AttemptError, ForwardedFields, Timeouts, UpstreamModel, UpstreamRequest};
pub use setup::{
    BuildError, ConnectionSetup, FieldSetup, HostProtocol, NetworkSetup, ProviderProtocol, ProviderSetup, SimSetup,
};

use crate::clock::Clock;
use crate::domain::call::Endpoint;
use crate::domain::failure::Failure;
use crate::domain::id::ProviderId;
use client::ClientTls;
use providers::UpstreamProvider;
use request::TimeLimit;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How soon a late first token is asked after again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What an attempt tells of its deployment until its commit point, and asks.
pub trait AttemptWatch: Sync {
    /// Something came at `now`: a head, frames, a part of a body.
    fn heard(&self, now: Instant);
    /// Whether the deployment is at work at `now`, so that a late first token is worth waiting for.
    fn is_slow(&self, now: Instant) -> bool;
}

/// Nothing is recorded, and nothing late is waited for.
impl AttemptWatch for () {
    fn heard(&self, _: Instant) {}

    fn is_slow(&self, _: Instant) -> bool {
        false
    }
}

/// Everything that can be sent to, compiled once per snapshot.
pub struct Upstreams {
    /// By [`ProviderId`].
    providers: Vec<Arc<UpstreamProvider>>,
    tls: ClientTls,
    clock: Clock,
}

impl Upstreams {
    /// Compiles `setups`, in their order. A provider whose setup is among `previous` unchanged keeps
    /// its warm connections.
    ///
    /// # Errors
    /// A base URL that is none, or a TLS configuration the system does not let us have.
    pub fn build(setups: Vec<ProviderSetup>, previous: Option<&Self>, clock: Clock) -> Result<Self, BuildError> {
        let tls = previous.map_or_else(ClientTls::load, |old| Ok(old.tls.clone()))?;
        let old = previous.map_or(&[][..], |old| &old.providers);
        let providers = setups
            .into_iter()
            .map(|setup| match old.iter().find(|provider| *provider.setup() == setup) {
                Some(unchanged) => Ok(unchanged.clone()),
                None => UpstreamProvider::build(setup, &tls).map(Arc::new),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { providers, tls, clock })
    }

    /// Asks `provider` for its models with its credential numbered `credential`; `None` if it is simulated.
    ///
    /// # Panics
    /// When `provider` is of another snapshot.
    pub async fn list_models(&self, provider: ProviderId, credential: usize) -> Option<ModelsReply> {
        models_reply::ask(&self.providers[provider.index()], credential, self.clock).await
    }

    /// The steps to the host of `provider`, as far as they lead; `None` if it is simulated.
    ///
    /// # Panics
    /// When `provider` is of another snapshot.
    pub async fn connect(&self, provider: ProviderId) -> Option<Vec<ConnectionRecord>> {
        let ProviderProtocol::Network(host) = &self.providers[provider.index()].setup().protocol else { return None };
        let tls = self.tls.of(host.connection.authorities.as_deref()).ok()?;
        Some(connection_check::connect(host, &tls, self.clock).await)
    }

    /// Whether `provider` says that it does not have `endpoint`, asked with its credential numbered `credential`.
    ///
    /// # Panics
    /// When `provider` is of another snapshot.
    pub async fn lacks_endpoint(&self, provider: ProviderId, endpoint: Endpoint, credential: usize) -> bool {
        endpoint_reply::is_missing(&self.providers[provider.index()], endpoint, credential, self.clock).await
    }

    /// Sends one attempt and waits for the commit point. A first token that is late is waited for while `watch` says
    /// that its deployment is slow rather than silent.
    ///
    /// # Errors
    /// [`AttemptError`]: nothing of it may reach the client, except what is given as it came.
    ///
    /// # Panics
    /// When `request.provider` is of another snapshot.
    pub async fn send(
        &self,
        request: UpstreamRequest<'_>,
        watch: &dyn AttemptWatch,
    ) -> Result<UpstreamAnswer, AttemptError> {
        let now = self.clock.now();
        let mut limit = request.timeouts.until_commit(now, request.mode);
        if limit.at <= now {
            return Err(AttemptError::new(limit.failure, "no time was left to send it"));
        }
        let provider = &self.providers[request.provider.index()];
        let mut answering = pin!(answer::obtain(provider, &request, self.clock, watch));
        loop {
            tokio::select! {
                biased;
                end = &mut answering => return end,
                () = self.clock.sleep_until(limit.at) => {}
            }
            let now = self.clock.now();
            if limit.failure != Failure::FirstTokenTimeout || !watch.is_slow(now) {
                return Err(AttemptError::new(limit.failure, "time ran out before the commit point"));
            }
            limit = TimeLimit::earlier(now, LOOK_AGAIN, Failure::FirstTokenTimeout, request.timeouts.deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{Act, STREAM_HEAD, Scripted, call, chunk, drain, send, setup, timeouts, upstreams, whole};
    use super::*;
    use crate::domain::memory::InFlightAllowance;
    use crate::domain::random::RandomValue;
    use crate::domain::routing::AnswerMode;
    use crate::domain::secret::Secret;
    use http::{HeaderMap, HeaderValue};
    use std::future::poll_fn;

    const BODY: &str = r#"{"model":"client/name", "n":1.50}"#;
    const GOOD: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n";

    const ANSWER: &str = r#"{"choices":[{"message":{"content":"x"}}]}"#;

    fn answers(times: usize) -> Vec<Act> {
        let one = [Act::Read, Act::Write(whole("application/json", ANSWER))];
        std::iter::repeat_n(one, times).flatten().collect()
    }

    async fn succeed(upstreams: &Upstreams) {
        let answer = send(upstreams, &call(BODY), timeouts()).await;
        let mut answer = answer.unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!(drain(&mut answer.body).await, (ANSWER.into(), None));
    }

    #[tokio::test]
    async fn a_provider_receives_what_it_should_and_nothing_else() {
        let mut provider = Scripted::start(answers(1)).await;
        let headers = HeaderMap::from_iter([
            (http::header::AUTHORIZATION, HeaderValue::from_static("Bearer of-the-client")),
            (http::HeaderName::from_static("traceparent"), HeaderValue::from_static("00-1")),
        ]);
        let request = UpstreamRequest {
            provider: ProviderId(0),
            credential: 0,
            model: &UpstreamModel::new("up/\"name\""),
            call: &call(BODY),
            mode: AnswerMode::Whole,
            headers: &headers,
            fields: ForwardedFields::default(),
            ceiling: None,
            timeouts: timeouts(),
            fault: None,
            draw: RandomValue(0),
            allowance: &InFlightAllowance::default(),
        };
        upstreams(provider.base_url()).send(request, &()).await.map(drop).unwrap_or_else(|error| panic!("{error:?}"));
        let request = provider.request().await;
        let (head, body) = request.split_once("\r\n\r\n").expect("a request has a head");
        assert_eq!(body, r#"{"model":"up/\"name\"", "n":1.50}"#);
        let mut lines: Vec<&str> = head.lines().collect();
        assert_eq!(lines.remove(0), "POST /v1/chat/completions HTTP/1.1");
        lines.sort_unstable();
        let (length, host) = (format!("content-length: {}", body.len()), format!("host: {}", provider.at));
        let expected = [
            "accept-encoding: identity",
            "accept: application/json",
            "authorization: Bearer secret",
            &length,
            "content-type: application/json",
            &host,
            "traceparent: 00-1",
            concat!("user-agent: tierway/", env!("CARGO_PKG_VERSION")),
        ];
        assert_eq!(lines, expected);
    }

    #[tokio::test]
    async fn without_credentials_none_is_sent() {
        let mut provider = Scripted::start(answers(1)).await;
        let mut setup = setup(provider.base_url());
        let ProviderProtocol::Network(host) = &mut setup.protocol else { unreachable!("the setup is OpenAI's") };
        host.credentials.clear();
        succeed(&Upstreams::build(vec![setup], None, Clock).expect("it can be built")).await;
        assert!(!provider.request().await.contains("authorization"));
    }

    #[tokio::test]
    async fn an_unchanged_provider_keeps_its_connections() {
        let mut provider = Scripted::start(answers(3)).await;
        let first = upstreams(provider.base_url());
        succeed(&first).await;
        succeed(&first).await;
        let other = ProviderSetup { name: "other".into(), ..setup("http://127.0.0.1:1".into()) };
        let second = Upstreams::build(vec![setup(provider.base_url()), other], Some(&first), Clock);
        succeed(&second.expect("it can be built")).await;
        assert!(provider.accepted.try_recv().is_ok());
        assert!(provider.accepted.try_recv().is_err(), "one connection served all three");
    }

    #[tokio::test]
    async fn what_cannot_be_reached_says_so() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let gone = format!("http://{}/v1?key=s3cret", free.expect("loopback has a free port"));
        let error = send(&upstreams(gone), &call(BODY), timeouts()).await.err().expect("nobody is there");
        assert_eq!(error.failure, Failure::Unreachable);
        assert!(!error.detail.contains("s3cret"), "{}", error.detail);
        assert!(error.detail.contains("refused"), "{}", error.detail);
    }

    #[tokio::test]
    async fn a_connection_that_is_not_established_in_time_is_closed() {
        // It accepts and stays silent: TLS is never established.
        let mut hole = Scripted::start(vec![Act::Hold]).await;
        let quick = Duration::from_millis(100);
        let setup = ProviderSetup { connect_timeout: quick, ..setup(format!("https://{}", hole.at)) };
        let upstreams = Upstreams::build(vec![setup], None, Clock).expect("it can be built");
        let error = send(&upstreams, &call(BODY), timeouts()).await.err().expect("it is a black hole");
        assert_eq!(error.failure, Failure::ConnectTimeout, "{}", error.detail);
        hole.hangs_up().await;
    }

    #[tokio::test]
    async fn the_deadline_beats_the_timeout() {
        let mut hole = Scripted::start(vec![Act::Read, Act::Hold]).await;
        let upstreams = upstreams(hole.base_url());
        let quick = Duration::from_millis(100);
        for (whole, deadline, expected) in [
            (quick, 2 * quick, Failure::WholeTimeout),
            (2 * quick, quick, Failure::Deadline),
            (quick, Duration::ZERO, Failure::Deadline),
        ] {
            let timeouts = Timeouts { whole, deadline: Clock.now() + deadline, ..timeouts() };
            let error = send(&upstreams, &call(BODY), timeouts).await.err().expect("it is a black hole");
            assert_eq!(error.failure, expected);
        }
        hole.hangs_up().await;
    }

    #[tokio::test]
    async fn dropping_a_send_cancels_it() {
        let mut hole = Scripted::start(vec![Act::Read, Act::Hold]).await;
        let upstreams = upstreams(hole.base_url());
        let call = call(BODY);
        let sending = send(&upstreams, &call, timeouts());
        tokio::select! {
            _ = sending => panic!("a black hole answered"),
            _ = hole.requests.recv() => {}
        }
        hole.hangs_up().await;
    }

    #[tokio::test]
    async fn dropping_a_body_cancels_it() {
        let first = [STREAM_HEAD, &chunk(GOOD.as_bytes())].concat();
        let mut provider = Scripted::start(vec![Act::Read, Act::Write(first), Act::Hold]).await;
        let upstreams = upstreams(provider.base_url());
        let answer = send(&upstreams, &call(r#"{"model":"m","stream":true}"#), timeouts()).await;
        let mut answer = answer.unwrap_or_else(|error| panic!("{error:?}"));
        assert!(poll_fn(|cx| answer.body.poll_frames(cx)).await.is_some_and(|first| first.is_ok()));
        assert!(provider.hung_up.try_recv().is_err());
        drop(answer);
        provider.hangs_up().await;
    }

    #[test]
    fn a_credential_that_no_header_may_hold_is_refused_without_showing_it() {
        let mut setup = setup("http://127.0.0.1:1/v1".into());
        let ProviderProtocol::Network(host) = &mut setup.protocol else { unreachable!("the setup is OpenAI's") };
        host.credentials.push(Secret::new("s3cret\n"));
        let error = Upstreams::build(vec![setup], None, Clock).err().expect("a line feed ends a header");
        assert_eq!(error.to_string(), "providers.p.credential: holds characters that no header may hold");
    }

    #[test]
    fn what_cannot_be_built_names_its_provider() {
        let error = Upstreams::build(vec![setup("nowhere".into())], None, Clock).err().expect("it is no URL");
        assert!(error.to_string().starts_with("provider `p`: base_url"), "{error}");
    }
}
