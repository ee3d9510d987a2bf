//! Sends the probes of `[sla] probe`, where this gateway is the one of its store that does.
//!
//! Start reading at [`SlaProber::run`].

use crate::domain::sla::probe::SlaProbe;
use crate::http::request_handler::RequestHandler;
use crate::http::{AppState, public_handler, sla_probe};
use crate::store::LeaseStore;
use crate::store::divided::ReplicaDivision;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How soon it is noticed that probes are wanted, or how often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What sends the probes of one gateway.
pub(super) struct SlaProber {
    pub(super) app: Arc<AppState>,
    pub(super) division: Arc<ReplicaDivision>,
    pub(super) lease_store: Arc<dyn LeaseStore>,
}

impl SlaProber {
    /// Probes each policy with an SLA, again and again, until the process ends. One that hangs delays no other: an outage in
    /// which probes were sent less often would count for less than it was.
    pub(super) async fn run(self) {
        let (clock, handler) = (self.app.clock, public_handler(self.app.clone(), false));
        let mut last: Option<Instant> = None;
        // As many as are begun until the first ends: a probe lasts a minute at most.
        let mut sent = FuturesUnordered::new();
        loop {
            let (active, now) = (self.app.relay.active_config(), clock.now());
            let snapshot = &active.snapshot;
            let is_due = |every: Duration| last.is_none_or(|last| now >= last + every);
            if snapshot.sla_probe.is_some_and(is_due) && self.is_the_one() {
                last = Some(now);
                let promised = snapshot.policies.iter().filter(|policy| policy.sla.is_some());
                let probes = promised.filter_map(|policy| SlaProbe::of(&snapshot.table, policy));
                sent.extend(probes.map(|probe| self.send(&handler, probe)));
            }
            tokio::select! {
                () = clock.sleep_until(now + LOOK_EVERY) => {}
                Some(()) = sent.next() => {}
            }
        }
    }

    async fn send(&self, handler: &RequestHandler, probe: SlaProbe) {
        if let Some(secret) = self.app.relay.probe_secret(&probe.policy) {
            sla_probe::send(handler, &probe, &secret).await;
        }
    }

    /// Whether it is the first of the gateways alive, and may do something that only one of them does: one that the store has
    /// not seen for a minute may be counted as dead by then.
    fn is_the_one(&self) -> bool {
        let lifecycle = &self.app.lifecycle;
        let serves = lifecycle.is_ready() && !lifecycle.is_succeeded();
        serves && self.division.now().is_first() && self.lease_store.term().is_some()
    }
}
