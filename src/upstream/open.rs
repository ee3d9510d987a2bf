//! Asks a provider and waits for the head of a reply with success.
//!
//! A host that refuses a request for a member that we wrote and its client did not gets it again without that, once, and
//! is remembered for a while: a stream that we asked for its usage, or the ceiling of the output by a name that it does not
//! know. It must not cost a client its answer, nor count as a failure. Nothing here asks a second time for any other reason.
//!
//! Start reading in [`open`].

use super::providers::{OwnMembers, UpstreamProvider, UpstreamReply};
// circle: injected.rs: a fault takes the place of what is asked, and some ask in spite of it.
use super::{AttemptError, UpstreamRequest, error_reply, injected};
use crate::clock::Clock;
use crate::domain::call::Endpoint;
use crate::protocol::Grammar;

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
    match request.fault {
        None => ask(provider, request, clock, heard).await,
        // Boxed: it is rare, and would make every attempt larger.
        Some(fault) => Box::pin(injected::open(fault, provider, request, clock, heard)).await,
    }
}

/// The same without a fault.
pub(super) async fn ask(
    provider: &UpstreamProvider,
    request: &UpstreamRequest<'_>,
    clock: Clock,
    heard: &mut (dyn FnMut() + Send),
) -> Result<UpstreamReply, AttemptError> {
    let now = clock.now();
    let asks = request.call.metadata().ask_usage.is_some();
    let first = OwnMembers {
        ask_usage: asks && !provider.usage_refusals().holds(request.model, now),
        other_ceiling_name: request.ceiling.is_some() && provider.ceiling_refusals().holds(request.model, now),
    };
    let mut reply = provider.open(request, first, now).await?;
    heard();
    reply.undo_codings()?;
    if reply.status.is_success() {
        return Ok(reply);
    }
    let grammar = reply.grammar;
    let refused = error_reply::read(reply, request.allowance, clock).await;
    let Some(second) = without_what_is_refused(request, first, grammar, &refused) else { return Err(refused) };
    let mut reply = provider.open(request, second, clock.now()).await?;
    heard();
    reply.undo_codings()?;
    if !reply.status.is_success() {
        // What the host says of the client's own words.
        return Err(error_reply::read(reply, request.allowance, clock).await);
    }
    let (provider_name, model) = (&*provider.setup().name, &**request.model.name());
    if second.ask_usage == first.ask_usage {
        tracing::warn!(
            provider = provider_name,
            model,
            "it does not know the ceiling of the output by this name, and gets it by the other: see max_tokens_name"
        );
        provider.ceiling_refusals().remember(request.model, clock.now());
    } else {
        tracing::info!(
            provider = provider_name,
            model,
            "it refuses to be asked for usage: its streams are not asked for it, and are estimated"
        );
        provider.usage_refusals().remember(request.model, clock.now());
    }
    Ok(reply)
}

/// What to write instead of `own`, where the host refused a member of it that the client did not write.
fn without_what_is_refused(
    request: &UpstreamRequest<'_>,
    own: OwnMembers,
    grammar: Grammar,
    refused: &AttemptError,
) -> Option<OwnMembers> {
    let reply = refused.provider_error.as_ref().filter(|reply| may_be_for_our_words(reply.status))?;
    if own.ask_usage && request.call.metadata().ask_usage.is_some() && grammar.refuses_usage(&reply.body) {
        return Some(OwnMembers { ask_usage: false, ..own });
    }
    request.ceiling?;
    // Once it was the other name, both are refused: the host has the last word.
    let name = grammar.ceiling_name(request.call);
    let is_ours = request.call.metadata().cost_facts.ceilings[name.slot()].is_none();
    let is_refused = !own.other_ceiling_name && is_ours && grammar.refuses_ceiling(&reply.body, name);
    (is_refused && request.call.endpoint() == Endpoint::Chat).then_some(OwnMembers { other_ceiling_name: true, ..own })
}

/// Whether a status may be about what a request holds. A host's own fault is among them: some fail over a member that
/// they do not know.
fn may_be_for_our_words(status: u16) -> bool {
    matches!(status, 400..=599) && !matches!(status, 401 | 402 | 403 | 408 | 429)
}

#[cfg(test)]
mod tests {
    use crate::domain::body_member::ListedMembers;
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
            let call = read_request(Endpoint::Chat, body.into(), &ListedMembers::default()).expect("a chat request");
            let mut provider = Scripted::start(vec![Act::Read, refused, Act::Hold]).await;
            let answer = send(&upstreams(provider.base_url()), &call, timeouts()).await;
            assert!(answer.is_err(), "{body}");
            provider.request().await;
            assert!(provider.requests.try_recv().is_err(), "{body}");
        }
    }
}
