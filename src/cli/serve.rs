//! `tierway serve`: builds every part, connects them, and serves until the process is stopped.
//!
//! It decides nothing about requests. It decides which keys a start needs: without a file, the demo is served, with a
//! generated key and admin token; a file is served with its own keys; a file without keys gets a generated key on
//! loopback and is refused elsewhere.
//!
//! Start reading at [`serve`]; [`Gateway`] is the same gateway, used by tests.

use super::banner::{GatewayAddresses, GeneratedSecrets, banner, dashboard_url};
use super::check::EXIT_CONFIGURATION;
use super::demo_store::DemoStore;
use super::environment::CommandEnvironment;
use super::operator::operator;
use super::sla_probe::SlaProber;
use super::take_over::{self, Predecessor, TakeOverError, TakeOverListener, TakeOverResources};
use super::{EXIT_UNAVAILABLE, ServeArgs, VERSION, reload, secrets, service_manager, sla_closing, store};
use crate::admin::{AdminOperations, RandomBytes, clashes};
use crate::clock::Clock;
use crate::config::{
    ConfigSource, ConfigWatcher, ConnectionLimits, ExtraKey, ListenAddress, Snapshot, StoreLocation, find, load,
};
use crate::domain::secret::{KeyHash, Secret, new_admin_token, new_key};
use crate::http::conn::lifecycle::Lifecycle;
use crate::http::conn::listener::{InheritError, InheritedListeners, Listener, ListenerKind, bind};
use crate::http::conn::server::{self, HttpServer};
use crate::http::conn::tls::{CertificateSource, ServerTls};
use crate::http::conn::workers::{WorkerThreads, Workers};
use crate::http::peer_refusals::PeerRefusals;
use crate::http::sessions::Sessions;
use crate::http::{AppState, ops_handler, public_handler};
use crate::random::Rng;
use crate::relay::{ActivateError, Relay, RelayParts};
use crate::store::divided::ReplicaDivision;
use crate::store::keyring::Keyring;
use crate::store::{Counters, LeaseStore, Stores};
use crate::telemetry::Telemetry;
use crate::telemetry::log::LogWriter;
use crate::telemetry::metrics::BuildMetadata;
use anyhow::Context;
use arc_swap::{ArcSwap, ArcSwapOption};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Weak, mpsc};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Version and revision of this program; a build script may set the revision.
const BUILD: BuildMetadata = BuildMetadata { version: VERSION, revision: option_env!("TIERWAY_REVISION") };

/// An idle lease is returned after this long, so that a crash does not lose it.
const TIDY_EVERY: Duration = Duration::from_secs(10);

/// How long what a start prints is waited for.
const PRINT_TIMEOUT: Duration = Duration::from_secs(1);

/// How soon a change made by a command is applied.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Why `serve` ends before it serves.
enum StartError {
    /// Exit code 78, with every problem in the text.
    Configuration(String),
    /// Exit code 69: an address or the store is not available.
    Unavailable(String),
    Other(anyhow::Error),
}

impl StartError {
    fn unavailable(why: impl std::fmt::Display) -> Self {
        Self::Unavailable(format!("error: {why}"))
    }
}

impl<E: Into<anyhow::Error>> From<E> for StartError {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

/// Serves until SIGTERM or Ctrl-C.
///
/// # Errors
/// If the system refuses the process what it needs.
pub fn serve(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    // Before the runtime has threads: it changes the environment.
    let passed = service_manager::passed_listeners();
    raise_open_files();
    // For everything but clients, who have threads of their own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let message = match runtime.block_on(run(args, passed)) {
        Ok(()) => return Ok(ExitCode::SUCCESS),
        Err(StartError::Other(error)) => return Err(error),
        Err(StartError::Configuration(text)) => (text, EXIT_CONFIGURATION),
        Err(StartError::Unavailable(text)) => (text, EXIT_UNAVAILABLE),
    };
    // The stream strips colours where there is no terminal or NO_COLOR is set.
    writeln!(anstream::stderr(), "{}", message.0.trim_end())?;
    Ok(ExitCode::from(message.1))
}

/// Raises the limit on open files to what the process may set: many systems begin with 1024, for programs that cannot
/// have more. Where that fails, it serves with what it has.
pub(super) fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    }
}

async fn run(args: &ServeArgs, passed: Result<InheritedListeners, InheritError>) -> Result<(), StartError> {
    let passed = passed.map_err(StartError::unavailable)?;
    let found = FoundConfig::find(args)?;
    let logger = Arc::new(LogWriter::start(&found.snapshot.telemetry.log, || Clock.unix_ms())?);
    let clock = Clock;
    let asked_at = take_over::socket_path(args.take_over_socket.as_deref(), &found.snapshot);
    let mut predecessor = if args.take_over { find_predecessor(asked_at.clone(), clock).await? } else { None };
    // Removed after the last write to it.
    let demo = demo_store(&found.snapshot).map(Arc::new);
    // Dropped after everything that settles, and before the logs.
    let shared = predecessor.as_mut().and_then(Predecessor::take_lock);
    let opened = store::open(&found.snapshot.store, demo.as_deref(), clock, shared).await;
    let opened = opened.map_err(StartError::unavailable)?;
    let (books, _writing) = (opened.books, opened.writing);
    let keyring = books.keyring.clone();
    let loaded = LoadedConfig::of(found, &keyring)?;
    let snapshot = loaded.snapshot.clone();
    for unenforced in &snapshot.unenforced {
        tracing::warn!(setting = %unenforced.setting, why = %unenforced.why, "not yet enforced");
    }
    let telemetry = Arc::new(Telemetry::new(logger.access(), BUILD));
    store::watch(&telemetry, &books);
    let gateway = Gateway::build(
        snapshot.clone(),
        loaded.admin_token.clone(),
        telemetry,
        Rng::seeded(u64::from_le_bytes(*secrets::random_bytes()?)),
        clock,
        books,
    )?;
    let listeners = Listeners::open(&snapshot, passed, predecessor.as_mut())?;
    let address = listeners.public.address()?;
    let resources = TakeOverResources::new(&listeners.public, listeners.ops.as_ref(), opened.lock)?;
    let threads = WorkerThreads::start(snapshot.server.worker_threads).context("the workers cannot be started")?;
    let public = listeners.public.shared_by(threads.workers().runtimes())?;
    let scheme = if snapshot.server.tls.is_some() { "https" } else { "http" };
    let banner = {
        let model = snapshot.table.example_model().map_or("", |model| model);
        // Whoever sees it may change everything: only the demo prints one, whose secrets are on the same screen.
        let link = if loaded.source.is_demo() { gateway.app.sessions.make_link() } else { None };
        let operators = listeners.ops.as_ref().map(Listener::address).transpose()?;
        let operators = operators.as_ref().unwrap_or(&address);
        let dashboard = dashboard_url(scheme, operators, link.as_ref());
        let addresses = GatewayAddresses { scheme, clients: &address, operators, dashboard: dashboard.as_deref() };
        banner(&addresses, &loaded.generated, snapshot.telemetry.metrics, model)
    };
    let watcher = ConfigWatcher::new(&loaded.source, loaded.environment, loaded.extra_keys, snapshot.clone());
    let (hangups, stops) = (signal(SignalKind::hangup())?, StopEvents::new()?);
    // Nothing of the start can fail any more.
    let took_over = predecessor.is_some();
    if let Some(predecessor) = predecessor {
        predecessor.commit(clock).await.map_err(StartError::unavailable)?;
    }
    let successors = asked_at.and_then(|path| be_asked(path, resources, took_over, clock));
    let kept = demo.as_ref().is_some_and(|demo| demo.publish(&address.to_string()).is_ok());
    say(io::stderr(), format!("{banner}{}", store::note(&snapshot.store, kept)));
    tokio::spawn(reload::watch(watcher, hangups, gateway.app.clone(), logger.clone(), loaded.admin_token));
    tokio::spawn(shut_down_when_asked(gateway.app.clone(), stops, successors, demo.as_ref().map(Arc::downgrade)));
    // Printed last: whoever reads this line may use the gateway, or stop it.
    let origin = if matches!(address, ListenAddress::Unix(_)) { String::new() } else { format!("{scheme}://") };
    say(io::stdout(), format!("listening on {origin}{address}\n"));
    service_manager::notify_ready();
    tokio::spawn(sla_closing::keep_slas(gateway.app.clone()));
    tokio::spawn(gateway.probe_slas());
    let relay = gateway.relay.clone();
    tokio::spawn(return_idle_leases(relay.clone(), keyring.clone(), clock));
    tokio::spawn(apply_store_changes(relay.clone(), keyring.clone(), clock));
    gateway.serve_by(threads.workers().clone(), public, listeners.ops).await;
    // What reads on without a client, and what leases money, runs at the workers.
    relay.close_budget_pool().await;
    drop(threads);
    keyring.close();
    Ok(())
}

/// Prints `text`. A stream that cannot be written, or that nobody reads, does not keep the gateway from serving.
fn say(mut stream: impl Write + Send + 'static, text: String) {
    let (done, printed) = mpsc::channel();
    let print = move || {
        let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
        let _ = done.send(());
    };
    // Ends at once if there is no thread for it: then `done` is dropped.
    let _ = std::thread::Builder::new().name("tierway-print".to_owned()).spawn(print);
    let _ = printed.recv_timeout(PRINT_TIMEOUT);
}

/// The store of a demo; `None`, with a warning, where it cannot have one and keeps everything in memory.
fn demo_store(snapshot: &Snapshot) -> Option<DemoStore> {
    if snapshot.store.location != StoreLocation::Temporary {
        return None;
    }
    let created = DemoStore::create();
    if let Err(error) = &created {
        tracing::warn!(%error, "the demo has no place for its ledger");
    }
    created.ok()
}

/// The gateway to take over from; `None`, with a note, if none runs.
async fn find_predecessor(path: Option<PathBuf>, clock: Clock) -> Result<Option<Predecessor>, StartError> {
    let path = path.ok_or(TakeOverError::NoPlace).map_err(StartError::unavailable)?;
    let found = Predecessor::find(path.clone(), clock).await.map_err(StartError::unavailable)?;
    if found.is_none() {
        say(io::stderr(), format!("No running gateway answers at {}: this is a usual start.\n", path.display()));
    }
    Ok(found)
}

/// Listens for a successor. Where that is not possible the gateway serves all the same, and cannot be taken over from.
fn be_asked(path: PathBuf, resources: TakeOverResources, took_over: bool, clock: Clock) -> Option<TakeOverListener> {
    match TakeOverListener::bind(path, resources, took_over, clock) {
        Ok(listener) => Some(listener),
        Err(error) => {
            tracing::warn!(%error, "`serve --take-over` will not find this gateway");
            None
        }
    }
}

/// The sockets that a gateway serves.
struct Listeners {
    public: Listener,
    ops: Option<Listener>,
}

impl Listeners {
    /// The sockets that were passed, or else the predecessor's; new ones for addresses that neither has.
    fn open(
        snapshot: &Snapshot,
        mut passed: InheritedListeners,
        mut predecessor: Option<&mut Predecessor>,
    ) -> Result<Self, StartError> {
        let mut open = |kind, address: &ListenAddress| -> Result<Listener, StartError> {
            if let Some(listener) = passed.take(kind, address)? {
                return Ok(listener);
            }
            let inherited = predecessor.as_mut().map(|predecessor| predecessor.listeners().take(kind, address));
            match inherited.transpose()?.flatten() {
                Some(listener) => Ok(listener),
                None => bind(address).map_err(StartError::unavailable),
            }
        };
        let public = open(ListenerKind::Public, &snapshot.server.listen)?;
        let ops = snapshot.server.admin_listen.as_ref().map(|address| open(ListenerKind::Ops, address)).transpose()?;
        if let Some(unused) = passed.addresses().next() {
            return Err(StartError::unavailable(format!(
                "LISTEN_FDS passes a socket for {unused}, which is neither [server] listen nor admin_listen: write the \
                 same address in both places"
            )));
        }
        for unused in predecessor.iter_mut().flat_map(|predecessor| predecessor.listeners().addresses()) {
            tracing::warn!(address = %unused, "this address is not in the configuration any more and will be closed");
        }
        Ok(Self { public, ops })
    }
}

/// Every part of a gateway, connected; it serves the listeners it is given.
pub struct Gateway {
    /// The request path.
    pub relay: Arc<Relay>,
    /// The keys' use of their rate limits.
    pub counters: Arc<dyn Counters>,
    /// Starts the shutdown.
    pub lifecycle: Lifecycle,
    /// The state that the public and the ops listener share.
    pub app: Arc<AppState>,
    /// How connections begin, on either listener.
    tls: Option<ServerTls>,
    /// Whether a client that has closed its sending side is still answered.
    half_close: bool,
    /// How many connections clients may have.
    limits: Arc<ConnectionLimits>,
    /// Which of the gateways of its store it is.
    division: Arc<ReplicaDivision>,
    /// Says whether the store still counts it as alive.
    lease_store: Arc<dyn LeaseStore>,
}

impl Gateway {
    /// Builds every part for `snapshot`. `admin_token` is the token of operators, `books` keep receipts and
    /// budgets.
    ///
    /// # Errors
    /// If a provider of `snapshot` cannot be set up.
    pub fn build(
        snapshot: Arc<Snapshot>,
        admin_token: Option<Secret>,
        telemetry: Arc<Telemetry>,
        rng: Rng,
        clock: Clock,
        books: Stores,
    ) -> Result<Self, ActivateError> {
        let counters = books.counters;
        let lifecycle = Lifecycle::new(clock);
        let ops = reload::access(&snapshot, admin_token.as_ref());
        let rng = Arc::new(rng);
        let random_bytes: RandomBytes = Arc::new(|| secrets::random_bytes().ok());
        let (serves_tls, half_close) = (snapshot.server.tls.is_some(), snapshot.server.half_close);
        let limits = snapshot.server.connections.clone();
        let parts = RelayParts {
            clock,
            rng: rng.clone(),
            ledger: books.ledger,
            counters: counters.clone(),
            lease_store: books.lease_store.clone(),
            keyring: books.keyring.clone(),
            idempotency: books.idempotency,
            state_accounts: books.state_accounts,
            probe_secret: secrets::random_bytes().ok().map(|random| new_key("probe", &random)),
            telemetry: telemetry.clone(),
        };
        let relay = Arc::new(Relay::new(snapshot, parts)?);
        let app = AppState {
            relay: relay.clone(),
            admin: AdminOperations::new(books.keyring, clock, random_bytes.clone(), operator("serve"))
                .with_reports(books.reports),
            telemetry: telemetry.clone(),
            lifecycle: lifecycle.clone(),
            ops: ArcSwap::from_pointee(ops),
            sessions: Sessions::new(random_bytes),
            peer_refusals: PeerRefusals::new(rng.draw(), clock.now()),
            refused_config: ArcSwapOption::empty(),
            clock,
            rng,
        };
        reload::publish_start(&app);
        let tls = serves_tls.then(|| ServerTls::new(Arc::new(CertificateSource(relay.clone())), telemetry));
        let (app, division, lease_store) = (Arc::new(app), books.division, books.lease_store);
        Ok(Self { relay, counters, lifecycle, app, tls, half_close, limits, division, lease_store })
    }

    /// Sends the probes that the configuration asks for, until it is dropped.
    pub fn probe_slas(&self) -> impl Future<Output = ()> + Send + 'static {
        let (division, lease_store) = (self.division.clone(), self.lease_store.clone());
        SlaProber { app: self.app.clone(), division, lease_store }.run()
    }

    /// Serves until its lifecycle is closed, in the runtime that this is called in. With `ops`, everything but `/v1` is
    /// served only there.
    pub async fn serve(self, public: impl Into<Listener>, ops: Option<Listener>) {
        self.serve_by(Workers::current(), vec![public.into()], ops).await;
    }

    /// The same with clients served by `workers`, each from its own one of the sockets `public`
    /// ([`Listener::shared_by`]); operators' own address stays with the runtime that this is called in.
    pub async fn serve_by(self, workers: Workers, public: Vec<Listener>, ops: Option<Listener>) {
        let Self { app, lifecycle, tls, half_close, limits, .. } = self;
        let server = |kind, handler| HttpServer {
            handler,
            lifecycle: lifecycle.clone(),
            clock: app.clock,
            kind,
            tls: tls.clone(),
            half_close,
            limits: limits.clone(),
        };
        let clients =
            server::serve_by(workers, public, server(ListenerKind::Public, public_handler(app.clone(), ops.is_none())));
        let operators = async {
            if let Some(listener) = ops {
                server::serve(listener, server(ListenerKind::Ops, ops_handler(app.clone()))).await;
            }
        };
        tokio::join!(clients, operators);
    }
}

/// Returns idle leases of budgets and writes when keys were used, until the process ends.
async fn return_idle_leases(relay: Arc<Relay>, keyring: Arc<Keyring>, clock: Clock) {
    loop {
        clock.sleep(TIDY_EVERY).await;
        relay.return_idle_leases();
        keyring.report_uses();
    }
}

/// Applies what commands beside the gateway write to the store, until the process ends.
async fn apply_store_changes(relay: Arc<Relay>, keyring: Arc<Keyring>, clock: Clock) {
    loop {
        clock.sleep(LOOK_EVERY).await;
        // The store logs that it cannot be read; it is read again in the next round.
        if keyring.refresh().await.unwrap_or(false) {
            relay.apply_store_changes();
        }
    }
}

/// Shuts down gracefully on the first signal, and at once on the second; drains when a successor serves.
async fn shut_down_when_asked(
    app: Arc<AppState>,
    mut signals: StopEvents,
    successors: Option<TakeOverListener>,
    demo: Option<Weak<DemoStore>>,
) {
    let exit = || {
        // Nothing is dropped by an exit.
        demo.as_ref().and_then(Weak::upgrade).iter().for_each(|demo| demo.remove());
        std::process::exit(1)
    };
    let succeeded = async {
        match &successors {
            Some(successors) => successors.succeeded().await,
            None => std::future::pending().await,
        }
    };
    let succeeded = tokio::select! {
        () = signals.next() => false,
        () = succeeded => true,
    };
    service_manager::notify_stopping();
    let (lb_grace, drain) = {
        let active = app.relay.active_config();
        (active.snapshot.server.lb_grace, active.snapshot.server.drain)
    };
    if succeeded {
        // It would keep the sockets open; the file at its path is the successor's.
        drop(successors);
        tracing::info!("another process took over; this one drains");
        tokio::select! {
            () = app.lifecycle.be_succeeded(drain) => {}
            // The first asks for what it does already.
            () = async { signals.next().await; signals.next().await } => exit(),
        }
        return;
    }
    if let Some(successors) = successors {
        successors.remove();
    }
    tokio::select! {
        () = app.lifecycle.shut_down(lb_grace, drain) => {}
        () = signals.next() => exit(),
    }
}

/// A configuration that can be served.
struct LoadedConfig {
    source: ConfigSource,
    environment: CommandEnvironment,
    snapshot: Arc<Snapshot>,
    extra_keys: Vec<ExtraKey>,
    generated: GeneratedSecrets,
    admin_token: Option<Secret>,
}

/// A configuration by itself, before the keys of the store are known.
struct FoundConfig {
    source: ConfigSource,
    environment: CommandEnvironment,
    snapshot: Snapshot,
}

impl FoundConfig {
    fn find(args: &ServeArgs) -> Result<Self, StartError> {
        let environment = CommandEnvironment { listen: args.listen.clone() };
        let source = find(args.config_args.config.as_deref(), &environment).map_err(invalid_configuration)?;
        let snapshot = load(&source, &environment, &[]).map_err(invalid_configuration)?;
        if !snapshot.unenforced.is_empty() && !args.allow_unenforced {
            return Err(StartError::Configuration(not_enforced(&source, &snapshot)));
        }
        Ok(Self { source, environment, snapshot })
    }
}

impl LoadedConfig {
    fn of(found: FoundConfig, keyring: &Keyring) -> Result<Self, StartError> {
        let FoundConfig { source, environment, mut snapshot } = found;
        let clashes = clashes(keyring, &snapshot);
        if !clashes.is_empty() {
            return Err(StartError::Configuration(format!(
                "error: {} and the store cannot be served together\n  {}",
                source.name(),
                clashes.join("\n  ")
            )));
        }
        let (mut key, mut extra_keys) = (None, Vec::new());
        if snapshot.keys.is_empty() && keyring.is_empty() {
            if !source.is_demo() && !snapshot.server.listen.is_loopback() {
                return Err(StartError::Configuration(format!(
                    "error: {}: no key is configured, and {} is not loopback\n  help: add a [[keys]] table, or make \
                     one with `tierway keys create NAME --policy POLICY`",
                    source.name(),
                    snapshot.server.listen
                )));
            }
            key = Some(new_key("demo", &*secrets::random_bytes()?));
            extra_keys = self::extra_keys(key.as_ref());
            snapshot = load(&source, &environment, &extra_keys).map_err(invalid_configuration)?;
        }
        let made = if snapshot.server.admin_token.is_none() {
            Some(new_admin_token(&*secrets::random_bytes()?))
        } else {
            None
        };
        Ok(Self {
            source,
            environment,
            admin_token: made.clone().or_else(|| snapshot.server.admin_token.clone()),
            snapshot: Arc::new(snapshot),
            extra_keys,
            generated: GeneratedSecrets { key, admin_token: made },
        })
    }
}

fn extra_keys(key: Option<&Secret>) -> Vec<ExtraKey> {
    key.iter().map(|key| ExtraKey { name: "demo".to_owned(), hash: KeyHash::of(key.expose()) }).collect()
}

fn invalid_configuration(problems: crate::config::Problems) -> StartError {
    StartError::Configuration(problems.render(true))
}

fn not_enforced(source: &ConfigSource, snapshot: &Snapshot) -> String {
    let mut text = format!("error: {} asks for what is not yet enforced\n", source.name());
    for unenforced in &snapshot.unenforced {
        text.push_str(&format!("  {}: {}\n", unenforced.setting, unenforced.why));
    }
    text.push_str("  help: remove these settings, or start with --allow-unenforced to serve without them");
    text
}

/// SIGTERM and Ctrl-C, caught from the creation of this value on.
struct StopEvents {
    terminate: Signal,
    interrupt: Signal,
}

impl StopEvents {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
