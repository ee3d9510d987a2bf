//! The HTTP client of one provider: its pool, its TLS, and its regular replacement.
//!
//! A client sends each request once: it never retries, follows redirects, asks a proxy, decompresses
//! or times out beyond the connect; whoever calls it watches the clock. It is replaced every few
//! minutes so that addresses are resolved anew, while the old one finishes what it began.

use super::BuildError;
use crate::domain::chance::Draw;
use reqwest::{Client, ClientBuilder, redirect, retry};
use rustls::{ClientConfig, RootCertStore};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Unused connections are closed after this: most providers keep theirs for 60 s, and one that is
/// closed from the other end costs an attempt.
const POOL_IDLE: Duration = Duration::from_secs(45);
/// Unused connections kept at most; beyond it they are closed at once.
const POOL_MAX_IDLE: usize = 256;
/// A client's age before its successor takes over, give or take a fifth.
const MAX_AGE: Duration = Duration::from_secs(5 * 60);
/// HTTP/2 only: a silent connection is asked whether it lives.
const PING_EVERY: Duration = Duration::from_secs(10);
/// HTTP/2 only: no answer to that for this long and it is given up.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The TLS configuration all clients share, session cache included.
#[derive(Clone)]
pub(super) struct Tls(Arc<ClientConfig>);

impl Tls {
    /// Trusts what the system trusts; where the system has no certificates, what Mozilla trusts.
    pub(super) fn load() -> Result<Self, BuildError> {
        let mut roots = RootCertStore::empty();
        let (added, _unreadable) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if added == 0 {
            roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| BuildError::Tls(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }

    fn speaking(&self, protocols: &[&[u8]]) -> ClientConfig {
        let mut config = ClientConfig::clone(&self.0);
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        config
    }
}

/// How a provider is connected to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Link {
    /// Whether it speaks TLS.
    pub(super) tls: bool,
    /// Whether to speak HTTP/2.
    pub(super) http2: bool,
    /// How long a connection may take to stand.
    pub(super) connect_timeout: Duration,
}

/// A client that is replaced from time to time.
pub(super) struct Pool {
    link: Link,
    tls: Tls,
    current: Mutex<Current>,
}

struct Current {
    client: Client,
    /// When its successor takes over; set when it is first used.
    until: Option<Instant>,
}

impl Pool {
    /// A pool without connections.
    pub(super) fn build(link: Link, tls: Tls) -> Result<Self, reqwest::Error> {
        let client = client(link, &tls)?;
        Ok(Self { link, tls, current: Mutex::new(Current { client, until: None }) })
    }

    /// The client to use at `now`; `draw` spreads the replacements.
    pub(super) fn client(&self, now: Instant, draw: Draw) -> Client {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match current.until {
            Some(until) if now < until => {}
            Some(_) => {
                // It could be built before, so this one is as good as certain; else the old one goes on.
                if let Ok(client) = client(self.link, &self.tls) {
                    current.client = client;
                }
                current.until = Some(now + age(draw));
            }
            None => current.until = Some(now + age(draw)),
        }
        current.client.clone()
    }
}

/// [`MAX_AGE`] ± 20 %.
fn age(draw: Draw) -> Duration {
    MAX_AGE.mul_f64(0.8 + 0.4 * draw.unit())
}

fn client(link: Link, tls: &Tls) -> Result<Client, reqwest::Error> {
    let builder = Client::builder()
        .retry(retry::never())
        .redirect(redirect::Policy::none())
        .referer(false)
        .no_proxy()
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        .connect_timeout(link.connect_timeout)
        .tcp_nodelay(true)
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(POOL_MAX_IDLE);
    protocol(builder, link, tls).build()
}

fn protocol(builder: ClientBuilder, link: Link, tls: &Tls) -> ClientBuilder {
    if !link.http2 {
        return builder.http1_only().tls_backend_preconfigured(tls.speaking(&[b"http/1.1"]));
    }
    let builder = builder
        .http2_adaptive_window(true)
        .http2_keep_alive_interval(PING_EVERY)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .http2_keep_alive_while_idle(true)
        .tls_backend_preconfigured(tls.speaking(&[b"h2", b"http/1.1"]));
    if link.tls { builder } else { builder.http2_prior_knowledge() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_lives_five_minutes_give_or_take_a_fifth() {
        assert_eq!(age(Draw(0)), Duration::from_secs(240));
        assert!(age(Draw(u64::MAX)) <= Duration::from_secs(360));
        assert!(age(Draw(u64::MAX)) > Duration::from_secs(359));
    }
}
