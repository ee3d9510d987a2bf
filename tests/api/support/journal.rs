//! The provider's journal: every request byte for byte, and how its exchange ended.
//!
//! It never interprets: a test checks a request by these bytes.

use bytes::Bytes;
use serde_json::Value;
use tokio::time::Instant;

use super::{http1, script::Ending};

/// One request as the provider read it.
#[derive(Clone, Debug)]
pub struct Request {
    /// The provider that read it.
    pub provider: String,
    /// Number of the request at this provider, from 1; clearing the journal does not reset it.
    pub number: u64,
    /// Number of the connection at this provider, from 1; equal numbers are the same connection.
    pub connection: u64,
    /// When the last byte of the request had been read.
    pub arrived: Instant,
    /// The method, such as `POST`.
    pub method: String,
    /// Path and query as sent.
    pub path: String,
    /// Names and values as sent, in order; bytes over 127 read as Latin-1.
    pub headers: Vec<(String, String)>,
    /// Request line and headers verbatim, the empty line included.
    pub head: Bytes,
    /// The body, chunks joined.
    pub body: Bytes,
}

impl Request {
    /// The one header of this name; fails the test when it came twice.
    pub fn header(&self, name: &str) -> Option<&str> {
        http1::header(&self.headers, name)
    }

    /// The body read as JSON; `null` when it is not.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Whether the request asked for a stream.
    pub fn streams(&self) -> bool {
        self.json()["stream"] == true
    }
}

/// How an exchange ended, as seen by the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeOutcome {
    /// The whole script was written, ending cleanly.
    Complete,
    /// The script ended it this way.
    Cut(Ending),
    /// The client closed or reset the connection before the script had ended.
    ClientClosed,
    /// The port was closed, or its packets dropped, in the middle of the exchange.
    PortFault,
}

/// A request and how its exchange ended.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// The request.
    pub request: Request,
    /// How and when it ended; `None` while the script plays or stalls.
    pub end: Option<(ExchangeOutcome, Instant)>,
}

impl Exchange {
    /// How it ended, if it has.
    pub fn outcome(&self) -> Option<ExchangeOutcome> {
        self.end.map(|(outcome, _)| outcome)
    }

    /// When the client disconnected before the script had ended.
    pub fn client_closed_at(&self) -> Option<Instant> {
        match self.end {
            Some((ExchangeOutcome::ClientClosed, at)) => Some(at),
            _ => None,
        }
    }
}

/// Everything one provider has received since it started or was last cleared.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    /// In the order the requests were read.
    pub exchanges: Vec<Exchange>,
    /// Connections accepted, including those without a request.
    pub connections: usize,
}

impl Journal {
    /// The only exchange; fails the test when there is not exactly one.
    pub fn only(&self) -> &Exchange {
        match self.exchanges.as_slice() {
            [exchange] => exchange,
            others => panic!("one exchange expected, {} seen: {others:#?}", others.len()),
        }
    }

    /// The requests in the order they were read.
    pub fn requests(&self) -> impl Iterator<Item = &Request> {
        self.exchanges.iter().map(|exchange| &exchange.request)
    }

    /// Exchanges that have not ended.
    pub fn open(&self) -> usize {
        self.exchanges.iter().filter(|e| e.end.is_none()).count()
    }

    pub(super) fn end(&mut self, number: u64, outcome: ExchangeOutcome) {
        let ended = |exchange: &&mut Exchange| exchange.request.number == number;
        if let Some(exchange) = self.exchanges.iter_mut().find(ended) {
            exchange.end = Some((outcome, Instant::now()));
        }
    }
}
