//! `tierway drill`: its verdicts, its exit codes, and that it leaves nothing behind.

use super::terminal::{open_terminal, seen_in};
use super::*;
use serde_json::Value;

/// Two regions, and a policy that may use both.
const TWO_REGIONS: &str = r#"
[providers.east]
protocol   = "openai"
base_url   = "https://east.example/v1"
credential = "env:A_CREDENTIAL_THAT_IS_NOT_SET"
region     = "us-east"

[providers.west]
protocol = "sim"
region   = "us-west"

[models.small]
price       = { input = "1.00", output = "2.00" }
context     = 1000
max_output  = 100
deployments = [{ provider = "east" }, { provider = "west" }]

[tiers.default]
models = ["small"]

[policies.standard]
tiers               = ["default"]
requests_per_minute = 50
budget              = { limit = "1.00", window = "day" }
"#;

/// The folder's files after a drill, and its output.
fn drill(place: &Place, args: &[&str]) -> (Output, Vec<String>) {
    let output = place.command(&[&["drill"], args].concat()).output().expect("the drill ends");
    let files = std::fs::read_dir(place.0.path()).expect("it is there");
    let mut names: Vec<String> =
        files.map(|file| file.expect("a file").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    (output, names)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn with_another_region_nobody_notices_that_one_is_down() {
    let dedicated = "{ provider = \"west\", capacity = \"dedicated\", max_concurrent = 64 }";
    let reserved = TWO_REGIONS.replace("{ provider = \"west\" }", &format!("{{ provider = \"west\" }}, {dedicated}"));
    let reserved = format!("{reserved}[policies.pro]\ntiers = [\"default\"]\nreserved = true\n");
    let place = Place::with(&format!("[store]\nurl = \"sqlite:tierway.db\"\n{reserved}"));
    assert!(with_credential(&place, &["migrate"]).status.success());
    assert_eq!(measured(&place), [false; 6], "nothing was measured yet");
    let (output, mut files) = drill(&place, &["region-down", "--region", "us-east", "--report", "report.html"]);
    let printed = text(&output.stdout);
    assert!(printed.contains("first token while broken, p99, policy pro (Pro/)"), "{printed}");
    // A machine that has much else to do may be slower than the objectives; then the verdict says so, and the code as well.
    let verdict = if output.status.success() { "PASS" } else { "FAIL" };
    for wanted in ["failed requests", "truncated answers shown as complete", "answers that broke, and said so"] {
        assert!(printed.contains(&format!("  PASS  {wanted}")), "{wanted}: {printed}{}", text(&output.stderr));
    }
    assert!(printed.contains(&format!("\n{verdict}: 1 of 1 scenarios")), "{printed}");
    assert!(!printed.contains('\u{1b}'), "where there is no terminal there are lines: {printed:?}");
    files.retain(|name| !name.starts_with("tierway.db"));
    assert_eq!(files, ["report.html", "tierway.toml"], "nothing but the report is written, and kept in the store");
    let report = std::fs::read_to_string(place.0.path().join("report.html")).expect("it is written");
    assert!(report.contains("<svg") && report.contains("region-down"));
    needs_nothing_else(&report);
    // What it found answers the fourth question.
    assert_eq!(measured(&place), [false, false, false, true, false, false]);
    let posture = with_credential(&place, &["posture", "--html", "posture.html"]);
    let said = text(&posture.stdout);
    assert!(
        said.contains(&format!("   drill region-down, us-east: {verdict}"))
            && said.contains("time to route around, p99: "),
        "{said}"
    );
    assert!(
        said.contains(
            "   policy standard: each key: 50 requests in any 60 s, sliding; 1 USD per day UTC (configuration "
        ),
        "{said}"
    );
    let page = std::fs::read_to_string(place.0.path().join("posture.html")).expect("it is written");
    assert!(page.contains("drill region-down") && page.contains("not measured yet"), "{page}");
    needs_nothing_else(&page);
}

/// A command that needs the whole configuration.
fn with_credential(place: &Place, args: &[&str]) -> Output {
    place.command(args).env("A_CREDENTIAL_THAT_IS_NOT_SET", "x").output().expect("the binary starts")
}

/// Which of the six questions of `tierway posture` are answered by something that was measured.
fn measured(place: &Place) -> Vec<bool> {
    let output = with_credential(place, &["posture", "--json"]);
    let posture: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
    posture["answers"].as_array().expect("a list").iter().map(|answer| answer["measured"] == true).collect()
}

fn needs_nothing_else(page: &str) {
    for outside in ["http://", "https://", "src=", "<script", "url("] {
        assert!(!page.contains(outside), "it needs nothing beside itself: {outside}");
    }
}

#[test]
fn without_another_region_the_drill_fails_and_says_why() {
    let one = TWO_REGIONS.replace("us-west", "us-east");
    let place = Place::with(&one);
    let (output, files) = drill(&place, &["region-down", "--json"]);
    let printed: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!((output.status.code(), &printed["passed"]), (Some(1), &false.into()), "{printed:#}");
    let check = &printed["scenarios"][0]["checks"][0];
    assert_eq!((&check["check"], &check["verdict"]), (&"failed requests".into(), &"fail".into()), "{check}");
    let why = check["detail"].as_str().expect("it says why");
    assert!(why.starts_with("policy standard reaches no region but us-east;"), "{why}");
    let said = text(&output.stderr);
    assert!(
        said.contains("`tierway posture` will not know of this drill") && said.contains("no database at tierway.db"),
        "{said}"
    );
    assert_eq!(files, ["tierway.toml"]);
}

/// The burst by itself, because it takes all that the machine has; the others beside each other: most of a drill is waiting.
#[test]
fn scenarios_are_made_and_shown() {
    a_burst_is_shed_from_the_lowest_priority_and_says_when_to_come_back();
    std::thread::scope(|scope| {
        scope.spawn(a_host_that_nobody_trusts_is_sent_nothing_and_routed_round);
        scope.spawn(a_terminal_shows_a_drill_as_it_runs_and_its_result_afterwards);
    });
}

fn a_host_that_nobody_trusts_is_sent_nothing_and_routed_round() {
    let place = Place::with(TWO_REGIONS);
    let (output, _) = drill(&place, &["bad-tls", "--region", "us-east", "--json"]);
    let printed: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let checks = printed["scenarios"][0]["checks"].as_array().expect("a list");
    let verdict = |name: &str| &checks.iter().find(|check| check["check"] == name).expect("it is judged")["verdict"];
    for name in
        ["failed requests", "requests sent to a host that nobody trusts", "recovery: the region serves again after"]
    {
        assert_eq!(verdict(name), "pass", "{name}: {printed:#}");
    }
    assert_eq!(output.status.code(), Some(i32::from(printed["passed"] != true)), "{printed:#}");
}

fn a_burst_is_shed_from_the_lowest_priority_and_says_when_to_come_back() {
    // So few places that any machine fills them.
    let few = TWO_REGIONS
        .replace("provider = \"east\" }", "provider = \"east\", max_concurrent = 8 }")
        .replace("provider = \"west\" }", "provider = \"west\", max_concurrent = 8 }");
    let place = Place::with(&format!("{few}\n[policies.pro]\ntiers = [\"default\"]\npriority = 8\n"));
    let (output, files) = drill(&place, &["burst-10x", "--json"]);
    let printed: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let scenario = &printed["scenarios"][0];
    assert_eq!(output.status.code(), Some(i32::from(printed["passed"] != true)), "{printed:#}");
    assert!(scenario["region"].is_null() && scenario["requests"].as_u64() > Some(500), "{scenario:#}");
    let checks = scenario["checks"].as_array().expect("a list");
    let check = |name: &str| checks.iter().find(|check| check["check"] == name).expect("it is judged");
    for name in ["replies of 5xx, and none at all", "refusals other than 429 with Retry-After"] {
        assert_eq!(check(name)["verdict"], "pass", "{scenario:#}");
    }
    let lost = |policy: &str| &check(&format!("requests without an answer, policy {policy}"))["measured"];
    let (standard, pro) = (lost("standard").as_u64(), lost("pro").as_u64());
    assert!(standard > Some(0) && standard > pro, "{scenario:#}");
    assert_eq!(check("requests without an answer, policy standard")["verdict"], "shown");
    assert_eq!(files, ["tierway.toml"]);
}

#[test]
fn what_cannot_be_rehearsed_is_refused_with_what_to_do() {
    let embeddings = TWO_REGIONS.replace("[models.small]", "[models.small]\nendpoints = [\"embeddings\"]");
    let strict = TWO_REGIONS.replace("requests_per_minute = 50", "requests_per_minute = 1");
    let closed = TWO_REGIONS.replace("\"us-east\"", "\"eu\"") + "regions = [\"us-*\"]\n";
    for (config, args, code, says) in [
        (TWO_REGIONS, &["region-down", "--region", "mars"][..], 2, "there are: us-east, us-west"),
        (TWO_REGIONS, &["earthquake"], 2, "region-down"),
        (TWO_REGIONS, &["burst-10x", "--region", "us-east"], 2, "burst-10x breaks no region"),
        (&embeddings, &["region-down"], 1, "no policy may use a model that serves chat completions"),
        (&strict, &["region-down"], 1, "policy standard allows so few requests"),
        (&closed, &["region-down", "--region", "eu"], 1, "region eu does not serve any policy"),
        ("[providers.x]\nprotocol = \"sim\"\n", &["region-down"], 78, "models"),
        (TWO_REGIONS, &["region-down", "--report", "no/such/folder.html"], 1, "cannot be written"),
    ] {
        let (output, files) = drill(&Place::with(config), args);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(says), "{args:?}: {said}");
        assert_eq!(files, ["tierway.toml"], "{args:?}");
    }
}

#[test]
fn a_drill_that_is_killed_leaves_nothing_behind() {
    let place = Place::with(TWO_REGIONS);
    let mut command = place.command(&["drill", "region-down"]);
    let mut running = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut said = String::new();
    let mut reader = BufReader::new(running.stderr.take().expect("it is piped"));
    reader.read_line(&mut said).expect("it says what it does");
    assert!(said.starts_with("region-down: us-east"), "{said}");
    running.kill().expect("it runs");
    running.wait().expect("it ended");
    let names: Vec<_> =
        std::fs::read_dir(place.0.path()).expect("it is there").map(|file| file.expect("a file").file_name()).collect();
    assert_eq!(names, ["tierway.toml"]);
}

#[test]
fn simulated_providers_are_as_slow_as_the_ledger_saw_the_real_ones() {
    let keys = "\n[[keys]]\nname = \"app\"\npolicy = \"standard\"\nsecret = \"env:APP_KEY\"\n";
    let keys = format!("{keys}[policies.standard]\nmodels = [\"*\"]\n");
    let model = "[models.small]\ndeployments = [{ provider = \"east\" }]\n";
    let served = format!("[providers.east]\nprotocol = \"sim\"\nfirst_token = \"300ms\"\n{model}{keys}");
    let place = Place::with(&served);
    let gateway = place.serve(&["serve"]);
    let body = r#"{"model":"small","stream":true,"messages":[{"role":"user","content":"Hi"}]}"#;
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\nconnection: close\r\nauthorization: Bearer {APP_KEY}\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    std::thread::scope(|scope| (0..20).for_each(|_| drop(scope.spawn(|| assert_eq!(gateway.ask(&request).0, 200)))));
    gateway.stop();
    place.write(&served.replace("protocol = \"sim\"\nfirst_token = \"300ms\"", REAL_HOST));
    let mut drill = place.command(&["drill", "region-down"]);
    let mut running = drill.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let mut line = String::new();
    BufReader::new(running.stdout.take().expect("it is piped")).read_line(&mut line).expect("it says what it does");
    running.kill().expect("it runs");
    running.wait().expect("it ended");
    let (_, seen) = line.split_once("first token as the ledger has it: east ").expect("it is known");
    let ms: u64 = seen.split(' ').next().and_then(|ms| ms.parse().ok()).expect("a number");
    assert!((300..2_001).contains(&ms), "{line}");
}

const REAL_HOST: &str = "protocol = \"openai\"\nbase_url = \"https://east.example/v1\"";

/// What a person sees of a drill in a terminal, and its exit code; it is interrupted once `until` is shown, if that is given.
fn drill_in_terminal(args: &[&str], until: Option<&str>) -> (String, Option<i32>) {
    let place = Place::with(TWO_REGIONS);
    let (mut terminal, program) = open_terminal();
    let mut size = Command::new("stty");
    size.args(["rows", "30", "cols", "100"]).stdin(program.try_clone().expect("a file"));
    assert!(size.status().expect("stty runs").success());
    drop(size);
    let mut command = place.command(&[&["drill"], args].concat());
    command.env("TERM", "xterm").stdout(program.try_clone().expect("a file")).stderr(program);
    let mut child = command.spawn().expect("the binary starts");
    // The command still has the terminal open: without that its end is never read.
    drop(command);
    let (mut seen, mut part) = (String::new(), [0; 4096]);
    if let Some(until) = until {
        while !seen.contains(until) {
            let read = terminal.read(&mut part).expect("the program writes");
            seen.push_str(&text(&part[..read]));
        }
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().expect("kill runs").success());
    }
    seen.push_str(&seen_in(terminal));
    (seen, child.wait().expect("it was started here").code())
}

/// Takes and leaves the second screen of a terminal.
const SECOND_SCREEN: (&str, &str) = ("\u{1b}[?1049h", "\u{1b}[?1049l");
const CURSOR_SHOWN: &str = "\u{1b}[?25h";

fn a_terminal_shows_a_drill_as_it_runs_and_its_result_afterwards() {
    let (seen, _) = drill_in_terminal(&["region-down", "--region", "us-east"], None);
    let (before, rest) = seen.split_once(SECOND_SCREEN.0).expect("it is shown");
    let (shown, after) = rest.split_once(SECOND_SCREEN.1).expect("the screen is left");
    assert!(before.contains("providers simulated in 2 regions"), "{before:?}");
    for wanted in ["regions", "us-east", "us-west", "serves", "answered", "p99", "breakers", "east/small"] {
        assert!(shown.contains(wanted), "{wanted:?} is not in {shown:?}");
    }
    assert!(shown.contains(CURSOR_SHOWN) && after.contains("failed requests"), "{after:?}");
    assert!(after.contains("of 1 scenarios") && !after.contains(SECOND_SCREEN.0), "{after:?}");
}

#[test]
fn a_drill_that_is_interrupted_leaves_the_terminal_as_it_was() {
    let (seen, code) = drill_in_terminal(&["region-down"], Some("breakers"));
    let (shown, after) = seen.split_once(SECOND_SCREEN.1).expect("the screen is left");
    assert!(code == Some(1) && shown.contains(CURSOR_SHOWN), "{code:?}");
    assert!(after.contains("the drill was interrupted, and left nothing behind"), "{after:?}");
    let (seen, _) = drill_in_terminal(&["region-down", "--plain"], Some("region-down: "));
    assert!(!seen.contains('\u{1b}'), "{seen:?}");
}
