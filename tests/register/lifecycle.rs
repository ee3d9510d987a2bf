//! A key beside a running gateway: what a command writes applies there within a second.

use crate::place::{Place, asked, text, until};
use std::process::Stdio;
use std::time::Duration;

/// A second is promised; ten times that is asserted.
const KNOWN_WITHIN: Duration = Duration::from_secs(10);

#[test]
fn what_commands_do_to_a_key_holds_at_a_running_gateway() {
    let place = Place::new();
    let gateway = place.serve();
    let secret = place.created("growth");
    let mut slowest = Duration::ZERO;
    let mut check = |what: &str, args: &[&str], status: u16| {
        if !args.is_empty() {
            place.printed(args);
        }
        let after = until(&gateway, &secret, status);
        println!("{what}: {status} after {after:?}");
        slowest = slowest.max(after);
    };
    check("created", &[], 200);
    check("disabled", &["keys", "disable", "growth"], 401);
    check("enabled", &["keys", "enable", "growth"], 200);
    check("expired", &["keys", "expire", "growth", "--at", "2020-12-31"], 401);
    check("not expired", &["keys", "expire", "growth", "--never"], 200);
    check("ending", &["keys", "expire", "growth", "--in", "1s"], 401);
    check("not ending", &["keys", "expire", "growth", "--in", "1h"], 200);
    check("without credit", &["keys", "edit", "growth", "--policy", "paying"], 429);
    check("with credit", &["credits", "grant", "--key", "growth", "5.00"], 200);
    check("credit taken back", &["credits", "grant", "--key", "growth", "-5.00"], 429);
    check("another policy", &["keys", "edit", "growth", "--policy", "standard"], 200);
    check("a budget of nothing", &["keys", "edit", "growth", "--budget", "0"], 429);
    check("no budget", &["keys", "edit", "growth", "--no-budget"], 200);
    check("a limit", &["keys", "edit", "growth", "--requests-per-minute", "1"], 429);
    check("no limit", &["keys", "edit", "growth", "--no-requests-per-minute"], 200);
    check("deleted", &["keys", "delete", "growth"], 401);
    println!("slowest: {slowest:?}");
    assert!(slowest < KNOWN_WITHIN, "{slowest:?}");
    gateway.stop();
}

#[test]
fn a_teams_budget_holds_for_its_keys() {
    let place = Place::new();
    let gateway = place.serve();
    let secret = place.printed(&["keys", "create", "growth", "--policy", "standard", "--team", "growth"]);
    let secret = secret.trim_end();
    until(&gateway, secret, 200);
    place.printed(&["teams", "create", "growth", "--budget", "0/month"]);
    until(&gateway, secret, 429);
    place.printed(&["teams", "edit", "growth", "--budget", "1.00/month"]);
    until(&gateway, secret, 200);
    gateway.stop();
}

/// How long a key still works after the command that disabled it has returned.
#[test]
fn a_key_that_is_disabled_is_refused_soon() {
    let place = Place::new();
    let gateway = place.serve();
    let mut slowest = Duration::ZERO;
    for round in 0..10 {
        let name = format!("key-{round}");
        let secret = place.created(&name);
        until(&gateway, &secret, 200);
        place.printed(&["keys", "disable", &name]);
        let after = until(&gateway, &secret, 401);
        slowest = slowest.max(after);
        assert_eq!(asked(&gateway, &secret), 401, "and so it stays");
    }
    println!("refused {slowest:?} at most after `keys disable` returned");
    assert!(slowest < KNOWN_WITHIN, "{slowest:?}");
    gateway.stop();
}

#[test]
fn what_was_made_before_the_start_and_what_was_made_after_survive_a_kill() {
    let place = Place::new();
    let before = place.created("before");
    let gateway = place.serve();
    assert_eq!(asked(&gateway, &before), 200, "known at the start");
    let after = place.created("after");
    until(&gateway, &after, 200);
    place.printed(&["keys", "disable", "before"]);
    until(&gateway, &before, 401);
    gateway.kill();
    let gateway = place.serve();
    assert_eq!((asked(&gateway, &before), asked(&gateway, &after)), (401, 200));
    gateway.stop();
}

/// With a key in the store the file needs none; without either, the demo key is generated.
#[test]
fn stored_keys_alone_are_enough() {
    let place = Place::new();
    let secret = place.created("only");
    let (keyless, _) = crate::place::CONFIG.split_once("[[keys]]").expect("the configuration has a key");
    let gateway = crate::process::Running::configured(place.folder(), keyless);
    assert_eq!(asked(&gateway, &secret), 200);
    let said = gateway.stop();
    assert!(!said.contains("tw_demo_"), "{said}");
}

/// Commands that run at the same time, before there is a database.
#[test]
fn commands_that_start_at_once_without_a_database_create_one() {
    let place = Place::new();
    let create = |nth: usize| {
        let name = format!("key-{nth}");
        let mut command = place.command(&["keys", "create", &name, "--policy", "standard"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts")
    };
    let commands: Vec<_> = (0..8).map(create).collect();
    for command in commands {
        let output = command.wait_with_output().expect("it was started here");
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    assert_eq!(place.printed(&["keys", "list", "--csv"]).lines().count(), 2 + 8);
}
