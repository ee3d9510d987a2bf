//! The actions of operators: keys, teams, credit, and reports of what was spent.
//!
//! Each action is one function, which the command line and the admin API share. It checks what is asked against the
//! active configuration and writes it to the register, with who did it; when it returns, the gateway of this process
//! applies it. This module never speaks HTTP and never prints, and it must never return the secret of a key a second time.
//!
//! Start reading at [`AdminOperations::create_key`].

mod audit;
mod credits;
mod faults;
mod keys;
pub mod posture;
mod report_time;
mod sla;
mod teams;
mod usage;
pub mod views;

pub use audit::{changed_fields, configuration_version};
pub use credits::NewGrant;
pub use faults::check_enabled as check_fault_api;
pub use keys::{IssuedKey, KeyEdit, KeyFilter, KeyView, MOST_SECRETS, NewKey};
pub use report_time::{ReportTime, parse_duration_ms, parse_expiry};
pub use teams::{TeamEdit, TeamView};

use crate::clock::Clock;
use crate::config::Snapshot;
use crate::domain::audit::Operator;
use crate::domain::id::is_name;
use crate::domain::register::QuarantinedRow;
use crate::domain::secret::MASK;
use crate::store::keyring::Keyring;
use crate::store::reports::Reports;
use crate::store::{RegisterConflict, RegisterWriteError, StoreUnavailable};
use std::fmt;
use std::sync::Arc;
use zeroize::Zeroizing;

/// A source of 256 random bits: chance is an argument here. `None` where the system has none.
pub type RandomBytes = Arc<dyn Fn() -> Option<Zeroizing<[u8; 32]>> + Send + Sync>;

/// What operators can do, over one register and one ledger.
#[derive(Clone)]
pub struct AdminOperations {
    keyring: Arc<Keyring>,
    clock: Clock,
    random_bytes: RandomBytes,
    reports: Option<Arc<dyn Reports>>,
    /// Whose changes these are.
    operator: Operator,
}

impl AdminOperations {
    /// What `operator` can do: writes through `keyring`, and has no ledger.
    pub fn new(keyring: Arc<Keyring>, clock: Clock, random_bytes: RandomBytes, operator: Operator) -> Self {
        Self { keyring, clock, random_bytes, reports: None, operator }
    }

    /// The same for another operator.
    #[must_use]
    pub fn by(&self, operator: Operator) -> Self {
        Self { operator, ..self.clone() }
    }

    /// Reads the ledger through `reports`; `None`: no ledger is kept.
    #[must_use]
    pub fn with_reports(self, reports: Option<Arc<dyn Reports>>) -> Self {
        Self { reports, ..self }
    }

    /// Why `snapshot` cannot be served together with the store; empty if it can.
    pub fn clashes(&self, snapshot: &Snapshot) -> Vec<String> {
        clashes(&self.keyring, snapshot)
    }

    /// The rows of the store that cannot be read, and count for nothing.
    pub fn quarantined(&self) -> Vec<QuarantinedRow> {
        self.keyring.quarantined()
    }

    fn now_unix_ms(&self) -> i64 {
        self.clock.unix_ms()
    }
}

/// A page of a list, and where the next one begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page<T> {
    /// The items, in the order of the list.
    pub items: Vec<T>,
    /// The cursor of the next page; `None` at the end of the list.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// A page of `items`, which holds one item more than `most` if there is a next page.
    fn of(mut items: Vec<T>, most: usize, name: impl Fn(&T) -> String) -> Self {
        let more = items.len() > most;
        items.truncate(most);
        Self { next: items.last().filter(|_| more).map(name), items }
    }
}

/// Where a key or a team is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordSource {
    /// In the configuration file, and changed there only.
    File,
    /// In the store, and changed by these actions.
    Store,
}

impl RecordSource {
    /// The word for it in tables and answers.
    pub fn label(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Store => "store",
        }
    }
}

/// The kind of record an action is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordKind {
    /// A key.
    Key,
    /// A team.
    Team,
    /// A request in the ledger.
    Request,
    /// A deployment.
    Deployment,
    /// An injected fault.
    Fault,
}

impl fmt::Display for RecordKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "key",
            Self::Team => "team",
            Self::Request => "request",
            Self::Deployment => "deployment",
            Self::Fault => "fault",
        })
    }
}

/// Why an action was refused or failed; nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AdminError {
    /// No record has this name.
    #[error("there is no {kind} '{name}'")]
    NotFound {
        /// The kind of record.
        kind: RecordKind,
        /// The name that was given.
        name: String,
    },
    /// A record of this name exists.
    #[error("there is a {kind} '{name}' already, in the {}; choose another name", .kept_in.label())]
    Exists {
        /// The kind of record.
        kind: RecordKind,
        /// The name that is in use.
        name: String,
        /// Where the existing record is kept.
        kept_in: RecordSource,
    },
    /// The record is in the configuration, which actions do not change.
    #[error("the {kind} '{name}' is in the configuration; change it there")]
    InFile {
        /// The kind of record.
        kind: RecordKind,
        /// Its name.
        name: String,
    },
    /// Another key has this secret.
    #[error("the key '{name}' has this secret already; every key needs one of its own")]
    SecretTaken {
        /// The other key, or a mask where it is not known.
        name: String,
    },
    /// The key has as many secrets that work as one may have.
    #[error(
        "the key '{name}' has {most} secrets that work, the most that a key may have; wait until one of them ends, or \
         rotate without an overlap, which ends them all",
        most = MOST_SECRETS
    )]
    TooManySecrets {
        /// The key.
        name: String,
    },
    /// The key was deleted.
    #[error("the key '{name}' was deleted, which is for good; make one with another name")]
    Deleted {
        /// The key.
        name: String,
    },
    /// The record was changed since its version was read.
    #[error("it was changed meanwhile; look at it again and repeat what still fits")]
    Stale,
    /// A field has a value that is not allowed.
    #[error("{field}: {message}")]
    Invalid {
        /// The field's name.
        field: &'static str,
        /// What is wrong with it and what to do, to follow the field's name.
        message: String,
    },
    /// Faults may not be injected here.
    #[error("the fault API is off; in staging, [drill] enabled = true opens it")]
    FaultsDisabled,
    /// This gateway keeps no ledger.
    #[error("this gateway keeps no ledger; a [store] url such as \"sqlite:tierway.db\" keeps one")]
    NoLedger,
    /// The store cannot be read or written at the moment.
    #[error("the store cannot be used at the moment; nothing was changed, try again")]
    Unavailable,
    /// The system has no random bytes.
    #[error("the system gives no random bytes to make a secret of")]
    NoRandomBytes,
}

impl AdminError {
    fn invalid(field: &'static str, message: impl Into<String>) -> Self {
        Self::Invalid { field, message: message.into() }
    }
}

impl From<StoreUnavailable> for AdminError {
    fn from(_: StoreUnavailable) -> Self {
        Self::Unavailable
    }
}

/// The error of a write that failed although it was checked before: another writer came first.
fn not_written(error: RegisterWriteError) -> AdminError {
    match error {
        RegisterWriteError::Conflict { why: RegisterConflict::Changed, .. } => AdminError::Stale,
        RegisterWriteError::Conflict { why: RegisterConflict::SecretTaken, .. } => {
            AdminError::SecretTaken { name: MASK.to_owned() }
        }
        RegisterWriteError::Conflict { why: RegisterConflict::TooMuchCredit, .. } => AdminError::invalid(
            "amount",
            "all grants of a key or team together are at most 9.2 billion dollars, either way; grant less",
        ),
        RegisterWriteError::Unavailable => AdminError::Unavailable,
    }
}

/// Refuses a name that the configuration would refuse.
fn check_name(name: &str) -> Result<(), AdminError> {
    if is_name(name) {
        return Ok(());
    }
    Err(AdminError::invalid("name", "1 to 200 letters, digits and - _ . / :, without blanks or quotes"))
}

/// Why the store and `snapshot` cannot be served together: names or secrets that both have, and policies of stored
/// keys that `snapshot` does not have. Empty if they can.
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
