//! Scripted deployments: healthy, slow, failing or silent.
//!
//! They must never know a breaker or a plan: the outcome of an attempt depends on time and request only.
//! Start reading in [`Script::outcome`].

use crate::world::{Burst, PlannedRequest, SimRng};
use std::time::Duration;
use tierway::domain::failure::Failure;

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
            turns.push((at, if behaviour == Self::Cutting { Self::Refusing } else { behaviour }));
            at += Duration::from_millis(1_000 + rng.below(9_000));
        }
        Script(turns)
    }

    fn any(rng: &mut SimRng) -> Self {
        if rng.random(45) {
            return Self::Healthy;
        }
        let status = rng.pick(&[500, 500, 503, 529]);
        let after = rng.pick(&[0, 300, 1_500, 8_000, 900_000]);
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

    /// The outcome of `planned`, sent at `now` to a model of this `context`.
    pub fn outcome(&self, now: Duration, planned: &PlannedRequest, context: u64, rng: &mut SimRng) -> ScriptedOutcome {
        let turn = self.0.iter().rev().find(|(from, _)| *from <= now);
        let behaviour = turn.map_or(Behaviour::Healthy, |(_, behaviour)| *behaviour);
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
        match behaviour {
            Behaviour::Healthy => answers(quick, rng),
            Behaviour::Slow => answers(quick * 20, rng),
            Behaviour::Refusing => fails(ms(1), Failure::Unreachable),
            Behaviour::Unroutable => fails(ms(750), Failure::ConnectTimeout),
            Behaviour::BlackHole => fails(ms(if planned.stream { 10_000 } else { 120_000 }), silence),
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
