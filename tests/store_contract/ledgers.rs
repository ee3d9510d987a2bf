//! What every ledger guarantees, run against each of them.
//!
//! A new back end is one more [`LedgerFixture`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tierway::domain::budget::{WindowSpan, Zone};
use tierway::domain::call::Endpoint;
use tierway::domain::id::RequestId;
use tierway::domain::limit::LimitKind;
use tierway::domain::money::{NanoUsd, PicoUsdPerToken};
use tierway::domain::posture::{PostureQuery, PostureReceipt, PostureTally};
use tierway::domain::pricing::Price;
use tierway::domain::reason::Reason;
use tierway::domain::receipt::{
    AttemptRecord, Outcome, PassedOverDeployment, PassedOverReason, PlannedModel, Receipt, ServingDeployment,
};
use tierway::domain::report::ReceiptsQuery;
use tierway::domain::sla::month::SlaMonth;
use tierway::domain::sla::tally::{SlaMonthTally, SlaQuery};
use tierway::domain::sla::{SlaCreditStep, SlaFirstToken, SlaMeasure, SlaReceipt, SlaTerms};
use tierway::domain::usage::{ByTokenClass, TokenClass, Usage};
use tierway::store::Ledger;
use tierway::store::memory::MemoryLedger;
use tierway::store::postgres::{PostgresLedger, PostgresReports, PostgresSource};
use tierway::store::reports::{LedgerSource, Reports};
use tierway::store::sqlite::{LedgerReader, SqliteLedger, SqliteReports, WriterGuard};

use super::postgres_server::{TestDatabase, ticking};

/// A ledger, and how to read it back.
trait LedgerFixture {
    fn ledger(&self) -> &(dyn Ledger + 'static);

    /// The stored receipts, in the order of the ledger.
    fn kept(&self) -> Vec<Receipt>;
}

impl LedgerFixture for MemoryLedger {
    fn ledger(&self) -> &(dyn Ledger + 'static) {
        self
    }

    fn kept(&self) -> Vec<Receipt> {
        self.recent().iter().map(|receipt| Receipt::clone(receipt)).collect()
    }
}

struct InSqlite {
    ledger: SqliteLedger,
    _guard: WriterGuard,
    folder: tempfile::TempDir,
}

impl InSqlite {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let opened = SqliteLedger::open(&folder.path().join("tierway.db"), None, Arc::new(|| 0));
        let (ledger, _guard) = opened.unwrap_or_else(|error| panic!("{error}"));
        Self { ledger, _guard, folder }
    }
}

impl LedgerFixture for InSqlite {
    fn ledger(&self) -> &(dyn Ledger + 'static) {
        &self.ledger
    }

    fn kept(&self) -> Vec<Receipt> {
        let path = self.folder.path().join("tierway.db");
        let look = rusqlite::Connection::open(&path).expect("the database is there");
        let mut statement = look.prepare("SELECT id FROM receipts").expect("the table is there");
        let ids = statement.query_map([], |row| row.get(0).map(u128::from_be_bytes)).expect("it is read");
        let reader = LedgerReader::open(&path).unwrap_or_else(|error| panic!("{error}"));
        let read = |id: rusqlite::Result<u128>| reader.receipt(RequestId(id.expect("sixteen bytes")));
        ids.map(|id| read(id).expect("it is read").expect("it was just there")).collect()
    }
}

struct InPostgres {
    ledger: PostgresLedger,
    _guard: WriterGuard,
    database: TestDatabase,
}

impl InPostgres {
    fn new() -> Self {
        let database = TestDatabase::new();
        let opened = PostgresLedger::open(database.location(), None, Arc::new(|| 0), ticking());
        let (ledger, _guard) = opened.unwrap_or_else(|error| panic!("{error}"));
        Self { ledger, _guard, database }
    }
}

impl LedgerFixture for InPostgres {
    fn ledger(&self) -> &(dyn Ledger + 'static) {
        &self.ledger
    }

    fn kept(&self) -> Vec<Receipt> {
        let source = PostgresSource::open(self.database.location()).unwrap_or_else(|error| panic!("{error}"));
        let all = ReceiptsQuery { most: usize::MAX, ..ReceiptsQuery::default() };
        let mut kept = source.receipts(&all).expect("they are read");
        kept.reverse();
        kept
    }
}

fn settled(fixture: &dyn LedgerFixture) -> Vec<Receipt> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while fixture.ledger().status().waiting > 0 {
        assert!(Instant::now() < deadline, "{:?}", fixture.ledger().status());
        std::thread::sleep(Duration::from_millis(1));
    }
    fixture.kept()
}

/// Prices and counts of fewer and fewer classes of tokens, then of none.
fn tokens_apart(number: u64) -> (ByTokenClass<Option<PicoUsdPerToken>>, ByTokenClass<u64>) {
    let (mut prices, mut counts) = (ByTokenClass::default(), ByTokenClass::default());
    let skipped = usize::try_from(number).unwrap_or_default() % (TokenClass::ALL.len() + 1);
    for class in TokenClass::ALL.into_iter().skip(skipped) {
        prices.set(class, Some(PicoUsdPerToken(number + class as u64)));
        counts.set(class, number + class as u64);
    }
    (prices, counts)
}

fn price_and_usage(number: u64) -> (Price, Usage) {
    let pico = |price: u64| PicoUsdPerToken(price + number);
    let (apart_price, apart) = tokens_apart(number);
    let price = Price {
        input: pico(70_000),
        cached_input: pico(1),
        output: pico(250_000),
        request: NanoUsd(number as i64),
        apart: apart_price,
    };
    let usage =
        Usage { input: number * 1_000, cached_input: number, output: i64::MAX as u64, reasoning: number % 2, apart };
    (price, usage)
}

fn some(kind: &str, number: u64) -> Arc<str> {
    format!("{kind}-{}", number % 3).into()
}

/// The deployment `nth` of a receipt.
fn place(number: u64, nth: u64) -> ServingDeployment {
    ServingDeployment {
        model: some("org/model", number),
        deployment: format!("region-{nth}/org/model").into(),
        tier: (nth < 2).then(|| some("tier", number)),
        region: format!("region-{nth}").into(),
    }
}

/// The attempt `nth` of a receipt.
fn attempt(number: u64, nth: u64, reason: Reason) -> AttemptRecord {
    let place = place(number, nth);
    AttemptRecord {
        deployment: place.deployment,
        tier: place.tier,
        model: (nth != 1).then_some(place.model),
        region: (nth != 2).then_some(place.region),
        reason,
        started: (!number.is_multiple_of(10)).then(|| Duration::from_micros(number * 5 + nth)),
        duration: Duration::from_micros(number * 7 + nth),
        provider_request_id: (nth != 2).then(|| format!("req-{number}-{nth}").into()),
        injected: number.is_multiple_of(11) || (number.is_multiple_of(13) && nth == 1),
    }
}

/// A receipt in which every field depends on `number`, including whether it is absent.
fn receipt(number: u64) -> Receipt {
    let (some, place) = (|kind: &str| some(kind, number), |nth: u64| place(number, nth));
    let every = |nth: u64| number.is_multiple_of(nth);
    let at = |nth: u64, all: usize| usize::try_from(nth).expect("a small number") % all;
    let reason = Reason::ALL[at(number, Reason::ALL.len())];
    let passed_over = |nth: u64| PassedOverDeployment {
        tier: place(nth).tier,
        model: place(nth).model,
        deployment: place(nth).deployment,
        why: PassedOverReason::ALL[at(number + nth, PassedOverReason::ALL.len())],
        until: (nth != 1).then(|| Duration::from_micros(number + nth)),
        injected: number.is_multiple_of(17) && nth != 1,
    };
    let (price, usage) = price_and_usage(number);
    Receipt {
        id: RequestId((u128::from(number + 1) << 80) | 7),
        received_unix_ms: 1_795_305_600_000 + number as i64,
        endpoint: (!every(5)).then(|| Endpoint::ALL[at(number, Endpoint::ALL.len())]),
        key: (!every(7)).then(|| some("key")),
        team: (!every(2)).then(|| some("team")),
        policy: (!every(7)).then(|| some("policy")),
        asked_model: (!every(3)).then(|| format!("modèle-{number}'; DROP TABLE receipts; --").into()),
        stream: every(2),
        meant: (!every(3)).then(|| PlannedModel {
            model: some(if every(2) { "meant" } else { "org/model" }),
            tier: (!every(5)).then(|| some("tier")),
        }),
        served: (!every(4)).then(|| place(number % 3)),
        attempts: (0..number % 4)
            .map(|nth| attempt(number, nth, Reason::ALL[at(number + nth, Reason::ALL.len())]))
            .collect(),
        passed_over: (0..number % 5).map(passed_over).collect(),
        outcome: Outcome::ALL[at(number, Outcome::ALL.len())],
        reason,
        limit: every(6).then(|| LimitKind::ALL[at(number, LimitKind::ALL.len())]),
        status: 200 + (number % 300) as u16,
        usage: (!every(8)).then_some(usage),
        estimated: every(9),
        price: (!every(4)).then_some(price),
        price_version: (!every(8)).then(|| some("version")),
        cost: NanoUsd(number as i64 * 21_300),
        charges: Vec::new(),
        first_token: every(2).then(|| Duration::from_micros(number * 3)),
        failover: every(3).then(|| Duration::from_micros(number * 2)),
        duration: Duration::from_micros(number * 1_000_003),
        overhead: Duration::from_micros(number),
    }
}

fn every_field_is_read_back(fixture: &dyn LedgerFixture) {
    let written: Vec<_> = (0..1_000).map(receipt).collect();
    for receipt in &written {
        fixture.ledger().append(&Arc::new(receipt.clone()), None);
    }
    let kept = settled(fixture);
    assert_eq!(kept.len(), written.len());
    for (kept, written) in kept.iter().zip(&written) {
        assert_eq!(format!("{kept:?}"), format!("{written:?}"));
    }
}

fn each_is_kept_once_and_in_its_threads_order(fixture: &dyn LedgerFixture) {
    const THREADS: u64 = 8;
    const EACH: u64 = 500;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let ledger = fixture.ledger();
            scope.spawn(move || {
                for nth in 0..EACH {
                    ledger.append(&Arc::new(receipt(thread * EACH + nth)), ledger.reserve());
                }
            });
        }
    });
    let kept = settled(fixture);
    let mut last: HashMap<u64, u128> = HashMap::new();
    for receipt in &kept {
        let thread = ((receipt.id.0 >> 80) as u64 - 1) / EACH;
        let before = last.insert(thread, receipt.id.0);
        assert!(before < Some(receipt.id.0), "{:?} of thread {thread} comes after {before:?}", receipt.id);
    }
    assert_eq!(kept.len() as u64, THREADS * EACH);
}

fn a_ledger_that_can_be_written_is_reported_healthy(fixture: &dyn LedgerFixture) {
    fixture.ledger().append(&Arc::new(receipt(1)), None);
    settled(fixture);
    let status = fixture.ledger().status();
    assert!(status.healthy);
    assert_eq!((status.waiting, status.dropped), (0, 0));
}

macro_rules! ledger {
    ($back_end:ident, $new:expr) => {
        mod $back_end {
            use super::*;

            ledger!(@each $new => every_field_is_read_back each_is_kept_once_and_in_its_threads_order
                a_ledger_that_can_be_written_is_reported_healthy);
        }
    };
    (@each $new:expr => $($promise:ident)*) => {
        $(#[test]
        fn $promise() {
            super::$promise(&$new);
        })*
    };
}

ledger!(memory, MemoryLedger::default());
ledger!(sqlite, InSqlite::new());
ledger!(postgres, InPostgres::new());

/// Receipts of a month and of the days before it, counted for an SLA by both databases as they were written: those that met an
/// injected fault, a tenth of them, as neither eligible nor failed.
#[test]
fn an_sla_is_counted_alike_in_both_databases() {
    let month = SlaMonth::parse("2026-11").expect("a month");
    let terms = Arc::new(SlaTerms {
        uptime_bp: 9_990,
        first_token: Some(SlaFirstToken { share_bp: 9_500, within: Duration::from_millis(1) }),
        credits: vec![SlaCreditStep { below_bp: 9_990, credit_bp: 1_000 }],
        measure: SlaMeasure::FiveMinutes,
        min_requests: 100,
        zone: Zone::named("UTC").expect("UTC is built in"),
    });
    let span = month.span(&terms.zone);
    // Nine for each hour, in which the policies and ends of all receipts lie; the first lie before the month.
    let received = |number: u64| span.start_ms - 86_400_000 + number as i64 * 400_000;
    let of_month = |number: u64| {
        let received_unix_ms = received(number);
        let id = RequestId((u128::from(received_unix_ms.unsigned_abs()) << 80) | u128::from(number));
        Receipt { id, received_unix_ms, ..receipt(number) }
    };
    let (sqlite, postgres) = (InSqlite::new(), InPostgres::new());
    for receipt in (0..6_000).map(of_month).map(Arc::new) {
        sqlite.ledger.append(&receipt, None);
        postgres.ledger.append(&receipt, None);
    }
    assert_eq!(settled(&sqlite).len(), settled(&postgres).len());
    let reports: [Arc<dyn Reports>; 2] = [
        Arc::new(SqliteReports::of(&sqlite.folder.path().join("tierway.db"))),
        Arc::new(PostgresReports::of_gateway(&postgres.ledger)),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    postures_are_counted_alike(&runtime, &reports, span, of_month);
    for policy in ["policy-0", "policy-1", "policy-2", "nobody's"] {
        let query = SlaQuery::new(policy.into(), terms.clone(), span, span.end_ms);
        let [one, other] = reports.each_ref().map(|reports| {
            let counted = runtime.block_on(reports.sla_requests(query.clone())).expect("they can be read");
            (counted, runtime.block_on(reports.sla(query.clone())).expect("they can be read"))
        });
        assert_eq!(format!("{one:?}"), format!("{other:?}"));
        let mut counted = SlaMonthTally::new(query.clone());
        let of_policy = |receipt: &Receipt| receipt.policy.as_ref() == Some(&query.policy);
        let receipts = (0..6_000).map(of_month).filter(of_policy);
        let at = |receipt: &Receipt| receipt.received_unix_ms >= query.since_unix_ms();
        receipts.filter(at).filter_map(|receipt| SlaReceipt::of(&receipt)).for_each(|receipt| counted.add(&receipt));
        assert_eq!(format!("{:?}", one.1), format!("{counted:?}"));
        assert_eq!(one.0 > 1_000 && !one.1.keys.is_empty() && !one.1.spend.is_empty(), policy != "nobody's", "{one:?}");
    }
}

/// The same receipts, counted by how they were served: of one policy, and of all.
fn postures_are_counted_alike(
    runtime: &tokio::runtime::Runtime,
    reports: &[Arc<dyn Reports>; 2],
    span: WindowSpan,
    of_month: impl Fn(u64) -> Receipt,
) {
    for policy in [None, Some("policy-1"), Some("nobody's")] {
        let query = PostureQuery {
            policy: policy.map(Into::into),
            since_unix_ms: span.start_ms,
            until_unix_ms: span.start_ms + 1_000_000_000,
        };
        let mut expected = PostureTally::default();
        for receipt in (0..6_000).map(&of_month).filter(|receipt| receipt.key.is_some()) {
            let of_policy = query.policy.is_none() || receipt.policy == query.policy;
            if of_policy && (query.since_unix_ms..query.until_unix_ms).contains(&receipt.received_unix_ms) {
                expected.add(&PostureReceipt {
                    tier: receipt.served.as_ref().and_then(|served| served.tier.clone()),
                    region: receipt.served.as_ref().map(|served| served.region.clone()),
                    stream: receipt.stream,
                    outcome: receipt.outcome,
                    reason: receipt.reason,
                    first_token: receipt.first_token,
                    duration: receipt.duration,
                    failover: receipt.failover,
                    injected: receipt.met_injected_fault(),
                });
            }
        }
        for reports in reports {
            let found = runtime.block_on(reports.posture(query.clone())).expect("they can be read");
            assert_eq!(found, expected, "{policy:?}");
        }
        assert_eq!(expected.requests > 100 && expected.rehearsed > 10, policy != Some("nobody's"), "{expected:?}");
    }
}
