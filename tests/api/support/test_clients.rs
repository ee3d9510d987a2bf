//! Concurrent clients: a number of connections that stay open, each sending one request after another.
//!
//! It never retries: the test sees every answer as it came. A connection is replaced only when its
//! answer did not end cleanly or carried `Connection: close`.

use super::client::{BodyEnd, Client, Response};
use super::gateway::{KEY, TestGateway};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// One request to the gateway.
#[derive(Clone, Debug)]
pub struct TestRequest {
    path: &'static str,
    key: String,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl TestRequest {
    /// A request with this body and the test's key.
    pub fn new(path: &'static str, body: impl Into<String>) -> Self {
        Self { path, key: KEY.to_owned(), headers: Vec::new(), body: body.into() }
    }

    /// A short chat request for a whole answer of `model`.
    pub fn chat(model: &str) -> Self {
        Self::new(
            "/v1/chat/completions",
            format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"Hi"}}]}}"#),
        )
    }

    /// A short chat request for a streamed answer of `model`.
    pub fn stream(model: &str) -> Self {
        Self::chat(model).with_member(r#""stream":true"#)
    }

    /// Adds a member to the body.
    pub fn with_member(mut self, member: &str) -> Self {
        assert_eq!(self.body.pop(), Some('}'), "a body is an object");
        self.body += &format!(",{member}}}");
        self
    }

    /// Replaces the key.
    pub fn with_key(self, key: impl Into<String>) -> Self {
        Self { key: key.into(), ..self }
    }

    /// Adds a header.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The body.
    pub fn body(&self) -> &str {
        &self.body
    }

    /// Sends it, without reading the answer.
    pub async fn send(&self, client: &mut Client) {
        let key = format!("Bearer {}", self.key);
        let mut headers = vec![("authorization", key.as_str())];
        headers.extend(self.headers.iter().map(|(name, value)| (*name, value.as_str())));
        client.post(self.path, &headers, &self.body).await;
    }

    /// Sends it on a connection of its own and reads the answer.
    pub async fn send_to(&self, gateway: &TestGateway) -> Response {
        let mut client = gateway.connect().await;
        self.send(&mut client).await;
        client.response().await
    }
}

/// Connections that send requests at the same time.
pub struct TestClients {
    addr: SocketAddr,
    clients: Vec<Option<Client>>,
}

impl TestClients {
    /// This number of connections to `gateway`, opened when they are first used.
    pub fn new(connections: usize, gateway: &TestGateway) -> Self {
        Self { addr: gateway.addr, clients: std::iter::repeat_with(|| None).take(connections).collect() }
    }

    /// Sends `make(0)` to `make(count - 1)`, each connection the next one as soon as it is free; returns
    /// the answers in that order.
    pub async fn send_all(
        &mut self,
        count: usize,
        make: impl Fn(usize) -> TestRequest + Send + Sync + 'static,
    ) -> Vec<Response> {
        self.send_paced(count, Duration::ZERO, make, |_, answer| answer).await
    }

    /// The same with one request per `every`, as long as a connection is free when it is due; returns what `read`
    /// makes of each number and its answer.
    pub async fn send_paced<T: Send + 'static>(
        &mut self,
        count: usize,
        every: Duration,
        make: impl Fn(usize) -> TestRequest + Send + Sync + 'static,
        read: impl Fn(usize, Response) -> T + Send + Sync + 'static,
    ) -> Vec<T> {
        let (make, read, begun) = (Arc::new(make), Arc::new(read), Instant::now());
        let (next, addr) = (Arc::new(AtomicUsize::new(0)), self.addr);
        let mut asking = JoinSet::new();
        for mut kept in self.clients.drain(..) {
            let (make, read, next) = (make.clone(), read.clone(), next.clone());
            asking.spawn(async move {
                let mut answers = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return (kept, answers);
                    }
                    if !every.is_zero() {
                        tokio::time::sleep_until(begun + every * number as u32).await;
                    }
                    let mut client = match kept.take() {
                        Some(client) => client,
                        None => Client::connect(addr).await,
                    };
                    make(number).send(&mut client).await;
                    let answer = client.response().await;
                    let last = answer.end != BodyEnd::Clean || answer.header("connection") == Some("close");
                    kept = (!last).then_some(client);
                    answers.push((number, read(number, answer)));
                }
            });
        }
        let mut answers = Vec::with_capacity(count);
        while let Some(asked) = asking.join_next().await {
            let (client, part) = asked.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
            self.clients.push(client);
            answers.extend(part);
        }
        answers.sort_by_key(|(number, _)| *number);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }
}
