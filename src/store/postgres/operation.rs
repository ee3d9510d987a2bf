//! What is queued for the writer thread beside receipts.

use crate::domain::budget::{Account, Charge};
use crate::domain::provider_state::OwnedStateId;
use crate::domain::secret::KeyHash;
use crate::store::state_accounts::MadeState;
use crate::store::unbilled_responses::UnbilledResponse;
use crate::store::writer::{self, WriterOperation};
use crate::store::{Lease, LeaseRequest, SlaPresence};
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Queues what is written to the database.
pub type PostgresWriter = writer::Writer<PostgresOperation>;

/// An entry of the queue.
pub(super) type QueuedPostgresOperation = writer::QueuedOperation<PostgresOperation>;

/// A write to the database. It may be repeated until its commit succeeds.
pub enum PostgresOperation {
    /// Grants one lease.
    Lease(Box<QueuedLease>),
    /// Books charges without a receipt, or returns what was leased.
    Charges(Vec<Charge>),
    /// Records when secrets were last used, in Unix milliseconds.
    Uses(Vec<(KeyHash, i64)>),
    /// Keeps which account made something, and forgets some of what was made before the second.
    State(MadeState, i64),
    /// Forgets which account made it.
    Forget(OwnedStateId),
    /// Keeps a response that is not billed yet.
    Unbilled(UnbilledResponse),
    /// It is billed.
    Billed(OwnedStateId),
    /// Records that this gateway is alive, and what it promises.
    Presence(SlaPresence),
}

/// A request for a lease, and where the answer goes.
pub struct QueuedLease {
    pub(super) writer: PostgresWriter,
    pub(super) request: LeaseRequest,
    /// The lease as written in the transaction, which may not be committed yet.
    pub(super) granted: Mutex<Option<Lease>>,
    pub(super) result: oneshot::Sender<Lease>,
}

impl WriterOperation for PostgresOperation {
    fn describe(&self) -> String {
        match self {
            Self::Lease(lease) => format!("a lease of {}", described(&lease.request.account)),
            Self::Charges(charges) => {
                let accounts: Vec<String> = charges.iter().map(|charge| described(&charge.account)).collect();
                format!("charges without a receipt of {}", accounts.join(", "))
            }
            Self::Uses(uses) => format!("when {} secrets were last used", uses.len()),
            Self::Forget(_) => "that something an account made is deleted".to_owned(),
            Self::Unbilled(response) => {
                format!("that a background response of '{}' is not billed yet", response.deployment)
            }
            Self::Billed(_) => "that a background response is billed".to_owned(),
            Self::Presence(_) => "that the gateway is alive".to_owned(),
            Self::State(made, _) => format!("which account of '{}' made something", made.account.provider),
        }
    }

    fn committed(self) {
        let Self::Lease(lease) = self else { return };
        let QueuedLease { writer, request, granted, result } = *lease;
        let Some(leased) = granted.into_inner() else { return };
        // The requester has timed out: nothing would ever spend this lease.
        if result.send(leased).is_err() {
            submit_charges(&writer, vec![Charge::returned(&request.account, leased.span, leased.amount, leased.term)]);
        }
    }
}

/// Queues charges without a receipt, or the return of unused leases. If the queue is full the money stays leased, and counts
/// as spent once the term ends.
pub(super) fn submit_charges(writer: &PostgresWriter, charges: Vec<Charge>) {
    if writer.submit(PostgresOperation::Charges(charges)).is_err() {
        tracing::error!("money could not be given back to its budget: it counts as spent");
    }
}

/// An account as the log names it.
fn described(account: &Account) -> String {
    format!("the {} '{}' ({})", account.scope.label(), account.name, account.window)
}
