//! A provider with a certificate of a private authority, reached through a proxy: `ca` and `proxy` of a provider.
//!
//! The TLS host and the proxy are real ones on loopback. The provider's name is in no name server: only the proxy knows it.

use crate::config::{Config, chat_request};
use crate::loopback::{Authority, ConnectProxy, TlsHost};
use crate::support::gateway::TestEnvironment;
use crate::support::{ScriptedProvider, TestGateway, chat_stream, chat_whole};
use std::io;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use tierway::config::{ConfigSource, Environment, Snapshot, load};

/// A name without an address.
const NAME: &str = "models.internal.test";
/// What the proxy wants: `gateway` with the password `canary proxy/password`.
const AUTHORIZATION: &str = "Basic Z2F0ZXdheTpjYW5hcnkgcHJveHkvcGFzc3dvcmQ=";

/// The variables of every test, one with the URL of a proxy, and the real file system.
struct Surroundings {
    proxy: String,
}

impl Environment for Surroundings {
    fn variable(&self, name: &str) -> Option<String> {
        if name == "PROXY" { Some(self.proxy.clone()) } else { TestEnvironment::default().variable(name) }
    }

    fn variables(&self) -> Vec<(String, String)> {
        TestEnvironment::default().variables()
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        std::fs::read_to_string(path)
    }
}

/// A provider behind TLS, a proxy before it, and the authorities that may be trusted.
struct PrivateNetwork {
    folder: TempDir,
    provider: ScriptedProvider,
    host: TlsHost,
    proxy: ConnectProxy,
}

impl PrivateNetwork {
    async fn new() -> Self {
        let (folder, provider) = (TempDir::new().unwrap(), ScriptedProvider::start("eu").await);
        let authority = Authority::new();
        let host = TlsHost::before(provider.addr(), &authority, NAME, 2100);
        std::fs::write(folder.path().join("ours.pem"), authority.pem()).unwrap();
        std::fs::write(folder.path().join("other.pem"), Authority::new().pem()).unwrap();
        Self { folder, provider, host, proxy: ConnectProxy::start(Some(AUTHORIZATION)) }
    }

    /// A gateway that trusts the authority in `ca` and presents `password` to the proxy.
    async fn gateway(&self, ca: &str, password: &str) -> TestGateway {
        TestGateway::start_snapshot(self.snapshot(ca, password), 1).await
    }

    fn snapshot(&self, ca: &str, password: &str) -> Arc<Snapshot> {
        let config = Config::at(&format!("https://{NAME}:{}/v1", self.host.at.port()))
            .provider(&format!("ca = \"file:{}\"", self.folder.path().join(ca).display()))
            .provider("proxy = \"env:PROXY\"");
        let surroundings = Surroundings { proxy: format!("http://gateway:{password}@{}", self.proxy.at) };
        let source = ConfigSource::File { path: "test.toml".into(), text: config.text() };
        Arc::new(load(&source, &surroundings, &[]).unwrap_or_else(|problems| panic!("{problems}")))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_is_reached_through_the_proxy_with_the_certificate_of_its_authority() {
    let network = PrivateNetwork::new().await;
    let gateway = network.gateway("ours.pem", "canary%20proxy%2Fpassword").await;
    network.provider.answers(chat_whole("Hello"));
    assert_eq!(gateway.chat(&chat_request("")).await.chat_text().as_deref(), Ok("Hello"));
    network.provider.answers(chat_stream("Hello", 3));
    let streamed = gateway.chat(&chat_request(r#""stream":true,"#)).await;
    assert_eq!(streamed.chat_text().as_deref(), Ok("Hello"));
    let target = format!("{NAME}:{}", network.host.at.port());
    assert!(network.proxy.asked().iter().all(|asked| *asked == target), "{:?}", network.proxy.asked());
    assert!(!network.proxy.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_another_authority_nor_another_password_is_good() {
    let network = PrivateNetwork::new().await;
    network.provider.answers(chat_whole("Hello"));
    for (ca, password) in [("other.pem", "canary%20proxy%2Fpassword"), ("ours.pem", "canary-wrong")] {
        let gateway = network.gateway(ca, password).await;
        let answer = gateway.chat(&chat_request("")).await;
        assert!(answer.status >= 500, "{ca}: {answer:?}");
        assert!(!answer.text().contains("canary"), "{answer:?}");
    }
    assert_eq!(network.provider.attempts(), 0, "nothing may have come through");
    // Put right by a reload, it is asked at once: a connection of another trust is none of it.
    let gateway = network.gateway("other.pem", "canary%20proxy%2Fpassword").await;
    assert!(gateway.chat(&chat_request("")).await.status >= 500);
    gateway.relay.reload(network.snapshot("ours.pem", "canary%20proxy%2Fpassword")).unwrap();
    assert_eq!(gateway.chat(&chat_request("")).await.chat_text().as_deref(), Ok("Hello"));
}
