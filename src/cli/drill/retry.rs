//! A client that retries as the official ones do: twice, what may pass by itself, when it is told to or after a pause.
//!
//! Start reading at [`ask`].

use super::client::{self, ClientAnswer, ClientRequest, RefusalStatus};
use crate::clock::Clock;
use crate::domain::drill::DrillRefusal;
use crate::domain::random::RandomValue;
use std::time::Duration;

/// The tries after the first.
const RETRIES: u32 = 2;
/// A time to wait beyond this is not kept.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The first pause where no time is given, and the longest one; each is up to a quarter shorter.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(8));

/// Sends `request` until it is answered or given up, with `retries` or once only; returns what came of it in the end, and
/// each reply that was no answer. The answer's time is that from the first try on.
pub(super) async fn ask(
    request: &ClientRequest,
    retries: bool,
    draw: RandomValue,
    clock: Clock,
) -> (ClientAnswer, Vec<DrillRefusal>) {
    let (since, mut refusals) = (clock.now(), Vec::new());
    for retry in 0.. {
        let answer = client::ask(request, since, clock).await;
        let Some(refused) = answer.refused else { return (answer, refusals) };
        refusals.push(DrillRefusal { status: refused.status, says_when: refused.retry_after.is_some() });
        if !retries || retry >= RETRIES || !refused.may_pass() {
            return (answer, refusals);
        }
        clock.sleep(refused.pause(retry, draw.salted(u64::from(retry)))).await;
    }
    unreachable!("the tries are counted")
}

impl RefusalStatus {
    /// Whether the official clients try again.
    fn may_pass(self) -> bool {
        let by_status = self.status.is_none_or(|status| matches!(status, 408 | 409 | 429) || status >= 500);
        self.should_retry.unwrap_or(by_status)
    }

    /// How long they wait before the try that follows `retry` others.
    fn pause(self, retry: u32, draw: RandomValue) -> Duration {
        match self.retry_after {
            Some(after) if !after.is_zero() && after <= LONGEST_WAIT => after,
            _ => (PAUSE.0 * 2_u32.saturating_pow(retry)).min(PAUSE.1).mul_f64(1.0 - 0.25 * draw.unit()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_tried_again() {
        let refused = |status, should_retry| RefusalStatus { status, should_retry, retry_after: None };
        for (status, says, expected) in [
            (Some(429), None, true),
            (Some(408), None, true),
            (Some(503), None, true),
            (Some(400), None, false),
            (Some(404), None, false),
            (None, None, true),
            (Some(429), Some(false), false),
            (Some(400), Some(true), true),
        ] {
            assert_eq!(refused(status, says).may_pass(), expected, "{status:?} {says:?}");
        }
    }

    #[test]
    fn a_pause_is_as_long_as_it_is_said_and_grows_where_nothing_is() {
        let pause = |retry_after: Option<u64>, retry, draw| {
            let reply = RefusalStatus { retry_after: retry_after.map(Duration::from_secs), ..RefusalStatus::default() };
            reply.pause(retry, RandomValue(draw)).as_millis()
        };
        assert_eq!((pause(Some(3), 0, 0), pause(Some(60), 1, 0)), (3_000, 60_000));
        assert_eq!((pause(None, 0, 0), pause(None, 1, 0), pause(None, 9, 0)), (500, 1_000, 8_000));
        assert_eq!((pause(Some(0), 0, 0), pause(Some(61), 1, 0)), (500, 1_000));
        assert!((375..=376).contains(&pause(None, 0, u64::MAX)));
    }
}
