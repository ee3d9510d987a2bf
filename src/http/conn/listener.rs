//! Listening sockets: bound here, or passed to the process by whoever holds them already.
//!
//! A socket that was passed is used only for the address that the configuration names for it: what a start checks of
//! an address, such as whether it is loopback, stays true. Connections that wait in its queue are accepted like any
//! other. The file of a Unix socket is removed by the process that made it, unless a successor accepts from it.
//!
//! Start reading at [`InheritedListeners::take`]; [`bind`] is what happens without one.

use super::lifecycle::LifecyclePhase;
use super::socket_file::{self, SocketFile};
use crate::config::ListenAddress;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener as StdUnixListener;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio::runtime::Handle;
use tokio_util::either::Either;

/// The most connections that the operating system queues before we accept them.
const BACKLOG: u32 = 1024;

/// Whom a listener serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ListenerKind {
    /// Clients. It closes when draining begins.
    Public,
    /// Operators. It stays open while requests drain, unless a successor accepts from it.
    Ops,
}

impl ListenerKind {
    /// When nothing more is accepted.
    pub(super) fn closes_at(self) -> LifecyclePhase {
        match self {
            Self::Public => LifecyclePhase::Draining,
            Self::Ops => LifecyclePhase::Closing,
        }
    }

    /// When connections still open are closed without a grace.
    pub(super) fn cut_at(self) -> LifecyclePhase {
        match self {
            Self::Public => LifecyclePhase::Cutting,
            Self::Ops => LifecyclePhase::Closed,
        }
    }
}

/// A client's connection as it was accepted, before TLS.
pub type TransportStream = Either<TcpStream, UnixStream>;

/// The same connection, watched by `runtime` and no longer by the one that accepted it.
pub(super) fn moved_to(runtime: &Handle, socket: TransportStream) -> io::Result<TransportStream> {
    Ok(match socket {
        Either::Left(tcp) => {
            let tcp = tcp.into_std()?;
            let _entered = runtime.enter();
            Either::Left(TcpStream::from_std(tcp)?)
        }
        Either::Right(unix) => {
            let unix = unix.into_std()?;
            let _entered = runtime.enter();
            Either::Right(UnixStream::from_std(unix)?)
        }
    })
}

/// A socket that listens.
#[derive(Debug)]
pub enum Listener {
    /// At an IP address.
    Tcp(TcpListener),
    /// At a file; this process removes what it made.
    Unix(UnixListener, Option<SocketFile>),
}

impl Listener {
    /// Where it listens, with the port that the system chose.
    ///
    /// # Errors
    /// If the system does not say, or it is a Unix socket without a file.
    pub fn address(&self) -> io::Result<ListenAddress> {
        match self {
            Self::Tcp(socket) => socket.local_addr().map(ListenAddress::Ip),
            Self::Unix(socket, _) => of_file(socket.local_addr()?.as_pathname()),
        }
    }

    /// The same socket for each of `runtimes`, so that they accept from one queue: nothing in it is lost when one of them
    /// closes before the others. The file of a Unix socket is removed by the first.
    ///
    /// # Errors
    /// If the process may not open further files.
    pub fn shared_by<'a>(self, runtimes: impl Iterator<Item = &'a Handle>) -> io::Result<Vec<Self>> {
        // The runtime that bound it must not be woken for each connection.
        let (socket, file) = match self {
            Self::Tcp(socket) => (DetachedSocket::Tcp(socket.into_std()?), None),
            Self::Unix(socket, file) => (DetachedSocket::Unix(socket.into_std()?), file),
        };
        let of_runtime = |runtime: &Handle| {
            let _entered = runtime.enter();
            socket.try_clone()?.listener()
        };
        let mut shares = runtimes.map(of_runtime).collect::<io::Result<Vec<_>>>()?;
        if let Some(Self::Unix(_, first)) = shares.first_mut() {
            *first = file;
        }
        Ok(shares)
    }

    /// The next connection.
    pub(super) async fn accept(&self) -> io::Result<TransportStream> {
        match self {
            Self::Tcp(socket) => socket.accept().await.map(|(stream, _)| Either::Left(stream)),
            Self::Unix(socket, _) => socket.accept().await.map(|(stream, _)| Either::Right(stream)),
        }
    }

    /// Accepts nothing more. The file of a Unix socket stays if a successor accepts from it.
    pub(super) fn close(self, is_succeeded: bool) {
        if let Self::Unix(socket, Some(file)) = self
            && !is_succeeded
        {
            // First the file: a client that connects between the two would wait for nobody.
            file.remove();
            drop(socket);
        }
    }
}

impl From<TcpListener> for Listener {
    fn from(socket: TcpListener) -> Self {
        Self::Tcp(socket)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket, _) => socket.as_fd(),
        }
    }
}

/// Why an address cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}. {}", advice(address, .source))]
pub struct BindError {
    address: ListenAddress,
    source: io::Error,
}

/// Listens at `address`; to be called inside the runtime. With port 0 the operating system chooses one. The file of a
/// Unix socket takes the place of one that no process serves any more.
///
/// # Errors
/// [`BindError`], which says what to do.
pub fn bind(address: &ListenAddress) -> Result<Listener, BindError> {
    let bound = match address.socket_file() {
        Some(path) => socket_file::listen(path, BACKLOG).map(|(socket, file)| Listener::Unix(socket, Some(file))),
        None => bind_first(&address.socket_addresses()).map(Listener::Tcp),
    };
    bound.map_err(|source| BindError { address: address.clone(), source })
}

/// Binds the first of `addresses`; the ones after it where the machine lacks the family of those before.
fn bind_first(addresses: &[SocketAddr]) -> io::Result<TcpListener> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match bind_tcp(*address, addresses.len() > 1) {
            Err(error) if is_without_family(&error) => last = error,
            bound => return bound,
        }
    }
    Err(last)
}

fn bind_tcp(address: SocketAddr, every_family: bool) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restarted process need not wait until the last one's connections have left TIME_WAIT.
    socket.set_reuseaddr(true)?;
    if every_family && address.is_ipv6() {
        // Whatever the system's default is.
        rustix::net::sockopt::set_ipv6_v6only(&socket, false)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn is_without_family(error: &io::Error) -> bool {
    let unsupported = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
    error.raw_os_error() == Some(unsupported) || error.kind() == io::ErrorKind::AddrNotAvailable
}

fn advice(address: &ListenAddress, error: &io::Error) -> &'static str {
    match (error.kind(), address.socket_file().is_some()) {
        (io::ErrorKind::AddrInUse, _) => {
            "Another process listens there: stop it, set another address in [server], or let `serve --take-over` \
             continue where a running gateway is."
        }
        (io::ErrorKind::PermissionDenied, true) => {
            "This user may not make a socket there: let it write to the folder, or set another path in [server]."
        }
        (io::ErrorKind::NotFound | io::ErrorKind::NotADirectory, true) => {
            "There is no such folder: make it, or set another path in [server]."
        }
        (io::ErrorKind::AlreadyExists, true) => "It is left as it is: remove it, or set another path in [server].",
        (io::ErrorKind::PermissionDenied, false) => "Ports below 1024 need a privilege: set a higher one in [server].",
        (io::ErrorKind::AddrNotAvailable, _) => "This machine has no such address: set one it has in [server].",
        _ => "Set another address in [server].",
    }
}

/// A file descriptor that was passed as a listening socket and is none.
#[derive(Debug, thiserror::Error)]
#[error("what was passed as {name} is neither a TCP nor a Unix socket that listens{}", detail(.source))]
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
    address: ListenAddress,
    socket: DetachedSocket,
}

/// A socket outside the runtime.
#[derive(Debug)]
enum DetachedSocket {
    Tcp(std::net::TcpListener),
    Unix(StdUnixListener),
}

impl DetachedSocket {
    fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(socket) => Self::Tcp(socket.try_clone()?),
            Self::Unix(socket) => Self::Unix(socket.try_clone()?),
        })
    }

    /// What `socket` is, and where it listens.
    fn of(socket: OwnedFd) -> io::Result<(Self, ListenAddress)> {
        let socket = std::net::TcpListener::from(socket);
        // An error if it is of another family.
        if let Ok(address) = socket.local_addr() {
            socket.set_nonblocking(true)?;
            return Ok((Self::Tcp(socket), address.into()));
        }
        let socket = StdUnixListener::from(OwnedFd::from(socket));
        let address = of_file(socket.local_addr()?.as_pathname())?;
        socket.set_nonblocking(true)?;
        Ok((Self::Unix(socket), address))
    }

    /// Its file, if it has one, stays when it closes: whoever made it may pass the socket to the next process.
    fn listener(self) -> io::Result<Listener> {
        Ok(match self {
            Self::Tcp(socket) => Listener::Tcp(TcpListener::from_std(socket)?),
            Self::Unix(socket) => Listener::Unix(UnixListener::from_std(socket)?, None),
        })
    }
}

fn of_file(path: Option<&std::path::Path>) -> io::Result<ListenAddress> {
    let path = path.ok_or_else(|| io::Error::other("it is a Unix socket without a file"))?;
    Ok(ListenAddress::Unix(path.to_owned()))
}

impl InheritedListeners {
    /// Adds `socket`, called `name` in errors.
    ///
    /// # Errors
    /// [`InheritError`], if it is neither a TCP nor a Unix socket that listens.
    pub fn add(&mut self, name: &str, kind: Option<ListenerKind>, socket: OwnedFd) -> Result<(), InheritError> {
        let failed = |source: Option<io::Error>| InheritError { name: name.to_owned(), source };
        let listens = rustix::net::sockopt::socket_acceptconn(&socket).map_err(|error| failed(Some(error.into())))?;
        let kind_of_socket = rustix::net::sockopt::socket_type(&socket).map_err(|error| failed(Some(error.into())))?;
        if !listens || kind_of_socket != rustix::net::SocketType::STREAM {
            return Err(failed(None));
        }
        let (socket, address) = DetachedSocket::of(socket).map_err(|error| failed(Some(error)))?;
        self.0.push(InheritedListener { kind, address, socket });
        Ok(())
    }

    /// The socket for `address`, to serve `kind`, if there is one. Of several for the same address, the one that is
    /// meant for `kind` is preferred; none that is meant for another kind is taken.
    ///
    /// # Errors
    /// If the runtime cannot watch it.
    pub fn take(&mut self, kind: ListenerKind, address: &ListenAddress) -> io::Result<Option<Listener>> {
        let fits = |listener: &InheritedListener, meant: Option<ListenerKind>| {
            listener.kind == meant && fits(address, &listener.address)
        };
        let at = [Some(kind), None].iter().find_map(|meant| self.0.iter().position(|each| fits(each, *meant)));
        at.map(|at| self.0.swap_remove(at).socket.listener()).transpose()
    }

    /// The addresses of those that were not taken.
    pub fn addresses(&self) -> impl Iterator<Item = &ListenAddress> + '_ {
        self.0.iter().map(|listener| &listener.address)
    }
}

/// Whether a socket bound to `bound` is what binding to `configured` would have given.
fn fits(configured: &ListenAddress, bound: &ListenAddress) -> bool {
    let ListenAddress::Ip(bound) = bound else { return configured == bound };
    let mut given = configured.socket_addresses().into_iter();
    given.any(|address| address.ip() == bound.ip() && (address.port() == 0 || address.port() == bound.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening() -> (OwnedFd, ListenAddress) {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap().into();
        (socket.into(), address)
    }

    fn address(text: &str) -> ListenAddress {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn an_address_in_use_is_named_with_advice() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = bind(&address.into()).unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("Another process listens there"), "{error}");
    }

    #[tokio::test]
    async fn a_socket_is_taken_for_the_address_and_the_kind_it_is_for() {
        let mut inherited = InheritedListeners::default();
        let ((first, first_address), (second, second_address)) = (listening(), listening());
        inherited.add("first", None, first).unwrap();
        inherited.add("second", Some(ListenerKind::Ops), second).unwrap();
        assert!(inherited.take(ListenerKind::Public, &second_address).unwrap().is_none(), "it is for operators");
        assert!(inherited.take(ListenerKind::Public, &address("127.0.0.2:0")).unwrap().is_none());
        let any_port = address("127.0.0.1:0");
        let taken = inherited.take(ListenerKind::Ops, &any_port).unwrap().expect("the one for operators");
        assert_eq!(taken.address().unwrap(), second_address);
        assert_eq!(inherited.addresses().collect::<Vec<_>>(), [&first_address]);
        let taken = inherited.take(ListenerKind::Public, &first_address).unwrap().expect("the other one");
        assert_eq!(taken.address().unwrap(), first_address);
    }

    #[test]
    fn what_does_not_listen_is_refused() {
        let mut inherited = InheritedListeners::default();
        let file = std::fs::File::open("/dev/null").unwrap();
        let error = inherited.add("descriptor 3 (web)", None, file.into()).unwrap_err().to_string();
        assert!(
            error
                .starts_with("what was passed as descriptor 3 (web) is neither a TCP nor a Unix socket that listens: "),
            "{error}"
        );
        let (listener, address) = listening();
        let connected = std::net::TcpStream::connect(address.reachable().unwrap()).unwrap();
        drop(listener);
        let error = inherited.add("descriptor 4", None, connected.into()).unwrap_err().to_string();
        assert_eq!(error, "what was passed as descriptor 4 is neither a TCP nor a Unix socket that listens");
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(inherited.add("descriptor 5", None, datagrams.into()).is_err());
    }

    #[tokio::test]
    async fn a_unix_socket_is_taken_for_its_file_and_leaves_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let mut inherited = InheritedListeners::default();
        inherited.add("descriptor 3", None, StdUnixListener::bind(&path).unwrap().into()).unwrap();
        let (here, elsewhere) = (ListenAddress::Unix(path.clone()), ListenAddress::Unix(folder.path().join("t")));
        assert!(inherited.take(ListenerKind::Public, &elsewhere).unwrap().is_none());
        assert!(inherited.take(ListenerKind::Public, &address("127.0.0.1:0")).unwrap().is_none());
        let taken = inherited.take(ListenerKind::Public, &here).unwrap().expect("the one at this file");
        assert_eq!(taken.address().unwrap(), here);
        let client = UnixStream::connect(&path).await.unwrap();
        assert!(matches!(taken.accept().await.unwrap(), Either::Right(_)));
        drop(client);
        taken.close(false);
        assert!(path.exists(), "it is whoever passed it that removes it");
    }

    #[tokio::test]
    async fn a_file_of_our_own_goes_unless_a_successor_serves() {
        let folder = tempfile::tempdir().unwrap();
        let here = ListenAddress::Unix(folder.path().join("s"));
        for is_succeeded in [false, true] {
            let listener = bind(&here).unwrap();
            assert_eq!(listener.address().unwrap(), here);
            let error = bind(&here).unwrap_err().to_string();
            assert!(error.contains("Another process listens there"), "{error}");
            listener.close(is_succeeded);
            assert_eq!(folder.path().join("s").exists(), is_succeeded);
        }
        let error = bind(&ListenAddress::Unix(folder.path().join("none/s"))).unwrap_err().to_string();
        assert!(error.contains("There is no such folder"), "{error}");
    }

    #[tokio::test]
    async fn every_interface_is_served_over_both_families() {
        let listener = bind(&address(":0")).unwrap();
        let ListenAddress::Ip(bound) = listener.address().unwrap() else { panic!("it has a port") };
        let _client = TcpStream::connect(("127.0.0.1", bound.port())).await.expect("IPv4 is served");
        listener.accept().await.unwrap();
        let mut inherited = InheritedListeners::default();
        inherited.add("descriptor 3", None, listener.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let same = address(&format!(":{}", bound.port()));
        assert!(inherited.take(ListenerKind::Public, &same).unwrap().is_some());
        let local = bind(&address("localhost:0")).unwrap().address().unwrap();
        assert!(local.to_string().starts_with("127.0.0.1:"), "{local}");
    }
}
