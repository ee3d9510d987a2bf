//! The URL of a store on a PostgreSQL server, read: hosts, credentials and TLS.
//!
//! It is the URL that other programs take, with one difference: encryption always verifies the server. Without `sslmode`
//! a server elsewhere must be encrypted, and one on this machine need not be.
//!
//! Start reading in [`PostgresLocation::of_url`].

use super::error::PostgresOpenError;
use super::tls::PostgresTls;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

/// How long one address may take to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long what was sent may stay unacknowledged before the connection counts as lost.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);
/// How long a connection is silent before it is probed.
const PROBED_AFTER: Duration = Duration::from_secs(15);

/// Where a database is, and how to connect to it.
#[derive(Clone)]
pub struct PostgresLocation {
    config: Config,
    tls: PostgresTls,
    place: String,
}

impl PostgresLocation {
    /// The database that `url` names. `roots` are trusted unless the URL names others.
    ///
    /// # Errors
    /// When the URL or a file that it names cannot be read.
    pub fn of_url(url: &str, roots: RootCertStore) -> Result<Self, PostgresOpenError> {
        let (rest, parameters) = url.split_once('?').unwrap_or((url, ""));
        let (mut mode, mut roots, mut kept) = (None, roots, Vec::new());
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=').unwrap_or((parameter, "")) {
                ("sslmode", value) => mode = Some(value.to_owned()),
                ("sslrootcert", path) => roots = roots_in(path)?,
                _ => kept.push(parameter),
            }
        }
        let separator = if kept.is_empty() { "" } else { "?" };
        let url = format!("{rest}{separator}{}", kept.join("&"));
        let mut config: Config = url.parse().map_err(|error| PostgresOpenError::Url(misread(&error)))?;
        if config.get_hosts().is_empty() {
            return Err(PostgresOpenError::Url("names no host; write postgres://USER@HOST/DATABASE".to_owned()));
        }
        config.ssl_mode(ssl_mode(mode.as_deref(), &config)?);
        // Of several hosts the one that can be written, so that a promoted standby is found.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        config.application_name("tierway").tcp_user_timeout(UNACKNOWLEDGED).keepalives_idle(PROBED_AFTER);
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        let place = place(&config);
        Ok(Self { config, tls: PostgresTls(Arc::new(trusting(roots))), place })
    }

    /// How to connect.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// How to encrypt.
    pub(super) fn tls(&self) -> PostgresTls {
        self.tls.clone()
    }
}

/// The hosts and the name of the database, without a password.
impl fmt::Display for PostgresLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

fn misread(error: &tokio_postgres::Error) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(" ({cause})")).unwrap_or_default();
    format!("cannot be read{cause}; write postgres://USER:PASSWORD@HOST:PORT/DATABASE, special characters as %XX")
}

fn ssl_mode(written: Option<&str>, config: &Config) -> Result<SslMode, PostgresOpenError> {
    match written {
        Some("disable") => Ok(SslMode::Disable),
        Some("require" | "verify-full") => Ok(SslMode::Require),
        None if config.get_hosts().iter().all(is_of_this_machine) => Ok(SslMode::Disable),
        None => Ok(SslMode::Require),
        Some(other) => Err(PostgresOpenError::Url(format!(
            "has sslmode={other}, which does not say which server answers; write sslmode=verify-full, or sslmode=disable \
             without encryption"
        ))),
    }
}

fn is_of_this_machine(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()),
        Host::Unix(_) => true,
    }
}

fn roots_in(path: &str) -> Result<RootCertStore, PostgresOpenError> {
    let path = percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned();
    let failed = |why: String| PostgresOpenError::RootCertificates { path: path.clone(), why };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&path).map_err(|error| failed(error.to_string()))? {
        roots
            .add(certificate.map_err(|error| failed(error.to_string()))?)
            .map_err(|error| failed(error.to_string()))?;
    }
    if roots.is_empty() { Err(failed("there is none in it".to_owned())) } else { Ok(roots) }
}

fn trusting(roots: RootCertStore) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.expect("the provider has what the default versions of TLS need");
    builder.with_root_certificates(roots).with_no_client_auth()
}

fn place(config: &Config) -> String {
    let ports = config.get_ports();
    let host = |(at, host): (usize, &Host)| {
        let port = ports.get(at).or(ports.first()).copied().unwrap_or(5432);
        match host {
            Host::Tcp(name) => format!("{name}:{port}"),
            Host::Unix(folder) => format!("{}/.s.PGSQL.{port}", folder.display()),
        }
    };
    let hosts: Vec<String> = config.get_hosts().iter().enumerate().map(host).collect();
    let database = config.get_dbname().or(config.get_user()).map(|name| format!("/{name}")).unwrap_or_default();
    format!("{}{database}", hosts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str) -> Result<PostgresLocation, String> {
        PostgresLocation::of_url(url, RootCertStore::empty()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_server_elsewhere_must_be_encrypted() {
        let check = |url: &str, expected: SslMode, place: &str| {
            let location = of(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!((location.config.get_ssl_mode(), &*location.to_string()), (expected, place), "{url}");
        };
        check("postgres://me:hush@db.example/x", SslMode::Require, "db.example:5432/x");
        check("postgres://me:hush@db.example/x?sslmode=disable", SslMode::Disable, "db.example:5432/x");
        check("postgresql://me@127.0.0.1:5433/x", SslMode::Disable, "127.0.0.1:5433/x");
        check("postgres://me@[::1]/x?sslmode=verify-full", SslMode::Require, "::1:5432/x");
        check("postgres://me@%2Frun%2Fpg/x", SslMode::Disable, "/run/pg/.s.PGSQL.5432/x");
        check("postgres://me@a:1,b:2/x?connect_timeout=1", SslMode::Require, "a:1,b:2/x");
    }

    #[test]
    fn what_is_wrong_with_a_url_is_one_sentence_without_its_password() {
        let check = |url: &str, expected: &str| {
            let message = of(url).err().unwrap_or_else(|| panic!("{url} was taken"));
            assert!(message.contains(expected) && !message.contains("hush"), "{url}: {message}");
        };
        check("postgres://me:hush@db/x?sslmode=prefer", "sslmode=prefer, which does not say which server answers");
        check("postgres://me:hush@db/x?nonsense=1", "cannot be read");
        check("postgres://me:hush@db:port/x", "cannot be read");
        check("postgres:///x", "names no host");
        check("postgres://me:hush@db/x?sslrootcert=/nowhere.pem", "sslrootcert=/nowhere.pem cannot be read");
    }
}
