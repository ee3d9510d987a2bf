//! A Redis or Valkey server of the tests' own: in a temporary folder, on a free port of loopback, and stopped with the value.
//!
//! It keeps nothing on the disk, and never touches a server that runs on the machine.

#![allow(dead_code, clippy::disallowed_methods)]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long the server may take to start.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A running server.
pub struct RedisServer {
    program: PathBuf,
    folder: tempfile::TempDir,
    port: u16,
    password: Option<&'static str>,
    settings: Vec<String>,
    process: Mutex<Child>,
}

impl RedisServer {
    /// An empty one.
    pub fn start() -> Self {
        Self::of("redis-server", None, &[]).unwrap_or_else(|| {
            panic!(
                "there is no redis-server: these tests need it; `make rust` gets it, or `apt-get install redis-server`"
            )
        })
    }

    /// One that asks for `password`.
    pub fn with_password(password: &'static str) -> Self {
        Self::of("redis-server", Some(password), &[]).expect("other tests of this binary say what to install")
    }

    /// One that is reached with TLS too, at `port`, by the certificate and the key in these files.
    pub fn encrypted(port: u16, certificate: &Path, key: &Path) -> Self {
        let (port, certificate, key) = (port.to_string(), certificate.display().to_string(), key.display().to_string());
        let settings = ["--tls-port", &port, "--tls-cert-file", &certificate, "--tls-key-file", &key];
        let settings = [&settings[..], &["--tls-auth-clients", "no"]].concat();
        Self::of("redis-server", None, &settings).expect("other tests of this binary say what to install")
    }

    /// A Valkey, where there is one: not every Debian has it.
    pub fn valkey() -> Option<Self> {
        Self::of("valkey-server", None, &[])
    }

    fn of(name: &str, password: Option<&'static str>, settings: &[&str]) -> Option<Self> {
        let program = program(name)?;
        let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
        // Another program may take the port in between: then another one is tried.
        for _ in 0..20 {
            let folder = tempfile::Builder::new().prefix("tierway-redis").tempdir().expect("a temporary folder");
            let port = free_port();
            let process = Mutex::new(run(&program, folder.path(), port, password, &settings));
            let (program, settings) = (program.clone(), settings.clone());
            let server = Self { program, folder, port, password, settings, process };
            if server.answers() {
                return Some(server);
            }
        }
        panic!("{name} does not start on any port");
    }

    /// Its URL, with the password.
    pub fn url(&self) -> String {
        let user = self.password.map(|password| format!(":{password}@")).unwrap_or_default();
        format!("redis://{user}127.0.0.1:{}", self.port)
    }

    /// Where it is, without the password.
    pub fn place(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&self) {
        let mut process = self.process.lock().expect("no test panics with it");
        let _ = process.kill();
        process.wait().expect("it was started here");
    }

    /// Starts it again, empty, at the same place.
    pub fn start_again(&self) {
        *self.process.lock().expect("no test panics with it") =
            run(&self.program, self.folder.path(), self.port, self.password, &self.settings);
        assert!(self.answers(), "it does not start again");
    }

    /// Stops it from doing anything, with all its connections open.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    /// Its answer to a command of one line.
    pub fn command(&self, line: &str) -> String {
        self.ask(line).unwrap_or_else(|| panic!("it does not answer {line}"))
    }

    fn signal(&self, signal: &str) {
        let process = self.process.lock().expect("no test panics with it");
        let sent = Command::new("kill").args([signal, &process.id().to_string()]).status().expect("kill runs");
        assert!(sent.success(), "the server was started here and has not ended");
    }

    /// Whether it answers before it ends.
    fn answers(&self) -> bool {
        let deadline = Instant::now() + TIMEOUT;
        while self.ask("PING").is_none_or(|answer| !answer.starts_with('+') && !answer.contains("NOAUTH")) {
            let ended = self.process.lock().expect("no test panics with it").try_wait().expect("it was started here");
            if ended.is_some() {
                return false;
            }
            assert!(Instant::now() < deadline, "it does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    fn ask(&self, line: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(TIMEOUT)).ok()?;
        stream.write_all(format!("{line}\r\n").as_bytes()).ok()?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).ok()?;
        Some(answer.trim_end().to_owned()).filter(|answer| !answer.is_empty())
    }
}

impl Drop for RedisServer {
    /// Also one that is frozen: it cannot refuse this signal.
    fn drop(&mut self) {
        let process = self.process.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = process.kill();
        let _ = process.wait();
    }
}

fn run(program: &Path, folder: &Path, port: u16, password: Option<&str>, settings: &[String]) -> Child {
    let log = std::fs::File::create(folder.join("log")).expect("the folder can be written");
    let mut server = Command::new(program);
    server.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
    if let Some(password) = password {
        server.args(["--requirepass", password]);
    }
    server.args(settings).arg("--dir").arg(folder).stdin(Stdio::null()).stdout(log).stderr(Stdio::null());
    server.spawn().expect("the server runs")
}

/// One that no program listens at.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("it is bound").port()
}

/// Where `name` is: in the project's own tools, or in the path.
fn program(name: &str) -> Option<PathBuf> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::iter::once(tools).chain(std::env::split_paths(&path));
    folders.find_map(|folder| Some(folder.join(name)).filter(|file| file.is_file()))
}
