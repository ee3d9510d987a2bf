//! Policies and the keys that have them: what may be asked for, where it may run, how much of it.
//!
//! It exists so that permissions are values: compiled once from configuration or the register, then only read.
//! Whether one request is allowed is decided in [`authorize`](super::authorize). It must never hold a secret.
//!
//! Start reading at [`Policy`], then [`KeyRecord`].

use crate::domain::budget::{Budget, BudgetSpec, CreditUse, Scope};
use crate::domain::call::Endpoint;
use crate::domain::glob::Glob;
use crate::domain::id::{DeploymentId, ModelId, RegionId, TierId};
use crate::domain::limit::Limits;
use crate::domain::register::KeyOverrides;
use crate::domain::routing::table::{RESERVED_PREFIX, RoutingTable, Target};
use crate::domain::sla::SlaTerms;
use std::sync::Arc;
use std::time::Duration;

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
    /// Where its requests may go; `None` is everywhere.
    pub residency: Option<Residency>,
    /// The ceilings of each single key.
    pub limits: Limits,
    /// Its share of deployments that are full, beside other policies, from 1.
    pub priority: u32,
    /// Whether the output ceiling is lowered to what the budget has left, where the request would be refused otherwise.
    pub clamp: bool,
    /// The budgets and credit of its keys.
    pub money: PolicyMoney,
    /// When a second attempt is made beside one whose first token is late; `None`: only when its deployment is silent.
    pub hedge: Option<HedgeRule>,
    /// What is promised, and the credit given when it is not kept; `None`: nothing is.
    pub sla: Option<Arc<SlaTerms>>,
}

/// The regions that requests may go to.
#[derive(Clone, Debug)]
pub struct Residency {
    globs: Vec<Glob>,
    /// By [`RegionId`].
    regions: Vec<bool>,
}

impl Residency {
    /// The `regions`, by [`RegionId`], that one of `globs` fits.
    pub fn new(globs: Vec<Glob>, regions: &[Arc<str>]) -> Self {
        let regions = regions.iter().map(|region| globs.iter().any(|glob| glob.matches(region))).collect();
        Self { globs, regions }
    }

    /// As it is written.
    pub fn globs(&self) -> &[Glob] {
        &self.globs
    }

    fn allows(&self, region: RegionId) -> bool {
        self.regions.get(region.index()).copied().unwrap_or(false)
    }
}

/// When a hedge is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HedgeRule {
    /// After how long without a first token.
    pub after: HedgeDelay,
    /// Never sooner than this.
    pub at_least: Duration,
    /// At most this many hedges, in hundredths of a percent of the policy's requests.
    pub extra_bp: u32,
}

/// After how long without a first token a hedge is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HedgeDelay {
    /// A percentile of the deployment's usual first-token times, in percent.
    Percentile(u8),
    /// A fixed time.
    Fixed(Duration),
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
            priority: 1,
            clamp: false,
            money: PolicyMoney::default(),
            hedge: None,
            sla: None,
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
        self.residency.as_ref().is_none_or(|residency| residency.allows(region))
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

    /// What a request to `endpoint` means that names no model: the first tier, or else the first model, that has a deployment
    /// with this endpoint within residency; a dedicated one only where nothing else has it.
    pub fn first_serving(&self, table: &RoutingTable, endpoint: Endpoint) -> Option<ResolvedName> {
        let serves = |model: ModelId, deployments: &[DeploymentId]| {
            let serves = |id: &DeploymentId| {
                let deployment = table.deployment(*id);
                deployment.endpoints.contains(endpoint) && self.allows_region(deployment.region)
            };
            table.model(model).endpoints.contains(endpoint) && deployments.iter().any(serves)
        };
        let is_shared = |model: ModelId| serves(model, &table.model(model).shared);
        let models = || (0..table.models.len() as u32).map(ModelId).filter(|model| self.allows_model(table, *model));
        let mut tiers = (0..table.tiers.len() as u32).map(TierId).filter(|tier| self.allows_tier(*tier));
        let tier = tiers.find(|tier| table.tier(*tier).models.iter().any(|(model, _)| is_shared(*model)));
        let plain = tier.map(Target::Tier).or_else(|| models().find(|model| is_shared(*model)).map(Target::Model));
        let dedicated = || models().find(|model| self.reserved && serves(*model, &table.model(*model).dedicated));
        plain.map(ResolvedName::Plain).or_else(|| dedicated().map(ResolvedName::Reserved))
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

/// Whether `key` works at `now_unix` (Unix seconds).
pub fn is_valid(key: &KeyRecord, now_unix: i64) -> bool {
    key.expires.is_none_or(|end| now_unix < end)
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
