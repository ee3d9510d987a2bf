//! `stream = "buffered"`: a stream is held until all of it came, so that another deployment may still answer it.
//!
//! A cut that would end a strict stream with an error is invisible to the client. An answer that takes long begins with
//! its head and comments, so that nobody on the way gives up; what fails after that is said in the stream.
//!
//! Start reading at [`a_stream_cut_anywhere_is_answered_by_another_deployment`].

use crate::config::{Config, chat_request};
use crate::support::client::Frame;
use crate::support::gateway::{BEARER, provider_table};
use crate::support::journal::Journal;
use crate::support::{BodyEnd, Client, Ending, Gate, ScriptedProvider, TestGateway, chat_stream};
use std::time::Duration;
use tierway::domain::reason::Reason;
use tierway::domain::receipt::Outcome;
use tokio::time::Instant;

const CHAT: &str = "/v1/chat/completions";
/// When a held stream gets its head, at the earliest.
const OPEN_AFTER: Duration = Duration::from_secs(15);

/// Two deployments of one model, the first preferred; streams are held.
async fn pair() -> (TestGateway, [ScriptedProvider; 2]) {
    let pair = [ScriptedProvider::start("eu").await, ScriptedProvider::start("us").await];
    for provider in &pair {
        provider.answers(chat_stream("Hello, world", 3));
    }
    let config = Config::of(&pair[0])
        .routing("balance = \"ordered\"\nstream = \"buffered\"\nidle = \"250ms\"")
        .other_deployment("{ provider = \"us\" }")
        .more(&provider_table("us", &pair[1], "us-east"));
    (TestGateway::start(&config.text()).await, pair)
}

fn stream_request() -> String {
    chat_request(r#""stream":true,"#)
}

/// A client whose request is sent, and not read.
async fn sent(gateway: &TestGateway) -> Client {
    let mut client = gateway.connect().await;
    client.post(CHAT, &[("authorization", BEARER)], &stream_request()).await;
    client
}

/// A client that got its head before an answer.
async fn opened(gateway: &TestGateway) -> Client {
    let sent_at = Instant::now();
    let mut client = sent(gateway).await;
    let (status, headers) = client.head().await;
    assert!(sent_at.elapsed() >= OPEN_AFTER, "{:?}", sent_at.elapsed());
    let value = |name: &str| headers.iter().find(|(other, _)| other == name).map(|(_, value)| &**value);
    assert_eq!((status, value("content-type")), (200, Some("text/event-stream")));
    assert!(value("x-request-id").is_some() && value("x-tierway-deployment").is_none(), "{headers:?}");
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_cut_anywhere_is_answered_by_another_deployment() {
    let (gateway, [first, second]) = pair().await;
    let usual = gateway.chat(&stream_request()).await;
    let texts: Vec<_> = usual.frames().iter().filter_map(|frame| frame.data()).collect();
    assert_eq!((usual.end, texts.last().map(|text| &**text)), (BodyEnd::Clean, Some("[DONE]")));
    let (script, mut served) = (chat_stream("Hello, world", 3), 1);
    // A role, three of content, the finish reason: from then on the answer is complete.
    for frames in 1..=4 {
        for ending in Ending::ALL {
            first.answers(script.clone().cut_after_frame(frames, ending));
            let answer = gateway.chat(&stream_request()).await;
            served += 1;
            let case = format!("{ending:?} after frame {frames}: {answer:?}");
            assert_eq!((answer.status, answer.end), (200, BodyEnd::Clean), "{case}");
            assert_eq!(answer.header("x-tierway-region"), Some("us-east"), "{case}");
            assert_eq!(answer.text().matches("[DONE]").count(), 1, "{case}");
            assert_eq!(answer.frames().len(), usual.frames().len(), "{case}");
            assert!(!answer.text().contains("error"), "{case}");
        }
    }
    assert_eq!(second.attempts(), served - 1);
    let receipts = gateway.receipts(served as u64).await;
    assert!(receipts.iter().all(|receipt| receipt.outcome == Outcome::Served));
    assert!(receipts.iter().all(|receipt| receipt.usage == receipts[0].usage), "each is metered alike");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nothing_else_serves_a_cut_stream_is_an_error_with_its_status() {
    let (gateway, [first, second]) = pair().await;
    for provider in [&first, &second] {
        provider.answers(chat_stream("Hello, world", 3).cut_after_frame(3, Ending::Fin));
    }
    let answer = gateway.chat(&stream_request()).await;
    assert_eq!((answer.status, answer.end), (502, BodyEnd::Clean));
    assert_eq!(answer.json()["error"]["code"], "upstream_error", "{answer:?}");
}

/// What follows the head: its events, and how it ends.
async fn rest(client: &mut Client) -> (Vec<Frame>, BodyEnd) {
    let mut frames = Vec::new();
    loop {
        match client.frame().await {
            Ok(frame) if frame.data().is_some() => frames.push(frame),
            Ok(_comment) => {}
            Err(end) => return (frames, end),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_answer_begins_with_its_head() {
    let (gateway, pair) = pair().await;
    let go = Gate::new();
    for provider in &pair {
        provider.answers(chat_stream("Hello, world", 3).wait_before_headers(&go));
    }
    let (mut stays, leaves) = tokio::join!(opened(&gateway), opened(&gateway));
    // Its providers are left too.
    let in_flight = pair.each_ref().map(|provider| provider.journal().open());
    leaves.reset();
    let left = |journal: &Journal, before: usize| journal.open() < before;
    pair[0].wait_until("one is cancelled", |journal| left(journal, in_flight[0])).await;
    go.open();
    let (frames, end) = rest(&mut stays).await;
    assert_eq!(end, BodyEnd::Clean);
    assert_eq!(frames.last().and_then(|frame| frame.data()).as_deref(), Some("[DONE]"));
    assert!(frames.len() > 4, "all of the answer: {frames:?}");
    let receipts = gateway.receipts(2).await;
    let outcomes: Vec<_> = receipts.iter().map(|receipt| receipt.outcome).collect();
    assert_eq!(outcomes, [Outcome::Abandoned, Outcome::Served]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_after_the_head_is_said_in_the_stream() {
    let (gateway, [first, second]) = pair().await;
    let go = Gate::new();
    for provider in [&first, &second] {
        provider.answers(chat_stream("Hello, world", 3).wait_before_headers(&go).cut_after_frame(2, Ending::Rst));
    }
    let mut client = opened(&gateway).await;
    go.open();
    let (frames, end) = rest(&mut client).await;
    assert_eq!(end, BodyEnd::Fin, "the transport is aborted");
    assert_eq!(frames.len(), 1, "nothing of the answers was passed on: {frames:?}");
    assert_eq!(frames[0].json()["error"]["code"], "upstream_error", "{frames:?}");
    let receipt = gateway.receipts(1).await.remove(0);
    assert_eq!((receipt.outcome, receipt.reason, receipt.status), (Outcome::Failed, Reason::Truncated, 200));
}
