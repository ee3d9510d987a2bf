//! Slow clients: hundreds of connections that send a byte now and then. Each is let go within its
//! time limit, and nobody else notices.

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
const CROWD: usize = 100;
/// How long a head may take, and a body that does not come.
const LIMIT: Duration = Duration::from_secs(10);
/// Late by no more than this on a machine with too much to do.
const GRACE: Duration = Duration::from_secs(5);

/// What a slow client sends at once; the rest it sends byte by byte.
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
            // The preface, and settings that are not over.
            Self::Http2 => "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x78\x04\0\0\0\0\0".to_owned(),
        }
    }
}

/// Sends a byte a second until the connection ends; what was answered, and after how long.
async fn crawl(gateway: SocketAddr, slow: Slow) -> (Slow, String, Duration) {
    let begun = Instant::now();
    let socket = TcpStream::connect(gateway).await.expect("the gateway accepts");
    let (reader, mut writer) = socket.into_split();
    let _ = writer.write_all(slow.at_once().as_bytes()).await;
    let crawling = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let _ = writer.write_all(b"a").await;
        }
    };
    let answer = tokio::select! {
        answer = drain("a slow client to be let go", reader) => answer,
        () = crawling => unreachable!("it goes on for ever"),
    };
    (slow, String::from_utf8_lossy(&answer).into_owned(), begun.elapsed())
}

#[tokio::test]
async fn slow_clients_are_let_go_and_cost_nobody_else() {
    let provider = ScriptedProvider::start("eu").await;
    provider.answers(chat_whole("Hello"));
    let gateway = TestGateway::start(&Config::of(&provider).text()).await;
    let before = Memory::now();
    let mut crowd = JoinSet::new();
    for slow in [Slow::Head, Slow::Body, Slow::Http2] {
        (0..CROWD).for_each(|_| drop(crowd.spawn(crawl(gateway.addr, slow))));
    }
    for (slow, answer, lasted) in others_are_answered(&gateway, crowd.join_all()).await {
        let reported = answer.starts_with("HTTP/1.1 408");
        assert_eq!(reported, matches!(slow, Slow::Body), "{slow:?}: {answer}");
        assert!(lasted < LIMIT + GRACE, "{slow:?}: let go after {lasted:?}");
    }
    before.has_hardly_grown("300 slow clients");
}
