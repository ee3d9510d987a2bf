//! `[server]`, `[store]` and `[telemetry]`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use super::super::listen::ListenAddress;
use super::super::reader::{Setting, SettingKey, Table, ValueError, keywords, section};
use super::super::settings::{MetricsAccess, StoreLocation};
use super::super::value::{
    BaseUrl, ByteSize, CertificateChain, InFlightSetting, LogFilter, NetworkText, PrivateKey, SharedUrl, StoreUrl,
    WebOriginText, WholeDays,
};
use super::nonzero;
use crate::domain::secret::Secret;

/// The variable of the admin token where the file has none.
const ADMIN_TOKEN_VARIABLE: &str = "TIERWAY_ADMIN_TOKEN";

/// The bounds of an adaptive limit that sets none.
const ADAPTIVE_LEAST: NonZeroU32 = nonzero(32);
const ADAPTIVE_MOST: NonZeroU32 = nonzero(4096);

section! {
    /// `[server]`
    pub(in crate::config) struct ServerSection {
        /// Where clients are served, and operators unless moved; ":8080" is every address of the machine. A change needs
        /// a restart.
        // Loopback: without configuration nobody else may reach the gateway.
        listen: Setting<ListenAddress> = or(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080).into()),
        /// Moves everything but /v1 to an address of its own. A change needs a restart.
        admin_listen: Option<Setting<ListenAddress>> = optional(),
        /// What operators present. Absent: $TIERWAY_ADMIN_TOKEN, else one is made at start and printed once.
        /// Required where operators can be reached from other machines.
        admin_token: Option<Setting<Secret>> = read_by(admin_token),
        /// What those present who may look at everything of an operator's and change nothing.
        viewer_token: Option<Setting<Secret>> = optional(),
        /// The origins whose web pages may call /v1 from a browser, with a key; absent: none. Never /admin.
        cors_origins: Option<Vec<Setting<WebOriginText>>> = list(),
        /// The longest request body, as sent and as decoded.
        // A long conversation with a few images.
        max_body: Setting<ByteSize> = or(ByteSize(32 << 20)),
        /// The most bytes of requests and large answers held at once. One key holds no more of it than it leaves free, at
        /// most half; what is beyond that is refused for the moment, or waits.
        // Thirty-two of the largest bodies, which a small machine survives.
        max_in_flight_bytes: Setting<ByteSize> = or(ByteSize(1 << 30)),
        /// The most requests in flight at once, from the choice of a model to the last byte of the answer; beyond it they
        /// wait, by priority, up to queue_wait. "adaptive": as many as leave first tokens about as soon as they usually
        /// come. Absent: any number. Requests by Pro/ names are not counted: they have the places of their deployments.
        max_in_flight: Option<Setting<InFlightSetting>> = optional(),
        /// The lowest that an adaptive max_in_flight falls to.
        // So few are no load for a provider, and enough to measure by.
        adaptive_at_least: Setting<NonZeroU32> = or(ADAPTIVE_LEAST),
        /// Where an adaptive max_in_flight begins, and the highest that it rises to.
        // Nothing is refused before a slowdown was measured.
        adaptive_at_most: Setting<NonZeroU32> = or(ADAPTIVE_MOST),
        /// The most connections of clients at once; absent: half of the files that the process may open, 65536 at most.
        /// Where there are as many, idle ones give way, first those on which no key was accepted. A change needs a
        /// restart.
        max_connections: Option<Setting<NonZeroU32>> = optional(),
        /// The most connections from one address on which no key was accepted yet; beyond it the oldest idle one closes.
        /// An IPv6 address counts with its /64. Local addresses and trusted proxies are not counted. A change needs a
        /// restart.
        // A connection has no key only until its first request: many clients behind one address fit.
        max_keyless_per_address: Setting<NonZeroU32> = or(NonZeroU32::new(512).expect("it is not zero")),
        /// Proxies in front, as addresses or networks such as "10.0.0.0/8": the address that they append to
        /// X-Forwarded-For counts instead of theirs. Absent: none. A change needs a restart.
        trusted_proxies: Option<Vec<Setting<NetworkText>>> = list(),
        /// The threads that serve clients; absent: one for each CPU that the process may use by its affinity and its
        /// cgroup's quota, rounded down. A change needs a restart.
        worker_threads: Option<Setting<NonZeroU32>> = optional(),
        /// How long to keep accepting after SIGTERM, while /readyz already says 503.
        // Most load balancers need no grace, and tests should not wait.
        lb_grace: Setting<Duration> = or(Duration::ZERO),
        /// How long open streams may finish after SIGTERM.
        // The grace period of Kubernetes.
        drain: Setting<Duration> = or(Duration::from_secs(30)),
        /// Whether a client that closes its sending side after its request waits for the answer; otherwise it has left
        /// and its request is cancelled. A change needs a restart.
        // Most clients close that side when they leave; only a reset would tell.
        half_close: Setting<bool> = or(false),
        /// Serves HTTPS on every address. New files are taken while running; on or off needs a restart.
        tls: Option<TlsSection> = optional_table(TlsSection::read),
    }
}

impl ServerSection {
    pub(super) fn checked(table: &mut Table<'_>) -> Self {
        let server = Self::read(table);
        let (least, most) = (&server.adaptive_at_least, &server.adaptive_at_most);
        let diagnostics = table.diagnostics();
        if least.value > most.value {
            let written = if least.is_explicit() { least } else { most };
            let message = "`adaptive_at_least` is more than `adaptive_at_most`".to_owned();
            diagnostics.report_at(written, message, "lower it, or raise `adaptive_at_most`".to_owned());
        }
        let adaptive = server.max_in_flight.as_ref().is_some_and(|most| most.value == InFlightSetting::Adaptive);
        // What is shown of a configuration has every default written out, and must load.
        let changed =
            [(least, ADAPTIVE_LEAST), (most, ADAPTIVE_MOST)].into_iter().filter(|(bound, usual)| bound.value != *usual);
        for (written, _) in changed.filter(|_| !adaptive) {
            let message = "is for an adaptive `max_in_flight`, and this one is not".to_owned();
            diagnostics.report_at(written, message, "set `max_in_flight = \"adaptive\"`, or remove it".to_owned());
        }
        server
    }
}

section! {
    /// `[server.tls]`
    pub(in crate::config) struct TlsSection {
        /// The certificate chain as PEM, the server's own certificate first.
        cert: Option<Setting<CertificateChain>> = required(),
        /// The private key of the first certificate, as PEM.
        key: Option<Setting<PrivateKey>> = required(),
    }
}

section! {
    /// `[store]`
    pub(in crate::config) struct StoreSection {
        /// "sqlite:PATH" is one file, made where there is none, and held by one gateway; a relative path begins at the
        /// folder of this file. "postgres://USER:PASSWORD@HOST/DATABASE" is a PostgreSQL server that any number of
        /// gateways share. "memory:" keeps nothing.
        // Beside the configuration, wherever a command that reads both is started.
        url: Setting<StoreUrl> = read_by(|key, table| {
            refuse_redis(table.or(key, StoreUrl("sqlite:tierway.db".to_owned())), table)
        }),
        /// How long receipts are kept, such as "400d"; absent: for ever. What is too old is deleted a little at a
        /// time.
        retention: Option<Setting<WholeDays>> = optional(),
        /// Where gateways that share a PostgreSQL store count each key's limits together: a Redis or Valkey server,
        /// "redis://:PASSWORD@HOST:PORT" or "rediss://…" with TLS. Without it each grants its part: the limit divided by
        /// how many gateways are alive.
        shared: Option<Setting<SharedUrl>> = optional(),
    }
}

section! {
    /// `[telemetry]`
    pub(in crate::config) struct TelemetrySection {
        /// A level, or directives such as "info,tierway::relay=debug"; one line a request at info.
        // One line per request and every change of state, no more.
        log: Setting<LogFilter> = or(LogFilter("info".to_owned())),
        /// What Prometheus presents to read /metrics, and nothing else; the viewer and the admin token read it too.
        metrics_token: Option<Setting<Secret>> = optional(),
        /// Whether /metrics asks for a token, or is open to whoever reaches it.
        // Names of keys, teams and budgets are in it.
        metrics: Setting<MetricsAccess> = read_by(|key, table| {
            let access = table.or(key, MetricsAccess::Token);
            if access.value == MetricsAccess::Open && table.has("metrics_token") {
                let hint = "remove one of the two";
                table.report(key.name, ValueError::hinting("is open, and `metrics_token` is set", hint));
            }
            access
        }),
        /// Where traces are sent.
        #[unbuilt = "no traces would be sent"]
        otlp: Option<Setting<BaseUrl>> = optional(),
    }
}

keywords!(MetricsAccess { "token" => Token, "open" => Open });

/// An absent token is looked for in the environment; a written one must be found.
fn admin_token(key: SettingKey, table: &mut Table<'_>) -> Option<Setting<Secret>> {
    let written = table.optional(key);
    if written.is_some() || table.has(key.name) {
        return written;
    }
    let text = table.diagnostics().variable(ADMIN_TOKEN_VARIABLE)?;
    Some(table.taken_from(key.name, ADMIN_TOKEN_VARIABLE, Secret::new(text)))
}

/// Redis can count for several gateways, and keeps nothing for good.
fn refuse_redis(url: Setting<StoreUrl>, table: &Table<'_>) -> Setting<StoreUrl> {
    if matches!(StoreLocation::of_url(&url.value.0), Some(StoreLocation::Redis(_))) {
        let hint = "write \"sqlite:PATH\" or \"postgres://…\"";
        table.report("url", ValueError::hinting("is a Redis, which cannot keep receipts and money", hint));
    }
    url
}
