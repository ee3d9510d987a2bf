//! Noticing that the configuration changed, and compiling it anew.
//!
//! A [`ConfigWatcher`] looks at the content, not at file times, of the configuration and of every file it
//! refers to: a mounted ConfigMap or Secret is swapped by renaming a directory, which neither inotify
//! nor a time stamp shows reliably. Its caller decides when to look; it never waits itself. What a look finds counts
//! once the next look finds the same: most programs empty a file before they write it, some write it in parts, and
//! a certificate and its key are replaced one after the other. A configuration with problems changes nothing;
//! settings that need a restart keep their old values.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::env::Environment;
use super::problem::Problems;
use super::referenced_files::{ReferencedFiles, digest};
use super::source::ConfigSource;
use super::{ExtraKey, Snapshot, load};

/// Watches one configuration for changes.
pub struct ConfigWatcher<S> {
    /// `None` for the demo, which has no file but may refer to some by variables.
    path: Option<PathBuf>,
    environment: S,
    extra_keys: Vec<ExtraKey>,
    current: Arc<Snapshot>,
    /// What was last applied, or reported for its problems.
    handled: FoundContent,
    /// What the last look found, where that is something else.
    unconfirmed: Option<FoundContent>,
}

/// The content that one look found.
#[derive(Clone, PartialEq, Eq)]
struct FoundContent {
    /// The digest of the configuration; `None` when it could not be read.
    text: Option<[u8; 32]>,
    /// The files that it refers to.
    referenced_files: ReferencedFiles,
}

/// A new configuration without problems.
#[derive(Clone, Debug)]
pub struct ConfigChange {
    /// What applies from now on.
    pub snapshot: Arc<Snapshot>,
    /// Settings that were changed in the file and keep their old values until a restart.
    pub needs_restart: Vec<&'static str>,
}

/// A changed configuration that was not applied, as operators are told of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RefusedConfig {
    /// When it was refused, in Unix milliseconds.
    pub at_unix_ms: i64,
    /// What is wrong with it, as the log has it: at most [`MOST_PROBLEM_TEXT`] characters. It holds no secret.
    pub problems: String,
}

/// The most characters that are kept of the problems of a refused configuration.
pub const MOST_PROBLEM_TEXT: usize = 20_000;

impl RefusedConfig {
    /// What was refused at `at_unix_ms` for `problems`.
    pub fn new(at_unix_ms: i64, problems: &str) -> Self {
        Self { at_unix_ms, problems: problems.chars().take(MOST_PROBLEM_TEXT).collect() }
    }
}

impl<S: Environment> ConfigWatcher<S> {
    /// Watches what `current` was loaded from.
    pub fn new(source: &ConfigSource, environment: S, extra_keys: Vec<ExtraKey>, current: Arc<Snapshot>) -> Self {
        Self {
            path: source.path().map(Path::to_owned),
            environment,
            extra_keys,
            handled: FoundContent {
                text: Some(digest(source.text())),
                referenced_files: current.referenced_files.clone(),
            },
            current,
            unconfirmed: None,
        }
    }

    /// Looks whether any content is different, and the same as at the last look: the new configuration, or its
    /// problems, reported once for each content.
    pub fn check(&mut self) -> Option<Result<ConfigChange, Problems>> {
        let source = self.source();
        let text = source.as_ref().ok().map(|source| digest(source.text()));
        if text == self.handled.text && !self.handled.referenced_files.have_changed(&self.environment) {
            self.unconfirmed = None;
            return None;
        }
        let (found, loaded) = self.load(source);
        if self.unconfirmed.as_ref() != Some(&found) {
            self.unconfirmed = Some(found);
            return None;
        }
        Some(self.apply(found, loaded))
    }

    /// Loads the configuration at once, whether it changed or not: for SIGHUP.
    pub fn reload(&mut self) -> Result<ConfigChange, Problems> {
        let (found, loaded) = self.load(self.source());
        self.apply(found, loaded)
    }

    fn source(&self) -> Result<ConfigSource, Problems> {
        match &self.path {
            Some(path) => ConfigSource::file(path, &self.environment),
            None => Ok(ConfigSource::Demo),
        }
    }

    fn load(&self, source: Result<ConfigSource, Problems>) -> (FoundContent, Result<Snapshot, Problems>) {
        let text = source.as_ref().ok().map(|source| digest(source.text()));
        let loaded = source.and_then(|source| load(&source, &self.environment, &self.extra_keys));
        let referenced_files =
            loaded.as_ref().map_or_else(|problems| &problems.referenced_files, |new| &new.referenced_files).clone();
        (FoundContent { text, referenced_files }, loaded)
    }

    fn apply(&mut self, found: FoundContent, loaded: Result<Snapshot, Problems>) -> Result<ConfigChange, Problems> {
        self.unconfirmed = None;
        self.handled = found;
        let mut snapshot = loaded?;
        let needs_restart = keep_what_needs_a_restart(&self.current, &mut snapshot);
        let snapshot = Arc::new(snapshot);
        self.current = snapshot.clone();
        Ok(ConfigChange { snapshot, needs_restart })
    }
}

/// Puts back what cannot change while the gateway runs, and returns the names of it.
fn keep_what_needs_a_restart(old: &Snapshot, new: &mut Snapshot) -> Vec<&'static str> {
    let mut kept = Vec::new();
    if new.server.listen != old.server.listen {
        new.server.listen = old.server.listen.clone();
        kept.push("server.listen");
    }
    if new.server.admin_listen != old.server.admin_listen {
        new.server.admin_listen = old.server.admin_listen.clone();
        kept.push("server.admin_listen");
    }
    let (before, after) = (&old.server.connections, &new.server.connections);
    for (name, changed) in [
        ("server.max_connections", after.max != before.max),
        ("server.max_keyless_per_address", after.keyless_per_address != before.keyless_per_address),
        ("server.trusted_proxies", after.trusted_proxies != before.trusted_proxies),
    ] {
        kept.extend(changed.then_some(name));
    }
    new.server.connections = old.server.connections.clone();
    if new.server.worker_threads != old.server.worker_threads {
        new.server.worker_threads = old.server.worker_threads;
        kept.push("server.worker_threads");
    }
    if new.store != old.store {
        new.store = old.store.clone();
        kept.push("store");
    }
    if new.server.tls.is_some() != old.server.tls.is_some() {
        new.server.tls = old.server.tls.clone();
        kept.push("server.tls");
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StoreLocation;
    use std::cell::RefCell;
    use std::collections::HashMap;
    use std::io;
    use std::rc::Rc;

    const GOOD: &str = "providers.p.protocol = \"sim\"\nmodels.m.deployments = [{ provider = \"p\" }]\n";

    const CONFIGURATION: &str = "/tierway.toml";

    /// Files whose content the test changes.
    #[derive(Clone, Default)]
    struct Disk(Rc<RefCell<HashMap<PathBuf, String>>>);

    impl Disk {
        fn write(&self, text: &str) {
            self.put(CONFIGURATION, &format!("{GOOD}{text}"));
        }

        fn put(&self, path: &str, text: &str) {
            self.0.borrow_mut().insert(path.into(), text.to_owned());
        }

        fn remove(&self, path: &str) {
            self.0.borrow_mut().remove(Path::new(path));
        }
    }

    impl Environment for Disk {
        fn variable(&self, _: &str) -> Option<String> {
            None
        }

        fn variables(&self) -> Vec<(String, String)> {
            Vec::new()
        }

        fn read(&self, path: &Path) -> io::Result<String> {
            self.0.borrow().get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
        }
    }

    fn watched(text: &str) -> (Disk, ConfigWatcher<Disk>) {
        watched_on(Disk::default(), text)
    }

    fn watched_on(disk: Disk, text: &str) -> (Disk, ConfigWatcher<Disk>) {
        disk.write(text);
        let source = ConfigSource::file(Path::new(CONFIGURATION), &disk).expect("it was written");
        let snapshot = load(&source, &disk, &[]).unwrap_or_else(|problems| panic!("{problems}"));
        (disk.clone(), ConfigWatcher::new(&source, disk, Vec::new(), Arc::new(snapshot)))
    }

    /// The second of two looks that find the same.
    fn confirmed(watcher: &mut ConfigWatcher<Disk>) -> Option<Result<ConfigChange, Problems>> {
        assert!(watcher.check().is_none(), "one look is not enough");
        watcher.check()
    }

    fn changed(watcher: &mut ConfigWatcher<Disk>) -> ConfigChange {
        match confirmed(watcher) {
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
        let change = changed(&mut watcher);
        assert_eq!(change.snapshot.table.settings.max_attempts, 2);
        assert!(change.needs_restart.is_empty());
        assert!(watcher.check().is_none());
    }

    #[test]
    fn a_bad_file_is_reported_once_and_a_good_one_heals() {
        let (disk, mut watcher) = watched("");
        disk.write("[routing]\nmax_attempts = 0\n");
        assert!(matches!(confirmed(&mut watcher), Some(Err(_))));
        assert!(watcher.check().is_none());
        disk.write("[routing]\nmax_attempts = 1\n");
        assert_eq!(changed(&mut watcher).snapshot.table.settings.max_attempts, 1);
    }

    #[test]
    fn a_file_that_vanishes_is_reported_once_and_read_when_it_is_back() {
        let (disk, mut watcher) = watched("");
        disk.remove(CONFIGURATION);
        assert!(matches!(confirmed(&mut watcher), Some(Err(_))));
        assert!(watcher.check().is_none());
        disk.write("");
        changed(&mut watcher);
    }

    #[test]
    fn what_needs_a_restart_keeps_its_value_and_the_rest_applies() {
        let (disk, mut watcher) = watched("");
        disk.write(
            "[server]\nlisten = \"127.0.0.1:1\"\nworker_threads = 2\ndrain = \"7s\"\n[store]\nurl = \"sqlite:x\"\n",
        );
        let change = changed(&mut watcher);
        assert_eq!(change.needs_restart, ["server.listen", "server.worker_threads", "store"]);
        assert_eq!(change.snapshot.server.worker_threads, None);
        assert_eq!(change.snapshot.server.listen.to_string(), "127.0.0.1:8080");
        assert!(change.snapshot.store.location == StoreLocation::Sqlite("/tierway.db".into()));
        assert_eq!(change.snapshot.server.drain.as_secs(), 7);
    }

    #[test]
    fn a_file_written_in_parts_is_applied_once_it_is_whole() {
        let whole = format!("{GOOD}[routing]\nmax_attempts = 2\n");
        // Emptied, begun, cut in a value, and cut where it is valid and says something else.
        let half = &whole[..whole.len() / 2];
        let cut = &whole[..whole.len() - 3];
        for parts in [&[""][..], &["", half], &[GOOD], &["", half, GOOD, cut]] {
            let (disk, mut watcher) = watched("");
            disk.write("[routing]\nmax_attempts = 1\n");
            changed(&mut watcher);
            for part in parts {
                disk.put(CONFIGURATION, part);
                assert!(watcher.check().is_none(), "{part:?} is not the whole file");
            }
            disk.put(CONFIGURATION, &whole);
            assert_eq!(changed(&mut watcher).snapshot.table.settings.max_attempts, 2);
            assert!(watcher.check().is_none());
        }
    }

    #[test]
    fn a_change_taken_back_between_two_looks_changes_nothing() {
        let (disk, mut watcher) = watched("");
        for other in ["[routing]\nmax_attempts = 2\n", "[nonsense"] {
            disk.write(other);
            assert!(watcher.check().is_none());
            disk.write("");
            assert!(watcher.check().is_none());
            assert!(watcher.check().is_none());
        }
        disk.remove(CONFIGURATION);
        assert!(watcher.check().is_none(), "a file is removed before it is written anew");
        disk.write("");
        assert!(watcher.check().is_none());
    }

    #[test]
    fn a_secret_written_in_parts_is_applied_once_it_is_whole() {
        let disk = Disk::default();
        disk.put("/token", "twa_first");
        let (disk, mut watcher) = watched_on(disk, "[server]\nadmin_token = \"file:/token\"\n");
        let token = |change: &ConfigChange| {
            change.snapshot.server.admin_token.as_ref().map(|token| token.expose().to_owned()).unwrap_or_default()
        };
        for part in ["", "twa_sec"] {
            disk.put("/token", part);
            assert!(watcher.check().is_none(), "{part:?} is not the whole secret");
        }
        disk.put("/token", "twa_second");
        assert_eq!(token(&changed(&mut watcher)), "twa_second");
    }

    #[test]
    fn a_signal_reloads_at_once() {
        let (disk, mut watcher) = watched("");
        disk.write("[routing]\nmax_attempts = 2\n");
        assert!(watcher.check().is_none());
        let change = watcher.reload().unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(change.snapshot.table.settings.max_attempts, 2);
        assert!(watcher.check().is_none(), "it is not reported again");
    }

    #[test]
    fn a_signal_reloads_an_unchanged_file() {
        let (_disk, mut watcher) = watched("");
        assert!(watcher.reload().is_ok());
        assert!(watcher.check().is_none());
    }

    const TLS: &str = "[server]\ntls = { cert = \"file:/cert\", key = \"file:/key\" }\n";

    /// A certificate for `name` and its key, as PEM.
    fn issued(name: &str) -> (String, String) {
        let issued = rcgen::generate_simple_self_signed([name.to_owned()]).expect("rcgen can sign");
        (issued.cert.pem(), issued.signing_key.serialize_pem())
    }

    fn with_tls() -> (Disk, ConfigWatcher<Disk>) {
        let disk = Disk::default();
        let (cert, key) = issued("localhost");
        disk.put("/cert", &cert);
        disk.put("/key", &key);
        watched_on(disk, TLS)
    }

    fn leaf(change: &ConfigChange) -> Vec<u8> {
        let tls = change.snapshot.server.tls.as_ref().expect("TLS is served");
        tls.certified.end_entity_cert().expect("a chain has a first").to_vec()
    }

    #[test]
    fn a_certificate_replaced_file_by_file_is_taken_once_it_is_whole() {
        let (disk, mut watcher) = with_tls();
        let before = leaf(&watcher.reload().expect("nothing changed"));
        assert!(watcher.check().is_none());
        let (cert, key) = issued("localhost");
        disk.put("/cert", &cert);
        assert!(watcher.check().is_none(), "half of a renewal is not reported");
        disk.put("/key", &key);
        assert_ne!(leaf(&changed(&mut watcher)), before);
        assert!(watcher.check().is_none());
    }

    #[test]
    fn a_pair_that_stays_mismatched_is_reported_once_and_healed_by_its_key() {
        let (disk, mut watcher) = with_tls();
        let (cert, key) = issued("localhost");
        disk.put("/cert", &cert);
        let said = confirmed(&mut watcher).and_then(Result::err).expect("it is still wrong").render(false);
        assert!(said.contains("server.tls.key: does not belong to the certificate"), "{said}");
        assert!(watcher.check().is_none());
        assert!(watcher.reload().is_err(), "a reload on request reports at once");
        disk.put("/key", &key);
        changed(&mut watcher);
    }

    #[test]
    fn a_file_pointed_to_that_vanishes_and_comes_back_is_seen() {
        let (disk, mut watcher) = with_tls();
        let key = disk.read(Path::new("/key")).expect("it was written");
        disk.remove("/key");
        assert!(matches!(confirmed(&mut watcher), Some(Err(_))));
        disk.put("/key", &key);
        changed(&mut watcher);
    }

    #[test]
    fn tls_is_switched_on_and_off_by_a_restart_only() {
        let (disk, mut watcher) = with_tls();
        disk.write("");
        let change = changed(&mut watcher);
        assert_eq!(change.needs_restart, ["server.tls"]);
        assert!(change.snapshot.server.tls.is_some());
        let (disk, mut watcher) = watched_on(disk, "");
        disk.write(TLS);
        let change = changed(&mut watcher);
        assert_eq!(change.needs_restart, ["server.tls"]);
        assert!(change.snapshot.server.tls.is_none());
    }

    #[test]
    fn the_demo_can_be_asked_to_reload() {
        let disk = Disk::default();
        let demo = load(&ConfigSource::Demo, &disk, &[]).unwrap_or_else(|problems| panic!("{problems}"));
        let mut watcher = ConfigWatcher::new(&ConfigSource::Demo, disk, Vec::new(), Arc::new(demo));
        assert!(watcher.check().is_none());
        assert!(watcher.reload().is_ok());
    }
}
