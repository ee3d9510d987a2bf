//! `/admin/v1/gateway`, `/admin/v1/history` and the event stream `/admin/v1/live`.
//!
//! A stream has a timer of its own and reads what is counted anyway: while nobody watches, nothing runs. It ends when the
//! process stops or what let its client in does.
//!
//! Start reading at [`LiveStream::next`].

use super::access::OperatorAccess;
use super::error::AdminFailure;
use super::input::{DescribedField, Field, InputError, PresenceKind, ValueType};
use super::{AdminRequest, AdminResponse};
use crate::admin::views::{
    DeploymentObject, GatewayObject, HistoryObject, RequestObject, SecondObject, TrafficEventObject, to_json,
};
use crate::domain::status::DeploymentStatus;
use crate::domain::traffic::TrafficSpan;
use crate::http::AppState;
use crate::http::conn::lifecycle::LifecyclePhase;
use crate::telemetry::live::LiveTrafficReader;
use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use serde_json::json;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long after its end a second is told of: requests of it may still be counted.
const TELL_AFTER_MS: i64 = 10;
/// The URL of a simulated provider in its status.
const SIMULATED: &str = "sim";

static SPAN: ValueType<TrafficSpan> = ValueType {
    read: |node| {
        let text = node.text()?;
        let known = TrafficSpan::ALL.into_iter().find(|span| span.label() == text);
        known.ok_or_else(|| InputError::value("must be 15m, 6h or 7d"))
    },
    schema: || json!({ "type": "string", "enum": TrafficSpan::ALL.map(TrafficSpan::label), "examples": ["15m"] }),
};
static OF_SPAN: Field<TrafficSpan> = Field {
    name: "span",
    is: &SPAN,
    need: PresenceKind::Optional,
    about: "How far back: 15m by seconds, as without it; 6h by ten seconds; 7d by five minutes.",
};
pub(super) static HISTORY_BY: [&dyn DescribedField; 1] = [&OF_SPAN];

pub(super) async fn gateway(request: AdminRequest) -> Result<AdminResponse, AdminFailure> {
    let (_, deployments) = request.app.relay.deployment_statuses();
    let simulated = !deployments.is_empty() && deployments.iter().all(|one| &*one.url == SIMULATED);
    Ok(AdminResponse::ok(&GatewayObject::of(&request.snapshot, simulated)))
}

pub(super) async fn history(request: AdminRequest) -> Result<AdminResponse, AdminFailure> {
    let AdminRequest { app, query, .. } = request;
    let span = query.optional(&OF_SPAN)?.unwrap_or(TrafficSpan::Minutes15);
    let series = app.telemetry.live.series(span, app.clock.unix_ms());
    Ok(AdminResponse::ok(&HistoryObject::of(span, &series)))
}

pub(super) async fn live(request: AdminRequest) -> Result<AdminResponse, AdminFailure> {
    let AdminRequest { app, access, .. } = request;
    let traffic = app.telemetry.live.watch().ok_or(AdminFailure::TooManyWatchers)?;
    let stopped = Box::pin(app.lifecycle.reached(LifecyclePhase::Draining));
    let tell_at = app.clock.now();
    let live = LiveStream { app, access, traffic, stopped, tell_at, shown: Vec::new(), due: VecDeque::new() };
    let frames = stream::unfold(live, |mut live| async move { Some((Ok::<_, Infallible>(live.next().await?), live)) });
    Ok(AdminResponse::events(Body::from_stream(frames)))
}

/// One open event stream.
struct LiveStream {
    app: Arc<AppState>,
    access: OperatorAccess,
    traffic: LiveTrafficReader,
    stopped: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// When the next second is told of.
    tell_at: Instant,
    /// The deployments as they were last shown.
    shown: Vec<ShownDeployment>,
    /// Frames that wait to be sent.
    due: VecDeque<Bytes>,
}

/// What of a deployment is shown again when it changes.
#[derive(PartialEq)]
struct ShownDeployment {
    name: Arc<str>,
    state: &'static str,
    cause: Option<&'static str>,
    next_probe_unix_ms: Option<i64>,
}

impl LiveStream {
    /// The next frame; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.due.pop_front() {
                return Some(frame);
            }
            tokio::select! {
                () = &mut self.stopped => return None,
                receipt = self.traffic.finished() => {
                    return Some(frame("request", &RequestObject::from(&*receipt)));
                }
                () = self.app.clock.sleep_until(self.tell_at) => {
                    self.access.role(&self.app)?;
                    self.tell();
                    self.tell_at = self.app.clock.now() + until_next_second(self.app.clock.unix_ms());
                }
            }
        }
    }

    /// Puts what is to be told of the last second in the queue, which is empty.
    fn tell(&mut self) {
        let relay = &self.app.relay;
        let (unix_ms, statuses) = relay.deployment_statuses();
        let changed = statuses.iter().filter(|status| !self.shown.contains(&ShownDeployment::from(*status)));
        self.due.extend(changed.map(|status| frame("deployment", &DeploymentObject::from(status))));
        self.shown = statuses.iter().map(ShownDeployment::from).collect();
        let (second, events) = self.traffic.second(unix_ms);
        self.due.extend(events.iter().map(|event| frame("event", &TrafficEventObject::from(event))));
        let faults = relay.faults().active().len();
        self.due.push_back(frame("second", &SecondObject::of(&second, relay.attempts_in_flight(), faults)));
    }
}

impl From<&DeploymentStatus> for ShownDeployment {
    fn from(status: &DeploymentStatus) -> Self {
        Self {
            name: status.deployment.clone(),
            state: status.state_label(),
            cause: status.cause.map(|cause| cause.label()),
            next_probe_unix_ms: status.next_probe_unix_ms,
        }
    }
}

/// How long it is until the second that runs at `unix_ms` is told of.
fn until_next_second(unix_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(1_000 + TELL_AFTER_MS - unix_ms.rem_euclid(1_000)).unwrap_or(1_000))
}

/// A server-sent event. JSON on one line has no line break that could end it early.
fn frame(event: &str, object: &impl Serialize) -> Bytes {
    format!("event: {event}\ndata: {}\n\n", to_json(object)).into()
}
