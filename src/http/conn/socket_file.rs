//! The file of a Unix socket: made for its owner alone, in place of one that nobody serves any more.
//!
//! A process that was killed leaves its file behind, and only connecting to it tells such a one from a socket that is
//! served. Whoever looks holds a lock on the folder meanwhile, so that of two gateways that start at once one listens
//! and the other is refused. What is no socket is never removed.
//!
//! Start reading at [`listen`].

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixSocket};

/// Only its owner may connect.
const OWNER_ONLY: u32 = 0o600;

/// The file of a socket that this process made.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Its device and inode: another process may have put its own file there since.
    identity: (u64, u64),
}

impl SocketFile {
    /// Removes the file, unless another one is at its path by now.
    pub(super) fn remove(self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            // Without it a start finds a file that nobody serves, and replaces it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Listens on a socket whose file is made at `path`, with mode 0600; `backlog` connections are queued at most.
///
/// # Errors
/// `AddrInUse` if another process serves it, `AlreadyExists` if the file there is no socket, and whatever else the
/// system refuses.
pub(super) fn listen(path: &Path, backlog: u32) -> io::Result<(UnixListener, SocketFile)> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    // A folder that cannot be locked can be served from all the same.
    let _locked = File::open(folder).and_then(|folder| folder.lock().map(|()| folder)).ok();
    remove_unserved(path)?;
    let socket = UnixSocket::new_stream()?;
    socket.bind(path)?;
    // Nobody can connect before it listens.
    std::fs::set_permissions(path, Permissions::from_mode(OWNER_ONLY))?;
    let file = SocketFile { path: path.to_owned(), identity: identity(path)? };
    Ok((socket.listen(backlog)?, file))
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = path.symlink_metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Removes a socket's file that no process listens on.
fn remove_unserved(path: &Path) -> io::Result<()> {
    let file = match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    if !file.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
    }
    match connect(path) {
        Err(Errno::CONNREFUSED) => std::fs::remove_file(path),
        // `AGAIN`: its queue is full.
        Ok(()) | Err(Errno::AGAIN) => Err(io::Error::new(io::ErrorKind::AddrInUse, "it is served")),
        Err(error) => Err(error.into()),
    }
}

/// Connects and closes, without waiting for room in the queue.
fn connect(path: &Path) -> Result<(), Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener as StdListener, UnixStream};

    #[tokio::test]
    async fn a_new_file_is_its_owners_and_goes_with_its_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let (listener, file) = listen(&path, 8).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        UnixStream::connect(&path).expect("it listens");
        drop(listener);
        file.remove();
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn an_unserved_file_is_replaced_and_a_served_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(StdListener::bind(&path).unwrap());
        assert!(path.exists(), "a closed listener leaves its file");
        let (_listener, first) = listen(&path, 8).unwrap();
        let error = listen(&path, 8).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        UnixStream::connect(&path).expect("the first one still listens");
        // Another process put its own socket there: it stays.
        std::fs::remove_file(&path).unwrap();
        let _other = StdListener::bind(&path).unwrap();
        first.remove();
        UnixStream::connect(&path).expect("the other one still listens");
    }

    #[tokio::test]
    async fn a_full_queue_is_no_dead_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let (_listener, _file) = listen(&path, 1).unwrap();
        let mut waiting = Vec::new();
        while let Ok(()) = connect(&path) {
            waiting.push(());
            if waiting.len() > 64 {
                break;
            }
        }
        assert_eq!(listen(&path, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(listen(&path, 8).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        assert_eq!(listen(&folder.path().join("none/s"), 8).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
