//! `tierway models`: the names that a key may write as `model`, asked of a running gateway; or all of the configuration.
//!
//! Start reading at [`models`].

use super::client_target::{ClientArgs, unanswered};
use super::store::CommandError;
use super::table::{NONE, grouped, table};
use super::{find_config, print};
use crate::clock::Clock;
use crate::config::{ExtraKey, ProcessEnvironment, load};
use crate::domain::secret::KeyHash;
use crate::protocol::chat::models::{ModelEntry, ModelList};
use crate::relay::{ListedModel, listed_model};
use clap::Args;
use http::Method;
use serde_json::Value;
use std::fmt::Alignment;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Without a key and an address, the models, aliases and tiers of the configuration are shown, whoever may use them.

Exit codes: 0 they are shown; 1 the gateway did not answer; 2 wrong usage; 78 the configuration is invalid.

Examples:
  tierway models                        # what the configuration serves
  TIERWAY_API_KEY=tw_... tierway models # what this key may use, asked of the gateway that the configuration describes
  tierway models --url https://gateway.example --key tw_... --json";

/// Arguments of `models`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct ModelsArgs {
    #[command(flatten)]
    gateway: ClientArgs,
    /// Print JSON, as `GET /v1/models` answers
    #[arg(long)]
    json: bool,
}

/// Shows the list.
///
/// # Errors
/// Only if it cannot be written, or the system refuses what it needs.
pub(super) fn models(args: &ModelsArgs) -> anyhow::Result<ExitCode> {
    let list = args.gateway.names_one().and_then(|asks| if asks { asked(args) } else { configured(args) });
    let list = match list {
        Ok(list) => list,
        Err(error) => return error.print(),
    };
    print(&if args.json { format!("{list:#}\n") } else { text(&list) })?;
    Ok(ExitCode::SUCCESS)
}

fn asked(args: &ModelsArgs) -> Result<Value, CommandError> {
    let target = args.gateway.target()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CommandError::failed)?;
    let path = format!("{}/models", target.prefix);
    let body = runtime.block_on(target.client.request(Method::GET, &path));
    let body = body.map_err(|error| unanswered(&target.client.url, &error))?;
    serde_json::from_slice(&body).map_err(|error| CommandError::failed(format!("the answer is no list: {error}")))
}

/// What a key without restrictions would be shown.
fn configured(args: &ModelsArgs) -> Result<Value, CommandError> {
    let anybody = ExtraKey { name: "anybody".to_owned(), hash: KeyHash([0; 32]) };
    let hash = anybody.hash;
    let loaded = find_config(args.gateway.config()).and_then(|source| load(&source, &ProcessEnvironment, &[anybody]));
    let snapshot = loaded.map_err(|problems| CommandError::configuration(problems.render(true)))?;
    let key = snapshot.key(&hash).expect("it was given to the loader");
    let names = key.policy.usable_names(&snapshot.table).into_iter();
    let now = Clock.unix_ms();
    let listed: Vec<ListedModel> =
        names.map(|(name, asked)| listed_model(&snapshot.table, name, asked, now, |_| true)).collect();
    let entries = listed.iter().map(|one| ModelEntry::new(&one.name, one.price.as_ref(), one.context, &one.regions));
    serde_json::from_slice(&ModelList::new(entries).json()).map_err(CommandError::failed)
}

fn text(list: &Value) -> String {
    const HEAD: [(&str, Alignment); 5] = [
        ("model", Alignment::Left),
        ("input", Alignment::Right),
        ("output", Alignment::Right),
        ("context", Alignment::Right),
        ("regions", Alignment::Left),
    ];
    let rows: Vec<Vec<String>> = list["data"].as_array().into_iter().flatten().map(row).collect();
    if rows.is_empty() {
        return "no models\n".to_owned();
    }
    table(&HEAD, &rows)
}

fn row(model: &Value) -> Vec<String> {
    let price = |class: &str| model["pricing"][class].as_str().map_or(NONE.to_owned(), |usd| format!("${usd}"));
    let regions: Vec<&str> = model["regions"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    vec![
        model["id"].as_str().unwrap_or_default().to_owned(),
        price("input"),
        price("output"),
        model["context_length"].as_u64().map_or(NONE.to_owned(), |tokens| grouped(tokens.into())),
        regions.join(", "),
    ]
}
