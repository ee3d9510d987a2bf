//! Authorization: which key may ask for which model.
//!
//! It exists so that permission is decided in one pure step: [`authorize`] takes a key's record, the
//! call and the table and returns an [`AuthorizedRequest`] or a [`Refusal`]. Holding an
//! `AuthorizedRequest` is the proof; no later module checks again. It must never look a key up or
//! compare secrets.
//!
//! Start reading in [`authorize`].

use crate::domain::call::Call;
use crate::domain::nearest::nearest;
use crate::domain::policy::{KeyRecord, Policy, ResolvedName, resolve};
use crate::domain::refusal::Refusal;
use crate::domain::routing::table::RoutingTable;
use std::sync::Arc;

/// Proof that a key may make this call.
#[derive(Clone, Debug)]
pub struct AuthorizedRequest {
    key: Arc<KeyRecord>,
    requested: ResolvedName,
    is_paid: bool,
}

impl AuthorizedRequest {
    /// The same, where a budget or credit pays for it if `is_paid`.
    #[must_use]
    pub fn paid(self, is_paid: bool) -> Self {
        Self { is_paid, ..self }
    }

    /// Whether a budget or credit pays for it.
    pub fn is_paid(&self) -> bool {
        self.is_paid
    }

    /// The key that makes the request.
    pub fn key(&self) -> &Arc<KeyRecord> {
        &self.key
    }

    /// What the name it asks for resolves to.
    pub fn requested(&self) -> ResolvedName {
        self.requested
    }
}

/// Decides whether `key` may make `call`.
///
/// # Errors
/// [`Refusal::ModelNotFound`] with the nearest usable names, or [`Refusal::ModelNotAllowed`]; where it names no model,
/// [`Refusal::NotServed`] if the key has none for it.
pub fn authorize(table: &RoutingTable, key: &Arc<KeyRecord>, call: &Call) -> Result<AuthorizedRequest, Refusal> {
    let name = &*call.metadata().model;
    let none = || Refusal::NotServed { model: "".into(), what: call.endpoint().words(), instead: Vec::new() };
    let requested = match name {
        "" => key.policy.first_serving(table, call.endpoint()).ok_or_else(none),
        name => resolve(table, name).ok_or_else(|| not_found(table, &key.policy, name)),
    }?;
    let allowed = match requested {
        ResolvedName::Plain(target) => key.policy.allows(table, target),
        ResolvedName::Reserved(model) => key.policy.reserved && key.policy.allows_model(table, model),
    };
    if !allowed {
        return Err(Refusal::ModelNotAllowed { model: name.into() });
    }
    Ok(AuthorizedRequest { key: key.clone(), requested, is_paid: false })
}

fn not_found(table: &RoutingTable, policy: &Policy, requested: &str) -> Refusal {
    let usable = policy.usable_names(table).into_iter().map(|(name, _)| name).collect();
    Refusal::ModelNotFound { model: requested.into(), nearest: nearest(requested, usable) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::call::{Endpoint, EndpointSet, RequestMetadata};
    use crate::domain::glob::Glob;
    use crate::domain::id::TierId;
    use crate::domain::policy::is_valid;
    use crate::domain::routing::fixture::{chat, key, model_id, policy, residency, table, with_alias};
    use crate::domain::routing::table::Sticky;
    use crate::domain::routing::table::Target;
    use bytes::Bytes;

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
    fn what_names_no_model_means_the_first_that_serves_it() {
        let mut table = sample_table();
        let call = || Call::new(Endpoint::Conversations, Bytes::new(), RequestMetadata::without_model());
        let serve = |table: &mut RoutingTable, names: &[&str]| {
            for model in &mut table.models {
                let endpoint = if names.contains(&&*model.name) { Endpoint::Responses } else { Endpoint::Chat };
                model.endpoints = EndpointSet::of([endpoint]);
            }
        };
        let check = |table: &RoutingTable, policy: Policy, expected: Option<ResolvedName>| {
            let found = authorize(table, &key(policy), &call()).map(|authorized| authorized.requested());
            let what = Endpoint::Conversations.words();
            let none = Refusal::NotServed { model: "".into(), what, instead: Vec::new() };
            assert_eq!(found, expected.ok_or(none));
        };
        let tier = |id| Some(ResolvedName::Plain(Target::Tier(TierId(id))));
        let with_solo = |table: &RoutingTable| Policy { models: vec![Glob::new("so*")], ..standard(table) };
        serve(&mut table, &["deepseek/flash", "kimi", "solo", "vip"]);
        check(&table, pro(&table), tier(0));
        check(&table, policy(&table, &["premium"]), tier(1));
        check(&table, policy(&table, &[]), None);
        serve(&mut table, &["kimi", "solo", "vip"]);
        check(&table, pro(&table), tier(1));
        check(&table, standard(&table), None);
        let solo = model_id(&table, "solo");
        check(&table, with_solo(&table), Some(ResolvedName::Plain(Target::Model(solo))));
        check(&table, Policy { residency: residency(&table, &["eu"]), ..with_solo(&table) }, None);
        serve(&mut table, &["vip"]);
        let vip = model_id(&table, "vip");
        check(&table, pro(&table), Some(ResolvedName::Reserved(vip)));
        check(&table, Policy { reserved: false, ..pro(&table) }, None);
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
