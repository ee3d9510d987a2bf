//! Support for the API tests: a scripted provider that records every request in a journal, and raw
//! clients that distinguish a clean end from an aborted one.
//!
//! Nothing here waits by sleeping: a test waits for the journal, for a [`Gate`] or for bytes, each
//! with one generous limit after which it fails and names what did not happen. Only [`gateway`] and
//! [`test_clients`] depend on the gateway; the rest would test any other.
//!
//! Start reading in [`provider`], then [`script`]; `provider_itself/` tests all of it.

mod answers;
mod black_hole;
pub mod client;
mod connection;
mod dialect;
mod fault;
pub mod gate;
pub mod gateway;
mod h2_client;
mod http1;
pub mod journal;
mod openai;
mod provider;
mod response;
mod script;
mod test_clients;
mod wire;

pub use answers::{ChatAnswer, ToolCall, chat, chat_stream, chat_whole, completion, embeddings};
pub use black_hole::BlackHole;
pub use client::{BodyEnd, Client, Piece, Response, split_frames};
pub use dialect::TestDialect;
pub use fault::{Fault, RETRY_AFTER_SECONDS};
pub use gate::Gate;
pub use gateway::TestGateway;
pub use h2_client::{H2Client, H2End, H2Piece};
pub use journal::ExchangeOutcome;
pub use openai::Usage;
pub use provider::ScriptedProvider;
pub use script::{Ending, Script};
pub use test_clients::{TestClients, TestRequest};

use std::time::Duration;

/// How long a test waits for an event that must happen; reached only when something is wrong.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for `future`, or fails the test with the name of what did not happen.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} in vain for {what}"),
    }
}
