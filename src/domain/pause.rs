//! Which budgeted requests are kept from one deployment, because answers of it cost more than was held for them.
//!
//! It exists because such an answer is the one way for a budget to be overspent: its provider does not keep to what it
//! is asked for, and the next answer would do the same. One key's answer pauses that key there, another key's of the
//! same team the team, and one of another team every request that money is held for: whatever one team sends keeps no
//! other from the deployment. A pause ends by time or by an operator. Requests without a hold are never paused. Time is
//! passed in.
//!
//! Start reading in [`BudgetPauses::blocked_until`].

use crate::domain::id::{KeyId, TeamId};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The pauses at one deployment.
#[derive(Default, Debug)]
pub struct BudgetPauses {
    /// One for each key, the latest last.
    pauses: Vec<KeyPause>,
}

/// The pause of one key.
#[derive(Clone, Debug)]
struct KeyPause {
    key: KeyId,
    team: TeamId,
    name: Arc<str>,
    until: Instant,
}

/// Whose requests are paused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum PauseScope {
    /// No request is paused.
    None,
    /// Those of some keys, or teams.
    Keys,
    /// All that money is held for.
    All,
}

impl PauseScope {
    /// Every scope.
    pub const ALL: [Self; 3] = [Self::None, Self::Keys, Self::All];

    /// Its label.
    pub fn label(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Keys => "keys",
            Self::All => "all",
        }
    }
}

/// The pauses at one deployment, for operators.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PauseReport {
    /// Whose requests are paused.
    pub scope: PauseScope,
    /// The keys whose answers were the cause, the latest last.
    pub keys: Vec<Arc<str>>,
    /// When the last of them ends; `None` where nothing is paused.
    pub until: Option<Instant>,
}

impl BudgetPauses {
    /// An answer to `key` of `team`, called `name`, cost more than was held: the key is paused for `lasts`. Returns whose
    /// requests are paused now.
    pub fn begin(&mut self, key: KeyId, team: TeamId, name: Arc<str>, now: Instant, lasts: Duration) -> PauseScope {
        self.pauses.retain(|pause| pause.until > now && pause.key != key);
        if !lasts.is_zero() {
            self.pauses.push(KeyPause { key, team, name, until: now + lasts });
        }
        self.report(now).scope
    }

    /// Until when requests of `key` of `team` that money is held for are paused; `None`: they are not.
    pub fn blocked_until(&self, key: KeyId, team: TeamId, now: Instant) -> Option<Instant> {
        let own = self.active(now).filter(|pause| pause.key == key).map(|pause| pause.until).max();
        let keys = self.active(now).filter(|pause| pause.team == team).map(|pause| (pause.key.0, pause.until));
        let teams = self.active(now).map(|pause| (pause.team.0, pause.until));
        own.max(second(keys)).max(second(teams))
    }

    /// What operators are told.
    pub fn report(&self, now: Instant) -> PauseReport {
        let all = second(self.active(now).map(|pause| (pause.team.0, pause.until))).is_some();
        let until = self.active(now).map(|pause| pause.until).max();
        let scope = match until {
            None => PauseScope::None,
            Some(_) if all => PauseScope::All,
            Some(_) => PauseScope::Keys,
        };
        PauseReport { scope, keys: self.active(now).map(|pause| pause.name.clone()).collect(), until }
    }

    /// An operator ends all of them.
    pub fn end(&mut self) {
        self.pauses.clear();
    }

    fn active(&self, now: Instant) -> impl Iterator<Item = &KeyPause> {
        self.pauses.iter().filter(move |pause| pause.until > now)
    }
}

/// Until when two different ones are paused at once: the latest ends of each, and of those the second latest.
fn second(pauses: impl Iterator<Item = (u32, Instant)>) -> Option<Instant> {
    let mut ends: Vec<(u32, Instant)> = Vec::new();
    for (whose, until) in pauses {
        match ends.iter_mut().find(|(known, _)| *known == whose) {
            Some((_, latest)) => *latest = until.max(*latest),
            None => ends.push((whose, until)),
        }
    }
    ends.sort_unstable_by_key(|(_, until)| std::cmp::Reverse(*until));
    ends.get(1).map(|(_, until)| *until)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const MINUTE: Duration = Duration::from_secs(60);

    /// Keys by number, of the team of the same ten.
    fn begin(pauses: &mut BudgetPauses, key: u32, now: Instant) -> PauseScope {
        pauses.begin(KeyId(key), TeamId(key / 10), format!("k{key}").into(), now, HOUR)
    }

    fn blocked(pauses: &BudgetPauses, now: Instant) -> Vec<u32> {
        [10, 11, 12, 20, 21, 30]
            .into_iter()
            .filter(|key| pauses.blocked_until(KeyId(*key), TeamId(key / 10), now).is_some())
            .collect()
    }

    #[test]
    fn one_key_is_paused_then_its_team_then_all() {
        let (mut pauses, now) = (BudgetPauses::default(), Instant::now());
        assert_eq!((blocked(&pauses, now), pauses.report(now).scope), (vec![], PauseScope::None));
        assert_eq!(begin(&mut pauses, 10, now), PauseScope::Keys);
        assert_eq!(blocked(&pauses, now), [10]);
        // The same key again, of an answer that was under way.
        assert_eq!(begin(&mut pauses, 10, now + MINUTE), PauseScope::Keys);
        assert_eq!(blocked(&pauses, now), [10]);
        assert_eq!(begin(&mut pauses, 11, now + 2 * MINUTE), PauseScope::Keys);
        assert_eq!(blocked(&pauses, now), [10, 11, 12], "whatever one team does, no other is paused");
        assert_eq!(begin(&mut pauses, 30, now + 3 * MINUTE), PauseScope::All);
        assert_eq!(blocked(&pauses, now), [10, 11, 12, 20, 21, 30]);
        let report = pauses.report(now);
        assert_eq!(report.keys.iter().map(|key| &**key).collect::<Vec<_>>(), ["k10", "k11", "k30"]);
        assert_eq!(report.until, Some(now + 3 * MINUTE + HOUR));
        pauses.end();
        assert_eq!((blocked(&pauses, now), pauses.report(now).until), (vec![], None));
    }

    #[test]
    fn each_pause_ends_by_its_own_time() {
        let (mut pauses, now) = (BudgetPauses::default(), Instant::now());
        begin(&mut pauses, 10, now);
        begin(&mut pauses, 20, now + 10 * MINUTE);
        let of_all = |now| pauses.blocked_until(KeyId(30), TeamId(3), now);
        assert_eq!(of_all(now), Some(now + HOUR));
        assert_eq!(of_all(now + HOUR), None);
        assert_eq!(blocked(&pauses, now + HOUR), [20]);
        assert_eq!(blocked(&pauses, now + 2 * HOUR), [0; 0]);
        let mut never = BudgetPauses::default();
        assert_eq!(never.begin(KeyId(1), TeamId(1), "k".into(), now, Duration::ZERO), PauseScope::None);
    }
}
