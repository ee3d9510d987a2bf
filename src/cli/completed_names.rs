//! The names that a shell completes: of the configuration that commands would find, and of its store.
//!
//! A shell asks while somebody types: nothing is said, made or changed, and where something cannot be read there are fewer
//! names. Secrets that the shell does not have are not needed for names.
//!
//! Start reading at [`keys`].

use crate::config::{Environment, ProcessEnvironment, Snapshot, StoreLocation, find, load};
use crate::domain::policy::Policy;
use crate::store::RegisterContents;
use crate::store::sqlite::LedgerReader;
use clap_complete::CompletionCandidate;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

type Names = BTreeSet<Arc<str>>;

/// Of the file and the store.
pub(super) fn keys() -> Vec<CompletionCandidate> {
    candidates(|snapshot| {
        let in_file = snapshot.keys.values().map(|key| key.name.clone());
        let stored = stored(snapshot).map(|contents| contents.keys).unwrap_or_default();
        in_file.chain(stored.into_iter().filter(|key| !key.is_deleted()).map(|key| key.name)).collect()
    })
}

/// Of the file and the store.
pub(super) fn teams() -> Vec<CompletionCandidate> {
    candidates(|snapshot| {
        let stored = stored(snapshot).map(|contents| contents.teams).unwrap_or_default();
        snapshot.teams.keys().cloned().chain(stored.into_iter().map(|team| team.name)).collect()
    })
}

/// What a client may write as `model`.
pub(super) fn models() -> Vec<CompletionCandidate> {
    candidates(|snapshot| {
        let names = snapshot.policies.iter().flat_map(|policy| Policy::usable_names(policy, &snapshot.table));
        let all = snapshot.table.names.keys().cloned();
        names.map(|(name, _)| name).chain(all).collect()
    })
}

/// Of the configuration.
pub(super) fn policies() -> Vec<CompletionCandidate> {
    candidates(|snapshot| snapshot.policies.iter().map(|policy| policy.name.clone()).collect())
}

/// Of the configuration.
pub(super) fn deployments() -> Vec<CompletionCandidate> {
    candidates(|snapshot| snapshot.table.deployments.iter().map(|deployment| deployment.name.clone()).collect())
}

fn candidates(names: impl Fn(&Snapshot) -> Names) -> Vec<CompletionCandidate> {
    let Ok(source) = find(None, &ProcessEnvironment) else { return Vec::new() };
    let Ok(snapshot) = load(&source, &ShellEnvironment, &[]) else { return Vec::new() };
    names(&snapshot).into_iter().map(|name| CompletionCandidate::new(&*name)).collect()
}

/// What the store has, if it is a file: a server is not asked at each press of a key.
fn stored(snapshot: &Snapshot) -> Option<RegisterContents> {
    let StoreLocation::Sqlite(path) = &snapshot.store.location else { return None };
    LedgerReader::open(path).ok()?.registered().ok()
}

/// The environment of a shell, which need not have the secrets of a gateway.
struct ShellEnvironment;

impl Environment for ShellEnvironment {
    fn variable(&self, name: &str) -> Option<String> {
        // Each is another one: two keys may not have one secret.
        ProcessEnvironment.variable(name).or_else(|| Some(format!("not-set-{name}")))
    }

    fn variables(&self) -> Vec<(String, String)> {
        ProcessEnvironment.variables()
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        let is_denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
        match ProcessEnvironment.read(path) {
            Err(error) if is_denied(&error) => Ok(format!("not-readable-{}", path.display())),
            read => read,
        }
    }
}
