//! Keys, teams and credit that are made and changed while the gateway runs.
//!
//! They exist beside those of the file so that a key can be given, rotated or taken away without an edit
//! and a reload. A stored key is found by the hash of any of its secrets; its name is for ever, because
//! what it spent stands under it. Here is what may become of one; who may ask for it, and where it is
//! kept, is not.
//!
//! Start reading at [`StoredKey`].

use crate::domain::authorize::Limits;
use crate::domain::budget::{Account, Budget, BudgetPeriod, BudgetSpec, CREDIT, Scope};
use crate::domain::money::NanoUsd;
use crate::domain::secret::KeyHash;
use std::sync::Arc;

/// Secrets that ended are remembered, so that their last use can be looked up; no more than these.
const ENDED_KEPT: usize = 4;

/// A key that is not in the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredKey {
    /// For people, reports and budgets; unique for ever, also among the file's.
    pub name: Arc<str>,
    /// The policy's name.
    pub policy: Arc<str>,
    /// The team's name.
    pub team: Option<Arc<str>>,
    /// What tightens its policy.
    pub own: KeyOverrides,
    /// From this Unix second on it no longer works.
    pub expires: Option<i64>,
    /// Whether it is refused until somebody says otherwise.
    pub disabled: bool,
    /// When it was made.
    pub created_unix_ms: i64,
    /// Grows with every change to anything stored; two states of one key never share it.
    pub version: i64,
    /// Oldest first.
    pub secrets: Vec<StoredSecret>,
}

/// What a key has of its own: ceilings at or below those of its policy.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct KeyOverrides {
    /// Of its rates.
    pub limits: Limits,
    /// Of its money.
    pub budget: Option<BudgetSpec>,
}

/// One secret of a key: its hash is all that is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoredSecret {
    /// Its SHA-256.
    pub hash: KeyHash,
    /// When it was made or imported.
    pub created_unix_ms: i64,
    /// From this moment on it no longer works; `None` for the key's own.
    pub ends_unix_ms: Option<i64>,
    /// When it last opened a request, as far as is known.
    pub last_used_unix_ms: Option<i64>,
}

impl StoredSecret {
    /// A secret that works from now on, without an end.
    pub fn new(hash: KeyHash, now_unix_ms: i64) -> Self {
        Self { hash, created_unix_ms: now_unix_ms, ends_unix_ms: None, last_used_unix_ms: None }
    }

    /// Whether it works at `now_unix_ms`.
    pub fn works(&self, now_unix_ms: i64) -> bool {
        self.ends_unix_ms.is_none_or(|end| now_unix_ms < end)
    }
}

impl StoredKey {
    /// The secret with this hash, where it opens requests at `now_unix_ms`. Expiry is the record's to know.
    pub fn secret(&self, hash: &KeyHash, now_unix_ms: i64) -> Option<&StoredSecret> {
        let found = self.secrets.iter().find(|secret| secret.hash == *hash);
        found.filter(|secret| !self.disabled && secret.works(now_unix_ms))
    }

    /// The same key with a further secret; those it had work `overlap_ms` longer, or as long as they would have.
    #[must_use]
    pub fn rotated(&self, new: StoredSecret, overlap_ms: i64) -> Self {
        let now = new.created_unix_ms;
        let ends = now.saturating_add(overlap_ms.max(0));
        let mut secrets = self.secrets.clone();
        for secret in &mut secrets {
            secret.ends_unix_ms = Some(secret.ends_unix_ms.map_or(ends, |end| end.min(ends)));
        }
        let ended = secrets.iter().filter(|secret| !secret.works(now)).count();
        let mut forgotten = ended.saturating_sub(ENDED_KEPT);
        secrets.retain(|secret| {
            let forget = forgotten > 0 && !secret.works(now);
            forgotten -= usize::from(forget);
            !forget
        });
        secrets.push(new);
        Self { secrets, ..self.clone() }
    }

    /// How it stands at `now_unix_ms`.
    pub fn state(&self, now_unix_ms: i64) -> KeyState {
        if self.disabled {
            KeyState::Disabled
        } else if self.expires.is_some_and(|end| now_unix_ms.div_euclid(1000) >= end) {
            KeyState::Expired
        } else {
            KeyState::Active
        }
    }
}

/// Whether a key works.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyState {
    /// It does.
    Active,
    /// Somebody took it away.
    Disabled,
    /// Its time is over.
    Expired,
}

impl KeyState {
    /// Its word in tables and answers.
    pub fn label(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Expired => "expired",
        }
    }
}

/// A team that is not in the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredTeam {
    /// Unique, also among the file's.
    pub name: Arc<str>,
    /// What its keys may spend together.
    pub budget: Option<BudgetSpec>,
    /// When it was made.
    pub created_unix_ms: i64,
    /// As a key's.
    pub version: i64,
}

/// Prepaid money given to a key or a team, or, below zero, taken back. It is never changed: a further one
/// corrects it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// Its number, in the order of grants.
    pub id: i64,
    /// Whose.
    pub holder: Holder,
    /// How much.
    pub amount: NanoUsd,
    /// Why, for people; may be empty.
    pub reason: Arc<str>,
    /// Who said so, for people.
    pub by: Arc<str>,
    /// When.
    pub granted_unix_ms: i64,
}

/// Who can hold credit.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Holder {
    /// A key or a team.
    pub scope: Scope,
    /// Its name.
    pub name: Arc<str>,
}

impl Holder {
    /// Under which its credit is counted.
    pub fn account(&self) -> Account {
        Account { scope: self.scope, name: self.name.clone(), window: CREDIT.into() }
    }

    /// Its credit, when so much was granted in all.
    pub fn credit(&self, granted: NanoUsd) -> Budget {
        Budget { account: Arc::new(self.account()), limit: granted, window: BudgetPeriod::Credit }
    }
}

/// How somebody's credit stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreditBalance {
    /// Whose.
    pub holder: Holder,
    /// All grants together.
    pub granted: NanoUsd,
    /// What requests took of it.
    pub spent: NanoUsd,
    /// What a running gateway has leased and not yet spent.
    pub leased: NanoUsd,
}

impl CreditBalance {
    /// What is neither spent nor leased; negative where more was taken back than was left.
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

    fn works(key: &StoredKey, secret: &str, now: i64) -> bool {
        key.secret(&KeyHash::of(secret), now).is_some()
    }

    #[test]
    fn both_secrets_work_until_the_overlap_ends() {
        let key = key().rotated(StoredSecret::new(KeyHash::of("two"), 1_000), 500);
        let check = |secret, now, expected| assert_eq!(works(&key, secret, now), expected, "{secret} at {now}");
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
        assert!(works(&twice, "one", 1_499) && !works(&twice, "one", 1_500));
        assert!(works(&twice, "two", 11_199) && !works(&twice, "two", 11_200));
    }

    #[test]
    fn without_overlap_the_old_secret_ends_at_once() {
        let key = key().rotated(StoredSecret::new(KeyHash::of("two"), 1_000), 0);
        assert!(!works(&key, "one", 1_000) && works(&key, "two", 1_000));
    }

    #[test]
    fn a_disabled_key_opens_nothing() {
        let key = StoredKey { disabled: true, ..key() };
        assert!(!works(&key, "one", 0));
        assert_eq!(key.state(0), KeyState::Disabled);
        assert_eq!(StoredKey { expires: Some(2), disabled: false, ..key.clone() }.state(1_999), KeyState::Active);
        assert_eq!(StoredKey { expires: Some(2), disabled: false, ..key }.state(2_000), KeyState::Expired);
    }

    #[test]
    fn few_of_the_secrets_that_ended_are_remembered() {
        let mut key = key();
        for at in 1..20 {
            key = key.rotated(StoredSecret::new(KeyHash::of(&at.to_string()), at * 1_000), 500);
        }
        assert_eq!(key.secrets.len(), ENDED_KEPT + 2, "those ended, the one ending, the newest");
        assert!(works(&key, "18", 19_400) && works(&key, "19", 19_400));
    }
}
