//! What a breaker counts: the streak of failures, and the ends of attempts in the last window.
//!
//! It exists so that one key whose requests always fail cannot trip a deployment for the others: when two or
//! more keys used a deployment within the window, the requests and failures of one key must never count for
//! more than those of all others together. An end that no key can have caused (no connection was established,
//! nothing was sent) counts in full.
//!
//! Start reading in [`FailureRateWindow`].

use crate::domain::id::KeyId;
use std::time::{Duration, Instant};

/// The window is kept in this many slices.
const SLICES: u32 = 10;
/// The number of keys that are distinguished in one slice; the rest count as one.
const KEYS: usize = 64;
/// Stands for all keys beyond the first [`KEYS`].
const OTHERS: KeyId = KeyId::NONE;

/// Failures since the last good end, by key.
#[derive(Clone, Default, Debug)]
pub struct FailureStreak {
    keyless: u32,
    by_key: Vec<(KeyId, u32)>,
}

impl FailureStreak {
    /// Counts a failure of `key`, or of no particular key.
    pub fn bad(&mut self, key: Option<KeyId>) {
        let known = key.and_then(|key| self.by_key.iter().position(|(known, _)| *known == key));
        match (key, known) {
            (_, Some(index)) => self.by_key[index].1 = self.by_key[index].1.saturating_add(1),
            (Some(key), None) if self.by_key.len() < KEYS => self.by_key.push((key, 1)),
            _ => self.keyless = self.keyless.saturating_add(1),
        }
    }

    /// Ends the streak.
    pub fn clear(&mut self) {
        self.keyless = 0;
        self.by_key.clear();
    }

    /// Whether the streak is `failures` long; `keys` is how many keys used the deployment in the window.
    pub fn reaches(&self, failures: u32, keys: usize) -> bool {
        let (failures, keyless) = (u64::from(failures), u64::from(self.keyless));
        let counts = self.by_key.iter().map(|(_, count)| u64::from(*count));
        if keys < 2 {
            return keyless + counts.sum::<u64>() >= failures;
        }
        // In halves, so that half of an odd threshold stays exact.
        2 * keyless + counts.map(|count| (2 * count).min(failures)).sum::<u64>() >= 2 * failures
    }
}

/// The sums of a window, with no key counted for more than half.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct WindowCounts {
    /// Ends of attempts.
    pub requests: u64,
    /// The failures among them.
    pub failures: u64,
    /// The number of keys.
    pub keys: usize,
}

impl WindowCounts {
    /// The good ends.
    pub fn good(&self) -> u64 {
        self.requests.saturating_sub(self.failures)
    }
}

#[derive(Clone, Copy, Default, Debug)]
struct KeyCounts {
    good: u64,
    bad: u64,
}

#[derive(Clone, Default, Debug)]
struct WindowSlice {
    /// Which slice of time this is, counted from the window's start.
    turn: u64,
    keyless: u64,
    by_key: Vec<(KeyId, KeyCounts)>,
}

/// The ends of attempts in the last window, in ten slices of time.
#[derive(Clone, Debug)]
pub struct FailureRateWindow {
    slice: Duration,
    start: Option<Instant>,
    slices: [WindowSlice; SLICES as usize],
}

impl FailureRateWindow {
    /// An empty window of this length.
    pub fn new(length: Duration) -> Self {
        let slice = (length / SLICES).max(Duration::from_millis(1));
        Self { slice, start: None, slices: Default::default() }
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.start = None;
        self.slices = Default::default();
    }

    /// Counts a good end of `key`.
    pub fn good(&mut self, key: KeyId, now: Instant) {
        self.count(key, now).good += 1;
    }

    /// Counts a failure of `key`, or of no particular key.
    pub fn bad(&mut self, key: Option<KeyId>, now: Instant) {
        match key {
            Some(key) => self.count(key, now).bad += 1,
            None => self.current(now).keyless += 1,
        }
    }

    /// The sums of the window that ends at `now`.
    pub fn counts(&self, now: Instant) -> WindowCounts {
        let turn = self.turn(now);
        let live = self.slices.iter().filter(|slice| slice.turn + u64::from(SLICES) > turn);
        let mut keyless = 0;
        let mut keys: Vec<(KeyId, KeyCounts)> = Vec::new();
        for slice in live {
            keyless += slice.keyless;
            for (key, count) in &slice.by_key {
                let known = entry(&mut keys, *key, usize::MAX);
                known.good += count.good;
                known.bad += count.bad;
            }
        }
        weighted_counts(&keys, keyless)
    }

    fn count(&mut self, key: KeyId, now: Instant) -> &mut KeyCounts {
        entry(&mut self.current(now).by_key, key, KEYS)
    }

    fn current(&mut self, now: Instant) -> &mut WindowSlice {
        self.start.get_or_insert(now);
        let turn = self.turn(now);
        let slice = &mut self.slices[(turn % u64::from(SLICES)) as usize];
        if slice.turn != turn {
            *slice = WindowSlice { turn, ..WindowSlice::default() };
        }
        slice
    }

    fn turn(&self, now: Instant) -> u64 {
        let age = self.start.map_or(Duration::ZERO, |start| now.saturating_duration_since(start));
        // From SLICES on, so that an unused slice (turn 0) is never live.
        (age.as_nanos() / self.slice.as_nanos()) as u64 + u64::from(SLICES)
    }
}

fn entry(counts: &mut Vec<(KeyId, KeyCounts)>, key: KeyId, most: usize) -> &mut KeyCounts {
    let found = counts.iter().position(|(known, _)| *known == key);
    let index = found.unwrap_or_else(|| {
        let key = if counts.len() < most { key } else { OTHERS };
        counts.iter().position(|(known, _)| *known == key).unwrap_or_else(|| {
            counts.push((key, KeyCounts::default()));
            counts.len() - 1
        })
    });
    &mut counts[index].1
}

/// Counts the requests and failures of one key at most as often as those of all others together.
fn weighted_counts(keys: &[(KeyId, KeyCounts)], keyless: u64) -> WindowCounts {
    let requests: u64 = keys.iter().map(|(_, c)| c.good + c.bad).sum::<u64>() + keyless;
    let failures: u64 = keys.iter().map(|(_, c)| c.bad).sum::<u64>() + keyless;
    if keys.len() < 2 {
        return WindowCounts { requests, failures, keys: keys.len() };
    }
    let most_requests = keys.iter().map(|(_, c)| c.good + c.bad).max().unwrap_or(0);
    let most_failures = keys.iter().map(|(_, c)| c.bad).max().unwrap_or(0);
    let half = |all: u64, most: u64| (all - most) + most.min(all - most);
    WindowCounts { requests: half(requests, most_requests), failures: half(failures, most_failures), keys: keys.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: KeyId = KeyId(1);
    const B: KeyId = KeyId(2);

    #[test]
    fn a_streak_of_one_key_counts_half_when_others_use_the_deployment() {
        let check = |ends: &[Option<KeyId>], keys, expected| {
            let mut streak = FailureStreak::default();
            ends.iter().for_each(|key| streak.bad(*key));
            assert_eq!(streak.reaches(5, keys), expected, "{ends:?} among {keys}");
        };
        check(&[Some(A); 4], 1, false);
        check(&[Some(A); 5], 1, true);
        check(&[Some(A); 50], 2, false);
        check(&[Some(A), Some(A), Some(A), Some(B), Some(B)], 2, false);
        check(&[Some(A), Some(A), Some(A), Some(B), Some(B), Some(B)], 2, true);
        check(&[None; 5], 2, true);
        check(&[None; 4], 2, false);
    }

    #[test]
    fn counts_limit_each_key_to_half_and_drop_what_is_old() {
        let start = Instant::now();
        let mut window = FailureRateWindow::new(Duration::from_secs(30));
        for _ in 0..90 {
            window.bad(Some(A), start);
        }
        assert_eq!(window.counts(start), WindowCounts { requests: 90, failures: 90, keys: 1 });
        for _ in 0..10 {
            window.good(B, start);
        }
        assert_eq!(window.counts(start), WindowCounts { requests: 20, failures: 0, keys: 2 });
        for _ in 0..10 {
            window.bad(Some(B), start);
        }
        assert_eq!(window.counts(start), WindowCounts { requests: 40, failures: 20, keys: 2 });
        assert_eq!(window.counts(start + Duration::from_secs(29)).requests, 40);
        assert_eq!(window.counts(start + Duration::from_secs(31)), WindowCounts::default());
    }
}
