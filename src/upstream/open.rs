//! Asks a provider and waits for the head of a reply with success.
//!
//! A host that refuses a stream because we asked for its usage gets it again without that, and is not asked for it a
//! while: we asked, and not the client, so it must not cost a client its answer, nor count as a failure. Nothing here
//! asks a second time for any other reason.
//!
//! Start reading in [`open`].

use super::providers::{UpstreamProvider, UpstreamReply};
use super::{AttemptError, UpstreamRequest, error_reply};
use crate::clock::Clock;

/// Sends `request` to `provider` and waits for the head of its answer, a 2xx. Calls `heard` for each head.
///
/// # Errors
/// [`AttemptError`]: no head came, or one without success.
pub(super) async fn open(
    provider: &UpstreamProvider,
    request: &UpstreamRequest<'_>,
    clock: Clock,
    heard: &mut (dyn FnMut() + Send),
) -> Result<UpstreamReply, AttemptError> {
    let refusals = provider.usage_refusals();
    let asks = request.call.metadata().ask_usage.is_some() && !refusals.holds(request.model, clock.now());
    let mut reply = provider.open(request, asks, clock.now()).await?;
    heard();
    reply.undo_codings()?;
    if reply.status.is_success() {
        return Ok(reply);
    }
    let grammar = reply.grammar;
    let refused = error_reply::read(reply, clock).await;
    let is_for_usage = |status: u16, body: &[u8]| may_be_for_usage(status) && grammar.refuses_usage(body);
    let for_usage = refused.provider_error.as_ref().is_some_and(|error| is_for_usage(error.status, &error.body));
    if !asks || !for_usage {
        return Err(refused);
    }
    let mut reply = provider.open(request, false, clock.now()).await?;
    heard();
    reply.undo_codings()?;
    if !reply.status.is_success() {
        // What the host says of the client's own words.
        return Err(error_reply::read(reply, clock).await);
    }
    tracing::info!(
        provider = &*provider.setup().name,
        model = &**request.model.name(),
        "it refuses to be asked for usage: its streams are not asked for it, and are estimated"
    );
    refusals.remember(request.model, clock.now());
    Ok(reply)
}

/// Whether a status may be about what a request holds. A host's own fault is among them: some fail over a member that
/// they do not know.
fn may_be_for_usage(status: u16) -> bool {
    matches!(status, 400..=599) && !matches!(status, 401 | 402 | 403 | 408 | 429)
}

#[cfg(test)]
mod tests {
    use crate::domain::call::Endpoint;
    use crate::protocol::read_request;
    use crate::upstream::testing::{Act, Scripted, respond, send, timeouts, upstreams};

    const STREAM: &str = r#"{"model":"m","stream":true}"#;

    fn refusal(status: &str) -> Act {
        Act::Write(respond(status, "", r#"{"error":{"message":"Unknown parameter: 'stream_options'"}}"#))
    }

    #[tokio::test]
    async fn no_other_refusal_is_answered_by_a_second_request() {
        let other = Act::Write(respond("400 No", "", r#"{"error":{"message":"too hot"}}"#));
        let own = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#;
        for (body, refused) in [
            (STREAM, other),
            (STREAM, refusal("401 Who")),
            (own, refusal("400 No")),
            (r#"{"model":"m"}"#, refusal("400 No")),
        ] {
            let call = read_request(Endpoint::Chat, body.into()).expect("a chat request");
            let mut provider = Scripted::start(vec![Act::Read, refused, Act::Hold]).await;
            let answer = send(&upstreams(provider.base_url()), &call, timeouts()).await;
            assert!(answer.is_err(), "{body}");
            provider.request().await;
            assert!(provider.requests.try_recv().is_err(), "{body}");
        }
    }
}
