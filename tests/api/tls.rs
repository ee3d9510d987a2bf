//! TLS for clients and operators: the gateway answers over it as over plain HTTP, and a certificate is
//! renewed under load without a failed request.
//!
//! Files and watcher are the real ones; only the second between two checks is left out.

use crate::config::{Config, MODEL, chat_request};
use crate::support::gateway::{KEY, TestEnvironment};
use crate::support::{Ending, Gate, ScriptedProvider, TestGateway, chat_stream, chat_whole, soon};
use http::Version;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tierway::cli::reload::apply;
use tierway::cli::serve::Gateway;
use tierway::clock::Clock;
use tierway::config::{ConfigChange, ConfigSource, ConfigWatcher, Environment, Problems, Snapshot, load};
use tierway::domain::receipt::Outcome;
use tierway::random::Rng;
use tierway::store::Stores;
use tierway::store::memory::MemoryLedger;
use tierway::telemetry::Telemetry;
use tierway::telemetry::access::AccessLog;
use tierway::telemetry::metrics::BuildMetadata;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

/// How often a certificate is renewed under load.
const RENEWALS: usize = 20;
/// Requests that are answered between two renewals, at least, each on a connection of its own.
const BETWEEN: usize = 20;
/// Clients that send requests meanwhile.
const CLIENTS: usize = 4;

/// The certificate authority of a test.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
struct Issued {
    cert: String,
    key: String,
    der: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self) -> Issued {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        Issued { cert: cert.pem(), key: key.serialize_pem(), der: cert.der().clone() }
    }

    /// A TLS client that trusts it and speaks these protocols.
    fn client(&self, protocols: &[&[u8]]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        config
    }

    /// An HTTP client that keeps no connections.
    fn reqwest(&self, protocols: &[&[u8]]) -> reqwest::Client {
        let builder = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0);
        builder.tls_backend_preconfigured(self.client(protocols)).build().unwrap()
    }
}

const HTTP1: &[&[u8]] = &[b"http/1.1"];
const BOTH: &[&[u8]] = &[b"h2", b"http/1.1"];

/// The environment variables of every test, with the real file system.
struct RealFiles;

impl Environment for RealFiles {
    fn variable(&self, name: &str) -> Option<String> {
        TestEnvironment::default().variable(name)
    }

    fn variables(&self) -> Vec<(String, String)> {
        TestEnvironment::default().variables()
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        std::fs::read_to_string(path)
    }
}

/// A gateway over TLS and the files it reads.
struct TlsFixture {
    folder: TempDir,
    provider: ScriptedProvider,
    authority: Authority,
    gateway: TestGateway,
    watcher: ConfigWatcher<RealFiles>,
}

impl TlsFixture {
    async fn new() -> Self {
        let (folder, provider, authority) =
            (TempDir::new().unwrap(), ScriptedProvider::start("eu").await, Authority::new());
        // As Kubernetes mounts a Secret: the files are links into a folder that is a link itself.
        publish(folder.path(), &authority.issue(), 0);
        for name in ["tls.crt", "tls.key"] {
            std::os::unix::fs::symlink(Path::new("..data").join(name), folder.path().join(name)).unwrap();
        }
        let path = folder.path().join("tierway.toml");
        std::fs::write(&path, configuration(folder.path(), &provider)).unwrap();
        let source = ConfigSource::file(&path, &RealFiles).unwrap();
        let snapshot = compiled(load(&source, &RealFiles, &[]));
        let watcher = ConfigWatcher::new(&source, RealFiles, Vec::new(), snapshot.clone());
        let gateway = TestGateway::start_snapshot(snapshot, 1).await;
        Self { folder, provider, authority, gateway, watcher }
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.gateway.addr.port())
    }

    fn ask(&self, client: &reqwest::Client, members: &str) -> reqwest::RequestBuilder {
        let body = chat_request(members);
        client.post(self.url("/v1/chat/completions")).header("authorization", format!("Bearer {KEY}")).body(body)
    }

    /// The certificate that a new connection is served.
    async fn served_certificate(&self) -> CertificateDer<'static> {
        let socket = TcpStream::connect(self.gateway.addr).await.unwrap();
        let connector = TlsConnector::from(Arc::new(self.authority.client(HTTP1)));
        let stream = connector.connect(ServerName::try_from("localhost").unwrap(), socket).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
    }

    /// What the second of two looks reports: a content is applied once two looks found it.
    fn check_twice(&mut self) -> Option<Result<ConfigChange, Problems>> {
        assert!(self.watcher.check().is_none(), "one look is not enough");
        self.watcher.check()
    }
}

fn compiled(loaded: Result<Snapshot, Problems>) -> Arc<Snapshot> {
    Arc::new(loaded.unwrap_or_else(|problems| panic!("{problems}")))
}

fn configuration(folder: &Path, provider: &ScriptedProvider) -> String {
    let file = |name: &str| format!("file:{}", folder.join(name).display());
    let tls = format!("tls = {{ cert = \"{}\", key = \"{}\" }}", file("tls.crt"), file("tls.key"));
    Config::of(provider).server(&tls).text()
}

/// Swaps the link to the folder both files are in, as Kubernetes does.
fn publish(folder: &Path, issued: &Issued, number: usize) {
    let data = PathBuf::from(format!("..{number}"));
    std::fs::create_dir(folder.join(&data)).unwrap();
    std::fs::write(folder.join(&data).join("tls.crt"), &issued.cert).unwrap();
    std::fs::write(folder.join(&data).join("tls.key"), &issued.key).unwrap();
    std::os::unix::fs::symlink(&data, folder.join("..new")).unwrap();
    std::fs::rename(folder.join("..new"), folder.join("..data")).unwrap();
}

/// Renames one new file after the other into place, as most other tools do.
fn replace(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join("new"), text).unwrap();
    std::fs::rename(folder.join("new"), folder.join(name)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_answered_over_tls_as_over_plain_http() {
    let fixture = TlsFixture::new().await;
    for (protocols, version) in [(HTTP1, Version::HTTP_11), (BOTH, Version::HTTP_2)] {
        let client = fixture.authority.reqwest(protocols);
        fixture.provider.answers(chat_whole("Hello"));
        let whole = fixture.ask(&client, "").send().await.unwrap();
        assert_eq!((whole.status().as_u16(), whole.version()), (200, version));
        assert!(whole.text().await.unwrap().contains("Hello"));

        fixture.provider.answers(chat_stream("Hello", 3));
        let stream = fixture.ask(&client, r#""stream":true,"#).send().await.unwrap();
        assert_eq!((stream.status().as_u16(), stream.version()), (200, version));
        assert!(stream.text().await.unwrap().ends_with("data: [DONE]\n\n"));

        let health = client.get(fixture.url("/healthz")).send().await.unwrap();
        assert_eq!(health.status().as_u16(), 200);
    }
    // A client that does not trust the authority gets no answer.
    let untrusting = Authority::new().reqwest(BOTH);
    assert!(fixture.ask(&untrusting, "").send().await.unwrap_err().is_connect());
    let failed = async {
        while fixture.gateway.metric("tierway_tls_handshake_failures_total") == 0.0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    soon("the failed handshake to be counted", failed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operators_own_address_speaks_tls_too() {
    let fixture = TlsFixture::new().await;
    let access = AccessLog::to_writer(Box::new(io::sink()));
    let telemetry = Arc::new(Telemetry::new(access, BuildMetadata { version: "0.0.0-test", revision: None }));
    let snapshot = fixture.gateway.relay.active_config().snapshot.clone();
    let ledger = Arc::new(MemoryLedger::default());
    let gateway =
        Gateway::build(snapshot, None, telemetry, Rng::seeded(1), Clock, Stores { ledger, ..Stores::memory().await });
    let gateway = gateway.unwrap_or_else(|error| panic!("{error}"));
    let (public, ops) =
        (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let (public_port, ops_port) = (public.local_addr().unwrap().port(), ops.local_addr().unwrap().port());
    let start_snapshot = tokio::spawn(gateway.serve(public, Some(ops.into())));
    let client = fixture.authority.reqwest(BOTH);
    for (port, expected) in [(ops_port, 200), (public_port, 404)] {
        let answer = client.get(format!("https://localhost:{port}/healthz")).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), expected);
    }
    start_snapshot.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_renewed_under_load_without_a_failed_request() {
    let mut fixture = TlsFixture::new().await;
    fixture.provider.answers(chat_whole("Hello"));
    let (served, failed, over) =
        (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (served, failed, over) = (served.clone(), failed.clone(), over.clone());
            let client = fixture.authority.reqwest(if number.is_multiple_of(2) { HTTP1 } else { BOTH });
            let request = fixture.ask(&client, "");
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let answer = request.try_clone().expect("a body of bytes").send().await;
                    let good = match answer {
                        Ok(answer) => answer.text().await.is_ok_and(|text| text.contains("Hello")),
                        Err(_) => false,
                    };
                    if good { &served } else { &failed }.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let begun = Instant::now();
    for number in 1..=RENEWALS {
        let enough = served.load(Ordering::Relaxed) + BETWEEN;
        let traffic = async {
            while served.load(Ordering::Relaxed) < enough {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        soon("requests to be served", traffic).await;
        let issued = fixture.authority.issue();
        if number % 2 == 1 {
            publish(fixture.folder.path(), &issued, number);
        } else {
            replace(fixture.folder.path(), "tls.crt", &issued.cert);
            assert!(fixture.watcher.check().is_none(), "half of a renewal is not reported");
            replace(fixture.folder.path(), "tls.key", &issued.key);
            // Links again, for the next one to swap what they point to.
            publish(fixture.folder.path(), &issued, number);
            for name in ["tls.crt", "tls.key"] {
                let link = fixture.folder.path().join("link");
                std::os::unix::fs::symlink(Path::new("..data").join(name), &link).unwrap();
                std::fs::rename(link, fixture.folder.path().join(name)).unwrap();
            }
        }
        apply(fixture.check_twice().expect("the files have changed"), &fixture.gateway.app, None);
        assert_eq!(fixture.served_certificate().await, issued.der, "renewal {number}");
    }
    over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let (served, failed) = (served.load(Ordering::Relaxed), failed.load(Ordering::Relaxed));
    println!("{RENEWALS} renewals in {:.1?}: {served} requests served, {failed} failed", begun.elapsed());
    assert_eq!(failed, 0);
    assert!(served >= RENEWALS * BETWEEN);
    assert_eq!(fixture.gateway.metric(r#"tierway_config_reloads_total{result="ok"}"#), RENEWALS as f64);
}

#[tokio::test]
async fn a_key_that_does_not_match_its_certificate_is_refused_and_reported() {
    let mut fixture = TlsFixture::new().await;
    let (before, folder) = (fixture.served_certificate().await, fixture.folder.path().to_owned());
    let expires = fixture.gateway.metric("tierway_tls_certificate_expires_timestamp_seconds");
    assert!(expires > 1e9, "{expires}");
    assert_eq!(fixture.gateway.metric("tierway_config_last_reload_successful"), 1.0);
    let renewed = fixture.authority.issue();
    for (name, text) in [("tls.crt", renewed.cert.as_str()), ("tls.crt", "junk"), ("tls.key", "junk")] {
        replace(&folder, name, text);
        let found = fixture.check_twice().expect("it is reported");
        assert!(found.is_err(), "{name}");
        apply(found, &fixture.gateway.app, None);
        assert_eq!(fixture.served_certificate().await, before, "{name}");
        assert_eq!(fixture.gateway.metric("tierway_config_last_reload_successful"), 0.0);
    }
    replace(&folder, "tls.crt", &renewed.cert);
    replace(&folder, "tls.key", &renewed.key);
    apply(fixture.check_twice().expect("the files have changed"), &fixture.gateway.app, None);
    assert_eq!(fixture.served_certificate().await, renewed.der);
    assert_eq!(fixture.gateway.metric("tierway_config_last_reload_successful"), 1.0);
    assert_eq!(fixture.gateway.metric(r#"tierway_config_reloads_total{result="failed"}"#), 3.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_over_tls_may_finish_during_a_shutdown() {
    for protocols in [HTTP1, BOTH] {
        let fixture = TlsFixture::new().await;
        let gate = Gate::new();
        fixture.provider.answers(chat_stream("Hello", 2).wait_after_frame(2, &gate));
        let client = fixture.authority.reqwest(protocols);
        let mut stream = fixture.ask(&client, r#""stream":true,"#).send().await.unwrap();
        let mut read = stream.chunk().await.unwrap().expect("a frame").to_vec();
        let lifecycle = fixture.gateway.lifecycle.clone();
        let shutdown = tokio::spawn(async move { lifecycle.shut_down(Duration::ZERO, Duration::from_secs(20)).await });
        soon("connections to be refused", async {
            while TcpStream::connect(fixture.gateway.addr).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        gate.open();
        while let Some(chunk) = stream.chunk().await.expect("it ends without an error") {
            read.extend_from_slice(&chunk);
        }
        assert!(read.ends_with(b"data: [DONE]\n\n"), "{}", String::from_utf8_lossy(&read));
        soon("the end", shutdown).await.unwrap();
        assert_eq!(fixture.gateway.receipts(1).await[0].outcome, Outcome::Served);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_breaks_over_tls_ends_with_an_error_and_no_end() {
    let fixture = TlsFixture::new().await;
    for protocols in [HTTP1, BOTH] {
        fixture.provider.answers(chat_stream("Hello", 4).cut_after_frame(3, Ending::Rst));
        let client = fixture.authority.reqwest(protocols);
        let mut stream = fixture.ask(&client, r#""stream":true,"#).send().await.unwrap();
        assert_eq!(stream.status().as_u16(), 200);
        let mut read = Vec::new();
        let end = loop {
            match stream.chunk().await {
                Ok(Some(chunk)) => read.extend_from_slice(&chunk),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        let read = String::from_utf8(read).unwrap();
        assert!(read.contains("upstream_stream_interrupted"), "{read}");
        assert!(end.is_err(), "a truncation must not look like an end");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_sees_that_a_client_over_tls_has_disconnected() {
    let fixture = TlsFixture::new().await;
    for protocols in [HTTP1, BOTH] {
        fixture.provider.clear();
        let gate = Gate::new();
        fixture.provider.answers(chat_stream("Hello", 4).wait_after_frame(3, &gate));
        let client = fixture.authority.reqwest(protocols);
        let mut stream = fixture.ask(&client, r#""stream":true,"#).send().await.unwrap();
        stream.chunk().await.unwrap().expect("a frame");
        gate.reached(1).await;
        let disconnected = tokio::time::Instant::now();
        drop((stream, client));
        let journal = fixture.provider.at_rest().await;
        let seen = journal.only().client_closed_at().expect("it was cancelled");
        let after = seen.saturating_duration_since(disconnected);
        println!("seen by the provider after {after:?} (promised: 100 ms)");
        assert!(after < Duration::from_secs(1), "{after:?}");
    }
    for receipt in fixture.gateway.receipts(2).await {
        assert_eq!(receipt.outcome, Outcome::Abandoned);
    }
}

#[tokio::test]
async fn the_private_key_appears_in_no_output() {
    let fixture = TlsFixture::new().await;
    let key = std::fs::read_to_string(fixture.folder.path().join("tls.key")).unwrap();
    let lines: Vec<&str> = key.lines().filter(|line| !line.starts_with("-----")).collect();
    assert!(!lines.is_empty());
    let der = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let numbers = der.secret_der().iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    let text = configuration(fixture.folder.path(), &fixture.provider);
    let problems_of = |text: String| {
        let loaded = load(&ConfigSource::File { path: "tierway.toml".into(), text }, &RealFiles, &[]);
        loaded.expect_err("a bad configuration").to_string()
    };
    let live = fixture.gateway.relay.active_config();
    let said = [
        live.snapshot.effective.to_toml(),
        live.snapshot.effective.to_json().to_string(),
        format!("{:?}", live.snapshot),
        fixture.gateway.telemetry.metrics.render(),
        fixture.gateway.access_log(),
        // The key in the place of the certificate, and written out.
        problems_of(text.replace("tls.crt", "tls.key")),
        problems_of(text.replace("cert = ", &format!("cert = \"{}\", x = ", key.escape_default()))),
        problems_of(text.replace("key = ", &format!("key = \"{}\", x = ", key.escape_default()))),
    ];
    for said in &said {
        for line in &lines {
            assert!(!said.contains(line), "the key is in:\n{said}");
        }
        assert!(!said.contains(&numbers), "the key is in:\n{said}");
    }
    assert!(said[0].contains(MODEL));
}
