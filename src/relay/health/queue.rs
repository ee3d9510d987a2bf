//! Places at deployments as requests take, wait for and give back, over the rules of
//! [`places`](crate::domain::routing::places) and [`queue`](crate::domain::routing::queue).
//!
//! While nothing is full, no lock of the queue is taken: a deployment says by an atomic whether anybody may have to wait for
//! it, and the queue how many do. Whoever gives a place back hands it on to the request whose turn it is. Locks are taken in
//! one order: the queue's, the gateway's, a deployment's.
//!
//! Start reading in [`TeamHealthView::wait_for_place`].

// circle: view.rs: who waits sees health as its team does, and what a view takes is a place.
// circle: gateway.rs: the gateway's places and the deployments' are waited for in one queue, which is here.
use super::gateway::{GatewayPlace, GatewayPlaces};
use super::{DeploymentState, SetMember, TeamHealthView};
use crate::clock::Clock;
use crate::domain::id::{DeploymentId, PlacesId};
use crate::domain::policy::Policy;
use crate::domain::routing::places::{PlaceHolder, PlaceLimits, Places};
use crate::domain::routing::plan::RoutePlan;
use crate::domain::routing::queue::{ExpectedPlaces, PlaceRequest, WaitDecision, WaitQueue, Waiter, WaiterId};
use crate::telemetry::Telemetry;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;
use tokio::sync::oneshot;

/// What a waiting request is told through, what its policy is called, and which deployments with a limit could serve it.
pub(super) struct WaiterHandle {
    end: oneshot::Sender<WaitEnd>,
    policy: Arc<str>,
    pub(super) usable: Box<[Arc<DeploymentState>]>,
}

/// What a request has that waited: all that it needs.
pub struct GrantedPlaces {
    /// Its place in the gateway, where requests need one.
    pub gateway: Option<GatewayPlace>,
    /// Its place at a deployment, unless one without a limit could serve it.
    pub deployment: Option<HeldPlace>,
}

/// How waiting for a place ended.
pub enum WaitEnd {
    /// With its places.
    Granted(GrantedPlaces),
    /// The request could not have been served in time.
    Shed,
    /// Its time to wait is over.
    OutOfTime,
}

/// The requests that wait for a place, in the gateway or at any deployment.
pub(super) struct PlaceQueue {
    /// How many there are, to be read without the lock.
    pub(super) waiting: AtomicUsize,
    pub(super) queue: Mutex<WaitQueue<WaiterHandle>>,
    pub(super) gateway: GatewayPlaces,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) clock: Clock,
}

/// The places of one deployment, apart from what its lock protects.
pub(super) struct SharedPlaces {
    id: PlacesId,
    /// Somebody would find it full. Read without the lock, so that it may be out of date by an instant.
    at_limit: AtomicBool,
    queue: Arc<PlaceQueue>,
}

/// A place that was granted to a waiting request; it is given back unless an attempt takes it.
pub struct HeldPlace {
    state: Arc<DeploymentState>,
    holder: PlaceHolder,
    unused: AtomicBool,
}

impl PlaceQueue {
    pub(super) fn new(telemetry: Arc<Telemetry>, clock: Clock) -> Arc<Self> {
        let gateway = GatewayPlaces::default();
        Arc::new(Self { waiting: AtomicUsize::new(0), queue: Mutex::default(), gateway, telemetry, clock })
    }

    /// Gives a request that left the queue its places; they come back where nobody waits for them any more.
    pub(super) fn deliver(
        &self,
        queue: &WaitQueue<WaiterHandle>,
        waiter: Waiter<WaiterHandle>,
        granted: GrantedPlaces,
    ) -> Option<WaitEnd> {
        self.left(queue, &waiter);
        waiter.payload.end.send(WaitEnd::Granted(granted)).err()
    }

    fn left(&self, queue: &WaitQueue<WaiterHandle>, waiter: &Waiter<WaiterHandle>) {
        self.waiting.store(queue.waiting(), Ordering::SeqCst);
        self.telemetry.metrics.queue_depth(&waiter.payload.policy, -1);
    }
}

impl SharedPlaces {
    pub(super) fn new(id: PlacesId, queue: Arc<PlaceQueue>) -> Self {
        Self { id, at_limit: AtomicBool::new(false), queue }
    }
}

impl DeploymentState {
    /// Applies `limits`.
    pub(super) fn limit_places(&self, places: &mut Places, limits: PlaceLimits, now: Instant) {
        places.set_limits(limits);
        self.note_limit(places, now);
    }

    /// Records that an attempt of `holder` takes a place, unless it has one.
    pub(super) fn take_place(&self, places: &mut Places, held: Option<&HeldPlace>, holder: PlaceHolder, now: Instant) {
        if held.is_none_or(|held| !held.use_up()) {
            places.take(holder, now);
            self.note_limit(places, now);
        }
    }

    /// Records that the attempt of `holder`, sent at `sent`, gives its place back.
    pub(super) fn give_place_back(&self, places: &mut Places, holder: PlaceHolder, sent: Instant, now: Instant) {
        places.was_held_for(now.saturating_duration_since(sent));
        places.give_back(holder, now);
        self.note_limit(places, now);
    }

    /// Gives free places to the requests whose turn it is. The deployment must not be locked.
    pub(super) fn hand_places_on(self: &Arc<Self>, now: Instant) {
        let shared = &self.places.queue;
        if shared.waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut undelivered = Vec::new();
        let mut queue = shared.queue.lock();
        loop {
            let mut gateway = shared.gateway.state.lock();
            let mut health = self.health.lock();
            let Some(waiter) = queue.grant(self.places.id, &mut health.places, &mut gateway.places, now) else { break };
            self.note_limit(&health.places, now);
            drop(health);
            let place = shared.granted_at_gateway(&waiter.request, &gateway, now);
            drop(gateway);
            let deployment = Some(self.held_by(waiter.request.holder));
            undelivered.extend(shared.deliver(&queue, waiter, GrantedPlaces { gateway: place, deployment }));
        }
        drop(queue);
        // Their clients left just now: what they had is handed on as they are dropped, without the lock.
        drop(undelivered);
    }

    /// Whether it has a free place for a request by a plain name.
    pub(super) fn has_place(&self, now: Instant) -> bool {
        // What is kept of lent places is forgotten in time, without anything happening here.
        !self.places.at_limit.load(Ordering::Relaxed) || !self.health.lock().places.is_full(false, now)
    }

    /// Takes a free place for a request of `holder` that waited, if there is one.
    pub(super) fn take_free_place(self: &Arc<Self>, holder: PlaceHolder, now: Instant) -> Option<HeldPlace> {
        let mut health = self.health.lock();
        let full = health.places.is_full(holder.reserved, now);
        if !full {
            health.places.take(holder, now);
        }
        self.note_limit(&health.places, now);
        drop(health);
        (!full).then(|| self.held_by(holder))
    }

    /// A place that was taken for `holder`.
    fn held_by(self: &Arc<Self>, holder: PlaceHolder) -> HeldPlace {
        HeldPlace { state: self.clone(), holder, unused: AtomicBool::new(true) }
    }

    /// Records that an attempt sent at `sent` had its first token, after `slowdown` times the usual time. It must not be
    /// locked.
    pub(super) fn first_token(&self, slowdown: f64, sent: Instant, now: Instant) {
        self.places.queue.first_token(slowdown, sent, now);
    }

    fn note_limit(&self, places: &Places, now: Instant) {
        self.places.at_limit.store(places.is_full(false, now), Ordering::Relaxed);
    }
}

impl HeldPlace {
    pub(super) fn is_at(&self, state: &Arc<DeploymentState>) -> bool {
        Arc::ptr_eq(&self.state, state) && self.unused.load(Ordering::Relaxed)
    }

    fn use_up(&self) -> bool {
        self.unused.swap(false, Ordering::Relaxed)
    }

    fn give_back(&self) {
        if self.use_up() {
            let now = self.state.places.queue.clock.now();
            let mut health = self.state.health.lock();
            health.places.give_back(self.holder, now);
            self.state.note_limit(&health.places, now);
            drop(health);
            self.state.hand_places_on(now);
        }
    }
}

impl Drop for HeldPlace {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl TeamHealthView<'_> {
    /// Whether some deployment of `plan` is full to some requests, as far as is known without a lock.
    pub fn may_be_full(&self, plan: &RoutePlan) -> bool {
        self.members_of(plan).any(|member| member.state.places.at_limit.load(Ordering::Relaxed))
    }

    /// Whether the request asks by a `Pro/` name.
    pub fn is_reserved(&self) -> bool {
        self.holder.reserved
    }

    /// Whether some deployment of `plan` lends places.
    pub fn may_lend(&self, plan: &RoutePlan) -> bool {
        self.members_of(plan).any(|member| member.limits.lends)
    }

    /// Whether places of some deployment of `plan` are lent now.
    pub fn has_lent(&self, plan: &RoutePlan) -> bool {
        let mut lending = self.members_of(plan).filter(|member| member.limits.lends);
        lending.any(|member| member.state.health.lock().places.lent() > 0)
    }

    /// Takes a place of the gateway, where the request needs one; returns whether it may go on.
    pub fn enter_gateway(&self, taken: &mut Option<GatewayPlace>) -> bool {
        self.deployments.place_queue.enter_gateway(self.holder, taken)
    }

    /// Waits for what `plan` lacks: a place of the gateway, and one of a deployment where all of them are `full`, at most
    /// `queue_wait` and until `own_end`. Places are given back when they are dropped.
    pub async fn wait_for_place(&self, plan: &RoutePlan, policy: &Policy, own_end: Instant, full: bool) -> WaitEnd {
        let (queue, queue_wait) = (&self.deployments.place_queue, self.deployments.queue_wait);
        let now = queue.clock.now();
        let until = own_end.min(now + queue_wait);
        let (limited, others): (Vec<&SetMember>, Vec<&SetMember>) =
            self.members_of(plan).partition(|member| member.limits.most.is_some());
        let at_gateway = queue.is_gateway_full(self.holder, now);
        let unlimited = !full && !others.is_empty();
        let freed = |span| {
            let of = |member: &&SetMember| member.state.health.lock().places.freed_within(span);
            let of_deployments = if unlimited { f64::INFINITY } else { limited.iter().map(of).sum() };
            if at_gateway { queue.gateway_freed_within(span).min(of_deployments) } else { of_deployments }
        };
        let expected = ExpectedPlaces {
            in_queue_wait: freed(queue_wait),
            in_own_time: freed(until.saturating_duration_since(now)),
        };
        let usable = limited.iter().map(|member| member.state.places.id).collect();
        let request = PlaceRequest { holder: self.holder, usable, unlimited, at_gateway, until };
        let (sender, mut end) = oneshot::channel();
        let usable = limited.iter().map(|member| member.state.clone()).collect();
        let handle = WaiterHandle { end: sender, policy: policy.name.clone(), usable };
        let Some(_entry) = queue.enter(request, handle, expected) else { return WaitEnd::Shed };
        // What became free before it waited was handed to nobody.
        limited.iter().for_each(|member| member.state.hand_places_on(now));
        queue.hand_gateway_on(now);
        tokio::select! {
            biased;
            end = &mut end => end.unwrap_or(WaitEnd::Shed),
            () = queue.clock.sleep_until(until) => WaitEnd::OutOfTime,
        }
    }

    /// Gives back the place that the request waited for, where no attempt has taken it.
    pub fn give_place_back(&self) {
        if let Some(place) = &self.place {
            place.give_back();
        }
    }

    fn members_of<'s>(&'s self, plan: &'s RoutePlan) -> impl Iterator<Item = &'s SetMember> {
        let ids = plan.candidate_models().iter().flat_map(|model| &model.deployments);
        ids.map(|id: &DeploymentId| &self.deployments.members[id.index()])
    }
}

/// A waiting request; dropping it takes it out of the queue.
struct QueueEntry<'q> {
    queue: &'q PlaceQueue,
    id: WaiterId,
    holder: PlaceHolder,
}

impl PlaceQueue {
    /// Lets `request` wait; `None` where it cannot be served in time.
    fn enter(&self, request: PlaceRequest, handle: WaiterHandle, expected: ExpectedPlaces) -> Option<QueueEntry<'_>> {
        let (holder, policy) = (request.holder, handle.policy.clone());
        let mut queue = self.queue.lock();
        let (id, shed) = match queue.arrive(request, handle, expected) {
            WaitDecision::Waits(id, shed) => (id, shed),
            WaitDecision::Refused(..) => return None,
        };
        self.telemetry.metrics.queue_depth(&policy, 1);
        self.waiting.store(queue.waiting(), Ordering::SeqCst);
        if let Some(shed) = shed {
            self.left(&queue, &shed);
            // One whose client has left is not told.
            let _ = shed.payload.end.send(WaitEnd::Shed);
        }
        Some(QueueEntry { queue: self, id, holder })
    }
}

impl Drop for QueueEntry<'_> {
    fn drop(&mut self) {
        let mut queue = self.queue.queue.lock();
        if let Some(waiter) = queue.withdraw(self.id, self.holder) {
            self.queue.left(&queue, &waiter);
        }
    }
}
