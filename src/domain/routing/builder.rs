//! The candidates of a request: which models, reached through which tiers, in which order.
//!
//! It exists so that every hard constraint (policy, residency, capacity, what a model can do) filters the plan
//! before any choice is made: the state machine in [`plan`](super::plan) only ever gets what is allowed. It
//! must never decide by health or load.
//!
//! Start reading in [`candidate_models`].

use crate::domain::authorize::AuthorizedRequest;
use crate::domain::body_member::MemberObjection;
use crate::domain::call::{Call, Feature};
use crate::domain::id::{DeploymentId, ModelId, TierId};
use crate::domain::policy::{Policy, ResolvedName};
use crate::domain::random::RandomValue;
use crate::domain::refusal::Refusal;
use crate::domain::routing::split::{self, WeightedShare};
use crate::domain::routing::table::{Alias, RoutingTable, Sticky, Target};
use std::sync::Arc;

/// One model of the plan and the deployments that may serve it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CandidateModel {
    /// The tier it is reached through; `None` for a model outside every allowed tier.
    pub tier: Option<TierId>,
    /// The model.
    pub model: ModelId,
    /// Its deployments within residency and capacity, in file order; never empty.
    pub deployments: Vec<DeploymentId>,
}

/// Why a deployment is not in a plan. The builder records it where it excludes the deployment, so that an
/// explanation cannot disagree with the plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExclusionReason {
    /// The policy forbids the tier, or the part of an alias, that contains it.
    Forbidden(Target),
    /// The model lacks the endpoint or a feature: `embeddings`, `tools`.
    NotServed(&'static str),
    /// Its region is outside the policy's residency.
    OutsideResidency,
    /// Its provider may not be sent a member of the body.
    MemberNotAllowed(MemberObjection),
    /// It is dedicated, and the requested name does not begin with `Pro/`.
    Dedicated,
    /// It is shared, the requested name begins with `Pro/`, and no dedicated deployment spills.
    Shared,
    /// It serves another model, which the client or the endpoint forbids.
    OtherModel,
    /// The requested name does not lead to its model.
    Unreached,
}

/// The candidate models of one request, in the order in which they are tried.
///
/// # Errors
/// [`Refusal::MemberNotAllowed`] when a member of the body stands against one of them,
/// [`Refusal::ResidencyUnavailable`] when the residency excludes all of them,
/// [`Refusal::NotServed`] when no model serves the endpoint, a feature or a plain name.
pub fn candidate_models(
    table: &RoutingTable,
    authorized: &AuthorizedRequest,
    call: &Call,
    no_fallback: bool,
    draw: RandomValue,
) -> Result<Vec<CandidateModel>, Refusal> {
    let candidate_models = PlanBuilder::new(table, authorized, call, no_fallback, |_, _| {}).build(draw);
    if candidate_models.is_empty() {
        Err(why_nothing(table, authorized, call, no_fallback))
    } else {
        Ok(candidate_models)
    }
}

/// Why there is no candidate: builds the plan once more, to collect the reasons.
pub(super) fn why_nothing(
    table: &RoutingTable,
    authorized: &AuthorizedRequest,
    call: &Call,
    no_fallback: bool,
) -> Refusal {
    // A client that names a model gets the reason of that model, not of what it would have stepped down to.
    let named = match authorized.requested() {
        ResolvedName::Reserved(model) | ResolvedName::Plain(Target::Model(model)) => Some(model),
        ResolvedName::Plain(Target::Alias(_) | Target::Tier(_)) => None,
    };
    let is_requested = |id: &DeploymentId| named.is_none_or(|model| table.deployment(*id).model == model);
    let mut reasons = Vec::new();
    let mut against = None;
    let note = |passed: &[DeploymentId], why| {
        let requested = passed.iter().copied().find(is_requested);
        if let (Some(id), ExclusionReason::MemberNotAllowed(_)) = (requested, why) {
            against = against.or_else(|| table.objection(id, call, authorized.is_paid()));
        }
        reasons.extend(requested.map(|_| why));
    };
    PlanBuilder::new(table, authorized, call, no_fallback, note).build(RandomValue(0));
    if let Some((member, why)) = against {
        return Refusal::MemberNotAllowed { member: member.clone(), why };
    }
    let model = call.metadata().model.clone();
    if reasons.contains(&ExclusionReason::OutsideResidency) {
        return Refusal::ResidencyUnavailable { model };
    }
    let lacking = reasons.iter().find_map(|why| match why {
        ExclusionReason::NotServed(what) => Some(*what),
        _ => None,
    });
    let instead = models_instead(table, authorized, call, |_| true);
    Refusal::NotServed { model, what: lacking.unwrap_or(PLAIN_NAMES), instead }
}

/// The first models, in file order, that this key may use and that would serve `call`, of those that `serves` agrees to.
pub fn models_instead(
    table: &RoutingTable,
    authorized: &AuthorizedRequest,
    call: &Call,
    serves: impl Fn(&CandidateModel) -> bool,
) -> Vec<Arc<str>> {
    let policy = &authorized.key().policy;
    let mut builder = PlanBuilder::new(table, authorized, call, false, |_, _| {});
    let models = (0..table.models.len() as u32).map(ModelId).filter(|id| policy.allows_model(table, *id));
    let serving = models.filter(|id| builder.shared_candidate(None, *id).as_ref().is_some_and(&serves));
    serving.map(|id| table.model(id).name.clone()).take(MOST_INSTEAD).collect()
}

/// How many models are named that may be used instead.
const MOST_INSTEAD: usize = 5;

/// What a model with only dedicated capacity does not serve.
const PLAIN_NAMES: &str = "requests for its plain name, only for its 'Pro/' name";

/// Collects the candidates of one request. Calls `note` for the deployments that it excludes.
pub(super) struct PlanBuilder<'a, N> {
    table: &'a RoutingTable,
    policy: &'a Policy,
    requested: ResolvedName,
    key: &'a str,
    call: &'a Call,
    may_change_model: bool,
    is_paid: bool,
    note: N,
}

impl<'a, N: FnMut(&[DeploymentId], ExclusionReason)> PlanBuilder<'a, N> {
    pub(super) fn new(
        table: &'a RoutingTable,
        authorized: &'a AuthorizedRequest,
        call: &'a Call,
        no_fallback: bool,
        note: N,
    ) -> Self {
        Self {
            table,
            policy: &authorized.key().policy,
            requested: authorized.requested(),
            key: &authorized.key().name,
            call,
            may_change_model: !no_fallback && call.may_change_model(),
            is_paid: authorized.is_paid(),
            note,
        }
    }

    fn build(&mut self, draw: RandomValue) -> Vec<CandidateModel> {
        match self.requested {
            ResolvedName::Reserved(model) => self.by_reserved(model),
            ResolvedName::Plain(Target::Alias(alias)) => self.by_alias(&self.table.aliases[alias], draw),
            ResolvedName::Plain(part) => self.by_part(part, Some(draw)),
        }
    }

    /// For a `Pro/` name: dedicated deployments first; the shared ones only where spilling is configured.
    pub(super) fn by_reserved(&mut self, model: ModelId) -> Vec<CandidateModel> {
        let configured = self.table.model(model);
        let tier = self.policy.tier_of(self.table, model);
        let spills = configured.dedicated.iter().any(|id| self.table.deployment(*id).spill);
        let dedicated = self.candidate(tier, model, &configured.dedicated);
        let shared = if spills { self.candidate(tier, model, &configured.shared) } else { None };
        if !spills {
            (self.note)(&configured.shared, ExclusionReason::Shared);
        }
        dedicated.into_iter().chain(shared).collect()
    }

    /// For a model or a tier, which may be a share of an alias. Without `draw` a tier's models stay in file order.
    pub(super) fn by_part(&mut self, part: Target, draw: Option<RandomValue>) -> Vec<CandidateModel> {
        match part {
            Target::Model(model) => self.by_model(model),
            Target::Tier(tier) => self.by_tier(tier, draw),
            Target::Alias(_) => Vec::new(),
        }
    }

    /// For a model: the model itself, the rest of its tier, then the tier's chain.
    fn by_model(&mut self, model: ModelId) -> Vec<CandidateModel> {
        let Some(tier) = self.policy.tier_of(self.table, model) else {
            let shared = self.shared_candidate(None, model);
            return shared.into_iter().chain(self.lent_candidate(None, model)).collect();
        };
        let mut candidate_models = Vec::with_capacity(4);
        self.push(&mut candidate_models, tier, model);
        self.push_tier(&mut candidate_models, tier, None);
        self.push_chain(&mut candidate_models, tier);
        candidate_models
    }

    /// For a tier: its models in file order, or the first of them drawn, then its chain.
    fn by_tier(&mut self, tier: TierId, draw: Option<RandomValue>) -> Vec<CandidateModel> {
        let mut candidate_models = Vec::with_capacity(4);
        self.push_tier(&mut candidate_models, tier, draw);
        self.push_chain(&mut candidate_models, tier);
        candidate_models
    }

    /// For an alias: one share is drawn among those with candidates; then its chain applies.
    fn by_alias(&mut self, alias: &Alias, mut draw: RandomValue) -> Vec<CandidateModel> {
        let mut shares = self.shares(alias);
        while !shares.is_empty() {
            let Some(index) = self.choose(alias, &shares, draw) else { break };
            let candidate_models = self.by_part(shares[index].0, Some(draw.salted(1)));
            if !candidate_models.is_empty() {
                return candidate_models;
            }
            shares.remove(index);
            // The same random value again would favour the neighbour of the share without candidates.
            draw = draw.salted(2);
        }
        Vec::new()
    }

    /// The shares of `alias` that the policy allows.
    pub(super) fn shares(&mut self, alias: &Alias) -> Vec<(Target, u32)> {
        let mut allowed = Vec::with_capacity(alias.split.len());
        for &(part, share) in &alias.split {
            if self.policy.allows(self.table, part) {
                allowed.push((part, share));
            } else {
                self.note_part(part);
            }
        }
        allowed
    }

    fn choose(&self, alias: &Alias, shares: &[(Target, u32)], draw: RandomValue) -> Option<usize> {
        let shares: Vec<WeightedShare<'_>> = shares
            .iter()
            .map(|(part, weight)| WeightedShare { name: self.table.target_name(*part), weight: *weight })
            .collect();
        match self.client(alias) {
            Some(client) => split::sticky(&shares, client),
            None => split::draw(&shares, draw),
        }
    }

    /// The index of the share that every request like this one gets, where the alias is sticky for it.
    pub(super) fn bound(&self, alias: &Alias, shares: &[(Target, u32)]) -> Option<usize> {
        self.client(alias).and_then(|_| self.choose(alias, shares, RandomValue(0)))
    }

    /// The hash of the client that `alias` is sticky for, if it is.
    fn client(&self, alias: &Alias) -> Option<u64> {
        match alias.sticky {
            Sticky::None => None,
            Sticky::Key => Some(split::hash_name(self.key)),
            Sticky::User => self.call.metadata().user.as_ref().map(|user| split::hash_name(user)),
        }
    }

    fn push_tier(&mut self, candidate_models: &mut Vec<CandidateModel>, tier: TierId, draw: Option<RandomValue>) {
        if let Some(draw) = draw {
            let drawn = self.drawn(tier);
            if let Some(index) = draw.weighted(drawn.iter().map(|(_, weight)| u64::from(*weight))) {
                self.push(candidate_models, tier, drawn[index].0);
            }
        }
        self.table.tier(tier).models.iter().for_each(|(model, _)| self.push(candidate_models, tier, *model));
    }

    /// The models of which one is drawn by weight to be the first; empty where a tier's order is fixed.
    pub(super) fn drawn(&mut self, tier: TierId) -> Vec<(ModelId, u32)> {
        let configured = self.table.tier(tier);
        if !configured.drawn {
            return Vec::new();
        }
        configured
            .models
            .iter()
            .copied()
            .filter(|(model, _)| self.shared_candidate(Some(tier), *model).is_some())
            .collect()
    }

    fn push_chain(&mut self, candidate_models: &mut Vec<CandidateModel>, tier: TierId) {
        for &next in &self.table.tier(tier).then {
            if self.policy.allows_tier(next) {
                // The random value decides only the first model; a chain keeps its configured order.
                self.push_tier(candidate_models, next, None);
            } else {
                self.note_part(Target::Tier(next));
            }
        }
    }

    fn push(&mut self, candidate_models: &mut Vec<CandidateModel>, tier: TierId, model: ModelId) {
        if candidate_models.iter().any(|candidate| candidate.model == model) {
            return;
        }
        if self.only_model(candidate_models).is_some_and(|only| only != model) {
            return (self.note)(&self.table.model(model).shared, ExclusionReason::OtherModel);
        }
        candidate_models.extend(self.shared_candidate(Some(tier), model));
        candidate_models.extend(self.lent_candidate(Some(tier), model));
    }

    /// The only model that may answer, if there is such a restriction.
    fn only_model(&self, candidate_models: &[CandidateModel]) -> Option<ModelId> {
        if self.may_change_model {
            return None;
        }
        match self.requested {
            // A named model is meant, also where the plan without it would begin with another.
            ResolvedName::Reserved(model) | ResolvedName::Plain(Target::Model(model)) => Some(model),
            ResolvedName::Plain(Target::Alias(_) | Target::Tier(_)) => {
                candidate_models.first().map(|candidate| candidate.model)
            }
        }
    }

    fn shared_candidate(&mut self, tier: Option<TierId>, model: ModelId) -> Option<CandidateModel> {
        let configured = self.table.model(model);
        (self.note)(&configured.dedicated, ExclusionReason::Dedicated);
        self.candidate(tier, model, &configured.shared)
    }

    /// Dedicated deployments that lend places, for a plain name: after the shared ones.
    fn lent_candidate(&mut self, tier: Option<TierId>, model: ModelId) -> Option<CandidateModel> {
        let table = self.table;
        let mut lent = table.model(model).dedicated.iter().copied().filter(|id| table.deployment(*id).lend).peekable();
        lent.peek()?;
        let lent: Vec<DeploymentId> = lent.collect();
        self.candidate(tier, model, &lent)
    }

    fn candidate(
        &mut self,
        tier: Option<TierId>,
        model: ModelId,
        deployments: &[DeploymentId],
    ) -> Option<CandidateModel> {
        if let Some(what) = self.missing(model) {
            (self.note)(deployments, ExclusionReason::NotServed(what));
            return None;
        }
        let mut inside = Vec::with_capacity(deployments.len());
        for &id in deployments {
            if !self.table.deployment(id).endpoints.contains(self.call.endpoint()) {
                (self.note)(&[id], ExclusionReason::NotServed(self.call.endpoint().words()));
            } else if !self.policy.allows_region(self.table.deployment(id).region) {
                (self.note)(&[id], ExclusionReason::OutsideResidency);
            } else if let Some((_, why)) = self.table.objection(id, self.call, self.is_paid) {
                (self.note)(&[id], ExclusionReason::MemberNotAllowed(why));
            } else {
                inside.push(id);
            }
        }
        (!inside.is_empty()).then_some(CandidateModel { tier, model, deployments: inside })
    }

    /// What `model` lacks to serve this call.
    fn missing(&self, model: ModelId) -> Option<&'static str> {
        let model = self.table.model(model);
        if !model.endpoints.contains(self.call.endpoint()) {
            return Some(self.call.endpoint().words());
        }
        let needed = self.call.metadata().features;
        Feature::ALL
            .into_iter()
            .find(|feature| needed.contains(*feature) && !model.features.contains(*feature))
            .map(feature_words)
    }

    /// Notes everything that a forbidden tier or model would have led to.
    fn note_part(&mut self, part: Target) {
        let forbidden = ExclusionReason::Forbidden(part);
        match part {
            Target::Model(model) => (self.note)(&self.table.model(model).shared, forbidden),
            Target::Tier(tier) => {
                let models = &self.table.tier(tier).models;
                models.iter().for_each(|(model, _)| (self.note)(&self.table.model(*model).shared, forbidden));
            }
            Target::Alias(_) => {}
        }
    }
}

fn feature_words(feature: Feature) -> &'static str {
    match feature {
        Feature::Tools => "tools",
        Feature::Vision => "images",
        Feature::JsonSchema => "JSON schemas",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::authorize::authorize;
    use crate::domain::call::{Dialect, Endpoint, EndpointSet, FeatureSet, RequestMetadata};
    use crate::domain::glob::Glob;
    use crate::domain::policy::KeyRecord;
    use crate::domain::routing::fixture::{
        authorized, chat, key, metadata, model_id, policy, residency, table, with_alias,
    };
    use bytes::Bytes;

    /// Three tiers over four models in two regions; `kimi` also has dedicated capacity.
    fn sample_table() -> RoutingTable {
        let models: &[(&str, &[&str])] = &[
            ("flash", &["us", "eu"]),
            ("qwen", &["us", "eu"]),
            ("kimi", &["us", "eu", "us!", "eu!"]),
            ("v3", &["us"]),
            ("solo", &["eu"]),
        ];
        let tiers: &[(&str, &[&str], &[&str])] = &[
            ("default", &["flash"], &["fallback"]),
            ("fallback", &["qwen"], &["default"]),
            ("premium", &["kimi", "v3"], &["fallback", "default"]),
        ];
        let split: &[(&str, u32)] = &[("default", 80), ("fallback", 15), ("premium", 5)];
        with_alias(table(models, tiers), "auto", split, Sticky::None)
    }

    fn pro(table: &RoutingTable) -> Policy {
        Policy { reserved: true, ..policy(table, &["*"]) }
    }

    fn within(table: &RoutingTable, regions: &[&str]) -> Policy {
        Policy { residency: residency(table, regions), ..pro(table) }
    }

    /// Candidate models as `tier:model(provider provider)`, `-` for a model outside every tier.
    fn plan_text(table: &RoutingTable, policy: Policy, call: &Call, draw: RandomValue) -> Result<String, Refusal> {
        let candidate_models = candidate_models(table, &authorized(table, policy, call), call, false, draw)?;
        Ok(show(table, &candidate_models))
    }

    fn show(table: &RoutingTable, candidate_models: &[CandidateModel]) -> String {
        let provider = |id: &DeploymentId| {
            let name = &table.deployment(*id).name;
            let dedicated = if name.contains("/Pro/") { "!" } else { "" };
            format!("{}{dedicated}", name.split('/').next().unwrap_or_default())
        };
        let candidate = |candidate: &CandidateModel| {
            let tier = candidate.tier.map_or("-", |tier| &table.tier(tier).name);
            let places: Vec<_> = candidate.deployments.iter().map(provider).collect();
            format!("{tier}:{}({})", table.model(candidate.model).name, places.join(" "))
        };
        candidate_models.iter().map(candidate).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_name_gives_its_tier_and_then_its_chain_in_order() {
        let table = sample_table();
        let check = |policy: Policy, name: &str, expected: &str| {
            assert_eq!(plan_text(&table, policy, &chat(name), RandomValue(0)), Ok(expected.to_owned()), "{name}");
        };
        check(pro(&table), "flash", "default:flash(us eu) fallback:qwen(us eu)");
        check(pro(&table), "qwen", "fallback:qwen(us eu) default:flash(us eu)");
        check(pro(&table), "v3", "premium:v3(us) premium:kimi(us eu) fallback:qwen(us eu) default:flash(us eu)");
        check(pro(&table), "premium", "premium:kimi(us eu) premium:v3(us) fallback:qwen(us eu) default:flash(us eu)");
        // Tiers that the policy forbids are left out; what only a pattern allows has no chain.
        check(policy(&table, &["default"]), "flash", "default:flash(us eu)");
        let patterns = Policy { models: vec![Glob::new("*")], ..policy(&table, &["default"]) };
        check(patterns.clone(), "solo", "-:solo(eu)");
        check(patterns, "kimi", "-:kimi(us eu)");
    }

    #[test]
    fn reserved_capacity_and_shared_never_mix_unless_it_spills() {
        let mut table = sample_table();
        let check = |table: &RoutingTable, policy: Policy, name: &str, expected: &str| {
            assert_eq!(plan_text(table, policy, &chat(name), RandomValue(0)), Ok(expected.to_owned()), "{name}");
        };
        check(&table, pro(&table), "Pro/kimi", "premium:kimi(us! eu!)");
        check(&table, within(&table, &["eu"]), "Pro/kimi", "premium:kimi(eu!)");
        table.deployments.iter_mut().for_each(|deployment| deployment.spill = deployment.name.contains("Pro/"));
        check(&table, pro(&table), "Pro/kimi", "premium:kimi(us! eu!) premium:kimi(us eu)");
        check(&table, within(&table, &["eu"]), "Pro/kimi", "premium:kimi(eu!) premium:kimi(eu)");
    }

    #[test]
    fn residency_comes_before_every_choice() {
        let table = sample_table();
        let check = |regions: &[&str], name: &str, expected: Result<&str, Refusal>| {
            let found = plan_text(&table, within(&table, regions), &chat(name), RandomValue(0));
            assert_eq!(found, expected.map(str::to_owned), "{name} within {regions:?}");
        };
        let unavailable = |name: &str| Err(Refusal::ResidencyUnavailable { model: name.into() });
        check(&["eu"], "flash", Ok("default:flash(eu) fallback:qwen(eu)"));
        check(&["eu"], "v3", Ok("premium:kimi(eu) fallback:qwen(eu) default:flash(eu)"));
        check(&["us"], "Pro/kimi", Ok("premium:kimi(us!)"));
        check(&[], "flash", unavailable("flash"));
        check(&[], "Pro/kimi", unavailable("Pro/kimi"));
        check(&[], "auto", unavailable("auto"));
        // Every draw of an alias gives a plan while any of its shares has deployments.
        for seed in 0..500 {
            let candidate_models =
                plan_text(&table, within(&table, &["eu"]), &chat("auto"), RandomValue(seed).salted(3));
            assert!(candidate_models.is_ok_and(|candidate_models| !candidate_models.contains("us")), "seed {seed}");
        }
    }

    #[test]
    fn an_alias_keeps_its_weights_among_what_the_key_may_use() {
        let check = |allowed: &[&str], expected: &[(&str, f64)]| {
            let table = sample_table();
            let call = chat("auto");
            let authorized = authorized(&table, policy(&table, allowed), &call);
            let mut hits = [0_u32; 3];
            for seed in 0..10_000 {
                let candidate_models =
                    candidate_models(&table, &authorized, &call, false, RandomValue(seed).salted(11)).expect("a plan");
                hits[candidate_models[0].tier.expect("a tier").index()] += 1;
            }
            for (tier, (name, share)) in expected.iter().enumerate() {
                let found = f64::from(hits[tier]) / 100.0;
                assert!((found - share).abs() <= 1.5, "{name}: {found} % instead of {share} % with {allowed:?}");
            }
        };
        check(&["*"], &[("default", 80.0), ("fallback", 15.0), ("premium", 5.0)]);
        check(&["default", "fallback"], &[("default", 84.2), ("fallback", 15.8), ("premium", 0.0)]);
        check(&["premium"], &[("default", 0.0), ("fallback", 0.0), ("premium", 100.0)]);
    }

    #[test]
    fn a_sticky_alias_binds_a_key_or_a_user_to_one_share() {
        let first = |sticky: Sticky, id: u64, user: Option<&str>, seed: u64| {
            let mut table = sample_table();
            table.aliases[0].sticky = sticky;
            let call = Call::new(
                Endpoint::Chat,
                Bytes::new(),
                RequestMetadata { user: user.map(Into::into), ..metadata("auto") },
            );
            let record = KeyRecord { name: format!("key-{id}").into(), ..(*key(pro(&table))).clone() };
            let authorized = authorize(&table, &record.into(), &call).expect("allowed");
            candidate_models(&table, &authorized, &call, false, RandomValue(seed).salted(5)).expect("a plan")[0].tier
        };
        // How many different shares 200 draws reach when the key, the user, or only the random value changes.
        let check = |sticky, user: Option<&str>, expected_one: bool| {
            let mut reached: Vec<_> = (0..200).map(|seed| first(sticky, 7, user, seed)).collect();
            reached.sort();
            reached.dedup();
            assert_eq!(reached.len() == 1, expected_one, "{sticky:?} with {user:?}: {reached:?}");
        };
        check(Sticky::None, Some("ann"), false);
        check(Sticky::Key, None, true);
        check(Sticky::Key, Some("ann"), true);
        check(Sticky::User, Some("ann"), true);
        check(Sticky::User, None, false);
        let spread = |by: &dyn Fn(u64) -> Option<TierId>| {
            let mut reached: Vec<_> = (0..200).map(by).collect();
            reached.sort();
            reached.dedup();
            reached.len()
        };
        assert_eq!(spread(&|n| first(Sticky::Key, n.wrapping_mul(0x9e37_79b9_7f4a_7c15), None, 1)), 3);
        assert_eq!(spread(&|n| first(Sticky::User, 7, Some(&format!("user {n}")), 1)), 3);
    }

    #[test]
    fn weights_draw_the_first_model_of_a_tier_and_a_chain_keeps_its_order() {
        let models: &[(&str, &[&str])] = &[("a", &["us"]), ("b", &["us"]), ("c", &["us"]), ("d", &["us"])];
        let tiers: &[(&str, &[&str], &[&str])] =
            &[("one", &["a:1", "b:3"], &["two"]), ("two", &["c:1", "d:9"], &["one"])];
        let table = table(models, tiers);
        let mut begun_with_b = 0_u32;
        for seed in 0..10_000 {
            let found =
                plan_text(&table, policy(&table, &["*"]), &chat("one"), RandomValue(seed).salted(2)).expect("a plan");
            match &*found {
                "one:b(us) one:a(us) two:c(us) two:d(us)" => begun_with_b += 1,
                "one:a(us) one:b(us) two:c(us) two:d(us)" => {}
                other => panic!("seed {seed}: {other}"),
            }
        }
        assert!((begun_with_b as f64 / 100.0 - 75.0).abs() <= 1.5, "{begun_with_b}");
        let named = plan_text(&table, policy(&table, &["*"]), &chat("a"), RandomValue(u64::MAX));
        assert_eq!(named, Ok("one:a(us) one:b(us) two:c(us) two:d(us)".to_owned()), "a named model is not drawn");
    }

    #[test]
    fn another_model_is_never_tried_where_it_may_not_answer() {
        let check =
            |endpoint: Endpoint, no_fallback: bool, regions: &[&str], name: &str, expected: Result<&str, Refusal>| {
                let mut table = sample_table();
                let all = EndpointSet::of(Endpoint::ALL);
                table.models.iter_mut().for_each(|model| model.endpoints = all);
                let call = Call::new(endpoint, Bytes::new(), metadata(name));
                let authorized = authorized(&table, within(&table, regions), &call);
                let found = candidate_models(&table, &authorized, &call, no_fallback, RandomValue(0))
                    .map(|candidate_models| show(&table, &candidate_models));
                assert_eq!(found, expected.map(str::to_owned), "{endpoint:?} {name} {no_fallback}");
            };
        let everywhere = ["us", "eu"];
        let unavailable = Err(Refusal::ResidencyUnavailable { model: "v3".into() });
        check(Endpoint::Chat, false, &everywhere, "flash", Ok("default:flash(us eu) fallback:qwen(us eu)"));
        check(Endpoint::Chat, true, &everywhere, "flash", Ok("default:flash(us eu)"));
        check(Endpoint::Chat, true, &everywhere, "premium", Ok("premium:kimi(us eu)"));
        check(Endpoint::Completions, false, &everywhere, "flash", Ok("default:flash(us eu) fallback:qwen(us eu)"));
        check(Endpoint::Embeddings, false, &everywhere, "flash", Ok("default:flash(us eu)"));
        // Nor where the named model itself has no deployment left.
        check(Endpoint::Chat, true, &["eu"], "v3", unavailable.clone());
        check(Endpoint::Embeddings, false, &["eu"], "v3", unavailable);
        check(Endpoint::Embeddings, false, &["eu"], "premium", Ok("premium:kimi(eu)"));
    }

    #[test]
    fn what_a_model_cannot_do_filters_the_plan() {
        let mut table = sample_table();
        let kimi = model_id(&table, "kimi");
        let flash = model_id(&table, "flash");
        table.models.iter_mut().for_each(|model| model.features = FeatureSet::default());
        table.models[kimi.index()].features = FeatureSet::of([Feature::Tools]);
        table.models[flash.index()].features = FeatureSet::of([Feature::Tools, Feature::Vision]);
        let check = |endpoint, features: &[Feature], name: &str, expected: Result<&str, &'static str>| {
            let features = FeatureSet::of(features.iter().copied());
            let metadata = RequestMetadata { features, ..metadata(name) };
            let found = plan_text(&table, pro(&table), &Call::new(endpoint, Bytes::new(), metadata), RandomValue(0));
            let refused = |what| Refusal::NotServed { model: name.into(), what, instead: Vec::new() };
            let found = found.map_err(|refusal| match refusal {
                Refusal::NotServed { model, what, .. } => Refusal::NotServed { model, what, instead: Vec::new() },
                other => other,
            });
            assert_eq!(found, expected.map(str::to_owned).map_err(refused), "{name} with {features:?}");
        };
        let (tools, vision, schema) = (Feature::Tools, Feature::Vision, Feature::JsonSchema);
        check(Endpoint::Chat, &[tools], "premium", Ok("premium:kimi(us eu) default:flash(us eu)"));
        check(Endpoint::Chat, &[tools, vision], "premium", Ok("default:flash(us eu)"));
        check(Endpoint::Chat, &[tools], "qwen", Ok("default:flash(us eu)"));
        check(Endpoint::Chat, &[schema], "qwen", Err("JSON schemas"));
        check(Endpoint::Chat, &[vision], "Pro/kimi", Err("images"));
        check(Endpoint::Embeddings, &[], "flash", Err("embeddings"));
        check(Endpoint::Completions, &[], "auto", Err("completions"));
    }

    #[test]
    fn a_refusal_names_what_the_requested_model_lacks() {
        let mut table = sample_table();
        let qwen = model_id(&table, "qwen");
        table.models[qwen.index()].features = FeatureSet::default();
        let metadata = RequestMetadata { features: FeatureSet::of([Feature::Tools]), ..metadata("qwen") };
        let call = Call::new(Endpoint::Chat, Bytes::new(), metadata);
        // `flash`, one step down, has tools and is out of reach.
        let found = plan_text(&table, within(&table, &[]), &call, RandomValue(0));
        assert_eq!(found, Err(Refusal::NotServed { model: "qwen".into(), what: "tools", instead: Vec::new() }));
    }

    #[test]
    fn a_refusal_names_models_that_the_key_may_use_and_that_serve_the_call() {
        let mut table = sample_table();
        for model in ["kimi", "v3", "solo"] {
            let model = model_id(&table, model);
            table.models[model.index()].endpoints = EndpointSet::of([Endpoint::Messages]);
        }
        // The model serves it, and no provider of it does.
        let v3 = model_id(&table, "v3");
        let of_v3 = table.deployments.iter_mut().filter(|deployment| deployment.model == v3);
        of_v3.for_each(|deployment| deployment.endpoints = EndpointSet::of_dialect(Dialect::Chat));
        let check = |policy: Policy, endpoint, name: &str, expected: Result<&str, &[&str]>| {
            let call = Call::new(endpoint, Bytes::new(), metadata(name));
            let found = plan_text(&table, policy, &call, RandomValue(0)).map_err(|refusal| match refusal {
                Refusal::NotServed { what, instead, .. } => (what, instead),
                other => panic!("{other:?}"),
            });
            let names = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect();
            assert_eq!(
                found,
                expected.map(str::to_owned).map_err(|instead| (endpoint.words(), names(instead))),
                "{name}"
            );
        };
        check(pro(&table), Endpoint::Messages, "flash", Err(&["kimi"]));
        check(pro(&table), Endpoint::CountTokens, "kimi", Ok("premium:kimi(us eu)"));
        check(policy(&table, &["default"]), Endpoint::Messages, "flash", Err(&[]));
        let patterns = || Policy { models: vec![Glob::new("*")], ..policy(&table, &["default"]) };
        check(patterns(), Endpoint::Messages, "flash", Err(&["kimi", "solo"]));
        check(patterns(), Endpoint::Messages, "v3", Err(&["kimi", "solo"]));
        check(patterns(), Endpoint::Chat, "kimi", Err(&["flash", "qwen"]));
    }

    #[test]
    fn a_share_without_deployments_is_spread_over_the_others() {
        let split: &[(&str, u32)] = &[("solo", 80), ("default", 15), ("fallback", 5)];
        let table = with_alias(sample_table(), "mix", split, Sticky::None);
        let call = chat("mix");
        let within_us = Policy { models: vec![Glob::new("*")], ..within(&table, &["us"]) };
        let authorized = authorized(&table, within_us, &call);
        let first = |seed| {
            candidate_models(&table, &authorized, &call, false, RandomValue(seed).salted(4)).expect("a plan")[0].tier
        };
        let fallback = (0..10_000).filter(|seed| first(*seed) == Some(TierId(1))).count();
        assert!((fallback as f64 / 100.0 - 25.0).abs() <= 1.5, "{fallback}");
    }

    #[test]
    fn a_tier_without_shared_capacity_is_not_refused_for_residency() {
        let table = table(&[("vip", &["us!"])], &[("top", &["vip"], &[])]);
        let found = plan_text(&table, pro(&table), &chat("top"), RandomValue(0));
        assert_eq!(found, Err(Refusal::NotServed { model: "top".into(), what: PLAIN_NAMES, instead: Vec::new() }));
    }
}
