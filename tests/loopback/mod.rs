//! What stands between a gateway and a provider in a company: an authority of its own, a host with a certificate of that,
//! and a proxy that passes on what it is asked to connect. All of it is real, and on loopback.
//!
//! Each runs in a thread of its own, so that tests with and without a runtime use it. It ends with the test's process.
//!
//! Start reading at [`TlsHost`] and [`ConnectProxy`].

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A certificate authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("no name is a list of names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("rcgen can sign"))
    }

    /// Its certificate as PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// What serves TLS as `name` with a certificate that ends with the first second of `year`.
    fn server(&self, name: &str, year: i32) -> ServerConfig {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let cert = params.signed_by(&key, &self.0).expect("rcgen can sign");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("rcgen writes keys");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.expect("the usual versions").with_no_client_auth();
        builder.with_single_cert(vec![cert.der().clone()], key).expect("the certificate fits its key")
    }
}

/// A host with TLS before one without.
pub struct TlsHost {
    /// Where it listens.
    pub at: SocketAddr,
}

impl TlsHost {
    /// Serves TLS as `name`, with a certificate that ends with `year`, and passes what comes on to `plain`.
    pub fn before(plain: SocketAddr, authority: &Authority, name: &str, year: i32) -> Self {
        let acceptor = TlsAcceptor::from(Arc::new(authority.server(name, year)));
        let at = serve(move |socket| {
            let acceptor = acceptor.clone();
            async move {
                if let Ok(mut encrypted) = acceptor.accept(socket).await
                    && let Ok(mut provider) = TcpStream::connect(plain).await
                {
                    let _ = copy_bidirectional(&mut encrypted, &mut provider).await;
                }
            }
        });
        Self { at }
    }
}

/// A proxy that answers `CONNECT`: every name is this machine, as no name server would say.
pub struct ConnectProxy {
    /// Where it listens.
    pub at: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl ConnectProxy {
    /// Starts it; with `authorization`, the value of `Proxy-Authorization` that it wants.
    pub fn start(authorization: Option<&'static str>) -> Self {
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let journal = asked.clone();
        let at = serve(move |socket| {
            let journal = journal.clone();
            async move {
                let _ = tunnel(BufReader::new(socket), authorization, &journal).await;
            }
        });
        Self { at, asked }
    }

    /// What it was asked to connect, in order: `HOST:PORT`.
    #[allow(dead_code, reason = "used by the API tests")]
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("nobody panics with the lock").clone()
    }
}

async fn tunnel(
    mut client: BufReader<TcpStream>,
    authorization: Option<&str>,
    journal: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let (mut first, mut line, mut presented) = (String::new(), String::new(), None);
    client.read_line(&mut first).await?;
    while client.read_line(&mut line).await? > 2 {
        if line.to_ascii_lowercase().starts_with("proxy-authorization:") {
            presented = line.split_once(':').map(|(_, value)| value.trim().to_owned());
        }
        line.clear();
    }
    let mut words = first.split(' ');
    let (Some("CONNECT"), Some(target)) = (words.next(), words.next()) else {
        return client.write_all(b"HTTP/1.1 405 Not CONNECT\r\ncontent-length: 0\r\n\r\n").await;
    };
    if presented.as_deref() != authorization {
        return client.write_all(b"HTTP/1.1 407 Who Are You\r\ncontent-length: 0\r\n\r\n").await;
    }
    journal.lock().expect("nobody panics with the lock").push(target.to_owned());
    let port = target.rsplit(':').next().and_then(|port| port.parse::<u16>().ok()).unwrap_or(0);
    let Ok(mut host) = TcpStream::connect(("127.0.0.1", port)).await else {
        return client.write_all(b"HTTP/1.1 502 Not There\r\ncontent-length: 0\r\n\r\n").await;
    };
    client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await?;
    copy_bidirectional(&mut client, &mut host).await.map(drop)
}

/// Serves each connection by `answer`, in a thread of its own; where it listens.
fn serve<F>(answer: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let at = listener.local_addr().expect("a bound listener has an address");
    listener.set_nonblocking(true).expect("a socket can be asked");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).expect("the listener is non-blocking");
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(answer(socket));
            }
        });
    });
    at
}
