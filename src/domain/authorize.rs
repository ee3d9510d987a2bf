//! Authorization: which key may ask for which model.
//!
//! It exists so that permission is decided in one pure step: [`authorize`] takes a key's record, the
//! call and the table and returns an [`AuthorizedRequest`] or a [`Refusal`]. Holding an
//! `AuthorizedRequest` is the proof; no later module checks again. It must never look a key up or
//! compare secrets.
//!
//! Start reading in [`authorize`].

use crate::domain::budget::{Budget, BudgetSpec, CreditUse, Scope};
use crate::domain::call::Call;
use crate::domain::glob::Glob;
use crate::domain::id::{DeploymentId, ModelId, RegionId, TierId};
use crate::domain::refusal::Refusal;
use crate::domain::register::KeyOverrides;
use crate::domain::routing::table::{RESERVED_PREFIX, RoutingTable, Target};
use std::sync::Arc;

/// What a key may do.
#[derive(Clone, Debug)]
pub struct Policy {
    /// `standard`, `pro`, or as configured.
    pub name: Arc<str>,
    /// By [`TierId`]: whether its models, and the step down to it, are allowed.
    pub tiers: Vec<bool>,
    /// Models allowed by name beyond the tiers.
    pub models: Vec<Glob>,
    /// Whether `Pro/` names are allowed.
    pub reserved: bool,
    /// By [`RegionId`]: where its requests may go; `None` is everywhere.
    pub residency: Option<Vec<bool>>,
    /// The ceilings of each single key.
    pub limits: Limits,
    /// Whether the output ceiling is lowered to what the budget has left, where the request would be refused otherwise.
    pub clamp: bool,
    /// The budgets and credit of its keys.
    pub money: PolicyMoney,
}

/// The budgets and credit that a policy gives its keys.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct PolicyMoney {
    /// The budget of each single key.
    pub each: Option<BudgetSpec>,
    /// One budget that all of them share.
    pub total: Option<BudgetSpec>,
    /// How credit and budgets are combined.
    pub credit: CreditUse,
    /// Whether a model without a price is served although a budget or credit applies; it then costs nothing.
    pub unpriced: bool,
}

impl Policy {
    /// A policy that allows nothing: for keys whose own policy is no longer configured.
    pub fn deny_all(name: Arc<str>) -> Self {
        Self {
            name,
            tiers: Vec::new(),
            models: Vec::new(),
            reserved: false,
            residency: None,
            limits: Limits::default(),
            clamp: false,
            money: PolicyMoney::default(),
        }
    }

    /// Whether requests may use `tier`.
    pub fn allows_tier(&self, tier: TierId) -> bool {
        self.tiers.get(tier.index()).copied().unwrap_or(false)
    }

    /// Whether `model` may be asked for by name: a tier that contains it is allowed, or a glob matches.
    pub fn allows_model(&self, table: &RoutingTable, model: ModelId) -> bool {
        self.tier_of(table, model).is_some() || self.models.iter().any(|glob| glob.matches(&table.model(model).name))
    }

    /// The first allowed tier, in file order, that contains `model`.
    pub fn tier_of(&self, table: &RoutingTable, model: ModelId) -> Option<TierId> {
        (0..table.tiers.len() as u32)
            .map(TierId)
            .find(|&id| self.allows_tier(id) && table.tier(id).models.iter().any(|(listed, _)| *listed == model))
    }

    /// Whether a request may be sent to `region`.
    pub fn allows_region(&self, region: RegionId) -> bool {
        self.residency.as_ref().is_none_or(|regions| regions.get(region.index()).copied().unwrap_or(false))
    }

    /// Whether `target` may be asked for.
    pub fn allows(&self, table: &RoutingTable, target: Target) -> bool {
        match target {
            Target::Model(model) => self.allows_model(table, model),
            Target::Tier(tier) => self.allows_tier(tier),
            Target::Alias(alias) => {
                table.aliases[alias].split.iter().any(|(part, share)| *share > 0 && self.allows(table, *part))
            }
        }
    }

    /// Every name this policy may use: models, aliases, tiers in file order, then `Pro/` names.
    pub fn usable_names(&self, table: &RoutingTable) -> Vec<(Arc<str>, ResolvedName)> {
        let models = table.models.iter().enumerate().map(|(i, m)| (&m.name, Target::Model(ModelId(i as u32))));
        let aliases = table.aliases.iter().enumerate().map(|(i, a)| (&a.name, Target::Alias(i)));
        let tiers = table.tiers.iter().enumerate().map(|(i, t)| (&t.name, Target::Tier(TierId(i as u32))));
        let plain = models
            .chain(aliases)
            .chain(tiers)
            .filter(|(name, target)| {
                resolve(table, name) == Some(ResolvedName::Plain(*target)) && self.allows(table, *target)
            })
            .map(|(name, target)| (name.clone(), ResolvedName::Plain(target)));
        let reserved = (0..table.models.len() as u32)
            .map(ModelId)
            .filter(|&id| self.reserved && !table.model(id).dedicated.is_empty() && self.allows_model(table, id));
        let reserved = reserved
            .map(|id| (format!("{RESERVED_PREFIX}{}", table.model(id).name).into(), ResolvedName::Reserved(id)));
        plain.chain(reserved).collect()
    }
}

/// Ceilings of one key; `None` is no ceiling.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Limits {
    /// Requests in any sliding minute.
    pub requests_per_minute: Option<u64>,
    /// Tokens in any sliding minute, as taken at admission.
    pub tokens_per_minute: Option<u64>,
    /// Requests at once.
    pub max_concurrent: Option<u32>,
}

/// What is configured for a key, without its secret.
#[derive(Clone, Debug)]
pub struct KeyRecord {
    /// The unique name that reports and logs show.
    pub name: Arc<str>,
    /// The team that shares a budget and a report with it.
    pub team: Option<Arc<str>>,
    /// The policy that says what it may do.
    pub policy: Arc<Policy>,
    /// The policy's ceilings, tightened by the key's own.
    pub limits: Limits,
    /// Every budget its requests are paid from: its own, its team's, its policy's.
    pub budgets: Arc<[Budget]>,
    /// From this Unix second on it no longer works.
    pub expires: Option<i64>,
}

/// A ceiling of a key that is above its policy's: a key may only tighten.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExceedsPolicy {
    /// The configuration name of the ceiling.
    pub field: &'static str,
    /// The policy's ceiling, as text.
    pub ceiling: String,
}

impl KeyRecord {
    /// The key called `name` with its `own` overrides; `team` comes with the budget that its keys share.
    pub fn of(
        name: Arc<str>,
        policy: &Arc<Policy>,
        team: Option<(Arc<str>, Option<BudgetSpec>)>,
        own: &KeyOverrides,
        expires: Option<i64>,
    ) -> Self {
        let tighter = |policy: Option<u64>, own: Option<u64>| policy.into_iter().chain(own).min();
        let concurrent = policy.limits.max_concurrent.into_iter().chain(own.limits.max_concurrent).min();
        Self {
            limits: Limits {
                requests_per_minute: tighter(policy.limits.requests_per_minute, own.limits.requests_per_minute),
                tokens_per_minute: tighter(policy.limits.tokens_per_minute, own.limits.tokens_per_minute),
                max_concurrent: concurrent,
            },
            budgets: budgets(&name, policy, team.as_ref(), own),
            team: team.map(|(team, _)| team),
            name,
            policy: policy.clone(),
            expires,
        }
    }
}

/// Every budget that a key's requests are paid from: its own, its policy's for each key, its team's, and the
/// one that all keys of its policy share.
fn budgets(
    name: &Arc<str>,
    policy: &Policy,
    team: Option<&(Arc<str>, Option<BudgetSpec>)>,
    own: &KeyOverrides,
) -> Arc<[Budget]> {
    let of_key = |allowance: &BudgetSpec| allowance.of(Scope::Key, name.clone());
    let (mut each, mut own) = (policy.money.each.as_ref().map(of_key), own.budget.as_ref().map(of_key));
    // In one window there is one account, and the tighter limit holds.
    if let (Some(ceiling), Some(tighter)) = (&each, &mut own)
        && ceiling.account == tighter.account
    {
        tighter.limit = tighter.limit.min(ceiling.limit);
        each = None;
    }
    let team = team.and_then(|(name, allowance)| Some(allowance.as_ref()?.of(Scope::Team, name.clone())));
    let total = policy.money.total.as_ref().map(|total| total.of(Scope::Policy, policy.name.clone()));
    own.into_iter().chain(each).chain(team).chain(total).collect()
}

/// The first ceiling of `own` that is above the policy's.
pub fn exceeds_policy(policy: &Policy, own: &KeyOverrides) -> Option<ExceedsPolicy> {
    fn above<N: Ord + ToString>(field: &'static str, ceiling: Option<N>, own: Option<N>) -> Option<ExceedsPolicy> {
        let (ceiling, own) = (ceiling?, own?);
        (own > ceiling).then(|| ExceedsPolicy { field, ceiling: ceiling.to_string() })
    }
    let (limits, own_limits) = (policy.limits, own.limits);
    let budget = policy.money.each.as_ref().zip(own.budget.as_ref()).filter(|(each, own)| each.window == own.window);
    above("requests_per_minute", limits.requests_per_minute, own_limits.requests_per_minute)
        .or_else(|| above("tokens_per_minute", limits.tokens_per_minute, own_limits.tokens_per_minute))
        .or_else(|| above("max_concurrent", limits.max_concurrent, own_limits.max_concurrent))
        .or_else(|| above("budget", budget.map(|(each, _)| each.limit), budget.map(|(_, own)| own.limit)))
}

/// The first model of `policy` whose cost cannot be bounded, so that no budget or credit can hold: its name
/// and the setting it lacks.
pub fn unbounded(table: &RoutingTable, policy: &Policy) -> Option<(Arc<str>, &'static str)> {
    let reached = (0..table.models.len() as u32).map(ModelId).filter(|&id| policy.allows_model(table, id));
    reached.into_iter().find_map(|id| {
        let model = table.model(id);
        let unpriced = |id: &DeploymentId| table.deployment(*id).price.is_none();
        let lacks = if model.context.is_none() || model.max_output.is_none() {
            "context and max_output"
        } else if !policy.money.unpriced
            && model.price.is_none()
            && model.shared.iter().chain(&model.dedicated).any(unpriced)
        {
            "a price"
        } else {
            return None;
        };
        Some((model.name.clone(), lacks))
    })
}

/// What the `model` name of a request resolves to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResolvedName {
    /// `Pro/NAME`: the model's dedicated deployments.
    Reserved(ModelId),
    /// A model, alias or tier without the prefix.
    Plain(Target),
}

/// Proof that a key may make this call.
#[derive(Clone, Debug)]
pub struct AuthorizedRequest {
    key: Arc<KeyRecord>,
    requested: ResolvedName,
}

impl AuthorizedRequest {
    /// The key that makes the request.
    pub fn key(&self) -> &Arc<KeyRecord> {
        &self.key
    }

    /// What the name it asks for resolves to.
    pub fn requested(&self) -> ResolvedName {
        self.requested
    }
}

/// Whether `key` works at `now_unix` (Unix seconds).
pub fn is_valid(key: &KeyRecord, now_unix: i64) -> bool {
    key.expires.is_none_or(|end| now_unix < end)
}

/// Decides whether `key` may make `call`.
///
/// # Errors
/// [`Refusal::ModelNotFound`] with the nearest usable names, or [`Refusal::ModelNotAllowed`].
pub fn authorize(table: &RoutingTable, key: &Arc<KeyRecord>, call: &Call) -> Result<AuthorizedRequest, Refusal> {
    let name = &*call.metadata().model;
    let requested = resolve(table, name).ok_or_else(|| not_found(table, &key.policy, name))?;
    let allowed = match requested {
        ResolvedName::Plain(target) => key.policy.allows(table, target),
        ResolvedName::Reserved(model) => key.policy.reserved && key.policy.allows_model(table, model),
    };
    if !allowed {
        return Err(Refusal::ModelNotAllowed { model: name.into() });
    }
    Ok(AuthorizedRequest { key: key.clone(), requested })
}

/// Resolves `name`, whichever key asks. A plain model name resolves only where the model has shared
/// deployments, a `Pro/` name only where it has dedicated ones.
pub fn resolve(table: &RoutingTable, name: &str) -> Option<ResolvedName> {
    if let Some(plain) = name.strip_prefix(RESERVED_PREFIX)
        && let Some(Target::Model(model)) = table.names.get(plain)
        && !table.model(*model).dedicated.is_empty()
    {
        return Some(ResolvedName::Reserved(*model));
    }
    let target = table.names.get(name).copied();
    let reachable = |target: &Target| !matches!(target, Target::Model(id) if table.model(*id).shared.is_empty());
    target.filter(reachable).map(ResolvedName::Plain)
}

/// How many similar names an error offers.
const NEAREST: usize = 3;
/// Names less similar than this, between 0 and 1, are not offered.
const MIN_SIMILARITY: f64 = 0.5;

fn not_found(table: &RoutingTable, policy: &Policy, requested: &str) -> Refusal {
    let lower = requested.to_lowercase();
    let mut near: Vec<(f64, Arc<str>)> = policy
        .usable_names(table)
        .into_iter()
        .map(|(name, _)| (similarity(&lower, &name.to_lowercase()), name))
        .filter(|(similarity, _)| *similarity >= MIN_SIMILARITY)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    near.truncate(NEAREST);
    Refusal::ModelNotFound { model: requested.into(), nearest: near.into_iter().map(|(_, name)| name).collect() }
}

/// The similarity of two lower-case names, between 0 and 1. The part after the last slash is compared as well
/// as the whole, because people leave the owner out.
fn similarity(requested: &str, name: &str) -> f64 {
    let short = |s: &str| s.rsplit('/').next().unwrap_or(s).to_owned();
    let whole = strsim::normalized_damerau_levenshtein(requested, name);
    whole.max(strsim::normalized_damerau_levenshtein(&short(requested), &short(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::routing::fixture::{chat, key, model_id, policy, table, with_alias};
    use crate::domain::routing::table::Sticky;

    /// `flash` and `kimi` in tiers of their own, `solo` in none, `vip` dedicated only.
    fn sample_table() -> RoutingTable {
        let models: &[(&str, &[&str])] =
            &[("deepseek/flash", &["us", "eu"]), ("kimi", &["us", "eu!"]), ("solo", &["us"]), ("vip", &["eu!"])];
        let tiers: &[(&str, &[&str], &[&str])] =
            &[("default", &["deepseek/flash"], &["premium"]), ("premium", &["kimi", "vip"], &[])];
        let table = table(models, tiers);
        with_alias(table, "auto", &[("default", 80), ("premium", 20)], Sticky::None)
    }

    fn standard(table: &RoutingTable) -> Policy {
        policy(table, &["default"])
    }

    fn pro(table: &RoutingTable) -> Policy {
        Policy { reserved: true, ..policy(table, &["*"]) }
    }

    fn requested(table: &RoutingTable, policy: Policy, name: &str) -> Result<ResolvedName, Refusal> {
        authorize(table, &key(policy), &chat(name)).map(|authorized| authorized.requested())
    }

    #[test]
    fn a_reserved_name_comes_first_and_a_model_hides_an_alias_of_its_name() {
        let mut table = sample_table();
        let (kimi, solo) = (model_id(&table, "kimi"), model_id(&table, "solo"));
        table.names.insert("Pro/kimi".into(), Target::Model(solo));
        table.names.insert("Pro/solo".into(), Target::Model(solo));
        table.aliases[0].name = "kimi".into();
        let check = |name: &str, expected| assert_eq!(resolve(&table, name), expected, "{name}");
        check("Pro/kimi", Some(ResolvedName::Reserved(kimi)));
        check("Pro/solo", Some(ResolvedName::Plain(Target::Model(solo))));
        check("kimi", Some(ResolvedName::Plain(Target::Model(kimi))));
        check("premium", Some(ResolvedName::Plain(Target::Tier(TierId(1)))));
        check("vip", None);
        let names = pro(&table).usable_names(&table);
        assert_eq!(names.iter().filter(|(name, _)| &**name == "kimi").count(), 1, "the alias is hidden");
    }

    #[test]
    fn what_the_policy_does_not_name_is_forbidden() {
        let table = sample_table();
        let with_solo = Policy { models: vec![Glob::new("so*")], ..standard(&table) };
        let poor_pro = Policy { reserved: true, ..standard(&table) };
        let check = |policy: &Policy, name: &str, allowed: bool| {
            let found = requested(&table, policy.clone(), name);
            let refusal = Refusal::ModelNotAllowed { model: name.into() };
            assert_eq!(found.is_ok(), allowed, "{name}: {found:?}");
            assert!(allowed || found == Err(refusal), "{name}");
        };
        check(&standard(&table), "deepseek/flash", true);
        check(&standard(&table), "default", true);
        check(&standard(&table), "auto", true);
        check(&standard(&table), "kimi", false);
        check(&standard(&table), "premium", false);
        check(&standard(&table), "solo", false);
        check(&standard(&table), "Pro/kimi", false);
        check(&with_solo, "solo", true);
        check(&with_solo, "kimi", false);
        check(&poor_pro, "Pro/kimi", false);
        check(&pro(&table), "Pro/kimi", true);
        check(&pro(&table), "solo", false);
        check(&policy(&table, &[]), "auto", false);
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_nearest_usable_ones() {
        let table = sample_table();
        let check = |policy: Policy, name: &str, expected: &[&str]| match requested(&table, policy, name) {
            Err(Refusal::ModelNotFound { model, nearest }) => {
                assert_eq!(&*model, name);
                assert_eq!(nearest.iter().map(|name| &**name).collect::<Vec<_>>(), expected, "{name}");
            }
            other => panic!("{name}: {other:?}"),
        };
        check(standard(&table), "flash", &["deepseek/flash"]);
        check(standard(&table), "DeepSeek/Flush", &["deepseek/flash"]);
        check(standard(&table), "defualt", &["default"]);
        check(standard(&table), "kimii", &[]);
        check(pro(&table), "kimii", &["kimi", "Pro/kimi"]);
        check(pro(&table), "Pro/solo", &["Pro/kimi", "Pro/vip"]);
        check(pro(&table), "vip", &["Pro/vip"]);
        check(standard(&table), "quite another", &[]);
    }

    #[test]
    fn the_list_of_names_hides_what_would_be_refused() {
        let table = sample_table();
        let every = Policy { models: vec![Glob::new("*")], ..pro(&table) };
        let check = |policy: Policy, expected: &[&str]| {
            let names = policy.usable_names(&table);
            assert_eq!(names.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), expected);
            for (name, listed) in &names {
                assert_eq!(requested(&table, policy.clone(), name), Ok(*listed), "{name} is listed");
            }
        };
        check(standard(&table), &["deepseek/flash", "auto", "default"]);
        check(pro(&table), &["deepseek/flash", "kimi", "auto", "default", "premium", "Pro/kimi", "Pro/vip"]);
        let all = ["deepseek/flash", "kimi", "solo", "auto", "default", "premium", "Pro/kimi", "Pro/vip"];
        check(every, &all);
        check(policy(&table, &[]), &[]);
    }

    #[test]
    fn a_key_works_until_the_second_it_expires() {
        let check = |expires, now, expected| {
            let mut record = (*key(standard(&sample_table()))).clone();
            record.expires = expires;
            assert_eq!(is_valid(&record, now), expected, "{expires:?} at {now}");
        };
        check(None, i64::MAX, true);
        check(Some(100), 99, true);
        check(Some(100), 100, false);
    }
}
