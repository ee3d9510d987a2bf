//! One receipt for each outcome of a request, for the tests of this module.

use crate::domain::call::Endpoint;
use crate::domain::id::RequestId;
use crate::domain::limit::LimitKind;
use crate::domain::money::NanoUsd;
use crate::domain::reason::Reason;
use crate::domain::receipt::{AttemptRecord, Outcome, Receipt, ServingDeployment};
use crate::domain::usage::Usage;
use std::time::Duration;

/// One for each outcome.
pub(super) fn receipts() -> Vec<Receipt> {
    vec![served(), fallen_back(), refused(), unauthenticated(), failed(), broken(), abandoned()]
}

/// Answered by the first attempt.
pub(super) fn served() -> Receipt {
    Receipt {
        id: RequestId(0x0199_0000_0000_7000_8000_0000_0000_0001),
        received_unix_ms: 1_795_359_423_007,
        endpoint: Some(Endpoint::Chat),
        key: Some("alice".into()),
        team: Some("search".into()),
        policy: Some("standard".into()),
        asked_model: Some("auto".into()),
        stream: true,
        served: Some(at("eu-1")),
        attempts: vec![attempt("eu-1", Reason::Served, 480)],
        outcome: Outcome::Served,
        reason: Reason::Served,
        limit: None,
        status: 200,
        usage: Some(Usage { input: 1_000, cached_input: 200, output: 50, reasoning: 10 }),
        estimated: false,
        price: None,
        price_version: None,
        cost: NanoUsd(21_300),
        charges: Vec::new(),
        first_token: Some(Duration::from_millis(480)),
        duration: Duration::from_micros(2_345_678),
        overhead: Duration::from_micros(87),
    }
}

/// Answered by the third attempt, at the second deployment.
fn fallen_back() -> Receipt {
    Receipt {
        served: Some(at("us-1")),
        attempts: vec![
            attempt("eu-1", Reason::Throttled, 12),
            attempt("eu-1", Reason::Unreachable, 3),
            attempt("us-1", Reason::Served, 700),
        ],
        estimated: true,
        first_token: Some(Duration::from_millis(715)),
        ..served()
    }
}

/// Over a limit.
pub(super) fn refused() -> Receipt {
    Receipt {
        outcome: Outcome::Refused,
        reason: Reason::RateLimitExceeded,
        limit: Some(LimitKind::Tokens),
        status: 429,
        ..untried()
    }
}

/// Refused for its key, before anything else of it was read.
fn unauthenticated() -> Receipt {
    Receipt {
        endpoint: None,
        key: None,
        team: None,
        policy: None,
        asked_model: None,
        outcome: Outcome::Refused,
        reason: Reason::InvalidApiKey,
        status: 401,
        ..untried()
    }
}

/// Tried and failed everywhere.
fn failed() -> Receipt {
    Receipt {
        served: Some(at("us-1")),
        attempts: vec![attempt("eu-1", Reason::FirstTokenTimeout, 10_000), attempt("us-1", Reason::UpstreamStatus, 40)],
        outcome: Outcome::Failed,
        reason: Reason::UpstreamStatus,
        status: 502,
        duration: Duration::from_millis(10_050),
        ..untried()
    }
}

/// Broken after the commit point.
fn broken() -> Receipt {
    Receipt { outcome: Outcome::Broken, reason: Reason::Truncated, estimated: true, ..served() }
}

/// Its client disconnected before the first token.
fn abandoned() -> Receipt {
    Receipt {
        served: Some(at("eu-1")),
        attempts: vec![attempt("eu-1", Reason::ClientGone, 200)],
        outcome: Outcome::Abandoned,
        reason: Reason::ClientGone,
        status: 499,
        ..untried()
    }
}

/// Without an attempt and without usage.
fn untried() -> Receipt {
    Receipt {
        stream: false,
        served: None,
        attempts: Vec::new(),
        usage: None,
        cost: NanoUsd::ZERO,
        first_token: None,
        duration: Duration::from_micros(214),
        ..served()
    }
}

fn at(deployment: &str) -> ServingDeployment {
    let (model, region) = ("org/model-1".into(), deployment[..2].into());
    ServingDeployment { model, deployment: deployment.into(), tier: Some("default".into()), region }
}

fn attempt(deployment: &str, reason: Reason, ms: u64) -> AttemptRecord {
    let duration = Duration::from_millis(ms);
    AttemptRecord { deployment: deployment.into(), tier: Some("default".into()), reason, duration }
}
