//! The places of the gateway: how many requests by plain names may be in flight in it at once (`max_in_flight`).
//!
//! A request that finds none waits in the same queue as one whose deployments are full, and leaves it with all that it
//! needs. Without a limit nothing is locked. Locks are taken in one order: the queue's, the gateway's, a deployment's.
//!
//! Start reading in [`PlaceQueue::enter_gateway`]; how an adaptive limit moves is decided in
//! [`adaptive`](crate::domain::routing::adaptive).

// circle: queue.rs: the gateway's places and the deployments' are waited for in one queue, which is there.
use super::queue::{GrantedPlaces, PlaceQueue, WaiterHandle};
use crate::domain::routing::adaptive::AdaptiveLimit;
use crate::domain::routing::places::{PlaceHolder, PlaceLimits, Places};
use crate::domain::routing::queue::{PlaceRequest, Waiter};
use crate::domain::routing::table::InFlightLimit;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The places of the gateway, as all requests share them.
#[derive(Default)]
pub(super) struct GatewayPlaces {
    /// Whether there are only so many; read without the lock, so that it may be out of date by an instant.
    limited: AtomicBool,
    /// Whether first-token times move the limit; read as the other.
    adaptive: AtomicBool,
    pub(super) state: Mutex<GatewayState>,
}

/// What the lock protects.
#[derive(Default)]
pub(super) struct GatewayState {
    pub(super) places: Places,
    adaptive: Option<AdaptiveLimit>,
}

/// The place that one request has in the gateway until its end; dropping it gives it back.
pub struct GatewayPlace {
    queue: Arc<PlaceQueue>,
    holder: PlaceHolder,
    since: Instant,
}

impl PlaceQueue {
    /// Takes a place for a request of `holder`, unless it needs none; returns whether it may go on.
    pub(super) fn enter_gateway(self: &Arc<Self>, holder: PlaceHolder, taken: &mut Option<GatewayPlace>) -> bool {
        if holder.reserved || !self.gateway.limited.load(Ordering::Relaxed) {
            return true;
        }
        let now = self.clock.now();
        let mut gateway = self.gateway.state.lock();
        if gateway.places.is_full_to(holder, now) {
            return false;
        }
        if gateway.places.are_limited() {
            gateway.places.take(holder, now);
            drop(gateway);
            *taken = Some(GatewayPlace { queue: self.clone(), holder, since: now });
        }
        true
    }

    /// Whether a request of `holder` finds no place.
    pub(super) fn is_gateway_full(&self, holder: PlaceHolder, now: Instant) -> bool {
        !holder.reserved && self.gateway.state.lock().places.is_full_to(holder, now)
    }

    /// How many places are expected to become free within `span`.
    pub(super) fn gateway_freed_within(&self, span: Duration) -> f64 {
        self.gateway.state.lock().places.freed_within(span)
    }

    /// The place that was taken for `request` as it left the queue, where it needed one.
    pub(super) fn granted_at_gateway(
        self: &Arc<Self>,
        request: &PlaceRequest,
        gateway: &GatewayState,
        now: Instant,
    ) -> Option<GatewayPlace> {
        let place = || GatewayPlace { queue: self.clone(), holder: request.holder, since: now };
        request.needs_gateway(&gateway.places).then(place)
    }

    /// Applies `limit`; requests in flight keep their places.
    pub(super) fn limit_gateway(self: &Arc<Self>, limit: Option<InFlightLimit>, now: Instant) {
        let mut gateway = self.gateway.state.lock();
        let known = gateway.adaptive.take();
        let most = match limit {
            None => None,
            Some(InFlightLimit::Fixed(most)) => Some(most),
            Some(InFlightLimit::Adaptive(bounds)) => {
                let mut adaptive = known.unwrap_or_else(|| AdaptiveLimit::new(bounds));
                adaptive.set_bounds(bounds);
                Some(gateway.adaptive.insert(adaptive).limit())
            }
        };
        self.set_most(&mut gateway, most);
        drop(gateway);
        self.hand_gateway_on(now);
    }

    /// Records that an attempt sent at `sent` had its first token at `now`, after `slowdown` times the long-term time of its
    /// deployment. No deployment may be locked.
    pub(super) fn first_token(self: &Arc<Self>, slowdown: f64, sent: Instant, now: Instant) {
        if !self.gateway.adaptive.load(Ordering::Relaxed) {
            return;
        }
        let mut gateway = self.gateway.state.lock();
        let in_flight = gateway.places.taken();
        let Some(adaptive) = &mut gateway.adaptive else { return };
        if adaptive.record(slowdown, sent, in_flight, now) {
            let most = Some(adaptive.limit());
            self.set_most(&mut gateway, most);
            drop(gateway);
            self.hand_gateway_on(now);
        }
    }

    fn set_most(&self, gateway: &mut GatewayState, most: Option<u32>) {
        gateway.places.set_limits(PlaceLimits { most, lends: false, floors: gateway.adaptive.is_some() });
        self.gateway.limited.store(most.is_some(), Ordering::Relaxed);
        self.gateway.adaptive.store(gateway.adaptive.is_some(), Ordering::Relaxed);
        self.telemetry.metrics.max_in_flight(most.unwrap_or_default());
    }

    /// Gives free places to the requests whose turn it is. Neither the gateway nor a deployment may be locked.
    pub(super) fn hand_gateway_on(self: &Arc<Self>, now: Instant) {
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut undelivered = Vec::new();
        let mut queue = self.queue.lock();
        loop {
            let mut gateway = self.gateway.state.lock();
            let has_place = |waiter: &Waiter<WaiterHandle>| waiter.payload.usable.iter().any(|at| at.has_place(now));
            let Some(turn) = queue.turn_at_gateway(&gateway.places, now, has_place) else { break };
            let waiter = queue.waiter(&turn);
            let unlimited = waiter.request.unlimited;
            let mut usable = waiter.payload.usable.iter().filter(|_| !unlimited);
            let deployment = usable.find_map(|state| state.take_free_place(waiter.request.holder, now));
            if deployment.is_none() && !unlimited {
                // Requests that did not wait have taken what it had: now it has none, and somebody else is next.
                continue;
            }
            let waiter = queue.grant_turn(turn, &mut gateway.places, now);
            let place = self.granted_at_gateway(&waiter.request, &gateway, now);
            drop(gateway);
            undelivered.extend(self.deliver(&queue, waiter, GrantedPlaces { gateway: place, deployment }));
        }
        drop(queue);
        // Their clients left just now: what they had is handed on as they are dropped, without the lock.
        drop(undelivered);
    }
}

impl Drop for GatewayPlace {
    fn drop(&mut self) {
        let now = self.queue.clock.now();
        let mut gateway = self.queue.gateway.state.lock();
        gateway.places.was_held_for(now.saturating_duration_since(self.since));
        gateway.places.give_back(self.holder, now);
        drop(gateway);
        self.queue.hand_gateway_on(now);
    }
}
