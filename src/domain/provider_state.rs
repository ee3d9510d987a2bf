//! What providers keep, or seal, for later requests: responses, conversations, items, encrypted reasoning. Only the account
//! that made it knows it, and only the key that it was made for may use it.
//!
//! It holds no text of a client: an id is known by its hash alone. Where what is kept where is for `relay` and `store`.
//!
//! Start reading in [`NamedState`].

use sha2::{Digest, Sha256};

/// How much of what is encrypted tells it from anything else, in bytes: a random number stands in its first ones.
const ENCRYPTED_START: usize = 128;

/// Names something that a provider made.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum StateId {
    /// It is stored there, and has an id.
    Stored([u8; 16]),
    /// The client has it, and only the account that encrypted it can read it.
    Encrypted([u8; 16]),
}

impl StateId {
    /// What the provider calls `id`.
    pub fn stored(id: &str) -> Self {
        Self::Stored(hash(&[b"id", id.as_bytes()]))
    }

    /// What begins with `text`.
    pub fn encrypted(text: &str) -> Self {
        Self::Encrypted(hash(&[b"encrypted", &text.as_bytes()[..text.len().min(ENCRYPTED_START)]]))
    }

    /// It, as far as it is `owner`'s: nobody else's has this value.
    pub fn of_owner(self, owner: &str) -> OwnedStateId {
        let (Self::Stored(id) | Self::Encrypted(id)) = self;
        OwnedStateId(hash(&[owner.as_bytes(), &id]))
    }
}

/// Something that a provider made for one key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct OwnedStateId(pub [u8; 16]);

/// The first half of the SHA-256 of `parts`, each with its length.
fn hash(parts: &[&[u8]]) -> [u8; 16] {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    let all: [u8; 32] = digest.finalize().into();
    std::array::from_fn(|index| all[index])
}

/// An account at a provider: what it made, no other one knows.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ProviderAccount {
    /// The provider's name in the configuration.
    pub provider: std::sync::Arc<str>,
    /// The first bytes of the SHA-256 of its credential; zeros where it has none.
    pub credential: [u8; 8],
}

/// Something of an earlier answer that a request refers to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamedState {
    /// Which it is.
    pub id: StateId,
    /// What kind of thing it is.
    pub kind: StateKind,
    /// Its id as the client wrote it; empty for what is encrypted.
    pub text: Box<str>,
}

/// The kinds of things that requests refer to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StateKind {
    /// `previous_response_id`
    Response,
    /// `conversation`
    Conversation,
    /// An item of `input` that is named instead of written.
    Item,
    /// `encrypted_content` of an item.
    Encrypted,
    /// The response that a path names.
    StoredResponse,
    /// The conversation that a path names.
    StoredConversation,
    /// The item of it that a path names.
    StoredItem,
}

impl StateKind {
    /// The member of the body, or the part of the path, by which it is referred to.
    pub fn param(self) -> &'static str {
        match self {
            Self::Response => "previous_response_id",
            Self::Conversation => "conversation",
            Self::Item | Self::Encrypted => "input",
            Self::StoredResponse => "response_id",
            Self::StoredConversation => "conversation_id",
            Self::StoredItem => "item_id",
        }
    }

    /// Whether a path names it.
    pub fn is_in_path(self) -> bool {
        matches!(self, Self::StoredResponse | Self::StoredConversation | Self::StoredItem)
    }

    /// Whether it is a conversation, which providers keep until it is deleted.
    pub fn is_conversation(self) -> bool {
        matches!(self, Self::Conversation | Self::StoredConversation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_one_keys_is_no_other_keys() {
        let id = StateId::stored("resp_1");
        assert_eq!(id.of_owner("a"), StateId::stored("resp_1").of_owner("a"));
        let others = [
            StateId::stored("resp_2").of_owner("a"),
            id.of_owner("b"),
            StateId::encrypted("resp_1").of_owner("a"),
            StateId::stored("").of_owner("aresp_1"),
        ];
        assert!(others.iter().all(|other| *other != id.of_owner("a")));
    }

    #[test]
    fn what_is_encrypted_is_known_by_its_beginning() {
        let text = "x".repeat(ENCRYPTED_START);
        assert_eq!(StateId::encrypted(&format!("{text}a")), StateId::encrypted(&format!("{text}b")));
        assert_ne!(StateId::encrypted(&text), StateId::encrypted(&text[1..]));
    }
}
