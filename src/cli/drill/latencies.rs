//! How soon the providers of a configuration begin to answer, as its ledger has it.
//!
//! It only reads, and only what is there: a ledger that cannot be read says nothing, and is no reason not to rehearse.
//!
//! Start reading at [`first_tokens`].

use crate::cli::store_place::StorePlace;
use crate::config::{Snapshot, StoreLocation};
use crate::domain::drill::percentile;
use crate::domain::id::ProviderId;
use crate::domain::receipt::{Outcome, Receipt};
use crate::domain::report::ReceiptsQuery;
use crate::store::reports::LedgerSource;
use std::collections::BTreeMap;
use std::time::Duration;

/// The receipts that are read, the newest.
const MOST: usize = 5_000;
/// So many streams of a provider that their median means something.
const ENOUGH: usize = 20;
/// The slowest that is simulated: a scenario lasts for seconds.
const SLOWEST: Duration = Duration::from_secs(2);

/// The median of the first-token times of each provider, from the latest streams that its first attempt served. Blocks.
pub(super) fn first_tokens(snapshot: &Snapshot) -> BTreeMap<ProviderId, Duration> {
    let place = match &snapshot.store.location {
        StoreLocation::Sqlite(path) => StorePlace::File(path.clone()),
        StoreLocation::Postgres(url) => StorePlace::Postgres(url.clone()),
        StoreLocation::Memory | StoreLocation::Temporary | StoreLocation::Redis(_) => return BTreeMap::new(),
    };
    let read =
        |source: Box<dyn LedgerSource>| source.receipts(&ReceiptsQuery { most: MOST, ..ReceiptsQuery::default() }).ok();
    let receipts = place.source().ok().and_then(read).unwrap_or_default();
    medians(snapshot, &receipts)
}

fn medians(snapshot: &Snapshot, receipts: &[Receipt]) -> BTreeMap<ProviderId, Duration> {
    let mut times: BTreeMap<ProviderId, Vec<Duration>> = BTreeMap::new();
    for receipt in receipts.iter().filter(|receipt| receipt.stream && receipt.outcome == Outcome::Served) {
        let (Some(served), Some(first_token), 1) = (&receipt.served, receipt.first_token, receipt.attempts.len())
        else {
            continue;
        };
        let mut deployments = snapshot.table.deployments.iter();
        if let Some(deployment) = deployments.find(|deployment| deployment.name == served.deployment) {
            times.entry(deployment.provider).or_default().push(first_token);
        }
    }
    let enough = times.into_iter().filter(|(_, times)| times.len() >= ENOUGH);
    enough
        .filter_map(|(provider, mut times)| {
            times.sort_unstable();
            Some((provider, percentile(&times, 50)?.min(SLOWEST)))
        })
        .collect()
}
