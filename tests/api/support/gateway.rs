//! The gateway under test: the production code on its own port, in its own runtime.
//!
//! Its drop asserts what holds for every API test: each request that entered the request path has
//! exactly one receipt, those of known keys are in the ledger, and nothing is still held: no slot, no attempt, no permit.

use super::client::{Client, Response};
use super::h2_client::H2Client;
use super::provider::ScriptedProvider;
use std::collections::HashMap;
use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tierway::cli::serve::Gateway;
use tierway::clock::Clock;
use tierway::config::{ConfigSource, Environment, Snapshot, load};
use tierway::domain::receipt::Receipt;
use tierway::domain::secret::Secret;
use tierway::http::AppState;
use tierway::http::conn::lifecycle::Lifecycle;
use tierway::http::conn::listener::Listener;
use tierway::http::conn::workers::WorkerThreads;
use tierway::random::Rng;
use tierway::relay::Relay;
use tierway::store::Counters;
use tierway::store::Stores;
use tierway::store::memory::MemoryLedger;
use tierway::telemetry::Telemetry;
use tierway::telemetry::access::AccessLog;
use tierway::telemetry::metrics::BuildMetadata;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// The key that test configurations refer to as `env:TEST_KEY`.
pub const KEY: &str = "tw_test_canary_client_key";
/// A second key, `env:OTHER_KEY`.
pub const OTHER_KEY: &str = "tw_test_canary_other_key";
/// The provider credential, `env:CREDENTIAL`.
pub const CREDENTIAL: &str = "sk-canary-provider-credential";
/// The admin token.
pub const ADMIN_TOKEN: &str = "twa_canary_admin_token";
/// The read-only admin token, `env:VIEWER_TOKEN`.
pub const VIEWER_TOKEN: &str = "twv_canary_viewer_token";
/// The token for `/metrics`, `env:METRICS_TOKEN`.
pub const METRICS_TOKEN: &str = "twm_canary_metrics_token";
/// How long slots, attempts and permits may stay held after a test's last request.
const SETTLES_WITHIN: Duration = Duration::from_secs(10);

/// A running gateway.
pub struct TestGateway {
    /// The address it listens on.
    pub addr: SocketAddr,
    /// The request path.
    pub relay: Arc<Relay>,
    /// Its receipts.
    pub ledger: Arc<MemoryLedger>,
    /// Stops it.
    pub lifecycle: Lifecycle,
    /// Its metrics and logs.
    pub telemetry: Arc<Telemetry>,
    /// The state its HTTP handlers share.
    pub app: Arc<AppState>,
    counters: Arc<dyn Counters>,
    access: SharedBuffer,
    runtime: Option<Runtime>,
    /// Where clients are served, if not in `runtime`.
    threads: Option<WorkerThreads>,
}

impl TestGateway {
    /// Serves `config`, a TOML text that may name `env:TEST_KEY`, `env:OTHER_KEY` and `env:CREDENTIAL`.
    pub async fn start(config: &str) -> Self {
        Self::start_seeded(config, 1).await
    }

    /// The same with this seed for its random numbers.
    pub async fn start_seeded(config: &str, seed: u64) -> Self {
        Self::start_snapshot(compile(config), seed).await
    }

    /// Serves a snapshot that is compiled already.
    pub async fn start_snapshot(snapshot: Arc<Snapshot>, seed: u64) -> Self {
        let ledger = Arc::new(MemoryLedger::default());
        Self::start_with_stores(snapshot, seed, ledger.clone(), Stores { ledger, ..Stores::memory().await }).await
    }

    /// Serves `config` by so many workers, as `serve` does.
    #[allow(dead_code, reason = "used by the API tests")]
    pub async fn start_by_workers(config: &str, workers: usize) -> Self {
        let ledger = Arc::new(MemoryLedger::default());
        let stores = Stores { ledger: ledger.clone(), ..Stores::memory().await };
        let threads = WorkerThreads::start(NonZeroUsize::new(workers)).expect("the system gives threads");
        Self::start_in(Some(threads), compile(config), 1, ledger, stores).await
    }

    /// The same with the given stores, whose ledger must also write to `ledger`.
    pub async fn start_with_stores(
        snapshot: Arc<Snapshot>,
        seed: u64,
        ledger: Arc<MemoryLedger>,
        stores: Stores,
    ) -> Self {
        Self::start_in(None, snapshot, seed, ledger, stores).await
    }

    async fn start_in(
        threads: Option<WorkerThreads>,
        snapshot: Arc<Snapshot>,
        seed: u64,
        ledger: Arc<MemoryLedger>,
        stores: Stores,
    ) -> Self {
        let access = SharedBuffer::default();
        let log = AccessLog::to_writer(Box::new(access.clone()));
        let telemetry = Arc::new(Telemetry::new(log, BuildMetadata { version: "0.0.0-test", revision: None }));
        let token = Some(Secret::new(ADMIN_TOKEN));
        let gateway = Gateway::build(snapshot, token, telemetry.clone(), Rng::seeded(seed), Clock, stores)
            .unwrap_or_else(|error| panic!("the gateway cannot be built: {error}"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let addr = listener.local_addr().expect("a bound listener has an address");
        let listener = listener.into_std().expect("a fresh listener converts");
        let (relay, counters) = (gateway.relay.clone(), gateway.counters.clone());
        let (lifecycle, app) = (gateway.lifecycle.clone(), gateway.app.clone());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("the system gives threads");
        let workers = threads.as_ref().map(|threads| threads.workers().clone());
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("the listener is non-blocking");
            match workers {
                None => gateway.serve(listener, None).await,
                Some(workers) => {
                    let shares = Listener::from(listener).shared_by(workers.runtimes()).expect("descriptors are left");
                    gateway.serve_by(workers, shares, None).await;
                }
            }
        });
        Self { addr, relay, ledger, lifecycle, telemetry, app, counters, access, runtime: Some(runtime), threads }
    }

    /// Serves another configuration from now on.
    pub fn reload(&self, config: &str) {
        self.relay.reload(compile(config)).unwrap_or_else(|error| panic!("the configuration is refused: {error}"));
    }

    /// A new HTTP/1.1 connection.
    pub async fn connect(&self) -> Client {
        Client::connect(self.addr).await
    }

    /// A new HTTP/2 connection.
    pub async fn connect_h2(&self) -> H2Client {
        H2Client::connect(self.addr).await
    }

    /// One chat request with the test's key, on a connection of its own, answered to its end.
    pub async fn chat(&self, body: &str) -> Response {
        self.post("/v1/chat/completions", &[], body).await
    }

    /// One request with the test's key and further headers, on a connection of its own.
    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
        let mut client = self.connect().await;
        let mut all = vec![("authorization", BEARER)];
        all.extend_from_slice(headers);
        client.post(path, &all, body).await;
        client.response().await
    }

    /// One `GET`, with the test's key.
    pub async fn get(&self, path: &str) -> Response {
        let mut client = self.connect().await;
        client.get(path, &[("authorization", BEARER)]).await;
        client.response().await
    }

    /// The value of one series in `/metrics`, named as in the exposition format; 0 if it is absent.
    pub fn metric(&self, series: &str) -> f64 {
        let text = self.telemetry.metrics.render();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().expect("a metric's value is a number"))
    }

    /// How many attempts at `deployment` have ended.
    pub fn attempts_at(&self, deployment: &str) -> u64 {
        self.sum(&format!("tierway_attempts_total{{deployment=\"{deployment}\","))
    }

    /// How often the breaker of `deployment` made a transition, such as `reason="probe",to="open"`.
    pub fn transitions(&self, deployment: &str, labels: &str) -> f64 {
        self.metric(&format!("tierway_breaker_transitions_total{{deployment=\"{deployment}\",{labels}}}"))
    }

    /// The sum of all series in `/metrics` whose name and labels begin like this.
    pub fn sum(&self, beginning: &str) -> u64 {
        let text = self.telemetry.metrics.render();
        let series = text.lines().filter(|line| line.starts_with(beginning));
        let values = series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        values.sum::<f64>() as u64
    }

    /// Waits until `count` receipts are written, and returns them.
    pub async fn receipts(&self, count: u64) -> Vec<Arc<Receipt>> {
        let patience = Instant::now() + SETTLES_WITHIN;
        while self.ledger.count() < count {
            assert!(Instant::now() < patience, "{} receipts of {count}", self.ledger.count());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.ledger.recent()
    }

    /// The access log so far.
    pub fn access_log(&self) -> String {
        self.access.text()
    }

    /// How many requests of all keys hold a slot.
    #[allow(dead_code, reason = "used by the hardening tests")]
    pub fn slots_in_use(&self) -> u64 {
        self.counters.in_flight()
    }

    /// Receipts so far, as the metrics count them: those of requests without a valid key too.
    pub fn recorded(&self) -> u64 {
        self.metric("tierway_overhead_seconds_count") as u64
    }

    /// Lines of the access log that name a key: of these requests every one has a line.
    fn lines_of_keys(&self) -> u64 {
        self.access_log().matches(r#""key":"#).count() as u64
    }

    fn is_at_rest(&self) -> bool {
        self.recorded() == self.relay.entered()
            && self.ledger.count() == self.lines_of_keys()
            && self.counters.in_flight() == 0
            && self.relay.attempts_in_flight() == 0
    }
}

/// The `Authorization` value of [`KEY`].
pub const BEARER: &str = "Bearer tw_test_canary_client_key";

impl Drop for TestGateway {
    fn drop(&mut self) {
        let patience = Instant::now() + SETTLES_WITHIN;
        while !self.is_at_rest() && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(2));
        }
        let (entered, receipts) = (self.relay.entered(), self.recorded());
        let (kept, of_keys) = (self.ledger.count(), self.lines_of_keys());
        let (slots, attempts) = (self.counters.in_flight(), self.relay.attempts_in_flight());
        let ids: HashSet<_> = self.ledger.recent().iter().map(|receipt| receipt.id).collect();
        let distinct = ids.len() == self.ledger.recent().len();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        drop(self.threads.take());
        if !std::thread::panicking() {
            assert_eq!(receipts, entered, "every request leaves exactly one receipt");
            assert_eq!(kept, of_keys, "the ledger keeps those of known keys, as the access log does, and no others");
            assert!(distinct, "no request leaves two receipts");
            assert_eq!(slots, 0, "no slot of a key stays held");
            assert_eq!(attempts, 0, "no attempt stays in flight");
        }
    }
}

/// A policy that allows everything, and [`KEY`] in it.
pub const ALLOW_ALL: &str = r#"
[policies.everything]
tiers    = ["*"]
models   = ["*"]
reserved = true

[[keys]]
name   = "test"
policy = "everything"
secret = "env:TEST_KEY"
"#;

/// The table `[providers.NAME]` of `provider`.
pub fn provider_table(name: &str, provider: &ScriptedProvider, region: &str) -> String {
    let url = provider.base_url();
    format!(
        "[providers.{name}]\nprotocol = \"openai\"\nbase_url = \"{url}\"\ncredential = \"env:CREDENTIAL\"\nregion = \"{region}\"\n"
    )
}

/// `config`, compiled in a fixed environment.
pub fn compile(config: &str) -> Arc<Snapshot> {
    let source = ConfigSource::File { path: "tierway.toml".into(), text: config.to_owned() };
    Arc::new(
        load(&source, &TestEnvironment::default(), &[]).unwrap_or_else(|problems| panic!("{}", problems.render(false))),
    )
}

/// The environment of every test.
pub struct TestEnvironment(HashMap<&'static str, &'static str>);

impl Default for TestEnvironment {
    fn default() -> Self {
        Self(HashMap::from([
            ("TEST_KEY", KEY),
            ("OTHER_KEY", OTHER_KEY),
            ("CREDENTIAL", CREDENTIAL),
            ("VIEWER_TOKEN", VIEWER_TOKEN),
            ("METRICS_TOKEN", METRICS_TOKEN),
        ]))
    }
}

impl Environment for TestEnvironment {
    fn variable(&self, name: &str) -> Option<String> {
        self.0.get(name).map(|value| (*value).to_owned())
    }

    fn variables(&self) -> Vec<(String, String)> {
        self.0.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn read(&self, _: &Path) -> io::Result<String> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// A writer whose text can be read back.
#[derive(Clone, Default)]
pub struct SharedBuffer(Arc<Mutex<Vec<u8>>>);

impl SharedBuffer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("no writer panics")).into_owned()
    }
}

impl io::Write for SharedBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no writer panics").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
