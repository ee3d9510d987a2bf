//! Clients: they send the requests of the script one after another, and record what each of them received.
//!
//! Bounded: as many at once as there are clients. A gateway that is gone ends what is under way; the next
//! requests wait for the one that follows. Start reading in [`Load::start`].

use crate::fixture::{CLIENTS, KEYS, NAMES, alias};
use crate::gateway::{PATIENCE, secret};
use crate::now_ms;
use crate::script::Ask;
use crate::wire::read_head;
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, RwLock, RwLockWriteGuard};
use std::thread::JoinHandle;
use std::time::Duration;

/// The silence after which a client that is to disconnect does.
const SILENCE: Duration = Duration::from_millis(80);

/// What a client received for its request.
#[derive(Clone, Debug)]
pub struct Seen {
    pub ask: Ask,
    /// The name it asked for, as the ledger has it.
    pub name: String,
    pub body_bytes: usize,
    pub start_ms: i64,
    pub end_ms: i64,
    /// Which of the run's gateways it was.
    pub generation: u64,
    pub id: Option<u128>,
    pub end: SeenEnd,
}

/// How it ended for the client.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum SeenEnd {
    /// 200 and all of it.
    Served,
    /// 200, and cut.
    Broken,
    /// By a status and its code.
    Refused(u16, String),
    /// The client disconnected.
    Left,
    /// There was no answer, or the gateway was killed.
    Gone,
}

/// What all clients share.
pub struct Load {
    seed: u64,
    /// How many are asked in all; more, where they are needed to the end of what happens.
    requests: AtomicU64,
    next: AtomicU64,
    target: Mutex<Option<(SocketAddr, u64)>>,
    /// A gateway has come, or a request has ended.
    changed: Condvar,
    /// Held for reading by every request.
    traffic: RwLock<()>,
    seen: Mutex<Vec<Seen>>,
    clients: Mutex<Vec<JoinHandle<()>>>,
}

impl Load {
    /// Clients for the first `requests` requests of the run of `seed`; they wait for a gateway.
    pub fn start(seed: u64, requests: u64) -> Arc<Self> {
        let load = Arc::new(Self {
            seed,
            requests: AtomicU64::new(requests),
            next: AtomicU64::new(0),
            target: Mutex::new(None),
            changed: Condvar::new(),
            traffic: RwLock::new(()),
            seen: Mutex::default(),
            clients: Mutex::default(),
        });
        let client = |client| {
            let load = load.clone();
            std::thread::spawn(move || load.send_all(client))
        };
        *load.clients.lock().expect("no thread panicked") = (0..CLIENTS).map(client).collect();
        load
    }

    /// From now on requests go there; `None`: they wait.
    pub fn aim(&self, target: Option<(SocketAddr, u64)>) {
        *self.target.lock().expect("no thread panicked") = target;
        self.changed.notify_all();
    }

    /// Waits until so many requests have begun.
    pub fn until_begun(&self, count: u64) {
        let mut target = self.target.lock().expect("no thread panicked");
        while self.next.load(Ordering::SeqCst) < count.min(self.requests.load(Ordering::SeqCst)) {
            let waited = self.changed.wait_timeout(target, 6 * PATIENCE).expect("no thread panicked");
            assert!(!waited.1.timed_out(), "the load makes no progress");
            target = waited.0;
        }
    }

    /// Waits until no client waits for an answer; none asks until the guard is dropped.
    pub fn idle_moment(&self) -> RwLockWriteGuard<'_, ()> {
        self.traffic.write().expect("no thread panicked")
    }

    /// One more request, during which `meanwhile` is called once it is being answered.
    pub fn one(&self, ask: Ask, meanwhile: impl FnOnce()) -> SeenEnd {
        let (addr, generation) = self.target().expect("a gateway serves");
        let mut meanwhile = Some(meanwhile);
        let hook = &mut || {
            if let Some(meanwhile) = meanwhile.take() {
                meanwhile()
            }
        };
        let seen = exchange(ask, CLIENTS * NAMES - 1, addr, generation, &mut None, hook);
        let end = seen.end.clone();
        self.note(seen);
        end
    }

    /// Waits until so many more have begun than by now.
    pub fn until_more(&self, count: u64) {
        self.until_begun(self.next.load(Ordering::SeqCst) + count);
    }

    /// No request begins from now on.
    pub fn enough(&self) {
        self.requests.store(0, Ordering::SeqCst);
    }

    /// What every client received, once all have sent all requests.
    pub fn end(&self) -> Vec<Seen> {
        for client in std::mem::take(&mut *self.clients.lock().expect("no thread panicked")) {
            client.join().expect("a client is at fault");
        }
        std::mem::take(&mut *self.seen.lock().expect("no thread panicked"))
    }

    /// How many ended so, of the last ones.
    pub fn count(&self, since: usize, so: impl Fn(&Seen) -> bool) -> usize {
        self.seen.lock().expect("no thread panicked").iter().skip(since).filter(|seen| so(seen)).count()
    }

    fn send_all(&self, client: usize) {
        let mut kept = None;
        for turn in 0.. {
            let tag = self.next.fetch_add(1, Ordering::SeqCst);
            if tag >= self.requests.load(Ordering::SeqCst) {
                return self.changed.notify_all();
            }
            let seen = loop {
                self.until_aimed();
                let _going = self.traffic.read().expect("no thread panicked");
                // It may have been taken away while others rested.
                let Some((addr, generation)) = self.target() else { continue };
                let place = client * NAMES + turn % (NAMES - 1);
                break exchange(Ask::of(self.seed, tag), place, addr, generation, &mut kept, &mut || {});
            };
            self.note(seen);
        }
    }

    fn note(&self, seen: Seen) {
        self.seen.lock().expect("no thread panicked").push(seen);
        drop(self.target.lock().expect("no thread panicked"));
        self.changed.notify_all();
    }

    fn target(&self) -> Option<(SocketAddr, u64)> {
        *self.target.lock().expect("no thread panicked")
    }

    fn until_aimed(&self) {
        let target = self.target.lock().expect("no thread panicked");
        let waited = self.changed.wait_timeout_while(target, 6 * PATIENCE, |target| target.is_none());
        assert!(!waited.expect("no thread panicked").1.timed_out(), "no gateway comes");
    }
}

type Kept = Option<(BufReader<TcpStream>, u64)>;

/// Sends a request, and reads as much as the script says.
fn exchange(
    ask: Ask,
    place: usize,
    addr: SocketAddr,
    generation: u64,
    kept: &mut Kept,
    begun: &mut dyn FnMut(),
) -> Seen {
    let name = alias(place, ask.large);
    let body = ask.body(&name);
    let start_ms = now_ms();
    let mut seen = Seen {
        name,
        body_bytes: body.len(),
        start_ms,
        end_ms: start_ms,
        generation,
        id: None,
        end: SeenEnd::Gone,
        ask,
    };
    let reader = kept.take().filter(|(_, of)| *of == generation).map(|(reader, _)| reader);
    if let Some(mut reader) = reader.or_else(|| TcpStream::connect(addr).ok().map(BufReader::new)) {
        let done = send(&mut reader, &seen.ask, &body).and_then(|()| match seen.ask.leaves_after {
            Some(bytes) => permit(&mut reader, bytes, &mut seen),
            None => read(&mut reader, &mut seen, begun),
        });
        if done == Some(true) {
            *kept = Some((reader, generation));
        }
    }
    seen.end_ms = now_ms();
    seen
}

fn send(reader: &mut BufReader<TcpStream>, ask: &Ask, body: &str) -> Option<()> {
    let stream = reader.get_mut();
    stream.set_nodelay(true).ok()?;
    stream.set_read_timeout(Some(3 * PATIENCE)).ok()?;
    let (key, length) = (secret(KEYS[ask.key].name), body.len());
    let path = ask.dialect.path();
    let head = format!("POST {path} HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n");
    let request = format!("{head}authorization: Bearer {key}\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).ok()
}

/// Reads so many bytes, or as long as some come, and disconnects.
fn permit(reader: &mut BufReader<TcpStream>, bytes: usize, seen: &mut Seen) -> Option<bool> {
    seen.end = SeenEnd::Left;
    reader.get_mut().set_read_timeout(Some(SILENCE)).ok()?;
    let mut got = Vec::new();
    let mut part = vec![0; bytes];
    while got.len() < bytes {
        match reader.read(&mut part[..bytes - got.len()]) {
            Ok(read) if read > 0 => got.extend_from_slice(&part[..read]),
            _ => break,
        }
    }
    let got = String::from_utf8_lossy(&got);
    let (_, id) = got.split_once("x-request-id: req_")?;
    seen.id = id.split_once('\r').and_then(|(id, _)| u128::from_str_radix(id, 16).ok());
    None
}

/// Reads all of it; `true`: the connection can be used again.
fn read(reader: &mut BufReader<TcpStream>, seen: &mut Seen, begun: &mut dyn FnMut()) -> Option<bool> {
    let head = read_head(reader)?;
    seen.id = head.id;
    let status: u16 = head.start.split(' ').nth(1)?.parse().ok()?;
    if status == 200 {
        begun();
    }
    let body = if head.chunked { chunks(reader) } else { head.length.and_then(|length| exactly(reader, length)) };
    seen.end = match (status, &body) {
        (200, None) => SeenEnd::Broken,
        (200, Some(body)) if seen.ask.stream && !seen.ask.dialect.is_complete(body) => SeenEnd::Broken,
        (200, Some(_)) => SeenEnd::Served,
        (_, None) => SeenEnd::Gone,
        (_, Some(body)) => {
            let (status, code) = seen.ask.dialect.refusal(status, body);
            SeenEnd::Refused(status, code)
        }
    };
    body.map(|_| true)
}

fn exactly(reader: &mut BufReader<TcpStream>, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length];
    reader.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

fn chunks(reader: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        std::io::BufRead::read_line(reader, &mut line).ok()?;
        let length = usize::from_str_radix(line.trim_end(), 16).ok()?;
        let chunk = exactly(reader, length + 2)?;
        if length == 0 {
            return Some(body);
        }
        body.extend_from_slice(&chunk[..length]);
    }
}
