//! The journal: requests byte for byte, and how their exchanges ended.

use tokio::time::Instant;

use super::{CHAT, STREAM, WHOLE, asked};
use crate::support::{BodyEnd, Client, Ending, ExchangeOutcome, Gate, Script, ScriptedProvider, chat_stream};

#[tokio::test]
async fn a_request_is_kept_byte_for_byte() {
    let provider = ScriptedProvider::start("eu").await;
    let head = "POST /v1/chat/completions?a=%20b HTTP/1.1\r\n\
                Host: x\r\nX-Odd:  two  words \r\nx-odd2:\r\nContent-Length: 42\r\n\r\n";
    let body = "{ \"model\":\"m\",\t\"big\":12345678901234567890}";

    let before = Instant::now();
    let mut client = Client::connect(provider.addr()).await;
    client.send([head.as_bytes(), body.as_bytes()].concat()).await;
    assert_eq!(client.response().await.status, 200);

    let journal = provider.at_rest().await;
    let exchange = journal.only();
    let request = &exchange.request;
    assert_eq!(request.head, head);
    assert_eq!(request.body, body);
    assert_eq!(request.method, "POST");
    assert_eq!(request.path, "/v1/chat/completions?a=%20b");
    let names: Vec<_> = request.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["Host", "X-Odd", "x-odd2", "Content-Length"]);
    assert_eq!(request.header("x-odd"), Some("two  words"));
    assert_eq!(request.header("x-odd2"), Some(""));
    assert_eq!(request.header("authorization"), None);
    assert_eq!(request.json()["model"], "m");
    assert_eq!((request.number, request.connection), (1, 1));
    assert_eq!(request.provider, "eu");
    assert!(before <= request.arrived && request.arrived <= Instant::now());
    assert_eq!(exchange.outcome(), Some(ExchangeOutcome::Complete));
}

#[tokio::test]
async fn a_request_is_the_same_however_it_is_split_into_packets() {
    let provider = ScriptedProvider::start("eu").await;
    let chunked = "POST /v1/x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n\
                   3\r\n{\"m\r\nB\r\nodel\":\"m\"} \r\n0\r\ntrailer: t\r\n\r\n";
    let mut client = Client::connect(provider.addr()).await;
    for byte in chunked.bytes() {
        client.send([byte]).await;
    }
    assert_eq!(client.response().await.status, 200);
    assert_eq!(provider.journal().only().request.body, r#"{"model":"m"} "#);
}

#[tokio::test]
async fn requests_sent_at_once_are_answered_in_order_on_one_connection() {
    let provider = ScriptedProvider::start("eu").await;
    provider.answers(Script::by(|request| Script::status(200).body(request.path.clone())));
    let mut client = Client::connect(provider.addr()).await;
    client.send("GET /a HTTP/1.1\r\nhost: x\r\n\r\nGET /b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert_eq!(client.response().await.text(), "/a");
    assert_eq!(client.response().await.text(), "/b");
    assert_eq!(client.closed().await, BodyEnd::Fin);

    let mut other = Client::connect(provider.addr()).await;
    other.get("/c", &[("accept", "*/*")]).await;
    assert_eq!(other.response().await.text(), "/c");

    let journal = provider.journal();
    let seen: Vec<_> =
        journal.requests().map(|request| (request.path.as_str(), request.number, request.connection)).collect();
    assert_eq!(seen, [("/a", 1, 1), ("/b", 2, 1), ("/c", 3, 2)]);
    assert_eq!(journal.connections, 2);
}

#[tokio::test]
async fn what_is_not_http_is_refused_and_not_kept() {
    for request in [
        "PRI * HTTP/2.0\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: +1\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n+1\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n",
    ] {
        let provider = ScriptedProvider::start("eu").await;
        let mut client = Client::connect(provider.addr()).await;
        client.send(request).await;
        assert_eq!(client.response().await.status, 400, "{request}");
        client.closed().await;
        assert_eq!(provider.attempts(), 0);
        assert_eq!(provider.journal().connections, 1);
    }
}

#[tokio::test]
async fn a_disconnect_is_detected_at_every_point_of_the_script() {
    let at_the_gate = Gate::new();
    for script in [
        chat_stream("Hello", 2).wait_before_headers(&at_the_gate),
        chat_stream("Hello", 2).wait_after_frame(1, &at_the_gate),
        chat_stream("Hello", 2).cut_after_frame(1, Ending::Stall),
    ] {
        let provider = ScriptedProvider::start("eu").await;
        provider.answers(script);
        for resets in [false, true] {
            provider.clear();
            let before = Instant::now();
            let client = asked(&provider, STREAM).await;
            provider.attempted(1).await;
            assert_eq!(provider.journal().open(), 1);
            match resets {
                true => client.reset(),
                false => drop(client),
            }
            let journal = provider.at_rest().await;
            let closed_at = journal.only().client_closed_at();
            assert!(closed_at.is_some_and(|at| at >= before), "{journal:#?}");
        }
    }
}

#[tokio::test]
async fn clearing_removes_the_exchanges_and_nothing_else() {
    let provider = ScriptedProvider::start("eu").await;
    let gate = Gate::new();
    provider.answers(Script::status(201).wait_before_headers(&gate));
    let mut client = asked(&provider, WHOLE).await;
    provider.attempted(1).await;
    provider.clear();
    gate.open();
    assert_eq!(client.response().await.status, 201);
    assert_eq!(provider.journal().exchanges.len(), 0);

    client.post(CHAT, &[], WHOLE).await;
    assert_eq!(client.response().await.status, 201);
    assert_eq!(provider.journal().only().request.number, 2);
}
