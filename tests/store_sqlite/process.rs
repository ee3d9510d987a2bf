//! The real binary, with a database of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub const KEY: &str = "tw_test_ledger_key";
/// How long a test waits for an expected event.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A provider that answers at once.
pub const SIMULATED: &str = r#"
protocol          = "sim"
first_token       = "0ms"
tokens_per_second = 1000000"#;
/// A price in USD for each million tokens.
pub const PRICE: &str = r#"price = { input = "0.10", output = "0.25" }"#;

/// A provider and a model with these settings; one policy with these, and one key; receipts in `tierway.db` beside the file.
pub fn config(provider: &str, model: &str, policy: &str) -> String {
    format!(
        r#"
[server]
listen = "127.0.0.1:0"
drain  = "1s"

[telemetry]
log = "error"

[providers.p]
{provider}

[models.m]
context     = 4096
max_output  = 100
deployments = [{{ provider = "p" }}]
{model}

[tiers.default]
models = ["m"]

[policies.all]
tiers = ["*"]
{policy}

[[keys]]
name   = "app"
team   = "growth"
policy = "all"
secret = "env:APP_KEY"
"#
    )
}

/// A command of the binary, with `folder` as its place and `config` in it.
pub fn tierway(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tierway"));
    in_place(&mut command, folder);
    command.args(args);
    command
}

fn in_place(command: &mut Command, folder: &Path) {
    std::fs::write(folder.join("tierway.toml"), config(SIMULATED, PRICE, "")).expect("the folder can be written");
    command.current_dir(folder).env_clear().env("APP_KEY", KEY).env("TIERWAY__TELEMETRY__METRICS", "open");
    command.stdin(Stdio::null());
}

/// What a command prints, when it ends well.
#[track_caller]
pub fn printed(folder: &Path, args: &[&str]) -> String {
    let output = tierway(folder, args).output().expect("the binary starts");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("it is text")
}

/// A serving gateway; killed when it is dropped.
pub struct Running {
    child: Killed,
    pub addr: SocketAddr,
    _stdout: BufReader<ChildStdout>,
    /// Its log, without lines of the access log.
    said: JoinHandle<String>,
}

impl Running {
    pub fn serve(folder: &Path) -> Self {
        Self::start(tierway(folder, &["serve"]))
    }

    /// Under another configuration.
    pub fn configured(folder: &Path, config: &str) -> Self {
        let command = tierway(folder, &["serve"]);
        std::fs::write(folder.join("tierway.toml"), config).expect("the folder can be written");
        Self::start(command)
    }

    /// With files that cannot grow beyond so many KiB, until [`Running::grow`].
    pub fn confined(folder: &Path, kib: u64) -> Self {
        Self::confined_and_configured(folder, kib, &config(SIMULATED, PRICE, ""))
    }

    /// The same under another configuration.
    pub fn confined_and_configured(folder: &Path, kib: u64, config: &str) -> Self {
        let mut command = Command::new("bash");
        // Writing more is refused instead of ending the process, as the signal would.
        let script = format!("trap '' XFSZ; ulimit -S -f {kib}; exec {} serve", env!("CARGO_BIN_EXE_tierway"));
        in_place(&mut command, folder);
        std::fs::write(folder.join("tierway.toml"), config).expect("the folder can be written");
        command.args(["-c", &script]);
        Self::start(command)
    }

    fn start(command: Command) -> Self {
        Self::hearing(command, |line| !line.contains(r#""target":"access""#))
    }

    /// Keeps the log lines that are `wanted`.
    pub fn hearing(mut command: Command, wanted: fn(&String) -> bool) -> Self {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("the binary starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let said = std::thread::spawn(move || {
            let lines = stderr.lines().map_while(Result::ok).filter(wanted);
            lines.collect::<Vec<_>>().join("\n")
        });
        let mut line = String::new();
        stdout.read_line(&mut line).expect("stdout is text");
        let Some(addr) = line.trim().strip_prefix("listening on http://") else {
            panic!("it did not serve: {}", said.join().unwrap_or_default());
        };
        let addr = addr.parse().expect("an address is printed");
        let child = Killed(child);
        Self { child, addr, _stdout: stdout, said }
    }

    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// Lifts the limit of [`Running::confined`].
    pub fn grow(&self) {
        let pid = self.child.0.id().to_string();
        let lifted = Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited"]).status();
        assert!(lifted.expect("prlimit is there").success());
    }

    /// SIGKILL: nothing is written or logged any more.
    pub fn kill(mut self) {
        self.child.0.kill().expect("it was started here");
        self.child.0.wait().expect("it was started here");
    }

    /// Stops it gracefully by SIGTERM, and returns its log.
    #[track_caller]
    pub fn stop(mut self) -> String {
        let pid = self.child.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill is there").success());
        let status = self.child.0.wait().expect("it was started here");
        let said = self.said.join().expect("it is text");
        assert!(status.success(), "{status}: {said}");
        said
    }

    /// Status and body of a path for operators.
    pub fn ask(&self, path: &str) -> (u16, String) {
        let mut client = Client::connect(self.addr).expect("it listens");
        let answer = client.send(&format!("GET {path} HTTP/1.1\r\nhost: t\r\n\r\n"));
        answer.map(|answer| (answer.status, answer.body)).expect("it answers")
    }

    /// Waits until so many operations wait to be written.
    #[track_caller]
    pub fn until_waiting(&self, count: u64) {
        let deadline = Instant::now() + PATIENCE;
        let waiting = || {
            let metrics = self.ask("/metrics").1;
            metrics.lines().find_map(|line| line.strip_prefix("tierway_ledger_waiting ")?.parse::<u64>().ok())
        };
        while waiting().expect("the metric is there") < count {
            assert!(Instant::now() < deadline, "{count} operations never wait");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until `/readyz` says `status`.
    #[track_caller]
    pub fn until_ready_says(&self, status: u16) {
        let deadline = Instant::now() + PATIENCE;
        while self.ask("/readyz").0 != status {
            assert!(Instant::now() < deadline, "/readyz never says {status}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A connection that is used again.
pub struct Client(BufReader<Box<dyn Socket>>);

pub trait Socket: Read + Write + Send {}

impl<T: Read + Write + Send> Socket for T {}

pub struct Answer {
    pub status: u16,
    pub id: Option<u128>,
    /// Whether limits were divided that are to be counted together.
    #[allow(dead_code, reason = "tests of the database count nothing together")]
    pub degraded: bool,
    pub body: String,
}

impl Client {
    pub fn connect(addr: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(Box::new(stream))))
    }

    /// To the socket file at `path`.
    pub fn connect_unix(path: &Path) -> std::io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::new(Box::new(stream))))
    }

    /// A chat request; `None` when the gateway is gone.
    pub fn chat(&mut self, model: &str) -> Option<Answer> {
        self.chat_by(KEY, model)
    }

    /// The same with another key.
    pub fn chat_by(&mut self, key: &str, model: &str) -> Option<Answer> {
        let body = format!(r#"{{"model":"{model}","max_tokens":2,"messages":[{{"role":"user","content":"Hi"}}]}}"#);
        self.send(&format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\nauthorization: Bearer {key}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ))
    }

    /// What a path answers to a token.
    pub fn get(&mut self, path: &str, token: &str) -> Option<Answer> {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: t\r\nauthorization: Bearer {token}\r\n\r\n"))
    }

    pub fn send(&mut self, request: &str) -> Option<Answer> {
        self.0.get_mut().write_all(request.as_bytes()).ok()?;
        let (mut status, mut id, mut degraded, mut length, mut chunked) = (0, None, false, 0, false);
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end().to_ascii_lowercase();
            match line.split_once(": ") {
                None if line.is_empty() => break,
                None => status = line.split(' ').nth(1)?.parse().ok()?,
                Some(("content-length", value)) => length = value.parse().ok()?,
                Some(("transfer-encoding", _)) => chunked = true,
                Some(("x-ratelimit-mode", mode)) => degraded = mode == "degraded",
                Some(("x-request-id", value)) => id = u128::from_str_radix(value.strip_prefix("req_")?, 16).ok(),
                Some(_) => {}
            }
        }
        let body = if chunked { self.chunks()? } else { self.bytes(length)? };
        Some(Answer { status, id, degraded, body: String::from_utf8_lossy(&body).into_owned() })
    }

    fn bytes(&mut self, length: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).ok()?;
        Some(bytes)
    }

    fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).ok()?;
            let length = usize::from_str_radix(line.trim_end(), 16).ok()?;
            let chunk = self.bytes(length + 2)?;
            if length == 0 {
                return Some(body);
            }
            body.extend_from_slice(&chunk[..length]);
        }
    }
}
