//! TLS for those who connect: the handshake, and a socket that is plain or not.
//!
//! Which certificate is shown is asked for each handshake, so that a renewed one is served from the
//! next connection on. No time is kept here: whoever accepts a connection bounds the handshake as it
//! bounds a head. A failed handshake is the client's affair and is counted, never logged as ours.
//!
//! Start reading in [`Tls::greet`].

use crate::relay::Relay;
use crate::telemetry::Telemetry;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What we speak, the better one first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// The first byte of a handshake (RFC 8446, 5.1). No HTTP begins with it.
const HANDSHAKE: u8 = 22;
/// What a client is told that speaks plain HTTP here.
const WRONG_SCHEME: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 54\r\n\
    connection: close\r\n\r\nThis port speaks HTTPS: write https:// in place of it.\n";
/// As much of what such a client said is read as one packet holds: what is left unread may cost it the answer.
const SCRAP: usize = 16 * 1024;

/// How connections to one address begin with TLS.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    telemetry: Arc<Telemetry>,
}

impl Tls {
    /// TLS 1.2 and 1.3, with whatever certificate `certificates` has at the time.
    pub fn new(certificates: Arc<dyn ResolvesServerCert>, telemetry: Arc<Telemetry>) -> Self {
        // Given here, so that nothing depends on which provider the process has installed.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("this provider has cipher suites for both versions")
            .with_no_client_auth()
            .with_cert_resolver(certificates);
        config.alpn_protocols = PROTOCOLS.map(Vec::from).into();
        Self { acceptor: TlsAcceptor::from(Arc::new(config)), telemetry }
    }

    /// The handshake; `None` when it came to nothing.
    pub async fn greet(&self, mut socket: TcpStream) -> Option<Socket> {
        match first_byte(&socket).await {
            Some(HANDSHAKE) => {}
            // It went without a word, as load balancers do to see whether we live.
            None => return None,
            Some(_) => {
                refuse_plain_http(&mut socket).await;
                return None;
            }
        }
        match self.acceptor.accept(socket).await {
            Ok(stream) => Some(Socket::Tls(Box::new(stream))),
            Err(error) => {
                self.telemetry.metrics.tls_handshake_failed();
                tracing::debug!(%error, "a TLS handshake failed");
                None
            }
        }
    }
}

/// Left in its place for the handshake.
async fn first_byte(socket: &TcpStream) -> Option<u8> {
    let mut first = [0];
    let read = socket.peek(&mut first).await.unwrap_or(0);
    (read > 0).then_some(first[0])
}

/// Says so in words, as far as the client listens.
async fn refuse_plain_http(socket: &mut TcpStream) {
    let _ = socket.try_read(&mut [0; SCRAP]);
    if socket.write_all(WRONG_SCHEME).await.is_ok() {
        let _ = socket.shutdown().await;
    }
}

/// Shows the certificate of the configuration in force.
pub struct InForce(pub Arc<Relay>);

impl ResolvesServerCert for InForce {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.live().snapshot.server.tls.as_ref().map(|tls| tls.certified.clone())
    }
}

impl fmt::Debug for InForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InForce")
    }
}

/// A connection's bytes. A plain one pays for TLS with a branch; TLS, with its buffers, lies elsewhere.
pub enum Socket {
    /// As they travel.
    Plain(TcpStream),
    /// Behind a handshake. Dropped without a shutdown it says no `close_notify`, so that a client
    /// can tell an answer that broke off from one that ended.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Tls(socket) => Pin::new(socket).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Tls(socket) => Pin::new(socket).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Self::Tls(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(socket) => socket.is_write_vectored(),
            Self::Tls(socket) => socket.is_write_vectored(),
        }
    }

    /// With TLS, ready only when the last sealed byte is with the system: whoever waits for a flush
    /// before it aborts loses nothing.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}
