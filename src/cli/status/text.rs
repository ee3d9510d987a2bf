//! The status of a gateway for people: a row for each deployment, then what is to be done about credentials.
//!
//! It reads the admin API's object, so that it shows what `--json` prints. What does not flow comes first.
//!
//! Start reading at [`text`].

use crate::cli::table::{NONE, table};
use crate::domain::readable::readable;
use jiff::Timestamp;
use serde_json::Value;
use std::borrow::Cow;
use std::fmt::Alignment::{Left, Right};
use std::fmt::Write;

/// The longest text of a failure in a row, in characters; `--json` has all of it.
const FAILURE_MOST: usize = 100;

/// `status` for people, at a Unix millisecond.
pub(super) fn text(status: &Value, now_unix_ms: i64) -> String {
    // The ages are those at the gateway, whose clock may be another one.
    let now = unix_ms(&status["time"]).unwrap_or(now_unix_ms);
    let mut deployments: Vec<&Value> = list(&status["deployments"]).collect();
    let flows = |deployment: &Value| deployment["state"] == "closed" && deployment["budget_pause"]["scope"] != "all";
    deployments.sort_by_key(|deployment| flows(deployment));
    let broken = deployments.iter().filter(|deployment| !flows(deployment)).count();
    let mut out = match (broken, deployments.len()) {
        (0, count) => format!("{count} deployments, all get their traffic\n\n"),
        (broken, count) => format!("{broken} of {count} deployments do not get their traffic\n\n"),
    };
    let head = [
        ("deployment", Left),
        ("state", Left),
        ("since", Right),
        ("why", Left),
        ("next probe", Right),
        ("in flight", Right),
        ("p50", Right),
        ("p99", Right),
        ("last success", Right),
        ("last failure", Left),
    ];
    out.push_str(&table(&head, &deployments.iter().map(|one| row(one, now)).collect::<Vec<_>>()));
    let credentials = credentials(&deployments, now);
    if !credentials.is_empty() {
        let head = [
            ("credential", Left),
            ("state", Left),
            ("since", Right),
            ("next probe", Right),
            ("deployment", Left),
            ("url", Left),
        ];
        // Writing to a string cannot fail.
        let _ = write!(out, "\nCredentials that are not accepted\n\n{}", table(&head, &credentials));
    }
    let quarantined = |row: &Value| vec![word(&row["table"]), word(&row["row"]), word(&row["why"])];
    let quarantined: Vec<_> = list(&status["quarantined"]).map(quarantined).collect();
    if !quarantined.is_empty() {
        let head = [("table", Left), ("row", Left), ("why", Left)];
        let table = table(&head, &quarantined);
        let _ = write!(out, "\nRows of the store that cannot be read and count for nothing\n\n{table}");
    }
    out
}

fn row(deployment: &Value, now: i64) -> Vec<String> {
    let latency = &deployment["stream_first_token"];
    let mut why = word(&deployment["cause"]);
    if let Some(teams) = deployment["open_for_teams"].as_u64().filter(|teams| *teams > 0) {
        let alone = format!("open for {teams} team{}", if teams == 1 { "" } else { "s" });
        why = if why == NONE { alone } else { format!("{why}, {alone}") };
    }
    let missing: Vec<_> = list(&deployment["missing_endpoints"]).map(shown).collect();
    if !missing.is_empty() {
        let missing = format!("has no {}", missing.join(", "));
        why = if why == NONE { missing } else { format!("{why}, {missing}") };
    }
    let pause = &deployment["budget_pause"];
    if !pause.is_null() {
        let whose = if pause["scope"] == "all" { "all budgets".to_owned() } else { keys(pause) };
        let paused = format!("beyond its hold: {whose} paused, over {}", ahead(&pause["until"], now));
        why = if why == NONE { paused } else { format!("{why}, {paused}") };
    }
    vec![
        word(&deployment["deployment"]),
        word(&deployment["state"]),
        age(&deployment["since"], now),
        why,
        ahead(&deployment["next_probe"], now),
        deployment["attempts_in_flight"].to_string(),
        micros(&latency["p50_us"]),
        micros(&latency["p99_us"]),
        age(&deployment["last_success"], now),
        failure(deployment, now),
    ]
}

/// The keys of a pause, as many as fit a row.
fn keys(pause: &Value) -> String {
    const SHOWN: usize = 3;
    let names: Vec<_> = list(&pause["keys"]).map(shown).collect();
    let more = if names.len() > SHOWN { format!(" and {} more", names.len() - SHOWN) } else { String::new() };
    format!("{}{more}", names[..names.len().min(SHOWN)].join(", "))
}

/// `12s ago, OPENAI_KEY at https://api.example/v1: HTTP 401: Incorrect API key provided`
fn failure(deployment: &Value, now: i64) -> String {
    let failure = &deployment["last_failure"];
    if failure.is_null() {
        return NONE.to_owned();
    }
    let detail = shown(&failure["detail"]);
    let credential = failure["credential"].as_str().map_or(Cow::Borrowed(""), readable);
    let presented = if credential.is_empty() { String::new() } else { format!("{credential} at ") };
    let text = format!(
        "{} ago, {presented}{}: {}, {detail}",
        age(&failure["time"], now),
        shown(&deployment["url"]),
        shown(&failure["reason"]),
    );
    match text.char_indices().nth(FAILURE_MOST + presented.len()) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn credentials(deployments: &[&Value], now: i64) -> Vec<Vec<String>> {
    let row = |deployment: &Value, credential: &Value| {
        let name = credential["name"].as_str().map_or("(none is presented)".into(), readable);
        vec![
            name.into_owned(),
            word(&credential["state"]),
            age(&credential["since"], now),
            ahead(&credential["until"], now),
            word(&deployment["deployment"]),
            word(&deployment["url"]),
        ]
    };
    let of = |deployment: &&Value| {
        let resting = list(&deployment["credentials"]).filter(|credential| credential["state"] != "accepted");
        resting.map(|credential| row(deployment, credential)).collect::<Vec<_>>()
    };
    deployments.iter().flat_map(of).collect()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn shown(value: &Value) -> Cow<'_, str> {
    readable(value.as_str().unwrap_or(NONE))
}

fn word(value: &Value) -> String {
    shown(value).into_owned()
}

fn unix_ms(value: &Value) -> Option<i64> {
    value.as_str()?.parse::<Timestamp>().ok().map(Timestamp::as_millisecond)
}

/// How long ago something was.
fn age(value: &Value, now: i64) -> String {
    unix_ms(value).map_or_else(|| NONE.to_owned(), |at| span(now.saturating_sub(at)))
}

/// How long from now something is.
fn ahead(value: &Value, now: i64) -> String {
    match unix_ms(value) {
        Some(at) if at > now => format!("in {}", span(at - now)),
        Some(_) => "due".to_owned(),
        None => NONE.to_owned(),
    }
}

/// A span of time in its two largest units: `3.2s`, `4m 12s`, `2h 5m`, `3d 4h`.
fn span(ms: i64) -> String {
    let (ms, seconds) = (ms.max(0), ms.max(0) / 1000);
    match seconds {
        0..60 => format!("{seconds}.{}s", ms % 1000 / 100),
        60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

fn micros(value: &Value) -> String {
    match value.as_u64() {
        Some(us) if us < 10_000_000 => format!("{}ms", us / 1000),
        Some(us) => format!("{}s", us / 1_000_000),
        None => NONE.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pause_of_budgets_says_whose_and_how_long() {
        let shown = |scope: &str, keys: &[&str]| {
            let deployment = json!({
                "deployment": "us/m", "state": "closed", "cause": null, "open_for_teams": 0,
                "budget_pause": { "scope": scope, "keys": keys, "until": "2026-11-22T10:05:00.000Z" },
            });
            text(&json!({ "time": "2026-11-22T10:00:00.000Z", "deployments": [deployment] }), 0)
        };
        let some = shown("keys", &["a", "b", "c", "d"]);
        assert!(some.starts_with("1 deployments, all get their traffic"), "{some}");
        assert!(some.contains("beyond its hold: a, b, c and 1 more paused, over in 5m 0s"), "{some}");
        let all = shown("all", &["a", "b"]);
        assert!(all.starts_with("1 of 1 deployments do not get their traffic"), "{all}");
        assert!(all.contains("beyond its hold: all budgets paused, over in 5m 0s"), "{all}");
    }

    #[test]
    fn spans_have_two_units() {
        let check = |ms: i64, expected: &str| assert_eq!(span(ms), expected);
        check(-5, "0.0s");
        check(3_249, "3.2s");
        check(252_000, "4m 12s");
        check(7_500_000, "2h 5m");
        check(273_600_000, "3d 4h");
    }

    #[test]
    fn what_does_not_flow_comes_first_with_its_credential() {
        let deployment = |name: &str, state: &str, failure: Value, credential: &str| {
            json!({
                "deployment": name, "state": state, "cause": if state == "closed" { Value::Null } else { "credential_refused".into() },
                "since": if state == "closed" { Value::Null } else { "2026-11-22T10:00:00.000Z".into() },
                "next_probe": if state == "closed" { Value::Null } else { "2026-11-22T10:01:03.200Z".into() },
                "url": "https://api.example/v1", "open_for_teams": 0, "attempts_in_flight": 2,
                "stream_first_token": { "p50_us": 310_000, "p99_us": null }, "last_success": null,
                "last_failure": failure,
                "credentials": [{ "name": "API_KEY", "state": credential, "since": null, "until": null }],
            })
        };
        let failed = json!({
            "time": "2026-11-22T10:00:58.000Z", "reason": "credential_refused", "status": 401,
            "detail": "HTTP 401: wrong \u{1b}[2J key", "credential": "API_KEY",
        });
        let status = json!({
            "time": "2026-11-22T10:01:00.000Z",
            "deployments": [
                deployment("good/m", "closed", Value::Null, "accepted"),
                deployment("bad/m", "resting", failed, "refused"),
            ],
        });
        insta::assert_snapshot!(text(&status, 0));
    }
}
