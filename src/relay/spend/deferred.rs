//! The money of an answer that is billed by a later request.

use super::{AttemptSpend, RequestSpend};

/// What is held for the attempt that answered. If it is dropped, all of that counts as spent.
pub(in crate::relay) struct DeferredSpend(AttemptSpend);

impl RequestSpend {
    /// Takes out what is held for the attempt that answered: this request is not charged for it. `None` where nothing is.
    pub(in crate::relay) fn defer(&mut self) -> Option<DeferredSpend> {
        self.running.take(self.answered?).map(DeferredSpend)
    }

    /// This request is charged for an answer that `deferred` is held for.
    pub(in crate::relay) fn take_over(&mut self, deferred: DeferredSpend) {
        self.answered = Some(deferred.0.number);
        self.running.insert(deferred.0);
    }
}
