//! Why a request or an attempt ended as it did: a closed set of labels.
//!
//! It exists so that receipts, metrics and logs name an end by the same word, of which there are few enough for a
//! label. A reason never carries a client's text. Refusals and failures each map to one.

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
    /// It refers to something that was not made for its key.
    StateNotFound => "state_not_found",
    /// Over one of the key's limits.
    RateLimitExceeded => "rate_limit_exceeded",
    /// A budget has too little left for it.
    InsufficientQuota => "insufficient_quota",
    /// Costs cannot be recorded.
    LedgerUnavailable => "ledger_unavailable",
    /// Requests with a budget are kept from every deployment that could serve it.
    BudgetPaused => "budget_paused",
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
    /// A 5xx of the provider, or another status that speaks of trouble there.
    UpstreamStatus => "upstream_status",
    /// An answer that is not what it claims to be.
    Garbage => "garbage",
    /// An answer beyond what the gateway reads.
    Unreadable => "unreadable",
    /// An answer for which there was no memory left, or none for its key.
    NotHeld => "not_held",
    /// A complete answer without a choice or a vector.
    NoAnswer => "no_answer",
    /// An answer that ended too soon.
    Truncated => "truncated",
    /// An error in the body of a 200.
    ErrorInside => "error_inside",
    /// Another answer than the client had a part of.
    Diverged => "diverged",
    /// Throttled by the provider.
    Throttled => "throttled",
    /// Our credential was refused.
    CredentialRefused => "credential_refused",
    /// Our account was refused.
    AccountRefused => "account_refused",
    /// The provider knows no such model or path.
    UpstreamNotFound => "upstream_not_found",
    /// The provider does not have the endpoint.
    UpstreamNoEndpoint => "upstream_no_endpoint",
    /// The provider refused the request itself.
    Rejected => "rejected",
    /// Longer than the model's context.
    ContextTooLong => "context_too_long",
    /// The deployment was silent, and another one was asked.
    Silent => "silent",
    /// Another attempt of the request was answered first.
    Overtaken => "overtaken",
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
