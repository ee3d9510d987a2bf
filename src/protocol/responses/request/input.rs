//! The items of `input`: what they hold besides text, and which of them name something that a provider keeps.
//!
//! They are read as the body is read, in the same pass, and none is copied.
//!
//! Start reading in [`InputReader::input`].

use crate::domain::call::BodyProblem;
use crate::domain::provider_state::{NamedState, StateId, StateKind};
use crate::protocol::chat::request::content::ContentReader;
use crate::protocol::json::member::{FoundNames, MemberNames, unquoted};
use crate::protocol::json::scan::{JsonError, Scanner};
use crate::protocol::request_basics::ContentKinds;
use std::borrow::Cow;

/// What is read of an item.
const NAMES: [&str; 7] = ["type", "role", "id", "content", "output", "encrypted_content", "result"];
/// The same of one in `input`.
pub(super) const ITEM: MemberNames<7> = MemberNames::below(
    NAMES,
    [
        "input[].type",
        "input[].role",
        "input[].id",
        "input[].content",
        "input[].output",
        "input[].encrypted_content",
        "input[].result",
    ],
);
/// The same of one in `items`.
const ITEM_OF_CONVERSATION: MemberNames<7> = MemberNames::below(
    NAMES,
    [
        "items[].type",
        "items[].role",
        "items[].id",
        "items[].content",
        "items[].output",
        "items[].encrypted_content",
        "items[].result",
    ],
);
const TYPE: usize = 0;
const ROLE: usize = 1;
const ID: usize = 2;
const CONTENT: usize = 3;
const OUTPUT: usize = 4;
const ENCRYPTED: usize = 5;
const RESULT: usize = 6;

/// What is read of a part of an item's content.
pub(super) const PART: MemberNames<2> =
    MemberNames::below(["type", "text"], ["input[].content[].type", "input[].content[].text"]);
const PART_OF_CONVERSATION: MemberNames<2> =
    MemberNames::below(["type", "text"], ["items[].content[].type", "items[].content[].text"]);

/// Types of items that say everything themselves: an id of theirs names nothing.
const WHOLE_ITEMS: [&str; 32] = [
    "message",
    "function_call",
    "function_call_output",
    "custom_tool_call",
    "custom_tool_call_output",
    "file_search_call",
    "web_search_call",
    "computer_call",
    "computer_call_output",
    "code_interpreter_call",
    "local_shell_call",
    "local_shell_call_output",
    "shell_call",
    "shell_call_output",
    "apply_patch_call",
    "apply_patch_call_output",
    "mcp_list_tools",
    "mcp_call",
    "mcp_approval_request",
    "mcp_approval_response",
    "tool_search_call",
    "tool_search_output",
    "additional_tools",
    "configuration_update",
    "program",
    "program_output",
    "compaction_trigger",
    "agent_message",
    "context_compaction",
    "ghost_snapshot",
    "function_tool_call",
    "function_tool_call_output",
];

/// What the items hold.
#[derive(Default)]
pub(super) struct InputMetadata {
    pub(super) contents: ContentKinds,
    pub(super) refers_to: Vec<NamedState>,
}

/// Reads the items at their place in the body.
pub(super) struct InputReader<'a> {
    body: &'a str,
    names: &'static MemberNames<7>,
    contents: ContentReader<'a>,
    refers_to: Vec<NamedState>,
    problem: Option<BodyProblem>,
}

impl<'a> InputReader<'a> {
    /// Of the member `input`.
    pub(super) fn new(body: &'a str) -> Self {
        Self::of(body, &ITEM, PART)
    }

    /// Of the member `items`.
    pub(super) fn of_conversation(body: &'a str) -> Self {
        Self::of(body, &ITEM_OF_CONVERSATION, PART_OF_CONVERSATION)
    }

    fn of(body: &'a str, names: &'static MemberNames<7>, part: MemberNames<2>) -> Self {
        Self { body, names, contents: ContentReader::of_parts(body, part), refers_to: Vec::new(), problem: None }
    }

    /// What was read.
    ///
    /// # Errors
    /// A member that is read and given twice, or in a spelling that only some providers take for it.
    pub(super) fn end(self) -> Result<InputMetadata, BodyProblem> {
        let contents = self.contents.end()?;
        self.problem.map_or(Ok(InputMetadata { contents, refers_to: self.refers_to }), Err)
    }

    /// Reads the input: a text, or a list of items.
    pub(super) fn input(&mut self, scanner: &mut Scanner<'_>) -> Result<(), JsonError> {
        match scanner.next() {
            Some(b'[') => scanner.list(|scanner| match scanner.next() {
                Some(b'{') => self.item(scanner),
                _ => scanner.value(),
            }),
            _ => scanner.value(),
        }
    }

    fn item(&mut self, scanner: &mut Scanner<'_>) -> Result<(), JsonError> {
        let (body, names) = (self.body, self.names);
        let (mut found, mut item) = (FoundNames::default(), InputItem::default());
        scanner.object(|scanner, name| {
            let index = unquoted(&body[name]).and_then(|name| names.find(&name, &mut found, &mut self.problem));
            let start = scanner.at();
            match (index, scanner.next()) {
                (Some(CONTENT | OUTPUT), Some(b'[')) => {
                    scanner.list(|scanner| self.contents.part(scanner))?;
                    item.has_content |= index == Some(CONTENT);
                }
                (Some(OUTPUT), Some(b'{')) => self.contents.part(scanner)?,
                _ => scanner.value()?,
            }
            let value = &body[start..scanner.at()];
            match index {
                Some(TYPE) => item.kind = unquoted(value),
                Some(ROLE) => item.has_role = value != "null",
                Some(ID) => item.id = unquoted(value).filter(|id| !id.is_empty()),
                Some(ENCRYPTED) => item.encrypted = unquoted(value).filter(|text| !text.is_empty()),
                Some(RESULT) => item.has_content |= value != "null",
                Some(_) | None => {}
            }
            Ok(())
        })?;
        self.refers_to.extend(item.refers_to());
        Ok(())
    }
}

/// One item, as far as it is read.
#[derive(Default)]
struct InputItem<'a> {
    kind: Option<Cow<'a, str>>,
    has_role: bool,
    has_content: bool,
    id: Option<Cow<'a, str>>,
    encrypted: Option<Cow<'a, str>>,
}

impl InputItem<'_> {
    fn refers_to(self) -> Option<NamedState> {
        if let Some(encrypted) = self.encrypted {
            let id = StateId::encrypted(&encrypted);
            return Some(NamedState { id, kind: StateKind::Encrypted, text: "".into() });
        }
        let is_whole = match self.kind.as_deref() {
            None => self.has_role,
            Some("item_reference") => false,
            Some(kind) => self.has_content || WHOLE_ITEMS.contains(&kind),
        };
        let id = self.id.filter(|_| !is_whole)?;
        Some(NamedState { id: StateId::stored(&id), kind: StateKind::Item, text: (&*id).into() })
    }
}
