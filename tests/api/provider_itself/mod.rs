//! The test tools, tested: the provider does what its script says, the journal tells the truth, and
//! the clients see how an answer ended.
//!
//! Everything else in this binary believes them; start here when a test elsewhere cannot be right.

mod answers;
mod clients;
mod faults;
mod journal;
mod scripts;

use crate::support::{Client, ScriptedProvider};

/// Where chats go.
const CHAT: &str = "/v1/chat/completions";

/// A request for a stream.
const STREAM: &str = r#"{"model":"small","stream":true}"#;

/// A request for a whole answer.
const WHOLE: &str = r#"{"model":"small"}"#;

/// A connection on which this chat was just asked.
async fn asked(provider: &ScriptedProvider, body: &str) -> Client {
    let mut client = Client::connect(provider.addr()).await;
    client.post(CHAT, &[], body).await;
    client
}
