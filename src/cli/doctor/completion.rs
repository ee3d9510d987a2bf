//! One tiny question to a model of a provider, as a gateway would send it: whether an answer comes, how soon, for how much.
//!
//! It is the only thing here that costs money: at most [`CEILING`] tokens of output, at the cheapest configured model.
//!
//! Start reading at [`cheapest`], then [`ask`].

use crate::clock::Clock;
use crate::config::Snapshot;
use crate::domain::call::{Call, Endpoint};
use crate::domain::id::{DeploymentId, ProviderId};
use crate::domain::memory::InFlightAllowance;
use crate::domain::money::NanoUsd;
use crate::domain::random::RandomValue;
use crate::domain::routing::AnswerMode;
use crate::domain::usage::Usage;
use crate::protocol::read_request;
use crate::upstream::{AttemptError, ForwardedFields, Timeouts, UpstreamModel, UpstreamRequest, Upstreams};
use bytes::Bytes;
use http::HeaderMap;
use serde_json::json;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

/// The most tokens that an answer may have.
pub(super) const CEILING: u64 = 16;
/// The endpoints by which a model is asked, the first that it has.
const ENDPOINTS: [Endpoint; 2] = [Endpoint::Chat, Endpoint::Messages];
/// The least time for a first token, and for the whole answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What an answer was like.
pub(super) struct CompletionRecord {
    /// From sending to the first token.
    pub(super) first_token: Duration,
    /// What the provider counted, where it did.
    pub(super) usage: Option<Usage>,
    /// What that costs, where a price is known.
    pub(super) cost: Option<NanoUsd>,
}

/// The deployment at the provider numbered `provider` that costs least, and the endpoint it is asked by. Of those that
/// `lists` says the provider has; one without a price comes last.
pub(super) fn cheapest(
    snapshot: &Snapshot,
    provider: usize,
    now_unix_ms: i64,
    lists: impl Fn(&Arc<str>) -> bool,
) -> Option<(DeploymentId, Endpoint)> {
    let table = &snapshot.table;
    let askable = table.deployment_ids().filter_map(|id| {
        let deployment = table.deployment(id);
        let serves = |endpoint: &Endpoint| {
            deployment.endpoints.contains(*endpoint) && table.model(deployment.model).endpoints.contains(*endpoint)
        };
        let endpoint = ENDPOINTS.into_iter().find(serves)?;
        (deployment.provider.index() == provider && lists(&deployment.upstream_model)).then_some((id, endpoint))
    });
    // A question is short: what is written costs most.
    askable.min_by_key(|(id, _)| {
        let price = table.price(*id, now_unix_ms);
        price.map_or((u128::MAX, 0), |version| (version.price.output.0.into(), version.price.input.0))
    })
}

/// Asks the deployment numbered `id`, at the only provider of `upstreams`, with its credential numbered `credential`.
///
/// # Errors
/// What went wrong.
pub(super) async fn ask(
    upstreams: &Upstreams,
    snapshot: &Snapshot,
    (id, endpoint): (DeploymentId, Endpoint),
    credential: usize,
) -> Result<CompletionRecord, AttemptError> {
    let call = question(snapshot, endpoint);
    let table = &snapshot.table;
    let deployment = table.deployment(id);
    let model = table.model(deployment.model);
    let start = Clock.now();
    let (first_token, whole) = (model.first_token.max(PATIENCE), model.whole.max(PATIENCE));
    let timeouts = Timeouts { first_token, whole, idle: PATIENCE, deadline: start + first_token + PATIENCE };
    let request = UpstreamRequest {
        provider: ProviderId(0),
        credential,
        model: &UpstreamModel::new(&deployment.upstream_model),
        call: &call,
        mode: AnswerMode::of(true, false),
        headers: &HeaderMap::new(),
        fields: ForwardedFields::default(),
        ceiling: Some(CEILING),
        timeouts,
        fault: None,
        draw: RandomValue(0),
        allowance: &InFlightAllowance::default(),
    };
    let mut answer = upstreams.send(request, &()).await?;
    let first_token = Clock.now() - start;
    // One that breaks off was answered, and counts what it counted.
    while let Some(Ok(_)) = poll_fn(|cx| answer.body.poll_frames(cx)).await {}
    let usage = answer.body.tally().counted;
    let price = table.price_of(id, &call, Clock.unix_ms());
    let cost = usage.zip(price).map(|(usage, version)| version.for_input(usage.input).cost(usage));
    Ok(CompletionRecord { first_token, usage, cost })
}

fn question(snapshot: &Snapshot, endpoint: Endpoint) -> Call {
    let mut body = json!({
        "model": "asked",
        "messages": [{ "role": "user", "content": "Reply with OK." }],
        "stream": true,
    });
    if endpoint == Endpoint::Messages {
        // Required there.
        body["max_tokens"] = CEILING.into();
    }
    let read = read_request(endpoint, Bytes::from(body.to_string()), &snapshot.table.listed_members);
    read.unwrap_or_else(|_| unreachable!("a question of ours can be read"))
}
