//! Which endpoints a deployment's host seems not to have.
//!
//! It exists because a host that serves a model need not serve it on every path: what is missing rests for itself, and the
//! deployment's other endpoints know nothing of it. A request cannot choose its path, but a host may fetch what a client
//! names and answer with what it got. So what one team met speaks to that team alone, as with every [`Rest`], and where an
//! answer was good lately nothing rests.
//!
//! Start reading in [`EndpointRests::of_mut`].

use super::Availability;
use super::rest::{Rest, RestRule};
use crate::domain::call::Endpoint;
use crate::domain::id::TeamId;
use std::time::Instant;

/// The rests of one deployment's endpoints.
#[derive(Clone, Default, Debug)]
pub struct EndpointRests {
    /// Of those that were asked for: no more than there are endpoints.
    rests: Vec<(Endpoint, Rest)>,
}

impl EndpointRests {
    /// Whether `team` may ask for `endpoint` at `now`.
    pub fn availability(&self, endpoint: Endpoint, team: TeamId, now: Instant) -> Availability {
        let known = self.rests.iter().find(|(of, _)| *of == endpoint);
        known.map_or(Availability::Flowing { share: 1.0 }, |(_, rest)| rest.availability(team, now))
    }

    /// What is known of `endpoint`.
    pub fn of_mut(&mut self, endpoint: Endpoint) -> &mut Rest {
        let known = self.rests.iter().position(|(of, _)| *of == endpoint);
        let index = known.unwrap_or_else(|| {
            self.rests.push((endpoint, Rest::new(RestRule::no_endpoint())));
            self.rests.len() - 1
        });
        &mut self.rests[index].1
    }

    /// Those that rest, for whichever team.
    pub fn resting(&self, now: Instant) -> impl Iterator<Item = Endpoint> + '_ {
        self.rests.iter().filter(move |(_, rest)| rest.resting_until(now).is_some()).map(|(endpoint, _)| *endpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::random::RandomValue;
    use std::time::Duration;

    const A: TeamId = TeamId(1);
    const B: TeamId = TeamId(2);
    const MIDDLE: RandomValue = RandomValue(1 << 63);
    const SECOND: Duration = Duration::from_secs(1);

    fn is_blocked(rests: &EndpointRests, endpoint: Endpoint, team: TeamId, now: Instant) -> bool {
        matches!(rests.availability(endpoint, team, now), Availability::Blocked { .. })
    }

    #[test]
    fn an_endpoint_rests_for_itself_and_is_asked_again() {
        let now = Instant::now();
        let mut rests = EndpointRests::default();
        for endpoint in Endpoint::ALL {
            rests = EndpointRests::default();
            assert!(!rests.of_mut(endpoint).bad(A, false, None, now, MIDDLE), "once may be an accident");
            assert!(rests.of_mut(endpoint).bad(A, false, None, now, MIDDLE));
            assert_eq!(rests.resting(now).collect::<Vec<_>>(), [endpoint]);
            for other in Endpoint::ALL {
                assert_eq!(is_blocked(&rests, other, A, now), other == endpoint, "{endpoint:?} {other:?}");
                assert!(!is_blocked(&rests, other, B, now), "what A met says nothing to B");
            }
            assert!(!is_blocked(&rests, endpoint, A, now + 30 * SECOND));
        }
        let last = Endpoint::Conversations;
        assert_eq!(rests.of_mut(last).take(A, now + 30 * SECOND), Some(true));
        rests.of_mut(last).good(A, now + 31 * SECOND);
        assert_eq!(rests.resting(now + 31 * SECOND).next(), None);
    }

    #[test]
    fn an_endpoint_that_answered_lately_is_there() {
        let now = Instant::now();
        let mut rests = EndpointRests::default();
        rests.of_mut(Endpoint::Responses).good(A, now);
        for second in 0..300 {
            let rest = rests.of_mut(Endpoint::Responses);
            assert!(!rest.bad(if second % 2 == 0 { A } else { B }, false, None, now + second * SECOND, MIDDLE));
        }
        assert!(rests.of_mut(Endpoint::Responses).bad(A, false, None, now + 300 * SECOND, MIDDLE));
    }
}
