//! Policies, and the keys that have them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::super::reader::{Diagnostics, Setting};
use super::super::sections::{
    BudgetPeriodKeyword, BudgetSection, ConfigFile, HedgeSection, KeySection, LimitsSection, PolicySection,
    SlaCreditSection, SlaFirstTokenSection, SlaSection, UnpricedModels,
};
use super::super::settings::{StoreLocation, StoreSettings};
use super::super::{ExtraKey, KeyHash};
use super::report_unknown;
use crate::domain::budget::{BudgetPeriod, BudgetSpec};
use crate::domain::glob::Glob;
use crate::domain::id::{DeploymentId, ModelId};
use crate::domain::limit::Limits;
use crate::domain::policy::{HedgeRule, KeyRecord, Policy, PolicyMoney, Residency};
use crate::domain::register::KeyOverrides;
use crate::domain::routing::table::RoutingTable;
use crate::domain::sla::{SlaCreditStep, SlaFirstToken, SlaTerms};

/// The share of first tokens that an objective is for where it is not said: the usual percentile.
const USUAL_SHARE_BP: u32 = 9_500;
/// How long receipts must be kept where a policy has an SLA: a month, the two days until it closes, and a week in which the
/// gateway may be down.
const SLA_KEEPS_RECEIPTS: Duration = Duration::from_secs(40 * 86_400);
/// In a policy's `tiers`: all of them.
const ALL: &str = "*";
/// The policy of keys that are in no file: everything, without limits.
const EXTRA_POLICY: &str = "demo";

/// Every policy, in file order.
pub(super) fn policies(diagnostics: &Diagnostics<'_>, file: &ConfigFile, table: &RoutingTable) -> Vec<Arc<Policy>> {
    let policy = |policy: &PolicySection| {
        Arc::new(Policy {
            name: policy.name.value.as_str().into(),
            tiers: tiers(diagnostics, table, policy),
            models: models(diagnostics, table, policy),
            reserved: policy.reserved.value,
            residency: policy.regions.as_ref().map(|globs| residency(diagnostics, table, globs)),
            limits: limits(&policy.limits),
            priority: policy.priority.value.get(),
            clamp: policy.clamp.value,
            money: PolicyMoney {
                each: policy.limits.budget.as_ref().and_then(budget_spec),
                total: policy.shared_budget().and_then(budget_spec),
                credit: policy.credit.value,
                unpriced: policy.unknown_price.value == UnpricedModels::Allow,
            },
            hedge: policy.hedge.as_ref().and_then(hedge),
            sla: policy.sla.as_ref().and_then(sla_terms).map(Arc::new),
        })
    };
    file.policies.iter().map(policy).collect()
}

fn hedge(written: &HedgeSection) -> Option<HedgeRule> {
    Some(HedgeRule {
        after: written.after.as_ref()?.value,
        at_least: written.at_least.value.0,
        extra_bp: written.extra.value.basis_points,
    })
}

/// `None` only where something is missing that was reported.
fn sla_terms(written: &SlaSection) -> Option<SlaTerms> {
    let first_token = |written: &SlaFirstTokenSection| {
        let share_bp = written.p.as_ref().map_or(USUAL_SHARE_BP, |share| share.value.basis_points);
        Some(SlaFirstToken { share_bp, within: written.within.as_ref()?.value.0 })
    };
    let step = |written: &SlaCreditSection| {
        let (below, credit) = (written.below.as_ref()?.value, written.credit.as_ref()?.value);
        Some(SlaCreditStep { below_bp: below.basis_points, credit_bp: credit.basis_points })
    };
    Some(SlaTerms {
        uptime_bp: written.uptime.as_ref()?.value.basis_points,
        first_token: written.first_token.as_ref().and_then(first_token),
        credits: written.credits.iter().filter_map(step).collect(),
        measure: written.measure.value,
        min_requests: written.min_requests.value.get(),
        zone: written.zone.value.clone(),
    })
}

/// How often SLAs are probed; where there is none, that is reported.
pub(super) fn sla_probe(diagnostics: &Diagnostics<'_>, file: &ConfigFile, store: &StoreSettings) -> Option<Duration> {
    let probe = file.sla.probe.as_ref()?;
    if !keeps_receipts(store) {
        diagnostics.unenforced(&probe.path, "receipts are kept in memory only, so that probes would count for nothing");
        return None;
    }
    if file.policies.iter().all(|policy| policy.sla.is_none()) {
        let hint = "give a policy an `sla`, or remove the setting".to_owned();
        diagnostics.report_at(probe, "probes nothing: no policy has an `sla`".to_owned(), hint);
    }
    Some(probe.value.0)
}

fn keeps_receipts(store: &StoreSettings) -> bool {
    matches!(store.location, StoreLocation::Sqlite(_) | StoreLocation::Postgres(_))
}

/// Reports an SLA that cannot be kept account of: its receipts are not stored, or deleted before their month is closed.
pub(super) fn require_receipts(diagnostics: &Diagnostics<'_>, file: &ConfigFile, store: &StoreSettings) {
    for policy in file.policies.iter().filter(|policy| policy.sla.is_some()) {
        let Some(uptime) = policy.sla.as_ref().and_then(|sla| sla.uptime.as_ref()) else { continue };
        if !keeps_receipts(store) {
            let setting = uptime.path.trim_end_matches(".uptime");
            diagnostics.unenforced(setting, "receipts are kept in memory only, so that no month could be closed");
        } else if let Some(retention) = store.retention.filter(|keep| *keep < SLA_KEEPS_RECEIPTS) {
            let days = retention.as_secs() / 86_400;
            let message = format!("receipts are kept for {days} days, and a month closes two days after its end");
            diagnostics.report_at(uptime, message, "set `[store] retention` to 40d or more".to_owned());
        }
    }
}

fn tiers(diagnostics: &Diagnostics<'_>, table: &RoutingTable, policy: &PolicySection) -> Vec<bool> {
    let mut allowed = vec![false; table.tiers.len()];
    for name in policy.tiers.iter().flatten() {
        if name.value.0 == ALL {
            allowed.fill(true);
            continue;
        }
        match table.tiers.iter().position(|tier| *tier.name == *name.value.0) {
            Some(at) => allowed[at] = true,
            None => {
                let names = table.tiers.iter().map(|tier| &*tier.name);
                report_unknown(diagnostics, name, &name.value.0, "tier", names);
            }
        }
    }
    allowed
}

fn models(diagnostics: &Diagnostics<'_>, table: &RoutingTable, policy: &PolicySection) -> Vec<Glob> {
    for glob in policy.models.iter().flatten() {
        if !table.models.iter().any(|model| glob.value.matches(&model.name)) {
            let names = table.models.iter().map(|model| &*model.name);
            report_no_match(diagnostics, glob, "model", names);
        }
    }
    policy.models.iter().flatten().map(|glob| glob.value.clone()).collect()
}

fn residency(diagnostics: &Diagnostics<'_>, table: &RoutingTable, globs: &[Setting<Glob>]) -> Residency {
    for glob in globs {
        if !table.regions.iter().any(|region| glob.value.matches(region)) {
            report_no_match(diagnostics, glob, "region", table.regions.iter().map(|name| &**name));
        }
    }
    Residency::new(globs.iter().map(|glob| glob.value.clone()).collect(), &table.regions)
}

fn report_no_match<'n>(
    diagnostics: &Diagnostics<'_>,
    glob: &Setting<Glob>,
    kind: &str,
    known: impl Iterator<Item = &'n str>,
) {
    let known: Vec<&str> = known.collect();
    let hint = format!("the {kind}s are: {}", known.join(", "));
    diagnostics.report_at(glob, format!("no {kind} fits this pattern"), hint);
}

/// Every key by the hash of its secret.
pub(super) fn keys(
    diagnostics: &Diagnostics<'_>,
    file: &ConfigFile,
    table: &RoutingTable,
    policies: &[Arc<Policy>],
    extra_keys: &[ExtraKey],
) -> HashMap<KeyHash, Arc<KeyRecord>> {
    report_duplicate_names(diagnostics, &file.keys);
    let mut keys: HashMap<KeyHash, Arc<KeyRecord>> = HashMap::new();
    for key in &file.keys {
        let Some((hash, record)) = key_record(diagnostics, file, key, policies) else {
            continue;
        };
        if let Some(first) = keys.get(&hash) {
            let message = "two keys with one secret".to_owned();
            let hint = format!("the other is `{}`: every key needs a secret of its own", first.name);
            if let Some(written) = key.digest() {
                diagnostics.report_at(written, message, hint);
            }
            continue;
        }
        keys.insert(hash, Arc::new(record));
    }
    let policy = Arc::new(everything(table));
    for extra in extra_keys {
        let record = KeyRecord::of(extra.name.as_str().into(), &policy, None, &KeyOverrides::default(), None);
        keys.entry(extra.hash).or_insert_with(|| Arc::new(record));
    }
    keys
}

fn report_duplicate_names(diagnostics: &Diagnostics<'_>, keys: &[KeySection]) {
    let mut seen: HashMap<&str, &str> = HashMap::new();
    for name in keys.iter().filter_map(|key| key.name.as_ref()) {
        match seen.get(name.value.0.as_str()) {
            Some(first) => {
                let message = "two keys with one name".to_owned();
                diagnostics.report_at(name, message, format!("the other is {first}: rename one"));
            }
            None => {
                seen.insert(&name.value.0, &name.path);
            }
        }
    }
}

fn key_record(
    diagnostics: &Diagnostics<'_>,
    file: &ConfigFile,
    key: &KeySection,
    policies: &[Arc<Policy>],
) -> Option<(KeyHash, KeyRecord)> {
    let named = key.policy.as_ref()?;
    let Some(policy) = policies.iter().find(|policy| *policy.name == *named.value.0) else {
        let names = policies.iter().map(|policy| &*policy.name);
        report_unknown(diagnostics, named, &named.value.0, "policy", names);
        return None;
    };
    let name = key.name.as_ref()?.value.0.as_str();
    let own = own(diagnostics, policy, &key.limits);
    let team = key.team.as_ref().map(|named| (named.value.0.as_str().into(), team_budget(file, &named.value.0)));
    let expires = key.expires.as_ref().map(|expiry| expiry.value.ends_unix);
    Some((KeyHash(key.digest()?.value.0), KeyRecord::of(name.into(), policy, team, &own, expires)))
}

fn team_budget(file: &ConfigFile, name: &str) -> Option<BudgetSpec> {
    file.teams.iter().find(|team| team.name.value == name)?.budget.as_ref().and_then(budget_spec)
}

/// Every team and what its keys may spend together.
pub(super) fn teams(file: &ConfigFile) -> BTreeMap<Arc<str>, Option<BudgetSpec>> {
    file.teams
        .iter()
        .map(|team| (team.name.value.as_str().into(), team.budget.as_ref().and_then(budget_spec)))
        .collect()
}

fn limits(file: &LimitsSection) -> Limits {
    Limits {
        requests_per_minute: file.requests_per_minute.as_ref().map(|limit| limit.value.get()),
        tokens_per_minute: file.tokens_per_minute.as_ref().map(|limit| limit.value.get()),
        max_concurrent: file.max_concurrent.as_ref().map(|limit| limit.value.get()),
    }
}

/// What a key has of its own, which may only be lower than its policy's.
fn own(diagnostics: &Diagnostics<'_>, policy: &Policy, key: &LimitsSection) -> KeyOverrides {
    let own = KeyOverrides { limits: limits(key), budget: key.budget.as_ref().and_then(budget_spec) };
    let (ceilings, limits) = (policy.limits, own.limits);
    lower(diagnostics, ceilings.requests_per_minute, limits.requests_per_minute, &key.requests_per_minute);
    lower(diagnostics, ceilings.tokens_per_minute, limits.tokens_per_minute, &key.tokens_per_minute);
    lower(diagnostics, ceilings.max_concurrent, limits.max_concurrent, &key.max_concurrent);
    if let (Some(each), Some(budget), Some(written)) = (&policy.money.each, &own.budget, &key.budget)
        && each.window == budget.window
    {
        lower(diagnostics, Some(each.limit), Some(budget.limit), &written.limit);
    }
    own
}

fn lower<N: Copy + Ord + std::fmt::Display>(
    diagnostics: &Diagnostics<'_>,
    policy: Option<N>,
    own: Option<N>,
    written: &Option<Setting<impl Sized>>,
) {
    if let (Some(ceiling), Some(own), Some(written)) = (policy, own, written)
        && own > ceiling
    {
        let message = format!("is above the policy's {ceiling}: a key may only tighten it");
        diagnostics.report_at(written, message, "lower it, or give the key another policy".to_owned());
    }
}

fn everything(table: &RoutingTable) -> Policy {
    Policy {
        tiers: vec![true; table.tiers.len()],
        models: vec![Glob::new(ALL)],
        reserved: true,
        ..Policy::deny_all(EXTRA_POLICY.into())
    }
}

/// Reports models without `context`, `max_output` and a price where a budget applies: without them the most
/// that a request may cost is unknown.
pub(super) fn require_ceilings(
    diagnostics: &Diagnostics<'_>,
    file: &ConfigFile,
    table: &RoutingTable,
    policies: &[Arc<Policy>],
) {
    let budgeted = || file.policies.iter().zip(policies).filter(|(written, _)| is_budgeted(file, written));
    for (index, model) in file.models.iter().enumerate() {
        let id = super::number(index, ModelId);
        let reached = || budgeted().filter(|(_, policy)| policy.allows_model(table, id));
        let report = |policy: &Policy, hint: &str| {
            let message = format!("a budget of policy `{}` applies to this model", policy.name);
            diagnostics.report_at(&model.name, message, hint.to_owned());
        };
        let compiled = table.model(id);
        let unpriced = |id: &DeploymentId| table.prices(*id).is_none();
        if compiled.context.is_none() || compiled.max_output.is_none() {
            if let Some((_, policy)) = reached().next() {
                report(policy, "give it `context` and `max_output`: they bound what a request may cost");
            }
        } else if model.price.is_none() && compiled.shared.iter().chain(&compiled.dedicated).any(unpriced) {
            let denied = |(written, _): &(&PolicySection, _)| written.unknown_price.value == UnpricedModels::Deny;
            if let Some((_, policy)) = reached().find(denied) {
                report(policy, "give it a `price`, or the policy `unknown_price = \"allow\"`: it then costs nothing");
            }
        }
    }
}

/// Whether the policy, one of its keys, or the team of one of its keys has a budget.
fn is_budgeted(file: &ConfigFile, policy: &PolicySection) -> bool {
    let team_has = |name: &str| file.teams.iter().any(|team| team.name.value == name && team.budget.is_some());
    let key_has = |key: &KeySection| {
        let team = key.team.as_ref().is_some_and(|team| team_has(&team.value.0));
        team || key.limits.budget.is_some()
    };
    let of_policy = |key: &&KeySection| key.policy.as_ref().is_some_and(|named| named.value.0 == policy.name.value);
    policy.limits.budget.is_some()
        || policy.shared_budget().is_some()
        || file.keys.iter().filter(of_policy).any(key_has)
}

/// `None` only where the limit is missing, which was reported.
fn budget_spec(written: &BudgetSection) -> Option<BudgetSpec> {
    let zone = written.zone.value.clone();
    let window = match written.window.value {
        BudgetPeriodKeyword::Day => BudgetPeriod::Day(zone),
        BudgetPeriodKeyword::Month => BudgetPeriod::Month(zone),
        BudgetPeriodKeyword::None => BudgetPeriod::Ever,
    };
    Some(BudgetSpec { limit: written.limit.as_ref()?.value, window })
}
