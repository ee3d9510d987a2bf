//! Scripts: which one is played, its waits, and every cut at every byte with every ending.

use std::time::Duration;

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{CHAT, STREAM, WHOLE, asked};
use crate::support::{
    BodyEnd, Client, Ending, ExchangeOutcome, Gate, Piece, Script, ScriptedProvider, chat_stream, chat_whole, soon,
    split_frames,
};

#[tokio::test]
async fn one_shot_scripts_come_first_and_in_order() {
    let provider = ScriptedProvider::start("eu").await;
    provider.answers(Script::by(|request| match request.header("x-busy") {
        Some(_) => Script::status(503).header("Retry-After", "7"),
        None => Script::status(204),
    }));
    provider.answers_once(Script::status(401));
    provider.answers_once(Script::status(429));
    let mut statuses = Vec::new();
    let mut client = Client::connect(provider.addr()).await;
    for headers in [&[][..], &[], &[], &[("X-Busy", "1")]] {
        client.post(CHAT, headers, WHOLE).await;
        let response = client.response().await;
        statuses.push((response.status, response.header("retry-after").map(str::to_owned)));
    }
    let seven = Some("7".to_owned());
    assert_eq!(statuses, [(401, None), (429, None), (204, None), (503, seven)]);
}

#[tokio::test]
async fn a_gate_holds_the_script_until_the_test_opens_it() {
    let (first, second) = (Gate::new(), Gate::new());
    let provider = ScriptedProvider::start("eu").await;
    provider.answers(Script::sse().wait_before_headers(&first).frame("1").frame("2").wait(&second).done());
    let mut client = asked(&provider, STREAM).await;
    first.reached(1).await;
    first.open();
    assert_eq!(client.head().await.0, 200);
    assert_eq!(client.frame().await.unwrap().data().unwrap(), "1");
    assert_eq!(client.frame().await.unwrap().data().unwrap(), "2");
    second.reached(1).await;
    assert_eq!(provider.journal().open(), 1);
    second.open();
    assert!(client.frame().await.unwrap().is_done());
    assert_eq!(client.frame().await, Err(BodyEnd::Clean));

    client.post(CHAT, &[], STREAM).await;
    second.reached(2).await;
    assert_eq!(client.response().await.frames().len(), 3);
}

#[tokio::test]
async fn a_pause_takes_its_time() {
    let pause = Duration::from_millis(30);
    let provider = ScriptedProvider::start("eu").await;
    provider.answers(chat_stream("Hello", 1).wait_after_frame(1, pause));
    let mut client = asked(&provider, STREAM).await;
    client.head().await;
    client.frame().await.unwrap();
    client.frame().await.unwrap();
    let arrived = provider.journal().only().request.arrived;
    assert!(arrived.elapsed() >= pause);
}

#[tokio::test]
async fn a_stream_can_be_cut_at_every_byte_of_its_body() {
    let script = chat_stream("Hi", 1);
    let provider = ScriptedProvider::start("eu").await;
    let length = body_length(&provider, &script, STREAM).await;
    for ending in Ending::ALL {
        for bytes in 0..=length {
            check_cut(&provider, &script, STREAM, bytes, ending).await;
        }
    }
}

#[tokio::test]
async fn a_whole_answer_can_be_cut_at_every_byte_of_its_body() {
    let script = chat_whole("Hi");
    let provider = ScriptedProvider::start("eu").await;
    let length = body_length(&provider, &script, WHOLE).await;
    for ending in Ending::ALL {
        for bytes in 0..length {
            check_cut(&provider, &script, WHOLE, bytes, ending).await;
        }
    }
}

async fn body_length(provider: &ScriptedProvider, script: &Script, request: &str) -> usize {
    provider.answers(script.clone());
    let mut client = asked(provider, request).await;
    let response = client.response().await;
    let frames = script.frames_for(&provider.journal().only().request);
    assert_eq!(response.body, frames.concat());
    response.body.len()
}

/// Exactly `bytes` bytes arrive, then the requested end, and the journal records it.
async fn check_cut(provider: &ScriptedProvider, script: &Script, request: &str, bytes: usize, ending: Ending) {
    provider.clear();
    provider.answers(script.clone().cut_at_body_byte(bytes, ending));
    let mut client = asked(provider, request).await;
    client.head().await;
    let (received, end) = match ending {
        Ending::Stall => (read_exactly(&mut client, bytes).await, None),
        _ => read_to_end(&mut client).await,
    };
    drop(client);
    let journal = provider.at_rest().await;
    let exchange = journal.only();
    let whole = script.frames_for(&exchange.request).concat();
    assert_eq!(Bytes::from(received), whole[..bytes], "{ending:?} at {bytes}");
    let expected = match ending {
        Ending::Clean => (Some(BodyEnd::Clean), ExchangeOutcome::Complete),
        Ending::Fin => (Some(BodyEnd::Fin), ExchangeOutcome::Cut(Ending::Fin)),
        Ending::Rst => (Some(BodyEnd::Rst), ExchangeOutcome::Cut(Ending::Rst)),
        Ending::Stall => (None, ExchangeOutcome::ClientClosed),
    };
    assert_eq!((end, exchange.outcome().unwrap()), expected, "{ending:?} at {bytes}");
}

async fn read_exactly(client: &mut Client, bytes: usize) -> Vec<u8> {
    let mut received = Vec::new();
    while received.len() < bytes {
        match client.piece().await {
            Piece::Data(data) => received.extend_from_slice(&data),
            Piece::End(end) => panic!("{end:?} after {} of {bytes} bytes", received.len()),
        }
    }
    received
}

async fn read_to_end(client: &mut Client) -> (Vec<u8>, Option<BodyEnd>) {
    let mut received = Vec::new();
    loop {
        match client.piece().await {
            Piece::Data(data) => received.extend_from_slice(&data),
            Piece::End(end) => return (received, Some(end)),
        }
    }
}

#[tokio::test]
async fn an_answer_can_be_cut_at_every_byte_of_the_wire() {
    let script = chat_stream("Hi", 1);
    let provider = ScriptedProvider::start("eu").await;
    body_length(&provider, &script, STREAM).await;
    let length = script.wire_for(&provider.journal().only().request).len();
    for ending in [Ending::Fin, Ending::Rst] {
        for bytes in 0..=length {
            provider.clear();
            provider.answers(script.clone().cut_at_wire_byte(bytes, ending));
            let mut stream = TcpStream::connect(provider.addr()).await.unwrap();
            let request = format!("POST {CHAT} HTTP/1.1\r\ncontent-length: 31\r\n\r\n{STREAM}");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut received = Vec::new();
            let end = soon("the end", stream.read_to_end(&mut received)).await;
            let wire = script.wire_for(&provider.journal().only().request);
            assert_eq!(Bytes::from(received), wire[..bytes], "{ending:?} at {bytes}");
            assert_eq!(end.is_ok(), ending == Ending::Fin, "{ending:?} at {bytes}");
        }
    }
}

#[tokio::test]
async fn what_was_written_before_a_reset_arrives_however_late_it_is_read() {
    let frames = 200;
    // An open gate separates two writes and takes no time.
    let gate = Gate::new();
    gate.open();
    let mut script = Script::sse();
    for number in 0..frames {
        script = script.frame(&number.to_string()).wait(&gate);
    }
    let provider = ScriptedProvider::start("eu").await;
    provider.answers(script.end(Ending::Rst));
    for _ in 0..20 {
        let mut client = asked(&provider, STREAM).await;
        provider.at_rest().await;
        let response = client.response().await;
        assert_eq!(response.frames().len(), frames);
        assert_eq!(response.end, BodyEnd::Rst);
    }
}

#[tokio::test]
async fn cuts_and_waits_compose() {
    let gate = Gate::new();
    let provider = ScriptedProvider::start("eu").await;
    let script = chat_stream("Hello", 5)
        .cut_after_frame(2, Ending::Rst)
        .wait_after_frame(2, &gate)
        .wait_after_frame(0, Duration::ZERO);
    provider.answers_once(script);
    // A wait after the cut is never reached; one at the cut is.
    let never = Gate::new();
    let script = chat_stream("Hello", 5).wait_after_frame(2, &gate).wait_after_frame(3, &never);
    provider.answers_once(script.clone().cut_after_frame(2, Ending::Rst));
    let first_frames = 2;
    for passed in 1..=2 {
        let mut client = asked(&provider, STREAM).await;
        gate.reached(passed).await;
        gate.open();
        let response = client.response().await;
        assert_eq!(response.frames().len(), first_frames);
        assert_eq!(response.end, BodyEnd::Rst);
    }
    // With a cut past the end, everything is sent, then the ending follows.
    provider.answers_once(chat_stream("Hello", 5).cut_after_frame(99, Ending::Fin));
    let response = asked(&provider, STREAM).await.response().await;
    assert_eq!(response.frames().len(), 8);
    assert_eq!(response.end, BodyEnd::Fin);
    // Half a frame does not count as a frame.
    provider.answers_once(chat_stream("Hello", 5).cut_at_body_byte(20, Ending::Clean));
    let response = asked(&provider, STREAM).await.response().await;
    let (frames, rest) = split_frames(&response.body);
    assert_eq!((frames.len(), rest.len(), response.end), (0, 20, BodyEnd::Clean));
}
