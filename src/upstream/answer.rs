//! The commit rule: what of a provider's reply counts as an answer.
//!
//! A stream is answered by its first good frame, a whole answer by its last byte; everything before
//! that may still be forgotten in favour of another provider. Nothing here watches the clock (the
//! caller does) and nothing decides what follows a failure.
//!
//! Start reading in [`obtain`].

use super::body::AnswerBody;
use super::meter::AnswerMeter;
use super::providers::{ReplySource, UpstreamProvider, UpstreamReply};
use super::stream::{AnswerStream, StreamError};
use super::{AttemptError, UpstreamRequest, classify};
use crate::clock::Clock;
use crate::domain::estimate::UsageTally;
use crate::domain::failure::{Failure, Rejection};
use crate::protocol::{AnswerError, Grammar, Moment};
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use std::future::poll_fn;

/// Bytes of frames held before the first good one; more than this is no answer.
const MAX_HELD: usize = 64 * 1024;
/// The largest whole answer, in bytes. Embeddings of a full batch are the largest known, at some 40 MiB.
const MAX_WHOLE: usize = 64 * 1024 * 1024;
/// The largest rejection passed on to a client and the largest error that is read, in bytes.
const MAX_ERROR: usize = 1024 * 1024;
/// The longest id of a provider that is logged, in bytes.
const MAX_REQUEST_ID: usize = 128;
/// Headers of the provider that the client may see.
const PASSED_BACK: [HeaderName; 3] =
    [CONTENT_TYPE, HeaderName::from_static("openai-processing-ms"), HeaderName::from_static("openai-version")];

/// Sends `request` to `provider` and waits for the commit point.
pub(super) async fn obtain(
    provider: &UpstreamProvider,
    request: &UpstreamRequest<'_>,
    clock: Clock,
) -> Result<UpstreamAnswer, AttemptError> {
    let reply = provider.open(request, clock.now()).await?;
    if !reply.status.is_success() {
        return Err(refused(reply, clock.unix_ms()).await);
    }
    if let Some(encoding) = reply.headers.get(CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
        return Err(AttemptError::new(
            Failure::Garbage,
            format!("the answer is encoded ({encoding:?}) though we asked it not to be"),
        ));
    }
    let status = reply.status;
    let headers = passed_back(&reply.headers);
    let body = match request.call.metadata().stream {
        true => stream(reply, request, clock).await?,
        false => whole(reply).await?,
    };
    Ok(UpstreamAnswer { status, headers, body })
}

/// A provider's answer. Holding one means the commit point was reached.
pub struct UpstreamAnswer {
    /// The provider's status, a 2xx.
    pub status: StatusCode,
    /// `content-type`, `openai-processing-ms` and `openai-version`, where the provider sent them.
    pub headers: HeaderMap,
    /// The rest, to be polled to its end.
    pub body: AnswerBody,
}

/// Of a provider's headers, those that the client may see.
pub fn passed_back(headers: &HeaderMap) -> HeaderMap {
    PASSED_BACK.into_iter().filter_map(|name| headers.get(&name).cloned().map(|value| (name, value))).collect()
}

/// What a reply without success means; the provider's words are read only where they matter.
async fn refused(reply: UpstreamReply, now_unix_ms: i64) -> AttemptError {
    let UpstreamReply { status, headers, mut source, grammar } = reply;
    let detail = format!("HTTP {}{}", status.as_u16(), request_id(&headers));
    let failure = classify::status(status, &headers, now_unix_ms);
    if failure != Failure::Rejected {
        return AttemptError::new(failure, detail);
    }
    match collect(&mut source, MAX_ERROR).await {
        Ok(body) => AttemptError {
            failure: classify::rejection(status, grammar, &body),
            rejection: Some(Rejection {
                status: status.as_u16(),
                content_type: headers.get(CONTENT_TYPE).map(|value| Bytes::copy_from_slice(value.as_bytes())),
                body,
            }),
            detail: detail.into(),
        },
        Err(error) => error,
    }
}

/// The provider's name for the request, which its support will ask for.
fn request_id(headers: &HeaderMap) -> String {
    let id = headers.get("x-request-id").and_then(|id| id.to_str().ok()).filter(|id| id.len() <= MAX_REQUEST_ID);
    id.map_or_else(String::new, |id| format!(", x-request-id {id}"))
}

async fn whole(mut reply: UpstreamReply) -> Result<AnswerBody, AttemptError> {
    let body = collect(&mut reply.source, MAX_WHOLE).await?;
    match read_whole(reply.grammar, &body) {
        Ok(WholeAnswer { fault: true, .. }) => Err(AttemptError::new(Failure::ErrorInside, "an error inside a 2xx")),
        Ok(answer) => Ok(AnswerBody::whole(body, reply.grammar, answer.tally)),
        Err(error @ AnswerError::EndsEarly) => Err(AttemptError::new(Failure::Truncated, error.to_string())),
        Err(error @ AnswerError::NotAnObject(_)) => Err(AttemptError::new(Failure::Garbage, error.to_string())),
    }
}

/// What a whole answer says.
struct WholeAnswer {
    /// It is an error.
    fault: bool,
    /// What is known of its tokens.
    tally: UsageTally,
}

fn read_whole(grammar: Grammar, body: &[u8]) -> Result<WholeAnswer, AnswerError> {
    let (mut fault, mut meter) = (false, AnswerMeter::default());
    grammar.read_whole(body, |moment| {
        fault |= moment == Moment::Fault;
        meter.note(moment);
    })?;
    Ok(WholeAnswer { fault, tally: meter.tally(true) })
}

async fn stream(reply: UpstreamReply, request: &UpstreamRequest<'_>, clock: Clock) -> Result<AnswerBody, AttemptError> {
    if !is_event_stream(reply.headers.get(CONTENT_TYPE)) {
        return Err(no_stream(reply).await);
    }
    let mut stream = AnswerStream::new(reply, request.call);
    let first = first_good(&mut stream).await?;
    Ok(AnswerBody::stream(stream, first, request.timeouts, clock))
}

fn is_event_stream(content_type: Option<&HeaderValue>) -> bool {
    let text = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("text/event-stream")
}

/// A 2xx that should be a stream and is not: an error in its place, or anything else.
async fn no_stream(mut reply: UpstreamReply) -> AttemptError {
    let detail = match reply.headers.get(CONTENT_TYPE) {
        Some(given) => format!("content-type {given:?} where a stream was asked for"),
        None => "no content-type where a stream was asked for".to_owned(),
    };
    match collect(&mut reply.source, MAX_ERROR).await {
        Ok(body) if read_whole(reply.grammar, &body).is_ok_and(|answer| answer.fault) => {
            AttemptError::new(Failure::ErrorInside, detail)
        }
        Ok(_) => AttemptError::new(Failure::Garbage, detail),
        Err(error) => error,
    }
}

/// Everything up to the read that brought the first good frame, in order.
async fn first_good(stream: &mut AnswerStream) -> Result<Bytes, AttemptError> {
    let mut held = BytesMut::new();
    loop {
        let batch = match poll_fn(|cx| stream.poll_batch(cx)).await {
            Some(Ok(batch)) => batch,
            Some(Err(broken)) => return Err(attempt_error(broken)),
            None => return Err(AttemptError::new(Failure::Truncated, "the stream ended before its first token")),
        };
        match (batch.good, held.is_empty()) {
            (true, true) => return Ok(batch.bytes),
            (_, _) => held.extend_from_slice(&batch.bytes),
        }
        if batch.good {
            return Ok(held.freeze());
        }
        if held.len() > MAX_HELD {
            return Err(AttemptError::new(Failure::Garbage, "64 KiB of frames without a token"));
        }
    }
}

fn attempt_error(broken: StreamError) -> AttemptError {
    match broken {
        StreamError::Failure(failure, detail) => AttemptError::new(failure, detail),
        StreamError::Transport(error) => AttemptError::new(classify::broken_body(&error), classify::describe(&error)),
    }
}

/// The whole body; a single read is not copied.
async fn collect(source: &mut ReplySource, limit: usize) -> Result<Bytes, AttemptError> {
    let too_large = || AttemptError::new(Failure::Garbage, format!("an answer of more than {limit} bytes"));
    if source.promised().is_some_and(|promised| promised > limit as u64) {
        return Err(too_large());
    }
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    loop {
        let chunk = match poll_fn(|cx| source.poll_chunk(cx)).await {
            None if all.is_empty() => return Ok(first),
            None => return Ok(all.freeze()),
            Some(Err(error)) => return Err(attempt_error(StreamError::Transport(error))),
            Some(Ok(chunk)) => chunk,
        };
        if first.len().max(all.len()) + chunk.len() > limit {
            return Err(too_large());
        }
        match (first.is_empty(), all.is_empty()) {
            (true, _) => first = chunk,
            (false, true) => {
                all.reserve(first.len() + chunk.len() + source.promised().unwrap_or(0) as usize);
                all.extend_from_slice(&first);
                all.extend_from_slice(&chunk);
            }
            (false, false) => all.extend_from_slice(&chunk),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::call::Call;
    use crate::domain::usage::Usage;
    use crate::upstream::Timeouts;
    use crate::upstream::testing::{
        Act, LAST_CHUNK, STREAM_HEAD, Scripted, call, chunk, drain, respond, send, timeouts, upstreams, whole,
    };
    use std::time::Duration;

    const WHOLE: &str = r#"{"model":"m"}"#;
    const STREAM: &str = r#"{"model":"m","stream":true}"#;
    const ROLE: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\"}}]}\n\n";
    const GOOD: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n";
    const STOP: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    const ERROR: &str = "data: {\"error\":{\"message\":\"overloaded\"}}\n\n";
    const JSON: &str = "application/json";

    /// What comes of `body`, sent to a provider that reads it and then does `acts`.
    async fn tried(call: &Call, acts: Vec<Act>, timeouts: Timeouts) -> Result<UpstreamAnswer, AttemptError> {
        let script = [vec![Act::Read], acts].concat();
        let provider = Scripted::start(script).await;
        send(&upstreams(provider.base_url()), call, timeouts).await
    }

    async fn check(body: &'static str, acts: Vec<Act>, expected: Failure) {
        let shown = format!("{acts:?}");
        let quick = Duration::from_millis(100);
        let timeouts = match expected {
            Failure::FirstTokenTimeout => Timeouts { first_token: quick, ..timeouts() },
            Failure::WholeTimeout => Timeouts { whole: quick, ..timeouts() },
            _ => timeouts(),
        };
        match tried(&call(body), acts, timeouts).await {
            Ok(_) => panic!("{shown} counts as an answer"),
            Err(error) => assert_eq!(error.failure, expected, "{shown}: {}", error.detail),
        }
    }

    /// Head and frames of a stream, without its end.
    fn streamed(frames: &[&str]) -> Act {
        let chunks = frames.iter().flat_map(|frame| chunk(frame.as_bytes()));
        Act::Write(STREAM_HEAD.iter().copied().chain(chunks).collect())
    }

    #[tokio::test]
    async fn a_whole_answer_passes_as_it_came() {
        let text = r#"{ "id":"x","big":12345678901234567890.10,"usage":{"prompt_tokens":2,"completion_tokens":3}}"#;
        let headers = "content-type: application/json\r\nopenai-version: 2020-10-01\r\nset-cookie: a=b\r\nx-ratelimit-limit-requests: 9\r\n";
        let written = Act::Write(respond("201 Created", headers, text));
        let mut answer =
            tried(&call(WHOLE), vec![written], timeouts()).await.unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!(answer.status, 201);
        let names: Vec<&str> = answer.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["content-type", "openai-version"]);
        assert_eq!(answer.body.tally().counted, Some(Usage { input: 2, output: 3, ..Usage::default() }));
        assert_eq!(drain(&mut answer.body).await, (text.to_owned(), None));
    }

    #[tokio::test]
    async fn a_large_answer_in_many_reads_is_put_together() {
        let text = format!(r#"{{"data":"{}"}}"#, "x".repeat(3 << 20));
        let acts = vec![Act::Write(whole(JSON, &text))];
        let answer = tried(&call(WHOLE), acts, timeouts()).await;
        let mut answer = answer.unwrap_or_else(|error| panic!("{error:?}"));
        assert!(drain(&mut answer.body).await == (text, None));
    }

    #[tokio::test]
    async fn what_is_no_whole_answer() {
        let write = |bytes: Vec<u8>| vec![Act::Write(bytes), Act::Close];
        check(WHOLE, write(whole(JSON, r#"{"error":{"message":"x"}}"#)), Failure::ErrorInside).await;
        check(WHOLE, write(whole("text/html", "<html></html>")), Failure::Garbage).await;
        check(WHOLE, write(whole(JSON, "[]")), Failure::Garbage).await;
        check(WHOLE, write(whole(JSON, r#"{"id":"x""#)), Failure::Truncated).await;
        check(WHOLE, write(whole(JSON, "")), Failure::Truncated).await;
        let promised = b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"id\":".to_vec();
        check(WHOLE, write(promised.clone()), Failure::Truncated).await;
        check(WHOLE, vec![Act::Write(promised.clone()), Act::Hold], Failure::WholeTimeout).await;
        let huge = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n{".to_vec();
        check(WHOLE, vec![Act::Write(huge), Act::Hold], Failure::Garbage).await;
        let gzip = respond("200 OK", "content-encoding: gzip\r\n", "{}");
        check(WHOLE, write(gzip), Failure::Garbage).await;
    }

    #[tokio::test]
    async fn what_is_no_answer_at_all() {
        for body in [WHOLE, STREAM] {
            check(body, vec![Act::Close], Failure::Reset).await;
            check(body, vec![Act::Reset], Failure::Reset).await;
            check(body, vec![Act::Write(b"HTTP/1.1 200 OK\r\nconten".to_vec()), Act::Close], Failure::Reset).await;
            check(body, vec![Act::Write(b"SSH-2.0-OpenSSH\r\n\r\n".to_vec()), Act::Hold], Failure::Garbage).await;
            check(body, vec![Act::Write(respond("302 Found", "location: /\r\n", ""))], Failure::Garbage).await;
            check(body, vec![Act::Write(respond("529 Busy", "", ""))], Failure::Status(529)).await;
            check(body, vec![Act::Write(respond("401 No", "", ""))], Failure::CredentialRefused).await;
            let limited = respond("429 Slow", "retry-after-ms: 20\r\n", "{}");
            let after = Some(Duration::from_millis(20));
            check(body, vec![Act::Write(limited)], Failure::Throttled { after }).await;
        }
        check(STREAM, vec![Act::Hold], Failure::FirstTokenTimeout).await;
    }

    #[tokio::test]
    async fn a_rejection_is_kept_for_the_client() {
        let text = r#"{"error":{"message":"bad","code":"invalid_value"}}"#;
        for body in [WHOLE, STREAM] {
            let acts =
                vec![Act::Write(respond("422 No", "content-type: application/json\r\nx-request-id: r1\r\n", text))];
            let error = tried(&call(body), acts, timeouts()).await.err().expect("a 422 is no answer");
            assert_eq!(error.failure, Failure::Rejected);
            let rejection = error.rejection.expect("the provider said why");
            assert_eq!((rejection.status, &rejection.body[..]), (422, text.as_bytes()));
            assert_eq!(rejection.content_type, Some(Bytes::from_static(JSON.as_bytes())));
            assert_eq!(&*error.detail, "HTTP 422, x-request-id r1");
        }
        let long = r#"{"error":{"message":"x","code":"context_length_exceeded"}}"#;
        check(WHOLE, vec![Act::Write(respond("400 No", "", long))], Failure::ContextTooLong).await;
    }

    #[tokio::test]
    async fn a_stream_is_answered_by_its_first_good_frame() {
        let acts = vec![streamed(&[": c\n\n", ROLE, GOOD]), Act::Hold];
        let answer = tried(&call(STREAM), acts, timeouts()).await;
        let mut body = answer.unwrap_or_else(|error| panic!("{error:?}")).body;
        let first = poll_fn(|cx| body.poll_frames(cx)).await;
        assert!(first.is_some_and(|first| first.is_ok_and(|first| first == [": c\n\n", ROLE, GOOD].concat())));
    }

    #[tokio::test]
    async fn what_is_no_stream() {
        let json = whole(JSON, r#"{"choices":[]}"#);
        check(STREAM, vec![Act::Write(json)], Failure::Garbage).await;
        let error = whole(JSON, r#"{"error":{"message":"x"}}"#);
        check(STREAM, vec![Act::Write(error)], Failure::ErrorInside).await;
        check(STREAM, vec![streamed(&[ERROR])], Failure::ErrorInside).await;
        check(STREAM, vec![streamed(&[ROLE, ERROR]), Act::Hold], Failure::ErrorInside).await;
        check(STREAM, vec![streamed(&["data: {oops\n\n"]), Act::Hold], Failure::Garbage).await;
        check(STREAM, vec![streamed(&[ROLE, "data: [DONE]\n\n"]), Act::Hold], Failure::Truncated).await;
        check(STREAM, vec![streamed(&[ROLE]), Act::Close], Failure::Truncated).await;
        check(STREAM, vec![streamed(&[ROLE]), Act::Reset], Failure::Truncated).await;
        check(STREAM, vec![streamed(&[ROLE]), Act::Write(LAST_CHUNK.to_vec())], Failure::Truncated).await;
        check(STREAM, vec![streamed(&[ROLE]), Act::Write(b"zz\r\n".to_vec()), Act::Hold], Failure::Garbage).await;
        check(STREAM, vec![streamed(&[ROLE]), Act::Hold], Failure::FirstTokenTimeout).await;
        let much = ROLE.repeat(MAX_HELD / ROLE.len() + 1);
        check(STREAM, vec![streamed(&[&much]), Act::Hold], Failure::Garbage).await;
    }

    #[tokio::test]
    async fn what_breaks_after_the_first_good_frame_is_said() {
        let error_chunk = Act::Write(chunk(ERROR.as_bytes()));
        for (acts, out, failure) in [
            (vec![streamed(&[GOOD, STOP]), Act::Write(LAST_CHUNK.to_vec())], "{GOOD}{STOP}data: [DONE]\n\n", None),
            (vec![streamed(&[GOOD]), Act::Write(LAST_CHUNK.to_vec())], "{GOOD}", Some(Failure::Truncated)),
            (vec![streamed(&[GOOD]), error_chunk], "{GOOD}", Some(Failure::ErrorInside)),
            (vec![streamed(&[GOOD, STOP]), Act::Close], "{GOOD}{STOP}", Some(Failure::Reset)),
        ] {
            let answer = tried(&call(STREAM), acts, timeouts()).await;
            let mut body = answer.unwrap_or_else(|error| panic!("{error:?}")).body;
            let expected = out.replace("{GOOD}", GOOD).replace("{STOP}", STOP);
            assert_eq!(drain(&mut body).await, (expected, failure));
            assert_eq!(body.is_complete(), failure.is_none());
        }
    }
}
