//! What every register guarantees, run against each of them: keys, teams and credit.
//!
//! A new back end is one more [`RegisterFixture`]. What only a database can guarantee, concurrent writers and a
//! writer that is killed, is at the end.

#[path = "audits.rs"]
mod audits;
#[path = "closings.rs"]
mod closings;
#[path = "drills.rs"]
mod drills;

use super::postgres_server::{TestDatabase, ticking};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tierway::domain::budget::{BudgetPeriod, BudgetSpec, Charge, Scope, WindowSpan, Zone};
use tierway::domain::limit::Limits;
use tierway::domain::money::NanoUsd;
use tierway::domain::register::{Grant, Holder, KeyOverrides, StoredKey, StoredSecret, StoredTeam};
use tierway::domain::secret::KeyHash;
use tierway::store::memory_lease_store::MemoryLeaseStore;
use tierway::store::memory_register::MemoryRegister;
use tierway::store::postgres::{PostgresLedger, PostgresRegister};
use tierway::store::sqlite::{SqliteLedger, SqliteRegister, WriterGuard};
use tierway::store::{
    LeaseRequest, LeaseStore, Register, RegisterChange, RegisterConflict, RegisterContents, RegisterWriteError,
    StoreFuture,
};

/// How long a test waits for an expected event.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The time of all tests, in Unix milliseconds.
const NOW: i64 = 1_795_305_600_000;

/// A register, and the lease store in which its credit is spent.
trait RegisterFixture {
    fn register(&self) -> &(dyn Register + 'static);

    fn lease_store(&self) -> &(dyn LeaseStore + 'static);

    /// Whether it records uses of secrets.
    fn records_uses(&self) -> bool {
        true
    }
}

struct InMemory(Arc<MemoryLeaseStore>, MemoryRegister);

impl InMemory {
    fn new() -> Self {
        let lease_store = Arc::new(MemoryLeaseStore::default());
        Self(lease_store.clone(), MemoryRegister::new(lease_store))
    }
}

impl RegisterFixture for InMemory {
    fn register(&self) -> &(dyn Register + 'static) {
        &self.1
    }

    fn lease_store(&self) -> &(dyn LeaseStore + 'static) {
        &*self.0
    }
}

/// The register of a gateway, or of a command beside a gateway.
struct InSqlite {
    register: SqliteRegister,
    of_command: bool,
    ledger: SqliteLedger,
    _guard: WriterGuard,
    folder: tempfile::TempDir,
}

impl InSqlite {
    fn of_gateway() -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("tierway.db");
        let opened = SqliteLedger::open(&path, None, Arc::new(|| NOW));
        let (ledger, _guard) = opened.unwrap_or_else(|error| panic!("{error}"));
        let register = SqliteRegister::of_gateway(&path, ledger.writer());
        Self { register, of_command: false, ledger, _guard, folder }
    }

    fn of_command() -> Self {
        let gateway = Self::of_gateway();
        Self { register: gateway.another(), of_command: true, ..gateway }
    }

    /// Another register on the same database.
    fn another(&self) -> SqliteRegister {
        let path = self.folder.path().join("tierway.db");
        SqliteRegister::of_command(&path, NOW).unwrap_or_else(|error| panic!("{error}"))
    }
}

impl RegisterFixture for InSqlite {
    fn register(&self) -> &(dyn Register + 'static) {
        &self.register
    }

    fn lease_store(&self) -> &(dyn LeaseStore + 'static) {
        &self.ledger
    }

    fn records_uses(&self) -> bool {
        !self.of_command
    }
}

/// The same on PostgreSQL.
struct InPostgres {
    register: PostgresRegister,
    of_command: bool,
    ledger: PostgresLedger,
    _guard: WriterGuard,
    database: TestDatabase,
}

impl InPostgres {
    fn of_gateway() -> Self {
        let database = TestDatabase::new();
        let opened = PostgresLedger::open(database.location(), None, Arc::new(|| NOW), ticking());
        let (ledger, _guard) = opened.unwrap_or_else(|error| panic!("{error}"));
        Self { register: PostgresRegister::of_gateway(&ledger), of_command: false, ledger, _guard, database }
    }

    fn of_command() -> Self {
        let gateway = Self::of_gateway();
        Self { register: gateway.another(), of_command: true, ..gateway }
    }

    /// Another register on the same database.
    fn another(&self) -> PostgresRegister {
        PostgresRegister::of_command(self.database.location(), NOW).unwrap_or_else(|error| panic!("{error}"))
    }
}

impl RegisterFixture for InPostgres {
    fn register(&self) -> &(dyn Register + 'static) {
        &self.register
    }

    fn lease_store(&self) -> &(dyn LeaseStore + 'static) {
        &self.ledger
    }

    fn records_uses(&self) -> bool {
        !self.of_command
    }
}

fn wait<T>(future: StoreFuture<'static, T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}

fn write(register: &dyn Register, changes: Vec<RegisterChange>) -> Result<Vec<i64>, RegisterWriteError> {
    wait(register.write(changes, audits::origin()))
}

fn since(register: &dyn Register, version: i64) -> RegisterContents {
    wait(register.since(version)).expect("it can be read")
}

fn names(contents: &RegisterContents) -> (Vec<&str>, Vec<&str>, Vec<&str>) {
    let keys = contents.keys.iter().map(|key| &*key.name).collect();
    let teams = contents.teams.iter().map(|team| &*team.name).collect();
    (keys, teams, contents.credit.iter().map(|(holder, _)| &*holder.name).collect())
}

fn key(name: &str, secrets: &[&str]) -> StoredKey {
    StoredKey {
        name: name.into(),
        policy: "standard".into(),
        team: None,
        own: KeyOverrides::default(),
        expires: None,
        disabled: false,
        created_unix_ms: NOW,
        version: 0,
        secrets: secrets.iter().map(|secret| StoredSecret::new(KeyHash::of(secret), NOW)).collect(),
    }
}

fn team(name: &str) -> StoredTeam {
    StoredTeam { name: name.into(), budget: None, created_unix_ms: NOW, version: 0 }
}

fn new_key(name: &str) -> RegisterChange {
    RegisterChange::Key { key: key(name, &[name]), expected: 0 }
}

fn new_team(name: &str) -> RegisterChange {
    RegisterChange::Team { team: team(name), expected: 0 }
}

fn holder(scope: Scope, name: &str) -> Holder {
    Holder { scope, name: name.into() }
}

fn grant(scope: Scope, name: &str, amount: i64) -> RegisterChange {
    RegisterChange::Grant(Grant {
        id: 0,
        holder: holder(scope, name),
        amount: NanoUsd(amount),
        reason: "because".into(),
        by: "test".into(),
        granted_unix_ms: NOW,
    })
}

fn conflict(at: usize, why: RegisterConflict) -> Result<Vec<i64>, RegisterWriteError> {
    Err(RegisterWriteError::Conflict { at, why })
}

fn everything_is_read_back_as_it_was_written(fixture: &dyn RegisterFixture) {
    let paris = BudgetPeriod::Month(Zone::named("Europe/Paris").expect("it is built in"));
    let limits =
        Limits { requests_per_minute: Some(u64::MAX), tokens_per_minute: Some(1), max_concurrent: Some(u32::MAX) };
    let ended = StoredSecret { ends_unix_ms: Some(NOW + 5), ..StoredSecret::new(KeyHash::of("first"), NOW) };
    let full = StoredKey {
        team: Some("équipe'; DROP TABLE keys; --".into()),
        own: KeyOverrides { limits, budget: Some(BudgetSpec { limit: NanoUsd(i64::MAX), window: paris.clone() }) },
        expires: Some(i64::MIN),
        disabled: true,
        secrets: vec![ended, StoredSecret::new(KeyHash::of("second"), NOW + 1)],
        ..key("full", &[])
    };
    let with_budget =
        StoredTeam { budget: Some(BudgetSpec { limit: NanoUsd(7), window: BudgetPeriod::Ever }), ..team("spenders") };
    let changes = vec![
        RegisterChange::Key { key: full.clone(), expected: 0 },
        RegisterChange::Key { key: key("bare", &[]), expected: 0 },
        RegisterChange::Team { team: with_budget.clone(), expected: 0 },
        new_team("without"),
    ];
    let versions = write(fixture.register(), changes).expect("the register is empty");
    let contents = since(fixture.register(), 0);
    assert_eq!(
        contents.keys,
        [StoredKey { version: versions[1], ..key("bare", &[]) }, StoredKey { version: versions[0], ..full }]
    );
    let expected =
        [StoredTeam { version: versions[2], ..with_budget }, StoredTeam { version: versions[3], ..team("without") }];
    assert_eq!(contents.teams, expected);
}

fn versions_grow_and_identify_what_changed(fixture: &dyn RegisterFixture) {
    let register = fixture.register();
    assert_eq!(since(register, 0), RegisterContents::default());
    let first = write(register, vec![new_key("b"), new_key("a"), new_team("t")]).expect("they are new");
    assert!(first.is_sorted_by(|one, next| 0 < *one && one < next), "{first:?}");
    let all = since(register, 0);
    assert_eq!(names(&all), (vec!["a", "b"], vec!["t"], vec![]));
    assert_eq!(all.version, first[2]);
    assert_eq!(since(register, all.version), RegisterContents { version: all.version, ..RegisterContents::default() });
    assert_eq!(names(&since(register, first[0])), (vec!["a"], vec!["t"], vec![]));

    let edited = StoredKey { disabled: true, ..key("b", &["b"]) };
    let second =
        write(register, vec![RegisterChange::Key { key: edited, expected: first[0] }]).expect("it is as expected");
    assert!(second[0] > all.version);
    let news = since(register, all.version);
    assert_eq!((names(&news), news.version), ((vec!["b"], vec![], vec![]), second[0]));
    assert!(news.keys[0].disabled && news.keys[0].version == second[0]);
    let granted = write(register, vec![grant(Scope::Team, "t", 5)]).expect("it is granted");
    let news = since(register, second[0]);
    assert_eq!((names(&news), news.version), ((vec![], vec![], vec!["t"]), granted[0]));
}

fn all_is_written_or_nothing(fixture: &dyn RegisterFixture) {
    let register = fixture.register();
    let versions = write(register, vec![new_key("there"), new_team("there")]).expect("they are new");
    let before = since(register, 0);
    let check = |last: RegisterChange, why: RegisterConflict| {
        let changes = vec![new_key("new"), new_team("new"), grant(Scope::Key, "new", 1), last];
        assert_eq!(write(register, changes), conflict(3, why));
        assert_eq!(since(register, 0), before);
    };
    check(new_key("there"), RegisterConflict::Changed);
    check(new_team("there"), RegisterConflict::Changed);
    check(RegisterChange::Key { key: key("gone", &[]), expected: 1 }, RegisterConflict::Changed);
    check(RegisterChange::Key { key: key("there", &[]), expected: versions[0] + 1 }, RegisterConflict::Changed);
    check(RegisterChange::Team { team: team("there"), expected: versions[1] - 1 }, RegisterConflict::Changed);
    check(RegisterChange::Key { key: key("thief", &["there"]), expected: 0 }, RegisterConflict::SecretTaken);
    // And of several that do not fit, the first is named.
    let many = vec![new_team("new"), new_key("there"), new_team("there")];
    assert_eq!(write(register, many), conflict(1, RegisterConflict::Changed));
    assert_eq!(wait(register.grants(None, 0, 10)), Ok(Vec::new()));
}

fn a_secret_belongs_to_one_key(fixture: &dyn RegisterFixture) {
    let register = fixture.register();
    let versions =
        write(register, vec![new_key("a"), RegisterChange::Key { key: key("b", &["b", "b2"]), expected: 0 }])
            .expect("new");
    let rotated =
        |secrets: &[&str], expected| write(register, vec![RegisterChange::Key { key: key("a", secrets), expected }]);
    assert_eq!(rotated(&["a", "b2"], versions[0]), conflict(0, RegisterConflict::SecretTaken));
    let version = rotated(&["a", "a2"], versions[0]).expect("a2 is nobody's")[0];
    // One that a key no longer has may be had again, by anybody.
    let version = rotated(&["a2"], version).expect("it gives one back")[0];
    let of_a =
        |contents: &RegisterContents| contents.keys[0].secrets.iter().map(|secret| secret.hash).collect::<Vec<_>>();
    assert_eq!(of_a(&since(register, 0)), [KeyHash::of("a2")]);
    write(register, vec![RegisterChange::Key { key: key("c", &["a"]), expected: 0 }]).expect("it is nobody's now");
    assert_eq!(rotated(&["a2", "a"], version), conflict(0, RegisterConflict::SecretTaken));
}

/// Two of one batch are judged like two after each other.
fn a_batch_can_conflict_with_itself(fixture: &dyn RegisterFixture) {
    let register = fixture.register();
    let twice = vec![new_key("a"), RegisterChange::Key { key: key("b", &["a"]), expected: 0 }];
    assert_eq!(write(register, twice), conflict(1, RegisterConflict::SecretTaken));
    assert_eq!(write(register, vec![new_key("a"), new_key("a")]), conflict(1, RegisterConflict::Changed));
    assert_eq!(since(register, 0), RegisterContents::default());
}

fn uses_keep_the_newest_and_are_no_change(fixture: &dyn RegisterFixture) {
    let register = fixture.register();
    let version =
        write(register, vec![RegisterChange::Key { key: key("a", &["one", "two"]), expected: 0 }]).expect("new")[0];
    let [one, two] = ["one", "two"].map(KeyHash::of);
    register.used(vec![(one, NOW + 5), (KeyHash::of("nobody"), NOW)]);
    register.used(vec![(one, NOW + 9), (two, NOW + 1)]);
    register.used(vec![(one, NOW + 7)]);
    if !fixture.records_uses() {
        return;
    }
    let uses = || {
        let contents = since(register, 0);
        assert_eq!(contents.version, version);
        let secrets = &contents.keys[0].secrets;
        [one, two].map(|hash| secrets.iter().find(|secret| secret.hash == hash).expect("both").last_used_unix_ms)
    };
    until("the uses are noted", || uses() == [Some(NOW + 9), Some(NOW + 1)]);
    // A change of the key by somebody who knew of no use forgets none.
    write(register, vec![RegisterChange::Key { key: key("a", &["one", "two"]), expected: version }])
        .expect("as expected");
    assert_eq!(since(register, version).keys[0].secrets.iter().filter_map(|s| s.last_used_unix_ms).count(), 2);
}

fn grants_sum_up_and_are_listed_in_order(fixture: &dyn RegisterFixture) {
    let register = fixture.register();
    let amounts = [(Scope::Key, "a", 50), (Scope::Team, "a", 7), (Scope::Key, "a", -20), (Scope::Key, "b", 3)];
    let changes = amounts.iter().map(|(scope, name, amount)| grant(*scope, name, *amount)).collect();
    let ids = write(register, changes).expect("grants fit always");
    let all = wait(register.grants(None, 0, 10)).expect("they are read");
    assert_eq!(all.iter().map(|grant| grant.id).collect::<Vec<_>>(), ids);
    assert_eq!(all.iter().map(|grant| grant.amount.0).collect::<Vec<_>>(), [50, 7, -20, 3]);
    assert_eq!((&*all[0].reason, &*all[0].by, all[0].granted_unix_ms), ("because", "test", NOW));
    let of_a = |after, most| wait(register.grants(Some(holder(Scope::Key, "a")), after, most)).expect("they are read");
    assert_eq!(of_a(0, 10), [all[0].clone(), all[2].clone()]);
    assert_eq!(of_a(0, 1), [all[0].clone()]);
    assert_eq!(of_a(all[0].id, 1), [all[2].clone()]);
    let credit = since(register, 0).credit;
    let expected = [(Scope::Key, "a", 30), (Scope::Key, "b", 3), (Scope::Team, "a", 7)];
    assert_eq!(credit, expected.map(|(scope, name, amount)| (holder(scope, name), NanoUsd(amount))));
}

fn balances_follow_the_lease_store(fixture: &dyn RegisterFixture) {
    let register = fixture.register();
    assert_eq!(wait(register.balances()), Ok(Vec::new()));
    write(register, vec![grant(Scope::Key, "a", 100), grant(Scope::Team, "t", 1)]).expect("it is granted");
    let account = Arc::new(holder(Scope::Key, "a").account());
    let [limit, need] = [100, 60].map(NanoUsd);
    let ask = LeaseRequest { account: account.clone(), span: WindowSpan::EVER, limit, need, ahead: NanoUsd::ZERO };
    assert_eq!(wait(fixture.lease_store().lease(ask)).expect("the lease store is available").amount, need);
    let balance_is = |spent: i64, leased: i64| {
        let balances = wait(register.balances()).expect("they are read");
        let of_a = &balances[0];
        (of_a.spent.0, of_a.leased.0) == (spent, leased) && of_a.left().0 == 100 - spent - leased && balances.len() == 2
    };
    until("the lease shows", || balance_is(0, 60));
    fixture.lease_store().write_off(&[Charge {
        account,
        span: WindowSpan::EVER,
        spent: NanoUsd(25),
        leased: NanoUsd(60),
        term: fixture.lease_store().term().expect("what is leased may be spent"),
    }]);
    until("the charge shows", || balance_is(25, 0));
}

#[track_caller]
fn until(what: &str, mut wanted: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !wanted() {
        assert!(Instant::now() < deadline, "{what}: in vain");
        std::thread::sleep(Duration::from_millis(1));
    }
}

const THREADS: usize = 8;
const EACH: usize = 100;

/// Every thread takes turns at one key, makes keys of its own and grants to one team.
fn concurrent_changes_are_all_kept(registers: &[&(dyn Register + 'static)]) {
    write(registers[0], vec![new_key("shared")]).expect("it is new");
    let mut versions: Vec<i64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| scope.spawn(move || changes_of(registers[thread % registers.len()], thread)))
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("every change is made")).collect()
    });
    versions.sort_unstable();
    versions.dedup();
    assert_eq!(versions.len(), THREADS * EACH * 3, "no version is given twice");
    let contents = since(registers[0], 0);
    assert_eq!(contents.keys.len(), THREADS * EACH + 1);
    assert_eq!(Some(&contents.version), versions.last());
    let shared = contents.keys.iter().find(|key| &*key.name == "shared").expect("it is there");
    assert_eq!(shared.own.limits.requests_per_minute, Some((THREADS * EACH) as u64), "none is lost");
    assert_eq!(contents.credit, [(holder(Scope::Team, "t"), NanoUsd((THREADS * EACH) as i64))]);
    for register in registers {
        assert_eq!(since(*register, 0), contents);
        assert_eq!(audits::intact_rows(*register), THREADS * EACH * 3 + 1, "one chain, whoever wrote");
    }
}

/// Counts the shared key up, on whichever state it then has. The versions that were given.
fn changes_of(register: &dyn Register, thread: usize) -> Vec<i64> {
    let (mut seen, mut shared, mut versions) = (0, None, Vec::new());
    for nth in 0..EACH {
        loop {
            // A state that did not come with what is new must be the newest all the same.
            let news = since(register, seen);
            seen = news.version;
            shared = news.keys.into_iter().find(|key| &*key.name == "shared").or(shared);
            let mut next = shared.clone().expect("it is there");
            let expected = next.version;
            next.own.limits.requests_per_minute = Some(next.own.limits.requests_per_minute.unwrap_or(0) + 1);
            let own = new_key(&format!("{thread}-{nth}"));
            match write(register, vec![RegisterChange::Key { key: next, expected }, own, grant(Scope::Team, "t", 1)]) {
                Ok(given) => break versions.extend(given),
                Err(RegisterWriteError::Conflict { at: 0, why: RegisterConflict::Changed }) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
    }
    versions
}

macro_rules! register {
    ($back_end:ident, $new:expr) => {
        mod $back_end {
            use super::*;

            #[test]
            fn concurrent_changes_are_all_kept() {
                super::concurrent_changes_are_all_kept(&[$new.register()]);
            }

            register!(@each $new => everything_is_read_back_as_it_was_written
                versions_grow_and_identify_what_changed all_is_written_or_nothing a_secret_belongs_to_one_key
                a_batch_can_conflict_with_itself uses_keep_the_newest_and_are_no_change
                grants_sum_up_and_are_listed_in_order balances_follow_the_lease_store);
        }
    };
    (@each $new:expr => $($promise:ident)*) => {
        $(#[test]
        fn $promise() {
            super::$promise(&$new);
        })*
    };
}

register!(memory, InMemory::new());
register!(sqlite, InSqlite::of_gateway());
register!(sqlite_beside_a_gateway, InSqlite::of_command());
register!(postgres, InPostgres::of_gateway());
register!(postgres_beside_a_gateway, InPostgres::of_command());

#[test]
fn changes_by_commands_and_by_gateways_on_postgres_at_once_are_all_kept() {
    let gateway = InPostgres::of_gateway();
    let (one, other) = (gateway.another(), gateway.another());
    concurrent_changes_are_all_kept(&[&gateway.register, &one, &other]);
}

#[test]
fn changes_by_commands_and_by_a_gateway_at_once_are_all_kept() {
    let gateway = InSqlite::of_gateway();
    let (one, other) = (gateway.another(), gateway.another());
    concurrent_changes_are_all_kept(&[&gateway.register, &one, &other]);
}

#[test]
fn commands_and_the_gateway_see_each_others_changes() {
    let gateway = InSqlite::of_gateway();
    let of_command = gateway.another();
    let first = write(&of_command, vec![new_key("a")]).expect("it is new")[0];
    assert_eq!(names(&since(&gateway.register, 0)).0, ["a"]);
    let second = write(&gateway.register, vec![new_key("b")]).expect("it is new")[0];
    assert!(second > first);
    assert_eq!(names(&since(&of_command, first)).0, ["b"]);
    assert_eq!(write(&of_command, vec![new_key("b")]), conflict(0, RegisterConflict::Changed));
}

/// A process that imports is killed again and again: at every look there is all of an import, or nothing of it.
#[test]
fn a_writer_that_is_killed_leaves_all_of_a_change_or_nothing() {
    const KEYS: usize = 2_000;
    const KILLS: u64 = 12;
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = |name: &str| folder.path().join(name);
    let config = "[providers.sim]\nprotocol = \"sim\"\n[models.m]\ndeployments = [{ provider = \"sim\" }]\n\
                  [policies.standard]\nmodels = [\"*\"]\n";
    std::fs::write(file("tierway.toml"), config).expect("the folder can be written");
    let register = SqliteRegister::of_command(&file("tierway.db"), NOW).unwrap_or_else(|error| panic!("{error}"));
    let (mut whole, mut nothing) = (0, 0);
    for round in 0..KILLS {
        let keys = (0..KEYS).map(|nth| {
            format!("{{\"name\":\"{round}-{nth}\",\"policy\":\"standard\",\"secret\":\"{round}-{nth}\"}}\n")
        });
        std::fs::write(file("keys.jsonl"), keys.collect::<String>()).expect("the folder can be written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_tierway"));
        command.args(["keys", "import", "keys.jsonl"]).current_dir(folder.path()).env_clear();
        let started = Instant::now();
        let mut import = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary starts");
        // Killed later each time, from before it has begun until after it has ended.
        while started.elapsed() < Duration::from_millis(40 * round * round / KILLS)
            && import.try_wait().expect("it was started here").is_none()
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        let _ = import.kill();
        import.wait().expect("it was started here");
        let contents = since(&register, 0);
        let prefix = format!("{round}-");
        match contents.keys.iter().filter(|key| key.name.starts_with(&prefix)).count() {
            0 => nothing += 1,
            KEYS => whole += 1,
            part => panic!("{part} of {KEYS} keys after kill {round}"),
        }
        assert!(contents.keys.iter().all(|key| key.secrets.len() == 1 && key.version <= contents.version));
        assert_eq!(audits::intact_rows(&register), contents.keys.len(), "each key has its row of the audit");
    }
    println!("{KILLS} kills: {whole} imports of {KEYS} keys were whole, {nothing} left nothing");
    assert!(nothing > 0, "the first is killed before it can have written");
    let look = rusqlite::Connection::open(file("tierway.db")).expect("the database is there");
    let sound: String = look.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("it is read");
    assert_eq!(sound, "ok");
}
