//! A PostgreSQL server of the tests' own: made in a temporary folder, reached by a socket in it, and stopped after the last
//! test that uses it.
//!
//! Tests that run at once share one; each gets a database of its own. The server refuses to run as root, so then it runs as
//! the user `nobody`. It never touches a server that runs on the machine.

#![allow(dead_code, clippy::disallowed_methods)]

use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};
use tierway::store::postgres::{MonotonicClock, PostgresLocation};

/// How long the server may take to start.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Whom the server runs as where the tests run as root, and its group.
const NOBODY: (u32, u32) = (65_534, 65_534);

/// A clock that is never set, from now on.
pub fn ticking() -> MonotonicClock {
    let start = Instant::now();
    Arc::new(move || start.elapsed())
}

/// A running server.
pub struct PostgresServer {
    folder: tempfile::TempDir,
    process: Mutex<Child>,
    databases: AtomicU64,
    as_root: bool,
    /// Of its address, and a part of the name of its socket.
    port: AtomicU16,
}

/// A database of one test.
pub struct TestDatabase {
    server: Arc<PostgresServer>,
    name: String,
}

impl TestDatabase {
    /// A new, empty one, on the server that other tests use too.
    pub fn new() -> Self {
        static SHARED: Mutex<Weak<PostgresServer>> = Mutex::new(Weak::new());
        let server = {
            let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            shared.upgrade().unwrap_or_else(|| {
                let server = Arc::new(PostgresServer::start());
                *shared = Arc::downgrade(&server);
                server
            })
        };
        Self::on(server)
    }

    /// A new, empty one on `server`.
    pub fn on(server: Arc<PostgresServer>) -> Self {
        let name = format!("t{}", server.databases.fetch_add(1, Ordering::Relaxed));
        server.query("postgres", &format!("CREATE DATABASE {name}"));
        Self { server, name }
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its URL, by the socket that the server has at first.
    pub fn url(&self) -> String {
        let folder = self.server.folder.path().display().to_string().replace('/', "%2F");
        format!("postgres://tierway@{folder}/{}", self.name)
    }

    /// Where it is.
    pub fn location(&self) -> PostgresLocation {
        let location = PostgresLocation::of_url(&self.url(), rustls::RootCertStore::empty());
        location.unwrap_or_else(|error| panic!("{error}"))
    }

    /// What `sql` answers: rows as lines, columns with `|` between.
    pub fn query(&self, sql: &str) -> String {
        self.server.query(&self.name, sql)
    }
}

impl PostgresServer {
    /// Makes a cluster and starts its server.
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("tierway-pg").tempdir().expect("a temporary folder");
        let as_root = folder.path().metadata().expect("it was just made").uid() == 0;
        if as_root {
            chown(folder.path(), Some(NOBODY.0), Some(NOBODY.1)).expect("root may give it away");
        }
        let data = folder.path().join("data");
        let mut init = unprivileged("initdb", as_root);
        init.arg("-D").arg(&data).args(["-U", "tierway", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"]);
        let made = init.current_dir(folder.path()).output().expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let mut settings =
            std::fs::OpenOptions::new().append(true).open(data.join("postgresql.conf")).expect("it is there");
        // By its socket alone.
        writeln!(settings, "listen_addresses = ''").expect("it can be written");
        let process = Mutex::new(run(folder.path(), as_root));
        let server = Self { folder, process, databases: AtomicU64::new(0), as_root, port: AtomicU16::new(5432) };
        server.wait_until_it_answers();
        server
    }

    /// Starts it again, reached by `port` of loopback too, and encrypted there with `certificate` and `key`, both PEM.
    pub fn start_again_encrypted(&self, port: u16, certificate: &str, key: &str) {
        self.crash();
        let data = self.folder.path().join("data");
        for (name, text) in [("server.crt", certificate), ("server.key", key)] {
            let file = data.join(name);
            std::fs::write(&file, text).expect("the folder can be written");
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("it was just made");
            if self.as_root {
                chown(&file, Some(NOBODY.0), Some(NOBODY.1)).expect("root may give it away");
            }
        }
        // The last lines of the file count.
        let mut settings =
            std::fs::OpenOptions::new().append(true).open(data.join("postgresql.conf")).expect("it is there");
        write!(settings, "\nssl = on\nlisten_addresses = '127.0.0.1'\nport = {port}\n").expect("it can be written");
        // Only encrypted connections are accepted by its address.
        let access = "local all all trust\nhostssl all all 127.0.0.1/32 trust\n";
        std::fs::write(data.join("pg_hba.conf"), access).expect("the folder can be written");
        self.port.store(port, Ordering::SeqCst);
        self.start_again();
    }

    /// Stops it at once, as a crash would: what is not committed is lost, and connections are cut.
    pub fn crash(&self) {
        let mut process = self.process.lock().expect("no test panics with it");
        signal(&process, "-QUIT");
        process.wait().expect("it was started here");
    }

    /// Starts it again after a crash.
    pub fn start_again(&self) {
        *self.process.lock().expect("no test panics with it") = run(self.folder.path(), self.as_root);
        self.wait_until_it_answers();
    }

    fn wait_until_it_answers(&self) {
        let deadline = Instant::now() + TIMEOUT;
        while !self.psql("postgres", "SELECT 1").is_ok_and(|answer| answer.trim() == "1") {
            let ended = self.process.lock().expect("no test panics with it").try_wait().expect("it was started here");
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(ended.is_none() && Instant::now() < deadline, "PostgreSQL does not start: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn query(&self, database: &str, sql: &str) -> String {
        self.psql(database, sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    fn psql(&self, database: &str, sql: &str) -> Result<String, String> {
        let mut psql = Command::new(program("psql"));
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "tierway", "-d", database, "-c", sql]);
        let port = self.port.load(Ordering::SeqCst).to_string();
        let done = psql.args(["-p", &port]).arg("-h").arg(self.folder.path()).output().expect("psql runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
    }
}

impl Drop for PostgresServer {
    /// It is stopped at once; its folder is removed after it.
    fn drop(&mut self) {
        let process = self.process.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        // It has ended already where a test failed after a crash.
        if matches!(process.try_wait(), Ok(None)) {
            signal(process, "-QUIT");
        }
        let _ = process.wait();
    }
}

fn signal(process: &Child, signal: &str) {
    let sent = Command::new("kill").args([signal, &process.id().to_string()]).status().expect("kill runs");
    assert!(sent.success(), "the server was started here and has not ended");
}

/// The server of the cluster in `folder`.
fn run(folder: &Path, as_root: bool) -> Child {
    let log = std::fs::File::create(folder.join("log")).expect("the folder can be written");
    let mut server = unprivileged("postgres", as_root);
    server.arg("-D").arg(folder.join("data")).arg("-k").arg(folder);
    // Without fsync: the machine does not crash.
    server.args(["-F", "-c", "max_connections=300"]);
    server.current_dir(folder).stdout(Stdio::null()).stderr(log).spawn().expect("postgres runs")
}

/// `name` of PostgreSQL, run by a user that it accepts.
fn unprivileged(name: &str, as_root: bool) -> Command {
    let mut command = Command::new(program(name));
    if as_root {
        command.uid(NOBODY.0).gid(NOBODY.1);
    }
    command.env("LC_ALL", "C");
    command
}

/// Where `name` of PostgreSQL is: in the path, or where Debian has it.
fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|folder| folder.join(name));
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let in_debian = versions.map(|version| version.path().join("bin").join(name));
    let found = in_path.chain(in_debian).find(|file: &PathBuf| Path::is_file(file));
    found.unwrap_or_else(|| panic!("there is no {name}: these tests need PostgreSQL; `apt-get install postgresql`"))
}
