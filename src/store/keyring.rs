//! The process's copy of the register: every stored key is looked up in memory.
//!
//! A request whose key is not in the configuration file is looked up here by the hash of its secret. The register
//! is read when this or another process has changed something, never on the request path. It decides nothing:
//! what may be changed is decided in `admin`.
//!
//! Start reading in [`Keyring::find`], then [`Keyring::write`].

use super::{
    ChangeContext, PromisedMonth, Register, RegisterChange, RegisterContents, RegisterWriteError, SlaPresence,
    StoreUnavailable,
};
use crate::domain::audit::{AuditEntry, AuditQuery, AuditRow};
use crate::domain::drill::report::DrillReport;
use crate::domain::money::NanoUsd;
use crate::domain::register::{CreditBalance, Grant, Holder, QuarantinedRow, StoredKey, StoredTeam};
use crate::domain::secret::KeyHash;
use crate::domain::sla::closing::SlaClosing;
use crate::domain::sla::month::SlaMonth;
use foldhash::fast::FixedState;
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// A use is recorded at most once per second: reports need no more, and a busy key rarely writes an atomic.
const RECORD_EVERY_MS: i64 = 1_000;

/// Keys, teams and credit, as last read from the register.
pub struct Keyring {
    register: Arc<dyn Register>,
    contents: RwLock<KeyringContents>,
    /// Held while the register is read into `contents`, so that an older read never replaces a newer one.
    refreshing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct KeyringContents {
    version: i64,
    keys: BTreeMap<Arc<str>, Arc<KeyringEntry>>,
    /// A second, secret hash of what is a SHA-256 sum would keep nobody from anything.
    by_hash: HashMap<KeyHash, (Arc<KeyringEntry>, usize), FixedState>,
    teams: BTreeMap<Arc<str>, Arc<StoredTeam>>,
    credit: HashMap<Holder, NanoUsd>,
    /// What could not be read, by table and name, and why.
    quarantined: BTreeMap<(&'static str, String), String>,
    versions: KeyringVersions,
}

/// The versions of the last changes: with equal versions, teams and credit are equal.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct KeyringVersions {
    /// Of the last change to a team.
    pub teams: i64,
    /// Of the last grant.
    pub credit: i64,
}

/// A key, and the last use of each of its secrets.
struct KeyringEntry {
    key: Arc<StoredKey>,
    uses: Box<[SecretUse]>,
}

struct SecretUse {
    last_unix_ms: AtomicI64,
    /// Whether the register does not know of it yet.
    unreported: AtomicBool,
}

/// Keys that are applied under one lock: a bound on how long a lookup waits.
const KEYS_PER_LOCK: usize = 500;

/// In place of a time: no use is known.
const NEVER: i64 = i64::MIN;

impl Keyring {
    /// Reads all of `register`.
    ///
    /// # Errors
    /// [`StoreUnavailable`]: it cannot be read.
    pub async fn open(register: Arc<dyn Register>) -> Result<Self, StoreUnavailable> {
        let ring = Self { register, contents: RwLock::default(), refreshing: tokio::sync::Mutex::default() };
        ring.refresh().await?;
        Ok(ring)
    }

    /// The key with a secret of this hash that is valid at `now_unix_ms`; its use is recorded. The same `Arc` is
    /// returned until the key changes.
    pub fn find(&self, hash: &KeyHash, now_unix_ms: i64) -> Option<Arc<StoredKey>> {
        let contents = self.contents();
        let (entry, at) = contents.by_hash.get(hash)?;
        let secret = entry.key.secrets.get(*at)?;
        if entry.key.disabled || !secret.works(now_unix_ms) {
            return None;
        }
        entry.uses.get(*at)?.record(now_unix_ms);
        Some(entry.key.clone())
    }

    /// The name of the key with a secret of this hash, valid or not.
    pub fn holder_of(&self, hash: &KeyHash) -> Option<Arc<str>> {
        self.contents().by_hash.get(hash).map(|(entry, _)| entry.key.name.clone())
    }

    /// The key called `name`, with the last uses that this process knows of.
    pub fn key(&self, name: &str) -> Option<StoredKey> {
        self.contents().keys.get(name).map(|entry| entry.with_uses())
    }

    /// Up to `most` keys in the order of their names, after the one called `after`.
    pub fn keys(&self, after: Option<&str>, most: usize) -> Vec<StoredKey> {
        self.keys_where(after, most, |_| true)
    }

    /// The same, but only keys that match `wanted`.
    pub fn keys_where(&self, after: Option<&str>, most: usize, wanted: impl Fn(&StoredKey) -> bool) -> Vec<StoredKey> {
        let contents = self.contents();
        let found = page(&contents.keys, after).filter(|(_, entry)| wanted(&entry.key));
        found.take(most).map(|(_, entry)| entry.with_uses()).collect()
    }

    /// The team called `name`.
    pub fn team(&self, name: &str) -> Option<Arc<StoredTeam>> {
        self.contents().teams.get(name).cloned()
    }

    /// Up to `most` teams in the order of their names, after the one called `after`.
    pub fn teams(&self, after: Option<&str>, most: usize) -> Vec<Arc<StoredTeam>> {
        page(&self.contents().teams, after).take(most).map(|(_, team)| team.clone()).collect()
    }

    /// The names of the policies of all keys.
    pub fn policies(&self) -> BTreeSet<Arc<str>> {
        let (contents, mut names) = (self.contents(), BTreeSet::new());
        let mut last: Option<&Arc<str>> = None;
        for policy in contents.keys.values().map(|entry| &entry.key.policy) {
            // Many keys share few policies, and mostly the same `Arc`.
            if !last.is_some_and(|last| Arc::ptr_eq(last, policy)) {
                names.insert(policy.clone());
            }
            last = Some(policy);
        }
        names
    }

    /// The names of the policies of the keys of `team`.
    pub fn policies_of_team(&self, team: &str) -> BTreeSet<Arc<str>> {
        let contents = self.contents();
        let of_team = contents.keys.values().filter(|entry| entry.key.team.as_deref() == Some(team));
        of_team.map(|entry| entry.key.policy.clone()).collect()
    }

    /// Everybody who was ever granted credit, and how much in all.
    pub fn credit(&self) -> Vec<(Holder, NanoUsd)> {
        self.contents().credit.iter().map(|(holder, granted)| (holder.clone(), *granted)).collect()
    }

    /// The versions of teams and credit.
    pub fn versions(&self) -> KeyringVersions {
        self.contents().versions
    }

    /// Whether there are no keys, readable or not.
    pub fn is_empty(&self) -> bool {
        let contents = self.contents();
        contents.keys.is_empty() && contents.quarantined.keys().all(|(table, _)| *table != "keys")
    }

    /// The rows of the register that cannot be read, and count for nothing.
    pub fn quarantined(&self) -> Vec<QuarantinedRow> {
        let row = |((table, row), why): (&(&'static str, String), &String)| QuarantinedRow {
            table,
            row: row.clone(),
            why: why.clone(),
        };
        self.contents().quarantined.iter().map(row).collect()
    }

    /// Writes all of `changes`, or nothing; when it returns they are durable and visible here. Returns the version
    /// of each, in order.
    ///
    /// # Errors
    /// [`RegisterWriteError`]: nothing was written.
    pub async fn write(
        &self,
        changes: Vec<RegisterChange>,
        context: ChangeContext,
    ) -> Result<Vec<i64>, RegisterWriteError> {
        let versions = self.register.write(changes, context).await?;
        // If it cannot be read at the moment, the next periodic refresh reads it.
        let _ = self.refresh().await;
        Ok(versions)
    }

    /// Writes a row to the audit for a change of something that is not registered here.
    ///
    /// # Errors
    /// [`StoreUnavailable`]: it was not written, or may not have been.
    pub async fn note(&self, entry: AuditEntry, context: ChangeContext) -> Result<(), StoreUnavailable> {
        self.register.note(entry, context).await
    }

    /// The rows of the audit that `query` asks for, the newest first.
    ///
    /// # Errors
    /// [`StoreUnavailable`]: they cannot be read now.
    pub async fn audit(&self, query: AuditQuery) -> Result<Vec<AuditRow>, StoreUnavailable> {
        self.register.audit(query).await
    }

    /// The statements about `month` of `policy`, in their order.
    ///
    /// # Errors
    /// [`StoreUnavailable`]: they cannot be read now.
    pub async fn sla_closings(&self, policy: Arc<str>, month: SlaMonth) -> Result<Vec<SlaClosing>, StoreUnavailable> {
        self.register.sla_closings(policy, month).await
    }

    /// The months in which an SLA was promised, the oldest first.
    ///
    /// # Errors
    /// [`StoreUnavailable`]: they cannot be read now.
    pub async fn sla_promised(&self) -> Result<Vec<PromisedMonth>, StoreUnavailable> {
        self.register.sla_promised().await
    }

    /// What is kept of each scenario of a drill, by its name.
    ///
    /// # Errors
    /// [`StoreUnavailable`]: they cannot be read now.
    pub async fn drill_reports(&self) -> Result<Vec<DrillReport>, StoreUnavailable> {
        self.register.drill_reports().await
    }

    /// Records that a gateway is alive, and what it promises.
    pub fn present(&self, presence: SlaPresence) {
        self.register.present(presence);
    }

    /// Reads what was changed since the last read, by any process; returns whether there was anything.
    ///
    /// # Errors
    /// [`StoreUnavailable`]: it cannot be read now.
    pub async fn refresh(&self) -> Result<bool, StoreUnavailable> {
        let _refreshing = self.refreshing.lock().await;
        let seen = self.contents().version;
        let read = self.register.since(seen).await?;
        let changed = read.version != seen;
        if changed {
            for QuarantinedRow { table, row, why } in &read.quarantined {
                tracing::error!(table, row, why, "a row of the store cannot be read, and counts for nothing");
            }
            self.apply(read);
        }
        Ok(changed)
    }

    /// Many keys are applied a few at a time, so that lookups are served in between.
    fn apply(&self, mut changed: RegisterContents) {
        self.contents_mut().reread(&changed.keys);
        if !self.contents().keys.is_empty() {
            let mut keys = std::mem::take(&mut changed.keys).into_iter();
            while keys.len() > 0 {
                let mut contents = self.contents_mut();
                contents.insert_all(keys.by_ref().take(KEYS_PER_LOCK));
                RwLockWriteGuard::unlock_fair(contents);
            }
        }
        self.contents_mut().apply(changed);
    }

    /// Reports to the register which secrets were used since the last report.
    pub fn report_uses(&self) {
        let contents = self.contents();
        let unreported = contents.keys.values().flat_map(|entry| entry.unreported()).collect::<Vec<_>>();
        drop(contents);
        if !unreported.is_empty() {
            self.register.used(unreported);
        }
    }

    /// Reports the last uses and closes the register, at the end of the process.
    pub fn close(&self) {
        self.report_uses();
        self.register.close();
    }

    /// The balance of all credit, by holder.
    ///
    /// # Errors
    /// [`StoreUnavailable`]: it cannot be read now.
    pub async fn balances(&self) -> Result<Vec<CreditBalance>, StoreUnavailable> {
        self.register.balances().await
    }

    /// Up to `most` grants with a number above `after`, in ascending order; only those of `holder` if it is given.
    ///
    /// # Errors
    /// [`StoreUnavailable`]: they cannot be read now.
    pub async fn grants(
        &self,
        holder: Option<Holder>,
        after: i64,
        most: usize,
    ) -> Result<Vec<Grant>, StoreUnavailable> {
        self.register.grants(holder, after, most).await
    }

    fn contents(&self) -> RwLockReadGuard<'_, KeyringContents> {
        self.contents.read()
    }

    fn contents_mut(&self) -> RwLockWriteGuard<'_, KeyringContents> {
        self.contents.write()
    }
}

fn page<'m, T>(all: &'m BTreeMap<Arc<str>, T>, after: Option<&str>) -> impl Iterator<Item = (&'m Arc<str>, &'m T)> {
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    all.range::<str, _>((from, Bound::Unbounded))
}

impl KeyringContents {
    fn apply(&mut self, contents: RegisterContents) {
        let RegisterContents { version, keys, teams, credit, quarantined } = contents;
        self.version = version;
        for team in &teams {
            self.quarantined.remove(&("teams", team.name.to_string()));
        }
        for QuarantinedRow { table, row, why } in quarantined {
            if table == "keys" {
                self.remove(&row);
            }
            self.quarantined.insert((table, row), why);
        }
        self.by_hash.reserve(keys.len());
        if self.keys.is_empty() {
            // The names are sorted, so the tree is built in one go.
            let entries = keys.into_iter().map(|key| self.insert(key)).collect::<Vec<_>>();
            self.keys = entries.into_iter().map(|entry| (entry.key.name.clone(), entry)).collect();
        } else {
            self.insert_all(keys.into_iter());
        }
        if !teams.is_empty() {
            self.versions.teams = version;
        }
        if !credit.is_empty() {
            self.versions.credit = version;
        }
        self.teams.extend(teams.into_iter().map(|team| (team.name.clone(), Arc::new(team))));
        self.credit.extend(credit);
    }

    /// Forgets what could not be read of `keys`, which were read again.
    fn reread(&mut self, keys: &[StoredKey]) {
        if !self.quarantined.is_empty() {
            for (table, key) in
                ["keys", "secrets"].into_iter().flat_map(|table| keys.iter().map(move |key| (table, key)))
            {
                self.quarantined.remove(&(table, key.name.to_string()));
            }
        }
    }

    /// Removes the key called `name`, which cannot be read any more.
    fn remove(&mut self, name: &str) {
        if let Some(entry) = self.keys.remove(name) {
            self.by_hash.retain(|_, (holder, _)| !Arc::ptr_eq(holder, &entry));
        }
    }

    fn insert_all(&mut self, keys: impl Iterator<Item = StoredKey>) {
        for key in keys {
            let entry = self.insert(key);
            self.keys.insert(entry.key.name.clone(), entry);
        }
    }

    /// Indexes the secrets of `key`, and removes those that it no longer has from the index.
    fn insert(&mut self, key: StoredKey) -> Arc<KeyringEntry> {
        let before = self.keys.get(&key.name).cloned();
        let entry = Arc::new(KeyringEntry::new(key, before.as_deref()));
        for secret in before.iter().flat_map(|entry| &entry.key.secrets) {
            // Another key may have this secret by now, and may have been inserted first.
            if self.by_hash.get(&secret.hash).is_some_and(|(holder, _)| holder.key.name == entry.key.name) {
                self.by_hash.remove(&secret.hash);
            }
        }
        let secrets = entry.key.secrets.iter().enumerate();
        self.by_hash.extend(secrets.map(|(at, secret)| (secret.hash, (entry.clone(), at))));
        entry
    }
}

impl KeyringEntry {
    fn new(key: StoredKey, before: Option<&Self>) -> Self {
        let recorded = |hash: &KeyHash| {
            let before = before?;
            let at = before.key.secrets.iter().position(|secret| secret.hash == *hash)?;
            before.uses.get(at)
        };
        let uses = key.secrets.iter().map(|secret| {
            let (last, unreported) = recorded(&secret.hash).map_or((NEVER, false), SecretUse::read);
            let stored = secret.last_used_unix_ms.unwrap_or(NEVER);
            SecretUse { last_unix_ms: AtomicI64::new(last.max(stored)), unreported: AtomicBool::new(unreported) }
        });
        Self { uses: uses.collect(), key: Arc::new(key) }
    }

    fn with_uses(&self) -> StoredKey {
        let mut key = (*self.key).clone();
        for (secret, used) in key.secrets.iter_mut().zip(&self.uses) {
            secret.last_used_unix_ms = Some(used.read().0).filter(|last| *last != NEVER);
        }
        key
    }

    fn unreported(&self) -> impl Iterator<Item = (KeyHash, i64)> {
        let uses = self.key.secrets.iter().zip(&self.uses);
        uses.filter(|(_, used)| used.unreported.swap(false, Ordering::Relaxed))
            .map(|(secret, used)| (secret.hash, used.last_unix_ms.load(Ordering::Relaxed)))
    }
}

impl SecretUse {
    fn record(&self, now_unix_ms: i64) {
        let last = self.last_unix_ms.load(Ordering::Relaxed);
        if now_unix_ms.saturating_sub(last) >= RECORD_EVERY_MS {
            self.last_unix_ms.store(now_unix_ms, Ordering::Relaxed);
            self.unreported.store(true, Ordering::Relaxed);
        }
    }

    fn read(&self) -> (i64, bool) {
        (self.last_unix_ms.load(Ordering::Relaxed), self.unreported.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::audit::Operator;
    use crate::domain::register::{KeyOverrides, StoredSecret};
    use crate::store::memory_lease_store::MemoryLeaseStore;
    use crate::store::memory_register::MemoryRegister;

    const NOW: i64 = 1_795_305_600_000;

    fn register() -> Arc<MemoryRegister> {
        Arc::new(MemoryRegister::new(Arc::new(MemoryLeaseStore::default())))
    }

    fn key(secrets: Vec<StoredSecret>) -> StoredKey {
        StoredKey {
            name: "app".into(),
            policy: "pro".into(),
            team: None,
            own: KeyOverrides::default(),
            expires: None,
            disabled: false,
            created_unix_ms: NOW,
            version: 0,
            secrets,
        }
    }

    fn secret(text: &str) -> StoredSecret {
        StoredSecret::new(KeyHash::of(text), NOW)
    }

    fn origin() -> ChangeContext {
        let operator = Operator { who: "test".into(), origin: "test".into(), command: "test".into(), request_id: None };
        ChangeContext { operator, unix_ms: NOW }
    }

    async fn with(key: StoredKey) -> Keyring {
        let ring = Keyring::open(register()).await.expect("memory is available");
        ring.write(vec![RegisterChange::Key { key, expected: 0 }], origin()).await.expect("the key is new");
        ring
    }

    fn is_valid(ring: &Keyring, text: &str, now: i64) -> bool {
        ring.find(&KeyHash::of(text), now).is_some()
    }

    #[tokio::test]
    async fn a_key_is_found_by_each_valid_secret() {
        let ending = StoredSecret { ends_unix_ms: Some(NOW + 10), ..secret("old") };
        let ring = with(key(vec![ending, secret("new")])).await;
        let check = |text: &str, now, expected| assert_eq!(is_valid(&ring, text, now), expected, "{text} at {now}");
        check("old", NOW + 9, true);
        check("old", NOW + 10, false);
        check("new", NOW + 10, true);
        check("never issued", NOW, false);
        check("", NOW, false);
        assert_eq!(ring.holder_of(&KeyHash::of("old")).as_deref(), Some("app"), "even after it has ended");
        assert_eq!(ring.holder_of(&KeyHash::of("never issued")), None);
    }

    #[tokio::test]
    async fn a_change_is_visible_once_it_is_written() {
        let ring = with(key(vec![secret("one")])).await;
        let before = ring.find(&KeyHash::of("one"), NOW).expect("the secret is valid");
        assert!(
            Arc::ptr_eq(&before, &ring.find(&KeyHash::of("one"), NOW).expect("the secret is valid")),
            "the same `Arc`"
        );
        let disabled = StoredKey { disabled: true, ..(*before).clone() };
        let expected = before.version;
        let version =
            ring.write(vec![RegisterChange::Key { key: disabled, expected }], origin()).await.expect("as expected")[0];
        assert!(!is_valid(&ring, "one", NOW));
        let rotated = key(vec![secret("two")]);
        let expected = version;
        ring.write(vec![RegisterChange::Key { key: rotated, expected }], origin()).await.expect("as expected");
        assert!(!is_valid(&ring, "one", NOW) && is_valid(&ring, "two", NOW));
        assert_eq!(ring.holder_of(&KeyHash::of("one")), None, "a removed secret belongs to no key");
        let stale = ring.write(vec![RegisterChange::Key { key: key(Vec::new()), expected }], origin()).await;
        assert!(stale.is_err() && is_valid(&ring, "two", NOW), "what is not written is not visible");
    }

    /// Changes are read in the order of names, whichever was made first.
    #[tokio::test]
    async fn a_secret_that_moved_to_another_key_finds_that_key() {
        for (first, second) in [("a", "b"), ("b", "a")] {
            let register = register();
            let ring = Keyring::open(register.clone()).await.expect("memory is available");
            let named = |name: &str, secrets| StoredKey { name: name.into(), ..key(secrets) };
            let change = |key, expected| vec![RegisterChange::Key { key, expected }];
            let version =
                ring.write(change(named(first, vec![secret("one")]), 0), origin()).await.expect("the key is new")[0];
            register.write(change(named(first, Vec::new()), version), origin()).await.expect("as expected");
            register
                .write(change(named(second, vec![secret("one")]), 0), origin())
                .await
                .expect("no key has the secret");
            assert_eq!(ring.refresh().await, Ok(true));
            assert_eq!(ring.find(&KeyHash::of("one"), NOW).map(|key| key.name.clone()).as_deref(), Some(second));
        }
    }

    #[tokio::test]
    async fn a_change_by_another_process_is_visible_after_a_refresh() {
        let register = register();
        let [ring, other] = [Keyring::open(register.clone()).await, Keyring::open(register.clone()).await];
        let (ring, other) = (ring.expect("memory is available"), other.expect("memory is available"));
        assert_eq!(ring.refresh().await, Ok(false));
        other
            .write(vec![RegisterChange::Key { key: key(vec![secret("one")]), expected: 0 }], origin())
            .await
            .expect("the key is new");
        assert!(!is_valid(&ring, "one", NOW));
        assert_eq!((ring.refresh().await, ring.refresh().await), (Ok(true), Ok(false)));
        assert!(is_valid(&ring, "one", NOW) && !ring.is_empty());
    }

    #[tokio::test]
    async fn the_last_use_of_each_secret_is_reported_and_survives_a_change() {
        let register = register();
        let ring = Keyring::open(register.clone()).await.expect("memory is available");
        let two = key(vec![secret("one"), secret("two")]);
        let version = ring
            .write(vec![RegisterChange::Key { key: two.clone(), expected: 0 }], origin())
            .await
            .expect("the key is new")[0];
        assert!(
            is_valid(&ring, "one", NOW)
                && is_valid(&ring, "one", NOW + RECORD_EVERY_MS - 1)
                && is_valid(&ring, "two", NOW + 7)
        );
        let used = |key: Option<StoredKey>| {
            key.expect("the key exists").secrets.iter().map(|s| s.last_used_unix_ms).collect::<Vec<_>>()
        };
        let (first, second) = (vec![Some(NOW), Some(NOW + 7)], vec![Some(NOW + RECORD_EVERY_MS), Some(NOW + 7)]);
        assert_eq!(used(ring.key("app")), first, "a second use within a second is not recorded");
        let stored = async || used(register.since(0).await.expect("memory is available").keys.pop());
        assert_eq!(stored().await, [None, None]);
        ring.report_uses();
        assert_eq!(stored().await, first);
        ring.write(vec![RegisterChange::Key { key: two, expected: version }], origin()).await.expect("as expected");
        assert!(is_valid(&ring, "one", NOW + RECORD_EVERY_MS));
        assert_eq!(used(ring.key("app")), second);
        ring.report_uses();
        assert_eq!(stored().await, second);
    }

    #[tokio::test]
    async fn a_disabled_key_records_no_use() {
        let ring = with(StoredKey { disabled: true, ..key(vec![secret("one")]) }).await;
        assert!(!is_valid(&ring, "one", NOW));
        assert_eq!(ring.key("app").expect("the key exists").secrets[0].last_used_unix_ms, None);
    }

    #[tokio::test]
    async fn more_than_is_taken_in_at_once_is_all_there() {
        let ring = with(key(vec![secret("app")])).await;
        let names: Vec<String> = (0..3 * KEYS_PER_LOCK + 1).map(|nth| format!("key-{nth:05}")).collect();
        let named = |name: &String| StoredKey { name: name.as_str().into(), ..key(vec![secret(name)]) };
        ring.write(names.iter().map(|name| RegisterChange::Key { key: named(name), expected: 0 }).collect(), origin())
            .await
            .expect("new");
        assert!(names.iter().all(|name| is_valid(&ring, name, NOW)) && is_valid(&ring, "app", NOW));
        assert_eq!(ring.keys(Some("app"), usize::MAX).len(), names.len());
    }

    #[tokio::test]
    async fn pages_follow_each_other() {
        let ring = Keyring::open(register()).await.expect("memory is available");
        let named =
            |name: &str| RegisterChange::Key { key: StoredKey { name: name.into(), ..key(Vec::new()) }, expected: 0 };
        ring.write(["c", "a", "b"].map(named).into(), origin()).await.expect("the keys are new");
        let names = |after, most| ring.keys(after, most).iter().map(|key| key.name.to_string()).collect::<Vec<_>>();
        assert_eq!(names(None, 2), ["a", "b"]);
        assert_eq!(names(Some("b"), 2), ["c"]);
        assert_eq!(names(Some("aa"), 1), ["b"]);
        assert_eq!(names(Some("c"), 1), [""; 0]);
    }
}
