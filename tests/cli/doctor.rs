//! `tierway doctor` on configurations that are broken in one way each: the fault is one line, with what to do.

use super::loopback::{Authority, ConnectProxy, TlsHost};
use super::providers::{provider, provider_with};
use super::{Place, check, text};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

const LIST: &str = r#"{"object":"list","data":[{"id":"listed"},{"id":"other"}]}"#;
const STREAM: &str = "\
data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"OK\"},\"finish_reason\":null}]}\n\n\
data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n\
data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":1,\"total_tokens\":10}}\n\n\
data: [DONE]\n\n";

/// A provider whose API is below `root`, for one credential.
fn at(root: &'static str) -> impl Fn(&str, &str) -> (u16, String) + Send {
    move |line, credential| {
        let path = line.split(' ').nth(1).and_then(|path| path.strip_prefix(root));
        match (path, credential) {
            (Some("/models"), "sk-good") => (200, LIST.to_owned()),
            (Some("/chat/completions"), "sk-good") => (200, STREAM.to_owned()),
            (_, "sk-good") => (404, r#"{"detail":"Not Found"}"#.to_owned()),
            (_, refused) => (401, format!(r#"{{"error":{{"message":"Incorrect API key provided: {refused}"}}}}"#)),
        }
    }
}

fn address(url: &str) -> SocketAddr {
    let authority = url.trim_start_matches("http://").split('/').next().expect("a URL has an authority");
    authority.parse().expect("providers here have addresses")
}

/// A model at the provider `p`, which has these further lines.
fn config(base_url: &str, more: &str) -> String {
    format!(
        "[providers.p]\nprotocol = \"openai\"\nbase_url = \"{base_url}\"\n{more}\n[models.m]\n\
         price = {{ input = \"1\", output = \"2\" }}\n\
         deployments = [{{ provider = \"p\", upstream_model = \"listed\" }}]\n"
    )
}

const GOOD: &str = "credential = \"env:GOOD_KEY\"";

fn examined(place: &Place, args: &[&str]) -> Output {
    let mut command = place.command(&[&["doctor"], args].concat());
    command.env("GOOD_KEY", "sk-good").env("BAD_KEY", "sk-canary-refused-4711");
    command.output().expect("the binary starts")
}

/// The only line about something broken, where the exit code says so.
#[track_caller]
fn broken(output: &Output) -> String {
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{shown}{}", text(&output.stderr));
    assert!(!shown.contains("canary"), "{shown}");
    let lines: Vec<&str> = shown.lines().filter(|line| line.contains("BROKEN")).collect();
    assert_eq!(lines.len(), 1, "one fault is one line: {shown}");
    lines[0].to_owned()
}

/// Examines a provider with this base URL and these lines; the one fault must be said with all of `expected`.
#[track_caller]
fn finds(base_url: &str, more: &str, expected: &[&str]) {
    let line = broken(&examined(&Place::with(&config(base_url, more)), &[]));
    for part in expected {
        assert!(line.contains(part), "{part:?} is not in: {line}");
    }
}

#[test]
fn what_is_in_order_is_said_with_what_it_cost() {
    let place = Place::with(&config(&provider(at("/v1")), GOOD));
    let output = examined(&place, &[]);
    check(&output, 0, &[]);
    let shown = text(&output.stdout);
    let line = |check: &str| shown.lines().find(|line| line.contains(check)).unwrap_or_default().to_owned();
    assert!(line(" credential ").contains("GOOD_KEY is accepted"), "{shown}");
    assert!(line(" models ").contains("2 listed"), "{shown}");
    let completion = line(" completion ");
    assert!(
        completion.contains("listed: first token after") && completion.contains("9 + 1 tokens, $0.000011"),
        "{shown}"
    );
    for checked in ["tcp", "configuration", "permissions", "store", "disk", "descriptors", "listen"] {
        assert!(!line(&format!(" {checked} ")).is_empty(), "{checked}: {shown}");
    }
    assert!(shown.ends_with(" in order\n"), "{shown}");
    // Nothing was made or changed.
    assert!(!place.config().with_file_name("tierway.db").exists());

    let output = examined(&place, &["--no-completion", "--json"]);
    check(&output, 0, &[]);
    let object: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON alone");
    let checks = object["checks"].as_array().expect("a list");
    assert_eq!(object["ok"], true);
    assert!(checks.iter().all(|row| row["check"] != "completion"), "{object}");
    let models = checks.iter().find(|row| row["check"] == "models").expect("it was looked at");
    assert_eq!((&models["about"], &models["verdict"]), (&"provider p".into(), &"ok".into()));
}

#[test]
fn a_wrong_credential_is_named() {
    let url = provider(at("/v1"));
    let expected =
        ["credential", "BAD_KEY is refused (401: Incorrect API key", "put a valid key of this provider into BAD_KEY"];
    finds(&url, "credential = \"env:BAD_KEY\"", &expected);
    finds(&url, "", &["credential", "a request without credential is refused", "write `credential = \"env:NAME\"`"]);
}

#[test]
fn a_base_url_with_v1_too_few_or_too_many_is_found() {
    let url = provider(at("/v1"));
    finds(url.trim_end_matches("/v1"), GOOD, &["base_url", &format!("write base_url = \"{url}\"")]);
    let url = provider(at("/openai"));
    let right = url.replace("/v1", "/openai");
    finds(&format!("{right}/v1"), GOOD, &["base_url", &format!("write base_url = \"{right}\"")]);
}

#[test]
fn a_model_that_the_provider_does_not_list_is_named() {
    let url = provider(at("/v1"));
    let misspelt = config(&url, GOOD).replace("\"listed\"", "\"lsited\"");
    let line = broken(&examined(&Place::with(&misspelt), &[]));
    assert!(line.contains("not listed: lsited; did you mean upstream_model = \"listed\"?"), "{line}");
    let other = config(&url, GOOD).replace("\"listed\"", "\"zzz\"");
    let line = broken(&examined(&Place::with(&other), &[]));
    assert!(line.contains("not listed: zzz; write upstream_model as it lists it: listed, other"), "{line}");
}

#[test]
fn a_name_without_an_address_and_a_port_without_a_server_are_named() {
    // No name server is asked for a label of more than 63 characters.
    let name = "x".repeat(64);
    finds(&format!("https://{name}.test/v1"), GOOD, &["dns", "check the host in base_url"]);
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    finds(&format!("https://{nobody}/v1"), GOOD, &["tcp", "refused", "is the port in base_url right?"]);
}

#[test]
fn a_certificate_that_is_not_trusted_is_named_with_its_fault() {
    let plain = address(&provider(at("/v1")));
    let (ours, other) = (Authority::new(), Authority::new());
    let place = Place::empty();
    let path = |name: &str, pem: String| {
        let path = place.config().with_file_name(name);
        std::fs::write(&path, pem).expect("the directory can be written");
        format!("{GOOD}\nca = \"file:{}\"", path.display())
    };
    let trusting = path("ours.pem", ours.pem());
    let url = |host: &TlsHost, name: &str| format!("https://{name}:{}/v1", host.at.port());
    let good = TlsHost::before(plain, &ours, "localhost", 2100);
    finds(&url(&good, "localhost"), GOOD, &["tls", "ca = \"file:/path/of/its.pem\""]);
    finds(&url(&good, "localhost"), &path("other.pem", other.pem()), &["tls", "not of the authority in `ca`"]);
    finds(&url(&good, "127.0.0.1"), &trusting, &["tls", "a name that its certificate is for"]);
    let ended = TlsHost::before(plain, &ours, "localhost", 2020);
    finds(&url(&ended, "localhost"), &trusting, &["tls", "renew its certificate"]);
    finds(&format!("https://{plain}/v1"), GOOD, &["tls", "write base_url with http://"]);
    // What is trusted says until when.
    place.write(&config(&url(&good, "localhost"), &trusting));
    let output = examined(&place, &[]);
    check(&output, 0, &[]);
    assert!(text(&output.stdout).contains("certificate until 2100-01-01"), "{}", text(&output.stdout));
}

#[test]
fn a_proxy_that_wants_another_password_is_named() {
    let plain = address(&provider(at("/v1")));
    let host = TlsHost::before(plain, &Authority::new(), "localhost", 2100);
    let proxy = ConnectProxy::start(Some("Basic Z2F0ZXdheTpwYXNzd29yZA=="));
    let url = format!("https://models.internal.test:{}/v1", host.at.port());
    let through = |proxy: SocketAddr| format!("{GOOD}\nproxy = \"http://{proxy}\"");
    finds(&url, &through(proxy.at), &["proxy", "407", "write user and password into the URL that `proxy` points to"]);
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    finds(&url, &through(nobody), &["tcp", "is the proxy running"]);
}

#[test]
fn a_clock_that_is_off_is_found_by_the_providers() {
    let url = provider_with("date: Sun, 06 Nov 1994 08:49:37 GMT\r\n", at("/v1"));
    finds(&url, GOOD, &["clock", "s ahead of the clocks of providers", "timedatectl set-ntp true"]);
}

#[test]
fn a_disk_with_too_little_room_is_named() {
    let place = Place::with(&config(&provider(at("/v1")), GOOD));
    let line = broken(&examined(&place, &["--min-free", "1073741823GiB"]));
    assert!(line.contains("disk") && line.contains("free for") && line.contains("make room"), "{line}");
}

#[test]
fn files_that_others_may_change_or_read_are_named() {
    let url = provider(at("/v1"));
    let place = Place::empty();
    let secret = place.config().with_file_name("secret");
    std::fs::write(&secret, "sk-good").expect("the directory can be written");
    place.write(&config(&url, &format!("credential = \"file:{}\"", secret.display())));
    let mode = |mode: u32| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&secret, permissions).expect("it is ours");
    };
    mode(0o646);
    let line = broken(&examined(&place, &[]));
    assert!(line.contains("permissions") && line.contains(&format!("chmod o-w {}", secret.display())), "{line}");
    mode(0o644);
    let output = examined(&place, &[]);
    check(&output, 0, &[]);
    assert!(text(&output.stdout).contains(&format!("chmod o-r {}", secret.display())), "{}", text(&output.stdout));
    mode(0o600);
    assert!(!text(&examined(&place, &[]).stdout).contains("chmod"));
    // A file of the database that no folder can hold.
    place.write(&format!("{}[store]\nurl = \"sqlite:/dev/null/tierway.db\"\n", config(&url, GOOD)));
    let line = broken(&examined(&place, &[]));
    assert!(line.contains("store") && line.contains("name another place in [store] url"), "{line}");
}

#[test]
fn a_port_that_another_program_has_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let at_port = taken.local_addr().expect("it is bound");
    // It answers nothing: no gateway of ours.
    std::thread::spawn(move || taken.incoming().for_each(drop));
    let place = Place::with(&config(&provider(at("/v1")), GOOD));
    let mut command = place.command(&["doctor"]);
    command.env("GOOD_KEY", "sk-good").env("TIERWAY__SERVER__LISTEN", at_port.to_string());
    let line = broken(&command.output().expect("the binary starts"));
    assert!(line.contains("listen") && line.contains("Another process listens there: stop it"), "{line}");
}
