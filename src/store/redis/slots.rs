//! The names of a key at the server, and the slots that its running requests have there.
//!
//! A slot at the server lasts for half a minute unless it is renewed, so that those of a gateway that is gone become free.
//! Which of this process's requests run is known here: what the server has forgotten is written again.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long a slot lasts without being renewed.
pub(super) const SLOT_LASTS: Duration = Duration::from_secs(30);
/// Slots renewed by one script at most: it must not keep others waiting.
const RENEWED_AT_ONCE: usize = 200;

/// What a key's windows and slots are called at the server. The part in braces lets a cluster keep all of them in one place.
#[derive(PartialEq, Eq, Hash, Debug)]
pub(super) struct SharedKey {
    pub(super) requests: String,
    pub(super) tokens: String,
    pub(super) slots: String,
}

impl SharedKey {
    /// Of the key called `name`.
    pub(super) fn of(name: &str) -> Self {
        let called = |what: &str| format!("tierway:{{{name}}}:{what}");
        Self { requests: called("requests"), tokens: called("tokens"), slots: called("slots") }
    }
}

/// One running request's slot: its number in this process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct SlotId(u64);

/// The slots of all requests of this process that run.
pub(super) struct SlotSet {
    /// Tells this process's slots from those of others.
    replica: u64,
    last: AtomicU64,
    running: Mutex<HashMap<SlotId, Arc<SharedKey>>>,
}

impl SlotSet {
    /// None yet, of the process that is called `replica`.
    pub(super) fn new(replica: u64) -> Self {
        Self { replica, last: AtomicU64::new(0), running: Mutex::default() }
    }

    /// A slot for a request of `key`, renewed until it ends.
    pub(super) fn begin(&self, key: &Arc<SharedKey>) -> SlotId {
        let number = SlotId(self.last.fetch_add(1, Ordering::Relaxed));
        self.running.lock().insert(number, key.clone());
        number
    }

    /// Its request has ended.
    pub(super) fn end(&self, number: SlotId) {
        self.running.lock().remove(&number);
    }

    /// What it is called at the server.
    pub(super) fn name(&self, SlotId(number): SlotId) -> String {
        format!("{:016x}:{number}", self.replica)
    }

    /// Those of `slots` whose requests have ended. What was renewed meanwhile is there again, and must be freed once more.
    pub(super) fn ended_among(&self, slots: &[SlotId]) -> Vec<SlotId> {
        let running = self.running.lock();
        slots.iter().copied().filter(|slot| !running.contains_key(slot)).collect()
    }

    /// All slots in use, by key, some at a time.
    pub(super) fn to_renew(&self) -> Vec<(Arc<SharedKey>, Vec<SlotId>)> {
        let mut by_key: HashMap<Arc<SharedKey>, Vec<SlotId>> = HashMap::new();
        for (number, key) in self.running.lock().iter() {
            by_key.entry(key.clone()).or_default().push(*number);
        }
        let some = |(key, slots): (Arc<SharedKey>, Vec<SlotId>)| {
            slots.chunks(RENEWED_AT_ONCE).map(|slots| (key.clone(), slots.to_vec())).collect::<Vec<_>>()
        };
        by_key.into_iter().flat_map(some).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_that_run_are_renewed_by_key_some_at_a_time() {
        let slots = SlotSet::new(7);
        let [busy, calm] = ["busy", "calm"].map(|name| Arc::new(SharedKey::of(name)));
        let begun: Vec<SlotId> = (0..450).map(|_| slots.begin(&busy)).collect();
        let one = slots.begin(&calm);
        for ended in &begun[..50] {
            slots.end(*ended);
        }
        let mut renewed = slots.to_renew();
        renewed.sort_by_key(|(key, slots)| (key.slots.clone(), slots.len()));
        let sizes: Vec<(&str, usize)> = renewed.iter().map(|(key, slots)| (&*key.slots, slots.len())).collect();
        assert_eq!(sizes, [("tierway:{busy}:slots", 200), ("tierway:{busy}:slots", 200), ("tierway:{calm}:slots", 1)]);
        assert_eq!(renewed[2].1, [one]);
        assert_eq!(slots.ended_among(&renewed[2].1), []);
        slots.end(one);
        assert_eq!(slots.ended_among(&renewed[2].1), [one]);
        assert_eq!(slots.name(one), "0000000000000007:450");
    }
}
