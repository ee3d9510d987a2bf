//! What operators do while the gateway runs: keys, teams, credit, and looking at what was spent.
//!
//! Each action is one function, the same for the command line and for the admin API: it is checked against
//! the configuration in force, written to the register, and known to the gateway when it returns. This room
//! never speaks HTTP and never prints; it must never hand out a secret twice.
//!
//! Start reading at [`Admin::create_key`].

mod credits;
mod keys;
mod teams;
mod time_point;
mod usage;
pub mod views;

pub use credits::NewGrant;
pub use keys::{IssuedKey, KeyEdit, KeyFilter, KeyView, NewKey};
pub use teams::{TeamEdit, TeamView};
pub use time_point::{TimePoint, parse_duration_ms, parse_expiry};

use crate::clock::Clock;
use crate::config::Snapshot;
use crate::domain::id::is_name;
use crate::domain::secret::MASK;
use crate::store::keyring::Keyring;
use crate::store::reports::Reports;
use crate::store::{Conflict, NotWritten, Unavailable};
use std::fmt;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Where 256 random bits come from: chance is handed in.
pub type RandomBytes = Arc<dyn Fn() -> Option<Zeroizing<[u8; 32]>> + Send + Sync>;

/// The operators' desk.
#[derive(Clone)]
pub struct Admin {
    keyring: Arc<Keyring>,
    clock: Clock,
    random_bytes: RandomBytes,
    reports: Option<Arc<dyn Reports>>,
}

impl Admin {
    /// One that writes through `keyring`.
    pub fn new(keyring: Arc<Keyring>, clock: Clock, random_bytes: RandomBytes) -> Self {
        Self { keyring, clock, random_bytes, reports: None }
    }

    /// The same, which looks at the ledger through `reports`; `None`: it keeps nothing.
    #[must_use]
    pub fn with_reports(self, reports: Option<Arc<dyn Reports>>) -> Self {
        Self { reports, ..self }
    }

    /// Why `snapshot` cannot be served together with what is stored; empty: it can.
    pub fn clashes(&self, snapshot: &Snapshot) -> Vec<String> {
        clashes(&self.keyring, snapshot)
    }

    fn now_unix_ms(&self) -> i64 {
        self.clock.unix_ms()
    }
}

/// A part of a list, and where the next one begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page<T> {
    /// In order.
    pub items: Vec<T>,
    /// What to ask for the rest with; `None`: this was the end.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// Of `items`, one of which may be more than the `most` that fit.
    fn of(mut items: Vec<T>, most: usize, name: impl Fn(&T) -> String) -> Self {
        let more = items.len() > most;
        items.truncate(most);
        Self { next: items.last().filter(|_| more).map(name), items }
    }
}

/// Where something is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordSource {
    /// In the configuration: it is changed there.
    File,
    /// In the store: it is changed here.
    Store,
}

impl RecordSource {
    /// Its word in tables and answers.
    pub fn label(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Store => "store",
        }
    }
}

/// What an action is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordKind {
    /// A key.
    Key,
    /// A team.
    Team,
    /// A request in the ledger.
    Request,
}

impl fmt::Display for RecordKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "key",
            Self::Team => "team",
            Self::Request => "request",
        })
    }
}

/// Why an action was not done; nothing was changed then.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AdminError {
    /// There is none of that name.
    #[error("there is no {kind} '{name}'")]
    NotFound {
        /// What was looked for.
        kind: RecordKind,
        /// As it was asked for.
        name: String,
    },
    /// There is one already.
    #[error("there is a {kind} '{name}' already, in the {}; choose another name", .kept_in.label())]
    Exists {
        /// What it would be.
        kind: RecordKind,
        /// Its name.
        name: String,
        /// Where the other is.
        kept_in: RecordSource,
    },
    /// It is the configuration's.
    #[error("the {kind} '{name}' is in the configuration; change it there")]
    InFile {
        /// What it is.
        kind: RecordKind,
        /// Its name.
        name: String,
    },
    /// Another key opens with this secret.
    #[error("the key '{name}' has this secret already; every key needs one of its own")]
    SecretTaken {
        /// The other key, where it is known.
        name: String,
    },
    /// It was changed since it was looked at.
    #[error("it was changed meanwhile; look at it again and repeat what still fits")]
    Stale,
    /// Something that was asked for cannot be.
    #[error("{field}: {message}")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// What is wrong with it, and what to do.
        message: String,
    },
    /// Nothing keeps what requests cost.
    #[error("this gateway keeps no ledger; a [store] url such as \"sqlite:tierway.db\" keeps one")]
    NoLedger,
    /// The store cannot be read or written now.
    #[error("the store cannot be used at the moment; nothing was changed, try again")]
    Unavailable,
    /// The system gives no random bytes.
    #[error("the system gives no random bytes to make a secret of")]
    NoRandomBytes,
}

impl AdminError {
    fn invalid(field: &'static str, message: impl Into<String>) -> Self {
        Self::Invalid { field, message: message.into() }
    }
}

impl From<Unavailable> for AdminError {
    fn from(_: Unavailable) -> Self {
        Self::Unavailable
    }
}

/// What an error that nobody foresaw here is called: a secret that was taken between the look and the write.
fn not_written(error: NotWritten) -> AdminError {
    match error {
        NotWritten::Conflict { why: Conflict::Changed, .. } => AdminError::Stale,
        NotWritten::Conflict { why: Conflict::SecretTaken, .. } => AdminError::SecretTaken { name: MASK.to_owned() },
        NotWritten::Unavailable => AdminError::Unavailable,
    }
}

/// Refuses a name that could not stand in the configuration.
fn check_name(name: &str) -> Result<(), AdminError> {
    if is_name(name) {
        return Ok(());
    }
    Err(AdminError::invalid("name", "1 to 200 letters, digits and - _ . / :, without blanks or quotes"))
}

/// Why what is stored and `snapshot` cannot be served together: a name or a secret that both have, and keys
/// whose policy is gone. Empty: they can.
pub fn clashes(keyring: &Keyring, snapshot: &Snapshot) -> Vec<String> {
    let mut clashes = Vec::new();
    for (hash, key) in &snapshot.keys {
        if keyring.key(&key.name).is_some() {
            clashes
                .push(format!("the key `{}` is in the configuration and in the store; rename one of them", key.name));
        } else if let Some(other) = keyring.holder_of(hash) {
            let name = &key.name;
            clashes
                .push(format!("the key `{name}` has the secret of the stored key `{other}`; every key needs its own"));
        }
    }
    for team in snapshot.teams.keys().filter(|team| keyring.team(team).is_some()) {
        clashes.push(format!("the team `{team}` is in the configuration and in the store; rename one of them"));
    }
    for policy in keyring.policies().iter().filter(|policy| snapshot.policy(policy).is_none()) {
        clashes.push(format!("stored keys have the policy `{policy}`, which the configuration does not have"));
    }
    clashes.sort();
    clashes
}
