//! The clients, tested against servers whose every byte is written here.

use std::{future::poll_fn, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use h2::Reason;
use http::{HeaderValue, Response};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, oneshot},
    task::JoinSet,
};

use super::{CHAT, STREAM};
use crate::support::{BodyEnd, Client, H2Client, H2End, H2Piece, Piece, soon, split_frames};

/// A server for one connection; gone when dropped.
async fn server<F: Future<Output = ()> + Send + 'static>(
    serve: impl FnOnce(TcpStream) -> F + Send + 'static,
) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut server = JoinSet::new();
    server.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        serve(stream).await;
    });
    (addr, server)
}

/// Checks how the client reads `answer` when it is followed by a FIN, or a RST.
async fn check(answer: &'static str, resets: bool, expected: (u16, &str, BodyEnd)) {
    let (addr, _server) = server(async move |mut stream: TcpStream| {
        let mut request = [0; 4];
        stream.read_exact(&mut request).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
        match resets {
            true => stream.set_zero_linger().unwrap(),
            false => stream.shutdown().await.unwrap(),
        }
    })
    .await;
    let mut client = Client::connect(addr).await;
    client.send("ping").await;
    let response = client.response().await;
    let seen = (response.status, response.text(), response.end);
    assert_eq!(seen, expected, "{answer:?}");
}

#[tokio::test]
async fn a_client_detects_how_a_body_ended() {
    use BodyEnd::{Clean, Fin, Rst};
    let sized = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nHello";
    check(sized, false, (200, "Hello", Clean)).await;
    check(sized, true, (200, "Hello", Clean)).await;
    let short = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nHello";
    check(short, false, (200, "Hello", Fin)).await;
    check(short, true, (200, "Hello", Rst)).await;
    let open = "HTTP/1.1 200 OK\r\n\r\nHello";
    check(open, false, (200, "Hello", Clean)).await;
    check(open, true, (200, "Hello", Rst)).await;
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nHel\r\n2\r\nlo\r\n0\r\n\r\n";
    check(chunked, false, (200, "Hello", Clean)).await;
    let trailers = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\na: b\r\n\r\n";
    check(trailers, false, (200, "0123456789", Clean)).await;
    let no_last_chunk = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nHel\r\n2\r\nlo\r\n";
    check(no_last_chunk, false, (200, "Hello", Fin)).await;
    check(no_last_chunk, true, (200, "Hello", Rst)).await;
    let half_an_end = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nHel\r\n0\r\n";
    check(half_an_end, false, (200, "Hel", Fin)).await;
    let mid_chunk = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n30\r\nHel";
    check(mid_chunk, false, (200, "Hel", Fin)).await;
    let nothing = "HTTP/1.1 204 No Content\r\n\r\n";
    check(nothing, true, (204, "", Clean)).await;
    let interim = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno";
    check(interim, false, (404, "no", Clean)).await;
}

#[tokio::test]
async fn a_client_reads_frame_by_frame() {
    let (addr, _server) = server(async |mut stream: TcpStream| {
        let answer = "HTTP/1.1 200 OK\r\n\r\n: hi\n\ndata: {\"a\":1}\n\ndata: [DONE]\n\ndata: ha";
        for byte in answer.bytes() {
            stream.write_all(&[byte]).await.unwrap();
        }
    })
    .await;
    let mut client = Client::connect(addr).await;
    assert_eq!(client.head().await.0, 200);
    assert_eq!(client.frame().await.unwrap().data(), None);
    assert_eq!(client.frame().await.unwrap().json()["a"], 1);
    assert!(client.frame().await.unwrap().is_done());
    assert_eq!(client.frame().await, Err(BodyEnd::Clean));
    assert_eq!(client.piece().await, Piece::End(BodyEnd::Clean));
}

#[test]
fn bytes_are_split_into_frames() {
    let check = |stream: &str, data: &[Option<&str>], rest: &str| {
        let (frames, left) = split_frames(stream.as_bytes());
        let seen: Vec<_> = frames.iter().map(|frame| frame.data()).collect();
        let expected: Vec<_> = data.iter().map(|data| data.map(str::to_owned)).collect();
        assert_eq!((seen, left), (expected, Bytes::copy_from_slice(rest.as_bytes())), "{stream:?}");
        let raw: Vec<_> = frames.iter().map(|frame| &frame.raw[..]).collect();
        assert_eq!(raw.concat(), stream.as_bytes()[..stream.len() - rest.len()]);
    };
    check("", &[], "");
    check("data: a\n\ndata:b\n\n", &[Some("a"), Some("b")], "");
    check("data: a\r\n\r\ndata: b", &[Some("a")], "data: b");
    check("data: a\n", &[], "data: a\n");
    check("event: x\ndata: a\ndata: b\n\n", &[Some("a\nb")], "");
    check(": ping\n\n\n", &[None, None], "");
    check("data:  two\n\n", &[Some(" two")], "");
}

/// What an HTTP/2 server does with a stream.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    /// Sends "Hello" and ends it.
    Ends,
    /// Sends "Hello" and, once that was read, resets it.
    Resets,
    /// Sends "Hello" and, once that was read, closes the connection.
    Leaves,
    /// Resets it without an answer.
    Refuses,
}

async fn serve_h2(stream: TcpStream, then: Then, read: Arc<Notify>) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    let (request, mut respond) = connection.accept().await.unwrap().unwrap();
    assert_eq!(request.uri().path(), CHAT);
    assert_eq!(request.headers()["x-odd"], "1");
    let telling = async {
        let body = request.into_body().data().await;
        assert_eq!(body.unwrap().unwrap(), STREAM);
        if then == Then::Refuses {
            respond.send_reset(Reason::REFUSED_STREAM);
            return std::future::pending().await;
        }
        let answer = Response::builder().status(201).header("x-a", "b");
        let mut sending = respond.send_response(answer.body(()).unwrap(), false).unwrap();
        sending.send_data(Bytes::from("Hello"), then == Then::Ends).unwrap();
        read.notified().await;
        match then {
            Then::Leaves => {}
            _ => {
                sending.send_reset(Reason::INTERNAL_ERROR);
                std::future::pending().await
            }
        }
    };
    tokio::select! {
        () = telling => {}
        _ = connection.accept() => {}
    }
}

#[tokio::test]
async fn an_http2_client_detects_how_a_stream_ended() {
    for (then, expected) in [
        (Then::Ends, H2End::EndStream),
        (Then::Resets, H2End::Reset(Reason::INTERNAL_ERROR)),
        (Then::Leaves, H2End::Connection),
    ] {
        let read = Arc::new(Notify::new());
        let reported = Arc::clone(&read);
        let (addr, _server) = server(move |stream| serve_h2(stream, then, reported)).await;
        let mut client = H2Client::connect(addr).await;
        let mut answer = client.post(CHAT, &[("x-odd", "1")], STREAM).await.unwrap();
        assert_eq!((answer.status, &answer.headers["x-a"]), (201, &HeaderValue::from_static("b")));
        assert_eq!(answer.piece().await, H2Piece::Data(Bytes::from("Hello")));
        read.notify_one();
        assert_eq!(answer.rest().await, (Bytes::new(), expected));
    }
}

#[tokio::test]
async fn an_http2_stream_can_end_without_an_answer() {
    let (addr, _server) = server(|stream| serve_h2(stream, Then::Refuses, Arc::default())).await;
    let mut client = H2Client::connect(addr).await;
    let refused = client.post(CHAT, &[("x-odd", "1")], STREAM).await;
    assert_eq!(refused.unwrap_err(), H2End::Reset(Reason::REFUSED_STREAM));
}

#[tokio::test]
async fn dropping_an_http2_answer_cancels_its_stream() {
    let (report, reported) = oneshot::channel();
    let (addr, _server) = server(async |stream: TcpStream| {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (_request, mut respond) = connection.accept().await.unwrap().unwrap();
        let mut sending = respond.send_response(Response::new(()), false).unwrap();
        tokio::select! {
            reason = poll_fn(|context| sending.poll_reset(context)) => report.send(reason.unwrap()).unwrap(),
            _ = connection.accept() => {}
        }
    })
    .await;
    let mut client = H2Client::connect(addr).await;
    drop(client.post(CHAT, &[], STREAM).await.unwrap());
    assert_eq!(soon("a reset", reported).await.unwrap(), Reason::CANCEL);
}
