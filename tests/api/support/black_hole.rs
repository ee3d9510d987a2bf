//! A port where packets are dropped: a connect neither succeeds nor fails, it hangs.
//!
//! The listener never accepts and its queue is full, so the kernel drops every further SYN. The queue
//! is filled by connecting until a connect hangs; that attempt is kept and would fill a slot that
//! became free.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
};

/// On the loopback interface a connect that the kernel answers at all is answered at once; a slow
/// machine that takes longer only leaves the slot to the connect already in progress.
const HANGS: Duration = Duration::from_millis(100);

/// A port that drops connects for as long as this value lives.
#[derive(Debug)]
pub struct BlackHole {
    addr: SocketAddr,
    _listener: TcpListener,
    _filling: JoinSet<()>,
}

impl BlackHole {
    /// A black hole on a port of the system's choice.
    pub async fn start() -> Self {
        Self::on(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// A black hole on this address.
    pub async fn on(addr: SocketAddr) -> Self {
        let listener = listener(addr, 1);
        let addr = listener.local_addr().expect("a listener has an address");
        let mut filling = JoinSet::new();
        loop {
            let mut connect = Box::pin(TcpStream::connect(addr));
            let connected = tokio::time::timeout(HANGS, &mut connect).await;
            let full = connected.is_err();
            filling.spawn(async move {
                let _held = match connected {
                    Ok(connected) => connected,
                    Err(_) => connect.await,
                };
                std::future::pending().await
            });
            if full {
                break;
            }
        }
        Self { addr, _listener: listener, _filling: filling }
    }

    /// The address that does not answer.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://127.0.0.1:PORT/v1`.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }
}

/// A socket bound to `addr`, neither listening nor connecting: connects are refused, and the system
/// gives the port to no other process.
pub(super) fn bound(addr: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a machine that runs tests has sockets");
    socket.set_reuseaddr(true).expect("a fresh socket takes options");
    socket.bind(addr).unwrap_or_else(|error| panic!("cannot bind {addr}: {error}"));
    socket
}

/// A listener on `addr` with a queue of this length.
pub(super) fn listener(addr: SocketAddr, backlog: u32) -> TcpListener {
    let listening = bound(addr).listen(backlog);
    listening.unwrap_or_else(|error| panic!("cannot listen on {addr}: {error}"))
}
