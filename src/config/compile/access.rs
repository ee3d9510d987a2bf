//! Policies, and the keys that have them.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::raw::{self, Raw};
use super::super::reader::{Desk, Written};
use super::super::{ExtraKey, KeyHash};
use super::complain_unknown;
use crate::domain::authorize::{KeyRecord, Limits, Policy};
use crate::domain::budget::{Budget, Scope, Window};
use crate::domain::glob::Glob;
use crate::domain::id::{KeyId, ModelId};
use crate::domain::routing::table::RoutingTable;

/// In a policy's `tiers`: all of them.
const ALL: &str = "*";
/// The policy of keys that no file speaks of: everything, without limits.
const EXTRA_POLICY: &str = "demo";

/// Every policy, in file order.
pub(super) fn policies(desk: &Desk<'_>, raw: &Raw, table: &RoutingTable) -> Vec<Arc<Policy>> {
    let policy = |policy: &raw::Policy| {
        Arc::new(Policy {
            name: policy.name.value.as_str().into(),
            tiers: tiers(desk, table, policy),
            models: models(desk, table, policy),
            reserved: policy.reserved.value,
            residency: policy.regions.as_ref().map(|globs| residency(desk, table, globs)),
            limits: limits(&policy.limits),
            clamp: policy.clamp.value,
        })
    };
    raw.policies.iter().map(policy).collect()
}

fn tiers(desk: &Desk<'_>, table: &RoutingTable, policy: &raw::Policy) -> Vec<bool> {
    let mut allowed = vec![false; table.tiers.len()];
    for name in &policy.tiers {
        if name.value.0 == ALL {
            allowed.fill(true);
            continue;
        }
        match table.tiers.iter().position(|tier| *tier.name == *name.value.0) {
            Some(at) => allowed[at] = true,
            None => {
                let names = table.tiers.iter().map(|tier| &*tier.name);
                complain_unknown(desk, name, &name.value.0, "tier", names);
            }
        }
    }
    allowed
}

fn models(desk: &Desk<'_>, table: &RoutingTable, policy: &raw::Policy) -> Vec<Glob> {
    for glob in &policy.models {
        if !table.models.iter().any(|model| glob.value.matches(&model.name)) {
            let names = table.models.iter().map(|model| &*model.name);
            complain_no_match(desk, glob, "model", names);
        }
    }
    policy.models.iter().map(|glob| glob.value.clone()).collect()
}

fn residency(desk: &Desk<'_>, table: &RoutingTable, globs: &[Written<Glob>]) -> Vec<bool> {
    for glob in globs {
        if !table.regions.iter().any(|region| glob.value.matches(region)) {
            complain_no_match(desk, glob, "region", table.regions.iter().map(|name| &**name));
        }
    }
    let fits = |region: &Arc<str>| globs.iter().any(|glob| glob.value.matches(region));
    table.regions.iter().map(fits).collect()
}

fn complain_no_match<'n>(desk: &Desk<'_>, glob: &Written<Glob>, kind: &str, known: impl Iterator<Item = &'n str>) {
    let known: Vec<&str> = known.collect();
    let hint = format!("the {kind}s are: {}", known.join(", "));
    desk.complain_of(glob, format!("no {kind} fits this pattern"), hint);
}

/// Every key by the hash of its secret.
pub(super) fn keys(
    desk: &Desk<'_>,
    raw: &Raw,
    table: &RoutingTable,
    policies: &[Arc<Policy>],
    extra_keys: &[ExtraKey],
) -> HashMap<KeyHash, Arc<KeyRecord>> {
    complain_about_names_alike(desk, &raw.keys);
    let mut keys: HashMap<KeyHash, Arc<KeyRecord>> = HashMap::new();
    for key in &raw.keys {
        let Some((hash, record)) = key_record(desk, raw, key, policies) else {
            continue;
        };
        if let Some(first) = keys.get(&hash) {
            let message = "two keys with one secret".to_owned();
            let hint = format!("the other is `{}`: every key needs a secret of its own", first.name);
            if let Some(written) = &key.hash {
                desk.complain_of(written, message, hint);
            }
            continue;
        }
        keys.insert(hash, Arc::new(record));
    }
    let policy = Arc::new(everything(table));
    for extra in extra_keys {
        let record = KeyRecord {
            id: KeyId::of_name(&extra.name),
            name: extra.name.as_str().into(),
            team: None,
            policy: policy.clone(),
            limits: policy.limits,
            budgets: Arc::default(),
            expires: None,
        };
        keys.entry(extra.hash).or_insert_with(|| Arc::new(record));
    }
    keys
}

fn complain_about_names_alike(desk: &Desk<'_>, keys: &[raw::Key]) {
    let mut seen: HashMap<&str, &str> = HashMap::new();
    for name in keys.iter().filter_map(|key| key.name.as_ref()) {
        match seen.get(name.value.0.as_str()) {
            Some(first) => {
                let message = "two keys with one name".to_owned();
                desk.complain_of(name, message, format!("the other is {first}: rename one"));
            }
            None => {
                seen.insert(&name.value.0, &name.path);
            }
        }
    }
}

fn key_record(desk: &Desk<'_>, raw: &Raw, key: &raw::Key, policies: &[Arc<Policy>]) -> Option<(KeyHash, KeyRecord)> {
    let named = key.policy.as_ref()?;
    let Some(policy) = policies.iter().find(|policy| *policy.name == *named.value.0) else {
        let names = policies.iter().map(|policy| &*policy.name);
        complain_unknown(desk, named, &named.value.0, "policy", names);
        return None;
    };
    let name = &key.name.as_ref()?.value.0;
    let record = KeyRecord {
        id: KeyId::of_name(name),
        name: name.as_str().into(),
        team: key.team.as_ref().map(|team| team.value.0.as_str().into()),
        policy: policy.clone(),
        limits: tightened(desk, policy.limits, &key.limits),
        budgets: budgets(desk, raw, key, name, policy),
        expires: key.expires.as_ref().map(|expiry| expiry.value.ends_unix),
    };
    Some((KeyHash(key.hash.as_ref()?.value.0), record))
}

fn limits(raw: &raw::Limits) -> Limits {
    Limits {
        requests_per_minute: raw.requests_per_minute.as_ref().map(|limit| limit.value.get()),
        tokens_per_minute: raw.tokens_per_minute.as_ref().map(|limit| limit.value.get()),
        max_concurrent: raw.max_concurrent.as_ref().map(|limit| limit.value.get()),
    }
}

/// The policy's ceilings, each replaced by the key's own, which may only be lower.
fn tightened(desk: &Desk<'_>, policy: Limits, key: &raw::Limits) -> Limits {
    let own = limits(key);
    Limits {
        requests_per_minute: lower(desk, policy.requests_per_minute, own.requests_per_minute, &key.requests_per_minute),
        tokens_per_minute: lower(desk, policy.tokens_per_minute, own.tokens_per_minute, &key.tokens_per_minute),
        max_concurrent: lower(desk, policy.max_concurrent, own.max_concurrent, &key.max_concurrent),
    }
}

fn lower<N: Copy + Ord + std::fmt::Display>(
    desk: &Desk<'_>,
    policy: Option<N>,
    own: Option<N>,
    written: &Option<Written<impl Sized>>,
) -> Option<N> {
    if let (Some(ceiling), Some(own), Some(written)) = (policy, own, written)
        && own > ceiling
    {
        let message = format!("is above the policy's {ceiling}: a key may only tighten it");
        desk.complain_of(written, message, "lower it, or give the key another policy".to_owned());
    }
    own.or(policy)
}

fn everything(table: &RoutingTable) -> Policy {
    Policy {
        name: EXTRA_POLICY.into(),
        tiers: vec![true; table.tiers.len()],
        models: vec![Glob::new(ALL)],
        reserved: true,
        residency: None,
        limits: Limits::default(),
        clamp: false,
    }
}

/// Complains about models without `context`, `max_output` and a price where a budget applies: without
/// them nobody knows what a request may cost at most.
pub(super) fn require_ceilings(desk: &Desk<'_>, raw: &Raw, table: &RoutingTable, policies: &[Arc<Policy>]) {
    let budgeted = || raw.policies.iter().zip(policies).filter(|(written, _)| is_budgeted(raw, written));
    for (index, model) in raw.models.iter().enumerate() {
        let id = super::number(index, ModelId);
        let reached = || budgeted().filter(|(_, policy)| policy.allows_model(table, id));
        let complain = |policy: &Policy, hint: &str| {
            let message = format!("a budget of policy `{}` applies to this model", policy.name);
            desk.complain_of(&model.name, message, hint.to_owned());
        };
        if model.context.is_none() || model.max_output.is_none() {
            if let Some((_, policy)) = reached().next() {
                complain(policy, "give it `context` and `max_output`: they bound what a request may cost");
            }
        } else if model.price.is_none() && model.deployments.iter().any(|deployment| deployment.price.is_none()) {
            let denied = |(written, _): &(&raw::Policy, _)| written.unknown_price.value == raw::UnknownPrice::Deny;
            if let Some((_, policy)) = reached().find(denied) {
                complain(policy, "give it a `price`, or the policy `unknown_price = \"allow\"`: it then costs nothing");
            }
        }
    }
}

/// Whether the policy, one of its keys, or the team of one of its keys has a budget.
fn is_budgeted(raw: &Raw, policy: &raw::Policy) -> bool {
    let team_has = |name: &str| raw.teams.iter().any(|team| team.name.value == name && team.budget.is_some());
    let key_has = |key: &raw::Key| {
        let team = key.team.as_ref().is_some_and(|team| team_has(&team.value.0));
        team || key.limits.budget.is_some()
    };
    let of_policy = |key: &&raw::Key| key.policy.as_ref().is_some_and(|named| named.value.0 == policy.name.value);
    policy.limits.budget.is_some() || policy.total.is_some() || raw.keys.iter().filter(of_policy).any(key_has)
}

/// Every budget that a key's requests are paid from: its own, its policy's for each key, its team's, and
/// the one that its policy's keys share.
fn budgets(desk: &Desk<'_>, raw: &Raw, key: &raw::Key, name: &str, policy: &Policy) -> Arc<[Budget]> {
    let written = raw.policies.iter().find(|written| *written.name.value == *policy.name);
    let each = written.and_then(|policy| budget(Scope::Key, name, policy.limits.budget.as_ref()?));
    let own = key.limits.budget.as_ref().and_then(|written| budget(Scope::Key, name, written));
    // In one window there is one account, and a key may only tighten it.
    let tightens = each.as_ref().zip(own.as_ref()).is_some_and(|(each, own)| each.account == own.account);
    if tightens {
        let [ceiling, tighter] = [&each, &own].map(|one| one.as_ref().map(|budget| budget.limit));
        lower(desk, ceiling, tighter, key.limits.budget.as_ref().map_or(&None, |budget| &budget.limit));
    }
    let team = key.team.as_ref().and_then(|named| raw.teams.iter().find(|team| team.name.value == named.value.0));
    let team = team.and_then(|team| budget(Scope::Team, &team.name.value, team.budget.as_ref()?));
    let total = written.and_then(|policy| budget(Scope::Policy, &policy.name.value, policy.total.as_ref()?));
    own.into_iter().chain(each.filter(|_| !tightens)).chain(team).chain(total).collect()
}

/// `None` only where the limit is missing and was complained about.
fn budget(scope: Scope, name: &str, written: &raw::Budget) -> Option<Budget> {
    let zone = written.zone.value.clone();
    let window = match written.window.value {
        raw::Window::Day => Window::Day(zone),
        raw::Window::Month => Window::Month(zone),
        raw::Window::None => Window::Ever,
    };
    Some(Budget::new(scope, name.into(), written.limit.as_ref()?.value, window))
}
