//! `tierway models`: of the configuration, and of a running gateway as a key sees it.

use super::{APP_KEY, CONFIG, Place, check, text};

const MORE: &str = r#"
[models."acme/large"]
price = { input = "1.5", output = "6" }
context = 131072
deployments = [{ provider = "sim" }]

[tiers.default]
models = ["acme/small"]

[policies.small]
models = ["acme/small"]

[[keys]]
name   = "small-app"
policy = "small"
secret = "env:SMALL_KEY"
"#;

#[test]
fn all_of_the_configuration_or_what_a_key_may_use() {
    let place = Place::with(&format!("{CONFIG}{MORE}"));
    let command = |args: &[&str]| {
        let mut command = place.command(&[&["models"], args].concat());
        command.env("SMALL_KEY", "tw_small_for_tests_only");
        command
    };
    let output = command(&[]).output().expect("the binary starts");
    check(&output, 0, &[]);
    let shown = text(&output.stdout);
    let line = |name: &str| shown.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    let large: Vec<String> = line("acme/large").split_whitespace().map(str::to_owned).collect();
    assert_eq!(large, ["acme/large", "$1.5", "$6", "131,072", "sim"], "{shown}");
    assert!(!line("acme/small").is_empty() && !line("default").is_empty(), "{shown}");

    let mut served = place.command(&["serve"]);
    let running = super::Running::start({
        served.env("SMALL_KEY", "tw_small_for_tests_only");
        served
    });
    let url = format!("http://{}", running.addr);
    let asked = |key: &str, args: &[&str]| {
        command(&[&["--url", &url, "--key", key], args].concat()).output().expect("the binary starts")
    };
    let names = |key: &str| -> Vec<String> {
        let object: serde_json::Value = serde_json::from_slice(&asked(key, &["--json"]).stdout).expect("JSON");
        let models = object["data"].as_array().expect("a list").iter();
        models.map(|model| model["id"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(names(APP_KEY), ["acme/small", "acme/large"], "its policy names no tier");
    assert_eq!(names("tw_small_for_tests_only"), ["acme/small"]);
    assert!(text(&asked(APP_KEY, &[]).stdout).contains("131,072"));
    check(&asked("tw_wrong", &[]), 1, &["it refuses the key"]);
    let mut without = command(&["--url", &url]);
    check(&without.output().expect("the binary starts"), 2, &["there is no key to ask with"]);
    running.stop();
}
