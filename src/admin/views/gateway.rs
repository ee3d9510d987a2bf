//! What a gateway is and who looks at it, as JSON objects of the admin API.
//!
//! As in [`views`](super), every member is always present.

use super::{UtcTime, one_of};
use crate::config::Snapshot;
use crate::domain::routing::table::Tier;
use schemars::{JsonSchema, Schema, SchemaGenerator};

/// What a gateway is: its version, and the configured names that a page offers.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "Gateway", deny_unknown_fields)]
pub struct GatewayObject {
    #[schemars(extend("const" = "gateway"))]
    object: &'static str,
    version: &'static str,
    /// In the order of the file.
    policies: Vec<String>,
    tiers: Vec<TierObject>,
    /// Regions in the order of their first use.
    regions: Vec<String>,
    /// A name that clients may write as `model`; null where nothing is configured.
    example_model: Option<String>,
    /// Where clients are served, if that is not the address of operators.
    clients_at: Option<String>,
    /// Whether operators may inject faults.
    fault_api: bool,
    /// Whether every provider is simulated.
    simulated: bool,
}

/// A tier and the models in it.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "Tier", deny_unknown_fields)]
struct TierObject {
    name: String,
    models: Vec<String>,
    /// The tiers to step down to, in order.
    then: Vec<String>,
}

impl GatewayObject {
    /// The gateway that serves `snapshot`; `simulated`: all its providers are.
    pub fn of(snapshot: &Snapshot, simulated: bool) -> Self {
        let (table, server) = (&snapshot.table, &snapshot.server);
        let scheme = if server.tls.is_some() { "https" } else { "http" };
        let clients_at = || match server.listen.reachable() {
            Some(address) => format!("{scheme}://{address}"),
            None => server.listen.to_string(),
        };
        let tier = |tier: &Tier| TierObject {
            name: tier.name.to_string(),
            models: tier.models.iter().map(|(model, _)| table.model(*model).name.to_string()).collect(),
            then: tier.then.iter().map(|next| table.tier(*next).name.to_string()).collect(),
        };
        Self {
            object: "gateway",
            version: env!("CARGO_PKG_VERSION"),
            policies: snapshot.policies.iter().map(|policy| policy.name.to_string()).collect(),
            tiers: table.tiers.iter().map(tier).collect(),
            regions: table.regions.iter().map(ToString::to_string).collect(),
            example_model: table.example_model().map(ToString::to_string),
            clients_at: server.admin_listen.is_some().then(clients_at),
            fault_api: snapshot.fault_api,
            simulated,
        }
    }
}

/// Who asks: by a token, or by the session of a browser that presented one.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "Session", deny_unknown_fields)]
pub struct SessionObject {
    #[schemars(extend("const" = "session"))]
    object: &'static str,
    #[schemars(schema_with = "roles")]
    role: &'static str,
    /// What changes by this session present as `x-tierway-csrf`; null without a session.
    csrf: Option<String>,
    /// When the session ends; null without one.
    expires: Option<UtcTime>,
}

impl SessionObject {
    /// Of `role`; `session`: what changes by it present, and the Unix millisecond of its end.
    pub fn of(role: &'static str, session: Option<(&str, i64)>) -> Self {
        let csrf = session.map(|(csrf, _)| csrf.to_owned());
        Self { object: "session", role, csrf, expires: session.map(|(_, ends)| UtcTime::of(ends)) }
    }
}

fn roles(_: &mut SchemaGenerator) -> Schema {
    one_of(&["operator", "viewer"])
}
