//! What clients and providers speak: the JSON of model APIs and its framing. No other module knows either.
//!
//! A [`Dialect`] is what a client speaks to us; a [`Grammar`] is what a provider answers in. Whoever asks here
//! says which one is meant; how it is written is known to that dialect's own module alone: [`chat`], [`messages`],
//! [`responses`]. It
//! never does I/O, never looks at a clock and knows neither keys nor budgets.
//!
//! Start reading in [`Grammar`], then [`chat::request`] and [`chat::answer`]; ADR 0006 says what to add where.

mod answer_model;
mod body_kind;
pub mod chat;
pub mod edit;
mod given;
pub mod json;
mod json_schema;
pub mod messages;
mod provider_error;
mod request_basics;
pub mod responses;
pub mod sse;

pub use body_kind::{BYTE_ORDER_MARK, BodyKind};
pub use provider_error::read_error;
pub use responses::request::{meant_for, read_stored};

pub use crate::domain::call::Dialect;

use crate::domain::body_member::ListedMembers;
use crate::domain::call::{BodyProblem, Call, CeilingName, Endpoint};
use crate::domain::id::RequestId;
use crate::domain::provider_state::StateId;
use crate::domain::usage::Usage;
use bytes::Bytes;
use chat::answer::{ChatQuirks, ChatStream};
use json::edit::EditedBody;
use messages::answer::MessagesStream;
use responses::answer::ResponsesStream;
use std::ops::Range;

/// Understands `body` as a request to `endpoint`, in its dialect, and takes note of members that are `listed`.
///
/// # Errors
/// [`BodyProblem`]: what is wrong with it, for the client.
pub fn read_request(endpoint: Endpoint, body: Bytes, listed: &ListedMembers) -> Result<Call, BodyProblem> {
    match endpoint.dialect() {
        Dialect::Chat => chat::request::read_request(endpoint, body, listed),
        Dialect::Messages => messages::request::read_request(endpoint, body, listed),
        Dialect::Responses if endpoint == Endpoint::Conversations => {
            responses::request::read_conversation(body, listed)
        }
        Dialect::Responses => responses::request::read_request(endpoint, body, listed),
    }
}

/// Headers of a client that are passed on to a provider of its `dialect`, beside those that every provider gets.
pub fn forwarded_headers(dialect: Dialect) -> &'static [&'static str] {
    match dialect {
        Dialect::Chat | Dialect::Responses => &["openai-beta"],
        Dialect::Messages => &["anthropic-version", "anthropic-beta"],
    }
}

/// The header by which a provider of `dialect` names a request to its client; `None` where clients look for none.
pub fn request_id_header(dialect: Dialect) -> Option<&'static str> {
    match dialect {
        Dialect::Chat | Dialect::Responses => None,
        Dialect::Messages => Some("request-id"),
    }
}

/// The dialect that a client speaks where its path does not tell; `has` says whether it sent a header.
pub fn dialect_of_client(has: impl Fn(&str) -> bool) -> Dialect {
    if has(messages::VERSION_HEADER) { Dialect::Messages } else { Dialect::Chat }
}

/// The grammar a provider answers in, and where this provider differs from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Grammar {
    /// OpenAI's chat completions, completions and embeddings.
    Chat(ChatQuirks),
    /// Anthropic's Messages.
    Messages,
    /// Counts of tokens alone, as Anthropic and OpenAI write them.
    TokenCount,
    /// OpenAI's Responses.
    Responses,
    /// What is said of a stored response or a conversation: it as far as it is, the items that belong to it, that it is deleted.
    StoredResponse,
}

impl Grammar {
    /// What a provider with these `quirks` answers in on `endpoint`.
    pub fn answering(endpoint: Endpoint, quirks: ChatQuirks) -> Self {
        match endpoint {
            Endpoint::Chat | Endpoint::Completions | Endpoint::Embeddings => Self::Chat(quirks),
            Endpoint::Messages => Self::Messages,
            Endpoint::CountTokens | Endpoint::InputTokens => Self::TokenCount,
            Endpoint::Responses => Self::Responses,
            Endpoint::Conversations | Endpoint::StoredResponses => Self::StoredResponse,
        }
    }

    /// The body of `call` for a provider that calls the model `model`, a JSON string. `ask_usage`: whether the wish for
    /// usage that the call may have is written into it. `ceiling`: the one name by which the provider must read a ceiling
    /// of the output, and the most tokens per choice; `None`: what the client wrote of that stays.
    pub fn write_request(
        self,
        call: &Call,
        model: &Bytes,
        ask_usage: bool,
        ceiling: Option<(CeilingName, u64)>,
    ) -> EditedBody {
        // A call goes to providers of its own dialect alone (`Deployment::endpoints`): nothing is translated.
        match self {
            Self::Chat(_) | Self::Messages | Self::TokenCount | Self::Responses | Self::StoredResponse => {
                edit::provider_body(call, model, ask_usage, ceiling)
            }
        }
    }

    /// What this provider calls the ceiling of the output of `call`.
    pub fn ceiling_name(self, call: &Call) -> CeilingName {
        match self {
            Self::Chat(quirks) => quirks.ceiling_name(call.endpoint()),
            Self::Messages | Self::TokenCount => CeilingName::MaxTokens,
            Self::Responses | Self::StoredResponse => CeilingName::MaxOutputTokens,
        }
    }

    /// Whether the body of an error says that the provider does not know this name of the ceiling.
    pub fn refuses_ceiling(self, error: &[u8], name: CeilingName) -> bool {
        match self {
            Self::Chat(_) => provider_error::refuses_ceiling(error, name),
            Self::Messages | Self::TokenCount | Self::Responses | Self::StoredResponse => false,
        }
    }

    /// Whether the body of an error is about our wish for usage.
    pub fn refuses_usage(self, error: &[u8]) -> bool {
        match self {
            Self::Chat(_) => provider_error::refuses_usage(error),
            Self::Messages | Self::TokenCount | Self::Responses | Self::StoredResponse => false,
        }
    }

    /// A reader of the stream that answers `call`.
    pub fn stream_reader(self, call: &Call) -> StreamReader {
        match self {
            Self::Chat(quirks) => StreamReader::Chat(ChatStream::new(call, quirks)),
            Self::Messages | Self::TokenCount => StreamReader::Messages(MessagesStream::default()),
            Self::Responses => StreamReader::Responses(ResponsesStream::default()),
            Self::StoredResponse => StreamReader::Responses(ResponsesStream::of_stored()),
        }
    }

    /// Reads a whole answer, a stream of one frame, and passes `note` each moment in it.
    ///
    /// # Errors
    /// [`AnswerError`]: it is no answer of this grammar.
    pub fn read_whole(self, body: &[u8], note: impl FnMut(Moment)) -> Result<(), AnswerError> {
        match self {
            Self::Chat(_) => chat::answer::read_whole(body, note),
            Self::Messages => messages::answer::read_whole(body, note),
            Self::TokenCount => messages::answer::read_count(body, note),
            Self::Responses => responses::answer::read_whole(body, note),
            Self::StoredResponse => responses::answer::read_stored(body, note),
        }
    }

    /// A whole answer to `call` as the stream that its client asked for: one frame, and the end. `None` where it is none
    /// of this grammar, or one whose hosts never answer in the other form.
    pub fn stream_of(self, whole: &[u8], call: &Call) -> Option<Vec<u8>> {
        match self {
            Self::Chat(_) => chat::reshape::stream_of(whole, call),
            Self::Messages | Self::TokenCount | Self::Responses | Self::StoredResponse => None,
        }
    }

    /// A complete stream as the whole answer that its client asked for; `None` as in [`stream_of`](Self::stream_of).
    pub fn whole_of(self, stream: Bytes) -> Option<Vec<u8>> {
        match self {
            Self::Chat(_) => chat::reshape::whole_of(stream),
            Self::Messages | Self::TokenCount => None,
            Self::Responses | Self::StoredResponse => responses::answer::whole_of(&stream),
        }
    }

    /// The model that an answer, or the beginning of a stream, says it is of, where it is another one than `sent`.
    pub fn other_model(self, answer: &[u8], sent: &str) -> Option<Box<str>> {
        match self {
            Self::Chat(_) => answer_model::other_model(answer, sent, None),
            Self::Messages | Self::TokenCount => answer_model::other_model(answer, sent, Some("message")),
            Self::Responses => answer_model::other_model(answer, sent, Some("response")),
            // It was asked for by its id, whatever made it.
            Self::StoredResponse => None,
        }
    }

    /// Bytes of text in a whole answer, reasoning and arguments of calls included.
    pub fn text_bytes(self, body: &[u8]) -> u64 {
        match self {
            Self::Chat(_) | Self::Responses | Self::StoredResponse => json::text::text_bytes(body),
            Self::Messages | Self::TokenCount => messages::answer::text_bytes(body),
        }
    }

    /// The names in a provider's list of models; `None` where it is none.
    pub fn listed_models(self, body: &[u8]) -> Option<Vec<String>> {
        match self {
            Self::Chat(_) | Self::Messages | Self::TokenCount | Self::Responses | Self::StoredResponse => {
                chat::models::listed(body)
            }
        }
    }

    /// What the body of a provider's error speaks of, and what it says to people.
    pub fn read_error(self, body: &[u8]) -> ErrorReading {
        match self {
            Self::Chat(_) | Self::Messages | Self::TokenCount | Self::Responses | Self::StoredResponse => {
                read_error(body)
            }
        }
    }

    /// What may come of a stream before its first token.
    pub fn opening(self) -> StreamOpeningSize {
        match self {
            Self::Chat(_) | Self::Messages | Self::TokenCount => StreamOpeningSize { frames: 2, bytes: 64 * 1024 },
            // Its first events repeat the instructions and tools of the request, two or three times.
            Self::Responses | Self::StoredResponse => StreamOpeningSize { frames: 8, bytes: 1024 * 1024 },
        }
    }
}

/// What may come of a stream before its first token, while another provider may still be asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamOpeningSize {
    /// Frames without a token, however long the first token takes.
    pub frames: u32,
    /// Bytes: from there on the client gets them.
    pub bytes: usize,
}

/// What a provider says of an answer at one point of it, whatever its grammar. What means nothing to anybody
/// behind the reader (roles, pings, unknown members) is no moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// A part of the answer: text, reasoning, a refusal, a call of a tool, audio.
    Content {
        /// How much of it is text, in bytes as they are once unescaped.
        text_bytes: u64,
    },
    /// A choice, or more than one, is finished.
    Finish,
    /// The provider counted tokens.
    Usage(UsageReport),
    /// The answer is an error.
    Fault,
    /// The answer is complete, and nothing of it follows.
    End,
    /// The answer failed within, and the frame says so in the client's own words: it is the last one.
    Failed,
    /// The provider made something that later requests may refer to.
    Made(StateId),
}

impl Moment {
    /// Whether it commits us to this answer: from then on the request goes to no other provider.
    pub fn is_good(self) -> bool {
        matches!(self, Self::Content { .. } | Self::Finish)
    }
}

/// What a provider says of its tokens.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct UsageReport {
    /// `None` where a count that costs money is missing or cannot be.
    pub usage: Option<Usage>,
    /// It says how much was output.
    pub has_output: bool,
    /// It says what cannot be a count: less than nothing, parts of tokens, more than any answer has, words.
    pub is_impossible: bool,
}

/// What a provider's error speaks of. Statuses are used for many things; the body often says which is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorTopic {
    /// The request is longer than the model's context.
    ContextTooLong,
    /// What the request says is not allowed: a content filter, moderation.
    Content,
    /// Our credential is refused.
    Credential,
    /// Our account is refused: money, a quota that waiting does not renew, a suspension, a region.
    Account,
    /// The model is unknown there, or withdrawn.
    Model,
    /// The path or its method is unknown there: a host without the endpoint.
    Endpoint,
    /// Too much in too little time: tokens or requests per minute.
    Rate,
    /// It is a page for browsers, of something that stands before the provider.
    Page,
    /// Nothing of these, or it could not be read.
    Unknown,
}

/// The body of a provider's error, as far as it was understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ErrorReading {
    /// What it speaks of.
    pub topic: ErrorTopic,
    /// The provider's own message, one line of at most 300 characters, with `***` in place of whatever looks like a
    /// credential. It may repeat what the client sent.
    pub sentence: Option<Box<str>>,
    /// The span of time after which it asks to try again, as it writes it: `12.5s`, `9m38.016s`, `20 seconds`.
    pub wait: Option<Box<str>>,
}

/// One event of a stream, whatever its framing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event<'a> {
    /// The name of its type, where it has one.
    pub name: Option<&'a [u8]>,
    /// Never blank.
    pub payload: &'a [u8],
    /// Whether its end was seen; `false` only for the last one of a stream that was cut.
    pub terminated: bool,
}

/// A stream being read: one event after the other.
pub enum StreamReader {
    /// In the grammar of chat completions.
    Chat(ChatStream),
    /// In that of Messages.
    Messages(MessagesStream),
    /// In that of Responses.
    Responses(ResponsesStream),
}

impl StreamReader {
    /// Reads one event and passes `note` each moment in it; returns how the event is to be passed on.
    ///
    /// # Errors
    /// [`FrameError`]: the stream cannot be read on.
    #[inline]
    pub fn read(&mut self, event: Event<'_>, note: impl FnMut(Moment)) -> Result<FrameEdit, FrameError> {
        match self {
            Self::Chat(stream) => stream.read(event, note),
            Self::Messages(stream) => stream.read(event, note),
            Self::Responses(stream) => stream.read(event, note),
        }
    }

    /// Whether all of the answer was said, whatever follows: counts may, and an end.
    #[inline]
    pub fn is_finished(&self) -> bool {
        match self {
            Self::Chat(stream) => stream.is_finished(),
            Self::Messages(stream) => stream.is_finished(),
            Self::Responses(stream) => stream.is_finished(),
        }
    }

    /// Judges the end of a stream that did not say itself that it was over: what to add to a complete one.
    ///
    /// # Errors
    /// What is missing of an incomplete one, for the log.
    pub fn end(&self) -> Result<&'static [u8], &'static str> {
        match self {
            Self::Chat(stream) => stream.end(),
            Self::Messages(stream) => stream.end(),
            Self::Responses(stream) => stream.end(),
        }
    }

    /// The number that the next event would have; 0 where events are not numbered.
    pub fn next_number(&self) -> u64 {
        match self {
            Self::Chat(_) | Self::Messages(_) => 0,
            Self::Responses(stream) => stream.next_number(),
        }
    }
}

/// How a frame of a stream is passed on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FrameEdit {
    /// As it came.
    Keep,
    /// As it came: a sign of life, and no part of the answer, like a comment.
    Ping,
    /// Without these bytes of its payload.
    Cut(Range<usize>),
    /// Without the name of its event, which is not what it is, and without these bytes of its payload.
    Unname(Range<usize>),
    /// Not at all: it holds only what the client did not ask for.
    Drop,
    /// Not at all: it is no part of an answer, and a client might fail on it.
    Ignore,
}

/// Why a stream cannot be passed on, each with a line for the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    /// A frame is none of this grammar.
    Malformed(&'static str),
    /// The stream is over and something of the answer is missing.
    Incomplete(&'static str),
}

/// Why a whole answer is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AnswerError {
    /// It is cut.
    #[error("the JSON ends early")]
    EndsEarly,
    /// It is not one JSON object, or one whose members have impossible types.
    #[error("no JSON object: {0:?} error")]
    NotAnObject(serde_json::error::Category),
}

/// An error of ours, whatever the dialect it is written in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ErrorDetails<'a> {
    /// The HTTP status.
    pub status: u16,
    /// Its class, one of few.
    pub kind: &'a str,
    /// What exactly it is, for programs.
    pub code: Option<&'a str>,
    /// The field or header at fault.
    pub param: Option<&'a str>,
    /// What happened and what to do, for people.
    pub message: &'a str,
    /// The request that it ends, where that has a number.
    pub request_id: Option<RequestId>,
}

impl ErrorDetails<'_> {
    /// The body of an answer that is this error, in `dialect`.
    pub fn body(&self, dialect: Dialect) -> Vec<u8> {
        match dialect {
            Dialect::Chat | Dialect::Responses => chat::error::body(self),
            Dialect::Messages => messages::error::body(self),
        }
    }

    /// The status of an answer that is this error: a dialect may have one of its own for it.
    pub fn status(&self, dialect: Dialect) -> u16 {
        match dialect {
            Dialect::Chat | Dialect::Responses => self.status,
            Dialect::Messages => messages::error::status(self),
        }
    }

    /// What ends a stream in `dialect` that broke after its first part, so that its client notices; `number`
    /// is the place of this frame in it, where frames are numbered.
    pub fn break_frame(&self, dialect: Dialect, number: u64) -> Bytes {
        match dialect {
            Dialect::Chat => chat::error::break_frame(self),
            Dialect::Messages => messages::error::break_frame(self),
            Dialect::Responses => responses::error::break_frame(self, number),
        }
    }
}
