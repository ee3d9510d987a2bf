//! What applied when: configurations, the gateway's clock, and the bound that each limit sets.
//!
//! Instants are real Unix milliseconds, of the clock that driver and provider share; the gateway's own is
//! shifted against it. A lowered limit binds what starts afterwards, so [`Timeline::bound`] is what was spent
//! when it was lowered, or the highest limit since, whichever is more.

use crate::database::{BudgetWindow, DatabaseState};
use crate::fixture::{ACCOUNTS, Version};
use tierway::domain::budget::WindowSpan;

/// A configuration, from when it may first apply to when it last may.
#[derive(Clone, Debug)]
pub struct ActiveVersion {
    pub version: Version,
    from_ms: i64,
    until_ms: i64,
}

/// A moment at which no request was running.
#[derive(Debug)]
struct IdleMoment {
    at_ms: i64,
    database: DatabaseState,
}

/// All of a run.
#[derive(Default, Debug)]
pub struct Timeline {
    versions: Vec<ActiveVersion>,
    /// From when on the gateway's clock is so far ahead.
    shifts: Vec<(i64, i64)>,
    idle_moments: Vec<IdleMoment>,
}

impl Timeline {
    /// `version` may apply from now on.
    pub fn written(&mut self, version: Version, now_ms: i64) {
        self.versions.push(ActiveVersion { version, from_ms: now_ms, until_ms: i64::MAX });
    }

    /// By now nothing but the last one applies.
    pub fn applied(&mut self, now_ms: i64) {
        let older = self.versions.len() - 1;
        for version in &mut self.versions[..older] {
            version.until_ms = version.until_ms.min(now_ms);
        }
    }

    pub fn edits(&self) -> usize {
        self.versions.len() - 1
    }

    pub fn shifted(&mut self, shift_ms: i64, now_ms: i64) {
        // The first is that of the first gateway, from its beginning.
        let from_ms = if self.shifts.is_empty() { i64::MIN } else { now_ms };
        self.shifts.push((from_ms, shift_ms));
    }

    /// No request is running, and this is the state of the database.
    pub fn idle_at(&mut self, database: DatabaseState, now_ms: i64) {
        self.idle_moments.push(IdleMoment { at_ms: now_ms, database });
    }

    /// The configurations that a request may have met between two instants.
    pub fn met(&self, from_ms: i64, until_ms: i64) -> impl Iterator<Item = &Version> + Clone {
        let met = move |version: &&ActiveVersion| version.from_ms <= until_ms && version.until_ms >= from_ms;
        self.versions.iter().filter(met).map(|version| &version.version)
    }

    /// The shifts of the gateway's clock between two instants.
    pub fn shifts(&self, from_ms: i64, until_ms: i64) -> impl Iterator<Item = i64> {
        let within = move |(from, end, _): &(i64, i64, i64)| *from <= until_ms && *end >= from_ms;
        self.epochs().filter(within).map(|(_, _, shift)| shift)
    }

    /// The most that may be spent of a window in the end.
    pub fn bound(&self, budget_window: BudgetWindow) -> i64 {
        let bounds = self.idle_moments.iter().map(|idle_moment| self.bound_since(idle_moment, budget_window, i64::MAX));
        bounds.fold(self.highest(budget_window, i64::MIN, i64::MAX), i64::min)
    }

    /// The most that may be spent or leased of a window by `at_ms`.
    pub fn bound_at(&self, budget_window: BudgetWindow, at_ms: i64) -> i64 {
        let last = self.idle_moments.iter().rfind(|idle_moment| idle_moment.at_ms <= at_ms);
        let since = last.map_or(i64::MAX, |idle_moment| self.bound_since(idle_moment, budget_window, at_ms));
        since.min(self.highest(budget_window, i64::MIN, at_ms))
    }

    fn bound_since(&self, idle_moment: &IdleMoment, budget_window: BudgetWindow, at_ms: i64) -> i64 {
        let spent = idle_moment.database.spent.get(&budget_window).copied().unwrap_or(0);
        spent.max(self.highest(budget_window, idle_moment.at_ms, at_ms))
    }

    /// The highest limit between two instants.
    fn highest(&self, budget_window: BudgetWindow, from_ms: i64, until_ms: i64) -> i64 {
        self.met(from_ms, until_ms).map(|version| version.limits[budget_window.0]).max().unwrap_or(0)
    }

    /// Each shift with its first and its last instant.
    fn epochs(&self) -> impl Iterator<Item = (i64, i64, i64)> {
        let ends = self.shifts.iter().skip(1).map(|next| next.0).chain([i64::MAX]);
        self.shifts.iter().zip(ends).map(|((from, shift), end)| (*from, end, *shift))
    }
}

/// From which windows the money of requests was taken.
pub struct Windows<'a> {
    timeline: &'a Timeline,
    /// The latest window of each account that the gateway's clock had shown before each shift.
    before: Vec<Vec<i64>>,
}

impl<'a> Windows<'a> {
    pub fn of(timeline: &'a Timeline) -> Self {
        let before = ACCOUNTS.iter().map(|account| {
            let window = account.window();
            let mut latest = i64::MIN;
            let shown = timeline.epochs().map(|(_, end, shift)| {
                let before = latest;
                latest = latest.max(window.at(end.saturating_add(shift)).start_ms);
                before
            });
            shown.collect()
        });
        Self { timeline, before: before.collect() }
    }

    /// The window of an account that the holds of a request were taken from, where that is certain.
    pub fn taken_from(&self, account: usize, from_ms: i64, until_ms: i64) -> Option<i64> {
        let window = ACCOUNTS[account].window();
        let mut spans = self
            .timeline
            .shifts(from_ms, until_ms)
            .flat_map(|shift| [from_ms, until_ms].map(|at| window.at(at + shift)));
        let now: WindowSpan = spans.next()?;
        if spans.any(|span| span != now) {
            return None;
        }
        let epoch = self.timeline.epochs().position(|(_, end, _)| end >= from_ms)?;
        let latest = self.before[account][epoch];
        if now.start_ms >= latest {
            return Some(now.start_ms);
        }
        // The clock was set back: what was opened stays open, if it was opened at all.
        let idle_moment = self.timeline.idle_moments.iter().rfind(|idle_moment| idle_moment.at_ms <= from_ms)?;
        let opened = idle_moment
            .database
            .spent
            .keys()
            .filter(|budget_window| budget_window.0 == account)
            .map(|budget_window| budget_window.1)
            .max();
        (opened == Some(latest)).then_some(latest)
    }
}
