//! A request that was read: the few fields we must know, and the bytes as they came.
//!
//! It exists so that a provider receives what the client wrote. The body is never re-serialised:
//! where we must change something (the model's name, the wish for usage, a lower ceiling) it keeps the place or the
//! value, and every byte outside stays. It never reads or writes JSON: `protocol` does.
//!
//! Start reading in [`Call`].

use super::body_member::GivenMember;
use super::estimate::{MediaSize, USUAL_IMAGE};
use super::provider_state::{NamedState, StateId, StateKind};
use super::stored_response::{StoredRequest, StoredRequestKind};
use bytes::Bytes;
use std::ops::Range;

/// What the client asks us to do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Endpoint {
    /// `POST /v1/chat/completions`
    Chat,
    /// `POST /v1/completions`
    Completions,
    /// `POST /v1/embeddings`
    Embeddings,
    /// `POST /v1/messages`
    Messages,
    /// `POST /v1/messages/count_tokens`
    CountTokens,
    /// `POST /v1/responses`
    Responses,
    /// `POST /v1/responses/input_tokens`
    InputTokens,
    /// `POST /v1/conversations`, and what is below `/v1/conversations/{id}`: a part of Responses that is no call to a model.
    Conversations,
    /// What is below `/v1/responses/{id}`: another one.
    StoredResponses,
}

impl Endpoint {
    /// Every endpoint whose requests are sent where a plan says, in the order of their paths in the documentation.
    pub const ALL: [Self; 8] = [
        Self::Chat,
        Self::Completions,
        Self::Embeddings,
        Self::Messages,
        Self::CountTokens,
        Self::Responses,
        Self::InputTokens,
        Self::Conversations,
    ];

    /// Every endpoint that a receipt may name.
    pub const ON_RECEIPTS: [Self; 9] = {
        let [a, b, c, d, e, f, g, h] = Self::ALL;
        [a, b, c, d, e, f, g, h, Self::StoredResponses]
    };

    /// The endpoint that a request to do `action` belongs to.
    pub fn about(action: StoredRequestKind) -> Self {
        if action.is_of_conversation() { Self::Conversations } else { Self::StoredResponses }
    }

    /// Its name in configuration, metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Messages => "messages",
            Self::CountTokens => "count_tokens",
            Self::Responses => "responses",
            Self::InputTokens => "input_tokens",
            Self::Conversations => "conversations",
            Self::StoredResponses => "stored_responses",
        }
    }

    /// Its name in a message to a client.
    pub fn words(self) -> &'static str {
        match self {
            Self::Chat => "chat completions",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Messages => "Anthropic's Messages",
            Self::CountTokens => "the counting of tokens, a part of Anthropic's Messages",
            Self::Responses => "OpenAI's Responses",
            Self::InputTokens => "the counting of tokens, a part of OpenAI's Responses",
            Self::Conversations => "conversations, a part of OpenAI's Responses",
            Self::StoredResponses => "stored responses, a part of OpenAI's Responses",
        }
    }

    /// The endpoint that a model must serve for it, as `endpoints` of a model name it.
    pub fn configured_as(self) -> Self {
        match self {
            Self::CountTokens => Self::Messages,
            Self::InputTokens | Self::Conversations | Self::StoredResponses => Self::Responses,
            Self::Chat | Self::Completions | Self::Embeddings | Self::Messages | Self::Responses => self,
        }
    }

    /// In which dialect clients speak on it.
    pub fn dialect(self) -> Dialect {
        match self {
            Self::Chat | Self::Completions | Self::Embeddings => Dialect::Chat,
            Self::Messages | Self::CountTokens => Dialect::Messages,
            Self::Responses | Self::InputTokens | Self::Conversations | Self::StoredResponses => Dialect::Responses,
        }
    }

    /// Whether its answers are text that a model writes, and pays for by the token: embeddings are not.
    pub fn writes_text(self) -> bool {
        match self {
            Self::Chat | Self::Completions | Self::Messages | Self::Responses => true,
            Self::Embeddings | Self::CountTokens | Self::InputTokens | Self::Conversations | Self::StoredResponses => {
                false
            }
        }
    }

    /// Whether later requests may refer to what its answers hold.
    pub fn keeps_state(self) -> bool {
        matches!(self, Self::Responses | Self::Conversations)
    }

    /// Whether providers ask nothing for it, and it takes no tokens.
    pub fn is_free(self) -> bool {
        matches!(self, Self::CountTokens | Self::InputTokens | Self::Conversations | Self::StoredResponses)
    }

    /// Where it lies below a provider's base URL.
    pub fn path(self) -> &'static str {
        match self {
            Self::Chat => "/chat/completions",
            Self::Completions => "/completions",
            Self::Embeddings => "/embeddings",
            Self::Messages => "/messages",
            Self::CountTokens => "/messages/count_tokens",
            Self::Responses | Self::StoredResponses => "/responses",
            Self::InputTokens => "/responses/input_tokens",
            Self::Conversations => "/conversations",
        }
    }

    /// Whether another model's answer would still be true: vectors of another model lie in another space.
    pub fn may_change_model(self) -> bool {
        !matches!(self, Self::Embeddings)
    }
}

/// What a client speaks: how it writes requests and reads answers and errors. `protocol` knows how each is written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum Dialect {
    /// OpenAI's chat completions, completions and embeddings. Also what is spoken where nothing says otherwise.
    #[default]
    Chat,
    /// Anthropic's Messages.
    Messages,
    /// OpenAI's Responses.
    Responses,
}

/// A set of [`Endpoint`]s.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EndpointSet(u8);

impl EndpointSet {
    /// The set of `endpoints`.
    pub fn of(endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        Self(endpoints.into_iter().fold(0, |bits, endpoint| bits | 1 << endpoint as u8))
    }

    /// Those that are spoken in `dialect`.
    pub fn of_dialect(dialect: Dialect) -> Self {
        Self::of(Endpoint::ALL.into_iter().filter(|endpoint| endpoint.dialect() == dialect))
    }

    /// This set and `other`.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether some endpoint is in both.
    pub fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether `endpoint`, or the one that it is a part of, is in it.
    pub fn contains(self, endpoint: Endpoint) -> bool {
        self.0 & 1 << endpoint.configured_as() as u8 != 0
    }
}

/// Something a request needs that not every model can do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Feature {
    /// Tool or function calling.
    Tools,
    /// Images among the input.
    Vision,
    /// An answer held to a JSON schema.
    JsonSchema,
}

impl Feature {
    /// Every feature.
    pub const ALL: [Self; 3] = [Self::Tools, Self::Vision, Self::JsonSchema];

    /// Its name in configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Vision => "vision",
            Self::JsonSchema => "json_schema",
        }
    }
}

/// A set of [`Feature`]s.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct FeatureSet(u8);

impl FeatureSet {
    /// The set of `features`.
    pub fn of(features: impl IntoIterator<Item = Feature>) -> Self {
        Self(features.into_iter().fold(0, |bits, feature| bits | 1 << feature as u8))
    }

    /// Every feature.
    pub fn all() -> Self {
        Self::of(Feature::ALL)
    }

    /// This set and `feature`.
    #[must_use]
    pub fn with(self, feature: Feature) -> Self {
        Self(self.0 | 1 << feature as u8)
    }

    /// Whether `feature` is in it.
    pub fn contains(self, feature: Feature) -> bool {
        self.0 & 1 << feature as u8 != 0
    }
}

/// Replace the bytes at `at` by `with`; an empty range inserts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Splice {
    /// Byte offsets in the body.
    pub at: Range<usize>,
    /// The bytes that replace them.
    pub with: Bytes,
}

/// The fields of a body that routing, limits and the meter must know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestMetadata {
    /// The model's name, unescaped; empty where a request may name none, and does not.
    pub model: Box<str>,
    /// The place of the model's name in the body, its quotes included; empty where it is not in there.
    pub model_span: Range<usize>,
    /// Whether the client wants a stream.
    pub stream: bool,
    /// How to ask the provider for usage on this stream; `None` when the client asked itself, or
    /// when the answer is not a stream.
    pub ask_usage: Option<Splice>,
    /// The client's ceiling on output tokens, per choice, the higher where it gave two. Zero is none: hosts differ over
    /// what they make of it.
    pub max_output: Option<u64>,
    /// How many choices the client wants: `n`, 1 where it is absent.
    pub choices: u32,
    /// How many answers the body asks for at once: prompts or inputs of a list, 1 otherwise.
    pub inputs: u32,
    /// The client's own user, for stickiness.
    pub user: Option<Box<str>>,
    /// What the request needs of a model.
    pub features: FeatureSet,
    /// What else bounds its cost.
    pub cost_facts: CostFacts,
    /// Members that some provider has a rule for: none, mostly.
    pub given: Vec<GivenMember>,
    /// What it refers to that only one account has: nothing, mostly.
    pub refers_to: Vec<NamedState>,
    /// Whether later requests may refer by its ids to what its answer holds.
    pub is_stored: bool,
}

impl RequestMetadata {
    /// Of a body that names no model, and asks for no more than a model can do.
    pub fn without_model() -> Self {
        Self {
            model: "".into(),
            model_span: 0..0,
            stream: false,
            ask_usage: None,
            max_output: None,
            choices: 1,
            inputs: 1,
            user: None,
            features: FeatureSet::default(),
            cost_facts: CostFacts::default(),
            given: Vec::new(),
            refers_to: Vec::new(),
            is_stored: false,
        }
    }
}

/// What bounds the cost of an answer besides the ceiling on its output, and the places of that ceiling.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct CostFacts {
    /// How many choices are written, and paid for, to give the client the best of them: `best_of`, 0 where absent.
    pub candidates: u32,
    /// Whether some of the input is bounded by nothing in the body: files, videos, what the provider remembers. The
    /// body's bytes say nothing about its tokens.
    pub input_elsewhere: bool,
    /// Whether its provider works in the background: its tokens are counted when the answer is asked for.
    pub billed_later: bool,
    /// Media in the body, and images wherever they are.
    pub media: MediaSize,
    /// The client's ceilings on output tokens, by [`CeilingName::slot`].
    pub ceilings: [Option<GivenCeiling>; 2],
    /// Where in the body a ceiling may be inserted where the client set none of the name that its host knows.
    pub ceiling_insert_at: Option<usize>,
}

/// The members by which hosts take the ceiling of the output.
#[expect(clippy::enum_variant_names, reason = "they are called so")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CeilingName {
    /// `max_tokens`
    MaxTokens,
    /// `max_completion_tokens`
    MaxCompletionTokens,
    /// `max_output_tokens`, which has no other name where it is used.
    MaxOutputTokens,
}

impl CeilingName {
    /// The member's name.
    pub fn word(self) -> &'static str {
        match self {
            Self::MaxTokens => "max_tokens",
            Self::MaxCompletionTokens => "max_completion_tokens",
            Self::MaxOutputTokens => "max_output_tokens",
        }
    }

    /// Its place among the ceilings that a client gave.
    pub fn slot(self) -> usize {
        match self {
            Self::MaxTokens | Self::MaxOutputTokens => 0,
            Self::MaxCompletionTokens => 1,
        }
    }

    /// The other one; itself where there is none.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::MaxOutputTokens => Self::MaxOutputTokens,
            Self::MaxTokens => Self::MaxCompletionTokens,
            Self::MaxCompletionTokens => Self::MaxTokens,
        }
    }
}

/// A ceiling of the output as a client gave it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GivenCeiling {
    /// The place of its value in the body.
    pub at: Range<usize>,
    /// Output tokens per choice; `None` for null and zero, which are no ceilings.
    pub tokens: Option<u64>,
}

/// A request whose body has been read and understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    endpoint: Endpoint,
    body: Bytes,
    metadata: RequestMetadata,
    stored: Option<Box<StoredRequest>>,
}

impl Call {
    /// A call on `endpoint`.
    ///
    /// # Panics
    /// When a span of `metadata` lies outside `body`: the reader of the body is wrong, not the client.
    pub fn new(endpoint: Endpoint, body: Bytes, metadata: RequestMetadata) -> Self {
        let inside = |span: &Range<usize>| span.start <= span.end && span.end <= body.len();
        assert!(inside(&metadata.model_span), "the model's span lies in the body");
        assert!(
            metadata.ask_usage.as_ref().is_none_or(|splice| inside(&splice.at)),
            "the usage splice lies in the body"
        );
        Self { endpoint, body, metadata, stored: None }
    }

    /// A request about a stored response or a conversation. `body`, where it has one, says what `metadata` does, and names
    /// no model.
    pub fn of_stored(request: StoredRequest, body: Bytes, mut metadata: RequestMetadata) -> Self {
        let endpoint = Endpoint::about(request.action);
        let kind = match request.action.is_of_conversation() {
            true => StateKind::StoredConversation,
            false => StateKind::StoredResponse,
        };
        let named = |kind, id: &str| NamedState { id: StateId::stored(id), kind, text: id.into() };
        let item = request.item.as_deref().map(|item| named(StateKind::StoredItem, item));
        metadata.refers_to.splice(..0, std::iter::once(named(kind, &request.id)).chain(item));
        metadata.stream = request.stream;
        metadata.is_stored = true;
        Self { endpoint, body, metadata, stored: Some(Box::new(request)) }
    }

    /// The same, meant for `model`, which its body does not name.
    #[must_use]
    pub fn meant_for(mut self, model: &str) -> Self {
        self.metadata.model = model.into();
        self
    }

    /// Whether another model than the one it is for may serve it.
    pub fn may_change_model(&self) -> bool {
        // What is to be used with a model must be where that is.
        let is_chosen = self.endpoint == Endpoint::Conversations && !self.metadata.model.is_empty();
        self.endpoint.may_change_model() && !is_chosen
    }

    /// What its answer is read as: one that is made in the background is a stored response, as far as it is by then.
    pub fn answered_as(&self) -> Endpoint {
        match self.metadata.cost_facts.billed_later && self.endpoint == Endpoint::Responses {
            true => Endpoint::StoredResponses,
            false => self.endpoint,
        }
    }

    /// What it asks of a stored response or a conversation; `None` for what is sent where a plan says.
    pub fn stored(&self) -> Option<&StoredRequest> {
        self.stored.as_deref()
    }

    /// What the client asks us to do.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// In which dialect it is written, and is to be answered.
    pub fn dialect(&self) -> Dialect {
        self.endpoint.dialect()
    }

    /// The body as it came.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// What we know of the body.
    pub fn metadata(&self) -> &RequestMetadata {
        &self.metadata
    }

    /// How many choice indexes the answer must finish: `n` for each prompt.
    pub fn expected_choices(&self) -> u32 {
        self.metadata.choices.saturating_mul(self.metadata.inputs)
    }

    /// Input tokens as estimated before any provider has counted: four bytes of text to a token, rounded up, and media
    /// at their usual size: an image at `typical_image` tokens where the model is known to count so.
    pub fn estimated_input_tokens(&self, typical_image: Option<u64>) -> u64 {
        let media = self.metadata.cost_facts.media;
        let text = (self.body.len() as u64).saturating_sub(media.bytes());
        text.div_ceil(BYTES_PER_TOKEN).saturating_add(media.usual_tokens(typical_image.unwrap_or(USUAL_IMAGE)))
    }

    /// The tokens that the request takes from its key's limit: its estimated input, and for each choice the client's
    /// ceiling or else `typical_output`, what the model usually writes.
    pub fn tokens_to_admit(&self, typical_output: u64, typical_image: Option<u64>) -> u64 {
        if self.endpoint.is_free() {
            return 0;
        }
        let output = if self.endpoint.writes_text() { self.metadata.max_output.unwrap_or(typical_output) } else { 0 };
        let output = output.saturating_mul(u64::from(self.expected_choices()));
        self.estimated_input_tokens(typical_image).saturating_add(output)
    }

    /// How many answers are written and paid for at most.
    pub fn paid_answers(&self) -> u64 {
        u64::from(self.metadata.choices.max(self.metadata.cost_facts.candidates)) * u64::from(self.metadata.inputs)
    }

    /// This call with an output ceiling of `tokens` per choice in place of the client's, which is not lower.
    #[must_use]
    pub fn with_ceiling(&self, tokens: u64) -> Self {
        let mut call = self.clone();
        call.metadata.max_output = Some(tokens);
        call
    }
}

/// How many bytes of a client's text are taken for a token.
const BYTES_PER_TOKEN: u64 = 4;

/// A body that cannot be understood: the request is refused before anything is tried.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BodyProblem {
    /// Not one JSON object in UTF-8, or nested too deep. The text says what and where.
    NotJson(String),
    /// A field we read has the wrong type, an impossible value, is missing or given twice.
    BadField {
        /// The field's name.
        param: &'static str,
        /// What is wrong and what would be right.
        message: String,
    },
    /// Larger than `max_body` bytes, as sent or decoded.
    TooLarge {
        /// The ceiling, in bytes.
        limit: u64,
    },
    /// Decodes to more than this many times what was sent: reading it costs too much for what it costs to send.
    ExpandsTooMuch {
        /// The largest ratio.
        most: u64,
    },
    /// The client sent its body too slowly.
    TooSlow,
    /// The client broke off before its body was whole.
    BrokenOff,
    /// A `Content-Encoding` we do not read.
    UnknownEncoding(String),
    /// A body that is not what its `Content-Encoding` says.
    BadEncoding(String),
    /// With it, the requests of its key would hold more bytes than may be held of `max_in_flight_bytes`.
    TooMuchInFlight,
}
