//! What an SLA probe asks: a short answer, streamed, or the embedding of one word.
//!
//! Start reading at [`body`].

use crate::domain::call::Endpoint;
use serde_json::json;

/// Room for a short answer. With less, models that think first give none.
const MAX_TOKENS: u64 = 16;

/// The body of a probe of `model` by its embeddings, or else by chat.
pub fn body(endpoint: Endpoint, model: &str) -> String {
    let call = match endpoint {
        Endpoint::Embeddings => json!({ "model": model, "input": "ping" }),
        _ => {
            let messages = json!([{ "role": "user", "content": "Answer with the word pong." }]);
            json!({ "model": model, "messages": messages, "max_tokens": MAX_TOKENS, "stream": true })
        }
    };
    call.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::body_member::ListedMembers;
    use crate::protocol::read_request;

    #[test]
    fn a_probe_is_understood_as_a_client_is() {
        for (endpoint, stream) in [(Endpoint::Chat, true), (Endpoint::Embeddings, false)] {
            let call = read_request(endpoint, body(endpoint, "big").into(), &ListedMembers::default());
            let call = call.unwrap_or_else(|problem| panic!("{endpoint:?}: {problem:?}"));
            assert_eq!((&*call.metadata().model, call.metadata().stream), ("big", stream), "{endpoint:?}");
        }
    }
}
