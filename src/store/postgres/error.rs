//! Why the database cannot be used, in sentences that say what to do.

use crate::store::column::UnreadableValue;
use std::error::Error;
use std::time::Duration;
use tokio_postgres::error::SqlState;

/// Why the store on a PostgreSQL server cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum PostgresOpenError {
    /// The URL cannot be understood.
    #[error("the URL of the PostgreSQL store {0}")]
    Url(String),
    /// A certificate authority cannot be read.
    #[error("the certificates in sslrootcert={path} cannot be read ({why}); name a PEM file that this user can read")]
    RootCertificates {
        /// As in the URL.
        path: String,
        /// The error.
        why: String,
    },
    /// No server answers, or it refuses the connection.
    #[error(
        "no connection to the database at {place}: {why}; start PostgreSQL, or correct store.url, and see that this user may \
         connect"
    )]
    Unreachable {
        /// The hosts of the URL, without its password.
        place: String,
        /// The reason, in the words of the server or the system.
        why: String,
    },
    /// The server is older than what the statements need.
    #[error("PostgreSQL {found} at {place} is too old; Tierway needs version {OLDEST} or newer")]
    TooOld {
        /// The hosts of the URL.
        place: String,
        /// The version of the server.
        found: i32,
    },
    /// The store does not exist in this database, and may only be read.
    #[error(
        "there is no store in the database at {place}; `tierway serve` makes it, and `tierway migrate` does without serving"
    )]
    Missing {
        /// The hosts of the URL.
        place: String,
    },
    /// It was written by a version that this one cannot run beside.
    #[error(
        "the database at {place} was written by a newer tierway (it has migration {name}, which this version cannot work \
         with); run that version here too"
    )]
    Newer {
        /// The hosts of the URL.
        place: String,
        /// The first migration that this program cannot work with.
        name: String,
    },
    /// It was written by another build.
    #[error(
        "migration {name} was applied to the database at {place} with another content than this tierway has; run the build \
         that made it, or restore a backup"
    )]
    Changed {
        /// The hosts of the URL.
        place: String,
        /// The name of the migration.
        name: String,
    },
    /// It lacks a migration, and may only be read.
    #[error(
        "the database at {place} lacks migration {name}; run `tierway migrate`, or start a gateway, which does it by itself"
    )]
    Older {
        /// The hosts of the URL.
        place: String,
        /// The first migration that is missing.
        name: &'static str,
    },
    /// The user may not make the store.
    #[error(
        "the store cannot be made in the database at {place}: {why}; let its user make schemas (GRANT CREATE ON DATABASE …), or \
         run `tierway migrate` once as the owner of the database"
    )]
    NotAllowed {
        /// The hosts of the URL.
        place: String,
        /// The server's words.
        why: String,
    },
    /// A statement failed.
    #[error("the database at {place}: {why}")]
    Failed {
        /// The hosts of the URL.
        place: String,
        /// The reason, in the words of the server or the system.
        why: PostgresError,
    },
    /// The thread for its connections cannot be started.
    #[error("the system gives no thread for the connections to the database: {0}")]
    NoThread(std::io::Error),
}

/// The oldest version of the server that is supported.
pub(super) const OLDEST: i32 = 13;

/// Why a statement failed.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// The server's answer, or the loss of the connection.
    #[error("{}", words_of(.0))]
    Server(#[from] tokio_postgres::Error),
    /// There was no answer in time.
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
    /// There is no connection.
    #[error("{0}")]
    NotConnected(String),
    /// A row holds what this program cannot read.
    #[error("a row cannot be read: {0}")]
    Unreadable(String),
}

impl From<UnreadableValue> for PostgresError {
    fn from(why: UnreadableValue) -> Self {
        Self::Unreadable(why.to_string())
    }
}

impl PostgresError {
    /// Whether retrying cannot help: the other operations of the commit must not wait for this one. A table or a column that
    /// is missing is a fault of the database, for all of them.
    pub(super) fn is_of_the_operation(&self) -> bool {
        match self {
            Self::Server(error) => match error.code() {
                // Values that no column takes, violated constraints, too large: classes 22, 23 and 54.
                Some(code) => ["22", "23", "54"].iter().any(|class| code.code().starts_with(class)),
                None => false,
            },
            Self::Unreadable(_) => true,
            Self::Late(_) | Self::NotConnected(_) => false,
        }
    }

    /// Whether two transactions waited for each other, so that the same one may succeed at once.
    pub(super) fn is_a_race(&self) -> bool {
        let code = match self {
            Self::Server(error) => error.code(),
            _ => None,
        };
        code.is_some_and(|code| {
            [&SqlState::T_R_DEADLOCK_DETECTED, &SqlState::T_R_SERIALIZATION_FAILURE].contains(&code)
        })
    }
}

/// What went wrong, down to its cause: the driver's own words name the kind alone.
fn words_of(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(of_server) => of_server.message().to_owned(),
        None => {
            let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            format!("{error}{cause}")
        }
    }
}
