//! `[policies.NAME]`, `[teams.NAME]`, `[[keys]]` and `[drill]`.

use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::super::raw::{Budget, Key, Limits, Policy, Team, UnknownPrice, Window};
use super::super::reader::{Located, Table, ValueError};
use super::super::value::{HedgeAfter, Name, NonZeroDuration, Percent, Sha256Digest};
use super::check_name;
use crate::domain::budget::{CreditUse, Zone};
use crate::domain::secret::Secret;

/// Reserved capacity is for those who are told so.
const RESERVED: bool = false;
/// Everybody is equal unless somebody is more so.
const PRIORITY: NonZeroU32 = NonZeroU32::MIN;
/// A request that does not fit its budget is refused, not shortened.
const CLAMP: bool = false;
/// What has no price cannot be kept within a budget.
const UNKNOWN_PRICE: UnknownPrice = UnknownPrice::Deny;
/// Whoever was given credit wants it spent before anything else.
const CREDIT: CreditUse = CreditUse::First;
/// A budget without a window is spent once.
const WINDOW: Window = Window::None;
/// Windows end at midnight in one zone for everybody.
const ZONE: &str = "UTC";
/// A hedge earlier than this would hedge the healthy.
const HEDGE_AT_LEAST: NonZeroDuration = NonZeroDuration(Duration::from_millis(300));
/// Two requests in a hundred may be sent twice.
const HEDGE_EXTRA: Percent = Percent::whole(2);
/// Faults on purpose only where somebody asked for them.
const DRILL: bool = false;

pub(super) fn policy(name: Located<String>, table: &mut Table<'_>) -> Policy {
    check_name(table.diagnostics(), &name);
    let tiers = table.list("tiers");
    let models = table.list("models");
    if tiers.is_none() && models.is_none() {
        table.report_missing_either(["tiers", "models"], "[\"*\"], or the names of the tiers it may use");
    }
    let limits = limits(table);
    table.or_unbuilt("priority", PRIORITY, "all policies would be equal when the gateway is full");
    if table.optional_table("hedge", hedge).is_some() {
        table.unenforced("hedge", "no second attempt would be started");
    }
    if table.optional_table("sla", sla).is_some() {
        table.unenforced("sla", "no credit would be given");
    }
    Policy {
        clamp: table.or("clamp", CLAMP),
        unknown_price: table.or("unknown_price", UNKNOWN_PRICE),
        credit: table.or("credit", CREDIT),
        total: table.optional_table("total", total).flatten(),
        name,
        tiers: tiers.unwrap_or_default(),
        models: models.unwrap_or_default(),
        regions: table.list("regions"),
        reserved: table.or("reserved", RESERVED),
        limits,
    }
}

fn limits(table: &mut Table<'_>) -> Limits {
    Limits {
        requests_per_minute: table.optional::<NonZeroU64>("requests_per_minute"),
        tokens_per_minute: table.optional::<NonZeroU64>("tokens_per_minute"),
        max_concurrent: table.optional::<NonZeroU32>("max_concurrent"),
        budget: budget(table),
    }
}

/// What all keys of a policy share.
fn total(table: &mut Table<'_>) -> Option<Budget> {
    let why = "only a budget is shared by the policy's keys yet";
    table.optional_unbuilt::<NonZeroU64>("requests_per_minute", why);
    table.optional_unbuilt::<NonZeroU64>("tokens_per_minute", why);
    table.optional_unbuilt::<NonZeroU32>("max_concurrent", why);
    budget(table)
}

fn budget(table: &mut Table<'_>) -> Option<Budget> {
    table.optional_table("budget", |budget| Budget {
        limit: budget.required("limit"),
        window: budget.or("window", WINDOW),
        zone: budget.or("zone", Zone::named(ZONE).expect("UTC is built in")),
    })
}

fn hedge(table: &mut Table<'_>) {
    table.required::<HedgeAfter>("after");
    table.or("at_least", HEDGE_AT_LEAST);
    table.or("extra", HEDGE_EXTRA);
}

fn sla(table: &mut Table<'_>) {
    table.required::<Percent>("uptime");
    table.optional::<NonZeroDuration>("first_token");
    for credit in table.cells("credits").unwrap_or_default() {
        credit.table(|credit| {
            credit.required::<Percent>("below");
            credit.required::<Percent>("credit");
        });
    }
}

pub(super) fn team(name: Located<String>, table: &mut Table<'_>) -> Team {
    check_name(table.diagnostics(), &name);
    Team { name, budget: budget(table) }
}

pub(super) fn keys(file: &mut Table<'_>) -> Vec<Key> {
    let cells = file.cells("keys").unwrap_or_default();
    cells.iter().filter_map(|value_ref| value_ref.table(key)).collect()
}

fn key(table: &mut Table<'_>) -> Key {
    let name = table.required::<Name>("name");
    let secret = table.optional::<Secret>("secret");
    let hash = table.optional::<Sha256Digest>("hash");
    match (table.has("secret"), table.has("hash")) {
        (true, true) => {
            let hint = "keep one of the two: they may not be the same key";
            table.report("hash", ValueError::hinting("a key with both `secret` and `hash`", hint));
        }
        (false, false) => {
            table.report_missing_either(["secret", "hash"], "\"env:NAME\", or `hash = \"sha256:…\"`");
        }
        _ => {}
    }
    Key {
        name,
        team: table.optional("team"),
        policy: table.required("policy"),
        hash: hash.or_else(|| secret.map(hashed)),
        expires: table.optional("expires"),
        limits: limits(table),
    }
}

/// Only the hash of a key's secret is kept.
fn hashed(secret: Located<Secret>) -> Located<Sha256Digest> {
    Located {
        value: Sha256Digest(Sha256::digest(secret.value.expose()).into()),
        path: secret.path,
        location: secret.location,
    }
}

pub(super) fn drill(table: &mut Table<'_>) {
    table.or_unbuilt("enabled", DRILL, "there would be no fault API");
}
