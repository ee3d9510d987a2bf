//! A month of an SLA: closed once, whoever closes it and wherever that is killed; restated, and never taken back.

use crate::process::{KEY, PRICE, SIMULATED, config, tierway};
use crate::receipts::{Place, receipt, until_written};
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tierway::admin::AdminOperations;
use tierway::clock::Clock;
use tierway::config::{ConfigSource, ProcessEnvironment, Snapshot, load};
use tierway::domain::audit::Operator;
use tierway::domain::budget::Scope;
use tierway::domain::id::RequestId;
use tierway::domain::money::NanoUsd;
use tierway::domain::random::RandomValue;
use tierway::domain::reason::Reason;
use tierway::domain::receipt::{Outcome, Receipt};
use tierway::domain::register::Holder;
use tierway::domain::sla::month::SlaMonth;
use tierway::store::keyring::Keyring;
use tierway::store::sqlite::{SqliteRegister, SqliteReports};
use tierway::store::{Ledger, Register, SlaPresence};

/// 2024-11-01T00:00:00Z, and the end of that month.
const NOVEMBER: i64 = 1_730_419_200_000;
const DECEMBER: i64 = NOVEMBER + 30 * 86_400_000;
const HOUR: i64 = 3_600_000;
const MINUTE: i64 = 60_000;
const SLA: &str =
    r#"uptime = "99.9%", credits = [{ below = "99.9%", credit = "10%" }, { below = "99%", credit = "25%" }]"#;
const SEED: u64 = 20_261_201;

/// Request `number` of the month, which belongs to one of three keys, one of them in a team. The outage is scripted: 13 of
/// 10,000 fail, in one hour.
fn request(number: u64) -> Receipt {
    let received_unix_ms = NOVEMBER + i64::try_from(number).expect("a small number") * 259_200;
    let (key, team) = [("app", None), ("batch", None), ("search", Some("growth"))][number as usize % 3];
    let plain = Receipt {
        id: RequestId((u128::from(received_unix_ms.unsigned_abs()) << 80) | u128::from(number)),
        received_unix_ms,
        key: Some(key.into()),
        team: team.map(Into::into),
        policy: Some("all".into()),
        cost: NanoUsd(1_000_003 + 7 * i64::try_from(number).expect("a small number")),
        ..receipt(number)
    };
    match number {
        5_000..5_013 => Receipt {
            outcome: Outcome::Failed,
            reason: Reason::UpstreamStatus,
            status: 502,
            first_token: None,
            ..plain
        },
        _ => plain,
    }
}

/// A tenth of what was spent by each holder, rounded up, computed from the script.
fn tenth_of(numbers: impl Iterator<Item = u64> + Clone) -> [(&'static str, i64); 3] {
    [("app", 0), ("batch", 1), ("growth", 2)].map(|(name, key)| {
        let spent: i64 = numbers.clone().filter(|number| number % 3 == key).map(|number| request(number).cost.0).sum();
        (name, (spent + 9) / 10)
    })
}

/// A database with `receipts`.
fn filled(receipts: impl Iterator<Item = Receipt>) -> Place {
    let place = Place::new();
    append(&place, receipts);
    place
}

fn append(place: &Place, receipts: impl Iterator<Item = Receipt>) {
    let (ledger, _writing) = place.open();
    receipts.for_each(|receipt| ledger.append(&Arc::new(receipt), None));
    until_written(&ledger);
}

fn command(folder: &Path, sla: &str, args: &[&str]) -> Command {
    let command = tierway(folder, args);
    let policy = format!("sla = {{ {sla} }}");
    std::fs::write(folder.join("tierway.toml"), config(SIMULATED, PRICE, &policy)).expect("the folder can be written");
    command
}

#[track_caller]
fn printed(folder: &Path, sla: &str, args: &[&str]) -> String {
    let output = command(folder, sla, args).output().expect("the binary starts");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("it is text")
}

#[track_caller]
fn json(folder: &Path, sla: &str, args: &[&str]) -> Value {
    serde_json::from_str(&printed(folder, sla, args)).expect("it is JSON")
}

const CLOSE: [&str; 6] = ["sla", "close", "--month", "2024-11", "--policy", "all"];
const REPORT: [&str; 5] = ["sla", "report", "--month", "2024-11", "--json"];

/// Every grant, and the sum of each holder's.
fn grants(place: &Path) -> (usize, Vec<(String, i64)>) {
    let look = rusqlite::Connection::open(place.join("tierway.db")).expect("the database is there");
    let count: i64 = look.query_row("SELECT count(*) FROM grants", [], |row| row.get(0)).expect("it is read");
    let mut statement = look
        .prepare("SELECT name, sum(amount_nanousd) FROM grants GROUP BY scope, name ORDER BY name")
        .expect("the table is there");
    let sums = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("it is read");
    (usize::try_from(count).expect("a small number"), sums.collect::<Result<_, _>>().expect("names and sums"))
}

fn owned(sums: [(&'static str, i64); 3]) -> Vec<(String, i64)> {
    sums.map(|(name, sum)| (name.to_owned(), sum)).to_vec()
}

#[test]
fn an_outage_is_credited_once_to_the_nano_dollar() {
    let place = filled((0..10_000).map(request));
    let report = json(place.folder(), SLA, &REPORT);
    let [report] = &report["data"].as_array().expect("a list")[..] else { panic!("one policy: {report}") };
    let figures = &report["figures"];
    assert_eq!((&figures["eligible"], &figures["failed"]), (&10_000.into(), &13.into()), "{report:#}");
    assert_eq!((&figures["uptime"], &report["step"]["credit"]), (&"99.87%".into(), &"10%".into()));
    assert_eq!(figures["error_budget_left_s"], -778, "of 43.2 minutes that may be down, 56.16 were");
    let cause = &figures["worst_hour"]["causes"][0];
    assert_eq!(cause["reason"], "upstream_status");
    assert_eq!(cause["request_id"], request(5_000).id.to_string(), "of the hour with most failures, the first");
    assert_eq!(report["keys"].as_array().map(Vec::len), Some(3));
    assert_eq!(report["closings"], Value::Array(Vec::new()), "a report closes nothing");
    assert_eq!(grants(place.folder()).0, 0);
    let closing = json(place.folder(), SLA, &[&CLOSE[..], &["--json"]].concat());
    assert_eq!((&closing["uptime"], &closing["statement"]), (&"99.87%".into(), &1.into()));
    assert_eq!(grants(place.folder()), (3, owned(tenth_of(0..10_000))));
    let again = printed(place.folder(), SLA, &CLOSE);
    assert!(again.contains("is closed already"), "{again}");
    assert_eq!(grants(place.folder()).0, 3, "credit is granted once");
    let text = printed(place.folder(), SLA, &["sla", "report", "--month", "2024-11"]);
    assert!(text.contains("closed") && text.contains("13 of 10000 failed"), "{text}");
    let with_page = ["sla", "report", "--month", "2024-11", "--html", "sla.html"];
    assert_eq!(printed(place.folder(), SLA, &with_page), text, "the page is written as well");
    let page = std::fs::read_to_string(place.folder().join("sla.html")).expect("it is written");
    for said in ["policy all, 2024-11: 99.9% promised", "<td>batch</td>", "worst hour: 13 failed", "13 of 10000 failed"]
    {
        assert!(page.contains(said), "{said}: {page}");
    }
    for outside in ["http", "src=", "<script", "url("] {
        assert!(!page.contains(outside), "it needs nothing beside itself: {outside}");
    }
}

#[test]
fn late_receipts_restate_and_take_nothing_back() {
    let place = filled((0..9_000).map(request));
    printed(place.folder(), SLA, &CLOSE);
    append(&place, (9_000..10_000).map(request));
    let restated = json(place.folder(), SLA, &[&CLOSE[..], &["--json"]].concat());
    assert_eq!((&restated["statement"], &restated["requests"]), (&2.into(), &10_000.into()));
    assert_eq!(grants(place.folder()), (6, owned(tenth_of(0..10_000))), "what is due beyond, by further entries");
    // So many good ones that the promise was kept.
    let good = (0..10_000).map(|number| {
        let plain = request(number);
        Receipt {
            id: RequestId(plain.id.0 | 1 << 40),
            outcome: Outcome::Served,
            status: 200,
            cost: NanoUsd(1),
            ..plain
        }
    });
    append(&place, good);
    let kept = json(place.folder(), SLA, &[&CLOSE[..], &["--json"]].concat());
    assert_eq!((&kept["statement"], &kept["step"]), (&3.into(), &Value::Null));
    assert_eq!(grants(place.folder()), (6, owned(tenth_of(0..10_000))), "nothing is taken back");
}

#[test]
fn a_month_with_few_requests_pays_nothing() {
    let place = filled((4_950..5_049).map(request));
    let closing = json(place.folder(), SLA, &[&CLOSE[..], &["--json"]].concat());
    assert_eq!((&closing["eligible"], &closing["failed"], &closing["step"]), (&99.into(), &13.into(), &Value::Null));
    assert_eq!(grants(place.folder()).0, 0);
}

#[test]
fn a_month_that_is_not_over_is_reported_and_not_closed() {
    let place = filled((0..1).map(request));
    let now = Clock.unix_ms();
    let utc = tierway::domain::budget::Zone::named("UTC").expect("UTC is built in");
    let month = SlaMonth::at(now, &utc).to_string();
    let text = printed(place.folder(), SLA, &["sla", "report", "--month", &month]);
    assert!(text.contains("month to date, until"), "{text}");
    let close = ["sla", "close", "--policy", "all", "--month", &month];
    let refused = command(place.folder(), SLA, &close).output().expect("the binary starts");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2));
    assert!(said.contains(&format!("month: {month} is not over; it can be closed from ")), "{said}");
    let begun = command(place.folder(), SLA, &["sla", "report", "--month", "8999-01"]).output().expect("it starts");
    assert!(String::from_utf8_lossy(&begun.stderr).contains("8999-01 has not begun"));
    assert_eq!(grants(place.folder()).0, 0);
}

/// The next number below `below`.
fn draw(drawn: &mut u64, below: u64) -> u64 {
    *drawn += 1;
    RandomValue(SEED).salted(*drawn).below(below)
}

#[test]
fn closers_that_are_killed_and_closers_at_the_same_time_pay_once() {
    const KILLS: u32 = 20;
    let full = filled((0..10_000).map(request));
    let expected = (3, owned(tenth_of(0..10_000)));
    let started = Instant::now();
    let copy = Place::new();
    std::fs::copy(full.database(), copy.database()).expect("it is copied");
    printed(copy.folder(), SLA, &CLOSE);
    let longest = u64::try_from(started.elapsed().as_micros()).expect("not that long") * 5 / 4;
    let (mut drawn, mut paid_before) = (0, 0);
    for round in 0..KILLS {
        let place = Place::new();
        std::fs::copy(full.database(), place.database()).expect("it is copied");
        // Written once: a closer must not read a file that is being written for another.
        command(place.folder(), SLA, &[]);
        let start = || -> Child {
            let mut closer = Command::new(env!("CARGO_BIN_EXE_tierway"));
            closer.args(CLOSE).current_dir(place.folder()).env_clear().env("APP_KEY", KEY);
            closer.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary starts")
        };
        let after = Duration::from_micros(draw(&mut drawn, longest));
        let (mut killed, mut other) = (start(), start());
        // The time itself is what is drawn.
        std::thread::sleep(after);
        let _ = killed.kill();
        killed.wait().expect("it was started here");
        if round % 2 == 0 {
            let _ = other.kill();
        }
        other.wait().expect("it was started here");
        let found = grants(place.folder());
        assert!(found.0 == 0 || found == expected, "seed {SEED}, round {round}, killed after {after:?}: {found:?}");
        paid_before += usize::from(found.0 > 0);
        // Again, by two at the same time.
        let again = [start(), start()];
        for mut closer in again {
            assert!(closer.wait().expect("it was started here").success(), "seed {SEED}, round {round}");
        }
        assert_eq!(grants(place.folder()), expected, "seed {SEED}, round {round}, killed after {after:?}");
    }
    println!("seed {SEED}: {KILLS} kills, {paid_before} of them after the credit was granted; each paid once");
}

fn snapshot(sla: &str) -> Snapshot {
    let text = config(SIMULATED, PRICE, &format!("sla = {{ {sla} }}"));
    let hash = format!("hash = \"sha256:{}\"", "0".repeat(64));
    let text = text.replace("secret = \"env:APP_KEY\"", &hash);
    let source = ConfigSource::File { path: "tierway.toml".into(), text };
    load(&source, &ProcessEnvironment, &[]).unwrap_or_else(|problems| panic!("{}", problems.render(false)))
}

/// What a gateway does, at times that are passed in.
#[tokio::test]
async fn a_gateway_closes_what_it_promised_two_days_after_the_end() {
    let place = filled((0..10_000).map(request));
    let (ledger, _writing) = place.open();
    let register = Arc::new(SqliteRegister::of_gateway(&place.database(), ledger.writer()));
    let keyring = Arc::new(Keyring::open(register).await.expect("it is opened"));
    let operator = Operator { who: "gateway".into(), origin: "here".into(), command: "sla".into(), request_id: None };
    let admin = AdminOperations::new(keyring.clone(), Clock, Arc::new(|| None), operator)
        .with_reports(Some(Arc::new(SqliteReports::of(&place.database()))));
    let snapshot = snapshot(SLA);
    let due = DECEMBER + 48 * HOUR;
    assert!(admin.close_due_months(&snapshot, true, due).await.is_empty(), "nothing was promised in that month");
    admin.note_presence(&snapshot, DECEMBER - MINUTE);
    until_written(&ledger);
    assert!(admin.close_due_months(&snapshot, true, due - 1).await.is_empty(), "it is not due");
    let (one, other) =
        tokio::join!(admin.close_due_months(&snapshot, false, due), admin.close_due_months(&snapshot, false, due));
    assert_eq!(one.len() + other.len(), 1, "one of two closes it");
    let holder = Holder { scope: Scope::Team, name: "growth".into() };
    let team: Vec<NanoUsd> =
        keyring.credit().into_iter().filter(|(of, _)| *of == holder).map(|(_, granted)| granted).collect();
    assert_eq!(team, [NanoUsd(tenth_of(0..10_000)[2].1)], "the gateway can spend it at once");
    assert!(admin.close_due_months(&snapshot, true, due).await.is_empty(), "nothing arrived");
    ledger.append(&Arc::new(request(9_999 + 1)), None);
    let late = Receipt { received_unix_ms: DECEMBER - 1, ..request(9_998 + 3) };
    ledger.append(&Arc::new(late), None);
    until_written(&ledger);
    assert!(admin.close_due_months(&snapshot, false, due + HOUR).await.is_empty(), "that is looked for once a day");
    let restated = admin.close_due_months(&snapshot, true, due + HOUR).await;
    assert_eq!(restated.iter().map(|closing| (closing.statement, closing.requests)).collect::<Vec<_>>(), [(2, 10_001)]);
    assert!(admin.close_due_months(&snapshot, true, due + 40 * 24 * HOUR).await.is_empty());
}

/// A probe of the month: one every five minutes.
fn probe(number: i64, is_down: bool) -> Receipt {
    let received_unix_ms = NOVEMBER + number * 5 * MINUTE + 1_000;
    let served = Receipt {
        id: RequestId((u128::from(received_unix_ms.unsigned_abs()) << 80) | 1 << 60),
        received_unix_ms,
        key: Some("sla probe".into()),
        team: None,
        policy: Some("all".into()),
        cost: NanoUsd(1_000),
        ..receipt(0)
    };
    match is_down {
        true => {
            Receipt { outcome: Outcome::Failed, reason: Reason::Unreachable, status: 502, first_token: None, ..served }
        }
        false => served,
    }
}

#[test]
fn a_night_in_which_only_probes_asked_counts_and_is_nobodys() {
    const INTERVALS: i64 = 30 * 288;
    // A request every 43 minutes, but for eight hours without any: then no probe is answered.
    let requests = || (0..10_000).step_by(10).filter(|number| !(5_000..5_112).contains(number)).map(request);
    let night = (request(5_000).received_unix_ms - NOVEMBER).div_euclid(5 * MINUTE);
    let probes = (0..INTERVALS).map(|number| probe(number, (night..night + 96).contains(&number)));
    let place = filled(requests().chain(probes));
    let five_minutes = format!("{SLA}, measure = \"5m\"");
    // Each of 8,640 intervals counts once, by its request or by its probe.
    for sla in [SLA, &five_minutes] {
        let report = &json(place.folder(), sla, &REPORT)["data"][0];
        let figures = &report["figures"];
        let counted = ["requests", "eligible", "failed", "uptime"].map(|name| figures[name].clone());
        assert_eq!(counted, [988.into(), 988.into(), 0.into(), Value::from("98.8888%")], "{report:#}");
        let probes = &report["probes"];
        let seen = ["sent", "failed", "intervals", "spent"].map(|name| probes[name].clone());
        assert_eq!(seen, [8_640.into(), 96.into(), (8_640 - 988).into(), Value::from("0.00864")], "{report:#}");
        assert_eq!(probes["worst_hour"]["causes"][0]["reason"], "unreachable");
        assert_eq!((report["keys"].as_array().map(Vec::len), &report["step"]["credit"]), (Some(3), &"25%".into()));
    }
    let text = printed(place.folder(), SLA, &["sla", "report", "--month", "2024-11", "--html", "sla.html"]);
    let line = "probes: 8,640 sent, 96 failed, 0.00864 USD; 7,652 intervals count by them";
    let page = std::fs::read_to_string(place.folder().join("sla.html")).expect("it is written");
    assert!(text.contains(line) && text.contains("worst hour of probes: 12 failed"), "{text}");
    assert!(page.contains(line), "{page}");
    // What they cost is a row of its own.
    let usage = ["usage", "--by", "key", "--since", "2024-11-01", "--until", "2024-12-01", "--json"];
    let usage = json(place.folder(), SLA, &usage);
    let cost = |key: &str| {
        let rows = usage["rows"].as_array().expect("rows").iter();
        rows.filter(|row| row["key"] == key).map(|row| row["requests"].clone()).collect::<Vec<_>>()
    };
    assert_eq!((cost("sla probe"), cost("app").len()), (vec![Value::from(8_640)], 1), "{usage:#}");
    // The statement is about requests, so that its probes are not taken for late ones.
    let closing = json(place.folder(), SLA, &[&CLOSE[..], &["--json"]].concat());
    assert_eq!((&closing["requests"], &closing["uptime"]), (&988.into(), &"98.8888%".into()));
    assert!(printed(place.folder(), SLA, &CLOSE).contains("is closed already"));
    assert!(grants(place.folder()).1.iter().all(|(name, _)| name != "sla probe"));
}

#[test]
fn a_night_without_a_gateway_counts_under_five_minutes() {
    let place = filled((0..10_000).filter(|number| !(5_000..5_112).contains(number)).map(request));
    {
        let (ledger, _writing) = place.open();
        let register = SqliteRegister::of_gateway(&place.database(), ledger.writer());
        // Requests 5,000 to 5,111 would have been received from here on, for eight hours.
        let night = request(5_000).received_unix_ms.div_euclid(5 * MINUTE) * 5 * MINUTE;
        for at in (NOVEMBER..DECEMBER).step_by(usize::try_from(5 * MINUTE).expect("it is positive")) {
            if !(night..night + 8 * HOUR).contains(&at) {
                let interval = SlaPresence::interval_at(at);
                register.present(SlaPresence { interval, promised: Vec::new() });
            }
        }
        until_written(&ledger);
    }
    let five_minutes = format!("{SLA}, measure = \"5m\"");
    let report = json(place.folder(), &five_minutes, &REPORT);
    let report = &report["data"][0];
    assert_eq!(report["dead_intervals"], 96, "{report:#}");
    // 96 of 8,640 intervals.
    assert_eq!((&report["figures"]["failed"], &report["figures"]["uptime"]), (&0.into(), &"98.8888%".into()));
    assert_eq!(report["step"]["credit"], "25%");
    let by_requests = json(place.folder(), SLA, &REPORT);
    assert_eq!(by_requests["data"][0]["figures"]["uptime"], "100%", "nobody asked, nobody was refused");
}
