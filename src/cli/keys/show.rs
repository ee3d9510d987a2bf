//! Keys as tables, text and CSV: never a secret, only the id of its hash.
//!
//! Start reading at [`list`] and [`one`].

use crate::admin::KeyView;
use crate::cli::table::{NONE, quoted, table};
use crate::cli::value_parsers::{budget_text, end, format_budget, instant, minute};
use crate::domain::budget::{BudgetSpec, Scope};
use crate::domain::limit::Limits;
use crate::domain::register::{StoredKey, StoredSecret};
use std::fmt::{Alignment, Write};

/// The columns of CSV.
const COLUMNS: [&str; 12] = [
    "name",
    "source",
    "policy",
    "team",
    "state",
    "requests_per_minute",
    "tokens_per_minute",
    "max_concurrent",
    "budget",
    "created",
    "expires",
    "last_used",
];

/// Keys as a table.
pub(super) fn list(keys: &[KeyView]) -> String {
    if keys.is_empty() {
        return "no keys\n".to_owned();
    }
    let head =
        ["name", "source", "policy", "team", "state", "expires", "last used"].map(|name| (name, Alignment::Left));
    let row = |key: &KeyView| {
        vec![
            key.name().to_owned(),
            key.source.label().to_owned(),
            key.record.policy.name.to_string(),
            key.record.team.as_deref().unwrap_or(NONE).to_owned(),
            key.state.label().to_owned(),
            key.record.expires.map_or_else(|| NONE.to_owned(), end),
            or_none(last_used(key).map(minute)),
        ]
    };
    table(&head, &keys.iter().map(row).collect::<Vec<_>>())
}

/// Keys as CSV: the limits that requests are measured by, and the key's own budget.
pub(super) fn csv(keys: &[KeyView]) -> String {
    let mut out = format!("{}\n", COLUMNS.join(","));
    for key in keys {
        let record = &key.record;
        let budget = record.budgets.iter().find(|budget| budget.account.scope == Scope::Key);
        let budget = budget.map(|own| BudgetSpec { limit: own.limit, window: own.window.clone() });
        let created = key.stored.as_ref().map(|stored| stored.created_unix_ms);
        let row = [
            quoted(key.name()),
            key.source.label().to_owned(),
            quoted(&record.policy.name),
            quoted(record.team.as_deref().unwrap_or_default()),
            key.state.label().to_owned(),
            text(record.limits.requests_per_minute),
            text(record.limits.tokens_per_minute),
            text(record.limits.max_concurrent),
            text(budget.as_ref().map(budget_text)),
            text(created.map(instant)),
            text(record.expires.map(|unix| instant(unix.saturating_mul(1000)))),
            text(last_used(key).map(instant)),
        ];
        out.push_str(&row.join(","));
        out.push('\n');
    }
    out
}

/// One key with all its details, for people.
pub(super) fn one(key: &KeyView, now_unix_ms: i64) -> String {
    let record = &key.record;
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<12}  {value}");
    };
    line("name", key.name());
    line("source", key.source.label());
    line("policy", &record.policy.name);
    line("team", record.team.as_deref().unwrap_or(NONE));
    line("state", key.state.label());
    line("expires", &record.expires.map_or_else(|| "never".to_owned(), end));
    line("limits", &format_limits(&record.limits));
    if let Some(own) = key.stored.as_ref().map(|stored| &stored.own.limits).filter(|own| **own != Limits::default()) {
        line("of its own", &format_limits(own));
    }
    for budget in record.budgets.iter() {
        let whose = format!("{} {}", budget.account.scope.label(), budget.account.name);
        line("budget", &format!("{}, of the {whose}", format_budget(budget.limit, &budget.window)));
    }
    match &key.stored {
        None => {
            if let Some(hash) = key.in_file {
                line("secret", &hash.id());
            }
            text.push_str("\nIts secret is the configuration's.\n");
        }
        Some(stored) => {
            line("created", &format!("{} UTC", minute(stored.created_unix_ms)));
            line("version", &stored.version.to_string());
            text.push_str(&secrets(stored, now_unix_ms));
        }
    }
    text
}

fn secrets(key: &StoredKey, now_unix_ms: i64) -> String {
    let head = ["secret", "created", "ends", "last used"].map(|name| (name, Alignment::Left));
    let row = |secret: &StoredSecret| {
        let ends = match secret.ends_unix_ms {
            Some(end) if !secret.works(now_unix_ms) => format!("ended {}", minute(end)),
            ends => or_none(ends.map(minute)),
        };
        vec![secret.hash.id(), minute(secret.created_unix_ms), ends, or_none(secret.last_used_unix_ms.map(minute))]
    };
    let rows: Vec<_> = key.secrets.iter().map(row).collect();
    format!("\n{}\nWhich one do you hold?  printf %s \"$KEY\" | sha256sum | cut -c1-12\n", table(&head, &rows))
}

fn format_limits(limits: &Limits) -> String {
    let parts = [
        limits.requests_per_minute.map(|limit| format!("{limit} requests a minute")),
        limits.tokens_per_minute.map(|limit| format!("{limit} tokens a minute")),
        limits.max_concurrent.map(|limit| format!("{limit} at once")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { NONE.to_owned() } else { parts.join(", ") }
}

/// When any secret of the key was last used.
fn last_used(key: &KeyView) -> Option<i64> {
    key.stored.as_ref()?.secrets.iter().filter_map(|secret| secret.last_used_unix_ms).max()
}

fn or_none(text: Option<String>) -> String {
    text.unwrap_or_else(|| NONE.to_owned())
}

fn text(value: Option<impl ToString>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}
