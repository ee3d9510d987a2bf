//! Requests that refer to what only one account of a provider has: they go to that account, for the key that it was made
//! for, and nowhere else.
//!
//! What is unknown and what is another key's is the same to a client. A plan that is left without a deployment is refused;
//! one whose only account is down waits or fails there, as any other plan does.
//!
//! Start reading in [`account_of`].

use super::RelayContext;
use super::active_config::{ActiveConfig, PinnedAccount};
use super::guard::RequestGuard;
use crate::domain::call::Call;
use crate::domain::provider_state::{NamedState, StateId, StateKind};
use crate::domain::refusal::Refusal;
use crate::domain::routing::plan::RoutePlan;
use crate::store::state_accounts::MadeState;
use std::time::Duration;

/// When to ask again while it cannot be looked up what a request refers to.
pub(super) const LOOK_UP_AGAIN: Duration = Duration::from_secs(5);
/// What a model does not serve whose provider did not make what is referred to.
const MADE_ELSEWHERE: &str = "what this request refers to, which another model's provider made";

/// The account to which what `call` of `owner` refers to binds it, if anything does; leaves only its deployments in
/// `plan`.
///
/// # Errors
/// [`Refusal`]: something was made for nobody, for another key, or by several accounts.
pub(super) async fn pin(
    context: &RelayContext,
    active: &ActiveConfig,
    owner: &str,
    call: &Call,
    plan: &mut RoutePlan,
) -> Result<Option<PinnedAccount>, Refusal> {
    let Some(pinned) = account_of(context, active, owner, call, plan).await? else { return Ok(None) };
    let table = &active.snapshot.table;
    plan.retain(|id| table.deployment(id).provider == pinned.provider);
    if plan.candidate_models().is_empty() {
        return Err(Refusal::NotServed {
            model: call.metadata().model.clone(),
            what: MADE_ELSEWHERE,
            instead: Vec::new(),
        });
    }
    Ok(Some(pinned))
}

async fn account_of(
    context: &RelayContext,
    active: &ActiveConfig,
    owner: &str,
    call: &Call,
    plan: &RoutePlan,
) -> Result<Option<PinnedAccount>, Refusal> {
    let now_unix_s = context.clock.unix_ms() / 1000;
    let mut pinned = None;
    let mut unknown = None;
    for state in &call.metadata().refers_to {
        let found = context.state_accounts.find(state.id.of_owner(owner), now_unix_s).await;
        let found = found.map_err(|_| Refusal::NoDeployment { retry_after: LOOK_UP_AGAIN })?;
        let account = found.and_then(|account| active.pinned(&account));
        match (account, pinned) {
            // What is encrypted is all in the client's hands, and may have been made before anything was kept.
            (None, _) if state.kind == StateKind::Encrypted => unknown = Some(state),
            (None, _) => return Err(not_found(state)),
            (Some(account), Some(other)) if account != other => return Err(not_found(state)),
            (account, _) => pinned = account,
        }
    }
    match (pinned, unknown) {
        (None, Some(state)) if !active.has_one_account(plan) => Err(not_found(state)),
        (pinned, _) => Ok(pinned),
    }
}

fn not_found(state: &NamedState) -> Refusal {
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
