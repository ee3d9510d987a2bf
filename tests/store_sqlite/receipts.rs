//! Receipts to write, and how the tests wait for them.

use rusqlite::{Connection, Transaction};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};
use tierway::domain::budget::{Account, Charge, LeaseTerm, Scope, WindowSpan};
use tierway::domain::call::Endpoint;
use tierway::domain::id::RequestId;
use tierway::domain::money::NanoUsd;
use tierway::domain::reason::Reason;
use tierway::domain::receipt::{AttemptRecord, Outcome, PlannedModel, Receipt, ServingDeployment};
use tierway::domain::usage::Usage;
use tierway::store::sqlite::{SqliteLedger, SqliteWriter, WallClock, WriteOperation, WriterGuard};
use tierway::store::{Ledger, LedgerStatus};

/// When the receipts of these tests were received: 22 November 2026.
pub const NOW_UNIX_MS: i64 = 1_795_305_600_000;
/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory with a database.
pub struct Place(tempfile::TempDir);

impl Place {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    pub fn folder(&self) -> &Path {
        self.0.path()
    }

    pub fn database(&self) -> PathBuf {
        self.0.path().join("tierway.db")
    }

    pub fn open(&self) -> (SqliteLedger, WriterGuard) {
        self.keeping(None)
    }

    pub fn keeping(&self, keep: Option<Duration>) -> (SqliteLedger, WriterGuard) {
        SqliteLedger::open(&self.database(), keep, still()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// A second connection, beside the writer.
    pub fn look(&self) -> Connection {
        Connection::open(self.database()).expect("the database is there")
    }

    /// The ids of all rows, in order.
    pub fn ids(&self) -> Vec<u128> {
        ids(&self.look())
    }
}

pub fn ids(connection: &Connection) -> Vec<u128> {
    let mut statement = connection.prepare("SELECT id FROM receipts ORDER BY id").expect("the table is there");
    let ids = statement.query_map([], |row| row.get(0).map(u128::from_be_bytes)).expect("it is read");
    ids.collect::<Result<_, _>>().expect("ids are sixteen bytes")
}

/// A clock that does not move.
pub fn still() -> WallClock {
    Arc::new(|| NOW_UNIX_MS)
}

/// The `number`th request of a test, received `number` milliseconds after [`NOW_UNIX_MS`].
pub fn receipt(number: u64) -> Receipt {
    let received_unix_ms = NOW_UNIX_MS + i64::try_from(number).expect("a small number");
    Receipt {
        id: RequestId((u128::from(received_unix_ms.unsigned_abs()) << 80) | u128::from(number)),
        received_unix_ms,
        endpoint: Some(Endpoint::Chat),
        key: Some("growth-app".into()),
        team: Some("growth".into()),
        policy: Some("standard".into()),
        asked_model: Some("auto".into()),
        stream: true,
        meant: Some(PlannedModel { model: "org/model-1".into(), tier: Some("default".into()) }),
        served: Some(ServingDeployment {
            model: "org/model-1".into(),
            deployment: "eu/org/model-1".into(),
            tier: Some("default".into()),
            region: "eu-central".into(),
        }),
        attempts: vec![AttemptRecord {
            deployment: "eu/org/model-1".into(),
            tier: Some("default".into()),
            model: Some("org/model-1".into()),
            region: Some("eu-central".into()),
            reason: Reason::Served,
            started: Some(Duration::ZERO),
            duration: Duration::from_millis(480),
            provider_request_id: None,
            injected: false,
        }],
        passed_over: Vec::new(),
        outcome: Outcome::Served,
        reason: Reason::Served,
        limit: None,
        status: 200,
        usage: Some(Usage { input: 1_000, cached_input: 200, output: 50, reasoning: 10, ..Usage::default() }),
        estimated: false,
        price: None,
        price_version: None,
        cost: NanoUsd(21_300),
        charges: Vec::new(),
        first_token: Some(Duration::from_millis(480)),
        failover: None,
        duration: Duration::from_micros(2_345_678),
        overhead: Duration::from_micros(87),
    }
}

pub fn append(ledger: &dyn Ledger, numbers: std::ops::Range<u64>) -> Vec<u128> {
    let receipts = numbers.map(|number| Arc::new(receipt(number)));
    receipts.inspect(|receipt| ledger.append(receipt, None)).map(|receipt| receipt.id.0).collect()
}

/// The same receipt, charged to a budget.
pub fn charged(number: u64) -> Arc<Receipt> {
    let account = Account { scope: Scope::Key, name: "growth-app".into(), window: "none".into() };
    let span = WindowSpan { start_ms: 0, end_ms: i64::MAX };
    let charge = Charge {
        account: Arc::new(account),
        span,
        spent: NanoUsd(21_300),
        leased: NanoUsd(21_300),
        term: LeaseTerm::default(),
    };
    Arc::new(Receipt { charges: vec![charge], ..receipt(number) })
}

/// Waits until the status of `ledger` is as `wanted`.
#[track_caller]
pub fn until(ledger: &dyn Ledger, what: &str, wanted: impl Fn(LedgerStatus) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !wanted(ledger.status()) {
        assert!(Instant::now() < deadline, "waited in vain for {what}: {:?}", ledger.status());
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[track_caller]
pub fn until_written(ledger: &dyn Ledger) {
    until(ledger, "everything to be written", |status| status.waiting == 0 && status.healthy);
}

type Act = dyn Fn(&Transaction<'_>) -> rusqlite::Result<()> + Send;

/// Whatever a test wants to do inside the writer's transaction.
pub struct Doing {
    act: Box<Act>,
    done: Sender<()>,
}

impl Doing {
    pub fn submit(
        writer: &SqliteWriter,
        act: impl Fn(&Transaction<'_>) -> rusqlite::Result<()> + Send + 'static,
    ) -> Receiver<()> {
        let (done, is_done) = channel();
        assert!(writer.submit(Box::new(Self { act: Box::new(act), done })).is_ok(), "the queue has capacity");
        is_done
    }
}

impl WriteOperation for Doing {
    fn write(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        (self.act)(transaction)
    }

    fn describe(&self) -> String {
        "what a test does".to_owned()
    }

    fn committed(self: Box<Self>) {
        // A test that does not wait for it has dropped the receiver.
        let _ = self.done.send(());
    }
}

/// Blocks the writer inside a transaction until it is dropped, so that the queue fills meanwhile.
#[must_use]
pub struct Held {
    /// The writer waits for its end.
    _let_go: Sender<()>,
}

impl Held {
    pub fn writer(writer: &SqliteWriter) -> Self {
        let (let_go, wait) = channel::<()>();
        let (inside, is_inside) = channel();
        drop(Doing::submit(writer, move |_| {
            let _ = inside.send(());
            let _ = wait.recv();
            Ok(())
        }));
        is_inside.recv_timeout(PATIENCE).expect("the writer comes to it");
        Self { _let_go: let_go }
    }
}
