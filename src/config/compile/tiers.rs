//! Tiers, aliases, and what each name stands for.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::raw::{self, Raw};
use super::super::reader::{Diagnostics, Located};
use super::super::value::Name;
use super::{number, report_unknown};
use crate::domain::id::{ModelId, TierId};
use crate::domain::routing::table::{Alias, Model, RESERVED_PREFIX, Target, Tier};

/// The weight of a model beside others that were given one.
const DEFAULT_WEIGHT: u32 = 1;

/// Every tier, in file order.
pub(super) fn tiers(diagnostics: &Diagnostics<'_>, raw: &Raw, models: &[Model]) -> Vec<Tier> {
    let tier = |tier: &raw::Tier| Tier {
        name: tier.name.value.as_str().into(),
        models: tier_models(diagnostics, raw, models, tier),
        drawn: tier.models.iter().any(|model| model.weight.is_some()),
        then: chain(diagnostics, raw, tier),
    };
    raw.tiers.iter().map(tier).collect()
}

fn tier_models(diagnostics: &Diagnostics<'_>, raw: &Raw, models: &[Model], tier: &raw::Tier) -> Vec<(ModelId, u32)> {
    let mut found: Vec<(ModelId, u32)> = Vec::new();
    for written in &tier.models {
        let Some(name) = &written.name else { continue };
        let Some(id) = find_model(raw, &name.value.0) else {
            report_no_model(diagnostics, raw, name);
            continue;
        };
        if found.iter().any(|(known, _)| *known == id) {
            let message = "this model is in the tier twice".to_owned();
            diagnostics.report_at(name, message, "remove one of the two".to_owned());
            continue;
        }
        let model = &models[id.index()];
        if model.shared.is_empty() && !model.dedicated.is_empty() {
            let message = "this model has only dedicated capacity, which no tier uses".to_owned();
            diagnostics.report_at(name, message, "give it a shared deployment".to_owned());
        }
        let weight = written.weight.as_ref().map_or(DEFAULT_WEIGHT, |weight| weight.value.get());
        found.push((id, weight));
    }
    found
}

fn report_no_model(diagnostics: &Diagnostics<'_>, raw: &Raw, name: &Located<Name>) {
    let plain = name.value.0.strip_prefix(RESERVED_PREFIX);
    if plain.is_some_and(|plain| find_model(raw, plain).is_some()) {
        let message = format!("`{RESERVED_PREFIX}` names are not part of tiers");
        diagnostics.report_at(name, message, "write the name without it".to_owned());
        return;
    }
    let names = raw.models.iter().map(|model| model.name.value.as_str());
    report_unknown(diagnostics, name, &name.value.0, "model", names);
}

fn chain(diagnostics: &Diagnostics<'_>, raw: &Raw, tier: &raw::Tier) -> Vec<TierId> {
    let mut found = Vec::new();
    for name in &tier.then {
        let Some(id) = find_tier(raw, &name.value.0) else {
            let names = raw.tiers.iter().map(|tier| tier.name.value.as_str());
            report_unknown(diagnostics, name, &name.value.0, "tier", names);
            continue;
        };
        if name.value.0 == tier.name.value {
            let message = "a tier may not step down to itself".to_owned();
            diagnostics.report_at(name, message, "remove it from `then`".to_owned());
        } else if found.contains(&id) {
            let message = "this tier is in `then` twice".to_owned();
            diagnostics.report_at(name, message, "remove one of the two".to_owned());
        } else {
            found.push(id);
        }
    }
    found
}

/// Every alias, in file order.
pub(super) fn aliases(diagnostics: &Diagnostics<'_>, raw: &Raw) -> Vec<Alias> {
    let alias = |alias: &raw::Alias| Alias {
        name: alias.name.value.as_str().into(),
        split: split(diagnostics, raw, alias),
        sticky: alias.sticky.value,
    };
    raw.aliases.iter().map(alias).collect()
}

fn split(diagnostics: &Diagnostics<'_>, raw: &Raw, alias: &raw::Alias) -> Vec<(Target, u32)> {
    let mut found = Vec::new();
    for (name, share) in &alias.split {
        let model = find_model(raw, &name.value).map(Target::Model);
        match model.or_else(|| find_tier(raw, &name.value).map(Target::Tier)) {
            Some(target) => found.push((target, share.value.get())),
            None if raw.aliases.iter().any(|other| other.name.value == name.value) => {
                let message = "an alias may not split over aliases".to_owned();
                diagnostics.report_at(name, message, "name tiers or models".to_owned());
            }
            None => {
                let tiers = raw.tiers.iter().map(|tier| tier.name.value.as_str());
                let models = raw.models.iter().map(|model| model.name.value.as_str());
                report_unknown(diagnostics, name, &name.value, "tier or model", tiers.chain(models));
            }
        }
    }
    found
}

/// What each name stands for: a model before an alias before a tier.
pub(super) fn names(diagnostics: &Diagnostics<'_>, raw: &Raw) -> HashMap<Arc<str>, Target> {
    let mut names: HashMap<Arc<str>, (Target, &'static str)> = HashMap::new();
    let mut add = |name: &Located<String>, target, kind| {
        if let Some((_, holder)) = names.get(name.value.as_str()) {
            let message = format!("clients could never ask for this {kind}");
            let hint = format!("a {holder} has the same name and is looked up first: rename one");
            diagnostics.report_at(name, message, hint);
            return;
        }
        names.insert(name.value.as_str().into(), (target, kind));
    };
    for (index, model) in raw.models.iter().enumerate() {
        add(&model.name, Target::Model(number(index, ModelId)), "model");
    }
    for (index, alias) in raw.aliases.iter().enumerate() {
        add(&alias.name, Target::Alias(index), "alias");
    }
    for (index, tier) in raw.tiers.iter().enumerate() {
        add(&tier.name, Target::Tier(number(index, TierId)), "tier");
    }
    names.into_iter().map(|(name, (target, _))| (name, target)).collect()
}

fn find_model(raw: &Raw, name: &str) -> Option<ModelId> {
    let at = raw.models.iter().position(|model| model.name.value == name)?;
    Some(number(at, ModelId))
}

fn find_tier(raw: &Raw, name: &str) -> Option<TierId> {
    let at = raw.tiers.iter().position(|tier| tier.name.value == name)?;
    Some(number(at, TierId))
}
