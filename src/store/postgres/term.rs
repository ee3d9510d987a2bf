//! The term of this process: what it leased may be spent while the database has seen it lately.
//!
//! The database decides when a term is over, by its own clock. This process stops a little earlier by a clock that nobody sets,
//! counted from before it last asked to be seen.
//!
//! Start reading in [`LeaseTermState::now`], then [`RENEW`].

use crate::domain::budget::LeaseTerm;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// Returns the time since a fixed instant, by a clock that is never set. It is passed in, because only `clock` may read the
/// system clock.
pub type MonotonicClock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// How long after it was last seen what a process leased may be spent: a second less than until it is counted as spent.
const MAY_SPEND_FOR: Duration = Duration::from_secs(59);

/// Begins a term.
pub(super) const BEGIN: &str = "INSERT INTO tierway.replicas (version, started, seen, steady, batch)
    VALUES ($1, clock_timestamp(), clock_timestamp(), clock_timestamp(), 0) RETURNING id";
/// Renews the term $1 and takes the number $2 for a commit; returns the number of the last commit. No row: the term is over.
/// The row stays locked for the transaction, so that nobody ends the term meanwhile.
pub(super) const RENEW: &str = "WITH last AS (SELECT batch FROM tierway.replicas WHERE id = $1 FOR UPDATE)
    UPDATE tierway.replicas SET batch = greatest(replicas.batch, $2), seen = clock_timestamp(),
        steady = CASE WHEN clock_timestamp() - seen > interval '5 seconds' THEN clock_timestamp() ELSE steady END
    FROM last WHERE id = $1 RETURNING last.batch";
/// Ends all terms that have not been seen for a minute: what they had leased counts as spent. Whoever asks must itself have
/// been seen without a gap for ten seconds, so that nobody is ended because the database was away. It succeeds only once for
/// each term. With $2 the term $1 itself is ended, because it will lease nothing any more.
pub(super) const END: &str = "WITH ended AS (
        DELETE FROM tierway.replicas WHERE CASE WHEN $2 THEN id = $1 ELSE
            id <> $1 AND seen < clock_timestamp() - interval '60 seconds' AND EXISTS (SELECT FROM tierway.replicas AS mine
                WHERE mine.id = $1 AND mine.steady < clock_timestamp() - interval '10 seconds') END
        RETURNING id),
    open AS (DELETE FROM tierway.leases USING ended WHERE replica = ended.id RETURNING leases.*),
    booked AS (INSERT INTO tierway.unaccounted (booked_unix_ms, replica, scope, name, period, start_ms, amount_nanousd)
        SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint, replica, scope, name, period, start_ms, amount_nanousd
        FROM open WHERE amount_nanousd > 0 RETURNING 1),
    sums AS (SELECT scope, name, period, start_ms, sum(amount_nanousd) AS leased, sum(greatest(amount_nanousd, 0)) AS spent
        FROM open GROUP BY scope, name, period, start_ms),
    moved AS (UPDATE tierway.budgets SET
            spent_nanousd = least(spent_nanousd + sums.spent, 9223372036854775807)::bigint,
            leased_nanousd = greatest(leased_nanousd - sums.leased, -9223372036854775808)::bigint
        FROM sums WHERE (budgets.scope, budgets.name, budgets.period, budgets.start_ms)
            = (sums.scope, sums.name, sums.period, sums.start_ms) RETURNING 1)
    SELECT (SELECT count(*) FROM booked) AS booked, (SELECT count(*) FROM moved) AS moved, (SELECT count(*) FROM ended) AS ended";

/// The term of this process, shared by those who spend and the writer, which renews it.
pub(super) struct LeaseTermState {
    clock: MonotonicClock,
    number: AtomicI64,
    /// Until when it may spend, in nanoseconds of `clock`.
    ends: AtomicU64,
}

impl LeaseTermState {
    /// No term yet.
    pub(super) fn new(clock: MonotonicClock) -> Self {
        Self { clock, number: AtomicI64::new(0), ends: AtomicU64::new(0) }
    }

    /// The term in which may be spent now.
    pub(super) fn now(&self) -> Option<LeaseTerm> {
        // Read in this order, and written in the other one: a new end never belongs to an old number.
        let ends = self.ends.load(Ordering::SeqCst);
        let number = LeaseTerm(self.number.load(Ordering::SeqCst));
        (nanos((self.clock)()) < ends).then_some(number)
    }

    /// The number of the term that was renewed last, which may be over.
    pub(super) fn number(&self) -> LeaseTerm {
        LeaseTerm(self.number.load(Ordering::SeqCst))
    }

    /// The time, to be asked before the term is renewed.
    pub(super) fn clock(&self) -> Duration {
        (self.clock)()
    }

    /// How long ago the database was last asked and saw this process; a second or less while it answers.
    pub(super) fn renewed_ago(&self) -> Duration {
        let ends = Duration::from_nanos(self.ends.load(Ordering::SeqCst));
        // Before the first term, and for the moment in which one follows another, none is known.
        if ends.is_zero() { Duration::ZERO } else { ((self.clock)() + MAY_SPEND_FOR).saturating_sub(ends) }
    }

    /// The database saw this process in the term `number`, having been asked at `asked` or later.
    pub(super) fn renewed(&self, number: LeaseTerm, asked: Duration) {
        if self.number.load(Ordering::SeqCst) != number.0 {
            self.ends.store(0, Ordering::SeqCst);
            self.number.store(number.0, Ordering::SeqCst);
        }
        self.ends.store(nanos(asked + MAY_SPEND_FOR), Ordering::SeqCst);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    #[test]
    fn a_term_may_be_spent_in_for_less_than_a_minute_after_it_was_seen() {
        let start = Duration::from_secs(1_000);
        let now = Arc::new(Mutex::new(start));
        let shown = now.clone();
        let term = LeaseTermState::new(Arc::new(move || *shown.lock()));
        assert_eq!(term.now(), None);
        term.renewed(LeaseTerm(7), start);
        let check = |seconds: u64, expected: Option<i64>| {
            *now.lock() = start + Duration::from_secs(seconds);
            assert_eq!(term.now(), expected.map(LeaseTerm), "{seconds}");
        };
        check(0, Some(7));
        check(58, Some(7));
        check(59, None);
        term.renewed(LeaseTerm(7), start + Duration::from_secs(40));
        check(98, Some(7));
        assert_eq!(term.renewed_ago(), Duration::from_secs(58));
        term.renewed(LeaseTerm(9), start + Duration::from_secs(98));
        assert_eq!(term.renewed_ago(), Duration::ZERO);
        check(99, Some(9));
        check(157, None);
    }
}
