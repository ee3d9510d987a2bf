//! The commit rule: what of a provider's reply counts as an answer.
//!
//! A stream is answered by its first good frame, a whole answer, or a stream that is held, by its last byte; everything
//! before that may still be forgotten in favour of another provider. Nothing here watches the clock (the
//! caller does) and nothing decides what follows a failure.
//!
//! Start reading in [`obtain`].

use super::body::AnswerBody;
use super::held::HeldAnswer;
use super::open::open;
use super::provider_request_id::provider_request_id;
use super::providers::{UpstreamProvider, UpstreamReply};
use super::stream::AnswerStream;
use super::whole_answer::{stream_to_its_end, whole, without_a_token};
use super::{AttemptError, AttemptWatch, UpstreamRequest, content_type};
use crate::clock::Clock;
use crate::domain::failure::Failure;
use crate::domain::routing::AnswerMode;
use crate::protocol::{StreamOpeningSize, request_id_header};
use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, StatusCode};
use std::future::poll_fn;

/// The most bytes of comments before the first frame, which are forgotten as many at a time as may open a stream.
const MAX_COMMENTS: usize = 1024 * 1024;
/// Room for the headers of an answer, ours among them: a map that grows is hashed anew.
const ANSWER_HEADERS: usize = 24;
/// Headers of the provider that the client may see.
static PASSED_BACK: [HeaderName; 3] =
    [CONTENT_TYPE, HeaderName::from_static("openai-processing-ms"), HeaderName::from_static("openai-version")];

/// Sends `request` to `provider` and waits for the commit point.
pub(super) async fn obtain(
    provider: &UpstreamProvider,
    request: &UpstreamRequest<'_>,
    clock: Clock,
    watch: &dyn AttemptWatch,
) -> Result<UpstreamAnswer, AttemptError> {
    let mut heard = || watch.heard(clock.now());
    let mut reply = open(provider, request, clock, &mut heard).await?;
    let status = reply.status;
    let mut headers = passed_back(&reply.headers);
    if let Some(name) = request_id_header(request.call.dialect()).map(HeaderName::from_static)
        && let Some(id) = reply.headers.get(&name)
    {
        headers.insert(name, id.clone());
    }
    let provider_request_id = provider_request_id(&reply.headers).map(|(_, id)| id.into());
    let asked = request.call.metadata().stream;
    let label = content_type::is_event_stream(&headers);
    let is_stream = reply.source.is_event_stream(asked, label, &mut heard).await?;
    let grammar = reply.grammar;
    let (other_model, body) = match (asked, is_stream) {
        (true, true) if request.mode == AnswerMode::Stream => {
            let (stream, first) = stream(reply, request, clock, &mut heard).await?;
            (
                grammar.other_model(&first, request.model.name()),
                AnswerBody::stream(stream, first, request.timeouts, clock),
            )
        }
        (_, is_stream) => {
            let mut held = HeldAnswer::none(request.allowance);
            let whole = match is_stream {
                true => stream_to_its_end(reply, request, &mut held, clock, &mut heard).await?,
                false => whole(reply, request, &mut held, clock, &mut heard).await?,
            };
            held.hold(whole.bytes.len(), clock, &mut heard).await?;
            let body = AnswerBody::whole(held.attached_to(whole.bytes), grammar, whole.tally, whole.made);
            (whole.other_model, body)
        }
    };
    content_type::correct(&mut headers, asked);
    Ok(UpstreamAnswer { status, headers, body, provider_request_id, other_model })
}

/// A provider's answer. Holding one means the commit point was reached.
pub struct UpstreamAnswer {
    /// The provider's status, a 2xx.
    pub status: StatusCode,
    /// `content-type`, `openai-processing-ms`, `openai-version` and what clients of the call's dialect know the request by,
    /// where the provider sent them.
    pub headers: HeaderMap,
    /// The rest, to be polled to its end.
    pub body: AnswerBody,
    /// The provider's own name for the request, where it gave one.
    pub provider_request_id: Option<Box<str>>,
    /// The model that the answer says it is of, where it is another one than was asked for.
    pub other_model: Option<Box<str>>,
}

/// Of a provider's headers, those that the client may see.
pub fn passed_back(headers: &HeaderMap) -> HeaderMap {
    let mut passed = HeaderMap::with_capacity(ANSWER_HEADERS);
    passed.extend(PASSED_BACK.iter().filter_map(|name| Some((name.clone(), headers.get(name)?.clone()))));
    passed
}

/// A stream whose first good frame came, and its bytes up to there.
async fn stream(
    reply: UpstreamReply,
    request: &UpstreamRequest<'_>,
    clock: Clock,
    heard: &mut (dyn FnMut() + Send),
) -> Result<(AnswerStream, Bytes), AttemptError> {
    let opening = reply.grammar.opening();
    let mut stream = AnswerStream::new(reply, request.call, request.allowance);
    let late_at = clock.now() + request.timeouts.first_token;
    let first = first_good(&mut stream, opening, heard, || clock.now() > late_at).await?;
    Ok((stream, first))
}

/// Everything up to the read that brought the first good frame, in order.
///
/// # Errors
/// Besides the stream's own: frames without a token come for longer than a first token may take, or comments alone come
/// without end.
async fn first_good(
    stream: &mut AnswerStream,
    opening: StreamOpeningSize,
    heard: &mut (dyn FnMut() + Send),
    is_late: impl Fn() -> bool,
) -> Result<Bytes, AttemptError> {
    let mut held = BytesMut::new();
    let (mut empty_frames, mut comments) = (0, 0);
    loop {
        let batch = match poll_fn(|cx| stream.poll_batch(cx)).await {
            Some(Ok(batch)) => batch,
            Some(Err(broken)) => return Err(broken.into()),
            None => return Err(without_a_token()),
        };
        heard();
        let is_much = held.len() + batch.bytes.len() > opening.bytes;
        if is_much && !batch.good && !batch.alive && empty_frames == 0 {
            comments += held.len() + batch.bytes.len();
            held.clear();
            if comments > MAX_COMMENTS {
                return Err(AttemptError::new(Failure::Garbage, "comments alone, and no end of them"));
            }
            continue;
        }
        let commits = batch.good || is_much;
        match (commits, held.is_empty()) {
            (true, true) => return Ok(batch.bytes),
            (_, _) => held.extend_from_slice(&batch.bytes),
        }
        if commits {
            return Ok(held.freeze());
        }
        // A few open a stream; more are an answer that says nothing, however alive its provider is.
        empty_frames += u32::from(batch.alive);
        if empty_frames > opening.frames && is_late() {
            return Err(AttemptError::new(Failure::FirstTokenTimeout, "frames without a token, and no end of them"));
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
        let text = r#"{ "id":"x","choices":[{"text":"x"}],"big":12345678901234567890.10,"usage":{"prompt_tokens":2,"completion_tokens":3}}"#;
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
    async fn a_head_may_be_as_untidy_as_the_clients_bear() {
        let text = r#"{"choices":[{"index":0,"message":{"content":"x"}}]}"#;
        for odd in
            ["x-a: b\r\n c\r\n", "x-a : b\r\n", "x a: b\r\n", "x-a: \u{1}\r\n", "x-a: caf\u{e9}\r\n", "nothing\r\n"]
        {
            let headers = format!("content-type: application/json\r\n{odd}openai-version: 1\r\n");
            let answer = tried(&call(WHOLE), vec![Act::Write(respond("200", &headers, text))], timeouts()).await;
            let mut answer = answer.unwrap_or_else(|error| panic!("{odd:?}: {error:?}"));
            assert_eq!(answer.headers["openai-version"], "1", "{odd:?}");
            assert_eq!(drain(&mut answer.body).await, (text.to_owned(), None), "{odd:?}");
        }
    }

    #[tokio::test]
    async fn a_large_answer_in_many_reads_is_put_together() {
        let text = format!(r#"{{"data":[{{"embedding":"{}"}}]}}"#, "x".repeat(3 << 20));
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
        check(WHOLE, write(gzip), Failure::NoAnswer).await;
        for empty in [
            "{}",
            r#"{"choices":[]}"#,
            r#"{"id":"x","choices":null}"#,
            r#"{"choices":[null]}"#,
            r#"{"choices":[{}]}"#,
            r#"{"choices":[{"index":0,"message":{"role":"assistant"}}]}"#,
            r#"{"choices":{"0":{"message":{"content":"x"}}}}"#,
            r#"{"choices":[{"index":0,"message":null,"finish_reason":null}]}"#,
            r#"{"object":"list","data":[]}"#,
            r#"{"data":[{"embedding":null}]}"#,
            r#"{"code":0,"data":{"choices":[{"message":{"content":"x"}}]}}"#,
        ] {
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
        for empty in [r#"{"choices":[]}"#, "{}", r#"{"detail":"x"}"#] {
            check(STREAM, vec![Act::Write(whole(JSON, empty))], Failure::NoAnswer).await;
        }
        check(STREAM, vec![Act::Write(whole(JSON, ""))], Failure::Truncated).await;
        check(STREAM, vec![Act::Write(whole("text/plain", "upstream connect error"))], Failure::Garbage).await;
        check(STREAM, vec![Act::Write(whole(JSON, "[1]"))], Failure::Garbage).await;
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
    }

    #[tokio::test]
    async fn more_than_is_held_commits() {
        let much = ROLE.repeat(64 * 1024 / ROLE.len() + 1);
        let answer = tried(&call(STREAM), vec![streamed(&[&much, GOOD]), Act::Close], timeouts()).await;
        let mut body = answer.unwrap_or_else(|error| panic!("{error:?}")).body;
        assert_eq!(drain(&mut body).await, ([&much, GOOD].concat(), Some(Failure::Reset)));
    }

    #[tokio::test]
    async fn what_breaks_after_the_first_good_frame_is_said() {
        let error_chunk = Act::Write(chunk(ERROR.as_bytes()));
        for (acts, out, failure) in [
            (vec![streamed(&[GOOD, STOP]), Act::Write(LAST_CHUNK.to_vec())], "{GOOD}{STOP}data: [DONE]\n\n", None),
            (vec![streamed(&[GOOD]), Act::Write(LAST_CHUNK.to_vec())], "{GOOD}", Some(Failure::Truncated)),
            (vec![streamed(&[GOOD]), error_chunk], "{GOOD}", Some(Failure::ErrorInside)),
            (vec![streamed(&[GOOD]), Act::Close], "{GOOD}", Some(Failure::Reset)),
            (vec![streamed(&[GOOD, STOP]), Act::Close], "{GOOD}{STOP}data: [DONE]\n\n", None),
        ] {
            let answer = tried(&call(STREAM), acts, timeouts()).await;
            let mut body = answer.unwrap_or_else(|error| panic!("{error:?}")).body;
            let expected = out.replace("{GOOD}", GOOD).replace("{STOP}", STOP);
            assert_eq!(drain(&mut body).await, (expected, failure));
            assert_eq!(body.is_complete(), failure.is_none());
        }
    }
}
