//! What providers get of clients' idempotency keys.

use super::RelayContext;
use http::header::Entry;
use http::{HeaderMap, HeaderName, HeaderValue};

static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

impl RelayContext {
    /// What providers get of the client's idempotency keys: nothing that another key can make, or nothing at all. All
    /// keys of the gateway are one account there, and the answer to one must never be given to another.
    pub(super) fn bind_idempotency_key(&self, key: &str, headers: &mut HeaderMap) {
        if !headers.contains_key(&IDEMPOTENCY_KEY) {
            return;
        }
        let Some(secret) = &self.idempotency else {
            headers.remove(&IDEMPOTENCY_KEY);
            return;
        };
        let Entry::Occupied(mut given) = headers.entry(&IDEMPOTENCY_KEY) else { return };
        for value in given.iter_mut() {
            *value = HeaderValue::try_from(secret.bound(key, value.as_bytes())).expect("digits are a header value");
        }
    }
}
