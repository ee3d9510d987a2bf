//! A gateway with a database, and requests of operators to it.
//!
//! Every answer is checked against the OpenAPI document: its status is one of those listed, its body has the members
//! described and no others, no cache may store it, and no answer to a GET contains a secret or a hash.

use crate::config::Config;
use crate::document::Document;
use crate::support::client::{Client, Response};
use crate::support::gateway::{ADMIN_TOKEN, KEY, TestGateway, VIEWER_TOKEN, compile};
use crate::support::{ChatAnswer, ScriptedProvider, Usage, chat, soon};
use serde_json::Value;
use std::sync::{Arc, Mutex};
use tierway::clock::Clock;
use tierway::domain::drill::report::DrillReport;
use tierway::domain::receipt::Receipt;
use tierway::domain::secret::KeyHash;
use tierway::store::keyring::Keyring;
use tierway::store::memory::{MemoryCounters, MemoryLedger};
use tierway::store::reports::Reports;
use tierway::store::sqlite::{SqliteLedger, SqliteRegister, SqliteReports, WriterGuard};
use tierway::store::{Ledger, LedgerStatus, ReceiptRoom, Register, Stores};

/// A running gateway, its provider and its database.
pub struct AdminGateway {
    pub gateway: TestGateway,
    _provider: ScriptedProvider,
    pub document: Document,
    /// Its configuration, as TOML.
    pub config: String,
    /// Secrets that were issued, and their hashes.
    secrets: Mutex<Vec<String>>,
    _writing: Option<WriterGuard>,
    folder: tempfile::TempDir,
}

/// The header line of an operator's token.
pub fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}\r\n")
}

impl AdminGateway {
    /// With a database.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("tierway.db");
        let (sqlite, writing) = SqliteLedger::open(&path, None, Arc::new(|| Clock.unix_ms())).expect("it opens");
        let register = Arc::new(SqliteRegister::of_gateway(&path, sqlite.writer()));
        let keyring = Arc::new(Keyring::open(register).await.expect("it is read"));
        let sqlite = Arc::new(sqlite);
        let memory = Arc::new(MemoryLedger::default());
        let stores = Stores {
            ledger: Arc::new(Both(memory.clone(), sqlite.clone())),
            counters: Arc::new(MemoryCounters::default()),
            lease_store: sqlite,
            keyring,
            reports: Some(Arc::new(SqliteReports::of(&path)) as Arc<dyn Reports>),
            idempotency: None,
            state_accounts: Arc::default(),
            division: Arc::default(),
        };
        Self::with(memory, stores, folder, Some(writing)).await
    }

    /// Without one.
    pub async fn without_database() -> Self {
        let ledger = Arc::new(MemoryLedger::default());
        let stores = Stores { ledger: ledger.clone(), ..Stores::memory().await };
        Self::with(ledger, stores, tempfile::tempdir().expect("a temporary directory"), None).await
    }

    async fn with(
        memory: Arc<MemoryLedger>,
        stores: Stores,
        folder: tempfile::TempDir,
        writing: Option<WriterGuard>,
    ) -> Self {
        let provider = ScriptedProvider::start("eu").await;
        provider.answers(chat(ChatAnswer {
            usage: Usage { prompt: 30, completion: 10, ..Usage::default() },
            ..ChatAnswer::default()
        }));
        let config = config(&provider).replace("[policies.all]\n", "[policies.all]\nsla = { uptime = \"99.9%\" }\n");
        let gateway = TestGateway::start_with_stores(compile(&config), 1, memory, stores).await;
        let answer = send(&gateway, "GET", "/admin/v1/openapi.json", &bearer(ADMIN_TOKEN), None).await;
        let document = Document::of(answer.json());
        let secrets = Mutex::new(vec![KEY.to_owned(), hash(KEY), ADMIN_TOKEN.to_owned(), VIEWER_TOKEN.to_owned()]);
        Self { gateway, _provider: provider, document, config, secrets, _writing: writing, folder }
    }

    /// Keeps the report of a drill as the command does, beside the gateway.
    pub async fn keep_drill(&self, report: DrillReport) {
        let register = SqliteRegister::of_reader(&self.folder.path().join("tierway.db")).expect("it opens");
        register.keep_drill_report(report).await.expect("it is written");
    }

    /// The answer to a request; `headers` are lines.
    pub async fn ask(&self, method: &str, path: &str, headers: &str, body: Option<&str>) -> Response {
        let answer = send(&self.gateway, method, path, headers, body).await;
        let case = format!("{method} {path} {headers:?} {body:?}: {answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{case}");
        assert!(answer.header("x-request-id").is_some(), "{case}");
        assert!(answer.status < 500, "{case}");
        if method != "HEAD" {
            self.document.holds(method, path, &answer).unwrap_or_else(|fault| panic!("{fault}\n{case}"));
        }
        let mut secrets = self.secrets.lock().expect("nobody panics with it");
        if let Some(secret) = (method != "HEAD" && answer.status < 300)
            .then(|| answer.json())
            .and_then(|body| body["secret"].as_str().map(str::to_owned))
        {
            assert!(method == "POST", "{case}");
            secrets.extend([hash(&secret), secret]);
        } else {
            let reported = secrets.iter().find(|secret| answer.text().contains(secret.as_str()));
            assert_eq!(reported, None, "{case}");
        }
        answer
    }

    /// The answer to a request with the admin token.
    pub async fn operate(&self, method: &str, path: &str, body: Option<Value>) -> Response {
        self.ask(method, path, &bearer(ADMIN_TOKEN), body.map(|body| body.to_string()).as_deref()).await
    }

    /// The same, which must have `status`.
    pub async fn done(&self, status: u16, method: &str, path: &str, body: Option<Value>) -> Value {
        let answer = self.operate(method, path, body.clone()).await;
        assert_eq!(answer.status, status, "{method} {path} {body:?}: {answer:?}");
        answer.json()
    }

    /// The same, which must be an error: its code and its field.
    pub async fn refused(
        &self,
        status: u16,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> (String, Option<String>) {
        let error = self.done(status, method, path, body).await["error"].take();
        (error["code"].as_str().expect("a code").to_owned(), error["param"].as_str().map(str::to_owned))
    }

    /// Everything that can be read and changed.
    pub async fn state(&self) -> Vec<Value> {
        let mut state = Vec::new();
        for path in [
            "keys?limit=1000",
            "teams?limit=1000",
            "credits?limit=1000",
            "credits/grants?limit=1000",
            "audit?limit=1000",
        ] {
            state.push(self.done(200, "GET", &format!("/admin/v1/{path}"), None).await);
        }
        state
    }

    /// A chat with `secret`: its status, and its request id.
    pub async fn chat(&self, secret: &str) -> (u16, String) {
        self.chat_with(secret, crate::config::MODEL).await
    }

    /// The same with this model.
    pub async fn chat_with(&self, secret: &str, model: &str) -> (u16, String) {
        let headers = format!("authorization: Bearer {secret}\r\n");
        let body = format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"hi"}}],"max_tokens":10}}"#);
        let answer = send(&self.gateway, "POST", "/v1/chat/completions", &headers, Some(&body)).await;
        (answer.status, answer.header("x-request-id").expect("it has a name").to_owned())
    }

    /// Waits until the ledger has the request called `id`.
    pub async fn wait_for_receipt(&self, id: &str) {
        soon("the receipt in the ledger", async {
            while self.operate("GET", &format!("/admin/v1/ledger/{id}"), None).await.status != 200 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

/// One request on a connection of its own.
pub async fn send(gateway: &TestGateway, method: &str, path: &str, headers: &str, body: Option<&str>) -> Response {
    let mut client = Client::connect(gateway.addr).await;
    let body = body.map_or_else(String::new, |body| {
        let said = if headers.contains("content-type:") { "" } else { "content-type: application/json\r\n" };
        format!("{said}content-length: {}\r\n\r\n{body}", body.len())
    });
    let end = if body.is_empty() { "\r\n" } else { "" };
    client.send(format!("{method} {path} HTTP/1.1\r\nhost: tests\r\n{headers}{body}{end}")).await;
    if method == "HEAD" {
        let (status, headers) = client.head().await;
        let body = Default::default();
        return Response { status, headers, body, end: crate::support::BodyEnd::Clean };
    }
    client.response().await
}

fn hash(secret: &str) -> String {
    KeyHash::of(secret).0.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A configuration with policies, a team and a key.
fn config(provider: &ScriptedProvider) -> String {
    Config::of(provider)
        .server("viewer_token = \"env:VIEWER_TOKEN\"")
        .telemetry("metrics_token = \"env:METRICS_TOKEN\"")
        .model("price = { input = \"1.00\", output = \"2.00\" }\ncontext = 1000\nmax_output = 100")
        .more(
            r#"
[policies.standard]
tiers = ["default"]
requests_per_minute = 100
max_concurrent = 50
budget = { limit = "500.00", window = "month" }
[policies.prepaid]
tiers = ["default"]
credit = "only"
[drill]
enabled = true
[teams.sales]
budget = { limit = "10.00", window = "day", zone = "Europe/Paris" }
"#,
        )
        .text()
}

/// Receipts go to the test, and to the database.
pub struct Both(pub Arc<MemoryLedger>, pub Arc<SqliteLedger>);

impl Ledger for Both {
    fn reserve(&self) -> Option<ReceiptRoom> {
        self.1.reserve()
    }

    fn append(&self, receipt: &Arc<Receipt>, room: Option<ReceiptRoom>) {
        self.1.append(receipt, room);
        self.0.append(receipt, None);
    }

    fn status(&self) -> LedgerStatus {
        self.1.status()
    }
}
