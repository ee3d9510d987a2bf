//! `tierway serve`: builds every part once, wires them, and waits for the end.
//!
//! It decides nothing about requests. Who may start how is here: no file is the demo, with a key and
//! an admin token made for this run; a file serves its own keys; a file without keys gets a demo key
//! on loopback and is refused elsewhere.
//!
//! Start reading at [`serve`]; [`Gateway`] is the same gateway for tests.

use super::banner::{Generated, banner};
use super::check::EXIT_CONFIGURATION;
use super::{EXIT_UNAVAILABLE, Serve, VERSION, reload, secrets, store};
use crate::admin::{Admin, clashes};
use crate::clock::Clock;
use crate::config::{ExtraKey, KeyHash, Process, Snapshot, Source, Watcher, find, load};
use crate::domain::secret::{Secret, new_admin_token, new_key};
use crate::http::lifecycle::Lifecycle;
use crate::http::server::{self, Door, Service};
use crate::http::tls::{InForce, Tls};
use crate::http::{App, ops_entry, public_entry};
use crate::random::Rng;
use crate::relay::{ActivateError, Relay, RelayParts};
use crate::store::keyring::Keyring;
use crate::store::memory::MemoryCounters;
use crate::store::{Books, Counters};
use crate::telemetry::Telemetry;
use crate::telemetry::log::Logs;
use crate::telemetry::metrics::Build;
use arc_swap::ArcSwap;
use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Which program this is; a build script of a release may say from which commit.
const BUILD: Build = Build { version: VERSION, revision: option_env!("TIERWAY_REVISION") };

/// A lease that nobody used for as long as this goes back, so that a crash would not lose it.
const TIDY_EVERY: Duration = Duration::from_secs(10);

/// How soon a key that was taken away by a command is refused.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Why `serve` ends before it serves.
enum Refused {
    /// Exit 78, with every problem said.
    Configuration(String),
    /// Exit 69: no address, or no store.
    Unavailable(String),
    Other(anyhow::Error),
}

impl Refused {
    fn unavailable(why: impl std::fmt::Display) -> Self {
        Self::Unavailable(format!("error: {why}"))
    }
}

impl<E: Into<anyhow::Error>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

/// Serves until SIGTERM or Ctrl-C.
///
/// # Errors
/// When the process cannot have what it needs of the system.
pub fn serve(args: &Serve) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let said = match runtime.block_on(run(args)) {
        Ok(()) => return Ok(ExitCode::SUCCESS),
        Err(Refused::Other(error)) => return Err(error),
        Err(Refused::Configuration(text)) => (text, EXIT_CONFIGURATION),
        Err(Refused::Unavailable(text)) => (text, EXIT_UNAVAILABLE),
    };
    // The stream strips colours where there is no terminal or NO_COLOR is set.
    writeln!(anstream::stderr(), "{}", said.0.trim_end())?;
    Ok(ExitCode::from(said.1))
}

async fn run(args: &Serve) -> Result<(), Refused> {
    let found = Found::find(args)?;
    let logs = Arc::new(Logs::start(&found.snapshot.telemetry.log)?);
    let clock = Clock;
    // Ends after everything that settles, and before the logs.
    let (books, _writing) = store::open(&found.snapshot.store, clock).await.map_err(Refused::unavailable)?;
    let keyring = books.keyring.clone();
    let loaded = Loaded::of(found, &keyring)?;
    let snapshot = loaded.snapshot.clone();
    for unenforced in &snapshot.unenforced {
        tracing::warn!(setting = %unenforced.setting, why = %unenforced.why, "not yet enforced");
    }
    let telemetry = Arc::new(Telemetry::new(logs.access(), BUILD));
    store::watch(&telemetry, &books.ledger);
    let gateway = Gateway::build(
        snapshot.clone(),
        loaded.admin_token.clone(),
        telemetry,
        Rng::seeded(u64::from_le_bytes(*secrets::random_bytes()?)),
        clock,
        books,
    )?;
    let public = bind(snapshot.server.listen)?;
    let ops = snapshot.server.admin_listen.map(bind).transpose()?;
    let address = public.local_addr()?;
    let scheme = if snapshot.server.tls.is_some() { "https" } else { "http" };
    eprint!("{}", banner(scheme, address, &loaded.generated, &loaded.example_model()));
    eprint!("{}", store::note(&snapshot.store));
    let watcher = Watcher::new(&loaded.source, Process, loaded.extra_keys, snapshot.clone());
    let hangups = signal(SignalKind::hangup())?;
    tokio::spawn(reload::watch(watcher, hangups, gateway.app.clone(), logs.clone(), loaded.admin_token));
    tokio::spawn(shut_down_when_asked(gateway.app.clone(), StopSignals::new()?));
    // Last, because whoever reads this line may do anything from here on, also stop us.
    println!("listening on {scheme}://{address}");
    std::io::stdout().flush()?;
    let relay = gateway.relay.clone();
    tokio::spawn(tidy(relay.clone(), keyring.clone(), clock));
    tokio::spawn(apply_store_changes(relay.clone(), keyring.clone(), clock));
    gateway.serve(public, ops).await;
    relay.close_budget_pool().await;
    keyring.close();
    Ok(())
}

/// Every part, wired; it serves whatever listeners it is given.
pub struct Gateway {
    /// The corridor.
    pub relay: Arc<Relay>,
    /// What the keys have taken of their limits.
    pub counters: Arc<MemoryCounters>,
    /// How it is stopped.
    pub lifecycle: Lifecycle,
    /// What its doors share.
    pub app: Arc<App>,
    /// How connections begin at either door.
    tls: Option<Tls>,
}

impl Gateway {
    /// Builds every part for `snapshot`. `admin_token` opens what is for operators, `books` take
    /// the receipts and keep the budgets.
    ///
    /// # Errors
    /// When a provider of `snapshot` cannot be set up.
    pub fn build(
        snapshot: Arc<Snapshot>,
        admin_token: Option<Secret>,
        telemetry: Arc<Telemetry>,
        rng: Rng,
        clock: Clock,
        books: Books,
    ) -> Result<Self, ActivateError> {
        let counters = Arc::new(MemoryCounters::default());
        let lifecycle = Lifecycle::new(clock);
        let ops = reload::access(&snapshot, admin_token.as_ref());
        let rng = Arc::new(rng);
        let serves_tls = snapshot.server.tls.is_some();
        let parts = RelayParts {
            clock,
            rng: rng.clone(),
            ledger: books.ledger,
            counters: counters.clone() as Arc<dyn Counters>,
            lease_store: books.lease_store,
            keyring: books.keyring.clone(),
            telemetry: telemetry.clone(),
        };
        let relay = Arc::new(Relay::new(snapshot, parts)?);
        let app = App {
            relay: relay.clone(),
            admin: Admin::new(books.keyring, clock, Arc::new(|| secrets::random_bytes().ok())).reading(books.reports),
            telemetry: telemetry.clone(),
            lifecycle: lifecycle.clone(),
            ops: ArcSwap::from_pointee(ops),
            held: Arc::default(),
            clock,
            rng,
        };
        reload::started(&app);
        let tls = serves_tls.then(|| Tls::new(Arc::new(InForce(relay.clone())), telemetry));
        Ok(Self { relay, counters, lifecycle, app: Arc::new(app), tls })
    }

    /// Serves until its lifecycle is closed. With `ops`, everything but `/v1` is served there only.
    pub async fn serve(self, public: TcpListener, ops: Option<TcpListener>) {
        let Self { app, lifecycle, tls, .. } = self;
        let service =
            |door, entry| Service { entry, lifecycle: lifecycle.clone(), clock: app.clock, door, tls: tls.clone() };
        let clients = server::serve(public, service(Door::Public, public_entry(app.clone(), ops.is_none())));
        let operators = async {
            if let Some(listener) = ops {
                server::serve(listener, service(Door::Ops, ops_entry(app.clone()))).await;
            }
        };
        tokio::join!(clients, operators);
    }
}

/// Gives back what is leased of budgets and idle, and tells when keys were used, for as long as the process lives.
async fn tidy(relay: Arc<Relay>, keyring: Arc<Keyring>, clock: Clock) {
    loop {
        clock.sleep(TIDY_EVERY).await;
        relay.tidy_budget_pool();
        keyring.tell_uses();
    }
}

/// Takes up what commands beside the gateway register, for as long as the process lives.
async fn apply_store_changes(relay: Arc<Relay>, keyring: Arc<Keyring>, clock: Clock) {
    loop {
        clock.sleep(LOOK_EVERY).await;
        // A store that cannot be read says so itself; it is looked at again.
        if keyring.refresh().await.unwrap_or(false) {
            relay.apply_store_changes();
        }
    }
}

/// Leaves in good order when asked to, and at once when asked again.
async fn shut_down_when_asked(app: Arc<App>, mut signals: StopSignals) {
    signals.next().await;
    let (lb_grace, drain) = {
        let active = app.relay.active_config();
        (active.snapshot.server.lb_grace, active.snapshot.server.drain)
    };
    tokio::select! {
        () = app.lifecycle.shut_down(lb_grace, drain) => {}
        () = signals.next() => std::process::exit(1),
    }
}

/// A configuration that may be served.
struct Loaded {
    source: Source,
    snapshot: Arc<Snapshot>,
    extra_keys: Vec<ExtraKey>,
    generated: Generated,
    admin_token: Option<Secret>,
}

/// A configuration by itself: which keys there are beside it is not known yet.
struct Found {
    source: Source,
    snapshot: Snapshot,
}

impl Found {
    fn find(args: &Serve) -> Result<Self, Refused> {
        let source = find(args.named.config.as_deref(), &Process).map_err(refuse)?;
        let snapshot = load(&source, &Process, &[]).map_err(refuse)?;
        if !snapshot.unenforced.is_empty() && !args.allow_unenforced {
            return Err(Refused::Configuration(not_enforced(&source, &snapshot)));
        }
        Ok(Self { source, snapshot })
    }
}

impl Loaded {
    fn of(found: Found, keyring: &Keyring) -> Result<Self, Refused> {
        let Found { source, mut snapshot } = found;
        let clashes = clashes(keyring, &snapshot);
        if !clashes.is_empty() {
            return Err(Refused::Configuration(format!(
                "error: {} and the store cannot be served together\n  {}",
                source.name(),
                clashes.join("\n  ")
            )));
        }
        let (mut key, mut extra_keys) = (None, Vec::new());
        if snapshot.keys.is_empty() && keyring.is_empty() {
            if !source.is_demo() && !snapshot.server.listen.ip().is_loopback() {
                return Err(Refused::Configuration(format!(
                    "error: {}: no key is configured, and {} is not loopback\n  help: add a [[keys]] table, or make \
                     one with `tierway keys create NAME --policy POLICY`",
                    source.name(),
                    snapshot.server.listen
                )));
            }
            key = Some(new_key("demo", &*secrets::random_bytes()?));
            extra_keys = self::extra_keys(key.as_ref());
            snapshot = load(&source, &Process, &extra_keys).map_err(refuse)?;
        }
        let made = if snapshot.server.admin_token.is_none() {
            Some(new_admin_token(&*secrets::random_bytes()?))
        } else {
            None
        };
        Ok(Self {
            source,
            admin_token: made.clone().or_else(|| snapshot.server.admin_token.clone()),
            snapshot: Arc::new(snapshot),
            extra_keys,
            generated: Generated { key, admin_token: made },
        })
    }

    /// What the examples ask for: the first alias, or else the first model.
    fn example_model(&self) -> String {
        let table = &self.snapshot.table;
        let alias = table.aliases.first().map(|alias| &alias.name);
        alias.or(table.models.first().map(|model| &model.name)).map_or_else(String::new, ToString::to_string)
    }
}

fn extra_keys(key: Option<&Secret>) -> Vec<ExtraKey> {
    key.iter().map(|key| ExtraKey { name: "demo".to_owned(), hash: KeyHash::of(key.expose()) }).collect()
}

fn refuse(problems: crate::config::Problems) -> Refused {
    Refused::Configuration(problems.render(true))
}

fn not_enforced(source: &Source, snapshot: &Snapshot) -> String {
    let mut text = format!("error: {} asks for what is not yet enforced\n", source.name());
    for unenforced in &snapshot.unenforced {
        text.push_str(&format!("  {}: {}\n", unenforced.setting, unenforced.why));
    }
    text.push_str("  help: remove these settings, or start with --allow-unenforced to serve without them");
    text
}

fn bind(address: SocketAddr) -> Result<TcpListener, Refused> {
    server::bind(address).map_err(Refused::unavailable)
}

/// SIGTERM and Ctrl-C, caught from the moment this is made.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
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
