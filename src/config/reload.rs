//! Noticing that the configuration changed, and compiling it anew.
//!
//! A [`Watcher`] looks at the content, not at file times: a mounted ConfigMap is swapped by renaming
//! a directory, which neither inotify nor a time stamp shows reliably. It is told when to look and
//! never waits itself. A configuration with problems changes nothing; settings that need a restart
//! keep their old values.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::env::Surroundings;
use super::problem::Problems;
use super::source::Source;
use super::{ExtraKey, Snapshot, load};

/// Looks after one configuration file.
pub struct Watcher<S> {
    path: PathBuf,
    surroundings: S,
    extra_keys: Vec<ExtraKey>,
    current: Arc<Snapshot>,
    /// The content last looked at, good or bad; `None` when it could not be read.
    seen: Option<[u8; 32]>,
}

/// A new configuration that stands.
#[derive(Clone, Debug)]
pub struct Change {
    /// What applies from now on.
    pub snapshot: Arc<Snapshot>,
    /// Settings that were changed in the file and keep their old values until a restart.
    pub needs_restart: Vec<&'static str>,
}

impl<S: Surroundings> Watcher<S> {
    /// Watches the file that `current` was loaded from.
    pub fn new(source: &Source, surroundings: S, extra_keys: Vec<ExtraKey>, current: Arc<Snapshot>) -> Option<Self> {
        Some(Self {
            path: source.path()?.to_owned(),
            seen: Some(digest(source.text())),
            surroundings,
            extra_keys,
            current,
        })
    }

    /// Looks whether the content changed since it was last looked at: what it is now, or what is
    /// wrong with it, said once for each content.
    pub fn check(&mut self) -> Option<Result<Change, Problems>> {
        let source = match Source::file(&self.path, &self.surroundings) {
            Ok(source) => source,
            Err(problems) => return self.seen.take().map(|_| Err(problems)),
        };
        let digest = digest(source.text());
        if self.seen == Some(digest) {
            return None;
        }
        self.seen = Some(digest);
        Some(self.apply(&source))
    }

    /// Loads whatever is there, changed or not: what SIGHUP asks for, since a secret that the file
    /// points to may have changed.
    pub fn reload(&mut self) -> Result<Change, Problems> {
        let source = Source::file(&self.path, &self.surroundings)?;
        self.seen = Some(digest(source.text()));
        self.apply(&source)
    }

    /// The file that is watched.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn apply(&mut self, source: &Source) -> Result<Change, Problems> {
        let mut snapshot = load(source, &self.surroundings, &self.extra_keys)?;
        let needs_restart = keep_what_needs_a_restart(&self.current, &mut snapshot);
        let snapshot = Arc::new(snapshot);
        self.current = snapshot.clone();
        Ok(Change { snapshot, needs_restart })
    }
}

/// Puts back what cannot change while we run, and says what that was.
fn keep_what_needs_a_restart(old: &Snapshot, new: &mut Snapshot) -> Vec<&'static str> {
    let mut kept = Vec::new();
    if new.server.listen != old.server.listen {
        new.server.listen = old.server.listen;
        kept.push("server.listen");
    }
    if new.server.admin_listen != old.server.admin_listen {
        new.server.admin_listen = old.server.admin_listen;
        kept.push("server.admin_listen");
    }
    if new.store != old.store {
        new.store = old.store.clone();
        kept.push("store");
    }
    kept
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StorePlace;
    use std::cell::RefCell;
    use std::io;
    use std::rc::Rc;

    const GOOD: &str = "providers.p.protocol = \"sim\"\nmodels.m.deployments = [{ provider = \"p\" }]\n";

    /// One file whose content the test changes.
    #[derive(Clone, Default)]
    struct Disk(Rc<RefCell<Option<String>>>);

    impl Disk {
        fn write(&self, text: &str) {
            *self.0.borrow_mut() = Some(format!("{GOOD}{text}"));
        }
    }

    impl Surroundings for Disk {
        fn variable(&self, _: &str) -> Option<String> {
            None
        }

        fn variables(&self) -> Vec<(String, String)> {
            Vec::new()
        }

        fn read(&self, _: &Path) -> io::Result<String> {
            self.0.borrow().clone().ok_or_else(|| io::ErrorKind::NotFound.into())
        }
    }

    fn watched(text: &str) -> (Disk, Watcher<Disk>) {
        let disk = Disk::default();
        disk.write(text);
        let source = Source::file(Path::new("/tierway.toml"), &disk).expect("it was written");
        let snapshot = load(&source, &disk, &[]).unwrap_or_else(|problems| panic!("{problems}"));
        let watcher = Watcher::new(&source, disk.clone(), Vec::new(), Arc::new(snapshot));
        (disk, watcher.expect("it is a file"))
    }

    fn changed(found: Option<Result<Change, Problems>>) -> Change {
        match found {
            Some(Ok(change)) => change,
            Some(Err(problems)) => panic!("{problems}"),
            None => panic!("no change was seen"),
        }
    }

    #[test]
    fn a_change_is_seen_once() {
        let (disk, mut watcher) = watched("");
        assert!(watcher.check().is_none());
        disk.write("[routing]\nmax_attempts = 2\n");
        let change = changed(watcher.check());
        assert_eq!(change.snapshot.table.settings.max_attempts, 2);
        assert!(change.needs_restart.is_empty());
        assert!(watcher.check().is_none());
    }

    #[test]
    fn a_bad_file_is_reported_once_and_a_good_one_heals() {
        let (disk, mut watcher) = watched("");
        disk.write("[routing]\nmax_attempts = 0\n");
        assert!(matches!(watcher.check(), Some(Err(_))));
        assert!(watcher.check().is_none());
        disk.write("[routing]\nmax_attempts = 1\n");
        assert_eq!(changed(watcher.check()).snapshot.table.settings.max_attempts, 1);
    }

    #[test]
    fn a_file_that_vanishes_is_reported_once_and_read_when_it_is_back() {
        let (disk, mut watcher) = watched("");
        *disk.0.borrow_mut() = None;
        assert!(matches!(watcher.check(), Some(Err(_))));
        assert!(watcher.check().is_none());
        disk.write("");
        changed(watcher.check());
    }

    #[test]
    fn what_needs_a_restart_keeps_its_value_and_the_rest_applies() {
        let (disk, mut watcher) = watched("");
        disk.write("[server]\nlisten = \"127.0.0.1:1\"\ndrain = \"7s\"\n[store]\nurl = \"sqlite:x\"\n");
        let change = changed(watcher.check());
        assert_eq!(change.needs_restart, ["server.listen", "store"]);
        assert_eq!(change.snapshot.server.listen.port(), 8080);
        assert!(change.snapshot.store.place == StorePlace::Sqlite("tierway.db".into()));
        assert_eq!(change.snapshot.server.drain.as_secs(), 7);
    }

    #[test]
    fn a_signal_reloads_an_unchanged_file() {
        let (_disk, mut watcher) = watched("");
        assert!(watcher.reload().is_ok());
        assert!(watcher.check().is_none());
    }

    #[test]
    fn the_demo_is_not_watched() {
        let disk = Disk::default();
        let demo = load(&Source::Demo, &disk, &[]).unwrap_or_else(|problems| panic!("{problems}"));
        assert!(Watcher::new(&Source::Demo, disk, Vec::new(), Arc::new(demo)).is_none());
    }
}
