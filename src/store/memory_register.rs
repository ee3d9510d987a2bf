//! The register of a single process: keys, teams, credit and the audit in memory, lost when the process ends.
//!
//! It is the reference implementation: `tests/store_contract.rs` states what every register guarantees.

use super::audit::next_row;
use super::{
    ChangeContext, PromisedMonth, Register, RegisterChange, RegisterConflict, RegisterContents, RegisterWriteError,
    SlaPresence, StoreFuture, StoreUnavailable,
};
use crate::domain::audit::{AuditChain, AuditEnd, AuditEntry, AuditQuery, AuditRow};
use crate::domain::budget::WindowSpan;
use crate::domain::drill::report::DrillReport;
use crate::domain::money::NanoUsd;
use crate::domain::register::{CreditBalance, Grant, Holder, StoredKey, StoredTeam};
use crate::domain::secret::KeyHash;
use crate::domain::sla::closing::SlaClosing;
use crate::domain::sla::month::SlaMonth;
use crate::store::memory_lease_store::MemoryLeaseStore;
use parking_lot::{Mutex, MutexGuard};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// A register in memory.
pub struct MemoryRegister {
    /// Where credit is leased and spent.
    lease_store: Arc<MemoryLeaseStore>,
    state: Mutex<RegisterState>,
}

#[derive(Clone, Default)]
struct RegisterState {
    version: i64,
    keys: BTreeMap<Arc<str>, StoredKey>,
    /// The names of keys by the hashes of their secrets.
    by_hash: HashMap<KeyHash, Arc<str>>,
    teams: BTreeMap<Arc<str>, StoredTeam>,
    grants: Vec<Grant>,
    closings: Vec<SlaClosing>,
    promised: BTreeSet<(SlaMonth, Arc<str>)>,
    drills: BTreeMap<Arc<str>, DrillReport>,
    /// By their numbers.
    audit: Vec<Arc<AuditRow>>,
}

impl MemoryRegister {
    /// An empty register whose credit is spent in `lease_store`.
    pub fn new(lease_store: Arc<MemoryLeaseStore>) -> Self {
        Self { lease_store, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, RegisterState> {
        self.state.lock()
    }
}

impl RegisterState {
    fn write(&mut self, change: RegisterChange, context: &ChangeContext) -> Result<i64, RegisterConflict> {
        self.version += 1;
        let version = self.version;
        let entry = match change {
            RegisterChange::Key { key, expected } => {
                let entry = AuditEntry::of_key(self.keys.get(&key.name), &key);
                if self.keys.get(&key.name).map_or(0, |known| known.version) != expected {
                    return Err(RegisterConflict::Changed);
                }
                let has_other_key = |hash| self.by_hash.get(hash).is_some_and(|holder| *holder != key.name);
                if key.secrets.iter().any(|secret| has_other_key(&secret.hash)) {
                    return Err(RegisterConflict::SecretTaken);
                }
                self.put(StoredKey { version, ..key });
                entry
            }
            RegisterChange::Team { team, expected } => {
                if self.teams.get(&team.name).map_or(0, |known| known.version) != expected {
                    return Err(RegisterConflict::Changed);
                }
                let entry = AuditEntry::of_team(self.teams.get(&team.name), &team);
                self.teams.insert(team.name.clone(), StoredTeam { version, ..team });
                entry
            }
            RegisterChange::Grant(grant) => {
                let granted = self.grants.iter().filter(|known| known.holder == grant.holder).map(|known| known.amount);
                // What is there was counted before it was written.
                let before = granted.fold(NanoUsd::ZERO, |sum, amount| NanoUsd(sum.0.saturating_add(amount.0)));
                if before.checked_add(grant.amount).is_none() {
                    return Err(RegisterConflict::TooMuchCredit);
                }
                let entry = AuditEntry::of_grant(before, &grant);
                self.grants.push(Grant { id: version, ..grant });
                entry
            }
            RegisterChange::SlaClosing(closing) => {
                if self.closings_of(&closing.policy, closing.month).count() + 1 != closing.statement as usize {
                    return Err(RegisterConflict::Changed);
                }
                let entry = AuditEntry::of_closing(&closing);
                self.closings.push(closing);
                entry
            }
        };
        self.note(&entry, context);
        Ok(version)
    }

    fn closings_of<'a>(&'a self, policy: &'a str, month: SlaMonth) -> impl DoubleEndedIterator<Item = &'a SlaClosing> {
        self.closings.iter().filter(move |closing| *closing.policy == *policy && closing.month == month)
    }

    fn note(&mut self, entry: &AuditEntry, context: &ChangeContext) {
        self.audit.push(Arc::new(next_row(self.audit_end(), entry, context)));
    }

    fn audit_end(&self) -> AuditEnd {
        self.audit.last().map_or(AuditEnd::NONE, |row| AuditEnd { number: row.number, hash: row.hash })
    }

    /// Recorded uses are kept, even if the change was made without knowing of them.
    fn put(&mut self, mut key: StoredKey) {
        let before = self.keys.remove(&key.name).map(|known| known.secrets).unwrap_or_default();
        for known in &before {
            self.by_hash.remove(&known.hash);
            if let Some(secret) = key.secrets.iter_mut().find(|secret| secret.hash == known.hash) {
                secret.last_used_unix_ms = secret.last_used_unix_ms.max(known.last_used_unix_ms);
            }
        }
        self.by_hash.extend(key.secrets.iter().map(|secret| (secret.hash, key.name.clone())));
        self.keys.insert(key.name.clone(), key);
    }

    fn granted(&self, since: i64) -> Vec<(Holder, NanoUsd)> {
        let mut totals = BTreeMap::<Holder, i64>::new();
        for grant in &self.grants {
            let total = totals.entry(grant.holder.clone()).or_default();
            // A grant that does not fit is not written.
            *total = total.saturating_add(grant.amount.0);
        }
        let news = |holder: &Holder| self.grants.iter().any(|grant| grant.id > since && grant.holder == *holder);
        totals.into_iter().filter(|(holder, _)| news(holder)).map(|(holder, total)| (holder, NanoUsd(total))).collect()
    }
}

impl Register for MemoryRegister {
    fn since(&self, version: i64) -> StoreFuture<'static, Result<RegisterContents, StoreUnavailable>> {
        let state = self.state();
        let contents = RegisterContents {
            version: state.version,
            keys: state.keys.values().filter(|key| key.version > version).cloned().collect(),
            teams: state.teams.values().filter(|team| team.version > version).cloned().collect(),
            credit: state.granted(version),
            quarantined: Vec::new(),
        };
        Box::pin(std::future::ready(Ok(contents)))
    }

    fn write(
        &self,
        changes: Vec<RegisterChange>,
        context: ChangeContext,
    ) -> StoreFuture<'static, Result<Vec<i64>, RegisterWriteError>> {
        let mut state = self.state();
        let mut next = state.clone();
        let written = changes.into_iter().enumerate().map(|(at, change)| {
            let written = next.write(change, &context);
            written.map_err(|why| RegisterWriteError::Conflict { at, why })
        });
        let written = written.collect::<Result<Vec<_>, _>>();
        if written.is_ok() {
            *state = next;
        }
        Box::pin(std::future::ready(written))
    }

    fn note(&self, entry: AuditEntry, context: ChangeContext) -> StoreFuture<'static, Result<(), StoreUnavailable>> {
        self.state().note(&entry, &context);
        Box::pin(std::future::ready(Ok(())))
    }

    fn audit(&self, query: AuditQuery) -> StoreFuture<'static, Result<Vec<AuditRow>, StoreUnavailable>> {
        let state = self.state();
        let rows = state.audit.iter().rev().filter(|row| query.fits(row)).take(query.most);
        Box::pin(std::future::ready(Ok(rows.map(|row| (**row).clone()).collect())))
    }

    fn audit_chain(&self) -> StoreFuture<'static, Result<AuditChain, StoreUnavailable>> {
        let state = self.state();
        let links = state.audit.iter().map(|row| row.link()).collect();
        Box::pin(std::future::ready(Ok(AuditChain { links, end: state.audit_end() })))
    }

    fn sla_closings(
        &self,
        policy: Arc<str>,
        month: SlaMonth,
    ) -> StoreFuture<'static, Result<Vec<SlaClosing>, StoreUnavailable>> {
        let closings = self.state().closings_of(&policy, month).cloned().collect();
        Box::pin(std::future::ready(Ok(closings)))
    }

    fn sla_promised(&self) -> StoreFuture<'static, Result<Vec<PromisedMonth>, StoreUnavailable>> {
        let state = self.state();
        let promised = state.promised.iter().map(|(month, policy)| PromisedMonth {
            policy: policy.clone(),
            month: *month,
            closed_requests: state.closings_of(policy, *month).next_back().map(|closing| closing.requests),
        });
        Box::pin(std::future::ready(Ok(promised.collect())))
    }

    /// Whether it was alive is known as long as it is.
    fn present(&self, presence: SlaPresence) {
        self.state().promised.extend(presence.promised.into_iter().map(|(policy, month)| (month, policy)));
    }

    fn keep_drill_report(&self, report: DrillReport) -> StoreFuture<'static, Result<(), StoreUnavailable>> {
        self.state().drills.insert(report.scenario.clone(), report);
        Box::pin(std::future::ready(Ok(())))
    }

    fn drill_reports(&self) -> StoreFuture<'static, Result<Vec<DrillReport>, StoreUnavailable>> {
        let reports = self.state().drills.values().cloned().collect();
        Box::pin(std::future::ready(Ok(reports)))
    }

    fn used(&self, uses: Vec<(KeyHash, i64)>) {
        let mut state = self.state();
        let RegisterState { keys, by_hash, .. } = &mut *state;
        for (hash, unix_ms) in uses {
            let Some(key) = by_hash.get(&hash).and_then(|name| keys.get_mut(name)) else { continue };
            for secret in key.secrets.iter_mut().filter(|secret| secret.hash == hash) {
                secret.last_used_unix_ms = secret.last_used_unix_ms.max(Some(unix_ms));
            }
        }
    }

    fn balances(&self) -> StoreFuture<'static, Result<Vec<CreditBalance>, StoreUnavailable>> {
        let balance = |(holder, granted): (Holder, NanoUsd)| {
            let (spent, leased) = self.lease_store.balance(&Arc::new(holder.account()), WindowSpan::EVER);
            CreditBalance { holder, granted, spent, leased }
        };
        let balances = self.state().granted(0).into_iter().map(balance).collect();
        Box::pin(std::future::ready(Ok(balances)))
    }

    fn grants(
        &self,
        holder: Option<Holder>,
        after: i64,
        most: usize,
    ) -> StoreFuture<'static, Result<Vec<Grant>, StoreUnavailable>> {
        let state = self.state();
        let of_holder = |grant: &&Grant| holder.as_ref().is_none_or(|holder| grant.holder == *holder);
        let grants = state.grants.iter().filter(|grant| grant.id > after).filter(of_holder).take(most);
        let grants = grants.cloned().collect();
        Box::pin(std::future::ready(Ok(grants)))
    }
}
