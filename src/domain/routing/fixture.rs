//! Routing tables, policies and calls in a short notation, for this module's unit tests.
//!
//! It exists so that a test shows only what it is about; it must never be used outside tests. A deployment is written
//! `PROVIDER[@REGION][!][+][~]`: `!` is dedicated, `+` spills, `~` lends. A tier's model is written `NAME[:WEIGHT]`.

use crate::domain::authorize::{AuthorizedRequest, authorize};
use crate::domain::body_member::ListedMembers;
use crate::domain::breaker::BreakerSettings;
use crate::domain::call::{Call, Endpoint, EndpointSet, FeatureSet, RequestMetadata};
use crate::domain::glob::Glob;
use crate::domain::id::{DeploymentId, ModelId, ProviderId, RegionId, TierId};
use crate::domain::limit::Limits;
use crate::domain::policy::{KeyRecord, Policy, Residency};
use crate::domain::routing::table::{
    Alias, BalanceStrategy, Capacity, Deployment, Model, RoutingSettings, RoutingTable, Sticky, Target, Tier,
};
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// The breaker settings of the documentation.
pub(crate) const BREAKER: BreakerSettings = BreakerSettings {
    failures: 5,
    ratio_bp: 5_000,
    window: Duration::from_secs(30),
    min_requests: 20,
    open: Duration::from_secs(1),
    open_max: Duration::from_secs(20),
};

/// A table of `(model, deployments)` and `(tier, models, then)`, with the documented default settings except for
/// the balance: deployments are chosen in file order, so that a test gets them as written.
pub(crate) fn table(models: &[(&str, &[&str])], tiers: &[(&str, &[&str], &[&str])]) -> RoutingTable {
    let mut table = RoutingTable {
        models: Vec::new(),
        deployments: Vec::new(),
        tiers: Vec::new(),
        aliases: Vec::new(),
        regions: Vec::new(),
        names: HashMap::new(),
        listed_members: ListedMembers::default(),
        settings: settings(),
    };
    models.iter().for_each(|(name, deployments)| add_model(&mut table, name, deployments));
    for (index, (name, ..)) in tiers.iter().enumerate() {
        table.names.insert((*name).into(), Target::Tier(TierId(index as u32)));
    }
    for (name, models, then) in tiers {
        let weights: Vec<(&str, Option<u32>)> = models.iter().map(|written| weighted(written)).collect();
        let tier = Tier {
            name: (*name).into(),
            models: weights.iter().map(|(model, weight)| (model_id(&table, model), weight.unwrap_or(1))).collect(),
            drawn: weights.iter().any(|(_, weight)| weight.is_some()),
            then: then.iter().map(|name| tier_id(&table, name)).collect(),
        };
        table.tiers.push(tier);
    }
    table
}

/// `table` with an alias over tiers or models.
pub(crate) fn with_alias(mut table: RoutingTable, name: &str, split: &[(&str, u32)], sticky: Sticky) -> RoutingTable {
    let split = split.iter().map(|(part, share)| (table.names[*part], *share)).collect();
    table.names.insert(name.into(), Target::Alias(table.aliases.len()));
    table.aliases.push(Alias { name: name.into(), split, sticky });
    table
}

/// A policy that allows `tiers` (`*`: all) everywhere, and no `Pro/` names.
pub(crate) fn policy(table: &RoutingTable, tiers: &[&str]) -> Policy {
    Policy {
        tiers: table.tiers.iter().map(|tier| tiers.contains(&"*") || tiers.contains(&&*tier.name)).collect(),
        ..Policy::deny_all("policy".into())
    }
}

/// Residency in `regions` only.
pub(crate) fn residency(table: &RoutingTable, regions: &[&str]) -> Option<Residency> {
    Some(Residency::new(regions.iter().map(|region| Glob::new(region)).collect(), &table.regions))
}

/// A key under `policy`.
pub(crate) fn key(policy: Policy) -> Arc<KeyRecord> {
    Arc::new(KeyRecord {
        name: "key".into(),
        team: None,
        policy: Arc::new(policy),
        limits: Limits::default(),
        budgets: Arc::default(),
        expires: None,
    })
}

/// The metadata of a call for `model`, to be changed where a test is about it.
pub(crate) fn metadata(model: &str) -> RequestMetadata {
    RequestMetadata { model: model.into(), stream: true, ..RequestMetadata::without_model() }
}

/// A chat call for `model`.
pub(crate) fn chat(model: &str) -> Call {
    Call::new(Endpoint::Chat, Bytes::new(), metadata(model))
}

/// The proof that a key under `policy` may make `call`.
pub(crate) fn authorized(table: &RoutingTable, policy: Policy, call: &Call) -> AuthorizedRequest {
    authorize(table, &key(policy), call).expect("the test's policy allows the test's call")
}

/// The number of the model called `name`.
pub(crate) fn model_id(table: &RoutingTable, name: &str) -> ModelId {
    match table.names[name] {
        Target::Model(id) => id,
        other => panic!("{name} is {other:?}"),
    }
}

fn tier_id(table: &RoutingTable, name: &str) -> TierId {
    match table.names[name] {
        Target::Tier(id) => id,
        other => panic!("{name} is {other:?}"),
    }
}

fn settings() -> RoutingSettings {
    RoutingSettings {
        balance: BalanceStrategy::Ordered,
        home: None,
        max_attempts: 3,
        retry_budget_bp: 2_000,
        connect_timeout: Duration::from_millis(750),
        idle: Duration::from_secs(20),
        total: Duration::from_secs(600),
        retry_after_wait_max: Duration::ZERO,
        same_region_retry_on_500: false,
        silent_after: Duration::from_secs(1),
        queue_wait: Duration::from_secs(1),
        max_in_flight: None,
        beyond_hold_pause: Duration::from_secs(3600),
        hold_streams: false,
        splice_streams: false,
        breaker: BREAKER,
    }
}

fn add_model(table: &mut RoutingTable, name: &str, deployments: &[&str]) {
    let id = ModelId(table.models.len() as u32);
    let first = table.deployments.len() as u32;
    for written in deployments {
        let deployment = deployment(table, id, name, written);
        table.deployments.push(deployment);
    }
    let of = |capacity: Capacity| {
        let ids = (first..table.deployments.len() as u32).map(DeploymentId);
        ids.filter(|id| table.deployment(*id).capacity == capacity).collect()
    };
    let model = Model {
        name: name.into(),
        price: None,
        context: None,
        max_output: None,
        image_tokens: None,
        typical_output: 1_024,
        endpoints: EndpointSet::of([Endpoint::Chat]),
        features: FeatureSet::all(),
        shared: of(Capacity::Shared),
        dedicated: of(Capacity::Dedicated),
        first_token: Duration::from_secs(10),
        whole: Duration::from_secs(120),
    };
    table.models.push(model);
    table.names.insert(name.into(), Target::Model(id));
}

fn deployment(table: &mut RoutingTable, model: ModelId, name: &str, written: &str) -> Deployment {
    let place = written.trim_end_matches(['!', '+', '~']);
    let (provider, region) = place.split_once('@').unwrap_or((place, place));
    let dedicated = written.contains('!');
    let known = table.regions.iter().position(|name| **name == *region);
    let region = RegionId(known.unwrap_or_else(|| {
        table.regions.push(region.into());
        table.regions.len() - 1
    }) as u32);
    Deployment {
        name: if dedicated { format!("{provider}/Pro/{name}") } else { format!("{provider}/{name}") }.into(),
        model,
        provider: ProviderId(0),
        upstream_model: name.into(),
        endpoints: EndpointSet::of(Endpoint::ALL),
        region,
        capacity: if dedicated { Capacity::Dedicated } else { Capacity::Shared },
        weight: 1,
        max_concurrent: None,
        max_output: None,
        price: None,
        member_prices: Vec::new(),
        body_rules: Arc::default(),
        spill: written.contains('+'),
        lend: written.contains('~'),
    }
}

fn weighted(written: &str) -> (&str, Option<u32>) {
    let (name, weight) = written.split_once(':').map_or((written, None), |(name, weight)| (name, Some(weight)));
    (name, weight.map(|weight| weight.parse().expect("a weight is a number")))
}
