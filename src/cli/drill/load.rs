//! The load of a drill: for each policy, keys of it and the models that they ask for, at a steady rate.
//!
//! Start reading at [`driven_policies`], then [`drive`].

use super::client::{ClientAnswer, ClientRequest, ask};
use crate::admin::{AdminOperations, NewGrant, NewKey};
use crate::clock::Clock;
use crate::config::Snapshot;
use crate::domain::budget::{CreditUse, Scope};
use crate::domain::call::Endpoint;
use crate::domain::id::TierId;
use crate::domain::money::NanoUsd;
use crate::domain::policy::{Policy, ResolvedName};
use crate::domain::register::{Holder, KeyOverrides};
use crate::domain::routing::table::{RoutingTable, Target};
use crate::domain::secret::Secret;
use crate::relay::Relay;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Requests per second of all policies together.
const RATE: u32 = 80;
/// The longest that requests of one rate limit may come for, in minutes, as far as keys are made for it.
const MINUTES: u64 = 1;
/// At least as many tokens as a rate limit takes for one request.
const TOKENS_TAKEN: u64 = 200;
/// The longest that a request takes where nothing is lost.
const LONGEST: u32 = 4;
/// The most keys of one policy.
const MOST_KEYS: u64 = 1_000;
/// The credit of each key, in billionths of a dollar: more than a drill can spend.
const CREDIT: i64 = 1_000_000_000_000;

/// A policy that requests are made under.
#[derive(Clone)]
pub(super) struct DrivenPolicy {
    pub(super) policy: Arc<Policy>,
    /// What is asked for in turn: tiers, or models where it has none.
    models: Vec<Arc<str>>,
    keys: Vec<Secret>,
    /// Where its requests may go.
    pub(super) regions: BTreeSet<Arc<str>>,
}

/// Makes the keys of every policy that serves chat completions; the others are not driven.
///
/// # Errors
/// There is none, or one allows so few requests that no drill can be made under it.
pub(super) async fn driven_policies(
    snapshot: &Snapshot,
    admin: &AdminOperations,
    relay: &Relay,
) -> anyhow::Result<Vec<DrivenPolicy>> {
    let with_models = |policy: &Arc<Policy>| {
        let models = models_of(policy, &snapshot.table);
        (!models.is_empty()).then(|| (policy.clone(), models))
    };
    let usable: Vec<_> = snapshot.policies.iter().filter_map(with_models).collect();
    if usable.is_empty() {
        anyhow::bail!("no policy may use a model that serves chat completions: there is nothing to drive");
    }
    let rate = rate(usable.len());
    let mut driven = Vec::new();
    for (policy, models) in usable {
        let mut keys = Vec::new();
        for number in 1..=keys_needed(&policy, rate)? {
            keys.push(make_key(snapshot, admin, &policy, number).await?);
        }
        relay.apply_store_changes();
        let names = relay.names(keys.first()).map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
        let regions = names.into_iter().flat_map(|name| name.regions).collect();
        driven.push(DrivenPolicy { policy, models, keys, regions });
    }
    Ok(driven)
}

/// Requests per second of each of `policies`.
pub(super) fn rate(policies: usize) -> u32 {
    (RATE / u32::try_from(policies).unwrap_or(RATE)).max(1)
}

/// The tiers that a key of `policy` may ask for by name, or else the models.
fn models_of(policy: &Policy, table: &RoutingTable) -> Vec<Arc<str>> {
    let names = policy.usable_names(table);
    let chats = |model| table.model(model).endpoints.contains(Endpoint::Chat);
    let tier_chats = |tier: TierId| table.tier(tier).models.iter().all(|(model, _)| chats(*model));
    let tiers =
        names.iter().filter(|(_, is)| matches!(is, ResolvedName::Plain(Target::Tier(tier)) if tier_chats(*tier)));
    let tiers: Vec<_> = tiers.map(|(name, _)| name.clone()).collect();
    if !tiers.is_empty() {
        return tiers;
    }
    let models =
        names.iter().filter(|(_, is)| matches!(is, ResolvedName::Plain(Target::Model(model)) if chats(*model)));
    models.map(|(name, _)| name.clone()).collect()
}

/// So many keys that none of them reaches a limit of its own.
fn keys_needed(policy: &Policy, rate: u32) -> anyhow::Result<u64> {
    let a_minute = u64::from(rate) * 60 * MINUTES;
    let by = |limit: Option<u64>, need: u64| limit.map_or(1, |limit| need.div_ceil(limit.max(1)));
    let limits = &policy.limits;
    let needed = by(limits.requests_per_minute, a_minute)
        .max(by(limits.tokens_per_minute, a_minute * TOKENS_TAKEN))
        .max(by(limits.max_concurrent.map(u64::from), u64::from(rate * LONGEST)));
    if needed > MOST_KEYS {
        anyhow::bail!(
            "policy {} allows so few requests that a drill would need {needed} keys of it: {rate} requests per second are \
             sent under each policy",
            policy.name
        );
    }
    // One more than is needed at an even pace.
    Ok(needed + 1)
}

async fn make_key(
    snapshot: &Snapshot,
    admin: &AdminOperations,
    policy: &Policy,
    number: u64,
) -> anyhow::Result<Secret> {
    let name = format!("drill/{}/{number}", policy.name);
    let new = NewKey {
        name: name.clone(),
        policy: policy.name.to_string(),
        team: None,
        own: KeyOverrides::default(),
        expires: None,
        hash: None,
    };
    let issued = admin.create_key(snapshot, new).await?;
    if policy.money.credit == CreditUse::Only {
        let holder = Holder { scope: Scope::Key, name: name.into() };
        let grant = NewGrant { holder, amount: NanoUsd(CREDIT), reason: String::new(), by: "drill".to_owned() };
        admin.grant(snapshot, grant).await?;
    }
    issued.secret.ok_or_else(|| anyhow::anyhow!("the key has no secret"))
}

/// What was sent and what came of it.
pub(super) struct SentRequest {
    pub(super) policy: Arc<str>,
    pub(super) stream: bool,
    /// From the start of the scenario.
    pub(super) sent: Duration,
    pub(super) answer: ClientAnswer,
}

/// Sends requests under every policy from `start` on until `stop`, and waits for the answers. A request is sent when it is
/// due, whether or not those before it were answered.
pub(super) async fn drive(
    gateway: SocketAddr,
    policies: &[DrivenPolicy],
    start: Instant,
    stop: &AtomicBool,
    clock: Clock,
) -> Vec<SentRequest> {
    let pause = Duration::from_secs(1) / rate(policies.len());
    let mut requests = JoinSet::new();
    for turn in 0_u64.. {
        clock.sleep_until(start + pause * u32::try_from(turn).unwrap_or(u32::MAX)).await;
        if stop.load(Ordering::Relaxed) {
            break;
        }
        for driven in policies {
            let request = driven.request(turn);
            let (policy, stream) = (driven.policy.name.clone(), request.stream);
            requests.spawn(async move {
                let sent = clock.now().saturating_duration_since(start);
                let answer = ask(gateway, &request, clock).await;
                SentRequest { policy, stream, sent, answer }
            });
        }
    }
    requests.join_all().await
}

impl DrivenPolicy {
    /// The request of this turn: each model whole and streamed, each key as often as the others.
    fn request(&self, turn: u64) -> ClientRequest {
        let at = |turn: u64, of: usize| usize::try_from(turn % of.max(1) as u64).unwrap_or(0);
        ClientRequest {
            model: self.models[at(turn / 2, self.models.len())].clone(),
            key: self.keys[at(turn, self.keys.len())].clone(),
            stream: turn.is_multiple_of(2),
            number: turn,
        }
    }
}
