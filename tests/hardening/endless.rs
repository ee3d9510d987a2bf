//! A provider without end: a head, and then the same bytes for as long as anybody reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Whoever reads does so at least once in this time.
const QUIET: Duration = Duration::from_millis(200);

/// A provider that sends `head`, then `more` for as long as somebody reads.
pub struct Endless {
    /// Where it is reached.
    pub base_url: String,
    /// Bytes it got rid of.
    pub sent: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl Endless {
    /// Serves on a port of the system's choice, with a pause after each piece.
    pub async fn start(head: &str, more: impl Into<Vec<u8>>, pause: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let base_url = format!("http://{}/v1", listener.local_addr().expect("a bound listener has an address"));
        let (head, more, sent) = (head.to_owned(), more.into(), Arc::new(AtomicUsize::new(0)));
        let mut serving = JoinSet::new();
        let counted = sent.clone();
        serving.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (head, more, counted) = (head.clone(), more.clone(), counted.clone());
                tokio::spawn(async move { talk(socket, &head, &more, pause, &counted).await });
            }
        });
        Self { base_url, sent, _serving: serving }
    }

    /// Whether nobody has read anything for a while.
    pub async fn is_stuck(&self) -> bool {
        let sent = self.sent.load(Ordering::Relaxed);
        tokio::time::sleep(QUIET).await;
        sent > 0 && sent == self.sent.load(Ordering::Relaxed)
    }
}

async fn talk(mut socket: TcpStream, head: &str, more: &[u8], pause: Duration, sent: &AtomicUsize) {
    let mut asked = [0; 4096];
    // The requests of these tests fit.
    let _ = socket.read(&mut asked).await;
    let mut next = head.as_bytes();
    while socket.write_all(next).await.is_ok() {
        sent.fetch_add(next.len(), Ordering::Relaxed);
        next = more;
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}
