//! The receipt: how a request ended and what it cost. Exactly one for each request.
//!
//! It exists so that ledger, metrics, budgets and the access log read the same facts. A receipt
//! contains configured names and numbers only and must never contain a secret, a prompt or an answer. The
//! model name as the client wrote it is included, because operators search for it; it must never be a label.

use crate::domain::budget::Charge;
use crate::domain::call::Endpoint;
use crate::domain::id::RequestId;
use crate::domain::limit::LimitKind;
use crate::domain::money::NanoUsd;
use crate::domain::pricing::Price;
use crate::domain::reason::Reason;
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
    pub served: Option<ServingDeployment>,
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
pub struct ServingDeployment {
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
