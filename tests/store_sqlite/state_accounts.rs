//! Which account made what outlives the process, for as long as providers keep it.

use crate::receipts::{Place, still, until_written};
use std::sync::Arc;
use tierway::domain::provider_state::{OwnedStateId, ProviderAccount, StateId};
use tierway::store::sqlite::SqliteStateAccounts;
use tierway::store::state_accounts::{KEPT_SECONDS, MadeState, StateAccounts};
use tierway::store::unbilled_responses::UnbilledResponse;

fn id(number: usize) -> OwnedStateId {
    StateId::stored(&format!("resp_{number}")).of_owner("app")
}

fn made(numbers: std::ops::Range<usize>, provider: &str, made_unix_s: i64) -> MadeState {
    let account = Arc::new(ProviderAccount { provider: provider.into(), credential: [7; 8] });
    MadeState { ids: numbers.map(id).collect(), account, made_unix_s }
}

#[tokio::test]
async fn what_was_made_before_a_restart_is_found_after_it_and_what_is_too_old_is_deleted() {
    let place = Place::new();
    let now = still()() / 1000;
    let open = |ledger: &tierway::store::sqlite::SqliteLedger| {
        let durable = SqliteStateAccounts::of_gateway(&place.database(), ledger.writer(), still());
        StateAccounts::durable(Arc::new(durable), SqliteStateAccounts::unbilled(&place.database()).expect("it is read"))
    };
    let (ledger, writing) = place.open();
    let accounts = open(&ledger);
    accounts.keep(made(0..100, "old", now - KEPT_SECONDS));
    accounts.keep(made(100..102, "eu", now - KEPT_SECONDS + 1));
    // The same again, as a later request may make it.
    accounts.keep(made(101..103, "us", now));
    let unbilled = |number| UnbilledResponse { id: id(number), deployment: "eu/m".into(), made_unix_ms: now * 1000 };
    assert!([1, 2].into_iter().all(|number| accounts.unbilled.keep(unbilled(number))));
    assert_eq!(accounts.unbilled.take(id(1)), Some(unbilled(1)));
    accounts.keep(made(103..104, "us", now));
    accounts.forget(id(103));
    until_written(&ledger);
    drop((ledger, writing));

    let (ledger, _writing) = place.open();
    let accounts = open(&ledger);
    let found = async |number: usize| {
        let found = accounts.find(id(number), now).await.expect("it is read");
        found.map(|account| (account.provider.to_string(), account.credential))
    };
    assert_eq!([1, 2].map(|number| accounts.unbilled.take(id(number))), [None, Some(unbilled(2))]);
    assert_eq!(found(100).await, Some(("eu".to_owned(), [7; 8])));
    assert_eq!(found(101).await, Some(("us".to_owned(), [7; 8])));
    assert_eq!((found(0).await, found(103).await), (None, None));
    let rows = || place.look().query_row("SELECT count(*) FROM state_accounts", [], |row| row.get::<_, i64>(0));
    for number in 200..203 {
        accounts.keep(made(number..number + 1, "eu", now));
        until_written(&ledger);
    }
    assert_eq!(rows().expect("it is read"), 3 + 3, "those of `old` are deleted");
}
