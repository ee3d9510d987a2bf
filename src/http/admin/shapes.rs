//! How keys, teams, credit and requests look in answers. [`openapi`](super::openapi) says it as schemas, and tests
//! hold the one against the other.
//!
//! Money is a decimal string of USD, times are RFC 3339 in UTC. Of a secret there is its id, the first twelve
//! hex digits of its SHA-256, never the secret and never the whole hash.

use crate::admin::{KeyView, Page, TeamView};
use crate::domain::budget::{Budget, BudgetSpec, Scope, Window};
use crate::domain::call::Endpoint;
use crate::domain::money::NanoUsd;
use crate::domain::receipt::{AttemptRecord, Receipt};
use crate::domain::refusal::LimitKind;
use crate::domain::register::{Balance, Grant, Holder, StoredSecret};
use crate::domain::report::{Dimension, UsageQuery, UsageSum};
use crate::telemetry::rfc3339::Rfc3339;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// A part of a list.
pub fn list<T>(page: &Page<T>, shape: fn(&T) -> Value) -> Value {
    let data: Vec<Value> = page.items.iter().map(shape).collect();
    json!({ "object": "list", "data": data, "has_more": page.next.is_some(), "next": page.next })
}

/// A key: what it has of its own, and what holds together with its policy.
pub fn key(key: &KeyView) -> Value {
    let (record, stored) = (&key.record, key.stored.as_ref());
    let own = stored.map(|stored| stored.own.clone()).unwrap_or_default();
    let in_file = key.in_file.map(|hash| json!({ "id": hash.id(), "created": null, "ends": null, "last_used": null }));
    let secrets: Vec<Value> = stored.iter().flat_map(|stored| &stored.secrets).map(secret).chain(in_file).collect();
    json!({
        "object": "key",
        "name": key.name(),
        "source": key.source.label(),
        "state": key.state.label(),
        "policy": &*record.policy.name,
        "team": record.team.as_deref(),
        "requests_per_minute": own.limits.requests_per_minute,
        "tokens_per_minute": own.limits.tokens_per_minute,
        "max_concurrent": own.limits.max_concurrent,
        "budget": own.budget.as_ref().map(allowance),
        "effective": {
            "requests_per_minute": record.limits.requests_per_minute,
            "tokens_per_minute": record.limits.tokens_per_minute,
            "max_concurrent": record.limits.max_concurrent,
            "budgets": record.budgets.iter().map(budget).collect::<Vec<_>>(),
        },
        "expires": record.expires.map(|unix_s| time(unix_s.saturating_mul(1000))),
        "disabled": stored.is_some_and(|stored| stored.disabled),
        "created": stored.map(|stored| time(stored.created_unix_ms)),
        "secrets": secrets,
    })
}

fn secret(secret: &StoredSecret) -> Value {
    json!({
        "id": secret.hash.id(),
        "created": time(secret.created_unix_ms),
        "ends": secret.ends_unix_ms.map(time),
        "last_used": secret.last_used_unix_ms.map(time),
    })
}

/// A team.
pub fn team(team: &TeamView) -> Value {
    json!({
        "object": "team",
        "name": &*team.name,
        "source": team.source.label(),
        "budget": team.budget.as_ref().map(allowance),
        "created": team.stored.as_ref().map(|stored| time(stored.created_unix_ms)),
    })
}

/// How somebody's credit stands.
pub fn balance(balance: &Balance) -> Value {
    let [key, team] = holder(&balance.holder);
    json!({
        "object": "balance",
        "key": key,
        "team": team,
        "granted": balance.granted.to_string(),
        "spent": balance.spent.to_string(),
        "leased": balance.leased.to_string(),
        "left": balance.left().to_string(),
    })
}

/// Credit given or taken back.
pub fn grant(grant: &Grant) -> Value {
    let [key, team] = holder(&grant.holder);
    json!({
        "object": "grant",
        "id": grant.id,
        "key": key,
        "team": team,
        "amount": grant.amount.to_string(),
        "reason": &*grant.reason,
        "by": &*grant.by,
        "granted": time(grant.granted_unix_ms),
    })
}

/// Sums over the ledger, and all of them together.
pub fn usage(query: &UsageQuery, sums: &[UsageSum]) -> Value {
    let mut total = UsageSum::default();
    sums.iter().for_each(|sum| total.add(sum));
    let row = |sum: &UsageSum| {
        let names = query.by.iter().zip(&sum.by).map(|(dimension, name)| (dimension.name().to_owned(), json!(name)));
        let mut row: Map<String, Value> = names.collect();
        let Value::Object(numbers) = numbers(sum) else { return Value::Null };
        row.extend(numbers);
        Value::Object(row)
    };
    json!({
        "object": "usage",
        "by": query.by.iter().copied().map(Dimension::name).collect::<Vec<_>>(),
        "since": query.since_unix_ms.map(time),
        "until": query.until_unix_ms.map(time),
        "data": sums.iter().map(row).collect::<Vec<_>>(),
        "total": numbers(&total),
    })
}

fn numbers(sum: &UsageSum) -> Value {
    let tokens = |tokens: u128| u64::try_from(tokens).unwrap_or(u64::MAX);
    json!({
        "requests": sum.requests,
        "failed": sum.failed,
        "input_tokens": tokens(sum.input),
        "cached_input_tokens": tokens(sum.cached_input),
        "output_tokens": tokens(sum.output),
        "reasoning_tokens": tokens(sum.reasoning),
        "metered": sum.metered,
        "estimated": sum.estimated,
        "cost_usd": usd(sum.cost_nanousd),
    })
}

/// A receipt as an item of the ledger.
pub fn request(receipt: &Receipt) -> Value {
    let mut request = self::receipt(receipt);
    request["object"] = "request".into();
    request
}

/// A receipt, with the access log's names.
pub fn receipt(receipt: &Receipt) -> Value {
    let attempt = |attempt: &AttemptRecord| {
        let (deployment, tier) = (&*attempt.deployment, attempt.tier.as_deref());
        json!({ "deployment": deployment, "tier": tier, "reason": attempt.reason.label(), "duration_us": micros(attempt.duration) })
    };
    let price = receipt.price.map(|price| {
        json!({
            "input_usd_per_mtok": price.input.usd_per_mtok(),
            "cached_input_usd_per_mtok": price.cached_input.usd_per_mtok(),
            "output_usd_per_mtok": price.output.usd_per_mtok(),
            "request_usd": price.request.to_string(),
        })
    });
    let served = receipt.served.as_ref();
    json!({
        "request_id": receipt.id.to_string(),
        "time": time(receipt.received_unix_ms),
        "key": receipt.key.as_deref(),
        "team": receipt.team.as_deref(),
        "policy": receipt.policy.as_deref(),
        "endpoint": receipt.endpoint.map(Endpoint::name),
        "asked_model": receipt.asked_model.as_deref(),
        "stream": receipt.stream,
        "model": served.map(|served| &*served.model),
        "deployment": served.map(|served| &*served.deployment),
        "tier": served.and_then(|served| served.tier.as_deref()),
        "region": served.map(|served| &*served.region),
        "attempts": receipt.attempts.iter().map(attempt).collect::<Vec<_>>(),
        "outcome": receipt.outcome.label(),
        "reason": receipt.reason.label(),
        "limit": receipt.limit.map(LimitKind::label),
        "status": receipt.status,
        "input_tokens": receipt.usage.map(|usage| usage.input),
        "cached_input_tokens": receipt.usage.map(|usage| usage.cached_input),
        "output_tokens": receipt.usage.map(|usage| usage.output),
        "reasoning_tokens": receipt.usage.map(|usage| usage.reasoning),
        "estimated": receipt.estimated,
        "price_version": receipt.price_version.as_deref(),
        "price": price,
        "cost_usd": receipt.cost.to_string(),
        "first_token_us": receipt.first_token.map(micros),
        "duration_us": micros(receipt.duration),
        "overhead_us": micros(receipt.overhead),
    })
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn time(unix_ms: i64) -> String {
    Rfc3339(unix_ms).to_string()
}

/// The key or the team, and null for the other.
fn holder(holder: &Holder) -> [Option<&str>; 2] {
    let name = Some(&*holder.name);
    if holder.scope == Scope::Key { [name, None] } else { [None, name] }
}

fn allowance(allowance: &BudgetSpec) -> Value {
    window(allowance.limit, &allowance.window)
}

/// A budget that applies, and whose it is.
fn budget(budget: &Budget) -> Value {
    let mut shape = window(budget.limit, &budget.window);
    shape["of"] = budget.account.scope.label().into();
    shape["name"] = (*budget.account.name).into();
    shape
}

fn window(limit: NanoUsd, window: &Window) -> Value {
    let (parse_duration_ms, zone) = match window {
        Window::Day(zone) => ("day", Some(zone.name())),
        Window::Month(zone) => ("month", Some(zone.name())),
        Window::Ever | Window::Credit => ("none", None),
    };
    json!({ "limit": limit.to_string(), "window": parse_duration_ms, "zone": zone })
}

/// Money that may be more than one amount holds.
fn usd(nanousd: i128) -> String {
    const DOLLAR: u128 = 1_000_000_000;
    let sign = if nanousd < 0 { "-" } else { "" };
    let (whole, part) = (nanousd.unsigned_abs() / DOLLAR, nanousd.unsigned_abs() % DOLLAR);
    let text = format!("{sign}{whole}.{part:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_money_are_plain_decimals() {
        let check = |nano: i128, expected: &str| assert_eq!(usd(nano), expected);
        check(0, "0");
        check(-1_500_000_000, "-1.5");
        check(21_300, "0.0000213");
        check(100_000_000_000, "100");
        check(i128::from(i64::MAX) * 10, "92233720368.54775807");
    }
}
