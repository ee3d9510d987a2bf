//! The real binary as a process that is started again and again on one database, and its machine.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use tierway::domain::money::NanoUsd;

/// How long is waited for what must happen: ten times what is promised.
pub const PATIENCE: Duration = Duration::from_secs(10);
pub const EIO: i64 = 5;
pub const ENOSPC: i64 = 28;
pub const EROFS: i64 = 30;
/// Which calls on the database's files meet a fault, as `machine.c` counts them.
pub const WRITES: i64 = 1;
pub const SYNCS: i64 = 2;
pub const OPENS: i64 = 4;

/// What the gateway's process sees of the machine: its wall clock and its disk.
pub struct Machine {
    library: Option<PathBuf>,
    control: File,
    path: PathBuf,
}

impl Machine {
    /// Builds what goes in front of libc, where that is possible.
    pub fn build(folder: &Path) -> Self {
        let path = folder.join("control");
        std::fs::write(&path, [0; 24]).expect("the folder can be written");
        let control = OpenOptions::new().write(true).open(&path).expect("it was made");
        let library = cfg!(all(target_os = "linux", target_env = "gnu")).then(|| {
            let library = folder.join("machine.so");
            let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/money_proof/machine.c");
            let built =
                Command::new("cc").args(["-O2", "-shared", "-fPIC", source, "-ldl", "-o"]).arg(&library).status();
            assert!(built.expect("cc is installed: make setup").success(), "machine.c does not compile");
            library
        });
        Self { library, control, path }
    }

    /// Whether clock and disk can be moved here.
    pub fn obeys(&self) -> bool {
        self.library.is_some()
    }

    pub fn shift_clock(&self, milliseconds: i64) {
        self.control.write_all_at(&(milliseconds * 1_000_000).to_ne_bytes(), 0).expect("it can be written");
    }

    /// From now on `calls` fail with `error`; 0: none does.
    pub fn fail(&self, error: i64, calls: i64) {
        self.control.write_all_at(&calls.to_ne_bytes(), 16).expect("it can be written");
        self.control.write_all_at(&error.to_ne_bytes(), 8).expect("it can be written");
    }
}

/// A serving gateway; killed when it is dropped.
pub struct Gateway {
    child: Child,
    pub addr: SocketAddr,
    /// From its start to its first 200 on `/readyz`.
    pub ready_after: Duration,
    _stdout: BufReader<ChildStdout>,
}

impl Gateway {
    /// Serves what lies in `folder`.
    pub fn start(folder: &Path, machine: &Machine) -> Self {
        let log = OpenOptions::new().create(true).append(true).open(folder.join("log")).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_tierway"));
        command.arg("serve").current_dir(folder).env_clear();
        command.envs(crate::fixture::KEYS.iter().map(|key| (key.secret, secret(key.name))));
        command.env("TIERWAY_PROOF_CONTROL", &machine.path).env("TIERWAY__TELEMETRY__METRICS", "open");
        command.envs(machine.library.iter().map(|library| ("LD_PRELOAD", library)));
        let started = Instant::now();
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn();
        let mut child = child.expect("the binary starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("stdout is text");
        let Some(addr) = line.trim().strip_prefix("listening on http://") else {
            panic!("it did not serve: {}", std::fs::read_to_string(folder.join("log")).unwrap_or_default());
        };
        let addr = addr.parse().expect("an address is printed");
        let mut gateway = Self { child, addr, ready_after: Duration::ZERO, _stdout: stdout };
        gateway.until_ready();
        gateway.ready_after = started.elapsed();
        gateway
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("it was started here");
        self.child.wait().expect("it was started here");
    }

    /// Waits for its end in good order, after SIGTERM.
    pub fn until_ended(mut self) {
        let status = self.child.wait().expect("it was started here");
        assert!(status.success(), "{status}");
    }

    /// Has the configuration read anew, and waits until it applies.
    pub fn reload(&self) {
        let applied = || self.metric(r#"tierway_config_reloads_total{result="ok"}"#);
        let before = applied();
        self.signal("-HUP");
        until("the configuration is reloaded", || applied() > before);
    }

    /// Waits until nothing waits to be written.
    pub fn until_written(&self) {
        until("everything is written", || self.metric("tierway_ledger_waiting") == 0);
    }

    pub fn until_ready(&self) {
        until("it is ready", || self.ask("/readyz").starts_with("HTTP/1.1 200"));
    }

    /// What all budgets hold for requests under way, in nano-dollars.
    pub fn held(&self) -> u64 {
        let report = self.ask("/metrics");
        let lines = report.lines().filter(|line| line.starts_with("tierway_budget_held_nanousd{"));
        lines.map(|line| line.rsplit(' ').next().and_then(|number| number.parse::<u64>().ok()).expect("a number")).sum()
    }

    fn metric(&self, name: &str) -> u64 {
        let report = self.ask("/metrics");
        let line = report.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        line.unwrap_or(0)
    }

    fn ask(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.addr).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket has time-outs");
        let request = format!("GET {path} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill is there").success());
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Credit that is being granted by command, beside the gateway or without one.
pub struct CreditGrant(Child);

impl CreditGrant {
    pub fn start(folder: &Path, key: &str, nanousd: i64) -> Self {
        let amount = NanoUsd(nanousd).to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tierway"));
        command.args(["credits", "grant", "--key", key, &amount]).current_dir(folder).env_clear();
        command.envs(crate::fixture::KEYS.iter().map(|key| (key.secret, secret(key.name))));
        let streams = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Self(streams.spawn().expect("the binary starts"))
    }

    /// Waits until it is granted.
    pub fn end(self) {
        let granted = self.0.wait_with_output().expect("it was started here");
        assert!(granted.status.success(), "no credit: {}", String::from_utf8_lossy(&granted.stderr));
    }
}

/// The secret of the key called `name`.
pub fn secret(name: &str) -> String {
    format!("tw_proof_{name}_key")
}

/// Looks again and again, a little apart, until `is` so.
#[track_caller]
pub fn until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < deadline, "it never happens that {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
