//! Enough of HTTP/2 to break its rules: frames built byte by byte.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::task::JoinHandle;

use crate::machine::drain;
use std::io;
use std::net::SocketAddr;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types.
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// Frame flags.
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// One frame, encoded.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// One setting, encoded.
pub fn setting(name: u16, value: u32) -> Vec<u8> {
    [&name.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

/// A literal header field without indexing.
pub fn field(name: &str, value: &str) -> Vec<u8> {
    [&[0, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
}

/// A literal header field with indexing. Its value is longer than 126 bytes, so the length takes several.
pub fn indexed(name: &str, value: &str) -> Vec<u8> {
    let mut length = Vec::new();
    let mut rest = value.len() - 0x7f;
    length.push(0x7f);
    while rest >= 0x80 {
        length.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    length.push(rest as u8);
    [&[0x40, name.len() as u8], name.as_bytes(), &length, value.as_bytes()].concat()
}

/// The headers of a chat request.
pub fn chat_head(bearer: &str) -> Vec<u8> {
    let pseudo = [(":method", "POST"), (":scheme", "http"), (":path", "/v1/chat/completions"), (":authority", "tests")];
    let more = [("authorization", bearer), ("content-type", "application/json")];
    pseudo.into_iter().chain(more).flat_map(|(name, value)| field(name, value)).collect()
}

/// An HTTP/2 connection that takes any bytes and is read to its end.
pub struct Raw {
    writer: OwnedWriteHalf,
    /// Everything the server sent, once the connection has ended.
    pub received: JoinHandle<Vec<u8>>,
    /// Bytes written so far.
    pub written: usize,
}

impl Raw {
    /// Connects and sends these settings.
    pub async fn connect(gateway: SocketAddr, settings: &[u8]) -> Self {
        let socket = TcpStream::connect(gateway).await.expect("the gateway accepts");
        let (reader, writer) = socket.into_split();
        let received = tokio::spawn(async move { drain("the end of a connection", reader).await });
        let mut raw = Self { writer, received, written: 0 };
        let begin = [PREFACE, &frame(SETTINGS, 0, 0, settings)].concat();
        raw.send(&begin).await.expect("a new connection is open");
        raw
    }

    /// Sends `bytes`.
    ///
    /// # Errors
    /// The server closed the connection.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes).await?;
        self.written += bytes.len();
        Ok(())
    }

    /// Closes the connection, unless the server has; everything the server sent.
    pub async fn close(self) -> Vec<u8> {
        drop(self.writer);
        self.received.await.expect("reading does not fail")
    }
}

/// The frames in `bytes`: type, flags, stream, payload. An incomplete one at the end is left out.
pub fn frames(mut bytes: &[u8]) -> Vec<(u8, u8, u32, &[u8])> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let Some((payload, after)) = rest.split_at_checked(length) else { break };
        frames.push((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload));
        bytes = after;
    }
    frames
}
