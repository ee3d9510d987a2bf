//! Which models of a provider are not asked for the usage of their streams: those that refused a stream over it, or all
//! where the provider is known to refuse it.
//!
//! It only remembers; who asks and asks again is elsewhere.
//!
//! Start reading in [`UsageRefusals`].

use crate::upstream::UpstreamModel;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a refusal is remembered: hosts are updated, and then their usage is worth having.
const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);

/// The models of one provider that are not asked for usage.
pub(in crate::upstream) struct UsageRefusals {
    /// None of them is.
    never_asked: bool,
    /// Those whose streams were refused for our wish for it, each with when.
    refused: RwLock<HashMap<Arc<str>, Instant>>,
}

impl UsageRefusals {
    /// Nothing was refused yet; `never_asked`: no model of the provider is asked at all.
    pub(in crate::upstream) fn new(never_asked: bool) -> Self {
        Self { never_asked, refused: RwLock::default() }
    }

    /// Whether `model` is among them at `now`.
    pub(in crate::upstream) fn holds(&self, model: &UpstreamModel, now: Instant) -> bool {
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) < REMEMBERED;
        self.never_asked || self.refused.read().get(model.name()).is_some_and(is_recent)
    }

    /// `model` refused a stream at `now`.
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
        let (refusals, model, now) = (UsageRefusals::new(false), UpstreamModel::new("m"), Clock.now());
        assert!(!refusals.holds(&model, now));
        refusals.remember(&model, now);
        assert!(refusals.holds(&model, now + REMEMBERED / 2));
        assert!(!refusals.holds(&UpstreamModel::new("n"), now));
        assert!(!refusals.holds(&model, now + REMEMBERED));
        assert!(UsageRefusals::new(true).holds(&model, now));
    }
}
