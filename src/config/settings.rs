//! The compiled settings of modules other than the domain: server, store, telemetry, providers.
//!
//! Values here are final: defaults are filled in, names are resolved, units are converted. Routing and
//! policies are in the domain's own types; see
//! [`Snapshot`](super::Snapshot).

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;

use super::listen::ListenAddress;
use crate::domain::secret::Secret;

/// `[server]`: addresses, tokens and limits of the HTTP server.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Where clients are served.
    pub listen: ListenAddress,
    /// Where everything but `/v1` is served, if that has an address of its own.
    pub admin_listen: Option<ListenAddress>,
    /// The token of operators; `None`: one is to be generated and printed once.
    pub admin_token: Option<Secret>,
    /// The token that may only read what operators see; `None`: there is none.
    pub viewer_token: Option<Secret>,
    /// Which web pages may call `/v1` from a browser.
    pub cors: CorsSettings,
    /// The longest request body, in bytes.
    pub max_body_bytes: u64,
    /// The longest sum of request bodies held at once, in bytes.
    pub max_in_flight_bytes: u64,
    /// How many connections clients may have.
    pub connections: Arc<ConnectionLimits>,
    /// How many threads serve clients; `None`: one for each CPU.
    pub worker_threads: Option<NonZeroUsize>,
    /// How long to keep accepting after SIGTERM while `/readyz` already answers 503.
    pub lb_grace: Duration,
    /// How long open streams may finish after SIGTERM.
    pub drain: Duration,
    /// Whether a client that has closed its sending side is still answered.
    pub half_close: bool,
    /// The TLS certificate of both addresses; `None`: they serve plain HTTP.
    pub tls: Option<TlsSettings>,
}

/// How many connections clients may have, and which of them are a proxy's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectionLimits {
    /// The most at once; `None`: as many as the limit on open files allows.
    pub max: Option<usize>,
    /// The most from one address on which no key was accepted.
    pub keyless_per_address: usize,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self { max: None, keyless_per_address: usize::MAX, trusted_proxies: Vec::new() }
    }
}

/// `[server] cors_origins`: which web pages may call `/v1` from a browser.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct CorsSettings {
    /// Whether those of any origin may.
    pub any: bool,
    /// The origins whose pages may, as browsers write them.
    pub origins: Vec<String>,
}

/// `[server.tls]`: a certificate and the key that belongs to it.
#[derive(Clone)]
pub struct TlsSettings {
    /// The chain as it is sent to clients, and its private key.
    pub certified: Arc<CertifiedKey>,
    /// From this Unix second on no client trusts the certificate.
    pub expires_unix_s: i64,
}

/// An automatic renewal that still works has renewed a certificate long before this.
const EXPIRES_SOON_S: i64 = 14 * 86_400;

impl TlsSettings {
    /// The warning for operators about the certificate at this Unix second, if it ends soon or has ended.
    pub fn warning(&self, now_unix_s: i64) -> Option<String> {
        let left_s = self.expires_unix_s - now_unix_s;
        let days = |seconds: i64| match seconds / 86_400 {
            0 => "less than a day".to_owned(),
            1 => "1 day".to_owned(),
            days => format!("{days} days"),
        };
        let what = match left_s {
            EXPIRES_SOON_S.. => return None,
            1.. => format!("expires in {}", days(left_s)),
            _ => format!("expired {} ago, and clients refuse it", days(-left_s)),
        };
        Some(format!("the certificate {what}: renew it and replace the files; a running gateway takes them by itself"))
    }
}

impl std::fmt::Debug for TlsSettings {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsSettings").field("expires_unix_s", &self.expires_unix_s).finish_non_exhaustive()
    }
}

/// `[store]`: where keys and receipts are kept.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// Where keys and receipts are kept.
    pub location: StoreLocation,
    /// The file that a relative path of the configuration meant before it was read beside the configuration: in the
    /// working directory. `None` where both are the same.
    pub former_path: Option<PathBuf>,
    /// How long receipts are kept; `None`: for ever.
    pub retention: Option<Duration>,
    /// The server where gateways count limits together; its URL may hold a password.
    pub shared: Option<String>,
}

/// Where keys and receipts are kept.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreLocation {
    /// In memory: they are gone with the process.
    Memory,
    /// In a temporary SQLite file, removed with the process: the demo's.
    Temporary,
    /// In one SQLite file. A relative path is one from the working directory.
    Sqlite(PathBuf),
    /// In a database on a PostgreSQL server; the URL may hold a password.
    Postgres(String),
    /// At a Redis or Valkey server, which cannot hold it; the URL may hold a password.
    Redis(String),
}

impl StoreLocation {
    /// The location that a URL such as `sqlite:tierway.db` names; `None` where it is of no known kind.
    pub fn of_url(url: &str) -> Option<Self> {
        match url.split_once(':')? {
            ("memory", "") => Some(Self::Memory),
            // `sqlite:///var/lib/x.db` is how other programs write an absolute path.
            ("sqlite", path) => match path.strip_prefix("//").unwrap_or(path) {
                "" | ":memory:" => None,
                path => Some(Self::Sqlite(path.into())),
            },
            ("postgres" | "postgresql", rest) if rest.starts_with("//") => Some(Self::Postgres(url.to_owned())),
            ("redis" | "rediss", rest) if rest.starts_with("//") => Some(Self::Redis(url.to_owned())),
            _ => None,
        }
    }
}

impl std::fmt::Debug for StoreSettings {
    /// Without its fields: URLs may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreSettings").finish_non_exhaustive()
    }
}

/// `[telemetry]`: logs and metrics.
#[derive(Clone, Debug)]
pub struct TelemetrySettings {
    /// Which log lines are written: a level or filter directives.
    pub log: String,
    /// Whether `/metrics` needs a token.
    pub metrics: MetricsAccess,
    /// A token that reads `/metrics` and nothing else, beside those of operators.
    pub metrics_token: Option<Secret>,
    /// The longest that a failover should take; metrics count those within it.
    pub failover_objective: Duration,
}

/// Who may read `/metrics`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum MetricsAccess {
    /// Whoever has the metrics token, the viewer token or the admin token.
    #[default]
    Token,
    /// Whoever reaches the address.
    Open,
}

/// The part of `[routing]` that is about connections and frames rather than the choice of a deployment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TransportSettings {
    /// How long opening a connection may take.
    pub connect_timeout: Duration,
    /// What a frame that is not JSON means.
    pub malformed_frame: MalformedFrame,
}

/// `[providers.NAME]`
#[derive(Clone, Debug)]
pub struct ProviderSettings {
    /// Its name.
    pub name: Arc<str>,
    /// Whether it is reached over the network or simulated, and how.
    pub kind: ProviderTransport,
    /// Whether an end without a `finish_reason` is a truncation.
    pub finish_reason: FinishReason,
}

/// Whether a provider is reached over the network or simulated.
#[derive(Clone, Debug)]
pub enum ProviderTransport {
    /// Over the network.
    Network(NetworkSettings),
    /// Simulated: answers are made by the gateway.
    Sim(SimSettings),
}

/// Protocol, address and credentials of a provider.
#[derive(Clone, Debug)]
pub struct NetworkSettings {
    /// The API it serves; never [`ProtocolName::Sim`].
    pub protocol: ProtocolName,
    /// Scheme, host and path, without a slash at the end.
    pub base_url: String,
    /// The credentials sent to it, used in turn; empty for a provider that requires none.
    pub credentials: Vec<ProviderCredential>,
    /// Whether HTTP/2 is used.
    pub http2: bool,
    /// The authorities that its certificate may come from; `None`: those that the system trusts.
    pub ca: Option<Arc<[CertificateDer<'static>]>>,
    /// The URL of the HTTP proxy that it is reached through, which may hold a password.
    pub proxy: Option<Secret>,
    /// What the ceiling of the output is called where we write it.
    pub max_tokens_name: OutputCeiling,
    /// Whether it may be sent `stream_options`.
    pub stream_options: bool,
    /// What an answer costs that its client did not wait for.
    pub on_abandon: OnAbandon,
    /// Headers sent with every request; any of them may be secret.
    pub headers: Vec<(HeaderName, Secret)>,
    /// The client's headers that are passed on.
    pub forward_headers: Vec<HeaderName>,
    /// The parameters of the client's query that are passed on.
    pub forward_query: Vec<Arc<str>>,
}

/// The member by which a provider takes the ceiling of the output.
#[derive(Clone, Copy, PartialEq, Eq, serde::Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum OutputCeiling {
    /// As everywhere, once.
    MaxTokens,
    /// What OpenAI's reasoning models want, and refuse the other name.
    MaxCompletionTokens,
}

/// What an answer costs that its client did not wait for, by what its provider does when we leave it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum OnAbandon {
    /// It stops: what came is charged.
    #[default]
    Estimate,
    /// It goes on, and so do we, to its end: what it counts is charged.
    ReadOn,
    /// It goes on without us: all that is held is charged.
    ChargeHold,
}

/// One credential of a provider.
#[derive(Clone, Debug)]
pub struct ProviderCredential {
    /// Where its text is written, for people: the name of a variable, or `file:` and a path. Never the text itself.
    pub name: Arc<str>,
    /// What is presented.
    pub secret: Secret,
}

/// How a simulated provider behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SimSettings {
    /// From the request to the first token.
    pub first_token: Duration,
    /// How fast tokens follow.
    pub tokens_per_second: u32,
    /// The share of requests answered with an error, in hundredths of a percent.
    pub error_rate_bp: u32,
}

/// The API that a provider serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProtocolName {
    /// OpenAI's API, and every API compatible with it.
    OpenAi,
    /// Azure OpenAI.
    Azure,
    /// Anthropic's Messages API.
    Anthropic,
    /// Google's Gemini API.
    Gemini,
    /// Amazon Bedrock.
    Bedrock,
    /// Simulated: no network.
    Sim,
}

/// Whether a provider ends every choice with a `finish_reason`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FinishReason {
    /// It does: an end without one is a truncation.
    Required,
    /// It is known to omit it: `[DONE]` is enough.
    Optional,
}

/// What a frame that is not JSON means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MalformedFrame {
    /// The attempt failed.
    Fail,
    /// It is passed on as it came.
    Pass,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_one_place_or_none() {
        let check =
            |url: &str, expected: Option<StoreLocation>| assert!(StoreLocation::of_url(url) == expected, "{url}");
        let sqlite = |path: &str| Some(StoreLocation::Sqlite(path.into()));
        check("memory:", Some(StoreLocation::Memory));
        check("sqlite:tierway.db", sqlite("tierway.db"));
        check("sqlite:/var/lib/tierway/tierway.db", sqlite("/var/lib/tierway/tierway.db"));
        check("sqlite:///var/lib/tierway/tierway.db", sqlite("/var/lib/tierway/tierway.db"));
        check("postgres://me:hush@db/x", Some(StoreLocation::Postgres("postgres://me:hush@db/x".into())));
        check("redis://:hush@db", Some(StoreLocation::Redis("redis://:hush@db".into())));
        for none in ["", "tierway.db", "memory", "memory:x", "sqlite:", "sqlite://", "sqlite::memory:", "mysql://db/x"]
        {
            check(none, None);
        }
    }

    #[test]
    fn a_certificate_that_ends_soon_is_warned_about() {
        let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("rcgen can sign");
        let key = rustls::pki_types::PrivateKeyDer::try_from(issued.signing_key.serialize_der()).expect("a key");
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).expect("a key we can use");
        let certified = Arc::new(CertifiedKey::new(vec![issued.cert.der().clone()], key));
        let day = 86_400;
        let tls = TlsSettings { certified, expires_unix_s: 100 * day };
        let check = |now: i64, expected: Option<&str>| {
            let warning = tls.warning(now);
            let said = warning.as_deref().map(|warning| warning.split(':').next().unwrap_or_default());
            assert_eq!(said, expected, "at {now}");
        };
        check(86 * day, None);
        check(86 * day + 1, Some("the certificate expires in 13 days"));
        check(99 * day, Some("the certificate expires in 1 day"));
        check(100 * day - 1, Some("the certificate expires in less than a day"));
        check(100 * day, Some("the certificate expired less than a day ago, and clients refuse it"));
        check(103 * day, Some("the certificate expired 3 days ago, and clients refuse it"));
    }
}
