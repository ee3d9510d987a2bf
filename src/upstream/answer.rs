//! The commit rule: what of a provider's reply counts as an answer.
//!
//! A stream is answered by its first good frame, a whole answer by its last byte; everything before
//! that may still be forgotten in favour of another provider. Nothing here watches the clock (the
//! caller does) and nothing decides what follows a failure.
//!
//! Start reading in [`obtain`].

use super::body::AnswerBody;
use super::meter;
use super::providers::{Provider, Reply, Source};
use super::stream::{Broken, Stream};
use super::{Answer, Missed, Order, Rejection, classify};
use crate::clock::Clock;
use crate::domain::failure::Failure;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::future::poll_fn;

/// Frames held before the first good one; more than this is no answer.
const MAX_HELD: usize = 64 * 1024;
/// The largest whole answer. Embeddings of a full batch are the largest known, at some 40 MiB.
const MAX_WHOLE: usize = 64 * 1024 * 1024;
/// The largest rejection passed on to a client, and the largest error looked into.
const MAX_ERROR: usize = 1024 * 1024;
/// Headers of the provider that the client may see.
const PASSED_BACK: [HeaderName; 3] =
    [CONTENT_TYPE, HeaderName::from_static("openai-processing-ms"), HeaderName::from_static("openai-version")];

/// Sends `order` to `provider` and waits for the commit point.
pub(super) async fn obtain(provider: &Provider, order: &Order<'_>, clock: Clock) -> Result<Answer, Missed> {
    let reply = provider.open(order, clock.now()).await?;
    if !reply.status.is_success() {
        return Err(refused(reply, clock.unix_ms()).await);
    }
    if let Some(encoding) = reply.headers.get(CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
        return Err(Missed::new(
            Failure::Garbage,
            format!("the answer is encoded ({encoding:?}) though we asked it not to be"),
        ));
    }
    let status = reply.status;
    let headers = passed_back(&reply.headers);
    let body = match order.call.facts().stream {
        true => stream(reply, order, clock).await?,
        false => whole(reply).await?,
    };
    Ok(Answer { status, headers, body })
}

fn passed_back(headers: &HeaderMap) -> HeaderMap {
    PASSED_BACK.into_iter().filter_map(|name| headers.get(&name).cloned().map(|value| (name, value))).collect()
}

/// What a reply without success means; the provider's words are read only where they matter.
async fn refused(reply: Reply, now_unix_ms: i64) -> Missed {
    let Reply { status, headers, mut source, .. } = reply;
    let detail = format!("HTTP {}", status.as_u16());
    let failure = classify::status(status, &headers, now_unix_ms);
    if failure != Failure::Rejected {
        return Missed::new(failure, detail);
    }
    match collect(&mut source, MAX_ERROR).await {
        Ok(body) => Missed {
            failure: classify::rejection(status, &body),
            rejection: Some(Rejection { status, content_type: headers.get(CONTENT_TYPE).cloned(), body }),
            detail: detail.into(),
        },
        Err(missed) => missed,
    }
}

async fn whole(mut reply: Reply) -> Result<AnswerBody, Missed> {
    let body = collect(&mut reply.source, MAX_WHOLE).await?;
    match meter::read_whole(&body) {
        Ok(whole) if whole.error => Err(Missed::new(Failure::ErrorInside, "an error inside a 2xx")),
        Ok(whole) => Ok(AnswerBody::whole(body, whole.usage)),
        Err(error) if error.is_eof() => Err(Missed::new(Failure::Truncated, "the JSON ends early")),
        Err(error) => Err(Missed::new(Failure::Garbage, format!("no JSON object: {:?} error", error.classify()))),
    }
}

async fn stream(reply: Reply, order: &Order<'_>, clock: Clock) -> Result<AnswerBody, Missed> {
    if !is_event_stream(reply.headers.get(CONTENT_TYPE)) {
        return Err(no_stream(reply).await);
    }
    let mut stream = Stream::new(reply, order.call);
    let first = first_good(&mut stream).await?;
    Ok(AnswerBody::stream(stream, first, order.patience, clock))
}

fn is_event_stream(content_type: Option<&HeaderValue>) -> bool {
    let text = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("text/event-stream")
}

/// A 2xx that should be a stream and is not: an error in its place, or anything else.
async fn no_stream(mut reply: Reply) -> Missed {
    let detail = match reply.headers.get(CONTENT_TYPE) {
        Some(given) => format!("content-type {given:?} where a stream was asked for"),
        None => "no content-type where a stream was asked for".to_owned(),
    };
    match collect(&mut reply.source, MAX_ERROR).await {
        Ok(body) if meter::read_whole(&body).is_ok_and(|whole| whole.error) => {
            Missed::new(Failure::ErrorInside, detail)
        }
        Ok(_) => Missed::new(Failure::Garbage, detail),
        Err(missed) => missed,
    }
}

/// Everything up to the read that brought the first good frame, in order.
async fn first_good(stream: &mut Stream) -> Result<Bytes, Missed> {
    let mut held = BytesMut::new();
    loop {
        let batch = match poll_fn(|cx| stream.poll_batch(cx)).await {
            Some(Ok(batch)) => batch,
            Some(Err(broken)) => return Err(missed(broken)),
            None => return Err(Missed::new(Failure::Truncated, "the stream ended before its first token")),
        };
        match (batch.good, held.is_empty()) {
            (true, true) => return Ok(batch.bytes),
            (_, _) => held.extend_from_slice(&batch.bytes),
        }
        if batch.good {
            return Ok(held.freeze());
        }
        if held.len() > MAX_HELD {
            return Err(Missed::new(Failure::Garbage, "64 KiB of frames without a token"));
        }
    }
}

fn missed(broken: Broken) -> Missed {
    match broken {
        Broken::Failure(failure, detail) => Missed::new(failure, detail),
        Broken::Transport(error) => Missed::new(classify::broken_body(&error), classify::describe(&error)),
    }
}

/// The whole body; a single read is not copied.
async fn collect(source: &mut Source, limit: usize) -> Result<Bytes, Missed> {
    let too_large = || Missed::new(Failure::Garbage, format!("an answer of more than {limit} bytes"));
    if source.promised().is_some_and(|promised| promised > limit as u64) {
        return Err(too_large());
    }
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    loop {
        let chunk = match poll_fn(|cx| source.poll_chunk(cx)).await {
            None if all.is_empty() => return Ok(first),
            None => return Ok(all.freeze()),
            Some(Err(error)) => return Err(missed(Broken::Transport(error))),
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
