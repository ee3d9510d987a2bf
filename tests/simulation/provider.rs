//! Scripted deployments: healthy, slow, failing or silent.
//!
//! They must never know a breaker or a plan: the outcome of an attempt depends on time and request only.
//! Start reading in [`Script::outcome`].

use crate::world::{Burst, PlannedRequest, SimRng};
use std::time::Duration;
use tierway::domain::failure::Failure;
use tierway::domain::routing::table::Model;

/// How a deployment behaves at some time.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Behaviour {
    Healthy,
    /// Twenty times slower to its first token.
    Slow,
    Refusing,
    /// Packets vanish.
    Unroutable,
    /// Connects and stays silent.
    BlackHole,
    Failing(u16),
    /// Takes 12 to 54 s to its first token, with a comment every second.
    SlowWithSigns,
    /// Breaks its answers five seconds after their first token.
    CutsLate,
    /// Throttles this share of requests, in percent.
    ThrottlingSome(u64),
    /// Fails the requests of one key with 500.
    RefusesContent(usize),
    /// Never answers one request in so many.
    LosesOne(u64),
    /// Fails every other time.
    Sick,
    Throttling(Option<Duration>),
    /// Alternates between healthy and unreachable every half second.
    Flapping,
    /// Breaks its answers after the first token.
    Cutting,
    /// Closes connections before any byte.
    Resetting,
    Garbled,
    Unauthorized,
    Missing,
}

/// The outcome of one attempt; times count from when it is sent.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum ScriptedOutcome {
    Fails { after: Duration, failure: Failure },
    Answers { first: Duration, end: Duration, broken: Option<Failure> },
}

impl ScriptedOutcome {
    /// Whether something comes from the deployment when an attempt ends like this.
    pub fn is_heard(failure: Failure) -> bool {
        !matches!(
            failure,
            Failure::Unreachable
                | Failure::ConnectTimeout
                | Failure::Reset
                | Failure::Stale
                | Failure::FirstTokenTimeout
                | Failure::WholeTimeout
                | Failure::IdleTimeout
                | Failure::Deadline
                | Failure::Silent
                | Failure::Overtaken
        )
    }

    /// Whether that is a whole reply, and not a part of one.
    pub fn is_whole(failure: Failure) -> bool {
        Self::is_heard(failure) && failure != Failure::Truncated
    }
}

/// How often a deployment that is slow gives a sign before its first token.
pub const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// One deployment's behaviours, each with the time at which it begins.
#[derive(Clone, Debug)]
pub struct Script(Vec<(Duration, Behaviour)>);

impl Behaviour {
    /// A script for a day: a new behaviour for each burst, and another during it.
    pub fn any_day(rng: &mut SimRng, bursts: &[Burst]) -> Script {
        let mut turns = vec![(Duration::ZERO, Self::any(rng))];
        for burst in bursts {
            turns.push((burst.at, Self::any(rng)));
            turns.push((burst.at + burst.lasts.mul_f64(rng.draw().unit()), Self::any(rng)));
        }
        turns.sort_by_key(|(from, _)| *from);
        Script(turns)
    }

    /// A new behaviour every one to ten seconds, for as long as it `lasts`; answers that began never break off.
    pub fn flipping(rng: &mut SimRng, lasts: Duration) -> Script {
        let (mut turns, mut at) = (Vec::new(), Duration::ZERO);
        while at <= lasts {
            let behaviour = Self::any(rng);
            turns.push((
                at,
                if matches!(behaviour, Self::Cutting | Self::CutsLate | Self::RefusesContent(_)) {
                    Self::Refusing
                } else {
                    behaviour
                },
            ));
            at += Duration::from_millis(1_000 + rng.below(9_000));
        }
        Script(turns)
    }

    /// Healthy in its turn only, faulty otherwise: one of `regions` is live at a time, each for six to eight seconds.
    pub fn rotating(rng: &mut SimRng, region: usize, turns: &[(Duration, usize)]) -> Script {
        let faults =
            [Self::Refusing, Self::Failing(503), Self::Unauthorized, Self::Missing, Self::BlackHole, Self::Resetting];
        let turn = |(from, live): &(Duration, usize)| {
            let fault = rng.pick(&faults);
            (*from, if *live == region { Self::Healthy } else { fault })
        };
        Script(turns.iter().map(turn).collect())
    }

    fn any(rng: &mut SimRng) -> Self {
        if rng.random(45) {
            return Self::Healthy;
        }
        let status = rng.pick(&[500, 500, 503, 529]);
        let after = rng.pick(&[0, 300, 1_500, 8_000, 900_000]);
        let (share, many) = (rng.pick(&[1, 5, 30]), rng.pick(&[3, 20]));
        rng.pick(&[
            Self::Slow,
            Self::Refusing,
            Self::Refusing,
            Self::Unroutable,
            Self::BlackHole,
            Self::Failing(status),
            Self::Failing(status),
            Self::Sick,
            Self::Throttling(None),
            Self::Throttling(Some(Duration::from_millis(after))),
            Self::Flapping,
            Self::Cutting,
            Self::Resetting,
            Self::Garbled,
            Self::Unauthorized,
            Self::Missing,
            Self::SlowWithSigns,
            Self::CutsLate,
            Self::ThrottlingSome(share),
            Self::RefusesContent(0),
            Self::LosesOne(many),
        ])
    }
}

impl Script {
    pub fn always(behaviour: Behaviour) -> Self {
        Self(vec![(Duration::ZERO, behaviour)])
    }

    /// Healthy, except for `behaviour` in between.
    pub fn between(from: Duration, to: Duration, behaviour: Behaviour) -> Self {
        Self(vec![(Duration::ZERO, Behaviour::Healthy), (from, behaviour), (to, Behaviour::Healthy)])
    }

    /// The behaviour at `now`.
    pub fn at(&self, now: Duration) -> Behaviour {
        let turn = self.0.iter().rev().find(|(from, _)| *from <= now);
        turn.map_or(Behaviour::Healthy, |(_, behaviour)| *behaviour)
    }

    /// The outcome of `planned`, sent at `now` to a `model`.
    pub fn outcome(&self, now: Duration, planned: &PlannedRequest, model: &Model, rng: &mut SimRng) -> ScriptedOutcome {
        let (context, behaviour) = (model.context.unwrap_or(u64::MAX), self.at(now));
        let ms = Duration::from_millis;
        let quick = ms(20 + rng.below(100));
        let fails = |after, failure| ScriptedOutcome::Fails { after, failure };
        let answers = |first: Duration, rng: &mut SimRng| match first + rng.spread(ms(20), ms(5_000)) {
            _ if planned.always_rejected => ScriptedOutcome::Fails { after: first, failure: Failure::Rejected },
            _ if planned.size > context => ScriptedOutcome::Fails { after: first, failure: Failure::ContextTooLong },
            end if planned.stream => ScriptedOutcome::Answers { first, end, broken: None },
            end => ScriptedOutcome::Answers { first: end, end, broken: None },
        };
        let silence = if planned.stream { Failure::FirstTokenTimeout } else { Failure::WholeTimeout };
        let longest = if planned.stream { model.first_token } else { model.whole };
        match behaviour {
            Behaviour::Healthy => answers(quick, rng),
            Behaviour::Slow => answers(quick * 20, rng),
            Behaviour::Refusing => fails(ms(1), Failure::Unreachable),
            Behaviour::Unroutable => fails(ms(750), Failure::ConnectTimeout),
            Behaviour::BlackHole => fails(longest, silence),
            Behaviour::LosesOne(many) if rng.below(many) == 0 => fails(longest, silence),
            Behaviour::SlowWithSigns => answers(ms(12_000 + rng.below(42_000)), rng),
            Behaviour::ThrottlingSome(percent) if rng.random(percent) => {
                fails(ms(5), Failure::Throttled { after: Some(ms(1_000)) })
            }
            Behaviour::RefusesContent(key) if planned.key == key => fails(quick, Failure::Status(500)),
            Behaviour::LosesOne(_) | Behaviour::ThrottlingSome(_) | Behaviour::RefusesContent(_) => answers(quick, rng),
            Behaviour::CutsLate if planned.stream => {
                ScriptedOutcome::Answers { first: quick, end: quick + ms(5_000), broken: Some(Failure::Truncated) }
            }
            Behaviour::CutsLate => fails(ms(5_000), Failure::Truncated),
            Behaviour::Failing(status) => fails(quick, Failure::Status(status)),
            Behaviour::Sick if rng.random(50) => fails(quick, Failure::Status(502)),
            Behaviour::Sick => answers(quick, rng),
            Behaviour::Throttling(after) => fails(ms(5), Failure::Throttled { after }),
            Behaviour::Flapping if (now.as_millis() / 500).is_multiple_of(2) => fails(ms(1), Failure::Unreachable),
            Behaviour::Flapping => answers(quick, rng),
            Behaviour::Cutting => match answers(quick, rng) {
                ScriptedOutcome::Answers { first, end, .. } => {
                    ScriptedOutcome::Answers { first, end, broken: Some(Failure::Truncated) }
                }
                refused => refused,
            },
            Behaviour::Resetting => fails(ms(2), Failure::Reset),
            Behaviour::Garbled => fails(quick, Failure::Garbage),
            Behaviour::Unauthorized => fails(ms(5), Failure::CredentialRefused),
            Behaviour::Missing => fails(ms(5), Failure::NotFound),
        }
    }
}
