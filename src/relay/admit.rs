//! Identification and admission: finds the key of a request, and takes the request from the key's limits.
//!
//! The answer is the same for a key that is missing, unknown or expired, and takes as long. Whether the key may
//! make the call must never be decided here; `domain/authorize.rs` does.
//!
//! Start reading in [`identify`], then [`admit`].

use super::active_config::{ActiveConfig, ResolvedKey};
use super::guard::RequestGuard;
use super::{RelayContext, ServeError};
use crate::config::KeyHash;
use crate::domain::authorize::AuthorizedRequest;
use crate::domain::call::Call;
use crate::domain::policy::is_valid;
use crate::domain::refusal::Refusal;
use crate::domain::routing::plan::RoutePlan;
use crate::domain::secret::Secret;
use crate::store::AdmissionRequest;

/// The key that a client presented.
///
/// # Errors
/// [`Refusal::InvalidKey`], whatever is wrong with it.
pub(super) fn identify(
    context: &RelayContext,
    active: &ActiveConfig,
    presented: Option<&Secret>,
) -> Result<ResolvedKey, Refusal> {
    // Hashing even when no key was presented gives all refusals the same timing. The table is searched
    // by hash: a caller who can choose hashes byte by byte has broken SHA-256 first.
    let hash = KeyHash::of(presented.map_or("", |secret| secret.expose()));
    let now_unix_ms = context.clock.unix_ms();
    let found = active.resolve(&hash, context, now_unix_ms);
    let valid = found.filter(|key| is_valid(&key.record, now_unix_ms / 1000));
    presented.and(valid).ok_or(Refusal::InvalidKey)
}

/// Takes the request, its tokens and one concurrent request from the key's limits; the guard returns them.
pub(super) async fn admit(
    context: &RelayContext,
    guard: &mut RequestGuard,
    active: &ActiveConfig,
    authorized: &AuthorizedRequest,
    call: &Call,
    plan: &RoutePlan,
) -> Result<(), ServeError> {
    let key = authorized.key();
    let ask = AdmissionRequest { key: guard.state.key_id, limits: key.limits, tokens: tokens(active, call, plan) };
    match context.counters.admit(&ask, context.clock.now()).await {
        Ok(admission) => {
            guard.state.requests_left = admission.requests();
            guard.state.tokens_left = admission.tokens();
            guard.state.admission = Some(admission);
            Ok(())
        }
        Err(denied) => {
            guard.state.requests_left = denied.left.requests;
            guard.state.tokens_left = denied.left.tokens;
            Err(Refusal::OverLimit(denied.over).into())
        }
    }
}

/// The tokens to take for the request: its estimated input, and for each choice the client's ceiling or else the
/// usual output of the first model.
fn tokens(active: &ActiveConfig, call: &Call, plan: &RoutePlan) -> u64 {
    let typical = plan
        .candidate_models()
        .first()
        .map_or(0, |candidate| active.snapshot.table.model(candidate.model).typical_output);
    let writes_text = call.endpoint().writes_text();
    let output = if writes_text { call.metadata().max_output.unwrap_or(typical) } else { 0 };
    call.estimated_input_tokens().saturating_add(output.saturating_mul(u64::from(call.expected_choices())))
}
