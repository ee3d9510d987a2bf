//! Graceful shutdown: readiness is withdrawn at once, streams may finish, those that do not are ended
//! with an error, and requests are served until a load balancer can have noticed.

use crate::config::{Config, chat_request};
use crate::support::gateway::BEARER;
use crate::support::{BodyEnd, Client, Gate, ScriptedProvider, TestGateway, chat_stream, soon};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tierway::domain::reason::Reason;
use tierway::domain::receipt::Outcome;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

const CHAT: &str = "/v1/chat/completions";

/// Stops `gateway` as SIGTERM would.
fn stop(gateway: &TestGateway, lb_grace: Duration, drain: Duration) -> JoinHandle<()> {
    let lifecycle = gateway.lifecycle.clone();
    tokio::spawn(async move { lifecycle.shut_down(lb_grace, drain).await })
}

/// Waits until connections to `addr` are refused.
async fn refused(addr: SocketAddr) {
    soon("connections to be refused", async {
        while TcpStream::connect(addr).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// A stream that waits at `gate` after its first token, which the client has read.
async fn streaming(gateway: &TestGateway, provider: &ScriptedProvider, gate: &Gate) -> Client {
    provider.answers(chat_stream("Hello", 2).wait_after_frame(2, gate));
    let mut client = gateway.connect().await;
    client.post(CHAT, &[("authorization", BEARER)], &chat_request(r#""stream":true,"#)).await;
    assert_eq!(client.head().await.0, 200);
    for _ in ["role", "first token"] {
        client.frame().await.expect("a frame");
    }
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_is_withdrawn_at_once_and_service_goes_on_for_the_grace_time() {
    let provider = ScriptedProvider::start("eu").await;
    let gateway = TestGateway::start(&Config::of(&provider).text()).await;
    assert_eq!(gateway.get("/readyz").await.status, 200);
    let grace = Duration::from_millis(800);
    let begun = Instant::now();
    let stopping = stop(&gateway, grace, Duration::from_secs(5));
    soon("readiness to be withdrawn", async { while gateway.get("/readyz").await.status != 503 {} }).await;
    assert!(begun.elapsed() < grace, "readiness is withdrawn while it still serves");
    assert_eq!(gateway.get("/livez").await.status, 200);
    assert_eq!(gateway.chat(&chat_request("")).await.status, 200);
    refused(gateway.addr).await;
    assert!(begun.elapsed() >= grace, "{:?}", begun.elapsed());
    soon("the end", stopping).await.expect("it shuts down without a panic");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_may_finish() {
    let provider = ScriptedProvider::start("eu").await;
    let gateway = TestGateway::start(&Config::of(&provider).text()).await;
    let gate = Gate::new();
    let mut client = streaming(&gateway, &provider, &gate).await;
    let stopping = stop(&gateway, Duration::ZERO, Duration::from_secs(20));
    refused(gateway.addr).await;
    assert!(!stopping.is_finished(), "it waits for the stream");
    gate.open();
    let mut done = false;
    let end = loop {
        match client.frame().await {
            Ok(frame) => done = frame.is_done(),
            Err(end) => break end,
        }
    };
    assert_eq!((done, end), (true, BodyEnd::Clean));
    assert_eq!(client.closed().await, BodyEnd::Fin);
    soon("the end", stopping).await.expect("it shuts down without a panic");
    assert_eq!(gateway.receipts(1).await[0].outcome, Outcome::Served);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_does_not_finish_is_ended_as_broken() {
    let provider = ScriptedProvider::start("eu").await;
    let gateway = TestGateway::start(&Config::of(&provider).text()).await;
    let mut client = streaming(&gateway, &provider, &Gate::new()).await;
    let drain = Duration::from_millis(300);
    let begun = Instant::now();
    let stopping = stop(&gateway, Duration::ZERO, drain);
    let event = client.frame().await.expect("the error event").json();
    assert!(begun.elapsed() >= drain, "it was given the drain time");
    assert_eq!(event["error"]["code"], "upstream_stream_interrupted");
    assert_eq!(event["error"]["type"], "server_error");
    assert_eq!(client.frame().await, Err(BodyEnd::Fin), "closed without the last chunk");
    soon("the end", stopping).await.expect("it shuts down without a panic");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let receipt = gateway.receipts(1).await.remove(0);
    assert_eq!((receipt.outcome, receipt.reason, receipt.status), (Outcome::Broken, Reason::Shutdown, 200));
    // The provider's request is cancelled.
    assert!(provider.at_rest().await.only().client_closed_at().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_over_http2_is_ended_as_broken() {
    let provider = ScriptedProvider::start("eu").await;
    let gateway = TestGateway::start(&Config::of(&provider).text()).await;
    let gate = Gate::new();
    provider.answers(chat_stream("Hello", 2).wait_after_frame(2, &gate));
    let mut client = gateway.connect_h2().await;
    let asked = client.post(CHAT, &[("authorization", BEARER)], &chat_request(r#""stream":true,"#)).await;
    let mut answer = asked.expect("an answer");
    gate.reached(1).await;
    let stopping = stop(&gateway, Duration::ZERO, Duration::from_millis(300));
    let (body, end) = answer.rest().await;
    let body = String::from_utf8(body.to_vec()).expect("text");
    assert!(body.contains("upstream_stream_interrupted") && !body.contains("[DONE]"), "{body}");
    assert!(matches!(end, crate::support::H2End::Reset(_)), "{end:?}");
    soon("the end", stopping).await.expect("it shuts down without a panic");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_is_closed() {
    let provider = ScriptedProvider::start("eu").await;
    let gateway = TestGateway::start(&Config::of(&provider).text()).await;
    let mut idle = gateway.connect().await;
    idle.post(CHAT, &[("authorization", BEARER)], &chat_request("")).await;
    assert_eq!(idle.response().await.end, BodyEnd::Clean);
    let mut fresh = gateway.connect().await;
    let begun = Instant::now();
    let stopping = stop(&gateway, Duration::ZERO, Duration::from_secs(20));
    assert_eq!(idle.closed().await, BodyEnd::Fin);
    // Whether it was accepted by then or not, it is closed.
    fresh.closed().await;
    soon("the end", stopping).await.expect("it shuts down without a panic");
    assert!(begun.elapsed() < Duration::from_secs(5), "nothing was open: {:?}", begun.elapsed());
}
