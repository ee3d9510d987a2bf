//! The audit: what operators changed, one row for each change, each chained to the one before by SHA-256.
//!
//! A row says who changed what, from where, by which command, and what it was before and is after. It never holds a
//! secret: of the secrets of keys there are their ids. Rows are appended and never changed; this module says what a row
//! holds and what a chain shows of one that was. It cannot show that the whole chain was written anew, nor, without a
//! note of its end that is kept elsewhere, that its newest rows are missing together with the record of them.
//!
//! Start reading at [`AuditRow`], then [`chain_faults`].

use crate::domain::budget::BudgetSpec;
use crate::domain::money::NanoUsd;
use crate::domain::register::{Grant, StoredKey, StoredSecret, StoredTeam};
use crate::domain::secret::bytes_of_hex;
use crate::domain::sla::closing::SlaClosing;
use crate::domain::sla::percent_text;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// The hash of a row of the audit.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AuditHash(pub [u8; 32]);

impl AuditHash {
    /// What the first row follows.
    pub const START: Self = Self([0; 32]);

    /// The hash written as 64 hex digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        bytes_of_hex(text).map(Self)
    }
}

impl fmt::Display for AuditHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for AuditHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Who changes something, from where and by what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operator {
    /// A user of the system, or whose token was presented.
    pub who: Arc<str>,
    /// The host of a command, or the address of a client.
    pub origin: Arc<str>,
    /// The command, or the operation of the admin API.
    pub command: Arc<str>,
    /// The id of the request, where there was one.
    pub request_id: Option<Arc<str>>,
}

/// What was changed, and of what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuditEntry {
    /// The kind of what was changed, such as `key`.
    pub kind: &'static str,
    /// Its name.
    pub name: Arc<str>,
    /// The fields that are different now.
    pub changes: Vec<ChangedField>,
}

/// A field with its value before and after a change, as text; `None`: it had or has none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChangedField {
    /// Its name.
    pub field: Arc<str>,
    /// Before the change.
    pub before: Option<String>,
    /// After it.
    pub after: Option<String>,
}

impl ChangedField {
    /// The field called `field`; `None` if it did not change.
    pub fn of(field: &str, before: Option<String>, after: Option<String>) -> Option<Self> {
        (before != after).then(|| Self { field: field.into(), before, after })
    }
}

impl AuditEntry {
    /// The change of a key from `before`; `None`: it is new.
    pub fn of_key(before: Option<&StoredKey>, after: &StoredKey) -> Self {
        type KeyField = (&'static str, fn(&StoredKey) -> Option<String>);
        const FIELDS: [KeyField; 9] = [
            ("policy", |key| Some(key.policy.to_string())),
            ("team", |key| key.team.as_deref().map(str::to_owned)),
            ("requests_per_minute", |key| key.own.limits.requests_per_minute.map(|limit| limit.to_string())),
            ("tokens_per_minute", |key| key.own.limits.tokens_per_minute.map(|limit| limit.to_string())),
            ("max_concurrent", |key| key.own.limits.max_concurrent.map(|limit| limit.to_string())),
            ("budget", |key| key.own.budget.as_ref().map(budget)),
            ("expires", |key| key.expires.map(|unix_s| instant(unix_s.saturating_mul(1000)))),
            ("disabled", |key| Some(key.disabled.to_string())),
            ("secrets", |key| Some(secrets(&key.secrets)).filter(|secrets| !secrets.is_empty())),
        ];
        let changes = FIELDS.iter().filter_map(|(field, of)| ChangedField::of(field, before.and_then(of), of(after)));
        Self { kind: "key", name: after.name.clone(), changes: changes.collect() }
    }

    /// The change of a team from `before`; `None`: it is new.
    pub fn of_team(before: Option<&StoredTeam>, after: &StoredTeam) -> Self {
        let budget = |team: &StoredTeam| team.budget.as_ref().map(budget);
        let changes = ChangedField::of("budget", before.and_then(budget), budget(after));
        Self { kind: "team", name: after.name.clone(), changes: changes.into_iter().collect() }
    }

    /// A grant to somebody who was granted `before` in sum.
    pub fn of_grant(before: NanoUsd, grant: &Grant) -> Self {
        let after = NanoUsd(before.0.saturating_add(grant.amount.0));
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let changes = [
            ChangedField::of("credit", Some(before.to_string()), Some(after.to_string())),
            ChangedField::of("reason", None, text(&grant.reason)),
            ChangedField::of("granted_by", None, text(&grant.by)),
        ];
        Self {
            kind: grant.holder.scope.label(),
            name: grant.holder.name.clone(),
            changes: changes.into_iter().flatten().collect(),
        }
    }

    /// A statement about a month of an SLA.
    pub fn of_closing(closing: &SlaClosing) -> Self {
        let SlaClosing { policy, month, statement, eligible, failed, .. } = closing;
        let changes = [
            ChangedField::of("statement", Some((statement - 1).to_string()), Some(statement.to_string())),
            ChangedField::of("eligible", None, Some(eligible.to_string())),
            ChangedField::of("failed", None, Some(failed.to_string())),
            ChangedField::of("uptime", None, closing.uptime_millionths.map(|uptime| percent_text(uptime, 4))),
            ChangedField::of("granted", None, Some(closing.granted().to_string())),
        ];
        let changes = changes.into_iter().flatten().collect();
        Self { kind: "sla", name: format!("{policy} {month}").into(), changes }
    }
}

fn budget(budget: &BudgetSpec) -> String {
    format!("{} {}", budget.limit, budget.window)
}

fn instant(unix_ms: i64) -> String {
    Timestamp::from_millisecond(unix_ms).map_or_else(|_| unix_ms.to_string(), |instant| instant.to_string())
}

/// The ids of `secrets`, each with its end.
fn secrets(secrets: &[StoredSecret]) -> String {
    let one = |secret: &StoredSecret| match secret.ends_unix_ms {
        Some(end) => format!("{} until {}", secret.hash.id(), instant(end)),
        None => secret.hash.id(),
    };
    secrets.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// One row of the audit, as it is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuditRow {
    /// Its number, from 1 on without a gap.
    pub number: i64,
    /// When it was written, in Unix milliseconds.
    pub unix_ms: i64,
    /// Who changed it.
    pub operator: Operator,
    /// The kind of what was changed.
    pub kind: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// The changed fields as the store writes them: a JSON array of `[field, before, after]`.
    pub changes: Arc<str>,
    /// The hash of the row before.
    pub previous: AuditHash,
    /// The hash of this row, as it was when it was written.
    pub hash: AuditHash,
}

impl AuditRow {
    /// The hash of what the row holds now. Its number is not part of it: a row that stands elsewhere than where it was
    /// written is recognized by that.
    ///
    /// It is the SHA-256 of the hash of the row before; of the time, in eight bytes; and of who, origin, command, request
    /// id, kind, name and changes, each behind its length in bytes, in eight bytes. Numbers begin with their highest
    /// byte; what is absent has the length -1.
    pub fn digest(&self) -> AuditHash {
        let Operator { who, origin, command, request_id } = &self.operator;
        let texts = [Some(who), Some(origin), Some(command), request_id.as_ref()];
        let texts = texts.into_iter().chain([&self.kind, &self.name, &self.changes].map(Some));
        let mut sha = Sha256::new();
        sha.update(self.previous.0);
        sha.update(self.unix_ms.to_be_bytes());
        for text in texts {
            let length = text.map_or(-1, |text| i64::try_from(text.len()).unwrap_or(i64::MAX));
            sha.update(length.to_be_bytes());
            sha.update(text.map_or(&b""[..], |text| text.as_bytes()));
        }
        AuditHash(sha.finalize().into())
    }

    /// What of it the chain is verified by.
    pub fn link(&self) -> AuditLink {
        AuditLink { number: self.number, previous: self.previous, hash: self.hash, digest: self.digest() }
    }
}

/// The part of a row that its chain is verified by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AuditLink {
    /// The row's number.
    pub number: i64,
    /// The hash of the row that it was written after.
    pub previous: AuditHash,
    /// The hash of the row when it was written.
    pub hash: AuditHash,
    /// The hash of what it holds now.
    pub digest: AuditHash,
}

/// Which rows of the audit to list, the newest first.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct AuditQuery {
    /// Written at this time or later, in Unix milliseconds.
    pub since_unix_ms: Option<i64>,
    /// Written before this time, in Unix milliseconds.
    pub until_unix_ms: Option<i64>,
    /// Only changes of this kind of thing.
    pub kind: Option<String>,
    /// Only changes of what has this name.
    pub name: Option<String>,
    /// Only those that come after this one in the list.
    pub after: Option<i64>,
    /// The maximum number of rows.
    pub most: usize,
}

impl AuditQuery {
    /// Whether `row` is one of those asked for.
    pub fn fits(&self, row: &AuditRow) -> bool {
        self.since_unix_ms.is_none_or(|since| row.unix_ms >= since)
            && self.until_unix_ms.is_none_or(|until| row.unix_ms < until)
            && self.kind.as_deref().is_none_or(|kind| *row.kind == *kind)
            && self.name.as_deref().is_none_or(|name| *row.name == *name)
            && self.after.is_none_or(|after| row.number < after)
    }
}

/// All of an audit that its chain is verified by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuditChain {
    /// Every row, in the order of their numbers.
    pub links: Vec<AuditLink>,
    /// The newest row, as recorded beside them.
    pub end: AuditEnd,
}

/// The newest row, as recorded beside the rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AuditEnd {
    /// Its number; 0 where there is none.
    pub number: i64,
    /// Its hash.
    pub hash: AuditHash,
}

impl AuditEnd {
    /// The end of an audit without rows.
    pub const NONE: Self = Self { number: 0, hash: AuditHash::START };
}

/// A break of the chain, and the row where it shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AuditFault {
    /// The row is not as it was written.
    Changed {
        /// The row.
        row: i64,
    },
    /// Rows are not there any more.
    Removed {
        /// The first of them.
        first: i64,
        /// The last of them.
        last: i64,
    },
    /// The row was written after another one than it stands behind: rows were re-ordered.
    Moved {
        /// The row.
        row: i64,
        /// The row that it was written after, by the number that this one has now.
        after: i64,
    },
    /// The row has another number than its place in the chain.
    Renumbered {
        /// The row.
        row: i64,
        /// The number that it had.
        was: i64,
    },
    /// What the next row was written after is neither this row nor any other one: it was replaced, or what came between
    /// the two was removed and all that follows numbered anew.
    Replaced {
        /// The row; 0 where the first row was written after another one.
        row: i64,
    },
    /// The record of the newest row is not about it.
    EndChanged {
        /// The number of the row that is recorded as the newest.
        recorded: i64,
    },
    /// A row that was noted elsewhere is not in the audit, or is another one.
    NotAsNoted {
        /// Its number.
        row: i64,
    },
}

impl AuditFault {
    /// The row that it is about; the first one of several.
    pub fn row(self) -> i64 {
        match self {
            Self::Changed { row }
            | Self::Moved { row, .. }
            | Self::Renumbered { row, .. }
            | Self::Replaced { row }
            | Self::NotAsNoted { row } => row,
            Self::Removed { first, .. } => first,
            Self::EndChanged { recorded } => recorded,
        }
    }
}

impl fmt::Display for AuditFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { row } => write!(f, "row {row} was changed after it was written"),
            Self::Removed { first, last } if first == last => write!(f, "row {first} was removed"),
            Self::Removed { first, last } => write!(f, "rows {first} to {last} were removed"),
            Self::Moved { row, after: 0 } => write!(f, "row {row} was written as the first one: rows were re-ordered"),
            Self::Moved { row, after } => {
                write!(f, "row {row} was written directly after what is now row {after}: rows were re-ordered")
            }
            Self::Renumbered { row, was } => write!(f, "row {row} was written as row {was}: it has another number now"),
            Self::Replaced { row: 0 } => f.write_str(
                "row 1 was not written as the first one: rows before it were removed, and the rest numbered anew",
            ),
            Self::Replaced { row } => write!(
                f,
                "row {row} is not what row {} was written after: it was replaced, or rows behind it were removed and the \
                 rest numbered anew",
                row + 1
            ),
            Self::EndChanged { recorded: 0 } => f.write_str("no row is recorded as the newest one, and there are rows"),
            Self::EndChanged { recorded } => {
                write!(f, "row {recorded} is recorded as the newest one, and is not: rows or that record were changed")
            }
            Self::NotAsNoted { row } => {
                write!(f, "row {row} is not there as it was noted: it was removed or replaced, or all was written anew")
            }
        }
    }
}

/// What is wrong with `chain`; `noted` is the number and hash of a row that somebody kept elsewhere. Empty if nothing is.
pub fn chain_faults(chain: &AuditChain, noted: Option<AuditEnd>) -> Vec<AuditFault> {
    let (links, end) = (&chain.links, chain.end);
    let numbers: HashMap<AuditHash, i64> = links.iter().map(|link| (link.hash, link.number)).collect();
    let mut faults = Vec::new();
    let mut prior: Option<&AuditLink> = None;
    for link in links {
        check_link(link, prior, &numbers, &mut faults);
        prior = Some(link);
    }
    let last = prior.map_or(AuditEnd::NONE, |link| AuditEnd { number: link.number, hash: link.hash });
    if end.number > last.number {
        faults.push(AuditFault::Removed { first: last.number + 1, last: end.number });
    } else if end != last && !faults.contains(&AuditFault::Changed { row: last.number }) {
        faults.push(AuditFault::EndChanged { recorded: end.number });
    }
    let is_noted = |noted: &AuditEnd| {
        *noted == AuditEnd::NONE || links.iter().any(|link| link.number == noted.number && link.hash == noted.hash)
    };
    faults.extend(noted.filter(|noted| !is_noted(noted)).map(|noted| AuditFault::NotAsNoted { row: noted.number }));
    faults
}

/// Adds what is wrong with one row behind the row `prior`.
fn check_link(
    link: &AuditLink,
    prior: Option<&AuditLink>,
    numbers: &HashMap<AuditHash, i64>,
    faults: &mut Vec<AuditFault>,
) {
    let row = link.number;
    let expected = prior.map_or(0, |prior| prior.number) + 1;
    let gap = (row > expected).then(|| AuditFault::Removed { first: expected, last: row - 1 });
    if link.digest != link.hash {
        faults.extend(gap);
        faults.push(AuditFault::Changed { row });
        return;
    }
    // Where only the stored hash of the row before was changed, what it holds still is what this one was written after.
    let follows = match prior {
        None => link.previous == AuditHash::START,
        Some(prior) => link.previous == prior.hash || link.previous == prior.digest,
    };
    let first = (link.previous == AuditHash::START).then_some(&0);
    let fault = match numbers.get(&link.previous).or(first) {
        _ if follows => (row != expected).then_some(AuditFault::Renumbered { row, was: expected }),
        Some(after) => Some(AuditFault::Moved { row, after: *after }),
        None if gap.is_some() => gap,
        // The row before is named as changed already.
        None if prior.is_some_and(|prior| prior.digest != prior.hash) => None,
        None => Some(AuditFault::Replaced { row: expected - 1 }),
    };
    faults.extend(fault);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::budget::{BudgetPeriod, Scope};
    use crate::domain::limit::Limits;
    use crate::domain::register::{Holder, KeyOverrides};
    use crate::domain::secret::KeyHash;

    /// A chain of so many rows.
    fn chain(count: i64) -> Vec<AuditRow> {
        let mut rows: Vec<AuditRow> = Vec::new();
        for number in 1..=count {
            let operator = Operator {
                who: "alice".into(),
                origin: "host a".into(),
                command: "keys edit".into(),
                request_id: (number % 2 == 0).then(|| "req".into()),
            };
            let previous = rows.last().map_or(AuditHash::START, |row| row.hash);
            let changes = format!("[[\"team\",null,\"{number}\"]]").into();
            let (kind, name) = ("key".into(), "app".into());
            let hash = AuditHash::START;
            let mut row = AuditRow { number, unix_ms: number, operator, kind, name, changes, previous, hash };
            row.hash = row.digest();
            rows.push(row);
        }
        rows
    }

    fn end_of(rows: &[AuditRow]) -> AuditEnd {
        rows.last().map_or(AuditEnd::NONE, |row| AuditEnd { number: row.number, hash: row.hash })
    }

    /// What is found of `rows`, which were changed by `change`.
    fn faults(change: impl FnOnce(&mut Vec<AuditRow>)) -> Vec<AuditFault> {
        let mut rows = chain(9);
        let end = end_of(&rows);
        change(&mut rows);
        rows.sort_by_key(|row| row.number);
        chain_faults(&of(&rows, end), None)
    }

    fn of(rows: &[AuditRow], end: AuditEnd) -> AuditChain {
        AuditChain { links: rows.iter().map(AuditRow::link).collect(), end }
    }

    #[test]
    fn a_chain_as_it_was_written_has_no_fault() {
        assert_eq!(faults(|_| {}), []);
        assert_eq!(chain_faults(&of(&[], AuditEnd::NONE), Some(AuditEnd::NONE)), []);
    }

    #[test]
    fn a_row_that_was_changed_is_named_whatever_of_it_was() {
        type Tampering = fn(&mut AuditRow);
        let changes: [(&str, Tampering); 10] = [
            ("time", |row| row.unix_ms += 1),
            ("who", |row| row.operator.who = "mallory".into()),
            ("origin", |row| row.operator.origin = "host b".into()),
            ("command", |row| row.operator.command = "keys create".into()),
            ("request id", |row| row.operator.request_id = Some("".into())),
            ("kind", |row| row.kind = "team".into()),
            ("name", |row| row.name = "".into()),
            ("changes", |row| row.changes = "[]".into()),
            ("previous", |row| row.previous.0[31] ^= 1),
            ("hash", |row| row.hash.0[0] ^= 1),
        ];
        for (what, change) in changes {
            for row in [1, 5, 9] {
                let found = faults(|rows| change(&mut rows[row - 1]));
                assert_eq!(found, [AuditFault::Changed { row: row as i64 }], "{what} of row {row}");
            }
        }
        // A text that moves from one field to the next is another row.
        let found = faults(|rows| {
            rows[4].kind = "keya".into();
            rows[4].name = "pp".into();
        });
        assert_eq!(found, [AuditFault::Changed { row: 5 }]);
    }

    #[test]
    fn rows_that_were_removed_are_named() {
        let removed = |first, last| vec![AuditFault::Removed { first, last }];
        for first in 1..=9_usize {
            for last in first..=9 {
                let found = faults(|rows| drop(rows.drain(first - 1..last)));
                assert_eq!(found, removed(first as i64, last as i64));
            }
        }
    }

    #[test]
    fn rows_that_were_re_ordered_are_named() {
        for at in 0..8 {
            let found = faults(|rows| {
                let (one, other) = (rows[at].number, rows[at + 1].number);
                rows[at].number = other;
                rows[at + 1].number = one;
            });
            let named = |row: usize| {
                found.iter().any(|fault| matches!(fault, AuditFault::Moved { row: r, .. } if *r == row as i64))
            };
            assert!(named(at + 1) && named(at + 2), "{at}: {found:?}");
        }
        let found = faults(|rows| rows[4].number = 1_000);
        assert!(found.contains(&AuditFault::Moved { row: 1_000, after: 4 }), "{found:?}");
        let found = faults(|rows| rows[8].number = 10);
        assert_eq!(found[0], AuditFault::Renumbered { row: 10, was: 9 });
    }

    #[test]
    fn a_row_that_was_replaced_or_hidden_by_new_numbers_is_named() {
        let found = faults(|rows| {
            rows[4].changes = "[]".into();
            rows[4].hash = rows[4].digest();
        });
        assert_eq!(found, [AuditFault::Replaced { row: 5 }]);
        let renumber = |rows: &mut Vec<AuditRow>| {
            for (row, number) in rows.iter_mut().zip(1..) {
                row.number = number;
            }
        };
        let found = faults(|rows| {
            rows.remove(4);
            renumber(rows);
        });
        assert_eq!(found, [AuditFault::Replaced { row: 4 }, AuditFault::Removed { first: 9, last: 9 }]);
        let found = faults(|rows| {
            rows.remove(0);
            renumber(rows);
        });
        assert_eq!(found[0], AuditFault::Replaced { row: 0 });
    }

    /// Without a note kept elsewhere, rows that are removed together with the record of them are not missed.
    #[test]
    fn the_newest_rows_are_missed_by_their_record_and_by_a_note() {
        let rows = chain(9);
        let (end, cut) = (end_of(&rows), end_of(&rows[..6]));
        assert_eq!(chain_faults(&of(&rows[..6], end), None), [AuditFault::Removed { first: 7, last: 9 }]);
        assert_eq!(chain_faults(&of(&rows, cut), None), [AuditFault::EndChanged { recorded: 6 }]);
        assert_eq!(chain_faults(&of(&rows[..6], cut), None), []);
        let noted = |number: usize| Some(end_of(&rows[..number]));
        for number in 0..=6 {
            assert_eq!(chain_faults(&of(&rows[..6], cut), noted(number)), [], "{number}");
        }
        assert_eq!(chain_faults(&of(&rows[..6], cut), noted(7)), [AuditFault::NotAsNoted { row: 7 }]);
        // All written anew, with one row left out.
        let mut anew = chain(9);
        anew.remove(2);
        for at in 0..anew.len() {
            let previous = if at == 0 { AuditHash::START } else { anew[at - 1].hash };
            anew[at].previous = previous;
            anew[at].number = at as i64 + 1;
            anew[at].hash = anew[at].digest();
        }
        let forged = of(&anew, end_of(&anew));
        assert_eq!(chain_faults(&forged, None), []);
        assert_eq!(chain_faults(&forged, noted(7)), [AuditFault::NotAsNoted { row: 7 }]);
    }

    #[test]
    fn a_change_has_the_fields_that_are_different() {
        let key = StoredKey {
            name: "app".into(),
            policy: "pro".into(),
            team: None,
            own: KeyOverrides::default(),
            expires: None,
            disabled: false,
            created_unix_ms: 0,
            version: 1,
            secrets: vec![StoredSecret::new(KeyHash::of("one"), 0)],
        };
        let text = |entry: AuditEntry| {
            let one = |change: &ChangedField| format!("{}: {:?} > {:?}", change.field, change.before, change.after);
            format!("{} {}: {}", entry.kind, entry.name, entry.changes.iter().map(one).collect::<Vec<_>>().join("; "))
        };
        let id = KeyHash::of("one").id();
        assert_eq!(
            text(AuditEntry::of_key(None, &key)),
            format!(
                "key app: policy: None > Some(\"pro\"); disabled: None > Some(\"false\"); secrets: None > Some(\"{id}\")"
            )
        );
        let limits = Limits { requests_per_minute: Some(5), ..Limits::default() };
        let budget = BudgetSpec { limit: NanoUsd(5_500_000_000), window: BudgetPeriod::Ever };
        let mut changed = key.rotated(StoredSecret::new(KeyHash::of("two"), 1_000), 500);
        changed.own = KeyOverrides { limits, budget: Some(budget.clone()) };
        changed.expires = Some(86_400);
        let expected = [
            "requests_per_minute: None > Some(\"5\")".to_owned(),
            "budget: None > Some(\"5.5 none\")".to_owned(),
            "expires: None > Some(\"1970-01-02T00:00:00Z\")".to_owned(),
            format!(
                "secrets: Some(\"{id}\") > Some(\"{id} until 1970-01-01T00:00:01.5Z, {}\")",
                KeyHash::of("two").id()
            ),
        ];
        assert_eq!(text(AuditEntry::of_key(Some(&key), &changed)), format!("key app: {}", expected.join("; ")));
        assert_eq!(text(AuditEntry::of_key(Some(&key), &key)), "key app: ");
        let team = StoredTeam { name: "growth".into(), budget: Some(budget), created_unix_ms: 0, version: 1 };
        let poor = StoredTeam { budget: None, ..team.clone() };
        assert_eq!(text(AuditEntry::of_team(Some(&team), &poor)), "team growth: budget: Some(\"5.5 none\") > None");
        let grant = Grant {
            id: 0,
            holder: Holder { scope: Scope::Team, name: "growth".into() },
            amount: NanoUsd(-1_000_000_000),
            reason: "".into(),
            by: "bob".into(),
            granted_unix_ms: 0,
        };
        assert_eq!(
            text(AuditEntry::of_grant(NanoUsd(3_000_000_000), &grant)),
            "team growth: credit: Some(\"3\") > Some(\"2\"); granted_by: None > Some(\"bob\")"
        );
    }
}
