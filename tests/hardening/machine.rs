//! What an attack costs: the memory of this process, and whether others are still answered.
//!
//! All tests of this binary share the process, so bounds are generous: an attack without a bound of
//! ours would pass them within a second.

use crate::config::chat_request;
use crate::support::gateway::TestGateway;
use crate::support::soon;
use tokio::io::{AsyncRead, AsyncReadExt};

/// What all attacks running at the same time may cost together, and some.
const MOST_GROWTH: usize = 300 * 1024 * 1024;
/// The size of a page where these tests run.
const PAGE: usize = 4096;

/// The memory this process held at some moment.
pub struct Memory(usize);

impl Memory {
    /// What it holds now.
    pub fn now() -> Self {
        let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux says what a process holds");
        let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
        Self(pages.expect("the second number is the resident pages") * PAGE)
    }

    /// Fails the test if much more is held now; says how much in any case.
    pub fn has_hardly_grown(&self, attack: &str) {
        let grown = Self::now().0.saturating_sub(self.0);
        println!("{attack}: {} MiB more than before", grown / 1024 / 1024);
        assert!(grown < MOST_GROWTH, "{attack}: {grown} bytes more than before");
    }
}

/// Reads until the connection ends, however it does.
pub async fn drain(what: &str, mut socket: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut read = Vec::new();
    let to_the_end = async { while socket.read_buf(&mut read).await.is_ok_and(|more| more > 0) {} };
    soon(what, to_the_end).await;
    read
}

/// Asks for good answers, one after the other, until `attack` is over; fails the test at the first
/// that is not given.
pub async fn others_are_answered<T>(gateway: &TestGateway, attack: impl Future<Output = T>) -> T {
    let mut answered = 0;
    let asking = async {
        loop {
            let answer = gateway.chat(&chat_request("")).await;
            assert_eq!(answer.chat_text().as_deref(), Ok("Hello"), "after {answered} others");
            answered += 1;
        }
    };
    let over = tokio::select! {
        over = attack => over,
        () = asking => unreachable!("nobody stops asking"),
    };
    // However short the attack was, somebody comes after it.
    assert_eq!(gateway.chat(&chat_request("")).await.chat_text().as_deref(), Ok("Hello"));
    println!("{} others were answered", answered + 1);
    over
}
