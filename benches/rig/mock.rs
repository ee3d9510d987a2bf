//! The provider: 600 bytes of JSON at once, as many more as the request's `token_bytes` say, or a stream as its
//! `frames`, `first_ms`, `pace_ms` and `token_bytes` say; for `/v1/embeddings` a vector.
//!
//! It must never delay a request by itself: its latency is part of every contender's.
//!
//! Start reading in [`serve`].

use crate::wire;
use anyhow::bail;
use memchr::memmem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Waits from this length on also check whether the client is still connected.
const LONG: Duration = Duration::from_secs(1);
const STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n";

const ERROR: &str = "HTTP/1.1 500 Internal Server Error\r\ncontent-type: application/json\r\ncontent-length: 64\r\n\r\n{\"error\":{\"message\":\"simulated outage\",\"type\":\"server_error\"}}\n\n";

/// What is answered most often, head and body.
struct Answers {
    whole: Vec<u8>,
    vector: Vec<u8>,
}

/// What the provider does during a fault. Refused connections and silence need no code here: its process
/// is killed, or stopped.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    /// Answers every new request with a 500
    Error,
    /// Resets every connection, open ones and new ones
    Reset,
}

/// Serves until it is ended.
pub(crate) async fn serve(listen: SocketAddr, fault: Fault, backlog: u32) -> anyhow::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(listen)?;
    let listener = socket.listen(backlog)?;
    let answers = Arc::new(Answers { whole: whole_answer(BODY_LEN), vector: vector_answer() });
    let (switch, wrong) = watch::channel(false);
    tokio::spawn(follow_signals(switch));
    loop {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (answers, wrong) = (answers.clone(), wrong.clone());
        tokio::spawn(async move {
            let mut to_reset = wrong.clone();
            tokio::select! {
                // A disconnect ends that connection, not the provider.
                _ = serve_connection(&mut stream, &answers, &wrong) => {}
                Ok(_) = to_reset.wait_for(|wrong| *wrong), if fault == Fault::Reset => {
                    // It fails only on a connection that is closed already.
                    let _ = stream.set_zero_linger();
                }
            }
        });
    }
}

/// The fault is active from SIGUSR1 on, until SIGUSR2.
async fn follow_signals(switch: watch::Sender<bool>) -> anyhow::Result<()> {
    let (mut breaks, mut heals) = (signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?);
    loop {
        let wrong = tokio::select! {
            _ = breaks.recv() => true,
            _ = heals.recv() => false,
        };
        switch.send_replace(wrong);
    }
}

async fn serve_connection(
    stream: &mut TcpStream,
    answers: &Answers,
    wrong: &watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let mut read = Vec::with_capacity(2048);
    loop {
        let length = loop {
            match wire::message_len(&read) {
                Some(length) if length <= read.len() => break length,
                Some(length) => read.reserve(length - read.len()),
                None => {}
            }
            if stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
        };
        if *wrong.borrow() {
            stream.write_all(ERROR.as_bytes()).await?;
        } else if read.starts_with(b"POST /v1/embeddings ") {
            stream.write_all(&answers.vector).await?;
        } else if memmem::find(&read[..length.min(4096)], b"\"stream\":true").is_some() {
            answer_stream(stream, &read[..length]).await?;
        } else {
            match wire::number(&read[..length.min(4096)], "token_bytes") {
                0 => stream.write_all(&answers.whole).await?,
                more => stream.write_all(&whole_answer(BODY_LEN + more as usize)).await?,
            }
        }
        read.drain(..length);
    }
}

async fn answer_stream(stream: &mut TcpStream, request: &[u8]) -> anyhow::Result<()> {
    let frames = wire::number(request, "frames");
    let pace = Duration::from_millis(wire::number(request, "pace_ms"));
    let filler = "x".repeat(wire::number(request, "token_bytes") as usize);
    let asks_usage = memmem::find(request, b"\"include_usage\":true").is_some();
    let begun = Instant::now() + Duration::from_millis(wire::number(request, "first_ms"));
    let mut out = STREAM_HEAD.as_bytes().to_vec();
    for number in 0..frames {
        wait_until(stream, begun + pace * number as u32).await?;
        let finish = if number + 1 == frames { "\"stop\"" } else { "null" };
        let choice = format!(
            r#"{{"index":0,"delta":{{"content":" token {number:03}{filler}"}},"logprobs":null,"finish_reason":{finish}}}"#
        );
        push_frame(&mut out, &chunk(&format!("[{choice}]"), ""));
        stream.write_all(&out).await?;
        out.clear();
    }
    if asks_usage {
        let usage =
            format!(r#","usage":{{"prompt_tokens":12,"completion_tokens":{frames},"total_tokens":{}}}"#, frames + 12);
        push_frame(&mut out, &chunk("[]", &usage));
    }
    push_frame(&mut out, "[DONE]");
    out.extend_from_slice(b"0\r\n\r\n");
    Ok(stream.write_all(&out).await?)
}

/// A stream that is held for an hour must not outlive its reader, or descriptors run out.
async fn wait_until(stream: &TcpStream, due: Instant) -> anyhow::Result<()> {
    let left = due.saturating_duration_since(Instant::now());
    // The runtime's timer takes a millisecond even for what is due already.
    if left.is_zero() {
        return Ok(());
    }
    if left < LONG {
        sleep_until(due).await;
        return Ok(());
    }
    let mut byte = [0];
    tokio::select! {
        () = sleep_until(due) => Ok(()),
        _ = stream.peek(&mut byte) => bail!("the reader has disconnected"),
    }
}

fn chunk(choices: &str, more: &str) -> String {
    format!(
        r#"{{"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1760000000,"model":"bench-model","choices":{choices}{more}}}"#
    )
}

fn push_frame(out: &mut Vec<u8>, data: &str) {
    let frame = format!("data: {data}\n\n");
    out.extend_from_slice(format!("{:x}\r\n{frame}\r\n", frame.len()).as_bytes());
}

/// The usual length of a whole answer's body.
const BODY_LEN: usize = 600;

/// A whole answer with a body of so many bytes.
fn whole_answer(length: usize) -> Vec<u8> {
    let body = |filler: usize| {
        format!(
            r#"{{"id":"chatcmpl-bench","object":"chat.completion","created":1760000000,"model":"bench-model","choices":[{{"index":0,"message":{{"role":"assistant","content":"{}"}},"logprobs":null,"finish_reason":"stop"}}],"usage":{{"prompt_tokens":12,"completion_tokens":64,"total_tokens":76}}}}"#,
            "x".repeat(filler)
        )
    };
    answer(&body(length - body(0).len()))
}

/// The numbers of an embedding.
const DIMENSIONS: u32 = 2_000;

/// An embedding of one input.
fn vector_answer() -> Vec<u8> {
    let numbers: Vec<_> = (0..DIMENSIONS).map(|at| format!("{:.9}", f64::from(at).sin() / 40.0)).collect();
    answer(&format!(
        r#"{{"object":"list","data":[{{"object":"embedding","index":0,"embedding":[{}]}}],"model":"bench-model","usage":{{"prompt_tokens":12,"total_tokens":12}}}}"#,
        numbers.join(",")
    ))
}

/// A reply with `body`.
fn answer(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
}
