//! A client that shows what libraries hide: raw bytes, and whether an answer ended or was aborted.
//!
//! It never retries, pools or repairs. One client is one connection; dropping it closes it.

use std::{io::ErrorKind, net::SocketAddr};

use bytes::{Bytes, BytesMut};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    http1::{self, Body, Head, Part, take_head},
    soon,
};

/// How the body of an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyEnd {
    /// The promised length, or the last chunk, came.
    Clean,
    /// The connection was closed before.
    Fin,
    /// The connection was reset before.
    Rst,
}

/// The next part of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Some bytes of it.
    Data(Bytes),
    /// Its end.
    End(BodyEnd),
}

/// An answer whose body has been read to its end, clean or not.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status, such as 200.
    pub status: u16,
    /// Names and values as received, in order.
    pub headers: Vec<(String, String)>,
    /// The part of the body that was received.
    pub body: Bytes,
    /// How the body ended.
    pub end: BodyEnd,
}

impl Response {
    /// The one header of this name; fails the test when it came twice.
    pub fn header(&self, name: &str) -> Option<&str> {
        http1::header(&self.headers, name)
    }

    /// The body as text; fails the test when it is not UTF-8.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body of text")
    }

    /// The body as JSON; fails the test, showing it, when it is not.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    /// The complete frames of the body; what follows the last of them is left out.
    pub fn frames(&self) -> Vec<Frame> {
        split_frames(&self.body).0
    }
}

/// One connection to a server.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    read: BytesMut,
    body: Body,
    /// Body bytes that are not yet a complete frame.
    unframed: BytesMut,
}

impl Client {
    /// Connects, or fails the test.
    pub async fn connect(addr: SocketAddr) -> Self {
        let connected = soon("a connection", TcpStream::connect(addr)).await;
        let stream = connected.unwrap_or_else(|error| panic!("cannot connect to {addr}: {error}"));
        stream.set_nodelay(true).expect("a fresh socket takes options");
        Self { stream, read: BytesMut::new(), body: Body::Length(0), unframed: BytesMut::new() }
    }

    /// Sends these bytes as they are.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let sent = self.stream.write_all(bytes.as_ref()).await;
        sent.expect("the server reads what it is sent");
    }

    /// Closes the sending side, as by `shutdown(SHUT_WR)`.
    pub async fn close_sending(&mut self) {
        self.stream.shutdown().await.expect("an open connection closes");
    }

    /// Sends a GET.
    pub async fn get(&mut self, path: &str, headers: &[(&str, &str)]) {
        self.send(request_head("GET", path, headers) + "\r\n").await;
    }

    /// Sends a POST with a JSON body, given as text so that it arrives byte for byte.
    pub async fn post(&mut self, path: &str, headers: &[(&str, &str)], body: &str) {
        let length = body.len();
        let head = request_head("POST", path, headers);
        self.send(format!("{head}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")).await;
    }

    /// Reads status and headers; interim answers (1xx) are skipped. Fails the test when the
    /// connection ends instead.
    pub async fn head(&mut self) -> (u16, Vec<(String, String)>) {
        soon("the head of an answer", async {
            loop {
                let head = self.any_head().await;
                let status = status(&head);
                if status >= 200 {
                    self.body = Body::of_response(&head, status).expect("an answer with a body");
                    return (status, head.headers);
                }
            }
        })
        .await
    }

    /// Reads an interim answer, such as 100, by which the server says that it reads the body.
    pub async fn interim(&mut self) -> u16 {
        status(&soon("an interim answer", self.any_head()).await)
    }

    /// Reads the next part of the body.
    pub async fn piece(&mut self) -> Piece {
        soon("more of the body, or its end", async {
            loop {
                match self.body.next(&mut self.read) {
                    Ok(Part::Data(data)) => return Piece::Data(data),
                    Ok(Part::End) => return Piece::End(BodyEnd::Clean),
                    Ok(Part::More) => {}
                    Err(malformed) => panic!("{malformed:?} in a body"),
                }
                if let Some(end) = self.read_more().await {
                    let until_close = matches!(self.body, Body::UntilClose);
                    return Piece::End(match end {
                        BodyEnd::Fin if until_close => BodyEnd::Clean,
                        end => end,
                    });
                }
            }
        })
        .await
    }

    /// Reads the next frame of an event stream, or how it ended; bytes after the last complete frame
    /// are lost.
    pub async fn frame(&mut self) -> Result<Frame, BodyEnd> {
        loop {
            if let Some(frame) = take_frame(&mut self.unframed) {
                return Ok(frame);
            }
            match self.piece().await {
                Piece::Data(data) => self.unframed.extend_from_slice(&data),
                Piece::End(end) => {
                    self.unframed.clear();
                    return Err(end);
                }
            }
        }
    }

    /// Reads a whole answer.
    pub async fn response(&mut self) -> Response {
        let (status, headers) = self.head().await;
        let mut body = BytesMut::new();
        loop {
            match self.piece().await {
                Piece::Data(data) => body.extend_from_slice(&data),
                Piece::End(end) => {
                    let body = body.freeze();
                    return Response { status, headers, body, end };
                }
            }
        }
    }

    /// Waits until the server closes or resets the connection; fails the test when it sends instead.
    pub async fn closed(&mut self) -> BodyEnd {
        match soon("the connection to end", self.read_more()).await {
            Some(end) => end,
            None => panic!("the server sent {:?}", self.read),
        }
    }

    /// Closes the connection with a RST; dropping the client instead sends a FIN.
    pub fn reset(self) {
        let reset = self.stream.set_zero_linger();
        reset.expect("an open socket takes options");
    }

    async fn any_head(&mut self) -> Head {
        loop {
            match take_head(&mut self.read) {
                Ok(Some(head)) => return head,
                Ok(None) => {}
                Err(malformed) => panic!("{malformed:?} in a head"),
            }
            if let Some(end) = self.read_more().await {
                panic!("no answer but {end:?} after {:?}", self.read);
            }
        }
    }

    /// Reads more, or returns how the connection ended.
    async fn read_more(&mut self) -> Option<BodyEnd> {
        match self.stream.read_buf(&mut self.read).await {
            Ok(0) => Some(BodyEnd::Fin),
            Ok(_) => None,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Some(BodyEnd::Rst),
            Err(error) => panic!("cannot read: {error}"),
        }
    }
}

/// One event of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// As received, the empty line included.
    pub raw: Bytes,
}

impl Frame {
    /// Its `data`, lines joined; `None` for a comment.
    pub fn data(&self) -> Option<String> {
        let text = std::str::from_utf8(&self.raw).expect("an event stream is UTF-8");
        let data: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("data:"))
            .map(|value| value.strip_prefix(' ').unwrap_or(value))
            .collect();
        (!data.is_empty()).then(|| data.join("\n"))
    }

    /// Its data as JSON; `null` when there is none or it is something else.
    pub fn json(&self) -> Value {
        let data = self.data().unwrap_or_default();
        serde_json::from_str(&data).unwrap_or_default()
    }

    /// Whether its data is `[DONE]`.
    pub fn is_done(&self) -> bool {
        self.data().as_deref() == Some("[DONE]")
    }
}

/// The complete frames in `bytes`, and what follows the last of them.
pub fn split_frames(bytes: &[u8]) -> (Vec<Frame>, Bytes) {
    let mut rest = BytesMut::from(bytes);
    let frames = std::iter::from_fn(|| take_frame(&mut rest)).collect();
    (frames, rest.freeze())
}

/// Takes the first frame off: up to and with the first empty line.
fn take_frame(bytes: &mut BytesMut) -> Option<Frame> {
    let mut line_start = 0;
    for newline in memchr::memchr_iter(b'\n', bytes) {
        if matches!(&bytes[line_start..newline], b"" | b"\r") {
            let raw = bytes.split_to(newline + 1).freeze();
            return Some(Frame { raw });
        }
        line_start = newline + 1;
    }
    None
}

fn request_head(method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: tests\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head
}

fn status(head: &Head) -> u16 {
    let number = head.first_line.split(' ').nth(1);
    number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("not a status line: {}", head.first_line))
}
