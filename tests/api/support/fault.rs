//! Every way a provider fails before its first token, by name.
//!
//! A fault is either a script, played instead of any other, or something that happens at the port.

use super::{
    dialect::TestDialect,
    journal::Request,
    openai::as_openai,
    script::{Ending, Script},
};

/// The `Retry-After` of [`Fault::Status429RetryAfter`] and [`Fault::Status503RetryAfter`].
pub const RETRY_AFTER_SECONDS: u64 = 2;

/// A failure of a provider, for whole answers and streams alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Connections are refused; existing ones are closed.
    PortClosed,
    /// Connects hang; existing connections receive nothing, whatever is sent on them.
    PacketsDropped,
    /// RST after the request was read.
    Reset,
    /// 500.
    Status500,
    /// 503 without `Retry-After`.
    Status503,
    /// 503 with `Retry-After`.
    Status503RetryAfter,
    /// 529, "overloaded".
    Status529,
    /// 429 without `Retry-After`.
    Status429,
    /// 429 with `Retry-After`.
    Status429RetryAfter,
    /// 401 to the gateway's credential.
    Status401,
    /// 404: no such model.
    Status404,
    /// A 200 with the content type of JSON or an event stream, and HTML as its body.
    GarbageBody,
    /// Bytes that are not HTTP.
    GarbageWire,
    /// A 200 whose object, or first frame, is an error.
    ErrorInside200,
    /// The request is read and not answered.
    SilentBeforeHeaders,
    /// Status and headers of a 200 are sent, then nothing.
    SilentAfterHeaders,
    /// FIN after the role frame, or in the middle of a whole answer.
    FinBeforeFirstToken,
    /// RST after the role frame, or in the middle of a whole answer.
    ResetBeforeFirstToken,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Fault; 18] = [
        Fault::PortClosed,
        Fault::PacketsDropped,
        Fault::Reset,
        Fault::Status500,
        Fault::Status503,
        Fault::Status503RetryAfter,
        Fault::Status529,
        Fault::Status429,
        Fault::Status429RetryAfter,
        Fault::Status401,
        Fault::Status404,
        Fault::GarbageBody,
        Fault::GarbageWire,
        Fault::ErrorInside200,
        Fault::SilentBeforeHeaders,
        Fault::SilentAfterHeaders,
        Fault::FinBeforeFirstToken,
        Fault::ResetBeforeFirstToken,
    ];

    /// The script that answers a request; `None` for a fault of the port, where no request is read.
    pub fn script(self) -> Option<Script> {
        let again = RETRY_AFTER_SECONDS.to_string();
        Some(match self {
            Fault::PortClosed | Fault::PacketsDropped => return None,
            Fault::Reset => Script::wire("").end(Ending::Rst),
            Fault::Status500 => refusal(500, "server_error", None),
            Fault::Status503 => refusal(503, "server_error", None),
            Fault::Status503RetryAfter => refusal(503, "server_error", None).header("retry-after", &again),
            Fault::Status529 => refusal(529, "overloaded_error", None),
            Fault::Status429 => refusal(429, "requests", Some("rate_limit_exceeded")),
            Fault::Status429RetryAfter => {
                refusal(429, "requests", Some("rate_limit_exceeded")).header("retry-after", &again)
            }
            Fault::Status401 => refusal(401, "invalid_request_error", Some("invalid_api_key")),
            Fault::Status404 => refusal(404, "invalid_request_error", Some("model_not_found")),
            Fault::GarbageBody => ok("<html><body>Please log in</body></html>"),
            Fault::GarbageWire => Script::wire("SSH-2.0-OpenSSH_9.9\r\n").end(Ending::Fin),
            Fault::ErrorInside200 => error_inside(),
            Fault::SilentBeforeHeaders => Script::wire("").end(Ending::Stall),
            Fault::SilentAfterHeaders => ok("{}").cut_after_frame(0, Ending::Stall),
            Fault::FinBeforeFirstToken => before_first_token(Ending::Fin),
            Fault::ResetBeforeFirstToken => before_first_token(Ending::Rst),
        })
    }
}

/// A refusal with the error object of the dialect.
fn refusal(status: u16, kind: &'static str, code: Option<&'static str>) -> Script {
    Script::by(move |request| {
        let body = TestDialect::of(&request.path).error(status, "Refused by the script", kind, code);
        as_openai(Script::status(status)).json(&body)
    })
}

/// A 200 with `content` in place of the answer, in the form that was asked for.
fn ok(content: &str) -> Script {
    let streamed = as_openai(Script::sse()).frame(content);
    let whole = as_openai(Script::status(200)).header("content-type", "application/json").body(content.to_owned());
    Script::by(move |request| match request.streams() {
        true => streamed.clone(),
        false => whole.clone(),
    })
}

/// A 200 whose object, or first event, is an error of the dialect.
fn error_inside() -> Script {
    Script::by(|request: &Request| {
        let dialect = TestDialect::of(&request.path);
        let message = "The engine is overloaded";
        let error = if request.streams() {
            dialect.error_event(message)
        } else {
            dialect.error(500, message, "server_error", None)
        };
        ok(&error.to_string())
    })
}

fn before_first_token(ending: Ending) -> Script {
    Script::by(move |request: &Request| {
        let answer = TestDialect::of(&request.path).answer("Hello");
        if request.streams() { answer.cut_after_frame(1, ending) } else { answer.cut_at_body_byte(40, ending) }
    })
}
