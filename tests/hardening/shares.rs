//! What one key or one stranger can hold of what others need: bytes in memory, concurrency, connections. Whoever takes
//! as much as it can is refused or closed, and others are answered meanwhile.

use crate::config::{Config, MODEL, chat_request};
use crate::machine::{drain, others_are_answered};
use crate::support::gateway::{BEARER, KEY, OTHER_KEY};
use crate::support::{Script, ScriptedProvider, TestGateway, chat_whole, soon};
use bytes::Bytes;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// The attacker's key and its policy; `[server]` allows no more bytes than the tests say.
const ATTACKER: &str = "[policies.attacker]\ntiers = [\"*\"]\nrequests_per_minute = 1\nmax_concurrent = 100\n\
    [[keys]]\nname = \"attacker\"\npolicy = \"attacker\"\nsecret = \"env:OTHER_KEY\"\n";
/// How late a busy machine may be.
const GRACE: Duration = Duration::from_secs(10);

/// The head of a chat request with the attacker's key and a body of so many bytes.
fn head(length: usize) -> String {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: tests\r\nauthorization: Bearer {OTHER_KEY}\r\ncontent-length: {length}\r\n\r\n"
    )
}

async fn connected(gateway: SocketAddr) -> TcpStream {
    TcpStream::connect(gateway).await.expect("the gateway accepts")
}

/// Sends `first` at once, then `more` each `every` until the connection ends; what was answered, and after what time.
async fn upload(gateway: SocketAddr, first: Vec<u8>, more: Vec<u8>, every: Duration) -> (String, Duration) {
    let begun = Instant::now();
    let (reader, mut writer) = connected(gateway).await.into_split();
    let sending = async {
        let _ = writer.write_all(&first).await;
        loop {
            tokio::time::sleep(every).await;
            let _ = writer.write_all(&more).await;
        }
    };
    let answer = tokio::select! {
        answer = drain("an upload to be ended", reader) => answer,
        () = sending => unreachable!("it never stops"),
    };
    (String::from_utf8_lossy(&answer).into_owned(), begun.elapsed())
}

/// Waits until so many requests of all keys are in flight.
async fn in_flight(gateway: &TestGateway, wanted: impl Fn(u64) -> bool) {
    let reached = async {
        while !wanted(gateway.slots_in_use()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    soon("another number of requests in flight", reached).await;
}

async fn gateway_with(server: &str, attacker: &str, provider: &ScriptedProvider) -> TestGateway {
    provider.answers(chat_whole("Hello"));
    let config = Config::of(provider).server(server).model("endpoints = [\"chat\", \"embeddings\"]").more(attacker);
    TestGateway::start(&config.text()).await
}

/// One key with a limit of one request a minute, which sends 33 bodies of the largest size but for their last bytes, and
/// then a byte now and then: each of them held its share of all memory for hours, and together they were all of it.
#[tokio::test]
async fn trickling_uploads_of_one_key_take_no_memory_from_others_and_end() {
    let provider = ScriptedProvider::start("eu").await;
    let gateway = gateway_with("max_body = \"256KiB\"\nmax_in_flight_bytes = \"2MiB\"", ATTACKER, &provider).await;
    let size = 256 * 1024;
    let first = [head(size).into_bytes(), vec![b' '; size - 1000]].concat();
    let mut uploads = JoinSet::new();
    for _ in 0..33 {
        uploads.spawn(upload(gateway.addr, first.clone(), b" ".to_vec(), Duration::from_secs(4)));
    }
    let ended = others_are_answered(&gateway, uploads.join_all()).await;
    let answered = |status: &str| ended.iter().filter(|(answer, _)| answer.starts_with(status)).count();
    // Half of all, which is four bodies, is the key's; the others are not held at all.
    let (slow, refused) = (answered("HTTP/1.1 408"), answered("HTTP/1.1 429"));
    assert!((1..=4).contains(&slow) && slow + refused == 33, "{slow} and {refused}");
    for (answer, lasted) in ended {
        assert!(lasted < Duration::from_secs(10) + GRACE, "{lasted:?}: {answer}");
    }
    assert_eq!(provider.journal().requests().filter(|request| request.body.starts_with(b" ")).count(), 0);
}

#[tokio::test]
async fn an_upload_ends_when_its_key_is_revoked() {
    let provider = ScriptedProvider::start("eu").await;
    let gateway = gateway_with("", ATTACKER, &provider).await;
    // Fast enough to go on for minutes.
    let upload = tokio::spawn(upload(
        gateway.addr,
        head(30_000_000).into_bytes(),
        vec![b' '; 10_000],
        Duration::from_millis(100),
    ));
    in_flight(&gateway, |count| count == 1).await;
    gateway.reload(&Config::of(&provider).text());
    let (answer, lasted) = upload.await.expect("it does not panic");
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert!(lasted < GRACE, "{lasted:?}");
}

#[tokio::test]
async fn an_upload_ends_when_the_time_of_its_request_is_over() {
    let provider = ScriptedProvider::start("eu").await;
    provider.answers(chat_whole("Hello"));
    let gateway = TestGateway::start(&Config::of(&provider).routing("total = \"2s\"").more(ATTACKER).text()).await;
    let (answer, lasted) =
        upload(gateway.addr, head(30_000_000).into_bytes(), vec![b' '; 10_000], Duration::from_millis(100)).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(lasted >= Duration::from_secs(2) && lasted < GRACE, "{lasted:?}");
}

/// A key's concurrency is taken before a byte of the body is read, and given back when the body does not come.
#[tokio::test]
async fn requests_at_once_are_counted_before_their_bodies_come() {
    let provider = ScriptedProvider::start("eu").await;
    let two = ATTACKER.replace("= 100", "= 2").replace("requests_per_minute = 1\n", "");
    let gateway = gateway_with("", &two, &provider).await;
    let mut open = Vec::new();
    for held in 1..=2 {
        let mut socket = connected(gateway.addr).await;
        socket.write_all(head(1000).as_bytes()).await.expect("the gateway reads");
        open.push(socket);
        in_flight(&gateway, |count| count == held).await;
    }
    let mut third = connected(gateway.addr).await;
    third.write_all(head(1000).as_bytes()).await.expect("the gateway reads");
    let mut answer = [0; 512];
    let length = soon("the refusal, without a body", third.read(&mut answer)).await.expect("it is answered");
    let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 429") && answer.contains("retry-after"), "{answer}");
    drop((open, third));
    in_flight(&gateway, |count| count == 0).await;
    let body = chat_request("");
    let mut client = gateway.connect().await;
    client.post("/v1/chat/completions", &[("authorization", &format!("Bearer {OTHER_KEY}"))], &body).await;
    assert_eq!(client.response().await.chat_text().as_deref(), Ok("Hello"));
}

/// Forty embeddings of one key that nobody reads. So many bytes as its connection takes are the operating system's; what
/// is left of each is in memory for as long as the client may be silent.
#[tokio::test]
async fn unread_answers_of_one_key_are_bounded_in_sum() {
    const LARGE: usize = 12 << 20;
    let provider = ScriptedProvider::start("eu").await;
    let vector = format!("{{\"data\":[{{\"embedding\":\"{}\"}}]}}", "A".repeat(LARGE));
    let large = Bytes::from(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{vector}",
        vector.len()
    ));
    drop(vector);
    let attacker = ATTACKER.replace("requests_per_minute = 1\n", "");
    let gateway = gateway_with("max_in_flight_bytes = \"64MiB\"", &attacker, &provider).await;
    let small = chat_whole("Hello");
    provider.answers(Script::by(move |request| match request.path.ends_with("/embeddings") {
        true => Script::wire(large.clone()),
        false => small.clone(),
    }));
    let body = format!(r#"{{"model":"{MODEL}","input":"x"}}"#);
    let request = head(body.len()).replace("/chat/completions", "/embeddings") + &body;
    let mut asking = JoinSet::new();
    for _ in 0..40 {
        let (request, gateway) = (request.clone(), gateway.addr);
        asking.spawn(async move {
            let socket = TcpSocket::new_v4().expect("there are sockets");
            socket.set_recv_buffer_size(16 * 1024).expect("it can be small");
            let mut socket = socket.connect(gateway).await.expect("the gateway accepts");
            socket.write_all(request.as_bytes()).await.expect("the gateway reads");
            let mut answer = [0; 12];
            soon("the first bytes of an answer", socket.read_exact(&mut answer)).await.expect("it is answered");
            // It stays open, unread.
            (String::from_utf8_lossy(&answer).into_owned(), socket)
        });
    }
    let unread = others_are_answered(&gateway, asking.join_all()).await;
    let answered = |status: &str| unread.iter().filter(|(answer, _)| answer == status).count();
    // Half of all, which is two answers and a rest, is the key's.
    assert_eq!((answered("HTTP/1.1 200"), answered("HTTP/1.1 429")), (2, 38));
}

#[tokio::test]
async fn idle_connections_of_strangers_give_way() {
    let provider = ScriptedProvider::start("eu").await;
    let gateway = gateway_with("max_connections = 64", "", &provider).await;
    let mut kept = gateway.connect().await;
    let mut ask_again = async || {
        kept.post("/v1/chat/completions", &[("authorization", BEARER)], &chat_request("")).await;
        assert_eq!(kept.response().await.chat_text().as_deref(), Ok("Hello"));
    };
    ask_again().await;
    let beginnings = ["", "GET /v1/models HTTP/1.1\r\nx-slow: ", "GET /v1/models HTTP/1.1\r\nhost: t\r\n\r\n"];
    let flood = async {
        let mut open = Vec::new();
        for number in 0..300 {
            let mut socket = connected(gateway.addr).await;
            socket.write_all(beginnings[number % beginnings.len()].as_bytes()).await.expect("the gateway reads");
            open.push(socket);
        }
        // The connection with a key is still there, idle as it was.
        ask_again().await;
        open
    };
    let open = others_are_answered(&gateway, flood).await;
    drop(open);
}

/// Behind a trusted proxy, it is the address that the proxy forwards for that has only so many connections without a key.
#[tokio::test]
async fn one_address_has_only_so_many_connections_without_a_key() {
    let provider = ScriptedProvider::start("eu").await;
    let server = "max_keyless_per_address = 4\ntrusted_proxies = [\"127.0.0.1\"]";
    let gateway = gateway_with(server, "", &provider).await;
    let ask = async |client: &str, key: &str| {
        let mut socket = connected(gateway.addr).await;
        let request = format!(
            "GET /v1/models HTTP/1.1\r\nhost: t\r\nx-forwarded-for: 203.0.113.9, {client}\r\nauthorization: Bearer {key}\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await.expect("the gateway reads");
        let mut answer = [0; 12];
        soon("an answer", socket.read_exact(&mut answer)).await.expect("it is answered");
        (String::from_utf8_lossy(&answer).into_owned(), socket)
    };
    let (status, other) = ask("192.0.2.2", "none").await;
    assert_eq!(status, "HTTP/1.1 401");
    let (status, keyed) = ask("192.0.2.1", KEY).await;
    assert_eq!(status, "HTTP/1.1 200");
    let mut open = Vec::new();
    for _ in 0..12 {
        let (status, socket) = ask("192.0.2.1", "none").await;
        assert_eq!(status, "HTTP/1.1 401");
        open.push(socket);
    }
    let last = open.split_off(8);
    for socket in open {
        drain("the older connections to be closed", socket).await;
    }
    for mut socket in last.into_iter().chain([other, keyed]) {
        let mut rest = [0; 4096];
        let still_open = async { while socket.read(&mut rest).await.is_ok_and(|read| read > 0) {} };
        let closed = tokio::time::timeout(Duration::from_millis(50), still_open).await;
        assert!(closed.is_err(), "the last ones, another address's and the one with a key stay");
    }
}
