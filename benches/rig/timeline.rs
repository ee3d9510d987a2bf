//! Streams at a fixed rate while something happens: one line for each request, never an average.
//!
//! It must never retry and never omit a request: a failed one, a cut one and one that ended too early
//! without an error are lines like any other. Each is timed from when it was due, on a connection of its
//! own, so that none affects another.
//!
//! Start reading in [`timeline`].

use crate::{Target, wire};
use memchr::memmem;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

/// How long after it was due a client gives a request up.
const PATIENCE: Duration = Duration::from_secs(60);
/// From the start of the program to the first request.
const RUN_UP: Duration = Duration::from_millis(200);

/// The requests to send, and their rate.
#[derive(clap::Args, Clone, Copy)]
pub(crate) struct Plan {
    #[arg(long)]
    per_second: u32,
    #[arg(long)]
    seconds: f64,
    /// Tokens of each stream
    #[arg(long)]
    frames: u64,
    /// Between two tokens
    #[arg(long)]
    pace_ms: u64,
    /// Before the first token
    #[arg(long)]
    first_ms: u64,
}

/// One request as its client saw it.
struct Seen {
    due: Duration,
    /// From due to the first token and to the end.
    first_token: Option<Duration>,
    end: Duration,
    outcome: &'static str,
    read: Vec<u8>,
}

/// Prints when it begins, then one line for each request in the order they were due.
pub(crate) async fn timeline(at: Target, plan: Plan) -> anyhow::Result<Value> {
    let more =
        format!(r#""stream":true,"frames":{},"pace_ms":{},"first_ms":{},"#, plan.frames, plan.pace_ms, plan.first_ms);
    let request = at.request(&more);
    let begin = Instant::now() + RUN_UP;
    println!("{}", json!({ "begins_unix": (SystemTime::now() + RUN_UP).duration_since(UNIX_EPOCH)?.as_secs_f64() }));
    let mut running = JoinSet::new();
    for number in 0..(f64::from(plan.per_second) * plan.seconds) as u32 {
        let due = Duration::from_secs(1) * number / plan.per_second;
        let (address, request) = (at.address, request.clone());
        sleep_until(begin + due).await;
        running.spawn(async move {
            let mut seen = Seen { due, first_token: None, end: PATIENCE, outcome: "failed", read: Vec::new() };
            let asked = ask(address, &request, plan.frames, begin, &mut seen);
            // An error or a timeout adds nothing to what `seen` contains already.
            let _ = timeout_at(begin + due + PATIENCE, asked).await;
            seen
        });
    }
    let mut all = Vec::new();
    while let Some(seen) = running.join_next().await {
        all.push(seen?);
    }
    all.sort_unstable_by_key(|seen| seen.due);
    all.iter().for_each(|seen| println!("{}", line(seen)));
    Ok(json!({ "requests": all.len() }))
}

async fn ask(
    address: std::net::SocketAddr,
    request: &[u8],
    frames: u64,
    begin: Instant,
    seen: &mut Seen,
) -> anyhow::Result<()> {
    let asked = read_answer(address, request, begin + seen.due, seen).await;
    seen.end = begin.elapsed().saturating_sub(seen.due);
    let tokens = memmem::find_iter(&seen.read, wire::TOKEN).count() as u64;
    let ended_well = asked.is_ok() && seen.read.ends_with(wire::LAST_CHUNK);
    seen.outcome = match (seen.first_token, ended_well && memmem::find(&seen.read, b"data: [DONE]").is_some()) {
        (Some(_), true) if tokens == frames => "served",
        (Some(_), true) => "passed off as whole",
        (Some(_), false) => "cut",
        (None, _) => "failed",
    };
    asked
}

async fn read_answer(
    address: std::net::SocketAddr,
    request: &[u8],
    due: Instant,
    seen: &mut Seen,
) -> anyhow::Result<()> {
    let mut connection = TcpStream::connect(address).await?;
    connection.set_nodelay(true)?;
    connection.write_all(request).await?;
    while connection.read_buf(&mut seen.read).await? > 0 {
        if seen.first_token.is_none() && memmem::find(&seen.read, wire::TOKEN).is_some() {
            seen.first_token = Some(due.elapsed());
        }
        let whole = wire::message_len(&seen.read) == Some(seen.read.len()) && !is_chunked(&seen.read);
        if whole || seen.read.ends_with(wire::LAST_CHUNK) {
            break;
        }
    }
    Ok(())
}

fn is_chunked(read: &[u8]) -> bool {
    wire::body_start(read).is_some_and(|start| wire::header(&read[..start], "transfer-encoding").is_some())
}

fn line(seen: &Seen) -> Value {
    let head = wire::body_start(&seen.read).map_or(&[][..], |start| &seen.read[..start]);
    let status =
        std::str::from_utf8(head).ok().and_then(|head| head.split(' ').nth(1)).and_then(|code| code.parse().ok());
    let in_ms = |time: Duration| time.as_micros() as f64 / 1000.0;
    json!({
        "due_s": seen.due.as_secs_f64(),
        "first_ms": seen.first_token.map(in_ms),
        "end_ms": in_ms(seen.end),
        "outcome": seen.outcome,
        "status": status.unwrap_or(0_u16),
        "region": wire::header(head, "x-tierway-region"),
        "attempts": wire::header(head, "x-tierway-attempts"),
    })
}
