//! The demo's store: a temporary file, which the commands find and which ends with the demo.
//!
//! Each demo has a folder of its own below one that is the user's alone. There it says where it listens and where it
//! was started, so that a command finds the demo that is meant. What a killed demo leaves behind is never read, and is
//! removed by the next one.
//!
//! Start reading at [`DemoStore::create`] for the gateway, and at [`find`] for the commands.

use super::secrets::random_bytes;
use crate::config::ListenAddress;
use crate::store::sqlite::is_held;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Only their owner may enter the folders.
const OWNER_ONLY: u32 = 0o700;
const DATABASE: &str = "tierway.db";
const RECORD: &str = "demo.json";

/// The store of one running demo, removed when this is dropped.
pub(super) struct DemoStore {
    folder: PathBuf,
}

/// What a demo says of itself.
#[derive(Serialize, Deserialize)]
struct DemoRecord {
    listen: String,
    working_directory: PathBuf,
}

impl DemoStore {
    /// A new, empty place; what killed demos have left is removed.
    ///
    /// # Errors
    /// When there is no folder for temporary files, or ours in it is not this user's alone.
    pub(super) fn create() -> io::Result<Self> {
        let all = folder_of_all();
        match fs::DirBuilder::new().mode(OWNER_ONLY).create(&all) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => check_owner(&all)?,
        }
        for left in demos(&all).into_iter().filter(|demo| !is_held(&demo.database)) {
            // Another demo may be removing it, too.
            let _ = left.database.parent().map(fs::remove_dir_all);
        }
        let random = random_bytes::<8>().map_err(io::Error::other)?;
        let folder = all.join(format!("{:016x}", u64::from_le_bytes(*random)));
        fs::DirBuilder::new().mode(OWNER_ONLY).create(&folder)?;
        Ok(Self { folder })
    }

    /// Where its database is.
    pub(super) fn path(&self) -> PathBuf {
        self.folder.join(DATABASE)
    }

    /// Lets commands find it: the gateway listens at `listen`, and has opened the database.
    ///
    /// # Errors
    /// When that cannot be written.
    pub(super) fn publish(&self, listen: &str) -> io::Result<()> {
        let record = DemoRecord { listen: listen.to_owned(), working_directory: std::env::current_dir()? };
        // Renamed into place: a command never reads half of it.
        let unfinished = self.folder.join("demo.json.new");
        fs::write(&unfinished, serde_json::to_vec(&record)?)?;
        fs::rename(unfinished, self.folder.join(RECORD))
    }

    /// Removes it, although it may be in use.
    pub(super) fn remove(&self) {
        // The next demo tries again.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Drop for DemoStore {
    fn drop(&mut self) {
        self.remove();
    }
}

/// A demo that was published, running or not.
struct PublishedDemo {
    record: DemoRecord,
    database: PathBuf,
    published: SystemTime,
}

/// The database of the running demo that is meant: the one at the configured address `listen`; else the one started in
/// this working directory; else the only one.
///
/// # Errors
/// [`DemoError`].
pub(super) fn find(listen: &str) -> Result<PathBuf, DemoError> {
    let all = folder_of_all();
    let mut running = if check_owner(&all).is_ok() { demos(&all) } else { Vec::new() };
    running.retain(|demo| is_held(&demo.database));
    // Where one takes over from another, both run for a while.
    running.sort_by_key(|demo| demo.published);
    let here = std::env::current_dir().ok();
    let at_address = |demo: &PublishedDemo| is_same_address(&demo.record.listen, listen);
    let started_here = |demo: &PublishedDemo| Some(&demo.record.working_directory) == here.as_ref();
    let meant = running.iter().rev().find(|demo| at_address(demo)).or_else(|| {
        let near: Vec<_> = running.iter().filter(|demo| started_here(demo)).collect();
        match (near.as_slice(), running.as_slice()) {
            ([one], _) => Some(*one),
            ([], [one]) => Some(one),
            _ => None,
        }
    });
    if running.is_empty() {
        return Err(DemoError::None);
    }
    let addresses = || running.iter().map(|demo| demo.record.listen.as_str()).collect::<Vec<_>>().join(", ");
    meant.map(|demo| demo.database.clone()).ok_or_else(|| DemoError::Several(addresses()))
}

/// Why no demo is meant.
#[derive(Debug, thiserror::Error)]
pub(super) enum DemoError {
    /// None runs.
    #[error(
        "no demo is running, and a demo keeps its ledger only while it runs\n  help: start one with `tierway serve`; for \
         a gateway with a configuration name that with --config FILE, or its database with --store sqlite:PATH"
    )]
    None,
    /// Several run, at these addresses, and none of them is meant more than the others.
    #[error("several demos are running, at {0}\n  help: TIERWAY__SERVER__LISTEN=ADDRESS names one of them")]
    Several(String),
}

/// Whether a demo at `published` is reached at `configured`.
fn is_same_address(published: &str, configured: &str) -> bool {
    let bound = |text: &str| text.parse::<ListenAddress>().ok()?.socket_addresses().first().copied();
    match [bound(published), bound(configured)] {
        [Some(one), Some(other)] => {
            let every_interface = one.ip().is_unspecified() || other.ip().is_unspecified();
            one == other || (every_interface && one.port() == other.port())
        }
        _ => published == configured,
    }
}

fn folder_of_all() -> PathBuf {
    std::env::temp_dir().join(format!("tierway-demo-{}", rustix::process::getuid().as_raw()))
}

/// Others may write to the folder around it, so that they could have made it.
fn check_owner(folder: &Path) -> io::Result<()> {
    let found = folder.symlink_metadata()?;
    let is_ours = found.is_dir() && found.uid() == rustix::process::getuid().as_raw();
    if is_ours && found.mode() & 0o077 == 0 {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("{} is not this user's alone", folder.display())))
}

fn demos(all: &Path) -> Vec<PublishedDemo> {
    let entries = fs::read_dir(all).into_iter().flatten().flatten();
    let read = |folder: PathBuf| {
        let record = folder.join(RECORD);
        let published = record.metadata().and_then(|file| file.modified()).ok()?;
        let record = serde_json::from_slice(&fs::read(record).ok()?).ok()?;
        Some(PublishedDemo { record, database: folder.join(DATABASE), published })
    };
    entries.filter_map(|entry| read(entry.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_that_of_a_demo_whichever_interface_is_named() {
        let check = |published: &str, configured: &str, expected: bool| {
            assert_eq!(is_same_address(published, configured), expected, "{published} {configured}");
        };
        check("127.0.0.1:8080", "127.0.0.1:8080", true);
        check("127.0.0.1:8080", "127.0.0.1:8081", false);
        check("0.0.0.0:8080", "127.0.0.1:8080", true);
        check("127.0.0.1:8080", "[::]:8080", true);
        check("127.0.0.1:8080", "10.0.0.1:8080", false);
        check("127.0.0.1:8080", "localhost:8080", true);
        check("[::]:8080", ":8080", true);
        check("unix:/run/a.sock", "unix:/run/a.sock", true);
        check("unix:/run/a.sock", "unix:/run/b.sock", false);
        check("localhost", "localhost", true);
    }

    #[test]
    fn a_folder_that_others_may_enter_is_not_used() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let made = |name: &str, mode: u32| {
            let path = folder.path().join(name);
            fs::DirBuilder::new().mode(mode).create(&path).expect("it can be made");
            path
        };
        let ours = made("ours", OWNER_ONLY);
        assert!(check_owner(&ours).is_ok());
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&ours, &link).expect("it can be linked");
        for theirs in [made("theirs", 0o750), link, folder.path().join("none")] {
            assert!(check_owner(&theirs).is_err(), "{}", theirs.display());
        }
    }
}
