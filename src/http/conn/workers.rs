//! The workers that serve clients, and which of them serves a connection.
//!
//! Each worker is a thread with a runtime of its own. A connection stays with one worker, and so does everything that
//! its requests start: tasks, timers, connections to providers. So no request wakes another thread
//! (`docs/adr/0015-each-core-has-a-runtime.md`).
//!
//! All workers accept from the same socket: whichever is awake first does. The connection is served by the one that is
//! least busy, which is usually the same.
//!
//! Start reading at [`Workers`].

use crate::clock::Clock;
use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// How much busier than the least busy worker one may be and still serve what it accepted: one part of so many. The
/// loads of busy workers change all the time, and a connection that moves wakes two threads.
const TOLERANCE: usize = 8;
/// How far the next timer of a worker with connections is at most. tokio wakes its own thread, by two system calls, when
/// a timer is set that ends before every other one; a request sets some, of a second and more.
const TICK: Duration = Duration::from_millis(100);
/// The same of a worker without connections.
const IDLE_TICK: Duration = Duration::from_secs(1);
/// How long a blocking call, such as a name's lookup, may keep a worker from ending.
const BLOCKING_CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The workers that serve a listener. A clone is the same ones.
#[derive(Clone)]
pub struct Workers(Arc<[Worker]>);

struct Worker {
    runtime: Handle,
    load: Arc<WorkerLoad>,
}

/// What is open at one worker: connections, and the requests on them. Nothing but the choice of a worker depends on it.
// Alone in its cache line: one core writes it with each request.
#[derive(Default)]
#[repr(align(128))]
pub struct WorkerLoad(AtomicUsize);

impl WorkerLoad {
    /// Counts one more.
    pub(super) fn opened(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one less.
    pub(super) fn ended(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Keeps a timer that ends soon, so that those of requests end later: see [`TICK`]. Never ready.
    async fn tick(&self) {
        loop {
            Clock.sleep(if self.0.load(Ordering::Relaxed) == 0 { IDLE_TICK } else { TICK }).await;
        }
    }
}

/// Counts a connection for its worker until it is dropped.
pub(super) struct WorkerConnection(Arc<WorkerLoad>);

impl WorkerConnection {
    /// What the requests of the connection are counted in.
    pub(super) fn load(&self) -> &Arc<WorkerLoad> {
        &self.0
    }
}

impl Drop for WorkerConnection {
    fn drop(&mut self) {
        self.0.ended();
    }
}

impl Workers {
    /// The runtime that this is called in, as the only worker.
    ///
    /// # Panics
    /// Outside a runtime.
    pub fn current() -> Self {
        Self([Worker { runtime: Handle::current(), load: Arc::default() }].into())
    }

    /// Their runtimes, by their numbers.
    pub fn runtimes(&self) -> impl Iterator<Item = &Handle> {
        self.0.iter().map(|worker| &worker.runtime)
    }

    /// The number of the worker that serves a connection which number `own` accepted, and its runtime. The connection
    /// counts for it from now on.
    pub(super) fn assign(&self, own: usize) -> (usize, &Handle, WorkerConnection) {
        let number = choose(self.0.iter().map(|worker| worker.load.0.load(Ordering::Relaxed)), own);
        let Worker { runtime, load } = &self.0[number];
        load.opened();
        (number, runtime, WorkerConnection(load.clone()))
    }
}

/// Which of workers with these `loads` serves what the one numbered `own` accepted. While one has nothing to do it is
/// the first such one, so that a gateway with few requests keeps the provider connections of few workers warm.
fn choose(loads: impl Iterator<Item = usize> + Clone, own: usize) -> usize {
    let own_load = loads.clone().nth(own).unwrap_or_default();
    let (least_busy, least) = loads.enumerate().min_by_key(|(_, load)| *load).unwrap_or_default();
    if least > 0 && own_load <= least + least / TOLERANCE { own } else { least_busy }
}

/// The threads of workers. Dropped, it ends them: what still runs there is dropped, and blocking calls are waited for,
/// for a while.
pub struct WorkerThreads {
    workers: Workers,
    threads: Vec<WorkerThread>,
}

struct WorkerThread {
    /// Dropped, it asks the thread to end.
    running: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl WorkerThreads {
    /// Starts `count` of them, or without a count one for each CPU that the process may use: as many as its affinity
    /// and the quota of its control groups allow, whole ones only.
    ///
    /// # Errors
    /// If the system gives no further threads or descriptors.
    pub fn start(count: Option<NonZeroUsize>) -> io::Result<Self> {
        let count = count.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
        let (mut workers, mut threads) = (Vec::new(), Self { workers: Workers(Arc::default()), threads: Vec::new() });
        for number in 1..=count {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let load = Arc::<WorkerLoad>::default();
            workers.push(Worker { runtime: runtime.handle().clone(), load: load.clone() });
            let (running, ended) = oneshot::channel::<()>();
            let serve = move || {
                runtime.block_on(async {
                    tokio::select! {
                        // Nothing is ever sent: it is an error when the sender is dropped.
                        _ = ended => {}
                        () = load.tick() => {}
                    }
                });
                runtime.shutdown_timeout(BLOCKING_CALL_TIMEOUT);
            };
            let thread = thread::Builder::new().name(format!("worker-{number}")).spawn(serve)?;
            threads.threads.push(WorkerThread { running, thread });
        }
        threads.workers = Workers(workers.into());
        Ok(threads)
    }

    /// Their workers.
    pub fn workers(&self) -> &Workers {
        &self.workers
    }
}

impl Drop for WorkerThreads {
    fn drop(&mut self) {
        // All are asked before the first is waited for.
        let ask = |WorkerThread { running, thread }| {
            drop(running);
            thread
        };
        let asked: Vec<_> = self.threads.drain(..).map(ask).collect();
        for thread in asked {
            // A panic of a task was reported where the task was awaited.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::conn::lifecycle::Lifecycle;
    use crate::http::conn::listener::{Listener, ListenerKind, bind};
    use crate::http::conn::server::{HttpServer, serve_by};
    use crate::http::conn::tls::testing::TlsTestPair;
    use crate::http::request_handler::RequestHandler;
    use crate::random::Rng;
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use bytes::Bytes;
    use std::collections::{BTreeMap, HashSet};
    use std::net::SocketAddr;
    use std::sync::mpsc;
    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
    use tokio::net::{TcpStream, UnixStream};
    use tokio::sync::Semaphore;

    const ASK: &[u8] = b"GET /worker HTTP/1.1\r\nhost: tierway\r\n\r\n";

    fn count(count: usize) -> Option<NonZeroUsize> {
        NonZeroUsize::new(count)
    }

    #[test]
    fn the_least_busy_worker_serves_and_of_idle_ones_the_first() {
        let check = |loads: &[usize], own: usize, expected: usize| {
            assert_eq!(choose(loads.iter().copied(), own), expected, "{loads:?}, accepted by {own}");
        };
        check(&[7], 0, 0);
        check(&[0, 0, 0], 2, 0);
        check(&[2, 0, 0], 0, 1);
        check(&[2, 0, 0], 2, 1);
        check(&[1, 2, 1], 1, 0);
        // Equally busy ones keep what they accepted.
        check(&[1, 1, 1], 2, 2);
        check(&[7, 8, 9], 1, 0);
        // And those that are hardly busier.
        check(&[80, 90, 91], 1, 1);
        check(&[80, 90, 91], 2, 0);
    }

    #[test]
    fn workers_are_threads_that_end_when_they_are_dropped() {
        let threads = WorkerThreads::start(count(3)).unwrap();
        let (sender, receiver) = mpsc::channel();
        for runtime in threads.workers().runtimes() {
            let sender = sender.clone();
            runtime.spawn(async move {
                sender.send(thread::current().name().map(str::to_owned)).unwrap();
                // Dropped with its runtime; until then it keeps the channel open.
                std::future::pending::<()>().await;
                drop(sender);
            });
        }
        drop(sender);
        let names: HashSet<_> = (0..3).map(|_| receiver.recv().unwrap().unwrap()).collect();
        assert_eq!(names, HashSet::from(["worker-1", "worker-2", "worker-3"].map(str::to_owned)));
        drop(threads);
        assert!(receiver.recv().is_err(), "what still ran was dropped");
    }

    /// An address that is served by threads of its own.
    struct Served {
        address: SocketAddr,
        lifecycle: Lifecycle,
        serving: tokio::task::JoinHandle<()>,
        /// Dropped, it ends a request to `/blocks`, which blocks its worker's thread: before that is waited for.
        unblocked: mpsc::Sender<()>,
        threads: WorkerThreads,
        /// Each permit ends a request to `/waits`.
        released: Arc<Semaphore>,
    }

    fn router(released: Arc<Semaphore>, blocked: mpsc::Receiver<()>) -> Router {
        let blocked = Arc::new(parking_lot::Mutex::new(blocked));
        let worker = async || thread::current().name().unwrap_or_default().to_owned();
        let waits = async move || {
            released.acquire().await.unwrap().forget();
            thread::current().name().unwrap_or_default().to_owned()
        };
        let blocks = async move || {
            let _ = blocked.lock().recv();
        };
        let panics = async || Body::new(PanickingBody);
        Router::new()
            .route("/worker", get(worker))
            .route("/waits", get(waits))
            .route("/blocks", get(blocks))
            .route("/panics", get(panics))
    }

    /// A body that panics.
    struct PanickingBody;

    impl http_body::Body for PanickingBody {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
            panic!("on purpose")
        }
    }

    fn served(workers: usize, tls: Option<&TlsTestPair>) -> Served {
        let listener = bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
        served_on(listener, workers, tls)
    }

    fn served_on(listener: Listener, workers: usize, tls: Option<&TlsTestPair>) -> Served {
        let address = listener.address().unwrap().reachable().unwrap_or(([0_u8; 4], 0).into());
        let (released, (unblocked, blocked)) = (Arc::new(Semaphore::new(0)), mpsc::channel());
        let lifecycle = Lifecycle::new(Clock);
        let server = HttpServer {
            handler: RequestHandler::new(router(released.clone(), blocked), Clock, Arc::new(Rng::seeded(1))),
            lifecycle: lifecycle.clone(),
            clock: Clock,
            kind: ListenerKind::Public,
            tls: tls.map(|pair| pair.tls.clone()),
            half_close: false,
            limits: Arc::default(),
        };
        let threads = WorkerThreads::start(count(workers)).unwrap();
        let listeners = listener.shared_by(threads.workers().runtimes()).unwrap();
        let serving = tokio::spawn(serve_by(threads.workers().clone(), listeners, server));
        Served { address, lifecycle, serving, threads, released, unblocked }
    }

    async fn connect(served: &Served) -> TcpStream {
        TcpStream::connect(served.address).await.unwrap()
    }

    /// The name of the worker that answers.
    async fn worker_of(socket: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> String {
        socket.write_all(ASK).await.unwrap();
        read_worker(socket).await
    }

    async fn read_worker(socket: &mut (impl AsyncRead + Unpin)) -> String {
        let mut read = Vec::new();
        loop {
            assert_ne!(socket.read_buf(&mut read).await.unwrap(), 0, "{}", String::from_utf8_lossy(&read));
            let text = String::from_utf8(read.clone()).unwrap();
            // The name has one digit.
            if let Some((_, body)) = text.split_once("\r\n\r\n")
                && body.len() == "worker-1".len()
            {
                assert!(text.starts_with("HTTP/1.1 200"), "{text}");
                return body.to_owned();
            }
        }
    }

    /// How many connections each worker serves.
    async fn spread(sockets: &mut [TcpStream]) -> BTreeMap<String, usize> {
        let mut by_worker = BTreeMap::new();
        for socket in sockets {
            *by_worker.entry(worker_of(socket).await).or_default() += 1;
        }
        by_worker
    }

    async fn shut_down(served: Served) {
        served.lifecycle.shut_down(Duration::ZERO, Duration::from_secs(600)).await;
        served.serving.await.unwrap();
        drop(served.threads);
    }

    #[tokio::test]
    async fn connections_are_spread_over_all_workers() {
        let served = served(4, None);
        let mut sockets = Vec::new();
        for _ in 0..32 {
            let mut socket = connect(&served).await;
            worker_of(&mut socket).await;
            sockets.push(socket);
        }
        let by_worker = spread(&mut sockets).await;
        // A request that was answered counts for some instants longer.
        assert!(by_worker.len() == 4 && by_worker.values().all(|share| (6..=10).contains(share)), "{by_worker:?}");
        // A connection stays where it is.
        assert_eq!(spread(&mut sockets).await, by_worker);
        drop(sockets);
        shut_down(served).await;
    }

    #[tokio::test]
    async fn connections_that_come_at_once_are_spread_too() {
        let served = served(2, None);
        let mut connecting = tokio::task::JoinSet::new();
        for _ in 0..64 {
            connecting.spawn(TcpStream::connect(served.address));
        }
        let sockets: io::Result<Vec<_>> = connecting.join_all().await.into_iter().collect();
        let by_worker = spread(&mut sockets.unwrap()).await;
        assert!(by_worker.len() == 2 && by_worker.values().all(|share| (24..=40).contains(share)), "{by_worker:?}");
    }

    #[tokio::test]
    async fn a_gateway_with_little_to_do_serves_with_one_worker() {
        let served = served(4, None);
        for _ in 0..20 {
            let mut socket = connect(&served).await;
            assert_eq!(worker_of(&mut socket).await, "worker-1");
            drop(socket);
            let nothing_open =
                || served.threads.workers().0.iter().all(|worker| worker.load.0.load(Ordering::Relaxed) == 0);
            while !nothing_open() {
                Clock.sleep(Duration::from_millis(1)).await;
            }
        }
    }

    #[tokio::test]
    async fn a_worker_that_is_busy_keeps_no_other_from_serving() {
        let served = served(2, None);
        let mut others = Vec::new();
        let mut busy = connect(&served).await;
        assert_eq!(worker_of(&mut busy).await, "worker-1");
        for _ in 0..3 {
            let mut other = connect(&served).await;
            if worker_of(&mut other).await == "worker-2" {
                others.push(other);
            }
        }
        assert!(!others.is_empty(), "the second worker has connections");
        busy.write_all(b"GET /blocks HTTP/1.1\r\nhost: tierway\r\n\r\n").await.unwrap();
        for _ in 0..100 {
            for other in &mut others {
                assert_eq!(worker_of(other).await, "worker-2");
            }
        }
        drop(served.unblocked);
        let mut answer = [0; 12];
        busy.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }

    #[tokio::test]
    async fn what_many_ask_at_once_on_one_connection_counts() {
        let served = served(2, None);
        let (streams, connection) = h2::client::handshake(connect(&served).await).await.unwrap();
        tokio::spawn(connection);
        let mut streams = streams.ready().await.unwrap();
        let ask = |path: &str| http::Request::get(format!("http://tierway{path}")).body(()).unwrap();
        let mut open = Vec::new();
        for _ in 0..20 {
            open.push(streams.send_request(ask("/waits"), true).unwrap().0);
        }
        // Answered after those before it were begun.
        let (asked, _) = streams.send_request(ask("/worker"), true).unwrap();
        assert_eq!(asked.await.unwrap().status(), http::StatusCode::OK);
        let mut sockets = Vec::new();
        for _ in 0..8 {
            let mut socket = connect(&served).await;
            assert_eq!(worker_of(&mut socket).await, "worker-2", "the other one has twenty requests");
            sockets.push(socket);
        }
        // Of one connection every request is served by the same worker.
        served.released.add_permits(open.len());
        for answer in open {
            let mut body = answer.await.unwrap().into_body();
            assert_eq!(body.data().await.unwrap().unwrap(), "worker-1");
        }
    }

    #[tokio::test]
    async fn a_panic_at_one_worker_stops_none() {
        let served = served(2, None);
        for _ in 0..8 {
            let (mut lasting, mut panicking) = (connect(&served).await, connect(&served).await);
            worker_of(&mut lasting).await;
            panicking.write_all(b"GET /panics HTTP/1.1\r\nhost: tierway\r\n\r\n").await.unwrap();
            let mut read = Vec::new();
            let _ = panicking.read_to_end(&mut read).await;
            assert!(!read.ends_with(b"0\r\n\r\n"), "it is not complete");
            worker_of(&mut lasting).await;
        }
        assert!(!served.serving.is_finished());
        shut_down(served).await;
    }

    #[tokio::test]
    async fn encrypted_connections_are_spread_too() {
        let pair = TlsTestPair::new();
        let served = served(2, Some(&pair));
        let mut open = Vec::new();
        for _ in 0..8 {
            let mut client = pair.connect(served.address).await;
            open.push((worker_of(&mut client).await, client));
        }
        let names: HashSet<_> = open.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, HashSet::from(["worker-1", "worker-2"]));
        assert_eq!(pair.failures(), 0);
    }

    #[tokio::test]
    async fn a_shutdown_waits_for_the_requests_of_every_worker() {
        let served = served(4, None);
        let mut sockets = Vec::new();
        for _ in 0..12 {
            let mut socket = connect(&served).await;
            worker_of(&mut socket).await;
            socket.write_all(b"GET /waits HTTP/1.1\r\nhost: tierway\r\n\r\n").await.unwrap();
            sockets.push(socket);
        }
        let (address, released) = (served.address, served.released.clone());
        let ending = tokio::spawn(shut_down(served));
        while TcpStream::connect(address).await.is_ok() {}
        let mut names = HashSet::new();
        assert!(!ending.is_finished(), "requests are open");
        released.add_permits(sockets.len());
        for socket in &mut sockets {
            names.insert(read_worker(socket).await);
        }
        assert_eq!(names.len(), 4, "{names:?}");
        ending.await.unwrap();
    }

    #[tokio::test]
    async fn the_file_of_a_unix_socket_goes_with_the_last_worker() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = bind(&format!("unix:{}", path.display()).parse().unwrap()).unwrap();
        let served = served_on(listener, 3, None);
        let mut open = Vec::new();
        for _ in 0..6 {
            let mut client = UnixStream::connect(&path).await.unwrap();
            open.push((worker_of(&mut client).await, client));
        }
        let names: HashSet<_> = open.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names.len(), 3, "{names:?}");
        drop(open);
        shut_down(served).await;
        assert!(!path.exists());
    }
}
