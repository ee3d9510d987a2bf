//! SLAs: reports of a month, and its closing. The time is an argument.

use super::{AdminError, AdminOperations, not_written};
use crate::config::Snapshot;
use crate::domain::policy::Policy;
use crate::domain::sla::SlaTerms;
use crate::domain::sla::closing::{SlaClosing, close};
use crate::domain::sla::month::SlaMonth;
use crate::domain::sla::report::SlaReport;
use crate::domain::sla::tally::SlaQuery;
use crate::store::{RegisterChange, RegisterConflict, RegisterWriteError, SlaPresence};
use jiff::Timestamp;
use std::sync::Arc;

/// Receipts that arrive so long after a month was due to be closed are looked for, in milliseconds: 31 days.
const RESTATED_FOR_MS: i64 = 31 * 86_400_000;

impl AdminOperations {
    /// Records that this gateway is alive and promises what `snapshot` says, if that has an SLA. It never blocks.
    pub fn note_presence(&self, snapshot: &Snapshot, now_unix_ms: i64) {
        let promised: Vec<_> = with_terms(snapshot)
            .map(|(policy, terms)| (policy.name.clone(), SlaMonth::at(now_unix_ms, &terms.zone)))
            .collect();
        if !promised.is_empty() {
            self.keyring.present(SlaPresence { interval: SlaPresence::interval_at(now_unix_ms), promised });
        }
    }

    /// The reports of `month`, or of the month that is running: of `policy`, or of every policy with an SLA.
    ///
    /// # Errors
    /// [`AdminError::Invalid`] for a policy without one and a month that has not begun, [`AdminError::NoLedger`] or
    /// [`AdminError::Unavailable`].
    pub async fn sla_reports(
        &self,
        snapshot: &Snapshot,
        policy: Option<&str>,
        month: Option<SlaMonth>,
        now_unix_ms: i64,
    ) -> Result<Vec<SlaReport>, AdminError> {
        let wanted: Vec<_> = match policy {
            Some(name) => vec![terms_of(snapshot, name)?],
            None => with_terms(snapshot).collect(),
        };
        let mut reports = Vec::with_capacity(wanted.len());
        for (policy, terms) in wanted {
            let month = month.unwrap_or_else(|| SlaMonth::at(now_unix_ms, &terms.zone));
            let query = SlaQuery::new(policy.name.clone(), terms.clone(), month.span(&terms.zone), now_unix_ms);
            if query.span.start_ms > now_unix_ms {
                return Err(AdminError::invalid("month", format!("{month} has not begun")));
            }
            let tally = self.reports()?.sla(query).await?;
            let closings = self.keyring.sla_closings(policy.name.clone(), month).await?;
            reports.push(SlaReport::new(month, tally, closings));
        }
        Ok(reports)
    }

    /// Closes `month` of `policy`, or restates it where receipts arrived later: statement and grants are written together,
    /// once. `None`: it was closed already, and nothing arrived.
    ///
    /// # Errors
    /// [`AdminError::Invalid`] for a policy without an SLA, a month that may not be closed yet and one whose receipts are not
    /// kept any more; [`AdminError::NoLedger`] or [`AdminError::Unavailable`]. Nothing was written.
    pub async fn close_month(
        &self,
        snapshot: &Snapshot,
        policy: &str,
        month: SlaMonth,
        now_unix_ms: i64,
    ) -> Result<Option<SlaClosing>, AdminError> {
        let (policy, terms) = terms_of(snapshot, policy)?;
        let query = SlaQuery::new(policy.name.clone(), terms.clone(), month.span(&terms.zone), now_unix_ms);
        check_due(month, terms, now_unix_ms)?;
        if !is_kept(snapshot, &query, now_unix_ms) {
            let message = format!("{month} cannot be closed: receipts of it are not kept any more ([store] retention)");
            return Err(AdminError::invalid("month", message));
        }
        let earlier = self.keyring.sla_closings(policy.name.clone(), month).await?;
        if let Some(last) = earlier.last()
            && self.reports()?.sla_requests(query.clone()).await? <= last.requests
        {
            return Ok(None);
        }
        let closing = close(month, &self.reports()?.sla(query).await?, &earlier, now_unix_ms);
        let grants = closing.grants().into_iter().map(RegisterChange::Grant);
        let changes = std::iter::once(RegisterChange::SlaClosing(closing.clone())).chain(grants).collect();
        match self.write(changes).await {
            Ok(_) => Ok(Some(closing)),
            // Somebody else made the statement meanwhile.
            Err(RegisterWriteError::Conflict { why: RegisterConflict::Changed, .. }) => Ok(None),
            Err(error) => Err(not_written(error)),
        }
    }

    /// Closes every month that is due, of the policies that promised an SLA in it; with `restate`, also looks for receipts
    /// that arrived later. Returns the statements that were made; what could not be closed is logged, and tried again the
    /// next time.
    pub async fn close_due_months(&self, snapshot: &Snapshot, restate: bool, now_unix_ms: i64) -> Vec<SlaClosing> {
        let mut closings = Vec::new();
        let Ok(promised) = self.keyring.sla_promised().await else { return closings };
        for promised in promised {
            let Ok((policy, terms)) = terms_of(snapshot, &promised.policy) else { continue };
            let overdue_ms = now_unix_ms.saturating_sub(promised.month.closes_unix_ms(&terms.zone));
            let is_wanted = match promised.closed_requests {
                None => overdue_ms >= 0,
                Some(_) => restate && (0..RESTATED_FOR_MS).contains(&overdue_ms),
            };
            if !is_wanted {
                continue;
            }
            match self.close_month(snapshot, &policy.name, promised.month, now_unix_ms).await {
                Ok(closing) => closings.extend(closing),
                // Said once a day: it can never be closed any more.
                Err(AdminError::Invalid { .. }) if !restate => {}
                Err(error) => {
                    tracing::error!(policy = %policy.name, month = %promised.month, %error, "an SLA could not be closed");
                }
            }
        }
        closings
    }
}

fn with_terms(snapshot: &Snapshot) -> impl Iterator<Item = (&Arc<Policy>, &Arc<SlaTerms>)> {
    snapshot.policies.iter().filter_map(|policy| Some((policy, policy.sla.as_ref()?)))
}

fn terms_of<'s>(snapshot: &'s Snapshot, name: &str) -> Result<(&'s Arc<Policy>, &'s Arc<SlaTerms>), AdminError> {
    let found = with_terms(snapshot).find(|(policy, _)| *policy.name == *name);
    found.ok_or_else(|| {
        let known: Vec<&str> = with_terms(snapshot).map(|(policy, _)| &*policy.name).collect();
        let known =
            if known.is_empty() { "none has".to_owned() } else { format!("those with one: {}", known.join(", ")) };
        AdminError::invalid(
            "policy",
            format!("there is no policy '{name}' with an `sla` in the configuration; {known}"),
        )
    })
}

fn check_due(month: SlaMonth, terms: &SlaTerms, now_unix_ms: i64) -> Result<(), AdminError> {
    let closes = month.closes_unix_ms(&terms.zone);
    if closes <= now_unix_ms {
        return Ok(());
    }
    let when = Timestamp::from_millisecond(closes).map_or_else(|_| closes.to_string(), |when| when.to_string());
    let state = if month.span(&terms.zone).end_ms > now_unix_ms { "is not over" } else { "may still get receipts" };
    Err(AdminError::invalid(
        "month",
        format!("{month} {state}; it can be closed from {when} on, 48 hours after its end"),
    ))
}

/// Whether all receipts of the month are still there.
fn is_kept(snapshot: &Snapshot, query: &SlaQuery, now_unix_ms: i64) -> bool {
    snapshot.store.retention.is_none_or(|keep| {
        let keep_ms = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
        query.span.start_ms >= now_unix_ms.saturating_sub(keep_ms)
    })
}
