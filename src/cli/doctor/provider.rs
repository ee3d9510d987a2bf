//! The verdicts about one provider: the way to its host, its credentials, its models, one tiny completion.
//!
//! What a step needs is looked at before it: where the name does not resolve, nothing is said of the credential. Each fault
//! is one row, with what to do.
//!
//! Start reading at [`ProviderSubject::rows`].

use super::completion::{self, CEILING, CompletionRecord};
use super::row::{DoctorRow, DoctorState};
use crate::cli::provider_probe::{ProbeResult, ProbeRow, said_of_models};
use crate::cli::table::{dollars, grouped};
use crate::cli::value_parsers;
use crate::clock::Clock;
use crate::config::{
    NetworkSettings, ProtocolName, ProviderSettings, ProviderTransport, Snapshot, certificate_expires_unix_s,
};
use crate::domain::failure::Failure;
use crate::domain::id::ProviderId;
use crate::domain::nearest::nearest;
use crate::relay::provider_setup;
use crate::upstream::{AttemptError, ConnectionFault, ConnectionKind, ConnectionRecord, Upstreams};
use std::sync::Arc;
use std::time::Duration;

/// An automatic renewal that still works has renewed a certificate long before this.
const EXPIRES_SOON_S: i64 = 14 * 86_400;
/// How many names of a list are shown.
const NAMES_SHOWN: usize = 3;

/// One provider, and what was found out without it.
pub(super) struct ProviderSubject<'a> {
    pub(super) snapshot: &'a Snapshot,
    /// Its position in the configuration.
    pub(super) at: usize,
    /// Whether a model may be asked.
    pub(super) asks_model: bool,
}

/// What was found of a provider.
#[derive(Default)]
pub(super) struct ProviderFindings {
    pub(super) rows: Vec<DoctorRow>,
    /// How many seconds its clock is ahead of this machine's, where it says.
    pub(super) clock_ahead_s: Option<i64>,
}

impl ProviderSubject<'_> {
    fn settings(&self) -> &ProviderSettings {
        &self.snapshot.providers[self.at]
    }

    /// Every verdict about it; `probes` are what its credentials brought.
    pub(super) async fn rows(&self, probes: &[&ProbeRow]) -> ProviderFindings {
        let settings = self.settings();
        let about = format!("provider {}", settings.name);
        let ProviderTransport::Network(network) = &settings.kind else {
            return ProviderFindings {
                rows: vec![DoctorRow::skipped(&about, "connection", "simulated: it has no network")],
                clock_ahead_s: None,
            };
        };
        let upstreams = match self.upstreams(settings) {
            Ok(upstreams) => upstreams,
            Err(why) => {
                let cure = "put this setting right: the gateway will not start with it";
                return ProviderFindings {
                    rows: vec![DoctorRow::broken(&about, "setup", why, cure)],
                    clock_ahead_s: None,
                };
            }
        };
        let mut findings = ProviderFindings::default();
        let way = upstreams.connect(ProviderId(0)).await.unwrap_or_default();
        findings.rows.extend(connection_rows(&about, network, &way, self.snapshot.transport.connect_timeout));
        if way.iter().any(|step| step.problem.is_some()) {
            return findings;
        }
        let mut asked_with = None;
        for (number, probe) in probes.iter().enumerate() {
            let ProbeResult::Asked { reply, missing, .. } = &probe.result else { continue };
            findings.clock_ahead_s =
                reply.date_unix_s.map(|date| date - Clock.unix_ms().div_euclid(1000)).or(findings.clock_ahead_s);
            let rows = self.models_rows(&about, network, number, probe).await;
            // Where a list fails, a completion would fail by the same fault.
            if reply.models.is_some() || rows.iter().all(|row| row.state != DoctorState::Broken) {
                asked_with.get_or_insert((number, missing.clone(), reply.models.is_some()));
            }
            findings.rows.extend(rows);
        }
        if let Some((credential, missing, is_listed)) = asked_with {
            findings.rows.extend(self.completion_row(&about, &upstreams, credential, &missing, is_listed).await);
        }
        findings
    }

    fn upstreams(&self, settings: &ProviderSettings) -> Result<Upstreams, String> {
        let setup = provider_setup(settings, &self.snapshot.transport).map_err(|error| error.to_string())?;
        Upstreams::build(vec![setup], None, Clock).map_err(|error| error.to_string())
    }

    /// What one credential brought.
    async fn models_rows(
        &self,
        about: &str,
        network: &NetworkSettings,
        number: usize,
        probe: &ProbeRow,
    ) -> Vec<DoctorRow> {
        let ProbeResult::Asked { reply, missing, .. } = &probe.result else { return Vec::new() };
        let name = probe.credential.as_deref();
        let answer = |status: u16| format!("{status}: {}", said_of_models(reply, missing));
        let row = match (&reply.models, reply.status) {
            (Some(listed), _) => {
                let mut rows: Vec<DoctorRow> = name
                    .map(|name| DoctorRow::ok(about, "credential", format!("{name} is accepted")))
                    .into_iter()
                    .collect();
                rows.push(listed_row(about, network, listed, missing));
                rows.extend(endpoints_row(about, probe));
                return rows;
            }
            (None, Some(status @ (401 | 403))) => DoctorRow::broken(
                about,
                "credential",
                format!("{} is refused ({})", name.unwrap_or("a request without credential"), answer(status)),
                refused_cure(name),
            ),
            (None, Some(status @ (429 | 500..))) => {
                let cure = "ask again later; if it stays, see what the provider says of its state";
                DoctorRow::broken(about, "models", format!("it lists none ({})", answer(status)), cure)
            }
            (None, Some(status)) => self.base_url_row(about, network, number, &answer(status)).await,
            (None, None) => {
                let cure = "the host is there and does not answer: ask it by hand, with `curl BASE_URL/models`";
                DoctorRow::broken(about, "models", said_of_models(reply, missing), cure)
            }
        };
        vec![row]
    }

    /// Something answers, and it is no API: perhaps it is beside the base URL.
    async fn base_url_row(&self, about: &str, network: &NetworkSettings, number: usize, answer: &str) -> DoctorRow {
        let base_url = &network.base_url;
        if let Some(other) = beside(network)
            && self.lists_at(&other, number).await
        {
            let said = format!("nothing lists models at {base_url}, and {other} does ({answer})");
            return DoctorRow::broken(about, "base_url", said, format!("write base_url = \"{other}\""));
        }
        let cure = "some hosts have no list: if the completion is in order, all is well; else check base_url";
        DoctorRow::warning(about, "base_url", format!("nothing lists models at {base_url} ({answer})"), cure)
    }

    async fn lists_at(&self, base_url: &str, credential: usize) -> bool {
        let mut settings = self.settings().clone();
        if let ProviderTransport::Network(network) = &mut settings.kind {
            network.base_url = base_url.to_owned();
        }
        let Ok(upstreams) = self.upstreams(&settings) else { return false };
        let reply = upstreams.list_models(ProviderId(0), credential).await;
        reply.is_some_and(|reply| reply.models.is_some())
    }

    async fn completion_row(
        &self,
        about: &str,
        upstreams: &Upstreams,
        credential: usize,
        missing: &[Arc<str>],
        is_listed: bool,
    ) -> Option<DoctorRow> {
        let lists = |model: &Arc<str>| !is_listed || !missing.contains(model);
        let chosen = completion::cheapest(self.snapshot, self.at, Clock.unix_ms(), lists);
        let Some(chosen) = chosen else {
            let said = "no model that it lists is configured for chat or Messages";
            return Some(DoctorRow::skipped(about, "completion", said));
        };
        if !self.asks_model {
            return None;
        }
        let model = &self.snapshot.table.deployment(chosen.0).upstream_model;
        Some(match completion::ask(upstreams, self.snapshot, chosen, credential).await {
            Ok(record) => DoctorRow::ok(about, "completion", answered(model, &record)),
            Err(error) => unanswered(about, model, &error, self.settings(), credential),
        })
    }
}

/// Where the API may be instead: the base URL without its `/v1`, or with one.
fn beside(network: &NetworkSettings) -> Option<String> {
    // Anthropic's is asked below /v1 either way.
    if network.protocol == ProtocolName::Anthropic {
        return None;
    }
    let base_url = network.base_url.trim_end_matches('/');
    Some(base_url.strip_suffix("/v1").map_or_else(|| format!("{base_url}/v1"), str::to_owned))
}

fn refused_cure(name: Option<&str>) -> String {
    match name {
        Some(name) => format!("put a valid key of this provider into {name}, and check that base_url is its host"),
        None => "write `credential = \"env:NAME\"`".to_owned(),
    }
}

fn listed_row(about: &str, network: &NetworkSettings, listed: &[String], missing: &[Arc<str>]) -> DoctorRow {
    let Some(first) = missing.first() else {
        return DoctorRow::ok(about, "models", format!("{} listed, the configured ones among them", listed.len()));
    };
    let names: Vec<Arc<str>> = listed.iter().map(|name| name.as_str().into()).collect();
    let near = nearest(first, names.clone());
    let cure = match (near.first(), listed.is_empty()) {
        (Some(near), _) => format!("did you mean upstream_model = \"{near}\"?"),
        (None, true) => format!("{} lists no model at all: is one loaded?", network.base_url),
        (None, false) => {
            let some = names.iter().take(NAMES_SHOWN).map(|name| &**name).collect::<Vec<_>>().join(", ");
            format!("write upstream_model as it lists it: {some}{}", if names.len() > NAMES_SHOWN { ", …" } else { "" })
        }
    };
    DoctorRow::broken(about, "models", format!("not listed: {}", missing.join(", ")), cure)
}

fn endpoints_row(about: &str, probe: &ProbeRow) -> Option<DoctorRow> {
    let ProbeResult::Asked { endpoints_missing, .. } = &probe.result else { return None };
    if endpoints_missing.is_empty() {
        return None;
    }
    let paths: Vec<&str> = endpoints_missing.iter().map(|endpoint| endpoint.path()).collect();
    let names: Vec<&str> = endpoints_missing.iter().map(|endpoint| endpoint.name()).collect();
    let cure = format!("remove {} from `endpoints` of the models that are at this provider alone", names.join(", "));
    Some(DoctorRow::broken(about, "endpoints", format!("it has no {}", paths.join(", ")), cure))
}

fn answered(model: &str, record: &CompletionRecord) -> String {
    let tokens = record.usage.map_or("tokens not counted".to_owned(), |usage| {
        format!("{} + {} tokens", grouped(usage.input.into()), grouped(usage.output.into()))
    });
    let cost = record.cost.map_or("price not known".to_owned(), |cost| dollars(cost.0.into()));
    format!("{model}: first token after {} ms, {tokens}, {cost}", record.first_token.as_millis())
}

/// Why no answer came, and what to do.
fn unanswered(
    about: &str,
    model: &str,
    error: &AttemptError,
    settings: &ProviderSettings,
    credential: usize,
) -> DoctorRow {
    let said = format!("{model}: {}", error.detail);
    let name = match &settings.kind {
        ProviderTransport::Network(network) => network.credentials.get(credential).map(|one| &*one.name),
        ProviderTransport::Sim(_) => None,
    };
    let cure = match error.failure {
        Failure::Throttled { .. } => {
            let cure = "ask again later: others use this account too, or its limit is low";
            return DoctorRow::warning(about, "completion", said, cure);
        }
        Failure::NoAnswer => {
            let cure =
                format!("a model that thinks may use {CEILING} tokens before it writes: ask it with `tierway ask`");
            return DoctorRow::warning(about, "completion", said, cure);
        }
        Failure::CredentialRefused => refused_cure(name),
        Failure::AccountRefused(_) => {
            "see to the account behind this credential: its balance, its limits, its permissions".to_owned()
        }
        Failure::NotFound => "write upstream_model as the provider calls it".to_owned(),
        Failure::NoEndpoint => "check base_url, and `endpoints` of the model".to_owned(),
        Failure::FirstTokenTimeout | Failure::WholeTimeout | Failure::Deadline => {
            "the provider is slow, or stuck: see its state, or raise `first_token` of the model".to_owned()
        }
        Failure::Rejected => {
            "the provider refuses the request itself: see `max_tokens_name` and `stream_options`".to_owned()
        }
        _ => "ask again; if it stays, see what the provider says of its state".to_owned(),
    };
    DoctorRow::broken(about, "completion", said, cure)
}

/// The verdicts about the way to the host of `network`.
fn connection_rows(
    about: &str,
    network: &NetworkSettings,
    way: &[ConnectionRecord],
    connect_timeout: Duration,
) -> Vec<DoctorRow> {
    let mut rows: Vec<DoctorRow> = way.iter().map(|step| connection_row(about, network, step)).collect();
    let whole: Duration = way.iter().map(|step| step.elapsed).sum();
    if whole > connect_timeout && way.iter().all(|step| step.problem.is_none()) {
        let said = format!("a connection took {} ms, and may take {}", whole.as_millis(), connect_timeout.as_millis());
        rows.push(DoctorRow::warning(about, "connection", said, "raise [routing] connect_timeout if it stays so"));
    }
    rows
}

fn connection_row(about: &str, network: &NetworkSettings, step: &ConnectionRecord) -> DoctorRow {
    let check = match step.kind {
        ConnectionKind::Dns => "dns",
        ConnectionKind::Tcp => "tcp",
        ConnectionKind::Proxy => "proxy",
        ConnectionKind::Tls => "tls",
    };
    match &step.problem {
        Some(problem) => {
            let said = format!("{}: {}", step.about, problem.said);
            DoctorRow::broken(about, check, said, connection_cure(network, step.kind, problem.fault))
        }
        None if step.kind == ConnectionKind::Tls => certificate_row(about, step),
        None => DoctorRow::ok(about, check, format!("{}, {} ms", step.about, step.elapsed.as_millis())),
    }
}

fn connection_cure(network: &NetworkSettings, kind: ConnectionKind, fault: ConnectionFault) -> &'static str {
    let by_proxy = network.proxy.is_some();
    match (kind, fault) {
        (ConnectionKind::Dns, _) if by_proxy => "check the host in `proxy`, and this machine's name server",
        (ConnectionKind::Dns, _) => "check the host in base_url, and this machine's name server (`getent hosts NAME`)",
        (ConnectionKind::Tcp, _) if by_proxy => "is the proxy running, and are host and port in `proxy` right?",
        (ConnectionKind::Tcp, _) => {
            "is the host running, and is the port in base_url right? where only a proxy leads out, write `proxy`"
        }
        (ConnectionKind::Proxy, ConnectionFault::ProxyPassword) => {
            "write user and password into the URL that `proxy` points to, percent-encoded"
        }
        (ConnectionKind::Proxy, _) => "have the proxy allow this host and port, or check base_url",
        (ConnectionKind::Tls, ConnectionFault::Authority) if network.ca.is_some() => {
            "it is not of the authority in `ca`: ask whoever runs the host which authority signed it"
        }
        (ConnectionKind::Tls, ConnectionFault::Authority) => {
            "name the authority that signed it: ca = \"file:/path/of/its.pem\""
        }
        (ConnectionKind::Tls, ConnectionFault::Expired) => {
            "whoever runs the host has to renew its certificate; if it is valid, set this machine's clock"
        }
        (ConnectionKind::Tls, ConnectionFault::NotYetValid) => "set this machine's clock (`timedatectl set-ntp true`)",
        (ConnectionKind::Tls, ConnectionFault::OtherName) => "write base_url with a name that its certificate is for",
        (ConnectionKind::Tls, ConnectionFault::NoTls) => "write base_url with http://, or the port that serves TLS",
        (ConnectionKind::Tls, _) => "ask whoever runs the host, or its proxy, what ends the connection",
    }
}

fn certificate_row(about: &str, step: &ConnectionRecord) -> DoctorRow {
    let end = step.certificate.as_deref().and_then(certificate_expires_unix_s);
    let Some(end) = end else { return DoctorRow::ok(about, "tls", format!("{}: trusted", step.about)) };
    let left = end - Clock.unix_ms().div_euclid(1000);
    let until = value_parsers::minute(end.saturating_mul(1000));
    let said = format!("certificate until {until} UTC ({} days), {} ms", left / 86_400, step.elapsed.as_millis());
    if left < EXPIRES_SOON_S {
        return DoctorRow::warning(about, "tls", said, "whoever runs the host has to renew it");
    }
    DoctorRow::ok(about, "tls", said)
}
