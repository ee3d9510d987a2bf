//! Slow clients: hundreds of connections that send one byte a second. Each is dropped within its
//! timeout, and other clients are answered.

use crate::config::Config;
use crate::machine::{Memory, drain, others_are_answered};
use crate::support::gateway::BEARER;
use crate::support::{ScriptedProvider, TestGateway, chat_whole};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Slow connections of each kind.
const CLIENTS: usize = 100;
/// The timeout of a head, and of a body of which nothing is sent.
const LIMIT: Duration = Duration::from_secs(10);
/// How late a busy machine may be.
const GRACE: Duration = Duration::from_secs(5);

/// The part of a request that a slow client sends byte by byte.
#[derive(Clone, Copy, Debug)]
enum Slow {
    Head,
    Body,
    Http2,
}

impl Slow {
    fn at_once(self) -> String {
        match self {
            Self::Head => "POST /v1/chat/completions HTTP/1.1\r\nhost: tests\r\nx-slow: ".to_owned(),
            Self::Body => format!(
                "POST /v1/chat/completions HTTP/1.1\r\nhost: tests\r\nauthorization: {BEARER}\r\ncontent-length: 1000\r\n\r\n"
            ),
            // The preface, and the beginning of a SETTINGS frame.
            Self::Http2 => "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x78\x04\0\0\0\0\0".to_owned(),
        }
    }
}

/// Sends a byte a second until the connection ends; the answer, and how long that took.
async fn send_slowly(gateway: SocketAddr, slow: Slow) -> (Slow, String, Duration) {
    let begun = Instant::now();
    let socket = TcpStream::connect(gateway).await.expect("the gateway accepts");
    let (reader, mut writer) = socket.into_split();
    let _ = writer.write_all(slow.at_once().as_bytes()).await;
    let sending = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let _ = writer.write_all(b"a").await;
        }
    };
    let answer = tokio::select! {
        answer = drain("a slow client to be dropped", reader) => answer,
        () = sending => unreachable!("it never stops"),
    };
    (slow, String::from_utf8_lossy(&answer).into_owned(), begun.elapsed())
}

#[tokio::test]
async fn slow_clients_are_dropped_and_others_are_answered() {
    let provider = ScriptedProvider::start("eu").await;
    provider.answers(chat_whole("Hello"));
    let gateway = TestGateway::start(&Config::of(&provider).text()).await;
    let before = Memory::now();
    let mut clients = JoinSet::new();
    for slow in [Slow::Head, Slow::Body, Slow::Http2] {
        (0..CLIENTS).for_each(|_| drop(clients.spawn(send_slowly(gateway.addr, slow))));
    }
    for (slow, answer, lasted) in others_are_answered(&gateway, clients.join_all()).await {
        let refused = answer.starts_with("HTTP/1.1 408");
        assert_eq!(refused, matches!(slow, Slow::Body), "{slow:?}: {answer}");
        assert!(lasted < LIMIT + GRACE, "{slow:?}: dropped after {lasted:?}");
    }
    before.has_hardly_grown("300 slow clients");
}
