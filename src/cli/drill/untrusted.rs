//! A host whose certificate nobody trusts: it signed it itself, and it expired long ago.
//!
//! A gateway that sends it anything but a handshake would send its credential to whoever answers in a provider's place. The
//! certificate and its key are files beside this one: they protect nothing, and no client accepts them.
//!
//! Start reading at [`UntrustedHost::start`].

use crate::domain::drill::judge::UntrustedHostRecord;
use anyhow::Context;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

const CERTIFICATE: &[u8] = include_bytes!("untrusted/certificate.der");
const KEY: &[u8] = include_bytes!("untrusted/key.der");

/// The host, until it is dropped.
pub(super) struct UntrustedHost {
    pub(super) address: SocketAddr,
    seen: Arc<SeenCounters>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct SeenCounters {
    connections: AtomicUsize,
    requests: AtomicUsize,
}

impl UntrustedHost {
    /// Listens on a free port of loopback.
    ///
    /// # Errors
    /// The system gives none.
    pub(super) async fn start() -> anyhow::Result<Self> {
        let key = PrivateKeyDer::try_from(KEY).map_err(anyhow::Error::msg)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![CertificateDer::from(CERTIFICATE)], key)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.context("loopback has no free port")?;
        let (address, seen) = (listener.local_addr()?, Arc::new(SeenCounters::default()));
        let counted = seen.clone();
        let serving = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                counted.connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(meet(socket, acceptor.clone(), counted.clone()));
            }
        });
        Ok(Self { address, seen, serving })
    }

    /// What has reached it.
    pub(super) fn reach(&self) -> UntrustedHostRecord {
        UntrustedHostRecord {
            connections: self.seen.connections.load(Ordering::Relaxed),
            requests: self.seen.requests.load(Ordering::Relaxed),
        }
    }
}

impl Drop for UntrustedHost {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Counts a client that goes on although it saw the certificate.
async fn meet(socket: TcpStream, acceptor: TlsAcceptor, seen: Arc<SeenCounters>) {
    let Ok(mut stream) = acceptor.accept(socket).await else { return };
    if stream.read(&mut [0]).await.is_ok_and(|read| read > 0) {
        seen.requests.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::healthcheck::trusting;
    use rustls::pki_types::ServerName;
    use tokio::io::AsyncWriteExt;
    use tokio_rustls::TlsConnector;

    #[tokio::test]
    async fn a_client_that_accepts_everything_is_found_out() {
        let host = UntrustedHost::start().await.expect("loopback has a free port");
        let config = trusting().expect("this provider has both versions");
        let socket = TcpStream::connect(host.address).await.expect("it listens");
        let name = ServerName::try_from("localhost").expect("it is a name");
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await.expect("it accepts all");
        stream.write_all(b"POST / HTTP/1.1\r\n").await.expect("it reads");
        stream.flush().await.expect("it reads");
        // It hangs up once it has read.
        let _ = stream.read(&mut [0]).await;
        assert_eq!(host.reach(), UntrustedHostRecord { connections: 1, requests: 1 });
    }
}
