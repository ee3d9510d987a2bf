//! `prices`, and that a first configuration can have budgets at once.

use super::{Workspace, text};
use serde_json::Value;

/// The variables by which `init` knows a host that is built.
const HOSTS: [&str; 7] = [
    "OPENAI_API_KEY",
    "DEEPSEEK_API_KEY",
    "GROQ_API_KEY",
    "TOGETHER_API_KEY",
    "MISTRAL_API_KEY",
    "OPENROUTER_API_KEY",
    "FIREWORKS_API_KEY",
];

const CONFIGURATION: &str = "\
[providers.here]
protocol = \"openai\"
base_url = \"https://api.here.example/v1\"
[models.one]
deployments = [{ provider = \"here\" }]
";

const CATALOGUE: &str = "\
as_of = \"2031-05-06\"
source = \"a test\"
[hosts.here]
address = [\"api.here.example*\"]
[hosts.here.models]
\"one\" = { context = 1000, price = [{ input = \"5\", output = \"6\", per_1000_searches = \"3\" }] }
";

#[test]
fn a_budget_works_at_once_after_init_with_one_key() {
    for variable in HOSTS {
        let workspace = Workspace::empty();
        let run = |args: &[&str]| {
            let output = workspace.command(args).env(variable, "canary").output().expect("the binary starts");
            assert!(output.status.success(), "{args:?} {variable}: {}", text(&output.stderr));
            output
        };
        assert!(text(&run(&["init"]).stderr).contains("prices: catalogue of 20"));
        let key = run(&["keys", "create", "app", "--policy", "standard", "--budget", "5"]);
        assert!(text(&key.stdout).starts_with("tw_"), "{variable}");
        let checked = text(&run(&["check"]).stdout);
        assert!(checked.contains("what the file does not say: catalogue of 20"), "{checked}");
        assert!(checked.contains(": price, context, max_output as "), "{checked}");
        let explained = text(&run(&["explain", "--model", "auto"]).stdout);
        assert!(explained.contains("per million tokens (catalogue of 20"), "{explained}");
    }
}

#[test]
fn the_catalogue_is_shown() {
    let workspace = Workspace::empty();
    let hosts = workspace.prints(&["prices", "show"], 0);
    assert!(hosts.contains("(built in), made from genai-prices"), "{hosts}");
    let openai = hosts.lines().find(|line| line.starts_with("openai ")).expect("the host is listed");
    assert!(openai.contains("max_completion_tokens") && openai.contains("api.openai.com*"), "{openai}");
    let shown = workspace.prints(&["prices", "show", "gpt-4o-mini"], 0);
    assert!(shown.contains("\nopenai gpt-4o-mini\n  context 128,000, longest output 16,384"), "{shown}");
    assert!(shown.contains("not charged by Tierway: per_1000_searches"), "{shown}");
    let json: Value =
        serde_json::from_str(&workspace.prints(&["prices", "show", "gpt-4o-mini", "--json"], 0)).expect("JSON");
    let entries = json["entries"].as_array().expect("a list");
    let openai = entries.iter().find(|entry| entry["host"] == "openai").expect("the host knows it");
    assert_eq!(openai["output_ceiling"], "max_completion_tokens");
    assert!(openai["prices"][0]["usd"]["input"].is_string(), "{openai}");
    let all: Value = serde_json::from_str(&workspace.prints(&["prices", "show", "--json"], 0)).expect("JSON");
    assert!(all["catalogues"][0]["hosts"].as_array().is_some_and(|hosts| hosts.len() > 30));
    let unknown = workspace.run(&["prices", "show", "no-such-model"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown.stderr).contains("does not know no-such-model"), "{}", text(&unknown.stderr));
}

#[test]
fn a_newer_catalogue_is_taken_whole_or_not_at_all() {
    let workspace = Workspace::with(CONFIGURATION);
    assert!(!workspace.prints(&["check"], 0).contains("catalogue"));
    std::fs::write(workspace.path("new.toml"), CATALOGUE).expect("the directory can be written");
    assert_eq!(workspace.prints(&["prices", "import", "new.toml"], 0), "./tierway.prices.toml\n");
    let checked = workspace.prints(&["check"], 0);
    assert!(checked.contains("catalogue of 2031-05-06 (./tierway.prices.toml), then catalogue of 20"), "{checked}");
    assert!(checked.contains("models.one: price, context, max_output as here one"), "{checked}");
    assert!(checked.contains("priced there and not charged here: per_1000_searches"), "{checked}");
    let explained = workspace.prints(&["explain", "--model", "one"], 0);
    assert!(explained.contains("$5 in, $6 out per million tokens (catalogue of 2031-05-06)"), "{explained}");
    assert!(workspace.prints(&["prices", "show", "one"], 0).contains("here one"));

    std::fs::write(workspace.path("bad.toml"), CATALOGUE.replace("\"5\"", "5")).expect("the directory can be written");
    let refused = workspace.run(&["prices", "import", "bad.toml"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("input is no text"), "{}", text(&refused.stderr));
    assert_eq!(std::fs::read_to_string(workspace.path("tierway.prices.toml")).expect("it is there"), CATALOGUE);
    let left: Vec<_> = std::fs::read_dir(workspace.path("")).expect("a directory").collect();
    assert_eq!(left.len(), 4, "{left:?}");

    let older = CATALOGUE.replace("2031", "2027");
    std::fs::write(workspace.path("old.toml"), older).expect("the directory can be written");
    let output = workspace.run(&["prices", "import", "old.toml"]);
    assert!(output.status.success() && text(&output.stderr).contains("the one in use was of 2031-05-06"));
}

#[test]
fn a_broken_catalogue_beside_the_configuration_is_a_problem() {
    let workspace = Workspace::with(CONFIGURATION);
    std::fs::write(workspace.path("tierway.prices.toml"), "nonsense").expect("the directory can be written");
    let output = workspace.run(&["check"]);
    assert_eq!(output.status.code(), Some(78));
    let said = text(&output.stderr);
    assert!(said.contains("tierway.prices.toml: head") && said.contains("tierway prices import"), "{said}");
    std::fs::write(workspace.path("new.toml"), CATALOGUE).expect("the directory can be written");
    workspace.prints(&["prices", "import", "new.toml"], 0);
    workspace.prints(&["check"], 0);
}

#[test]
fn there_is_nothing_to_lie_beside_without_a_configuration() {
    let workspace = Workspace::empty();
    std::fs::write(workspace.path("new.toml"), CATALOGUE).expect("the directory can be written");
    let output = workspace.run(&["prices", "import", "new.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("tierway init"), "{}", text(&output.stderr));
}
