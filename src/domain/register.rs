//! Keys, teams and credit that are created and changed while the gateway runs.
//!
//! They exist in addition to those of the configuration file, so that a key can be issued, rotated or disabled
//! without an edit and a reload. A stored key is found by the hash of any of its secrets. Its name never changes,
//! because its spending is recorded under the name. This module says how a key may change; it must never decide who
//! may change it, nor where it is stored.
//!
//! Start reading in [`StoredKey`].

use crate::domain::budget::{Account, Budget, BudgetPeriod, BudgetSpec, CREDIT, Scope};
use crate::domain::limit::Limits;
use crate::domain::money::NanoUsd;
use crate::domain::secret::KeyHash;
use std::sync::Arc;

/// The number of expired secrets kept of a key, so that their last use can be looked up.
const EXPIRED_SECRETS_KEPT: usize = 4;

/// A key of the register.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredKey {
    /// The name in reports and budgets; unique for ever, also among the keys of the configuration file.
    pub name: Arc<str>,
    /// The name of its policy.
    pub policy: Arc<str>,
    /// The name of its team.
    pub team: Option<Arc<str>>,
    /// What restricts it beyond its policy.
    pub own: KeyOverrides,
    /// The Unix second from which on it is not accepted; `None`: it does not expire.
    pub expires: Option<i64>,
    /// Whether it is refused until it is enabled again.
    pub disabled: bool,
    /// When it was created, in Unix milliseconds.
    pub created_unix_ms: i64,
    /// The version of its last change; every change to the register gets a higher one.
    pub version: i64,
    /// Its secrets, oldest first; none of one that was deleted.
    pub secrets: Vec<StoredSecret>,
}

/// Limits of one key, at or below those of its policy.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct KeyOverrides {
    /// Rate limits.
    pub limits: Limits,
    /// Its own budget.
    pub budget: Option<BudgetSpec>,
}

/// One secret of a key; only its hash is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoredSecret {
    /// The SHA-256 hash of the secret.
    pub hash: KeyHash,
    /// When it was created or imported, in Unix milliseconds.
    pub created_unix_ms: i64,
    /// The Unix millisecond from which on it is not accepted; `None`: it is valid as long as the key.
    pub ends_unix_ms: Option<i64>,
    /// When a request last used it, in Unix milliseconds, as far as is known.
    pub last_used_unix_ms: Option<i64>,
}

impl StoredSecret {
    /// A secret that is valid from `now_unix_ms` on, without an end.
    pub fn new(hash: KeyHash, now_unix_ms: i64) -> Self {
        Self { hash, created_unix_ms: now_unix_ms, ends_unix_ms: None, last_used_unix_ms: None }
    }

    /// Whether it is valid at `now_unix_ms`.
    pub fn works(&self, now_unix_ms: i64) -> bool {
        self.ends_unix_ms.is_none_or(|end| now_unix_ms < end)
    }
}

impl StoredKey {
    /// The secret with this hash, if it is valid at `now_unix_ms` and the key is not disabled. The expiry of the key
    /// is checked with its `KeyRecord`.
    pub fn secret(&self, hash: &KeyHash, now_unix_ms: i64) -> Option<&StoredSecret> {
        let found = self.secrets.iter().find(|secret| secret.hash == *hash);
        found.filter(|secret| !self.disabled && secret.works(now_unix_ms))
    }

    /// The same key with a new secret; earlier secrets stay valid for `overlap_ms`, or until their own earlier end.
    #[must_use]
    pub fn rotated(&self, new: StoredSecret, overlap_ms: i64) -> Self {
        let now = new.created_unix_ms;
        let ends = now.saturating_add(overlap_ms.max(0));
        let mut secrets = self.secrets.clone();
        for secret in &mut secrets {
            secret.ends_unix_ms = Some(secret.ends_unix_ms.map_or(ends, |end| end.min(ends)));
        }
        let ended = secrets.iter().filter(|secret| !secret.works(now)).count();
        let mut excess = ended.saturating_sub(EXPIRED_SECRETS_KEPT);
        secrets.retain(|secret| {
            let remove = excess > 0 && !secret.works(now);
            excess -= usize::from(remove);
            !remove
        });
        secrets.push(new);
        Self { secrets, ..self.clone() }
    }

    /// The same key without its secrets, for good: its name stays, because reports and budgets stand under it.
    #[must_use]
    pub fn deleted(&self) -> Self {
        Self { disabled: true, secrets: Vec::new(), ..self.clone() }
    }

    /// Whether it was [`deleted`](Self::deleted).
    pub fn is_deleted(&self) -> bool {
        self.disabled && self.secrets.is_empty()
    }

    /// The state of the key at `now_unix_ms`.
    pub fn state(&self, now_unix_ms: i64) -> KeyState {
        if self.is_deleted() {
            KeyState::Deleted
        } else if self.disabled {
            KeyState::Disabled
        } else if self.expires.is_some_and(|end| now_unix_ms.div_euclid(1000) >= end) {
            KeyState::Expired
        } else {
            KeyState::Active
        }
    }
}

/// Whether a key is accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyState {
    /// It is accepted.
    Active,
    /// An operator disabled it.
    Disabled,
    /// It has expired.
    Expired,
    /// It was deleted, for good.
    Deleted,
}

impl KeyState {
    /// The label in tables and API answers.
    pub fn label(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Expired => "expired",
            Self::Deleted => "deleted",
        }
    }
}

/// A team of the register.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredTeam {
    /// Its name; unique, also among the teams of the configuration file.
    pub name: Arc<str>,
    /// The budget that its keys share.
    pub budget: Option<BudgetSpec>,
    /// When it was created, in Unix milliseconds.
    pub created_unix_ms: i64,
    /// The version of its last change.
    pub version: i64,
}

impl StoredTeam {
    /// The team called `name` where nothing else of it can be read: its keys may spend nothing.
    pub fn without_money(name: &str, version: i64) -> Self {
        let budget = BudgetSpec { limit: NanoUsd::ZERO, window: BudgetPeriod::Ever };
        Self { name: name.into(), budget: Some(budget), created_unix_ms: 0, version }
    }
}

/// A stored row that cannot be read. Nothing of it counts, and everything else does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuarantinedRow {
    /// The name of its table.
    pub table: &'static str,
    /// What it is about: the name of a key or a team, the number of a grant.
    pub row: String,
    /// What is wrong with it.
    pub why: String,
}

/// Prepaid money given to a key or a team, or taken back if it is negative. It is never changed; a further grant
/// corrects it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// The number of the grant; later grants have higher numbers.
    pub id: i64,
    /// Who receives it.
    pub holder: Holder,
    /// The amount.
    pub amount: NanoUsd,
    /// The reason, as free text; may be empty.
    pub reason: Arc<str>,
    /// Who granted it, as free text.
    pub by: Arc<str>,
    /// When it was granted, in Unix milliseconds.
    pub granted_unix_ms: i64,
}

/// A key or team that can have credit.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Holder {
    /// Whether it is a key or a team.
    pub scope: Scope,
    /// Its name.
    pub name: Arc<str>,
}

impl Holder {
    /// The account of its credit.
    pub fn account(&self) -> Account {
        Account { scope: self.scope, name: self.name.clone(), window: CREDIT.into() }
    }

    /// Its credit as a budget whose limit is the sum of all grants.
    pub fn credit(&self, granted: NanoUsd) -> Budget {
        Budget { account: Arc::new(self.account()), limit: granted, window: BudgetPeriod::Credit }
    }
}

/// The balance of the credit of a key or team.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreditBalance {
    /// Whose credit it is.
    pub holder: Holder,
    /// The sum of all grants.
    pub granted: NanoUsd,
    /// What requests spent of it.
    pub spent: NanoUsd,
    /// What running gateways have leased and not yet spent.
    pub leased: NanoUsd,
}

impl CreditBalance {
    /// What is neither spent nor leased; negative if more was taken back than was left.
    pub fn left(&self) -> NanoUsd {
        NanoUsd(self.granted.0.saturating_sub(self.spent.0).saturating_sub(self.leased.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> StoredKey {
        StoredKey {
            name: "app".into(),
            policy: "pro".into(),
            team: None,
            own: KeyOverrides::default(),
            expires: None,
            disabled: false,
            created_unix_ms: 0,
            version: 1,
            secrets: vec![StoredSecret::new(KeyHash::of("one"), 0)],
        }
    }

    fn is_valid(key: &StoredKey, secret: &str, now: i64) -> bool {
        key.secret(&KeyHash::of(secret), now).is_some()
    }

    #[test]
    fn both_secrets_are_valid_until_the_overlap_ends() {
        let key = key().rotated(StoredSecret::new(KeyHash::of("two"), 1_000), 500);
        let check = |secret, now, expected| assert_eq!(is_valid(&key, secret, now), expected, "{secret} at {now}");
        check("one", 1_000, true);
        check("one", 1_499, true);
        check("one", 1_500, false);
        check("two", 1_000, true);
        check("two", i64::MAX, true);
        check("three", 1_000, false);
    }

    #[test]
    fn a_second_rotation_never_lengthens_the_life_of_the_first_secret() {
        let twice = key()
            .rotated(StoredSecret::new(KeyHash::of("two"), 1_000), 500)
            .rotated(StoredSecret::new(KeyHash::of("three"), 1_200), 10_000);
        assert!(is_valid(&twice, "one", 1_499) && !is_valid(&twice, "one", 1_500));
        assert!(is_valid(&twice, "two", 11_199) && !is_valid(&twice, "two", 11_200));
    }

    #[test]
    fn without_overlap_the_old_secret_ends_at_once() {
        let key = key().rotated(StoredSecret::new(KeyHash::of("two"), 1_000), 0);
        assert!(!is_valid(&key, "one", 1_000) && is_valid(&key, "two", 1_000));
    }

    #[test]
    fn a_disabled_key_is_not_accepted() {
        let key = StoredKey { disabled: true, ..key() };
        assert!(!is_valid(&key, "one", 0));
        assert_eq!(key.state(0), KeyState::Disabled);
        assert_eq!(StoredKey { expires: Some(2), disabled: false, ..key.clone() }.state(1_999), KeyState::Active);
        assert_eq!(StoredKey { expires: Some(2), disabled: false, ..key }.state(2_000), KeyState::Expired);
    }

    #[test]
    fn only_some_expired_secrets_are_kept() {
        let mut key = key();
        for at in 1..20 {
            key = key.rotated(StoredSecret::new(KeyHash::of(&at.to_string()), at * 1_000), 500);
        }
        assert_eq!(key.secrets.len(), EXPIRED_SECRETS_KEPT + 2, "the expired ones kept, the expiring one, the newest");
        assert!(is_valid(&key, "18", 19_400) && is_valid(&key, "19", 19_400));
    }
}
