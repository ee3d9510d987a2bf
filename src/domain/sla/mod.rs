//! The SLA of a policy: what is promised, which requests count, and how each of them counts.
//!
//! It exists so that an outage is worth the same to everybody who reads of it: report, closing and credit all come from
//! [`SlaReceipt::class`]. It must never read a clock: instants are Unix milliseconds that are passed in. Shares are
//! hundredths of a percent, as they are configured.
//!
//! Start reading at [`SlaReceipt::class`], then in [`tally`], [`closing`] and [`report`].

pub mod closing;
pub mod month;
pub mod probe;
pub mod report;
pub mod tally;

use crate::domain::budget::Zone;
use crate::domain::id::RequestId;
use crate::domain::money::NanoUsd;
use crate::domain::reason::Reason;
use crate::domain::receipt::{Outcome, Receipt};
use std::sync::Arc;
use std::time::Duration;

/// A whole, in hundredths of a percent.
pub const WHOLE_BP: u32 = 10_000;
/// No client is said to have waited in vain before this time, however short the objective is.
const LEAST_PATIENCE: Duration = Duration::from_secs(5);

/// What a policy promises, and what is given back when it is not kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlaTerms {
    /// The promised uptime, in hundredths of a percent.
    pub uptime_bp: u32,
    /// The objective for the first token of a stream. It is reported; credit follows from the uptime alone.
    pub first_token: Option<SlaFirstToken>,
    /// What is given back, from the highest threshold and the lowest credit on.
    pub credits: Vec<SlaCreditStep>,
    /// How the uptime is computed.
    pub measure: SlaMeasure,
    /// With fewer eligible requests in a month, there is no credit.
    pub min_requests: u64,
    /// The zone whose months count.
    pub zone: Zone,
}

/// The objective for the first token of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlaFirstToken {
    /// At least this share of the streams that were answered, in hundredths of a percent …
    pub share_bp: u32,
    /// … has its first token within this time of the request.
    pub within: Duration,
}

/// One step of the credit that is given back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlaCreditStep {
    /// With an uptime below this, in hundredths of a percent …
    pub below_bp: u32,
    /// … this share of what was spent is given back, in hundredths of a percent.
    pub credit_bp: u32,
}

/// How an uptime is computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SlaMeasure {
    /// The share of eligible requests that did not fail.
    Requests,
    /// The mean of that share over all intervals of five minutes.
    FiveMinutes,
}

impl SlaMeasure {
    /// Its name in the configuration and in reports.
    pub fn label(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::FiveMinutes => "5m",
        }
    }
}

/// What an SLA reads of a receipt.
#[derive(Clone, Debug)]
pub struct SlaReceipt {
    /// The request.
    pub id: RequestId,
    /// When it was received, in Unix milliseconds.
    pub received_unix_ms: i64,
    /// Its key.
    pub key: Arc<str>,
    /// The key's team at that time.
    pub team: Option<Arc<str>>,
    /// How it ended.
    pub outcome: Outcome,
    /// The reason of that end.
    pub reason: Reason,
    /// The HTTP status that the client read.
    pub status: u16,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// From the request received to its first token.
    pub first_token: Option<Duration>,
    /// From the request received to its end.
    pub duration: Duration,
    /// What it cost.
    pub cost: NanoUsd,
    /// Whether an injected fault may have changed what became of it.
    pub injected: bool,
}

/// How a request counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SlaClass {
    /// Eligible, and it did not fail.
    Good,
    /// Eligible, and it failed through the gateway or its providers.
    Failed,
    /// Not eligible: how it ended is its client's own doing, or that of a rehearsal.
    NotEligible,
}

impl SlaReceipt {
    /// What an SLA reads of `receipt`; `None` of one without a known key.
    pub fn of(receipt: &Receipt) -> Option<Self> {
        Some(Self {
            id: receipt.id,
            received_unix_ms: receipt.received_unix_ms,
            key: receipt.key.clone()?,
            team: receipt.team.clone(),
            outcome: receipt.outcome,
            reason: receipt.reason,
            status: receipt.status,
            stream: receipt.stream,
            first_token: receipt.first_token,
            duration: receipt.duration,
            cost: receipt.cost,
            injected: receipt.met_injected_fault(),
        })
    }

    /// How the request counts under `terms`. Where it could be both, it failed; but what met an injected fault says nothing
    /// of what was promised.
    pub fn class(&self, terms: &SlaTerms) -> SlaClass {
        match self.outcome {
            _ if self.injected => SlaClass::NotEligible,
            Outcome::Served => SlaClass::Good,
            _ if failed_through_us(self.outcome, self.reason, self.status) => SlaClass::Failed,
            Outcome::Abandoned if self.waited_in_vain(terms) => SlaClass::Failed,
            Outcome::Refused | Outcome::Failed | Outcome::Broken | Outcome::Abandoned => SlaClass::NotEligible,
        }
    }

    /// Whether its client left a stream without a first token after more time than it had to wait. A whole answer has no
    /// first token to wait for: its client may have left in the middle of an answer that was on its way.
    fn waited_in_vain(&self, terms: &SlaTerms) -> bool {
        let objective = terms.first_token.map_or(Duration::ZERO, |objective| objective.within);
        self.stream && self.first_token.is_none() && self.duration >= objective.max(LEAST_PATIENCE)
    }
}

/// Whether a request that ended so failed through the gateway or its providers. Why a client left is not looked at.
pub fn failed_through_us(outcome: Outcome, reason: Reason, status: u16) -> bool {
    match outcome {
        Outcome::Served | Outcome::Abandoned => false,
        Outcome::Broken => true,
        Outcome::Refused | Outcome::Failed => status >= 500 || is_ours(reason),
    }
}

/// Whether a request that was refused or failed for `reason` did so through the gateway or its providers.
fn is_ours(reason: Reason) -> bool {
    match reason {
        // What the client asked for, or how; what its key may do or spend; what it did itself.
        Reason::Served
        | Reason::ClientGone
        | Reason::InvalidJson
        | Reason::InvalidValue
        | Reason::RequestTooLarge
        | Reason::RequestTimeout
        | Reason::UnsupportedContentEncoding
        | Reason::InvalidApiKey
        | Reason::UnknownUrl
        | Reason::MethodNotAllowed
        | Reason::ModelNotFound
        | Reason::ModelNotAllowed
        | Reason::ResidencyUnavailable
        | Reason::NotServed
        | Reason::StateNotFound
        | Reason::RateLimitExceeded
        | Reason::InsufficientQuota
        | Reason::Rejected
        | Reason::ContextTooLong => false,
        // Within its limits, and not served.
        Reason::LedgerUnavailable
        | Reason::BudgetPaused
        | Reason::SlowDown
        | Reason::NoDeploymentAvailable
        | Reason::Internal
        | Reason::Shutdown => true,
        // No provider answered, or none as it should.
        Reason::Unreachable
        | Reason::ConnectTimeout
        | Reason::Reset
        | Reason::FirstTokenTimeout
        | Reason::WholeTimeout
        | Reason::IdleTimeout
        | Reason::Deadline
        | Reason::UpstreamStatus
        | Reason::Garbage
        | Reason::Unreadable
        | Reason::NotHeld
        | Reason::NoAnswer
        | Reason::Truncated
        | Reason::Diverged
        | Reason::ErrorInside
        | Reason::Throttled
        | Reason::CredentialRefused
        | Reason::AccountRefused
        | Reason::UpstreamNotFound
        | Reason::UpstreamNoEndpoint
        | Reason::Silent
        | Reason::Overtaken => true,
    }
}

/// `value`, in steps of one percent by ten to the power of `decimals`, as people write it: `99.87%`.
pub fn percent_text(value: u32, decimals: u32) -> String {
    let steps = 10_u32.pow(decimals);
    let width = usize::try_from(decimals).unwrap_or_default();
    let text = format!("{}.{:0width$}", value / steps, value % steps);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// 99.9 %, or 10 % back; below 99 %, 25 %.
    pub(crate) fn terms() -> SlaTerms {
        SlaTerms {
            uptime_bp: 9_990,
            first_token: Some(SlaFirstToken { share_bp: 9_500, within: Duration::from_millis(500) }),
            credits: vec![
                SlaCreditStep { below_bp: 9_990, credit_bp: 1_000 },
                SlaCreditStep { below_bp: 9_900, credit_bp: 2_500 },
            ],
            measure: SlaMeasure::Requests,
            min_requests: 100,
            zone: Zone::named("UTC").expect("UTC is built in"),
        }
    }

    /// Request `number` of `key`, a stream that was served 400 ms after it was received and cost a thousandth of a dollar.
    pub(crate) fn served(number: u128, key: &str, received_unix_ms: i64) -> SlaReceipt {
        SlaReceipt {
            id: RequestId(number),
            received_unix_ms,
            key: key.into(),
            team: None,
            outcome: Outcome::Served,
            reason: Reason::Served,
            status: 200,
            stream: true,
            first_token: Some(Duration::from_millis(400)),
            duration: Duration::from_millis(900),
            cost: NanoUsd(1_000_000),
            injected: false,
        }
    }

    fn ended(outcome: Outcome, reason: Reason, status: u16) -> SlaReceipt {
        SlaReceipt { outcome, reason, status, first_token: None, ..served(1, "app", 0) }
    }

    #[test]
    fn each_end_counts_as_it_should() {
        use Outcome::{Abandoned, Broken, Failed, Refused, Served};
        use Reason::*;
        let check = |outcome, reason, status, expected| {
            let class = ended(outcome, reason, status).class(&terms());
            assert_eq!(class, expected, "{outcome:?} {reason:?} {status}");
        };
        check(Served, Reason::Served, 200, SlaClass::Good);
        // Ours, or our providers'.
        check(Refused, SlowDown, 429, SlaClass::Failed);
        check(Refused, NoDeploymentAvailable, 503, SlaClass::Failed);
        check(Refused, LedgerUnavailable, 503, SlaClass::Failed);
        check(Failed, UpstreamStatus, 502, SlaClass::Failed);
        check(Failed, FirstTokenTimeout, 504, SlaClass::Failed);
        check(Failed, Deadline, 504, SlaClass::Failed);
        check(Failed, Throttled, 503, SlaClass::Failed);
        check(Failed, Internal, 500, SlaClass::Failed);
        check(Broken, Truncated, 200, SlaClass::Failed);
        check(Broken, Shutdown, 200, SlaClass::Failed);
        // The client's.
        check(Refused, InvalidJson, 400, SlaClass::NotEligible);
        check(Refused, ModelNotAllowed, 403, SlaClass::NotEligible);
        check(Refused, ResidencyUnavailable, 403, SlaClass::NotEligible);
        check(Refused, RateLimitExceeded, 429, SlaClass::NotEligible);
        check(Refused, InsufficientQuota, 429, SlaClass::NotEligible);
        check(Failed, Rejected, 400, SlaClass::NotEligible);
        check(Failed, ContextTooLong, 400, SlaClass::NotEligible);
        check(Abandoned, ClientGone, 499, SlaClass::NotEligible);
        // Both: it failed.
        check(Failed, Rejected, 500, SlaClass::Failed);
        // A rehearsal's, however it ended.
        for (outcome, reason, status) in [(Served, Reason::Served, 200), (Failed, Reset, 502), (Broken, Truncated, 200)]
        {
            let rehearsed = SlaReceipt { injected: true, ..ended(outcome, reason, status) };
            assert_eq!(rehearsed.class(&terms()), SlaClass::NotEligible, "{outcome:?} {reason:?} {status}");
        }
    }

    #[test]
    fn shares_are_shown_as_people_write_them() {
        let check = |value, decimals, expected: &str| assert_eq!(percent_text(value, decimals), expected);
        check(9_990, 2, "99.9%");
        check(10_000, 2, "100%");
        check(998_700, 4, "99.87%");
        check(999_999, 4, "99.9999%");
        check(1, 4, "0.0001%");
        check(0, 2, "0%");
        check(2_000, 2, "20%");
    }

    #[test]
    fn a_client_that_waited_in_vain_left_because_of_us() {
        let check = |stream, first_token_ms: Option<u64>, waited_ms, objective_ms: Option<u64>, expected| {
            let receipt = SlaReceipt {
                stream,
                first_token: first_token_ms.map(Duration::from_millis),
                duration: Duration::from_millis(waited_ms),
                ..ended(Outcome::Abandoned, Reason::ClientGone, 499)
            };
            let within = objective_ms.map(Duration::from_millis);
            let first_token = within.map(|within| SlaFirstToken { share_bp: 9_500, within });
            let class = receipt.class(&SlaTerms { first_token, ..terms() });
            assert_eq!(class == SlaClass::Failed, expected, "{stream} {first_token_ms:?} {waited_ms} {objective_ms:?}");
        };
        check(true, None, 5_000, Some(500), true);
        check(true, None, 4_999, Some(500), false);
        check(true, None, 5_000, None, true);
        check(true, None, 7_999, Some(8_000), false);
        check(true, None, 8_000, Some(8_000), true);
        check(true, Some(400), 60_000, Some(500), false);
        check(false, None, 60_000, Some(500), false);
    }
}
