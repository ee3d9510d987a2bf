//! Explains one request: the routes it may take, and why every other deployment is not among them.
//!
//! It exists so that an operator can check before a client asks. Candidate models and reasons come from the
//! same plan builder that serves requests; nothing here may decide anything. It knows nothing of health,
//! load or limits, which change from moment to moment.
//!
//! Start reading in [`explain`].

use crate::domain::authorize::AuthorizedRequest;
use crate::domain::call::Call;
use crate::domain::id::{DeploymentId, ModelId};
use crate::domain::policy::ResolvedName;
use crate::domain::refusal::Refusal;
use crate::domain::routing::builder::{CandidateModel, ExclusionReason, PlanBuilder, why_nothing};
use crate::domain::routing::table::{RoutingTable, Target};

/// The explanation of one request.
#[derive(Clone, PartialEq, Debug)]
pub struct RouteExplanation {
    /// The routes it may take, several only for an alias; or the refusal that the client gets.
    pub routes: Result<Vec<PossibleRoute>, Refusal>,
    /// The index of the route that every request like this one takes, where the alias is sticky for it.
    pub bound: Option<usize>,
    /// Every deployment that is on none of the routes, in file order.
    pub passed_over: Vec<(DeploymentId, ExclusionReason)>,
}

/// One route that a request may take.
#[derive(Clone, PartialEq, Debug)]
pub struct PossibleRoute {
    /// Its first target: what was requested, or a part of the alias.
    pub begins: Target,
    /// Its weight among the routes.
    pub weight: u32,
    /// The models of which one is drawn by weight to be the first; empty where the order is fixed.
    pub drawn: Vec<(ModelId, u32)>,
    /// In the order in which they are tried.
    pub candidate_models: Vec<CandidateModel>,
}

/// Explains `call`.
pub fn explain(
    table: &RoutingTable,
    authorized: &AuthorizedRequest,
    call: &Call,
    no_fallback: bool,
) -> RouteExplanation {
    let mut reasons: Vec<Option<ExclusionReason>> = vec![None; table.deployments.len()];
    let note = |passed: &[DeploymentId], why| passed.iter().for_each(|id| _ = reasons[id.index()].get_or_insert(why));
    let mut builder = PlanBuilder::new(table, authorized, call, no_fallback, note);
    let alias = match authorized.requested() {
        ResolvedName::Plain(Target::Alias(index)) => Some(&table.aliases[index]),
        ResolvedName::Plain(_) | ResolvedName::Reserved(_) => None,
    };
    let routes: Vec<PossibleRoute> = match (authorized.requested(), alias) {
        (ResolvedName::Reserved(model), _) => {
            let candidate_models = builder.by_reserved(model);
            vec![PossibleRoute { begins: Target::Model(model), weight: 1, drawn: Vec::new(), candidate_models }]
        }
        (ResolvedName::Plain(_), Some(alias)) => {
            builder.shares(alias).into_iter().map(|share| route(&mut builder, share)).collect()
        }
        (ResolvedName::Plain(part), None) => vec![route(&mut builder, (part, 1))],
    };
    let routes: Vec<PossibleRoute> = routes.into_iter().filter(|route| !route.candidate_models.is_empty()).collect();
    let shares: Vec<(Target, u32)> = routes.iter().map(|route| (route.begins, route.weight)).collect();
    let bound = alias.and_then(|alias| builder.bound(alias, &shares));
    let used = |id: DeploymentId| {
        routes.iter().flat_map(|route| &route.candidate_models).any(|candidate| candidate.deployments.contains(&id))
    };
    let passed_over = table.deployment_ids().filter(|id| !used(*id));
    let passed_over = passed_over.map(|id| (id, reasons[id.index()].unwrap_or(ExclusionReason::Unreached))).collect();
    let routes = if routes.is_empty() { Err(why_nothing(table, authorized, call, no_fallback)) } else { Ok(routes) };
    RouteExplanation { routes, bound, passed_over }
}

fn route<N: FnMut(&[DeploymentId], ExclusionReason)>(
    builder: &mut PlanBuilder<'_, N>,
    (begins, weight): (Target, u32),
) -> PossibleRoute {
    let drawn = match begins {
        Target::Tier(tier) => builder.drawn(tier),
        Target::Model(_) | Target::Alias(_) => Vec::new(),
    };
    PossibleRoute { begins, weight, drawn, candidate_models: builder.by_part(begins, None) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::call::{Endpoint, EndpointSet, FeatureSet, RequestMetadata};
    use crate::domain::glob::Glob;
    use crate::domain::id::TierId;
    use crate::domain::policy::Policy;
    use crate::domain::random::RandomValue;
    use crate::domain::routing::builder::candidate_models;
    use crate::domain::routing::fixture::{authorized, chat, metadata, model_id, policy, residency, table, with_alias};
    use crate::domain::routing::table::Sticky;
    use bytes::Bytes;

    fn sample_table() -> RoutingTable {
        let models: &[(&str, &[&str])] =
            &[("flash", &["us", "eu"]), ("qwen", &["us"]), ("kimi", &["us", "eu!"]), ("solo", &["eu"])];
        let tiers: &[(&str, &[&str], &[&str])] = &[
            ("default", &["flash"], &["fallback"]),
            ("fallback", &["qwen"], &["default"]),
            ("premium", &["kimi:3", "flash:1"], &["fallback"]),
        ];
        let split: &[(&str, u32)] = &[("default", 80), ("fallback", 15), ("premium", 5)];
        with_alias(table(models, tiers), "auto", split, Sticky::None)
    }

    fn everything(table: &RoutingTable) -> Policy {
        Policy { reserved: true, models: vec![Glob::new("*")], ..policy(table, &["*"]) }
    }

    /// `deployment: reason` for each that was passed over.
    fn passed_over(table: &RoutingTable, policy: Policy, call: &Call, no_fallback: bool) -> Vec<String> {
        let found = explain(table, &authorized(table, policy, call), call, no_fallback);
        let one = |(id, why): &(DeploymentId, ExclusionReason)| format!("{}: {why:?}", table.deployment(*id).name);
        found.passed_over.iter().map(one).collect()
    }

    #[test]
    fn every_deployment_outside_the_plan_has_a_reason() {
        let table = sample_table();
        let check = |policy: Policy, call: &Call, no_fallback: bool, expected: &[&str]| {
            assert_eq!(passed_over(&table, policy, call, no_fallback), expected, "{}", call.metadata().model);
        };
        let all = everything(&table);
        let kimi = "us/kimi: Unreached";
        let reserved = "eu/Pro/kimi: Unreached";
        let solo = "eu/solo: Unreached";
        check(all.clone(), &chat("flash"), false, &[kimi, reserved, solo]);
        check(all.clone(), &chat("flash"), true, &["us/qwen: OtherModel", kimi, reserved, solo]);
        check(all.clone(), &chat("premium"), false, &["eu/Pro/kimi: Dedicated", solo]);
        let others = ["us/flash: Unreached", "eu/flash: Unreached", "us/qwen: Unreached"];
        check(all.clone(), &chat("Pro/kimi"), false, &[&others[..], &["us/kimi: Shared", solo]].concat());
        let within_eu = Policy { residency: residency(&table, &["eu"]), ..all };
        let outside = ["us/flash: OutsideResidency", "us/qwen: OutsideResidency"];
        check(within_eu, &chat("flash"), false, &[&outside[..], &[kimi, reserved, solo]].concat());
        let forbidden = "us/qwen: Forbidden(Tier(TierId(1)))";
        check(policy(&table, &["default"]), &chat("flash"), false, &[forbidden, kimi, reserved, solo]);
    }

    #[test]
    fn embeddings_and_missing_features_have_different_reasons() {
        let mut table = sample_table();
        let flash = model_id(&table, "flash");
        table.models[flash.index()].endpoints = EndpointSet::of([Endpoint::Chat, Endpoint::Embeddings]);
        let call = Call::new(Endpoint::Embeddings, Bytes::new(), metadata("premium"));
        let found = passed_over(&table, everything(&table), &call, false);
        let lacking = "NotServed(\"embeddings\")";
        let expected = ["us/qwen: OtherModel".to_owned(), format!("us/kimi: {lacking}")];
        assert_eq!(found[..2], expected);
        let metadata = RequestMetadata { features: FeatureSet::all(), ..metadata("qwen") };
        table.models.iter_mut().for_each(|model| model.features = FeatureSet::default());
        let call = Call::new(Endpoint::Chat, Bytes::new(), metadata);
        let found = explain(&table, &authorized(&table, everything(&table), &call), &call, false);
        assert_eq!(found.routes, Err(Refusal::NotServed { model: "qwen".into(), what: "tools", instead: Vec::new() }));
        assert_eq!(found.passed_over.len(), table.deployments.len());
    }

    #[test]
    fn only_shares_with_deployments_are_listed() {
        let table = sample_table();
        let check = |policy: Policy, expected: &[(&str, u32)]| {
            let call = chat("auto");
            let found = explain(&table, &authorized(&table, policy, &call), &call, false);
            let routes = found.routes.expect("a plan");
            let found: Vec<(&str, u32)> =
                routes.iter().map(|route| (&**table.target_name(route.begins), route.weight)).collect();
            assert_eq!(found, expected);
        };
        check(everything(&table), &[("default", 80), ("fallback", 15), ("premium", 5)]);
        check(policy(&table, &["default", "premium"]), &[("default", 80), ("premium", 5)]);
        let eu = Policy { residency: residency(&table, &["eu"]), ..policy(&table, &["fallback", "premium"]) };
        check(eu, &[("premium", 5)]);
    }

    /// Whether `found` is this route, up to the order of a drawn first model.
    fn is_explained(route: &PossibleRoute, found: &[CandidateModel]) -> bool {
        let (mut explained, mut found) = (route.candidate_models.clone(), found.to_vec());
        if !route.drawn.is_empty() {
            explained.sort_by_key(|candidate| candidate.model);
            found.sort_by_key(|candidate| candidate.model);
        }
        explained == found
    }

    /// Every plan that is built was among the explained routes.
    #[test]
    fn no_request_takes_a_route_that_was_not_explained() {
        for sticky in [Sticky::None, Sticky::Key, Sticky::User] {
            let mut table = sample_table();
            table.aliases[0].sticky = sticky;
            for name in ["auto", "premium", "flash", "Pro/kimi", "solo"] {
                let call = Call::new(
                    Endpoint::Chat,
                    Bytes::new(),
                    RequestMetadata { user: Some("ann".into()), ..metadata(name) },
                );
                let authorized = authorized(&table, everything(&table), &call);
                let explained = explain(&table, &authorized, &call, false);
                let routes = explained.routes.expect("a plan");
                for seed in 0..300 {
                    let found = candidate_models(&table, &authorized, &call, false, RandomValue(seed)).expect("a plan");
                    let route = routes.iter().position(|route| is_explained(route, &found));
                    assert!(route.is_some(), "{name} {sticky:?}, seed {seed}: {found:?}");
                    if explained.bound.is_some() {
                        assert_eq!(route, explained.bound, "{name} {sticky:?}, seed {seed}");
                    }
                }
                assert_eq!(explained.bound.is_some(), name == "auto" && sticky != Sticky::None, "{name} {sticky:?}");
            }
        }
    }

    #[test]
    fn the_weights_of_a_drawn_tier_are_listed() {
        let table = sample_table();
        let call = chat("premium");
        let found = explain(&table, &authorized(&table, everything(&table), &call), &call, false);
        let route = &found.routes.expect("a plan")[0];
        assert_eq!(route.begins, Target::Tier(TierId(2)));
        assert_eq!(route.drawn, [(model_id(&table, "kimi"), 3), (model_id(&table, "flash"), 1)]);
    }
}
