//! `[tiers.NAME]`, `[aliases.NAME]` and `[routing]`.

use std::num::NonZeroU32;
use std::time::Duration;

use super::super::raw::{Alias, Breaker, Routing, Stream, Tier, TierModel};
use super::super::reader::{Located, Table, ValueError, ValueRef};
use super::super::settings::MalformedFrame;
use super::super::value::{Name, Percent, Wait};
use super::check_name;
use crate::domain::routing::table::{BalanceStrategy, RESERVED_PREFIX, Sticky};

/// Every request draws anew: shares hold from the first requests on.
const STICKY: Sticky = Sticky::None;
/// What clients feel is time.
const BALANCE: BalanceStrategy = BalanceStrategy::Latency;
/// The first, one beside it and one more: a client waits no longer for a fourth.
const MAX_ATTEMPTS: NonZeroU32 = NonZeroU32::new(3).expect("3 is not 0");
/// In a total outage providers see at most a fifth more than the traffic.
const RETRY_BUDGET: Percent = Percent::whole(20);
/// A connection across an ocean stands in 300 ms; twice that and a lost packet is a dead host.
const CONNECT_TIMEOUT: Wait = Wait(Duration::from_millis(750));
/// Long contexts take seconds to read; nobody waits longer than this for a sign of life.
const FIRST_TOKEN: Wait = Wait(Duration::from_secs(10));
/// Tokens come in tens of milliseconds; this long without one is a stall.
const IDLE: Wait = Wait(Duration::from_secs(20));
/// A whole answer shows nothing until it is complete.
const WHOLE: Wait = Wait(Duration::from_secs(120));
/// The longest answer worth waiting for.
const TOTAL: Wait = Wait(Duration::from_secs(600));
/// Silent this long, a region is avoided before its breaker trips.
const SILENT_AFTER: Wait = Wait(Duration::from_secs(1));
/// A client can wait by itself.
const RETRY_AFTER_WAIT_MAX: Duration = Duration::ZERO;
/// What answered 500 once is likely to do it again.
const SAME_REGION_RETRY_ON_500: u32 = 0;
/// Garbage is not an answer.
const MALFORMED_FRAME: MalformedFrame = MalformedFrame::Fail;
/// A truncated answer is never presented as complete.
const STREAM: Stream = Stream::Strict;
/// Few enough to notice an outage within a handful of requests.
const BREAKER_FAILURES: NonZeroU32 = NonZeroU32::new(5).expect("5 is not 0");
/// A deployment that fails every second request is worse than none.
const BREAKER_RATIO: Percent = Percent::whole(50);
/// Half a minute remembers a brown-out and forgets yesterday.
const BREAKER_WINDOW: Wait = Wait(Duration::from_secs(30));
/// Below this many requests a ratio says nothing.
const BREAKER_MIN_REQUESTS: NonZeroU32 = NonZeroU32::new(20).expect("20 is not 0");
/// A restart takes about a second.
const BREAKER_OPEN: Wait = Wait(Duration::from_secs(1));
/// Recovery is noticed within this.
const BREAKER_OPEN_MAX: Wait = Wait(Duration::from_secs(20));

pub(super) fn tier(name: Located<String>, table: &mut Table<'_>) -> Tier {
    check_name(table.diagnostics(), &name);
    let then = table.list("then").unwrap_or_default();
    let models = table.required_cells("models", "[\"NAME\"]").unwrap_or_default();
    let models = models.iter().filter_map(tier_model).collect();
    if table.is_empty_list("models") {
        let hint = "name at least one model: models = [\"NAME\"]";
        table.report("models", ValueError::hinting("a tier without models serves nothing", hint));
    }
    Tier { name, models, then }
}

fn tier_model(value_ref: &ValueRef<'_>) -> Option<TierModel> {
    if value_ref.is_short_for_a_table::<Name>() {
        let name = value_ref.read::<Name>()?;
        value_ref.record_as("name", value_ref.show(&name.value));
        return Some(TierModel { name: Some(name), weight: None });
    }
    value_ref.table(|table| TierModel { name: table.required("name"), weight: table.optional("weight") })
}

pub(super) fn alias(name: Located<String>, table: &mut Table<'_>) -> Alias {
    check_name(table.diagnostics(), &name);
    if name.value.starts_with(RESERVED_PREFIX) {
        let message = format!("`{RESERVED_PREFIX}` begins the names of reserved capacity");
        table.diagnostics().report_at(&name, message, "name the alias without it".to_owned());
    }
    let sticky = table.or("sticky", STICKY);
    let split = table.required_table("split", "{ default = 80, premium = 20 }", |split| {
        if split.is_empty() {
            let hint = "give tiers or models their shares: { default = 80, premium = 20 }";
            split.report("", ValueError::hinting("an alias over nothing", hint));
        }
        split.free()
    });
    Alias { name, split: split.unwrap_or_default(), sticky }
}

pub(super) fn routing(table: &mut Table<'_>) -> Routing {
    let routing = Routing {
        region: table.optional("region"),
        balance: table.or("balance", BALANCE),
        max_attempts: table.or("max_attempts", MAX_ATTEMPTS),
        retry_budget: table.or("retry_budget", RETRY_BUDGET),
        connect_timeout: table.or("connect_timeout", CONNECT_TIMEOUT),
        first_token: table.or("first_token", FIRST_TOKEN),
        idle: table.or("idle", IDLE),
        whole: table.or("whole", WHOLE),
        total: table.or("total", TOTAL),
        silent_after: table.or("silent_after", SILENT_AFTER),
        retry_after_wait_max: table.or("retry_after_wait_max", RETRY_AFTER_WAIT_MAX),
        same_region_retry_on_500: table.or("same_region_retry_on_500", SAME_REGION_RETRY_ON_500),
        malformed_frame: table.or("malformed_frame", MALFORMED_FRAME),
        breaker: table.table("breaker", breaker),
    };
    if routing.same_region_retry_on_500.value > 1 {
        let wrong = ValueError::hinting("is more than 1", "write 0 or 1: a second such end is an outage");
        let written = &routing.same_region_retry_on_500;
        table.diagnostics().report(&written.path, written.place.clone(), wrong);
    }
    table.or_unbuilt("stream", STREAM, "streams would be strict");
    routing
}

fn breaker(table: &mut Table<'_>) -> Breaker {
    let breaker = Breaker {
        failures: table.or("failures", BREAKER_FAILURES),
        ratio: table.or("ratio", BREAKER_RATIO),
        window: table.or("window", BREAKER_WINDOW),
        min_requests: table.or("min_requests", BREAKER_MIN_REQUESTS),
        open: table.or("open", BREAKER_OPEN),
        open_max: table.or("open_max", BREAKER_OPEN_MAX),
    };
    if breaker.open.value.0 > breaker.open_max.value.0 {
        let place = if breaker.open.is_explicit() { &breaker.open } else { &breaker.open_max };
        let message = "`open` is longer than `open_max`".to_owned();
        table.diagnostics().report_at(place, message, "lower it, or raise `open_max`".to_owned());
    }
    breaker
}
