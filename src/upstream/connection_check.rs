//! The way to a host, step by step: its name, a connection, what the proxy does, TLS.
//!
//! Operators ask for it before they serve, to learn which step fails and how; no request of a client comes here. It sends
//! nothing to the host but what TLS needs, and never shows the proxy's password.
//!
//! Start reading at [`connect`].

use super::NetworkSetup;
use super::client::ClientTls;
use crate::clock::Clock;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use reqwest::Url;
use rustls::CertificateError;
use rustls::pki_types::{CertificateDer, ServerName};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long a step may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest head of a proxy's answer, in bytes.
const MAX_PROXY_HEAD: usize = 16 * 1024;

/// A step on the way to a host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectionKind {
    /// The name is looked up; an address has none.
    Dns,
    /// A connection is opened.
    Tcp,
    /// The proxy is asked to connect.
    Proxy,
    /// TLS is agreed.
    Tls,
}

/// What is wrong with a step, as far as it decides what to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectionFault {
    /// Nothing came in time.
    Timeout,
    /// The proxy wants a user and a password, or others.
    ProxyPassword,
    /// The certificate is of an authority that is not trusted.
    Authority,
    /// The certificate has ended.
    Expired,
    /// The certificate does not begin yet.
    NotYetValid,
    /// The certificate is for other names.
    OtherName,
    /// The host does not speak TLS.
    NoTls,
    /// What was said says it.
    Other,
}

/// Why a step failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectionProblem {
    /// What kind of fault it is.
    pub fault: ConnectionFault,
    /// What the system, the proxy or TLS says.
    pub said: Box<str>,
}

/// How one step went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectionRecord {
    /// The step that this is about.
    pub kind: ConnectionKind,
    /// The name that was looked up, the address that was connected to, or the host and its port.
    pub about: Box<str>,
    /// From the step before to its end.
    pub elapsed: Duration,
    /// Why it failed; no step follows then.
    pub problem: Option<ConnectionProblem>,
    /// TLS alone: the certificate that the host showed, in DER.
    pub certificate: Option<CertificateDer<'static>>,
}

impl ConnectionProblem {
    fn other(said: impl ToString) -> Self {
        Self { fault: ConnectionFault::Other, said: said.to_string().into() }
    }
}

/// Goes the way to the host of `setup`, as far as it leads.
pub(super) async fn connect(setup: &NetworkSetup, tls: &ClientTls, clock: Clock) -> Vec<ConnectionRecord> {
    let mut steps = ConnectionSteps { records: Vec::new(), clock };
    // Where a step fails, its record says why.
    let _ = steps.go(setup, tls).await;
    steps.records
}

struct ConnectionSteps {
    records: Vec<ConnectionRecord>,
    clock: Clock,
}

impl ConnectionSteps {
    async fn go(&mut self, setup: &NetworkSetup, tls: &ClientTls) -> Option<()> {
        // Both were read when the provider was built.
        let host = Url::parse(&setup.base_url).ok()?;
        let proxy = setup.connection.proxy.as_ref().and_then(|url| Url::parse(url.expose()).ok());
        let (name, port) = name_and_port(proxy.as_ref().unwrap_or(&host))?;
        let found = match name.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => self.step(ConnectionKind::Dns, &name, look_up(&name, port)).await?,
        };
        let about = found.first().map(ToString::to_string).unwrap_or_default();
        let mut stream = self.step(ConnectionKind::Tcp, &about, open(&found)).await?;
        if host.scheme() != "https" {
            return Some(());
        }
        let (name, port) = name_and_port(&host)?;
        let about = format!("{name}:{port}");
        if let Some(proxy) = &proxy {
            stream = self.step(ConnectionKind::Proxy, &about, tunnel(stream, &host, proxy)).await?;
        }
        let certificate = self.step(ConnectionKind::Tls, &about, shake_hands(stream, &name, tls)).await?;
        self.records.last_mut()?.certificate = certificate;
        Some(())
    }

    async fn step<T>(
        &mut self,
        kind: ConnectionKind,
        about: &str,
        done: impl Future<Output = Result<T, ConnectionProblem>>,
    ) -> Option<T> {
        let start = self.clock.now();
        let done = tokio::select! {
            done = done => done,
            () = self.clock.sleep(PATIENCE) => {
                let said = format!("nothing came within {} s", PATIENCE.as_secs()).into();
                Err(ConnectionProblem { fault: ConnectionFault::Timeout, said })
            }
        };
        let (value, problem) = match done {
            Ok(value) => (Some(value), None),
            Err(problem) => (None, Some(problem)),
        };
        let elapsed = self.clock.now() - start;
        self.records.push(ConnectionRecord { kind, about: about.into(), elapsed, problem, certificate: None });
        value
    }
}

/// The host and the port of `url`, an address without its brackets.
fn name_and_port(url: &Url) -> Option<(String, u16)> {
    let name = url.host_str()?.trim_matches(['[', ']']).to_owned();
    Some((name, url.port_or_known_default()?))
}

async fn look_up(name: &str, port: u16) -> Result<Vec<SocketAddr>, ConnectionProblem> {
    let found: Vec<SocketAddr> =
        tokio::net::lookup_host((name, port)).await.map_err(ConnectionProblem::other)?.collect();
    if found.is_empty() { Err(ConnectionProblem::other("it has no address")) } else { Ok(found) }
}

/// The first of the addresses that takes a connection.
async fn open(addresses: &[SocketAddr]) -> Result<TcpStream, ConnectionProblem> {
    let mut last = ConnectionProblem::other("it has no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = ConnectionProblem::other(error),
        }
    }
    Err(last)
}

/// Has `proxy` connect to `host`.
async fn tunnel(mut stream: TcpStream, host: &Url, proxy: &Url) -> Result<TcpStream, ConnectionProblem> {
    let (name, port) = (host.host_str().unwrap_or_default(), host.port_or_known_default().unwrap_or(443));
    let authorization = match (proxy.username(), proxy.password()) {
        ("", None) => String::new(),
        (user, password) => {
            let decoded = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
            let both = format!("{}:{}", decoded(user), decoded(password.unwrap_or_default()));
            format!("proxy-authorization: Basic {}\r\n", STANDARD.encode(both))
        }
    };
    let request = format!("CONNECT {name}:{port} HTTP/1.1\r\nhost: {name}:{port}\r\n{authorization}\r\n");
    stream.write_all(request.as_bytes()).await.map_err(ConnectionProblem::other)?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        // One at a time: what follows is TLS.
        match stream.read_u8().await {
            Ok(byte) if head.len() < MAX_PROXY_HEAD => head.push(byte),
            Ok(_) => return Err(ConnectionProblem::other("its answer does not end")),
            Err(_) => return Err(ConnectionProblem::other("it closed the connection")),
        }
    }
    let status = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
    match status.split(' ').nth(1).and_then(|code| code.parse::<u16>().ok()) {
        Some(200..=299) => Ok(stream),
        Some(407) => Err(ConnectionProblem { fault: ConnectionFault::ProxyPassword, said: status.into() }),
        _ => Err(ConnectionProblem::other(status)),
    }
}

/// Agrees TLS with the host called `name`; the certificate that it shows.
async fn shake_hands(
    stream: TcpStream,
    name: &str,
    tls: &ClientTls,
) -> Result<Option<CertificateDer<'static>>, ConnectionProblem> {
    let server = ServerName::try_from(name.to_owned()).map_err(ConnectionProblem::other)?;
    let connector = TlsConnector::from(Arc::new(tls.offering(&[b"http/1.1"])));
    let stream = connector.connect(server, stream).await.map_err(|error| refused(&error))?;
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    Ok(certificates.first().map(|first| first.clone().into_owned()))
}

fn refused(error: &io::Error) -> ConnectionProblem {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    let fault = match cause {
        Some(rustls::Error::InvalidCertificate(certificate)) => match certificate {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => ConnectionFault::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => ConnectionFault::NotYetValid,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                ConnectionFault::OtherName
            }
            // One that is called like a trusted one, and has another key, is not trusted either.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => ConnectionFault::Authority,
            _ => ConnectionFault::Other,
        },
        Some(rustls::Error::InvalidMessage(_)) => ConnectionFault::NoTls,
        _ => ConnectionFault::Other,
    };
    ConnectionProblem { fault, said: error.to_string().into() }
}

#[cfg(test)]
mod tests {
    use super::super::testing::setup;
    use super::super::{ProviderProtocol, ProviderSetup};
    use super::*;
    use crate::domain::secret::Secret;
    use tokio::net::TcpListener;

    async fn gone(base_url: &str, proxy: Option<String>) -> Vec<(ConnectionKind, Option<ConnectionFault>)> {
        let ProviderSetup { protocol: ProviderProtocol::Network(mut host), .. } = setup(base_url.to_owned()) else {
            unreachable!("the setup is OpenAI's")
        };
        host.connection.proxy = proxy.map(Secret::new);
        let tls = ClientTls::load().expect("TLS is there");
        let records = connect(&host, &tls, Clock).await;
        records.iter().map(|record| (record.kind, record.problem.as_ref().map(|problem| problem.fault))).collect()
    }

    /// What answers every connection with `answer`, and reads nothing.
    async fn answering(answer: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let at = listener.local_addr().expect("a bound listener has an address");
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut asked = [0; 1024];
                let _ = socket.read(&mut asked).await;
                let _ = socket.write_all(answer).await;
            }
        });
        at
    }

    #[tokio::test]
    async fn the_way_ends_where_a_step_fails() {
        use ConnectionFault::{NoTls, Other, ProxyPassword};
        use ConnectionKind::{Dns, Proxy, Tcp, Tls};
        let plain = answering(b"HTTP/1.1 400 Bad\r\n\r\n").await;
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let nobody = free.expect("loopback has a free port");
        // A label of a name has at most 63 characters: no name server is asked.
        let impossible = format!("https://{}.test/v1", "x".repeat(64));
        assert_eq!(gone(&impossible, None).await, [(Dns, Some(Other))]);
        assert_eq!(gone(&format!("https://{nobody}/v1"), None).await, [(Tcp, Some(Other))]);
        assert_eq!(gone(&format!("http://{plain}/v1"), None).await, [(Tcp, None)]);
        let named = format!("http://localhost:{}/v1", plain.port());
        assert_eq!(gone(&named, None).await, [(Dns, None), (Tcp, None)]);
        let steps = gone(&format!("https://{plain}/v1"), None).await;
        assert_eq!(steps, [(Tcp, None), (Tls, Some(NoTls))]);
        let wants_password = answering(b"HTTP/1.1 407 Who\r\n\r\n").await;
        for (proxy, fault) in [(wants_password, ProxyPassword), (plain, Other)] {
            let steps = gone(&format!("https://{plain}/v1"), Some(format!("http://{proxy}"))).await;
            assert_eq!(steps, [(Tcp, None), (Proxy, Some(fault))]);
        }
    }
}
