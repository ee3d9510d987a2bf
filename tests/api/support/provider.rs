//! The scripted provider: an HTTP/1.1 server on a loopback port that does exactly what its scripts say.
//!
//! Its answer is the first of these that is set: the fault, the next one-shot script, the default
//! script. It owns all its tasks and the port; dropping it ends both.
//!
//! Start reading at [`ScriptedProvider::start`].

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::{
    net::{TcpListener, TcpSocket},
    sync::{Notify, watch},
    task::JoinSet,
    time::Instant,
};

use super::{
    black_hole::{BlackHole, bound, listener},
    connection::{Connection, Incoming, Link},
    dialect::hello,
    fault::Fault,
    http1,
    journal::{Exchange, ExchangeOutcome, Journal, Request},
    script::Script,
    soon,
};

/// Connections waiting to be accepted; enough for all clients of a test at once.
const BACKLOG: u32 = 1024;

/// A provider of models that plays scripts and keeps a journal.
pub struct ScriptedProvider {
    addr: SocketAddr,
    state: Arc<ProviderState>,
    link: watch::Sender<Link>,
    /// Reserves the port while nothing listens on it.
    _reserved: TcpSocket,
    port_state: tokio::sync::Mutex<PortState>,
    connections: Arc<Mutex<JoinSet<()>>>,
}

impl ScriptedProvider {
    /// A provider on a port of the system's choice that answers "Hello", in the dialect it is asked in.
    pub async fn start(name: &str) -> Self {
        let reserved = bound(SocketAddr::from(([127, 0, 0, 1], 0)));
        let addr = reserved.local_addr().expect("a bound socket has an address");
        let provider = Self {
            addr,
            state: Arc::new(ProviderState::new(name)),
            link: watch::Sender::new(Link::Up),
            _reserved: reserved,
            port_state: tokio::sync::Mutex::new(PortState::Closed),
            connections: Arc::default(),
        };
        provider.open_port().await;
        provider
    }

    /// The address it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://127.0.0.1:PORT/v1`.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }

    /// Sets the default script; [`Script::by`] chooses by the request.
    pub fn answers(&self, script: Script) {
        self.state.locked().default_script = script;
    }

    /// Adds a script for one request; several are used in the order they were added.
    pub fn answers_once(&self, script: Script) {
        self.state.locked().one_shot_scripts.push_back(script);
    }

    /// Fails like this until healed or broken otherwise. Exchanges in progress continue, unless the fault
    /// is one of the port.
    pub async fn break_with(&self, fault: Fault) {
        self.state.locked().fault_script = fault.script();
        match fault {
            Fault::PortClosed => self.close_port().await,
            Fault::PacketsDropped => self.drop_packets().await,
            _ => self.open_port().await,
        }
    }

    /// Ends the fault; the port stays the same.
    pub async fn heal(&self) {
        self.state.locked().fault_script = None;
        self.open_port().await;
    }

    /// Everything received so far.
    pub fn journal(&self) -> Journal {
        self.state.locked().journal.clone()
    }

    /// How many requests were read so far.
    pub fn attempts(&self) -> usize {
        self.state.locked().journal.exchanges.len()
    }

    /// Clears the journal; scripts and faults stay.
    pub fn clear(&self) {
        self.state.locked().journal = Journal::default();
    }

    /// Waits until the journal fulfils `wanted`, and returns it.
    pub async fn wait_until(&self, what: &str, wanted: impl Fn(&Journal) -> bool) -> Journal {
        soon(what, async {
            loop {
                let changed = self.state.changed.notified();
                let journal = self.journal();
                if wanted(&journal) {
                    return journal;
                }
                changed.await;
            }
        })
        .await
    }

    /// Waits until `count` requests were read in total.
    pub async fn attempted(&self, count: usize) -> Journal {
        let what = format!("attempt {count} at {}", self.state.name);
        self.wait_until(&what, |journal| journal.exchanges.len() >= count).await
    }

    /// Waits until no exchange is in progress.
    pub async fn at_rest(&self) -> Journal {
        let what = format!("every exchange at {} to end", self.state.name);
        self.wait_until(&what, |journal| journal.open() == 0).await
    }

    async fn open_port(&self) {
        let mut port_state = self.port_state.lock().await;
        if !matches!(*port_state, PortState::Listening(_)) {
            // The previous state must release the port before it can be listened on again.
            *port_state = PortState::Closed;
            let listener = listener(self.addr, BACKLOG);
            self.link.send_replace(Link::Up);
            *port_state = PortState::Listening(self.accept_on(listener));
        }
    }

    async fn close_port(&self) {
        self.stop_listening().await;
        self.link.send_replace(Link::Closed);
        let mut connections = std::mem::take(&mut *lock(&self.connections));
        while connections.join_next().await.is_some() {}
    }

    async fn drop_packets(&self) {
        self.link.send_replace(Link::Dropped);
        self.stop_listening().await;
        *self.port_state.lock().await = PortState::BlackHole(BlackHole::on(self.addr).await);
    }

    async fn stop_listening(&self) {
        let port_state = std::mem::replace(&mut *self.port_state.lock().await, PortState::Closed);
        if let PortState::Listening(mut accepting) = port_state {
            accepting.shutdown().await;
        }
    }

    fn accept_on(&self, listener: TcpListener) -> JoinSet<()> {
        let state = Arc::clone(&self.state);
        let connections = Arc::clone(&self.connections);
        let link = self.link.subscribe();
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a test has descriptors left");
                let connection = Connection::new(stream, link.clone());
                let serving = serve(connection, Arc::clone(&state), state.next_connection_number());
                let mut connections = lock(&connections);
                while connections.try_join_next().is_some() {}
                connections.spawn(serving);
            }
        });
        accepting
    }
}

impl Drop for ScriptedProvider {
    fn drop(&mut self) {
        *self.port_state.get_mut() = PortState::Closed;
        lock(&self.connections).abort_all();
    }
}

/// What happens at the port.
enum PortState {
    /// The accept loop.
    Listening(JoinSet<()>),
    Closed,
    BlackHole(#[expect(dead_code, reason = "lives until it is dropped")] BlackHole),
}

/// Scripts and journal, shared with the connections.
struct ProviderState {
    name: String,
    inner: Mutex<StateInner>,
    changed: Notify,
}

struct StateInner {
    default_script: Script,
    one_shot_scripts: VecDeque<Script>,
    fault_script: Option<Script>,
    requests: u64,
    journal: Journal,
    connections: u64,
}

impl ProviderState {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            inner: Mutex::new(StateInner {
                default_script: hello(),
                one_shot_scripts: VecDeque::new(),
                fault_script: None,
                requests: 0,
                journal: Journal::default(),
                connections: 0,
            }),
            changed: Notify::new(),
        }
    }

    fn locked(&self) -> MutexGuard<'_, StateInner> {
        lock(&self.inner)
    }

    /// The number of a new connection.
    fn next_connection_number(&self) -> u64 {
        let mut inner = self.locked();
        inner.connections += 1;
        inner.journal.connections += 1;
        let number = inner.connections;
        drop(inner);
        self.changed.notify_waiters();
        number
    }

    /// Records the request and returns the script that answers it.
    fn received(&self, incoming: Incoming, connection: u64) -> (Request, Script) {
        let mut inner = self.locked();
        inner.requests += 1;
        let request = read(incoming, &self.name, inner.requests, connection);
        inner.journal.exchanges.push(Exchange { request: request.clone(), end: None });
        let script = match &inner.fault_script {
            Some(fault_script) => fault_script.clone(),
            None => inner.one_shot_scripts.pop_front().unwrap_or_else(|| inner.default_script.clone()),
        };
        drop(inner);
        self.changed.notify_waiters();
        (request, script)
    }

    fn ended(&self, request: &Request, outcome: ExchangeOutcome) {
        self.locked().journal.end(request.number, outcome);
        self.changed.notify_waiters();
    }
}

/// A panic elsewhere fails its own test; the journal stays readable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

async fn serve(mut connection: Connection, state: Arc<ProviderState>, number: u64) {
    while let Some(incoming) = connection.next().await {
        let (request, script) = state.received(incoming, number);
        let outcome = connection.play(&script.answer(&request)).await;
        state.ended(&request, outcome);
        let last = http1::header(&request.headers, "connection") == Some("close");
        match outcome {
            ExchangeOutcome::Complete if !last => {}
            ExchangeOutcome::PortFault => return connection.fall_silent().await,
            // Dropping the connection sends the FIN, or the RST if linger is zero.
            ExchangeOutcome::Complete | ExchangeOutcome::Cut(_) | ExchangeOutcome::ClientClosed => return,
        }
    }
}

fn read(incoming: Incoming, provider: &str, number: u64, connection: u64) -> Request {
    let Incoming { head, body } = incoming;
    let mut line = head.first_line.split(' ');
    let mut word = || line.next().unwrap_or_default().to_owned();
    Request {
        provider: provider.to_owned(),
        number,
        connection,
        arrived: Instant::now(),
        method: word(),
        path: word(),
        headers: head.headers,
        head: head.raw,
        body,
    }
}
