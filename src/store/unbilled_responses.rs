//! Responses that providers make in the background and that are not billed yet.
//!
//! Their tokens are counted when they are asked for, by several requests at once at times: whoever takes one here bills it,
//! and nobody else does. All are in memory, bounded; a database, where there is one, has them for the time after a restart.
//!
//! Start reading in [`UnbilledResponses::take`].

use crate::domain::provider_state::OwnedStateId;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// How long one is kept at most, in milliseconds: a day. Background work at providers takes minutes.
pub const UNBILLED_FOR_MS: i64 = 24 * 60 * 60 * 1000;
/// How many are kept at most: some 10 MB.
const MOST: usize = 64 * 1024;

/// One of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnbilledResponse {
    /// Which response of which key.
    pub id: OwnedStateId,
    /// The name of the deployment that makes it.
    pub deployment: Arc<str>,
    /// When it was asked for, in Unix milliseconds: its price is that of then.
    pub made_unix_ms: i64,
}

/// Where they outlive the process.
pub trait DurableUnbilledResponses: Send + Sync {
    /// Keeps one. It never blocks: it is written in the background.
    fn keep_unbilled(&self, response: UnbilledResponse);

    /// Deletes one, before whatever is written from now on. It never blocks.
    fn delete_unbilled(&self, id: OwnedStateId);
}

/// All of one gateway.
#[derive(Default)]
pub struct UnbilledResponses {
    all: Mutex<HashMap<OwnedStateId, UnbilledResponse>>,
    durable: Option<Arc<dyn DurableUnbilledResponses>>,
}

impl UnbilledResponses {
    /// Those that an earlier process left, with a database behind what is in memory.
    pub fn durable(left: Vec<UnbilledResponse>, durable: Arc<dyn DurableUnbilledResponses>) -> Self {
        let all = left.into_iter().map(|response| (response.id, response)).collect();
        Self { all: Mutex::new(all), durable: Some(durable) }
    }

    /// Keeps one until it is billed; `false` where there are too many.
    pub fn keep(&self, response: UnbilledResponse) -> bool {
        let mut all = self.all.lock();
        if all.len() >= MOST {
            return false;
        }
        all.insert(response.id, response.clone());
        drop(all);
        if let Some(durable) = &self.durable {
            durable.keep_unbilled(response);
        }
        true
    }

    /// Whether `id` is among them.
    pub fn has(&self, id: OwnedStateId) -> bool {
        self.all.lock().contains_key(&id)
    }

    /// Takes `id` out, once: whoever gets it bills it. What a crash leaves between this and the receipt is on no receipt.
    pub fn take(&self, id: OwnedStateId) -> Option<UnbilledResponse> {
        let taken = self.all.lock().remove(&id)?;
        if let Some(durable) = &self.durable {
            durable.delete_unbilled(id);
        }
        Some(taken)
    }

    /// Takes out those that were made before `unix_ms`.
    pub fn take_older(&self, unix_ms: i64) -> Vec<UnbilledResponse> {
        let old: Vec<_> = self.all.lock().extract_if(|_, response| response.made_unix_ms < unix_ms).collect();
        if let Some(durable) = &self.durable {
            old.iter().for_each(|(id, _)| durable.delete_unbilled(*id));
        }
        old.into_iter().map(|(_, response)| response).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(number: u64, made_unix_ms: i64) -> UnbilledResponse {
        let id = OwnedStateId(std::array::from_fn(|at| number.to_le_bytes()[at % 8]));
        UnbilledResponse { id, deployment: "eu/m".into(), made_unix_ms }
    }

    #[test]
    fn one_is_taken_once() {
        let all = UnbilledResponses::default();
        let one = response(1, 5);
        assert!(all.keep(one.clone()) && all.has(one.id));
        let taken: Vec<_> = std::thread::scope(|threads| {
            let takers: Vec<_> = (0..8).map(|_| threads.spawn(|| all.take(one.id))).collect();
            takers.into_iter().filter_map(|taker| taker.join().expect("it does not panic")).collect()
        });
        assert_eq!((taken, all.has(one.id)), (vec![one], false));
    }

    #[test]
    fn they_are_bounded_in_number_and_time() {
        let all = UnbilledResponses::default();
        assert!((0..MOST as u64).all(|number| all.keep(response(number, number as i64))));
        assert!(!all.keep(response(u64::MAX, 0)));
        assert_eq!(all.take_older(10).len(), 10);
        assert!(all.take_older(10).is_empty() && all.keep(response(u64::MAX, 10)));
    }
}
