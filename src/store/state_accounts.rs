//! Which account of a provider made what for which key.
//!
//! What was made lately is in memory, bounded; a database, where there is one, has all of it for as long as providers keep
//! it. Only a request that refers to something that is not in memory waits for the database. Whether it may be used, and
//! where it then goes, is decided elsewhere.
//!
//! Start reading in [`StateAccounts::find`].

use super::unbilled_responses::{DurableUnbilledResponses, UnbilledResponse, UnbilledResponses};
use super::{StoreFuture, StoreUnavailable};
use crate::domain::provider_state::{OwnedStateId, ProviderAccount};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// How long providers keep what they made, at least: OpenAI's own time.
pub const KEPT_SECONDS: i64 = 30 * 24 * 60 * 60;
/// How old what is kept of something lasting may become before it is kept anew: less than once a day is written of it.
const RENEWED_AFTER_SECONDS: i64 = 24 * 60 * 60;
/// How many are in memory at least, of the latest; at most twice as many: some 10 MB.
const IN_MEMORY: usize = 64 * 1024;

/// What one account made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MadeState {
    /// What it made for whom.
    pub ids: Vec<OwnedStateId>,
    /// The account.
    pub account: Arc<ProviderAccount>,
    /// When, in seconds of Unix time.
    pub made_unix_s: i64,
}

/// Where it outlives the process.
pub trait DurableStateAccounts: DurableUnbilledResponses {
    /// Keeps it. It never blocks: it is written in the background, and dropped if too much waits.
    fn keep(&self, made: MadeState);

    /// Forgets what made `id`. It never blocks, as `keep`, and comes after what was kept before.
    fn forget(&self, id: OwnedStateId);

    /// Which account made `id`, and when, in seconds of Unix time.
    fn find(&self, id: OwnedStateId) -> StoreFuture<'static, Result<Option<(ProviderAccount, i64)>, StoreUnavailable>>;
}

/// Which account made what for which key.
#[derive(Default)]
pub struct StateAccounts {
    latest: Mutex<LatestStates>,
    durable: Option<Arc<dyn DurableStateAccounts>>,
    /// Those of them that are made in the background and not billed yet.
    pub unbilled: UnbilledResponses,
}

/// `None` of what is forgotten: the database may still have it for a moment.
type AccountsById = HashMap<OwnedStateId, Option<(Arc<ProviderAccount>, i64)>>;

/// Two generations: the older one is forgotten when the younger one is full.
#[derive(Default)]
struct LatestStates {
    younger: AccountsById,
    older: AccountsById,
}

impl LatestStates {
    fn insert(&mut self, id: OwnedStateId, account: Option<(Arc<ProviderAccount>, i64)>) {
        if self.younger.len() >= IN_MEMORY {
            self.older = std::mem::take(&mut self.younger);
        }
        self.younger.insert(id, account);
    }

    fn get(&self, id: &OwnedStateId) -> Option<&Option<(Arc<ProviderAccount>, i64)>> {
        self.younger.get(id).or_else(|| self.older.get(id))
    }
}

impl StateAccounts {
    /// With a database behind what is in memory, which has these unbilled responses.
    pub fn durable(durable: Arc<dyn DurableStateAccounts>, unbilled: Vec<UnbilledResponse>) -> Self {
        let unbilled = UnbilledResponses::durable(unbilled, durable.clone());
        Self { latest: Mutex::default(), durable: Some(durable), unbilled }
    }

    /// Keeps what was made. It never blocks.
    pub fn keep(&self, made: MadeState) {
        let mut latest = self.latest.lock();
        for id in &made.ids {
            latest.insert(*id, Some((made.account.clone(), made.made_unix_s)));
        }
        drop(latest);
        if let Some(durable) = &self.durable {
            durable.keep(made);
        }
    }

    /// The same of what may have been kept before: only what is not in memory is kept anew.
    pub fn keep_unknown(&self, mut made: MadeState) {
        let latest = self.latest.lock();
        made.ids.retain(|id| latest.get(id).is_none());
        drop(latest);
        if !made.ids.is_empty() {
            self.keep(made);
        }
    }

    /// Forgets what made `id`: from now on it is unknown. It never blocks.
    pub fn forget(&self, id: OwnedStateId) {
        self.latest.lock().insert(id, None);
        if let Some(durable) = &self.durable {
            durable.forget(id);
        }
    }

    /// Which account made `id`, if it is not longer ago than providers keep it.
    ///
    /// # Errors
    /// [`StoreUnavailable`]: it is not known whether any did.
    pub async fn find(
        &self,
        id: OwnedStateId,
        now_unix_s: i64,
    ) -> Result<Option<Arc<ProviderAccount>>, StoreUnavailable> {
        Ok(self.found(id, now_unix_s).await?.map(|(account, _)| account))
    }

    /// The same of what providers keep until it is deleted: it is known for as long as it is asked for again in time.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub async fn find_lasting(
        &self,
        id: OwnedStateId,
        now_unix_s: i64,
    ) -> Result<Option<Arc<ProviderAccount>>, StoreUnavailable> {
        let Some((account, made)) = self.found(id, now_unix_s).await? else { return Ok(None) };
        if now_unix_s.saturating_sub(made) >= RENEWED_AFTER_SECONDS {
            self.keep(MadeState { ids: vec![id], account: account.clone(), made_unix_s: now_unix_s });
        }
        Ok(Some(account))
    }

    async fn found(
        &self,
        id: OwnedStateId,
        now_unix_s: i64,
    ) -> Result<Option<(Arc<ProviderAccount>, i64)>, StoreUnavailable> {
        let in_memory = self.latest.lock().get(&id).cloned();
        let found = match (in_memory, &self.durable) {
            (Some(found), _) => found,
            (None, Some(durable)) => durable.find(id).await?.map(|(account, made)| (Arc::new(account), made)),
            (None, None) => None,
        };
        Ok(found.filter(|(_, made)| now_unix_s.saturating_sub(*made) < KEPT_SECONDS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> OwnedStateId {
        OwnedStateId(std::array::from_fn(|at| number.to_le_bytes()[at % 8]))
    }

    fn made(ids: impl IntoIterator<Item = u64>, provider: &str, at: i64) -> MadeState {
        let account = ProviderAccount { provider: provider.into(), credential: [1; 8] };
        MadeState { ids: ids.into_iter().map(id).collect(), account: Arc::new(account), made_unix_s: at }
    }

    async fn found(accounts: &StateAccounts, number: u64, now: i64) -> Option<String> {
        let found = accounts.find(id(number), now).await.expect("memory is always there");
        found.map(|account| account.provider.to_string())
    }

    #[tokio::test]
    async fn what_was_made_is_found_until_providers_forget_it() {
        let accounts = StateAccounts::default();
        accounts.keep(made([1, 2], "a", 1_000));
        accounts.keep(made([3], "b", 2_000));
        assert_eq!(found(&accounts, 1, 1_000).await.as_deref(), Some("a"));
        assert_eq!(found(&accounts, 3, 2_000).await.as_deref(), Some("b"));
        assert_eq!(found(&accounts, 4, 2_000).await, None);
        assert_eq!(found(&accounts, 2, 999 + KEPT_SECONDS).await.as_deref(), Some("a"));
        assert_eq!(found(&accounts, 2, 1_000 + KEPT_SECONDS).await, None);
    }

    #[tokio::test]
    async fn what_lasts_is_known_for_as_long_as_it_is_used() {
        let accounts = StateAccounts::default();
        accounts.keep(made([1, 2], "a", 0));
        let month = KEPT_SECONDS - 1;
        for used in 1..=3 {
            let found = accounts.find_lasting(id(1), used * month).await.expect("memory is always there");
            assert_eq!(found.as_deref().map(|account| &*account.provider), Some("a"), "{used}");
        }
        assert_eq!(found(&accounts, 2, 3 * month).await, None, "the other one was not used");
        assert_eq!(accounts.find_lasting(id(1), 3 * month + KEPT_SECONDS).await, Ok(None));
        accounts.forget(id(1));
        assert_eq!(accounts.find_lasting(id(1), 3 * month).await, Ok(None));
    }

    #[tokio::test]
    async fn what_is_forgotten_is_unknown_and_not_kept_again_by_a_read() {
        let accounts = StateAccounts::default();
        accounts.keep(made([1, 2], "a", 1_000));
        accounts.forget(id(1));
        accounts.keep_unknown(made([1, 2, 3], "b", 2_000));
        assert_eq!(found(&accounts, 1, 2_000).await, None);
        assert_eq!(found(&accounts, 2, 2_000).await.as_deref(), Some("a"));
        assert_eq!(found(&accounts, 3, 2_000).await.as_deref(), Some("b"));
    }

    #[tokio::test]
    async fn memory_is_bounded_and_the_latest_stay() {
        let accounts = StateAccounts::default();
        let all = 3 * IN_MEMORY as u64;
        accounts.keep(made(0..all, "a", 0));
        let count = |latest: &LatestStates| latest.younger.len() + latest.older.len();
        assert!(count(&accounts.latest.lock()) <= 2 * IN_MEMORY);
        assert_eq!(found(&accounts, 0, 0).await, None);
        for number in [all - 1, all - IN_MEMORY as u64] {
            assert_eq!(found(&accounts, number, 0).await.as_deref(), Some("a"), "{number}");
        }
    }
}
