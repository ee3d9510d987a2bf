//! `config schema`: an editor accepts and refuses the same files as loading does.

use super::{Workspace, validator::faults};
use serde_json::{Value, json};
use std::path::Path;

fn schema() -> Value {
    serde_json::from_str(&Workspace::empty().prints(&["config", "schema"], 0)).expect("the schema is JSON")
}

fn committed(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A TOML document as an editor passes it to its validator: dates are text.
fn document(toml: &str) -> Value {
    fn plain(value: toml::Value) -> Value {
        match value {
            toml::Value::Datetime(date) => json!(date.to_string()),
            toml::Value::Array(items) => items.into_iter().map(plain).collect(),
            toml::Value::Table(table) => table.into_iter().map(|(name, item)| (name, plain(item))).collect(),
            other => serde_json::to_value(other).expect("a plain value"),
        }
    }
    plain(toml::Value::Table(toml.parse().expect("it is TOML")))
}

#[test]
fn the_committed_schema_is_up_to_date() {
    let committed: Value = serde_json::from_str(&committed("config/tierway.schema.json")).expect("JSON");
    assert!(committed == schema(), "run: tierway config schema > config/tierway.schema.json");
}

#[test]
fn every_shipped_configuration_fits() {
    for path in ["config/tierway.toml", "config/tierway.example.toml", "tests/config/design_example.toml"] {
        let found = faults(&schema(), &document(&committed(path)));
        assert!(found.is_empty(), "{path}: {found:?}");
    }
    let example = committed("config/tierway.example.toml");
    assert_eq!(example.lines().next(), Some("#:schema ./tierway.schema.json"), "editors find the schema");
}

/// What the schema refuses, the loading refuses too, and what loads fits the schema.
#[test]
fn schema_and_loading_agree() {
    const LEAST: &str = "[providers.p]\nprotocol = \"sim\"\n[models.m]\ndeployments = [{ provider = \"p\" }]\n";
    let schema = schema();
    let check = |text: &str, good: bool| {
        let text = format!("{LEAST}{text}");
        let found = faults(&schema, &document(&text));
        assert_eq!(found.is_empty(), good, "by the schema {found:?}:\n{text}");
        let output =
            Workspace::with(&text).command(&["check"]).env("SECRET", "hush").output().expect("the binary starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code() == Some(0), good, "by the loading {said}:\n{text}");
    };
    check("", true);
    check("[server]\ndrain = \"5m\"\nadmin_token = \"env:SECRET\"", true);
    check("[server]\ndrain = \"5 m\"", false);
    check("[server]\ndrain = 5", false);
    check("[server]\ndrian = \"5m\"", false);
    check("[server]\nmax_body = \"0B\"", false);
    check("[server]\nadmin_token = \"hush\"", false);
    check("[routing]\nidle = \"0s\"", false);
    check("[routing]\nretry_after_wait_max = \"0s\"", true);
    check("[routing]\nbalance = \"fastest\"", false);
    check("[routing]\nbreaker = { open = \"1s\", shut = \"1s\" }", false);
    check("[routing]\nmax_attempts = 0", false);
    check("[routing]\nmax_attempts = 4294967296", false);
    check("[routing]\nretry_budget = \"12.345%\"", false);
    check("[providers.q]\nbase_url = \"https://x.example/v1\"", false);
    check("[providers.q]\nprotocol = \"openai\"\nbase_url = \"ftp://x.example/v1\"", false);
    check(
        "[providers.q]\nprotocol = \"openai\"\nbase_url = \"https://x.example/v1\"\ncredential = \"env:SECRET\"",
        true,
    );
    check(
        "[providers.q]\nprotocol = \"openai\"\nbase_url = \"https://x.example/v1\"\ncredential = [\"env:SECRET\"]",
        true,
    );
    check("[models.x]\ncontext = 9", false);
    check("[models.x]\nprice = { input = 0.07, output = \"1\" }\ndeployments = [{ provider = \"p\" }]", false);
    check("[models.x]\nprice = { input = \"0.07\" }\ndeployments = [{ provider = \"p\" }]", false);
    let two = |from: &str| {
        let (first, then) = ("{ input = \"1\", output = \"2\" }", "input = \"1\", output = \"2\", version = \"b\"");
        format!("[models.x]\nprice = [{first}, {{ from = {from}, {then} }}]\ndeployments = [{{ provider = \"p\" }}]")
    };
    check(&two("\"2027-01-01\""), true);
    check(&two("2027-01-01"), true);
    check(&two("\"January\""), false);
    check("[models.x]\nprice = \"1\"\ndeployments = [{ provider = \"p\" }]", false);
    check("[models.x]\nendpoints = \"chat\"\ndeployments = [{ provider = \"p\" }]", true);
    check("[models.x]\nendpoints = [\"images\"]\ndeployments = [{ provider = \"p\" }]", false);
    check("[tiers.t]\nmodels = [\"m\"]", true);
    check("[tiers.t]\nmodels = [{ name = \"m\", weight = 2 }]", true);
    check("[tiers.t]\nmodels = [{ name = \"m\", wait = 2 }]", false);
    check("[tiers.t]\nthen = []", false);
    check("[aliases.a]\nsplit = { m = 1 }", true);
    check("[aliases.a]\nsplit = { m = 0 }", false);
    check("[policies.a]\nreserved = true", false);
    check("[policies.a]\nmodels = [\"*\"]\nbudget = { limit = \"5.00\", window = \"week\" }", false);
    let key = "[policies.a]\nmodels = [\"*\"]\n[[keys]]\nname = \"k\"\npolicy = \"a\"\n";
    check(&format!("{key}secret = \"env:SECRET\"\nexpires = 2999-01-31"), true);
    check(&format!("{key}hash = \"sha256:{}\"", "0".repeat(64)), true);
    check(&format!("{key}hash = \"sha256:{}\"", "0".repeat(63)), false);
    check(key, false);
    check("[drill]\nenabled = \"yes\"", false);
    check("[elsewhere]\n", false);
}
