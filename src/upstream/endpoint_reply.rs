//! Whether a provider has an endpoint: asked with an empty object, for which no model answers and nothing is charged.
//!
//! Operators ask it before they serve; no request of a client comes here. Only what a host without the endpoint says counts:
//! it may refuse the object for a hundred other reasons.
//!
//! Start reading at [`is_missing`].

use super::error_reply;
use super::providers::UpstreamProvider;
use crate::clock::Clock;
use crate::domain::call::Endpoint;
use crate::domain::failure::Failure;
use crate::domain::memory::InFlightAllowance;
use std::time::Duration;

/// How long a provider may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Whether `provider` replies to its credential numbered `credential` that it does not have `endpoint`.
pub(super) async fn is_missing(
    provider: &UpstreamProvider,
    endpoint: Endpoint,
    credential: usize,
    clock: Clock,
) -> bool {
    let reply = async {
        let reply = provider.ask_endpoint(endpoint, credential, clock.now()).await?.ok()?;
        (!reply.status.is_success()).then_some(reply)
    };
    let asked = async {
        let Some(mut reply) = reply.await else { return false };
        if reply.undo_codings().is_err() {
            return false;
        }
        error_reply::read(reply, &InFlightAllowance::default(), clock).await.failure == Failure::NoEndpoint
    };
    tokio::select! {
        is_missing = asked => is_missing,
        () = clock.sleep(PATIENCE) => false,
    }
}
