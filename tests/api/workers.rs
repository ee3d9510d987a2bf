//! Several workers, as `serve` starts them: each has connections to the provider of its own, and what is counted for a key,
//! a deployment or the process is counted over all of them.

use crate::config::{Config, chat_request};
use crate::support::gateway::BEARER;
use crate::support::{BodyEnd, Client, Gate, ScriptedProvider, TestGateway, chat_stream, chat_whole, soon};
use std::time::Duration;
use tierway::domain::receipt::Outcome;
use tierway::http::conn::lifecycle::LifecyclePhase;
use tokio::task::JoinSet;

const CHAT: &str = "/v1/chat/completions";
const WORKERS: usize = 4;

async fn ask(client: &mut Client) -> u16 {
    client.post(CHAT, &[("authorization", BEARER)], &chat_request("")).await;
    let answer = client.response().await;
    assert_eq!(answer.end, BodyEnd::Clean);
    answer.status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_worker_keeps_its_own_connections_to_the_provider() {
    let provider = ScriptedProvider::start("eu").await;
    provider.answers(chat_whole("Hello"));
    let gateway = TestGateway::start_by_workers(&Config::of(&provider).text(), WORKERS).await;
    let mut clients = Vec::new();
    for _ in 0..4 * WORKERS {
        let mut client = gateway.connect().await;
        assert_eq!(ask(&mut client).await, 200);
        clients.push(client);
    }
    for client in &mut clients {
        assert_eq!(ask(client).await, 200);
    }
    // One request at a time: each worker used its one connection again.
    assert_eq!(provider.journal().connections, WORKERS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_counts_the_requests_of_all_workers() {
    let provider = ScriptedProvider::start("eu").await;
    provider.answers(chat_whole("Hello"));
    let config = Config::of(&provider).policy("requests_per_minute = 40").text();
    let gateway = TestGateway::start_by_workers(&config, WORKERS).await;
    let mut asking = JoinSet::new();
    for _ in 0..16 {
        let mut client = gateway.connect().await;
        asking.spawn(async move {
            let mut served = 0;
            for _ in 0..5 {
                served += usize::from(ask(&mut client).await == 200);
            }
            served
        });
    }
    assert_eq!(asking.join_all().await.into_iter().sum::<usize>(), 40);
    gateway.receipts(80).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_at_every_worker_may_finish_when_the_gateway_stops() {
    let provider = ScriptedProvider::start("eu").await;
    let gateway = TestGateway::start_by_workers(&Config::of(&provider).text(), WORKERS).await;
    let gate = Gate::new();
    provider.answers(chat_stream("Hello", 2).wait_after_frame(2, &gate));
    let mut clients = Vec::new();
    for _ in 0..2 * WORKERS {
        let mut client = gateway.connect().await;
        client.post(CHAT, &[("authorization", BEARER)], &chat_request(r#""stream":true,"#)).await;
        assert_eq!(client.head().await.0, 200);
        clients.push(client);
    }
    let lifecycle = gateway.lifecycle.clone();
    let stopping = tokio::spawn(async move { lifecycle.shut_down(Duration::ZERO, Duration::from_secs(20)).await });
    gateway.lifecycle.reached(LifecyclePhase::Draining).await;
    assert!(!stopping.is_finished(), "it waits for the streams");
    gate.open();
    for client in &mut clients {
        let mut done = false;
        let end = loop {
            match client.frame().await {
                Ok(frame) => done = frame.is_done(),
                Err(end) => break end,
            }
        };
        assert_eq!((done, end), (true, BodyEnd::Clean));
    }
    soon("the end", stopping).await.expect("it shuts down without a panic");
    let receipts = gateway.receipts(2 * WORKERS as u64).await;
    assert!(receipts.iter().all(|receipt| receipt.outcome == Outcome::Served));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_on_without_a_client_is_settled_before_its_worker_ends() {
    let provider = ScriptedProvider::start("eu").await;
    let config = Config::of(&provider).provider("on_abandon = \"read_on\"").text();
    let gateway = TestGateway::start_by_workers(&config, WORKERS).await;
    let gate = Gate::new();
    provider.answers(chat_stream("Hello", 2).wait_after_frame(2, &gate));
    for _ in 0..2 * WORKERS {
        let mut client = gateway.connect().await;
        client.post(CHAT, &[("authorization", BEARER)], &chat_request(r#""stream":true,"#)).await;
        assert_eq!(client.head().await.0, 200);
    }
    gateway.lifecycle.shut_down(Duration::ZERO, Duration::from_secs(20)).await;
    assert_eq!(gateway.relay.attempts_in_flight(), 2 * WORKERS as u32, "they are read on");
    soon("the end", gateway.relay.close_budget_pool()).await;
    assert_eq!(gateway.ledger.count(), 2 * WORKERS as u64);
    assert_eq!(gateway.relay.attempts_in_flight(), 0);
}
