//! HTTP/2 floods: frames that are cheap to send and costly to process. The connection is closed or its
//! memory bounded, and other connections are answered meanwhile.

use crate::config::{Config, chat_request};
use crate::endless::Endless;
use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE,
    chat_head, field, frame, frames, indexed, setting,
};
use crate::machine::{Memory, others_are_answered};
use crate::support::gateway::BEARER;
use crate::support::{ChatAnswer, ScriptedProvider, TestGateway, chat, soon};
use std::io;
use std::time::Duration;

/// The size of a flood in bytes that a bounded server never reads to its end.
const ENDLESS: usize = 64 * 1024 * 1024;
/// The most bytes, the kernel's buffers included, that it may read before it closes.
const SOON: usize = 8 * 1024 * 1024;
/// The HTTP/2 error codes that a flood may be answered with.
const ENHANCE_YOUR_CALM: u32 = 11;
const PROTOCOL_ERROR: u32 = 1;

struct Bench {
    gateway: TestGateway,
    provider: ScriptedProvider,
    before: Memory,
}

impl Bench {
    async fn start() -> Self {
        let provider = ScriptedProvider::start("eu").await;
        provider.answers(chat(ChatAnswer::default()));
        let gateway = TestGateway::start(&Config::of(&provider).text()).await;
        Self { gateway, provider, before: Memory::now() }
    }

    /// Runs `attack` on a connection of its own while others send requests; the bytes received, and the
    /// error code if the server closed the connection.
    async fn flood(
        &self,
        name: &str,
        settings: &[u8],
        attack: impl AsyncFnOnce(&mut Raw) -> io::Result<()>,
    ) -> (Vec<u8>, Option<u32>) {
        let flood = async {
            let mut raw = Raw::connect(self.gateway.addr, settings).await;
            // Where it fails, the server has closed; the received bytes show that.
            let _ = attack(&mut raw).await;
            println!("{name}: {} bytes written", raw.written);
            raw.close().await
        };
        let received = others_are_answered(&self.gateway, flood).await;
        self.before.has_hardly_grown(name);
        let code = goaway(&received);
        println!("{name}: closed with {code:?}");
        (received, code)
    }
}

/// The error code of the last GOAWAY in `received`.
fn goaway(received: &[u8]) -> Option<u32> {
    let mut goaways = frames(received).into_iter().filter(|(kind, ..)| *kind == GOAWAY);
    let (.., payload) = goaways.next_back()?;
    payload.get(4..8).map(|code| u32::from_be_bytes([code[0], code[1], code[2], code[3]]))
}

/// The ids of a client's first `count` streams.
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|number| 2 * number + 1)
}

#[tokio::test]
async fn streams_opened_and_reset_at_once_end_the_connection() {
    let bench = Bench::start().await;
    let head = chat_head(BEARER);
    let pair = |stream| {
        [frame(HEADERS, END_HEADERS, stream, &head), frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())].concat()
    };
    let flood: Vec<u8> = streams(1000).flat_map(pair).collect();
    let (_, code) = bench.flood("rapid reset", &[], async |raw| raw.send(&flood).await).await;
    assert_eq!(code, Some(ENHANCE_YOUR_CALM));
}

/// The client makes the server reset its streams; those are counted apart from resets by clients.
#[tokio::test]
async fn streams_that_make_us_reset_them_end_the_connection() {
    let bench = Bench::start().await;
    let head = chat_head(BEARER);
    let pair = |stream| {
        [frame(HEADERS, END_HEADERS, stream, &head), frame(WINDOW_UPDATE, 0, stream, &0u32.to_be_bytes())].concat()
    };
    let flood: Vec<u8> = streams(1000).flat_map(pair).collect();
    let (_, code) = bench.flood("made to reset", &[], async |raw| raw.send(&flood).await).await;
    assert!(matches!(code, Some(ENHANCE_YOUR_CALM | PROTOCOL_ERROR)), "{code:?}");
}

#[tokio::test]
async fn an_endless_head_ends_the_connection() {
    let bench = Bench::start().await;
    let begin = frame(HEADERS, 0, 1, &chat_head(BEARER));
    let full = frame(CONTINUATION, 0, 1, &field("x-flood", &"x".repeat(120)).repeat(120));
    let empty = frame(CONTINUATION, 0, 1, &[]).repeat(1000);
    for (name, more) in [("continuations", full), ("empty continuations", empty)] {
        let mut written = 0;
        let attack = async |raw: &mut Raw| {
            raw.send(&begin).await?;
            while raw.written < ENDLESS {
                written = raw.written;
                raw.send(&more).await?;
            }
            Ok(())
        };
        let (_, code) = bench.flood(name, &[], attack).await;
        assert!(written < SOON, "{name}: {written} bytes were read");
        println!("{name}: {code:?}");
    }
    assert!(bench.provider.journal().requests().all(|request| request.body == chat_request("")));
}

/// A header that is indexed once and referred to ten thousand times is a head of forty megabytes.
#[tokio::test]
async fn a_head_that_decodes_to_much_more_is_refused() {
    let bench = Bench::start().await;
    let mut head = chat_head(BEARER);
    head.extend(indexed("x-bomb", &"x".repeat(3900)));
    // Index 62 is the newest entry of the dynamic table.
    head.extend(std::iter::repeat_n(0x80 | 62, 10_000));
    let flood: Vec<u8> =
        streams(100).flat_map(|stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &head)).collect();
    let (received, _) = bench.flood("header bombs", &[], async |raw| raw.send(&flood).await).await;
    let heads = frames(&received).into_iter().filter(|(kind, ..)| *kind == HEADERS);
    // Each answer is 431, which the static table does not have; it has 200 as 0x88.
    assert!(heads.into_iter().all(|(.., payload)| payload.first() != Some(&0x88)), "a bomb was served");
    assert!(bench.provider.journal().requests().all(|request| request.body == chat_request("")));
}

#[tokio::test]
async fn floods_of_frames_that_need_an_answer_are_bounded() {
    let bench = Bench::start().await;
    let setting = setting(4, 65_535);
    for (name, one) in [
        ("pings", frame(PING, 0, 0, &[7; 8])),
        ("settings", frame(SETTINGS, 0, 0, &setting)),
        ("empty settings", frame(SETTINGS, 0, 0, &[])),
        ("unknown frames", frame(0x77, 0, 0, &[7; 8])),
        ("priorities of streams that do not exist", frame(2, 0, 1, &[0, 0, 0, 0, 1])),
    ] {
        let flood = one.repeat(20_000);
        bench.flood(name, &[], async |raw| raw.send(&flood).await).await;
    }
}

/// A client that never reads its answers: what is buffered for it is bounded, and freed when it
/// disconnects.
#[tokio::test]
async fn a_window_that_never_opens_costs_little() {
    let honest = ScriptedProvider::start("eu").await;
    let token = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n".repeat(1000);
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
    let endless_provider = Endless::start(head, token, Duration::ZERO).await;
    let more = format!(
        "[providers.endless_provider]\nprotocol = \"openai\"\nbase_url = \"{}\"\ncredential = \"env:CREDENTIAL\"\nregion = \"eu\"\n\
         [models.endless]\ndeployments = [{{ provider = \"endless_provider\" }}]",
        endless_provider.base_url
    );
    let config = Config::of(&honest).policy("models = [\"*\"]").more(&more);
    let gateway = TestGateway::start(&config.text()).await;
    let bench = Bench { gateway, provider: honest, before: Memory::now() };
    let body = r#"{"model":"endless","stream":true,"messages":[{"role":"user","content":"Hi"}]}"#;
    let ask = |stream| {
        [frame(HEADERS, END_HEADERS, stream, &chat_head(BEARER)), frame(DATA, END_STREAM, stream, body.as_bytes())]
            .concat()
    };
    let flood: Vec<u8> = streams(100).flat_map(ask).collect();
    let attack = async |raw: &mut Raw| {
        raw.send(&flood).await?;
        let all_stuck =
            async { while bench.gateway.relay.attempts_in_flight() < 100 || !endless_provider.is_stuck().await {} };
        soon("a hundred streams that nobody reads", all_stuck).await;
        Ok(())
    };
    let no_window = setting(4, 0);
    let (received, _) = bench.flood("zero window", &no_window, attack).await;
    let data: usize =
        frames(&received).iter().filter(|(kind, ..)| *kind == DATA).map(|(.., payload)| payload.len()).sum();
    assert_eq!(data, 0, "the window is zero");
}
