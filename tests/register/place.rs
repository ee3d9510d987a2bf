//! A directory with a configuration, in which commands run and a gateway serves.

use crate::process::{Client, KEY, PATIENCE, Running};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// One provider that answers at once, two policies, and a key in the file.
pub const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:0"
drain  = "1s"

[telemetry]
log = "warn"

[providers.sim]
protocol          = "sim"
first_token       = "0ms"
tokens_per_second = 1000000

[models.m]
price       = { input = "0.10", output = "0.25" }
context     = 1000
max_output  = 100
deployments = [{ provider = "sim" }]

[policies.standard]
models              = ["*"]
requests_per_minute = 100000

[policies.paying]
models = ["*"]
credit = "only"

[teams.filed]
budget = { limit = "2000.00", window = "month" }

[[keys]]
name   = "app"
team   = "filed"
policy = "standard"
secret = "env:APP_KEY"
"#;

/// A directory of its own.
pub struct Place(tempfile::TempDir);

impl Place {
    pub fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a temporary directory"));
        place.write("tierway.toml", CONFIG);
        place
    }

    pub fn folder(&self) -> &Path {
        self.0.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("the directory can be written");
    }

    /// A gateway under [`CONFIG`].
    pub fn serve(&self) -> Running {
        Running::configured(self.folder(), CONFIG)
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tierway"));
        command
            .args(args)
            .current_dir(self.folder())
            .env_clear()
            .env("APP_KEY", KEY)
            .env("TIERWAY__TELEMETRY__METRICS", "open")
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the binary starts")
    }

    /// The output of a command that succeeds.
    #[track_caller]
    pub fn printed(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// The same as JSON.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.printed(&[args, &["--json"]].concat())).expect("it is JSON")
    }

    /// The message of a command that exits with `code` and has no output.
    #[track_caller]
    pub fn refused(&self, args: &[&str], code: i32) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "", "{args:?}");
        text(&output.stderr)
    }

    /// The secret of a new key with the policy `standard`.
    #[track_caller]
    pub fn created(&self, name: &str) -> String {
        self.printed(&["keys", "create", name, "--policy", "standard"]).trim_end().to_owned()
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The status of a request with `secret`, on a connection of its own.
pub fn asked(gateway: &Running, secret: &str) -> u16 {
    let mut client = Client::connect(gateway.addr).expect("it listens");
    client.chat_by(secret, "m").expect("it answers").status
}

/// How long it takes until a request with `secret` ends with `status`.
#[track_caller]
pub fn until(gateway: &Running, secret: &str, status: u16) -> Duration {
    let started = Instant::now();
    loop {
        let found = asked(gateway, secret);
        if found == status {
            return started.elapsed();
        }
        assert!(started.elapsed() < PATIENCE, "it still ends with {found}, not {status}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
