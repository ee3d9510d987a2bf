//! Requests that refer to what only one account of a provider has: they go to that account, for the key that it was made
//! for, and nowhere else.
//!
//! What is unknown and what is another key's is the same to a client. A plan that is left without a deployment is refused;
//! one whose only account is down waits or fails there, as any other plan does.
//!
//! Start reading in [`pin`].

use super::RelayContext;
use super::active_config::{ActiveConfig, PinnedAccount};
use super::guard::RequestGuard;
use crate::domain::authorize::AuthorizedRequest;
use crate::domain::call::Call;
use crate::domain::id::DeploymentId;
use crate::domain::provider_state::{NamedState, StateId, StateKind};
use crate::domain::refusal::Refusal;
use crate::domain::routing::builder::{CandidateModel, models_instead};
use crate::domain::routing::plan::RoutePlan;
use crate::store::state_accounts::MadeState;
use std::time::Duration;

/// When to ask again while it cannot be looked up what a request refers to.
pub(super) const LOOK_UP_AGAIN: Duration = Duration::from_secs(5);
/// What a model does not serve whose provider did not make what is referred to.
const MADE_ELSEWHERE: &str = "what this request refers to, which another model's provider made";

/// What [`pin`] says, for the few calls that refer to something.
#[inline]
pub(super) async fn pin_if_bound(
    context: &RelayContext,
    active: &ActiveConfig,
    authorized: &AuthorizedRequest,
    call: &Call,
    plan: &mut RoutePlan,
) -> Result<Option<PinnedAccount>, Refusal> {
    match call.metadata().refers_to.is_empty() {
        true => Ok(None),
        // Boxed: the future of each request would be as large.
        false => Box::pin(pin(context, active, authorized, call, plan)).await,
    }
}

/// The account to which what `call` refers to binds it, if anything does; leaves only its deployments in `plan`.
///
/// # Errors
/// [`Refusal`]: something was made for nobody, for another key, or by several accounts, or by one that does not serve the
/// model.
async fn pin(
    context: &RelayContext,
    active: &ActiveConfig,
    authorized: &AuthorizedRequest,
    call: &Call,
    plan: &mut RoutePlan,
) -> Result<Option<PinnedAccount>, Refusal> {
    let pinned = match account_of(context, active, &authorized.key().name, call).await? {
        ReferredAccount { pinned: Some(pinned), .. } => pinned,
        ReferredAccount { unknown: Some(state), .. } if !active.has_one_account(plan) => return Err(not_found(state)),
        ReferredAccount { .. } => return Ok(None),
    };
    let table = &active.snapshot.table;
    let is_there = |id: DeploymentId| table.deployment(id).provider == pinned.provider;
    plan.retain(is_there);
    if plan.candidate_models().is_empty() {
        let serves = |candidate: &CandidateModel| candidate.deployments.iter().any(|id| is_there(*id));
        let instead = models_instead(table, authorized, call, serves);
        return Err(Refusal::NotServed { model: call.metadata().model.clone(), what: MADE_ELSEWHERE, instead });
    }
    Ok(Some(pinned))
}

/// What is known of the account that made what a request refers to.
pub(super) struct ReferredAccount<'a> {
    /// The one that made all that is known.
    pub(super) pinned: Option<PinnedAccount>,
    /// Something encrypted that is not known.
    unknown: Option<&'a NamedState>,
}

/// The account that made what `call` of `owner` refers to.
///
/// # Errors
/// [`Refusal`]: something was made for nobody, for another key, by several accounts, or by one that is gone.
pub(super) async fn account_of<'a>(
    context: &RelayContext,
    active: &ActiveConfig,
    owner: &str,
    call: &'a Call,
) -> Result<ReferredAccount<'a>, Refusal> {
    let now_unix_s = context.clock.unix_ms() / 1000;
    let accounts = &context.state_accounts;
    let mut pinned = None;
    let mut unknown = None;
    for state in &call.metadata().refers_to {
        let id = state.id.of_owner(owner);
        let found = match state.kind.is_conversation() {
            true => accounts.find_lasting(id, now_unix_s).await,
            false => accounts.find(id, now_unix_s).await,
        };
        let found = found.map_err(|_| Refusal::NoDeployment { retry_after: LOOK_UP_AGAIN })?;
        let is_known = found.is_some();
        let account = found.and_then(|account| active.pinned(&account));
        match (account, pinned) {
            (None, _) if is_known && (state.kind.is_in_path() || state.kind.is_conversation()) => {
                return Err(Refusal::AccountGone { state: Box::new(state.clone()) });
            }
            // What is encrypted is all in the client's hands, and may have been made before anything was kept.
            (None, _) if state.kind == StateKind::Encrypted => unknown = Some(state),
            (None, _) => return Err(not_found(state)),
            (Some(account), Some(other)) if account != other => return Err(not_found(state)),
            (account, _) => pinned = account,
        }
    }
    Ok(ReferredAccount { pinned, unknown })
}

pub(super) fn not_found(state: &NamedState) -> Refusal {
    Refusal::StateNotFound { state: Box::new(state.clone()) }
}

/// Keeps which account made `made` for the key of the request.
#[cold]
pub(super) fn keep(guard: &RequestGuard, made: Vec<StateId>) {
    let state = &guard.state;
    let (Some(maker), Some(key)) = (&state.made_by, &state.key) else { return };
    let ids: Vec<_> = made.into_iter().filter(|id| maker.keeps(*id)).map(|id| id.of_owner(&key.name)).collect();
    if ids.is_empty() {
        return;
    }
    let context = guard.context();
    let made_unix_s = context.clock.unix_ms() / 1000;
    let made = MadeState { ids, account: maker.account.clone(), made_unix_s };
    if maker.is_known { context.state_accounts.keep_unknown(made) } else { context.state_accounts.keep(made) }
}
