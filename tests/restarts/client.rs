//! An HTTP/1.1 client as strict as they get: it sends nothing twice, and keeps a connection unless it is told not to.
//!
//! What every client does, it does too: a connection that was closed while it was idle is not used again.

use crate::gateway::{KEY, PATIENCE};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// What is asked for.
#[derive(Clone, Copy)]
pub enum Kind {
    Whole,
    Stream,
    /// A stream of a second.
    SlowStream,
    /// A stream of three seconds: it begins before a gateway is left alone, and ends after it has begun to drain.
    LongStream,
    /// A path of the operators' address.
    Probe(&'static str),
}

/// A client of one address.
pub struct Client {
    addr: SocketAddr,
    /// Whether it keeps its connection.
    keeps: bool,
    connection: Option<BufReader<TcpStream>>,
}

impl Client {
    pub fn new(addr: SocketAddr, keeps: bool) -> Self {
        Self { addr, keeps, connection: None }
    }

    /// One request, answered completely; the time until its first byte, or what went wrong.
    pub fn request(&mut self, kind: Kind) -> Result<Duration, String> {
        let started = Instant::now();
        let kept = self.connection.take().filter(|connection| is_open(connection.get_ref()));
        let was_kept = kept.is_some();
        let described = |error: String| format!("{error}, on a {} connection", if was_kept { "kept" } else { "new" });
        let mut connection = match kept {
            Some(connection) => connection,
            None => connect(self.addr).map_err(|error| format!("connecting: {error}"))?,
        };
        connection
            .get_mut()
            .write_all(kind.request().as_bytes())
            .map_err(|error| described(format!("sending: {error}")))?;
        connection.fill_buf().map_err(|error| described(format!("waiting: {error}")))?;
        let first = started.elapsed();
        let closes = answer(&mut connection, kind).map_err(described)?;
        self.connection = (self.keeps && !closes).then_some(connection);
        Ok(first)
    }
}

impl Kind {
    fn request(self) -> String {
        let (model, stream, tokens) = match self {
            Self::Whole => ("m", false, 2),
            Self::Stream => ("m", true, 4),
            Self::SlowStream => ("slow", true, 20),
            Self::LongStream => ("slow", true, 60),
            Self::Probe(path) => return format!("GET {path} HTTP/1.1\r\nhost: t\r\n\r\n"),
        };
        let body = format!(
            r#"{{"model":"{model}","stream":{stream},"max_tokens":{tokens},"messages":[{{"role":"user","content":"Hi"}}]}}"#
        );
        let length = body.len();
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\nauthorization: Bearer {KEY}\r\n\
             content-length: {length}\r\n\r\n{body}"
        )
    }
}

fn connect(addr: SocketAddr) -> std::io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(BufReader::new(stream))
}

/// Whether the other side has not closed it.
fn is_open(stream: &TcpStream) -> bool {
    let blocks = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0]));
    let open = blocks.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    open && stream.set_nonblocking(false).is_ok()
}

/// Reads one answer, and whether it is the connection's last.
fn answer(connection: &mut BufReader<TcpStream>, kind: Kind) -> Result<bool, String> {
    let failed = |error: std::io::Error| format!("reading: {error}");
    let (mut status, mut length, mut chunked, mut closes) = (String::new(), 0, false, false);
    loop {
        let mut line = String::new();
        if connection.read_line(&mut line).map_err(failed)? == 0 {
            return Err("the connection ended before the answer".to_owned());
        }
        let line = line.trim_end().to_ascii_lowercase();
        match line.split_once(": ") {
            None if line.is_empty() => break,
            None => status = line,
            Some(("content-length", value)) => length = value.parse().map_err(|_| line.clone())?,
            Some(("transfer-encoding", value)) => chunked = value == "chunked",
            Some(("connection", value)) => closes = value == "close",
            Some(_) => {}
        }
    }
    let mut body = Vec::new();
    while chunked || length > 0 {
        if chunked {
            let mut line = String::new();
            connection.read_line(&mut line).map_err(failed)?;
            length = usize::from_str_radix(line.trim(), 16).map_err(|_| format!("a cut stream: {line:?}"))?;
        }
        let begins = body.len();
        body.resize(begins + length, 0);
        connection.read_exact(&mut body[begins..]).map_err(failed)?;
        if chunked {
            connection.read_exact(&mut [0; 2]).map_err(failed)?;
        }
        if length == 0 || !chunked {
            break;
        }
    }
    let body = String::from_utf8_lossy(&body);
    let complete = match kind {
        Kind::Whole => body.contains(r#""finish_reason""#),
        Kind::Stream | Kind::SlowStream | Kind::LongStream => body.ends_with("data: [DONE]\n\n"),
        Kind::Probe(_) => true,
    };
    if !status.starts_with("http/1.1 200") || !complete {
        return Err(format!("{status}: {body}"));
    }
    Ok(closes)
}
