//! Faults: what a client observes, for whole answers and streams, and that healing ends them.

use std::{io::ErrorKind, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::timeout,
};

use super::{CHAT, STREAM, WHOLE, asked};
use crate::support::{
    BlackHole, BodyEnd, ExchangeOutcome, Fault, Gate, RETRY_AFTER_SECONDS, ScriptedProvider, chat_stream, soon,
};

/// Longer than any connect on the loopback interface, shorter than the kernel's next SYN.
const NO_CONNECT: Duration = Duration::from_millis(300);

/// After this time a test assumes that nothing comes. A value too short can hide an error, never cause one.
const SILENCE: Duration = Duration::from_millis(50);

/// What a client observes.
#[derive(Debug, PartialEq)]
enum Observed {
    Refused,
    /// Bytes, possibly none, and then this.
    Bytes(String, Then),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    Fin,
    Rst,
    Silence,
}

/// Sends a request to a provider and reads to the end, or to the expected silence.
async fn observe(provider: &ScriptedProvider, request: &str, (_, word, then): Expected) -> Observed {
    let connected = soon("a connect", TcpStream::connect(provider.addr())).await;
    let mut stream = match connected {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Observed::Refused,
        connected => connected.unwrap(),
    };
    let length = request.len();
    let head = format!("POST {CHAT} HTTP/1.1\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all((head + request).as_bytes()).await.unwrap();
    let mut received = Vec::new();
    loop {
        let so_far = String::from_utf8(received.clone()).unwrap();
        let reading = stream.read_buf(&mut received);
        let read = match then == Then::Silence && so_far.contains(word) {
            true => match timeout(SILENCE, reading).await {
                Err(_) => return Observed::Bytes(so_far, Then::Silence),
                Ok(read) => read,
            },
            false => soon("the end of the answer", reading).await,
        };
        match read {
            Ok(0) => return Observed::Bytes(so_far, Then::Fin),
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                return Observed::Bytes(so_far, Then::Rst);
            }
        }
    }
}

/// What is expected of a fault: the start of the answer, a word in it, and what follows.
type Expected = (&'static str, &'static str, Then);

/// Each fault that answers at all: a whole request, and a streamed one where it differs.
fn expected(fault: Fault, request: &str) -> Expected {
    let streamed = request == STREAM;
    let (status, word, then) = match fault {
        Fault::PortClosed | Fault::PacketsDropped | Fault::Reset => return ("", "", Then::Rst),
        Fault::GarbageWire => return ("SSH-2.0-", "", Then::Fin),
        Fault::SilentBeforeHeaders => return ("", "", Then::Silence),
        Fault::Status500 => ("500", r#""code":null"#, Then::Fin),
        Fault::Status503 => ("503", r#""server_error""#, Then::Fin),
        Fault::Status503RetryAfter => ("503", "\r\nretry-after: 2\r\n", Then::Fin),
        Fault::Status529 => ("529", "overloaded_error", Then::Fin),
        Fault::Status429 => ("429", "rate_limit_exceeded", Then::Fin),
        Fault::Status429RetryAfter => ("429", "\r\nretry-after: 2\r\n", Then::Fin),
        Fault::Status401 => ("401", "invalid_api_key", Then::Fin),
        Fault::Status404 => ("404", "model_not_found", Then::Fin),
        Fault::GarbageBody if streamed => ("200", "\ndata: <html>", Then::Fin),
        Fault::GarbageBody => ("200", "\r\n\r\n<html>", Then::Fin),
        Fault::ErrorInside200 if streamed => ("200", "\ndata: {\"error\":{", Then::Fin),
        Fault::ErrorInside200 => ("200", "\r\n\r\n{\"error\":{", Then::Fin),
        Fault::SilentAfterHeaders if streamed => ("200", "text/event-stream", Then::Silence),
        Fault::SilentAfterHeaders => ("200", "application/json\r\n", Then::Silence),
        Fault::FinBeforeFirstToken if streamed => ("200", r#""role":"assistant""#, Then::Fin),
        Fault::FinBeforeFirstToken => ("200", "\r\n\r\n{\"id\":\"", Then::Fin),
        Fault::ResetBeforeFirstToken if streamed => ("200", r#""role":"assistant""#, Then::Rst),
        Fault::ResetBeforeFirstToken => ("200", "\r\n\r\n{\"id\":\"", Then::Rst),
    };
    (status, word, then)
}

#[tokio::test]
async fn every_fault_behaves_as_it_is_named_and_heals() {
    let provider = ScriptedProvider::start("eu").await;
    for fault in Fault::ALL {
        provider.break_with(fault).await;
        for request in [WHOLE, STREAM] {
            check_fault(&provider, fault, request).await;
        }
        provider.heal().await;
        let response = asked(&provider, WHOLE).await.response().await;
        assert_eq!(response.json()["choices"][0]["message"]["content"], "Hello");
    }
}

async fn check_fault(provider: &ScriptedProvider, fault: Fault, request: &str) {
    if fault == Fault::PacketsDropped {
        return assert!(hangs(provider.addr()).await);
    }
    let expected = expected(fault, request);
    let met = observe(provider, request, expected).await;
    if fault == Fault::PortClosed {
        return assert_eq!(met, Observed::Refused);
    }
    let Observed::Bytes(bytes, then) = met else {
        panic!("{fault:?} refuses connections");
    };
    let (start, word, end) = expected;
    let starts = bytes.trim_start_matches("HTTP/1.1 ").starts_with(start);
    assert!(starts, "{fault:?} met by {request}: {bytes}");
    assert!(bytes.contains(word), "{fault:?} met by {request}: {bytes}");
    assert_eq!(bytes.is_empty(), start.is_empty(), "{fault:?}: {bytes}");
    assert_eq!(then, end, "{fault:?} met by {request}: {bytes}");
    // No `Retry-After` unless expected, and never a token.
    let timed = [Fault::Status429RetryAfter, Fault::Status503RetryAfter];
    assert_eq!(bytes.contains("retry-after"), timed.contains(&fault));
    assert!(!bytes.contains("Hello") && !bytes.contains("stop"), "{bytes}");
}

#[tokio::test]
async fn faults_replace_each_other_and_one_shot_scripts_wait_until_healed() {
    let provider = ScriptedProvider::start("eu").await;
    provider.answers_once(chat_stream("Once", 1));
    for fault in [
        Fault::PortClosed,
        Fault::PacketsDropped,
        Fault::PortClosed,
        Fault::Status500,
        Fault::PacketsDropped,
        Fault::PacketsDropped,
        Fault::Status500,
    ] {
        provider.break_with(fault).await;
        check_fault(&provider, fault, WHOLE).await;
    }
    provider.heal().await;
    provider.heal().await;
    let response = asked(&provider, WHOLE).await.response().await;
    assert_eq!(response.frames().len(), 4);
    assert_eq!(RETRY_AFTER_SECONDS, 2);
}

#[tokio::test]
async fn a_closed_port_ends_every_connection() {
    let provider = ScriptedProvider::start("eu").await;
    let gate = Gate::new();
    let mut idle = asked(&provider, WHOLE).await;
    idle.response().await;
    provider.answers(chat_stream("Hello", 1).wait_after_frame(1, &gate));
    let mut busy = asked(&provider, STREAM).await;
    busy.head().await;
    busy.frame().await.unwrap();

    provider.break_with(Fault::PortClosed).await;
    assert_eq!(idle.closed().await, BodyEnd::Fin);
    assert_eq!(busy.frame().await, Err(BodyEnd::Fin));
    assert_eq!(provider.journal().exchanges[1].outcome(), Some(ExchangeOutcome::PortFault));
    check_fault(&provider, Fault::PortClosed, WHOLE).await;
}

#[tokio::test]
async fn a_closed_port_stays_reserved() {
    let provider = ScriptedProvider::start("eu").await;
    provider.break_with(Fault::PortClosed).await;
    let taken = TcpSocket::new_v4().unwrap().bind(provider.addr());
    assert_eq!(taken.unwrap_err().kind(), ErrorKind::AddrInUse);
}

#[tokio::test]
async fn when_packets_are_dropped_connections_receive_nothing() {
    let provider = ScriptedProvider::start("eu").await;
    let gate = Gate::new();
    let mut idle = asked(&provider, WHOLE).await;
    idle.response().await;
    let mut used = asked(&provider, WHOLE).await;
    used.response().await;
    provider.answers_once(chat_stream("Hello", 1).wait_after_frame(1, &gate));
    let mut busy = asked(&provider, STREAM).await;
    busy.head().await;
    busy.frame().await.unwrap();
    gate.reached(1).await;

    provider.break_with(Fault::PacketsDropped).await;
    used.post(CHAT, &[], WHOLE).await;
    gate.open();
    provider.at_rest().await;
    assert!(timeout(SILENCE, used.closed()).await.is_err());
    assert!(timeout(SILENCE, busy.piece()).await.is_err());
    let journal = provider.journal();
    assert_eq!(journal.exchanges.len(), 3, "what was sent never arrived");
    assert_eq!(journal.exchanges[2].outcome(), Some(ExchangeOutcome::PortFault));

    provider.heal().await;
    used.closed().await;
    busy.closed().await;
    idle.post(CHAT, &[], WHOLE).await;
    assert_eq!(idle.response().await.status, 200);
    assert_eq!(provider.attempts(), 4);
}

#[tokio::test]
async fn a_black_hole_drops_connects() {
    let black_hole = BlackHole::start().await;
    let addr = black_hole.addr();
    assert_eq!(black_hole.base_url(), format!("http://{addr}/v1"));
    for _ in 0..2 {
        assert!(hangs(addr).await);
    }
    drop(black_hole);
    let refused = soon("a refusal", TcpStream::connect(addr)).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_black_hole_drops_many_connects_at_once() {
    let black_hole = BlackHole::start().await;
    let addr = black_hole.addr();
    let mut connects = JoinSet::new();
    for _ in 0..50 {
        connects.spawn(hangs(addr));
    }
    assert!(connects.join_all().await.into_iter().all(|hangs| hangs));
}

async fn hangs(addr: SocketAddr) -> bool {
    timeout(NO_CONNECT, TcpStream::connect(addr)).await.is_err()
}

#[tokio::test]
async fn a_dropped_provider_leaves_nothing_behind() {
    let provider = ScriptedProvider::start("eu").await;
    let addr = provider.addr();
    assert_eq!(provider.base_url(), format!("http://{addr}/v1"));
    provider.break_with(Fault::SilentBeforeHeaders).await;
    let mut client = asked(&provider, WHOLE).await;
    provider.attempted(1).await;
    drop(provider);
    client.closed().await;
    let refused = soon("a refusal", TcpStream::connect(addr)).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}
