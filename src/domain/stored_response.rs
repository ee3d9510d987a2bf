//! Requests about a response or a conversation that its provider keeps: it is read, changed or deleted, or what belongs to it
//! is listed.
//!
//! They name no model: an id of the client's says what is meant. What an id may be is decided here, so that none can lead a
//! provider to another path. Where it is kept is decided elsewhere.
//!
//! Start reading in [`StoredRequest`].

/// The longest id, in bytes; those of OpenAI have some 60.
const LONGEST_ID: usize = 512;

/// What is to be done with a stored response or a conversation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum StoredRequestKind {
    /// `GET /v1/responses/{id}`
    Retrieve,
    /// `DELETE /v1/responses/{id}`
    Delete,
    /// `POST /v1/responses/{id}/cancel`
    Cancel,
    /// `GET /v1/responses/{id}/input_items`
    InputItems,
    /// `GET /v1/conversations/{id}`
    RetrieveConversation,
    /// `POST /v1/conversations/{id}`
    UpdateConversation,
    /// `DELETE /v1/conversations/{id}`
    DeleteConversation,
    /// `GET /v1/conversations/{id}/items`
    ListItems,
    /// `POST /v1/conversations/{id}/items`
    AddItems,
    /// `GET /v1/conversations/{id}/items/{item_id}`
    RetrieveItem,
    /// `DELETE /v1/conversations/{id}/items/{item_id}`
    DeleteItem,
}

impl StoredRequestKind {
    /// Every action.
    pub const ALL: [Self; 11] = [
        Self::Retrieve,
        Self::Delete,
        Self::Cancel,
        Self::InputItems,
        Self::RetrieveConversation,
        Self::UpdateConversation,
        Self::DeleteConversation,
        Self::ListItems,
        Self::AddItems,
        Self::RetrieveItem,
        Self::DeleteItem,
    ];

    /// Whether it is about a conversation, and not about a response.
    pub fn is_of_conversation(self) -> bool {
        !matches!(self, Self::Retrieve | Self::Delete | Self::Cancel | Self::InputItems)
    }

    /// What follows the id in its path.
    pub fn path_end(self) -> &'static str {
        match self {
            Self::Retrieve
            | Self::Delete
            | Self::RetrieveConversation
            | Self::UpdateConversation
            | Self::DeleteConversation => "",
            Self::Cancel => "/cancel",
            Self::InputItems => "/input_items",
            Self::ListItems | Self::AddItems | Self::RetrieveItem | Self::DeleteItem => "/items",
        }
    }

    /// Whether the id of an item follows that.
    pub fn names_item(self) -> bool {
        matches!(self, Self::RetrieveItem | Self::DeleteItem)
    }

    /// Its HTTP method.
    pub fn method(self) -> &'static str {
        match self {
            Self::Retrieve | Self::InputItems | Self::RetrieveConversation | Self::ListItems | Self::RetrieveItem => {
                "GET"
            }
            Self::Delete | Self::DeleteConversation | Self::DeleteItem => "DELETE",
            Self::Cancel | Self::UpdateConversation | Self::AddItems => "POST",
        }
    }

    /// Whether its provider gets the client's body.
    pub fn has_body(self) -> bool {
        matches!(self, Self::UpdateConversation | Self::AddItems)
    }

    /// Whether asking twice is as good as once: it names a state to be in, and adds nothing.
    pub fn may_be_repeated(self) -> bool {
        self != Self::AddItems
    }

    /// The parameters of the query that are passed on. Any other one may be a credential, or choose another account.
    pub fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::Retrieve => &["include", "include[]", "stream", "starting_after", "include_obfuscation"],
            Self::Delete
            | Self::Cancel
            | Self::RetrieveConversation
            | Self::UpdateConversation
            | Self::DeleteConversation
            | Self::DeleteItem => &[],
            Self::InputItems => &["after", "before", "include", "include[]", "limit", "order"],
            Self::ListItems => &["after", "include", "include[]", "limit", "order"],
            Self::AddItems | Self::RetrieveItem => &["include", "include[]"],
        }
    }
}

/// One request about a stored response or a conversation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredRequest {
    /// What is to be done.
    pub action: StoredRequestKind,
    /// The id of the response or the conversation as the client wrote it, percent-decoded.
    pub id: Box<str>,
    /// The same of the item of the conversation, where its path names one.
    pub item: Option<Box<str>>,
    /// The client's query, as it wrote it.
    pub query: Option<Box<str>>,
    /// Whether the client wants the response as a stream of events.
    pub stream: bool,
}

impl StoredRequest {
    /// Its path below that of all responses or conversations, of ids that are [possible](is_possible_id).
    pub fn path(&self) -> String {
        let item = self.item.as_deref().map_or(String::new(), |item| format!("/{item}"));
        format!("/{}{}{item}", self.id, self.action.path_end())
    }
}

/// Whether any provider can have made `id`: a segment of a path without anything in it that a URL reads otherwise.
pub fn is_possible_id(id: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b':' | b'=');
    let id = id.as_bytes();
    (1..=LONGEST_ID).contains(&id.len()) && id[0] != b'.' && id.iter().all(|byte| is_plain(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_plain_segment() {
        let check = |id: &str, expected: bool| assert_eq!(is_possible_id(id), expected, "{id:?}");
        check("resp_68e1f3-A.b:c=", true);
        check(&"x".repeat(LONGEST_ID), true);
        check(&"x".repeat(LONGEST_ID + 1), false);
        for id in
            ["", ".", "..", ".x", "a/b", "../x", "a%2fb", "a?b", "a#b", "a b", "a\\b", "a\nb", "é", "a\0", "a;b", "a@b"]
        {
            check(id, false);
        }
    }

    #[test]
    fn no_two_requests_have_one_method_and_path() {
        let place = |action: StoredRequestKind| {
            (action.method(), action.is_of_conversation(), action.path_end(), action.names_item())
        };
        for (at, action) in StoredRequestKind::ALL.into_iter().enumerate() {
            assert!(StoredRequestKind::ALL[..at].iter().all(|other| place(*other) != place(action)), "{action:?}");
        }
    }
}
