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
    /// The model that its plan put first; `None` without a plan, and on receipts written before it was kept.
    pub meant: Option<PlannedModel>,
    /// The deployment that served it, or that was tried last.
    pub served: Option<ServingDeployment>,
    /// Every attempt, in order.
    pub attempts: Vec<AttemptRecord>,
    /// Deployments that the plan would have used and did not ask, because of their state at that moment. Kept where
    /// the request fell back without an attempt or was refused because nothing could be asked; else empty.
    pub passed_over: Vec<PassedOverDeployment>,
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
    /// From the first attempt being sent to the commit point of another one that answered in its place; `None` where
    /// the first one answered, or none did.
    pub failover: Option<Duration>,
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
    /// The configured name of the model; `None` on receipts written before it was kept.
    pub model: Option<Arc<str>>,
    /// The deployment's region; `None` on receipts written before it was kept.
    pub region: Option<Arc<str>>,
    /// How it ended; `Served` for the one that answered, unless its stream broke after the commit point.
    pub reason: Reason,
    /// From the request received to the attempt being sent; `None` on receipts written before it was kept. Attempts
    /// may overlap.
    pub started: Option<Duration>,
    /// From the request being sent to the attempt's end, or to the commit point of the one that answered.
    pub duration: Duration,
    /// The provider's own name for the request, where it gave one; at most 128 printable ASCII characters.
    pub provider_request_id: Option<Box<str>>,
    /// Whether a fault was injected into it.
    pub injected: bool,
}

impl AttemptRecord {
    /// The record of an attempt that was sent to `place` so long after the request was received, until it ends.
    pub fn sent(place: &ServingDeployment, started: Duration) -> Self {
        Self {
            deployment: place.deployment.clone(),
            tier: place.tier.clone(),
            model: Some(place.model.clone()),
            region: Some(place.region.clone()),
            reason: Reason::ClientGone,
            started: Some(started),
            duration: Duration::ZERO,
            provider_request_id: None,
            injected: false,
        }
    }
}

/// The model that a plan put first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlannedModel {
    /// The configured name of the model.
    pub model: Arc<str>,
    /// The tier it is reached through; `None` for a model outside every allowed tier.
    pub tier: Option<Arc<str>>,
}

/// A deployment that a plan would have used and did not ask.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PassedOverDeployment {
    /// The tier it would have been reached through, if any.
    pub tier: Option<Arc<str>>,
    /// The configured name of its model.
    pub model: Arc<str>,
    /// Its name.
    pub deployment: Arc<str>,
    /// Its state at that moment.
    pub why: PassedOverReason,
    /// From the request received to the instant from which it may be asked, where one is known.
    pub until: Option<Duration>,
    /// Whether faults were injected there at that moment or shortly before: its state may follow from them.
    pub injected: bool,
}

/// Why a plan did not ask a deployment: a closed set of labels.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PassedOverReason {
    /// Its breaker is open.
    Open,
    /// Its breaker is half-open and the one probe is in flight.
    HalfOpen,
    /// Its provider does not know the model or path, or refuses the credential: it rests.
    Resting,
    /// An attempt at it has waited for its answer longer than is usual.
    Silent,
    /// As many requests are in flight at it as it may have.
    Full,
    /// Its provider throttles: it rests.
    Throttled,
    /// Its host does not have the endpoint.
    NoEndpoint,
}

impl PassedOverReason {
    /// Every reason.
    pub const ALL: [Self; 7] =
        [Self::Open, Self::HalfOpen, Self::Resting, Self::Silent, Self::Full, Self::Throttled, Self::NoEndpoint];

    /// Its name on receipts and in the access log.
    pub fn label(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::Resting => "resting",
            Self::Silent => "silent",
            Self::Full => "full",
            Self::Throttled => "throttled",
            Self::NoEndpoint => "no_endpoint",
        }
    }
}

/// The most passed-over deployments that a receipt keeps: the first ones of the plan.
pub const MOST_PASSED_OVER: usize = 16;

/// What a receipt keeps of `all` the deployments that were passed over, in the order of the plan: each once.
pub fn passed_over(all: impl IntoIterator<Item = PassedOverDeployment>) -> Vec<PassedOverDeployment> {
    let mut kept: Vec<PassedOverDeployment> = Vec::new();
    for deployment in all {
        if kept.len() == MOST_PASSED_OVER {
            break;
        }
        if !kept.iter().any(|other| other.deployment == deployment.deployment) {
            kept.push(deployment);
        }
    }
    kept
}

impl Receipt {
    /// How many bytes of memory it takes. Configured names are not counted: it shares them.
    pub fn size(&self) -> usize {
        let text = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
        let attempts = self.attempts.iter().map(|attempt| size_of_val(attempt) + text(&attempt.provider_request_id));
        size_of_val(self)
            + text(&self.asked_model)
            + attempts.sum::<usize>()
            + size_of_val(&self.passed_over[..])
            + size_of_val(&self.charges[..])
    }

    /// Whether an injected fault may have changed what became of it: one of its attempts met it, or a deployment was passed
    /// over after others had.
    pub fn met_injected_fault(&self) -> bool {
        self.attempts.iter().any(|attempt| attempt.injected) || self.passed_over.iter().any(|passed| passed.injected)
    }

    /// The attempts up to the one that answered; all of them where none did.
    pub fn attempts_until_answer(&self) -> &[AttemptRecord] {
        let Some(served) = self.served.as_ref().filter(|_| self.first_token.is_some()) else { return &self.attempts };
        // A stream that broke has given its reason to its attempt.
        let answered = self.attempts.iter().rposition(|attempt| {
            attempt.deployment == served.deployment
                && (attempt.reason == Reason::Served || attempt.reason == self.reason)
        });
        answered.map_or(&self.attempts[..], |at| &self.attempts[..=at])
    }

    /// The attempts that were made after its first token, to go on with an answer that broke off.
    pub fn replays(&self) -> impl Iterator<Item = &AttemptRecord> {
        let first_token = self.first_token.unwrap_or(Duration::MAX);
        self.attempts.iter().filter(move |attempt| attempt.started.is_some_and(|started| started >= first_token))
    }

    /// How the provider names the request: that of the attempt that answered, or of the last one where none did.
    pub fn provider_request_id(&self) -> Option<&str> {
        self.attempts_until_answer().last()?.provider_request_id.as_deref()
    }

    /// The attempt in whose place another one answered, for a request that has a failover time: the first.
    pub fn failed_over_from(&self) -> Option<&AttemptRecord> {
        self.failover.and(self.attempts.first())
    }

    /// The model meant, where the request was answered by another model, or through another tier.
    pub fn meant_elsewhere(&self) -> Option<(&PlannedModel, &ServingDeployment)> {
        let (meant, served) = (self.meant.as_ref()?, self.served.as_ref()?);
        let elsewhere = meant.model != served.model || meant.tier != served.tier;
        (self.first_token.is_some() && elsewhere).then_some((meant, served))
    }

    /// The reason of the first attempt at the model meant; `None` where there was no attempt at it.
    pub fn reason_at_meant(&self) -> Option<Reason> {
        let meant = self.meant.as_ref()?;
        let at_meant = |attempt: &&AttemptRecord| {
            attempt.tier == meant.tier && attempt.model.as_ref().is_some_and(|model| *model == meant.model)
        };
        self.attempts.iter().find(at_meant).map(|attempt| attempt.reason)
    }
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// An attempt at `region`'s deployment of `model`, in the tier of the same letter.
    pub(crate) fn attempt(region: &str, model: &str, reason: Reason) -> AttemptRecord {
        AttemptRecord {
            deployment: format!("{region}/{model}").into(),
            tier: Some(model[..1].into()),
            model: Some(model.into()),
            region: Some(region.into()),
            reason,
            started: Some(ms(1)),
            duration: ms(2),
            provider_request_id: None,
            injected: false,
        }
    }

    /// A receipt of a stream that was meant for model `big` of tier `b` and got its first token at `served`.
    pub(crate) fn receipt(attempts: Vec<AttemptRecord>, served: Option<(&str, &str)>, reason: Reason) -> Receipt {
        Receipt {
            id: RequestId(1),
            received_unix_ms: 0,
            endpoint: Some(Endpoint::Chat),
            key: None,
            team: None,
            policy: None,
            asked_model: Some("auto".into()),
            stream: true,
            meant: Some(PlannedModel { model: "big".into(), tier: Some("b".into()) }),
            served: served.map(|(region, model)| ServingDeployment {
                model: model.into(),
                deployment: format!("{region}/{model}").into(),
                tier: Some(model[..1].into()),
                region: region.into(),
            }),
            failover: (attempts.len() > 1 && served.is_some()).then(|| ms(7)),
            attempts,
            passed_over: Vec::new(),
            outcome: if reason == Reason::Served { Outcome::Served } else { Outcome::Broken },
            reason,
            limit: None,
            status: 200,
            usage: None,
            estimated: false,
            price: None,
            price_version: None,
            cost: NanoUsd::ZERO,
            charges: Vec::new(),
            first_token: served.map(|_| ms(9)),
            duration: ms(10),
            overhead: ms(0),
        }
    }

    #[test]
    fn an_answer_from_elsewhere_says_what_was_meant_and_why_not() {
        use Reason::{Reset, Served, Throttled};
        let check = |attempts: Vec<AttemptRecord>, served, expected: Option<Option<Reason>>| {
            let receipt = receipt(attempts, served, Served);
            assert_eq!(receipt.meant_elsewhere().map(|_| receipt.reason_at_meant()), expected, "{receipt:?}");
        };
        check(vec![attempt("us", "big", Served)], Some(("us", "big")), None);
        // In another region only.
        check(vec![attempt("us", "big", Reset), attempt("eu", "big", Served)], Some(("eu", "big")), None);
        // Passed over: no attempt at the model meant.
        check(vec![attempt("us", "small", Served)], Some(("us", "small")), Some(None));
        let elsewhere = vec![attempt("us", "small", Reset), attempt("eu", "small", Served)];
        check(elsewhere, Some(("eu", "small")), Some(None));
        // Tried first.
        let both = vec![attempt("us", "big", Throttled), attempt("eu", "big", Reset), attempt("us", "small", Served)];
        check(both, Some(("us", "small")), Some(Some(Throttled)));
        check(vec![attempt("us", "big", Reset)], None, None);
        // The same model through another tier.
        let mut other_tier = receipt(vec![attempt("us", "big", Served)], Some(("us", "big")), Served);
        other_tier.meant = Some(PlannedModel { model: "big".into(), tier: None });
        assert!(other_tier.meant_elsewhere().is_some());
    }

    #[test]
    fn an_injected_fault_marks_the_request_wherever_it_was_met() {
        let mut plain = receipt(vec![attempt("us", "big", Reason::Served)], Some(("us", "big")), Reason::Served);
        assert!(!plain.met_injected_fault());
        plain.passed_over.push(PassedOverDeployment {
            tier: None,
            model: "big".into(),
            deployment: "eu/big".into(),
            why: PassedOverReason::Open,
            until: None,
            injected: false,
        });
        assert!(!plain.met_injected_fault());
        let mut passed = plain.clone();
        passed.passed_over[0].injected = true;
        plain.attempts[0].injected = true;
        assert!(plain.met_injected_fault() && passed.met_injected_fault());
    }

    #[test]
    fn the_provider_that_answered_names_the_request_or_the_one_tried_last() {
        use Reason::{ClientGone, Reset, Served};
        let named =
            |id: &str, reason| AttemptRecord { provider_request_id: Some(id.into()), ..attempt(id, "big", reason) };
        let check = |attempts: Vec<AttemptRecord>, served, expected: Option<&str>| {
            assert_eq!(receipt(attempts, served, Served).provider_request_id(), expected);
        };
        check(vec![named("us", Reset), named("eu", Served)], Some(("eu", "big")), Some("eu"));
        check(vec![named("us", Served), named("eu", ClientGone)], Some(("us", "big")), Some("us"));
        check(vec![named("us", Reset), attempt("eu", "big", Served)], Some(("eu", "big")), None);
        check(vec![named("us", Reset), named("eu", Reset)], None, Some("eu"));
        check(vec![], None, None);
    }

    #[test]
    fn an_attempt_after_the_first_token_is_a_replay() {
        use Reason::{Served, Truncated};
        let replay = AttemptRecord { started: Some(ms(20)), ..attempt("eu", "big", Served) };
        let both = receipt(vec![attempt("us", "big", Truncated), replay.clone()], Some(("eu", "big")), Served);
        assert_eq!(both.replays().collect::<Vec<_>>(), [&replay]);
        let unanswered = receipt(vec![attempt("us", "big", Truncated), replay], None, Truncated);
        assert_eq!(unanswered.replays().count(), 0);
    }

    #[test]
    fn attempts_after_the_answer_are_not_on_the_way_to_it() {
        use Reason::{ClientGone, Reset, Served, Truncated};
        let check = |attempts: Vec<AttemptRecord>, served, reason, expected: usize| {
            let receipt = receipt(attempts, served, reason);
            assert_eq!(receipt.attempts_until_answer().len(), expected, "{receipt:?}");
        };
        let (us, eu) = (|reason| attempt("us", "big", reason), |reason| attempt("eu", "big", reason));
        check(vec![us(Served)], Some(("us", "big")), Served, 1);
        check(vec![us(Reset), eu(Served)], Some(("eu", "big")), Served, 2);
        // The second was started beside the first and lost.
        check(vec![us(Served), eu(ClientGone)], Some(("us", "big")), Served, 1);
        check(vec![us(Truncated), eu(ClientGone)], Some(("us", "big")), Truncated, 1);
        check(vec![us(Truncated), us(Truncated)], Some(("us", "big")), Truncated, 2);
        // Nothing answered.
        check(vec![us(Reset), eu(Reset)], None, Reset, 2);
        check(Vec::new(), None, Reset, 0);
    }

    #[test]
    fn a_failover_is_named_after_its_first_attempt() {
        let first = |receipt: &Receipt| receipt.failed_over_from().map(|attempt| attempt.deployment.to_string());
        let attempts = || vec![attempt("us", "big", Reason::Reset), attempt("eu", "big", Reason::Served)];
        assert_eq!(first(&receipt(attempts(), Some(("eu", "big")), Reason::Served)).as_deref(), Some("us/big"));
        assert_eq!(first(&receipt(attempts(), None, Reason::Reset)), None);
    }

    #[test]
    fn so_many_passed_over_deployments_are_kept_each_once() {
        let passed = |at: usize| PassedOverDeployment {
            tier: None,
            model: "big".into(),
            deployment: format!("d{at}").into(),
            why: PassedOverReason::ALL[at % PassedOverReason::ALL.len()],
            until: None,
            injected: false,
        };
        let kept = passed_over([0, 1, 0, 2].map(passed));
        assert_eq!(kept.iter().map(|passed| &*passed.deployment).collect::<Vec<_>>(), ["d0", "d1", "d2"]);
        assert_eq!(passed_over((0..100).map(passed)).len(), MOST_PASSED_OVER);
        assert!(passed_over([]).is_empty());
    }
}
