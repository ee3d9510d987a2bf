//! Cancellation: when a client disconnects, the provider sees it within 100 ms, whatever the state of the request.
//!
//! The bound here is ten times that, for a busy machine; the measured time is printed.

use crate::config::{Config, chat_request};
use crate::support::gateway::BEARER;
use crate::support::{Client, Ending, Gate, H2Client, Script, ScriptedProvider, TestGateway, chat_stream};
use std::time::Duration;
use tierway::domain::reason::Reason;
use tierway::domain::receipt::Outcome;
use tokio::time::Instant;

const CHAT: &str = "/v1/chat/completions";
const PROMISED: Duration = Duration::from_millis(100);
const BOUND: Duration = Duration::from_secs(1);
/// How often each way to disconnect is measured.
const TIMES: usize = 5;

/// How a client disconnects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Disconnect {
    Fin,
    Rst,
    /// RST_STREAM; the HTTP/2 connection stays open.
    Stream,
}

const DISCONNECTS: [Disconnect; 3] = [Disconnect::Fin, Disconnect::Rst, Disconnect::Stream];

/// A connected client.
enum OpenClient {
    Http1(Client),
    Http2(H2Client),
}

impl OpenClient {
    async fn open(gateway: &TestGateway, disconnect: Disconnect) -> Self {
        match disconnect {
            Disconnect::Fin | Disconnect::Rst => Self::Http1(gateway.connect().await),
            Disconnect::Stream => Self::Http2(gateway.connect_h2().await),
        }
    }

    /// Sends the request, disconnects as soon as `reached` is ready, and returns the time of the disconnect.
    async fn disconnect_when(
        self,
        request: &str,
        disconnect: Disconnect,
        reached: impl Future<Output = ()>,
    ) -> Instant {
        match self {
            Self::Http1(mut client) => {
                client.post(CHAT, &[("authorization", BEARER)], request).await;
                reached.await;
                let left = Instant::now();
                match disconnect {
                    Disconnect::Rst => client.reset(),
                    _ => drop(client),
                }
                left
            }
            Self::Http2(mut client) => {
                let answered = async {
                    let answer = client.post(CHAT, &[("authorization", BEARER)], request).await;
                    let mut answer = answer.unwrap_or_else(|end| panic!("{end:?} instead of an answer"));
                    loop {
                        answer.piece().await;
                    }
                };
                tokio::select! {
                    biased;
                    () = answered => unreachable!("it reads for ever"),
                    () = reached => {}
                }
                let left = Instant::now();
                // The connection outlives the stream: the gateway sees the reset, not the close.
                tokio::spawn(async move {
                    tokio::time::sleep(2 * BOUND).await;
                    drop(client);
                });
                left
            }
        }
    }
}

/// The provider waits at `gate` when the client disconnects; each receipt records the disconnect.
async fn check(what: &str, script: impl Fn(&Gate) -> Script, request: &str) {
    let provider = ScriptedProvider::start("eu").await;
    let gateway = TestGateway::start(&Config::of(&provider).text()).await;
    let mut receipts = 0;
    for disconnect in DISCONNECTS {
        let mut longest = Duration::ZERO;
        for _ in 0..TIMES {
            provider.clear();
            let gate = Gate::new();
            provider.answers(script(&gate));
            let asking = OpenClient::open(&gateway, disconnect).await;
            let left = asking.disconnect_when(request, disconnect, gate.reached(1)).await;
            let journal = provider.at_rest().await;
            let seen = journal.only().client_closed_at().unwrap_or_else(|| panic!("{journal:#?}"));
            longest = longest.max(seen.saturating_duration_since(left));
            receipts += 1;
            for receipt in gateway.receipts(receipts).await {
                assert_eq!(receipt.outcome, Outcome::Abandoned, "{what}, {disconnect:?}");
                assert_eq!((receipt.reason, receipt.status), (Reason::ClientGone, 499));
            }
        }
        println!("{what}, {disconnect:?}: seen by the provider within {longest:?} (promised: {PROMISED:?})");
        assert!(longest < BOUND, "{what}, {disconnect:?}: {longest:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_streaming() {
    let script = |gate: &Gate| chat_stream("Hello", 4).wait_after_frame(3, gate);
    check("while streaming", script, &chat_request(r#""stream":true,"#)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_waiting_for_the_headers() {
    let script = |gate: &Gate| chat_stream("Hello", 4).wait_before_headers(gate);
    check("waiting for a stream's headers", script, &chat_request(r#""stream":true,"#)).await;
    let script = |gate: &Gate| crate::support::chat_whole("Hello").wait_before_headers(gate);
    check("waiting for a whole answer's headers", script, &chat_request("")).await;
}

/// The attempt was sent, and its time is attributed to the provider: the receipt contains both.
#[tokio::test]
async fn an_attempt_the_client_did_not_wait_for_is_in_the_receipt() {
    let provider = ScriptedProvider::start("eu").await;
    let gateway = TestGateway::start(&Config::of(&provider).text()).await;
    let gate = Gate::new();
    provider.answers(chat_stream("Hello", 4).wait_before_headers(&gate));
    let mut client = gateway.connect().await;
    client.post(CHAT, &[("authorization", BEARER)], &chat_request("")).await;
    gate.reached(1).await;
    drop(client);
    let receipt = gateway.receipts(1).await.remove(0);
    let [attempt] = &receipt.attempts[..] else { panic!("{receipt:?}") };
    assert_eq!(attempt.reason, Reason::ClientGone);
    assert_eq!(receipt.served.as_ref().map(|served| &served.deployment), Some(&attempt.deployment));
    assert!(receipt.overhead + attempt.duration <= receipt.duration, "{receipt:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_waiting_for_the_first_token() {
    let script = |gate: &Gate| chat_stream("Hello", 4).wait_after_frame(1, gate);
    check("waiting for the first token", script, &chat_request(r#""stream":true,"#)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_middle_of_a_whole_answer() {
    let script = |gate: &Gate| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"id\":";
        Script::wire(head).wait(gate).end(Ending::Stall)
    };
    check("in the middle of a whole answer", script, &chat_request("")).await;
}

/// A request that waits for a resting deployment makes no further attempt once its client has disconnected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_waiting_before_another_attempt() {
    for disconnect in DISCONNECTS {
        let provider = ScriptedProvider::start("eu").await;
        let config = Config::of(&provider).routing("retry_after_wait_max = \"5s\"").text();
        let gateway = TestGateway::start(&config).await;
        provider.answers_once(Script::status(429).header("retry-after-ms", "700").body("{}"));
        // A second attempt would be answered at once: only the disconnect prevents it.
        let asking = OpenClient::open(&gateway, disconnect).await;
        let refused = async {
            provider
                .wait_until("the first attempt to end", |journal| journal.exchanges.iter().any(|e| e.end.is_some()))
                .await;
            // The gateway has received the refusal: from now on it waits.
            wait_until_idle(&gateway).await;
        };
        let left = asking.disconnect_when(&chat_request(""), disconnect, refused).await;
        let receipt = gateway.receipts(1).await.remove(0);
        let noticed = left.elapsed();
        println!("before another attempt, {disconnect:?}: settled within {noticed:?} (promised: {PROMISED:?})");
        assert_eq!((receipt.outcome, receipt.reason, receipt.status), (Outcome::Abandoned, Reason::ClientGone, 499));
        assert_eq!(receipt.attempts.len(), 1);
        assert!(noticed < Duration::from_millis(700), "it left long before the wait was over: {noticed:?}");
        // The deployment answers other clients; the cancelled request was not tried again.
        while gateway.chat(&chat_request("")).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(provider.attempts(), 2);
    }
}

/// Waits until no attempt is in flight.
async fn wait_until_idle(gateway: &TestGateway) {
    crate::support::soon("the attempt to be over", async {
        while gateway.relay.attempts_in_flight() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A request that is retried at once gets no further attempt either after its client has disconnected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn between_two_attempts_at_a_failing_deployment() {
    let provider = ScriptedProvider::start("eu").await;
    let gateway = TestGateway::start(&Config::of(&provider).text()).await;
    let gate = Gate::new();
    provider.answers_once(Script::status(500));
    // If the pause ended before the disconnect, the second attempt is cancelled here.
    provider.answers(chat_stream("Hello", 1).wait_before_headers(&gate));
    for turn in 1..=20 {
        provider.clear();
        provider.answers_once(Script::status(500));
        let asking = OpenClient::open(&gateway, Disconnect::Fin).await;
        let failed = async {
            provider
                .wait_until("the first attempt to end", |journal| journal.exchanges.iter().any(|e| e.end.is_some()))
                .await;
        };
        asking.disconnect_when(&chat_request(r#""stream":true,"#), Disconnect::Fin, failed).await;
        let receipt = gateway.receipts(turn).await.pop().expect("one for each turn");
        assert_eq!(receipt.outcome, Outcome::Abandoned);
        let journal = provider.at_rest().await;
        assert!(journal.exchanges.len() <= 2, "{journal:#?}");
        assert!(journal.exchanges.iter().skip(1).all(|exchange| exchange.client_closed_at().is_some()), "{journal:#?}");
    }
}
