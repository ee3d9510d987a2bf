//! `explain --request`: what happened to one request, from the ledger.
//!
//! Start reading at [`explain`].

use crate::admin::views::{ReceiptObject, to_json};
use crate::cli::print;
use crate::cli::store::{CommandError, StoreArgs};
use crate::cli::table::{dollars, grouped, table};
use crate::domain::call::Endpoint;
use crate::domain::id::RequestId;
use crate::domain::pricing::Price;
use crate::domain::reason::Reason;
use crate::domain::receipt::{AttemptRecord, PassedOverDeployment, Receipt};
use crate::telemetry::rfc3339::Rfc3339Text;
use std::fmt::{Alignment, Write};
use std::process::ExitCode;
use std::time::Duration;

/// Reads `req_` and 32 hex digits, as in the header `x-request-id`; also without `req_`.
pub(super) fn id(text: &str) -> Result<RequestId, &'static str> {
    RequestId::parse(text).ok_or("write req_ and 32 hex digits, as the header `x-request-id` has it")
}

/// Prints the receipt of request `id`.
///
/// # Errors
/// Only if it cannot be written.
pub(super) fn explain(id: RequestId, store: &StoreArgs, as_json: bool) -> anyhow::Result<ExitCode> {
    match find(id, store) {
        Ok(receipt) => {
            print(&if as_json { format!("{:#}\n", to_json(&ReceiptObject::from(&receipt))) } else { text(&receipt) })?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => error.print(),
    }
}

fn find(id: RequestId, store: &StoreArgs) -> Result<Receipt, CommandError> {
    let book = store.book()?;
    let found = book.receipt(id).map_err(CommandError::store)?;
    let Some(receipt) = found else {
        let begins = book.begins_unix_ms().map_err(CommandError::store)?;
        let kept = match begins {
            Some(unix_ms) => format!("it begins at {}", Rfc3339Text(unix_ms)),
            None => "it is empty".to_owned(),
        };
        return Err(CommandError::failed(format!(
            "the ledger knows no request {id}; {kept}\n  help: a request is written when its answer has ended; look \
             for one that is older than [store] retention, that another replica served or that had no valid key in \
             the access log"
        )));
    };
    Ok(receipt)
}

fn text(receipt: &Receipt) -> String {
    let mut out = format!("{}  {}\n\n", receipt.id, Rfc3339Text(receipt.received_unix_ms));
    let mut say = |name: &str, what: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{name:<9}{what}");
    };
    say("whose", whose(receipt));
    say("asked", asked(receipt));
    say("ended", ended(receipt));
    if let Some(meant) = meant(receipt) {
        say("meant", meant);
    }
    if let Some(served) = &receipt.served {
        let tier = in_tier(served.tier.as_deref());
        let last = if receipt.outcome.label() == "served" { "served" } else { "last" };
        say(last, format!("{} at {} ({tier}, region {})", served.model, served.deployment, served.region));
    }
    say("clocks", clocks(receipt));
    if let (Some(failover), Some(first)) = (receipt.failover, receipt.failed_over_from()) {
        let region = first.region.as_ref().map_or(String::new(), |region| format!("region {region}, "));
        say(
            "failover",
            format!("{} from the first attempt ({region}{}) to the answer", ms(failover), first.reason.label()),
        );
    }
    if let Some(replayed) = replayed(receipt) {
        say("replayed", replayed);
    }
    say("tokens", tokens(receipt));
    if let Some(price) = receipt.price {
        say("price", priced(price, receipt.price_version.as_deref()));
    }
    say("cost", dollars(receipt.cost.0.into()));
    if !receipt.attempts.is_empty() {
        let _ = write!(out, "\n{}", attempts(&receipt.attempts));
    }
    for (at, attempt) in receipt.attempts.iter().enumerate() {
        if let Some(id) = &attempt.provider_request_id {
            let _ = writeln!(out, "its provider calls attempt {} {id}", at + 1);
        }
    }
    if !receipt.passed_over.is_empty() {
        let _ = write!(out, "\n{}", passed_over(&receipt.passed_over));
    }
    if receipt.met_injected_fault() {
        out.push_str(INJECTED);
    }
    out
}

/// Where the plan meant it to go, unless that is what served it.
fn meant(receipt: &Receipt) -> Option<String> {
    let meant = receipt.meant.as_ref()?;
    let as_meant = receipt.served.as_ref().is_some_and(|last| last.model == meant.model && last.tier == meant.tier);
    (!as_meant).then(|| format!("{} ({})", meant.model, in_tier(meant.tier.as_deref())))
}

fn in_tier(tier: Option<&str>) -> String {
    tier.map_or("no tier".to_owned(), |tier| format!("tier {tier}"))
}

fn whose(receipt: &Receipt) -> String {
    let Some(key) = &receipt.key else { return "nobody's: no valid key".to_owned() };
    let team = receipt.team.as_ref().map_or(String::new(), |team| format!(", team {team}"));
    let policy = receipt.policy.as_ref().map_or(String::new(), |policy| format!(", policy {policy}"));
    format!("key {key}{team}{policy}")
}

fn asked(receipt: &Receipt) -> String {
    let model = receipt.asked_model.as_deref().unwrap_or("no model that could be read");
    let endpoint = receipt.endpoint.map_or("an unknown path", Endpoint::name);
    format!("{model} ({endpoint}{})", if receipt.stream { ", streamed" } else { "" })
}

fn ended(receipt: &Receipt) -> String {
    let limit = receipt.limit.map_or(String::new(), |limit| format!(" by {}", limit.label()));
    let (outcome, reason) = (receipt.outcome.label(), receipt.reason.label());
    let why = if outcome == reason { String::new() } else { format!(": {reason}{limit}") };
    format!("{outcome}{why}, status {}", receipt.status)
}

fn clocks(receipt: &Receipt) -> String {
    let first = receipt.first_token.map_or(String::new(), |first| format!("{} to the first token, ", ms(first)));
    format!("{first}{} in all, {} µs of it in the gateway", ms(receipt.duration), receipt.overhead.as_micros())
}

/// What became of an answer that broke off and was to go on at another deployment.
fn replayed(receipt: &Receipt) -> Option<String> {
    let last = receipt.replays().last()?;
    let what = match last.reason {
        Reason::Served => "the answer broke off and goes on with that of",
        Reason::Diverged => "the answer broke off, and another one came of",
        _ => "the answer broke off, and none came of",
    };
    Some(format!("{what} {}, asked {} after the request", last.deployment, ms(last.started.unwrap_or_default())))
}

fn tokens(receipt: &Receipt) -> String {
    let Some(usage) = receipt.usage else { return "unknown".to_owned() };
    let count = |count: u64| grouped(count.into());
    let estimated = if receipt.estimated { "; counted by the gateway, because the provider did not say" } else { "" };
    let apart = usage.apart.iter().filter(|(_, count)| *count > 0);
    let apart: String = apart.map(|(class, tokens)| format!(", {} {}", count(tokens), class.name())).collect();
    format!(
        "{} in ({} cached), {} out ({} reasoning){apart}{estimated}",
        count(usage.input),
        count(usage.cached_input),
        count(usage.output),
        count(usage.reasoning)
    )
}

fn priced(price: Price, version: Option<&str>) -> String {
    let version = version.map_or(String::new(), |version| format!(" (version {version})"));
    let request = if price.request.0 == 0 { String::new() } else { format!(", ${} a request", price.request) };
    let apart = price.apart.iter().filter_map(|(class, price)| Some((class, price?)));
    let apart: String = apart.map(|(class, price)| format!(", ${} {}", price.usd_per_mtok(), class.name())).collect();
    format!(
        "${} in, ${} cached, ${} out{apart} per million tokens{request}{version}",
        price.input.usd_per_mtok(),
        price.cached_input.usd_per_mtok(),
        price.output.usd_per_mtok()
    )
}

fn attempts(attempts: &[AttemptRecord]) -> String {
    let head = [
        ("attempt", Alignment::Right),
        ("deployment", Alignment::Left),
        ("tier", Alignment::Left),
        ("region", Alignment::Left),
        ("started", Alignment::Right),
        ("ended", Alignment::Left),
        ("after", Alignment::Right),
    ];
    let rows = attempts.iter().enumerate().map(|(at, attempt)| {
        let name = |name: &Option<std::sync::Arc<str>>| name.as_deref().unwrap_or("-").to_owned();
        vec![
            (at + 1).to_string(),
            attempt.deployment.to_string(),
            name(&attempt.tier),
            name(&attempt.region),
            attempt.started.map_or("-".to_owned(), ms),
            marked(attempt.reason.label(), attempt.injected),
            ms(attempt.duration),
        ]
    });
    table(&head, &rows.collect::<Vec<_>>())
}

/// Why each deployment of the plan was not asked.
fn passed_over(deployments: &[PassedOverDeployment]) -> String {
    let head = [
        ("passed over", Alignment::Left),
        ("tier", Alignment::Left),
        ("model", Alignment::Left),
        ("why", Alignment::Left),
        ("until", Alignment::Right),
    ];
    let rows = deployments.iter().map(|passed| {
        vec![
            passed.deployment.to_string(),
            passed.tier.as_deref().unwrap_or("-").to_owned(),
            passed.model.to_string(),
            marked(passed.why.label(), passed.injected),
            passed.until.map_or("-".to_owned(), ms),
        ]
    });
    table(&head, &rows.collect::<Vec<_>>())
}

/// Said of a request with [`marked`] lines.
const INJECTED: &str = "\n* a fault was injected there on purpose: the request counts for no SLA\n";

/// `label`, with a mark where an injected fault was met.
fn marked(label: &str, injected: bool) -> String {
    format!("{label}{}", if injected { "*" } else { "" })
}

/// Milliseconds, exact to the microsecond.
fn ms(duration: Duration) -> String {
    let micros = duration.as_micros();
    let part = format!("{:03}", micros % 1_000);
    let part = part.trim_end_matches('0');
    format!("{}{}{part} ms", grouped(micros / 1_000), if part.is_empty() { "" } else { "." })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_named_as_its_header_names_it() {
        let check = |text: &str, expected: Option<u128>| assert_eq!(id(text).ok().map(|id| id.0), expected, "{text}");
        check("req_00000000000000000000000000000010", Some(16));
        check("000000000000000000000000000000fF", Some(255));
        for wrong in ["", "req_", "req_10", "req_+000000000000000000000000000000f", "chatcmpl-1"] {
            check(wrong, None);
        }
    }

    #[test]
    fn milliseconds_are_exact() {
        let check = |micros, expected: &str| assert_eq!(ms(Duration::from_micros(micros)), expected);
        check(0, "0 ms");
        check(87, "0.087 ms");
        check(480_000, "480 ms");
        check(2_345_670, "2,345.67 ms");
    }
}
