//! A provider whose answer never ends: a head, then the same bytes for as long as they are read.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A reader reads at least once in this time.
const READ_INTERVAL: Duration = Duration::from_millis(200);

/// A provider that sends `head`, then `more` for as long as they are read.
pub struct Endless {
    /// Its base URL.
    pub base_url: String,
    /// The bytes that were sent.
    pub sent: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl Endless {
    /// Serves on a free port, with a pause after each write.
    pub async fn start(head: &str, more: impl Into<Vec<u8>>, pause: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let base_url = format!("http://{}/v1", listener.local_addr().expect("a bound listener has an address"));
        let (head, more, sent) = (head.to_owned(), more.into(), Arc::new(AtomicUsize::new(0)));
        let mut serving = JoinSet::new();
        let counted = sent.clone();
        serving.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (head, more, counted) = (head.clone(), more.clone(), counted.clone());
                tokio::spawn(async move { send_endlessly(socket, &head, &more, pause, &counted).await });
            }
        });
        Self { base_url, sent, _serving: serving }
    }

    /// Whether nothing was read for [`READ_INTERVAL`].
    pub async fn is_stuck(&self) -> bool {
        let sent = self.sent.load(Ordering::Relaxed);
        tokio::time::sleep(READ_INTERVAL).await;
        sent > 0 && sent == self.sent.load(Ordering::Relaxed)
    }
}

async fn send_endlessly(mut socket: TcpStream, head: &str, more: &[u8], pause: Duration, sent: &AtomicUsize) {
    let mut request = [0; 4096];
    // The requests of these tests fit into it.
    let _ = socket.read(&mut request).await;
    let mut next = head.as_bytes();
    while socket.write_all(next).await.is_ok() {
        sent.fetch_add(next.len(), Ordering::Relaxed);
        next = more;
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}
