//! Credit: prepaid money. A grant is never changed; a further grant corrects it.

use super::keys::check_bounded;
use super::{AdminError, AdminOperations, Page, not_written};
use crate::config::Snapshot;
use crate::domain::budget::Scope;
use crate::domain::money::NanoUsd;
use crate::domain::register::{CreditBalance, Grant, Holder};
use crate::store::RegisterChange;

/// A grant to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewGrant {
    /// The key or team that receives it; it must exist.
    pub holder: Holder,
    /// The amount; below zero it is taken back.
    pub amount: NanoUsd,
    /// The reason, for people: one line of up to 500 characters.
    pub reason: String,
    /// Who grants it, for people.
    pub by: String,
}

/// Maximum length of a reason, in characters.
const REASON_MAX: usize = 500;
/// Maximum amount of one grant, either way: a billion dollars. The register refuses what 64 bits do not hold in sum.
const AMOUNT_MAX: i64 = 1_000_000_000_000_000_000;

impl AdminOperations {
    /// Grants credit.
    ///
    /// # Errors
    /// [`AdminError`]: nothing was granted.
    pub async fn grant(&self, snapshot: &Snapshot, new: NewGrant) -> Result<Grant, AdminError> {
        let NewGrant { holder, amount, reason, by } = new;
        match holder.scope {
            Scope::Key => check_bounded(snapshot, &self.key(snapshot, &holder.name)?.record.policy, "key")?,
            Scope::Team => self.check_team_holds(snapshot, &holder.name)?,
            Scope::Policy => return Err(AdminError::invalid("holder", "only a key or a team can hold credit")),
        }
        if amount == NanoUsd::ZERO || amount.0.unsigned_abs() > AMOUNT_MAX.unsigned_abs() {
            return Err(AdminError::invalid("amount", "up to a billion dollars, and not nothing"));
        }
        if reason.chars().count() > REASON_MAX || reason.chars().any(char::is_control) {
            return Err(AdminError::invalid("reason", "one line of up to 500 characters"));
        }
        let granted_unix_ms = self.now_unix_ms();
        let grant = Grant { id: 0, holder, amount, reason: reason.into(), by: by.into(), granted_unix_ms };
        let written = self.write(vec![RegisterChange::Grant(grant.clone())]).await.map_err(not_written)?;
        Ok(Grant { id: written.first().copied().unwrap_or_default(), ..grant })
    }

    /// The credit of every key and team that has any.
    ///
    /// # Errors
    /// [`AdminError::Unavailable`].
    pub async fn balances(&self) -> Result<Vec<CreditBalance>, AdminError> {
        Ok(self.keyring.balances().await?)
    }

    /// Up to `most` balances by holder, after the one of `after`.
    ///
    /// # Errors
    /// [`AdminError::Unavailable`].
    pub async fn balances_after(&self, after: Option<&Holder>, most: usize) -> Result<Page<CreditBalance>, AdminError> {
        let mut balances = self.balances().await?;
        balances.sort_by(|a, b| a.holder.cmp(&b.holder));
        balances.retain(|balance| after.is_none_or(|after| balance.holder > *after));
        balances.truncate(most.saturating_add(1));
        let place = |balance: &CreditBalance| format!("{}/{}", balance.holder.scope.label(), balance.holder.name);
        Ok(Page::of(balances, most, place))
    }

    /// Up to `most` grants, oldest first, after the one numbered `after`; only those of `holder`, if one is given.
    ///
    /// # Errors
    /// [`AdminError::Unavailable`].
    pub async fn grants(&self, holder: Option<Holder>, after: i64, most: usize) -> Result<Page<Grant>, AdminError> {
        let grants = self.keyring.grants(holder, after, most.saturating_add(1)).await?;
        Ok(Page::of(grants, most, |grant| grant.id.to_string()))
    }

    /// A team exists if it was created, or if a key belongs to it.
    fn check_team_holds(&self, snapshot: &Snapshot, name: &str) -> Result<(), AdminError> {
        let policies = self.policies_of_team(snapshot, name);
        if policies.is_empty() {
            return self.team(snapshot, name).map(drop);
        }
        policies.into_iter().try_for_each(|policy| check_bounded(snapshot, policy, "team"))
    }
}
