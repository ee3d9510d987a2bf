//! What every register guarantees of an SLA's closings: each statement once, with its grants or not at all.

use super::{InMemory, InPostgres, InSqlite, NOW, RegisterFixture, wait, write};
use std::time::{Duration, Instant};
use tierway::domain::budget::Scope;
use tierway::domain::money::NanoUsd;
use tierway::domain::register::Holder;
use tierway::domain::sla::SlaCreditStep;
use tierway::domain::sla::closing::{SlaClosing, SlaCredit};
use tierway::domain::sla::month::SlaMonth;
use tierway::store::{PromisedMonth, Register, RegisterChange, RegisterConflict, RegisterWriteError, SlaPresence};

/// How long a write may take.
const PATIENCE: Duration = Duration::from_secs(10);

fn month(text: &str) -> SlaMonth {
    SlaMonth::parse(text).expect("a month")
}

/// Statement `statement` about November, which grants `amount` to a key and as much to a team.
fn closing(statement: u32, amount: i64) -> SlaClosing {
    let credit = |scope, name: &str| SlaCredit {
        holder: Holder { scope, name: name.into() },
        spend: NanoUsd(amount.saturating_mul(10)),
        due: NanoUsd(amount),
        granted: NanoUsd(amount),
    };
    SlaClosing {
        policy: "pro".into(),
        month: month("2026-11"),
        statement,
        closed_unix_ms: NOW,
        requests: 10_100 + u64::from(statement),
        eligible: 10_000,
        failed: 13,
        uptime_millionths: Some(998_700),
        step: Some(SlaCreditStep { below_bp: 9_990, credit_bp: 1_000 }),
        credits: vec![credit(Scope::Key, "app"), credit(Scope::Team, "growth")],
    }
}

/// The statement and its grants, as they are written together.
fn changes(closing: &SlaClosing) -> Vec<RegisterChange> {
    let grants = closing.grants().into_iter().map(RegisterChange::Grant);
    std::iter::once(RegisterChange::SlaClosing(closing.clone())).chain(grants).collect()
}

fn closings(register: &dyn Register, policy: &str, of: &str) -> Vec<SlaClosing> {
    wait(register.sla_closings(policy.into(), month(of))).expect("they can be read")
}

fn granted(register: &dyn Register) -> Vec<i64> {
    wait(register.grants(None, 0, usize::MAX)).expect("they can be read").iter().map(|grant| grant.amount.0).collect()
}

fn each_statement_is_made_once(fixture: &dyn RegisterFixture) {
    let register = fixture.register();
    let (first, second) = (closing(1, 100), closing(2, 7));
    let taken = Err(RegisterWriteError::Conflict { at: 0, why: RegisterConflict::Changed });
    assert_eq!(write(register, changes(&second)), taken, "there is no first one");
    write(register, changes(&first)).expect("it is the first one");
    assert_eq!(write(register, changes(&first)), taken);
    assert_eq!(granted(register), [100, 100], "nothing of the second closer is kept");
    write(register, changes(&second)).expect("it is the next one");
    assert_eq!(granted(register), [100, 100, 7, 7]);
    assert_eq!(closings(register, "pro", "2026-11"), [first, second]);
    assert_eq!(closings(register, "pro", "2026-10"), []);
    assert_eq!(closings(register, "standard", "2026-11"), []);
    // Each change has its row of the audit.
    assert_eq!(super::audits::intact_rows(register), 6);
}

fn a_month_without_credit_is_closed_too(fixture: &dyn RegisterFixture) {
    let register = fixture.register();
    let kept = SlaClosing { uptime_millionths: None, step: None, credits: Vec::new(), ..closing(1, 0) };
    write(register, changes(&kept)).expect("it is the first one");
    assert_eq!((closings(register, "pro", "2026-11"), granted(register)), (vec![kept], Vec::new()));
}

fn a_month_whose_grants_do_not_fit_stays_open(fixture: &dyn RegisterFixture) {
    let register = fixture.register();
    let most = closing(1, i64::MAX / 10);
    write(register, changes(&most)).expect("it is the first one");
    let beyond = SlaClosing { month: month("2026-12"), ..closing(1, i64::MAX) };
    let conflict = RegisterWriteError::Conflict { at: 1, why: RegisterConflict::TooMuchCredit };
    assert_eq!(write(register, changes(&beyond)), Err(conflict));
    assert_eq!((closings(register, "pro", "2026-12"), granted(register).len()), (Vec::new(), 2));
}

fn what_was_promised_is_kept_until_it_is_closed(fixture: &dyn RegisterFixture) {
    let register = fixture.register();
    let presence = |promised: &[(&str, &str)]| SlaPresence {
        interval: SlaPresence::interval_at(NOW),
        promised: promised.iter().map(|(policy, of)| ((*policy).into(), month(of))).collect(),
    };
    register.present(presence(&[("pro", "2026-11"), ("basic", "2026-11")]));
    register.present(presence(&[("pro", "2026-11"), ("pro", "2026-10")]));
    write(register, changes(&closing(1, 100))).expect("it is the first one");
    write(register, changes(&closing(2, 100))).expect("it is the next one");
    let expected = [("2026-10", "pro", None), ("2026-11", "basic", None), ("2026-11", "pro", Some(10_102))];
    let expected = expected.map(|(of, policy, closed_requests)| PromisedMonth {
        policy: policy.into(),
        month: month(of),
        closed_requests,
    });
    let promised = || wait(register.sla_promised()).expect("it can be read");
    // On PostgreSQL it is written beside what is written at once.
    let until = Instant::now() + PATIENCE;
    while promised() != expected && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(promised(), expected);
}

macro_rules! closings {
    ($back_end:ident, $new:expr) => {
        mod $back_end {
            use super::*;

            closings!(@each $new => each_statement_is_made_once a_month_without_credit_is_closed_too
                a_month_whose_grants_do_not_fit_stays_open);
        }
    };
    (@each $new:expr => $($promise:ident)*) => {
        $(#[test]
        fn $promise() {
            super::$promise(&$new);
        })*
    };
}

closings!(memory, InMemory::new());
closings!(sqlite, InSqlite::of_gateway());
closings!(sqlite_beside_a_gateway, InSqlite::of_command());
closings!(postgres, InPostgres::of_gateway());
closings!(postgres_beside_a_gateway, InPostgres::of_command());

#[test]
fn a_gateway_records_what_it_promises() {
    what_was_promised_is_kept_until_it_is_closed(&InMemory::new());
    what_was_promised_is_kept_until_it_is_closed(&InSqlite::of_gateway());
    what_was_promised_is_kept_until_it_is_closed(&InPostgres::of_gateway());
}
