//! The latency and load of one deployment.
//!
//! It exists so that the choice among deployments depends on what clients notice, the time to the first
//! token, and so that a silent deployment is avoided before its breaker can trip: an attempt that waits far
//! longer than usual counts against it at once. Streams and whole answers are measured separately, because
//! the first token of a whole answer is its last. It must never decide whether a deployment may be used.
//!
//! Start reading in [`Gauge::load`] and [`Gauge::is_silent`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The time constant with which the average decays.
const DECAY: Duration = Duration::from_secs(10);
/// The number of first-token times that the 99th percentile is computed from.
const SAMPLES: usize = 128;
/// The first-token time that is assumed while the first attempt at a deployment measures it.
const UNKNOWN: Duration = Duration::from_millis(300);
/// The shortest wait after which an attempt is called silent, however quick its deployment usually is.
const SILENT_FLOOR: Duration = Duration::from_millis(500);

/// Whether an answer comes as a stream or whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AnswerMode {
    /// Frame by frame.
    Stream,
    /// In one piece.
    Whole,
}

impl AnswerMode {
    /// The mode of the answer to a call whose `stream` member has this value.
    pub fn of(stream: bool) -> Self {
        if stream { Self::Stream } else { Self::Whole }
    }
}

/// An attempt without an answer so far, to be ended by [`Gauge::answered`] or [`Gauge::ended_unanswered`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PendingAttempt(u64);

/// One deployment's measurements.
#[derive(Clone, Debug, Default)]
pub struct Gauge {
    next: u64,
    in_flight: u32,
    last_good: Option<bool>,
    stream: LatencyTracker,
    whole: LatencyTracker,
}

#[derive(Clone, Debug, Default)]
struct LatencyTracker {
    pending: BTreeMap<u64, Instant>,
    /// Peak EWMA in seconds and when it was last updated.
    average: Option<(f64, Instant)>,
    samples: Vec<Duration>,
    seen: usize,
    p99: Option<Duration>,
}

impl Gauge {
    /// Records that an attempt is sent.
    pub fn sent(&mut self, mode: AnswerMode, now: Instant) -> PendingAttempt {
        self.next += 1;
        self.in_flight += 1;
        let pending = PendingAttempt(self.next);
        self.tracker_mut(mode).pending.insert(pending.0, now);
        pending
    }

    /// Records its first good token.
    pub fn answered(&mut self, mode: AnswerMode, pending: PendingAttempt, now: Instant) {
        let tracker = self.tracker_mut(mode);
        if let Some(sent) = tracker.pending.remove(&pending.0) {
            tracker.record(now.saturating_duration_since(sent), now);
        }
    }

    /// Records that it ended without a token.
    pub fn ended_unanswered(&mut self, mode: AnswerMode, pending: PendingAttempt) {
        self.tracker_mut(mode).pending.remove(&pending.0);
    }

    /// Records that it is no longer in flight.
    pub fn done(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Records whether it ended well.
    pub fn finished(&mut self, good: bool) {
        self.last_good = Some(good);
    }

    /// Attempts that were sent and have not ended.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// How the last finished attempt ended; `None` before any finished.
    pub fn last_good(&self) -> Option<bool> {
        self.last_good
    }

    /// The average first-token time, once known.
    pub fn average(&self, mode: AnswerMode) -> Option<Duration> {
        self.tracker(mode).average.map(|(seconds, _)| Duration::from_secs_f64(seconds))
    }

    /// The load that the choice compares: average first-token seconds × (attempts in flight + 1).
    ///
    /// The average decays without new measurements, or one slow answer would keep a deployment from ever being
    /// asked again. Where nothing was measured, one attempt may measure it.
    pub fn load(&self, mode: AnswerMode, now: Instant) -> f64 {
        let seconds = match self.tracker(mode).average {
            Some((seconds, at)) => seconds * decay(now.saturating_duration_since(at)),
            None if self.in_flight == 0 => 0.0,
            None => UNKNOWN.as_secs_f64(),
        };
        seconds * f64::from(self.in_flight + 1)
    }

    /// Drops all measurements, which are out of date after an outage; attempts in flight stay.
    pub fn forget(&mut self) {
        for tracker in [&mut self.stream, &mut self.whole] {
            *tracker = LatencyTracker { pending: std::mem::take(&mut tracker.pending), ..LatencyTracker::default() };
        }
    }

    /// Whether an attempt has waited for so long that the deployment counts as failed in the choice.
    pub fn is_silent(&self, silent_after: Duration, now: Instant) -> bool {
        [&self.stream, &self.whole].into_iter().any(|tracker| {
            let oldest = tracker.pending.first_key_value();
            oldest.is_some_and(|(_, sent)| now.saturating_duration_since(*sent) > tracker.silence_limit(silent_after))
        })
    }

    fn tracker(&self, mode: AnswerMode) -> &LatencyTracker {
        match mode {
            AnswerMode::Stream => &self.stream,
            AnswerMode::Whole => &self.whole,
        }
    }

    fn tracker_mut(&mut self, mode: AnswerMode) -> &mut LatencyTracker {
        match mode {
            AnswerMode::Stream => &mut self.stream,
            AnswerMode::Whole => &mut self.whole,
        }
    }
}

impl LatencyTracker {
    /// Updates the average (an increase at once, a decrease slowly) and the percentile.
    fn record(&mut self, took: Duration, now: Instant) {
        let seconds = took.as_secs_f64();
        let average = match self.average {
            Some((average, at)) if seconds < average => {
                let keep = decay(now.saturating_duration_since(at));
                average * keep + seconds * (1.0 - keep)
            }
            _ => seconds,
        };
        self.average = Some((average, now));
        if self.samples.len() < SAMPLES {
            self.samples.push(took);
        } else {
            self.samples[self.seen % SAMPLES] = took;
        }
        self.seen += 1;
        // Sorting 128 numbers is a microsecond: done for each of the first few, then for every 16th.
        if self.seen < 16 || self.seen.is_multiple_of(16) {
            self.p99 = Some(p99(&self.samples));
        }
    }

    /// How long an attempt may wait before it is called silent: four times the 99th percentile, at least half a
    /// second, at most `silent_after`; but never less than the 99th percentile itself, or a model that always
    /// needs three seconds would always be called silent.
    fn silence_limit(&self, silent_after: Duration) -> Duration {
        let Some(p99) = self.p99 else { return silent_after };
        (p99 * 4).max(SILENT_FLOOR).min(silent_after).max(p99)
    }
}

/// The weight of an average after `age`, in `(0, 1]`.
fn decay(age: Duration) -> f64 {
    (-age.as_secs_f64() / DECAY.as_secs_f64()).exp()
}

fn p99(samples: &[Duration]) -> Duration {
    let mut sorted = samples.to_vec();
    let index = (sorted.len() * 99).div_ceil(100).saturating_sub(1);
    *sorted.select_nth_unstable(index).1
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn with_samples(took: Duration, times: u32) -> (Gauge, Instant) {
        let mut now = Instant::now();
        let mut gauge = Gauge::default();
        for _ in 0..times {
            let pending = gauge.sent(AnswerMode::Stream, now);
            now += took;
            gauge.answered(AnswerMode::Stream, pending, now);
            gauge.done();
        }
        (gauge, now)
    }

    #[test]
    fn silence_is_measured_against_what_is_usual() {
        let check = |usual: Option<Duration>, age: Duration, expected: bool| {
            let (mut gauge, now) = usual.map_or((Gauge::default(), Instant::now()), |took| with_samples(took, 50));
            gauge.sent(AnswerMode::Stream, now);
            assert_eq!(gauge.is_silent(SECOND, now + age), expected, "{usual:?} after {age:?}");
        };
        let ms = Duration::from_millis;
        check(None, ms(1_000), false);
        check(None, ms(1_001), true);
        check(Some(ms(10)), ms(500), false);
        check(Some(ms(10)), ms(501), true);
        check(Some(ms(200)), ms(800), false);
        check(Some(ms(200)), ms(801), true);
        check(Some(ms(400)), ms(1_001), true);
        check(Some(ms(3_000)), ms(3_000), false);
        check(Some(ms(3_000)), ms(3_001), true);
    }

    #[test]
    fn streams_and_whole_answers_are_measured_separately() {
        let (gauge, _) = with_samples(Duration::from_millis(10), 5);
        assert!(gauge.average(AnswerMode::Stream).is_some());
        assert_eq!(gauge.average(AnswerMode::Whole), None);
    }

    #[test]
    fn an_increase_counts_at_once_and_decays_slowly() {
        let (mut gauge, now) = with_samples(Duration::from_millis(10), 5);
        let pending = gauge.sent(AnswerMode::Stream, now);
        gauge.answered(AnswerMode::Stream, pending, now + SECOND);
        assert_eq!(gauge.average(AnswerMode::Stream), Some(SECOND));
        let pending = gauge.sent(AnswerMode::Stream, now + SECOND);
        gauge.answered(AnswerMode::Stream, pending, now + SECOND + Duration::from_millis(10));
        assert!(gauge.average(AnswerMode::Stream).expect("fed") > Duration::from_millis(900));
    }

    #[test]
    fn load_grows_with_what_is_in_flight() {
        let (mut gauge, now) = with_samples(SECOND, 1);
        assert!((gauge.load(AnswerMode::Stream, now) - 1.0).abs() < 1e-9);
        gauge.sent(AnswerMode::Stream, now);
        assert!((gauge.load(AnswerMode::Stream, now) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn a_slow_answer_does_not_count_against_a_deployment_for_ever() {
        let (slow, now) = with_samples(9 * SECOND, 1);
        let (quick, _) = with_samples(Duration::from_millis(50), 1);
        let quick = quick.load(AnswerMode::Stream, now);
        assert!(slow.load(AnswerMode::Stream, now + 10 * SECOND) > quick);
        assert!(slow.load(AnswerMode::Stream, now + 60 * SECOND) < 0.05);
    }

    #[test]
    fn one_attempt_measures_a_deployment_without_measurements() {
        let (known, now) = with_samples(Duration::from_millis(10), 5);
        let mut unknown = Gauge::default();
        assert!(unknown.load(AnswerMode::Stream, now) < known.load(AnswerMode::Stream, now));
        unknown.sent(AnswerMode::Stream, now);
        assert!(unknown.load(AnswerMode::Stream, now) > known.load(AnswerMode::Stream, now));
    }

    #[test]
    fn measurements_of_an_outage_are_dropped() {
        let (mut gauge, now) = with_samples(9 * SECOND, 5);
        let pending = gauge.sent(AnswerMode::Stream, now);
        gauge.forget();
        assert_eq!(gauge.average(AnswerMode::Stream), None);
        assert!(
            gauge.is_silent(SECOND, now + 2 * SECOND),
            "an attempt in flight is still pending, under the default limit"
        );
        gauge.answered(AnswerMode::Stream, pending, now + SECOND);
        assert_eq!(gauge.average(AnswerMode::Stream), Some(SECOND));
    }
}
