//! Which models of a provider refused a member that we wrote and the client did not: the wish for the usage of a stream, or
//! the ceiling of the output by one of its names; or all of them, where the provider is known to.
//!
//! It only remembers; who asks and asks again is elsewhere.
//!
//! Start reading in [`ModelRefusals`].

use crate::upstream::UpstreamModel;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a refusal is remembered: hosts are updated, and then their usage is worth having.
const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);

/// The models of one provider that refuse one member of ours.
pub(in crate::upstream) struct ModelRefusals {
    /// All of them do.
    all: bool,
    /// Those that refused a request for it, each with when.
    refused: RwLock<HashMap<Arc<str>, Instant>>,
}

impl ModelRefusals {
    /// Nothing was refused yet; `all`: every model of the provider is known to refuse it.
    pub(in crate::upstream) fn new(all: bool) -> Self {
        Self { all, refused: RwLock::default() }
    }

    /// Whether `model` is among them at `now`.
    pub(in crate::upstream) fn holds(&self, model: &UpstreamModel, now: Instant) -> bool {
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) < REMEMBERED;
        self.all || self.refused.read().get(model.name()).is_some_and(is_recent)
    }

    /// `model` refused it at `now`.
    pub(in crate::upstream) fn remember(&self, model: &UpstreamModel, now: Instant) {
        self.refused.write().insert(model.name().clone(), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn a_refusal_is_forgotten_after_a_day() {
        let (refusals, model, now) = (ModelRefusals::new(false), UpstreamModel::new("m"), Clock.now());
        assert!(!refusals.holds(&model, now));
        refusals.remember(&model, now);
        assert!(refusals.holds(&model, now + REMEMBERED / 2));
        assert!(!refusals.holds(&UpstreamModel::new("n"), now));
        assert!(!refusals.holds(&model, now + REMEMBERED));
        assert!(ModelRefusals::new(true).holds(&model, now));
    }
}
