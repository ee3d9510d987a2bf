//! What every register guarantees of the audit: each change has its row, in one chain, whoever writes.

use super::{
    InMemory, InPostgres, InSqlite, NOW, RegisterFixture, grant, key, new_key, new_team, since, team, wait, write,
};
use tierway::domain::audit::{AuditEntry, AuditQuery, AuditRow, ChangedField, Operator, chain_faults};
use tierway::domain::budget::{BudgetPeriod, BudgetSpec, Scope};
use tierway::domain::money::NanoUsd;
use tierway::domain::register::{StoredKey, StoredSecret, StoredTeam};
use tierway::domain::secret::KeyHash;
use tierway::store::{ChangeContext, Register, RegisterChange};

/// Who changes something in these tests.
pub fn origin() -> ChangeContext {
    let operator = Operator {
        who: "alice".into(),
        origin: "host a".into(),
        command: "keys edit".into(),
        request_id: Some("req".into()),
    };
    ChangeContext { operator, unix_ms: NOW }
}

fn rows(register: &dyn Register, query: AuditQuery) -> Vec<AuditRow> {
    wait(register.audit(query)).expect("it can be read")
}

fn all() -> AuditQuery {
    AuditQuery { most: usize::MAX, ..AuditQuery::default() }
}

/// The number of rows, all as they were written.
#[track_caller]
pub fn intact_rows(register: &dyn Register) -> usize {
    let chain = wait(register.audit_chain()).expect("it can be read");
    assert_eq!(chain_faults(&chain, None), []);
    chain.links.len()
}

fn every_change_has_a_row(fixture: &dyn RegisterFixture) {
    let register = fixture.register();
    assert_eq!((rows(register, all()), intact_rows(register)), (Vec::new(), 0));
    let versions = write(register, vec![new_key("a"), new_team("t")]).expect("they are new");
    let secrets = [KeyHash::of("a").id(), KeyHash::of("b").id()];
    let rotated = key("a", &["a"]).rotated(StoredSecret::new(KeyHash::of("b"), NOW), 0);
    let changed = StoredKey { team: Some("t".into()), disabled: true, ..rotated };
    write(register, vec![RegisterChange::Key { key: changed, expected: versions[0] }]).expect("as expected");
    let budget = BudgetSpec { limit: NanoUsd(5_000_000_000), window: BudgetPeriod::Ever };
    let paid = StoredTeam { budget: Some(budget), ..team("t") };
    write(register, vec![RegisterChange::Team { team: paid, expected: versions[1] }]).expect("as expected");
    write(register, vec![grant(Scope::Team, "t", 5), grant(Scope::Team, "t", -2)]).expect("grants fit");
    let change = ChangedField::of("budget_pause", Some("all".to_owned()), None).expect("it is different");
    let entry = AuditEntry { kind: "deployment", name: "p/m".into(), changes: vec![change] };
    let version = since(register, 0).version;
    wait(register.note(entry, origin())).expect("it can be written");
    assert_eq!(since(register, 0).version, version, "nothing of the register has changed");
    let rows = rows(register, all());
    let shown: Vec<(i64, String, &str)> =
        rows.iter().map(|row| (row.number, format!("{} {}", row.kind, row.name), &*row.changes)).collect();
    let ended = format!("{} until {}", secrets[0], "2026-11-22T00:00:00Z");
    let (new, of_a) = (
        format!("[[\"policy\",null,\"standard\"],[\"disabled\",null,\"false\"],[\"secrets\",null,\"{}\"]]", secrets[0]),
        format!(
            "[[\"team\",null,\"t\"],[\"disabled\",\"false\",\"true\"],[\"secrets\",\"{}\",\"{ended}, {}\"]]",
            secrets[0], secrets[1]
        ),
    );
    let expected = [
        (7, "deployment p/m", "[[\"budget_pause\",\"all\",null]]"),
        (
            6,
            "team t",
            "[[\"credit\",\"0.000000005\",\"0.000000003\"],[\"reason\",null,\"because\"],[\"granted_by\",null,\"test\"]]",
        ),
        (
            5,
            "team t",
            "[[\"credit\",\"0\",\"0.000000005\"],[\"reason\",null,\"because\"],[\"granted_by\",null,\"test\"]]",
        ),
        (4, "team t", "[[\"budget\",null,\"5 none\"]]"),
        (3, "key a", &*of_a),
        (2, "team t", "[]"),
        (1, "key a", &*new),
    ];
    assert_eq!(shown, expected.map(|(number, of, changes)| (number, of.to_owned(), changes)));
    assert!(rows.iter().all(|row| row.operator == origin().operator && row.unix_ms == NOW));
    assert_eq!(intact_rows(register), 7);
}

fn what_is_refused_has_no_row(fixture: &dyn RegisterFixture) {
    let register = fixture.register();
    write(register, vec![new_key("a")]).expect("it is new");
    for refused in [vec![new_key("b"), new_key("a")], vec![new_team("t"), new_team("t")]] {
        write(register, refused).expect_err("the last one is there already");
    }
    assert_eq!(intact_rows(register), 1);
    write(register, vec![new_key("b")]).expect("it is new");
    assert_eq!(intact_rows(register), 2);
}

fn rows_are_listed_by_what_is_asked(fixture: &dyn RegisterFixture) {
    let register = fixture.register();
    for at in 0..5 {
        let origin = ChangeContext { unix_ms: NOW + at, ..origin() };
        let changes = vec![new_key(&format!("k{at}")), new_team(&format!("t{at}"))];
        wait(register.write(changes, origin)).expect("they are new");
    }
    let check = |query: AuditQuery, expected: &[i64]| {
        let found: Vec<i64> = rows(register, query.clone()).iter().map(|row| row.number).collect();
        assert_eq!(found, expected, "{query:?}");
    };
    check(AuditQuery { most: 3, ..all() }, &[10, 9, 8]);
    check(AuditQuery { after: Some(8), most: 2, ..all() }, &[7, 6]);
    check(AuditQuery { since_unix_ms: Some(NOW + 1), until_unix_ms: Some(NOW + 3), ..all() }, &[6, 5, 4, 3]);
    check(AuditQuery { kind: Some("team".into()), most: 2, ..all() }, &[10, 8]);
    check(AuditQuery { kind: Some("key".into()), name: Some("k2".into()), ..all() }, &[5]);
    check(AuditQuery { kind: Some("key".into()), name: Some("t2".into()), ..all() }, &[]);
    check(AuditQuery { most: 0, ..all() }, &[]);
}

macro_rules! audit {
    ($back_end:ident, $new:expr) => {
        mod $back_end {
            use super::*;

            audit!(@each $new => every_change_has_a_row what_is_refused_has_no_row rows_are_listed_by_what_is_asked);
        }
    };
    (@each $new:expr => $($promise:ident)*) => {
        $(#[test]
        fn $promise() {
            super::$promise(&$new);
        })*
    };
}

audit!(memory, InMemory::new());
audit!(sqlite, InSqlite::of_gateway());
audit!(sqlite_beside_a_gateway, InSqlite::of_command());
audit!(postgres, InPostgres::of_gateway());
audit!(postgres_beside_a_gateway, InPostgres::of_command());
