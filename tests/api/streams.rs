//! Streams: what is forwarded, what is hidden, and that a broken stream never looks complete.
//!
//! After the first token, a broken stream ends with one error event, no `[DONE]` and an aborted transport,
//! over HTTP/1.1 and HTTP/2 alike; the abort never costs the client the event.
//!
//! Start reading at [`a_stream_cut_anywhere_is_never_presented_as_complete`].

use crate::config::{Config, chat_request};
use crate::support::gateway::BEARER;
use crate::support::{
    BodyEnd, Ending, Gate, H2Client, H2End, H2Piece, Piece, Script, ScriptedProvider, TestGateway, chat_stream,
    split_frames,
};
use bytes::{Bytes, BytesMut};
use std::time::{Duration, Instant};
use tierway::domain::reason::Reason;
use tierway::domain::receipt::Outcome;

const CHAT: &str = "/v1/chat/completions";
/// Every cut of this suite is reproducible from it.
const SEED: u64 = 0x7_1e_4a_11;
/// Cuts at random bytes, over each protocol.
const RANDOM_CUTS: usize = 600;
/// Stalled streams over each protocol; they wait concurrently.
const STALLS: usize = 24;

/// An answer as a client received it.
#[derive(Debug)]
struct ReceivedAnswer {
    status: u16,
    body: Bytes,
    /// The transport was aborted: closed without the last chunk, or reset.
    aborted: bool,
}

impl ReceivedAnswer {
    /// The body without its last frame, and that frame as JSON. Empty lines may follow it, which readers of
    /// event streams ignore.
    fn before_and_last(&self) -> (Bytes, serde_json::Value) {
        let body = self.body.trim_ascii_end().len() + 2;
        let (frames, rest) = split_frames(self.body.get(..body).unwrap_or(&self.body));
        assert_eq!(rest, "", "half a frame at the end of {self:?}");
        let last = frames.last().unwrap_or_else(|| panic!("no frame in {self:?}"));
        (self.body.slice(..body - last.raw.len()), last.json())
    }
}

/// The protocol of a request.
#[derive(Clone, Copy, Debug)]
enum Protocol {
    Http1,
    Http2,
}

/// A client that sends one request after another: each on its own connection over HTTP/1.1, all on one over HTTP/2.
enum Requester<'a> {
    Http1(&'a TestGateway),
    Http2(H2Client),
}

impl<'a> Requester<'a> {
    async fn open(gateway: &'a TestGateway, protocol: Protocol) -> Self {
        match protocol {
            Protocol::Http1 => Self::Http1(gateway),
            Protocol::Http2 => Self::Http2(gateway.connect_h2().await),
        }
    }

    /// Sends a request, calls `on_first_byte` when that arrives, and reads to the end.
    async fn send(&mut self, request: &str, on_first_byte: impl FnOnce()) -> ReceivedAnswer {
        match self {
            Self::Http1(gateway) => send_http1(gateway, request, on_first_byte).await,
            Self::Http2(client) => send_http2(client, request, on_first_byte).await,
        }
    }
}

async fn send_http1(gateway: &TestGateway, request: &str, on_first_byte: impl FnOnce()) -> ReceivedAnswer {
    let mut client = gateway.connect().await;
    client.post(CHAT, &[("authorization", BEARER)], request).await;
    let (status, _) = client.head().await;
    let mut on_first_byte = Some(on_first_byte);
    let mut body = BytesMut::new();
    loop {
        match client.piece().await {
            Piece::Data(data) => {
                body.extend_from_slice(&data);
                if let Some(call) = on_first_byte.take() {
                    call();
                }
            }
            Piece::End(BodyEnd::Rst) => panic!("a reset may cost the client what it has not read: {body:?}"),
            Piece::End(end) => return ReceivedAnswer { status, body: body.freeze(), aborted: end == BodyEnd::Fin },
        }
    }
}

async fn send_http2(client: &mut H2Client, request: &str, on_first_byte: impl FnOnce()) -> ReceivedAnswer {
    let asked = client.post(CHAT, &[("authorization", BEARER)], request).await;
    let mut answer = asked.unwrap_or_else(|end| panic!("{end:?} instead of an answer"));
    let mut on_first_byte = Some(on_first_byte);
    let mut body = BytesMut::new();
    loop {
        match answer.piece().await {
            H2Piece::Data(data) => {
                body.extend_from_slice(&data);
                if let Some(call) = on_first_byte.take() {
                    call();
                }
            }
            H2Piece::End(H2End::Connection) => panic!("one broken stream ended the connection: {body:?}"),
            H2Piece::End(end) => {
                let aborted = matches!(end, H2End::Reset(_));
                return ReceivedAnswer { status: answer.status, body: body.freeze(), aborted };
            }
        }
    }
}

/// A stream of seven frames, and the offsets of their ends.
struct Sample {
    script: Script,
    /// As the provider sends them.
    frames: Vec<Bytes>,
}

impl Sample {
    async fn new(provider: &ScriptedProvider, gateway: &TestGateway) -> Self {
        let script = chat_stream("Hello, world", 3);
        provider.answers(script.clone());
        assert_eq!(gateway.chat(&stream_request()).await.end, BodyEnd::Clean);
        let frames = script.frames_for(&provider.at_rest().await.only().request);
        assert_eq!(frames.len(), 7, "role, three of content, finish reason, usage, [DONE]");
        provider.clear();
        // The same bytes for every request, except for its number.
        let script = frames.iter().fold(Script::sse(), |script, frame| script.body(frame.clone()));
        Self { script, frames }
    }

    /// Where frame `count` ends in the body.
    fn end_of(&self, count: usize) -> usize {
        self.frames[..count].iter().map(Bytes::len).sum()
    }

    /// The part of the first `bytes` that a client sees: whole frames, without the usage it did not ask for.
    /// After a clean end a frame that lacks only its empty line is whole as well.
    fn seen(&self, bytes: usize, ending: Ending) -> String {
        let mut seen = String::new();
        let mut end = 0;
        for frame in &self.frames {
            end += frame.len();
            let missing = end.saturating_sub(bytes);
            if missing == 0 || (missing <= 2 && ending == Ending::Clean) {
                let text = std::str::from_utf8(frame).expect("the sample is text");
                seen.push_str(&text.replace(r#","usage":null"#, ""));
            }
        }
        seen
    }
}

fn stream_request() -> String {
    chat_request(r#""stream":true,"#)
}

/// The stream broke: what came before is intact, and one error event follows, nothing else.
fn assert_broken(received: &ReceivedAnswer, before: &str, code: &str, case: &str) {
    assert_eq!(received.status, 200, "{case}: {received:?}");
    assert!(received.aborted, "{case}: the transport ended in good order: {received:?}");
    let (sent, last) = received.before_and_last();
    assert_eq!(sent, before, "{case}");
    let error = &last["error"];
    assert_eq!((&error["type"], &error["code"]), (&"server_error".into(), &code.into()), "{case}: {received:?}");
    assert!(error["message"].is_string() && error["param"].is_null(), "{case}: {received:?}");
    let text = std::str::from_utf8(&received.body).expect("the sample is text");
    assert!(!text.contains("[DONE]") && !text.contains(r#""finish_reason":""#), "{case}: {text}");
}

/// Cuts the sample and checks what the client receives. With `gated`, the cut comes only after the client
/// has read the first token; without, everything reaches the gateway in one piece.
async fn check_cut(
    requester: &mut Requester<'_>,
    provider: &ScriptedProvider,
    sample: &Sample,
    (bytes, ending): (usize, Ending),
    gated: bool,
) {
    let gate = Gate::new();
    let script = sample.script.clone();
    let script = if gated { script.wait_after_frame(2, &gate) } else { script };
    provider.answers(script.cut_at_body_byte(bytes, ending));
    let begun = Instant::now();
    let received = requester.send(&stream_request(), || gate.open()).await;
    let took = begun.elapsed();
    let case = format!("{ending:?} at byte {bytes}, gated: {gated}");
    assert_broken(&received, &sample.seen(bytes, ending), "upstream_stream_interrupted", &case);
    // The abort follows the event at once, not after a timeout.
    assert!(took < Duration::from_secs(4), "{case}: {took:?}");
}

async fn cut_everywhere(protocol: Protocol) {
    let provider = ScriptedProvider::start("eu").await;
    let gateway = TestGateway::start(&Config::of(&provider).text()).await;
    let sample = Sample::new(&provider, &gateway).await;
    let mut requester = Requester::open(&gateway, protocol).await;
    let cuts = [Ending::Rst, Ending::Fin, Ending::Clean];
    // After the first token, and before the frame with the finish reason is whole.
    for frames in 2..=4 {
        for ending in cuts {
            for gated in [false, true] {
                check_cut(&mut requester, &provider, &sample, (sample.end_of(frames), ending), gated).await;
            }
        }
    }
    println!("seed {SEED}");
    let mut rng = fastrand::Rng::with_seed(SEED);
    for _ in 0..RANDOM_CUTS {
        let byte = rng.usize(sample.end_of(2)..sample.end_of(5) - 2);
        let ending = cuts[rng.usize(..cuts.len())];
        check_cut(&mut requester, &provider, &sample, (byte, ending), rng.bool()).await;
    }
    let receipts = gateway.receipts(gateway.relay.entered()).await;
    let broken = receipts.iter().filter(|receipt| receipt.outcome == Outcome::Broken).count();
    assert_eq!(broken, receipts.len() - 1, "all but the sample's first request");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_cut_anywhere_is_never_presented_as_complete() {
    cut_everywhere(Protocol::Http1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_cut_anywhere_is_never_presented_as_complete_over_http2() {
    cut_everywhere(Protocol::Http2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_stalls_anywhere_is_ended() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let provider = ScriptedProvider::start("eu").await;
        let gateway = TestGateway::start(&Config::of(&provider).routing("idle = \"250ms\"").text()).await;
        let sample = Sample::new(&provider, &gateway).await;
        // The request contains the offset at which its stream stalls, so that all may wait at once.
        let script = sample.script.clone();
        provider.answers(Script::by(move |request| {
            let bytes = request.json()["cut"].as_u64().expect("the test says where") as usize;
            script.clone().cut_at_body_byte(bytes, Ending::Stall)
        }));
        println!("seed {SEED}");
        let mut rng = fastrand::Rng::with_seed(SEED);
        let boundaries = (2..=4).map(|frames| sample.end_of(frames));
        let random = std::iter::repeat_with(|| rng.usize(sample.end_of(2)..sample.end_of(5)));
        let cuts: Vec<_> = boundaries.chain(random).take(STALLS).collect();
        let gateway = &gateway;
        let asked = cuts.into_iter().map(|cut| async move {
            let mut requester = Requester::open(gateway, protocol).await;
            let received = requester.send(&chat_request(&format!(r#""stream":true,"cut":{cut},"#)), || ()).await;
            (cut, received)
        });
        for (cut, received) in all(asked).await {
            let case = format!("{protocol:?}: silence at byte {cut}");
            assert_broken(&received, &sample.seen(cut, Ending::Stall), "upstream_stream_interrupted", &case);
        }
        let receipts = gateway.receipts(gateway.relay.entered()).await;
        assert_eq!(receipts.iter().filter(|receipt| receipt.reason == Reason::IdleTimeout).count(), STALLS);
    }
}

/// Awaits all of `futures` concurrently, on this task.
async fn all<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut futures: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(move |cx| {
        let mut waiting = false;
        for (future, result) in &mut futures {
            if result.is_none() {
                match future.as_mut().poll(cx) {
                    std::task::Poll::Ready(value) => *result = Some(value),
                    std::task::Poll::Pending => waiting = true,
                }
            }
        }
        if waiting {
            return std::task::Poll::Pending;
        }
        std::task::Poll::Ready(futures.drain(..).filter_map(|(_, result)| result).collect())
    })
    .await
}

/// A gateway before a provider that answers with `script`.
async fn before(script: Script, config: impl FnOnce(Config) -> Config) -> (TestGateway, ScriptedProvider) {
    let provider = ScriptedProvider::start("eu").await;
    provider.answers(script);
    let gateway = TestGateway::start(&config(Config::of(&provider)).text()).await;
    (gateway, provider)
}

/// The answer to a client over each protocol.
async fn received(gateway: &TestGateway, request: &str) -> [ReceivedAnswer; 2] {
    let http1 = send_http1(gateway, request, || ()).await;
    let http2 = send_http2(&mut gateway.connect_h2().await, request, || ()).await;
    [http1, http2]
}

/// One frame of a choice.
fn choice(index: u32, content: &str, finish_reason: Option<&str>) -> String {
    let finish_reason = finish_reason.map_or("null".to_owned(), |reason| format!("\"{reason}\""));
    format!(
        r#"{{"object":"chat.completion.chunk","choices":[{{"index":{index},"delta":{{"content":"{content}"}},"finish_reason":{finish_reason}}}]}}"#
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_last_finish_reason_any_end_completes_the_stream() {
    let provider = ScriptedProvider::start("eu").await;
    let gateway = TestGateway::start(&Config::of(&provider).routing("idle = \"250ms\"").text()).await;
    let sample = Sample::new(&provider, &gateway).await;
    // After the finish reason, and after the usage.
    for frames in [5, 6] {
        let seen = sample.seen(sample.end_of(5), Ending::Fin);
        for ending in Ending::ALL {
            let gate = Gate::new();
            let cut = sample.script.clone().wait_after_frame(2, &gate).cut_after_frame(frames, ending);
            provider.answers(cut);
            for received in sent_gated(&gateway, &gate).await {
                let case = format!("{ending:?} after frame {frames}: {received:?}");
                // The provider has only omitted `[DONE]`.
                assert!(!received.aborted, "{case}");
                assert_eq!(received.body, format!("{seen}data: [DONE]\n\n"), "{case}");
            }
        }
    }
}

async fn sent_gated(gateway: &TestGateway, gate: &Gate) -> [ReceivedAnswer; 2] {
    let request = stream_request();
    let http1 = send_http1(gateway, &request, || gate.open()).await;
    let http2 = send_http2(&mut gateway.connect_h2().await, &request, || gate.open()).await;
    [http1, http2]
}

#[tokio::test]
async fn done_without_every_finish_reason_is_a_truncation() {
    let done_too_soon = Script::sse()
        .frame(&choice(0, "Hello", None))
        .frame(&choice(1, "Hi", None))
        .frame(&choice(0, "", Some("stop")))
        .done();
    let (gateway, _provider) = before(done_too_soon, |config| config).await;
    let sent: String = [choice(0, "Hello", None), choice(1, "Hi", None), choice(0, "", Some("stop"))]
        .map(|frame| format!("data: {frame}\n\n"))
        .concat();
    for received in received(&gateway, &chat_request(r#""n":2,"stream":true,"#)).await {
        assert!(received.aborted, "{received:?}");
        let (before, last) = received.before_and_last();
        assert_eq!(before, sent);
        assert_eq!(last["error"]["code"], "upstream_stream_interrupted");
    }
    for receipt in gateway.receipts(2).await {
        assert_eq!((receipt.outcome, receipt.reason), (Outcome::Broken, Reason::Truncated));
    }
    // For one choice the same stream is whole.
    for received in received(&gateway, &stream_request()).await {
        assert!(!received.aborted && received.body.ends_with(b"data: [DONE]\n\n"), "{received:?}");
    }
}

#[tokio::test]
async fn a_provider_may_be_configured_to_omit_the_finish_reason() {
    let unfinished = Script::sse().frame(&choice(0, "Hello", None)).done();
    let (gateway, provider) = before(unfinished, |config| config.provider("finish_reason = \"optional\"")).await;
    for received in received(&gateway, &stream_request()).await {
        assert!(!received.aborted, "{received:?}");
        assert_eq!(received.body, format!("data: {}\n\ndata: [DONE]\n\n", choice(0, "Hello", None)));
    }
    // Then `[DONE]` is the only valid end: without it the stream broke.
    provider.answers(Script::sse().frame(&choice(0, "Hello", None)));
    for received in received(&gateway, &stream_request()).await {
        assert!(received.aborted, "{received:?}");
    }
}

#[tokio::test]
async fn an_error_frame_after_the_first_token_ends_the_stream_with_the_gateways_error() {
    for error in [
        r#"data: {"error":{"message":"engine eu-7 died","type":"server_error","param":null,"code":null}}"#,
        "event: error\ndata: engine eu-7 died",
    ] {
        let script = Script::sse().frame(&choice(0, "Hello", None)).body(format!("{error}\n\n")).done();
        let (gateway, _provider) = before(script, |config| config).await;
        let sent = format!("data: {}\n\n", choice(0, "Hello", None));
        for received in received(&gateway, &stream_request()).await {
            assert_broken(&received, &sent, "upstream_stream_interrupted", error);
            assert!(memchr::memmem::find(&received.body, b"eu-7").is_none(), "{received:?}");
        }
        for receipt in gateway.receipts(2).await {
            assert_eq!((receipt.outcome, receipt.reason), (Outcome::Broken, Reason::ErrorInside));
        }
    }
}

#[tokio::test]
async fn a_stream_that_takes_longer_than_allowed_ends_with_a_timeout() {
    let endless = Script::sse().frame(&choice(0, "Hello", None)).end(Ending::Stall);
    let (gateway, _provider) = before(endless, |config| config.routing("total = \"400ms\"")).await;
    let sent = format!("data: {}\n\n", choice(0, "Hello", None));
    for received in received(&gateway, &stream_request()).await {
        assert_broken(&received, &sent, "upstream_timeout", "total");
    }
    for receipt in gateway.receipts(2).await {
        assert_eq!((receipt.outcome, receipt.reason, receipt.status), (Outcome::Broken, Reason::Deadline, 200));
    }
}

#[tokio::test]
async fn a_client_may_allow_less_time() {
    let endless = Script::sse().frame(&choice(0, "Hello", None)).end(Ending::Stall);
    let (gateway, _provider) = before(endless, |config| config).await;
    let begun = Instant::now();
    let response = gateway.post(CHAT, &[("x-tierway-deadline-ms", "300")], &stream_request()).await;
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!((response.status, response.end), (200, BodyEnd::Fin));
    let last = response.frames().pop().expect("the error event").json();
    assert_eq!(last["error"]["code"], "upstream_timeout");
}

#[tokio::test]
async fn usage_the_client_did_not_ask_for_is_hidden_and_nothing_else() {
    let (gateway, provider) = before(chat_stream("Hello", 2), |config| config).await;
    let answers = received(&gateway, &stream_request()).await;
    for (received, sent) in answers.iter().zip(provider.journal().requests()) {
        assert!(!received.aborted, "{received:?}");
        assert_eq!(sent.json()["stream_options"]["include_usage"], true, "we ask for it ourselves");
        let frames = chat_stream("Hello", 2).frames_for(sent);
        let [others @ .., usage, done] = frames.as_slice() else { panic!("{frames:?}") };
        assert!(memchr::memmem::find(usage, br#""usage":{"#).is_some());
        let others = std::str::from_utf8(&others.concat()).expect("text").replace(r#","usage":null"#, "");
        assert_eq!(received.body, [others.as_bytes(), done].concat());
        assert!(memchr::memmem::find(&received.body, b"usage").is_none());
    }
    for receipt in gateway.receipts(2).await {
        let usage = receipt.usage.expect("the provider's count");
        assert_eq!((usage.input, usage.output, receipt.estimated), (20, 10, false));
    }
}

#[tokio::test]
async fn usage_the_client_asked_for_is_forwarded_unchanged() {
    let (gateway, provider) = before(chat_stream("Hello", 2), |config| config).await;
    let request = chat_request(r#""stream":true,"stream_options":{"include_usage":true},"#);
    let answers = received(&gateway, &request).await;
    for (received, sent) in answers.iter().zip(provider.journal().requests()) {
        assert_eq!(sent.body, request);
        assert_eq!(received.body, chat_stream("Hello", 2).frames_for(sent).concat());
    }
}

#[tokio::test]
async fn frames_pass_byte_for_byte() {
    let hello = choice(0, "Hello", None);
    let stop = choice(0, "", Some("stop"));
    let check = async |pieces: &[&str]| {
        let mut script = Script::sse();
        for piece in pieces {
            script = script.body(piece.to_string());
        }
        let (gateway, _provider) = before(script, |config| config).await;
        for received in received(&gateway, &stream_request()).await {
            assert!(!received.aborted, "{pieces:?}: {received:?}");
            assert_eq!(received.body, pieces.concat(), "{pieces:?}");
        }
    };
    let (done, end) = ("data: [DONE]\n\n", format!("data: {stop}\n\n"));
    // Line endings of every kind, and mixed.
    check(&[&format!("data: {hello}\r\n\r\n"), &format!("data: {stop}\r\n\r\n"), "data: [DONE]\r\n\r\n"]).await;
    check(&[&format!("data: {hello}\r\r"), &format!("data: {stop}\r\r"), "data: [DONE]\r\r"]).await;
    check(&[&format!("data: {hello}\r\n\n"), &format!("data:{stop}\n\r\n"), done]).await;
    // Held before the first token, and forwarded after it: comments, ids, retry times, unknown events and fields.
    check(&[": hi\n\n", "retry: 5\n\n", &format!("id: 7\ndata: {hello}\n\n"), ":\n\n", &end, done]).await;
    check(&[&format!("event: ping\n\ndata: {hello}\n\n"), "event: odd\ndata: {\"a\":1E+2}\n\n", &end, done]).await;
    check(&[&format!("data: {hello}\nfoo: bar\n\n"), &end, done]).await;
    // Empty lines, a frame in two `data` lines, spaces.
    check(&[&format!("data: {hello}\n\n"), "\n\n", &end, done]).await;
    let (left, right) = hello.split_at(hello.find("\"choices\"").expect("a member"));
    check(&[&format!("data: {left}\ndata: {right}\n\n"), &format!("data:   {stop} \n\n"), done]).await;
    // Half a surrogate pair in each of two frames.
    let [first, second] = ["\\ud83d", "\\ude00"].map(|half| hello.replace("Hello", half));
    check(&[&format!("data: {first}\n\n"), &format!("data: {second}\n\n"), &end, done]).await;
    // Split anywhere into packets.
    let (start, rest) = end.split_at(9);
    check(&[&format!("data: {hello}\n"), "\n", start, rest, "da", "ta: [DONE]\n", "\n"]).await;
}

#[tokio::test]
async fn a_slow_start_is_not_a_stall() {
    let script = chat_stream("Hello", 2).wait_after_frame(1, Duration::from_millis(600));
    let (gateway, _provider) = before(script, |config| config.routing("idle = \"200ms\"")).await;
    for received in received(&gateway, &stream_request()).await {
        assert!(!received.aborted && received.body.ends_with(b"data: [DONE]\n\n"), "{received:?}");
    }
}

#[tokio::test]
async fn a_stall_within_the_limit_is_recovered_from_any_number_of_times() {
    let mut script = chat_stream("Hello!", 6);
    for frame in 2..7 {
        script = script.wait_after_frame(frame, Duration::from_millis(350));
    }
    let (gateway, _provider) = before(script, |config| config.routing("idle = \"1500ms\"")).await;
    let begun = Instant::now();
    let response = gateway.chat(&stream_request()).await;
    assert!(begun.elapsed() > Duration::from_millis(1500), "in sum the stream was silent for longer than the limit");
    assert_eq!(response.end, BodyEnd::Clean, "{response:?}");
    assert!(response.body.ends_with(b"data: [DONE]\n\n"));
}

#[tokio::test]
async fn a_stall_past_the_limit_fails_and_comments_do_not_help() {
    let mut script = Script::sse().frame(&choice(0, "Hello", None));
    for _ in 0..100 {
        script = script.body(": still here\n\n").wait(Duration::from_millis(50));
    }
    let (gateway, _provider) = before(script, |config| config.routing("idle = \"300ms\"")).await;
    let begun = Instant::now();
    let response = gateway.chat(&stream_request()).await;
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(3), "{took:?}");
    assert_eq!(response.end, BodyEnd::Fin);
    let last = response.frames().pop().expect("the error event").json();
    assert_eq!(last["error"]["code"], "upstream_stream_interrupted");
    assert_eq!(gateway.receipts(1).await[0].reason, Reason::IdleTimeout);
}

#[tokio::test]
async fn a_slow_client_never_times_the_provider_out() {
    // More than all buffers between them hold: the provider must wait for the client.
    let (frames, content) = (512, "x".repeat(64 * 1024));
    let mut script = Script::sse();
    for _ in 0..frames {
        script = script.frame(&choice(0, &content, None));
    }
    let script = script.frame(&choice(0, "", Some("stop"))).done();
    let (gateway, provider) = before(script, |config| config.routing("idle = \"600ms\"")).await;
    let mut client = gateway.connect().await;
    client.post(CHAT, &[("authorization", BEARER)], &stream_request()).await;
    assert_eq!(client.head().await.0, 200);
    // Four times as long as the provider may send nothing.
    tokio::time::sleep(Duration::from_millis(2_400)).await;
    assert_eq!(provider.journal().open(), 1, "the provider is held up by the client");
    let mut length = 0;
    loop {
        match client.piece().await {
            Piece::Data(data) => length += data.len(),
            Piece::End(end) => break assert_eq!(end, BodyEnd::Clean),
        }
    }
    assert!(length > frames * content.len());
    assert_eq!(gateway.receipts(1).await[0].outcome, Outcome::Served);
}
