//! The HTTP clients of one provider: their pools, their TLS, and their regular replacement.
//!
//! Each runtime that sends has a client of its own: a connection's task runs in the runtime that connected, and no
//! request is to wake another thread or to wait for its lock.
//!
//! A client sends each request once: it never retries, follows redirects, asks a proxy that its provider does not name,
//! decompresses or times out beyond the connect; whoever calls it watches the clock. It is replaced every few
//! minutes so that addresses are resolved anew, while the old one finishes its requests.

use super::BuildError;
use crate::domain::random::RandomValue;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use reqwest::{Client, ClientBuilder, Proxy, redirect, retry};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::{self, Handle};

/// Unused connections are closed after this: most providers keep theirs for 60 s, and one that is
/// closed from the other end costs an attempt.
const POOL_IDLE: Duration = Duration::from_secs(45);
/// Unused connections that a client keeps at most; beyond it they are closed at once.
const POOL_MAX_IDLE: usize = 256;
/// A client's age when it is replaced, give or take a fifth.
const MAX_AGE: Duration = Duration::from_secs(5 * 60);
/// HTTP/2 only: after this long a silent connection is sent a ping.
const PING_EVERY: Duration = Duration::from_secs(10);
/// HTTP/2 only: without an answer to the ping for this long, the connection is closed.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The TLS configuration all clients share, session cache included.
#[derive(Clone)]
pub(super) struct ClientTls(Arc<ClientConfig>);

impl ClientTls {
    /// Trusts what the system trusts; where the system has no certificates, what Mozilla trusts.
    pub(super) fn load() -> Result<Self, BuildError> {
        let mut roots = RootCertStore::empty();
        let (added, _unreadable) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if added == 0 {
            roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
        }
        Self::trusting(roots)
    }

    /// The same, or one that trusts `authorities` alone, where there are any.
    pub(super) fn of(&self, authorities: Option<&[CertificateDer<'static>]>) -> Result<Self, BuildError> {
        let Some(authorities) = authorities else { return Ok(self.clone()) };
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority.clone()).map_err(|error| BuildError::Tls(error.to_string()))?;
        }
        Self::trusting(roots)
    }

    fn trusting(roots: RootCertStore) -> Result<Self, BuildError> {
        // Given here, so that nothing depends on which provider the process has installed.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| BuildError::Tls(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }

    pub(super) fn offering(&self, protocols: &[&[u8]]) -> ClientConfig {
        let mut config = ClientConfig::clone(&self.0);
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        config
    }
}

/// How a provider is connected to.
#[derive(Clone)]
pub(super) struct ConnectionOptions {
    /// Whether to use TLS.
    pub(super) tls: bool,
    /// Whether to offer HTTP/2.
    pub(super) http2: bool,
    /// How long connecting may take, the proxy's part and TLS included.
    pub(super) connect_timeout: Duration,
    /// What it is reached through.
    pub(super) proxy: Option<Proxy>,
}

/// A client for each runtime, which is replaced from time to time.
pub(super) struct ConnectionPool {
    options: ConnectionOptions,
    tls: ClientTls,
    /// Used where no other one can be built.
    spare: Client,
    /// Those of the runtimes that have sent.
    clients: ArcSwap<Vec<Arc<RuntimeClient>>>,
}

/// The client of one runtime.
struct RuntimeClient {
    runtime: runtime::Id,
    current: Mutex<CurrentClient>,
}

struct CurrentClient {
    client: Client,
    /// When it is replaced; set when it is first used.
    until: Option<Instant>,
}

impl ConnectionPool {
    /// A pool without connections.
    pub(super) fn build(options: ConnectionOptions, tls: ClientTls) -> Result<Self, reqwest::Error> {
        let spare = client(&options, &tls)?;
        Ok(Self { options, tls, spare, clients: ArcSwap::default() })
    }

    /// The client that this runtime uses at `now`; `draw` spreads the replacements.
    ///
    /// # Panics
    /// Outside a runtime.
    pub(super) fn client(&self, now: Instant, draw: RandomValue) -> Client {
        let runtime = Handle::current().id();
        if let Some(of_runtime) = find(&self.clients.load(), runtime) {
            return self.current(of_runtime, now, draw);
        }
        let added = Arc::new(RuntimeClient {
            runtime,
            current: Mutex::new(CurrentClient { client: self.another(&self.spare), until: None }),
        });
        // Another thread of this runtime may have added one meanwhile.
        self.clients.rcu(|clients| {
            let mut all = Vec::clone(clients);
            if find(&all, runtime).is_none() {
                all.push(added.clone());
            }
            all
        });
        self.current(find(&self.clients.load(), runtime).unwrap_or(&added), now, draw)
    }

    fn current(&self, of_runtime: &RuntimeClient, now: Instant, draw: RandomValue) -> Client {
        let mut current = of_runtime.current.lock();
        match current.until {
            Some(until) if now < until => {}
            Some(_) => {
                current.client = self.another(&current.client);
                current.until = Some(now + age(draw));
            }
            None => current.until = Some(now + age(draw)),
        }
        current.client.clone()
    }

    /// A new client. One could be built before, so this one is as good as certain; else `otherwise` goes on.
    fn another(&self, otherwise: &Client) -> Client {
        client(&self.options, &self.tls).unwrap_or_else(|_| otherwise.clone())
    }
}

fn find(clients: &[Arc<RuntimeClient>], runtime: runtime::Id) -> Option<&Arc<RuntimeClient>> {
    clients.iter().find(|client| client.runtime == runtime)
}

/// [`MAX_AGE`] ± 20 %.
fn age(draw: RandomValue) -> Duration {
    MAX_AGE.mul_f64(0.8 + 0.4 * draw.unit())
}

fn client(options: &ConnectionOptions, tls: &ClientTls) -> Result<Client, reqwest::Error> {
    let builder = Client::builder()
        .retry(retry::never())
        .redirect(redirect::Policy::none())
        .referer(false)
        .no_proxy()
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        // What is wrong with a header that nobody needs is no reason to lose an answer.
        .http1_ignore_invalid_headers_in_responses(true)
        .http1_allow_obsolete_multiline_headers_in_responses(true)
        .http1_allow_spaces_after_header_name_in_responses(true)
        .connect_timeout(options.connect_timeout)
        .tcp_nodelay(true)
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(POOL_MAX_IDLE);
    let builder = match &options.proxy {
        Some(proxy) => builder.proxy(proxy.clone()),
        None => builder,
    };
    protocol(builder, options, tls).build()
}

fn protocol(builder: ClientBuilder, options: &ConnectionOptions, tls: &ClientTls) -> ClientBuilder {
    if !options.http2 {
        return builder.http1_only().tls_backend_preconfigured(tls.offering(&[b"http/1.1"]));
    }
    let builder = builder
        .http2_adaptive_window(true)
        .http2_keep_alive_interval(PING_EVERY)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .http2_keep_alive_while_idle(true)
        .tls_backend_preconfigured(tls.offering(&[b"h2", b"http/1.1"]));
    if options.tls { builder } else { builder.http2_prior_knowledge() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::testing::{Act, Scripted, whole};
    use rustls::pki_types::PrivateKeyDer;
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener};

    #[test]
    fn a_client_is_used_for_five_minutes_give_or_take_a_fifth() {
        assert_eq!(age(RandomValue(0)), Duration::from_secs(240));
        assert!(age(RandomValue(u64::MAX)) <= Duration::from_secs(360));
        assert!(age(RandomValue(u64::MAX)) > Duration::from_secs(359));
    }

    fn plain(http2: bool) -> ConnectionOptions {
        ConnectionOptions { tls: false, http2, connect_timeout: Duration::from_secs(10), proxy: None }
    }

    #[tokio::test]
    async fn an_old_client_is_replaced_by_one_that_connects_anew() {
        let one = [Act::Read, Act::Write(whole("text/plain", "ok"))];
        let provider = Scripted::start(std::iter::repeat_n(one, 3).flatten().collect()).await;
        let pool =
            ConnectionPool::build(plain(false), ClientTls::load().expect("TLS is there")).expect("it can be built");
        let start = crate::clock::Clock.now();
        for (second, connections) in [(0, 1), (239, 1), (241, 2), (480, 2), (482, 3)] {
            let client = pool.client(start + Duration::from_secs(second), RandomValue(0));
            let response = client.post(provider.base_url()).body("x").send().await.expect("the provider answers");
            assert_eq!(response.bytes().await.expect("the answer is whole"), "ok");
            assert_eq!(provider.accepted.len(), connections, "after {second} s");
        }
    }

    #[test]
    fn each_runtime_has_a_client_and_keeps_it() {
        let build = || runtime::Builder::new_current_thread().build().expect("the system gives a poll");
        let (here, there) = (build(), build());
        let pool =
            ConnectionPool::build(plain(false), ClientTls::load().expect("TLS is there")).expect("it can be built");
        let now = crate::clock::Clock.now();
        for (runtime, clients) in [(&here, 1), (&here, 1), (&there, 2), (&here, 2), (&there, 2)] {
            drop(runtime.block_on(async { pool.client(now, RandomValue(0)) }));
            assert_eq!(pool.clients.load().len(), clients);
        }
    }

    #[tokio::test]
    async fn http2_is_used_by_prior_knowledge() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let at = listener.local_addr().expect("a bound listener has an address");
        tokio::spawn(async move {
            let (socket, _) = listener.accept().await.expect("somebody connects");
            let mut connection = h2::server::handshake(socket).await.expect("it speaks HTTP/2");
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                respond.send_response(http::Response::new(()), true).expect("the stream is open");
            }
        });
        let pool =
            ConnectionPool::build(plain(true), ClientTls::load().expect("TLS is there")).expect("it can be built");
        let client = pool.client(crate::clock::Clock.now(), RandomValue(0));
        let response = client.get(format!("http://{at}/")).send().await.expect("the provider answers");
        assert_eq!(response.version(), http::Version::HTTP_2);
    }

    /// A host with a certificate of its own and one protocol over TLS, and a configuration that trusts it.
    fn tls_host(alpn: &'static [u8]) -> (SocketAddr, ClientTls) {
        let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("rcgen can sign");
        let key = PrivateKeyDer::try_from(issued.signing_key.serialize_der()).expect("rcgen writes keys");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![issued.cert.der().clone()], key))
            .expect("the certificate fits its key");
        config.alpn_protocols = vec![alpn.to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let at = listener.local_addr().expect("a bound listener has an address");
        std::thread::spawn(move || {
            for mut socket in listener.incoming().flatten() {
                let mut session = rustls::ServerConnection::new(Arc::new(config.clone())).expect("the config is sound");
                let mut stream = rustls::Stream::new(&mut session, &mut socket);
                let asked = stream.read(&mut [0; 4096]);
                if asked.is_ok_and(|read| read > 0) {
                    let _ = stream.write_all(&whole("text/plain", "secret handshake"));
                }
            }
        });
        let mut roots = RootCertStore::empty();
        roots.add(issued.cert.der().clone()).expect("rcgen writes certificates");
        (at, ClientTls::trusting(roots).expect("TLS is there"))
    }

    #[tokio::test]
    async fn tls_connects_only_to_trusted_hosts() {
        let (at, trusting) = tls_host(b"http/1.1");
        let url = format!("https://localhost:{}/", at.port());
        // A host that is offered HTTP/2 may choose HTTP/1.1.
        for http2 in [false, true] {
            let options = ConnectionOptions { tls: true, ..plain(http2) };
            let pool = ConnectionPool::build(options.clone(), trusting.clone()).expect("it can be built");
            let response = pool.client(crate::clock::Clock.now(), RandomValue(0)).get(&url).send().await;
            let text = response.expect("the certificate is trusted").text().await;
            assert_eq!(text.expect("the answer is whole"), "secret handshake");

            let pool =
                ConnectionPool::build(options, ClientTls::load().expect("TLS is there")).expect("it can be built");
            let error = pool.client(crate::clock::Clock.now(), RandomValue(0)).get(&url).send().await;
            assert!(error.expect_err("nobody signed that").is_connect());
        }
    }
}
