//! The names that clients may write as `model`, as `GET /v1/models` and `tierway models` list them.
//!
//! Start reading at [`listed_model`].

use crate::domain::id::{DeploymentId, ModelId, RegionId};
use crate::domain::policy::ResolvedName;
use crate::domain::pricing::Price;
use crate::domain::routing::table::{Model, RoutingTable, Target};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A model, alias or tier that a key may use.
#[derive(Clone, Debug)]
pub struct ListedModel {
    /// The name to use as `model`.
    pub name: Arc<str>,
    /// Its price, and the day of the price catalogue that it is from; `None` for aliases and tiers, and where no price
    /// is known.
    pub price: Option<(Price, Option<Arc<str>>)>,
    /// The maximum of input and output together, in tokens, where known.
    pub context: Option<u64>,
    /// The regions that this key's requests for it may be sent to, sorted.
    pub regions: Vec<Arc<str>>,
}

/// The name that `requested` is in `table`, with the price at `now_ms` (Unix milliseconds), and those regions of its
/// deployments that are allowed.
pub fn listed_model(
    table: &RoutingTable,
    name: Arc<str>,
    requested: ResolvedName,
    now_ms: i64,
    allows_region: impl Fn(RegionId) -> bool,
) -> ListedModel {
    let model = match requested {
        ResolvedName::Reserved(model) | ResolvedName::Plain(Target::Model(model)) => Some(table.model(model)),
        ResolvedName::Plain(Target::Alias(_) | Target::Tier(_)) => None,
    };
    let mut deployments = Vec::new();
    deployments_of(table, requested, &mut deployments);
    let regions: BTreeSet<_> = deployments
        .into_iter()
        .map(|id| table.deployment(id).region)
        .filter(|region| allows_region(*region))
        .map(|region| table.region(region).clone())
        .collect();
    ListedModel {
        name,
        price: model.and_then(|model| listed_price(table, model, now_ms)),
        context: model.and_then(|model| model.context),
        regions: regions.into_iter().collect(),
    }
}

fn deployments_of(table: &RoutingTable, requested: ResolvedName, into: &mut Vec<DeploymentId>) {
    let shared = |model: ModelId| {
        let lent = table.model(model).dedicated.iter().filter(|id| table.deployment(**id).lend);
        table.model(model).shared.iter().chain(lent).copied()
    };
    match requested {
        ResolvedName::Reserved(model) => into.extend(&table.model(model).dedicated),
        ResolvedName::Plain(Target::Model(model)) => into.extend(shared(model)),
        ResolvedName::Plain(Target::Tier(tier)) => {
            into.extend(table.tier(tier).models.iter().flat_map(|(model, _)| shared(*model)));
        }
        ResolvedName::Plain(Target::Alias(alias)) => {
            for (part, _) in &table.aliases[alias].split {
                deployments_of(table, ResolvedName::Plain(*part), into);
            }
        }
    }
}

/// The price of `model` as clients see it: its own, else the highest that its deployments have of the price catalogue.
fn listed_price(table: &RoutingTable, model: &Model, now_ms: i64) -> Option<(Price, Option<Arc<str>>)> {
    if let Some(prices) = &model.price {
        return Some((prices.at(now_ms).price, None));
    }
    let own = model.shared.iter().chain(&model.dedicated).filter_map(|id| table.deployment(*id).price.as_ref());
    let of_catalogue = own.filter_map(|prices| Some((prices.at(now_ms).price, Some(prices.catalogue()?.clone()))));
    of_catalogue.max_by_key(|(price, _)| price.input.0.saturating_add(price.output.0))
}
