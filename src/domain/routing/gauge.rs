//! The latency and load of one deployment.
//!
//! It exists so that the choice among deployments depends on what clients notice, the time to the first
//! token. Streams and whole answers are measured separately, because the first token of a whole answer is its
//! last. What is in flight, and whether it is silent, is in [`silence`](super::silence). It must never decide
//! whether a deployment may be used.
//!
//! Start reading in [`Gauge::load`].

use super::AnswerMode;
use super::adaptive::LongTermFirstToken;
use super::silence::{AttemptInFlight, SignsOfLife, SilenceLimits, UsualAnswerTimes};
use crate::domain::id::TeamId;
use std::time::{Duration, Instant};

/// The time constant with which the average decays.
const DECAY: Duration = Duration::from_secs(10);
/// The number of first-token times that the 99th percentile is computed from.
const SAMPLES: usize = 128;
/// With fewer of them than this a percentile is not known; it is computed anew after as many more.
const KNOWN_SAMPLES: usize = 16;
/// The first-token time that is assumed while the first attempt at a deployment measures it.
const UNKNOWN: Duration = Duration::from_millis(300);
/// One deployment's measurements.
#[derive(Clone, Debug, Default)]
pub struct Gauge {
    signs: SignsOfLife,
    last_good: Option<bool>,
    stream: LatencyTracker,
    whole: LatencyTracker,
}

#[derive(Clone, Debug, Default)]
struct LatencyTracker {
    /// Peak EWMA in seconds and when it was last updated.
    average: Option<(f64, Instant)>,
    samples: Vec<Duration>,
    seen: usize,
    p99: Option<Duration>,
    long_term: LongTermFirstToken,
}

impl Gauge {
    /// Records that an attempt of `team` is sent.
    pub fn sent(&mut self, team: TeamId, mode: AnswerMode, now: Instant) -> AttemptInFlight {
        self.signs.sent(team, mode, now)
    }

    /// Records that something came for it: a head, a frame, a comment, a part of a body.
    pub fn heard(&mut self, attempt: AttemptInFlight, now: Instant) {
        self.signs.heard(attempt, now);
    }

    /// Records that it was replied to, with something else than an answer.
    pub fn replied(&mut self, attempt: AttemptInFlight, now: Instant) {
        self.signs.progressed(attempt, now);
    }

    /// Records its first good token. Returns how many times the long-term first-token time it took, once that is known.
    pub fn answered(&mut self, attempt: AttemptInFlight, now: Instant) -> Option<f64> {
        let (mode, sent) = self.signs.answered(attempt, now)?;
        let (tracker, took) = (self.tracker_mut(mode), now.saturating_duration_since(sent));
        tracker.record(took, now);
        tracker.long_term.slowdown(took, now)
    }

    /// Records that another attempt was answered first: its first token would have taken longer than this. Without it
    /// hedging would hide a slow deployment from the choice.
    pub fn overtaken(&mut self, attempt: AttemptInFlight, now: Instant) {
        if let Some((mode, sent)) = self.signs.waiting(attempt) {
            self.tracker_mut(mode).record_more_than(now.saturating_duration_since(sent), now);
        }
    }

    /// Records that it is no longer in flight.
    pub fn ended(&mut self, attempt: AttemptInFlight, now: Instant) {
        self.signs.ended(attempt, now);
    }

    /// Records whether it ended well.
    pub fn finished(&mut self, good: bool) {
        self.last_good = Some(good);
    }

    /// Attempts that were sent and have not ended.
    pub fn in_flight(&self) -> u32 {
        self.signs.in_flight()
    }

    /// How the last finished attempt ended; `None` before any finished.
    pub fn last_good(&self) -> Option<bool> {
        self.last_good
    }

    /// The average first-token time, once known.
    pub fn average(&self, mode: AnswerMode) -> Option<Duration> {
        self.tracker(mode).average.map(|(seconds, _)| Duration::from_secs_f64(seconds))
    }

    /// A percentile of the latest first-token times, once there are any.
    pub fn percentile(&self, mode: AnswerMode, percent: u8) -> Option<Duration> {
        let samples = &self.tracker(mode).samples;
        (!samples.is_empty()).then(|| percentile(samples, usize::from(percent)))
    }

    /// The 99th percentile of first-token times, once enough are known.
    pub fn p99(&self, mode: AnswerMode) -> Option<Duration> {
        self.tracker(mode).p99
    }

    /// The load that the choice compares: average first-token seconds × (attempts in flight + 1).
    ///
    /// The average decays without new measurements, or one slow answer would keep a deployment from ever being
    /// asked again. Where nothing was measured, one attempt may measure it.
    pub fn load(&self, mode: AnswerMode, now: Instant) -> f64 {
        let seconds = match self.tracker(mode).average {
            Some((seconds, at)) => seconds * decay(now.saturating_duration_since(at)),
            None if self.in_flight() == 0 => 0.0,
            None => UNKNOWN.as_secs_f64(),
        };
        seconds * f64::from(self.in_flight() + 1)
    }

    /// Drops all measurements, which are out of date after an outage; attempts in flight stay.
    pub fn forget(&mut self) {
        (self.stream, self.whole) = (LatencyTracker::default(), LatencyTracker::default());
        self.signs.forget();
    }

    /// Whether the deployment is silent at `now`: see [`SignsOfLife::judge`].
    pub fn is_silent(&mut self, limits: SilenceLimits, now: Instant) -> bool {
        let usual = self.usual();
        self.signs.judge(usual, limits, now)
    }

    /// When it counts as silent unless it is heard of before; `None` where nothing is waited for.
    pub fn silent_at(&self, limits: SilenceLimits) -> Option<Instant> {
        self.signs.silent_at(self.usual(), limits)
    }

    /// When anything last came from it.
    pub fn last_heard(&self) -> Option<Instant> {
        self.signs.last_heard()
    }

    /// Since when it has been found silent.
    pub fn silent_since(&self) -> Option<Instant> {
        self.signs.silent_since()
    }

    /// Whether more than the opening of an answer came within `span` before `now`.
    pub fn progressed_within(&self, span: Duration, now: Instant) -> bool {
        self.signs.last_progress().is_some_and(|at| now.saturating_duration_since(at) <= span)
    }

    /// Whether it is silent at `now`, and that of what `team` waits for.
    pub fn is_silent_to(&mut self, team: TeamId, limits: SilenceLimits, now: Instant) -> bool {
        self.is_silent(limits, now) && self.signs.is_silent_to(team)
    }

    /// Whether one attempt of `team` may ask the silent deployment at `now`.
    pub fn may_ask(&self, team: TeamId, now: Instant) -> bool {
        self.signs.may_ask(team, now)
    }

    /// When the next attempt may ask the silent deployment; `None` where it is not silent.
    pub fn asked_next_at(&self) -> Option<Instant> {
        self.signs.asked_next_at()
    }

    /// Records that `attempt`, sent at `now`, asks the silent deployment. Returns until when it may: twice what is
    /// usual, at least `silent_after`, never more than `late_after`.
    pub fn asks(&mut self, attempt: AttemptInFlight, mode: AnswerMode, limits: SilenceLimits, now: Instant) -> Instant {
        let usual = self.p99(mode).map_or(limits.silent_after, |p99| p99 * 2);
        let until = now + usual.max(limits.silent_after).min(limits.late_after);
        self.signs.asks(attempt, until);
        until
    }

    fn usual(&self) -> UsualAnswerTimes {
        UsualAnswerTimes { stream: self.stream.p99, whole: self.whole.p99 }
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
    /// Raises the average to a time that was waited in vain. It is no sample: how long it would have taken is not known.
    fn record_more_than(&mut self, waited: Duration, now: Instant) {
        let seconds = waited.as_secs_f64();
        if self.average.is_none_or(|(average, _)| average < seconds) {
            self.average = Some((seconds, now));
        }
    }

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
        // A few say little of the longest. Sorting 128 numbers is a microsecond.
        if self.seen.is_multiple_of(KNOWN_SAMPLES) {
            self.p99 = Some(percentile(&self.samples, 99));
        }
    }
}

/// The weight of an average after `age`, in `(0, 1]`.
fn decay(age: Duration) -> f64 {
    (-age.as_secs_f64() / DECAY.as_secs_f64()).exp()
}

fn percentile(samples: &[Duration], percent: usize) -> Duration {
    let mut sorted = samples.to_vec();
    let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
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
            let attempt = gauge.sent(TeamId(1), AnswerMode::Stream, now);
            now += took;
            gauge.answered(attempt, now);
            gauge.ended(attempt, now);
        }
        (gauge, now)
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
        let attempt = gauge.sent(TeamId(1), AnswerMode::Stream, now);
        gauge.answered(attempt, now + SECOND);
        assert_eq!(gauge.average(AnswerMode::Stream), Some(SECOND));
        let attempt = gauge.sent(TeamId(1), AnswerMode::Stream, now + SECOND);
        gauge.answered(attempt, now + SECOND + Duration::from_millis(10));
        assert!(gauge.average(AnswerMode::Stream).expect("fed") > Duration::from_millis(900));
    }

    #[test]
    fn an_attempt_that_was_overtaken_raises_the_average_and_is_no_sample() {
        let (mut gauge, now) = with_samples(Duration::from_millis(80), 5);
        let attempt = gauge.sent(TeamId(1), AnswerMode::Stream, now);
        gauge.overtaken(attempt, now + SECOND);
        gauge.ended(attempt, now + SECOND);
        assert_eq!(gauge.average(AnswerMode::Stream), Some(SECOND));
        assert_eq!(gauge.percentile(AnswerMode::Stream, 99), Some(Duration::from_millis(80)));
        // One that was not slow, and one that had its first token, say nothing.
        let quick = gauge.sent(TeamId(1), AnswerMode::Stream, now + SECOND);
        gauge.overtaken(quick, now + SECOND + Duration::from_millis(10));
        let answered = gauge.sent(TeamId(1), AnswerMode::Stream, now + SECOND);
        gauge.answered(answered, now + SECOND);
        let average = gauge.average(AnswerMode::Stream);
        gauge.overtaken(answered, now + 9 * SECOND);
        assert_eq!(gauge.average(AnswerMode::Stream), average);
    }

    #[test]
    fn load_grows_with_what_is_in_flight() {
        let (mut gauge, now) = with_samples(SECOND, 1);
        assert!((gauge.load(AnswerMode::Stream, now) - 1.0).abs() < 1e-9);
        gauge.sent(TeamId(1), AnswerMode::Stream, now);
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
        unknown.sent(TeamId(1), AnswerMode::Stream, now);
        assert!(unknown.load(AnswerMode::Stream, now) > known.load(AnswerMode::Stream, now));
    }

    #[test]
    fn measurements_of_an_outage_are_dropped() {
        let (mut gauge, now) = with_samples(9 * SECOND, 5);
        let attempt = gauge.sent(TeamId(1), AnswerMode::Stream, now);
        gauge.forget();
        assert_eq!(gauge.average(AnswerMode::Stream), None);
        gauge.answered(attempt, now + SECOND);
        assert_eq!(gauge.average(AnswerMode::Stream), Some(SECOND));
    }
}
