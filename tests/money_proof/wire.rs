//! Just enough HTTP/1.1 for both sides of the gateway.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;

/// The head of a request or response.
#[derive(Default, Debug)]
pub struct Head {
    /// The first line.
    pub start: String,
    pub length: Option<usize>,
    pub chunked: bool,
    /// `x-request-id`.
    pub id: Option<u128>,
}

/// Reads a head; `None` when the connection is over.
pub fn read_head(reader: &mut BufReader<TcpStream>) -> Option<Head> {
    let mut head = Head::default();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let line = line.trim_end();
        if line.is_empty() {
            return Some(head);
        }
        let lower = line.to_ascii_lowercase();
        match lower.split_once(": ") {
            None => head.start = line.to_owned(),
            Some(("content-length", value)) => head.length = value.parse().ok(),
            Some(("transfer-encoding", _)) => head.chunked = true,
            Some(("x-request-id", value)) => head.id = u128::from_str_radix(value.strip_prefix("req_")?, 16).ok(),
            Some(_) => {}
        }
    }
}
