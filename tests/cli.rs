//! The binary as a person starts it: its output, its exit codes, its reaction to signals.
//!
//! Every test starts its own process on a port the system chose and ends it by pid.

#![allow(clippy::disallowed_methods)]

#[path = "cli/addresses.rs"]
mod addresses;
#[path = "cli/ask.rs"]
mod ask;
#[path = "cli/doctor.rs"]
mod doctor;
#[path = "cli/drill.rs"]
mod drill;
#[path = "cli/drill_against.rs"]
mod drill_against;
#[path = "cli/logs.rs"]
mod logs;
#[path = "loopback/mod.rs"]
mod loopback;
#[path = "cli/masks.rs"]
mod masks;
#[path = "cli/models.rs"]
mod models;
#[path = "cli/providers.rs"]
mod providers;
#[path = "cli/terminal.rs"]
mod terminal;
#[path = "cli/top.rs"]
mod top;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

#[path = "cli/files.rs"]
mod files;

const CONFIG: &str = r#"
[providers.sim]
protocol = "sim"
first_token = "0ms"

[models."acme/small"]
deployments = [{ provider = "sim" }]

[policies.standard]
models = ["*"]

[[keys]]
name   = "app"
policy = "standard"
secret = "env:APP_KEY"
"#;

const APP_KEY: &str = "tw_standard_for_tests_only";
/// How long a process may take for what a test asks of it.
const PATIENCE: Duration = Duration::from_secs(20);

/// A directory with nothing but the given `tierway.toml`, so that no other file is found.
struct Place(TempDir);

impl Place {
    fn empty() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn with(config: &str) -> Self {
        let place = Self::empty();
        place.write(config);
        place
    }

    fn write(&self, config: &str) {
        std::fs::write(self.config(), config).expect("the directory can be written");
    }

    fn config(&self) -> PathBuf {
        self.0.path().join("tierway.toml")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tierway"));
        command.args(args).current_dir(self.0.path()).env_clear().env("APP_KEY", APP_KEY);
        command.env("TIERWAY__SERVER__LISTEN", "127.0.0.1:0").env("TIERWAY__TELEMETRY__METRICS", "open");
        command.stdin(Stdio::null());
        command
    }

    /// Runs to its end.
    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the binary starts")
    }

    fn serve(&self, args: &[&str]) -> Running {
        Running::start(self.command(args))
    }
}

/// A serving gateway.
struct Running {
    child: Child,
    addr: SocketAddr,
    _stdout: BufReader<ChildStdout>,
    stderr: std::thread::JoinHandle<String>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let mut errors = child.stderr.take().expect("stderr is piped");
        let stderr = std::thread::spawn(move || {
            let mut text = String::new();
            errors.read_to_string(&mut text).expect("stderr is text");
            text
        });
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("stdout is text");
        let origin = line.trim().strip_prefix("listening on ").and_then(|origin| origin.split_once("://"));
        let Some((_, addr)) = origin else {
            let _ = child.wait();
            panic!("it did not serve: {line:?}; {}", stderr.join().unwrap_or_default());
        };
        let addr = addr.parse().expect("an address is printed");
        Self { child, addr, _stdout: stdout, stderr }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().expect("kill runs").success());
    }

    /// Ends it by SIGTERM: its exit code, and its stderr.
    fn stop(mut self) -> (Option<i32>, String) {
        self.signal("-TERM");
        let status = self.child.wait().expect("it was started here");
        (status.code(), self.stderr.join().expect("the reader does not panic"))
    }

    /// Status and body of one request.
    fn ask(&self, request: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.addr).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers in text");
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line");
        (status, answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned()))
    }

    fn chat(&self, key: &str, model: &str) -> (u16, String) {
        let body = format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"Hi"}}]}}"#);
        self.ask(&format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\nconnection: close\r\nauthorization: Bearer {key}\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        ))
    }

    fn get(&self, path: &str) -> (u16, String) {
        self.ask(&format!("GET {path} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n"))
    }

    fn eventually(&self, what: &str, wanted: impl Fn(&Self) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !wanted(self) {
            assert!(Instant::now() < until, "waited in vain for {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Checks the exit code and stderr of a run.
#[track_caller]
fn check(output: &Output, code: i32, said: &[&str]) {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    for wanted in said {
        assert!(stderr.contains(wanted), "{wanted:?} is not in: {stderr}");
    }
}

#[test]
fn without_a_file_the_demo_answers_with_the_key_it_prints() {
    let demo = Place::empty().serve(&[]);
    // The banner on stderr is complete only when the process ends: the key is taken from a second run's text.
    assert_eq!(demo.get("/readyz").0, 200);
    assert_eq!(demo.chat("wrong", "auto").0, 401);
    let (code, said) = demo.stop();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("admin token  twa_") && said.contains("key          tw_demo_"), "{said}");
    assert!(said.lines().take_while(|line| !line.starts_with('{')).all(|line| line.len() < 80), "{said}");
}

/// The printed commands that follow the line that begins with `after`, up to the one that begins with `before`.
fn printed_commands(said: &str, after: &str, before: &str) -> String {
    let lines = said.lines().skip_while(|line| !line.starts_with(after)).take_while(|line| !line.starts_with(before));
    let commands = lines.filter(|line| ["export ", "curl ", "  -"].iter().any(|begin| line.starts_with(begin)));
    commands.map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_printed_curl_snippets_work_as_pasted() {
    let place = Place::empty();
    let mut command = place.command(&["serve"]);
    command.env_remove("TIERWAY__TELEMETRY__METRICS").stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    let mut lines = BufReader::new(child.stderr.take().expect("stderr is piped")).lines();
    let mut said = String::new();
    for line in lines.by_ref().map(|line| line.expect("stderr is text")) {
        said.extend([&line, "\n"]);
        if line.starts_with("Stop:") {
            break;
        }
    }
    let drained = std::thread::spawn(move || lines.count());
    let paste = |commands: String| {
        let output =
            Command::new("sh").arg("-c").arg(commands.replace("curl ", "curl -sS ")).output().expect("sh runs");
        text(&output.stdout) + &text(&output.stderr)
    };
    let answer = paste(printed_commands(&said, "# Paste this", "# Or,"));
    let commands = printed_commands(&said, "# Its metrics", "Stop:");
    let refused = paste(commands.replace("Bearer $TIERWAY_ADMIN_TOKEN", "Bearer wrong"));
    let metrics = paste(commands);
    let _ = Command::new("kill").arg(child.id().to_string()).status();
    child.wait().expect("it was started here");
    drained.join().expect("the reader does not panic");
    assert!(answer.contains(r#""finish_reason":"stop""#), "{answer}");
    assert!(metrics.contains("tierway_build_info"), "{metrics}");
    assert!(refused.contains("invalid_token") && !refused.contains("tierway_"), "{refused}");
}

#[test]
fn as_many_files_may_be_open_as_the_process_may_ask_for() {
    let place = Place::empty();
    let command = place.command(&["serve"]);
    let program = command.get_program().to_owned();
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -S -n 100; exec \"$0\" serve"]).arg(program).current_dir(place.0.path()).env_clear();
    limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(Stdio::null());
    let running = Running::start(limited);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", running.child.id())).expect("it runs");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("Linux limits open files");
    let numbers: Vec<&str> = line.split_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers[0], numbers[1], "soft and hard: {line}");
    assert_eq!(running.stop().0, Some(0));
}

#[test]
fn a_file_serves_its_own_keys() {
    let gateway = Place::with(CONFIG).serve(&["serve", "--config", "tierway.toml"]);
    let (status, body) = gateway.chat(APP_KEY, "acme/small");
    assert_eq!(status, 200, "{body}");
    assert_eq!(gateway.chat("tw_other", "acme/small").0, 401);
    let (code, said) = gateway.stop();
    assert_eq!(code, Some(0));
    assert!(!said.contains(APP_KEY), "a configured key is never printed");
}

#[test]
fn problems_are_all_printed_and_exit_with_78() {
    let place =
        Place::with("[serverr]\n[models.m]\ndeployments = [{ provider = \"gone\" }]\n[routing]\nidle = \"soon\"\n");
    for args in [&["check"][..], &["serve"], &["config", "show"]] {
        check(&place.run(args), 78, &["serverr", "gone", "soon", "tierway.toml:"]);
    }
}

#[test]
fn what_is_not_built_is_refused_unless_allowed() {
    let place = Place::with(&format!("{CONFIG}\n[telemetry]\notlp = \"http://127.0.0.1:4318\"\n"));
    check(&place.run(&["serve"]), 78, &["not yet enforced", "telemetry.otlp", "--allow-unenforced"]);
    let gateway = place.serve(&["serve", "--allow-unenforced"]);
    assert_eq!(gateway.chat(APP_KEY, "acme/small").0, 200);
    let (status, body) = gateway.get("/readyz");
    assert_eq!((status, body.as_str()), (200, "{\"not_yet_enforced\":[\"telemetry.otlp\"],\"status\":\"ready\"}\n"));
    let (_, said) = gateway.stop();
    assert!(said.contains("not yet enforced"), "{said}");
}

#[test]
fn a_file_has_a_database_beside_it_and_the_demo_a_temporary_one() {
    let place = Place::with(CONFIG);
    let gateway = place.serve(&["serve"]);
    assert_eq!(gateway.chat(APP_KEY, "acme/small").0, 200);
    let (_, said) = gateway.stop();
    assert!(!said.contains("in memory only"), "{said}");
    let usage = place.run(&["usage", "--csv"]);
    assert!(String::from_utf8_lossy(&usage.stdout).contains("\napp,1,"), "{usage:?}");
    let demo = Place::empty();
    let (_, said) = demo.serve(&["serve"]).stop();
    assert!(said.contains("Receipts are kept until this demo stops"), "{said}");
    assert_eq!(std::fs::read_dir(demo.0.path()).expect("it is there").count(), 0);
    let mut kept = demo.command(&["serve"]);
    let (_, said) = Running::start({
        kept.env("TIERWAY__STORE__URL", "sqlite:demo.db");
        kept
    })
    .stop();
    assert!(!said.contains("Receipts are kept"), "{said}");
    assert!(demo.0.path().join("demo.db").exists());
    let mut forgetful = demo.command(&["serve"]);
    forgetful.env("TIERWAY__STORE__URL", "memory:");
    let (_, said) = Running::start(forgetful).stop();
    assert!(said.contains("Receipts are kept in memory only"), "{said}");
}

#[test]
fn a_port_in_use_exits_with_69_and_says_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let place = Place::with(CONFIG);
    let output = place.command(&["serve"]).env("TIERWAY__SERVER__LISTEN", &address).output().expect("it starts");
    check(&output, 69, &[&address, "in use"]);
}

#[test]
fn without_keys_it_serves_loopback_only() {
    let (keyless, _) = CONFIG.split_once("[[keys]]").expect("the configuration has a key");
    let place = Place::with(keyless);
    let mut open = place.command(&["serve"]);
    open.env("TIERWAY__SERVER__LISTEN", "0.0.0.0:0").env("TIERWAY__SERVER__ADMIN_TOKEN", "twa_for_tests");
    check(&open.output().expect("it starts"), 78, &["no key is configured", "[[keys]]"]);
    let (_, said) = place.serve(&["serve"]).stop();
    assert!(said.contains("key          tw_demo_"), "{said}");
}

#[test]
fn a_changed_file_and_a_hangup_reload_and_a_bad_file_changes_nothing() {
    let place = Place::with(CONFIG);
    let gateway = place.serve(&["serve"]);
    let reloads = |result: &str| format!("tierway_config_reloads_total{{result=\"{result}\"}} ");
    let count = |gateway: &Running, result: &str| {
        let (_, metrics) = gateway.get("/metrics");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&reloads(result)).map(str::to_owned));
        line.and_then(|value| value.parse::<u64>().ok()).unwrap_or(0)
    };
    assert_eq!(gateway.chat(APP_KEY, "acme/large").0, 404);
    place.write(&CONFIG.replace("acme/small", "acme/large"));
    gateway.eventually("the new model", |gateway| gateway.chat(APP_KEY, "acme/large").0 == 200);
    place.write("[nonsense");
    gateway.eventually("the bad file to be reported", |gateway| count(gateway, "failed") == 1);
    assert_eq!(gateway.chat(APP_KEY, "acme/large").0, 200, "the old configuration stays");
    place.write(&format!("{CONFIG}\n[telemetry]\nlog = \"debug\"\n"));
    gateway.signal("-HUP");
    gateway.eventually("the old model back", |gateway| gateway.chat(APP_KEY, "acme/small").0 == 200);
    gateway.eventually("the third reload to be counted", |gateway| count(gateway, "ok") == 2);
    // A refusal is logged at this level.
    (0..5).for_each(|_| assert_eq!(gateway.chat(APP_KEY, "acme/none").0, 404));
    let (code, said) = gateway.stop();
    assert_eq!(code, Some(0));
    assert!(said.contains("the configuration was not reloaded"), "{said}");
    assert!(said.contains("\"level\":\"DEBUG\""), "the new log level applies");
}

#[test]
fn a_gateway_reports_its_own_health() {
    let place = Place::with(CONFIG);
    let gateway = place.serve(&["serve"]);
    let address = gateway.addr.to_string();
    let healthy = place.run(&["healthcheck", "--listen", &address]);
    assert_eq!(healthy.status.code(), Some(0), "{}", text(&healthy.stdout));
    gateway.stop();
    let gone = place.run(&["healthcheck", "--listen", &address]);
    check(&gone, 1, &[&address]);
}

/// [`CONFIG`] over TLS, with a certificate that ends on the first of January of `year`.
fn place_with_tls(year: i32) -> Place {
    let place = Place::empty();
    let key = rcgen::KeyPair::generate().expect("rcgen makes keys");
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name");
    params.not_before = rcgen::date_time_ymd(1999, 1, 1);
    params.not_after = rcgen::date_time_ymd(year, 1, 1);
    let cert = params.self_signed(&key).expect("rcgen can sign").pem();
    let file = |name: &str, text: &str| {
        let path = place.0.path().join(name);
        std::fs::write(&path, text).expect("the directory can be written");
        format!("file:{}", path.display())
    };
    let (cert, key) = (file("tls.crt", &cert), file("tls.key", &key.serialize_pem()));
    place.write(&format!("[server]\ntls = {{ cert = \"{cert}\", key = \"{key}\" }}\n{CONFIG}"));
    place
}

#[test]
fn a_gateway_that_serves_tls_reports_it_and_its_own_health() {
    let place = place_with_tls(2000);
    let gateway = place.serve(&["serve"]);
    let address = gateway.addr.to_string();
    let healthy = place.run(&["healthcheck", "--listen", &address]);
    check(&healthy, 0, &[]);
    let unhealthy = place.run(&["healthcheck", "--listen", &address, "--path", "/nowhere"]);
    assert_eq!(unhealthy.status.code(), Some(1), "{}", text(&unhealthy.stdout));
    let (status, said) = gateway.get("/healthz");
    assert_eq!((status, said.contains("https://")), (400, true), "{said}");
    let (code, said) = gateway.stop();
    assert_eq!(code, Some(0));
    assert!(said.contains(&format!("Tierway is serving at https://{address}/v1")), "{said}");
    assert!(said.contains("the certificate expired"), "{said}");
}

#[test]
fn a_certificate_that_expired_is_a_warning_with_advice() {
    check(&place_with_tls(9999).run(&["check"]), 0, &[]);
    let output = place_with_tls(2000).run(&["check"]);
    check(&output, 0, &["warning: server.tls.cert: the certificate expired ", " days ago", "renew it"]);
    assert!(text(&output.stdout).contains("OK"), "{}", text(&output.stdout));
}

#[test]
fn what_is_wrong_with_a_certificate_is_reported_with_its_place() {
    let place = place_with_tls(9999);
    let path = |name: &str| place.0.path().join(name);
    let other = place_with_tls(9999);
    std::fs::copy(other.0.path().join("tls.key"), path("tls.key")).expect("it is there");
    check(&place.run(&["check"]), 78, &["server.tls.key: does not belong to the certificate", "tierway.toml:2:"]);
    std::fs::write(path("tls.crt"), "no certificate").expect("it can be written");
    check(&place.run(&["serve"]), 78, &["server.tls.cert: holds no certificate", "fullchain.pem"]);
    std::fs::remove_file(path("tls.key")).expect("it is there");
    check(&place.run(&["check"]), 78, &["server.tls.key: cannot read", "tls.key", "check the path"]);
}

#[test]
fn a_hangup_ends_neither_the_demo_nor_a_gateway_with_a_file() {
    for place in [Place::empty(), Place::with(CONFIG)] {
        let gateway = place.serve(&["serve"]);
        for hangups in 1..=2 {
            gateway.signal("-HUP");
            let counted = format!("tierway_config_reloads_total{{result=\"ok\"}} {hangups}\n");
            gateway.eventually("the reload to be counted", |gateway| gateway.get("/metrics").1.contains(&counted));
        }
        assert_eq!(gateway.stop().0, Some(0));
    }
}

#[test]
fn the_version_and_wrong_usage() {
    let place = Place::empty();
    let version = place.run(&["version"]);
    assert_eq!(text(&version.stdout), format!("tierway {}\n", env!("CARGO_PKG_VERSION")));
    check(&place.run(&["serv"]), 2, &["serve"]);
}

/// [`CONFIG`] with a model whose provider refuses our credential.
fn place_with_a_refusing_provider() -> Place {
    let provider = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let url = format!("http://{}/v1", provider.local_addr().expect("it is bound"));
    // It ends with the test's process.
    std::thread::spawn(move || {
        for stream in provider.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream);
            let mut length = 0;
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().expect("a length");
                }
                line.clear();
            }
            let mut body = vec![0; length];
            let _ = reader.read_exact(&mut body);
            let said = r#"{"error":{"message":"Incorrect API key provided"}}"#;
            let _ = write!(
                reader.get_mut(),
                "HTTP/1.1 401 Unauthorized\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
                 connection: close\r\n\r\n{said}",
                said.len()
            );
        }
    });
    Place::with(&format!(
        "{CONFIG}\n[providers.refusing]\nprotocol = \"openai\"\nbase_url = \"{url}\"\ncredential = \"env:BROKEN_KEY\"\n\
         [models.broken]\ndeployments = [{{ provider = \"refusing\" }}]\n"
    ))
}

const BROKEN_KEY: &str = "sk-canary-refused";
const OPERATOR: &str = "twa_canary_operator";

fn with_tokens(mut command: Command) -> Command {
    command.env("BROKEN_KEY", BROKEN_KEY).env("TIERWAY_ADMIN_TOKEN", OPERATOR);
    command
}

#[test]
fn the_status_of_a_running_gateway_says_whose_fault_it_is() {
    let place = place_with_a_refusing_provider();
    let gateway = Running::start(with_tokens(place.command(&["serve"])));
    let url = format!("http://{}", gateway.addr);
    let status = |args: &[&str]| {
        let mut command = with_tokens(place.command(&["status", "--url", &url]));
        let output = command.args(args).output().expect("the binary starts");
        assert!(!text(&output.stdout).contains(BROKEN_KEY) && !text(&output.stdout).contains(OPERATOR));
        output
    };
    let well = status(&["--check"]);
    check(&well, 0, &[]);
    assert!(text(&well.stdout).contains("all get their traffic"), "{}", text(&well.stdout));
    (0..2).for_each(|_| assert_eq!(gateway.chat(APP_KEY, "broken").0, 502));
    let broken = status(&["--check"]);
    check(&broken, 2, &[]);
    let shown = text(&broken.stdout);
    for wanted in ["1 of 2", "refusing/broken", "resting", "BROKEN_KEY at http://127.0.0.1", "Incorrect API key"] {
        assert!(shown.contains(wanted), "{wanted:?} is not in: {shown}");
    }
    check(&status(&[]), 0, &[]);
    let object: serde_json::Value = serde_json::from_slice(&status(&["--json"]).stdout).expect("JSON");
    assert_eq!((&object["object"], &object["flows"]), (&"status".into(), &false.into()));
    assert_eq!(object["deployments"][1]["credentials"][0]["name"], "BROKEN_KEY");

    // Beside the gateway, its configuration has address and token.
    let mut beside = with_tokens(place.command(&["status"]));
    check(&beside.output().expect("it starts"), 1, &["--url"]);
    beside.env("TIERWAY__SERVER__LISTEN", gateway.addr.to_string());
    check(&beside.output().expect("it starts"), 0, &[]);
    let refused = with_tokens(place.command(&["status", "--url", &url, "--token", "wrong"])).output();
    check(&refused.expect("it starts"), 1, &["refuses the token", "TIERWAY_ADMIN_TOKEN"]);
    let (_, said) = gateway.stop();
    for wanted in ["\"credential\":\"BROKEN_KEY\"", "\"provider\":\"refusing\"", "Incorrect API key", "it rests"] {
        assert!(said.contains(wanted), "{wanted:?} is not in: {said}");
    }
    check(&status(&[]), 1, &["no gateway answers", "is it running"]);
}

#[test]
fn the_status_is_watched_block_by_block() {
    let place = place_with_a_refusing_provider();
    let gateway = Running::start(with_tokens(place.command(&["serve"])));
    let url = format!("http://{}", gateway.addr);
    let watch = |args: &[&str], lines: usize| {
        let mut command = with_tokens(place.command(&["status", "--url", &url, "--watch"]));
        let mut child = command.args(args).stdout(Stdio::piped()).spawn().expect("the binary starts");
        let output = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let read: Vec<String> = output.lines().take(lines).map(|line| line.expect("stdout is text")).collect();
        // Its reader has left: the next block ends it.
        assert_eq!(child.wait().expect("it was started here").code(), Some(0));
        read
    };
    let objects = watch(&["--json"], 2);
    assert!(objects.iter().all(|line| line.starts_with('{') && line.ends_with('}')), "{objects:?}");
    // A line that sums up, a blank one, the heads, two deployments, and a blank line after the block.
    let blocks = watch(&[], 8);
    assert!(blocks[0].contains("2 deployments") && blocks[6] == blocks[0], "{blocks:#?}");
    assert!(blocks[5].is_empty() && !blocks.concat().contains('\x1b'), "{blocks:#?}");
    gateway.stop();
}

#[test]
fn the_status_trusts_the_certificate_of_the_configuration() {
    let place = place_with_tls(2100);
    let gateway = Running::start(with_tokens(place.command(&["serve"])));
    let mut beside = with_tokens(place.command(&["status"]));
    beside.env("TIERWAY__SERVER__LISTEN", gateway.addr.to_string());
    check(&beside.output().expect("it starts"), 0, &[]);
    let elsewhere = Place::empty();
    let url = format!("https://{}", gateway.addr);
    let output = with_tokens(elsewhere.command(&["status", "--url", &url])).output().expect("it starts");
    check(&output, 1, &["no gateway answers", "certificate"]);
    gateway.stop();
}
