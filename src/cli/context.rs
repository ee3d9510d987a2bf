//! What the operators' commands share: the configuration and the store, opened whether or not a gateway runs, and
//! the messages of commands that change something.
//!
//! Nothing goes over the network: the store is written, and a running gateway reads it there. A new secret is
//! printed once, here, and nowhere else.
//!
//! Start reading at [`CliContext::open`].

use super::operator::operator;
use super::secrets::random_bytes;
use super::store::{CommandError, StoreArgs};
use super::store_place::{StorePlace, StorePlaceError};
use crate::admin::{AdminError, AdminOperations};
use crate::clock::Clock;
use crate::config::Snapshot;
use crate::domain::register::QuarantinedRow;
use crate::domain::secret::Secret;
use crate::store::Register;
use crate::store::keyring::Keyring;
use anyhow::Context;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use tokio::runtime::Runtime;

/// How soon a running gateway applies what a command wrote.
pub(super) const KNOWN_SOON: &str = "a running gateway knows within a second";

/// The configuration, the store and the actions of one command.
pub(super) struct CliContext {
    /// The configuration that stored keys and teams must fit.
    pub(super) snapshot: Snapshot,
    /// The actions.
    pub(super) admin: AdminOperations,
    runtime: Runtime,
}

impl CliContext {
    /// Opens the configuration and the store it names, which is created if it does not exist. `command` is what the audit
    /// says that changes were made by.
    pub(super) fn open(store: &StoreArgs, command: &str) -> Result<Self, CommandError> {
        Self::of(store, command, |place, runtime| runtime.block_on(place.register(Clock)))
    }

    /// The same for a command that only reads: the store of the configuration is not created, and read as empty where
    /// it does not exist yet.
    pub(super) fn open_to_read(store: &StoreArgs) -> Result<Self, CommandError> {
        Self::of(store, "", |place, runtime| runtime.block_on(place.register_to_read(!store.is_named(), Clock)))
    }

    fn of(
        store: &StoreArgs,
        command: &str,
        open: impl FnOnce(&StorePlace, &Runtime) -> Result<Arc<dyn Register>, StorePlaceError>,
    ) -> Result<Self, CommandError> {
        let snapshot = store.configuration()?;
        let place = store.place_of(&snapshot)?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CommandError::failed)?;
        let register = open(&place, &runtime).map_err(CommandError::store)?;
        let keyring = runtime.block_on(Keyring::open(register));
        let keyring = keyring.map_err(|_| CommandError::store(format!("{place} cannot be read")))?;
        for QuarantinedRow { table, row, why } in keyring.quarantined() {
            note(&format!("warning: '{row}' in the table {table} of the store counts for nothing: {why}"));
        }
        let entropy = Arc::new(|| random_bytes().ok());
        Ok(Self {
            snapshot,
            admin: AdminOperations::new(Arc::new(keyring), Clock, entropy, operator(command)),
            runtime,
        })
    }

    /// The actions, with the ledger of the database that `store` names.
    pub(super) fn with_ledger(&self, store: &StoreArgs) -> Result<AdminOperations, CommandError> {
        let reports = store.place_of(&self.snapshot)?.reports().map_err(CommandError::store)?;
        Ok(self.admin.clone().with_reports(Some(reports)))
    }

    /// Runs `action` to its end.
    pub(super) fn run<T>(&self, action: impl Future<Output = Result<T, AdminError>>) -> Result<T, CommandError> {
        self.block_on(action).map_err(command_error)
    }

    /// The same for an action with an error type of its own.
    pub(super) fn block_on<T>(&self, action: impl Future<Output = T>) -> T {
        self.runtime.block_on(action)
    }
}

/// The message and the exit code of `error`.
pub(super) fn command_error(error: AdminError) -> CommandError {
    match error {
        AdminError::Invalid { .. } => CommandError::usage(error),
        AdminError::Unavailable => CommandError::store(error),
        AdminError::NotFound { kind, .. } => CommandError::failed(format!("{error}; `tierway {kind}s list` shows all")),
        AdminError::Stale => CommandError::failed(format!("{error} (--if-version)")),
        _ => CommandError::failed(error),
    }
}

/// Ends a command: its output goes to stdout, an error to stderr.
pub(super) fn finish(output: Result<String, CommandError>) -> anyhow::Result<ExitCode> {
    match output {
        Ok(text) => {
            super::print(&text)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => error.print(),
    }
}

/// Prints a message beside the output.
pub(super) fn note(text: &str) {
    // If stderr is closed, the message is not wanted.
    let _ = writeln!(anstream::stderr(), "{}", super::printable(text.trim_end()));
}

/// Prints `output`, which contains the new secret of the key called `name`.
///
/// # Errors
/// If it cannot be written: the key exists, and its secret is lost.
pub(super) fn print_secret(name: &str, output: &str) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    let written = writeln!(out, "{}", output.trim_end()).and_then(|()| out.flush());
    written.with_context(|| {
        format!("the secret could not be written and is lost; `tierway keys rotate {name} --overlap 0s` makes another")
    })?;
    Ok(ExitCode::SUCCESS)
}

/// How to use a secret that was just printed.
pub(super) fn what_next(snapshot: &Snapshot) -> String {
    let scheme = if snapshot.server.tls.is_some() { "https" } else { "http" };
    let listen = &snapshot.server.listen;
    let origin = super::banner::local_url(scheme, listen).unwrap_or_else(|| format!("{scheme}://localhost"));
    let socket = listen.socket_file().map(|path| format!("  # by the socket {}", path.display())).unwrap_or_default();
    let key = if std::io::stdout().is_terminal() {
        "...       # the line above"
    } else {
        "\"$KEY\"    # after KEY=$(tierway keys ...)"
    };
    format!(
        "This secret is shown now and never again: the store keeps its SHA-256. Next:\n\n  \
         export OPENAI_BASE_URL={origin}/v1{socket}\n  export OPENAI_API_KEY={key}\n"
    )
}

/// The text of `secret`; empty if there is none.
pub(super) fn exposed(secret: Option<&Secret>) -> &str {
    secret.map_or("", Secret::expose)
}
