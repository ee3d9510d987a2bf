//! The receipt: how a request ended and what it cost. Exactly one for each request.
//!
//! It exists so that ledger, metrics, budgets and the access log read the same facts. A receipt
//! contains configured names and numbers only and must never contain a secret, a prompt or an answer. The
//! model name as the client wrote it is included, because operators search for it; it must never be a label.

use crate::domain::budget::Charge;
use crate::domain::call::Endpoint;
use crate::domain::id::RequestId;
use crate::domain::money::NanoUsd;
use crate::domain::pricing::Price;
use crate::domain::refusal::LimitKind;
use crate::domain::usage::Usage;
use std::sync::Arc;
use std::time::Duration;

/// The end of one request, with its cost.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// The request's identifier.
    pub id: RequestId,
    /// When it was received, in Unix milliseconds.
    pub received_unix_ms: i64,
    /// The endpoint; `None` for a path that is not served.
    pub endpoint: Option<Endpoint>,
    /// The name of the key; `None` without a valid one.
    pub key: Option<Arc<str>>,
    /// The key's team.
    pub team: Option<Arc<str>>,
    /// The key's policy.
    pub policy: Option<Arc<str>>,
    /// The model as the client wrote it; `None` when the body was not read or is invalid.
    pub asked_model: Option<Box<str>>,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// The deployment that served it, or that was tried last.
    pub served: Option<Served>,
    /// Every attempt, in order.
    pub attempts: Vec<AttemptRecord>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, as a closed label.
    pub reason: Reason,
    /// The limit that refused it.
    pub limit: Option<LimitKind>,
    /// The HTTP status that the client read; 499 when it disconnected before it could read one.
    pub status: u16,
    /// Tokens, where known.
    pub usage: Option<Usage>,
    /// Whether `usage`, or a part of `cost`, is an estimate of the gateway.
    pub estimated: bool,
    /// The price of the answer's tokens; `None` where nothing answered, or no price is known.
    pub price: Option<Price>,
    /// The version of that price; `None` on receipts written before prices had versions.
    pub price_version: Option<Arc<str>>,
    /// What it cost, over all attempts that may have to be paid for.
    pub cost: NanoUsd,
    /// The part of that charged to each budget; empty for a key without one.
    pub charges: Vec<Charge>,
    /// From the request received to the first token received.
    pub first_token: Option<Duration>,
    /// From the request received to its end.
    pub duration: Duration,
    /// The part of `duration`, up to the first byte of the answer, that was spent in the gateway
    /// and not in waiting for the client, a provider or a pause.
    pub overhead: Duration,
}

/// The deployment behind an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Served {
    /// The configured name of the model.
    pub model: Arc<str>,
    /// The deployment's name.
    pub deployment: Arc<str>,
    /// The tier it was reached through; `None` for a model outside every allowed tier.
    pub tier: Option<Arc<str>>,
    /// The deployment's region.
    pub region: Arc<str>,
}

/// One attempt at one deployment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AttemptRecord {
    /// The deployment's name.
    pub deployment: Arc<str>,
    /// The tier it was reached through, if any.
    pub tier: Option<Arc<str>>,
    /// How it ended; `Served` for the one that answered.
    pub reason: Reason,
    /// From the request being sent to the attempt's end, or to the commit point of the one that answered.
    pub duration: Duration,
}

/// How a request ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// Answered completely.
    Served,
    /// Refused before anything was tried.
    Refused,
    /// Every attempt failed, or the provider refused the request.
    Failed,
    /// The answer broke after the commit point.
    Broken,
    /// The client disconnected.
    Abandoned,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 5] = [Self::Served, Self::Refused, Self::Failed, Self::Broken, Self::Abandoned];

    /// Its name in logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Broken => "broken",
            Self::Abandoned => "abandoned",
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident => $label:literal,)*) => {
        /// Why a request or an attempt ended as it did: the closed set of `reason` labels.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The label in metrics and logs.
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                }
            }
        }
    };
}

reasons! {
    /// The request was answered.
    Served => "served",
    /// The client disconnected before the end.
    ClientGone => "client_gone",
    /// A bug of the gateway.
    Internal => "internal",
    /// The gateway was stopped while the answer ran.
    Shutdown => "shutdown",
    // Refusals.
    /// The body is not JSON, too deep, or wrongly encoded.
    InvalidJson => "invalid_json",
    /// A field or header has the wrong type or an impossible value.
    InvalidValue => "invalid_value",
    /// The body is too large.
    RequestTooLarge => "request_too_large",
    /// The client sent its body too slowly.
    RequestTimeout => "request_timeout",
    /// A content encoding we do not read.
    UnsupportedContentEncoding => "unsupported_content_encoding",
    /// No valid key.
    InvalidApiKey => "invalid_api_key",
    /// No such path.
    UnknownUrl => "unknown_url",
    /// The path exists, the method does not.
    MethodNotAllowed => "method_not_allowed",
    /// No such model.
    ModelNotFound => "model_not_found",
    /// The policy forbids the model.
    ModelNotAllowed => "model_not_allowed",
    /// No deployment is within the residency.
    ResidencyUnavailable => "residency_unavailable",
    /// No model here serves the endpoint or feature.
    NotServed => "not_served",
    /// Over one of the key's limits.
    RateLimitExceeded => "rate_limit_exceeded",
    /// A budget has too little left for it.
    InsufficientQuota => "insufficient_quota",
    /// Costs cannot be recorded.
    LedgerUnavailable => "ledger_unavailable",
    /// Every deployment that could serve it is full.
    SlowDown => "slow_down",
    /// Every deployment is open or resting.
    NoDeploymentAvailable => "no_deployment_available",
    // Failures.
    /// No connection could be established.
    Unreachable => "unreachable",
    /// No connection was established in time.
    ConnectTimeout => "connect_timeout",
    /// The connection broke before the answer began.
    Reset => "reset",
    /// No first token in time.
    FirstTokenTimeout => "first_token_timeout",
    /// No whole answer in time.
    WholeTimeout => "whole_timeout",
    /// Too long between two frames.
    IdleTimeout => "idle_timeout",
    /// The request's total time, or the client's deadline, passed.
    Deadline => "deadline",
    /// A 5xx or 408 of the provider.
    UpstreamStatus => "upstream_status",
    /// An answer that is not what it claims to be.
    Garbage => "garbage",
    /// An answer that ended too soon.
    Truncated => "truncated",
    /// An error in the body of a 200.
    ErrorInside => "error_inside",
    /// Throttled by the provider.
    Throttled => "throttled",
    /// Our credential was refused.
    CredentialRefused => "credential_refused",
    /// The provider knows no such model or path.
    UpstreamNotFound => "upstream_not_found",
    /// The provider refused the request itself.
    Rejected => "rejected",
    /// Longer than the model's context.
    ContextTooLong => "context_too_long",
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn labels_are_snake_case_and_distinct() {
        let labels: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.label()).collect();
        assert_eq!(labels.len(), Reason::ALL.len());
        assert!(labels.iter().all(|l| l.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
    }
}
