//! `tierway drill --against`: a drill at a second gateway, which the tests start, and what is left there afterwards.

use super::{APP_KEY, Place, Running, check};
use serde_json::Value;
use std::process::{Child, Output, Stdio};
use std::time::Instant;

const OPERATOR: &str = "twa_drill_operator";
const VIEWER: &str = "twv_drill_viewer";

/// Two regions, of which `us-east` is asked first.
const STAGING: &str = r#"
[server]
viewer_token = "env:VIEWER"

[providers.east]
protocol    = "sim"
region      = "us-east"
first_token = "10ms"

[providers.west]
protocol    = "sim"
region      = "us-west"
first_token = "10ms"

[models.small]
deployments = [{ provider = "east" }, { provider = "west" }]

[policies.standard]
models = ["small"]

[[keys]]
name   = "app"
policy = "standard"
secret = "env:APP_KEY"

[drill]
enabled = true
"#;

/// A gateway in staging, and what asks it.
struct Staging {
    place: Place,
    gateway: Running,
}

impl Staging {
    fn start(config: &str) -> Self {
        let place = Place::with(config);
        let mut command = place.command(&["serve"]);
        command.env("TIERWAY_ADMIN_TOKEN", OPERATOR).env("VIEWER", VIEWER);
        let gateway = Running::start(command);
        Self { place, gateway }
    }

    fn command(&self, args: &[&str]) -> std::process::Command {
        let url = format!("http://{}", self.gateway.addr);
        let mut command = self.place.command(&[&["drill", "--against", &url], args].concat());
        command.env("TIERWAY_ADMIN_TOKEN", OPERATOR).env("TIERWAY_API_KEY", APP_KEY);
        command
    }

    fn drill(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the drill ends")
    }

    /// A drill that runs.
    fn begin(&self, args: &[&str]) -> Child {
        let mut command = self.command(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts")
    }

    fn list(&self, path: &str) -> Vec<Value> {
        let (status, body) = self.gateway.ask(&format!(
            "GET /admin/v1/{path} HTTP/1.1\r\nhost: t\r\nconnection: close\r\nauthorization: Bearer {VIEWER}\r\n\r\n"
        ));
        assert_eq!(status, 200, "{body}");
        let answer: Value = serde_json::from_str(&body).expect("JSON");
        answer["data"].as_array().expect("a list").clone()
    }

    fn faults(&self) -> Vec<Value> {
        self.list("faults")
    }

    /// The fault that a drill injects, once it has.
    fn first_fault(&self) -> Value {
        self.gateway.eventually("a fault", |_| !self.faults().is_empty());
        self.faults().remove(0)
    }
}

/// Beside each other: most of a drill is waiting.
#[test]
fn faults_end_with_the_drill_that_injected_them() {
    std::thread::scope(|scope| {
        scope.spawn(a_drill_at_a_running_gateway_is_seen_there_and_leaves_nothing);
        scope.spawn(a_drill_that_is_interrupted_ends_its_faults);
        scope.spawn(a_drill_that_is_killed_leaves_only_what_ends_by_itself);
    });
}

fn a_drill_at_a_running_gateway_is_seen_there_and_leaves_nothing() {
    let staging = Staging::start(STAGING);
    let running = staging.begin(&["region-down", "--region", "us-east", "--model", "small", "--rate", "20", "--json"]);
    let fault = staging.first_fault();
    assert_eq!((&fault["kind"], &fault["region"], &fault["share"]), (&"refuse".into(), &"us-east".into(), &100.into()));
    let output = running.wait_with_output().expect("it was started here");
    let printed: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    check(&output, i32::from(printed["passed"] != true), &["region-down: us-east"]);
    assert_eq!(printed["gateway"], format!("http://{}/", staging.gateway.addr), "{printed:#}");
    let scenario = &printed["scenarios"][0];
    let checks = scenario["checks"].as_array().expect("a list");
    let of = |name: &str| checks.iter().find(|check| check["check"] == name);
    assert_eq!(of("failed requests").expect("it is judged")["verdict"], "pass", "{scenario:#}");
    // It was met, and the region serves again.
    assert_eq!(of("recovery: the region serves again after").expect("it is judged")["verdict"], "pass", "{scenario:#}");
    assert!(of("time to route around, p99").expect("it is judged")["measured"].is_u64(), "{scenario:#}");
    assert!(of("budgets overspent").is_none(), "it is not known from outside");
    assert_eq!(staging.faults(), [Value::Null; 0]);
    let rows = staging.list("audit?kind=fault");
    let rows: Vec<_> = rows.iter().map(|row| format!("{} {}", row["command"], row["name"])).collect();
    assert_eq!(rows, ["\"end_fault\" \"region us-east\"", "\"inject_fault\" \"region us-east\""]);
    staging.gateway.stop();
}

fn a_drill_that_is_interrupted_ends_its_faults() {
    let staging = Staging::start(STAGING);
    let running = staging.begin(&["black-hole", "--model", "small"]);
    staging.first_fault();
    let pid = running.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().expect("kill runs").success());
    let output = running.wait_with_output().expect("it was started here");
    check(&output, 1, &["interrupted, and left nothing behind"]);
    assert_eq!(staging.faults(), [Value::Null; 0]);
    staging.gateway.stop();
}

fn a_drill_that_is_killed_leaves_only_what_ends_by_itself() {
    let staging = Staging::start(STAGING);
    let mut running = staging.begin(&["brown-out", "--model", "small"]);
    let injected = Instant::now();
    staging.first_fault();
    running.kill().expect("it runs");
    running.wait().expect("it ended");
    assert_eq!(staging.faults().len(), 1, "nobody ended it");
    staging.gateway.eventually("the end of the fault", |_| staging.faults().is_empty());
    println!("the fault was gone {} ms after the drill began", injected.elapsed().as_millis());
    let rows = staging.list("audit?kind=fault");
    assert_eq!(rows.len(), 1, "it ended by itself: {rows:?}");
    staging.gateway.stop();
}

#[test]
fn where_no_drill_can_be_made_it_says_so() {
    let staging = Staging::start(STAGING);
    let refused = |args: &[&str], change: fn(&mut std::process::Command), code: i32, says: &[&str]| {
        let mut command = staging.command(args);
        change(&mut command);
        check(&command.output().expect("it ends"), code, says);
    };
    let model: &[&str] = &["region-down", "--model", "small"];
    let nothing: fn(&mut std::process::Command) = |_| {};
    refused(
        model,
        |command| {
            command.env("TIERWAY_ADMIN_TOKEN", VIEWER);
        },
        1,
        &["viewer token", "admin token"],
    );
    refused(
        model,
        |command| {
            command.env("TIERWAY_ADMIN_TOKEN", "wrong");
        },
        1,
        &["refuses the token"],
    );
    refused(
        model,
        |command| {
            command.env_remove("TIERWAY_ADMIN_TOKEN");
        },
        2,
        &["--token"],
    );
    refused(
        model,
        |command| {
            command.env_remove("TIERWAY_API_KEY");
        },
        2,
        &["--key"],
    );
    refused(
        model,
        |command| {
            command.env("TIERWAY_API_KEY", "tw_wrong");
        },
        1,
        &["refuses the key"],
    );
    refused(&["region-down"], nothing, 2, &["--model NAME", "small"]);
    refused(&["region-down", "--model", "large"], nothing, 2, &["may not use large", "small"]);
    refused(&["region-down", "--model", "small", "--region", "mars"], nothing, 2, &["us-east, us-west"]);
    refused(&["burst-10x", "--model", "small"], nothing, 2, &["burst-10x cannot be rehearsed at a running gateway"]);
    assert_eq!(staging.list("audit?kind=fault"), [Value::Null; 0], "nothing was injected");
    staging.gateway.stop();
}

#[test]
fn a_gateway_that_is_closed_gone_or_broken_already_is_not_rehearsed_at() {
    let staging = Staging::start(STAGING);
    let model: &[&str] = &["region-down", "--model", "small"];
    let closed = Staging::start(&STAGING.replace("enabled = true", "enabled = false"));
    check(&closed.drill(model), 1, &["lets no faults be injected", "[drill] enabled = true"]);
    let url = format!("http://{}", closed.gateway.addr);
    closed.gateway.stop();
    let mut gone = staging.place.command(&["drill", "region-down", "--against", &url, "--model", "small"]);
    gone.env("TIERWAY_ADMIN_TOKEN", OPERATOR).env("TIERWAY_API_KEY", APP_KEY);
    check(&gone.output().expect("it ends"), 1, &["no gateway answers", "is it running"]);

    // Somebody else's faults would be judged too.
    let body = r#"{"kind":"refuse","region":"us-west","expires_in":"1m"}"#;
    let (status, answer) = staging.gateway.ask(&format!(
        "POST /admin/v1/faults HTTP/1.1\r\nhost: t\r\nconnection: close\r\nauthorization: Bearer {OPERATOR}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(status, 201, "{answer}");
    check(&staging.drill(model), 1, &["faults are in force", "DELETE /admin/v1/faults/1"]);
    assert_eq!(staging.faults().len(), 1, "it is not the drill's to end");
    staging.gateway.stop();
}
