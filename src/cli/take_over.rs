//! Taking over: a new process gets the listening sockets and the right to write the store from the one that serves.
//!
//! Both accept from the very same sockets, so that no connection is refused or lost between them, whichever of the two
//! ends first (`docs/adr/0012-a-successor-gets-the-sockets.md`). Only a process of the same user is answered or asked. Until
//! the successor is ready, the gateway that serves does not change anything: if the successor fails, nothing happened.
//!
//! The exchange, over a Unix socket: the successor sends [`REQUEST`]; it gets one line of JSON, a [`TakeOverOffer`],
//! with the descriptors; once it is ready it sends [`COMMIT`], reads [`DRAINING`], and the other one drains.
//!
//! Start reading at [`Predecessor::find`] for the successor, and at [`TakeOverListener::succeeded`] for the one that serves.

use crate::clock::Clock;
use crate::config::{Snapshot, StoreLocation};
use crate::http::conn::listener::{InheritedListeners, Listener, ListenerKind};
use crate::store::sqlite::StoreLock;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};

/// What a successor sends first; the number changes when the exchange does.
const REQUEST: &[u8] = b"tierway take-over 2\n";
/// What a successor sends once it is ready to serve.
const COMMIT: &[u8] = b"commit\n";
/// What the other one answers to that.
const DRAINING: &[u8] = b"draining\n";
/// The longest time for each step of the exchange.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest time that a successor may take from the offer until it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// The most bytes of an offer.
const MAX_OFFER: usize = 4096;
/// The most descriptors of an offer: two listeners and a lock.
const MAX_DESCRIPTORS: usize = 2 + StoreLock::DESCRIPTORS;
/// Only its owner may connect.
const OWNER_ONLY: u32 = 0o600;

/// What comes with the descriptors of an offer, in their order: the listeners, then the lock.
#[derive(Serialize, Deserialize, Debug)]
struct TakeOverOffer {
    version: String,
    listeners: Vec<OfferedListener>,
    /// Where the successor counts its commits, if there is a lock.
    store_writer: Option<u8>,
}

/// Whom an offered listener serves.
#[derive(Serialize, Deserialize, Clone, Copy, Debug)]
#[serde(rename_all = "snake_case")]
enum OfferedListener {
    Public,
    Ops,
}

impl OfferedListener {
    fn kind(self) -> ListenerKind {
        match self {
            Self::Public => ListenerKind::Public,
            Self::Ops => ListenerKind::Ops,
        }
    }
}

/// Why a gateway cannot be taken over from.
#[derive(Debug, thiserror::Error)]
pub(super) enum TakeOverError {
    /// There is no place for the socket.
    #[error(
        "--take-over needs a socket by which a running gateway can be asked, and with this [store] there is no place \
         for one: start both with --take-over-socket PATH"
    )]
    NoPlace,
    /// It cannot be asked.
    #[error("the gateway at {path} cannot be taken over from: {source}; it goes on serving")]
    Io {
        /// The socket.
        path: PathBuf,
        /// The failure of the operating system, or what is wrong with the answer.
        source: io::Error,
    },
}

/// Where a gateway with this configuration can be asked: beside its database or the socket that it serves, which are
/// its alone, or else in the user's own directory for such sockets.
pub(super) fn socket_path(named: Option<&Path>, snapshot: &Snapshot) -> Option<PathBuf> {
    if let Some(path) = named {
        return Some(path.to_owned());
    }
    let database = match &snapshot.store.location {
        StoreLocation::Sqlite(database) => Some(database.as_path()),
        StoreLocation::Memory | StoreLocation::Temporary | StoreLocation::Postgres(_) | StoreLocation::Redis(_) => None,
    };
    if let Some(file) = database.or_else(|| snapshot.server.listen.socket_file()) {
        let mut path = file.as_os_str().to_owned();
        path.push(".take-over");
        return Some(path.into());
    }
    let folder = std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty())?;
    Some(Path::new(&folder).join(format!("tierway-{}.take-over", snapshot.server.listen)))
}

/// The gateway that is taken over from, until [`Predecessor::commit`].
pub(super) struct Predecessor {
    stream: UnixStream,
    path: PathBuf,
    version: String,
    listeners: InheritedListeners,
    lock: Option<StoreLock>,
}

impl Predecessor {
    /// Asks the gateway that can be asked at `path`; `None` if there is none.
    ///
    /// # Errors
    /// [`TakeOverError::Io`] if it cannot be reached, is another user's, or does not answer.
    pub(super) async fn find(path: PathBuf, clock: Clock) -> Result<Option<Self>, TakeOverError> {
        let stream = match UnixStream::connect(&path).await {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(source) => return Err(TakeOverError::Io { path, source }),
        };
        match within(STEP_TIMEOUT, clock, request(&stream)).await {
            Ok((version, listeners, lock)) => Ok(Some(Self { stream, path, version, listeners, lock })),
            Err(source) => Err(TakeOverError::Io { path, source }),
        }
    }

    /// The lock of its store, if that is in a file.
    pub(super) fn take_lock(&mut self) -> Option<StoreLock> {
        self.lock.take()
    }

    /// Its listening sockets.
    pub(super) fn listeners(&mut self) -> &mut InheritedListeners {
        &mut self.listeners
    }

    /// Makes it drain. To be called when nothing can fail any more: from then on it accepts nothing.
    ///
    /// # Errors
    /// [`TakeOverError::Io`] if it has waited too long for this and goes on serving.
    pub(super) async fn commit(mut self, clock: Clock) -> Result<(), TakeOverError> {
        let pid = self.stream.peer_cred().ok().and_then(|peer| peer.pid());
        let exchange = async {
            self.stream.write_all(COMMIT).await?;
            expect(&mut self.stream, DRAINING).await
        };
        match within(STEP_TIMEOUT, clock, exchange).await {
            Ok(()) => tracing::info!(pid, version = self.version, "took over; the gateway before drains"),
            // It reads the message whenever it goes on.
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                tracing::warn!(pid, "took over; the gateway before does not answer, and will drain when it does");
            }
            Err(source) if UnixStream::connect(&self.path).await.is_ok() => {
                return Err(TakeOverError::Io { path: self.path, source });
            }
            Err(_) => tracing::warn!(pid, "took over; the gateway before has ended without draining"),
        }
        Ok(())
    }
}

async fn request(stream: &UnixStream) -> io::Result<(String, InheritedListeners, Option<StoreLock>)> {
    same_user(stream)?;
    stream.async_io(Interest::WRITABLE, || send(stream, REQUEST, &[])).await?;
    let (text, descriptors) = stream.async_io(Interest::READABLE, || receive(stream)).await?;
    let offer: TakeOverOffer = match text.strip_suffix(b"\n").map(serde_json::from_slice) {
        Some(Ok(offer)) => offer,
        _ if text.is_empty() => return Err(io::Error::other("it is already ending")),
        _ => return Err(io::Error::other("it speaks another version of this exchange")),
    };
    if descriptors.len() != offer.listeners.len() + offer.store_writer.map_or(0, |_| StoreLock::DESCRIPTORS) {
        return Err(io::Error::other("descriptors are missing: this process may not open more files"));
    }
    let mut descriptors = descriptors.into_iter();
    let mut listeners = InheritedListeners::default();
    for (listener, descriptor) in offer.listeners.iter().zip(descriptors.by_ref()) {
        let kind = listener.kind();
        listeners.add(&format!("{listener:?} listener"), Some(kind), descriptor).map_err(io::Error::other)?;
    }
    let lock =
        offer.store_writer.zip(<[OwnedFd; StoreLock::DESCRIPTORS]>::try_from(descriptors.collect::<Vec<_>>()).ok());
    let lock = lock.map(|(writer, files)| StoreLock::of_predecessor(files, writer));
    Ok((offer.version, listeners, lock))
}

/// What a successor is offered.
pub(super) struct TakeOverResources {
    /// Further descriptors of the listening sockets.
    listeners: Vec<(OfferedListener, OwnedFd)>,
    lock: Option<Weak<StoreLock>>,
}

impl TakeOverResources {
    /// `public` and `ops` stay with the caller; the lock is of the store, if that is in a file.
    ///
    /// # Errors
    /// If the process may not open further files.
    pub(super) fn new(public: &Listener, ops: Option<&Listener>, lock: Option<Weak<StoreLock>>) -> io::Result<Self> {
        let mut listeners = vec![(OfferedListener::Public, public.as_fd().try_clone_to_owned()?)];
        if let Some(ops) = ops {
            listeners.push((OfferedListener::Ops, ops.as_fd().try_clone_to_owned()?));
        }
        Ok(Self { listeners, lock })
    }
}

/// Where successors ask. Dropped, it closes its descriptors of the listening sockets.
pub(super) struct TakeOverListener {
    listener: UnixListener,
    path: PathBuf,
    resources: TakeOverResources,
    clock: Clock,
}

impl TakeOverListener {
    /// Listens at `path`, where nobody listens, or only the predecessor did.
    ///
    /// # Errors
    /// If another gateway listens there, or the system does not permit it.
    pub(super) fn bind(
        path: PathBuf,
        resources: TakeOverResources,
        took_over: bool,
        clock: Clock,
    ) -> Result<Self, TakeOverError> {
        match bind(&path, took_over) {
            Ok(listener) => Ok(Self { listener, path, resources, clock }),
            Err(source) => Err(TakeOverError::Io { path, source }),
        }
    }

    /// Ready once a successor serves: it accepts from the same sockets, and this process must drain. Never ready while
    /// there is none, or while one fails before it is ready.
    pub(super) async fn succeeded(&self) {
        loop {
            let answered = match self.listener.accept().await {
                Ok((stream, _)) => self.answer(stream).await,
                Err(error) => {
                    self.clock.sleep(STEP_TIMEOUT).await;
                    Err(error)
                }
            };
            match answered {
                Ok(()) => return,
                Err(error) => tracing::warn!(%error, "a process that asked to take over did not; serving goes on"),
            }
        }
    }

    async fn answer(&self, mut stream: UnixStream) -> io::Result<()> {
        same_user(&stream)?;
        within(STEP_TIMEOUT, self.clock, expect(&mut stream, REQUEST)).await?;
        within(STEP_TIMEOUT, self.clock, self.offer(&stream)).await?;
        within(READY_TIMEOUT, self.clock, expect(&mut stream, COMMIT)).await?;
        // Whether or not it reads this, it serves.
        let _ = within(STEP_TIMEOUT, self.clock, stream.write_all(DRAINING)).await;
        Ok(())
    }

    async fn offer(&self, stream: &UnixStream) -> io::Result<()> {
        let gone = || io::Error::other("the store cannot be written any more");
        let lock = self.resources.lock.as_ref().map(|lock| lock.upgrade().ok_or_else(gone)).transpose()?;
        let lock = lock.as_deref().map(StoreLock::for_successor);
        let offer = TakeOverOffer {
            version: super::VERSION.to_owned(),
            listeners: self.resources.listeners.iter().map(|(listener, _)| *listener).collect(),
            store_writer: lock.as_ref().map(|(_, writer)| *writer),
        };
        let mut text = serde_json::to_vec(&offer)?;
        text.push(b'\n');
        let listeners = self.resources.listeners.iter().map(|(_, descriptor)| descriptor.as_fd());
        let descriptors: Vec<BorrowedFd<'_>> = listeners.chain(lock.into_iter().flat_map(|(files, _)| files)).collect();
        stream.async_io(Interest::WRITABLE, || send(stream, &text, &descriptors)).await
    }

    /// Removes the socket: there will be no successor.
    pub(super) fn remove(self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Listens under a name of its own, then takes the place of what is at `path`, which may be left of an ended process.
fn bind(path: &Path, took_over: bool) -> io::Result<UnixListener> {
    if !took_over && std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another gateway listens there"));
    }
    let mut own = path.as_os_str().to_owned();
    own.push(format!(".{}", std::process::id()));
    let own = PathBuf::from(own);
    let _ = std::fs::remove_file(&own);
    let listener = UnixListener::bind(&own)?;
    std::fs::set_permissions(&own, std::fs::Permissions::from_mode(OWNER_ONLY))?;
    std::fs::rename(&own, path)?;
    Ok(listener)
}

/// Whoever may pass a socket off as ours could otherwise be sent every request, or send us one.
fn same_user(stream: &UnixStream) -> io::Result<()> {
    let (theirs, ours) = (stream.peer_cred()?.uid(), rustix::process::geteuid().as_raw());
    if theirs == ours {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("it runs as user {theirs}, this process as {ours}")))
}

async fn within<T>(limit: Duration, clock: Clock, step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::select! {
        done = step => done,
        () = clock.sleep(limit) => Err(io::Error::new(io::ErrorKind::TimedOut, "it does not answer")),
    }
}

/// Reads exactly `line`.
async fn expect(stream: &mut UnixStream, line: &[u8]) -> io::Result<()> {
    let mut read = vec![0; line.len()];
    stream.read_exact(&mut read).await?;
    if read == line { Ok(()) } else { Err(io::Error::other("it speaks another version of this exchange")) }
}

/// Sends all of `text`, which is shorter than any socket's buffer, with `descriptors`.
fn send(stream: &UnixStream, text: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("there are more descriptors than were expected"));
    }
    let sent = rustix::net::sendmsg(stream, &[IoSlice::new(text)], &mut control, SendFlags::NOSIGNAL)?;
    if sent == text.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

fn receive(stream: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut text = vec![0; MAX_OFFER];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = rustix::net::recvmsg(stream, &mut [IoSliceMut::new(&mut text)], &mut control, flags)?;
    text.truncate(received.bytes);
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            descriptors.extend(passed);
        }
    }
    Ok((text, descriptors))
}
