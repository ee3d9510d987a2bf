//! The parts of the request path by themselves: reading a body, building a plan, reading a stream, an
//! attempt from its request to its last byte, and the access line.
//!
//! Only through public functions: edits and the meter are timed where they happen, inside an attempt over
//! loopback. `benches/compare.py` says what the whole costs; this says which part has grown.

#[path = "parts/access_line.rs"]
mod access_line;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use http::HeaderMap;
use std::future::poll_fn;
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use tierway::clock::Clock;
use tierway::config::{ConfigSource, Environment, ExtraKey, KeyHash, Snapshot, load};
use tierway::domain::authorize::authorize;
use tierway::domain::body_member::ListedMembers;
use tierway::domain::call::{Call, Endpoint};
use tierway::domain::id::ProviderId;
use tierway::domain::memory::InFlightAllowance;
use tierway::domain::random::RandomValue;
use tierway::domain::routing::AnswerMode;
use tierway::domain::routing::plan::{PlanStep, PlanTerms, RoutePlan};
use tierway::domain::secret::Secret;
use tierway::protocol::chat::request::read_request;
use tierway::protocol::sse::SseReader;
use tierway::random::Rng;
use tierway::relay::health::HealthRegistry;
use tierway::telemetry::Telemetry;
use tierway::telemetry::access::AccessLog;
use tierway::telemetry::metrics::BuildMetadata;
use tierway::upstream::{
    ConnectionSetup, FieldSetup, ForwardedFields, HostProtocol, NetworkSetup, ProviderProtocol, ProviderSetup,
    Timeouts, UpstreamModel, UpstreamRequest, Upstreams,
};
use tokio::runtime::Runtime;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const FRAMES: usize = 50;
/// What a body is made of: prose with the escapes prose has.
const TEXT: &str = r#"Why is the sky blue, and why is it red in the \"evening\"?\n"#;
/// Prose that needs no escape.
const PLAIN: &str = "Why is the sky blue, and why is it red in the evening? Please say. ";

criterion_group!(parts, reading, planning, framing, attempting, access_line::access_line);
criterion_main!(parts);

// --- the client's body ------------------------------------------------------------------------

fn reading(c: &mut Criterion) {
    let mut group = c.benchmark_group("read_request");
    let small = r#"{"model":"deepseek-ai/DeepSeek-V4-Flash","messages":[{"role":"user","content":"Hello!"}]}"#;
    let bodies = [
        ("90 bytes", Bytes::from_static(small.as_bytes())),
        ("1 KiB", body(KIB, false)),
        ("4 KiB, 20 messages", conversation(4 * KIB, 20)),
        ("1 MiB, plain", body_of(PLAIN, MIB, false)),
        ("1 MiB, with escapes", body(MIB, false)),
    ];
    for (name, body) in bodies {
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| read_request(Endpoint::Chat, black_box(body.clone()), &ListedMembers::default()))
        });
    }
}

/// A chat body of about `size` bytes in `turns` messages.
fn conversation(size: usize, turns: usize) -> Bytes {
    let message = |turn: usize| {
        let role = ["user", "assistant"][turn % 2];
        format!(r#"{{"role":"{role}","content":"{}"}}"#, TEXT.repeat(size / turns / TEXT.len()))
    };
    let messages = (0..turns).map(message).collect::<Vec<_>>().join(",");
    format!(r#"{{"model":"deepseek-ai/DeepSeek-V4-Flash","stream":true,"temperature":0.7,"messages":[{messages}]}}"#)
        .into()
}

/// A chat body of `size` bytes.
fn body(size: usize, stream: bool) -> Bytes {
    body_of(TEXT, size, stream)
}

/// A chat body of `size` bytes that says `text` again and again.
fn body_of(text: &str, size: usize, stream: bool) -> Bytes {
    let around = |text: &str| {
        format!(
            r#"{{"model":"deepseek-ai/DeepSeek-V4-Flash","stream":{stream},"max_tokens":512,"messages":[{{"role":"user","content":"{text}"}}]}}"#
        )
    };
    // Whole repetitions only: half an escape would be no JSON.
    let filler = text.repeat((size - around("").len()) / text.len());
    around(&filler).into()
}

fn call(size: usize, stream: bool) -> Call {
    read_request(Endpoint::Chat, body(size, stream), &ListedMembers::default()).expect("the body is a chat request")
}

// --- the plan ---------------------------------------------------------------------------------

fn planning(c: &mut Criterion) {
    let snapshot = snapshot();
    let key = snapshot.keys.values().next().expect("one was given");
    let call = call(KIB, true);
    let authorized = authorize(&snapshot.table, key, &call).expect("the key may do everything");
    let telemetry = Arc::new(Telemetry::new(AccessLog::off(), BuildMetadata { version: "bench", revision: None }));
    let health = HealthRegistry::new(&snapshot.table.settings, telemetry, Arc::new(Rng::seeded(1)), Clock);
    let one = || vec![Default::default()];
    let providers: Vec<_> = snapshot.providers.iter().map(|provider| (provider.name.clone(), one())).collect();
    let deployments = health.deployment_set(&snapshot.table, &providers, None);
    let view = deployments.view_for(tierway::domain::id::TeamId(1), None);
    let now = Clock.now();
    let deadline = now + Duration::from_secs(60);
    let terms = PlanTerms { no_fallback: false, deadline, answer_by: deadline, priced_at_ms: 0 };
    let build = || RoutePlan::build(&snapshot.table, &authorized, &call, terms, RandomValue(7));

    let mut group = c.benchmark_group("plan");
    group.bench_function("authorize", |b| b.iter(|| authorize(&snapshot.table, key, black_box(&call))));
    group.bench_function("plan", |b| b.iter(build));
    group.bench_function("plan and first step", |b| {
        b.iter_batched(
            build,
            |plan| match plan.expect("something may serve").next(&snapshot.table, &view, now, RandomValue(7)) {
                PlanStep::Try(attempt) => attempt,
                PlanStep::Wait(_) | PlanStep::GiveUp(_) => panic!("everything is well"),
            },
            BatchSize::SmallInput,
        );
    });
}

/// The example of the documentation: tiers, chains, an alias, regions.
fn snapshot() -> Snapshot {
    let source = ConfigSource::File { path: "bench.toml".into(), text: EXAMPLE.to_owned() };
    let extra = ExtraKey { name: "bench".to_owned(), hash: KeyHash::of("bench") };
    match load(&source, &Nothing, &[extra]) {
        Ok(snapshot) => snapshot,
        Err(problems) => panic!("{}", problems.render(false)),
    }
}

const EXAMPLE: &str = r#"
[providers.us]
protocol = "openai"
base_url = "http://127.0.0.1:1/v1"
region = "us-east"

[providers.eu]
protocol = "openai"
base_url = "http://127.0.0.1:2/v1"
region = "eu-central"

[models."deepseek-ai/DeepSeek-V4-Flash"]
deployments = [{ provider = "us", weight = 3 }, { provider = "eu" }]

[models."Qwen/Qwen3-32B"]
deployments = [{ provider = "us" }, { provider = "eu" }]

[models."moonshotai/Kimi-K2.5"]
deployments = [{ provider = "us" }, { provider = "eu" }]

[tiers.default]
models = ["deepseek-ai/DeepSeek-V4-Flash"]
then = ["fallback"]

[tiers.fallback]
models = ["Qwen/Qwen3-32B"]

[tiers.premium]
models = ["moonshotai/Kimi-K2.5"]
then = ["fallback", "default"]

[aliases.auto]
split = { default = 80, fallback = 15, premium = 5 }
"#;

/// An environment without variables and files.
struct Nothing;

impl Environment for Nothing {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }

    fn variables(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn read(&self, _: &Path) -> io::Result<String> {
        Err(io::ErrorKind::NotFound.into())
    }
}

// --- the provider's stream --------------------------------------------------------------------

fn framing(c: &mut Criterion) {
    let frames: Vec<Bytes> = (0..FRAMES).map(|number| frame(number).into()).collect();
    let joined: Bytes = frames.concat().into();
    let mut group = c.benchmark_group("sse, 50 frames");
    group.throughput(Throughput::Elements(FRAMES as u64));
    group.bench_function("a chunk each", |b| b.iter(|| read_frames(&frames)));
    group.bench_function("in one chunk", |b| b.iter(|| read_frames(std::slice::from_ref(&joined))));
    let cut: Vec<Bytes> =
        (0..joined.len()).step_by(100).map(|at| joined.slice(at..joined.len().min(at + 100))).collect();
    group.bench_function("cut every 100 bytes", |b| b.iter(|| read_frames(&cut)));
}

fn read_frames(chunks: &[Bytes]) -> usize {
    let mut reader = SseReader::new(MIB);
    let mut bytes = 0;
    for chunk in chunks {
        reader.push(chunk.clone());
        while let Ok(Some(frame)) = reader.next_frame() {
            bytes += black_box(frame).raw.len();
        }
    }
    bytes
}

fn frame(number: usize) -> String {
    format!(
        "data: {{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1760000000,\"model\":\"m\",\
         \"choices\":[{{\"index\":0,\"delta\":{{\"content\":\" token {number:03}\"}},\"finish_reason\":null}}]}}\n\n"
    )
}

// --- one attempt ------------------------------------------------------------------------------

fn attempting(c: &mut Criterion) {
    let runtime = Runtime::new().expect("the system has threads");
    let mut group = c.benchmark_group("attempt, over loopback");
    let provider = loopback_provider().expect("loopback has a free port");
    let with_credential = |credential: &str| {
        upstreams(NetworkSetup {
            api: HostProtocol::OpenAi,
            base_url: format!("http://{provider}/v1"),
            credentials: vec![Secret::new(credential)],
            http2: false,
            finish_reason_optional: true,
            skip_malformed_frames: false,
            max_completion_tokens: false,
            asks_usage: true,
            fields: FieldSetup::default(),
            connection: ConnectionSetup::default(),
        })
    };
    let networked = with_credential("sk-bench");
    let stream = call(KIB, true);
    // A short credential is not looked for in what comes; one with odd letters is, in each of its spellings.
    for (name, credential) in [
        ("a stream of 50 frames, metered", "sk-bench"),
        ("the same, a credential looked for", "sk-bench-0123456789-abcdefghijklmnopqrstuvwxyz"),
        ("the same, in six spellings", "bench+0123456789/abcdefghijklmnopqrstuvwxyz="),
    ] {
        let networked = with_credential(credential);
        group.bench_function(name, |b| b.to_async(&runtime).iter(|| attempt(&networked, &stream)));
    }
    for (name, size) in [("1 KiB, spliced", KIB), ("1 MiB, spliced", MIB)] {
        let call = call(size, false);
        group.bench_function(name, |b| b.to_async(&runtime).iter(|| attempt(&networked, &call)));
    }
}

fn upstreams(host: NetworkSetup) -> Upstreams {
    let setup = ProviderSetup {
        name: "bench".into(),
        protocol: ProviderProtocol::Network(host),
        connect_timeout: Duration::from_secs(1),
    };
    Upstreams::build(vec![setup], None, Clock).expect("the provider can be set up")
}

async fn attempt(upstreams: &Upstreams, call: &Call) -> usize {
    let long = Duration::from_secs(60);
    let timeouts = Timeouts { first_token: long, whole: long, idle: long, deadline: deadline(long) };
    let request = UpstreamRequest {
        provider: ProviderId(0),
        credential: 0,
        model: &UpstreamModel::new("deepseek-v4-flash"),
        call,
        mode: AnswerMode::of(call.metadata().stream, false),
        headers: &HeaderMap::new(),
        fields: ForwardedFields::default(),
        ceiling: None,
        timeouts,
        fault: None,
        draw: RandomValue(7),
        allowance: &InFlightAllowance::default(),
    };
    let mut answer = upstreams.send(request, &()).await.unwrap_or_else(|error| panic!("{error:?}"));
    let mut bytes = 0;
    while let Some(frames) = poll_fn(|cx| answer.body.poll_frames(cx)).await {
        bytes += frames.unwrap_or_else(|failure| panic!("{failure:?}")).len();
    }
    bytes
}

fn deadline(after: Duration) -> Instant {
    Clock.now() + after
}

/// Answers every request with the same 200 or the same stream, each connection by a thread.
fn loopback_provider() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let at = listener.local_addr()?;
    thread::spawn(move || {
        // A connection that breaks ends its thread; the bench shows it as a failed attempt.
        listener.incoming().flatten().for_each(|connection| _ = thread::spawn(|| answer_all(connection)));
    });
    Ok(at)
}

fn answer_all(mut connection: TcpStream) -> io::Result<()> {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    connection.set_nodelay(true)?;
    let stream = stream_answer();
    let (mut buffer, mut read) = (vec![0; 256 * KIB], Vec::new());
    loop {
        let count = connection.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        read.extend_from_slice(&buffer[..count]);
        if request_len(&read).is_some_and(|length| length <= read.len()) {
            let streams = memchr::memmem::find(&read, b"\"stream\":true").is_some();
            read.clear();
            connection.write_all(if streams { stream.as_bytes() } else { ANSWER })?;
        }
    }
}

fn stream_answer() -> String {
    let body = (0..FRAMES).map(frame).collect::<String>() + "data: [DONE]\n\n";
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// How long the request at the start of `read` is, once its head is there.
fn request_len(read: &[u8]) -> Option<usize> {
    let head = memchr::memmem::find(read, b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&read[..head]).ok()?;
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: "))?;
    Some(head + length.parse::<usize>().ok()?)
}
