//! One receipt for each outcome of a request, for the tests of this module.

use crate::domain::call::Endpoint;
use crate::domain::id::RequestId;
use crate::domain::limit::LimitKind;
use crate::domain::money::NanoUsd;
use crate::domain::reason::Reason;
use crate::domain::receipt::{
    AttemptRecord, Outcome, PassedOverDeployment, PassedOverReason, PlannedModel, Receipt, ServingDeployment,
};
use crate::domain::usage::Usage;
use std::time::Duration;

/// One for each outcome.
pub(super) fn receipts() -> Vec<Receipt> {
    vec![
        served(),
        whole(),
        fallen_back(),
        passed_over(),
        refused(),
        unauthenticated(),
        failed(),
        unavailable(),
        broken(),
        abandoned(),
    ]
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
        meant: Some(meant("org/model-1")),
        served: Some(at("eu-1")),
        attempts: vec![attempt("eu-1", Reason::Served, 0, 480)],
        passed_over: Vec::new(),
        outcome: Outcome::Served,
        reason: Reason::Served,
        limit: None,
        status: 200,
        usage: Some(Usage { input: 1_000, cached_input: 200, output: 50, reasoning: 10, ..Usage::default() }),
        estimated: false,
        price: None,
        price_version: None,
        cost: NanoUsd(21_300),
        charges: Vec::new(),
        first_token: Some(Duration::from_millis(480)),
        failover: None,
        duration: Duration::from_micros(2_345_678),
        overhead: Duration::from_micros(87),
    }
}

/// A whole answer.
fn whole() -> Receipt {
    Receipt { stream: false, ..served() }
}

/// Answered by another model than the first of its plan, which was not asked.
pub(super) fn passed_over() -> Receipt {
    let open = PassedOverDeployment {
        tier: Some("default".into()),
        model: "org/model-0".into(),
        deployment: "us-0".into(),
        why: PassedOverReason::Open,
        until: Some(Duration::from_millis(1_500)),
        injected: false,
    };
    Receipt { meant: Some(meant("org/model-0")), passed_over: vec![open], ..served() }
}

/// Refused, because nothing could be asked.
fn unavailable() -> Receipt {
    let PassedOverDeployment { tier, model, deployment, .. } = passed_over().passed_over.remove(0);
    let full =
        PassedOverDeployment { tier, model, deployment, why: PassedOverReason::Full, until: None, injected: false };
    Receipt {
        passed_over: vec![full],
        outcome: Outcome::Refused,
        reason: Reason::NoDeploymentAvailable,
        status: 503,
        ..untried()
    }
}

/// Answered by the third attempt, at the second deployment.
fn fallen_back() -> Receipt {
    Receipt {
        served: Some(at("us-1")),
        attempts: vec![
            attempt("eu-1", Reason::Throttled, 0, 12),
            attempt("eu-1", Reason::Unreachable, 12, 3),
            attempt("us-1", Reason::Served, 15, 700),
        ],
        estimated: true,
        first_token: Some(Duration::from_millis(715)),
        failover: Some(Duration::from_millis(715)),
        ..served()
    }
}

/// Over a limit.
pub(crate) fn refused() -> Receipt {
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
        meant: None,
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
        attempts: vec![
            attempt("eu-1", Reason::FirstTokenTimeout, 0, 10_000),
            attempt("us-1", Reason::UpstreamStatus, 10_000, 40),
        ],
        outcome: Outcome::Failed,
        reason: Reason::UpstreamStatus,
        status: 502,
        duration: Duration::from_millis(10_050),
        ..untried()
    }
}

/// Broken after the commit point.
fn broken() -> Receipt {
    Receipt {
        attempts: vec![attempt("eu-1", Reason::Truncated, 0, 480)],
        outcome: Outcome::Broken,
        reason: Reason::Truncated,
        estimated: true,
        ..served()
    }
}

/// Its client disconnected before the first token.
fn abandoned() -> Receipt {
    Receipt {
        served: Some(at("eu-1")),
        attempts: vec![attempt("eu-1", Reason::ClientGone, 0, 200)],
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

fn meant(model: &str) -> PlannedModel {
    PlannedModel { model: model.into(), tier: Some("default".into()) }
}

/// An attempt that was sent `started` ms after the request was received, and took `ms`.
fn attempt(deployment: &str, reason: Reason, started: u64, ms: u64) -> AttemptRecord {
    let ServingDeployment { model, deployment, tier, region } = at(deployment);
    let [started, duration] = [started, ms].map(Duration::from_millis);
    AttemptRecord {
        deployment,
        tier,
        model: Some(model),
        region: Some(region),
        reason,
        started: Some(started),
        duration,
        provider_request_id: None,
        injected: false,
    }
}
