//! How quick and how busy one deployment is.
//!
//! It exists so that the choice among deployments follows what requests feel, the time to the first
//! token, and notices a deployment that has fallen silent before its breaker can: an attempt waiting
//! far longer than usual counts against it at once. Streams and whole answers are measured apart,
//! for the first token of a whole answer is its last.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The average forgets with this time constant.
const DECAY: Duration = Duration::from_secs(10);
/// How many first-token times the 99th percentile is taken from.
const SAMPLES: usize = 128;
/// What a deployment is taken for while the first attempt finds out.
const UNKNOWN: Duration = Duration::from_millis(300);
/// No attempt is called silent before this, however quick its deployment usually is.
const SILENT_FLOOR: Duration = Duration::from_millis(500);

/// Whether an answer comes as a stream or whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Frame by frame.
    Stream,
    /// At once.
    Whole,
}

impl Form {
    /// The form of an answer to a call with `stream` set so.
    pub fn of(stream: bool) -> Self {
        if stream { Self::Stream } else { Self::Whole }
    }
}

/// A waiting attempt, to be ended by [`Gauge::answered`] or [`Gauge::gave_up`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Waiting(u64);

/// One deployment's measurements.
#[derive(Clone, Debug, Default)]
pub struct Gauge {
    next: u64,
    in_flight: u32,
    last_good: Option<bool>,
    stream: Side,
    whole: Side,
}

#[derive(Clone, Debug, Default)]
struct Side {
    waiting: BTreeMap<u64, Instant>,
    /// Peak EWMA in seconds and when it was last fed.
    average: Option<(f64, Instant)>,
    samples: Vec<Duration>,
    seen: usize,
    p99: Option<Duration>,
}

impl Gauge {
    /// An attempt is sent.
    pub fn sent(&mut self, form: Form, now: Instant) -> Waiting {
        self.next += 1;
        self.in_flight += 1;
        let waiting = Waiting(self.next);
        self.side_mut(form).waiting.insert(waiting.0, now);
        waiting
    }

    /// Its first good token is in hand.
    pub fn answered(&mut self, form: Form, waiting: Waiting, now: Instant) {
        let side = self.side_mut(form);
        if let Some(sent) = side.waiting.remove(&waiting.0) {
            side.feed(now.saturating_duration_since(sent), now);
        }
    }

    /// It no longer waits, and no token came.
    pub fn gave_up(&mut self, form: Form, waiting: Waiting) {
        self.side_mut(form).waiting.remove(&waiting.0);
    }

    /// Its connection is free again.
    pub fn done(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// It finished well or badly.
    pub fn finished(&mut self, good: bool) {
        self.last_good = Some(good);
    }

    /// Attempts sent and not yet at their end.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// How the last finished attempt ended; `None` before any finished.
    pub fn last_good(&self) -> Option<bool> {
        self.last_good
    }

    /// The average first-token time, once known.
    pub fn average(&self, form: Form) -> Option<Duration> {
        self.side(form).average.map(|(seconds, _)| Duration::from_secs_f64(seconds))
    }

    /// What the choice compares: average first-token seconds × (attempts in flight + 1).
    ///
    /// The average fades while nothing new is learned, or one slow answer would keep a deployment from
    /// ever being asked again. Where nothing is known, one attempt may find out.
    pub fn load(&self, form: Form, now: Instant) -> f64 {
        let seconds = match self.side(form).average {
            Some((seconds, at)) => seconds * kept(now.saturating_duration_since(at)),
            None if self.in_flight == 0 => 0.0,
            None => UNKNOWN.as_secs_f64(),
        };
        seconds * f64::from(self.in_flight + 1)
    }

    /// What was measured no longer tells how quick it is: it has come back from an outage.
    pub fn forget(&mut self) {
        for side in [&mut self.stream, &mut self.whole] {
            *side = Side { waiting: std::mem::take(&mut side.waiting), ..Side::default() };
        }
    }

    /// Whether some attempt has been silent for so long that it counts as failed in the choice.
    pub fn is_silent(&self, silent_after: Duration, now: Instant) -> bool {
        [&self.stream, &self.whole].into_iter().any(|side| {
            let oldest = side.waiting.first_key_value();
            oldest.is_some_and(|(_, sent)| now.saturating_duration_since(*sent) > side.patience(silent_after))
        })
    }

    fn side(&self, form: Form) -> &Side {
        match form {
            Form::Stream => &self.stream,
            Form::Whole => &self.whole,
        }
    }

    fn side_mut(&mut self, form: Form) -> &mut Side {
        match form {
            Form::Stream => &mut self.stream,
            Form::Whole => &mut self.whole,
        }
    }
}

impl Side {
    /// Feeds the average (a peak is taken at once, a dip slowly) and the percentile.
    fn feed(&mut self, took: Duration, now: Instant) {
        let seconds = took.as_secs_f64();
        let average = match self.average {
            Some((average, at)) if seconds < average => {
                let keep = kept(now.saturating_duration_since(at));
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

    /// How long an attempt may be silent: four times the 99th percentile, at least half a second, at
    /// most `silent_after`; but never less than the 99th percentile itself, or a model that thinks
    /// for three seconds would always be called silent.
    fn patience(&self, silent_after: Duration) -> Duration {
        let Some(p99) = self.p99 else { return silent_after };
        (p99 * 4).max(SILENT_FLOOR).min(silent_after).max(p99)
    }
}

/// How much of an average still counts after `age`.
fn kept(age: Duration) -> f64 {
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

    fn fed(took: Duration, times: u32) -> (Gauge, Instant) {
        let mut now = Instant::now();
        let mut gauge = Gauge::default();
        for _ in 0..times {
            let waiting = gauge.sent(Form::Stream, now);
            now += took;
            gauge.answered(Form::Stream, waiting, now);
            gauge.done();
        }
        (gauge, now)
    }

    #[test]
    fn silence_is_measured_against_what_is_usual() {
        let check = |usual: Option<Duration>, age: Duration, expected: bool| {
            let (mut gauge, now) = usual.map_or((Gauge::default(), Instant::now()), |took| fed(took, 50));
            gauge.sent(Form::Stream, now);
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
    fn streams_and_whole_answers_are_kept_apart() {
        let (gauge, _) = fed(Duration::from_millis(10), 5);
        assert!(gauge.average(Form::Stream).is_some());
        assert_eq!(gauge.average(Form::Whole), None);
    }

    #[test]
    fn a_peak_is_taken_at_once_and_forgotten_slowly() {
        let (mut gauge, now) = fed(Duration::from_millis(10), 5);
        let waiting = gauge.sent(Form::Stream, now);
        gauge.answered(Form::Stream, waiting, now + SECOND);
        assert_eq!(gauge.average(Form::Stream), Some(SECOND));
        let waiting = gauge.sent(Form::Stream, now + SECOND);
        gauge.answered(Form::Stream, waiting, now + SECOND + Duration::from_millis(10));
        assert!(gauge.average(Form::Stream).expect("fed") > Duration::from_millis(900));
    }

    #[test]
    fn load_grows_with_what_is_in_flight() {
        let (mut gauge, now) = fed(SECOND, 1);
        assert!((gauge.load(Form::Stream, now) - 1.0).abs() < 1e-9);
        gauge.sent(Form::Stream, now);
        assert!((gauge.load(Form::Stream, now) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn a_slow_answer_is_not_held_against_a_deployment_for_ever() {
        let (slow, now) = fed(9 * SECOND, 1);
        let (quick, _) = fed(Duration::from_millis(50), 1);
        let quick = quick.load(Form::Stream, now);
        assert!(slow.load(Form::Stream, now + 10 * SECOND) > quick);
        assert!(slow.load(Form::Stream, now + 60 * SECOND) < 0.05);
    }

    #[test]
    fn one_attempt_finds_out_how_quick_an_unknown_deployment_is() {
        let (known, now) = fed(Duration::from_millis(10), 5);
        let mut unknown = Gauge::default();
        assert!(unknown.load(Form::Stream, now) < known.load(Form::Stream, now));
        unknown.sent(Form::Stream, now);
        assert!(unknown.load(Form::Stream, now) > known.load(Form::Stream, now));
    }

    #[test]
    fn what_an_outage_measured_is_forgotten() {
        let (mut gauge, now) = fed(9 * SECOND, 5);
        let waiting = gauge.sent(Form::Stream, now);
        gauge.forget();
        assert_eq!(gauge.average(Form::Stream), None);
        assert!(gauge.is_silent(SECOND, now + 2 * SECOND), "who waits still waits, and is judged anew");
        gauge.answered(Form::Stream, waiting, now + SECOND);
        assert_eq!(gauge.average(Form::Stream), Some(SECOND));
    }
}
