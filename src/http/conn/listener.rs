//! Listening sockets: bound here, or passed to the process by whoever holds them already.
//!
//! A socket that was passed is used only for the address that the configuration names for it: what a start checks of
//! an address, such as whether it is loopback, stays true. Connections that wait in its queue are accepted like any
//! other. Nothing here accepts.
//!
//! Start reading at [`InheritedListeners::take`]; [`bind`] is what happens without one.

use super::server::ListenerKind;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use tokio::net::{TcpListener, TcpSocket};

/// The most connections that the operating system queues before we accept them.
const BACKLOG: u32 = 1024;

/// Why an address cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}. {}", advice(.source))]
pub struct BindError {
    address: SocketAddr,
    source: io::Error,
}

/// Listens on `address`; to be called inside the runtime. With port 0 the operating system chooses one.
///
/// # Errors
/// [`BindError`], which says what to do.
pub fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A restarted process need not wait until the last one's connections have left TIME_WAIT.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bind().map_err(|source| BindError { address, source })
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "Another process listens there: stop it, set another address in [server], or let `serve --take-over` \
             continue where a running gateway is."
        }
        io::ErrorKind::PermissionDenied => "Ports below 1024 need a privilege: set a higher one in [server].",
        io::ErrorKind::AddrNotAvailable => "This machine has no such address: set one it has in [server].",
        _ => "Set another address in [server].",
    }
}

/// A file descriptor that was passed as a listening socket and is none.
#[derive(Debug, thiserror::Error)]
#[error("what was passed as {name} is not a TCP socket that listens{}", detail(.source))]
pub struct InheritError {
    /// Which one, in the words of who passed it.
    pub name: String,
    /// What the operating system says; `None` if it is a socket that does not listen.
    pub source: Option<io::Error>,
}

fn detail(source: &Option<io::Error>) -> String {
    source.as_ref().map(|error| format!(": {error}")).unwrap_or_default()
}

/// Listening sockets that were passed to this process and not taken yet.
#[derive(Debug, Default)]
pub struct InheritedListeners(Vec<InheritedListener>);

#[derive(Debug)]
struct InheritedListener {
    /// Whom it serves, if whoever passed it says so.
    kind: Option<ListenerKind>,
    address: SocketAddr,
    socket: std::net::TcpListener,
}

impl InheritedListeners {
    /// Adds `socket`, called `name` in errors.
    ///
    /// # Errors
    /// [`InheritError`], if it is not a TCP socket that listens.
    pub fn add(&mut self, name: &str, kind: Option<ListenerKind>, socket: OwnedFd) -> Result<(), InheritError> {
        let failed = |source: Option<io::Error>| InheritError { name: name.to_owned(), source };
        let listens = rustix::net::sockopt::socket_acceptconn(&socket).map_err(|error| failed(Some(error.into())))?;
        let kind_of_socket = rustix::net::sockopt::socket_type(&socket).map_err(|error| failed(Some(error.into())))?;
        if !listens || kind_of_socket != rustix::net::SocketType::STREAM {
            return Err(failed(None));
        }
        let socket = std::net::TcpListener::from(socket);
        // An error if it is of another family.
        let address = socket.local_addr().map_err(|error| failed(Some(error)))?;
        socket.set_nonblocking(true).map_err(|error| failed(Some(error)))?;
        self.0.push(InheritedListener { kind, address, socket });
        Ok(())
    }

    /// The socket for `address`, to serve `kind`, if there is one. Of several for the same address, the one that is
    /// meant for `kind` is preferred; none that is meant for another kind is taken.
    ///
    /// # Errors
    /// If the runtime cannot watch it.
    pub fn take(&mut self, kind: ListenerKind, address: SocketAddr) -> io::Result<Option<TcpListener>> {
        let fits = |listener: &InheritedListener, meant: Option<ListenerKind>| {
            listener.kind == meant && fits(address, listener.address)
        };
        let at = [Some(kind), None].iter().find_map(|meant| self.0.iter().position(|each| fits(each, *meant)));
        at.map(|at| TcpListener::from_std(self.0.swap_remove(at).socket)).transpose()
    }

    /// The addresses of those that were not taken.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.0.iter().map(|listener| listener.address)
    }
}

/// Whether a socket bound to `bound` is what binding to `configured` would have given.
fn fits(configured: SocketAddr, bound: SocketAddr) -> bool {
    configured.ip() == bound.ip() && (configured.port() == 0 || configured.port() == bound.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening() -> (OwnedFd, SocketAddr) {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        (socket.into(), address)
    }

    #[tokio::test]
    async fn an_address_in_use_is_named_with_advice() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = bind(address).unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("Another process listens there"), "{error}");
    }

    #[tokio::test]
    async fn a_socket_is_taken_for_the_address_and_the_kind_it_is_for() {
        let mut inherited = InheritedListeners::default();
        let ((first, first_address), (second, second_address)) = (listening(), listening());
        inherited.add("first", None, first).unwrap();
        inherited.add("second", Some(ListenerKind::Ops), second).unwrap();
        assert!(inherited.take(ListenerKind::Public, second_address).unwrap().is_none(), "it is for operators");
        assert!(inherited.take(ListenerKind::Public, "127.0.0.2:0".parse().unwrap()).unwrap().is_none());
        let any_port = "127.0.0.1:0".parse().unwrap();
        let taken = inherited.take(ListenerKind::Ops, any_port).unwrap().expect("the one for operators");
        assert_eq!(taken.local_addr().unwrap(), second_address);
        assert_eq!(inherited.addresses().collect::<Vec<_>>(), [first_address]);
        let taken = inherited.take(ListenerKind::Public, first_address).unwrap().expect("the other one");
        assert_eq!(taken.local_addr().unwrap(), first_address);
    }

    #[test]
    fn what_does_not_listen_is_refused() {
        let mut inherited = InheritedListeners::default();
        let file = std::fs::File::open("/dev/null").unwrap();
        let error = inherited.add("descriptor 3 (web)", None, file.into()).unwrap_err().to_string();
        assert!(
            error.starts_with("what was passed as descriptor 3 (web) is not a TCP socket that listens: "),
            "{error}"
        );
        let (listener, address) = listening();
        let connected = std::net::TcpStream::connect(address).unwrap();
        drop(listener);
        let error = inherited.add("descriptor 4", None, connected.into()).unwrap_err().to_string();
        assert_eq!(error, "what was passed as descriptor 4 is not a TCP socket that listens");
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(inherited.add("descriptor 5", None, datagrams.into()).is_err());
        let other_family = tempfile::tempdir().unwrap();
        let other_family = std::os::unix::net::UnixListener::bind(other_family.path().join("s")).unwrap();
        assert!(inherited.add("descriptor 6", None, other_family.into()).is_err());
    }
}
