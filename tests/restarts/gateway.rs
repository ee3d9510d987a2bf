//! The real binary as a process that is restarted, and its folder.

use crate::client::Kind;
use crate::load::LoadPlan;
use rusqlite::Connection;
use std::fs::OpenOptions;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub const KEY: &str = "tw_test_restarts_key";
/// How long a test waits for what must happen.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// One provider that answers at once and one whose streams take a second; everything is paid from a budget. More workers
/// than one on every machine.
const CONFIG: &str = r#"
[server]
listen         = "PUBLIC"
admin_listen   = "OPS"
worker_threads = 4
drain          = "20s"

[providers.sim]
protocol          = "sim"
first_token       = "0ms"
tokens_per_second = 1000000

[providers.slow]
protocol          = "sim"
first_token       = "50ms"
tokens_per_second = 20

[models.m]
price       = { input = "0.10", output = "0.25" }
context     = 8000
max_output  = 100
deployments = [{ provider = "sim" }]

[models.slow]
price       = { input = "0.10", output = "0.25" }
context     = 8000
max_output  = 100
deployments = [{ provider = "slow" }]

[tiers.default]
models = ["m", "slow"]

[policies.all]
tiers  = ["*"]
budget = { limit = "1000.00", window = "none" }

[[keys]]
name   = "app"
policy = "all"
secret = "env:APP_KEY"
"#;

/// A folder with a configuration and a database, and the addresses that are served.
pub struct Place {
    folder: tempfile::TempDir,
    pub public: SocketAddr,
    pub ops: SocketAddr,
}

/// Two sockets as a service manager holds them.
pub struct Sockets {
    pub public: TcpListener,
    pub ops: TcpListener,
}

impl Place {
    pub fn new() -> (Self, Sockets) {
        let [public, ops] = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").expect("loopback has a free port"));
        let [at_public, at_ops] = [&public, &ops].map(|socket| socket.local_addr().expect("it is bound"));
        let folder = tempfile::tempdir().expect("a folder");
        let config = CONFIG.replace("PUBLIC", &at_public.to_string()).replace("OPS", &at_ops.to_string());
        std::fs::write(folder.path().join("tierway.toml"), config).expect("the folder can be written");
        (Self { folder, public: at_public, ops: at_ops }, Sockets { public, ops })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn in_place(&self, command: &mut Command) {
        command.current_dir(self.folder.path()).env_clear().env("APP_KEY", KEY);
        command.stdin(Stdio::null()).stdout(Stdio::null());
    }

    /// Starts a gateway and waits until it serves.
    pub fn start(&self, args: &[&str]) -> Gateway {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tierway"));
        self.in_place(&mut command);
        command.args(args);
        self.until_ready(command)
    }

    /// Starts one with these variables, and waits until it serves.
    pub fn start_with(&self, variables: &[(&str, &str)]) -> Gateway {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tierway"));
        self.in_place(&mut command);
        command.arg("serve").envs(variables.iter().copied());
        self.until_ready(command)
    }

    /// Gateways that start here from now on are asked by operators where clients are served.
    pub fn without_operators_address(&self) {
        let config = std::fs::read_to_string(self.path("tierway.toml")).expect("it was written");
        let moved = format!("admin_listen   = \"{}\"\n", self.ops);
        std::fs::write(self.path("tierway.toml"), config.replace(&moved, "")).expect("it can be written");
    }

    /// The same on one CPU, and with as many workers as it takes by itself.
    pub fn start_on_one_cpu(&self) -> Gateway {
        let config = std::fs::read_to_string(self.path("tierway.toml")).expect("it was written");
        std::fs::write(self.path("tierway.toml"), config.replace("worker_threads = 4\n", ""))
            .expect("it can be written");
        let status = std::fs::read_to_string("/proc/self/status").expect("the system is Linux");
        let cpus = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).expect("it says so").trim();
        let first = cpus.split(['-', ',']).next().expect("there is one");
        let mut command = Command::new("taskset");
        self.in_place(&mut command);
        command.args(["-c", first, env!("CARGO_BIN_EXE_tierway"), "serve"]).env("PATH", "/usr/bin:/bin");
        self.until_ready(command)
    }

    /// Starts a gateway on sockets, as a service manager does.
    pub fn activate(&self, sockets: &Sockets) -> Gateway {
        self.until_ready(self.activated(&sockets.public, &sockets.ops))
    }

    /// What a gateway prints that does not start.
    pub fn refused(&self, args: &[&str], variables: &[(&str, &str)]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tierway"));
        self.in_place(&mut command);
        command.args(args).envs(variables.iter().copied());
        unavailable(command)
    }

    /// What a gateway prints that refuses what is passed to it.
    pub fn refused_sockets(&self, public: &impl AsFd, ops: &impl AsFd) -> String {
        unavailable(self.activated(public, ops))
    }

    fn activated(&self, public: &impl AsFd, ops: &impl AsFd) -> Command {
        let mut command = Command::new("/bin/sh");
        self.in_place(&mut command);
        // The shell's own id stays that of the program it becomes.
        let script = r#"exec 3<&0 4>&1 1>&2 0</dev/null
            export LISTEN_FDS=2 LISTEN_PID=$$ LISTEN_FDNAMES=tierway:tierway-admin; exec "$0" serve"#;
        command.args(["-c", script, env!("CARGO_BIN_EXE_tierway")]);
        let passed = |socket: std::os::fd::BorrowedFd<'_>| socket.try_clone_to_owned().expect("a descriptor");
        command.stdin(passed(public.as_fd())).stdout(passed(ops.as_fd()));
        command
    }

    /// Waits for the notification that a service manager waits for.
    fn until_ready(&self, mut command: Command) -> Gateway {
        let log = OpenOptions::new().create(true).append(true).open(self.path("log")).expect("a log");
        let notified = self.path("notified");
        let _ = std::fs::remove_file(&notified);
        let socket = UnixDatagram::bind(&notified).expect("the folder can be written");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("it is a socket");
        let mut child = command.env("NOTIFY_SOCKET", &notified).stderr(log).spawn().expect("the binary starts");
        let (started, mut state) = (Instant::now(), [0; 64]);
        loop {
            match socket.recv(&mut state) {
                Ok(length) if state[..length].starts_with(b"READY=1") => return Gateway(child),
                _ => {}
            }
            let ended = child.try_wait().expect("it was started here");
            if ended.is_some() || started.elapsed() > PATIENCE {
                let _ = child.kill();
                panic!("it does not serve: {ended:?} {}", self.log());
            }
        }
    }

    /// So many requests to its addresses, and probes of the path `probed`.
    pub fn load(&self, requests: u64, probed: &'static str) -> LoadPlan {
        let (clients, probed) = (self.public, Some((self.ops, probed)));
        LoadPlan { clients, probed, long: Kind::SlowStream, requests, held: false, pause: Duration::ZERO }
    }

    /// What all gateways here logged, without the access log.
    pub fn log(&self) -> String {
        let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
        log.lines().filter(|line| !line.contains(r#""target":"access""#)).collect::<Vec<_>>().join("\n")
    }

    /// Nothing that could be taken for a running gateway is left.
    pub fn check_nothing_is_left(&self) {
        assert!(!self.path("tierway.db.take-over").exists());
        for address in [self.public, self.ops] {
            assert!(TcpStream::connect(address).is_err(), "{address} is still open");
        }
    }

    /// The database has a receipt for each of `requests`, and of its money as much is spent as they cost.
    pub fn check_books(&self, requests: u64) {
        let database = Connection::open(self.path("tierway.db")).expect("it is there");
        let sum = |query: &str| -> i64 { database.query_row(query, [], |row| row.get(0)).expect("it can be asked") };
        assert_eq!(u64::try_from(sum("SELECT count(*) FROM receipts")), Ok(requests), "one receipt for each request");
        assert_eq!(sum("SELECT count(*) FROM receipts WHERE outcome <> 'served'"), 0);
        let cost = sum("SELECT sum(cost_nanousd) FROM receipts");
        assert!(cost > 0);
        assert_eq!(sum("SELECT sum(spent_nanousd) FROM budgets"), cost, "what is spent is what they cost");
        assert_eq!(sum("SELECT sum(leased_nanousd) FROM budgets"), 0, "everything leased was given back");
        assert_eq!(sum("SELECT count(*) FROM unaccounted"), 0);
    }
}

/// What `command` prints when it ends because something is not available.
fn unavailable(mut command: Command) -> String {
    let output = command.stderr(Stdio::piped()).output().expect("the binary starts");
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(69), "{printed}");
    printed
}

/// A serving gateway; killed when it is dropped.
pub struct Gateway(Child);

impl Gateway {
    /// How many threads serve clients.
    pub fn workers(&self) -> usize {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.0.id())).expect("the system is Linux");
        let names = threads.flatten().filter_map(|thread| std::fs::read_to_string(thread.path().join("comm")).ok());
        names.filter(|name| name.starts_with("worker-")).count()
    }

    /// Asks it to stop, and waits until it has.
    pub fn terminate(self) {
        let pid = self.0.id().to_string();
        let asked = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(asked.expect("kill is there").success());
        self.until_ended();
    }

    /// Waits until it has ended in good order.
    pub fn until_ended(mut self) {
        let started = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().expect("it was started here") {
                assert!(status.success(), "{status}");
                return;
            }
            assert!(started.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
