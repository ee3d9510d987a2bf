//! What an attack costs: the memory of this process, and whether others are still answered.
//!
//! All tests of this binary share the process, so the bounds are generous: an unbounded attack would
//! exceed them within a second.

use crate::config::chat_request;
use crate::support::gateway::TestGateway;
use crate::support::soon;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The most memory, in bytes, that all attacks running at the same time may cost together.
const MOST_GROWTH: usize = 300 * 1024 * 1024;
/// The size of a memory page in bytes.
const PAGE: usize = 4096;

/// The resident memory of this process at some instant, in bytes.
pub struct Memory(usize);

impl Memory {
    /// The resident memory now.
    pub fn now() -> Self {
        let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux reports the memory of a process");
        let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
        Self(pages.expect("the second number is the resident pages") * PAGE)
    }

    /// Fails the test if much more is resident now, and prints how much.
    pub fn has_hardly_grown(&self, attack: &str) {
        let grown = Self::now().0.saturating_sub(self.0);
        println!("{attack}: {} MiB more than before", grown / 1024 / 1024);
        assert!(grown < MOST_GROWTH, "{attack}: {grown} bytes more than before");
    }
}

/// Reads until the connection ends, by a close or a reset.
pub async fn drain(what: &str, mut socket: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut read = Vec::new();
    let to_the_end = async { while socket.read_buf(&mut read).await.is_ok_and(|more| more > 0) {} };
    soon(what, to_the_end).await;
    read
}

/// Sends valid requests, one after the other, until `attack` is over; fails the test at the first one
/// that is not answered well.
pub async fn others_are_answered<T>(gateway: &TestGateway, attack: impl Future<Output = T>) -> T {
    let mut answered = 0;
    let requesting = async {
        loop {
            let answer = gateway.chat(&chat_request("")).await;
            assert_eq!(answer.chat_text().as_deref(), Ok("Hello"), "after {answered} others");
            answered += 1;
        }
    };
    let over = tokio::select! {
        over = attack => over,
        () = requesting => unreachable!("it never stops"),
    };
    // However short the attack was, one request follows it.
    assert_eq!(gateway.chat(&chat_request("")).await.chat_text().as_deref(), Ok("Hello"));
    println!("{} others were answered", answered + 1);
    over
}
