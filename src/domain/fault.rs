//! Faults that operators inject into attempts, so that failover can be rehearsed: what happens to which attempts, for how
//! long.
//!
//! A fault always ends by itself, at the latest after [`LONGEST_FAULT`]. Time and chance are handed in; nothing here knows
//! how an attempt is sent.
//!
//! Start reading in [`InjectedFaults::drawn`].

use super::random::RandomValue;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The longest that a fault may last: who forgets one has no outage.
pub const LONGEST_FAULT: Duration = Duration::from_secs(600);
/// The most faults at a time.
pub const MOST_FAULTS: usize = 100;
/// So long after its end, what a fault did to a deployment may still keep requests from it: as long as a breaker that it
/// opened usually stays open at most.
pub const AFTERMATH: Duration = Duration::from_secs(60);
const SHARE_SALT: u64 = 0xFA;

/// What happens to an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultEffect {
    /// As if the provider refused the connection: nothing is sent.
    Refuse,
    /// It is sent so much later, or when the fault ends.
    Delay(Duration),
    /// As if the provider had replied with this status, from 400 to 599: nothing is sent.
    Status(u16),
    /// The connection breaks after so many frames of a stream, and within a whole answer.
    Cut {
        /// 0 breaks it before the first frame.
        frames: u32,
    },
}

impl FaultEffect {
    /// The word for it in requests and answers.
    pub fn label(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Delay(_) => "delay",
            Self::Status(_) => "status",
            Self::Cut { .. } => "cut",
        }
    }
}

impl fmt::Display for FaultEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())?;
        match self {
            Self::Refuse => Ok(()),
            Self::Delay(by) => write!(f, " {} ms", by.as_millis()),
            Self::Status(status) => write!(f, " {status}"),
            Self::Cut { frames } => write!(f, " after {frames} frames"),
        }
    }
}

/// Which attempts a fault concerns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FaultScope {
    /// Those at the deployment of this name.
    Deployment(Arc<str>),
    /// Those in the region of this name.
    Region(Arc<str>),
}

impl FaultScope {
    /// Whether it concerns an attempt at `deployment` in `region`.
    fn holds(&self, deployment: &str, region: &str) -> bool {
        match self {
            Self::Deployment(name) => **name == *deployment,
            Self::Region(name) => **name == *region,
        }
    }
}

impl fmt::Display for FaultScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deployment(name) => write!(f, "deployment {name}"),
            Self::Region(name) => write!(f, "region {name}"),
        }
    }
}

/// A fault as it is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FaultSpec {
    /// What happens to an attempt that it concerns.
    pub effect: FaultEffect,
    /// The deployment or region whose attempts it concerns.
    pub scope: FaultScope,
    /// To how many of 100 of these.
    pub share_percent: u8,
    /// For how long.
    pub lasts: Duration,
}

/// A fault that is in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InjectedFault {
    /// Unique in this process.
    pub id: u64,
    /// What was asked for.
    pub spec: FaultSpec,
    /// Its end.
    pub until: Instant,
    /// The same in Unix milliseconds.
    pub until_unix_ms: i64,
}

/// The faults that are in force, the oldest first.
#[derive(Default, Debug)]
pub struct InjectedFaults {
    faults: Vec<InjectedFault>,
    /// Where faults have ended, and when, as long as it matters.
    ended: Vec<(FaultScope, Instant)>,
    last_id: u64,
}

impl InjectedFaults {
    /// Puts `spec` into force from `now`, which is `unix_ms`; `None`: there are as many as there may be.
    pub fn inject(&mut self, spec: FaultSpec, now: Instant, unix_ms: i64) -> Option<InjectedFault> {
        self.end_expired(now);
        if self.faults.len() >= MOST_FAULTS {
            return None;
        }
        self.last_id += 1;
        let lasts = spec.lasts.min(LONGEST_FAULT);
        let until_unix_ms = unix_ms.saturating_add(i64::try_from(lasts.as_millis()).unwrap_or(i64::MAX));
        let fault = InjectedFault { id: self.last_id, spec, until: now + lasts, until_unix_ms };
        self.faults.push(fault.clone());
        Some(fault)
    }

    /// Those in force at `now`.
    pub fn active(&mut self, now: Instant) -> &[InjectedFault] {
        self.end_expired(now);
        &self.faults
    }

    /// Ends the fault of this id before its time; `None`: there is none at `now`.
    pub fn end(&mut self, id: u64, now: Instant) -> Option<InjectedFault> {
        self.end_expired(now);
        let at = self.faults.iter().position(|fault| fault.id == id)?;
        let fault = self.faults.remove(at);
        self.ended.push((fault.spec.scope.clone(), now));
        Some(fault)
    }

    /// Ends all at `now`.
    pub fn end_all(&mut self, now: Instant) {
        self.end_expired(now);
        self.ended.extend(self.faults.drain(..).map(|fault| (fault.spec.scope, now)));
    }

    /// Whether the state of `deployment` in `region` may follow from a fault: one is in force there at `now`, or was within
    /// [`AFTERMATH`].
    pub fn may_explain(&mut self, deployment: &str, region: &str, now: Instant) -> bool {
        self.end_expired(now);
        let in_force = self.faults.iter().map(|fault| &fault.spec.scope);
        let mut scopes = in_force.chain(self.ended.iter().map(|(scope, _)| scope));
        scopes.any(|scope| scope.holds(deployment, region))
    }

    /// What happens to an attempt at `deployment` in `region` at `now`: the oldest fault that it is drawn for.
    pub fn drawn(&self, deployment: &str, region: &str, now: Instant, draw: RandomValue) -> Option<FaultEffect> {
        let is_drawn = |fault: &&InjectedFault| {
            let chance = draw.salted(SHARE_SALT).salted(fault.id).below(100);
            now < fault.until
                && fault.spec.scope.holds(deployment, region)
                && chance < u64::from(fault.spec.share_percent)
        };
        self.faults.iter().find(is_drawn).map(|fault| match fault.spec.effect {
            // What ends by itself does not keep an attempt beyond its end.
            FaultEffect::Delay(by) => FaultEffect::Delay(by.min(fault.until - now)),
            effect => effect,
        })
    }

    fn end_expired(&mut self, now: Instant) {
        let expired = self.faults.extract_if(.., |fault| now >= fault.until);
        self.ended.extend(expired.map(|fault| (fault.spec.scope, fault.until)));
        self.ended.retain(|(_, at)| now < *at + AFTERMATH);
        // The newest say as much as all of them, and are as many as there may be faults.
        let excess = self.ended.len().saturating_sub(MOST_FAULTS);
        self.ended.drain(..excess);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAW: RandomValue = RandomValue(7);

    fn spec(scope: FaultScope, share_percent: u8, lasts: u64) -> FaultSpec {
        FaultSpec { effect: FaultEffect::Refuse, scope, share_percent, lasts: Duration::from_secs(lasts) }
    }

    fn east() -> FaultScope {
        FaultScope::Region("east".into())
    }

    #[test]
    fn it_concerns_its_scope_until_its_end() {
        let now = Instant::now();
        let mut faults = InjectedFaults::default();
        let fault = faults.inject(spec(east(), 100, 60), now, 1_000).expect("there is room");
        assert_eq!(fault.until_unix_ms, 61_000);
        let last = now + Duration::from_nanos(59_999_999_999);
        for at in [now, last] {
            assert_eq!(faults.drawn("a/m", "east", at, DRAW), Some(FaultEffect::Refuse));
            assert_eq!(faults.drawn("a/m", "west", at, DRAW), None);
        }
        let end = now + Duration::from_secs(60);
        assert_eq!(faults.drawn("a/m", "east", end, DRAW), None);
        assert!(faults.active(last).len() == 1 && faults.active(end).is_empty());
        assert_eq!(faults.end(fault.id, end), None);
        let other = faults.inject(spec(FaultScope::Deployment("a/m".into()), 100, 60), end, 0).expect("there is room");
        assert_eq!(faults.drawn("a/m", "west", end, DRAW), Some(FaultEffect::Refuse));
        assert_eq!(faults.drawn("b/m", "west", end, DRAW), None);
        assert_eq!(faults.end(other.id, end).map(|ended| ended.id), Some(2));
        assert_eq!(faults.drawn("a/m", "west", end, DRAW), None);
    }

    #[test]
    fn what_it_did_may_last_longer_than_itself() {
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        let mut faults = InjectedFaults::default();
        assert!(!faults.may_explain("a/m", "east", now));
        faults.inject(spec(east(), 1, 10), now, 0);
        let ended = faults.inject(spec(FaultScope::Deployment("b/m".into()), 1, 10), now, 0).expect("there is room");
        for (at, at_a, at_b) in
            [(0, true, true), (10, true, true), (64, true, true), (66, true, false), (70, false, false)]
        {
            if at == 10 {
                assert_eq!(faults.end(ended.id, after(5)).map(|fault| fault.id), Some(ended.id));
            }
            assert_eq!(faults.may_explain("a/m", "east", after(at)), at_a, "{at} s");
            assert_eq!(faults.may_explain("b/m", "west", after(at)), at_b, "{at} s");
            assert!(!faults.may_explain("a/m", "west", after(at)), "{at} s");
        }
        faults.inject(spec(east(), 1, 600), after(100), 0);
        faults.end_all(after(101));
        assert!(faults.active(after(101)).is_empty());
        assert!(faults.may_explain("a/m", "east", after(160)) && !faults.may_explain("a/m", "east", after(161)));
    }

    #[test]
    fn none_lasts_longer_than_the_longest_may() {
        let now = Instant::now();
        let mut faults = InjectedFaults::default();
        let fault = faults.inject(spec(east(), 100, 3_600), now, 0).expect("there is room");
        assert_eq!((fault.until - now, fault.until_unix_ms), (LONGEST_FAULT, 600_000));
    }

    #[test]
    fn a_delay_ends_with_its_fault() {
        let now = Instant::now();
        let mut faults = InjectedFaults::default();
        let effect = FaultEffect::Delay(Duration::from_secs(10));
        faults.inject(FaultSpec { effect, ..spec(east(), 100, 12) }, now, 0);
        let after = |seconds| faults.drawn("a/m", "east", now + Duration::from_secs(seconds), DRAW);
        assert_eq!((after(0), after(2)), (Some(effect), Some(effect)));
        assert_eq!(after(9), Some(FaultEffect::Delay(Duration::from_secs(3))));
    }

    #[test]
    fn it_happens_to_its_share() {
        let now = Instant::now();
        for share in [1, 30, 100] {
            let mut faults = InjectedFaults::default();
            faults.inject(spec(east(), share, 60), now, 0);
            let hit =
                (0..10_000).filter(|n| faults.drawn("a/m", "east", now, RandomValue(*n).salted(1)).is_some()).count();
            assert!(hit.abs_diff(usize::from(share) * 100) < 150, "{hit} of 10,000 at {share} %");
        }
    }

    #[test]
    fn there_are_only_so_many() {
        let now = Instant::now();
        let mut faults = InjectedFaults::default();
        for _ in 0..MOST_FAULTS {
            assert!(faults.inject(spec(east(), 1, 60), now, 0).is_some());
        }
        assert_eq!(faults.inject(spec(east(), 1, 60), now, 0), None);
        // Those that have ended make room.
        assert!(faults.inject(spec(east(), 1, 60), now + Duration::from_secs(60), 0).is_some());
    }
}
