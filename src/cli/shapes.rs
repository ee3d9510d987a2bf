//! Keys, teams and credit as JSON: the same objects as the admin API's, and the `version` that it has as an ETag.
//!
//! Money is a decimal string of USD, times are RFC 3339 in UTC. Of a secret there is its id, never the secret.

use super::typed::instant;
use crate::admin::{KeyView, Page, TeamView};
use crate::domain::budget::{Allowance, Budget, Scope, Window};
use crate::domain::money::NanoUsd;
use crate::domain::register::{Balance, Grant, Holder, StoredSecret};
use serde_json::{Value, json};

/// A part of a list.
pub(super) fn list<T>(page: &Page<T>, shape: fn(&T) -> Value) -> Value {
    let data: Vec<Value> = page.items.iter().map(shape).collect();
    json!({ "object": "list", "data": data, "has_more": page.next.is_some(), "next": page.next })
}

/// A key: what it has of its own, and what holds together with its policy.
pub(super) fn key(key: &KeyView) -> Value {
    let (record, stored) = (&key.record, key.stored.as_ref());
    let own = stored.map(|stored| stored.own.clone()).unwrap_or_default();
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
        "expires": record.expires.map(|unix| instant(unix.saturating_mul(1000))),
        "disabled": stored.is_some_and(|stored| stored.disabled),
        "created": stored.map(|stored| instant(stored.created_unix_ms)),
        "version": stored.map(|stored| stored.version),
        "secrets": stored.iter().flat_map(|stored| &stored.secrets).map(secret).collect::<Vec<_>>(),
    })
}

fn secret(secret: &StoredSecret) -> Value {
    json!({
        "id": secret.hash.id(),
        "created": instant(secret.created_unix_ms),
        "ends": secret.ends_unix_ms.map(instant),
        "last_used": secret.last_used_unix_ms.map(instant),
    })
}

/// A team.
pub(super) fn team(team: &TeamView) -> Value {
    json!({
        "object": "team",
        "name": &*team.name,
        "source": team.source.label(),
        "budget": team.budget.as_ref().map(allowance),
        "created": team.stored.as_ref().map(|stored| instant(stored.created_unix_ms)),
        "version": team.stored.as_ref().map(|stored| stored.version),
    })
}

/// How somebody's credit stands.
pub(super) fn balance(balance: &Balance) -> Value {
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
pub(super) fn grant(grant: &Grant) -> Value {
    let [key, team] = holder(&grant.holder);
    json!({
        "object": "grant",
        "id": grant.id,
        "key": key,
        "team": team,
        "amount": grant.amount.to_string(),
        "reason": &*grant.reason,
        "by": &*grant.by,
        "granted": instant(grant.granted_unix_ms),
    })
}

/// The key or the team, and null for the other.
fn holder(holder: &Holder) -> [Option<&str>; 2] {
    let name = Some(&*holder.name);
    if holder.scope == Scope::Key { [name, None] } else { [None, name] }
}

fn allowance(allowance: &Allowance) -> Value {
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
    let (length, zone) = match window {
        Window::Day(zone) => ("day", Some(zone.name())),
        Window::Month(zone) => ("month", Some(zone.name())),
        Window::Ever | Window::Credit => ("none", None),
    };
    json!({ "limit": limit.to_string(), "window": length, "zone": zone })
}
