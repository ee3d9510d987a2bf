//! Clients that are slow or greedy on purpose: up to thousands of connections, each with as little progress as its
//! manner allows. One that the server closes reconnects a second later, until stdin ends.
//!
//! They must never slow each other down: a connection costs one task and one socket.
//!
//! Start reading in [`slow`].

use crate::Target;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::sleep;

/// Time between two bytes that a client sends.
const PACE: Duration = Duration::from_secs(1);
/// The same of one that sent nearly all of its body at once.
const TRICKLE_PACE: Duration = Duration::from_secs(4);
/// The body of those, as large as the gateway takes, and what they keep back of it.
const LARGE_BODY: usize = 4 << 20;
const KEPT_BACK: usize = 1000;
/// Connections begun at once, and between two such lots: 2,500 a second, within the other side's backlog.
const LOT: u32 = 50;
const BETWEEN_LOTS: Duration = Duration::from_millis(20);
/// As small as the system allows, so that unread bytes stay in the buffers of the other side.
const RECEIVE_BUFFER: u32 = 1;
/// Time before a client that was closed or could not connect tries again.
const RECONNECT_AFTER: Duration = Duration::from_secs(1);

/// In which way a client is slow.
#[derive(clap::ValueEnum, Clone, Copy)]
pub(crate) enum Manner {
    /// Connects and sends nothing
    Idle,
    /// A head that never ends, one byte a second
    Head,
    /// With a good key, a long body of which one byte comes a second
    Body,
    /// With a good key, a long stream that is asked for and never read
    Read,
    /// With a good key, nearly all of a large body at once and then a byte each four seconds
    Upload,
    /// With a good key, a whole answer of 8 MB that is asked for and never read
    Unread,
    /// Without a key, one request after the other as fast as they are refused, each on a connection of its own
    Flood,
}

#[derive(Default)]
struct Counts {
    begun: AtomicU64,
    open: AtomicU64,
    let_go: AtomicU64,
    unreachable: AtomicU64,
}

/// Keeps them connected and, once all have started, prints a line each second until stdin ends.
pub(crate) async fn slow(at: Target, manner: Manner, connections: u32) -> anyhow::Result<Value> {
    let counts = Arc::new(Counts::default());
    let request: Arc<Vec<u8>> = Arc::new(match manner {
        Manner::Idle => Vec::new(),
        Manner::Head => format!("POST /v1/chat/completions HTTP/1.1\r\nhost: {}\r\nx-slow: ", at.address).into_bytes(),
        Manner::Body => head_of_a_long_body(&at),
        Manner::Read => at.request(r#""stream":true,"frames":64,"pace_ms":0,"token_bytes":16000,"#),
        Manner::Upload => most_of_a_large_body(&at),
        Manner::Unread => at.request(r#""token_bytes":8000000,"#),
        Manner::Flood => b"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-length: 2\r\n\r\n{}".to_vec(),
    });
    for number in 1..=connections {
        tokio::spawn(keep(at.address, manner, request.clone(), counts.clone()));
        if number % LOT == 0 {
            sleep(BETWEEN_LOTS).await;
        }
    }
    tokio::spawn({
        let counts = counts.clone();
        async move {
            loop {
                println!("{}", counts_as_json(&counts));
                sleep(PACE).await;
            }
        }
    });
    tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink())).await??;
    Ok(counts_as_json(&counts))
}

fn counts_as_json(counts: &Counts) -> Value {
    json!({
        "begun": counts.begun.load(Relaxed),
        "open": counts.open.load(Relaxed),
        "let_go": counts.let_go.load(Relaxed),
        "unreachable": counts.unreachable.load(Relaxed),
    })
}

/// One client, without end.
async fn keep(address: std::net::SocketAddr, manner: Manner, request: Arc<Vec<u8>>, counts: Arc<Counts>) {
    loop {
        counts.begun.fetch_add(1, Relaxed);
        let Ok(connection) = connect(address).await else {
            counts.unreachable.fetch_add(1, Relaxed);
            sleep(RECONNECT_AFTER).await;
            continue;
        };
        counts.open.fetch_add(1, Relaxed);
        // However it ends, the other side closed it.
        let _ = stay_slow(connection, manner, &request).await;
        counts.open.fetch_sub(1, Relaxed);
        counts.let_go.fetch_add(1, Relaxed);
        if !matches!(manner, Manner::Flood) {
            sleep(RECONNECT_AFTER).await;
        }
    }
}

async fn connect(address: std::net::SocketAddr) -> anyhow::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    Ok(socket.connect(address).await?)
}

/// Sends or reads as slowly as `manner` says until the other side closes the connection.
async fn stay_slow(mut connection: TcpStream, manner: Manner, request: &[u8]) -> anyhow::Result<()> {
    connection.write_all(request).await?;
    match manner {
        Manner::Idle => {
            connection.read_u8().await?;
        }
        // A write fails once the other side has closed; what it sends before is not read.
        Manner::Head | Manner::Body | Manner::Upload => loop {
            sleep(if matches!(manner, Manner::Upload) { TRICKLE_PACE } else { PACE }).await;
            connection.write_all(b"x").await?;
        },
        Manner::Flood => {
            let mut answer = [0; 4096];
            let _some_of_it = connection.read(&mut answer).await?;
        }
        Manner::Read | Manner::Unread => loop {
            sleep(PACE).await;
            if let Some(error) = connection.take_error()? {
                return Err(error.into());
            }
            // Nothing is ever read, so only a close ends this loop.
            if connection.ready(tokio::io::Interest::READABLE).await?.is_read_closed() {
                return Ok(());
            }
        },
    }
    Ok(())
}

fn head_of_a_long_body(at: &Target) -> Vec<u8> {
    head_of_a_body(at, 1_000_000)
}

fn most_of_a_large_body(at: &Target) -> Vec<u8> {
    let mut sent = head_of_a_body(at, LARGE_BODY);
    sent.extend(std::iter::repeat_n(b'x', LARGE_BODY - KEPT_BACK));
    sent
}

/// A head, and the beginning of a body of so many bytes.
fn head_of_a_body(at: &Target, length: usize) -> Vec<u8> {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{{\"model\":\"",
        at.address, at.key
    )
    .into_bytes()
}
