//! `sla` of a policy: what is promised, and the credit given when it is not kept; `[sla]`: how often it is probed.
//!
//! Credit that could never follow, or that follows although the promise is kept, is reported where it is written.

use super::super::reader::{Setting, SettingKey, SettingValue, Table, keywords, section};
use super::super::value::{NonZeroDuration, Percent};
use super::nonzero;
use crate::domain::budget::Zone;
use crate::domain::sla::SlaMeasure;
use crate::domain::sla::probe::PROBES_APART;
use std::num::NonZeroU64;

section! {
    /// `sla = { … }`
    pub(in crate::config) struct SlaSection {
        /// The promised uptime of a calendar month: the share of eligible requests that do not fail.
        uptime: Option<Setting<Percent>> = required(),
        /// The objective for the first token of a stream; a time alone is short for within.
        first_token: Option<SlaFirstTokenSection> = read_by(first_token),
        /// What is given back, from the highest threshold and the lowest credit on. Absent: nothing; it is only reported.
        credits: Vec<SlaCreditSection> = read_by(credits),
        /// How the uptime is computed: over requests, or as the mean over intervals of five minutes, in which those count
        /// as failed that no gateway was alive in.
        // Whoever asks much notices much.
        measure: Setting<SlaMeasure> = or(SlaMeasure::Requests),
        /// With fewer eligible requests in the month, no credit is given.
        // One failure of a few requests is no outage.
        min_requests: Setting<NonZeroU64> = or(nonzero(100).into()),
        /// In which time zone months begin and end.
        // Months end at midnight in one zone for everybody.
        zone: Setting<Zone> = or(Zone::named("UTC").expect("UTC is built in")),
    }
}

section! {
    /// `[sla]`
    pub(in crate::config) struct SlaProbeSection {
        /// Sends one small request this often for each policy with an SLA, on the operator's own account; it counts in intervals
        /// of five minutes in which nobody else asks. Absent: never.
        // A probe costs money.
        probe: Option<Setting<NonZeroDuration>> = optional(),
    }
}

impl SlaProbeSection {
    pub(super) fn checked(table: &mut Table<'_>) -> Self {
        let section = Self::read(table);
        let [least, most] = PROBES_APART;
        if let Some(probe) = section.probe.as_ref().filter(|probe| !(least..=most).contains(&probe.value.0)) {
            let (message, hint) = match probe.value.0 < least {
                true => {
                    ("is too often: a probe costs money, and is in flight for a while", "set 5s or more, such as 30s")
                }
                false => (
                    "is longer than the intervals of five minutes that it is to measure",
                    "set 5m or less, such as 30s",
                ),
            };
            table.diagnostics().report_at(probe, message.to_owned(), hint.to_owned());
        }
        section
    }
}

section! {
    /// `first_token = { … }`
    pub(in crate::config) struct SlaFirstTokenSection {
        /// At least this share of the answered streams (absent: 95%) …
        p: Option<Setting<Percent>> = optional(),
        /// … has its first token within this time.
        within: Option<Setting<NonZeroDuration>> = required(),
    }
}

section! {
    /// Each of `credits = [{ … }, …]`
    pub(in crate::config) struct SlaCreditSection {
        /// Below this uptime …
        below: Option<Setting<Percent>> = required(),
        /// … this share of what was spent.
        credit: Option<Setting<Percent>> = required(),
    }
}

keywords!(SlaMeasure { "requests" => Requests, "5m" => FiveMinutes });

impl SlaSection {
    pub(super) fn checked(table: &mut Table<'_>) -> Self {
        let sla = Self::read(table);
        let mut last: Option<(&Setting<Percent>, &Setting<Percent>)> = None;
        for step in &sla.credits {
            let (Some(below), Some(credit)) = (&step.below, &step.credit) else { continue };
            let report = |written: &Setting<Percent>, message: &str, hint: &str| {
                table.diagnostics().report_at(written, message.to_owned(), hint.to_owned());
            };
            if sla.uptime.as_ref().is_some_and(|uptime| below.value > uptime.value) {
                let hint = "lower it to the `uptime`, or promise more";
                report(below, "is above the uptime that is promised: credit would be given although it is kept", hint);
            }
            if credit.value.basis_points == 0 {
                report(credit, "gives nothing back", "remove the step, or raise it");
            }
            let order = "write the steps from the highest `below` on, each with a lower `below` and more `credit`";
            if last.is_some_and(|(before, _)| below.value >= before.value) {
                report(below, "is not below the threshold of the step before it", order);
            } else if last.is_some_and(|(_, before)| credit.value <= before.value) {
                report(credit, "is not more than the step before it gives", order);
            }
            last = Some((below, credit));
        }
        sla
    }
}

fn credits(key: SettingKey, table: &mut Table<'_>) -> Vec<SlaCreditSection> {
    let elements = table.elements(key).unwrap_or_default();
    elements.iter().filter_map(|element| element.table(SlaCreditSection::read)).collect()
}

/// A time alone is short for a table that says only `within`.
fn first_token(key: SettingKey, table: &mut Table<'_>) -> Option<SlaFirstTokenSection> {
    let value_ref = table.short_or_table::<NonZeroDuration>(key)?;
    if value_ref.value().is_table() {
        return value_ref.table(SlaFirstTokenSection::read);
    }
    let within = value_ref.read::<NonZeroDuration>()?;
    value_ref.record_as("within", within.value.show());
    Some(SlaFirstTokenSection { p: None, within: Some(within) })
}
