//! Addresses beside an IP address and a port: socket files, `localhost`, every interface, and `serve --listen`.

use super::{APP_KEY, CONFIG, PATIENCE, Place, Running, check, text, with_tokens};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

/// A gateway that serves a socket file.
struct AtFile {
    child: Child,
    path: PathBuf,
    _stdout: BufReader<ChildStdout>,
}

impl AtFile {
    /// Starts it and waits until it says where it listens.
    fn start(place: &Place, args: &[&str], path: &Path) -> Self {
        Self::started(place.command(args), path)
    }

    fn started(mut command: Command, path: &Path) -> Self {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(path.with_extension("log"));
        let mut child = command.stdout(Stdio::piped()).stderr(log.expect("a log")).spawn().expect("the binary starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("stdout is text");
        assert_eq!(line, format!("listening on unix:{}\n", path.display()), "{}", said(path));
        Self { child, path: path.to_owned(), _stdout: stdout }
    }

    fn chat(&self) -> u16 {
        let body = r#"{"model":"acme/small","messages":[{"role":"user","content":"Hi"}]}"#;
        let mut stream = UnixStream::connect(&self.path).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\nconnection: close\r\nauthorization: Bearer {APP_KEY}\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers in text");
        answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line")
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().expect("kill runs").success());
    }

    fn stop(mut self, name: &str) {
        self.signal(name);
        self.until_ended();
    }

    fn until_ended(&mut self) {
        let until = Instant::now() + PATIENCE;
        while self.child.try_wait().expect("it was started here").is_none() {
            assert!(Instant::now() < until, "it does not end: {}", said(&self.path));
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// What the gateways at `path` have said so far.
fn said(path: &Path) -> String {
    std::fs::read_to_string(path.with_extension("log")).unwrap_or_default()
}

fn socket_of(place: &Place) -> (PathBuf, String) {
    let path = place.0.path().join("tierway.sock");
    let address = format!("unix:{}", path.display());
    (path, address)
}

#[test]
fn a_socket_file_is_served_to_its_owner_alone() {
    let (keyed, keyless) = (Place::with(CONFIG), Place::with(CONFIG.split_once("[[keys]]").expect("a key").0));
    let (path, address) = socket_of(&keyed);
    let gateway = AtFile::start(&keyed, &["serve", "--listen", &address], &path);
    assert_eq!(path.metadata().expect("it is there").permissions().mode() & 0o777, 0o600);
    assert_eq!(gateway.chat(), 200);
    check(&keyed.run(&["healthcheck", "--listen", &address]), 0, &[]);
    // A second one is refused, and the first one still serves.
    check(&keyed.run(&["serve", "--listen", &address]), 69, &["tierway"]);
    let elsewhere = Place::with(CONFIG);
    check(&elsewhere.run(&["serve", "--listen", &address]), 69, &[&address, "Another process listens there"]);
    assert_eq!(gateway.chat(), 200);
    gateway.stop("-TERM");
    assert!(!path.exists(), "a gateway that ends takes its file away");
    check(&keyed.run(&["healthcheck", "--listen", &address]), 1, &[&address]);
    // Like loopback it needs neither a key nor an admin token of the file.
    let (path, address) = socket_of(&keyless);
    AtFile::start(&keyless, &["serve", "--listen", &address], &path).stop("-TERM");
    let banner = said(&path);
    assert!(banner.contains(&format!("Tierway is serving at {address}")), "{banner}");
    assert!(banner.contains(&format!("curl --unix-socket '{}'", path.display())), "{banner}");
}

#[test]
fn the_file_of_a_killed_gateway_is_replaced_and_other_files_are_not() {
    let place = Place::with(CONFIG);
    let (path, address) = socket_of(&place);
    AtFile::start(&place, &["serve", "--listen", &address], &path).stop("-KILL");
    assert!(path.exists(), "nobody took it away");
    AtFile::start(&place, &["serve", "--listen", &address], &path).stop("-TERM");
    std::fs::write(&path, "precious").expect("it can be written");
    check(&place.run(&["serve", "--listen", &address]), 69, &["a file that is no socket", "left as it is"]);
    assert_eq!(std::fs::read_to_string(&path).expect("it is there"), "precious");
    for nowhere in [format!("{address}/s"), format!("unix:{}", place.0.path().join("none/s").display())] {
        check(&place.run(&["serve", "--listen", &nowhere]), 69, &[&nowhere, "There is no such folder"]);
    }
}

#[test]
fn the_status_is_asked_by_the_socket_file() {
    let place = Place::with(CONFIG);
    let (path, address) = socket_of(&place);
    let mut serve = with_tokens(place.command(&["serve"]));
    serve.env("TIERWAY__SERVER__LISTEN", &address);
    let gateway = AtFile::started(serve, &path);
    let beside = with_tokens(place.command(&["status"])).env("TIERWAY__SERVER__LISTEN", &address).output();
    check(&beside.expect("it starts"), 0, &[]);
    let elsewhere = Place::empty();
    let shown = with_tokens(elsewhere.command(&["status", "--url", &address])).output().expect("it starts");
    check(&shown, 0, &[]);
    assert!(text(&shown.stdout).contains("1 deployment"), "{}", text(&shown.stdout));
    gateway.stop("-TERM");
    let gone = with_tokens(elsewhere.command(&["status", "--url", &address])).output().expect("it starts");
    check(&gone, 1, &["no gateway answers at", &address]);
}

#[test]
fn a_successor_takes_over_a_socket_file() {
    let place = Place::with(&format!("{CONFIG}\n[store]\nurl = \"memory:\"\n"));
    let (path, address) = socket_of(&place);
    let mut first = AtFile::start(&place, &["serve", "--listen", &address], &path);
    assert!(path.with_extension("sock.take-over").exists(), "it is asked beside the socket");
    let second = AtFile::start(&place, &["serve", "--take-over", "--listen", &address], &path);
    first.until_ended();
    assert_eq!(second.chat(), 200, "{}", said(&path));
    assert!(said(&path).contains("took over"), "{}", said(&path));
    second.stop("-TERM");
    // Whoever comes next replaces what is left.
    let third = AtFile::start(&place, &["serve", "--listen", &address], &path);
    assert_eq!(third.chat(), 200);
    third.stop("-TERM");
}

#[test]
fn a_socket_file_of_a_service_manager_is_served_and_left() {
    let place = Place::with(CONFIG);
    let (path, address) = socket_of(&place);
    let held = UnixListener::bind(&path).expect("the directory can be written");
    for _ in 0..2 {
        let mut command = Command::new("/bin/sh");
        let script = r#"exec 3<&0 0</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$0" serve --listen "$1""#;
        command.args(["-c", script, env!("CARGO_BIN_EXE_tierway"), &address]).current_dir(place.0.path());
        command
            .env_clear()
            .env("APP_KEY", APP_KEY)
            .stdin(std::os::fd::OwnedFd::from(held.try_clone().expect("one more")));
        let gateway = AtFile::started(command, &path);
        assert_eq!(gateway.chat(), 200);
        gateway.stop("-TERM");
        assert!(path.exists(), "it is not the gateway's");
    }
}

#[test]
fn the_command_line_names_the_address() {
    let place = Place::with(&format!("[server]\nlisten = \"192.0.2.1:1\"\n{CONFIG}"));
    let local = place.serve(&["serve", "--listen", "localhost:0"]);
    assert!(local.addr.ip().is_loopback(), "{}", local.addr);
    assert_eq!(local.chat(APP_KEY, "acme/small").0, 200);
    local.signal("-HUP");
    local.eventually("the reload to be counted", |gateway| {
        gateway.get("/metrics").1.contains("tierway_config_reloads_total{result=\"ok\"} 1\n")
    });
    let (_, said) = local.stop();
    assert!(!said.contains("keeps its old value"), "a reload sees the command line too: {said}");
    let mut command = place.command(&["serve", "--listen", ":0"]);
    command.env("TIERWAY_ADMIN_TOKEN", "twa_for_tests");
    let every = Running::start(command);
    assert!(every.addr.ip().is_unspecified(), "{}", every.addr);
    let port = every.addr.port();
    std::net::TcpStream::connect(("127.0.0.1", port)).expect("IPv4 is served");
    for address in [format!(":{port}"), format!("[::]:{port}"), format!("localhost:{port}")] {
        let asked = place.run(&["healthcheck", "--listen", &address]);
        // A machine without IPv6 is asked over IPv4 alone.
        assert!(asked.status.success() || !every.addr.is_ipv6(), "{address}: {asked:?}");
    }
    every.stop();
    if std::net::TcpListener::bind("[::1]:0").is_ok() {
        let six = place.serve(&["serve", "--listen", "[::1]:0"]);
        assert!(six.addr.is_ipv6() && six.chat(APP_KEY, "acme/small").0 == 200, "{}", six.addr);
        six.stop();
    }
    // What is checked of the setting is checked of it.
    check(&place.run(&["serve", "--listen", ":0"]), 78, &["operators can be reached here", "admin_token"]);
    check(&place.run(&["serve", "--listen", "gateway.example:80"]), 2, &["names are not looked up"]);
    check(&place.run(&["serve", "--listen", "unix:x.sock"]), 2, &["no absolute path"]);
}
