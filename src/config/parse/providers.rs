//! `[providers.NAME]`.

use std::num::NonZeroU32;
use std::time::Duration;

use super::super::raw::{Network, Provider, Sim};
use super::super::reader::{Keyword, Located, SettingValue, Table};
use super::super::settings::{FinishReason, ProviderProtocol};
use super::super::value::{BaseUrl, Percent};
use super::check_name;

/// HTTP/1.1: one pooled HTTP/2 connection per host is a ceiling.
const HTTP2: bool = false;
/// An end without one is a truncation, unless the provider is known to omit it.
const FINISH_REASON: FinishReason = FinishReason::Required;
/// A fast provider nearby.
const SIM_FIRST_TOKEN: Duration = Duration::from_millis(40);
/// Fast enough for a demo, slow enough to see the stream.
const SIM_TOKENS_PER_SECOND: NonZeroU32 = NonZeroU32::new(200).expect("200 is not 0");
/// Simulated providers fail when a drill says so.
const SIM_ERROR_RATE: Percent = Percent::whole(0);

pub(super) fn provider(name: Located<String>, table: &mut Table<'_>) -> Provider {
    check_name(table.diagnostics(), &name);
    let protocol = table.required::<ProviderProtocol>("protocol");
    let simulated = protocol.as_ref().map(|protocol| protocol.value == ProviderProtocol::Sim);
    let provider = Provider {
        name,
        region: table.optional("region"),
        finish_reason: table.or("finish_reason", FINISH_REASON),
        network: match simulated {
            Some(true) => refuse_network(table),
            Some(false) | None => network(table),
        },
        sim: match simulated {
            Some(false) => refuse_sim(table),
            Some(true) | None => Some(sim(table)),
        },
        protocol,
    };
    if simulated == Some(false) {
        require_base_url(table);
    }
    note_unspoken(table, provider.protocol.as_ref());
    provider
}

fn network(table: &mut Table<'_>) -> Option<Network> {
    Some(Network {
        base_url: table.optional("base_url"),
        credentials: table.list("credential").unwrap_or_default(),
        http2: table.or("http2", HTTP2),
    })
}

fn sim(table: &mut Table<'_>) -> Sim {
    Sim {
        first_token: table.or("first_token", SIM_FIRST_TOKEN),
        tokens_per_second: table.or("tokens_per_second", SIM_TOKENS_PER_SECOND),
        error_rate: table.or("error_rate", SIM_ERROR_RATE),
    }
}

fn refuse_network(table: &mut Table<'_>) -> Option<Network> {
    for name in ["base_url", "credential", "http2"] {
        table.refuse(name, "a simulated provider has no network", "remove it");
    }
    None
}

fn refuse_sim(table: &mut Table<'_>) -> Option<Sim> {
    let message = "only a simulated provider has this setting";
    table.refuse("first_token", message, "set it in [routing] or for a model");
    for name in ["tokens_per_second", "error_rate"] {
        table.refuse(name, message, "remove it, or write `protocol = \"sim\"`");
    }
    None
}

fn require_base_url(table: &Table<'_>) {
    if !table.has("base_url") {
        table.report_missing("base_url", BaseUrl::EXPECTED);
    }
}

/// Notes a dialect that is not built.
fn note_unspoken(table: &Table<'_>, protocol: Option<&Located<ProviderProtocol>>) {
    match protocol.map(|protocol| protocol.value) {
        None | Some(ProviderProtocol::OpenAi | ProviderProtocol::Sim) => {}
        Some(protocol) => {
            let why = format!("nothing could be sent to a provider that speaks {}", protocol.word());
            table.unenforced("protocol", &why);
        }
    }
}
