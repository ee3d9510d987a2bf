//! Tiers, aliases, and the target of each name.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::reader::{Diagnostics, Setting};
use super::super::sections::{AliasSection, ConfigFile, TierSection};
use super::super::value::Name;
use super::{number, report_unknown};
use crate::domain::id::{ModelId, TierId};
use crate::domain::routing::table::{Alias, Model, RESERVED_PREFIX, Target, Tier};

/// The weight of a model beside others that were given one.
const DEFAULT_WEIGHT: u32 = 1;

/// Every tier, in file order.
pub(super) fn tiers(diagnostics: &Diagnostics<'_>, file: &ConfigFile, models: &[Model]) -> Vec<Tier> {
    let tier = |tier: &TierSection| Tier {
        name: tier.name.value.as_str().into(),
        models: tier_models(diagnostics, file, models, tier),
        drawn: tier.models.iter().any(|model| model.weight.is_some()),
        then: chain(diagnostics, file, tier),
    };
    file.tiers.iter().map(tier).collect()
}

fn tier_models(
    diagnostics: &Diagnostics<'_>,
    file: &ConfigFile,
    models: &[Model],
    tier: &TierSection,
) -> Vec<(ModelId, u32)> {
    let mut found: Vec<(ModelId, u32)> = Vec::new();
    for written in &tier.models {
        let Some(name) = &written.name else { continue };
        let Some(id) = find_model(file, &name.value.0) else {
            report_no_model(diagnostics, file, name);
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

fn report_no_model(diagnostics: &Diagnostics<'_>, file: &ConfigFile, name: &Setting<Name>) {
    let plain = name.value.0.strip_prefix(RESERVED_PREFIX);
    if plain.is_some_and(|plain| find_model(file, plain).is_some()) {
        let message = format!("`{RESERVED_PREFIX}` names are not part of tiers");
        diagnostics.report_at(name, message, "write the name without it".to_owned());
        return;
    }
    let names = file.models.iter().map(|model| model.name.value.as_str());
    report_unknown(diagnostics, name, &name.value.0, "model", names);
}

fn chain(diagnostics: &Diagnostics<'_>, file: &ConfigFile, tier: &TierSection) -> Vec<TierId> {
    let mut found = Vec::new();
    for name in tier.then.iter().flatten() {
        let Some(id) = find_tier(file, &name.value.0) else {
            let names = file.tiers.iter().map(|tier| tier.name.value.as_str());
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
pub(super) fn aliases(diagnostics: &Diagnostics<'_>, file: &ConfigFile) -> Vec<Alias> {
    let alias = |alias: &AliasSection| Alias {
        name: alias.name.value.as_str().into(),
        split: split(diagnostics, file, alias),
        sticky: alias.sticky.value,
    };
    file.aliases.iter().map(alias).collect()
}

fn split(diagnostics: &Diagnostics<'_>, file: &ConfigFile, alias: &AliasSection) -> Vec<(Target, u32)> {
    let mut found = Vec::new();
    for (name, share) in &alias.split {
        let model = find_model(file, &name.value).map(Target::Model);
        match model.or_else(|| find_tier(file, &name.value).map(Target::Tier)) {
            Some(target) => found.push((target, share.value.get())),
            None if file.aliases.iter().any(|other| other.name.value == name.value) => {
                let message = "an alias may not split over aliases".to_owned();
                diagnostics.report_at(name, message, "name tiers or models".to_owned());
            }
            None => {
                let tiers = file.tiers.iter().map(|tier| tier.name.value.as_str());
                let models = file.models.iter().map(|model| model.name.value.as_str());
                report_unknown(diagnostics, name, &name.value, "tier or model", tiers.chain(models));
            }
        }
    }
    found
}

/// The target of each name: a model before an alias before a tier.
pub(super) fn names(diagnostics: &Diagnostics<'_>, file: &ConfigFile) -> HashMap<Arc<str>, Target> {
    let mut names: HashMap<Arc<str>, (Target, &'static str)> = HashMap::new();
    let mut add = |name: &Setting<String>, target, kind| {
        if let Some((_, holder)) = names.get(name.value.as_str()) {
            let message = format!("clients could never ask for this {kind}");
            let hint = format!("a {holder} has the same name and is looked up first: rename one");
            diagnostics.report_at(name, message, hint);
            return;
        }
        names.insert(name.value.as_str().into(), (target, kind));
    };
    for (index, model) in file.models.iter().enumerate() {
        add(&model.name, Target::Model(number(index, ModelId)), "model");
    }
    for (index, alias) in file.aliases.iter().enumerate() {
        add(&alias.name, Target::Alias(index), "alias");
    }
    for (index, tier) in file.tiers.iter().enumerate() {
        add(&tier.name, Target::Tier(number(index, TierId)), "tier");
    }
    names.into_iter().map(|(name, (target, _))| (name, target)).collect()
}

fn find_model(file: &ConfigFile, name: &str) -> Option<ModelId> {
    let at = file.models.iter().position(|model| model.name.value == name)?;
    Some(number(at, ModelId))
}

fn find_tier(file: &ConfigFile, name: &str) -> Option<TierId> {
    let at = file.tiers.iter().position(|tier| tier.name.value == name)?;
    Some(number(at, TierId))
}
