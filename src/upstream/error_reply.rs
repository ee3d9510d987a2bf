//! A provider's reply other than a 2xx: what it means, and what is kept of it for the client and the log.
//!
//! Nothing here decides what follows, and nothing of a body is shown that was not masked: the client alone gets it as it
//! came, and only where it is about its request.
//!
//! Start reading in [`read`]; what statuses and bodies mean is in [`classify`].

use super::held::HeldAnswer;
use super::provider_request_id::provider_request_id;
use super::providers::UpstreamReply;
use super::{AttemptError, classify};
use crate::clock::Clock;
use crate::domain::failure::{Failure, ProviderError};
use crate::domain::memory::InFlightAllowance;
use crate::protocol::ErrorTopic;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use std::time::Duration;

/// The most of a refusal of a request that is passed on to a client, in bytes. Some hosts repeat the request in it.
const MAX_REJECTION: usize = 8 * 1024 * 1024;
/// The most of any other error's body that is read, in bytes.
const MAX_FAILED: usize = 64 * 1024;
/// How long the body of such an error is waited for: what follows must not be late for the sake of words.
const FAILED_BODY_WAIT: Duration = Duration::from_millis(250);
/// What a reply without success means. The body of a refusal of the request itself is part of what the client gets; any
/// other is read only where it comes at once.
pub(super) async fn read(reply: UpstreamReply, allowance: &InFlightAllowance, clock: Clock) -> AttemptError {
    let UpstreamReply { status, headers, mut source, grammar } = reply;
    let now_unix_ms = clock.unix_ms();
    let mut held = HeldAnswer::none(allowance);
    let body = if classify::status(status, &headers, now_unix_ms) == Failure::Rejected {
        // The status counts, and the beginning says what is wrong: what is longer is cut.
        match source.collect_start(MAX_REJECTION, &mut held, clock, &mut || {}).await {
            Ok((body, _)) => body,
            Err(error) => return error,
        }
    } else {
        let mut unheard = || {};
        tokio::select! {
            biased;
            body = source.collect_start(MAX_FAILED, &mut held, clock, &mut unheard) => body.unwrap_or_default().0,
            () = clock.sleep(FAILED_BODY_WAIT) => Bytes::new(),
        }
    };
    let reading = grammar.read_error(&body);
    let failure = classify::error_reply(status, &headers, &reading, now_unix_ms);
    // What is about the content may repeat it, and is for nobody but the client.
    let is_content = matches!(failure, Failure::Rejected | Failure::ContextTooLong);
    let said = reading.sentence.filter(|_| !is_content && reading.topic != ErrorTopic::Content);
    let id = provider_request_id(&headers);
    let named = id.map_or_else(String::new, |(header, id)| format!(", {header} {id}"));
    let detail = match &said {
        Some(said) => format!("HTTP {}{named}: {said}", status.as_u16()),
        None => format!("HTTP {}{named}", status.as_u16()),
    };
    let content_type = headers.get(CONTENT_TYPE).map(|value| Bytes::copy_from_slice(value.as_bytes()));
    let body = held.attached_to(body);
    let provider_error = Some(Box::new(ProviderError { status: status.as_u16(), content_type, body }));
    let provider_request_id = id.map(|(_, id)| id.into());
    AttemptError { failure, provider_error, said, detail: detail.into(), provider_request_id }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Grammar;
    use crate::protocol::chat::answer::ChatQuirks;
    use crate::upstream::testing::feed;
    use http::{HeaderName, HeaderValue, StatusCode};
    use std::io;
    use tokio::sync::mpsc::UnboundedSender;

    /// A reply, and where its body is fed from.
    fn reply(
        code: u16,
        headers: &[(&'static str, &'static str)],
    ) -> (UnboundedSender<io::Result<Bytes>>, UpstreamReply) {
        let (sender, source) = feed();
        let named = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let headers = headers.iter().map(named).collect();
        let status = StatusCode::from_u16(code).expect("the case is a status");
        (sender, UpstreamReply { status, headers, source, grammar: Grammar::Chat(ChatQuirks::default()) })
    }

    async fn read_whole(code: u16, headers: &[(&'static str, &'static str)], body: &str) -> AttemptError {
        let (sender, reply) = reply(code, headers);
        sender.send(Ok(Bytes::copy_from_slice(body.as_bytes()))).expect("the source is alive");
        drop(sender);
        read(reply, &InFlightAllowance::default(), Clock).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_rejection_is_kept_for_the_client() {
        let text = r#"{"error":{"message":"bad","code":"invalid_value"}}"#;
        let error = read_whole(422, &[("content-type", "application/json"), ("x-request-id", "r1")], text).await;
        assert_eq!((error.failure, error.said), (Failure::Rejected, None));
        let kept = error.provider_error.expect("the provider said why");
        assert_eq!((kept.status, &kept.body[..]), (422, text.as_bytes()));
        assert_eq!(kept.content_type, Some(Bytes::from_static(b"application/json")));
        assert_eq!(&*error.detail, "HTTP 422, x-request-id r1");
        assert_eq!(error.provider_request_id.as_deref(), Some("r1"));
        let large = "x".repeat(MAX_REJECTION + 1);
        for body in [&large[..], &large[1..]] {
            let error = read_whole(400, &[], body).await;
            assert_eq!(error.failure, Failure::Rejected);
            assert_eq!(error.provider_error.map(|kept| kept.body.len()), Some(MAX_REJECTION));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_provider_said_is_kept_and_logged() {
        let text = r#"{"error":{"message":"No worker for key: s3cret"}}"#;
        let error = read_whole(503, &[("x-request-id", "r1")], text).await;
        assert_eq!(error.failure, Failure::Status(503));
        assert_eq!(error.said.as_deref(), Some("No worker for key: ***"));
        assert_eq!(&*error.detail, "HTTP 503, x-request-id r1: No worker for key: ***");
        let kept = error.provider_error.expect("a reply");
        assert_eq!((kept.status, &kept.body[..]), (503, text.as_bytes()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_about_the_content_is_not_logged() {
        let text = r#"{"error":{"message":"You wrote something","code":"content_filter"}}"#;
        let check = async |code: u16, failure: Failure| {
            let error = read_whole(code, &[], text).await;
            assert_eq!((error.failure, error.said), (failure, None));
            assert_eq!(*error.detail, format!("HTTP {code}"));
        };
        check(403, Failure::Rejected).await;
        check(500, Failure::Status(500)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_follows_a_failure_does_not_wait_for_its_body() {
        let check = async |code: u16, failure: Failure, wait: Duration| {
            let (sender, reply) = reply(code, &[]);
            sender.send(Ok(Bytes::from_static(b"{"))).expect("the source is alive");
            let start = Clock.now();
            let error =
                tokio::time::timeout(Duration::from_secs(60), read(reply, &InFlightAllowance::default(), Clock)).await;
            let (found, body) = match error {
                Ok(error) => (Some(error.failure), error.provider_error.map(|kept| kept.body)),
                Err(_) => (None, None),
            };
            let expected = (code != 400).then_some((failure, Bytes::new())).unzip();
            assert_eq!((found, body, Clock.now() - start), (expected.0, expected.1, wait), "{code}");
        };
        check(503, Failure::Status(503), FAILED_BODY_WAIT).await;
        check(403, Failure::AccountRefused(403), FAILED_BODY_WAIT).await;
        check(429, Failure::Throttled { after: None }, FAILED_BODY_WAIT).await;
        // The client needs it: only the attempt's own time ends the wait.
        check(400, Failure::Rejected, Duration::from_secs(60)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_too_large_is_cut_and_one_that_breaks_off_is_as_good_as_none() {
        let large = "x".repeat(MAX_FAILED + 1);
        for (body, kept) in [(&large[..], MAX_FAILED), (&large[1..], MAX_FAILED)] {
            let error = read_whole(502, &[], body).await;
            assert_eq!(error.failure, Failure::Status(502));
            assert_eq!(error.provider_error.map(|reply| reply.body.len()), Some(kept));
        }
        let (sender, reply) = reply(404, &[]);
        sender.send(Err(io::ErrorKind::ConnectionReset.into())).expect("the source is alive");
        let error = read(reply, &InFlightAllowance::default(), Clock).await;
        assert_eq!((error.failure, error.provider_error.map(|reply| reply.body.len())), (Failure::NotFound, Some(0)));
    }
}
