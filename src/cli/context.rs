//! The operators' desk on the command line: the configuration and the store, opened beside a gateway or
//! without one, and what every command that changes something says.
//!
//! Nothing goes over the network: the store is written, and a gateway that runs sees it there. A secret
//! is handed over once, here, and nowhere else printed.
//!
//! Start reading at [`CliContext::open`].

use super::secrets::random_bytes;
use super::store::{CommandError, StoreArgs};
use crate::admin::{Admin, AdminError};
use crate::clock::Clock;
use crate::config::Snapshot;
use crate::domain::secret::Secret;
use crate::store::keyring::Keyring;
use crate::store::sqlite::{OpenError, SqliteRegister};
use anyhow::Context;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

/// How long a running gateway takes, at most, to know what was written beside it.
pub(super) const KNOWN_SOON: &str = "a running gateway knows within a second";

/// How long a database may look unfinished.
const MADE_WITHIN: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What an operator's command works with.
pub(super) struct CliContext {
    /// The configuration that what is stored has to fit.
    pub(super) snapshot: Snapshot,
    /// What can be done.
    pub(super) admin: Admin,
    runtime: Runtime,
}

impl CliContext {
    /// Opens the configuration, and the store it names, made where there is none.
    pub(super) fn open(stored: &StoreArgs) -> Result<Self, CommandError> {
        let snapshot = stored.configuration()?;
        let path = stored.path_of(&snapshot)?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CommandError::failed)?;
        let register = runtime.block_on(register(&path, Clock)).map_err(CommandError::store)?;
        let keyring = runtime.block_on(Keyring::open(Arc::new(register)));
        let keyring = keyring.map_err(|_| CommandError::store(format!("{} cannot be read", path.display())))?;
        let entropy = Arc::new(|| random_bytes().ok());
        Ok(Self { snapshot, admin: Admin::new(Arc::new(keyring), Clock, entropy), runtime })
    }

    /// Does `action` to its end.
    pub(super) fn wait<T>(&self, action: impl Future<Output = Result<T, AdminError>>) -> Result<T, CommandError> {
        self.wait_for(action).map_err(refused)
    }

    /// The same for what fails in its own way.
    pub(super) fn wait_for<T>(&self, action: impl Future<Output = T>) -> T {
        self.runtime.block_on(action)
    }
}

/// The register at `path`. Another command may be making the database right now, which is soon done.
async fn register(path: &Path, clock: Clock) -> Result<SqliteRegister, OpenError> {
    let deadline = clock.now() + MADE_WITHIN;
    loop {
        match SqliteRegister::beside(path, clock.unix_ms()) {
            Err(OpenError::Missing(_) | OpenError::Older { .. } | OpenError::Foreign(_)) if clock.now() < deadline => {
                clock.sleep(LOOK_EVERY).await;
            }
            opened => return opened,
        }
    }
}

/// What is said of `error`, and with what the command exits.
pub(super) fn refused(error: AdminError) -> CommandError {
    match error {
        AdminError::Invalid { .. } => CommandError::usage(error),
        AdminError::Unavailable => CommandError::store(error),
        AdminError::NotFound { kind, .. } => CommandError::failed(format!("{error}; `tierway {kind}s list` shows all")),
        AdminError::Stale => CommandError::failed(format!("{error} (--if-version)")),
        _ => CommandError::failed(error),
    }
}

/// Ends a command: what it answers goes to stdout, why it stopped to stderr.
pub(super) fn view(answer: Result<String, CommandError>) -> anyhow::Result<ExitCode> {
    match answer {
        Ok(text) => {
            super::print(&text)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(stopped) => stopped.tell(),
    }
}

/// Says something beside the answer.
pub(super) fn note(text: &str) {
    // Whoever closed stderr wants to hear nothing.
    let _ = writeln!(anstream::stderr(), "{}", text.trim_end());
}

/// Writes `answer`, which holds the new secret of the key called `name`, and says what becomes of it.
///
/// # Errors
/// When nobody could read it: the key is there, and its secret is lost.
pub(super) fn hand_over(name: &str, answer: &str) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    let written = writeln!(out, "{}", answer.trim_end()).and_then(|()| out.flush());
    written.with_context(|| {
        format!("the secret could not be written and is lost; `tierway keys rotate {name} --overlap 0s` makes another")
    })?;
    Ok(ExitCode::SUCCESS)
}

/// What to do with a secret that was just printed.
pub(super) fn what_next(snapshot: &Snapshot) -> String {
    let scheme = if snapshot.server.tls.is_some() { "https" } else { "http" };
    let address = super::banner::reachable(snapshot.server.listen);
    let key = if std::io::stdout().is_terminal() {
        "...       # the line above"
    } else {
        "\"$KEY\"    # after KEY=$(tierway keys ...)"
    };
    format!(
        "This secret is shown now and never again: the store keeps its SHA-256. Next:\n\n  \
         export OPENAI_BASE_URL={scheme}://{address}/v1\n  export OPENAI_API_KEY={key}\n"
    )
}

/// The text of `secret`, where there is one.
pub(super) fn exposed(secret: Option<&Secret>) -> &str {
    secret.map_or("", Secret::expose)
}
