//! Teams: keys that share a budget.

use super::keys::check_bounded;
use super::{AdminError, AdminOperations, Page, RecordKind, RecordSource, check_name, not_written};
use crate::config::Snapshot;
use crate::domain::budget::BudgetSpec;
use crate::domain::policy::Policy;
use crate::domain::register::StoredTeam;
use crate::store::RegisterChange;
use std::sync::Arc;

/// A change of a team.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct TeamEdit {
    /// A new budget; `Some(None)` removes it, `None` leaves it as it is.
    pub budget: Option<Option<BudgetSpec>>,
}

/// A team of the configuration or of the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TeamView {
    /// Its name.
    pub name: Arc<str>,
    /// Where it is kept.
    pub source: RecordSource,
    /// The budget its keys share.
    pub budget: Option<BudgetSpec>,
    /// The stored record; `None` for a team of the configuration.
    pub stored: Option<Arc<StoredTeam>>,
}

impl AdminOperations {
    /// Creates a team.
    ///
    /// # Errors
    /// [`AdminError`]: nothing was created.
    pub async fn create_team(
        &self,
        snapshot: &Snapshot,
        name: &str,
        budget: Option<BudgetSpec>,
    ) -> Result<TeamView, AdminError> {
        check_name(name)?;
        if let Ok(known) = self.team(snapshot, name) {
            return Err(AdminError::Exists { kind: RecordKind::Team, name: name.to_owned(), kept_in: known.source });
        }
        let created_unix_ms = self.now_unix_ms();
        let team = StoredTeam { name: name.into(), budget, created_unix_ms, version: 0 };
        self.put_team(snapshot, team, 0).await.map_err(|error| match error {
            AdminError::Stale => {
                AdminError::Exists { kind: RecordKind::Team, name: name.to_owned(), kept_in: RecordSource::Store }
            }
            other => other,
        })?;
        self.team(snapshot, name)
    }

    /// Changes the fields that `edit` has. With `expected`, only if that is the team's version.
    ///
    /// # Errors
    /// [`AdminError`]: nothing was changed.
    pub async fn edit_team(
        &self,
        snapshot: &Snapshot,
        name: &str,
        expected: Option<i64>,
        edit: &TeamEdit,
    ) -> Result<TeamView, AdminError> {
        loop {
            let Some(team) = self.team(snapshot, name)?.stored else {
                return Err(AdminError::InFile { kind: RecordKind::Team, name: name.to_owned() });
            };
            if expected.is_some_and(|expected| expected != team.version) {
                return Err(AdminError::Stale);
            }
            let expects = team.version;
            let budget = edit.budget.clone().unwrap_or_else(|| team.budget.clone());
            match self.put_team(snapshot, StoredTeam { budget, ..(*team).clone() }, expects).await {
                Ok(()) => return self.team(snapshot, name),
                Err(AdminError::Stale) if expected.is_none() => drop(self.keyring.refresh().await?),
                Err(error) => return Err(error),
            }
        }
    }

    /// The team called `name`.
    ///
    /// # Errors
    /// [`AdminError::NotFound`].
    pub fn team(&self, snapshot: &Snapshot, name: &str) -> Result<TeamView, AdminError> {
        if let Some(team) = self.keyring.team(name) {
            return Ok(stored(team));
        }
        let found = snapshot.teams.get_key_value(name).map(|(name, budget)| in_file(name, budget));
        found.ok_or_else(|| AdminError::NotFound { kind: RecordKind::Team, name: name.to_owned() })
    }

    /// Up to `most` teams by name, after the one called `after`.
    pub fn teams(&self, snapshot: &Snapshot, after: Option<&str>, most: usize) -> Page<TeamView> {
        let follows = |name: &&Arc<str>| after.is_none_or(|after| ***name > *after);
        let files = snapshot.teams.iter().filter(|(name, _)| follows(name));
        let mut teams: Vec<_> = files.map(|(name, budget)| in_file(name, budget)).collect();
        teams.extend(self.keyring.teams(after, most.saturating_add(1)).into_iter().map(stored));
        teams.sort_by(|a, b| a.name.cmp(&b.name));
        Page::of(teams, most, |team| team.name.to_string())
    }

    /// The policies of all keys of the team called `name`.
    pub(super) fn policies_of_team<'s>(&self, snapshot: &'s Snapshot, name: &str) -> Vec<&'s Arc<Policy>> {
        let in_file = snapshot.keys.values().filter(|key| key.team.as_deref() == Some(name));
        let mut names = self.keyring.policies_of_team(name);
        names.extend(in_file.map(|key| key.policy.name.clone()));
        names.iter().filter_map(|name| snapshot.policy(name)).collect()
    }

    async fn put_team(&self, snapshot: &Snapshot, team: StoredTeam, expected: i64) -> Result<(), AdminError> {
        if team.budget.is_some() {
            for policy in self.policies_of_team(snapshot, &team.name) {
                check_bounded(snapshot, policy, "budget")?;
            }
        }
        self.write(vec![RegisterChange::Team { team, expected }]).await.map(drop).map_err(not_written)
    }
}

fn stored(team: Arc<StoredTeam>) -> TeamView {
    TeamView { name: team.name.clone(), source: RecordSource::Store, budget: team.budget.clone(), stored: Some(team) }
}

fn in_file(name: &Arc<str>, budget: &Option<BudgetSpec>) -> TeamView {
    TeamView { name: name.clone(), source: RecordSource::File, budget: budget.clone(), stored: None }
}
