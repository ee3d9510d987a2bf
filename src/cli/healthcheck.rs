//! `tierway healthcheck`: asks a running gateway whether it is alive.
//!
//! A container without a shell or curl can run it against itself, so it implements just enough HTTP and reads only
//! the status. It uses plain HTTP, and TLS if the answer shows that the gateway serves TLS. It accepts any
//! certificate: it sends no secret, and `tierway check` and the metrics report the state of the certificate.

use crate::config::ListenAddress;
use clap::Args;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Arguments of `healthcheck`.
#[derive(Args, Debug)]
pub(super) struct HealthcheckArgs {
    /// Where the gateway listens
    #[arg(long, value_name = "ADDRESS", env = "TIERWAY__SERVER__LISTEN", default_value = "127.0.0.1:8080")]
    listen: ListenAddress,
    /// What to ask
    #[arg(long, value_name = "PATH", default_value = "/healthz")]
    path: String,
}

/// Timeout of connecting, reading and writing.
const PATIENCE: Duration = Duration::from_secs(3);

/// A connection of either kind.
trait Transport: Read + Write {}

impl<T: Read + Write> Transport for T {}

/// Exits with 0 if the gateway answers with a 2xx, else with 1.
pub(super) fn healthcheck(args: &HealthcheckArgs) -> anyhow::Result<ExitCode> {
    // As it was written, where nothing can be connected to under that name.
    let address = args.listen.reachable().map_or_else(|| args.listen.clone(), Into::into);
    let status = ask_either_way(&address, &args.path).map_err(|error| anyhow::anyhow!("{address}: {error}"))?;
    let healthy = code(&status).is_some_and(|code| code.len() == 3 && code.starts_with('2'));
    println!("{address}{}: {}", args.path, status.trim());
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether a gateway serves `address`.
pub(super) fn answers(address: &ListenAddress) -> bool {
    let address = address.reachable().map_or_else(|| address.clone(), Into::into);
    ask_either_way(&address, "/livez").is_ok_and(|status| code(&status) == Some("200"))
}

fn code(status: &str) -> Option<&str> {
    status.split(' ').nth(1)
}

/// The status line of the answer, over TLS if plain HTTP is answered with 400.
fn ask_either_way(address: &ListenAddress, path: &str) -> io::Result<String> {
    let at = address.reachable();
    let host = at.map_or_else(|| "localhost".to_owned(), |at| at.to_string());
    let plain = ask(connect(address)?, &host, path)?;
    if code(&plain) != Some("400") {
        return Ok(plain);
    }
    let config = trusting().map_err(io::Error::other)?;
    let name = at.map_or_else(|| ServerName::try_from("localhost"), |at| Ok(at.ip().into()));
    let session = ClientConnection::new(Arc::new(config), name.map_err(io::Error::other)?);
    let session = session.map_err(io::Error::other)?;
    // If TLS fails as well, the first answer counts.
    Ok(ask(StreamOwned::new(session, connect(address)?), &host, path).unwrap_or(plain))
}

fn connect(address: &ListenAddress) -> io::Result<Box<dyn Transport>> {
    let Some(at) = address.reachable() else {
        let stream = UnixStream::connect(address.socket_file().unwrap_or(Path::new("")))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        return Ok(Box::new(stream));
    };
    let stream = TcpStream::connect_timeout(&at, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(Box::new(stream))
}

fn ask(mut stream: impl Read + Write, host: &str, path: &str) -> io::Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let mut status = String::new();
    BufReader::new(stream).read_line(&mut status)?;
    Ok(status)
}

/// A TLS configuration that accepts any certificate.
pub(super) fn trusting() -> Result<ClientConfig, rustls::Error> {
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
