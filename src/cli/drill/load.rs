//! The clients of a drill on the user's own configuration: for each policy, keys of it and the models that they ask for.
//!
//! Start reading at [`driven_policies`]; they send in `drive.rs`.

use super::client::{KeyClient, WORDS};
use super::drive::{DrivenPolicy, LoadSpec};
use crate::admin::{AdminOperations, NewGrant, NewKey};
use crate::cli::gateway_client::{GatewayClient, GatewayUrl};
use crate::config::Snapshot;
use crate::domain::budget::{CreditUse, Scope};
use crate::domain::call::Endpoint;
use crate::domain::drill::judge::PolicyLoad;
use crate::domain::drill::scenario::Scenario;
use crate::domain::id::TierId;
use crate::domain::money::NanoUsd;
use crate::domain::policy::{Policy, ResolvedName};
use crate::domain::register::{Holder, KeyOverrides};
use crate::domain::routing::table::{RESERVED_PREFIX, RoutingTable, Target};
use crate::domain::secret::Secret;
use crate::relay::Relay;
use std::sync::Arc;

/// Requests per second of all policies together.
const RATE: u32 = 80;
/// The same before a burst, which is ten times as many: what one machine can send, serve and answer at once.
const RATE_BEFORE_BURST: u32 = 40;
/// At least as many tokens as a rate limit takes for one request.
const TOKENS_TAKEN: u64 = 200;
/// The longest that a request takes where nothing is lost, in seconds.
const LONGEST: u32 = 4;
/// The most tries of one request.
const TRIES: u64 = 3;
/// Of chat completions.
const PATH: &str = "/v1/chat/completions";
/// The most keys of one policy.
const MOST_KEYS: u64 = 1_000;
/// The credit of each key, in billionths of a dollar: more than a drill can spend.
const CREDIT: i64 = 1_000_000_000_000;

/// What is asked for under one policy.
pub(super) struct PolicyModels {
    policy: Arc<Policy>,
    /// Whether these are `Pro/` names.
    reserved: bool,
    models: Vec<Arc<str>>,
}

/// What can be asked for under each policy, `Pro/` names apart; policies without anything are not driven.
///
/// # Errors
/// There is none.
pub(super) fn usable_models(snapshot: &Snapshot) -> anyhow::Result<Vec<PolicyModels>> {
    let of_policy = |policy: &Arc<Policy>| {
        let of = |reserved| {
            let models =
                if reserved { reserved_of(policy, &snapshot.table) } else { models_of(policy, &snapshot.table) };
            PolicyModels { policy: policy.clone(), reserved, models }
        };
        [of(false), of(true)]
    };
    let all = snapshot.policies.iter().flat_map(of_policy);
    let usable: Vec<_> = all.filter(|usable| !usable.models.is_empty()).collect();
    if usable.is_empty() {
        anyhow::bail!("no policy may use a model that serves chat completions: there is nothing to drive");
    }
    Ok(usable)
}

/// Makes the keys of every policy of `usable`, for a gateway that will serve at `url`.
///
/// # Errors
/// A policy allows so few requests that no drill can be made under it.
pub(super) async fn driven_policies(
    usable: Vec<PolicyModels>,
    spec: LoadSpec,
    url: &GatewayUrl,
    snapshot: &Snapshot,
    (admin, relay): (&AdminOperations, &Relay),
) -> anyhow::Result<Vec<DrivenPolicy>> {
    let mut driven = Vec::new();
    for PolicyModels { policy, reserved, models } in usable {
        let name: Arc<str> = if reserved { format!("{} (Pro/)", policy.name).into() } else { policy.name.clone() };
        let spec = if reserved { LoadSpec { factor: 1, ..spec } } else { spec };
        let kind = if reserved { "reserved" } else { "plain" };
        let mut keys = Vec::new();
        for number in 1..=keys_needed(&policy, spec)? {
            keys.push(make_key(snapshot, admin, &policy, format!("drill/{}/{kind}/{number}", policy.name)).await?);
        }
        relay.apply_store_changes();
        let names = relay.names(keys.first()).map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
        let names = names.into_iter().filter(|listed| listed.name.starts_with(RESERVED_PREFIX) == reserved);
        let regions = names.flat_map(|name| name.regions).collect();
        let gateway = |key| GatewayClient::new(url.clone(), key, None);
        let client = |key| KeyClient { gateway: gateway(key), path: PATH, words: Some(WORDS) };
        let clients = keys.into_iter().map(|key| Arc::new(client(key))).collect();
        let load = PolicyLoad { policy: name, priority: policy.priority, reserved };
        driven.push(DrivenPolicy { load, models, clients, regions });
    }
    Ok(driven)
}

/// Requests per second of each of `policies`, while `scenario` has not begun.
pub(super) fn rate(scenario: Scenario, policies: usize) -> u32 {
    let all = if scenario.load_factor() > 1 { RATE_BEFORE_BURST } else { RATE };
    (all / u32::try_from(policies).unwrap_or(all)).max(1)
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

/// The `Pro/` names that a key of `policy` may ask for.
fn reserved_of(policy: &Policy, table: &RoutingTable) -> Vec<Arc<str>> {
    let chats = |model| table.model(model).endpoints.contains(Endpoint::Chat);
    let names = policy.usable_names(table).into_iter();
    let reserved = names.filter(|(_, is)| matches!(is, ResolvedName::Reserved(model) if chats(*model)));
    reserved.map(|(name, _)| name).collect()
}

/// So many keys that none of them reaches a limit of its own.
fn keys_needed(policy: &Policy, load: LoadSpec) -> anyhow::Result<u64> {
    let (rate, more) = (u64::from(load.rate), u64::from(load.factor - 1));
    let burst = (load.times.broken_until - load.times.broken_from).as_secs();
    let a_minute = rate * (60 + more * burst * if load.retries { TRIES } else { 1 });
    let by = |limit: Option<u64>, need: u64| limit.map_or(1, |limit| need.div_ceil(limit.max(1)));
    let limits = &policy.limits;
    let needed = by(limits.requests_per_minute, a_minute)
        .max(by(limits.tokens_per_minute, a_minute * TOKENS_TAKEN))
        .max(by(limits.max_concurrent.map(u64::from), u64::from(load.rate * load.factor * LONGEST)));
    if needed > MOST_KEYS {
        anyhow::bail!(
            "policy {} allows so few requests that a drill would need {needed} keys of it: {} requests per second are \
             sent under each policy",
            policy.name,
            load.rate * load.factor
        );
    }
    // One more than is needed at an even pace.
    Ok(needed + 1)
}

async fn make_key(
    snapshot: &Snapshot,
    admin: &AdminOperations,
    policy: &Policy,
    name: String,
) -> anyhow::Result<Secret> {
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
