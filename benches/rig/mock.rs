//! The provider: 600 bytes of JSON at once, or a stream as the request's `frames` and `pace_ms` say.
//!
//! It must never hold a request back by itself: what it adds is added to every contender.
//!
//! Start reading in [`serve`].

use crate::wire;
use memchr::memmem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until};

const STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n";

/// Serves until it is ended.
pub(crate) async fn serve(listen: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    let whole = Arc::new(whole_answer());
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // Whoever hangs up has ended that connection, not the provider.
        tokio::spawn(converse(stream, whole.clone()));
    }
}

async fn converse(mut stream: TcpStream, whole: Arc<Vec<u8>>) -> anyhow::Result<()> {
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
        if memmem::find(&read[..length.min(4096)], b"\"stream\":true").is_some() {
            answer_stream(&mut stream, &read[..length]).await?;
        } else {
            stream.write_all(&whole).await?;
        }
        read.drain(..length);
    }
}

async fn answer_stream(stream: &mut TcpStream, request: &[u8]) -> anyhow::Result<()> {
    let frames = wire::number(request, "frames");
    let pace = Duration::from_millis(wire::number(request, "pace_ms"));
    let asks_usage = memmem::find(request, b"\"include_usage\":true").is_some();
    let begun = Instant::now();
    let mut out = STREAM_HEAD.as_bytes().to_vec();
    for number in 0..frames {
        sleep_until(begun + pace * number as u32).await;
        let finish = if number + 1 == frames { "\"stop\"" } else { "null" };
        let choice = format!(
            r#"{{"index":0,"delta":{{"content":" token {number:03}"}},"logprobs":null,"finish_reason":{finish}}}"#
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

fn chunk(choices: &str, more: &str) -> String {
    format!(
        r#"{{"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1760000000,"model":"bench-model","choices":{choices}{more}}}"#
    )
}

fn push_frame(out: &mut Vec<u8>, data: &str) {
    let frame = format!("data: {data}\n\n");
    out.extend_from_slice(format!("{:x}\r\n{frame}\r\n", frame.len()).as_bytes());
}

fn whole_answer() -> Vec<u8> {
    const BODY_LEN: usize = 600;
    let body = |filler: usize| {
        format!(
            r#"{{"id":"chatcmpl-bench","object":"chat.completion","created":1760000000,"model":"bench-model","choices":[{{"index":0,"message":{{"role":"assistant","content":"{}"}},"logprobs":null,"finish_reason":"stop"}}],"usage":{{"prompt_tokens":12,"completion_tokens":64,"total_tokens":76}}}}"#,
            "x".repeat(filler)
        )
    };
    let body = body(BODY_LEN - body(0).len());
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
    (head + &body).into_bytes()
}
