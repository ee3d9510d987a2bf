//! Credit: prepaid money, granted and never changed; a further grant corrects it.

use super::keys::check_bounded;
use super::{Admin, AdminError, Page, not_written};
use crate::config::Snapshot;
use crate::domain::budget::Scope;
use crate::domain::money::NanoUsd;
use crate::domain::register::{CreditBalance, Grant, Holder};
use crate::store::RegisterChange;

/// What is to be granted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewGrant {
    /// To whom: a key or a team that exists.
    pub holder: Holder,
    /// How much; below zero it is taken back.
    pub amount: NanoUsd,
    /// Why, for people.
    pub reason: String,
    /// Who says so, for people.
    pub by: String,
}

/// The longest reason kept, in characters.
const REASON_MAX: usize = 500;
/// Grants of one holder stay far from the end of the numbers.
const AMOUNT_MAX: i64 = 1_000_000_000_000_000_000;

impl Admin {
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
        let written = self.keyring.write(vec![RegisterChange::Grant(grant.clone())]).await.map_err(not_written)?;
        Ok(Grant { id: written.first().copied().unwrap_or_default(), ..grant })
    }

    /// How everybody's credit stands, by holder.
    ///
    /// # Errors
    /// [`AdminError::Unavailable`].
    pub async fn balances(&self) -> Result<Vec<CreditBalance>, AdminError> {
        Ok(self.keyring.balances().await?)
    }

    /// Up to `most` of them, after the one of `after`.
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

    /// Up to `most` grants, oldest first, after the one numbered `after`; of `holder` only where one is named.
    ///
    /// # Errors
    /// [`AdminError::Unavailable`].
    pub async fn grants(&self, holder: Option<Holder>, after: i64, most: usize) -> Result<Page<Grant>, AdminError> {
        let grants = self.keyring.grants(holder, after, most.saturating_add(1)).await?;
        Ok(Page::of(grants, most, |grant| grant.id.to_string()))
    }

    /// A team is one that was made, or that some key is of.
    fn check_team_holds(&self, snapshot: &Snapshot, name: &str) -> Result<(), AdminError> {
        let policies = self.policies_of_team(snapshot, name);
        if policies.is_empty() {
            return self.team(snapshot, name).map(drop);
        }
        policies.into_iter().try_for_each(|policy| check_bounded(snapshot, policy, "team"))
    }
}
