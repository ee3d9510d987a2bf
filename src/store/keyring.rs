//! The process's own copy of what is registered: every stored key is found in memory.
//!
//! A key is looked up by the hash of its secret for each request that the file knows no key of; the
//! register behind it is asked when something is changed, here or by another process, and never on the
//! path of a request. It decides nothing: what may be changed is `admin`'s to say.
//!
//! Start reading in [`Keyring::find`], then [`Keyring::write`].

use super::{BackendUnavailable, Register, RegisterChange, RegisterContents, RegisterWriteError};
use crate::domain::money::NanoUsd;
use crate::domain::register::{CreditBalance, Grant, Holder, StoredKey, StoredTeam};
use crate::domain::secret::KeyHash;
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// A use is noted once in this long: reports need no more, and a busy key then writes nothing.
const NOTE_EVERY_MS: i64 = 1_000;

/// Keys, teams and credit as last read.
pub struct Keyring {
    register: Arc<dyn Register>,
    known: RwLock<KeyringContents>,
    /// Whoever reads the register into `known` holds it, so that nothing older follows something newer.
    reading: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct KeyringContents {
    version: i64,
    keys: BTreeMap<Arc<str>, Arc<KeyringEntry>>,
    by_hash: HashMap<KeyHash, (Arc<KeyringEntry>, usize)>,
    teams: BTreeMap<Arc<str>, Arc<StoredTeam>>,
    credit: HashMap<Holder, NanoUsd>,
    versions: KeyringVersions,
}

/// When teams and credit were last changed: two that are equal know the same of both.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct KeyringVersions {
    /// Of teams.
    pub teams: i64,
    /// Of credit.
    pub credit: i64,
}

/// A key, and when each of its secrets was last used.
struct KeyringEntry {
    key: Arc<StoredKey>,
    uses: Box<[SecretUse]>,
}

struct SecretUse {
    last_unix_ms: AtomicI64,
    /// Whether the register has yet to be told.
    untold: AtomicBool,
}

/// Keys for which whoever looks one up waits at most.
const TAKEN_IN_AT_ONCE: usize = 500;

/// Never used, as far as is known.
const NEVER: i64 = i64::MIN;

impl Keyring {
    /// What `register` holds.
    ///
    /// # Errors
    /// [`BackendUnavailable`]: it cannot be read.
    pub async fn open(register: Arc<dyn Register>) -> Result<Self, BackendUnavailable> {
        let ring = Self { register, known: RwLock::default(), reading: tokio::sync::Mutex::default() };
        ring.refresh().await?;
        Ok(ring)
    }

    /// The key with a secret of this hash that works at `now_unix_ms`; its use is noted. As long as nothing of
    /// the key changes the very same `Arc` is given.
    pub fn find(&self, hash: &KeyHash, now_unix_ms: i64) -> Option<Arc<StoredKey>> {
        let known = self.known();
        let (entry, at) = known.by_hash.get(hash)?;
        let secret = entry.key.secrets.get(*at)?;
        if entry.key.disabled || !secret.works(now_unix_ms) {
            return None;
        }
        entry.uses.get(*at)?.note(now_unix_ms);
        Some(entry.key.clone())
    }

    /// Whose secret has this hash, whether or not it works.
    pub fn holder_of(&self, hash: &KeyHash) -> Option<Arc<str>> {
        self.known().by_hash.get(hash).map(|(entry, _)| entry.key.name.clone())
    }

    /// The key called `name`, with the last uses known here.
    pub fn key(&self, name: &str) -> Option<StoredKey> {
        self.known().keys.get(name).map(|entry| entry.with_uses())
    }

    /// Up to `most` keys in the order of their names, after the one called `after`.
    pub fn keys(&self, after: Option<&str>, most: usize) -> Vec<StoredKey> {
        self.keys_where(after, most, |_| true)
    }

    /// The same, of those that are `wanted`.
    pub fn keys_where(&self, after: Option<&str>, most: usize, wanted: impl Fn(&StoredKey) -> bool) -> Vec<StoredKey> {
        let known = self.known();
        let found = page(&known.keys, after).filter(|(_, entry)| wanted(&entry.key));
        found.take(most).map(|(_, entry)| entry.with_uses()).collect()
    }

    /// The team called `name`.
    pub fn team(&self, name: &str) -> Option<Arc<StoredTeam>> {
        self.known().teams.get(name).cloned()
    }

    /// Up to `most` teams in the order of their names, after the one called `after`.
    pub fn teams(&self, after: Option<&str>, most: usize) -> Vec<Arc<StoredTeam>> {
        page(&self.known().teams, after).take(most).map(|(_, team)| team.clone()).collect()
    }

    /// The names of all policies that keys have.
    pub fn policies(&self) -> BTreeSet<Arc<str>> {
        let (known, mut names) = (self.known(), BTreeSet::new());
        let mut last: Option<&Arc<str>> = None;
        for policy in known.keys.values().map(|entry| &entry.key.policy) {
            // Many keys share few names, and mostly the very same text.
            if !last.is_some_and(|last| Arc::ptr_eq(last, policy)) {
                names.insert(policy.clone());
            }
            last = Some(policy);
        }
        names
    }

    /// The names of the policies that keys of `team` have.
    pub fn policies_of_team(&self, team: &str) -> BTreeSet<Arc<str>> {
        let known = self.known();
        let of_team = known.keys.values().filter(|entry| entry.key.team.as_deref() == Some(team));
        of_team.map(|entry| entry.key.policy.clone()).collect()
    }

    /// Everybody who was ever granted credit, and how much in all.
    pub fn credit(&self) -> Vec<(Holder, NanoUsd)> {
        self.known().credit.iter().map(|(holder, granted)| (holder.clone(), *granted)).collect()
    }

    /// How new what is known of teams and credit is.
    pub fn versions(&self) -> KeyringVersions {
        self.known().versions
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.known().keys.is_empty()
    }

    /// Writes all of `changes`, or nothing; when it returns they are durable, and known here. The version
    /// that each was given comes back in their order.
    ///
    /// # Errors
    /// [`RegisterWriteError`]: nothing was.
    pub async fn write(&self, changes: Vec<RegisterChange>) -> Result<Vec<i64>, RegisterWriteError> {
        let versions = self.register.write(changes).await?;
        // Where it cannot be read now it is read a moment later, by whoever refreshes this now and then.
        let _ = self.refresh().await;
        Ok(versions)
    }

    /// Reads what was changed since it was last read, also by others; whether there was anything.
    ///
    /// # Errors
    /// [`BackendUnavailable`]: it cannot be read now.
    pub async fn refresh(&self) -> Result<bool, BackendUnavailable> {
        let _reading = self.reading.lock().await;
        let seen = self.known().version;
        let contents = self.register.since(seen).await?;
        let news = contents.version != seen;
        if news {
            self.take_in(contents);
        }
        Ok(news)
    }

    /// Many keys are taken in a few at a time, so that requests find theirs in between.
    fn take_in(&self, mut contents: RegisterContents) {
        if !self.is_empty() {
            let mut keys = std::mem::take(&mut contents.keys).into_iter();
            while keys.len() > 0 {
                let mut known = self.known_mut();
                known.enter_all(keys.by_ref().take(TAKEN_IN_AT_ONCE));
                RwLockWriteGuard::unlock_fair(known);
            }
        }
        self.known_mut().take_in(contents);
    }

    /// Tells the register which secrets were used since it was last told.
    pub fn tell_uses(&self) {
        let known = self.known();
        let untold = known.keys.values().flat_map(|entry| entry.untold()).collect::<Vec<_>>();
        drop(known);
        if !untold.is_empty() {
            self.register.used(untold);
        }
    }

    /// The end: tells which secrets were used, and reads the register no more.
    pub fn close(&self) {
        self.tell_uses();
        self.register.close();
    }

    /// How all credit stands, by holder.
    ///
    /// # Errors
    /// [`BackendUnavailable`]: it cannot be read now.
    pub async fn balances(&self) -> Result<Vec<CreditBalance>, BackendUnavailable> {
        self.register.balances().await
    }

    /// Up to `most` grants after the one numbered `after`, in their order; of `holder` only where one is named.
    ///
    /// # Errors
    /// [`BackendUnavailable`]: they cannot be read now.
    pub async fn grants(
        &self,
        holder: Option<Holder>,
        after: i64,
        most: usize,
    ) -> Result<Vec<Grant>, BackendUnavailable> {
        self.register.grants(holder, after, most).await
    }

    fn known(&self) -> RwLockReadGuard<'_, KeyringContents> {
        self.known.read()
    }

    fn known_mut(&self) -> RwLockWriteGuard<'_, KeyringContents> {
        self.known.write()
    }
}

fn page<'m, T>(all: &'m BTreeMap<Arc<str>, T>, after: Option<&str>) -> impl Iterator<Item = (&'m Arc<str>, &'m T)> {
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    all.range::<str, _>((from, Bound::Unbounded))
}

impl KeyringContents {
    fn take_in(&mut self, contents: RegisterContents) {
        let RegisterContents { version, keys, teams, credit } = contents;
        self.version = version;
        self.by_hash.reserve(keys.len());
        if self.keys.is_empty() {
            // The names come in order, and a tree is made of them at once.
            let entries = keys.into_iter().map(|key| self.enter(key)).collect::<Vec<_>>();
            self.keys = entries.into_iter().map(|entry| (entry.key.name.clone(), entry)).collect();
        } else {
            self.enter_all(keys.into_iter());
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

    fn enter_all(&mut self, keys: impl Iterator<Item = StoredKey>) {
        for key in keys {
            let entry = self.enter(key);
            self.keys.insert(entry.key.name.clone(), entry);
        }
    }

    /// Makes the secrets of `key` findable, and those it no longer has not.
    fn enter(&mut self, key: StoredKey) -> Arc<KeyringEntry> {
        let before = self.keys.get(&key.name).cloned();
        let entry = Arc::new(KeyringEntry::new(key, before.as_deref()));
        for secret in before.iter().flat_map(|entry| &entry.key.secrets) {
            // Another key may have it by now, and may have come first.
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
        let noted = |hash: &KeyHash| {
            let before = before?;
            let at = before.key.secrets.iter().position(|secret| secret.hash == *hash)?;
            before.uses.get(at)
        };
        let uses = key.secrets.iter().map(|secret| {
            let (last, untold) = noted(&secret.hash).map_or((NEVER, false), SecretUse::read);
            let stored = secret.last_used_unix_ms.unwrap_or(NEVER);
            SecretUse { last_unix_ms: AtomicI64::new(last.max(stored)), untold: AtomicBool::new(untold) }
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

    fn untold(&self) -> impl Iterator<Item = (KeyHash, i64)> {
        let uses = self.key.secrets.iter().zip(&self.uses);
        uses.filter(|(_, used)| used.untold.swap(false, Ordering::Relaxed))
            .map(|(secret, used)| (secret.hash, used.last_unix_ms.load(Ordering::Relaxed)))
    }
}

impl SecretUse {
    fn note(&self, now_unix_ms: i64) {
        let last = self.last_unix_ms.load(Ordering::Relaxed);
        if now_unix_ms.saturating_sub(last) >= NOTE_EVERY_MS {
            self.last_unix_ms.store(now_unix_ms, Ordering::Relaxed);
            self.untold.store(true, Ordering::Relaxed);
        }
    }

    fn read(&self) -> (i64, bool) {
        (self.last_unix_ms.load(Ordering::Relaxed), self.untold.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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

    async fn with(key: StoredKey) -> Keyring {
        let ring = Keyring::open(register()).await.expect("memory is read");
        ring.write(vec![RegisterChange::Key { key, expected: 0 }]).await.expect("it is new");
        ring
    }

    fn opens(ring: &Keyring, text: &str, now: i64) -> bool {
        ring.find(&KeyHash::of(text), now).is_some()
    }

    #[tokio::test]
    async fn a_key_is_found_by_each_secret_that_works() {
        let ending = StoredSecret { ends_unix_ms: Some(NOW + 10), ..secret("old") };
        let ring = with(key(vec![ending, secret("new")])).await;
        let check = |text: &str, now, expected| assert_eq!(opens(&ring, text, now), expected, "{text} at {now}");
        check("old", NOW + 9, true);
        check("old", NOW + 10, false);
        check("new", NOW + 10, true);
        check("never given", NOW, false);
        check("", NOW, false);
        assert_eq!(ring.holder_of(&KeyHash::of("old")).as_deref(), Some("app"), "also when it has ended");
        assert_eq!(ring.holder_of(&KeyHash::of("never given")), None);
    }

    #[tokio::test]
    async fn a_change_is_known_when_it_is_written() {
        let ring = with(key(vec![secret("one")])).await;
        let before = ring.find(&KeyHash::of("one"), NOW).expect("it works");
        assert!(Arc::ptr_eq(&before, &ring.find(&KeyHash::of("one"), NOW).expect("it works")), "the very same");
        let disabled = StoredKey { disabled: true, ..(*before).clone() };
        let expected = before.version;
        let version = ring.write(vec![RegisterChange::Key { key: disabled, expected }]).await.expect("as expected")[0];
        assert!(!opens(&ring, "one", NOW));
        let rotated = key(vec![secret("two")]);
        let expected = version;
        ring.write(vec![RegisterChange::Key { key: rotated, expected }]).await.expect("as expected");
        assert!(!opens(&ring, "one", NOW) && opens(&ring, "two", NOW));
        assert_eq!(ring.holder_of(&KeyHash::of("one")), None, "one that it no longer has is nobody's");
        let stale = ring.write(vec![RegisterChange::Key { key: key(Vec::new()), expected }]).await;
        assert!(stale.is_err() && opens(&ring, "two", NOW), "what is not written is not known");
    }

    /// What is new comes in the order of names, whichever was changed first.
    #[tokio::test]
    async fn a_secret_that_changed_hands_opens_its_new_key() {
        for (first, second) in [("a", "b"), ("b", "a")] {
            let register = register();
            let ring = Keyring::open(register.clone()).await.expect("memory is read");
            let named = |name: &str, secrets| StoredKey { name: name.into(), ..key(secrets) };
            let change = |key, expected| vec![RegisterChange::Key { key, expected }];
            let version = ring.write(change(named(first, vec![secret("one")]), 0)).await.expect("it is new")[0];
            register.write(change(named(first, Vec::new()), version)).await.expect("as expected");
            register.write(change(named(second, vec![secret("one")]), 0)).await.expect("it is nobody's");
            assert_eq!(ring.refresh().await, Ok(true));
            assert_eq!(ring.find(&KeyHash::of("one"), NOW).map(|key| key.name.clone()).as_deref(), Some(second));
        }
    }

    #[tokio::test]
    async fn what_another_wrote_is_known_after_a_refresh() {
        let register = register();
        let [ring, other] = [Keyring::open(register.clone()).await, Keyring::open(register.clone()).await];
        let (ring, other) = (ring.expect("memory is read"), other.expect("memory is read"));
        assert_eq!(ring.refresh().await, Ok(false));
        other.write(vec![RegisterChange::Key { key: key(vec![secret("one")]), expected: 0 }]).await.expect("it is new");
        assert!(!opens(&ring, "one", NOW));
        assert_eq!((ring.refresh().await, ring.refresh().await), (Ok(true), Ok(false)));
        assert!(opens(&ring, "one", NOW) && !ring.is_empty());
    }

    #[tokio::test]
    async fn the_last_use_of_each_secret_is_reported_and_survives_a_change() {
        let register = register();
        let ring = Keyring::open(register.clone()).await.expect("memory is read");
        let two = key(vec![secret("one"), secret("two")]);
        let version =
            ring.write(vec![RegisterChange::Key { key: two.clone(), expected: 0 }]).await.expect("it is new")[0];
        assert!(
            opens(&ring, "one", NOW) && opens(&ring, "one", NOW + NOTE_EVERY_MS - 1) && opens(&ring, "two", NOW + 7)
        );
        let used = |key: Option<StoredKey>| {
            key.expect("it is there").secrets.iter().map(|s| s.last_used_unix_ms).collect::<Vec<_>>()
        };
        let (first, second) = (vec![Some(NOW), Some(NOW + 7)], vec![Some(NOW + NOTE_EVERY_MS), Some(NOW + 7)]);
        assert_eq!(used(ring.key("app")), first, "a second use within a second is not noted");
        let stored = async || used(register.since(0).await.expect("memory is read").keys.pop());
        assert_eq!(stored().await, [None, None]);
        ring.tell_uses();
        assert_eq!(stored().await, first);
        ring.write(vec![RegisterChange::Key { key: two, expected: version }]).await.expect("as expected");
        assert!(opens(&ring, "one", NOW + NOTE_EVERY_MS));
        assert_eq!(used(ring.key("app")), second);
        ring.tell_uses();
        assert_eq!(stored().await, second);
    }

    #[tokio::test]
    async fn a_disabled_key_notes_no_use() {
        let ring = with(StoredKey { disabled: true, ..key(vec![secret("one")]) }).await;
        assert!(!opens(&ring, "one", NOW));
        assert_eq!(ring.key("app").expect("it is there").secrets[0].last_used_unix_ms, None);
    }

    #[tokio::test]
    async fn more_than_is_taken_in_at_once_is_all_there() {
        let ring = with(key(vec![secret("app")])).await;
        let names: Vec<String> = (0..3 * TAKEN_IN_AT_ONCE + 1).map(|nth| format!("key-{nth:05}")).collect();
        let named = |name: &String| StoredKey { name: name.as_str().into(), ..key(vec![secret(name)]) };
        ring.write(names.iter().map(|name| RegisterChange::Key { key: named(name), expected: 0 }).collect())
            .await
            .expect("new");
        assert!(names.iter().all(|name| opens(&ring, name, NOW)) && opens(&ring, "app", NOW));
        assert_eq!(ring.keys(Some("app"), usize::MAX).len(), names.len());
    }

    #[tokio::test]
    async fn pages_follow_each_other() {
        let ring = Keyring::open(register()).await.expect("memory is read");
        let named =
            |name: &str| RegisterChange::Key { key: StoredKey { name: name.into(), ..key(Vec::new()) }, expected: 0 };
        ring.write(["c", "a", "b"].map(named).into()).await.expect("they are new");
        let names = |after, most| ring.keys(after, most).iter().map(|key| key.name.to_string()).collect::<Vec<_>>();
        assert_eq!(names(None, 2), ["a", "b"]);
        assert_eq!(names(Some("b"), 2), ["c"]);
        assert_eq!(names(Some("aa"), 1), ["b"]);
        assert_eq!(names(Some("c"), 1), [""; 0]);
    }
}
