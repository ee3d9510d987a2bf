//! Asks a running gateway: one request on a connection of its own.
//!
//! It sends a token or a key, so over TLS it talks to two kinds of certificates only: the one that the configuration names, and
//! those that the system trusts. It must never follow a redirect, and never print the token.
//!
//! Start reading at [`GatewayClient::request`] for an answer as a whole, and at [`GatewayClient::send`] for one as it comes.

use crate::cli::store::CommandError;
use crate::cli::trusted_roots::trusted_roots;
use crate::clock::Clock;
use crate::config::{ListenAddress, ListenAddressError};
use crate::domain::secret::Secret;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_util::either::Either;

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer that is read, in bytes.
const ANSWER_MOST: usize = 64 << 20;

/// Where and how a gateway is asked.
pub(super) struct GatewayClient {
    /// Where it is.
    pub(super) url: GatewayUrl,
    /// The token of an operator, or a key.
    token: Secret,
    /// The certificate of the configuration, for an address that serves TLS.
    known: Option<CertificateDer<'static>>,
    /// What TLS is spoken with, once it was: the certificates that the system trusts are many.
    tls: OnceLock<Arc<ClientConfig>>,
}

/// Where a gateway serves operators.
#[derive(Clone, Debug)]
pub(super) struct GatewayUrl {
    /// Scheme and authority; a path of its own goes before that of the question.
    pub(super) url: Uri,
    /// The file of the socket that it listens on, if it is one.
    pub(super) socket: Option<PathBuf>,
}

impl GatewayUrl {
    /// A gateway that serves `scheme` at `address`; `None` where the system chose its port.
    pub(super) fn of(scheme: &str, address: &ListenAddress) -> Option<Self> {
        let authority = address.reachable().map_or_else(|| "localhost".to_owned(), |at| at.to_string());
        if address.reachable().is_some_and(|at| at.port() == 0) {
            return None;
        }
        let url = format!("{scheme}://{authority}").parse().ok()?;
        Some(Self { url, socket: address.socket_file().map(Path::to_owned) })
    }
}

impl FromStr for GatewayUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with("unix:") {
            let address: ListenAddress = text.parse().map_err(|error: ListenAddressError| error.to_string())?;
            return Self::of("http", &address).ok_or_else(|| "has no port".to_owned());
        }
        let url: Uri = text.parse().map_err(|_| "write it like http://127.0.0.1:8080 or unix:/path")?;
        match (url.scheme_str(), url.host(), url.query()) {
            (Some("http" | "https"), Some(_), None) => Ok(Self { url, socket: None }),
            _ => Err("write scheme, host and port: http://127.0.0.1:8080, or unix:/path".to_owned()),
        }
    }
}

impl fmt::Display for GatewayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.socket {
            Some(path) => write!(f, "unix:{}", path.display()),
            None => self.url.fmt(f),
        }
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum GatewayClientError {
    /// The gateway was not reached, or does not speak HTTP.
    Unreachable(String),
    /// The gateway refused the token.
    Token,
    /// It answered with another status.
    Status(StatusCode),
}

impl GatewayClient {
    /// Asks the gateway at `url` with `token`, an operator's or a key. `known` is the certificate of the configuration, if
    /// that serves TLS.
    pub(super) fn new(url: GatewayUrl, token: Secret, known: Option<CertificateDer<'static>>) -> Self {
        Self { url, token, known, tls: OnceLock::new() }
    }

    /// The body of the answer to `method` at `path`.
    ///
    /// # Errors
    /// [`GatewayClientError`]; any other status than 200 is one.
    pub(super) async fn request(&self, method: Method, path: &str) -> Result<Bytes, GatewayClientError> {
        match self.exchange(method, path, None).await? {
            (StatusCode::OK, body) => Ok(body),
            (StatusCode::UNAUTHORIZED, _) => Err(GatewayClientError::Token),
            (status, _) => Err(GatewayClientError::Status(status)),
        }
    }

    /// Status and body of the answer to `method` at `path` with the JSON `body`, if any.
    ///
    /// # Errors
    /// [`GatewayClientError::Unreachable`], also where the answer takes too long.
    pub(super) async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<(StatusCode, Bytes), GatewayClientError> {
        tokio::select! {
            answer = self.whole(method, path, body) => answer,
            () = Clock.sleep(PATIENCE) => Err(GatewayClientError::Unreachable(format!("no answer within {} s", PATIENCE.as_secs()))),
        }
    }

    async fn whole(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<(StatusCode, Bytes), GatewayClientError> {
        let answer = self.send(method, path, body).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_MOST).collect().await;
        let body = body.map_err(|error| GatewayClientError::Unreachable(error.to_string()))?;
        Ok((status, body.to_bytes()))
    }

    /// What is said to an operator whose question met `error`.
    pub(super) fn refused(&self, error: GatewayClientError) -> CommandError {
        let url = &self.url;
        match error {
            GatewayClientError::Unreachable(why) => CommandError::failed(format!(
                "no gateway answers at {url}: {why}\n  help: is it running, and is this where it serves operators \
                 (server.admin_listen, else server.listen)? --url names another address"
            )),
            GatewayClientError::Token => CommandError::failed(format!(
                "the gateway at {url} refuses the token\n  help: put its admin token or viewer token into \
                 TIERWAY_ADMIN_TOKEN; one that was made at its start was printed there"
            )),
            GatewayClientError::Status(status) => {
                CommandError::failed(format!("the gateway at {url} answers {status}"))
            }
        }
    }

    /// The answer to `method` at `path` with the JSON `body`, if any: its head, and its body as it comes. Nothing limits
    /// how long it may take.
    ///
    /// # Errors
    /// [`GatewayClientError::Unreachable`].
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<Response<Incoming>, GatewayClientError> {
        let GatewayUrl { url, socket } = &self.url;
        let is_tls = url.scheme_str() == Some("https");
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let stream = match socket {
            Some(path) => Either::Left(UnixStream::connect(path).await.map_err(unreachable)?),
            None => Either::Right(TcpStream::connect((host, port)).await.map_err(unreachable)?),
        };
        let request = self.write(method, path, body)?;
        if !is_tls {
            return sent(stream, request).await;
        }
        let config = match self.tls.get() {
            Some(config) => config.clone(),
            None => {
                let config = KnownOrTrusted::config(self.known.clone())?;
                self.tls.get_or_init(|| Arc::new(config)).clone()
            }
        };
        let name = ServerName::try_from(host.to_owned()).map_err(unreachable)?;
        let stream = TlsConnector::from(config).connect(name, stream).await.map_err(unreachable)?;
        sent(stream, request).await
    }

    fn write(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<Request<Full<Bytes>>, GatewayClientError> {
        let mut token = HeaderValue::try_from(format!("Bearer {}", self.token.expose())).map_err(unreachable)?;
        token.set_sensitive(true);
        let url = &self.url.url;
        let authority = url.authority().map_or("", |authority| authority.as_str());
        let path = format!("{}{path}", url.path().trim_end_matches('/'));
        let mut request =
            Request::builder().method(method).uri(path).header(HOST, authority).header(AUTHORIZATION, token);
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        request.body(Full::new(body.unwrap_or_default())).map_err(unreachable)
    }
}

async fn sent(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, GatewayClientError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(unreachable)?;
    // It ends with the answer, or with this command.
    tokio::spawn(async { drop(connection.await) });
    sender.send_request(request).await.map_err(unreachable)
}

/// With its causes: hyper and rustls name the real one last.
fn unreachable(error: impl Error + 'static) -> GatewayClientError {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    GatewayClientError::Unreachable(text)
}

/// Accepts the certificate of the configuration whatever its name, and any other one as the system does.
struct KnownOrTrusted {
    known: Option<CertificateDer<'static>>,
    trusted: Arc<WebPkiServerVerifier>,
}

impl KnownOrTrusted {
    fn config(known: Option<CertificateDer<'static>>) -> Result<ClientConfig, GatewayClientError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let trusted = WebPkiServerVerifier::builder_with_provider(Arc::new(trusted_roots()), provider.clone());
        let trusted = trusted.build().map_err(unreachable)?;
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let verifier = Arc::new(Self { known, trusted });
        Ok(builder.map_err(unreachable)?.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
    }
}

impl fmt::Debug for KnownOrTrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnownOrTrusted").finish_non_exhaustive()
    }
}

impl ServerCertVerifier for KnownOrTrusted {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.known.as_ref().is_some_and(|known| known == end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        self.trusted.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.trusted.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.trusted.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trusted.supported_verify_schemes()
    }
}
