//! The error table: what a client reads for every way a request can end without an answer.
//!
//! One row for each: status, type, code, message, and whether trying again helps. A row belongs to no dialect;
//! `protocol` writes it in the client's. A message never holds a deployment's name or a secret, and a provider's words
//! in three cases alone: its refusal of the request itself passes as it came and is no row; where a request failed
//! alike at two deployments, and where the reason is a fault of its own (5xx), its message is repeated, masked. Besides
//! `admin/error.rs`, no other file of this module builds an error.
//!
//! Start reading at [`ApiError::of`].

use crate::domain::body_member::{GivenMember, MemberObjection, MemberValue};
use crate::domain::budget::{CREDIT, OverBudget, Scope};
use crate::domain::call::BodyProblem;
use crate::domain::failure::{Failure, ProviderError};
use crate::domain::id::RequestId;
use crate::domain::limit::{LimitKind, OverLimit};
use crate::domain::money::NanoUsd;
use crate::domain::provider_state::{NamedState, StateKind};
use crate::domain::refusal::Refusal;
use crate::protocol::read_error;
use crate::protocol::{Dialect, ErrorDetails};
use crate::relay::{ServeError, StreamFailure};
use crate::telemetry::rfc3339::Rfc3339Text;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// `false` keeps the official clients from trying again, whatever the status; `true` makes them.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
/// [`RETRY_AFTER`] in milliseconds, which the official clients prefer.
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
/// How long a client waits whose body or answer could not be held: those in flight leave within about a second.
const MEMORY_RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long a client waits where the ledger cannot be written: by then a full disk may be seen to.
pub(super) const LEDGER_RETRY_AFTER: Duration = Duration::from_secs(5);
/// How many bytes of a client's own words are repeated to it.
const MAX_ECHO: usize = 256;

/// What most clients have wrong whose path does not exist.
const BASE_URL: &str = "A client's base URL is the address of this gateway and '/v1', such as 'https://HOST:PORT/v1', with no endpoint after it.";

const INVALID: &str = "invalid_request_error";
const RATE: &str = "rate_limit_error";
const SERVER: &str = "server_error";

/// One error, as the client reads it.
#[derive(Debug)]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// `error.type`
    pub kind: &'static str,
    /// `error.code`
    pub code: &'static str,
    /// `error.param`: the field or header at fault.
    pub param: Option<Cow<'static, str>>,
    /// `error.message`: what happened and what to do, for the client.
    pub message: Cow<'static, str>,
    /// The same for the log.
    pub log: Cow<'static, str>,
    /// Whether trying again helps.
    pub retry: Retry,
    /// The methods that would be right, with a 405.
    pub allow: Option<Cow<'static, str>>,
}

/// Whether trying the same request again helps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retry {
    /// It may, at once.
    Helps,
    /// It does, after this long.
    After(Duration),
    /// It does not: the client reads so.
    Pointless,
}

impl ApiError {
    /// The row of `error`; `Err` holds a provider's refusal, which passes as it came.
    pub fn of(error: &ServeError) -> Result<Self, &ProviderError> {
        match error {
            ServeError::Refused(refusal) => Ok(Self::refused(refusal)),
            ServeError::Rejected(rejection) => Err(rejection),
            ServeError::Failed { failure, said, to_blame: true } => Ok(Self::failed_alike(*failure, said.as_deref())),
            ServeError::Failed { failure, said, .. } => Ok(Self::failed(*failure).saying(*failure, said.as_deref())),
            ServeError::Throttled { retry_after } => Ok(Self::throttled(*retry_after)),
            ServeError::AccountDown { failure, retry_after } => Ok(Self::account_down(*failure, *retry_after)),
            ServeError::Internal => Ok(Self::internal()),
        }
    }

    /// The rows of what we refuse before trying.
    pub fn refused(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::Body(problem) => Self::body(problem),
            Refusal::BadHeader { name } => {
                Self::invalid("invalid_value", format!("The header '{name}' has an impossible value.")).at(*name)
            }
            Refusal::SeveralKeys => {
                let message = "The headers present two different keys. Send one, as 'Authorization: Bearer KEY'.";
                Self::invalid("invalid_value", message).at("authorization")
            }
            Refusal::InvalidKey(_) => Self::invalid(
                "invalid_api_key",
                "No valid API key was given. Send a key of this gateway as 'Authorization: Bearer KEY'.",
            )
            .status(StatusCode::UNAUTHORIZED),
            Refusal::UnknownUrl { path } => {
                let unknown = Self::unknown_url(path);
                Self { message: format!("{} {BASE_URL}", unknown.message).into(), ..unknown }
            }
            Refusal::MethodNotAllowed { allow } => Self::wrong_method((*allow).into()),
            Refusal::ModelNotFound { model, nearest } => {
                Self::invalid("model_not_found", model_not_found(model, nearest))
                    .status(StatusCode::NOT_FOUND)
                    .at("model")
            }
            Refusal::ModelNotAllowed { model } => {
                let message = format!("This key may not use the model '{}'. Use another model or key.", echo(model));
                Self::invalid("model_not_allowed", message).status(StatusCode::FORBIDDEN).at("model")
            }
            Refusal::ResidencyUnavailable { model } => {
                Self::invalid("residency_unavailable", outside_residency(model)).status(StatusCode::FORBIDDEN).at("model")
            }
            Refusal::NotServed { model, what, instead } => {
                Self::invalid("invalid_value", not_served(model, what, instead)).at("model")
            }
            Refusal::NoEndpoint { model, what, instead } => {
                Self::invalid("invalid_value", no_endpoint(model, what, instead)).at("model")
            }
            Refusal::MemberNotAllowed { member, why } => Self::member_not_allowed(member, *why),
            Refusal::StateNotFound { state } => Self::state_not_found(state),
            Refusal::AccountGone { state } => Self::account_gone(state),
            Refusal::OverLimit(over) => Self::over_limit(*over),
            Refusal::OverBudget(over) => Self::over_budget(over),
            Refusal::LedgerUnavailable => Self::server(
                StatusCode::SERVICE_UNAVAILABLE,
                "ledger_unavailable",
                "Money cannot be kept account of at the moment. Try again when 'retry-after' has passed.",
            )
            .retry(Retry::After(LEDGER_RETRY_AFTER)),
            Refusal::BudgetPaused { retry_after } => Self::server(
                StatusCode::SERVICE_UNAVAILABLE,
                "budget_paused",
                "Requests with a budget are paused for this model: its provider answered with more than it was asked for. \
                 An operator can end the pause; use another model, or try again when 'retry-after' has passed.",
            )
            .retry(Retry::After(*retry_after)),
            Refusal::SlowDown { retry_after } => {
                Self::slow_down("The gateway is at its limit, or every model that could serve this is.", *retry_after)
            }
            Refusal::NoDeployment { retry_after } => Self::server(
                StatusCode::SERVICE_UNAVAILABLE,
                "no_deployment_available",
                "No provider of this model is available at the moment. Try again when 'retry-after' has passed.",
            )
            .retry(Retry::After(*retry_after)),
        }
    }

    fn account_gone(state: &NamedState) -> Self {
        let (code, what) = match state.kind {
            StateKind::Conversation | StateKind::StoredConversation => {
                ("conversation_account_gone", "the conversation")
            }
            StateKind::StoredItem => ("conversation_account_gone", "the item"),
            StateKind::StoredResponse | StateKind::Response | StateKind::Item | StateKind::Encrypted => {
                ("response_account_gone", "the response")
            }
        };
        let id = echo(&state.text);
        let message = format!("The provider that keeps {what} '{id}' is not configured here any more.");
        Self::invalid(code, message).status(StatusCode::GONE).at(state.kind.param())
    }

    fn state_not_found(state: &NamedState) -> Self {
        let named = |what: &str| format!("{what} with id '{}' not found.", echo(&state.text));
        let (code, message) = match state.kind {
            StateKind::Response => ("previous_response_not_found", named("Previous response")),
            StateKind::StoredResponse => ("response_not_found", named("Response")),
            StateKind::Conversation | StateKind::StoredConversation => {
                ("conversation_not_found", named("Conversation"))
            }
            StateKind::Item | StateKind::StoredItem => ("item_not_found", named("Item")),
            StateKind::Encrypted => (
                "invalid_encrypted_content",
                "The encrypted content of an item was not made here for this key, or by another account than the rest of \
                 the request. Leave the item out."
                    .to_owned(),
            ),
        };
        Self::invalid(code, message).status(StatusCode::NOT_FOUND).at(state.kind.param())
    }

    fn member_not_allowed(member: &GivenMember, why: MemberObjection) -> Self {
        // What is denied may be a credential, and is not repeated.
        let word = match (&member.value, why) {
            (MemberValue::Word(word), MemberObjection::Unpriced) => format!(" (here '{}')", echo(word)),
            _ => String::new(),
        };
        let message = match why {
            MemberObjection::Denied => {
                "may choose another model, host or credential than this key is meant to use. Leave it out."
            }
            MemberObjection::Unpriced => {
                "may change the price, or how much is written, to what is not known here, and this key is paid from a \
                 budget or credit. Leave it out."
            }
        };
        Self::invalid("invalid_value", format!("'{}'{word} {message}", echo(&member.name))).at(member.name.to_string())
    }

    /// The row of whoever reads metrics without a token.
    pub(super) fn no_metrics_token() -> Self {
        Self::invalid(
            "invalid_token",
            "No valid token was given. Send the gateway's metrics token, or that of an operator, as 'Authorization: Bearer TOKEN'.",
        )
        .status(StatusCode::UNAUTHORIZED)
    }

    pub(super) fn unknown_url(path: &str) -> Self {
        Self::invalid("unknown_url", format!("There is no path '{}' here.", echo(path))).status(StatusCode::NOT_FOUND)
    }

    /// The row of a request that does not say which host it is for, or says two.
    pub(super) fn unclear_host() -> Self {
        let message = "The request must name one host: one 'host' header, the same as in its URL.";
        Self::invalid("invalid_value", message).at("host")
    }

    pub(super) fn wrong_method(allow: Cow<'static, str>) -> Self {
        let message = format!("This path does not take that method. Use {allow}.");
        Self { allow: Some(allow), ..Self::invalid("method_not_allowed", message) }
            .status(StatusCode::METHOD_NOT_ALLOWED)
    }

    /// The rows of a body that was not understood.
    pub(super) fn body(problem: &BodyProblem) -> Self {
        match problem {
            BodyProblem::NotJson(what) | BodyProblem::BadEncoding(what) => Self::invalid("invalid_json", what.clone()),
            BodyProblem::BadField { param, message } => Self::invalid("invalid_value", message.clone()).at(*param),
            BodyProblem::TooLarge { limit } => Self::invalid(
                "request_too_large",
                format!("The request body, as sent or decoded, is larger than {limit} bytes. Send less."),
            )
            .status(StatusCode::PAYLOAD_TOO_LARGE),
            BodyProblem::ExpandsTooMuch { most } => Self::invalid(
                "request_too_large",
                format!("The request body decodes to more than {most} times what was sent. Send it uncompressed."),
            )
            .status(StatusCode::PAYLOAD_TOO_LARGE),
            BodyProblem::TooSlow => Self {
                kind: "timeout",
                retry: Retry::Helps,
                ..Self::invalid("request_timeout", "The request body came too slowly. Send it again, faster.")
                    .status(StatusCode::REQUEST_TIMEOUT)
            },
            // Whoever broke off is rarely there to read this: only a badly framed body ends here.
            BodyProblem::BrokenOff => {
                Self::invalid("invalid_json", "The request body broke off before its end. Send it whole.")
            }
            BodyProblem::UnknownEncoding(encoding) => Self::invalid(
                "unsupported_content_encoding",
                format!(
                    "The content encoding '{}' is not read here. Use one of zstd, gzip, br, deflate.",
                    echo(encoding)
                ),
            )
            .status(StatusCode::UNSUPPORTED_MEDIA_TYPE),
            BodyProblem::TooMuchInFlight => Self::slow_down(
                "The gateway holds as many bytes of this key's requests and answers as it can.",
                MEMORY_RETRY_AFTER,
            ),
        }
    }

    fn over_limit(over: OverLimit) -> Self {
        let OverLimit { limit, ceiling, retry_after } = over;
        let what = match limit {
            LimitKind::Requests => format!("{ceiling} requests a minute"),
            LimitKind::Tokens => format!("{ceiling} tokens a minute"),
            LimitKind::Concurrency => format!("{ceiling} requests at once"),
            LimitKind::Refused => format!("{ceiling} refused requests a minute"),
        };
        let advice = match retry_after {
            Some(_) => "Try again when 'retry-after' has passed.",
            None => "This one request is larger than the limit: send a smaller one.",
        };
        Self {
            kind: RATE,
            retry: retry_after.map_or(Retry::Pointless, Retry::After),
            ..Self::invalid("rate_limit_exceeded", format!("This key's limit is {what}. {advice}"))
                .status(StatusCode::TOO_MANY_REQUESTS)
        }
    }

    fn over_budget(over: &OverBudget) -> Self {
        let OverBudget { account, limit, left, wanted, ends_unix_ms } = over;
        let left = NanoUsd(left.0.max(0));
        let (what, again) = if &*account.window == CREDIT {
            ("credit", "It is not renewed by itself: ask its operator for more.".to_owned())
        } else {
            ("budget", whole_again(*ends_unix_ms))
        };
        // What others share is told to operators: a key learns of its own money alone.
        let has = match account.scope {
            Scope::Key => format!("of this key has {left} USD left of {limit}, and this request may cost {wanted}"),
            Scope::Team => format!("of this key's team has not the {wanted} USD left that this request may cost"),
            Scope::Policy => format!("of this key's policy has not the {wanted} USD left that this request may cost"),
        };
        let advice = "A shorter request, or a lower 'max_tokens', costs less.";
        let message = format!("The {what} {has}. {again} {advice}");
        let log = format!(
            "the {what} of the {} '{}' has {left} USD left of {limit}, and the request may cost {wanted}",
            account.scope.label(),
            account.name
        );
        let kind = "insufficient_quota";
        let row = Self::invalid("insufficient_quota", message).status(StatusCode::TOO_MANY_REQUESTS);
        Self { kind, log: log.into(), ..row }
    }

    fn slow_down(why: &str, retry_after: Duration) -> Self {
        Self {
            kind: RATE,
            retry: Retry::After(retry_after),
            ..Self::invalid("slow_down", format!("{why} Try again when 'retry-after' has passed."))
                .status(StatusCode::TOO_MANY_REQUESTS)
        }
    }

    /// The rows of attempts that all failed. What may pass is worth another try: the official clients would make one if
    /// they asked the provider itself.
    pub fn failed(failure: Failure) -> Self {
        let error = match failure {
            Failure::FirstTokenTimeout
            | Failure::WholeTimeout
            | Failure::IdleTimeout
            | Failure::Deadline
            | Failure::Silent => Self::server(
                StatusCode::GATEWAY_TIMEOUT,
                "upstream_timeout",
                "No provider of this model answered in time. Ask for less, or allow more time.",
            ),
            Failure::Truncated => Self::server(
                StatusCode::BAD_GATEWAY,
                "upstream_truncated",
                "Every answer to this request ended before it was complete. Try again later or use another model.",
            ),
            Failure::NotHeld => {
                let why = "The gateway holds as many bytes of this key's unread answers as it can.";
                return Self::slow_down(why, MEMORY_RETRY_AFTER);
            }
            // Some clients know it by the words "prompt is too long".
            Failure::ContextTooLong => Self::invalid(
                "invalid_value",
                "The prompt is too long for the context of every model that may serve it. Shorten it.",
            ),
            Failure::Unreachable
            | Failure::ConnectTimeout
            | Failure::Reset
            | Failure::Stale
            | Failure::Status(_)
            | Failure::Garbage
            | Failure::Unreadable
            | Failure::NoAnswer
            | Failure::ErrorInside
            | Failure::Throttled { .. }
            | Failure::CredentialRefused
            | Failure::AccountRefused(_)
            | Failure::NotFound
            | Failure::NoEndpoint
            | Failure::Rejected
            | Failure::Overtaken => Self::server(
                StatusCode::BAD_GATEWAY,
                "upstream_error",
                "Every provider tried failed to answer this request. Try again later or use another model.",
            ),
        };
        let log = format!("every attempt failed; the first model's: {}", failure.reason().label());
        Self { log: log.into(), ..error }.retry(if may_pass(failure) { Retry::Helps } else { Retry::Pointless })
    }

    /// The row of a request that failed alike at two deployments; `said` is the provider's masked message.
    fn failed_alike(failure: Failure, said: Option<&str>) -> Self {
        let alike = "Every provider tried failed this request in the same way.";
        let message = said.map_or_else(|| alike.into(), |said| format!("{alike} The provider said: \"{said}\"").into());
        let log = format!("the request failed alike at two deployments: {}", failure.reason().label());
        // Whether it helps to try again is the client's to judge, as with the same answer from a provider.
        Self { log: log.into(), message, ..Self::server(StatusCode::BAD_GATEWAY, "upstream_error", alike) }
            .retry(Self::failed(failure).retry)
    }

    /// This, with the provider's masked message where a fault of its own is the reason: an official client that asked
    /// it directly would show it.
    fn saying(self, failure: Failure, said: Option<&str>) -> Self {
        match (failure, said) {
            (Failure::Status(500..), Some(said)) => {
                Self { message: format!("{} The provider said: \"{said}\"", self.message).into(), ..self }
            }
            _ => self,
        }
    }

    fn throttled(retry_after: Duration) -> Self {
        Self::server(
            StatusCode::SERVICE_UNAVAILABLE,
            "no_deployment_available",
            "Every provider of this model is limiting its requests at the moment. Try again when 'retry-after' has passed.",
        )
        .retry(Retry::After(retry_after))
    }

    /// The row of a request that one account alone can serve, which does not.
    fn account_down(failure: Failure, retry_after: Duration) -> Self {
        let log = format!("the only account that may serve it failed: {}", failure.reason().label());
        let row = Self::server(
            StatusCode::SERVICE_UNAVAILABLE,
            "no_deployment_available",
            "The provider that keeps this response does not answer at the moment, and no other one has it. \
             Try again when 'retry-after' has passed.",
        );
        Self { log: log.into(), ..row }.retry(Retry::After(retry_after))
    }

    /// The row of a bug of ours.
    pub fn internal() -> Self {
        Self {
            log: "a bug of ours ended the request".into(),
            ..Self::server(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal_error",
                "The gateway failed to handle this request. Try again; its operator finds the cause under 'x-request-id'.",
            )
        }
        .retry(Retry::Helps)
    }

    /// What a stream that broke after its commit point ends with. The status is already sent.
    pub fn broken(broken: &StreamFailure) -> Self {
        let (code, message) = match broken {
            StreamFailure::Unanswered(error) => return Self::of(error).unwrap_or_else(Self::rejected),
            StreamFailure::Interrupted => {
                ("upstream_stream_interrupted", "The provider broke off: this answer is incomplete. Ask again.")
            }
            StreamFailure::Diverged => (
                "upstream_stream_diverged",
                "The provider broke off, and another one answers otherwise: this answer is incomplete. Ask again.",
            ),
            StreamFailure::OutOfTime => {
                ("upstream_timeout", "The time allowed for this request is over: this answer is incomplete.")
            }
            StreamFailure::ShuttingDown => {
                ("upstream_stream_interrupted", "The gateway is restarting: this answer is incomplete. Ask again.")
            }
        };
        Self::server(StatusCode::OK, code, message)
    }

    /// A provider's refusal, where it cannot pass as it came.
    fn rejected(rejection: &ProviderError) -> Self {
        let refused = "The provider refused this request.";
        let message = match read_error(&rejection.body).sentence {
            Some(said) => format!("{refused} It said: \"{said}\"").into(),
            None => Cow::Borrowed(refused),
        };
        Self::invalid("invalid_value", message)
    }

    /// What of it a dialect writes.
    pub fn details(&self) -> ErrorDetails<'_> {
        ErrorDetails {
            status: self.status.as_u16(),
            kind: self.kind,
            code: Some(self.code),
            param: self.param.as_deref(),
            message: &self.message,
            request_id: None,
        }
    }

    /// [`response_in`](Self::response_in) the dialect that is spoken where nothing says otherwise.
    pub fn response(&self) -> Response {
        self.response_in(Dialect::default(), None)
    }

    /// Status, body and the headers that belong to an error, for a client that speaks `dialect` and whose request has
    /// this id, if it has one.
    pub fn response_in(&self, dialect: Dialect, request_id: Option<RequestId>) -> Response {
        let details = ErrorDetails { request_id, ..self.details() };
        let status = StatusCode::from_u16(details.status(dialect)).unwrap_or(self.status);
        let mut response = (status, Body::from(details.body(dialect))).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(Ok(allow)) = self.allow.as_deref().map(HeaderValue::try_from) {
            headers.insert(ALLOW, allow);
        }
        self.retry.write(self.status, headers);
        response
    }

    pub(super) fn invalid(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID, code, message.into())
    }

    pub(super) fn server(status: StatusCode, code: &'static str, message: &'static str) -> Self {
        Self::new(status, SERVER, code, message.into())
    }

    fn new(status: StatusCode, kind: &'static str, code: &'static str, message: Cow<'static, str>) -> Self {
        let retry = Retry::Pointless;
        Self { status, kind, code, param: None, log: message.clone(), message, retry, allow: None }
    }

    pub(super) fn status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    pub(super) fn at(self, param: impl Into<Cow<'static, str>>) -> Self {
        Self { param: Some(param.into()), ..self }
    }

    pub(super) fn retry(self, retry: Retry) -> Self {
        Self { retry, ..self }
    }
}

impl Retry {
    /// Writes the headers by which the official clients decide, for an answer with `status`.
    pub fn write(self, status: StatusCode, headers: &mut HeaderMap) {
        match self {
            Self::Helps => {}
            Self::After(wait) => {
                let ms = wait.as_nanos().div_ceil(1_000_000).max(1) as u64;
                headers.insert(RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000)));
                headers.insert(RETRY_AFTER_MS, HeaderValue::from(ms));
                // Clients differ in whether a 503 is worth another try.
                if status == StatusCode::SERVICE_UNAVAILABLE {
                    headers.insert(SHOULD_RETRY, HeaderValue::from_static("true"));
                }
            }
            Self::Pointless => {
                headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
            }
        }
    }
}

/// Whether another try, of the client's own, may be answered: not while our configuration, the request or what the
/// gateway reads must change first.
fn may_pass(failure: Failure) -> bool {
    match failure {
        Failure::Unreachable
        | Failure::ConnectTimeout
        | Failure::Reset
        | Failure::Stale
        | Failure::FirstTokenTimeout
        | Failure::WholeTimeout
        | Failure::IdleTimeout
        | Failure::Deadline
        | Failure::Status(_)
        | Failure::Garbage
        | Failure::NotHeld
        | Failure::NoAnswer
        | Failure::Truncated
        | Failure::ErrorInside
        | Failure::Throttled { .. }
        // Where each deployment lacks it the request is refused: another one may come back.
        | Failure::NoEndpoint
        | Failure::Silent
        | Failure::Overtaken => true,
        Failure::Unreadable
        | Failure::CredentialRefused
        | Failure::AccountRefused(_)
        | Failure::NotFound
        | Failure::Rejected
        | Failure::ContextTooLong => false,
    }
}

/// A provider's reply, given to the client: status, type and body as they came.
pub fn passed_on(rejection: &ProviderError) -> Response {
    let status = StatusCode::from_u16(rejection.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = (status, Body::from(rejection.body.clone())).into_response();
    response.headers_mut().remove(CONTENT_TYPE);
    if let Some(Ok(content_type)) = rejection.content_type.clone().map(HeaderValue::from_maybe_shared) {
        response.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    Retry::Pointless.write(status, response.headers_mut());
    response
}

fn model_not_found(model: &str, nearest: &[Arc<str>]) -> String {
    let names: Vec<String> = nearest.iter().map(|name| format!("'{name}'")).collect();
    let advice = match names.as_slice() {
        [] => "GET /v1/models lists what this key may use.".to_owned(),
        names => format!("Did you mean {}?", names.join(" or ")),
    };
    format!("There is no model '{}' for this key. {advice}", echo(model))
}

fn not_served(model: &str, what: &str, instead: &[Arc<str>]) -> String {
    if model.is_empty() {
        return format!("No model serves {what}, of those that this key may use, in a region that it may use.");
    }
    format!("The model '{}' does not serve {what}. {}.", echo(model), instead_of(instead))
}

fn outside_residency(model: &str) -> String {
    if model.is_empty() {
        return "Its provider is in no region that this key may use. Use another key.".to_owned();
    }
    format!("No region this key may use serves the model '{}'. Use another model.", echo(model))
}

fn no_endpoint(model: &str, what: &str, instead: &[Arc<str>]) -> String {
    let host = match model {
        "" => "The host that was asked".to_owned(),
        model => format!("The host of the model '{}'", echo(model)),
    };
    format!("{host} does not serve {what}. {}.", instead_of(instead))
}

/// Which models to use instead.
fn instead_of(names: &[Arc<str>]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    match names.as_slice() {
        [] => "No other model that this key may use does".to_owned(),
        names => format!("Use one that does, such as {}", names.join(", ")),
    }
}

fn whole_again(ends_unix_ms: Option<i64>) -> String {
    ends_unix_ms.map_or_else(
        || "It is not renewed by itself.".to_owned(),
        |end| format!("It is whole again at {}.", Rfc3339Text(end)),
    )
}

/// A client's own words, cut where they are too long to repeat.
pub(super) fn echo(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_ECHO)]
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::domain::budget::Account;
    use crate::domain::provider_state::StateId;
    use crate::domain::refusal::KeyRefusal;
    use http_body_util::BodyExt;

    /// Status, headers and body of a row, as text.
    pub(in crate::http) async fn shown(response: Response) -> String {
        let (parts, body) = response.into_parts();
        let mut headers: Vec<_> = parts.headers.iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
        headers.sort();
        let body = body.collect().await.expect("a body in memory").to_bytes();
        let body = String::from_utf8_lossy(&body);
        format!("{}\n{}\n\n{body}", parts.status, headers.join("\n"))
    }

    async fn check(name: &str, response: Response) {
        insta::assert_snapshot!(name, shown(response).await);
    }

    async fn refused(name: &str, refusal: Refusal) {
        check(name, ApiError::refused(&refusal).response()).await;
    }

    fn over(limit: LimitKind, retry_after: Option<Duration>) -> Refusal {
        Refusal::OverLimit(OverLimit { limit, ceiling: 50, retry_after })
    }

    #[tokio::test]
    async fn rows_of_bodies() {
        let body = |problem| Refusal::Body(problem);
        refused("not_json", body(BodyProblem::NotJson("The body is not a JSON object.".into()))).await;
        let message = "'model' is given twice.".into();
        refused("bad_field", body(BodyProblem::BadField { param: "model", message })).await;
        refused("too_large", body(BodyProblem::TooLarge { limit: 33_554_432 })).await;
        refused("expands_too_much", body(BodyProblem::ExpandsTooMuch { most: 100 })).await;
        refused("too_slow", body(BodyProblem::TooSlow)).await;
        refused("broken_off", body(BodyProblem::BrokenOff)).await;
        refused("unknown_encoding", body(BodyProblem::UnknownEncoding("lzma".into()))).await;
        refused("bad_encoding", body(BodyProblem::BadEncoding("The body is not valid gzip.".into()))).await;
        refused("too_much_in_flight", body(BodyProblem::TooMuchInFlight)).await;
        refused("bad_header", Refusal::BadHeader { name: "x-tierway-deadline-ms" }).await;
    }

    #[tokio::test]
    async fn rows_of_refusals() {
        refused("invalid_key", Refusal::InvalidKey(KeyRefusal::Missing)).await;
        refused("several_keys", Refusal::SeveralKeys).await;
        check("unclear_host", ApiError::unclear_host().response()).await;
        refused("unknown_url", Refusal::UnknownUrl { path: "/v1/\"x\"".into() }).await;
        refused("method_not_allowed", Refusal::MethodNotAllowed { allow: "GET, HEAD" }).await;
        let nearest = vec!["gpt-4o".into(), "gpt-4.1".into()];
        refused("model_not_found", Refusal::ModelNotFound { model: "gpt4o".into(), nearest }).await;
        refused("model_not_found_nor_near", Refusal::ModelNotFound { model: "zzz".into(), nearest: vec![] }).await;
        refused("model_not_allowed", Refusal::ModelNotAllowed { model: "gpt-4o".into() }).await;
        refused("residency_unavailable", Refusal::ResidencyUnavailable { model: "gpt-4o".into() }).await;
        let member = |name: &str, value, why| Refusal::MemberNotAllowed {
            member: GivenMember { name: name.into(), value },
            why,
        };
        let secret = MemberValue::Word("sk-secret".into());
        refused("member_denied", member("service_tier", secret, MemberObjection::Denied)).await;
        refused("member_unpriced", member("service_tier", MemberValue::Other, MemberObjection::Unpriced)).await;
        let search = MemberValue::Word("web_search".into());
        refused("member_unpriced_word", member("tools[].type", search, MemberObjection::Unpriced)).await;
        let what = "the embeddings endpoint";
        refused("not_served", Refusal::NotServed { model: "gpt-4o".into(), what, instead: vec!["bge-m3".into()] })
            .await;
        let lacking = |instead| Refusal::NoEndpoint { model: "gpt-4o".into(), what: "OpenAI's Responses", instead };
        refused("no_endpoint", lacking(vec!["gpt-5".into()])).await;
        refused("no_endpoint_by_any", lacking(Vec::new())).await;
        refused("not_served_by_any", Refusal::NotServed { model: "gpt-4o".into(), what, instead: Vec::new() }).await;
        let soon = Duration::from_micros(1_250_400);
        refused("over_requests", over(LimitKind::Requests, Some(soon))).await;
        refused("over_tokens", over(LimitKind::Tokens, Some(Duration::ZERO))).await;
        refused("over_tokens_for_ever", over(LimitKind::Tokens, None)).await;
        refused("over_concurrency", over(LimitKind::Concurrency, Some(soon))).await;
        refused("over_refused", over(LimitKind::Refused, Some(soon))).await;
        let (limit, left, wanted) = (NanoUsd(500_000_000_000), NanoUsd(1_250_000), NanoUsd(3_000_000));
        for (scope, end) in [(Scope::Key, None), (Scope::Team, Some(1_795_359_423_000)), (Scope::Policy, Some(0))] {
            let account = Arc::new(Account { scope, name: "growth".into(), window: "month UTC".into() });
            let over = OverBudget { account, limit, left, wanted, ends_unix_ms: end };
            refused(&format!("over_budget_of_{}", scope.label()), Refusal::OverBudget(Box::new(over))).await;
        }
        let account = Arc::new(Account { scope: Scope::Key, name: "app".into(), window: CREDIT.into() });
        let over = OverBudget { account, limit, left, wanted, ends_unix_ms: None };
        refused("over_credit", Refusal::OverBudget(Box::new(over))).await;
        refused("ledger_unavailable", Refusal::LedgerUnavailable).await;
        refused("budget_paused", Refusal::BudgetPaused { retry_after: Duration::from_secs(3600) }).await;
        refused("slow_down", Refusal::SlowDown { retry_after: Duration::from_millis(870) }).await;
        refused("no_deployment", Refusal::NoDeployment { retry_after: Duration::from_secs(4) }).await;
    }

    #[tokio::test]
    async fn rows_of_what_providers_keep() {
        for (kind, name) in [
            (StateKind::Response, "response"),
            (StateKind::Conversation, "conversation"),
            (StateKind::Item, "item"),
            (StateKind::Encrypted, "encrypted_item"),
            (StateKind::StoredResponse, "stored_response"),
            (StateKind::StoredConversation, "stored_conversation"),
            (StateKind::StoredItem, "stored_item"),
        ] {
            let state = NamedState { id: StateId::stored("x_1"), kind, text: "x_1".into() };
            refused(&format!("unknown_{name}"), Refusal::StateNotFound { state: Box::new(state) }).await;
        }
        for (kind, name) in [
            (StateKind::StoredResponse, "account_gone"),
            (StateKind::Conversation, "account_of_conversation_gone"),
            (StateKind::StoredConversation, "account_of_stored_conversation_gone"),
            (StateKind::StoredItem, "account_of_item_gone"),
        ] {
            let state = NamedState { id: StateId::stored("x_1"), kind, text: "x_1".into() };
            refused(name, Refusal::AccountGone { state: Box::new(state) }).await;
        }
        let what = "conversations, a part of OpenAI's Responses";
        refused("unnamed_not_served", Refusal::NotServed { model: "".into(), what, instead: Vec::new() }).await;
        let instead = vec!["gpt-5".into()];
        refused("unnamed_no_endpoint", Refusal::NoEndpoint { model: "".into(), what, instead }).await;
        refused("unnamed_residency", Refusal::ResidencyUnavailable { model: "".into() }).await;
    }

    fn slug(failure: Failure) -> String {
        let debug = format!("{failure:?}");
        debug.split([' ', '(']).next().expect("a name").to_lowercase()
    }

    #[tokio::test]
    async fn rows_of_failures() {
        let failures = [
            Failure::Unreachable,
            Failure::ConnectTimeout,
            Failure::Reset,
            Failure::Stale,
            Failure::FirstTokenTimeout,
            Failure::WholeTimeout,
            Failure::IdleTimeout,
            Failure::Deadline,
            Failure::Status(503),
            Failure::Garbage,
            Failure::Unreadable,
            Failure::NotHeld,
            Failure::NoAnswer,
            Failure::Truncated,
            Failure::ErrorInside,
            Failure::Throttled { after: Some(Duration::from_secs(9)) },
            Failure::CredentialRefused,
            Failure::AccountRefused(402),
            Failure::NotFound,
            Failure::NoEndpoint,
            Failure::Rejected,
            Failure::ContextTooLong,
            Failure::Silent,
            Failure::Overtaken,
        ];
        for failure in failures {
            let name = format!("failed_{}", slug(failure));
            check(&name, ApiError::failed(failure).response()).await;
        }
    }

    #[tokio::test]
    async fn rows_of_what_was_learned_from_several_attempts() {
        let row = |error: ServeError| ApiError::of(&error).expect("a row").response();
        let alike = |said: Option<&str>| {
            let failure = Failure::Status(500);
            ServeError::Failed { failure, said: said.map(Into::into), to_blame: true }
        };
        check("failed_alike", row(alike(Some("No \"schema\" is that deep.")))).await;
        check("failed_alike_without_words", row(alike(None))).await;
        check("throttled", row(ServeError::Throttled { retry_after: Duration::from_millis(2500) })).await;
        let retry_after = Duration::from_secs(1);
        check("account_down", row(ServeError::AccountDown { failure: Failure::Reset, retry_after })).await;
        let said = |failure| ServeError::Failed { failure, said: Some("No worker is free.".into()), to_blame: false };
        check("failed_with_the_providers_words", row(said(Failure::Status(503)))).await;
        // What is not a fault of its own is for operators.
        for failure in
            [Failure::CredentialRefused, Failure::AccountRefused(403), Failure::Status(408), Failure::NotFound]
        {
            assert_eq!(shown(row(said(failure))).await, shown(ApiError::failed(failure).response()).await);
        }
    }

    #[tokio::test]
    async fn rows_of_a_providers_refusal_and_of_our_bugs() {
        let rejection =
            ProviderError { status: 422, content_type: Some("text/plain".into()), body: "as it came".into() };
        check("rejected", passed_on(&rejection)).await;
        assert!(ApiError::of(&ServeError::Rejected(rejection)).is_err());
        check("internal", ApiError::of(&ServeError::Internal).expect("a row").response()).await;
    }

    #[test]
    fn rows_of_broken_streams() {
        let rejection =
            ProviderError { status: 400, content_type: None, body: r#"{"error":{"message":"too hot"}}"#.into() };
        let unanswered = [Failure::Unreachable.into(), ServeError::Rejected(rejection)];
        let unanswered = unanswered.map(|error| StreamFailure::Unanswered(Box::new(error)));
        let broken = [
            StreamFailure::Interrupted,
            StreamFailure::Diverged,
            StreamFailure::OutOfTime,
            StreamFailure::ShuttingDown,
        ];
        for broken in broken.into_iter().chain(unanswered) {
            let error = ApiError::broken(&broken);
            let json = String::from_utf8(error.details().body(Dialect::Chat)).expect("UTF-8");
            assert_eq!(error.details().break_frame(Dialect::Chat, 0), format!("data: {json}\n\n"));
            let name = match &broken {
                StreamFailure::Unanswered(error) => format!("broken_Unanswered_{}", error.reason().label()),
                broken => format!("broken_{broken:?}"),
            };
            insta::assert_snapshot!(name, json);
        }
    }

    #[test]
    fn a_clients_own_words_are_repeated_in_part() {
        let model: String = "é".repeat(1000);
        let error = ApiError::refused(&Refusal::ModelNotAllowed { model: model.into() });
        assert!(error.message.len() < 400, "{}", error.message.len());
    }
}
