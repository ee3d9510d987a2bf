//! The commit rule: what of a provider's reply counts as an answer.
//!
//! A stream is answered by its first good frame, a whole answer by its last byte; everything before
//! that may still be forgotten in favour of another provider. Nothing here watches the clock (the
//! caller does) and nothing decides what follows a failure.
//!
//! Start reading in [`obtain`].

use super::body::AnswerBody;
use super::meter::AnswerMeter;
use super::providers::{UpstreamProvider, UpstreamReply};
use super::stream::{AnswerStream, StreamError};
use super::{AttemptError, AttemptWatch, UpstreamRequest, classify, error_reply};
use crate::clock::Clock;
use crate::domain::estimate::UsageTally;
use crate::domain::failure::Failure;
use crate::protocol::{AnswerError, Grammar, Moment};
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use std::future::poll_fn;

/// Bytes of frames held before the first good one; more than this is no answer.
const MAX_HELD: usize = 64 * 1024;
/// Frames without a token that may open a stream, however long its first token takes.
const OPENING_FRAMES: u32 = 2;
/// The largest whole answer, in bytes. Embeddings of a full batch are the largest known, at some 40 MiB.
const MAX_WHOLE: usize = 64 * 1024 * 1024;
/// The largest JSON that is read where a stream was asked for, in bytes.
const MAX_INSTEAD_OF_STREAM: usize = 1024 * 1024;
/// Headers of the provider that the client may see.
const PASSED_BACK: [HeaderName; 3] =
    [CONTENT_TYPE, HeaderName::from_static("openai-processing-ms"), HeaderName::from_static("openai-version")];

/// Sends `request` to `provider` and waits for the commit point.
pub(super) async fn obtain(
    provider: &UpstreamProvider,
    request: &UpstreamRequest<'_>,
    clock: Clock,
    watch: &dyn AttemptWatch,
) -> Result<UpstreamAnswer, AttemptError> {
    let reply = provider.open(request, clock.now()).await?;
    let mut heard = || watch.heard(clock.now());
    heard();
    if !reply.status.is_success() {
        return Err(error_reply::read(reply, clock).await);
    }
    if let Some(encoding) = reply.headers.get(CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
        return Err(AttemptError::new(
            Failure::Unreadable,
            format!("the answer is encoded ({encoding:?}) though we asked it not to be"),
        ));
    }
    let status = reply.status;
    let headers = passed_back(&reply.headers);
    let body = match request.call.metadata().stream {
        true => stream(reply, request, clock, &mut heard).await?,
        false => whole(reply, &mut heard).await?,
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

async fn whole(mut reply: UpstreamReply, heard: &mut (dyn FnMut() + Send)) -> Result<AnswerBody, AttemptError> {
    let body = reply.source.collect(MAX_WHOLE, heard).await?;
    match read_whole(reply.grammar, &body) {
        Ok(WholeAnswer { fault: true, .. }) => Err(AttemptError::new(Failure::ErrorInside, "an error inside a 2xx")),
        Ok(WholeAnswer { answered: false, .. }) => {
            Err(AttemptError::new(Failure::NoAnswer, "a 2xx without a choice or a vector"))
        }
        Ok(answer) => Ok(AnswerBody::whole(body, reply.grammar, answer.tally)),
        Err(error @ AnswerError::EndsEarly) => Err(AttemptError::new(Failure::Truncated, error.to_string())),
        Err(error @ AnswerError::NotAnObject(_)) => Err(AttemptError::new(Failure::Garbage, error.to_string())),
    }
}

/// What a whole answer says.
struct WholeAnswer {
    /// It is an error.
    fault: bool,
    /// It has a choice or a vector.
    answered: bool,
    /// What is known of its tokens.
    tally: UsageTally,
}

fn read_whole(grammar: Grammar, body: &[u8]) -> Result<WholeAnswer, AnswerError> {
    let (mut fault, mut answered, mut meter) = (false, false, AnswerMeter::default());
    grammar.read_whole(body, |moment| {
        fault |= moment == Moment::Fault;
        answered |= moment == Moment::Finish;
        meter.note(moment);
    })?;
    Ok(WholeAnswer { fault, answered, tally: meter.tally(true) })
}

async fn stream(
    reply: UpstreamReply,
    request: &UpstreamRequest<'_>,
    clock: Clock,
    heard: &mut (dyn FnMut() + Send),
) -> Result<AnswerBody, AttemptError> {
    if !is_event_stream(reply.headers.get(CONTENT_TYPE)) {
        return Err(no_stream(reply, heard).await);
    }
    let mut stream = AnswerStream::new(reply, request.call);
    let late_at = clock.now() + request.timeouts.first_token;
    let first = first_good(&mut stream, heard, || clock.now() > late_at).await?;
    Ok(AnswerBody::stream(stream, first, request.timeouts, clock))
}

fn is_event_stream(content_type: Option<&HeaderValue>) -> bool {
    let text = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("text/event-stream")
}

/// A 2xx that should be a stream and is not: an error in its place, or anything else.
async fn no_stream(mut reply: UpstreamReply, heard: &mut (dyn FnMut() + Send)) -> AttemptError {
    let detail = match reply.headers.get(CONTENT_TYPE) {
        Some(given) => format!("content-type {given:?} where a stream was asked for"),
        None => "no content-type where a stream was asked for".to_owned(),
    };
    match reply.source.collect(MAX_INSTEAD_OF_STREAM, heard).await {
        Ok(body) => match read_whole(reply.grammar, &body) {
            Ok(WholeAnswer { fault: true, .. }) => AttemptError::new(Failure::ErrorInside, detail),
            Ok(WholeAnswer { answered: true, .. }) => AttemptError::new(Failure::Unreadable, detail),
            Ok(_) | Err(_) => AttemptError::new(Failure::Garbage, detail),
        },
        Err(error) => error,
    }
}

/// Everything up to the read that brought the first good frame, in order.
///
/// # Errors
/// Besides the stream's own: frames without a token come for longer than a first token may take.
async fn first_good(
    stream: &mut AnswerStream,
    heard: &mut (dyn FnMut() + Send),
    is_late: impl Fn() -> bool,
) -> Result<Bytes, AttemptError> {
    let mut held = BytesMut::new();
    let mut empty_frames = 0;
    loop {
        let batch = match poll_fn(|cx| stream.poll_batch(cx)).await {
            Some(Ok(batch)) => batch,
            Some(Err(broken)) => return Err(attempt_error(broken)),
            None => return Err(AttemptError::new(Failure::Truncated, "the stream ended before its first token")),
        };
        heard();
        match (batch.good, held.is_empty()) {
            (true, true) => return Ok(batch.bytes),
            (_, _) => held.extend_from_slice(&batch.bytes),
        }
        if batch.good {
            return Ok(held.freeze());
        }
        // One opens a stream; more are an answer that says nothing, however alive its provider is.
        empty_frames += u32::from(batch.alive);
        if empty_frames > OPENING_FRAMES && is_late() {
            return Err(AttemptError::new(Failure::FirstTokenTimeout, "frames without a token, and no end of them"));
        }
        if held.len() > MAX_HELD {
            return Err(AttemptError::new(Failure::Unreadable, "64 KiB of frames without a token"));
        }
    }
}

fn attempt_error(broken: StreamError) -> AttemptError {
    match broken {
        StreamError::Failure(failure, detail) => AttemptError::new(failure, detail),
        StreamError::Transport(error) => AttemptError::new(classify::broken_body(&error), classify::describe(&error)),
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
        let text = r#"{ "id":"x","choices":[{}],"big":12345678901234567890.10,"usage":{"prompt_tokens":2,"completion_tokens":3}}"#;
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
        check(WHOLE, vec![Act::Write(huge), Act::Hold], Failure::Unreadable).await;
        let gzip = respond("200 OK", "content-encoding: gzip\r\n", "{}");
        check(WHOLE, write(gzip), Failure::Unreadable).await;
        for empty in ["{}", r#"{"choices":[]}"#, r#"{"id":"x","choices":null}"#, r#"{"object":"list","data":[]}"#] {
            check(WHOLE, write(whole(JSON, empty)), Failure::NoAnswer).await;
        }
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
    async fn what_counts_as_a_whole_answer() {
        let filtered = r#"{"choices":[{"index":0,"message":{"content":""},"finish_reason":"content_filter"}]}"#;
        for text in [filtered, r#"{"choices":[{"text":""}]}"#, r#"{"data":[{"embedding":"AAAA"}]}"#] {
            let answer = tried(&call(WHOLE), vec![Act::Write(whole(JSON, text))], timeouts()).await;
            assert!(answer.is_ok(), "{text}");
        }
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
        let json = whole(JSON, r#"{"choices":[{"message":{"content":"x"}}]}"#);
        check(STREAM, vec![Act::Write(json)], Failure::Unreadable).await;
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
        check(STREAM, vec![streamed(&[&much]), Act::Hold], Failure::Unreadable).await;
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
