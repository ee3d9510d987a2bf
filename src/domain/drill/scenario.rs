//! The scenarios of a drill, each as a script: which fault where, from when and for how long.
//!
//! Start reading in [`Scenario::script`].

use super::DrillWindow;
use crate::domain::fault::{FaultEffect, FaultScope, FaultSpec, LONGEST_FAULT};
use crate::domain::random::RandomValue;
use std::sync::Arc;
use std::time::Duration;

/// How much later a slow region is sent to: noticeable, and less than what is called silent.
const SLOW: Duration = Duration::from_millis(800);
/// The frames of a stream before a cut: its role, and a few words.
const CUT_AFTER: u32 = 5;
/// How long a flapping region is down, and up again.
const FLAP: Duration = Duration::from_millis(500);
/// How long each fault lasts where everything breaks.
const EACH: Duration = Duration::from_millis(1_500);

/// What is rehearsed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scenario {
    /// A region refuses every connection.
    RegionDown,
    /// A region accepts requests and stays silent.
    BlackHole,
    /// Half of a region's replies are a 503.
    BrownOut,
    /// A region replies 429 to everything.
    ThrottleStorm,
    /// A region's answers break within.
    MidStream,
    /// A region's answers begin late.
    SlowRegion,
    /// A region goes down and up every half second.
    Flapping,
    /// The hosts of a region present a certificate that nobody trusts.
    BadTls,
    /// A region refuses our credential.
    CredentialRevoked,
    /// Nothing breaks: ten times the requests come, from clients that retry.
    Burst10x,
    /// One region after the other, drawn at random, breaks in a way drawn at random.
    Everything,
}

impl Scenario {
    /// Every scenario, in the order in which they are run.
    pub const ALL: [Self; 11] = [
        Self::RegionDown,
        Self::BlackHole,
        Self::BrownOut,
        Self::ThrottleStorm,
        Self::MidStream,
        Self::SlowRegion,
        Self::Flapping,
        Self::BadTls,
        Self::CredentialRevoked,
        Self::Burst10x,
        Self::Everything,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::RegionDown => "region-down",
            Self::BlackHole => "black-hole",
            Self::BrownOut => "brown-out",
            Self::ThrottleStorm => "throttle-storm",
            Self::MidStream => "mid-stream",
            Self::SlowRegion => "slow-region",
            Self::Flapping => "flapping",
            Self::BadTls => "bad-tls",
            Self::CredentialRevoked => "credential-revoked",
            Self::Burst10x => "burst-10x",
            Self::Everything => "everything",
        }
    }

    /// What breaks, in a few words.
    pub fn about(self) -> &'static str {
        match self {
            Self::RegionDown => "refuses every connection",
            Self::BlackHole => "accepts requests and stays silent",
            Self::BrownOut => "replies 503 to half of its requests",
            Self::ThrottleStorm => "replies 429 to everything",
            Self::MidStream => "breaks its answers off",
            Self::SlowRegion => "begins its answers 800 ms late",
            Self::Flapping => "goes down and up every half second",
            Self::BadTls => "presents a certificate that nobody trusts",
            Self::CredentialRevoked => "replies 401 to everything",
            Self::Burst10x => "ten times the requests come, from clients that retry as the official ones do",
            Self::Everything => "one region after the other breaks in another way, at random",
        }
    }

    /// Whether it is a region that breaks.
    pub fn breaks_a_region(self) -> bool {
        self != Self::Burst10x
    }

    /// Whether faults that are injected into attempts make it.
    pub fn is_injected(self) -> bool {
        !matches!(self, Self::BadTls | Self::Burst10x)
    }

    /// How many times as many requests come while it lasts.
    pub fn load_factor(self) -> u32 {
        if self == Self::Burst10x { 10 } else { 1 }
    }

    /// What an attempt meets, and how many of 100 do; `None` where it is drawn, or nothing is.
    fn fault(self) -> Option<(FaultEffect, u8)> {
        match self {
            Self::RegionDown | Self::Flapping => Some((FaultEffect::Refuse, 100)),
            Self::BlackHole => Some((FaultEffect::Delay(LONGEST_FAULT), 100)),
            Self::BrownOut => Some((FaultEffect::Status(503), 50)),
            Self::ThrottleStorm => Some((FaultEffect::Status(429), 100)),
            Self::MidStream => Some((FaultEffect::Cut { frames: CUT_AFTER }, 100)),
            Self::SlowRegion => Some((FaultEffect::Delay(SLOW), 100)),
            Self::CredentialRevoked => Some((FaultEffect::Status(401), 100)),
            Self::BadTls | Self::Burst10x | Self::Everything => None,
        }
    }

    /// Whether a region stays silent in it: that is noticed later than a refusal.
    pub fn is_silent(self) -> bool {
        matches!(self, Self::BlackHole | Self::Everything)
    }

    /// Whether answers break after their first token, where nobody can serve them anew.
    pub fn breaks_answers(self) -> bool {
        self == Self::MidStream
    }

    /// Whether what it breaks is tried again within the drill: a refused credential rests longer.
    pub fn recovers_soon(self) -> bool {
        !matches!(self, Self::CredentialRevoked | Self::Burst10x | Self::Everything)
    }

    /// The attempts per request that are accepted while it lasts. Each deployment is found out by itself, by a few
    /// failures, which weigh more in a drill of seconds than in an outage; one that fails now and then is not avoided.
    pub fn attempts_accepted(self) -> f64 {
        match self {
            Self::BrownOut | Self::Flapping | Self::Everything => 1.8,
            _ => 1.5,
        }
    }

    /// What breaks, and when: each fault with the instant from which it is in force, in order; none where it is not made by faults. `target` is the region that
    /// breaks, where not one of `regions` is drawn by `draw`.
    pub fn script(
        self,
        target: &Arc<str>,
        regions: &[Arc<str>],
        times: DrillWindow,
        draw: RandomValue,
    ) -> Vec<(Duration, FaultSpec)> {
        let spec = |region: &Arc<str>, (effect, share_percent), lasts| FaultSpec {
            effect,
            scope: FaultScope::Region(region.clone()),
            share_percent,
            lasts,
        };
        let every = |length: Duration, pause: Duration| {
            let starts = std::iter::successors(Some(times.broken_from), move |at| Some(*at + length + pause));
            starts.take_while(|at| *at < times.broken_until).map(move |at| (at, length.min(times.broken_until - at)))
        };
        match self.fault() {
            None if !self.is_injected() => Vec::new(),
            Some(fault) if self == Self::Flapping => {
                every(FLAP, FLAP).map(|(at, lasts)| (at, spec(target, fault, lasts))).collect()
            }
            Some(fault) => vec![(times.broken_from, spec(target, fault, times.broken_until - times.broken_from))],
            None => every(EACH, Duration::ZERO)
                .zip(0..)
                .map(|((at, lasts), step)| {
                    let drawn = draw.salted(step);
                    let region = &regions[drawn.below(regions.len() as u64) as usize];
                    (at, spec(region, one_of_many(drawn.salted(1)), lasts))
                })
                .collect(),
        }
    }
}

/// A fault that no client should notice while another region lives.
fn one_of_many(draw: RandomValue) -> (FaultEffect, u8) {
    const MANY: [(FaultEffect, u8); 6] = [
        (FaultEffect::Refuse, 100),
        (FaultEffect::Delay(LONGEST_FAULT), 100),
        (FaultEffect::Delay(SLOW), 100),
        (FaultEffect::Status(503), 50),
        (FaultEffect::Status(500), 100),
        (FaultEffect::Status(429), 100),
    ];
    MANY[draw.below(MANY.len() as u64) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(scenario: Scenario, seed: u64) -> Vec<(Duration, FaultSpec)> {
        let regions = ["east".into(), "west".into(), "north".into()];
        let times = DrillWindow { broken_from: Duration::from_secs(3), broken_until: Duration::from_secs(9) };
        scenario.script(&regions[0], &regions, times, RandomValue(seed))
    }

    #[test]
    fn every_fault_begins_and_ends_while_it_is_broken() {
        assert_eq!((script(Scenario::Burst10x, 7), script(Scenario::BadTls, 7)), (vec![], vec![]));
        for scenario in Scenario::ALL.into_iter().filter(|scenario| scenario.is_injected()) {
            let script = script(scenario, 7);
            assert!(!script.is_empty(), "{scenario:?}");
            assert_eq!(script[0].0, Duration::from_secs(3), "{scenario:?}");
            for (at, spec) in &script {
                assert!(*at + spec.lasts <= Duration::from_secs(9) && !spec.lasts.is_zero(), "{scenario:?}: {at:?}");
            }
            for pair in script.windows(2) {
                assert!(pair[0].0 + pair[0].1.lasts <= pair[1].0, "one at a time: {scenario:?}: {pair:?}");
            }
        }
    }

    #[test]
    fn a_flapping_region_is_up_as_long_as_it_is_down() {
        let script = script(Scenario::Flapping, 1);
        assert_eq!(script.len(), 6);
        assert!(script.iter().all(|(_, spec)| spec.lasts == FLAP));
    }

    #[test]
    fn everything_breaks_every_region_in_the_end_and_the_same_for_the_same_seed() {
        let places = |seed| script(Scenario::Everything, seed).into_iter().map(|(_, spec)| spec.scope.to_string());
        let of_many: std::collections::BTreeSet<String> = (0..20).flat_map(places).collect();
        assert_eq!(of_many.into_iter().collect::<Vec<_>>(), ["region east", "region north", "region west"]);
        assert_eq!(script(Scenario::Everything, 7), script(Scenario::Everything, 7));
        assert_ne!(script(Scenario::Everything, 7), script(Scenario::Everything, 8));
    }

    #[test]
    fn names_are_those_of_the_command_line() {
        let names: Vec<_> = Scenario::ALL.iter().map(|scenario| scenario.name()).collect();
        let plain =
            |name: &&str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        assert!(names.iter().all(plain) && names.iter().collect::<std::collections::BTreeSet<_>>().len() == 11);
    }
}
