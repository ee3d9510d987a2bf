//! `tierway explain`: where a request would go, in what order, and why nowhere else; or what happened to a request
//! that was answered.
//!
//! It reads the configuration and asks the domain; it must never route by itself, and never send a request. Health,
//! load and limits change from moment to moment and are not part of the output.
//!
//! Start reading at [`explain`]; `explanation` has the content, `text` its layout.

mod explanation;
mod request;
mod text;

use super::store::{CommandError, StoreArgs};
use super::{EXIT_USAGE, find_config, print};
use crate::cli::check::EXIT_CONFIGURATION;
use crate::clock::Clock;
use crate::config::{ExtraKey, ProcessEnvironment, Snapshot, load};
use crate::domain::authorize::authorize;
use crate::domain::call::{Call, CostFacts, Endpoint, Feature, FeatureSet, RequestMetadata};
use crate::domain::id::RequestId;
use crate::domain::policy::{KeyRecord, is_valid};
use crate::domain::refusal::{KeyRefusal, Refusal};
use crate::domain::register::KeyOverrides;
use crate::domain::routing::explain as domain;
use crate::domain::secret::KeyHash;
use crate::store::RegisterContents;
use bytes::Bytes;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use explanation::{ExplainContext, ExplanationView};
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

/// Arguments that describe a request to come; they exclude one that has ended.
const OF_A_FUTURE_REQUEST: [&str; 8] =
    ["model", "key", "policy", "endpoint", "stream", "user", "features", "no_fallback"];

/// Arguments of `explain`.
#[derive(Args, Debug)]
pub(super) struct ExplainArgs {
    /// What a client would write as `model`: a model, an alias, a tier, or a `Pro/` name
    #[arg(long, value_name = "NAME", required_unless_present = "request")]
    model: Option<String>,
    /// A request that has ended, by its `x-request-id`: what became of it, from the ledger
    #[arg(long, value_name = "ID", value_parser = request::id, conflicts_with_all = OF_A_FUTURE_REQUEST)]
    request: Option<RequestId>,
    /// As this key of the configuration; without key and policy, as a key that may do everything
    #[arg(long, value_name = "NAME", conflicts_with = "policy")]
    key: Option<String>,
    /// As some key under this policy
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    /// Which endpoint is asked
    #[arg(long, default_value = Endpoint::Chat.name(), value_parser = endpoint_parser())]
    endpoint: Endpoint,
    /// Whether the answer is streamed
    #[arg(long)]
    stream: bool,
    /// The `user` of the request, for aliases that are sticky by user
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// What the request needs of a model
    #[arg(long, value_name = "FEATURES", value_delimiter = ',', value_parser = feature_parser())]
    features: Vec<Feature>,
    /// As with the header `x-tierway-no-fallback: true`
    #[arg(long)]
    no_fallback: bool,
    #[command(flatten)]
    store: StoreArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn endpoint_parser() -> impl TypedValueParser<Value = Endpoint> {
    let named = |name: String| Endpoint::ALL.into_iter().find(|endpoint| endpoint.name() == name);
    PossibleValuesParser::new(Endpoint::ALL.map(Endpoint::name)).try_map(move |name| named(name).ok_or("no endpoint"))
}

fn feature_parser() -> impl TypedValueParser<Value = Feature> {
    let named = |name: String| Feature::ALL.into_iter().find(|feature| feature.name() == name);
    PossibleValuesParser::new(Feature::ALL.map(Feature::name)).try_map(move |name| named(name).ok_or("no feature"))
}

/// Prints the explanation of one request; exits with 1 if it would be refused.
///
/// # Errors
/// Only if it cannot be written.
pub(super) fn explain(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    if let Some(id) = args.request {
        return request::explain(id, &args.store, args.json);
    }
    if args.store.is_named() {
        return CommandError::usage("--store is read with --request only").print();
    }
    // A key without restrictions, for a command line that names neither key nor policy. No client can present it.
    let unrestricted = ExtraKey { name: "anybody".to_owned(), hash: KeyHash([0; 32]) };
    let hash = unrestricted.hash;
    let loaded =
        find_config(args.store.config()).and_then(|source| load(&source, &ProcessEnvironment, &[unrestricted]));
    let snapshot = match loaded {
        Ok(snapshot) => snapshot,
        Err(problems) => {
            write!(anstream::stderr(), "{}", problems.render(true))?;
            return Ok(ExitCode::from(EXIT_CONFIGURATION));
        }
    };
    let key = match who(args, &snapshot, &hash) {
        Ok(key) => key,
        Err(unknown) => {
            writeln!(anstream::stderr(), "error: {unknown}")?;
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    let explanation = explanation_of(args, &snapshot, &key, Clock.unix_ms());
    let refused = explanation.refusal.is_some();
    print(&if args.json {
        format!("{}\n", serde_json::to_string_pretty(&explanation)?)
    } else {
        text::of(&explanation)
    })?;
    Ok(if refused { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The key of the request.
fn who(args: &ExplainArgs, snapshot: &Snapshot, unrestricted: &KeyHash) -> Result<Arc<KeyRecord>, String> {
    let unrestricted_key = snapshot.key(unrestricted).expect("it was given to the loader");
    if let Some(name) = &args.key {
        let keys = || snapshot.keys.values().filter(|key| !Arc::ptr_eq(key, unrestricted_key));
        let in_file = keys().find(|key| *key.name == **name).cloned();
        return in_file.or_else(|| stored(args, snapshot, name)).ok_or_else(|| {
            let known = keys().map(|key| &*key.name);
            let hint = "`tierway keys list` shows those in the store; for any other, name its policy";
            format!("there is no key `{name}`; {}; {hint}", list("keys", known))
        });
    }
    let Some(name) = &args.policy else { return Ok(unrestricted_key.clone()) };
    let policy = snapshot.policy(name).ok_or_else(|| {
        let known = snapshot.policies.iter().map(|policy| &*policy.name);
        format!("there is no policy `{name}`; {}", list("policies", known))
    })?;
    Ok(Arc::new(KeyRecord::of("".into(), policy, None, &KeyOverrides::default(), None)))
}

/// The key called `name` in the store, if the store exists and has it.
fn stored(args: &ExplainArgs, snapshot: &Snapshot, name: &str) -> Option<Arc<KeyRecord>> {
    let source = args.store.place_of(snapshot).ok()?.source().ok()?;
    let RegisterContents { keys, teams, .. } = source.registered().ok()?;
    let key = keys.into_iter().find(|key| *key.name == *name)?;
    let team = teams.iter().find(|team| Some(&team.name) == key.team.as_ref());
    snapshot.record_of(&key, team).map(Arc::new)
}

fn list<'n>(kind: &str, known: impl Iterator<Item = &'n str>) -> String {
    let mut known: Vec<&str> = known.collect();
    known.sort_unstable();
    if known.is_empty() { format!("no {kind} are configured") } else { format!("the {kind} are: {}", known.join(", ")) }
}

/// The explanation of the request at `now_ms` (Unix milliseconds).
fn explanation_of(args: &ExplainArgs, snapshot: &Snapshot, key: &Arc<KeyRecord>, now_ms: i64) -> ExplanationView {
    let call = call(args);
    let context = ExplainContext {
        table: &snapshot.table,
        key,
        key_is_known: args.key.is_some(),
        by_policy: args.policy.is_some(),
        call: &call,
        now_ms,
    };
    if !is_valid(key, now_ms / 1000) {
        return context.refused(&Refusal::InvalidKey(KeyRefusal::Missing));
    }
    match authorize(&snapshot.table, key, &call) {
        Ok(authorized) => {
            let explanation = domain::explain(&snapshot.table, &authorized, &call, args.no_fallback);
            context.view(authorized.requested(), explanation)
        }
        Err(refusal) => context.refused(&refusal),
    }
}

fn call(args: &ExplainArgs) -> Call {
    let metadata = RequestMetadata {
        model: args.model.as_deref().unwrap_or_default().into(),
        model_span: 0..0,
        stream: args.stream,
        ask_usage: None,
        max_output: None,
        choices: 1,
        inputs: 1,
        user: args.user.as_deref().map(Into::into),
        features: FeatureSet::of(args.features.iter().copied()),
        cost_facts: CostFacts::default(),
        given: Vec::new(),
        refers_to: Vec::new(),
        is_stored: false,
    };
    Call::new(args.endpoint, Bytes::new(), metadata)
}
