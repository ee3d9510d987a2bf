//! Tests of the test support: the provider follows its script, the journal is correct, and the clients
//! detect how an answer ended.
//!
//! Every other test in this binary relies on them; start here when the result of another test looks wrong.

mod answers;
mod clients;
mod faults;
mod journal;
mod scripts;

use crate::support::{Client, ScriptedProvider};

/// The path of chat requests.
const CHAT: &str = "/v1/chat/completions";

/// A request for a stream.
const STREAM: &str = r#"{"model":"small","stream":true}"#;

/// A request for a whole answer.
const WHOLE: &str = r#"{"model":"small"}"#;

/// A connection on which this chat request was just sent.
async fn asked(provider: &ScriptedProvider, body: &str) -> Client {
    let mut client = Client::connect(provider.addr()).await;
    client.post(CHAT, &[], body).await;
    client
}
