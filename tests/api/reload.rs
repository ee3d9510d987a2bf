//! Reloads: a thousand of them, valid and invalid files in turn, without an effect on concurrent requests.
//!
//! The files and the watcher are real; only the second between two checks is omitted.

use crate::support::gateway::{KEY, provider_table};
use crate::support::{Ending, Fault, Gate, ScriptedProvider, TestClients, TestGateway, TestRequest, chat_stream, soon};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tierway::cli::reload::apply;
use tierway::config::{ConfigChange, ConfigSource, ConfigWatcher, Problems, ProcessEnvironment, load};

/// Number of reloads; every second one is of an invalid file.
const RELOADS: usize = 1_000;
/// Connections that send requests meanwhile.
const CONNECTIONS: usize = 8;
/// Fewest requests sent between one reload and the next; without them the test would prove nothing.
const BETWEEN: usize = 2;
/// How long these requests may take.
const PATIENCE: Duration = Duration::from_secs(20);
const LIMITED_KEY: &str = "tw_test_canary_limited_key";

/// The configuration file, and the files of the secrets it refers to.
struct ConfigFiles {
    folder: TempDir,
    /// The part that all valid files share.
    base: String,
}

impl ConfigFiles {
    fn new(steady: &ScriptedProvider, dead: &ScriptedProvider) -> Self {
        let folder = TempDir::new().expect("the system gives temporary folders");
        let secret = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("a temporary folder takes files");
            format!("file:{}", path.display())
        };
        let credential = secret("credential", "sk-canary-provider-credential");
        let (key, limited) = (secret("key", KEY), secret("limited", LIMITED_KEY));
        let providers = (provider_table("steady", steady, "east") + &provider_table("dead", dead, "west"))
            .replace("env:CREDENTIAL", &credential);
        let base = format!(
            r#"{providers}
            [models]
            small  = {{ deployments = [{{ provider = "steady" }}] }}
            broken = {{ deployments = [{{ provider = "dead" }}] }}
            [policies]
            free    = {{ models = ["*"] }}
            limited = {{ models = ["*"], requests_per_minute = 10 }}
            [[keys]]
            name   = "free"
            policy = "free"
            secret = "{key}"
            [[keys]]
            name   = "limited"
            policy = "limited"
            secret = "{limited}"
            [routing]
            breaker = {{ failures = 5, open = "5m", open_max = "5m" }}
            "#
        );
        Self { folder, base }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("tierway.toml")
    }

    /// A valid file; the files of different numbers differ.
    fn good(&self, number: usize) -> String {
        format!("{}total = \"{}s\"\n", self.base, 600 + number)
    }

    /// An invalid file, in one of several ways.
    fn bad(&self, number: usize) -> String {
        let wrong = match number % 5 {
            0 => "this is not TOML",
            1 => "max_atempts = 3",
            2 => "max_attempts = 0",
            3 => "[tiers.default]\nmodels = [\"nobody\"]",
            _ => "[aliases.auto]\nsplit = { nowhere = 1 }",
        };
        format!("{}{wrong} # {number}\n", self.base)
    }

    fn write(&self, text: &str) {
        std::fs::write(self.path(), text).expect("a temporary folder takes files");
    }

    /// A gateway that serves the first valid file, and the watcher of that file.
    async fn serve(&self) -> (TestGateway, ConfigWatcher<ProcessEnvironment>) {
        self.write(&self.good(0));
        let source = ConfigSource::file(Path::new(&self.path()), &ProcessEnvironment)
            .unwrap_or_else(|problems| panic!("{problems}"));
        let snapshot =
            Arc::new(load(&source, &ProcessEnvironment, &[]).unwrap_or_else(|problems| panic!("{problems}")));
        let watcher = ConfigWatcher::new(&source, ProcessEnvironment, Vec::new(), snapshot.clone());
        (TestGateway::start_snapshot(snapshot, 1).await, watcher)
    }
}

/// What the second of two looks reports: a content is applied once two looks found it.
fn found_twice(watcher: &mut ConfigWatcher<ProcessEnvironment>) -> Option<Result<ConfigChange, Problems>> {
    assert!(watcher.check().is_none(), "one look is not enough");
    watcher.check()
}

/// The `number`th request to `steady`: whole and streamed in turn.
fn nth_request(number: usize) -> TestRequest {
    if number.is_multiple_of(2) { TestRequest::chat("small") } else { TestRequest::stream("small") }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_reloads_affect_no_request() {
    let (steady, dead) = (ScriptedProvider::start("steady").await, ScriptedProvider::start("dead").await);
    let files = ConfigFiles::new(&steady, &dead);
    let (gateway, mut watcher) = files.serve().await;

    // Before: a breaker is open and a limit is used up.
    dead.break_with(Fault::Status503).await;
    let tripped = async {
        while gateway.transitions("dead/broken", r#"reason="consecutive",to="open""#) == 0.0 {
            TestRequest::chat("broken").send_to(&gateway).await;
        }
    };
    soon("the breaker to trip", tripped).await;
    let limited = async || TestRequest::chat("small").with_key(LIMITED_KEY).send_to(&gateway).await;
    for _ in 0..10 {
        assert_eq!(limited().await.status, 200);
    }

    // Meanwhile: load, until the last reload is done.
    let app = gateway.app.clone();
    let (asking, asked) = mpsc::channel();
    let begun = Instant::now();
    let reloading = tokio::task::spawn_blocking(move || {
        for number in 1..=RELOADS {
            for _ in 0..BETWEEN {
                asked.recv_timeout(PATIENCE).expect("requests continue");
            }
            let bad = number.is_multiple_of(2);
            files.write(&if bad { files.bad(number) } else { files.good(number) });
            let found = found_twice(&mut watcher).expect("the content has changed");
            assert_eq!(found.is_err(), bad, "file {number}");
            apply(found, &app, None);
        }
    });
    let mut clients = TestClients::new(CONNECTIONS, &gateway);
    let (mut served, mut failed) = (0, 0);
    while !reloading.is_finished() {
        let asking = asking.clone();
        let load = move |number| {
            // The receiver is dropped after the last reload.
            let _ = asking.send(());
            nth_request(number)
        };
        for answer in clients.send_all(100, load).await {
            match answer.chat_text().as_deref() {
                Ok("Hello") => served += 1,
                _ => failed += 1,
            }
        }
    }
    reloading.await.expect("every reload behaves as expected");
    let (took, rate) = (begun.elapsed(), served as f64 / begun.elapsed().as_secs_f64());
    let connections = steady.journal().connections;
    println!(
        "{RELOADS} reloads in {took:.1?}: {served} requests served at {rate:.0}/s over {connections} provider connections, \
         {failed} failed"
    );
    assert_eq!(failed, 0);
    assert!(served >= BETWEEN * RELOADS, "{served} requests are too few to prove anything");
    assert!(connections < 10 * CONNECTIONS, "{connections} connections: the pools did not survive");

    // After: all state is kept, and every reload was reported.
    let answer = TestRequest::chat("broken").send_to(&gateway).await;
    assert!([502, 503].contains(&answer.status), "{answer:?}");
    assert_eq!(gateway.metric(r#"tierway_breaker_state{deployment="dead/broken",state="open"}"#), 1.0);
    assert_eq!(limited().await.refusal(), (429, "rate_limit_exceeded".into()), "a used limit stays used");
    assert_eq!(gateway.metric(r#"tierway_config_reloads_total{result="ok"}"#), (RELOADS / 2) as f64);
    assert_eq!(gateway.metric(r#"tierway_config_reloads_total{result="failed"}"#), (RELOADS / 2) as f64);
}

#[tokio::test]
async fn an_invalid_file_is_reported_with_its_position_and_changes_nothing() {
    let (steady, dead) = (ScriptedProvider::start("steady").await, ScriptedProvider::start("dead").await);
    let files = ConfigFiles::new(&steady, &dead);
    let (gateway, mut watcher) = files.serve().await;
    files.write(&(files.base.clone() + "max_atempts = 3\n[tiers.default]\nmodels = [\"smal\"]\n"));
    let problems = match found_twice(&mut watcher) {
        Some(Err(problems)) => problems,
        other => panic!("an invalid file is a problem, not {other:?}"),
    };
    let said = problems.render(false);
    for expected in ["tierway.toml", "max_atempts", "max_attempts", "smal", "small"] {
        assert!(said.contains(expected), "{expected} is not in:\n{said}");
    }
    assert!(!said.contains(KEY), "a secret was shown:\n{said}");
    apply(Err(problems), &gateway.app, None);
    assert_eq!(TestRequest::chat("small").send_to(&gateway).await.chat_text().as_deref(), Ok("Hello"));
    assert_eq!(TestRequest::chat("default").send_to(&gateway).await.refusal(), (404, "model_not_found".into()));
    assert_eq!(gateway.metric(r#"tierway_config_reloads_total{result="failed"}"#), 1.0);
    assert!(watcher.check().is_none(), "each content is reported once");
}

#[tokio::test]
async fn a_request_keeps_the_configuration_it_arrived_with() {
    let (steady, dead) = (ScriptedProvider::start("steady").await, ScriptedProvider::start("dead").await);
    let files = ConfigFiles::new(&steady, &dead);
    let (gateway, mut watcher) = files.serve().await;
    let (before_token, after_token) = (Gate::new(), Gate::new());
    let mut clients = Vec::new();
    for (gate, frames) in [(&before_token, 0), (&after_token, 3)] {
        steady.answers(chat_stream("Hello", 5).wait_after_frame(frames, gate));
        let mut client = gateway.connect().await;
        TestRequest::stream("small").send(&mut client).await;
        gate.reached(1).await;
        clients.push(client);
    }

    // The requested model, its provider and the key are removed.
    let key = files.folder.path().join("key");
    let other = format!(
        "[providers.other]\nprotocol = \"sim\"\n[models.other]\ndeployments = [{{ provider = \"other\" }}]\n\
         [policies.p]\nmodels = [\"*\"]\n[[keys]]\nname = \"new\"\npolicy = \"p\"\nsecret = \"file:{}\"\n",
        key.display()
    );
    std::fs::write(&key, "tw_test_another_key_altogether").expect("a temporary folder takes files");
    files.write(&other);
    apply(found_twice(&mut watcher).expect("the content has changed"), &gateway.app, None);
    assert_eq!(TestRequest::chat("small").send_to(&gateway).await.refusal(), (401, "invalid_api_key".into()));

    before_token.open();
    after_token.open();
    for mut client in clients {
        assert_eq!(client.response().await.chat_text().as_deref(), Ok("Hello"));
    }
}

#[tokio::test]
async fn a_request_in_flight_still_falls_back_as_its_own_configuration_says() {
    let (steady, dead) = (ScriptedProvider::start("steady").await, ScriptedProvider::start("dead").await);
    let files = ConfigFiles::new(&steady, &dead);
    let (gateway, mut watcher) = files.serve().await;
    let both = files.good(0).replace(
        "[policies]",
        "pair = { deployments = [{ provider = \"dead\", weight = 1000000 }, { provider = \"steady\" }] }\n[policies]",
    ) + "balance = \"ordered\"\n";
    files.write(&both);
    apply(found_twice(&mut watcher).expect("the content has changed"), &gateway.app, None);

    let gate = Gate::new();
    dead.answers(chat_stream("Hello", 1).wait_before_headers(&gate).cut_after_frame(1, Ending::Rst));
    let mut client = gateway.connect().await;
    TestRequest::stream("pair").send(&mut client).await;
    gate.reached(1).await;
    files.write(&files.good(1));
    apply(found_twice(&mut watcher).expect("the content has changed"), &gateway.app, None);
    assert_eq!(TestRequest::chat("pair").send_to(&gateway).await.status, 404);
    gate.open();
    let answer = client.response().await;
    assert_eq!(answer.chat_text().as_deref(), Ok("Hello"));
    assert_eq!((answer.deployment(), answer.attempts()), ("steady/pair", 2));
}
