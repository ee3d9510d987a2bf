//! TLS to the database, by rustls: the certificate and the host's name are verified, always.

use rustls::pki_types::ServerName;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Socket;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect};
use tokio_rustls::client::TlsStream;

/// Makes TLS connections that trust what its configuration trusts.
#[derive(Clone)]
pub(super) struct PostgresTls(pub(super) Arc<rustls::ClientConfig>);

impl MakeTlsConnect<Socket> for PostgresTls {
    type Stream = EncryptedStream;
    type TlsConnect = HostTls;
    type Error = io::Error;

    /// It is asked for before it is known whether there will be TLS: a socket has no name.
    fn make_tls_connect(&mut self, host: &str) -> io::Result<HostTls> {
        Ok(HostTls { config: self.0.clone(), host: ServerName::try_from(host.to_owned()).ok() })
    }
}

/// The same for one host.
pub(super) struct HostTls {
    config: Arc<rustls::ClientConfig>,
    host: Option<ServerName<'static>>,
}

impl TlsConnect<Socket> for HostTls {
    type Stream = EncryptedStream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<EncryptedStream>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move {
            let connector = tokio_rustls::TlsConnector::from(self.config);
            let host =
                self.host.ok_or_else(|| io::Error::other("the host has no name that a certificate could have"))?;
            connector.connect(host, socket).await.map(|stream| EncryptedStream(Box::new(stream)))
        })
    }
}

/// An encrypted connection.
pub(super) struct EncryptedStream(Box<TlsStream<Socket>>);

impl tokio_postgres::tls::TlsStream for EncryptedStream {
    /// None is offered: the certificate is verified instead.
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for EncryptedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for EncryptedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
