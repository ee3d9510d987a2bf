//! `[providers.NAME]`.
//!
//! A provider is either reached over the network or simulated; the settings of the other kind are refused.

use std::num::NonZeroU32;
use std::time::Duration;

use super::super::reader::{KeywordValue, Setting, SettingKey, SettingValue, Table, ValueError, keywords, section};
use super::super::settings::{FinishReason, OnAbandon, OutputCeiling, ProtocolName, ProviderCredential};
use super::super::value::{
    BaseUrl, BodyMemberName, CaFile, ForwardedHeaderName, ForwardedQueryName, HeaderText, Name, Percent, ProxyUrl,
    header_name,
};
use super::{check_name, nonzero};
use crate::domain::secret::Secret;
use http::HeaderName;

/// `[providers.NAME]`
pub(in crate::config) struct ProviderSection {
    pub(in crate::config) name: Setting<String>,
    pub(in crate::config) common: CommonProviderSection,
    /// `None` where it is simulated.
    pub(in crate::config) network: Option<NetworkSection>,
    /// `None` where it is not.
    pub(in crate::config) simulation: Option<SimulationSection>,
}

section! {
    /// What every provider has.
    pub(in crate::config) struct CommonProviderSection {
        /// The dialect: openai and everything that speaks it, anthropic, or sim, which answers by itself; not all are
        /// built yet.
        protocol: Option<Setting<ProtocolName>> = required(),
        /// Where it runs: for residency, and so that a failing region is left. Absent: a region of its own.
        region: Option<Setting<Name>> = optional(),
        /// Optional for a provider known to end streams without one; otherwise such an end is a truncation.
        finish_reason: Setting<FinishReason> = or(FinishReason::Required),
    }
}

section! {
    /// The settings of a provider that is reached over the network.
    pub(in crate::config) struct NetworkSection {
        /// Scheme, host and path of the API; for anthropic with or without its /v1. Required unless the provider is
        /// simulated.
        base_url: Option<Setting<BaseUrl>> = optional(),
        /// What we present. Several are used in turn, each resting on its own.
        credential: Option<Vec<Setting<ProviderCredential>>> = list(),
        /// Whether to speak HTTP/2; one connection per host is then a ceiling.
        http2: Setting<bool> = or(false),
        /// The authorities that its certificate may come from, as PEM, in place of those that the system trusts.
        ca: Option<Setting<CaFile>> = optional(),
        /// The HTTP proxy that it is reached through: by CONNECT, where base_url is https. No variable of the environment
        /// names one in its place.
        proxy: Option<Setting<ProxyUrl>> = optional(),
        /// What the ceiling of the output is called that the provider reads: money is held for it, and it is written by this
        /// name whatever a client calls it. Absent: as the price catalogue says of the host, else max_tokens.
        max_tokens_name: Option<Setting<OutputCeiling>> = optional(),
        /// Whether streams may be asked for their usage by stream_options. Absent: as the price catalogue says of the
        /// host, else true.
        stream_options: Option<Setting<bool>> = optional(),
        /// What an answer costs that its client did not wait for. estimate: what came of it, for a provider that stops when
        /// it is left. For one that goes on and is paid for it: read_on reads to the end, at most for total, keeps limits
        /// and money until then and charges what it counts; charge_hold leaves and charges all that is held.
        // What hosts of the OpenAI API do, as far as they say.
        on_abandon: Setting<OnAbandon> = or(OnAbandon::Estimate),
        /// Headers that are sent with every request, by name: a text, or "env:NAME" or "file:/path" for what is secret.
        headers: Vec<(HeaderName, Secret)> = read_by(headers),
        /// Names of headers that are passed on where a client sends them; never credentials, cookies, or what belongs to
        /// one connection.
        forward_headers: Option<Vec<Setting<ForwardedHeaderName>>> = list(),
        /// Names of parameters of a client's query that are passed on; never credentials.
        forward_query: Option<Vec<Setting<ForwardedQueryName>>> = list(),
        /// Names of members of a body that are sent to it although they choose a model, a host or a credential, or
        /// change the price: without these, the former are refused at hosts that may pass requests on, and the latter
        /// where a budget or credit pays and their price is not known.
        body_allow: Option<Vec<Setting<BodyMemberName>>> = list(),
        /// Names of further members of a body with which a request is refused.
        body_deny: Option<Vec<Setting<BodyMemberName>>> = list(),
    }
}

section! {
    /// The settings of a `sim` provider.
    pub(in crate::config) struct SimulationSection {
        /// Simulated only: the time to the first token.
        // A fast provider nearby.
        first_token: Setting<Duration> = or(Duration::from_millis(40)),
        /// Simulated only: the pace after the first token.
        // Fast enough for a demo, slow enough to see the stream.
        tokens_per_second: Setting<NonZeroU32> = or(nonzero(200)),
        /// Simulated only: the share of requests answered with an error.
        // Simulated providers fail during drills only.
        error_rate: Setting<Percent> = or(Percent::whole(0)),
    }
}

keywords!(FinishReason { "required" => Required, "optional" => Optional });
keywords!(OnAbandon { "estimate" => Estimate, "read_on" => ReadOn, "charge_hold" => ChargeHold });
keywords!(OutputCeiling { "max_tokens" => MaxTokens, "max_completion_tokens" => MaxCompletionTokens });
keywords!(ProtocolName {
    "openai" => OpenAi,
    "azure" => Azure,
    "anthropic" => Anthropic,
    "gemini" => Gemini,
    "bedrock" => Bedrock,
    "sim" => Sim,
});

impl ProviderSection {
    pub(super) fn read(name: Setting<String>, table: &mut Table<'_>) -> Self {
        check_name(table.diagnostics(), &name);
        let common = CommonProviderSection::read(table);
        // Where the protocol is missing or wrong, the settings of both kinds are known.
        let simulated = common.protocol.as_ref().map(|protocol| protocol.value == ProtocolName::Sim);
        let network = match simulated {
            Some(true) => refuse_network(table),
            Some(false) | None => Some(NetworkSection::read(table)),
        };
        let simulation = match simulated {
            Some(false) => refuse_simulation(table),
            Some(true) | None => Some(SimulationSection::read(table)),
        };
        if simulated == Some(false) && !table.has("base_url") {
            table.report_missing("base_url", BaseUrl::EXPECTED);
        }
        if common.protocol.as_ref().is_some_and(|protocol| protocol.value == ProtocolName::Anthropic) {
            for name in ["finish_reason", "max_tokens_name", "stream_options"] {
                table.refuse(name, "hosts that speak anthropic do not differ in this", "remove it");
            }
        }
        report_unbuilt_protocol(table, common.protocol.as_ref());
        Self { name, common, network, simulation }
    }
}

/// The headers that are sent with every request; where one is wrong, less.
fn headers(key: SettingKey, table: &mut Table<'_>) -> Vec<(HeaderName, Secret)> {
    let written = table.optional_table(key, |headers| {
        let diagnostics = headers.diagnostics();
        let mut read: Vec<(HeaderName, Secret)> = Vec::new();
        for (name, text) in headers.free::<HeaderText>("What it is sent with.") {
            let checked = header_name(&name.value, text.value.is_written_out).and_then(|header| {
                let is_first = read.iter().all(|(other, _)| *other != header);
                is_first
                    .then_some(header)
                    .ok_or_else(|| ValueError::hinting("a header above, again", "keep one of the two"))
            });
            match checked {
                Ok(header) => read.push((header, text.value.text)),
                Err(wrong) => diagnostics.report(&name.path, name.location.clone(), wrong),
            }
        }
        read
    });
    written.unwrap_or_default()
}

fn refuse_network(table: &mut Table<'_>) -> Option<NetworkSection> {
    for name in NetworkSection::NAMES {
        table.refuse(name, "a simulated provider has no network", "remove it");
    }
    None
}

fn refuse_simulation(table: &mut Table<'_>) -> Option<SimulationSection> {
    for name in SimulationSection::NAMES {
        let hint = match *name {
            "first_token" => "set it in [routing] or for a model",
            _ => "remove it, or write `protocol = \"sim\"`",
        };
        table.refuse(name, "only a simulated provider has this setting", hint);
    }
    None
}

fn report_unbuilt_protocol(table: &Table<'_>, protocol: Option<&Setting<ProtocolName>>) {
    match protocol.map(|protocol| protocol.value) {
        None | Some(ProtocolName::OpenAi | ProtocolName::Anthropic | ProtocolName::Sim) => {}
        Some(protocol) => {
            let why = format!("nothing could be sent to a provider that speaks {}", protocol.word());
            table.unenforced("protocol", &why);
        }
    }
}
