//! Faults: what a client meets, for whole answers and streams, and that healing heals.

use std::{io::ErrorKind, net::SocketAddr, time::Duration};

use tokio::{net::TcpStream, time::timeout};

use super::{CHAT, STREAM, WHOLE, asked};
use crate::support::{
    BlackHole, BodyEnd, Client, Fault, Gate, How, RETRY_AFTER_SECONDS, ScriptedProvider,
    chat_stream, soon,
};

/// Longer than any connect on the loopback interface, shorter than the kernel's next SYN.
const NO_CONNECT: Duration = Duration::from_millis(300);

/// What a client meets.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Met {
    Refused,
    NoConnect,
    /// The end of the connection instead of an answer.
    NoAnswer(Option<BodyEnd>),
    NotHttp,
    /// A status, the time to wait, and how the body ended; `None` for one that stalls.
    Answer(u16, Option<u64>, Option<BodyEnd>),
}

#[tokio::test]
async fn every_fault_is_met_as_named_and_heals() {
    use BodyEnd::{Clean, Fin, Rst};
    let status = |status| Met::Answer(status, None, Some(Clean));
    let later = |status| Met::Answer(status, Some(RETRY_AFTER_SECONDS), Some(Clean));
    let expected = [
        (Fault::PortClosed, Met::Refused),
        (Fault::PacketsDropped, Met::NoConnect),
        (Fault::Reset, Met::NoAnswer(Some(Rst))),
        (Fault::Status500, status(500)),
        (Fault::Status503, status(503)),
        (Fault::Status503RetryAfter, later(503)),
        (Fault::Status529, status(529)),
        (Fault::Status429, status(429)),
        (Fault::Status429RetryAfter, later(429)),
        (Fault::Status401, status(401)),
        (Fault::Status404, status(404)),
        (Fault::GarbageBody, status(200)),
        (Fault::GarbageWire, Met::NotHttp),
        (Fault::ErrorInside200, status(200)),
        (Fault::SilentBeforeHeaders, Met::NoAnswer(None)),
        (Fault::SilentAfterHeaders, Met::Answer(200, None, None)),
        (Fault::FinBeforeFirstToken, Met::Answer(200, None, Some(Fin))),
        (Fault::ResetBeforeFirstToken, Met::Answer(200, None, Some(Rst))),
    ];
    assert_eq!(expected.map(|(fault, _)| fault), Fault::ALL);

    let provider = ScriptedProvider::start("eu").await;
    for (fault, met) in expected {
        for request in [WHOLE, STREAM] {
            provider.break_with(fault).await;
            assert_eq!(meet(&provider, request).await, met, "{fault:?}, {request}");
        }
        provider.heal().await;
        let response = asked(&provider, WHOLE).await.response().await;
        assert_eq!(response.status, 200, "healed from {fault:?}");
    }
}

async fn meet(provider: &ScriptedProvider, request: &str) -> Met {
    provider.clear();
    let mut client = match connect(provider.addr()).await {
        Some(true) => asked(provider, request).await,
        Some(false) => return Met::Refused,
        None => return Met::NoConnect,
    };
    let exchange = provider.attempted(1).await;
    assert_eq!(exchange.only().request.body, request);
    todo(&mut client).await
}
