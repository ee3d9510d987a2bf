//! Allocations of a request, a frame and a refusal: an exact ceiling for each.
//!
//! The gateway runs on a thread of its own, and only that one is counted; the test is both client and
//! provider and works in lock-step. The cost of one operation is the difference between many and twice
//! as many, with a gateway that is warm.
//!
//! `cargo test --test allocations -- --nocapture` prints the current numbers. A ceiling that is no longer
//! reached fails as well and must be lowered.

use allocation_counter::{AllocationInfo, measure};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;
use tierway::cli::serve::Gateway;
use tierway::clock::Clock;
use tierway::config::{ConfigSource, Environment, load};
use tierway::random::Rng;
use tierway::store::Stores;
use tierway::store::memory::MemoryLedger;
use tierway::telemetry::Telemetry;
use tierway::telemetry::access::AccessLog;
use tierway::telemetry::metrics::BuildMetadata;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

const KEY: &str = "tw_test_allocations_key";
const LIMITED_KEY: &str = "tw_test_allocations_scant_key";
/// Enough that structures that grow by doubling do not affect the count of one.
const MANY: u64 = 256;
const FRAMES: u64 = 16;
/// Longer than any step takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Every feature enabled: limits, two deployments to choose from, breakers, metrics, the access log.
const CONFIG: &str = r#"
[providers.one]
protocol = "openai"
base_url = "http://127.0.0.1:PORT/v1"
credential = "env:CREDENTIAL"
region = "one"

[providers.two]
protocol = "openai"
base_url = "http://127.0.0.1:PORT/v1"
credential = "env:CREDENTIAL"
region = "two"

[models.m]
price = { input = "0.07", output = "0.25" }
deployments = [{ provider = "one" }, { provider = "two" }]

[tiers.default]
models = ["m"]

[routing]
idle = "1h"
total = "1h"

[policies.ample]
tiers = ["*"]
requests_per_minute = 1000000000
tokens_per_minute = 1000000000000
max_concurrent = 100000

[policies.scant]
tiers = ["*"]
requests_per_minute = 1

[[keys]]
name = "ample"
policy = "ample"
secret = "env:KEY"

[[keys]]
name = "scant"
policy = "scant"
secret = "env:SCANT_KEY"
"#;

const WHOLE_ANSWER: &str = r#"{"id":"c","object":"chat.completion","created":1760000000,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hello."},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":12,"completion_tokens":64,"total_tokens":76}}"#;
const STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const TOKEN: &str = r#"{"id":"c","object":"chat.completion.chunk","created":1760000000,"model":"m","choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}]}"#;
const LAST: &str = r#"{"id":"c","object":"chat.completion.chunk","created":1760000000,"model":"m","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}"#;
const USAGE: &str = r#"{"id":"c","object":"chat.completion.chunk","created":1760000000,"model":"m","choices":[],"usage":{"prompt_tokens":12,"completion_tokens":64,"total_tokens":76}}"#;

#[test]
fn a_whole_request() {
    check("whole request", 80, MANY, |run| run.wholes(MANY), |run| run.wholes(2 * MANY));
}

#[test]
fn a_stream() {
    check("stream of 16 frames", 89, MANY, |run| run.streams(MANY, FRAMES), |run| run.streams(2 * MANY, FRAMES));
}

#[test]
fn a_streamed_frame() {
    check("streamed frame", 0, MANY * FRAMES, |run| run.streams(MANY, FRAMES), |run| run.streams(MANY, 2 * FRAMES));
}

#[test]
fn a_refusal_of_an_unknown_key() {
    check("refusal, 401", 23, MANY, |run| run.refusals("wrong", 401, MANY), |run| run.refusals("wrong", 401, 2 * MANY));
}

#[test]
fn a_refusal_of_a_key_at_its_limit() {
    let at_limit = |run: &mut Run, times| {
        if run.upstream.is_none() {
            run.whole(LIMITED_KEY);
        }
        run.refusals(LIMITED_KEY, 429, times);
    };
    check("refusal, 429", 41, MANY, |run| at_limit(run, MANY), |run| at_limit(run, 2 * MANY));
}

/// The bytes that a stream holds after its first token, with the connections to its client and its provider. Not all of
/// them are touched: resident memory is less.
#[test]
fn an_open_stream() {
    const BYTES: f64 = 65_100.0;
    let (less, more) = counted(|run| run.open_streams(MANY / 4), |run| run.open_streams(MANY / 2));
    let each = (more.bytes_current - less.bytes_current) as f64 / (MANY / 4) as f64;
    println!("open stream: {each:.0} bytes");
    // Tables that grow by doubling hold some more than they need.
    assert!((each / BYTES - 1.0).abs() < 0.01, "{each:.0} bytes; fewer is welcome: change the figure");
}

/// `more` does `things` operations more than `less`; each must allocate `expected` times.
fn check(name: &str, expected: u64, things: u64, less: impl Fn(&mut Run), more: impl Fn(&mut Run)) {
    let (less, more) = counted(less, more);
    let each = |less: u64, more: u64| (more as f64 - less as f64) / things as f64;
    let count = each(less.count_total, more.count_total);
    println!("{name}: {count:.3} allocations, {:.1} bytes", each(less.bytes_total, more.bytes_total));
    // Rounded, because structures that grow by doubling allocate once for many operations.
    assert_eq!(count.round() as i64, expected as i64, "{name}: fewer is welcome: lower the ceiling");
}

/// The allocations of the gateway's thread during `less` and during `more`, once it is warm.
fn counted(less: impl Fn(&mut Run), more: impl Fn(&mut Run)) -> (AllocationInfo, AllocationInfo) {
    let provider = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let config = CONFIG.replace("PORT", &provider.local_addr().expect("it is bound").port().to_string());
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound");
    let (phase, phases) = unbounded_channel();
    let idle = Arc::new(IdleFlag::default());
    let gateway = {
        let idle = idle.clone();
        thread::spawn(move || serve(&config, listener, phases, idle))
    };
    let (ask, asked) = mpsc::channel();
    thread::spawn(move || take_requests(&provider, &ask));
    let mut run = Run { client: connect(address), asked, upstream: None, idle, address, open: Vec::new() };
    let works: [&dyn Fn(&mut Run); 3] = [&less, &less, &more];
    for work in works {
        work(&mut run);
        phase.send(()).expect("the gateway serves until its last phase");
    }
    gateway.join().expect("the gateway does not panic")
}

/// Whether the gateway's thread is idle.
#[derive(Default)]
struct IdleFlag {
    resting: Mutex<bool>,
    begins: Condvar,
}

impl IdleFlag {
    fn set(&self, resting: bool) {
        *self.resting.lock().expect("no thread panics with it") = resting;
        self.begins.notify_all();
    }

    fn wait(&self) {
        let resting = self.resting.lock().expect("no thread panics with it");
        let waited = self.begins.wait_timeout_while(resting, PATIENCE, |resting| !*resting);
        assert!(!waited.expect("no thread panics with it").1.timed_out(), "the gateway does not become idle");
    }
}

/// Serves for three phases; returns the allocations of the second and the third.
fn serve(
    config: &str,
    listener: TcpListener,
    mut phases: UnboundedReceiver<()>,
    idle: Arc<IdleFlag>,
) -> (AllocationInfo, AllocationInfo) {
    let roused = idle.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_park(move || idle.set(true))
        .on_thread_unpark(move || roused.set(false))
        .build()
        .expect("the system gives a poll");
    let source = ConfigSource::File { path: "allocations.toml".into(), text: config.to_owned() };
    let snapshot = load(&source, &Variables, &[]).unwrap_or_else(|problems| panic!("{}", problems.render(false)));
    runtime.spawn(async move {
        let log = AccessLog::to_writer(Box::new(io::sink()));
        let telemetry = Arc::new(Telemetry::new(log, BuildMetadata { version: "counted", revision: None }));
        let ledger = Arc::new(MemoryLedger::default());
        let gateway = Gateway::build(
            Arc::new(snapshot),
            None,
            telemetry,
            Rng::seeded(1),
            Clock,
            Stores { ledger, ..Stores::memory().await },
        )
        .unwrap_or_else(|error| panic!("the gateway cannot be built: {error}"));
        listener.set_nonblocking(true).expect("a listener can be asked without waiting");
        let listener = tokio::net::TcpListener::from_std(listener).expect("it is non-blocking");
        gateway.serve(listener, None).await;
    });
    let mut phase = || runtime.block_on(phases.recv()).expect("the test ends each phase");
    phase();
    (measure(&mut phase), measure(&mut phase))
}

/// An environment with the secrets, and without files.
struct Variables;

impl Environment for Variables {
    fn variable(&self, name: &str) -> Option<String> {
        let value = match name {
            "KEY" => KEY,
            "SCANT_KEY" => LIMITED_KEY,
            "CREDENTIAL" => "sk-provider",
            _ => return None,
        };
        Some(value.to_owned())
    }

    fn variables(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn read(&self, _: &Path) -> io::Result<String> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// The provider: reads requests, and sends the connection on which each is to be answered to the test.
fn take_requests(provider: &TcpListener, ask: &Sender<TcpStream>) {
    for connection in provider.incoming() {
        let mut connection = prepared(connection.expect("the gateway connects"));
        let ask = ask.clone();
        thread::spawn(move || {
            // Until the gateway ends, and its connections with it.
            while read_until(&mut connection, is_whole).is_some() {
                let answering = connection.try_clone().expect("the system gives handles");
                if ask.send(answering).is_err() {
                    return;
                }
            }
        });
    }
}

/// The client's connection to a gateway, and the provider's requests.
struct Run {
    client: TcpStream,
    asked: Receiver<TcpStream>,
    upstream: Option<TcpStream>,
    idle: Arc<IdleFlag>,
    address: SocketAddr,
    /// Both ends of streams that are to stay open.
    open: Vec<[TcpStream; 2]>,
}

impl Run {
    /// Opens streams on connections of their own, each after its first token.
    fn open_streams(&mut self, times: u64) {
        for _ in 0..times {
            self.client = connect(self.address);
            self.ask(KEY, r#""stream":true,"#);
            self.await_upstream_request();
            self.answer(&format!("{STREAM_HEAD}{}", event(TOKEN)));
            self.read_until(200, |read| read.ends_with(b"\n\n\r\n"));
            let upstream = self.upstream.take().expect("the provider was asked");
            let client = self.client.try_clone().expect("the system gives handles");
            self.open.push([client, upstream]);
        }
    }

    fn wholes(&mut self, times: u64) {
        (0..times).for_each(|_| self.whole(KEY));
    }

    fn whole(&mut self, key: &str) {
        self.ask(key, "");
        self.await_upstream_request();
        let length = WHOLE_ANSWER.len();
        self.answer(&format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{WHOLE_ANSWER}"
        ));
        self.read_until(200, is_whole);
    }

    fn streams(&mut self, times: u64, frames: u64) {
        for _ in 0..times {
            self.ask(KEY, r#""stream":true,"#);
            self.await_upstream_request();
            for number in 0..frames {
                // In one write, so that it is read as one.
                self.answer(&format!("{}{}", if number == 0 { STREAM_HEAD } else { "" }, event(TOKEN)));
                self.read_until(200, |read| read.ends_with(b"\n\n\r\n"));
            }
            self.answer(&(event(LAST) + &event(USAGE) + &event("[DONE]") + "0\r\n\r\n"));
            self.read_until(200, |read| read.ends_with(b"\r\n0\r\n\r\n"));
        }
    }

    fn refusals(&mut self, key: &str, status: u16, times: u64) {
        for _ in 0..times {
            self.ask(key, "");
            self.read_until(status, is_whole);
        }
    }

    fn ask(&mut self, key: &str, more: &str) {
        let body = format!(r#"{{"model":"m",{more}"messages":[{{"role":"user","content":"Say something."}}]}}"#);
        let length = body.len();
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway.test\r\nauthorization: Bearer {key}\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        self.client.write_all(request.as_bytes()).expect("the gateway reads");
    }

    fn await_upstream_request(&mut self) {
        self.upstream = Some(self.asked.recv_timeout(PATIENCE).expect("the gateway asks its provider"));
        // An answer that arrives before it is awaited would take another path in the runtime.
        self.idle.wait();
    }

    fn answer(&mut self, text: &str) {
        let upstream = self.upstream.as_mut().expect("the provider was asked first");
        upstream.write_all(text.as_bytes()).expect("the gateway reads");
    }

    fn read_until(&mut self, status: u16, whole: impl Fn(&[u8]) -> bool) {
        let read = read_until(&mut self.client, whole).expect("the gateway does not hang up");
        self.idle.wait();
        let expected = format!("HTTP/1.1 {status} ");
        // The rest of a stream after its head has no status.
        let good = !read.starts_with(b"HTTP/1.1") || read.starts_with(expected.as_bytes());
        assert!(good, "{}", String::from_utf8_lossy(&read));
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    prepared(TcpStream::connect(address).expect("the gateway listens"))
}

fn prepared(connection: TcpStream) -> TcpStream {
    connection.set_nodelay(true).expect("TCP has this option");
    connection.set_read_timeout(Some(PATIENCE)).expect("it is not zero");
    connection
}

/// `None` where the other side has ended.
fn read_until(from: &mut TcpStream, whole: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
    let (mut read, mut piece) = (Vec::new(), [0; 4096]);
    while !whole(&read) {
        let count = from.read(&mut piece).ok()?;
        if count == 0 {
            return None;
        }
        read.extend_from_slice(&piece[..count]);
    }
    Some(read)
}

/// Whether a message with a length is there to its end.
fn is_whole(bytes: &[u8]) -> bool {
    let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    length.is_some_and(|length| bytes.len() == head + 4 + length)
}

fn event(data: &str) -> String {
    let data = format!("data: {data}\n\n");
    format!("{:x}\r\n{data}\r\n", data.len())
}
