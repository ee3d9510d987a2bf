//! The scripted provider: an HTTP/1.1 server on a loopback port that does exactly what it is told.
//!
//! What it answers, in this order: the fault it is broken with, the next one-shot script, the script
//! for everything. It owns all its tasks and the port; both are gone when it is dropped.
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
    answers::{Chat, chat},
    black_hole::{BlackHole, bound, listener},
    connection::{Connection, Incoming, Link},
    fault::Fault,
    http1,
    journal::{Exchange, How, Journal, Request},
    script::Script,
    soon,
};

/// Room for every client of a test at once.
const BACKLOG: u32 = 1024;

/// A provider of models that plays scripts and keeps a journal.
pub struct ScriptedProvider {
    addr: SocketAddr,
    book: Arc<Book>,
    link: watch::Sender<Link>,
    /// Keeps the port ours while nobody listens on it.
    _reserved: TcpSocket,
    door: tokio::sync::Mutex<Door>,
    connections: Arc<Mutex<JoinSet<()>>>,
}

impl ScriptedProvider {
    /// A provider on a port of the system's choice that answers every chat with "Hello".
    pub async fn start(name: &str) -> Self {
        let reserved = bound(SocketAddr::from(([127, 0, 0, 1], 0)));
        let addr = reserved.local_addr().expect("a bound socket has an address");
        let provider = Self {
            addr,
            book: Arc::new(Book::new(name)),
            link: watch::Sender::new(Link::Up),
            _reserved: reserved,
            door: tokio::sync::Mutex::new(Door::Shut),
            connections: Arc::default(),
        };
        provider.open_port().await;
        provider
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://127.0.0.1:PORT/v1`.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }

    /// Answers every request like this, from now on; [`Script::by`] chooses by the request.
    pub fn answers(&self, script: Script) {
        self.book.open().always = script;
    }

    /// Answers one request like this; called again, the one after that.
    pub fn answers_once(&self, script: Script) {
        self.book.open().once.push_back(script);
    }

    /// Is broken like this until healed, or broken otherwise. Exchanges under way go on, unless the
    /// fault is one of the port.
    pub async fn break_with(&self, fault: Fault) {
        self.book.open().broken = fault.script();
        match fault {
            Fault::PortClosed => self.close_port().await,
            Fault::PacketsDropped => self.drop_packets().await,
            _ => self.open_port().await,
        }
    }

    /// Works again, on the same port.
    pub async fn heal(&self) {
        self.book.open().broken = None;
        self.open_port().await;
    }

    /// Everything seen so far.
    pub fn journal(&self) -> Journal {
        self.book.open().journal.clone()
    }

    /// How many requests were read so far.
    pub fn attempts(&self) -> usize {
        self.book.open().journal.exchanges.len()
    }

    /// Forgets what was seen; scripts and faults stay.
    pub fn clear(&self) {
        self.book.open().journal = Journal::default();
    }

    /// Waits until the journal is as the test wants it, and gives it.
    pub async fn wait_until(&self, what: &str, wanted: impl Fn(&Journal) -> bool) -> Journal {
        soon(what, async {
            loop {
                let changed = self.book.changed.notified();
                let journal = self.journal();
                if wanted(&journal) {
                    return journal;
                }
                changed.await;
            }
        })
        .await
    }

    /// Waits until so many requests were read in all.
    pub async fn attempted(&self, count: usize) -> Journal {
        let what = format!("attempt {count} at {}", self.book.name);
        self.wait_until(&what, |journal| journal.exchanges.len() >= count).await
    }

    /// Waits until no exchange is under way.
    pub async fn at_rest(&self) -> Journal {
        let what = format!("every exchange at {} to end", self.book.name);
        self.wait_until(&what, |journal| journal.open() == 0).await
    }

    async fn open_port(&self) {
        let mut door = self.door.lock().await;
        if !matches!(*door, Door::Open(_)) {
            // What was there has to let go of the port before anyone can listen on it again.
            *door = Door::Shut;
            let listener = listener(self.addr, BACKLOG);
            self.link.send_replace(Link::Up);
            *door = Door::Open(self.accept_on(listener));
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
        *self.door.lock().await = Door::BlackHole(BlackHole::on(self.addr).await);
    }

    async fn stop_listening(&self) {
        let door = std::mem::replace(&mut *self.door.lock().await, Door::Shut);
        if let Door::Open(mut accepting) = door {
            accepting.shutdown().await;
        }
    }

    fn accept_on(&self, listener: TcpListener) -> JoinSet<()> {
        let book = Arc::clone(&self.book);
        let connections = Arc::clone(&self.connections);
        let link = self.link.subscribe();
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a test has descriptors left");
                let connection = Connection::new(stream, link.clone());
                let serving = serve(connection, Arc::clone(&book), book.connected());
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
        *self.door.get_mut() = Door::Shut;
        lock(&self.connections).abort_all();
    }
}

/// What is at the port.
enum Door {
    /// The accept loop.
    Open(JoinSet<()>),
    Shut,
    BlackHole(#[expect(dead_code, reason = "lives until it is dropped")] BlackHole),
}

/// Scripts to play and the journal, shared with the connections.
struct Book {
    name: String,
    pages: Mutex<Pages>,
    changed: Notify,
}

struct Pages {
    always: Script,
    once: VecDeque<Script>,
    broken: Option<Script>,
    requests: u64,
    journal: Journal,
    connections: u64,
}

impl Book {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            pages: Mutex::new(Pages {
                always: chat(Chat::default()),
                once: VecDeque::new(),
                broken: None,
                requests: 0,
                journal: Journal::default(),
                connections: 0,
            }),
            changed: Notify::new(),
        }
    }

    fn open(&self) -> MutexGuard<'_, Pages> {
        lock(&self.pages)
    }

    /// The number of a new connection.
    fn connected(&self) -> u64 {
        let mut pages = self.open();
        pages.connections += 1;
        pages.journal.connections += 1;
        let number = pages.connections;
        drop(pages);
        self.changed.notify_waiters();
        number
    }

    /// Writes the request down and says what to answer.
    fn received(&self, incoming: Incoming, connection: u64) -> (Request, Script) {
        let mut pages = self.open();
        pages.requests += 1;
        let request = read(incoming, &self.name, pages.requests, connection);
        pages.journal.exchanges.push(Exchange { request: request.clone(), end: None });
        let script = match &pages.broken {
            Some(broken) => broken.clone(),
            None => pages.once.pop_front().unwrap_or_else(|| pages.always.clone()),
        };
        drop(pages);
        self.changed.notify_waiters();
        (request, script)
    }

    fn ended(&self, request: &Request, how: How) {
        self.open().journal.end(request.number, how);
        self.changed.notify_waiters();
    }
}

/// A panic elsewhere fails its own test; the journal stays readable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

async fn serve(mut connection: Connection, book: Arc<Book>, number: u64) {
    while let Some(incoming) = connection.next().await {
        let (request, script) = book.received(incoming, number);
        let how = connection.play(&script.answer(&request)).await;
        book.ended(&request, how);
        let last = http1::header(&request.headers, "connection") == Some("close");
        match how {
            How::Complete if !last => {}
            How::PortFault => return connection.fall_silent().await,
            // Dropping the connection sends the FIN, or the RST it was told to.
            How::Complete | How::Cut(_) | How::ClientClosed => return,
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
