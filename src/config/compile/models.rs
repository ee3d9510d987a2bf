//! Models and the deployments that serve them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::super::catalogue::PriceCatalogue;
use super::super::reader::Diagnostics;
use super::super::sections::{ConfigFile, DeploymentSection, ModelSection, PriceAboveSection, PriceSection};
use super::super::settings::ProtocolName;
use super::fallback::{CatalogueUse, fill, report_catalogue};
use super::{RegionNumbers, number, provider_region, report_unknown};
use crate::domain::call::{Dialect, Endpoint, EndpointSet, FeatureSet};
use crate::domain::id::{DeploymentId, ModelId, ProviderId};
use crate::domain::pricing::{Price, PriceVersion, Prices};
use crate::domain::routing::table::{Capacity, Deployment, Model, RESERVED_PREFIX};
use crate::domain::usage::TokenClass;

/// Every model in file order, every deployment grouped by model, and what they have of the price catalogue.
pub(super) fn models(
    diagnostics: &Diagnostics<'_>,
    file: &ConfigFile,
    catalogue: &PriceCatalogue,
    regions: &RegionNumbers,
) -> (Vec<Model>, Vec<Deployment>, CatalogueUse) {
    let mut used = CatalogueUse::of(catalogue);
    let mut deployments = Vec::new();
    let mut names = HashMap::new();
    let compiled = file.models.iter().enumerate().map(|(index, model)| {
        let from = deployments.len();
        for written in &model.deployments {
            let id = number(index, ModelId);
            let Some(deployment) = deployment(diagnostics, file, regions, model, id, written) else {
                continue;
            };
            report_if_duplicate(diagnostics, &mut names, written, &deployment);
            deployments.push(deployment);
        }
        let mut compiled = compiled_model(diagnostics, file, model, &deployments, from);
        if let Err(error) = fill(catalogue, file, &mut compiled, &mut deployments[from..], &mut used) {
            report_catalogue(diagnostics, catalogue.file().unwrap_or(Path::new("")), &error);
        }
        compiled
    });
    let compiled = compiled.collect();
    (compiled, deployments, used)
}

fn compiled_model(
    diagnostics: &Diagnostics<'_>,
    file: &ConfigFile,
    model: &ModelSection,
    deployments: &[Deployment],
    from: usize,
) -> Model {
    if let (Some(context), Some(max_output)) = (&model.context, &model.max_output)
        && max_output.value > context.value
    {
        let message = "is more than `context`, which holds input and output together".to_owned();
        diagnostics.report_at(max_output, message, "write a smaller number".to_owned());
    }
    let with = |capacity| {
        let own = deployments.iter().enumerate().skip(from);
        own.filter(move |(_, deployment)| deployment.capacity == capacity)
            .map(|(index, _)| number(index, DeploymentId))
            .collect()
    };
    let routing = &file.routing;
    Model {
        name: model.name.value.as_str().into(),
        price: model.price.as_deref().and_then(prices),
        context: model.context.as_ref().map(|tokens| tokens.value.get()),
        max_output: model.max_output.as_ref().map(|tokens| tokens.value.get()),
        typical_output: model.typical_output.value.get(),
        image_tokens: None,
        endpoints: served_endpoints(diagnostics, file, model, &deployments[from..]),
        features: match &model.features {
            Some(features) => FeatureSet::of(features.iter().map(|feature| feature.value)),
            None => FeatureSet::all(),
        },
        shared: with(Capacity::Shared),
        dedicated: with(Capacity::Dedicated),
        first_token: model.first_token.as_ref().unwrap_or(&routing.first_token).value.0,
        whole: model.whole.as_ref().unwrap_or(&routing.whole).value.0,
    }
}

fn deployment(
    diagnostics: &Diagnostics<'_>,
    file: &ConfigFile,
    regions: &RegionNumbers,
    model: &ModelSection,
    id: ModelId,
    written: &DeploymentSection,
) -> Option<Deployment> {
    let provider = written.provider.as_ref()?;
    let known = file.providers.iter().position(|known| known.name.value == provider.value.0);
    let Some(index) = known else {
        let names = file.providers.iter().map(|known| known.name.value.as_str());
        report_unknown(diagnostics, provider, &provider.value.0, "provider", names);
        return None;
    };
    let model_name = model.name.value.as_str();
    let name: Arc<str> = match (&written.name, written.capacity.value) {
        (Some(name), _) => name.value.0.as_str().into(),
        (None, Capacity::Shared) => format!("{}/{model_name}", provider.value.0).into(),
        (None, Capacity::Dedicated) => format!("{}/{RESERVED_PREFIX}{model_name}", provider.value.0).into(),
    };
    let upstream_model = written.upstream_model.as_ref().map(|name| name.value.0.as_str());
    Some(Deployment {
        name,
        model: id,
        provider: number(index, ProviderId),
        upstream_model: upstream_model.unwrap_or(model_name).into(),
        endpoints: endpoints_of(protocol(file, number(index, ProviderId))),
        region: regions.find(provider_region(&file.providers[index]))?,
        capacity: written.capacity.value,
        weight: written.weight.value.get(),
        max_concurrent: written.max_concurrent.as_ref().map(|limit| limit.value.get()),
        max_output: None,
        price: written.price.as_deref().and_then(prices),
        member_prices: Vec::new(),
        body_rules: Arc::default(),
        spill: written.spill.value,
        lend: written.lend.value,
    })
}

fn protocol(file: &ConfigFile, provider: ProviderId) -> Option<ProtocolName> {
    file.providers[provider.index()].common.protocol.as_ref().map(|protocol| protocol.value)
}

/// The endpoints of a provider that speaks `protocol`; all where that is wrong or not built, which was reported.
fn endpoints_of(protocol: Option<ProtocolName>) -> EndpointSet {
    let of = |dialects: [Dialect; 2]| EndpointSet::of_dialect(dialects[0]).and(EndpointSet::of_dialect(dialects[1]));
    match protocol {
        Some(ProtocolName::OpenAi) => of([Dialect::Chat, Dialect::Responses]),
        Some(ProtocolName::Sim) => of([Dialect::Chat, Dialect::Messages]),
        Some(ProtocolName::Anthropic) => EndpointSet::of_dialect(Dialect::Messages),
        Some(ProtocolName::Azure | ProtocolName::Gemini | ProtocolName::Bedrock) | None => {
            EndpointSet::of(Endpoint::ALL)
        }
    }
}

/// What `model` serves, as written or else as its providers speak. Reports an endpoint that none of them has, and a
/// provider that has none.
fn served_endpoints(
    diagnostics: &Diagnostics<'_>,
    file: &ConfigFile,
    model: &ModelSection,
    deployments: &[Deployment],
) -> EndpointSet {
    let Some(written) = &model.endpoints else {
        let usual = |deployment: &Deployment| match protocol(file, deployment.provider) {
            Some(ProtocolName::Anthropic) => EndpointSet::of([Endpoint::Messages]),
            Some(ProtocolName::Sim) => EndpointSet::of([Endpoint::Chat, Endpoint::Messages]),
            _ => EndpointSet::of([Endpoint::Chat]),
        };
        return deployments.iter().map(usual).fold(EndpointSet::of([]), EndpointSet::and);
    };
    let served = EndpointSet::of(written.iter().map(|endpoint| endpoint.value));
    for endpoint in written {
        if !deployments.is_empty() && !deployments.iter().any(|one| one.endpoints.contains(endpoint.value)) {
            let message = format!("no provider of this model has `{}`", endpoint.value.name());
            let hint = "remove it, or add a deployment at a provider whose `protocol` has it".to_owned();
            diagnostics.report_at(endpoint, message, hint);
        }
    }
    for deployment in model.deployments.iter().filter_map(|written| written.provider.as_ref()) {
        let index = file.providers.iter().position(|provider| provider.name.value == deployment.value.0);
        if index.is_some_and(|index| !endpoints_of(protocol(file, number(index, ProviderId))).meets(served)) {
            let message = format!("the provider `{}` has none of this model's endpoints", deployment.value.0);
            diagnostics.report_at(deployment, message, "remove it, or add its endpoint to `endpoints`".to_owned());
        }
    }
    served
}

/// Breakers and gauges are kept by name: two alike would share them.
fn report_if_duplicate(
    diagnostics: &Diagnostics<'_>,
    names: &mut HashMap<Arc<str>, String>,
    written: &DeploymentSection,
    deployment: &Deployment,
) {
    let location = written.name.as_ref().or(written.provider.as_ref());
    let Some(location) = location else { return };
    if let Some(first) = names.get(&deployment.name) {
        let message = format!("a second deployment called `{}`", deployment.name);
        diagnostics.report_at(location, message, format!("the first is {first}: give one a `name`"));
        return;
    }
    let table = location.path.rsplit_once('.').map_or(location.path.as_str(), |(table, _)| table);
    names.insert(deployment.name.clone(), table.to_owned());
}

/// `None` only where something of them is missing or out of order, which was reported.
fn prices(written: &[PriceSection]) -> Option<Prices> {
    let (first, later) = written.split_first()?;
    let dated = |written: &PriceSection| Some((written.from.as_ref()?.value.begins_unix_ms(), price(written)?));
    Prices::new(price(first)?, later.iter().map(dated).collect::<Option<_>>()?)
}

fn price(written: &PriceSection) -> Option<PriceVersion> {
    let input = written.input.as_ref()?.value;
    let mut price = Price {
        input,
        cached_input: written.cached_input.as_ref().map_or(input, |cached| cached.value),
        output: written.output.as_ref()?.value,
        request: written.request.value,
        ..Price::default()
    };
    for class in TokenClass::ALL {
        price.apart.set(class, written.apart.of(class));
    }
    let above = written.above.iter().map(|tier| price_above(written, price, tier)).collect::<Option<_>>()?;
    PriceVersion::with_above(price, above, written.version.as_ref().map(|version| version.value.0.as_str()))
}

/// The threshold and the price above it: what it does not say is as below it.
fn price_above(written: &PriceSection, below: Price, tier: &PriceAboveSection) -> Option<(u64, Price)> {
    let input = tier.input.as_ref().map_or(below.input, |input| input.value);
    // Cached input that is nowhere written costs as input does, also above.
    let cached_below = if written.cached_input.is_some() { below.cached_input } else { input };
    let mut price = Price {
        input,
        cached_input: tier.cached_input.as_ref().map_or(cached_below, |cached| cached.value),
        output: tier.output.as_ref().map_or(below.output, |output| output.value),
        ..below
    };
    for class in TokenClass::ALL {
        price.apart.set(class, tier.apart.of(class).or(below.apart.get(class)));
    }
    Some((tier.tokens.as_ref()?.value.get(), price))
}
