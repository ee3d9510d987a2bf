//! Requests about a response or a conversation that its provider keeps: they go to the account that made it, for the key that
//! it was made for, and to no other.
//!
//! Nothing is planned: one deployment of that account is asked, once more where its connection was stale and asking twice is
//! as good as once. Whether it answers says nothing of how its model answers, so that no breaker is closed or opened by it,
//! unless nobody could be reached at all.
//!
//! Start reading in [`serve`].

use super::active_config::{ActiveConfig, PinnedAccount, ResolvedKey};
use super::attempts::log_failure;
use super::dispatch::CommittedAnswer;
use super::guard::RequestGuard;
use super::health::{FailureReport, Permit};
use super::pinned;
use super::receive::take_from_limits;
use super::state::{AnswerAccount, deployment_of};
use super::{Relay, RelayContext, ServeError};
use crate::domain::call::{Call, Endpoint};
use crate::domain::failure::Failure;
use crate::domain::fault::FaultEffect;
use crate::domain::id::DeploymentId;
use crate::domain::memory::InFlightAllowance;
use crate::domain::provider_state::NamedState;
use crate::domain::random::RandomValue;
use crate::domain::refusal::Refusal;
use crate::domain::routing::AnswerMode;
use crate::domain::routing::health::{HealthSource, PermitKind};
use crate::domain::routing::plan::Evidence;
use crate::domain::stored_response::{StoredRequest, is_possible_id};
use crate::upstream::{AttemptError, ForwardedFields, Timeouts, UpstreamAnswer, UpstreamRequest};
use http::HeaderMap;
use std::time::{Duration, Instant};

/// When to ask again that failed, where no breaker says.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Serves `call` of `key`, which makes the request `stored` with what of the client's headers and query its provider gets,
/// until `deadline`.
///
/// # Errors
/// It is not the key's, its account is gone or down, or the provider refuses.
pub(super) async fn serve(
    relay: &Relay,
    active: &ActiveConfig,
    key: &ResolvedKey,
    (call, stored, headers, fields): (&Call, &StoredRequest, &HeaderMap, ForwardedFields<'_>),
    deadline: Instant,
    guard: &mut RequestGuard,
) -> Result<CommittedAnswer, ServeError> {
    let context = &*relay.context;
    let owner = &key.record.name;
    let pinned = account_of(context, active, owner, call).await?;
    take_from_limits(context, guard, &key.record.limits, 0).await?;
    guard.state.allowance = Some(relay.allowance(active, key));
    let is_paid = guard.state.spend.is_paid();
    let read = StoredRead { context, active, key, call, headers, fields, deadline, pinned, is_paid };
    guard.state.background = context.background_bill(call.metadata().refers_to[0].id.of_owner(owner));
    guard.state.config = guard.state.background.map(|_| relay.active_config());
    let mut again = stored.action.may_be_repeated();
    let answered = loop {
        let (deployment, permit) = read.permit()?;
        match read.ask(deployment, permit, guard).await? {
            Ok(answered) => break answered,
            // As a stale connection does.
            Err(error) if again && matches!(error.failure, Failure::Reset | Failure::Stale) => again = false,
            Err(error) => return Err(read.failed(deployment, error)),
        }
    };
    // What is deleted is what the path ends with.
    if let (Some(deleted), "DELETE") = (in_path(call).last(), stored.action.method()) {
        let id = deleted.id.of_owner(owner);
        context.state_accounts.forget(id);
        context.end_background_bill(id);
    }
    Ok(answered)
}

/// What the path of `call` names.
fn in_path(call: &Call) -> impl Iterator<Item = &NamedState> {
    call.metadata().refers_to.iter().take_while(|state| state.kind.is_in_path())
}

/// The account that made all that `call` refers to, for `owner`.
async fn account_of(
    context: &RelayContext,
    active: &ActiveConfig,
    owner: &str,
    call: &Call,
) -> Result<PinnedAccount, Refusal> {
    if let Some(odd) = in_path(call).find(|state| !is_possible_id(&state.text)) {
        return Err(pinned::not_found(odd));
    }
    let found = pinned::account_of(context, active, owner, call).await?;
    // What a path names is never encrypted, and so is known.
    found.pinned.ok_or_else(|| pinned::not_found(&call.metadata().refers_to[0]))
}

/// One request to the account that keeps it.
struct StoredRead<'a> {
    context: &'a RelayContext,
    active: &'a ActiveConfig,
    key: &'a ResolvedKey,
    call: &'a Call,
    headers: &'a HeaderMap,
    fields: ForwardedFields<'a>,
    deadline: Instant,
    pinned: PinnedAccount,
    /// Whether a budget or credit pays for what its key asks for.
    is_paid: bool,
}

impl StoredRead<'_> {
    /// Its deployments, those of models that serve Responses first.
    ///
    /// # Errors
    /// There is none any more; or none is within the policy's residency, or may be sent a member of the body.
    fn deployments(&self) -> Result<Vec<DeploymentId>, Refusal> {
        let table = &self.active.snapshot.table;
        let of_account = |id: &DeploymentId| table.deployment(*id).provider == self.pinned.provider;
        let mut all: Vec<DeploymentId> = table.deployment_ids().filter(of_account).collect();
        if all.is_empty() {
            return Err(Refusal::AccountGone { state: Box::new(self.call.metadata().refers_to[0].clone()) });
        }
        all.retain(|id| self.key.record.policy.allows_region(table.deployment(*id).region));
        if all.is_empty() {
            return Err(Refusal::ResidencyUnavailable { model: "".into() });
        }
        let objection = |id: &DeploymentId| table.objection(*id, self.call, self.is_paid);
        let against = all.iter().find_map(objection);
        all.retain(|id| objection(id).is_none());
        match against {
            Some((member, why)) if all.is_empty() => Err(Refusal::MemberNotAllowed { member: member.clone(), why }),
            _ => {
                let serves = |id: &DeploymentId| table.model(table.deployment(*id).model).endpoints;
                all.sort_by_key(|id| !serves(id).contains(Endpoint::Responses));
                Ok(all)
            }
        }
    }

    fn mode(&self) -> AnswerMode {
        AnswerMode::of(self.call.metadata().stream, self.active.snapshot.table.settings.hold_streams)
    }

    /// The first of them that may be asked now.
    ///
    /// # Errors
    /// None may; or there is none any more.
    fn permit(&self) -> Result<(DeploymentId, Permit), ServeError> {
        let now = self.context.clock.now();
        let view = self.active.deployments.view_for(self.key.team, None);
        let view = view.with_credential(Some(self.pinned.credential)).for_endpoint(self.call.endpoint());
        let deployments = self.deployments()?;
        let permits = deployments.iter().map(|id| (*id, view.take(*id, self.mode(), PermitKind::DespiteSilence, now)));
        if let Some(found) = permits.into_iter().find_map(|(id, permit)| Some((id, permit?))) {
            return Ok(found);
        }
        let until = deployments.iter().filter_map(|id| view.why_passed_over(*id, now)?.1).min();
        let retry_after = until.map_or(ASK_AGAIN, |until| until.saturating_duration_since(now));
        Err(Refusal::NoDeployment { retry_after }.into())
    }

    /// Asks `deployment` once. The inner error is the attempt's.
    async fn ask(
        &self,
        deployment: DeploymentId,
        mut permit: Permit,
        guard: &mut RequestGuard,
    ) -> Result<Result<CommittedAnswer, AttemptError>, ServeError> {
        let number = guard.state.attempts.len() as u32 + 1;
        guard.attempt_sent(number, deployment_of(&self.active.snapshot.table, deployment, None));
        let allowance = guard.state.allowance.clone().unwrap_or_default();
        let draw = self.context.rng.draw();
        let fault = guard.state.injected_fault(number, draw, &self.context.faults);
        let request = self.request(deployment, permit.credential(), &allowance, draw, fault);
        let signs = permit.signs_of_life();
        let sent = guard.wait(self.active.upstreams.send(request, &signs)).await;
        let now = self.context.clock.now();
        match sent {
            Ok(answer) => {
                permit.let_go(now);
                Ok(Ok(self.commit(number, deployment, permit, answer, guard)))
            }
            Err(mut error) => {
                guard.state.provider_named(number, error.provider_request_id.take());
                let is_said = error.provider_error.is_some();
                guard.attempt_failed(number, error.failure, is_said, now);
                if is_said && speaks_of_the_request(error.failure) {
                    permit.let_go(now);
                    return Err(error.provider_error.map_or(error.failure.into(), |said| ServeError::Rejected(*said)));
                }
                self.report(deployment, permit, &error, guard);
                Ok(Err(error))
            }
        }
    }

    fn request<'r>(
        &'r self,
        deployment: DeploymentId,
        credential: usize,
        allowance: &'r InFlightAllowance,
        draw: RandomValue,
        fault: Option<FaultEffect>,
    ) -> UpstreamRequest<'r> {
        let table = &self.active.snapshot.table;
        let target = table.deployment(deployment);
        let model = table.model(target.model);
        let left = self.deadline.saturating_duration_since(self.context.clock.now());
        UpstreamRequest {
            provider: self.pinned.provider,
            credential,
            model: &self.active.upstream_models[deployment.index()],
            call: self.call,
            mode: self.mode(),
            headers: self.headers,
            fields: self.fields,
            ceiling: None,
            // Nothing is written for a whole answer; the events of one that goes on come when they are made.
            timeouts: Timeouts { first_token: left, whole: model.first_token, idle: left, deadline: self.deadline },
            fault,
            draw,
            allowance,
        }
    }

    fn commit(
        &self,
        number: u32,
        deployment: DeploymentId,
        permit: Permit,
        mut answer: UpstreamAnswer,
        guard: &mut RequestGuard,
    ) -> CommittedAnswer {
        guard.attempt_answered(number, self.context.clock.now());
        guard.state.provider_named(number, answer.provider_request_id.take());
        guard.state.provider = Some(self.active.labels(deployment).clone());
        let account = self.active.account(deployment, permit.credential());
        guard.state.made_by = Some(AnswerAccount::new(self.call, account));
        let model = self.active.snapshot.table.deployment(deployment).model;
        let estimator = self.active.deployments.estimator(model).clone();
        CommittedAnswer { answer, permit, estimator, splice: None }
    }

    /// Reports that an attempt failed, which is evidence only where nobody was reached.
    fn report(&self, deployment: DeploymentId, permit: Permit, error: &AttemptError, guard: &RequestGuard) {
        let target = self.active.snapshot.table.deployment(deployment);
        let model = &self.active.snapshot.table.model(target.model).name;
        let labels = self.active.labels(deployment).attempt(model, permit.credential());
        let status = error.provider_error.as_ref().map(|reply| reply.status);
        let report = FailureReport { failure: error.failure, status, detail: &error.detail, labels };
        log_failure(guard, &target.name, &report);
        // What may be taken back is nothing: it counts for nobody.
        drop(permit.failed(&report, Evidence::Neutral, self.context.clock.now()));
    }

    /// What the client gets for the last failure.
    fn failed(&self, deployment: DeploymentId, error: AttemptError) -> ServeError {
        let now = self.context.clock.now();
        let view = self.active.deployments.view_for(self.key.team, None);
        let until = view.why_passed_over(deployment, now).and_then(|(_, until)| until);
        let retry_after = until.map_or(ASK_AGAIN, |until| until.saturating_duration_since(now)).max(ASK_AGAIN);
        match error.failure {
            Failure::Throttled { after } => ServeError::Throttled { retry_after: after.unwrap_or(ASK_AGAIN) },
            failure @ (Failure::Unreachable
            | Failure::ConnectTimeout
            | Failure::Reset
            | Failure::Stale
            | Failure::FirstTokenTimeout
            | Failure::WholeTimeout
            | Failure::IdleTimeout
            | Failure::Status(_)) => ServeError::AccountDown { failure, retry_after },
            failure => failure.into(),
        }
    }
}

/// Whether a provider's reply is about what was asked for: the client gets it as it came.
fn speaks_of_the_request(failure: Failure) -> bool {
    matches!(
        failure,
        Failure::Rejected | Failure::ContextTooLong | Failure::NotFound | Failure::NoEndpoint | Failure::Status(409)
    )
}
