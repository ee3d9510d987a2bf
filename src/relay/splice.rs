//! Streams that go on at another deployment of their model when they break: `stream = "splice"`.
//!
//! What the request was sent with is kept beside its stream. When that breaks, the same dispatch makes further attempts
//! with what is left of the request's plan, time and money, and the answer of one of them, the replay, goes on where the
//! first one broke. What of it is new is found by [`ReplayableAnswer`]. Where no replay can be had, or it is another
//! answer, the stream ends as a strict one does.
//!
//! Start reading in [`go_on`].

// circle: deliver.rs: what broke while it was delivered is gone on with here, and delivered there again.
// circle: dispatch.rs: what dispatch found is gone on with by dispatch.

use super::deliver::{ReplyBody, ReplyEnd, ReplyInFlight, broke, broken_by, meter};
use super::dispatch::Dispatch;
use super::error::StreamFailure;
use super::place::view_of;
use super::{ActiveConfig, RelayContext};
use crate::domain::authorize::AuthorizedRequest;
use crate::domain::call::Call;
use crate::domain::failure::Failure;
use crate::domain::id::TeamId;
use crate::domain::memory::InFlightAllowance;
use crate::domain::receipt::Outcome;
use crate::domain::routing::places::PlaceHolder;
use crate::domain::routing::plan::RoutePlan;
use crate::telemetry::ReplayOutcome;
use crate::upstream::{ForwardedFields, ReplayableAnswer};
use bytes::Bytes;
use http::HeaderMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

/// A body that is still being made, or what its stream ends with instead.
pub(super) type BodyFuture = Pin<Box<dyn Future<Output = Result<ReplyBody, StreamFailure>> + Send>>;

/// A stream that may go on at another deployment.
pub(super) struct SplicedStream {
    request: ReplayableRequest,
    plan: RoutePlan,
    /// What the client has of the answer.
    sent: ReplayableAnswer,
    /// The comment that marks where a replay goes on, until it does.
    mark: Option<Bytes>,
}

/// What the attempts of a request are made of.
struct ReplayableRequest {
    active: Arc<ActiveConfig>,
    call: Call,
    paid: bool,
    headers: HeaderMap,
    listed_headers: Option<HeaderMap>,
    query: Option<Box<str>>,
    deadline: Instant,
    team: TeamId,
    holder: PlaceHolder,
    authorized: AuthorizedRequest,
    allowance: InFlightAllowance,
}

impl SplicedStream {
    /// The stream that `dispatch` found, with what is left of its `plan`; `None` where it ends when it breaks.
    pub(super) fn of(dispatch: &Dispatch<'_>, plan: RoutePlan) -> Option<Box<Self>> {
        if !dispatch.active.snapshot.table.settings.splice_streams {
            return None;
        }
        let sent = ReplayableAnswer::of(dispatch.call, dispatch.allowance)?;
        let request = ReplayableRequest {
            active: dispatch.active.clone(),
            call: dispatch.call.clone(),
            paid: dispatch.paid,
            headers: dispatch.headers.clone(),
            listed_headers: dispatch.fields.headers.cloned(),
            query: dispatch.fields.query.map(Into::into),
            deadline: dispatch.deadline,
            team: dispatch.health.team(),
            holder: dispatch.health.holder(),
            authorized: dispatch.authorized.clone(),
            allowance: dispatch.allowance.clone(),
        };
        Some(Box::new(Self { request, plan, sent, mark: None }))
    }
}

impl ReplayableRequest {
    /// Makes its attempts once more. Its client is gone when the future that makes them is dropped.
    fn dispatch<'a>(&'a self, context: &'a RelayContext) -> Dispatch<'a> {
        let Self { active, call, headers, authorized, allowance, .. } = self;
        Dispatch {
            context,
            active,
            call,
            paid: self.paid,
            headers,
            fields: ForwardedFields { headers: self.listed_headers.as_ref(), query: self.query.as_deref() },
            deadline: self.deadline,
            health: view_of(active, self.team, self.holder, authorized, call),
            authorized,
            allowance,
            client: None,
        }
    }
}

impl ReplyInFlight {
    /// What its client gets of `frames`, which came whole.
    ///
    /// # Errors
    /// [`StreamFailure::Diverged`]: they are of a replay, which is another answer.
    #[inline]
    pub(super) fn pass(&mut self, frames: Bytes) -> Result<Bytes, StreamFailure> {
        match &mut self.splice {
            None => Ok(frames),
            Some(_) => self.pass_spliced(frames),
        }
    }

    fn pass_spliced(&mut self, frames: Bytes) -> Result<Bytes, StreamFailure> {
        let metrics = &self.guard.context().telemetry.metrics;
        let Some(stream) = &mut self.splice else { return Ok(frames) };
        let Ok(new) = stream.sent.pass(frames) else {
            metrics.replayed(ReplayOutcome::Diverged);
            return Err(StreamFailure::Diverged);
        };
        let goes_on = !new.is_empty() && stream.sent.is_caught_up();
        match stream.mark.take_if(|_| goes_on) {
            Some(mark) => {
                metrics.replayed(ReplayOutcome::Continued);
                Ok([mark, new].concat().into())
            }
            None => Ok(new),
        }
    }

    /// Whether another attempt may go on with its stream, which broke by `failure`: the plan knows of it then.
    pub(super) fn may_go_on(&mut self, failure: Failure) -> bool {
        let number = self.guard.state.answering_attempt();
        let (Some(stream), Some(number)) = (&mut self.splice, number) else { return false };
        let may = stream.sent.may_begin() && stream.plan.retain_siblings(number, failure);
        if !may {
            self.guard.context().telemetry.metrics.replayed(ReplayOutcome::Failed);
        }
        may
    }
}

/// The rest of the answer of `reply`, which broke by `failure`, from another deployment of its model. Dropping the
/// future cancels what was sent for it, and means that the client left.
///
/// # Errors
/// [`StreamFailure`], with which the stream ends: the request was settled.
pub(super) async fn go_on(reply: ReplyInFlight, failure: Failure) -> Result<ReplyBody, StreamFailure> {
    let ReplyInFlight { body, permit, mut guard, status, estimator, splice } = reply;
    let mut stream = splice.expect("whoever asked found it");
    if ReplyEnd::Broken(failure).is_ours() {
        guard.state.left_provider();
    }
    meter(&mut guard, &body, &estimator);
    drop(body);
    broke(permit, &guard, failure, guard.now());
    let state = &mut guard.state;
    state.answer_broke(failure.reason());
    state.spend.answer_broke(state.price.as_ref(), state.usage, state.basis);
    stream.sent.begin();
    let context = guard.context().clone();
    let SplicedStream { request, plan, .. } = &mut *stream;
    let answered = Box::pin(request.dispatch(&context).run(plan, &mut guard)).await;
    let Ok(mut answered) = answered else {
        context.telemetry.metrics.replayed(ReplayOutcome::Failed);
        guard.settle(Outcome::Broken, failure.reason(), status);
        return Err(broken_by(failure));
    };
    let deployment = guard.state.deployment();
    tracing::info!(request_id = %guard.state.id, deployment, "a stream that broke goes on at another deployment");
    stream.mark = Some(format!(": x-tierway-spliced {deployment}\n\n").into());
    answered.splice = Some(stream);
    Ok(ReplyBody::new(answered, guard))
}
