//! Whole answers at a fixed rate. Each request is due at a moment fixed beforehand and is timed from it,
//! so that a stall counts for every request that had to wait.
//!
//! Blocking threads rather than tasks: the timers of a runtime have a resolution of a millisecond, and the
//! measured times are a tenth of that.

use crate::{Target, quantile, wire};
use anyhow::{Context, anyhow, bail};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Most requests in progress; more than any contender needs while it keeps up.
const CONNECTIONS: usize = 64;

/// What is asked, how often and for how long.
pub(crate) struct Plan {
    pub(crate) per_second: u32,
    pub(crate) seconds: f64,
    /// Each request on a connection of its own.
    pub(crate) fresh: bool,
    /// Streams of one token, timed to it; whole answers otherwise.
    pub(crate) stream: bool,
}

/// The results of one sender: how long its answers took, and the errors of failed requests.
#[derive(Default)]
struct Seen {
    taken_us: Vec<u64>,
    failures: Vec<String>,
}

/// Sends as planned and returns how long the answers took, in microseconds, and how many requests failed.
pub(crate) fn run(at: &Target, plan: &Plan) -> anyhow::Result<Value> {
    let total = (f64::from(plan.per_second) * plan.seconds) as u64;
    let gap = Duration::from_secs(1) / plan.per_second;
    let next = AtomicU64::new(0);
    let kept = |_| if plan.fresh { Ok(None) } else { connect(at).map(Some) };
    let connections = (0..CONNECTIONS).map(kept).collect::<anyhow::Result<Vec<_>>>().context("cannot connect")?;
    let request = at.request(if plan.stream { r#""stream":true,"frames":1,"pace_ms":0,"# } else { "" });
    let begin = Instant::now() + Duration::from_millis(50);
    let mut all = Seen::default();
    thread::scope(|scope| {
        let (request, next) = (&request, &next);
        let send = |mut connection: Option<TcpStream>| {
            let mut mine = Seen::default();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= total {
                    return mine;
                }
                let due = begin + gap * number as u32;
                thread::sleep(due.saturating_duration_since(Instant::now()));
                match ask(&mut connection, at, request) {
                    Ok(()) => mine.taken_us.push(due.elapsed().as_micros() as u64),
                    Err(failure) => {
                        mine.failures.push(format!("{failure:#}"));
                        connection = None;
                    }
                }
                if plan.fresh {
                    connection = None;
                }
            }
        };
        let threads: Vec<_> = connections.into_iter().map(|connection| scope.spawn(move || send(connection))).collect();
        for thread in threads {
            let seen = thread.join().map_err(|_| anyhow!("a sender panicked"))?;
            all.taken_us.extend(seen.taken_us);
            all.failures.extend(seen.failures);
        }
        anyhow::Ok(())
    })?;
    if let (true, Some(failure)) = (all.taken_us.is_empty(), all.failures.first()) {
        bail!("every request failed: {failure}");
    }
    all.taken_us.sort_unstable();
    Ok(json!({
        "requests": total,
        "failed": all.failures.len(),
        "failure": all.failures.first(),
        "p50_us": quantile(&all.taken_us, 0.5)?,
        "p99_us": quantile(&all.taken_us, 0.99)?,
    }))
}

fn connect(at: &Target) -> anyhow::Result<TcpStream> {
    let connection = TcpStream::connect(at.address)?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(connection)
}

/// Reads one answer, on the existing connection or on a new one that is kept.
fn ask(connection: &mut Option<TcpStream>, at: &Target, request: &[u8]) -> anyhow::Result<()> {
    let connection = match connection {
        Some(connection) => connection,
        none => none.insert(connect(at).context("cannot connect")?),
    };
    connection.write_all(request)?;
    let mut read = Vec::with_capacity(4096);
    let mut piece = [0; 4096];
    while !is_whole(&read) {
        let count = connection.read(&mut piece)?;
        if count == 0 {
            bail!("hung up on after {:?}", String::from_utf8_lossy(&read));
        }
        read.extend_from_slice(&piece[..count]);
    }
    if !read.starts_with(b"HTTP/1.1 200") {
        bail!("answered {}", String::from_utf8_lossy(&read));
    }
    Ok(())
}

/// Some contenders forward a whole answer in chunks.
fn is_whole(read: &[u8]) -> bool {
    let Some(start) = wire::body_start(read) else { return false };
    if wire::header(&read[..start], "transfer-encoding").is_some() {
        return read.ends_with(b"0\r\n\r\n");
    }
    wire::message_len(read) == Some(read.len())
}
