//! The legs of a request: which models, reached through which tiers, in which order.
//!
//! It exists so that everything that may never be left (policy, residency, capacity, what a model
//! can do) filters the plan before any choice is made: the machine in [`plan`](super::plan) only
//! ever sees what is allowed. It decides nothing about health or load.

use crate::domain::authorize::{Asked, AuthorizedRequest, Policy};
use crate::domain::call::{Call, Endpoint, Feature};
use crate::domain::chance::Draw;
use crate::domain::id::{DeploymentId, ModelId, TierId};
use crate::domain::refusal::Refusal;
use crate::domain::routing::split::{self, Share};
use crate::domain::routing::table::{Alias, RoutingTable, Sticky, Target};

/// One model of the plan and the deployments that may serve it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leg {
    /// The tier it is reached through; `None` for a model outside every allowed tier.
    pub tier: Option<TierId>,
    /// The model.
    pub model: ModelId,
    /// Its deployments within residency and capacity, in file order; never empty.
    pub deployments: Vec<DeploymentId>,
}

/// The legs of one request, in the order they are stepped down.
///
/// # Errors
/// [`Refusal::ResidencyUnavailable`] when only the residency leaves nothing,
/// [`Refusal::NotServed`] when no model serves the endpoint or a feature.
pub fn legs(
    table: &RoutingTable,
    authorized: &AuthorizedRequest,
    call: &Call,
    no_fallback: bool,
    draw: Draw,
) -> Result<Vec<Leg>, Refusal> {
    let drafter = Drafter { table, policy: &authorized.key().policy, call, within_residency: true };
    let mut legs = match authorized.asked() {
        Asked::Reserved(model) => drafter.by_reserved(model),
        Asked::Plain(Target::Model(model)) => drafter.by_model(model),
        Asked::Plain(Target::Tier(tier)) => drafter.by_tier(tier, draw),
        Asked::Plain(Target::Alias(alias)) => drafter.by_alias(&table.aliases[alias], authorized.key().id.0, draw),
    };
    if no_fallback || !call.endpoint().may_change_model() {
        // The model asked for by name, even where it is filtered out: nothing else may take its place.
        let only = named(authorized.asked()).or(legs.first().map(|leg| leg.model));
        legs.retain(|leg| Some(leg.model) == only);
    }
    if legs.is_empty() { Err(drafter.why_nothing(authorized)) } else { Ok(legs) }
}

fn named(asked: Asked) -> Option<ModelId> {
    match asked {
        Asked::Reserved(model) | Asked::Plain(Target::Model(model)) => Some(model),
        Asked::Plain(Target::Tier(_) | Target::Alias(_)) => None,
    }
}

#[derive(Clone, Copy)]
struct Drafter<'a> {
    table: &'a RoutingTable,
    policy: &'a Policy,
    call: &'a Call,
    within_residency: bool,
}

impl<'a> Drafter<'a> {
    /// Dedicated deployments first; the shared ones only where spilling is configured.
    fn by_reserved(self, model: ModelId) -> Vec<Leg> {
        let held = self.table.model(model);
        let tier = self.policy.tier_of(self.table, model);
        let spills = held.dedicated.iter().any(|id| self.table.deployment(*id).spill);
        let dedicated = self.leg(tier, model, &held.dedicated);
        let shared = if spills { self.leg(tier, model, &held.shared) } else { None };
        dedicated.into_iter().chain(shared).collect()
    }

    /// The model itself, the rest of its tier, then the tier's chain.
    fn by_model(self, model: ModelId) -> Vec<Leg> {
        let Some(tier) = self.policy.tier_of(self.table, model) else {
            return self.shared_leg(None, model).into_iter().collect();
        };
        let mut legs = Vec::with_capacity(4);
        self.push(&mut legs, tier, model);
        self.push_tier(&mut legs, tier, None);
        self.push_chain(&mut legs, tier);
        legs
    }

    /// The tier's models as written, or the first of them drawn, then its chain.
    fn by_tier(self, tier: TierId, draw: Draw) -> Vec<Leg> {
        let mut legs = Vec::with_capacity(4);
        self.push_tier(&mut legs, tier, Some(draw));
        self.push_chain(&mut legs, tier);
        legs
    }

    /// One share is drawn among those that lead anywhere; then its chain holds.
    fn by_alias(self, alias: &Alias, key: u64, draw: Draw) -> Vec<Leg> {
        let mut shares: Vec<(Target, u32)> =
            alias.split.iter().copied().filter(|(part, _)| self.policy.allows(self.table, *part)).collect();
        while !shares.is_empty() {
            let named: Vec<Share<'_>> =
                shares.iter().map(|(part, weight)| Share { name: self.name(*part), weight: *weight }).collect();
            let Some(index) = self.choose(alias, &named, key, draw) else { break };
            let legs = match shares[index].0 {
                Target::Model(model) => self.by_model(model),
                Target::Tier(tier) => self.by_tier(tier, draw.salted(1)),
                Target::Alias(_) => Vec::new(),
            };
            if !legs.is_empty() {
                return legs;
            }
            shares.remove(index);
        }
        Vec::new()
    }

    fn choose(self, alias: &Alias, shares: &[Share<'_>], key: u64, draw: Draw) -> Option<usize> {
        match (alias.sticky, &self.call.facts().user) {
            (Sticky::Key, _) => split::sticky(shares, key),
            (Sticky::User, Some(user)) => split::sticky(shares, split::hash(user.as_bytes())),
            (Sticky::None, _) | (Sticky::User, None) => split::draw(shares, draw),
        }
    }

    fn push_tier(self, legs: &mut Vec<Leg>, tier: TierId, draw: Option<Draw>) {
        let held = self.table.tier(tier);
        if let (true, Some(draw)) = (held.drawn, draw) {
            let usable = held.models.iter().filter(|(model, _)| self.shared_leg(Some(tier), *model).is_some());
            let usable: Vec<_> = usable.collect();
            if let Some(index) = draw.weighted(usable.iter().map(|(_, weight)| u64::from(*weight))) {
                self.push(legs, tier, usable[index].0);
            }
        }
        held.models.iter().for_each(|(model, _)| self.push(legs, tier, *model));
    }

    fn push_chain(self, legs: &mut Vec<Leg>, tier: TierId) {
        for &next in &self.table.tier(tier).then {
            if self.policy.allows_tier(next) {
                // The draw decides only where a request starts; a chain is walked as written.
                self.push_tier(legs, next, None);
            }
        }
    }

    fn push(self, legs: &mut Vec<Leg>, tier: TierId, model: ModelId) {
        if !legs.iter().any(|leg| leg.model == model) {
            legs.extend(self.shared_leg(Some(tier), model));
        }
    }

    fn shared_leg(self, tier: Option<TierId>, model: ModelId) -> Option<Leg> {
        self.leg(tier, model, &self.table.model(model).shared)
    }

    fn leg(self, tier: Option<TierId>, model: ModelId, deployments: &[DeploymentId]) -> Option<Leg> {
        if self.missing(model).is_some() {
            return None;
        }
        let inside =
            |id: &DeploymentId| !self.within_residency || self.policy.allows_region(self.table.deployment(*id).region);
        let deployments: Vec<_> = deployments.iter().copied().filter(inside).collect();
        (!deployments.is_empty()).then_some(Leg { tier, model, deployments })
    }

    /// What `model` lacks to serve this call.
    fn missing(self, model: ModelId) -> Option<&'static str> {
        let model = self.table.model(model);
        if !model.endpoints.contains(self.call.endpoint()) {
            return Some(endpoint_words(self.call.endpoint()));
        }
        let needed = self.call.facts().features;
        Feature::ALL
            .into_iter()
            .find(|feature| needed.contains(*feature) && !model.features.contains(*feature))
            .map(feature_words)
    }

    fn name(self, part: Target) -> &'a str {
        match part {
            Target::Model(model) => &self.table.model(model).name,
            Target::Tier(tier) => &self.table.tier(tier).name,
            Target::Alias(alias) => &self.table.aliases[alias].name,
        }
    }

    fn why_nothing(self, authorized: &AuthorizedRequest) -> Refusal {
        let model: Box<str> = self.call.facts().model.clone();
        let anywhere = Self { within_residency: false, ..self };
        let asked = authorized.asked();
        if anywhere.models_of(asked).iter().any(|id| anywhere.missing(*id).is_none()) {
            return Refusal::ResidencyUnavailable { model };
        }
        let what = self.models_of(asked).into_iter().find_map(|id| self.missing(id));
        Refusal::NotServed { model, what: what.unwrap_or(endpoint_words(self.call.endpoint())) }
    }

    /// The models that `asked` could begin with.
    fn models_of(self, asked: Asked) -> Vec<ModelId> {
        match asked {
            Asked::Reserved(model) | Asked::Plain(Target::Model(model)) => vec![model],
            Asked::Plain(Target::Tier(tier)) => self.table.tier(tier).models.iter().map(|(model, _)| *model).collect(),
            Asked::Plain(Target::Alias(alias)) => {
                let split = self.table.aliases[alias].split.iter();
                let allowed = split.filter(|(part, _)| self.policy.allows(self.table, *part));
                allowed.flat_map(|(part, _)| self.models_of(Asked::Plain(*part))).collect()
            }
        }
    }
}

fn endpoint_words(endpoint: Endpoint) -> &'static str {
    match endpoint {
        Endpoint::Chat => "chat completions",
        Endpoint::Completions => "completions",
        Endpoint::Embeddings => "embeddings",
    }
}

fn feature_words(feature: Feature) -> &'static str {
    match feature {
        Feature::Tools => "tools",
        Feature::Vision => "images",
        Feature::JsonSchema => "JSON schemas",
    }
}
