//! Requests about a response that its provider keeps: it is read, cancelled or deleted, or its input is listed.
//!
//! They have no body and name no model: an id of the client's says which response is meant. What an id may be is decided
//! here, so that none can lead a provider to another path. Where the response is kept is decided elsewhere.
//!
//! Start reading in [`StoredRequest`].

/// The longest id, in bytes; those of OpenAI have some 60.
const LONGEST_ID: usize = 512;

/// What is to be done with a stored response.
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
}

impl StoredRequestKind {
    /// Every action.
    pub const ALL: [Self; 4] = [Self::Retrieve, Self::Delete, Self::Cancel, Self::InputItems];

    /// What follows the id in its path.
    pub fn path_end(self) -> &'static str {
        match self {
            Self::Retrieve | Self::Delete => "",
            Self::Cancel => "/cancel",
            Self::InputItems => "/input_items",
        }
    }

    /// Its HTTP method.
    pub fn method(self) -> &'static str {
        match self {
            Self::Retrieve | Self::InputItems => "GET",
            Self::Delete => "DELETE",
            Self::Cancel => "POST",
        }
    }

    /// The parameters of the query that are passed on. Any other one may be a credential, or choose another account.
    pub fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::Retrieve => &["include", "include[]", "stream", "starting_after", "include_obfuscation"],
            Self::Delete | Self::Cancel => &[],
            Self::InputItems => &["after", "before", "include", "include[]", "limit", "order"],
        }
    }
}

/// One request about a stored response.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredRequest {
    /// What is to be done.
    pub action: StoredRequestKind,
    /// The response's id as the client wrote it, percent-decoded.
    pub id: Box<str>,
    /// The client's query, as it wrote it.
    pub query: Option<Box<str>>,
    /// Whether the client wants the response as a stream of events.
    pub stream: bool,
}

impl StoredRequest {
    /// Whether any provider can have made its id: a segment of a path without anything in it that a URL reads otherwise.
    pub fn has_possible_id(&self) -> bool {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b':' | b'=');
        let id = self.id.as_bytes();
        (1..=LONGEST_ID).contains(&id.len()) && id[0] != b'.' && id.iter().all(|byte| is_plain(*byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_plain_segment() {
        let check = |id: &str, expected: bool| {
            let request =
                StoredRequest { action: StoredRequestKind::Retrieve, id: id.into(), query: None, stream: false };
            assert_eq!(request.has_possible_id(), expected, "{id:?}");
        };
        check("resp_68e1f3-A.b:c=", true);
        check(&"x".repeat(LONGEST_ID), true);
        check(&"x".repeat(LONGEST_ID + 1), false);
        for id in
            ["", ".", "..", ".x", "a/b", "../x", "a%2fb", "a?b", "a#b", "a b", "a\\b", "a\nb", "é", "a\0", "a;b", "a@b"]
        {
            check(id, false);
        }
    }
}
