//! Streams of Messages and Responses that break: cut between any two events and at random bytes, in every way a connection
//! can end, over HTTP/1.1 and HTTP/2. Whatever came whole is passed on, one event of ours says that the answer is
//! incomplete, the transport is aborted, and nothing looks like an end.
//!
//! Chat has the same in `streams.rs`. Start reading at [`matrix`].

use crate::support::gateway::{ALLOW_ALL, BEARER, provider_table};
use crate::support::journal::Request;
use crate::support::{
    BodyEnd, Ending, Gate, H2End, H2Piece, Piece, Script, ScriptedProvider, TestDialect, TestGateway, split_frames,
};
use bytes::BytesMut;
use serde_json::Value;
use std::sync::Arc;
use tierway::domain::receipt::Outcome;
use tokio::task::JoinSet;

/// Every cut of this suite is reproducible from it.
const SEED: u64 = 0xc0_75_11;
/// Cuts at random bytes for each way to end and each protocol.
const RANDOM_CUTS: usize = 60;
/// Requests in flight at once: stalls wait for their timeout.
const AT_ONCE: usize = 64;
const TEXT: &str = "Hé, wörld 😀!";

/// One cut.
#[derive(Clone, Copy, Debug)]
struct Cut {
    byte: usize,
    ending: Ending,
    http2: bool,
    /// It comes only after the client has read something.
    gated: bool,
}

/// What a client received.
#[derive(Debug)]
struct Received {
    status: u16,
    body: String,
    aborted: bool,
}

async fn start(dialect: TestDialect) -> (Arc<TestGateway>, ScriptedProvider) {
    let provider = ScriptedProvider::start("eu").await;
    let table = provider_table("eu", &provider, "eu").replace("\"openai\"", &format!("\"{}\"", dialect.protocol()));
    let config = format!(
        "{table}[models.m]\nprice = {{ input = \"1\", output = \"2\" }}\n{}deployments = [{{ provider = \"eu\" }}]\n{ALLOW_ALL}\
         [routing]\nidle = \"3s\"\nfirst_token = \"600ms\"\ntotal = \"12s\"\n\
         breaker = {{ failures = 1000000, min_requests = 1000000 }}\n",
        dialect.served()
    );
    (Arc::new(TestGateway::start(&config).await), provider)
}

/// Sends a request whose answer is cut like this, and reads to the end.
async fn received(gateway: &TestGateway, dialect: TestDialect, cut: Cut, number: usize, gate: &Gate) -> Received {
    let body = dialect.body("m", true, &format!(",\"x_case\":{number}"));
    let mut got = BytesMut::new();
    let mut add = |data: &[u8]| {
        got.extend_from_slice(data);
        gate.open();
    };
    let (status, aborted) = if cut.http2 {
        let mut client = gateway.connect_h2().await;
        let asked = client.post(dialect.path(), &[("authorization", BEARER)], &body).await;
        let mut answer = asked.unwrap_or_else(|end| panic!("{cut:?}: {end:?} instead of an answer"));
        loop {
            match answer.piece().await {
                H2Piece::Data(data) => add(&data),
                H2Piece::End(H2End::Connection) => panic!("{cut:?}: one broken stream ended the connection"),
                H2Piece::End(end) => break (answer.status, matches!(end, H2End::Reset(_))),
            }
        }
    } else {
        let mut client = gateway.connect().await;
        client.post(dialect.path(), &[("authorization", BEARER)], &body).await;
        let (status, _) = client.head().await;
        loop {
            match client.piece().await {
                Piece::Data(data) => add(&data),
                Piece::End(BodyEnd::Rst) => panic!("{cut:?}: a reset may cost the client what it has not read"),
                Piece::End(end) => break (status, end == BodyEnd::Fin),
            }
        }
    };
    Received { status, body: String::from_utf8(got.to_vec()).expect("text"), aborted }
}

/// The stream broke behind `whole` events that came whole.
fn assert_broken(dialect: TestDialect, received: &Received, whole: &[String], case: &str) {
    assert!(!received.body.contains(dialect.last_event()), "{case}: it looks complete: {received:?}");
    assert!(!received.body.contains("response.incomplete"), "{case}: {received:?}");
    if whole.len() <= dialect.opening() {
        assert!((500..600).contains(&received.status) && !received.aborted, "{case}: {received:?}");
        let error: Value = serde_json::from_str(&received.body).unwrap_or_else(|_| panic!("{case}: {received:?}"));
        assert!(error["error"]["message"].is_string(), "{case}: {received:?}");
        assert_eq!(error["type"] == "error", dialect == TestDialect::Messages, "{case}: {received:?}");
        return;
    }
    assert!(received.status == 200 && received.aborted, "{case}: the transport ended in good order: {received:?}");
    let text = format!("{}\n\n", received.body.trim_ascii_end());
    let (frames, rest) = split_frames(text.as_bytes());
    assert_eq!(rest, "", "{case}: half an event at the end of {received:?}");
    let (last, before) = frames.split_last().expect("there is the last one");
    let before: String = before.iter().map(|frame| String::from_utf8_lossy(&frame.raw)).collect();
    assert_eq!(before, whole.concat(), "{case}");
    let (raw, event) = (String::from_utf8_lossy(&last.raw), last.json());
    match dialect {
        TestDialect::Messages => {
            assert!(raw.starts_with("event: error\n"), "{case}: Anthropic's clients look for its name: {raw}");
            assert_eq!((&event["type"], &event["error"]["type"]), (&"error".into(), &"api_error".into()), "{case}");
        }
        TestDialect::Responses => {
            assert!(raw.starts_with("event: response.failed\n"), "{case}: {raw}");
            let failed = (&event["type"], &event["response"]["status"], &event["sequence_number"]);
            assert_eq!(failed, (&"response.failed".into(), &"failed".into(), &whole.len().into()), "{case}");
            for error in [&event["error"], &event["response"]["error"]] {
                assert_eq!(error["code"], "upstream_stream_interrupted", "{case}");
            }
        }
        TestDialect::Chat => unreachable!("chat has a suite of its own"),
    }
}

/// Every cut of a stream of these events: at each boundary but its end, and at random bytes that leave its last event
/// unfinished.
fn cuts(frames: &[String], opening: usize) -> Vec<Cut> {
    println!("seed {SEED}");
    let mut rng = fastrand::Rng::with_seed(SEED);
    let end_of = |count: usize| -> usize { frames[..count].iter().map(String::len).sum() };
    let mut cuts = Vec::new();
    for http2 in [false, true] {
        for ending in Ending::ALL {
            for gated in [false, true] {
                cuts.extend((0..frames.len()).map(|count| Cut { byte: end_of(count), ending, http2, gated }));
            }
            // An event that lacks only its empty line is whole where the end is clean.
            let last = end_of(frames.len()) - 2;
            let at_random = |_| Cut { byte: rng.usize(..last), ending, http2, gated: rng.bool() };
            cuts.extend((0..RANDOM_CUTS).map(at_random));
        }
    }
    // A first token that does not come is waited for while the deployment is at work for others: those come last.
    let begun = end_of(opening + 1);
    cuts.sort_by_key(|cut| cut.ending == Ending::Stall && cut.byte < begun);
    cuts
}

async fn matrix(dialect: TestDialect) {
    let frames = dialect.frames(TEXT);
    let (gateway, provider) = start(dialect).await;
    let cuts: Arc<Vec<Cut>> = Arc::new(cuts(&frames, dialect.opening()));
    let gates: Arc<Vec<Gate>> = Arc::new(cuts.iter().map(|_| Gate::new()).collect());
    let whole_stream = frames.iter().fold(Script::sse(), |script, frame| script.body(frame.clone()));
    let (of_cuts, of_gates) = (cuts.clone(), gates.clone());
    provider.answers(Script::by(move |request: &Request| {
        let number = request.json()["x_case"].as_u64().expect("every request has its number") as usize;
        let cut = of_cuts[number];
        let committed = cut.byte >= whole_stream_end(dialect);
        let script = whole_stream.clone();
        // Nothing is read before the first part of the text.
        let script = if cut.gated && committed {
            script.wait_after_frame(dialect.opening() + 1, &of_gates[number])
        } else {
            script
        };
        script.cut_at_body_byte(cut.byte, cut.ending)
    }));
    let seen = |cut: Cut| {
        let mut end = 0;
        let whole = frames.iter().take_while(|frame| {
            end += frame.len();
            let missing = end.saturating_sub(cut.byte);
            missing == 0 || (missing <= 2 && cut.ending == Ending::Clean)
        });
        whole.count()
    };
    let (mut asking, mut checked) = (JoinSet::new(), 0);
    let mut check = |(number, received): (usize, Received)| {
        let (cut, whole) = (cuts[number], seen(cuts[number]));
        assert_broken(
            dialect,
            &received,
            &frames[..whole],
            &format!("{dialect:?}, {cut:?}, {whole} events came whole"),
        );
        checked += 1;
    };
    for number in 0..cuts.len() {
        if asking.len() == AT_ONCE {
            check(asking.join_next().await.expect("some are asked").expect("no client fails"));
        }
        let (gateway, gates, cut) = (gateway.clone(), gates.clone(), cuts[number]);
        asking.spawn(async move { (number, received(&gateway, dialect, cut, number, &gates[number]).await) });
    }
    while let Some(answered) = asking.join_next().await {
        check(answered.expect("no client fails"));
    }
    let receipts = gateway.receipts(gateway.relay.entered()).await;
    let broken = receipts.iter().filter(|receipt| receipt.outcome == Outcome::Broken);
    let expected = cuts.iter().filter(|cut| seen(**cut) > dialect.opening()).count();
    println!("{dialect:?}: {checked} cuts, {expected} of them after the first part of the text");
    // Its input was sent, whatever came of it.
    assert!(broken.clone().all(|receipt| receipt.cost.0 > 0));
    assert_eq!((checked, broken.count()), (cuts.len(), expected));
}

/// Where the first part of the text ends in the body.
fn whole_stream_end(dialect: TestDialect) -> usize {
    dialect.frames(TEXT)[..=dialect.opening()].iter().map(String::len).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_messages_that_breaks_never_looks_complete() {
    matrix(TestDialect::Messages).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_a_response_that_breaks_never_looks_complete() {
    matrix(TestDialect::Responses).await;
}

/// The same bytes, uncut, are a complete answer: else the matrix would show nothing.
#[tokio::test]
async fn the_same_streams_uncut_are_complete() {
    for dialect in [TestDialect::Messages, TestDialect::Responses] {
        let (gateway, provider) = start(dialect).await;
        provider.answers(dialect.answer(TEXT));
        for stream in [true, false] {
            let answer = gateway.post(dialect.path(), &[], &dialect.body("m", stream, "")).await;
            assert_eq!(dialect.text_of(&answer).as_deref(), Ok(TEXT));
        }
    }
}
