//! Who else is alive: the rows that gateways renew in the database.
//!
//! A gateway that has not been seen for ten seconds by the database's clock is not counted. While the database cannot be
//! read nothing is known, and what was known last stays.
//!
//! Start reading in [`follow_replicas`].

use super::connections::Connections;
use super::error::PostgresError;
use super::ledger::PostgresLedger;
use super::sharing::SharingState;
use super::term::LeaseTermState;
use crate::domain::budget::LeaseTerm;
use crate::domain::replica::{ReplicaHistory, ReplicaView};
use crate::store::StoreUnavailable;
use crate::store::divided::ReplicaDivision;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio_postgres::types::Type;

/// How often it is looked. A part shrinks this long after another gateway began, and a little.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Gateways alive, those before $1, whether $1 itself is in its first minute, how many began within the last minute before
/// it, and whether any began earlier. No row: the term $1 is over.
const VIEW: &str = "SELECT count(*) FILTER (WHERE other.seen > now() - interval '10 seconds' OR other.id = mine.id),
        count(*) FILTER (WHERE other.seen > now() - interval '10 seconds' AND other.id < mine.id),
        mine.started > now() - interval '60 seconds',
        count(*) FILTER (WHERE other.started > now() - interval '60 seconds' AND other.id < mine.id),
        bool_or(other.started <= now() - interval '60 seconds')
    FROM tierway.replicas AS mine CROSS JOIN tierway.replicas AS other WHERE mine.id = $1 GROUP BY mine.id";

/// The division of limits among the gateways alive on the store of `ledger`, kept as it changes while the ledger is there.
///
/// # Errors
/// When the database cannot be read at first.
pub async fn follow_replicas(ledger: &PostgresLedger) -> Result<Arc<ReplicaDivision>, StoreUnavailable> {
    let division = Arc::new(ReplicaDivision::default());
    let mut following = FollowedReplicas {
        connections: Arc::downgrade(ledger.connections()),
        term: ledger.term_state().clone(),
        sharing: ledger.sharing_state().clone(),
        history: ReplicaHistory::default(),
        division: division.clone(),
    };
    if let Err(error) = following.look().await {
        tracing::error!(%error, "the other gateways cannot be read from the store");
        return Err(StoreUnavailable);
    }
    // It ends with its runtime, and before that when the connections are gone. An error is not logged: the writer, which
    // meets it as well, says that the database is away.
    ledger.connections().handle().spawn(async move {
        while following.connections.strong_count() > 0 {
            tokio::time::sleep(LOOK_EVERY).await;
            let _ = following.look().await;
        }
    });
    Ok(division)
}

/// What is known of the gateways of a store.
struct FollowedReplicas {
    connections: Weak<Connections>,
    term: Arc<LeaseTermState>,
    sharing: Arc<SharingState>,
    history: ReplicaHistory,
    division: Arc<ReplicaDivision>,
}

impl FollowedReplicas {
    async fn look(&mut self) -> Result<(), PostgresError> {
        let Some(connections) = self.connections.upgrade() else { return Ok(()) };
        let seen = view(&connections, self.term.number()).await?;
        if let Some(seen) = seen {
            self.sharing.seen(seen.alive);
            self.division.set(self.history.observe(seen, self.term.clock()));
        }
        Ok(())
    }
}

/// What the database says of the gateways to the one of `term`; `None` where that is over.
async fn view(connections: &Arc<Connections>, term: LeaseTerm) -> Result<Option<ReplicaView>, PostgresError> {
    let row = connections
        .run(move |client| Box::pin(async move { Ok(client.query_typed_opt(VIEW, &[(&term.0, Type::INT8)]).await?) }))
        .await?;
    let Some(row) = row else { return Ok(None) };
    let count =
        |at: usize| -> Result<u32, PostgresError> { Ok(u32::try_from(row.try_get::<_, i64>(at)?).unwrap_or(u32::MAX)) };
    let (is_new, settled): (bool, bool) = (row.try_get(2)?, row.try_get(4)?);
    let joined = is_new.then_some(count(3)?.saturating_add(settled.into()));
    Ok(Some(ReplicaView { alive: count(0)?, before: count(1)?, joined }))
}
