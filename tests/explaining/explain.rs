//! `explain`: what becomes of a request, as text, as JSON and as an exit code.

use super::{Workspace, text};

/// Two regions, a sticky alias, a drawn tier, a residency and a key that has ended.
const CONFIG: &str = r#"
[providers.us]
protocol = "sim"
[providers.eu]
protocol = "sim"

[models.a]
price = { input = "0.07", output = "0.25" }
deployments = [{ provider = "us", weight = 3 }, { provider = "eu" }]
[models.b]
features = ["tools"]
deployments = [{ provider = "us" }, { provider = "eu", capacity = "dedicated", max_concurrent = 4 }]
[models.vectors]
endpoints = ["embeddings"]
price = [
  { input = "0.03", output = "0" },
  { from = "2020-01-01", input = "0.02", output = "0", version = "new" },
  { from = "2999-01-01", input = "0.01", output = "0" },
]
deployments = [{ provider = "eu" }]

[tiers.default]
models = ["a"]
then = ["drawn"]
[tiers.drawn]
models = [{ name = "a", weight = 3 }, { name = "b", weight = 1 }]

[aliases.auto]
split = { default = 3, drawn = 1 }
[aliases.mine]
split = { default = 1, b = 1 }
sticky = "key"

[policies.small]
tiers = ["default"]
[policies.eu]
tiers = ["*"]
models = ["*"]
reserved = true
regions = ["eu"]

[[keys]]
name = "app"
policy = "eu"
hash = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
[[keys]]
name = "gone"
policy = "eu"
expires = 2020-01-31
hash = "sha256:2222222222222222222222222222222222222222222222222222222222222222"
"#;

fn explanation(code: i32, args: &str) -> String {
    let mut all = vec!["explain"];
    all.extend(args.split(' '));
    Workspace::with(CONFIG).prints(&all, code)
}

#[test]
fn an_explanation_begins_with_what_the_name_means() {
    insta::assert_snapshot!("alias", explanation(0, "--model auto --stream"));
    insta::assert_snapshot!("alias_for_a_policy", explanation(0, "--model auto --policy small"));
    insta::assert_snapshot!("tier_that_draws", explanation(0, "--model drawn"));
    insta::assert_snapshot!("reserved_within_a_region", explanation(0, "--model Pro/b --key app"));
    insta::assert_snapshot!("model_with_a_feature", explanation(0, "--model a --features tools,vision --no-fallback"));
    insta::assert_snapshot!("embeddings", explanation(0, "--model vectors --endpoint embeddings --policy eu"));
}

#[test]
fn a_refusal_is_reported_as_the_client_reads_it() {
    insta::assert_snapshot!("refused_by_the_policy", explanation(1, "--model b --policy small"));
    insta::assert_snapshot!("refused_by_residency", explanation(1, "--model b --key app --no-fallback"));
    insta::assert_snapshot!("refused_for_a_feature", explanation(1, "--model b --features vision --no-fallback"));
    insta::assert_snapshot!("refused_as_unknown", explanation(1, "--model c --policy small"));
    insta::assert_snapshot!("refused_as_ended", explanation(1, "--model a --key gone"));
}

#[test]
fn a_sticky_alias_is_reported_for_a_key_and_drawn_for_a_policy() {
    let ways = |args: &str| explanation(0, args).lines().filter(|line| line.contains(" %  ")).count();
    assert_eq!(ways("--model mine --key app"), 1);
    // The policy's own shares: `b` leads nowhere within eu but for its tier's other model.
    assert_eq!(ways("--model mine --policy eu"), 2);
}

#[test]
fn json_has_the_same_content() {
    let json: serde_json::Value =
        serde_json::from_str(&explanation(0, "--model auto --policy small --json")).expect("JSON");
    assert_eq!(json["ways"][0]["percent"], 100.0);
    assert_eq!(json["ways"][0]["legs"][0]["deployments"][0]["price"]["output"], "0.25");
    assert_eq!(json["ways"][0]["legs"][0]["deployments"][0]["price"]["version"], "0.07/0.25");
    assert_eq!(json["never_drawn"][0]["part"], "tier drawn");
    let reasons = json["passed_over"].as_array().expect("an array");
    assert!(reasons.iter().any(|passed| passed["reason"] == "dedicated"), "{reasons:?}");
    let json: serde_json::Value = serde_json::from_str(&explanation(1, "--model c --json")).expect("JSON");
    assert_eq!(json["refusal"]["code"], "model_not_found");
    assert_eq!(json["refusal"]["status"], 404);
}

#[test]
fn wrong_names_are_wrong_usage() {
    let check = |args: &[&str], said: &str| {
        let output = Workspace::with(CONFIG).run(args);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains(said), "{}", text(&output.stderr));
        assert!(output.stdout.is_empty());
    };
    check(&["explain", "--model", "a", "--key", "ap"], "the keys are: app, gone");
    check(&["explain", "--model", "a", "--policy", "tiny"], "the policies are: eu, small");
    check(&["explain", "--model", "a", "--policy", "eu", "--key", "app"], "cannot be used with");
    check(&["explain", "--model", "a", "--endpoint", "images"], "chat, completions, embeddings");
    check(&["explain"], "--model");
}

#[test]
fn a_wrong_configuration_is_reported_as_by_check() {
    let output = Workspace::with("[serverr]\n").run(&["explain", "--model", "a"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(text(&output.stderr).contains("serverr"));
}
