//! `[tiers.NAME]`, `[aliases.NAME]` and `[routing]`.

use std::num::NonZeroU32;
use std::time::Duration;

use super::super::reader::{ConfigValueRef, Setting, SettingKey, Table, ValueError, keywords, section};
use super::super::settings::MalformedFrame;
use super::super::value::{Name, NonZeroDuration, Percent};
use super::{check_name, nonzero};
use crate::domain::routing::table::{BalanceStrategy, RESERVED_PREFIX, Sticky};

section! {
    /// `[tiers.NAME]`
    pub(in crate::config) struct TierSection named by name {
        /// The whole list of tiers to step down through; never followed further.
        then: Option<Vec<Setting<Name>>> = list(),
        /// Tried as written; where one is given a weight, the first is drawn by weight.
        models: Vec<TierModelSection> = read_by(tier_models),
    }
}

section! {
    /// `"NAME"` or `{ name = "NAME", weight = 2 }`
    pub(in crate::config) struct TierModelSection {
        /// The model.
        name: Option<Setting<Name>> = required(),
        /// How often it is the first, beside the others; 1 where only others have one.
        weight: Option<Setting<NonZeroU32>> = optional(),
    }
}

section! {
    /// `[aliases.NAME]`
    pub(in crate::config) struct AliasSection named by name {
        /// What a draw is bound to: nothing, the key, or the body's `user`.
        // Every request draws anew: shares hold from the first requests on.
        sticky: Setting<Sticky> = or(Sticky::None),
        /// Tiers or models and their shares.
        split: Vec<(Setting<String>, Setting<NonZeroU32>)> = read_by(split),
    }
}

section! {
    /// `[routing]`
    pub(in crate::config) struct RoutingSection {
        /// The gateway's own region, preferred where a choice is free.
        region: Option<Setting<Name>> = optional(),
        /// How one is chosen among a model's deployments; latency is the better of two drawn.
        // Latency is what clients notice.
        balance: Setting<BalanceStrategy> = or(BalanceStrategy::Latency),
        /// Attempts for one request over the whole chain, retries included.
        // The first, one beside it and one more: a client waits no longer for a fourth.
        max_attempts: Setting<NonZeroU32> = or(nonzero(3)),
        /// Extra attempts, as a share of traffic, with a floor of 10 per second.
        // In a total outage providers see at most a fifth more than the traffic.
        retry_budget: Setting<Percent> = or(Percent::whole(20)),
        /// How long opening a connection may take.
        // Across an ocean it takes 300 ms; twice that and a lost packet is a dead host.
        connect_timeout: Setting<NonZeroDuration> = or(NonZeroDuration(Duration::from_millis(750))),
        /// Streams: from the request sent to the first token. Where another deployment is left, it is asked as well much
        /// sooner: see silent_after.
        // A model that thinks, or waits for a slot of its server, sends nothing for minutes, and the official clients wait
        // ten.
        first_token: Setting<NonZeroDuration> = or(NonZeroDuration(Duration::from_secs(600))),
        /// Streams: between two frames.
        // Tokens come in tens of milliseconds, but a model may think or search in the middle of its answer.
        idle: Setting<NonZeroDuration> = or(NonZeroDuration(Duration::from_secs(120))),
        /// Whole answers: from the request sent to the last byte.
        // As long as the official clients wait: it shows nothing until it is complete.
        whole: Setting<NonZeroDuration> = or(NonZeroDuration(Duration::from_secs(600))),
        /// From the request being read to its last byte, over all attempts.
        // The longest answer worth waiting for.
        total: Setting<NonZeroDuration> = or(NonZeroDuration(Duration::from_secs(600))),
        /// A deployment from which nothing comes for this long is silent, unless longer is usual for it: its requests
        /// are made elsewhere as well, and new ones avoid it.
        // No client waits long for a sign of life, and under load a second without one is an outage.
        silent_after: Setting<NonZeroDuration> = or(NonZeroDuration(Duration::from_secs(1))),
        /// How long requests of a key with a budget or credit are kept from a deployment whose answer cost more than was
        /// held for it; a second team's answer keeps those of all such keys away. 0s: never.
        // Long enough for an operator to see what the provider does, short enough that nobody must be woken.
        beyond_hold_pause: Setting<Duration> = or(Duration::from_secs(3600)),
        /// From a request's first attempt to the answer of another one; what takes longer is alerted on.
        // A client that waits a second longer notices.
        failover_objective: Setting<NonZeroDuration> = or(NonZeroDuration(Duration::from_secs(1))),
        /// How long a request may wait, within its own time, for a deployment that throttles it or is left alone, when
        /// nothing else can serve.
        // As long as the official clients wait before they ask again.
        retry_after_wait_max: Setting<Duration> = or(Duration::from_secs(2)),
        /// How long a request may wait, within its own time, for a place where every deployment that could serve it has
        /// reached its max_concurrent. 0s: it is refused at once.
        // Long enough for places to become free, short enough that a client notices little.
        queue_wait: Setting<Duration> = or(Duration::from_secs(1)),
        /// 1: a 500 is tried once more at the same deployment before another is.
        // What answered 500 once is likely to do it again.
        same_region_retry_on_500: Setting<u32> = or(0),
        /// What broken JSON in a stream means: a failure, or something to pass on.
        // What cannot be read is not an answer.
        malformed_frame: Setting<MalformedFrame> = or(MalformedFrame::Fail),
        /// When a deployment is left alone, and for how long.
        breaker: BreakerSection = table(BreakerSection::checked),
        /// What happens to a stream that breaks: strict passes it on as it comes and ends it with an error; buffered holds it
        /// until all of it came, so that another deployment may still answer; splice goes on with another deployment's
        /// answer where that begins with the same text, and is strict for all but the text of chat completions.
        // A truncated answer is never presented as complete, and the first token comes as soon as it can.
        stream: Setting<BrokenStream> = or(BrokenStream::Strict),
    }
}

section! {
    /// `breaker = { … }`
    pub(in crate::config) struct BreakerSection {
        /// It trips after this many failures in a row.
        // Few enough to notice an outage within a handful of requests.
        failures: Setting<NonZeroU32> = or(nonzero(5)),
        /// It trips when fewer than this share succeed.
        // A deployment that fails every second request is worse than none.
        ratio: Setting<Percent> = or(Percent::whole(50)),
        /// The time over which the share is counted.
        // Half a minute remembers a brown-out and forgets yesterday.
        window: Setting<NonZeroDuration> = or(NonZeroDuration(Duration::from_secs(30))),
        /// Below this many requests in the window a share says nothing.
        min_requests: Setting<NonZeroU32> = or(nonzero(20)),
        /// How long it is left alone the first time; doubled each time after.
        // A restart takes about a second.
        open: Setting<NonZeroDuration> = or(NonZeroDuration(Duration::from_secs(1))),
        /// The longest it is left alone.
        // Recovery is noticed within this.
        open_max: Setting<NonZeroDuration> = or(NonZeroDuration(Duration::from_secs(20))),
    }
}

/// What happens to a stream that breaks after its first token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::config) enum BrokenStream {
    Strict,
    Buffered,
    Splice,
}

keywords!(BalanceStrategy { "weighted" => Weighted, "latency" => Latency, "cost" => Cost, "ordered" => Ordered });
keywords!(Sticky { "none" => None, "key" => Key, "user" => User });
keywords!(MalformedFrame { "fail" => Fail, "pass" => Pass });
keywords!(BrokenStream { "strict" => Strict, "buffered" => Buffered, "splice" => Splice });

impl TierSection {
    pub(super) fn checked(name: Setting<String>, table: &mut Table<'_>) -> Self {
        check_name(table.diagnostics(), &name);
        Self::read(name, table)
    }
}

fn tier_models(key: SettingKey, table: &mut Table<'_>) -> Vec<TierModelSection> {
    let models = table.required_elements(key, "[\"NAME\"]").unwrap_or_default();
    let models = models.iter().filter_map(tier_model).collect();
    if table.is_empty_list(key.name) {
        let hint = "name at least one model: models = [\"NAME\"]";
        table.report(key.name, ValueError::hinting("a tier without models serves nothing", hint));
    }
    models
}

fn tier_model(element: &ConfigValueRef<'_>) -> Option<TierModelSection> {
    if element.is_short_for_a_table::<Name>() {
        let name = element.read::<Name>()?;
        element.record_as("name", element.show(&name.value));
        return Some(TierModelSection { name: Some(name), weight: None });
    }
    element.table(TierModelSection::read)
}

impl AliasSection {
    pub(super) fn checked(name: Setting<String>, table: &mut Table<'_>) -> Self {
        check_name(table.diagnostics(), &name);
        if name.value.starts_with(RESERVED_PREFIX) {
            let message = format!("`{RESERVED_PREFIX}` begins the names of reserved capacity");
            table.diagnostics().report_at(&name, message, "name the alias without it".to_owned());
        }
        Self::read(name, table)
    }
}

fn split(key: SettingKey, table: &mut Table<'_>) -> Vec<(Setting<String>, Setting<NonZeroU32>)> {
    let split = table.required_table(key, "{ default = 80, premium = 20 }", |split| {
        if split.is_empty() {
            let hint = "give tiers or models their shares: { default = 80, premium = 20 }";
            split.report("", ValueError::hinting("an alias over nothing", hint));
        }
        split.free("The share of this tier or model.")
    });
    split.unwrap_or_default()
}

impl RoutingSection {
    pub(super) fn checked(table: &mut Table<'_>) -> Self {
        let routing = Self::read(table);
        let retries = &routing.same_region_retry_on_500;
        if retries.value > 1 {
            let hint = "write 0 or 1: a second such end is an outage";
            table.diagnostics().report_at(retries, "is more than 1".to_owned(), hint.to_owned());
        }
        routing
    }
}

impl BreakerSection {
    fn checked(table: &mut Table<'_>) -> Self {
        let breaker = Self::read(table);
        if breaker.open.value.0 > breaker.open_max.value.0 {
            let written = if breaker.open.is_explicit() { &breaker.open } else { &breaker.open_max };
            let message = "`open` is longer than `open_max`".to_owned();
            table.diagnostics().report_at(written, message, "lower it, or raise `open_max`".to_owned());
        }
        breaker
    }
}
