//! The estimated bytes of text per token of each model, shared by all requests.
//!
//! One atomic for each model, read when an answer has no usage and updated when one has. Stored by name, so that
//! a reload keeps the estimate of a model that stays. The computation is `domain::estimate`'s and must never be
//! done here.

use crate::domain::estimate::BytesPerToken;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// One of this many whole answers is parsed again to update the estimate. Streams are measured as they pass.
const ONE_OF: u32 = 16;

/// The estimate of one model.
#[derive(Debug)]
pub(super) struct TokenEstimator {
    measure: AtomicU32,
    whole_answers: AtomicU32,
}

impl Default for TokenEstimator {
    fn default() -> Self {
        Self { measure: AtomicU32::new(BytesPerToken::default().0), whole_answers: AtomicU32::new(0) }
    }
}

impl TokenEstimator {
    /// The current estimate.
    pub(super) fn measure(&self) -> BytesPerToken {
        BytesPerToken(self.measure.load(Ordering::Relaxed))
    }

    /// Whether the next whole answer should update the estimate. Counts calls: one of [`ONE_OF`] returns true.
    pub(super) fn should_sample(&self) -> bool {
        self.whole_answers.fetch_add(1, Ordering::Relaxed).is_multiple_of(ONE_OF)
    }

    /// Updates the estimate: a provider counted `text_bytes` bytes of text as `output` tokens.
    pub(super) fn learn(&self, text_bytes: u64, output: u64) {
        let learned = |measure| {
            let next = BytesPerToken(measure).learn(text_bytes, output).0;
            (next != measure).then_some(next)
        };
        // An error here means that nothing changed, which is usual.
        let _ = self.measure.fetch_update(Ordering::Relaxed, Ordering::Relaxed, learned);
    }
}

/// The estimates of all models, by name.
#[derive(Default)]
pub(super) struct TokenEstimators(Mutex<HashMap<Arc<str>, Arc<TokenEstimator>>>);

impl TokenEstimators {
    /// Those of the models with these `names`, in this order; others are dropped.
    pub(super) fn of<'n>(&self, names: impl Iterator<Item = &'n Arc<str>>) -> Vec<Arc<TokenEstimator>> {
        let mut all = self.0.lock();
        let mut known = std::mem::take(&mut *all);
        let kept = names.map(|name| {
            let kept = known.remove(name).unwrap_or_default();
            all.insert(name.clone(), kept.clone());
            kept
        });
        kept.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_stays_keeps_its_estimate() {
        let estimators = TokenEstimators::default();
        let of = |names: &[&str]| {
            let names: Vec<Arc<str>> = names.iter().map(|name| (*name).into()).collect();
            estimators.of(names.iter())
        };
        let first = of(&["a", "b"]);
        first[1].learn(4_000, 1_000);
        let learned = first[1].measure();
        assert!(learned.0 > first[0].measure().0);
        assert_eq!(
            of(&["b", "c", "a"]).iter().map(|one| one.measure()).collect::<Vec<_>>(),
            [learned, BytesPerToken::default(), BytesPerToken::default()]
        );
        of(&["a"]);
        assert_eq!(of(&["b"])[0].measure(), BytesPerToken::default());
    }

    #[test]
    fn concurrent_updates_give_the_same_estimate_as_sequential_ones() {
        let estimator = TokenEstimator::default();
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| (0..50).for_each(|_| estimator.learn(4_000, 1_000)));
            }
        });
        let alone = (0..200).fold(BytesPerToken::default(), |measure, _| measure.learn(4_000, 1_000));
        assert_eq!(estimator.measure(), alone);
    }
}
