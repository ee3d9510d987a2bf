//! `[policies.NAME]`, `[teams.NAME]`, `[[keys]]` and `[drill]`.

use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::super::reader::{Setting, SettingKey, Table, ValueError, keywords, section};
use super::super::value::{Expiry, Name, NonZeroDuration, Percent, SecretDigest};
use super::check_name;
use super::sla::SlaSection;
use crate::domain::budget::{CreditUse, Zone};
use crate::domain::glob::Glob;
use crate::domain::money::NanoUsd;
use crate::domain::policy::HedgeDelay;
use crate::domain::secret::Secret;

section! {
    /// `[policies.NAME]`
    pub(in crate::config) struct PolicySection named by name {
        /// The tiers whose models it may use: names, or "*" for all.
        tiers: Option<Vec<Setting<Name>>> = list(),
        /// Models beyond those tiers, as patterns.
        models: Option<Vec<Setting<Glob>>> = list(),
        limits: LimitsSection,
        /// The share of deployments that are full, beside other policies: with 8 eight times as many places as with 1.
        // All policies are equal unless one is said to be more.
        priority: Setting<NonZeroU32> = or(NonZeroU32::MIN),
        /// A second attempt beside the first while it has no token; the first good frame wins.
        hedge: Option<HedgeSection> = optional_table(HedgeSection::read),
        /// What is promised, and the credit given when it is not kept.
        sla: Option<SlaSection> = optional_table(SlaSection::checked),
        /// Whether an answer is shortened to what is left of a budget rather than refused.
        clamp: Setting<bool> = or(false),
        /// Whether models without a price may be used where a budget applies; they then cost nothing.
        // What has no price cannot be kept within a budget.
        unknown_price: Setting<UnpricedModels> = or(UnpricedModels::Deny),
        /// Whether credit is spent first and budgets pay for the rest, or nothing is served that credit does not
        /// cover.
        // Whoever was given credit wants it spent before anything else.
        credit: Setting<CreditUse> = or(CreditUse::First),
        /// What all keys of the policy share.
        total: Option<TotalSection> = optional_table(TotalSection::read),
        /// Residency, as patterns: never left, not even by a retry. Absent: everywhere.
        regions: Option<Vec<Setting<Glob>>> = list(),
        /// Whether Pro/ names may be used.
        // Reserved capacity is only for keys whose policy allows it.
        reserved: Setting<bool> = or(false),
    }
}

section! {
    /// What a policy allows each of its keys, and a key may tighten.
    pub(in crate::config) struct LimitsSection {
        /// Requests in any sliding minute, and as many besides that are refused for what they are (400, 403, 404, 413).
        requests_per_minute: Option<Setting<NonZeroU64>> = optional(),
        /// Tokens in any sliding minute, as taken at admission and corrected by usage.
        tokens_per_minute: Option<Setting<NonZeroU64>> = optional(),
        /// Requests at once.
        max_concurrent: Option<Setting<NonZeroU32>> = optional(),
        /// What may be spent; a request that may cost more than is left is not sent.
        budget: Option<BudgetSection> = optional_table(BudgetSection::read),
    }
}

section! {
    /// What all keys of a policy share: only a budget yet.
    pub(in crate::config) struct TotalSection {
        /// Requests in any sliding minute.
        #[unbuilt = "only a budget is shared by the policy's keys yet"]
        requests_per_minute: Option<Setting<NonZeroU64>> = optional(),
        /// Tokens in any sliding minute, as taken at admission and corrected by usage.
        #[unbuilt = "only a budget is shared by the policy's keys yet"]
        tokens_per_minute: Option<Setting<NonZeroU64>> = optional(),
        /// Requests at once.
        #[unbuilt = "only a budget is shared by the policy's keys yet"]
        max_concurrent: Option<Setting<NonZeroU32>> = optional(),
        /// What may be spent; a request that may cost more than is left is not sent.
        budget: Option<BudgetSection> = optional_table(BudgetSection::read),
    }
}

section! {
    /// `budget = { … }`
    pub(in crate::config) struct BudgetSection {
        /// In USD.
        limit: Option<Setting<NanoUsd>> = required(),
        /// When it is whole again: each day, each month, or never.
        // A budget without a window is spent once.
        window: Setting<BudgetPeriodKeyword> = or(BudgetPeriodKeyword::None),
        /// In which time zone days and months end.
        // Windows end at midnight in one zone for everybody.
        zone: Setting<Zone> = or(Zone::named("UTC").expect("UTC is built in")),
    }
}

section! {
    /// `hedge = { … }`
    pub(in crate::config) struct HedgeSection {
        /// When it starts: a percentile of the usual first token, or a time.
        after: Option<Setting<HedgeDelay>> = required(),
        /// Never earlier than this.
        // An earlier hedge would be sent to healthy deployments.
        at_least: Setting<NonZeroDuration> = or(NonZeroDuration(Duration::from_millis(300))),
        /// At most this share of the traffic.
        // Two requests in a hundred may be sent twice.
        extra: Setting<Percent> = or(Percent::whole(2)),
    }
}

section! {
    /// `[teams.NAME]`
    pub(in crate::config) struct TeamSection named by name {
        /// What may be spent; a request that may cost more than is left is not sent.
        budget: Option<BudgetSection> = optional_table(BudgetSection::read),
    }
}

section! {
    /// `[[keys]]`
    pub(in crate::config) struct KeySection {
        /// For people; unique.
        name: Option<Setting<Name>> = required(),
        /// What the client presents. One of secret and hash.
        // Only its hash is kept.
        secret: Option<Setting<SecretDigest>> = read_by(|key, table| table.optional(key).map(hash_of)),
        /// The SHA-256 of what the client presents.
        hash: Option<Setting<SecretDigest>> = read_by(hash_unless_secret),
        /// Whom it belongs to.
        team: Option<Setting<Name>> = optional(),
        /// What it may do.
        policy: Option<Setting<Name>> = required(),
        /// Its last day, in UTC, or the instant it ends.
        expires: Option<Setting<Expiry>> = optional(),
        limits: LimitsSection,
    }
}

section! {
    /// `[drill]`
    pub(in crate::config) struct DrillSection {
        /// Opens the fault API, so that failover can be rehearsed in staging.
        // Deliberate faults are opt-in.
        enabled: Setting<bool> = or(false),
    }
}

/// When a window of money ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::config) enum BudgetPeriodKeyword {
    Day,
    Month,
    None,
}

/// Whether a policy with a budget may use models without a price.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::config) enum UnpricedModels {
    Deny,
    Allow,
}

keywords!(BudgetPeriodKeyword { "day" => Day, "month" => Month, "none" => None });
keywords!(UnpricedModels { "deny" => Deny, "allow" => Allow });
keywords!(CreditUse { "first" => First, "only" => Only });

impl PolicySection {
    pub(super) fn checked(name: Setting<String>, table: &mut Table<'_>) -> Self {
        check_name(table.diagnostics(), &name);
        let policy = Self::read(name, table);
        if policy.tiers.is_none() && policy.models.is_none() {
            table.report_missing_either(["tiers", "models"], "[\"*\"], or the names of the tiers it may use");
        }
        policy
    }

    /// The budget that all its keys share.
    pub(in crate::config) fn shared_budget(&self) -> Option<&BudgetSection> {
        self.total.as_ref()?.budget.as_ref()
    }
}

impl TeamSection {
    pub(super) fn checked(name: Setting<String>, table: &mut Table<'_>) -> Self {
        check_name(table.diagnostics(), &name);
        Self::read(name, table)
    }
}

/// Each of `[[keys]]`.
pub(super) fn keys(key: SettingKey, file: &mut Table<'_>) -> Vec<KeySection> {
    let elements = file.elements(key).unwrap_or_default();
    elements.iter().filter_map(|element| element.table(KeySection::read)).collect()
}

/// The hash, where it is written: a key has it or a secret, not both.
fn hash_unless_secret(key: SettingKey, table: &mut Table<'_>) -> Option<Setting<SecretDigest>> {
    let hash = table.optional(key);
    match (table.has("secret"), table.has(key.name)) {
        (true, true) => {
            let hint = "keep one of the two: they may not be the same key";
            table.report(key.name, ValueError::hinting("a key with both `secret` and `hash`", hint));
        }
        (false, false) => {
            table.report_missing_either(["secret", "hash"], "\"env:NAME\", or `hash = \"sha256:…\"`");
        }
        _ => {}
    }
    hash
}

fn hash_of(secret: Setting<Secret>) -> Setting<SecretDigest> {
    let value = SecretDigest(Sha256::digest(secret.value.expose()).into());
    Setting { value, path: secret.path, location: secret.location }
}

impl KeySection {
    /// What identifies it: the hash that is written or, without one, that of its secret.
    pub(in crate::config) fn digest(&self) -> Option<&Setting<SecretDigest>> {
        self.hash.as_ref().or(self.secret.as_ref())
    }
}
