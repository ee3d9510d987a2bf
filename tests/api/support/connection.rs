//! One connection of the provider: reads requests, plays answers, detects that the client disconnects.
//!
//! While an answer plays or stalls, the reading side is watched, so a cancelled exchange is in the
//! journal as soon as the FIN or RST arrives, not when the next write fails.

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
};

use super::{
    http1::{Body, Head, Malformed, Part, take_head},
    journal::ExchangeOutcome,
    script::Ending,
    wire::{Answer, WireStep},
};

/// What the network lets through to a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Up,
    /// Packets are dropped without a reply.
    Dropped,
    Closed,
}

/// One accepted connection.
pub(super) struct Connection {
    stream: TcpStream,
    read: BytesMut,
    /// Part of a request is in.
    mid_request: bool,
    link: watch::Receiver<Link>,
}

/// A request as it was read from the connection.
pub(super) struct Incoming {
    pub(super) head: Head,
    pub(super) body: Bytes,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, link: watch::Receiver<Link>) -> Self {
        // Otherwise a small write waits for the acknowledgement of the previous one.
        stream.set_nodelay(true).expect("a fresh socket takes options");
        Self { stream, read: BytesMut::new(), mid_request: false, link }
    }

    /// The next request; `None` when there will be none.
    pub(super) async fn next(&mut self) -> Option<Incoming> {
        loop {
            let mut link = self.link.clone();
            tokio::select! {
                biased;
                _ = changed_from(&mut link, Link::Up) => self.wait_out_the_fault().await?,
                request = self.read_request() => match request {
                    Ok(request) => return request,
                    Err(malformed) => {
                        self.refuse(malformed).await;
                        return None;
                    }
                },
            }
        }
    }

    /// Plays `answer` until it, the client or a fault of the port ends the exchange.
    pub(super) async fn play(&mut self, answer: &Answer) -> ExchangeOutcome {
        let mut link = self.link.clone();
        let (reader, writer) = self.stream.split();
        let outcome = tokio::select! {
            biased;
            () = client_closes(reader, &mut self.read) => ExchangeOutcome::ClientClosed,
            _ = changed_from(&mut link, Link::Up) => ExchangeOutcome::PortFault,
            outcome = write(writer, answer) => outcome,
        };
        if outcome == ExchangeOutcome::Cut(Ending::Rst) {
            self.stream.set_zero_linger().expect("an open socket takes options");
        }
        outcome
    }

    /// Holds a broken connection open for as long as its packets are dropped.
    pub(super) async fn fall_silent(mut self) {
        changed_from(&mut self.link, Link::Dropped).await;
    }

    /// Waits until packets pass again; `None` when this connection is lost. An idle one on which the
    /// client sent nothing meanwhile stays open, because the fault had no visible effect on it.
    async fn wait_out_the_fault(&mut self) -> Option<()> {
        let idle = !self.mid_request && self.read.is_empty();
        let mut first_byte = [0];
        let lost = tokio::select! {
            biased;
            _ = self.stream.peek(&mut first_byte), if idle => true,
            link = changed_from(&mut self.link, Link::Dropped) => !idle || link != Link::Up,
        };
        if lost {
            changed_from(&mut self.link, Link::Dropped).await;
            return None;
        }
        Some(())
    }

    async fn read_request(&mut self) -> Result<Option<Incoming>, Malformed> {
        let head = loop {
            if let Some(head) = take_head(&mut self.read)? {
                break head;
            }
            if !self.read_more().await {
                return Ok(None);
            }
        };
        if !head.first_line.ends_with(" HTTP/1.1") {
            return Err(Malformed("not HTTP/1.1"));
        }
        let mut body = Body::of_request(&head)?;
        let mut bytes = BytesMut::new();
        loop {
            match body.next(&mut self.read)? {
                Part::Data(data) => bytes.extend_from_slice(&data),
                Part::More if !self.read_more().await => return Ok(None),
                Part::More => {}
                Part::End => break,
            }
        }
        self.mid_request = false;
        let body = bytes.freeze();
        Ok(Some(Incoming { head, body }))
    }

    /// Answers 400 to bytes that are not HTTP/1.1; they are not recorded in the journal.
    async fn refuse(&mut self, Malformed(why): Malformed) {
        let length = why.len();
        let answer = format!("HTTP/1.1 400 Bad Request\r\ncontent-length: {length}\r\n\r\n{why}");
        // The sender may have disconnected already.
        let _ = self.stream.write_all(answer.as_bytes()).await;
    }

    /// Whether there was more to read.
    async fn read_more(&mut self) -> bool {
        let more = self.stream.read_buf(&mut self.read).await;
        self.mid_request = true;
        more.is_ok_and(|count| count > 0)
    }
}

/// Waits until the link is no longer in `state`. A dropped provider has closed it.
async fn changed_from(link: &mut watch::Receiver<Link>, state: Link) -> Link {
    let now = link.wait_for(|link| *link != state).await;
    now.map_or(Link::Closed, |link| *link)
}

/// Returns when the client closes or resets; what it sends before is kept for later.
async fn client_closes(mut reader: ReadHalf<'_>, kept: &mut BytesMut) {
    while reader.read_buf(kept).await.is_ok_and(|count| count > 0) {}
}

async fn write(mut writer: WriteHalf<'_>, answer: &Answer) -> ExchangeOutcome {
    for act in answer.steps() {
        match act {
            WireStep::Wait(wait) => wait.over().await,
            WireStep::Write(bytes) => {
                if writer.write_all(&bytes).await.is_err() {
                    return ExchangeOutcome::ClientClosed;
                }
            }
        }
    }
    match answer.ending {
        Ending::Clean => ExchangeOutcome::Complete,
        Ending::Stall => std::future::pending().await,
        cut @ (Ending::Fin | Ending::Rst) => ExchangeOutcome::Cut(cut),
    }
}
