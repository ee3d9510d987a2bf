//! Keys: created, read, changed, rotated and imported.

use super::{AdminError, AdminOperations, Page, RecordKind, RecordSource, check_name, not_written};
use crate::config::Snapshot;
use crate::domain::budget::BudgetSpec;
use crate::domain::limit::Limits;
use crate::domain::policy::{KeyRecord, Policy, exceeds_policy, is_valid, unbounded};
use crate::domain::register::{KeyOverrides, KeyState, StoredKey, StoredSecret};
use crate::domain::secret::{KeyHash, Secret, new_key};
use crate::store::keyring::Keyring;
use crate::store::{RegisterChange, RegisterWriteError};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// The most secrets of one key that work at once: overlapping rotations leave the earlier ones valid.
pub const MOST_SECRETS: usize = 10;

/// A key to be created.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct NewKey {
    /// Its name; it is never reused.
    pub name: String,
    /// The name of a policy of the configuration.
    pub policy: String,
    /// Any valid name. A team need not exist before its keys.
    pub team: Option<String>,
    /// Limits and a budget of its own, which must not exceed those of the policy.
    pub own: KeyOverrides,
    /// The Unix second from which it is refused; `None`: it does not expire.
    pub expires: Option<i64>,
    /// The hash of an existing secret; `None`: a secret is generated.
    pub hash: Option<KeyHash>,
}

/// A change of a key; `None` leaves a field as it is.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct KeyEdit {
    /// A new policy.
    pub policy: Option<String>,
    /// A new team; `Some(None)` removes it.
    pub team: Option<Option<String>>,
    /// A new limit of requests a minute; `Some(None)` removes the key's own.
    pub requests_per_minute: Option<Option<u64>>,
    /// A new limit of tokens a minute; `Some(None)` removes the key's own.
    pub tokens_per_minute: Option<Option<u64>>,
    /// A new limit of concurrent requests; `Some(None)` removes the key's own.
    pub max_concurrent: Option<Option<u32>>,
    /// A new budget; `Some(None)` removes the key's own.
    pub budget: Option<Option<BudgetSpec>>,
    /// A new expiry in Unix seconds; `Some(None)` removes it.
    pub expires: Option<Option<i64>>,
    /// Whether requests with it are refused.
    pub disabled: Option<bool>,
}

/// A key, and the secret generated for it, which is returned only this once.
#[derive(Clone, Debug)]
pub struct IssuedKey {
    /// The key after the change.
    pub key: KeyView,
    /// The new secret; `None` if an existing one was imported.
    pub secret: Option<Secret>,
}

/// A key of the configuration or of the store.
#[derive(Clone, Debug)]
pub struct KeyView {
    /// Where it is kept.
    pub source: RecordSource,
    /// Its limits and budgets as they apply to requests, its own and its policy's together.
    pub record: Arc<KeyRecord>,
    /// Whether it is active, disabled or expired.
    pub state: KeyState,
    /// The stored record; `None` for a key of the configuration.
    pub stored: Option<StoredKey>,
    /// The hash of its secret in the configuration; `None` for a stored key.
    pub in_file: Option<KeyHash>,
}

/// Selects keys; a field that is `None` selects every key.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct KeyFilter {
    /// Only keys of this policy.
    pub policy: Option<String>,
    /// Only keys of this team.
    pub team: Option<String>,
}

impl KeyFilter {
    fn fits(&self, policy: &str, team: Option<&str>) -> bool {
        self.policy.as_deref().is_none_or(|wanted| wanted == policy)
            && self.team.as_deref().is_none_or(|wanted| Some(wanted) == team)
    }
}

impl KeyView {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.record.name
    }
}

impl AdminOperations {
    /// Creates a key with a generated secret of 256 random bits, or with the existing secret whose hash is given.
    ///
    /// # Errors
    /// [`AdminError`]: nothing was created.
    pub async fn create_key(&self, snapshot: &Snapshot, new: NewKey) -> Result<IssuedKey, AdminError> {
        let secret = if new.hash.is_none() { Some(self.new_secret(&new.policy)?) } else { None };
        let hash = new.hash.or(secret.as_ref().map(|secret| KeyHash::of(secret.expose())));
        let key = self.stored(snapshot, new, hash)?;
        let name = key.name.clone();
        self.put(vec![RegisterChange::Key { key, expected: 0 }]).await.map_err(|error| match error {
            AdminError::Stale => exists(&name, RecordSource::Store),
            other => other,
        })?;
        Ok(IssuedKey { key: self.key(snapshot, &name)?, secret })
    }

    /// Creates all of `new` from the hashes they have, or none of them. Returns how many there were.
    ///
    /// # Errors
    /// The index of the first key that cannot be created, and why.
    pub async fn import_keys(&self, snapshot: &Snapshot, new: Vec<NewKey>) -> Result<usize, (usize, AdminError)> {
        let keys: Vec<StoredKey> = self.imported(snapshot, new.into_iter()).collect::<Result<_, _>>()?;
        let count = keys.len();
        let changes = keys.into_iter().map(|key| RegisterChange::Key { key, expected: 0 }).collect();
        self.write(changes).await.map_err(|error| match error {
            RegisterWriteError::Conflict { at, .. } => (at, not_written(error)),
            RegisterWriteError::Unavailable => (0, AdminError::Unavailable),
        })?;
        Ok(count)
    }

    /// Why [`import_keys`](Self::import_keys) would refuse `new`: the index of each such key, and the reason.
    pub fn check_import(&self, snapshot: &Snapshot, new: &[NewKey]) -> Vec<(usize, AdminError)> {
        self.imported(snapshot, new.iter().cloned()).filter_map(Result::err).collect()
    }

    /// The stored record of each of `new`, if it is allowed beside those before it.
    fn imported<'s>(
        &'s self,
        snapshot: &'s Snapshot,
        new: impl Iterator<Item = NewKey> + 's,
    ) -> impl Iterator<Item = Result<StoredKey, (usize, AdminError)>> + 's {
        let (mut names, mut hashes) = (HashSet::new(), HashSet::new());
        new.enumerate().map(move |(at, new)| {
            let wrong = |error| (at, error);
            let hash = new.hash.ok_or_else(|| wrong(AdminError::invalid("hash", "is missing")))?;
            let key = self.stored(snapshot, new, Some(hash)).map_err(wrong)?;
            if !names.insert(key.name.clone()) {
                return Err(wrong(exists(&key.name, RecordSource::Store)));
            }
            if !hashes.insert(hash) {
                return Err(wrong(AdminError::SecretTaken { name: "an earlier one".to_owned() }));
            }
            Ok(key)
        })
    }

    /// Changes the fields that `edit` has. With `expected`, only if that is the key's version.
    ///
    /// # Errors
    /// [`AdminError`]: nothing was changed.
    pub async fn edit_key(
        &self,
        snapshot: &Snapshot,
        name: &str,
        expected: Option<i64>,
        edit: &KeyEdit,
    ) -> Result<KeyView, AdminError> {
        self.change_key(snapshot, name, expected, |key| {
            let key = edit.applied_to(key);
            self.check(snapshot, policy(snapshot, &key.policy)?, &key.own, key.team.as_deref())?;
            Ok(key)
        })
        .await
    }

    /// Gives the key a further secret. The existing secrets work for `overlap` longer; zero ends them at once.
    ///
    /// # Errors
    /// [`AdminError`]: nothing was changed.
    pub async fn rotate_key(
        &self,
        snapshot: &Snapshot,
        name: &str,
        expected: Option<i64>,
        overlap: Duration,
    ) -> Result<IssuedKey, AdminError> {
        let overlap_ms = i64::try_from(overlap.as_millis()).unwrap_or(i64::MAX);
        let mut secret = None;
        let key = self
            .change_key(snapshot, name, expected, |key| {
                let made = self.new_secret(&key.policy)?;
                let new = StoredSecret::new(KeyHash::of(made.expose()), self.now_unix_ms());
                secret = Some(made);
                let now = new.created_unix_ms;
                let rotated = key.rotated(new, overlap_ms);
                if rotated.secrets.iter().filter(|secret| secret.works(now)).count() > MOST_SECRETS {
                    return Err(AdminError::TooManySecrets { name: name.to_owned() });
                }
                Ok(rotated)
            })
            .await?;
        Ok(IssuedKey { key, secret })
    }

    /// Takes the key's secrets away, for good. Its name is not free again.
    ///
    /// # Errors
    /// [`AdminError`]: nothing was changed.
    pub async fn delete_key(
        &self,
        snapshot: &Snapshot,
        name: &str,
        expected: Option<i64>,
    ) -> Result<KeyView, AdminError> {
        self.change_key(snapshot, name, expected, |key| Ok(key.deleted())).await
    }

    /// The key called `name`.
    ///
    /// # Errors
    /// [`AdminError::NotFound`].
    pub fn key(&self, snapshot: &Snapshot, name: &str) -> Result<KeyView, AdminError> {
        if let Some(key) = self.keyring.key(name) {
            return Ok(self.view(snapshot, key));
        }
        let found = snapshot.keys.iter().find(|(_, key)| *key.name == *name);
        found.map(|found| self.view_of_file(found)).ok_or_else(|| not_found(name))
    }

    /// Up to `most` keys by name, after the one called `after`.
    pub fn keys(&self, snapshot: &Snapshot, after: Option<&str>, most: usize) -> Page<KeyView> {
        self.keys_of(snapshot, &KeyFilter::default(), after, most)
    }

    /// The same for the keys that `filter` selects.
    pub fn keys_of(&self, snapshot: &Snapshot, filter: &KeyFilter, after: Option<&str>, most: usize) -> Page<KeyView> {
        let wanted = |key: &KeyRecord| {
            filter.fits(&key.policy.name, key.team.as_deref()) && after.is_none_or(|after| *key.name > *after)
        };
        let in_file = snapshot.keys.iter().filter(|(_, key)| wanted(key));
        let mut keys: Vec<_> = in_file.map(|found| self.view_of_file(found)).collect();
        let fits = |key: &StoredKey| filter.fits(&key.policy, key.team.as_deref());
        let stored = self.keyring.keys_where(after, most.saturating_add(1), fits);
        keys.extend(stored.into_iter().map(|key| self.view(snapshot, key)));
        keys.sort_by(|a, b| a.name().cmp(b.name()));
        Page::of(keys, most, |key| key.name().to_owned())
    }

    /// Changes a stored key by `change`. If it was changed meanwhile and no version is expected, `change` is applied
    /// again to its newest version.
    async fn change_key(
        &self,
        snapshot: &Snapshot,
        name: &str,
        expected: Option<i64>,
        mut change: impl FnMut(&StoredKey) -> Result<StoredKey, AdminError>,
    ) -> Result<KeyView, AdminError> {
        loop {
            let Some(key) = self.keyring.key(name) else {
                let in_file = snapshot.keys.values().any(|key| *key.name == *name);
                let in_file = in_file.then(|| AdminError::InFile { kind: RecordKind::Key, name: name.to_owned() });
                return Err(in_file.unwrap_or_else(|| not_found(name)));
            };
            if key.is_deleted() {
                return Err(AdminError::Deleted { name: name.to_owned() });
            }
            if expected.is_some_and(|expected| expected != key.version) {
                return Err(AdminError::Stale);
            }
            let expects = key.version;
            match self.put(vec![RegisterChange::Key { key: change(&key)?, expected: expects }]).await {
                Ok(()) => return self.key(snapshot, name),
                Err(AdminError::Stale) if expected.is_none() => drop(self.keyring.refresh().await?),
                Err(error) => return Err(error),
            }
        }
    }

    async fn put(&self, changes: Vec<RegisterChange>) -> Result<(), AdminError> {
        self.write(changes).await.map(drop).map_err(not_written)
    }

    /// The record to be stored for `new`, if it is allowed.
    fn stored(&self, snapshot: &Snapshot, new: NewKey, hash: Option<KeyHash>) -> Result<StoredKey, AdminError> {
        check_name(&new.name)?;
        let policy = policy(snapshot, &new.policy)?;
        self.check(snapshot, policy, &new.own, new.team.as_deref())?;
        if snapshot.keys.values().any(|key| *key.name == *new.name) {
            return Err(exists(&new.name, RecordSource::File));
        }
        if self.keyring.key(&new.name).is_some() {
            return Err(exists(&new.name, RecordSource::Store));
        }
        let in_file = hash.and_then(|hash| snapshot.key(&hash)).map(|key| key.name.clone());
        if let Some(name) = in_file.or_else(|| self.keyring.holder_of(&hash?)) {
            return Err(AdminError::SecretTaken { name: name.to_string() });
        }
        let now = self.now_unix_ms();
        Ok(StoredKey {
            name: new.name.into(),
            policy: policy.name.clone(),
            team: new.team.map(Into::into),
            own: new.own,
            expires: new.expires,
            disabled: false,
            created_unix_ms: now,
            version: 0,
            secrets: hash.map(|hash| StoredSecret::new(hash, now)).into_iter().collect(),
        })
    }

    /// Refuses a team, limits or a budget that a key must not have under `policy`.
    fn check(
        &self,
        snapshot: &Snapshot,
        policy: &Policy,
        own: &KeyOverrides,
        team: Option<&str>,
    ) -> Result<(), AdminError> {
        check_team(team)?;
        check_ceilings(policy, own)?;
        if own.budget.is_some() {
            check_bounded(snapshot, policy, "budget")?;
        }
        let team = team.and_then(|team| self.team(snapshot, team).ok());
        if team.is_some_and(|team| team.budget.is_some()) {
            check_bounded(snapshot, policy, "team")?;
        }
        Ok(())
    }

    fn new_secret(&self, policy: &str) -> Result<Secret, AdminError> {
        (self.random_bytes)().map(|random| new_key(policy, &random)).ok_or(AdminError::NoRandomBytes)
    }

    fn view(&self, snapshot: &Snapshot, key: StoredKey) -> KeyView {
        let record = record(snapshot, &self.keyring, &key);
        let nobody = || Arc::new(Policy::deny_all(key.policy.clone()));
        let record = record.unwrap_or_else(|| KeyRecord::of(key.name.clone(), &nobody(), None, &key.own, key.expires));
        KeyView {
            source: RecordSource::Store,
            state: key.state(self.now_unix_ms()),
            record: Arc::new(record),
            stored: Some(key),
            in_file: None,
        }
    }

    fn view_of_file(&self, (hash, key): (&KeyHash, &Arc<KeyRecord>)) -> KeyView {
        let expired = !is_valid(key, self.now_unix_ms().div_euclid(1000));
        let state = if expired { KeyState::Expired } else { KeyState::Active };
        KeyView { source: RecordSource::File, record: key.clone(), state, stored: None, in_file: Some(*hash) }
    }
}

impl KeyEdit {
    fn applied_to(&self, key: &StoredKey) -> StoredKey {
        let own = &key.own;
        let limits = Limits {
            requests_per_minute: self.requests_per_minute.unwrap_or(own.limits.requests_per_minute),
            tokens_per_minute: self.tokens_per_minute.unwrap_or(own.limits.tokens_per_minute),
            max_concurrent: self.max_concurrent.unwrap_or(own.limits.max_concurrent),
        };
        let team = self.team.as_ref().map(|team| team.as_deref().map(Into::into));
        StoredKey {
            policy: self.policy.as_deref().map_or_else(|| key.policy.clone(), Into::into),
            team: team.unwrap_or_else(|| key.team.clone()),
            own: KeyOverrides { limits, budget: self.budget.clone().unwrap_or_else(|| own.budget.clone()) },
            expires: self.expires.unwrap_or(key.expires),
            disabled: self.disabled.unwrap_or(key.disabled),
            ..key.clone()
        }
    }
}

fn record(snapshot: &Snapshot, keyring: &Keyring, key: &StoredKey) -> Option<KeyRecord> {
    let team = key.team.as_ref().and_then(|team| keyring.team(team));
    snapshot.record_of(key, team.as_deref())
}

fn policy<'s>(snapshot: &'s Snapshot, name: &str) -> Result<&'s Arc<Policy>, AdminError> {
    snapshot.policy(name).ok_or_else(|| {
        let known: Vec<&str> = snapshot.policies.iter().map(|policy| &*policy.name).collect();
        AdminError::invalid("policy", format!("there is no policy '{name}'; the policies are: {}", known.join(", ")))
    })
}

/// Refuses limits that a key must not have under `policy`.
fn check_ceilings(policy: &Policy, own: &KeyOverrides) -> Result<(), AdminError> {
    let zero = |field, limit: Option<u64>| match limit {
        Some(0) => Err(AdminError::invalid(field, "is a whole number above 0; disable the key to refuse everything")),
        _ => Ok(()),
    };
    zero("requests_per_minute", own.limits.requests_per_minute)?;
    zero("tokens_per_minute", own.limits.tokens_per_minute)?;
    zero("max_concurrent", own.limits.max_concurrent.map(u64::from))?;
    if let Some(loose) = exceeds_policy(policy, own) {
        let message = format!("is above the policy's {}: a key may only tighten it", loose.ceiling);
        return Err(AdminError::invalid(loose.field, message));
    }
    Ok(())
}

/// Refuses `field`, which limits money, if the policy reaches a model whose requests have no known maximum cost.
pub(super) fn check_bounded(snapshot: &Snapshot, policy: &Policy, field: &'static str) -> Result<(), AdminError> {
    let Some((model, lacks)) = unbounded(&snapshot.table, policy) else { return Ok(()) };
    let message = format!(
        "the policy '{}' reaches the model '{model}', which has no {lacks} in the configuration: what a request costs \
         cannot be bounded",
        policy.name
    );
    Err(AdminError::invalid(field, message))
}

fn check_team(team: Option<&str>) -> Result<(), AdminError> {
    team.map_or(Ok(()), |team| {
        check_name(team).map_err(|_| AdminError::invalid("team", "1 to 200 letters, digits and - _ . / :"))
    })
}

fn exists(name: &str, kept_in: RecordSource) -> AdminError {
    AdminError::Exists { kind: RecordKind::Key, name: name.to_owned(), kept_in }
}

fn not_found(name: &str) -> AdminError {
    AdminError::NotFound { kind: RecordKind::Key, name: name.to_owned() }
}
