//! Whole answers at a fixed rate. Each request is due at a moment fixed beforehand and is timed from
//! it: a gateway that stalls is charged for everybody it kept waiting.
//!
//! Threads that block rather than tasks: the timers of a runtime are a millisecond wide, and what is
//! measured is a tenth of that.

use crate::{Target, quantile, wire};
use anyhow::{Context, anyhow, bail};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Requests under way at most; more than any contender needs while it keeps up.
const CONNECTIONS: usize = 64;

/// Sends for `seconds` and says how long the answers took, in microseconds.
pub(crate) fn run(at: &Target, per_second: u32, seconds: f64) -> anyhow::Result<Value> {
    let total = (f64::from(per_second) * seconds) as u64;
    let gap = Duration::from_secs(1) / per_second;
    let next = AtomicU64::new(0);
    let connections =
        (0..CONNECTIONS).map(|_| connect(at)).collect::<anyhow::Result<Vec<TcpStream>>>().context("cannot connect")?;
    let request = at.request("");
    let begin = Instant::now() + Duration::from_millis(50);
    let mut taken = Vec::with_capacity(total as usize);
    thread::scope(|scope| {
        let (request, next) = (&request, &next);
        let threads: Vec<_> = connections
            .into_iter()
            .map(|mut connection| {
                scope.spawn(move || -> anyhow::Result<Vec<u64>> {
                    let mut mine = Vec::new();
                    let mut read = Vec::with_capacity(4096);
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= total {
                            return Ok(mine);
                        }
                        let due = begin + gap * number as u32;
                        thread::sleep(due.saturating_duration_since(Instant::now()));
                        ask(&mut connection, request, &mut read)?;
                        mine.push(due.elapsed().as_micros() as u64);
                    }
                })
            })
            .collect();
        for thread in threads {
            taken.extend(thread.join().map_err(|_| anyhow!("a sender panicked"))??);
        }
        anyhow::Ok(())
    })?;
    taken.sort_unstable();
    Ok(json!({ "requests": taken.len(), "p50_us": quantile(&taken, 0.5)?, "p99_us": quantile(&taken, 0.99)? }))
}

fn connect(at: &Target) -> anyhow::Result<TcpStream> {
    let connection = TcpStream::connect(at.address)?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(connection)
}

fn ask(connection: &mut TcpStream, request: &[u8], read: &mut Vec<u8>) -> anyhow::Result<()> {
    connection.write_all(request)?;
    read.clear();
    let mut piece = [0; 4096];
    loop {
        let count = connection.read(&mut piece)?;
        if count == 0 {
            bail!("hung up on");
        }
        read.extend_from_slice(&piece[..count]);
        if is_whole(read) {
            break;
        }
    }
    if !read.starts_with(b"HTTP/1.1 200") {
        bail!("answered {}", String::from_utf8_lossy(read));
    }
    Ok(())
}

/// Some contenders hand a whole answer on in chunks.
fn is_whole(read: &[u8]) -> bool {
    let Some(start) = wire::body_start(read) else { return false };
    if wire::header(&read[..start], "transfer-encoding").is_some() {
        return read.ends_with(b"0\r\n\r\n");
    }
    wire::message_len(read) == Some(read.len())
}
