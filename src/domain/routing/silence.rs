//! Whether a deployment is silent: nothing at all comes from it, for longer than is usual for it.
//!
//! It exists because a provider that accepts requests and never answers fails nobody until a timeout passes, which
//! is longer than any client waits. Silence is judged from all attempts in flight at once, by signs of life: heads,
//! frames, comments, whole answers. A slow deployment gives signs and is not silent; an attempt that was lost while
//! others were answered says nothing about the deployment. Where only one team waits, its requests may be what is not
//! answered: others pass the deployment over as well, but one of theirs may ask it at any time, and what they wait for
//! there is no evidence until it has taken too long by itself. It must never decide what is done about it.
//!
//! Start reading in [`SignsOfLife::silent_at`].

use super::AnswerMode;
use crate::domain::id::TeamId;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// What is usual for a deployment, as far as it is known: what silence is measured against.
#[derive(Clone, Copy, Debug)]
pub struct UsualAnswerTimes {
    /// The 99th percentile of first-token times of streams.
    pub stream: Option<Duration>,
    /// The 99th percentile of times of whole answers.
    pub whole: Option<Duration>,
}

impl UsualAnswerTimes {
    fn of(self, mode: AnswerMode) -> Option<Duration> {
        match mode {
            AnswerMode::Stream => self.stream,
            AnswerMode::Whole => self.whole,
        }
    }
}

/// The settings that bound a verdict of silence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SilenceLimits {
    /// No deployment is silent sooner than this.
    pub silent_after: Duration,
    /// After this long without a sign a deployment is silent, where nothing else is known of it.
    pub late_after: Duration,
}

/// An attempt in flight, to be ended by [`SignsOfLife::ended`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct AttemptInFlight(u64);

/// What has come from one deployment, and what is waited for.
#[derive(Clone, Debug, Default)]
pub struct SignsOfLife {
    next: u64,
    /// In the order of sending.
    attempts: BTreeMap<u64, WaitingAttempt>,
    /// Those of them of which nothing has come, in the order of sending.
    unheard: BTreeSet<u64>,
    /// The latest sign of life of any attempt.
    last: Option<Instant>,
    /// The latest first sign of an attempt.
    last_opening: Option<Instant>,
    /// The latest one that was more than the opening of an answer.
    last_progress: Option<Instant>,
    /// The longest gaps between two signs, by how many attempts were in flight.
    gaps: [LongestGap; LOADS],
    verdict: Verdict,
}

#[derive(Clone, Copy, Debug)]
struct WaitingAttempt {
    team: TeamId,
    mode: AnswerMode,
    sent: Instant,
    heard: Option<Instant>,
    /// How many signs came.
    count: u32,
    /// Its first token has come.
    answered: bool,
}

/// What was found when the deployment was last judged.
#[derive(Clone, Copy, Default, Debug)]
enum Verdict {
    #[default]
    Alive,
    /// Until the next sign of life one attempt at a time asks it.
    Silent {
        since: Instant,
        /// Older streams may go on: only an attempt that was not answered yet shows that new ones are.
        only_new: bool,
        /// The one team that waits, if it is one.
        sole: Option<TeamId>,
        /// The attempt that asks, and until when it may.
        asking: Option<(AttemptInFlight, Instant)>,
        /// When the next one may ask.
        ask_from: Instant,
        /// How many have asked in vain.
        asked: u32,
    },
}

/// The signs by which an answer opens: its head and its first frame.
const OPENING_SIGNS: u32 = 2;
/// Loads are told apart by powers of two: 2, 3 and 4, 5 to 8, up to 9 to 16 and more.
const LOADS: usize = 4;
/// A longest gap is remembered for this long, and for as long again at most.
const GAP_MEMORY: Duration = Duration::from_secs(60);
/// The pause after an attempt that asked in vain, doubled each time, and its bound.
const ASK_AGAIN: Duration = Duration::from_secs(1);
const ASK_AGAIN_MOST: Duration = Duration::from_secs(20);

impl SignsOfLife {
    /// Records that an attempt of `team` is sent.
    pub fn sent(&mut self, team: TeamId, mode: AnswerMode, now: Instant) -> AttemptInFlight {
        self.next += 1;
        self.unheard.insert(self.next);
        let attempt = WaitingAttempt { team, mode, sent: now, heard: None, count: 0, answered: false };
        self.attempts.insert(self.next, attempt);
        AttemptInFlight(self.next)
    }

    /// Records a sign of life of an attempt: a head, a frame, a comment, a part of a body. A head and a first frame
    /// alone prove little: there are providers that send both at once and then nothing.
    pub fn heard(&mut self, attempt: AttemptInFlight, now: Instant) {
        let Some(signs) = self.attempts.get_mut(&attempt.0) else { return };
        signs.count = signs.count.saturating_add(1);
        if signs.count > OPENING_SIGNS {
            self.progressed(attempt, now);
        } else {
            if signs.heard.is_none() {
                self.unheard.remove(&attempt.0);
                self.last_opening = Some(now);
            }
            signs.heard = Some(now);
            self.last = Some(now);
        }
    }

    /// Records that an attempt came on: with more than the opening of an answer, or with a whole reply.
    pub fn progressed(&mut self, attempt: AttemptInFlight, now: Instant) {
        let load = self.attempts.len();
        let Some(signs) = self.attempts.get_mut(&attempt.0) else { return };
        // Only as long as this attempt itself has waited: the length of an outage is no gap between two signs.
        let waited_from = signs.heard.unwrap_or(signs.sent).max(self.last.unwrap_or(signs.sent));
        if let Some(bucket) = bucket(load) {
            self.gaps[bucket].record(now.saturating_duration_since(waited_from), now);
        }
        if signs.heard.is_none() {
            self.unheard.remove(&attempt.0);
            self.last_opening = Some(now);
        }
        signs.heard = Some(now);
        (self.last, self.last_progress) = (Some(now), Some(now));
        if !signs.answered || !matches!(self.verdict, Verdict::Silent { only_new: true, .. }) {
            self.verdict = Verdict::Alive;
        }
    }

    /// Records the first token of an attempt. Returns when and for what it was sent, unless it was recorded before.
    pub fn answered(&mut self, attempt: AttemptInFlight, now: Instant) -> Option<(AnswerMode, Instant)> {
        self.progressed(attempt, now);
        let signs = self.attempts.get_mut(&attempt.0)?;
        (!std::mem::replace(&mut signs.answered, true)).then_some((signs.mode, signs.sent))
    }

    /// The mode of an attempt without an answer so far, and when it was sent.
    pub fn waiting(&self, attempt: AttemptInFlight) -> Option<(AnswerMode, Instant)> {
        let signs = self.attempts.get(&attempt.0).filter(|signs| !signs.answered)?;
        Some((signs.mode, signs.sent))
    }

    /// Records that an attempt is not in flight any more.
    pub fn ended(&mut self, attempt: AttemptInFlight, now: Instant) {
        let ended = self.attempts.remove(&attempt.0);
        self.unheard.remove(&attempt.0);
        if let Verdict::Silent { sole, asking, ask_from, asked, .. } = &mut self.verdict
            && asking.is_some_and(|(asking, _)| asking == attempt)
        {
            // What a second team asked in vain is silent for all.
            sole.take_if(|sole| ended.is_some_and(|ended| ended.team != *sole));
            *asking = None;
            *ask_from = now + ASK_AGAIN.saturating_mul(1 << (*asked).min(10)).min(ASK_AGAIN_MOST);
            *asked += 1;
        }
    }

    /// When anything last came from it.
    pub fn last_heard(&self) -> Option<Instant> {
        self.last
    }

    /// Attempts in flight.
    pub fn in_flight(&self) -> u32 {
        self.attempts.len() as u32
    }

    /// Drops what is known of usual gaps.
    pub fn forget(&mut self) {
        self.gaps = Default::default();
    }

    /// When the deployment counts as silent unless it is heard of before; `None` where nothing is waited for.
    pub fn silent_at(&self, usual: UsualAnswerTimes, limits: SilenceLimits) -> Option<Instant> {
        let only_new = self.silent_to_new_at(usual, limits);
        let to_all = self.silent_to_all_at(usual, limits);
        to_all.into_iter().chain(only_new).min()
    }

    /// When it counts as silent to what is sent now, although streams that began earlier go on: two attempts have
    /// waited for their first sign, and no other one got one, for longer than is usual.
    fn silent_to_new_at(&self, usual: UsualAnswerTimes, limits: SilenceLimits) -> Option<Instant> {
        let mut waiting = self.unheard.iter().filter_map(|number| {
            let WaitingAttempt { mode, sent, .. } = *self.attempts.get(number)?;
            let limit = usual.of(mode).map_or(limits.late_after, |usual| usual * 2).max(limits.silent_after);
            let lost = self.last_opening.is_some_and(|last| last > sent + limit);
            (!lost).then(|| self.last_opening.map_or(sent, |last| last.max(sent)) + limit)
        });
        waiting.nth(1)
    }

    fn silent_to_all_at(&self, usual: UsualAnswerTimes, limits: SilenceLimits) -> Option<Instant> {
        let mut lost_attempts = 0;
        let first = self.attempts.values().find(|signs| {
            let is_lost = self.is_lost(signs, usual, limits);
            lost_attempts += usize::from(is_lost);
            !is_lost
        })?;
        let alone = alone_limit(first, usual, limits);
        let limit = match self.attempts.len() - lost_attempts {
            1 => alone,
            load => self.shared_limit(load, first, usual, limits),
        };
        let since = |last: Option<Instant>| last.map_or(first.sent, |last| last.max(first.sent));
        let without_progress = since(self.last_progress) + alone.max(limit);
        Some(without_progress.min(since(self.last) + limit))
    }

    /// Whether it is silent at `now`, with the verdict kept until it is heard of again.
    pub fn judge(&mut self, usual: UsualAnswerTimes, limits: SilenceLimits, now: Instant) -> bool {
        if let Verdict::Silent { sole, .. } = self.verdict {
            let others_wait = |sole| self.waiting_long(usual, limits, now).any(|team| team != sole);
            if sole.is_some_and(others_wait)
                && let Verdict::Silent { sole, .. } = &mut self.verdict
            {
                *sole = None;
            }
            return true;
        }
        let is_over = |at: Option<Instant>| at.is_some_and(|at| now > at);
        let to_all = is_over(self.silent_to_all_at(usual, limits));
        let silent = to_all || is_over(self.silent_to_new_at(usual, limits));
        if silent {
            let (only_new, sole) = (!to_all, self.sole_waiting(usual, limits, now));
            self.verdict = Verdict::Silent { since: now, only_new, sole, asking: None, ask_from: now, asked: 0 };
        }
        silent
    }

    /// Whether what `team` waits for there is evidence of its silence: unless one other team alone waits in vain.
    pub fn is_silent_to(&self, team: TeamId) -> bool {
        match self.verdict {
            Verdict::Alive => false,
            Verdict::Silent { sole, .. } => sole.is_none_or(|sole| sole == team),
        }
    }

    /// The only team that waits longer than is usual, if it is one; of all that wait, where nobody does for so long.
    fn sole_waiting(&self, usual: UsualAnswerTimes, limits: SilenceLimits, now: Instant) -> Option<TeamId> {
        if self.waiting_long(usual, limits, now).next().is_some() {
            return only(self.waiting_long(usual, limits, now));
        }
        let waiting = self.attempts.values().filter(|signs| !self.is_lost(signs, usual, limits));
        only(waiting.map(|signs| signs.team))
    }

    /// The teams of the attempts that have waited longer than is usual and are not lost.
    fn waiting_long(
        &self,
        usual: UsualAnswerTimes,
        limits: SilenceLimits,
        now: Instant,
    ) -> impl Iterator<Item = TeamId> + '_ {
        let waiting = self.attempts.values().filter(move |signs| {
            let long = usual.of(signs.mode).unwrap_or_default().max(limits.silent_after);
            let waited = now.saturating_duration_since(signs.heard.unwrap_or(signs.sent));
            waited > long && !self.is_lost(signs, usual, limits)
        });
        waiting.map(|signs| signs.team)
    }

    /// Whether others went on long after an attempt was heard of: it says nothing of the deployment.
    fn is_lost(&self, signs: &WaitingAttempt, usual: UsualAnswerTimes, limits: SilenceLimits) -> bool {
        let heard = signs.heard.unwrap_or(signs.sent);
        self.last_progress.is_some_and(|last| last > heard + alone_limit(signs, usual, limits))
    }

    /// When more than the opening of an answer last came.
    pub fn last_progress(&self) -> Option<Instant> {
        self.last_progress
    }

    /// Since when it has been found silent.
    pub fn silent_since(&self) -> Option<Instant> {
        match self.verdict {
            Verdict::Alive => None,
            Verdict::Silent { since, .. } => Some(since),
        }
    }

    /// Whether one attempt of `team` may ask the silent deployment at `now`: for a team that has no part in its silence,
    /// whatever came of the attempts of the one that has.
    pub fn may_ask(&self, team: TeamId, now: Instant) -> bool {
        let Verdict::Silent { sole, asking, ask_from, .. } = self.verdict else { return false };
        let spared = sole.is_some_and(|sole| sole != team);
        match asking.filter(|(_, until)| now < *until) {
            Some((asking, _)) => spared && self.attempts.get(&asking.0).is_some_and(|asking| Some(asking.team) == sole),
            None => spared || now >= ask_from,
        }
    }

    /// When the next attempt may ask the silent deployment.
    pub fn asked_next_at(&self) -> Option<Instant> {
        match self.verdict {
            Verdict::Alive => None,
            Verdict::Silent { asking, ask_from, .. } => Some(asking.map_or(ask_from, |(_, until)| until.max(ask_from))),
        }
    }

    /// Records that `attempt` asks the silent deployment, and may until `until`.
    pub fn asks(&mut self, attempt: AttemptInFlight, until: Instant) {
        if let Verdict::Silent { asking, .. } = &mut self.verdict {
            *asking = Some((attempt, until));
        }
    }

    fn shared_limit(
        &self,
        load: usize,
        first: &WaitingAttempt,
        usual: UsualAnswerTimes,
        limits: SilenceLimits,
    ) -> Duration {
        let bucket = bucket(load).unwrap_or(0);
        // A lower load has longer gaps: it stands in where this one was not seen yet.
        let gap = self.gaps[..=bucket].iter().rev().find_map(LongestGap::get);
        match gap {
            Some(gap) => (gap * 4).max(limits.silent_after).min(longest_limit(usual, limits)),
            None => alone_limit(first, usual, limits),
        }
    }
}

/// The team that all of them are, if there is one.
fn only(mut teams: impl Iterator<Item = TeamId>) -> Option<TeamId> {
    let first = teams.next()?;
    teams.all(|team| team == first).then_some(first)
}

/// How long a single attempt may wait without a sign: twice what is usual for answers of its mode, at least
/// `silent_after`; a quarter of `late_after` while nothing is known, and between the frames of a single stream.
fn alone_limit(signs: &WaitingAttempt, usual: UsualAnswerTimes, limits: SilenceLimits) -> Duration {
    let unknown = limits.late_after / 4;
    let limit = match usual.of(signs.mode) {
        Some(usual) if signs.answered => (usual * 2).max(unknown),
        Some(usual) => usual * 2,
        None => unknown,
    };
    limit.max(limits.silent_after)
}

/// No verdict takes longer than this, however long the gaps were.
fn longest_limit(usual: UsualAnswerTimes, limits: SilenceLimits) -> Duration {
    let usual = usual.stream.max(usual.whole).unwrap_or_default();
    (usual * 2).max(limits.late_after).max(limits.silent_after)
}

fn bucket(load: usize) -> Option<usize> {
    (load >= 2).then(|| (usize::BITS - (load - 1).leading_zeros() - 1) as usize).map(|bucket| bucket.min(LOADS - 1))
}

/// The longest gap of the last minute or two.
#[derive(Clone, Copy, Default, Debug)]
struct LongestGap {
    since: Option<Instant>,
    current: Option<Duration>,
    before: Option<Duration>,
}

impl LongestGap {
    fn record(&mut self, gap: Duration, now: Instant) {
        match self.since {
            Some(since) if now.saturating_duration_since(since) < GAP_MEMORY => {
                self.current = self.current.max(Some(gap));
            }
            _ => *self = Self { since: Some(now), current: Some(gap), before: self.current },
        }
    }

    fn get(&self) -> Option<Duration> {
        self.current.max(self.before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: TeamId = TeamId(1);
    const B: TeamId = TeamId(2);
    const SECOND: Duration = Duration::from_secs(1);
    const LIMITS: SilenceLimits = SilenceLimits { silent_after: SECOND, late_after: Duration::from_secs(10) };
    const UNKNOWN: UsualAnswerTimes = UsualAnswerTimes { stream: None, whole: None };

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn usual(millis: u64) -> UsualAnswerTimes {
        UsualAnswerTimes { stream: Some(ms(millis)), whole: Some(ms(millis)) }
    }

    #[test]
    fn a_single_attempt_is_measured_against_what_is_usual_for_its_mode() {
        let check = |usual, expected: Duration| {
            for mode in [AnswerMode::Stream, AnswerMode::Whole] {
                let (mut signs, now) = (SignsOfLife::default(), Instant::now());
                signs.sent(A, mode, now);
                assert_eq!(signs.silent_at(usual, LIMITS), Some(now + expected), "{usual:?}");
                assert!(!signs.judge(usual, LIMITS, now + expected));
                assert!(signs.judge(usual, LIMITS, now + expected + ms(1)));
            }
        };
        check(UNKNOWN, ms(2_500));
        check(usual(10), SECOND);
        check(usual(400), SECOND);
        check(usual(20_000), ms(40_000));
    }

    #[test]
    fn nothing_in_flight_is_not_silent() {
        let (mut signs, now) = (SignsOfLife::default(), Instant::now());
        let attempt = signs.sent(A, AnswerMode::Whole, now);
        signs.heard(attempt, now);
        signs.ended(attempt, now);
        assert_eq!(signs.silent_at(usual(10), LIMITS), None);
    }

    /// Ten streams, each sending a frame every 100 ms in turn; then all of them stop.
    #[test]
    fn under_load_a_second_is_enough() {
        let (mut signs, start) = (SignsOfLife::default(), Instant::now());
        let attempts: Vec<_> = (0..10).map(|_| signs.sent(A, AnswerMode::Stream, start)).collect();
        let mut now = start;
        for turn in 0..200 {
            now += ms(10);
            signs.answered(attempts[turn % 10], now);
        }
        assert_eq!(signs.silent_at(usual(20_000), LIMITS), Some(now + SECOND));
        // A new attempt changes nothing.
        signs.sent(A, AnswerMode::Whole, now + ms(900));
        assert_eq!(signs.silent_at(usual(20_000), LIMITS), Some(now + SECOND));
    }

    #[test]
    fn long_gaps_that_are_usual_at_this_load_are_no_silence() {
        let (mut signs, mut now) = (SignsOfLife::default(), Instant::now());
        for _ in 0..5 {
            let pair = [signs.sent(A, AnswerMode::Whole, now), signs.sent(A, AnswerMode::Whole, now)];
            now += 2 * SECOND;
            pair.into_iter().for_each(|attempt| {
                signs.answered(attempt, now);
                signs.ended(attempt, now);
            });
        }
        signs.sent(A, AnswerMode::Whole, now);
        signs.sent(A, AnswerMode::Whole, now);
        assert_eq!(signs.silent_at(UNKNOWN, LIMITS), Some(now + 8 * SECOND));
    }

    #[test]
    fn a_queue_that_gives_signs_is_slow_and_not_silent() {
        let (mut signs, start) = (SignsOfLife::default(), Instant::now());
        let attempts: Vec<_> = (0..8).map(|_| signs.sent(A, AnswerMode::Stream, start)).collect();
        attempts.iter().for_each(|attempt| (0..2).for_each(|_| signs.heard(*attempt, start + ms(20))));
        for second in 1..60 {
            let now = start + second * SECOND;
            // Keep-alives of those that wait.
            attempts.iter().for_each(|attempt| signs.heard(*attempt, now));
            assert!(!signs.judge(usual(300), LIMITS, now + ms(999)), "after {second} s");
        }
    }

    #[test]
    fn one_lost_attempt_says_nothing_once_another_was_answered() {
        let (mut signs, start) = (SignsOfLife::default(), Instant::now());
        signs.sent(A, AnswerMode::Stream, start);
        assert!(signs.judge(usual(100), LIMITS, start + ms(1_001)), "it is all that is known");
        let now = start + 10 * SECOND;
        let next = signs.sent(A, AnswerMode::Stream, now);
        signs.answered(next, now + ms(50));
        signs.ended(next, now + ms(80));
        assert!(!signs.judge(usual(100), LIMITS, now + 100 * SECOND), "the lost one does not count");
        signs.sent(A, AnswerMode::Stream, now + 100 * SECOND);
        assert_eq!(signs.silent_at(usual(100), LIMITS), Some(now + 101 * SECOND), "the new one does");
    }

    #[test]
    fn streams_that_go_on_do_not_speak_for_what_is_sent_now() {
        let (mut signs, start) = (SignsOfLife::default(), Instant::now());
        let streams = [0, 1].map(|_| signs.sent(A, AnswerMode::Stream, start));
        streams.iter().for_each(|stream| _ = signs.answered(*stream, start + ms(50)));
        let go_on = |signs: &mut SignsOfLife, now| streams.iter().for_each(|stream| signs.heard(*stream, now));
        let waiting = [0, 300].map(|sent| signs.sent(A, AnswerMode::Stream, start + ms(sent)));
        for turn in 1..=13 {
            go_on(&mut signs, start + ms(100 * turn));
            assert!(!signs.judge(usual(100), LIMITS, start + ms(100 * turn)), "{turn}");
        }
        let now = start + ms(1_301);
        assert!(signs.judge(usual(100), LIMITS, now) && signs.may_ask(A, now));
        go_on(&mut signs, now);
        assert!(signs.judge(usual(100), LIMITS, now), "they still say nothing");
        signs.answered(waiting[0], now);
        assert!(!signs.judge(usual(100), LIMITS, now), "this one does");
        // Two that were lost while others were answered say nothing later.
        let lost = [0, 1].map(|_| signs.sent(A, AnswerMode::Stream, now));
        let next = signs.sent(A, AnswerMode::Stream, now + 2 * SECOND);
        signs.answered(next, now + 2 * SECOND + ms(50));
        go_on(&mut signs, now + 9 * SECOND);
        assert!(!signs.judge(usual(100), LIMITS, now + 9 * SECOND));
        lost.iter().for_each(|lost| signs.ended(*lost, now + 9 * SECOND));
    }

    #[test]
    fn one_attempt_at_a_time_asks_a_silent_deployment_and_frees_its_place() {
        let (mut signs, start) = (SignsOfLife::default(), Instant::now());
        let lost = signs.sent(A, AnswerMode::Stream, start);
        let now = start + 2 * SECOND;
        assert!(signs.judge(usual(100), LIMITS, now) && signs.may_ask(A, now));
        signs.ended(lost, now);
        assert!(signs.judge(usual(100), LIMITS, now), "the verdict stays with nothing in flight");
        let asking = signs.sent(A, AnswerMode::Stream, now);
        signs.asks(asking, now + SECOND);
        assert!(!signs.may_ask(A, now + ms(999)));
        assert_eq!(signs.asked_next_at(), Some(now + SECOND));
        assert!(signs.may_ask(A, now + SECOND), "its time is over, whether it has ended or not");
        signs.ended(asking, now + SECOND);
        assert!(!signs.may_ask(A, now + ms(1_999)) && signs.may_ask(A, now + 2 * SECOND), "a pause after it");
        let asking = signs.sent(A, AnswerMode::Stream, now + 2 * SECOND);
        signs.asks(asking, now + 3 * SECOND);
        signs.answered(asking, now + 3 * SECOND);
        assert!(!signs.judge(usual(100), LIMITS, now + 3 * SECOND), "one answer is enough");
    }

    #[test]
    fn a_provider_that_opens_its_answers_and_sends_nothing_more_is_silent() {
        let (mut signs, start) = (SignsOfLife::default(), Instant::now());
        for turn in 0..10 {
            let now = start + turn * ms(100);
            assert!(!signs.judge(usual(300), LIMITS, now.min(start + SECOND)));
            let attempt = signs.sent(A, AnswerMode::Stream, now);
            (0..2).for_each(|_| signs.heard(attempt, now + ms(1)));
        }
        assert!(signs.judge(usual(300), LIMITS, start + ms(1_001)));
        // A usual first token of three seconds leaves more time.
        let (mut signs, now) = (SignsOfLife::default(), start);
        let attempt = signs.sent(A, AnswerMode::Stream, now);
        signs.heard(attempt, now + ms(1));
        assert_eq!(signs.silent_at(usual(3_000), LIMITS), Some(now + ms(6_000)));
    }

    #[test]
    fn the_length_of_an_outage_is_not_learnt() {
        let (mut signs, start) = (SignsOfLife::default(), Instant::now());
        let pair = [0, 0].map(|_| signs.sent(A, AnswerMode::Stream, start));
        signs.answered(pair[0], start + ms(20));
        let back = start + 600 * SECOND;
        let next = signs.sent(A, AnswerMode::Stream, back);
        signs.answered(next, back + ms(30));
        assert_eq!(signs.shared_limit(3, &signs.attempts[&3], UNKNOWN, LIMITS), SECOND);
    }

    #[test]
    fn what_one_team_waits_for_in_vain_is_not_silent_to_others() {
        let (mut signs, start) = (SignsOfLife::default(), Instant::now());
        (0..4).for_each(|_| _ = signs.sent(A, AnswerMode::Stream, start));
        let slow = signs.sent(B, AnswerMode::Whole, start + ms(600));
        let now = start + ms(1_001);
        assert!(signs.judge(usual(100), LIMITS, now));
        assert!(signs.is_silent_to(A) && !signs.is_silent_to(B));
        // Their own attempts ask in vain, and the others ask all the same.
        let of_a = signs.sent(A, AnswerMode::Stream, now);
        signs.asks(of_a, now + SECOND);
        assert!(!signs.may_ask(A, now) && signs.may_ask(B, now));
        signs.ended(of_a, now + ms(1));
        assert!(!signs.may_ask(A, now + ms(500)) && signs.may_ask(B, now + ms(500)));
        assert!(!signs.is_silent_to(B), "what its own team asked in vain says nothing more");
        let of_b = signs.sent(B, AnswerMode::Stream, now);
        signs.asks(of_b, now + SECOND);
        assert!(!signs.may_ask(B, now) && !signs.may_ask(A, now), "one of theirs at a time");
        signs.answered(of_b, now + ms(20));
        signs.answered(slow, now + ms(20));
        assert!(!signs.judge(usual(100), LIMITS, now + ms(20)));
    }

    #[test]
    fn what_a_second_team_waits_for_in_vain_is_silent_to_all() {
        let silent_to_a = || {
            let (mut signs, start) = (SignsOfLife::default(), Instant::now());
            (0..4).for_each(|_| _ = signs.sent(A, AnswerMode::Stream, start));
            let now = start + ms(1_001);
            assert!(signs.judge(usual(100), LIMITS, now) && !signs.is_silent_to(B));
            let of_b = signs.sent(B, AnswerMode::Stream, now);
            signs.asks(of_b, now + SECOND);
            (signs, of_b, now)
        };
        let (mut signs, _, now) = silent_to_a();
        assert!(signs.judge(usual(100), LIMITS, now + SECOND) && !signs.is_silent_to(B));
        assert!(signs.judge(usual(100), LIMITS, now + ms(1_001)) && signs.is_silent_to(B));
        let (mut signs, of_b, now) = silent_to_a();
        signs.ended(of_b, now + ms(500));
        assert!(signs.is_silent_to(B) && !signs.may_ask(B, now + ms(600)), "it was asked in vain");
        let (mut signs, start) = (SignsOfLife::default(), Instant::now());
        for team in [A, B] {
            signs.sent(team, AnswerMode::Stream, start);
        }
        assert!(signs.judge(usual(100), LIMITS, start + ms(1_001)));
        assert!(signs.is_silent_to(A) && signs.is_silent_to(B) && signs.is_silent_to(TeamId(3)));
    }
}
