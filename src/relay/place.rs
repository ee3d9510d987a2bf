//! Waiting for a place where the gateway is full, or every deployment that could serve a request.
//!
//! It is waited before limits and money are taken, so that a waiting request holds nothing but its body and its key's
//! concurrency. Who waits, in which order, and who is refused at once is decided in [`crate::domain::routing::queue`].
//!
//! Start reading in [`wait_for_place`].

use super::RelayContext;
use super::active_config::{ActiveConfig, PinnedAccount, ResolvedKey};
use super::guard::RequestGuard;
use super::health::{TeamHealthView, WaitEnd};
use crate::domain::authorize::AuthorizedRequest;
use crate::domain::call::Call;
use crate::domain::id::TeamId;
use crate::domain::policy::ResolvedName;
use crate::domain::random::RandomValue;
use crate::domain::refusal::Refusal;
use crate::domain::routing::places::PlaceHolder;
use crate::domain::routing::plan::RoutePlan;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The Retry-After when everything is full, before jitter.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// The refusal of a request for which everything is full: ± 30 %, so that clients that were refused together do not
/// return together.
pub(super) fn slow_down(draw: RandomValue) -> Refusal {
    Refusal::SlowDown { retry_after: FULL_PAUSE.mul_f64(0.7 + 0.6 * draw.unit()) }
}

/// The health of deployments as the requests of `key` see it.
pub(super) fn health_of<'a>(
    active: &'a ActiveConfig,
    key: &ResolvedKey,
    authorized: &AuthorizedRequest,
    call: &Call,
    pinned: Option<PinnedAccount>,
) -> TeamHealthView<'a> {
    let reserved = matches!(authorized.requested(), ResolvedName::Reserved(_));
    let holder = PlaceHolder { policy: key.policy, key: key.id, priority: key.record.policy.priority, reserved };
    view_of(active, key.team, holder, authorized, call).with_credential(pinned.map(|pinned| pinned.credential))
}

/// The same for a request of `team` whose attempts take the places of `holder`, with any credential.
pub(super) fn view_of<'a>(
    active: &'a ActiveConfig,
    team: TeamId,
    holder: PlaceHolder,
    authorized: &AuthorizedRequest,
    call: &Call,
) -> TeamHealthView<'a> {
    let policy = &authorized.key().policy;
    let view = active.deployments.view_for(team, policy.hedge.map(|rule| (&policy.name, rule)));
    view.for_endpoint(call.endpoint()).with_holder(holder)
}

/// Waits until the gateway and some deployment of `plan` may take the request, at most until `own_end`; at once while they
/// are free. The guard has its place in the gateway from then on.
///
/// # Errors
/// [`Refusal::SlowDown`] where it was not served in time, or cannot be.
pub(super) async fn wait_for_place<'a>(
    context: &RelayContext,
    guard: &mut RequestGuard,
    plan: &RoutePlan,
    own_end: Instant,
    mut health: TeamHealthView<'a>,
) -> Result<TeamHealthView<'a>, Refusal> {
    let full = health.may_be_full(plan) && plan.is_full(&health, context.clock.now());
    if full || !health.enter_gateway(&mut guard.state.gateway_place) {
        // Boxed: few requests wait, and the future of each would be as large.
        Box::pin(wait(context, guard, plan, own_end, full, &mut health)).await?;
    }
    if health.is_reserved() && health.may_lend(plan) {
        context.telemetry.metrics.reservation(true);
    }
    Ok(health)
}

async fn wait(
    context: &RelayContext,
    guard: &mut RequestGuard,
    plan: &RoutePlan,
    own_end: Instant,
    full: bool,
    health: &mut TeamHealthView<'_>,
) -> Result<(), Refusal> {
    let policy = guard.state.key.as_ref().expect("it was authorized by its key").policy.clone();
    let began = context.clock.now();
    let end = guard.wait(health.wait_for_place(plan, &policy, own_end, full)).await;
    let ended = context.clock.now();
    let metrics = &context.telemetry.metrics;
    metrics.queue_wait(&policy.name, ended.saturating_duration_since(began));
    match end {
        WaitEnd::Granted(granted) => {
            guard.state.gateway_place = granted.gateway;
            health.place = granted.deployment.map(Arc::new);
        }
        // What it did not wait for may serve it by now: a deployment without a limit whose breaker closed.
        WaitEnd::OutOfTime
            if !plan.is_full(&*health, ended) && health.enter_gateway(&mut guard.state.gateway_place) => {}
        WaitEnd::OutOfTime | WaitEnd::Shed => {
            metrics.shed(&policy.name);
            if health.is_reserved() && health.has_lent(plan) {
                metrics.reservation(false);
            }
            return Err(slow_down(context.rng.draw()));
        }
    }
    Ok(())
}
