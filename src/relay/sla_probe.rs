//! The keys of SLA probes: one for each policy with an SLA, while `[sla] probe` is set.
//!
//! A probe takes the path of every request, so it needs a key that is found by its secret. The secret is made when the
//! process starts, is written nowhere, and is worth nothing to another process.
//!
//! Start reading at [`Relay::probe_secret`].

use super::{Relay, RelayContext};
use crate::config::{KeyHash, Snapshot};
use crate::domain::policy::{KeyRecord, Policy};
use crate::domain::secret::Secret;
use crate::domain::sla::probe::probe_record;
use std::sync::Arc;

impl Relay {
    /// What a probe of `policy` presents as its key; `None` where the system gave no random bytes at the start.
    pub fn probe_secret(&self, policy: &str) -> Option<Secret> {
        secret(&self.context, policy)
    }
}

/// The keys of the probes that `snapshot` asks for, by the hash of their secrets.
pub(super) fn keys(snapshot: &Snapshot, context: &RelayContext) -> Vec<(KeyHash, Arc<KeyRecord>)> {
    let promised = snapshot.policies.iter().filter(|policy| snapshot.sla_probe.is_some() && policy.sla.is_some());
    let key = |policy: &Arc<Policy>| {
        Some((KeyHash::of(secret(context, &policy.name)?.expose()), Arc::new(probe_record(policy))))
    };
    promised.filter_map(key).collect()
}

fn secret(context: &RelayContext, policy: &str) -> Option<Secret> {
    Some(Secret::new(format!("{}.{policy}", context.probe_secret.as_ref()?.expose())))
}
