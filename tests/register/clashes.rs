//! A name or secret that both the file and the store have is not served: every conflict is reported.

use crate::place::{CONFIG, Place, asked};
use crate::process::{KEY, PATIENCE, Running};
use std::time::{Duration, Instant};

/// The conflicts of [`clashing`], as they are reported.
const SAID: [&str; 4] = [
    "the key `same-name` is in the configuration and in the store; rename one of them",
    "the key `another` has the secret of the stored key `same-secret`; every key needs its own",
    "the team `same-team` is in the configuration and in the store; rename one of them",
    "stored keys have the policy `paying`, which the configuration does not have",
];

const SECRET: &str = "sk-both-have-it";

/// A store that fits [`CONFIG`], and conflicts with [`clashing`].
fn stored(place: &Place) {
    place.printed(&["keys", "create", "same-name", "--policy", "standard"]);
    place.printed(&["keys", "create", "lost", "--policy", "paying"]);
    place.printed(&["teams", "create", "same-team"]);
    place.write("keys.csv", &format!("name,policy,secret\nsame-secret,standard,{SECRET}\n"));
    place.printed(&["keys", "import", "keys.csv"]);
}

fn clashing() -> String {
    let more = "\n[[keys]]\nname = \"same-name\"\npolicy = \"standard\"\nsecret = \"env:ONE\"\n\
                \n[[keys]]\nname = \"another\"\npolicy = \"standard\"\nsecret = \"env:BOTH\"\n\n[teams.same-team]\n";
    CONFIG.replace("[policies.paying]\nmodels = [\"*\"]\ncredit = \"only\"\n", "") + more
}

#[test]
fn a_clash_refuses_the_start_and_names_everything() {
    let place = Place::new();
    stored(&place);
    place.write("tierway.toml", &clashing());
    let output = place.command(&["serve"]).env("ONE", "sk-one").env("BOTH", SECRET).output().expect("it starts");
    let said = crate::place::text(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    for wanted in SAID {
        assert!(said.contains(wanted), "{wanted:?} is not in: {said}");
    }
    assert!(!said.contains(SECRET));
    place.write("tierway.toml", CONFIG);
    place.serve().stop();
}

#[test]
fn a_clash_refuses_a_reload_and_names_everything() {
    let place = Place::new();
    stored(&place);
    // Read from files, because a process keeps the environment it started with.
    let written = |name: &str, text: &str| {
        place.write(name, text);
        format!("\"file:{}\"", place.path(name).display())
    };
    let clashing =
        clashing().replace("\"env:ONE\"", &written("one", "sk-one")).replace("\"env:BOTH\"", &written("both", SECRET));
    let gateway = Running::configured(place.folder(), CONFIG);
    place.write("tierway.toml", &clashing);
    let deadline = Instant::now() + PATIENCE;
    while !gateway.ask("/metrics").1.contains("tierway_config_reloads_total{result=\"failed\"} 1\n") {
        assert!(Instant::now() < deadline, "the clash is never counted");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(asked(&gateway, KEY), 200, "the old configuration stays");
    assert_eq!(asked(&gateway, SECRET), 200, "and so do the stored keys");
    let said = gateway.stop();
    for wanted in SAID {
        assert!(said.contains(wanted), "{wanted:?} is not in: {said}");
    }
    assert!(!said.contains(SECRET));
}
