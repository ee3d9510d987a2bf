//! An HTTP/2 client that distinguishes END_STREAM from RST_STREAM, which libraries map to one error.
//!
//! Plain text with prior knowledge; one client is one connection, and dropping it closes it.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream, client::SendRequest};
use http::{HeaderMap, Request, Response};
use tokio::{net::TcpStream, task::JoinSet};

use super::soon;

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum H2End {
    /// END_STREAM.
    EndStream,
    /// RST_STREAM with this reason.
    Reset(Reason),
    /// The connection ended first, with or without GOAWAY.
    Connection,
}

/// The next part of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum H2Piece {
    /// The payload of a DATA frame.
    Data(Bytes),
    /// The end of the stream.
    End(H2End),
}

/// One HTTP/2 connection to a server.
pub struct H2Client {
    streams: SendRequest<Bytes>,
    _driver: JoinSet<()>,
}

impl H2Client {
    /// Connects, or fails the test.
    pub async fn connect(addr: SocketAddr) -> Self {
        let stream = soon("a connection", TcpStream::connect(addr)).await;
        let stream = stream.unwrap_or_else(|error| panic!("cannot connect to {addr}: {error}"));
        stream.set_nodelay(true).expect("a fresh socket takes options");
        let (streams, connection) =
            soon("an HTTP/2 connection", h2::client::handshake(stream)).await.expect("the server speaks HTTP/2");
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // The end of the connection is visible in its streams.
            let _ = connection.await;
        });
        Self { streams, _driver: driver }
    }

    /// Sends a POST with a JSON body and reads the head of the answer, or how the stream ended
    /// without one.
    pub async fn post(&mut self, path: &str, headers: &[(&str, &str)], body: &str) -> Result<H2Answer, H2End> {
        let mut request = Request::post(format!("http://tests{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request =
            request.header("content-type", "application/json").body(()).expect("headers of a test are well-formed");
        let mut streams = self.streams.clone().ready().await.map_err(end)?;
        let (answer, mut sending) = streams.send_request(request, false).map_err(end)?;
        let body = Bytes::copy_from_slice(body.as_bytes());
        sending.send_data(body, true).map_err(end)?;
        let answer = soon("the head of an answer", answer).await.map_err(end)?;
        Ok(H2Answer::new(answer))
    }
}

/// An answer being read; dropping it before its end cancels the stream.
#[derive(Debug)]
pub struct H2Answer {
    /// The status, such as 200.
    pub status: u16,
    /// As received.
    pub headers: HeaderMap,
    body: RecvStream,
}

impl H2Answer {
    fn new(answer: Response<RecvStream>) -> Self {
        let (head, body) = answer.into_parts();
        Self { status: head.status.as_u16(), headers: head.headers, body }
    }

    /// Reads the next DATA frame, or how the stream ended.
    pub async fn piece(&mut self) -> H2Piece {
        match soon("a DATA frame, or the end", self.body.data()).await {
            Some(Ok(data)) => {
                let released = self.body.flow_control().release_capacity(data.len());
                released.expect("no more is released than came");
                H2Piece::Data(data)
            }
            Some(Err(error)) => H2Piece::End(end(error)),
            None => H2Piece::End(H2End::EndStream),
        }
    }

    /// Reads the rest of the body and how the stream ended.
    pub async fn rest(&mut self) -> (Bytes, H2End) {
        let mut body = BytesMut::new();
        loop {
            match self.piece().await {
                H2Piece::Data(data) => body.extend_from_slice(&data),
                H2Piece::End(end) => return (body.freeze(), end),
            }
        }
    }
}

fn end(error: h2::Error) -> H2End {
    match error.reason() {
        Some(reason) if error.is_reset() => H2End::Reset(reason),
        _ => H2End::Connection,
    }
}
