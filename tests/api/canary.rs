//! The canary scan: every secret of the tests is a unique marker, and after requests of every kind none
//! of them appears where it must not, in any spelling.
//!
//! Scanned: logs at TRACE, the access log, metrics, the database, every byte sent to clients, the output of
//! `config show`, the errors of broken configurations; and the provider's journal for the clients' secrets.
//!
//! Start reading at [`no_secret_is_found_where_it_must_not_be`].

use crate::config::{Config, chat_request};
use crate::spellings::spellings;
use crate::support::client::Response;
use crate::support::gateway::{ADMIN_TOKEN, BEARER, CREDENTIAL, KEY, OTHER_KEY, TestEnvironment, compile};
use crate::support::journal::Request;
use crate::support::{Ending, Fault, Script, ScriptedProvider, TestGateway, chat_stream, soon};
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;
use tierway::config::{ConfigSource, load};
use tierway::domain::receipt::Receipt;
use tierway::store::Ledger;
use tierway::store::sqlite::SqliteLedger;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

const CHAT: &str = "/v1/chat/completions";

/// Everything logged while [`RECORDING`], by any test of this process: the logs are the process's.
static LOGS: LazyLock<MemoryLog> = LazyLock::new(MemoryLog::start);
static RECORDING: AtomicBool = AtomicBool::new(false);

/// A log kept in memory.
#[derive(Clone, Default)]
struct MemoryLog(Arc<Mutex<Vec<u8>>>);

impl MemoryLog {
    fn start() -> Self {
        let pages = Self::default();
        let writer = pages.clone();
        let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || writer.clone());
        // Checked for each line, so that other tests are not recorded.
        let observed = dynamic_filter_fn(|_, _| RECORDING.load(Ordering::Relaxed));
        tracing_subscriber::registry().with(lines.with_filter(observed)).init();
        pages
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("no writer panics")).into_owned()
    }
}

impl Write for MemoryLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no writer panics").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Everything that was observed: its place, and its text.
struct Observations(Vec<(String, String)>);

impl Observations {
    fn add(&mut self, place: impl Into<String>, text: impl Into<String>) {
        self.0.push((place.into(), text.into()));
    }

    fn add_response(&mut self, response: &Response) {
        let body = String::from_utf8_lossy(&response.body);
        self.add(format!("an answer with {}", response.status), format!("{:?}\n{body}", response.headers));
    }

    fn assert_free_of(&self, name: &str, secret: &str) {
        for (place, text) in &self.0 {
            for spelling in spellings(secret) {
                let at = text.find(&spelling);
                let around = at.map(|at| {
                    let (from, to) = (at.saturating_sub(200), (at + 200).min(text.len()));
                    String::from_utf8_lossy(&text.as_bytes()[from..to]).into_owned()
                });
                assert_eq!(around, None, "{name}, as {spelling}, in {place}");
            }
        }
    }
}

/// Returns the credential it received in its headers and body, with this status.
fn echoing_credential(status: u16) -> Script {
    Script::by(move |request: &Request| {
        let said = request.header("authorization").unwrap_or("nothing");
        let body =
            format!(r#"{{"error":{{"message":"Incorrect API key provided: {said}","type":"x","code":"{said}"}}}}"#);
        Script::status(status)
            .header("content-type", "application/json")
            .header("www-authenticate", said)
            .header("x-your-key", said)
            .header("set-cookie", said)
            .header("location", &format!("http://127.0.0.1:9/?key={said}"))
            .body(body)
    })
}

/// The same inside a stream, before or after the first token.
fn echoing_credential_in_stream(after_token: bool) -> Script {
    Script::by(move |request: &Request| {
        let said = request.header("authorization").unwrap_or("nothing").to_owned();
        let token = r#"{"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}]}"#;
        let script = if after_token { Script::sse().frame(token) } else { Script::sse() };
        script.frame(&format!(r#"{{"error":{{"message":"{said}"}}}}"#)).done()
    })
}

/// Each needs a gateway of its own, because some of them make a credential or a deployment rest.
fn failing_answers() -> Vec<(Script, &'static str)> {
    let (whole, stream) = ("", r#""stream":true,"#);
    let mut days: Vec<_> = [400, 413, 422, 500, 401, 403, 404, 429, 503, 302, 200]
        .into_iter()
        .map(|status| (echoing_credential(status), whole))
        .collect();
    days.extend([
        (echoing_credential(500), stream),
        (echoing_credential_in_stream(false), stream),
        (echoing_credential_in_stream(true), stream),
        (chat_stream("Hello", 3).cut_after_frame(3, Ending::Rst), stream),
        (Fault::GarbageWire.script().expect("it is played"), stream),
    ]);
    days
}

/// Requests of every kind on one gateway: served and refused.
async fn exchange_everything(gateway: &TestGateway, provider: &ScriptedProvider, observed: &mut Observations) {
    for members in ["", r#""stream":true,"#] {
        let response = gateway.chat(&chat_request(members)).await;
        assert_eq!(response.status, 200);
        observed.add_response(&response);
    }
    for body in ["{", "{}", r#"{"model":"unknown"}"#] {
        observed.add_response(&gateway.chat(body).await);
    }
    for path in ["/v1/models", "/v1/nothing", CHAT, "/metrics"] {
        observed.add_response(&gateway.get(path).await);
    }
    for (path, name, value) in [
        (CHAT, "authorization", format!("Bearer {KEY}x")),
        (CHAT, "authorization", format!("Basic {KEY}")),
        (CHAT, "api-key", OTHER_KEY.to_owned()),
        ("/metrics", "authorization", format!("Bearer {ADMIN_TOKEN}")),
        ("/metrics", "authorization", format!("Bearer {OTHER_KEY}")),
        (CHAT, "x-tierway-deadline-ms", KEY.to_owned()),
    ] {
        let mut client = gateway.connect().await;
        match path {
            CHAT => client.post(path, &[(name, &value)], "{}").await,
            _ => client.get(path, &[(name, &value)]).await,
        }
        observed.add_response(&client.response().await);
    }
    over_http2(gateway, provider, observed).await;
}

/// The access log and metrics of `gateway`, once everything is written.
async fn collect_outputs(gateway: &TestGateway, observed: &mut Observations) -> Vec<Arc<Receipt>> {
    let entered = gateway.relay.entered();
    soon("the access log to be written", async {
        // Of requests without a valid key only some have a line and none is in the ledger.
        while gateway.recorded() < entered
            || gateway.access_log().matches(r#""key":"#).count() < gateway.ledger.count() as usize
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    let receipts = gateway.ledger.recent();
    observed.add("the access log", gateway.access_log());
    observed.add("the metrics", gateway.telemetry.metrics.render());
    receipts
}

/// Every byte of the files of a database with these receipts.
fn database_of(receipts: &[Arc<Receipt>], observed: &mut Observations) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("tierway.db");
    let (ledger, writing) = SqliteLedger::open(&path, None, Arc::new(|| 0)).expect("it is opened");
    receipts.iter().for_each(|receipt| ledger.append(receipt, None));
    drop(writing);
    let mut bytes = Vec::new();
    for entry in std::fs::read_dir(folder.path()).expect("it is there") {
        bytes.extend(std::fs::read(entry.expect("it is there").path()).expect("it is read"));
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert!(text.contains("invalid_value") && text.contains("deployment"), "the receipts are in it");
    observed.add("the database", text);
}

async fn over_http2(gateway: &TestGateway, provider: &ScriptedProvider, observed: &mut Observations) {
    provider.answers(chat_stream("Hello", 3));
    let mut client = gateway.connect_h2().await;
    let given = [("authorization", BEARER), ("api-key", KEY), ("cookie", KEY)];
    let mut answer = client.post(CHAT, &given, &chat_request(r#""stream":true,"#)).await.expect("an answer");
    let (body, _) = answer.rest().await;
    observed.add("an answer over HTTP/2", format!("{:?} {body:?}", answer.headers));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_found_where_it_must_not_be() {
    let logs = &*LOGS;
    RECORDING.store(true, Ordering::Relaxed);
    let provider = ScriptedProvider::start("eu").await;
    let config = Config::of(&provider).telemetry("metrics_token = \"env:OTHER_KEY\"").text();
    let mut observed = Observations(Vec::new());
    let gateway = TestGateway::start(&config).await;
    exchange_everything(&gateway, &provider, &mut observed).await;
    gateway.reload(&config.replace("eu-central", "eu-west"));
    observed.add_response(&gateway.chat(&chat_request("")).await);
    let mut receipts = collect_outputs(&gateway, &mut observed).await;
    for (script, members) in failing_answers() {
        let gateway = TestGateway::start(&config).await;
        let before = provider.attempts();
        provider.answers(script);
        observed.add_response(&gateway.chat(&chat_request(members)).await);
        assert!(provider.attempts() > before, "the provider was asked");
        receipts.extend(collect_outputs(&gateway, &mut observed).await);
    }
    database_of(&receipts, &mut observed);
    RECORDING.store(false, Ordering::Relaxed);
    let text = logs.text();
    assert!(
        text.contains("TRACE") && text.contains("an attempt failed"),
        "the logs were recorded: {} bytes",
        text.len()
    );
    observed.add("the logs", text);
    configurations(&config, &mut observed);
    // The client never sees the gateway's secrets; the provider never sees the client's.
    let secrets =
        [("a key", KEY), ("another key", OTHER_KEY), ("our credential", CREDENTIAL), ("the admin token", ADMIN_TOKEN)];
    for (name, secret) in secrets {
        observed.assert_free_of(name, secret);
    }
    let mut sent = Observations(Vec::new());
    for request in provider.journal().requests() {
        sent.add("a request to the provider", String::from_utf8_lossy(&[&request.head[..], &request.body].concat()));
    }
    assert!(sent.0.iter().all(|(_, request)| request.contains(CREDENTIAL)), "the canaries fly");
    for (name, secret) in secrets.into_iter().filter(|(_, secret)| *secret != CREDENTIAL) {
        sent.assert_free_of(name, secret);
    }
}

/// The output for a good configuration, and the errors for bad ones.
fn configurations(config: &str, observed: &mut Observations) {
    let snapshot = compile(config);
    observed.add("config show", snapshot.effective.to_toml());
    observed.add("config show, as JSON", snapshot.effective.to_json().to_string());
    observed.add("a snapshot's Debug", format!("{snapshot:?}"));
    let broken = [
        config.replace("region = ", "regoin = "),
        config.replace("\"env:TEST_KEY\"", &format!("\"{KEY}\"")),
        config.replace("\"env:CREDENTIAL\"", &format!("\"{CREDENTIAL}\"")),
        config.replace("\"env:CREDENTIAL\"", &format!("[\"env:NOT_SET\", \"{CREDENTIAL}\"]")),
        config.replace("\"env:OTHER_KEY\"", &format!("\"{OTHER_KEY}\" oops")),
        config.replace("base_url = \"http://", &format!("base_url = \"http://user:{CREDENTIAL}@")),
        config.replace("[server]", &format!("[server]\nadmin_token = \"{ADMIN_TOKEN}\"\nlisten = \"env:TEST_KEY\"")),
        config.replace("protocol = \"openai\"", "protocol = \"env:CREDENTIAL\""),
    ];
    for text in broken {
        let source = ConfigSource::File { path: "tierway.toml".into(), text };
        let problems = load(&source, &TestEnvironment::default(), &[]).expect_err("a broken configuration");
        for color in [false, true] {
            observed.add("what is said of a broken configuration", problems.render(color));
        }
        observed.add("its Debug", format!("{problems:?}"));
    }
}
