//! Streams that begin and then stall: new ones go elsewhere long before the stalled ones end, and whoever disconnects from a stalled
//! stream has said something about its deployment.
//!
//! The times are the defaults', so that these tests take as long as they say.
//!
//! Start reading at [`streams_that_stall_are_left_before_they_end`].

use crate::config::{Config, chat_request};
use crate::support::gateway::{BEARER, provider_table};
use crate::support::{Client, Ending, Gate, ScriptedProvider, TestGateway, chat_stream, soon};
use std::time::Duration;
use tierway::domain::reason::Reason;

const CHAT: &str = "/v1/chat/completions";
/// As many failures in a row open a breaker.
const STREAMS: usize = 5;
/// From then on a stalled stream counts.
const STALLED_AFTER: Duration = Duration::from_secs(20);
/// A client that waited as long for more and disconnected was let down.
const LATE_AFTER: Duration = Duration::from_secs(10);

/// Two deployments of one model, the first preferred, which begins its streams and sends nothing more until `go`.
async fn before_a_stalling_provider(go: &Gate) -> (TestGateway, [ScriptedProvider; 2]) {
    let pair = [ScriptedProvider::start("eu").await, ScriptedProvider::start("us").await];
    pair[0].answers(chat_stream("Hello, world", 3).wait_after_frame(3, go));
    pair[1].answers(chat_stream("Hello, world", 3));
    let text = Config::of(&pair[0])
        .routing("balance = \"ordered\"")
        .other_deployment("{ provider = \"us\" }")
        .more(&provider_table("us", &pair[1], "us-east"))
        .text();
    let default_breaker = text.replace("breaker = { failures = 1000000, min_requests = 1000000 }", "");
    (TestGateway::start(&default_breaker).await, pair)
}

fn stream_request() -> String {
    chat_request(r#""stream":true,"#)
}

/// Clients that have read the beginning of a stream.
async fn begun(gateway: &TestGateway) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..STREAMS {
        let mut client = gateway.connect().await;
        client.post(CHAT, &[("authorization", BEARER)], &stream_request()).await;
        assert_eq!(client.head().await.0, 200);
        assert!(client.frame().await.is_ok());
        clients.push(client);
    }
    clients
}

fn is_left(gateway: &TestGateway) -> bool {
    gateway.metric(r#"tierway_breaker_state{deployment="eu/org/model",state="open"}"#) == 1.0
}

async fn region_of_the_next(gateway: &TestGateway) -> Option<String> {
    let answer = gateway.chat(&stream_request()).await;
    answer.header("x-tierway-region").map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_stall_are_left_before_they_end() {
    let go = Gate::new();
    let (gateway, _pair) = before_a_stalling_provider(&go).await;
    let clients = begun(&gateway).await;
    assert!(!is_left(&gateway));
    tokio::time::sleep(STALLED_AFTER).await;
    soon("the breaker's opening", async {
        while !is_left(&gateway) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(region_of_the_next(&gateway).await.as_deref(), Some("us-east"));
    // They have not ended, and go on when their provider does.
    go.open();
    for mut client in clients {
        let mut last = None;
        while let Ok(frame) = client.frame().await {
            last = frame.data();
        }
        assert_eq!(last.as_deref(), Some("[DONE]"));
    }
    let receipts = gateway.receipts(STREAMS as u64 + 1).await;
    assert!(receipts.iter().all(|receipt| receipt.reason == Reason::Served));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_disconnect_from_a_stalled_stream_say_something_of_its_deployment() {
    for (waits, left) in [(Duration::ZERO, false), (LATE_AFTER, true)] {
        let (gateway, pair) = before_a_stalling_provider(&Gate::new()).await;
        let clients = begun(&gateway).await;
        tokio::time::sleep(waits).await;
        clients.into_iter().for_each(Client::reset);
        pair[0].wait_until("all are cancelled", |journal| journal.open() == 0).await;
        gateway.receipts(STREAMS as u64).await;
        assert_eq!(is_left(&gateway), left, "after {waits:?}");
        pair[0].answers(chat_stream("Hello, world", 3).cut_after_frame(7, Ending::Clean));
        let region = if left { "us-east" } else { "eu-central" };
        assert_eq!(region_of_the_next(&gateway).await.as_deref(), Some(region), "after {waits:?}");
    }
}
