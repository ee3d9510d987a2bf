//! Secrets in the wrong place: whatever a command prints of a configuration, they are not in it.

use super::{Place, text};

/// With the beginning of a host's keys, and without any that is known.
const SECRETS: [&str; 3] =
    ["sk-live-canary-0123456789", "tw_standard_canary0123456789", "0123456789abcdef0123456789canary"];

/// Configurations that hold `SECRET` where none belongs, most of them with other problems, too.
const CASES: [&str; 18] = [
    "[models.\"SECRET\"]\ndeployments = [{ provider = \"sim\" }]\n",
    "[models.m]\ndeployments = [{ provider = \"sim\", upstream_model = \"SECRET\" }]\n",
    "[models.m]\ndeployments = [{ provider = \"SECRET\" }]\n",
    "[models.m]\nkey = \"SECRET\"\n",
    "[models.m]\n\"SECRET\" = 1\n",
    "[providers.\"SECRET\"]\nprotocol = \"sim\"\n",
    "[providers.p]\nprotocol = \"sim\"\nregion = \"SECRET\"\n",
    "[providers.p]\nprotocol = \"openai\"\nbase_url = \"https://canaryuser:SECRET@api.example/v1\"\n",
    "[providers.p]\nprotocol = \"openai\"\nbase_url = \"https://api.example/v1?api_key=SECRET\"\n",
    "[providers.p]\nprotocol = \"openai\"\nbase_url = \"https://api.example/v1/SECRET\"\n",
    "[providers.p]\nprotocol = \"openai\"\nbase_url = \"SECRET\"\n",
    "[providers.p]\nprotocol = \"openai\"\nbase_url = \"https://api.example/v1\"\napi_key = \"https://canaryuser:SECRET@x\"\n",
    "[providers.p]\nprotocol = \"openai\"\nbase_url = \"https://api.example/v1\"\ncredential = SECRET\n",
    "[providers.p]\nprotocol = \"SECRET\"\n",
    "[tiers.\"SECRET\"]\nmodels = [\"SECRET\"]\n",
    "[[keys]]\nname = \"SECRET\"\npolicy = \"standard\"\nsecret = \"env:APP_KEY\"\n",
    "[store]\nurl = \"postgres://db.example/tierway?user=me&password=SECRET\"\n",
    "[routing]\nregion = \"SECRET\n",
];

#[test]
fn no_command_shows_a_secret_in_the_wrong_place() {
    for case in CASES {
        for secret in SECRETS {
            let base = "[providers.sim]\nprotocol = \"sim\"\n[models.own]\ndeployments = [{ provider = \"sim\" }]\n\
                        [policies.standard]\nmodels = [\"*\"]\n";
            let place = Place::with(&format!("{base}{}", case.replace("SECRET", secret)));
            for command in [&["check"][..], &["config", "show"], &["config", "show", "--json"], &["explain"]] {
                let output = place.run(command);
                let shown = text(&output.stdout) + &text(&output.stderr);
                assert!(!shown.contains(secret), "{command:?} of\n{case}\n{shown}");
                assert!(!shown.contains("canaryuser"), "{command:?} of\n{case}\n{shown}");
            }
        }
    }
}

#[test]
fn a_variable_with_a_secret_in_the_wrong_place_is_masked() {
    let place = Place::with(super::CONFIG);
    for (name, secret) in [
        ("TIERWAY__SERVER__LISTEN", SECRETS[0]),
        ("TIERWAY__ROUTING__REGION", SECRETS[1]),
        ("TIERWAY__STORE__URL", "postgres://db/x?password=canary"),
        ("TIERWAY__SERVER__ADMIN_TOKN", "canary"),
    ] {
        for command in [&["check"][..], &["config", "show"]] {
            let output = place.command(command).env(name, secret).output().expect("the binary starts");
            let shown = text(&output.stdout) + &text(&output.stderr);
            assert!(!shown.contains("canary"), "{name} {command:?}: {shown}");
        }
    }
}
