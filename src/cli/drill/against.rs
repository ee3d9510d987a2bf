//! A drill at a running gateway: its fault API breaks things under its own traffic and that of the drill.
//!
//! It knows of the gateway what a client and an operator see. Whatever ends it, no fault outlasts it for long: each ends by
//! itself within seconds, and those in force are ended where it is interrupted.
//!
//! Start reading at [`RunningGateway::find`], then [`RunningGateway::run`].

use super::client::{ClientRequest, KeyClient, ask};
use super::drive::{AFTER, DrivenPolicy, LoadSpec, ScenarioProgress, SentRequest, TIMES, drive};
use super::fault_api::FaultApi;
use super::live::{DeploymentRow, LiveContext, ScenarioView};
use super::run::{ScenarioRecord, title};
use super::until_stopped;
use crate::cli::gateway_client::{GatewayClient, GatewayClientError, GatewayUrl};
use crate::cli::store::CommandError;
use crate::clock::Clock;
use crate::domain::drill::judge::{DrillEvidence, PolicyLoad};
use crate::domain::drill::scenario::Scenario;
use crate::domain::drill::{DrillOutcome, DrillPhase, DrillRequest, judgement, percentile};
use crate::domain::random::RandomValue;
use crate::domain::secret::Secret;
use clap::Args;
use http::{Method, StatusCode};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// What its requests are called in the report: their key's policy is not known.
const POLICY: &str = "the given key";
/// What is promised where a configuration does not say otherwise: how soon a failover is, after how long a deployment is
/// silent, how long a request waits for a place, and how long a breaker is open.
const PROMISED: Duration = Duration::from_secs(1);
const OPEN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(20));

/// Arguments of a drill at a running gateway.
#[derive(Args, Debug)]
pub(super) struct AgainstArgs {
    /// Rehearse at this running gateway, whose fault API is enabled: where it serves operators, or unix:/path
    #[arg(long, value_name = "URL")]
    pub(super) against: Option<GatewayUrl>,
    /// With --against: its admin token
    #[arg(long, value_name = "TOKEN", env = "TIERWAY_ADMIN_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// With --against: where it serves clients [default: the same address]
    #[arg(long, value_name = "URL", requires = "against")]
    client_url: Option<GatewayUrl>,
    /// With --against: the key that requests are made with
    #[arg(long, value_name = "KEY", env = "TIERWAY_API_KEY", hide_env_values = true)]
    key: Option<String>,
    /// With --against: a model, tier or alias to ask for; several are asked for in turn
    #[arg(long = "model", value_name = "NAME", requires = "against")]
    models: Vec<String>,
    /// With --against: requests per second; each is answered by a provider, and paid for
    #[arg(long, value_name = "NUMBER", requires = "against", default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rate: u32,
}

/// A gateway that is rehearsed at.
pub(super) struct RunningGateway {
    faults: FaultApi,
    driven: DrivenPolicy,
    /// Where the models of the drill are served, in the gateway's order.
    regions: Vec<Arc<str>>,
    rate: u32,
}

impl RunningGateway {
    /// The gateway of `args`, once it is sure that a drill can be made there.
    ///
    /// # Errors
    /// With what to do.
    pub(super) async fn find(args: &AgainstArgs, url: &GatewayUrl, clock: Clock) -> Result<Self, CommandError> {
        let token = args.token.as_deref().ok_or_else(|| {
            CommandError::usage("there is no token to inject faults with\n  help: --token, or TIERWAY_ADMIN_TOKEN")
        })?;
        let key = args.key.as_deref().ok_or_else(|| {
            CommandError::usage("there is no key to make requests with\n  help: --key, or TIERWAY_API_KEY")
        })?;
        let faults = FaultApi::new(GatewayClient::new(url.clone(), Secret::new(token), None));
        faults.check().await?;
        let gateway = GatewayClient::new(args.client_url.as_ref().unwrap_or(url).clone(), Secret::new(key), None);
        let has_version = gateway.url.url.path().trim_end_matches('/').ends_with("/v1");
        let (models, path) = match has_version {
            true => ("/models", "/chat/completions"),
            false => ("/v1/models", "/v1/chat/completions"),
        };
        let regions = regions(&gateway, models, &args.models).await?;
        let driven = DrivenPolicy {
            load: PolicyLoad { policy: POLICY.into(), priority: 1, reserved: false },
            models: args.models.iter().map(|model| model.as_str().into()).collect(),
            clients: vec![Arc::new(KeyClient { gateway, path, words: None })],
            regions: regions.iter().cloned().collect(),
        };
        let found = Self { faults, driven, regions, rate: args.rate };
        found.try_models(clock).await?;
        Ok(found)
    }

    /// Asks for each model once: what is not served without a fault would be counted against the gateway.
    async fn try_models(&self, clock: Clock) -> Result<(), CommandError> {
        for model in &self.driven.models {
            let client = self.driven.clients[0].clone();
            let request = ClientRequest { client, model: model.clone(), stream: true, number: 0 };
            let answer = ask(&request, clock.now(), clock).await;
            if let DrillOutcome::Failed(why) = answer.outcome {
                return Err(CommandError::failed(format!("{model} is not served, with nothing broken yet: {why}")));
            }
        }
        Ok(())
    }

    /// The region that breaks: the one that is named, or the first that serves what is asked for.
    ///
    /// # Errors
    /// There is none.
    fn target(&self, named: Option<&str>) -> Result<&Arc<str>, CommandError> {
        let found = self.regions.iter().find(|region| named.is_none_or(|named| ***region == *named));
        found.ok_or_else(|| {
            let named = named.unwrap_or("none");
            let known = self.regions.join(", ");
            CommandError::usage(format!("no region {named} serves what this key asks for; there are: {known}"))
        })
    }

    /// Runs one scenario; an interrupted one ends its faults first.
    ///
    /// # Errors
    /// The gateway does not let faults be injected any more, or the drill was interrupted.
    pub(super) async fn run(
        &self,
        scenario: Scenario,
        region: Option<&str>,
        draw: RandomValue,
        view: Option<&mut ScenarioView>,
    ) -> Result<ScenarioRecord, CommandError> {
        let region = self.target(region)?;
        let done = until_stopped(self.rehearse(scenario, region, draw, view)).await;
        self.faults.end_all().await?;
        done
    }

    async fn rehearse(
        &self,
        scenario: Scenario,
        region: &Arc<str>,
        draw: RandomValue,
        view: Option<&mut ScenarioView>,
    ) -> Result<ScenarioRecord, CommandError> {
        let load = LoadSpec { rate: self.rate, factor: 1, times: TIMES, retries: false };
        let policies = [self.driven.clone()];
        let progress = ScenarioProgress::start(Clock);
        let (sent, done, ()) = tokio::join!(
            drive(&policies, load, draw, &progress),
            self.follow_script(scenario, region, draw, &progress),
            self.show(scenario, region, view, &progress)
        );
        done?;
        let requests = seen(sent);
        let is_confined = self.driven.regions.len() == 1;
        let checks = judgement(&DrillEvidence {
            scenario,
            times: TIMES,
            requests: &requests,
            target: region,
            confined: &if is_confined { vec![self.driven.load.policy.clone()] } else { Vec::new() },
            loads: &[],
            queue_wait: PROMISED,
            failover_objective: PROMISED,
            silent_after: PROMISED,
            open: OPEN,
            holds_streams: false,
            overspent: None,
            untrusted: None,
        });
        let (region, policies) = (Some(region.clone()), vec![self.driven.load.policy.clone()]);
        let finished_unix_ms = progress.clock.unix_ms();
        Ok(ScenarioRecord {
            scenario,
            region,
            policies,
            rate: self.rate,
            times: TIMES,
            requests,
            checks,
            finished_unix_ms,
        })
    }

    /// Shows the scenario until it is stopped, or says that it runs.
    async fn show(
        &self,
        scenario: Scenario,
        region: &Arc<str>,
        view: Option<&mut ScenarioView>,
        progress: &ScenarioProgress,
    ) {
        let Some(view) = view else {
            eprintln!("{}: {region} …", scenario.name());
            return;
        };
        let context = LiveContext {
            title: title(scenario, Some(region)),
            target: Some(region.clone()),
            regions: self.regions.clone(),
            ..LiveContext::default()
        };
        view.show(&context, progress, async || self.deployments().await).await;
    }

    /// What the gateway says of its deployments; `None` where it does not answer.
    async fn deployments(&self) -> Option<Vec<DeploymentRow>> {
        let answer = self.faults.gateway().request(Method::GET, "/admin/v1/status").await.ok()?;
        let status: Value = serde_json::from_slice(&answer).ok()?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let row = |one: &Value| DeploymentRow {
            deployment: text(&one["deployment"]),
            region: text(&one["region"]),
            state: text(&one["state"]),
        };
        Some(status["deployments"].as_array()?.iter().map(row).collect())
    }

    /// Injects what `scenario` breaks, and ends it again; stops `progress` afterwards, and also where that fails.
    async fn follow_script(
        &self,
        scenario: Scenario,
        region: &Arc<str>,
        draw: RandomValue,
        progress: &ScenarioProgress,
    ) -> Result<(), CommandError> {
        let clock = progress.clock;
        let breaking = async {
            for (at, spec) in scenario.script(region, &self.regions, TIMES, draw) {
                clock.sleep_until(progress.start + at).await;
                self.faults.inject(&spec).await?;
                clock.sleep_until(progress.start + at + spec.lasts).await;
                self.faults.end_all().await?;
            }
            clock.sleep_until(progress.start + TIMES.broken_until).await;
            Ok(())
        };
        let done = breaking.await;
        if done.is_ok() {
            let awaited = Some(region).filter(|_| scenario.recovers_soon());
            progress.wait_for_recovery(awaited, TIMES.broken_until, AFTER).await;
        }
        progress.stop();
        done
    }
}

/// Where `models` are served for the key of `gateway`, which lists them at `path`.
async fn regions(gateway: &GatewayClient, path: &str, models: &[String]) -> Result<Vec<Arc<str>>, CommandError> {
    let url = &gateway.url;
    let refused = |why: &str, help: &str| CommandError::failed(format!("{why}\n  help: {help}"));
    let elsewhere = "--client-url names the address where it serves clients";
    let (status, listed) = gateway.exchange(Method::GET, path, None).await.map_err(|error| match error {
        GatewayClientError::Unreachable(why) => refused(&format!("no gateway answers at {url}: {why}"), elsewhere),
        other => gateway.refused(other),
    })?;
    let listed = serde_json::from_slice::<Value>(&listed).unwrap_or_default();
    let listed = match (status, listed["data"].as_array()) {
        (StatusCode::OK, Some(listed)) => listed,
        (StatusCode::UNAUTHORIZED, _) => {
            let help = "--key, or TIERWAY_API_KEY, is what a client of it presents";
            return Err(refused(&format!("the gateway at {url} refuses the key"), help));
        }
        (status, _) => return Err(refused(&format!("{url}{path} answers {status}"), elsewhere)),
    };
    let names: Vec<&str> = listed.iter().filter_map(|model| model["id"].as_str()).collect();
    if models.is_empty() {
        let message = "nothing says what to ask for\n  help: --model NAME; this key may use:";
        return Err(CommandError::usage(format!("{message} {}", names.join(", "))));
    }
    let mut known = BTreeSet::new();
    let mut regions = Vec::new();
    for model in models {
        let entry = listed.iter().find(|entry| entry["id"] == **model).ok_or_else(|| {
            CommandError::usage(format!("the key may not use {model}; it may use: {}", names.join(", ")))
        })?;
        for region in entry["regions"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if known.insert(region.to_owned()) {
                regions.push(region.into());
            }
        }
    }
    Ok(regions)
}

/// What clients saw. How long a failover took is seen from outside: what its first bytes took beyond the usual.
fn seen(sent: Vec<SentRequest>) -> Vec<DrillRequest> {
    let is_usual = |sent: &&SentRequest| TIMES.phase(sent.sent) == DrillPhase::Before && sent.answer.attempts <= 1;
    let usual = |stream: bool| {
        let of_kind = sent.iter().filter(is_usual).filter(|sent| sent.stream == stream);
        let mut times: Vec<Duration> = of_kind.filter_map(|sent| sent.answer.first_bytes).collect();
        times.sort_unstable();
        percentile(&times, 50).unwrap_or_default()
    };
    let (of_streams, of_whole) = (usual(true), usual(false));
    let one = |sent: SentRequest| {
        let usual = if sent.stream { of_streams } else { of_whole };
        let first_bytes = sent.answer.first_bytes;
        DrillRequest {
            policy: sent.policy,
            stream: sent.stream,
            sent: sent.sent,
            late: sent.late,
            first_bytes,
            outcome: sent.answer.outcome,
            refusals: sent.refusals,
            attempts: sent.answer.attempts,
            failover: first_bytes.filter(|_| sent.answer.attempts > 1).map(|took| took.saturating_sub(usual)),
            region: sent.answer.region,
        }
    };
    sent.into_iter().map(one).collect()
}
