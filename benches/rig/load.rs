//! Streams: many concurrent ones read to their ends, or many that wait after their first frame.
//!
//! A stream without every requested frame is an error, never a figure.

use crate::wire::TOKEN;
use crate::{Target, quantile, wire};
use anyhow::{Context, bail};
use memchr::memmem;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Streams being opened at the same time, so that none waits for the previous one.
const AT_A_TIME: usize = 32;

/// Number, length and pace of the streams.
#[derive(clap::Args, Clone, Copy)]
pub(crate) struct Shape {
    /// At once
    #[arg(long)]
    streams: usize,
    /// One after the other on each connection
    #[arg(long)]
    times: usize,
    /// Tokens of each
    #[arg(long)]
    frames: u64,
    /// Between two tokens
    #[arg(long)]
    pace_ms: u64,
}

/// Reads them all and returns how long the first tokens took, in microseconds.
pub(crate) async fn streams(at: Target, shape: Shape) -> anyhow::Result<Value> {
    let asked = format!(r#""stream":true,"frames":{},"pace_ms":{},"#, shape.frames, shape.pace_ms);
    let request = at.request(&asked);
    let mut running = JoinSet::new();
    for number in 0..shape.streams {
        let (at, request) = (at.clone(), request.clone());
        running.spawn(async move {
            // Started evenly over one stream's length, not all at once.
            let length = shape.pace_ms * shape.frames;
            sleep(Duration::from_micros(length * 1000 * number as u64 / shape.streams as u64)).await;
            let mut connection = connect(&at).await?;
            let mut first_tokens = Vec::with_capacity(shape.times);
            for _ in 0..shape.times {
                first_tokens.push(read_stream(&mut connection, &request, shape.frames).await?);
            }
            anyhow::Ok(first_tokens)
        });
    }
    let mut first_tokens = Vec::new();
    while let Some(done) = running.join_next().await {
        first_tokens.extend(done??);
    }
    first_tokens.sort_unstable();
    Ok(json!({
        "frames": first_tokens.len() as u64 * shape.frames,
        "first_token_p50_us": quantile(&first_tokens, 0.5)?,
        "first_token_p99_us": quantile(&first_tokens, 0.99)?,
    }))
}

/// Opens them, a few at a time, prints their number, and waits until stdin ends.
pub(crate) async fn hold(at: Target, streams: usize) -> anyhow::Result<Value> {
    let request: Arc<[u8]> = at.request(r#""stream":true,"frames":2,"pace_ms":3600000,"#).into();
    let mut opening = JoinSet::new();
    let mut held = Vec::with_capacity(streams);
    for number in 0..streams {
        if opening.len() == AT_A_TIME {
            held.extend(opening.join_next().await.transpose()?.transpose()?);
        }
        let (at, request) = (at.clone(), request.clone());
        opening.spawn(async move {
            let mut connection = connect(&at).await?;
            connection.write_all(&request).await?;
            let mut read = Vec::with_capacity(1024);
            while memmem::find(&read, TOKEN).is_none() {
                read_more(&mut connection, &mut read).await.with_context(|| format!("stream {number}"))?;
            }
            anyhow::Ok(connection)
        });
    }
    while let Some(opened) = opening.join_next().await {
        held.push(opened??);
    }
    println!("{}", json!({ "open": held.len() }));
    tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink())).await??;
    Ok(json!({ "closed": held.len() }))
}

/// The time to the first token, of a stream read to its end.
async fn read_stream(connection: &mut TcpStream, request: &[u8], frames: u64) -> anyhow::Result<u64> {
    let mut read = Vec::with_capacity(frames as usize * 256);
    let sent = Instant::now();
    connection.write_all(request).await?;
    let mut first_token = None;
    while !read.ends_with(wire::LAST_CHUNK) {
        read_more(connection, &mut read).await?;
        if first_token.is_none() && memmem::find(&read, TOKEN).is_some() {
            first_token = Some(sent.elapsed().as_micros() as u64);
        }
    }
    let tokens = memmem::find_iter(&read, TOKEN).count() as u64;
    match first_token {
        Some(first_token) if tokens == frames => Ok(first_token),
        _ => bail!("{tokens} tokens of {frames}: {}", String::from_utf8_lossy(&read)),
    }
}

async fn read_more(connection: &mut TcpStream, read: &mut Vec<u8>) -> anyhow::Result<()> {
    if connection.read_buf(read).await? == 0 {
        bail!("hung up on after {}", String::from_utf8_lossy(read));
    }
    // A refusal is not a stream: without this check it would be waited for until the deadline.
    match wire::body_start(read) {
        Some(_) if !read.starts_with(b"HTTP/1.1 200") => bail!("answered {}", String::from_utf8_lossy(read)),
        _ => Ok(()),
    }
}

async fn connect(at: &Target) -> anyhow::Result<TcpStream> {
    let connection = TcpStream::connect(at.address).await.context("cannot connect")?;
    connection.set_nodelay(true)?;
    Ok(connection)
}
