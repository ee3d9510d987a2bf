//! TLS for clients: the handshake, and a stream that may or may not be encrypted.
//!
//! The certificate is looked up for each handshake, so a renewed one is served from the next
//! connection on. No timeout is kept here: the accept loop bounds the handshake as it bounds a
//! request's head. A failed handshake is counted in a metric and never logged as an error of ours.
//!
//! Start reading in [`ServerTls::handshake`].

use super::listener::TransportStream;
use crate::relay::Relay;
use crate::telemetry::Telemetry;
use rustix::net::RecvFlags;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::fmt;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

/// The protocols offered by ALPN, the preferred one first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// The first byte of a handshake (RFC 8446, 5.1). No HTTP begins with it.
const HANDSHAKE: u8 = 22;
/// The answer to plain HTTP on a TLS port.
const WRONG_SCHEME: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 56\r\n\
    connection: close\r\n\r\nThis port speaks HTTPS: begin its address with https://\n";
/// Bytes of such a request that are discarded at a time.
const DISCARD_BUFFER: usize = 1024;

/// What the TLS handshakes of one address need.
#[derive(Clone)]
pub struct ServerTls {
    acceptor: TlsAcceptor,
    telemetry: Arc<Telemetry>,
}

impl ServerTls {
    /// TLS 1.2 and 1.3, with the certificate that `certificates` returns for each handshake.
    pub fn new(certificates: Arc<dyn ResolvesServerCert>, telemetry: Arc<Telemetry>) -> Self {
        // Passed explicitly, so that nothing depends on the process-wide default provider.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("this provider has cipher suites for both versions")
            .with_no_client_auth()
            .with_cert_resolver(certificates);
        config.alpn_protocols = PROTOCOLS.map(Vec::from).into();
        Self { acceptor: TlsAcceptor::from(Arc::new(config)), telemetry }
    }

    /// The encrypted stream; `None` when the handshake failed.
    pub async fn handshake(&self, mut socket: TransportStream) -> Option<MaybeTlsStream> {
        match first_byte(&socket).await {
            Some(HANDSHAKE) => {}
            // Closed without a byte, as load balancers do for a TCP health check.
            None => return None,
            Some(_) => {
                refuse_plain_http(&mut socket).await;
                return None;
            }
        }
        match self.acceptor.accept(socket).await {
            Ok(stream) => Some(MaybeTlsStream::Right(Box::new(stream))),
            Err(error) => {
                self.telemetry.metrics.tls_handshake_failed();
                tracing::debug!(%error, "a TLS handshake failed");
                None
            }
        }
    }
}

/// Peeked, so that the handshake still reads it.
async fn first_byte(socket: &TransportStream) -> Option<u8> {
    let mut first = [0];
    let read = match socket {
        Either::Left(tcp) => tcp.peek(&mut first).await,
        Either::Right(unix) => {
            let mut peek = || Ok(rustix::net::recv(unix, &mut first, RecvFlags::PEEK)?.0);
            unix.async_io(Interest::READABLE, &mut peek).await
        }
    };
    (read.unwrap_or(0) > 0).then_some(first[0])
}

/// Answers 400 in plain text. Closing a socket with unread bytes resets it, and the client may then lose
/// the answer: so the rest is read until the client closes, or until the caller's timeout.
async fn refuse_plain_http(socket: &mut TransportStream) {
    if socket.write_all(WRONG_SCHEME).await.is_err() || socket.shutdown().await.is_err() {
        return;
    }
    let mut discarded = [0; DISCARD_BUFFER];
    while socket.read(&mut discarded).await.is_ok_and(|read| read > 0) {}
}

/// Serves the certificate of the active configuration.
pub struct CertificateSource(pub Arc<Relay>);

impl ResolvesServerCert for CertificateSource {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.active_config().snapshot.server.tls.as_ref().map(|tls| tls.certified.clone())
    }
}

impl fmt::Debug for CertificateSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CertificateSource")
    }
}

/// A client's connection: not encrypted, or after a handshake. TLS with its buffers is boxed, so that a plain connection
/// takes no memory for it.
///
/// Dropped without a shutdown, TLS sends no `close_notify`, so that a client can distinguish an answer that broke off
/// from one that ended. A flush is ready only when the last encrypted byte was passed to the operating system: a
/// connection aborted after one loses nothing that was written before it.
pub type MaybeTlsStream = Either<TransportStream, Box<TlsStream<TransportStream>>>;

/// A gateway's TLS and a client that trusts it, for tests in `http`.
#[cfg(test)]
pub(in crate::http) mod testing {
    use super::*;
    use crate::telemetry::access::AccessLog;
    use crate::telemetry::metrics::BuildMetadata;
    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use rustls::sign::SingleCertAndKey;
    use std::io;
    use std::net::SocketAddr;
    use tokio::net::TcpStream;
    use tokio_rustls::{TlsConnector, client};

    /// Both ends of TLS.
    pub(crate) struct TlsTestPair {
        pub(crate) tls: ServerTls,
        pub(crate) telemetry: Arc<Telemetry>,
        client: Arc<rustls::ClientConfig>,
    }

    impl TlsTestPair {
        pub(crate) fn new() -> Self {
            let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("rcgen can sign");
            let key = PrivateKeyDer::try_from(issued.signing_key.serialize_der()).expect("rcgen writes keys");
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let certified = CertifiedKey::from_der(vec![issued.cert.der().clone()], key, &provider);
            let certificates = Arc::new(SingleCertAndKey::from(certified.expect("they belong together")));
            let access = AccessLog::to_writer(Box::new(io::sink()));
            let telemetry = Arc::new(Telemetry::new(access, BuildMetadata { version: "0", revision: None }));
            let mut roots = rustls::RootCertStore::empty();
            roots.add(issued.cert.der().clone()).expect("rcgen writes certificates");
            let client = rustls::ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .expect("the provider knows both")
                .with_root_certificates(roots)
                .with_no_client_auth();
            Self { tls: ServerTls::new(certificates, telemetry.clone()), telemetry, client: Arc::new(client) }
        }

        /// A client after its handshake.
        pub(crate) async fn connect(&self, address: SocketAddr) -> client::TlsStream<TcpStream> {
            let socket = TcpStream::connect(address).await.expect("it listens");
            let name = ServerName::try_from("localhost").expect("a name");
            TlsConnector::from(self.client.clone()).connect(name, socket).await.expect("it is trusted")
        }

        /// The first bytes of a client.
        pub(crate) fn client_hello(&self) -> Vec<u8> {
            let name = ServerName::try_from("localhost").expect("a name");
            let mut client = rustls::ClientConnection::new(self.client.clone(), name).expect("the config is sound");
            let mut hello = Vec::new();
            client.write_tls(&mut hello).expect("a Vec takes everything");
            hello
        }

        pub(crate) fn failures(&self) -> u64 {
            let rendered = self.telemetry.metrics.render();
            let value = rendered.lines().find_map(|line| line.strip_prefix("tierway_tls_handshake_failures_total "));
            value.expect("it is always shown").parse().expect("a count")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::TlsTestPair;
    use super::*;
    use crate::clock::Clock;
    use crate::http::conn::lifecycle::Lifecycle;
    use crate::http::conn::listener::{ListenerKind, bind};
    use crate::http::conn::server::{HttpServer, serve};
    use crate::http::request_handler::RequestHandler;
    use crate::random::Rng;
    use axum::Router;
    use axum::routing::get;
    use std::net::SocketAddr;
    use std::time::Duration;
    use tokio::io::AsyncRead;
    use tokio::net::TcpStream;
    use tokio::sync::mpsc;

    struct Served {
        pair: TlsTestPair,
        address: SocketAddr,
        lifecycle: Lifecycle,
        serving: tokio::task::JoinHandle<()>,
        /// Receives "begun" when a request to `/hangs` has begun, and "dropped" when it was dropped.
        events: mpsc::UnboundedReceiver<&'static str>,
    }

    struct DropNotice(mpsc::UnboundedSender<&'static str>);

    impl Drop for DropNotice {
        fn drop(&mut self) {
            let _ = self.0.send("dropped");
        }
    }

    fn served() -> Served {
        let (sender, events) = mpsc::unbounded_channel();
        let hangs = async move || -> &'static str {
            let _notice = DropNotice(sender.clone());
            let _ = sender.send("begun");
            std::future::pending().await
        };
        let router = Router::new().route("/works", get(async || "works")).route("/hangs", get(hangs));
        let (pair, lifecycle) = (TlsTestPair::new(), Lifecycle::new(Clock));
        let listener = bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.address().unwrap().reachable().unwrap();
        let tls = Some(pair.tls.clone());
        let handler = RequestHandler::new(router, Clock, Arc::new(Rng::seeded(1)));
        let server = HttpServer {
            handler,
            lifecycle: lifecycle.clone(),
            clock: Clock,
            kind: ListenerKind::Public,
            tls,
            half_close: false,
            limits: Arc::default(),
        };
        let serving = tokio::spawn(serve(listener, server));
        Served { pair, address, lifecycle, serving, events }
    }

    /// What is received until the server closes or resets, and after how many seconds it does.
    async fn read_to_end(mut socket: impl AsyncRead + Unpin) -> (Vec<u8>, u64) {
        let start = Clock.now();
        let mut read = Vec::new();
        let _ = socket.read_to_end(&mut read).await;
        (read, (Clock.now() - start).as_secs())
    }

    const GET: &[u8] = b"GET /works HTTP/1.1\r\nhost: tierway\r\nconnection: close\r\n\r\n";

    #[tokio::test]
    async fn an_answer_ends_with_close_notify() {
        let served = served();
        let mut client = served.pair.connect(served.address).await;
        client.write_all(GET).await.unwrap();
        let mut read = String::new();
        client.read_to_string(&mut read).await.expect("closed in good order");
        assert!(read.starts_with("HTTP/1.1 200") && read.ends_with("works"), "{read}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_unfinished_handshake_is_dropped_after_ten_seconds() {
        let served = served();
        let hello = served.pair.client_hello();
        for sent in [0, 1, 5, hello.len() - 1] {
            let mut socket = TcpStream::connect(served.address).await.unwrap();
            socket.write_all(&hello[..sent]).await.unwrap();
            assert_eq!(read_to_end(socket).await, (Vec::new(), 10), "{sent} bytes");
        }
        assert_eq!(served.pair.failures(), 0, "a slow handshake is not counted as failed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_handshake_sent_byte_by_byte_is_dropped_after_ten_seconds() {
        let served = served();
        let hello = served.pair.client_hello();
        let (reading, mut writing) = TcpStream::connect(served.address).await.unwrap().into_split();
        tokio::spawn(async move {
            for byte in hello {
                if writing.write_all(&[byte]).await.is_err() {
                    return;
                }
                Clock.sleep(Duration::from_secs(1)).await;
            }
        });
        assert_eq!(read_to_end(reading).await, (Vec::new(), 10));
    }

    #[tokio::test(start_paused = true)]
    async fn the_handshake_and_the_head_share_one_timeout() {
        let served = served();
        let mut client = served.pair.connect(served.address).await;
        client.write_all(b"GET /works HT").await.unwrap();
        assert_eq!(read_to_end(client).await, (Vec::new(), 10));
    }

    #[tokio::test]
    async fn plain_http_is_answered_with_advice_to_use_https() {
        let served = served();
        let mut socket = TcpStream::connect(served.address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        // In more than one piece, which must not cost it the answer.
        let (first, rest) = GET.split_at(4);
        socket.write_all(first).await.unwrap();
        socket.readable().await.unwrap();
        socket.write_all(rest).await.unwrap();
        let (read, _) = read_to_end(socket).await;
        let read = String::from_utf8(read).unwrap();
        let (head, body) = read.split_once("\r\n\r\n").expect("a whole answer");
        assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{read}");
        assert!(body.contains("HTTPS"), "{body}");
        assert_eq!(served.pair.failures(), 0);
    }

    #[tokio::test]
    async fn a_failed_handshake_is_counted_and_closed() {
        let served = served();
        let mut socket = TcpStream::connect(served.address).await.unwrap();
        socket.write_all(&[HANDSHAKE, 3, 1, 0, 4, 9, 9, 9, 9]).await.unwrap();
        read_to_end(socket).await;
        assert_eq!(served.pair.failures(), 1);
        // A TCP health check: connects and closes.
        drop(TcpStream::connect(served.address).await.unwrap());
        let mut client = served.pair.connect(served.address).await;
        client.write_all(GET).await.unwrap();
        assert!(read_to_end(client).await.0.ends_with(b"works"));
        assert_eq!(served.pair.failures(), 1);
    }

    #[tokio::test]
    async fn a_request_is_dropped_when_its_client_disconnects() {
        let mut served = served();
        for polite in [false, true] {
            let mut client = served.pair.connect(served.address).await;
            client.write_all(b"GET /hangs HTTP/1.1\r\nhost: tierway\r\n\r\n").await.unwrap();
            assert_eq!(served.events.recv().await, Some("begun"));
            let kept = if polite {
                // It announces that it sends no more, and keeps the socket: disconnected as well.
                client.shutdown().await.unwrap();
                Some(client)
            } else {
                // The socket closes without `close_notify`.
                drop(client.into_inner().0);
                None
            };
            assert_eq!(served.events.recv().await, Some("dropped"), "polite: {polite}");
            drop(kept);
        }
    }

    #[tokio::test]
    async fn a_shutdown_waits_for_no_handshake() {
        let served = served();
        let silent = TcpStream::connect(served.address).await.unwrap();
        // The silent one was accepted before this one, so its handshake has begun.
        let mut client = served.pair.connect(served.address).await;
        client.write_all(GET).await.unwrap();
        assert!(read_to_end(client).await.0.ends_with(b"works"));
        served.lifecycle.shut_down(Duration::ZERO, Duration::from_secs(600)).await;
        served.serving.await.unwrap();
        assert_eq!(read_to_end(silent).await.0, b"");
    }
}
