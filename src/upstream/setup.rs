//! Providers as configured, and what makes a configuration impossible to send to.
//!
//! Plain values without behaviour, made by whoever read the configuration. They never show a credential when
//! printed.
//!
//! Start reading in [`ProviderSetup`].

use crate::domain::secret::Secret;
use crate::protocol::chat::answer::ChatQuirks;
use http::HeaderName;
use rustls::pki_types::CertificateDer;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// One provider as configured.
#[derive(Clone, PartialEq, Debug)]
pub struct ProviderSetup {
    /// Its configured name.
    pub name: Arc<str>,
    /// What kind of provider it is.
    pub protocol: ProviderProtocol,
    /// How long connecting may take, TLS included.
    pub connect_timeout: Duration,
}

/// The kinds of providers.
#[derive(Clone, PartialEq, Debug)]
pub enum ProviderProtocol {
    /// A host on the network.
    Network(NetworkSetup),
    /// No network: a simulated provider.
    Sim(SimSetup),
}

/// The API of a host: the paths of its endpoints, and how a credential is presented.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HostProtocol {
    /// OpenAI's: `Authorization: Bearer CREDENTIAL`.
    OpenAi,
    /// Anthropic's: `x-api-key: CREDENTIAL`.
    Anthropic,
}

/// A host on the network, and where it differs from others of its API.
#[derive(Clone)]
pub struct NetworkSetup {
    /// Whose API it has.
    pub api: HostProtocol,
    /// Up to and including its `/v1`, which may be missing for Anthropic's; a query string is kept on every request.
    pub base_url: String,
    /// Presented one with each request; none is sent when empty.
    pub credentials: Vec<Secret>,
    /// HTTP/2: by prior knowledge over `http://`, where the host agrees over `https://`.
    pub http2: bool,
    /// Its streams may end without a `finish_reason`.
    pub finish_reason_optional: bool,
    /// Frames of its streams that are not JSON are passed on.
    pub skip_malformed_frames: bool,
    /// It takes the ceiling of the output as `max_completion_tokens`.
    pub max_completion_tokens: bool,
    /// It may be asked for the usage of streams.
    pub asks_usage: bool,
    /// Its headers and query, beyond what every host gets.
    pub fields: FieldSetup,
    /// Whom its certificate may come from, and what it is reached through.
    pub connection: ConnectionSetup,
}

/// How the way to one host differs from that to others.
#[derive(Clone, Default)]
pub struct ConnectionSetup {
    /// The authorities that its certificate may come from; `None`: those that the system trusts.
    pub authorities: Option<Arc<[CertificateDer<'static>]>>,
    /// The URL of the HTTP proxy that it is reached through, which may hold a password.
    pub proxy: Option<Secret>,
}

impl PartialEq for ConnectionSetup {
    fn eq(&self, other: &Self) -> bool {
        self.authorities == other.authorities
            && self.proxy.as_ref().map(Secret::expose) == other.proxy.as_ref().map(Secret::expose)
    }
}

/// The headers and the query of what is sent to one host, beyond what every host gets.
#[derive(Clone, Default)]
pub struct FieldSetup {
    /// Sent with every request, each under its own name; any of them may be secret.
    pub headers: Vec<(HeaderName, Secret)>,
    /// The client's headers that are passed on to it.
    pub forward_headers: Vec<HeaderName>,
    /// The parameters of the client's query that are passed on to it.
    pub forward_query: Vec<Arc<str>>,
}

impl PartialEq for FieldSetup {
    fn eq(&self, other: &Self) -> bool {
        let exposed = |setup: &Self| -> Vec<(HeaderName, String)> {
            setup.headers.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect()
        };
        exposed(self) == exposed(other)
            && self.forward_headers == other.forward_headers
            && self.forward_query == other.forward_query
    }
}

impl NetworkSetup {
    /// What it is known to do otherwise.
    pub(super) fn quirks(&self) -> ChatQuirks {
        let Self { finish_reason_optional, skip_malformed_frames, max_completion_tokens, .. } = *self;
        ChatQuirks { finish_reason_optional, skip_malformed_frames, max_completion_tokens }
    }
}

impl PartialEq for NetworkSetup {
    fn eq(&self, other: &Self) -> bool {
        self.api == other.api
            && self.base_url == other.base_url
            && self.credentials.iter().map(Secret::expose).eq(other.credentials.iter().map(Secret::expose))
            && self.http2 == other.http2
            && self.quirks() == other.quirks()
            && self.asks_usage == other.asks_usage
            && self.fields == other.fields
            && self.connection == other.connection
    }
}

impl fmt::Debug for NetworkSetup {
    /// Without the credentials, and without the URL, which may hold one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetworkSetup")
            .field("api", &self.api)
            .field("credentials", &self.credentials.len())
            .field("http2", &self.http2)
            .field("quirks", &self.quirks())
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

/// Why a configuration cannot be sent to.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The URL is none, is not HTTP or has no host.
    #[error("provider `{provider}`: base_url {problem}")]
    BaseUrl {
        /// The configured name of the provider.
        provider: Arc<str>,
        /// What is wrong with it, as the end of a sentence.
        problem: String,
    },
    /// A credential holds what no header may hold.
    #[error("providers.{provider}.credential: holds characters that no header may hold")]
    Credential {
        /// The configured name of the provider.
        provider: Arc<str>,
    },
    /// A configured header holds what none may hold.
    #[error("providers.{provider}.headers: a value holds characters that no header may hold")]
    Header {
        /// The configured name of the provider.
        provider: Arc<str>,
    },
    /// The URL of a proxy is none.
    #[error("providers.{provider}.proxy: is not the URL of a proxy")]
    Proxy {
        /// The configured name of the provider.
        provider: Arc<str>,
    },
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    /// The HTTP client cannot be set up.
    #[error("provider `{provider}`: the HTTP client cannot be set up: {problem}")]
    Client {
        /// The configured name of the provider.
        provider: Arc<str>,
        /// What the client library says.
        problem: String,
    },
}
