//! Residency as the ledger proves it: ten thousand requests under faults, retries, hedges and steps, of which none leaves;
//! and one that is let out by a planted fault, which the report finds.
//!
//! The providers' journals are the oracle: what each of them received.

use crate::admin_gateway::Both;
use crate::support::gateway::{
    ADMIN_TOKEN, CREDENTIAL, KEY, METRICS_TOKEN, OTHER_KEY, TestGateway, VIEWER_TOKEN, compile,
};
use crate::support::{Ending, Fault, Script, ScriptedProvider, chat_stream, chat_whole};
use serde_json::Value;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tierway::clock::Clock;
use tierway::config::Snapshot;
use tierway::domain::policy::{KeyRecord, Policy};
use tierway::domain::secret::KeyHash;
use tierway::store::Stores;
use tierway::store::keyring::Keyring;
use tierway::store::memory::MemoryLedger;
use tierway::store::sqlite::{SqliteLedger, SqliteRegister, WriterGuard};

const REQUESTS: usize = 10_000;
const CLIENTS: usize = 16;

/// Two regions within the residency and one outside, each with both models.
struct Place {
    folder: tempfile::TempDir,
    providers: [ScriptedProvider; 3],
}

impl Place {
    async fn new() -> Self {
        let start = |name| ScriptedProvider::start(name);
        let providers = [start("eu-1").await, start("eu-2").await, start("us-1").await];
        let place = Self { folder: tempfile::tempdir().expect("a temporary directory"), providers };
        std::fs::write(place.folder.path().join("tierway.toml"), place.config()).expect("it is written");
        place
    }

    fn config(&self) -> String {
        let tables = ["eu-central", "eu-west", "us-east"].iter().zip(["eu-1", "eu-2", "us-1"]).zip(&self.providers);
        let tables: String = tables
            .map(|((region, name), provider)| {
                let url = provider.base_url();
                format!(
                    "[providers.{name}]\nprotocol = \"openai\"\ncredential = \"env:CREDENTIAL\"\nregion = \"{region}\"\n\
                     base_url = \"{url}\"\n"
                )
            })
            .collect();
        format!(
            r#"
{tables}
[models.first]
deployments = [{{ provider = "us-1" }}, {{ provider = "eu-1" }}, {{ provider = "eu-2" }}]
[models.second]
deployments = [{{ provider = "us-1" }}, {{ provider = "eu-2" }}, {{ provider = "eu-1" }}]
[tiers.default]
models = ["first"]
then = ["fallback"]
[tiers.fallback]
models = ["second"]
[routing]
balance = "weighted"
max_attempts = 4
retry_budget = "100%"
breaker = {{ failures = 1000000, min_requests = 1000000 }}
silent_after = "200ms"
first_token = "1s"
idle = "500ms"
whole = "1s"
total = "3s"
[policies.bound]
tiers = ["*"]
regions = ["eu-*"]
hedge = {{ after = "30ms", at_least = "30ms", extra = "100%" }}
[policies.free]
tiers = ["*"]
[[keys]]
name = "app"
policy = "bound"
secret = "env:TEST_KEY"
[[keys]]
name = "other"
policy = "free"
secret = "env:OTHER_KEY"
"#
        )
    }

    fn database(&self) -> std::path::PathBuf {
        self.folder.path().join("tierway.db")
    }

    /// A gateway that keeps its receipts here, by `snapshot`.
    async fn serve(&self, snapshot: Arc<Snapshot>) -> (TestGateway, WriterGuard) {
        let (sqlite, writing) =
            SqliteLedger::open(&self.database(), None, Arc::new(|| Clock.unix_ms())).expect("it opens");
        let register = Arc::new(SqliteRegister::of_gateway(&self.database(), sqlite.writer()));
        let keyring = Arc::new(Keyring::open(register).await.expect("it is read"));
        let (sqlite, memory) = (Arc::new(sqlite), Arc::new(MemoryLedger::new(2 * REQUESTS)));
        let ledger = Arc::new(Both(memory.clone(), sqlite.clone()));
        let stores = Stores { ledger, lease_store: sqlite, keyring, ..Stores::memory().await };
        (TestGateway::start_with_stores(snapshot, 7, memory, stores).await, writing)
    }

    /// What `tierway residency report` answers, and its exit code.
    fn report(&self, more: &[&str]) -> (Option<i32>, Value, String) {
        let run = |form: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_tierway"));
            command.args(["residency", "report"]).args(more).args(form).current_dir(self.folder.path()).env_clear();
            let tokens =
                [("ADMIN_TOKEN", ADMIN_TOKEN), ("VIEWER_TOKEN", VIEWER_TOKEN), ("METRICS_TOKEN", METRICS_TOKEN)];
            command.envs(tokens).envs([("TEST_KEY", KEY), ("OTHER_KEY", OTHER_KEY), ("CREDENTIAL", CREDENTIAL)]);
            command.args(["--store", "sqlite:tierway.db"]).output().expect("the binary starts")
        };
        let (json, text) = (run(&["--json"]), run(&[]));
        assert_eq!(json.status.code(), text.status.code());
        let said = String::from_utf8_lossy(&text.stdout).into_owned();
        let report = serde_json::from_slice(&json.stdout);
        let report = report.unwrap_or_else(|_| panic!("{said}{}", String::from_utf8_lossy(&json.stderr)));
        (text.status.code(), report, said)
    }

    /// How many requests with this mark the provider outside received.
    fn outside(&self, mark: &str) -> usize {
        let journal = self.providers[2].journal();
        let marked = |body: &[u8]| String::from_utf8_lossy(body).contains(mark);
        journal.exchanges.iter().filter(|exchange| marked(&exchange.request.body)).count()
    }
}

fn body(mark: &str, number: usize) -> String {
    let stream = if number.is_multiple_of(2) { "\"stream\":true," } else { "" };
    let model = if number.is_multiple_of(5) { "second" } else { "default" };
    format!(r#"{{"model":"{model}",{stream}"user":"{mark}","messages":[{{"role":"user","content":"{number}"}}]}}"#)
}

/// Fails in turn in every way, is late at times, and answers most of the time.
fn troubled(seed: usize) -> Script {
    let (count, faults) = (AtomicUsize::new(seed), Fault::ALL);
    Script::by(move |request| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        let answer = if request.streams() { chat_stream("Hello", 2) } else { chat_whole("Hello") };
        match number % 10 {
            // Those that are silent would make a test of ten thousand requests long; they come, and rarely.
            0 => match faults[(number / 10) % faults.len()] {
                Fault::SilentBeforeHeaders | Fault::SilentAfterHeaders if number % 40 != 0 => refused(),
                fault => fault.script().unwrap_or_else(refused),
            },
            3 => refused(),
            5 if number.is_multiple_of(3) => answer.wait_before_headers(Duration::from_millis(45)),
            7 if request.streams() => answer.cut_after_frame(2, Ending::Rst),
            _ => answer,
        }
    })
}

fn refused() -> Script {
    Fault::Status500.script().expect("it is read")
}

#[tokio::test]
async fn ten_thousand_requests_under_faults_retries_hedges_and_steps_stay_within() {
    let place = Place::new().await;
    for (seed, provider) in place.providers.iter().enumerate() {
        provider.answers(troubled(seed * 3));
    }
    let (gateway, writing) = place.serve(compile(&place.config())).await;
    let (gateway, next) = (Arc::new(gateway), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (gateway, next) = (gateway.clone(), next.clone());
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= REQUESTS {
                        return;
                    }
                    gateway.chat(&body("bound", number)).await;
                }
            })
        })
        .collect();
    for client in clients {
        client.await.expect("every request is answered, well or not");
    }
    // One of a key that may go anywhere goes there.
    for number in 0..20 {
        let bearer = format!("Bearer {OTHER_KEY}");
        let mut client = gateway.connect().await;
        client.post("/v1/chat/completions", &[("authorization", &bearer)], &body("free", number)).await;
        client.response().await;
    }
    let gateway = Arc::into_inner(gateway).expect("all clients have ended");
    let receipts = gateway.ledger.recent();
    let retried = receipts.iter().filter(|receipt| receipt.attempts.len() > 1).count();
    let stepped = receipts.iter().filter(|receipt| receipt.meant_elsewhere().is_some()).count();
    let hedged = receipts.iter().filter(|receipt| overlaps(receipt)).count();
    drop(gateway);
    drop(writing);
    let (code, report, said) = place.report(&["--key", "app"]);
    println!("{said}{retried} retried, {hedged} with two attempts at once, {stepped} by another model");
    assert_eq!((code, &report["left"], &report["proved"]), (Some(0), &Value::from(0), &Value::from(true)), "{said}");
    assert_eq!(report["bound"], REQUESTS);
    assert!(report["attempts"].as_u64() > Some(REQUESTS as u64 * 11 / 10), "{said}");
    assert!(retried > REQUESTS / 10 && stepped > 20 && hedged > 100, "{retried} {stepped} {hedged}");
    let regions: Vec<&str> =
        report["regions"].as_array().unwrap().iter().filter_map(|r| r["region"].as_str()).collect();
    assert_eq!(regions, ["eu-central", "eu-west"]);
    assert_eq!(place.outside("\"bound\""), 0, "its provider says so too");
    assert!(place.outside("\"free\"") > 0, "it can be reached");
    // All keys: those that nothing binds leave nothing; judged by narrower regions, others do.
    let (code, report, said) = place.report(&[]);
    assert_eq!(
        (code, &report["requests"], &report["bound"]),
        (Some(0), &Value::from(REQUESTS + 20), &Value::from(REQUESTS))
    );
    assert!(said.contains("bound stays within eu-*") && said.contains("\n0 attempts left the residency\n"), "{said}");
    let (code, report, said) = place.report(&["--key", "app", "--regions", "eu-central"]);
    assert_eq!((code, &report["proved"]), (Some(1), &Value::from(false)), "{said}");
    assert!(said.contains("in eu-west (key app, policy bound)") && said.contains("FAIL: "), "{said}");
}

/// Whether a second attempt was made while the first was on its way.
fn overlaps(receipt: &tierway::domain::receipt::Receipt) -> bool {
    receipt.attempts.windows(2).any(|pair| {
        let ended = pair[0].started.map(|started| started + pair[0].duration);
        ended.zip(pair[1].started).is_some_and(|(ended, next)| next < ended)
    })
}

/// As a filter would that forgets the residency of one key.
fn lets_out(config: &str, secret: &str) -> Arc<Snapshot> {
    let mut snapshot = Arc::unwrap_or_clone(compile(config));
    let key = snapshot.keys.get_mut(&KeyHash::of(secret)).expect("it is configured");
    let policy = Arc::new(Policy { residency: None, ..(*key.policy).clone() });
    *key = Arc::new(KeyRecord { policy, ..(**key).clone() });
    Arc::new(snapshot)
}

#[tokio::test]
async fn one_request_that_is_let_out_is_found_and_named() {
    let place = Place::new().await;
    let config = place.config().replace("policy = \"free\"", "policy = \"bound\"");
    std::fs::write(place.folder.path().join("tierway.toml"), &config).expect("it is written");
    let (gateway, writing) = place.serve(lets_out(&config, OTHER_KEY)).await;
    for number in 0..200 {
        assert_eq!(gateway.chat(&body("kept", number)).await.status, 200);
    }
    let [eu, also_eu, _] = &place.providers;
    eu.break_with(Fault::Status500).await;
    also_eu.break_with(Fault::Status500).await;
    assert_eq!(gateway.chat(&body("kept", 200)).await.status, 502, "it does not leave");
    let mut client = gateway.connect().await;
    let bearer = format!("Bearer {OTHER_KEY}");
    client.post("/v1/chat/completions", &[("authorization", &bearer)], &body("let-out", 1)).await;
    let answer = client.response().await;
    assert_eq!(answer.status, 200);
    let id = answer.header("x-request-id").expect("it has one").to_owned();
    drop(client);
    drop(gateway);
    drop(writing);
    assert_eq!((place.outside("\"let-out\""), place.outside("\"kept\"")), (1, 0));
    let (code, report, said) = place.report(&[]);
    println!("{said}");
    assert_eq!((code, &report["left"], &report["bound"]), (Some(1), &Value::from(1), &Value::from(202)), "{said}");
    let left = &report["left_attempts"][0];
    assert_eq!((left["request_id"].as_str(), left["region"].as_str()), (Some(&*id), Some("us-east")));
    assert!(said.contains(&format!("left: {id}")) && said.contains("FAIL: 1 attempt left the residency"), "{said}");
    let (code, report, _) = place.report(&["--key", "app"]);
    assert_eq!((code, &report["proved"]), (Some(0), &Value::from(true)));
    // What cannot be judged is no proof: the policy that the receipts name is gone.
    std::fs::write(place.folder.path().join("tierway.toml"), config.replace("bound", "renamed"))
        .expect("it is written");
    let (code, report, said) = place.report(&["--key", "app"]);
    assert_eq!((code, &report["proved"]), (Some(1), &Value::from(false)), "{said}");
    assert!(said.contains("cannot be judged"), "{said}");
}
