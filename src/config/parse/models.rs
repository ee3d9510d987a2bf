//! `[models.NAME]` and its deployments.

use std::num::{NonZeroU32, NonZeroU64};

use super::super::raw::{Deployment, Model};
use super::super::reader::{Located, Table, ValueError};
use super::check_name;
use super::prices::prices;
use crate::domain::call::Endpoint;
use crate::domain::routing::table::{Capacity, RESERVED_PREFIX};

/// What a chat answer usually takes; corrected as usage is observed.
const TYPICAL_OUTPUT: NonZeroU64 = NonZeroU64::new(1024).expect("1024 is not 0");
/// Equal shares.
const WEIGHT: NonZeroU32 = NonZeroU32::MIN;
/// Everybody's.
const CAPACITY: Capacity = Capacity::Shared;
/// `Pro/` names promise reserved capacity; less is an answer only for those who say so.
const SPILL: bool = false;
/// Reserved capacity stays reserved.
const LEND: bool = false;

pub(super) fn model(name: Located<String>, table: &mut Table<'_>) -> Model {
    check_name(table.diagnostics(), &name);
    if name.value.starts_with(RESERVED_PREFIX) {
        let message = format!("`{RESERVED_PREFIX}` begins the names of reserved capacity");
        let hint = "name the model without it and give a deployment `capacity = \"dedicated\"`";
        table.diagnostics().report_at(&name, message, hint.to_owned());
    }
    let endpoints = table.list::<Endpoint>("endpoints");
    if endpoints.is_none() {
        table.record_default("endpoints", &[Endpoint::Chat]);
    }
    let endpoints = endpoints.map_or(vec![Endpoint::Chat], values);
    if endpoints.is_empty() && table.is_empty_list("endpoints") {
        let wrong =
            ValueError::hinting("a model that serves no endpoint", "remove the setting: the default is [\"chat\"]");
        table.report("endpoints", wrong);
    }
    Model {
        name,
        price: prices(table),
        context: table.optional("context"),
        max_output: table.optional("max_output"),
        typical_output: table.or("typical_output", TYPICAL_OUTPUT),
        endpoints,
        features: table.list("features").map(values),
        first_token: table.optional("first_token"),
        whole: table.optional("whole"),
        deployments: deployments(table),
    }
}

fn values<T>(written: Vec<Located<T>>) -> Vec<T> {
    written.into_iter().map(|item| item.value).collect()
}

fn deployments(table: &mut Table<'_>) -> Vec<Deployment> {
    let Some(cells) = table.required_cells("deployments", "[{ provider = \"NAME\" }]") else {
        return Vec::new();
    };
    if cells.is_empty() {
        let hint = "name at least one provider: [{ provider = \"NAME\" }]";
        table.report("deployments", ValueError::hinting("nobody serves this model", hint));
    }
    cells.iter().filter_map(|value_ref| value_ref.table(deployment)).collect()
}

fn deployment(table: &mut Table<'_>) -> Deployment {
    let deployment = Deployment {
        provider: table.required("provider"),
        weight: table.or("weight", WEIGHT),
        upstream_model: table.optional("upstream_model"),
        name: table.optional("name"),
        capacity: table.or("capacity", CAPACITY),
        max_concurrent: table.optional("max_concurrent"),
        price: prices(table),
        spill: table.or("spill", SPILL),
    };
    let lend = table.or_unbuilt("lend", LEND, "reserved capacity would stay reserved");
    for asked in [&deployment.spill, &lend] {
        if asked.value && deployment.capacity.value == Capacity::Shared {
            let message = "only dedicated capacity has this setting".to_owned();
            let hint = "remove it, or set `capacity = \"dedicated\"`".to_owned();
            table.diagnostics().report_at(asked, message, hint);
        }
    }
    deployment
}
