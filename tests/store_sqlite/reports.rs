//! What `usage`, `explain --request`, `cost` and `migrate` print.

use crate::process::{Client, PRICE, Running, SIMULATED, config, printed, tierway};
use crate::receipts::{Place, receipt, until_written};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tierway::domain::limit::LimitKind;
use tierway::domain::money::{NanoUsd, PicoUsdPerToken};
use tierway::domain::pricing::Price;
use tierway::domain::reason::Reason;
use tierway::domain::receipt::{
    AttemptRecord, Outcome, PassedOverDeployment, PassedOverReason, PlannedModel, Receipt, ServingDeployment,
};
use tierway::domain::usage::Usage;
use tierway::store::Ledger;

const DAY_MS: i64 = 86_400_000;

fn served_by(tier: &str, model: &str, usage: Usage, cost: i64) -> impl Fn(u64) -> Receipt {
    let served = ServingDeployment {
        model: model.into(),
        deployment: format!("eu/{model}").into(),
        tier: Some(tier.into()),
        region: "eu-central".into(),
    };
    move |number| Receipt { served: Some(served.clone()), usage: Some(usage), cost: NanoUsd(cost), ..receipt(number) }
}

/// A few days of two teams: served, estimated, failed, refused.
fn filled() -> Place {
    let place = Place::new();
    let (ledger, _writing) = place.open();
    let cheap = served_by(
        "default",
        "org/small",
        Usage { input: 3_000_000, cached_input: 1_000_000, output: 500_000, ..Usage::default() },
        335_000_000,
    );
    let dear = served_by(
        "premium",
        "org/large",
        Usage { input: 100_000, cached_input: 0, output: 40_000, reasoning: 9_000, ..Usage::default() },
        4_200_000_000,
    );
    let days_ago = |receipt: Receipt, days: i64| {
        let received_unix_ms = receipt.received_unix_ms - days * DAY_MS;
        let id = (u128::from(received_unix_ms.unsigned_abs()) << 80) | (receipt.id.0 & 0xffff);
        Receipt { received_unix_ms, id: tierway::domain::id::RequestId(id), ..receipt }
    };
    let receipts = [
        days_ago(cheap(1), 2),
        days_ago(cheap(2), 1),
        cheap(3),
        Receipt { estimated: true, ..cheap(4) },
        Receipt { key: Some("search, \"beta\"".into()), team: None, ..dear(5) },
        Receipt { outcome: Outcome::Broken, reason: Reason::Truncated, estimated: true, ..dear(6) },
        reported(7),
        refused(8),
        unavailable(9),
    ];
    receipts.into_iter().for_each(|receipt| ledger.append(&Arc::new(receipt), None));
    until_written(&ledger);
    drop(ledger);
    place
}

/// A receipt with several attempts: two failed, the third answered.
fn reported(number: u64) -> Receipt {
    let plain = receipt(number);
    let attempt = |region: &str, reason, started, ms| AttemptRecord {
        deployment: format!("{}/org/model-1", &region[..2]).into(),
        tier: Some("default".into()),
        model: Some("org/model-1".into()),
        region: Some(region.into()),
        reason,
        started: Some(Duration::from_millis(started)),
        duration: Duration::from_millis(ms),
        provider_request_id: None,
        injected: reason == Reason::Throttled,
    };
    let pico = PicoUsdPerToken;
    Receipt {
        attempts: vec![
            attempt("us-east", Reason::Throttled, 1, 12),
            attempt("us-east", Reason::FirstTokenTimeout, 20, 10_000),
            attempt("eu-central", Reason::Served, 1_020, 480),
        ],
        first_token: Some(Duration::from_millis(1_500)),
        failover: Some(Duration::from_millis(1_499)),
        duration: Duration::from_millis(2_345),
        price: Some(Price {
            input: pico(70_000),
            cached_input: pico(7_000),
            output: pico(250_000),
            ..Price::default()
        }),
        price_version: Some("2026-11".into()),
        cost: NanoUsd(69_900),
        ..plain
    }
}

/// A receipt of a request that nothing could be asked for.
fn unavailable(number: u64) -> Receipt {
    let passed = |region: &str, why, until: Option<u64>| PassedOverDeployment {
        tier: Some("premium".into()),
        model: "org/large".into(),
        deployment: format!("{region}/org/large").into(),
        why,
        until: until.map(Duration::from_millis),
        injected: false,
    };
    Receipt {
        meant: Some(PlannedModel { model: "org/large".into(), tier: Some("premium".into()) }),
        passed_over: vec![
            passed("us", PassedOverReason::Open, Some(800)),
            passed("eu", PassedOverReason::Throttled, Some(29_500)),
            passed("ap", PassedOverReason::Full, None),
        ],
        reason: Reason::NoDeploymentAvailable,
        limit: None,
        status: 503,
        ..refused(number)
    }
}

fn refused(number: u64) -> Receipt {
    Receipt {
        served: None,
        attempts: Vec::new(),
        outcome: Outcome::Refused,
        reason: Reason::RateLimitExceeded,
        limit: Some(LimitKind::Requests),
        status: 429,
        usage: None,
        cost: NanoUsd::ZERO,
        first_token: None,
        duration: Duration::from_micros(214),
        ..receipt(number)
    }
}

/// Runs a command and returns its output: stdout, or its exit code and stderr.
fn said(folder: &Path, args: &[&str]) -> String {
    let output = tierway(folder, args).output().expect("the binary starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let reported = match output.status.code() {
        Some(0) => format!("{stdout}{stderr}"),
        code => format!("exit {code:?}\n{stdout}{stderr}"),
    };
    let shown = args.iter().map(|arg| if arg.contains(' ') { format!("'{arg}'") } else { (*arg).to_owned() });
    let reported = reported.replace(&folder.display().to_string(), "FOLDER");
    format!("$ tierway {}\n{reported}", shown.collect::<Vec<_>>().join(" "))
}

fn all_said(folder: &Path, commands: &[&[&str]]) -> String {
    commands.iter().map(|args| said(folder, args)).collect::<Vec<_>>().join("\n")
}

#[test]
fn usage_sums_by_whatever_is_asked() {
    let place = filled();
    let reported = all_said(
        place.folder(),
        &[
            &["usage"],
            &["usage", "--by", "day,tier"],
            &["usage", "--by", "reason", "--where", "team=growth"],
            &["usage", "--by", "model,price", "--json", "--since", "2026-11-22"],
            &["usage", "--by", "model", "--since", "2026-11-22", "--csv"],
            &["usage", "--by", "key,team", "--where", "team=-", "--csv"],
            &["usage", "--by", "tier", "--until", "2026-11-21", "--json"],
            &["usage", "--where", "key=nobody"],
        ],
    );
    insta::assert_snapshot!(reported);
}

#[test]
fn a_request_is_explained() {
    let place = filled();
    let [id, refused_id, unavailable_id] =
        [reported(7), refused(8), unavailable(9)].map(|receipt| receipt.id.to_string());
    let unknown = "req_00000000000000000000000000000001";
    let reported = all_said(
        place.folder(),
        &[
            &["explain", "--request", &id],
            &["explain", "--request", &refused_id],
            &["explain", "--request", &unavailable_id],
            &["explain", "--request", &id, "--json"],
            &["explain", "--request", &unavailable_id, "--json"],
            &["explain", "--request", unknown],
            &["explain", "--request", "chatcmpl-1"],
            &["explain", "--request", &id, "--model", "m"],
        ],
    );
    insta::assert_snapshot!(reported);
}

#[test]
fn cost_is_reported_of_a_volume_and_of_the_ledger() {
    let place = filled();
    let reported = all_said(
        place.folder(),
        &[
            &["cost", "--tokens", "5M,50M,500M,5B", "--price", "0.25", "--against", "10.00"],
            &["cost", "--tokens", "5M", "--price", "0.25", "--json"],
            &["cost"],
            &["cost", "--split", "default=80,premium=20", "--against", "10.00"],
            &["cost", "--against", "m"],
            &["cost", "--against", "m", "--json"],
            &["cost", "--split", "default=80,fallback=20"],
            &["cost", "--since", "2030-01-01"],
            &["cost", "--tokens", "5M"],
        ],
    );
    insta::assert_snapshot!(reported);
}

/// Two months of a key, a team without windows, a policy that has spent nothing, and what two kills left.
const BUDGETS: &str = "
    INSERT INTO budgets VALUES
        ('key', 'app', 'month UTC', 1790812800000, 1793491200000, 100000000000, 0),
        ('key', 'app', 'month UTC', 1793491200000, 32503680000000, 12500000000, 1250000000),
        ('key', 'left', 'month UTC', 1793491200000, 32503680000000, 21300, 0),
        ('team', 'growth', 'none', -9223372036854775808, 9223372036854775807, 2200000000000, 0);
    INSERT INTO unaccounted VALUES
        (1795359423007, 'key', 'app', 'month UTC', 1793491200000, 1250000000),
        (1795359483007, 'key', 'app', 'month UTC', 1793491200000, 250000000),
        (1795359483007, 'team', 'growth', 'none', -9223372036854775808, 1000000000);
";

#[test]
fn budgets_are_shown_as_they_stand() {
    let place = Place::new();
    drop(place.open());
    let empty = all_said(place.folder(), &[&["budgets"], &["budgets", "--unaccounted"]]);
    place.look().execute_batch(BUDGETS).expect("it is SQL");
    let config = config(SIMULATED, PRICE, "total = { budget = { limit = \"9000\" } }")
        .replace("secret = ", "budget = { limit = \"500.00\", window = \"month\" }\nsecret = ");
    let config = format!("{config}\n[teams.growth]\nbudget = {{ limit = \"2000\" }}\n");
    std::fs::write(place.folder().join("budgets.toml"), config).expect("the folder can be written");
    let reported = all_said(
        place.folder(),
        &[
            &["budgets", "--config", "budgets.toml"],
            &["budgets", "--config", "budgets.toml", "--past", "--csv"],
            &["budgets", "--config", "budgets.toml", "--json"],
            &["budgets", "--store", "sqlite:tierway.db"],
            &["budgets", "--unaccounted"],
            &["budgets", "--unaccounted", "--csv"],
            &["budgets", "--unaccounted", "--json"],
            &["budgets", "--unaccounted", "--past"],
        ],
    );
    insta::assert_snapshot!(format!("{empty}\n{reported}"));
}

#[test]
fn without_a_database_each_command_says_what_to_do() {
    let place = Place::new();
    let reported = all_said(
        place.folder(),
        &[
            &["usage"],
            &["migrate", "--status"],
            &["migrate"],
            &["migrate"],
            &["migrate", "--status"],
            &["usage"],
            &["usage", "--store", "sqlite:elsewhere/tierway.db"],
            &["usage", "--store", "memory:"],
            &["migrate", "--store", "sqlite:elsewhere/tierway.db"],
            &["explain", "--model", "m", "--store", "sqlite:tierway.db"],
        ],
    );
    insta::assert_snapshot!(reported);
}

#[test]
fn a_database_in_use_can_be_read_and_not_migrated() {
    let place = Place::new();
    let gateway = Running::serve(place.folder());
    let answer = Client::connect(gateway.addr).expect("it listens").chat("m").expect("it answers");
    let id = format!("req_{:032x}", answer.id.expect("it has a name"));
    let deadline = std::time::Instant::now() + crate::process::PATIENCE;
    while place.ids().is_empty() {
        assert!(std::time::Instant::now() < deadline, "it is never written");
        std::thread::sleep(Duration::from_millis(2));
    }
    let explained = printed(place.folder(), &["explain", "--request", &id]);
    assert!(explained.contains("key app, team growth, policy all"), "{explained}");
    assert!(explained.contains("$0.1 in, $0.1 cached, $0.25 out per million tokens"), "{explained}");
    let refused = said(place.folder(), &["migrate"]);
    assert!(refused.starts_with("$ tierway migrate\nexit Some(69)\nerror: another tierway holds"), "{refused}");
    gateway.stop();
}
