//! What the messages and the system prompt of a request hold besides text: images, documents, and what is not in the body.
//!
//! Messages are read as the body is read, in the same pass. It never decodes any of them, and copies none; what it does
//! not understand it takes for input that is not in the body.
//!
//! Start reading in [`BlockReader::messages`].

use crate::domain::call::BodyProblem;
use crate::domain::estimate::MediaSize;
use crate::protocol::json::member::{FoundNames, MemberNames, unquoted};
use crate::protocol::json::scan::{JsonError, Scanner};
use crate::protocol::request_basics::ContentKinds;

/// What is read of a message.
pub(super) const MESSAGE: MemberNames<1> = MemberNames::below(["content"], ["messages[].content"]);
/// What is read of a block, of a message or of the system prompt, or of a block inside of one.
pub(super) const BLOCK: MemberNames<4> = MemberNames::below(
    ["type", "text", "source", "content"],
    [
        "messages[].content[].type",
        "messages[].content[].text",
        "messages[].content[].source",
        "messages[].content[].content",
    ],
);
const TYPE: usize = 0;
const SOURCE: usize = 2;
const CONTENT: usize = 3;
/// What is read of the source of an image or a document.
pub(super) const BLOCK_SOURCE: MemberNames<2> = MemberNames::below(
    ["type", "content"],
    ["messages[].content[].source.type", "messages[].content[].source.content"],
);

/// Reads the system prompt and the messages at their places in the body.
pub(super) struct BlockReader<'a> {
    body: &'a str,
    kinds: ContentKinds,
    problem: Option<BodyProblem>,
}

impl<'a> BlockReader<'a> {
    pub(super) fn new(body: &'a str) -> Self {
        Self { body, kinds: ContentKinds::default(), problem: None }
    }

    /// What was read.
    ///
    /// # Errors
    /// A member that is read and given twice, or in a spelling that only some readers take for it.
    pub(super) fn end(self) -> Result<ContentKinds, BodyProblem> {
        self.problem.map_or(Ok(self.kinds), Err)
    }

    /// Reads the messages.
    pub(super) fn messages(&mut self, scanner: &mut Scanner<'_>) -> Result<(), JsonError> {
        match scanner.next() {
            Some(b'[') => scanner.list(|scanner| self.message(scanner)),
            _ => scanner.value(),
        }
    }

    /// Reads a text, or a list of blocks: the system prompt, the content of a message or of a block.
    pub(super) fn content(&mut self, scanner: &mut Scanner<'_>) -> Result<(), JsonError> {
        match scanner.next() {
            Some(b'[') => scanner.list(|scanner| self.block(scanner)),
            _ => scanner.value(),
        }
    }

    fn message(&mut self, scanner: &mut Scanner<'_>) -> Result<(), JsonError> {
        if scanner.next() != Some(b'{') {
            self.kinds.elsewhere = true;
            return scanner.value();
        }
        let body = self.body;
        let mut found = FoundNames::default();
        scanner.object(|scanner, name| {
            match unquoted(&body[name]).and_then(|name| MESSAGE.find(&name, &mut found, &mut self.problem)) {
                Some(_) => self.content(scanner),
                None => scanner.value(),
            }
        })
    }

    fn block(&mut self, scanner: &mut Scanner<'_>) -> Result<(), JsonError> {
        if scanner.next() != Some(b'{') {
            self.kinds.elsewhere |= scanner.next() != Some(b'"');
            return scanner.value();
        }
        let body = self.body;
        let mut found = FoundNames::default();
        let (mut kind, mut source) = (BlockType::Unknown, BlockSource::default());
        scanner.object(|scanner, name| {
            let index = unquoted(&body[name]).and_then(|name| BLOCK.find(&name, &mut found, &mut self.problem));
            match index {
                Some(TYPE) => kind = BlockType::of(&body[scanner.value_span()?]),
                Some(SOURCE) if scanner.next() == Some(b'{') => source = self.source(scanner)?,
                Some(CONTENT) => self.content(scanner)?,
                _ => scanner.value()?,
            }
            Ok(())
        })?;
        self.kinds = self.kinds.and(kind.kinds(source));
        Ok(())
    }

    fn source(&mut self, scanner: &mut Scanner<'_>) -> Result<BlockSource, JsonError> {
        let (body, start) = (self.body, scanner.at());
        let mut found = FoundNames::default();
        let mut source = BlockSource::default();
        scanner.object(|scanner, name| {
            let index = unquoted(&body[name]).and_then(|name| BLOCK_SOURCE.find(&name, &mut found, &mut self.problem));
            match index {
                Some(TYPE) => {
                    let kind = unquoted(&body[scanner.value_span()?]);
                    source.is_encoded = kind.as_deref() == Some("base64");
                    source.is_text = matches!(kind.as_deref(), Some("text" | "content"));
                }
                Some(_) => self.content(scanner)?,
                None => scanner.value()?,
            }
            Ok(())
        })?;
        source.bytes = (scanner.at() - start) as u64;
        Ok(source)
    }
}

/// Where an image or a document comes from.
#[derive(Clone, Copy, Default)]
struct BlockSource {
    /// Bytes of the body that it takes.
    bytes: u64,
    /// They are encoded bytes of it.
    is_encoded: bool,
    /// They are text, or blocks that were read by themselves.
    is_text: bool,
}

/// The types of blocks, by what they carry.
#[derive(Clone, Copy)]
enum BlockType {
    /// Text, and what holds blocks that are read by themselves.
    Text,
    Image,
    Document,
    Unknown,
}

impl BlockType {
    fn of(quoted: &str) -> Self {
        let Some(name) = unquoted(quoted) else { return Self::Unknown };
        match &*name {
            "text" | "thinking" | "redacted_thinking" | "search_result" | "tool_reference" => Self::Text,
            "image" => Self::Image,
            "document" => Self::Document,
            // What tools were asked and said is in the body, also where the provider runs them.
            name if name.ends_with("tool_use") || name.ends_with("_result") => Self::Text,
            _ => Self::Unknown,
        }
    }

    fn kinds(self, source: BlockSource) -> ContentKinds {
        let none = ContentKinds::default();
        match self {
            Self::Text => none,
            Self::Image => {
                let media = MediaSize { images: 1, image_bytes: source.bytes, ..MediaSize::default() };
                ContentKinds { images: true, media, ..none }
            }
            Self::Document if source.is_text => none,
            // The tokens of a page do not follow from its bytes.
            Self::Document if source.is_encoded => {
                let media = MediaSize { file_bytes: source.bytes, ..MediaSize::default() };
                ContentKinds { elsewhere: true, media, ..none }
            }
            Self::Document | Self::Unknown => ContentKinds { elsewhere: true, ..none },
        }
    }
}
