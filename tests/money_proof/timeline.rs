//! What was in force when: configurations, the gateway's clock, and how far each limit binds.
//!
//! Instants are real Unix milliseconds, of the clock that driver and provider share; the gateway's own is
//! shifted against it. A lowered limit binds what starts afterwards, so [`Timeline::bound`] is what was spent
//! when it was lowered, or the highest limit since, whichever is more.

use crate::books::{Books, Drawer};
use crate::house::{ACCOUNTS, Version};
use tierway::domain::budget::Span;

/// A configuration, from when it may first apply to when it last may.
#[derive(Clone, Debug)]
pub struct InForce {
    pub version: Version,
    from_ms: i64,
    until_ms: i64,
}

/// A moment at which nothing was under way.
#[derive(Debug)]
struct Rest {
    at_ms: i64,
    books: Books,
}

/// All of a run.
#[derive(Default, Debug)]
pub struct Timeline {
    versions: Vec<InForce>,
    /// From when on the gateway's clock is so far ahead.
    shifts: Vec<(i64, i64)>,
    rests: Vec<Rest>,
}

impl Timeline {
    /// `version` may apply from now on.
    pub fn written(&mut self, version: Version, now_ms: i64) {
        self.versions.push(InForce { version, from_ms: now_ms, until_ms: i64::MAX });
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

    /// Nothing is under way, and the books stand so.
    pub fn rested(&mut self, books: Books, now_ms: i64) {
        self.rests.push(Rest { at_ms: now_ms, books });
    }

    /// The configurations that a request may have met between two instants.
    pub fn met(&self, from_ms: i64, until_ms: i64) -> impl Iterator<Item = &Version> + Clone {
        let met = move |version: &&InForce| version.from_ms <= until_ms && version.until_ms >= from_ms;
        self.versions.iter().filter(met).map(|version| &version.version)
    }

    /// The shifts of the gateway's clock between two instants.
    pub fn shifts(&self, from_ms: i64, until_ms: i64) -> impl Iterator<Item = i64> {
        let ends = self.shifts.iter().skip(1).map(|next| next.0).chain([i64::MAX]);
        let within = move |((from, _), end): &(&(i64, i64), i64)| *from <= until_ms && *end >= from_ms;
        self.shifts.iter().zip(ends).filter(within).map(|((_, shift), _)| *shift)
    }

    /// The most that may be spent of a window in the end.
    pub fn bound(&self, drawer: Drawer) -> i64 {
        self.bound_at(drawer, i64::MAX)
    }

    /// The most that may be spent or leased of a window by `at_ms`.
    pub fn bound_at(&self, drawer: Drawer, at_ms: i64) -> i64 {
        let highest = |since| self.met(since, at_ms).map(|version| version.limits[drawer.0]).max().unwrap_or(0);
        let rests = self.rests.iter().filter(|rest| rest.at_ms <= at_ms);
        let bounds = rests.map(|rest| rest.books.spent.get(&drawer).map_or(0, |spent| *spent).max(highest(rest.at_ms)));
        bounds.fold(highest(i64::MIN), i64::min)
    }

    /// The window from which the holds of a request were taken, where that is certain.
    pub fn window(&self, account: usize, from_ms: i64, until_ms: i64) -> Option<i64> {
        let window = ACCOUNTS[account].window();
        let mut spans =
            self.shifts(from_ms, until_ms).flat_map(|shift| [from_ms, until_ms].map(|at| window.at(at + shift)));
        let now: Span = spans.next()?;
        let latest = self.latest_before(account, from_ms);
        if spans.any(|span| span != now) {
            return None;
        }
        if now.start_ms >= latest {
            return Some(now.start_ms);
        }
        // The clock was set back: what was opened stays open, if it was opened at all.
        let rest = self.rests.iter().rfind(|rest| rest.at_ms <= from_ms)?;
        let opened = rest.books.spent.keys().filter(|drawer| drawer.0 == account).map(|drawer| drawer.1).max();
        (opened == Some(latest)).then_some(latest)
    }

    /// The latest window that the gateway's clock has shown.
    fn latest_before(&self, account: usize, at_ms: i64) -> i64 {
        let window = ACCOUNTS[account].window();
        let ends = self.shifts.iter().skip(1).map(|next| next.0).chain([i64::MAX]);
        let before = self.shifts.iter().zip(ends).take_while(|((from, _), _)| *from <= at_ms);
        let shown = before.map(|((_, shift), end)| window.at(end.min(at_ms) + shift).start_ms);
        shown.max().unwrap_or(i64::MIN)
    }
}
