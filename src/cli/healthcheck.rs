//! `tierway healthcheck`: asks a running gateway whether it is alive.
//!
//! A container without a shell or curl can run it against itself, so it implements just enough HTTP and reads only
//! the status. It uses plain HTTP, and TLS if the answer shows that the gateway serves TLS. It accepts any
//! certificate: it sends no secret, and `tierway check` and the metrics report the state of the certificate.

use clap::Args;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Arguments of `healthcheck`.
#[derive(Args, Debug)]
pub(super) struct HealthcheckArgs {
    /// Where the gateway listens
    #[arg(long, value_name = "ADDRESS", env = "TIERWAY__SERVER__LISTEN", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// What to ask
    #[arg(long, value_name = "PATH", default_value = "/healthz")]
    path: String,
}

/// Timeout of connecting, reading and writing.
const PATIENCE: Duration = Duration::from_secs(3);

/// Exits with 0 if the gateway answers with a 2xx, else with 1.
pub(super) fn healthcheck(args: &HealthcheckArgs) -> anyhow::Result<ExitCode> {
    let mut address = args.listen;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() {
            std::net::Ipv4Addr::LOCALHOST.into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    let status = ask_either_way(address, &args.path).map_err(|error| anyhow::anyhow!("{address}: {error}"))?;
    let healthy = code(&status).is_some_and(|code| code.len() == 3 && code.starts_with('2'));
    println!("{address}{}: {}", args.path, status.trim());
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn code(status: &str) -> Option<&str> {
    status.split(' ').nth(1)
}

/// The status line of the answer, over TLS if plain HTTP is answered with 400.
fn ask_either_way(address: SocketAddr, path: &str) -> io::Result<String> {
    let plain = ask(connect(address)?, address, path)?;
    if code(&plain) != Some("400") {
        return Ok(plain);
    }
    let config = trusting().map_err(io::Error::other)?;
    let session = ClientConnection::new(Arc::new(config), address.ip().into()).map_err(io::Error::other)?;
    // If TLS fails as well, the first answer counts.
    Ok(ask(StreamOwned::new(session, connect(address)?), address, path).unwrap_or(plain))
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn ask(mut stream: impl Read + Write, address: SocketAddr, path: &str) -> io::Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let mut status = String::new();
    BufReader::new(stream).read_line(&mut status)?;
    Ok(status)
}

/// A TLS configuration that accepts any certificate.
fn trusting() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Arc::new(AcceptAnyCertificate(provider.signature_verification_algorithms));
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

/// Accepts any certificate; the signature is still verified against it.
#[derive(Debug)]
struct AcceptAnyCertificate(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AcceptAnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
