//! Receiving the body of a request whose key is known, and nothing that is not the key's own.
//!
//! The key's concurrency slot is taken before a byte is read. While the body comes, the key must stay valid and the
//! request's time must not run out. What is read is never judged here: that is
//! [`authorize`](crate::domain::authorize)'s.
//!
//! Start reading in [`Relay::receive`].

use super::active_config::ResolvedKey;
use super::guard::RequestGuard;
use super::request::{CallReader, RequestTarget};
use super::{ActiveConfig, Relay, RelayContext, ServeError, identify};
use crate::domain::call::{BodyProblem, Call};
use crate::domain::limit::Limits;
use crate::domain::memory::InFlightAllowance;
use crate::domain::refusal::Refusal;
use crate::domain::secret::KeyHash;
use crate::store::AdmissionRequest;
use std::time::{Duration, Instant};

/// How often a key is looked up again while it sends a body: a revoked one holds its place no longer than this.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A request whose body is to be received.
pub(super) struct ReceivingRequest<'a> {
    pub(super) active: &'a ActiveConfig,
    pub(super) key: &'a ResolvedKey,
    /// The hash of its secret, as the client presented it.
    pub(super) hash: Option<KeyHash>,
    /// When its time is over, whatever its client allows.
    pub(super) until: Instant,
}

impl Relay {
    /// Takes a slot of the key's concurrency, then reads and parses the body. Time spent on it counts as waiting for the
    /// client.
    ///
    /// # Errors
    /// No slot is free, the body cannot be read or is too slow, or the key was revoked meanwhile.
    pub(super) async fn receive<R: CallReader>(
        &self,
        request: ReceivingRequest<'_>,
        target: RequestTarget<R>,
        guard: &mut RequestGuard,
    ) -> Result<Call, Refusal> {
        let (endpoint, body) = match target {
            RequestTarget::Call { endpoint, body } => (endpoint, body),
            RequestTarget::UnknownUrl { path } => return Err(Refusal::UnknownUrl { path }),
            RequestTarget::WrongMethod { allow } => return Err(Refusal::MethodNotAllowed { allow }),
        };
        guard.state.endpoint = Some(endpoint);
        let (key, now) = (request.key, self.context.clock.now());
        match self.context.counters.begin(guard.state.key_id, &key.record.limits, now) {
            Ok(admission) => guard.state.admission = Some(admission),
            Err(denied) => {
                guard.state.limits_left = denied.left;
                return Err(Refusal::OverLimit(denied.over));
            }
        }
        // Boxed: it is large, and would be a part of the request's own future.
        let mut reading = Box::pin(body.read(self.allowance(request.active, key), request.active.listed_members()));
        let received = async {
            tokio::select! {
                biased;
                read = &mut reading => read.map_err(Refusal::Body),
                refusal = self.ends_early(&request) => Err(refusal),
            }
        };
        let call = guard.wait(received).await?;
        guard.state.asked_model = Some(call.metadata().model.clone()).filter(|model| !model.is_empty());
        guard.state.stream = call.metadata().stream;
        guard.state.estimated_input = call.estimated_input_tokens(None);
        Ok(call)
    }

    /// What requests of `key` may hold in memory.
    pub(super) fn allowance(&self, active: &ActiveConfig, key: &ResolvedKey) -> InFlightAllowance {
        InFlightAllowance {
            all: self.context.in_flight_bytes.clone(),
            own: key.in_flight_bytes.clone(),
            max: active.snapshot.server.max_in_flight_bytes,
        }
    }

    /// Why a body that still comes is not waited for any longer.
    async fn ends_early(&self, request: &ReceivingRequest<'_>) -> Refusal {
        let clock = self.context.clock;
        loop {
            let now = clock.now();
            if now >= request.until {
                return Refusal::Body(BodyProblem::TooSlow);
            }
            clock.sleep_until(request.until.min(now + LOOK_AGAIN)).await;
            // Not as it was when the request came.
            if let Err(refusal) = identify(&self.context, &self.active.load(), request.hash) {
                return refusal;
            }
        }
    }
}

/// Takes the request and `tokens` of it from the key's `limits`; the guard returns what was not used.
///
/// # Errors
/// [`Refusal::OverLimit`]: too little is left.
pub(super) async fn take_from_limits(
    context: &RelayContext,
    guard: &mut RequestGuard,
    limits: &Limits,
    tokens: u64,
) -> Result<(), ServeError> {
    let state = &mut *guard.state;
    let key = state.key.as_ref().map_or("", |key| &key.name);
    let ask = AdmissionRequest { key, limits: *limits, tokens };
    let admission = state.admission.as_mut().expect("a slot was taken before the body was read");
    match context.counters.admit(admission, ask, context.clock.now()).await {
        Ok(()) => {
            state.limits_left = admission.left();
            Ok(())
        }
        Err(denied) => {
            state.limits_left = denied.left;
            Err(Refusal::OverLimit(denied.over).into())
        }
    }
}
