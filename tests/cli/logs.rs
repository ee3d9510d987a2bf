//! `tierway logs`: what a gateway has served, in the columns of its own terminal, from the ledger.

use super::{APP_KEY, CONFIG, Place, check, text};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

#[test]
fn the_last_requests_have_a_line_each_and_further_ones_as_they_end() {
    let place = Place::with(CONFIG);
    let running = place.serve(&["serve"]);
    for model in ["acme/small", "acme/none", "acme/small"] {
        running.chat(APP_KEY, model);
    }
    let shown = |args: &[&str]| -> Vec<String> {
        let output = place.run(&[&["logs"], args].concat());
        check(&output, 0, &[]);
        text(&output.stdout).lines().map(str::to_owned).collect()
    };
    // A receipt is written by a thread of its own.
    running.eventually("three receipts", |_| shown(&[]).len() == 4);
    let lines = shown(&[]);
    assert!(lines[0].ends_with(" UTC") && lines[0].starts_with("20"), "{lines:?}");
    assert!(
        lines[1].contains("  200  ") && lines[1].contains("acme/small → acme/small at sim/acme/small"),
        "{lines:?}"
    );
    assert!(lines[2].contains("  404  ") && lines[2].contains("model_not_found"), "{lines:?}");
    assert!(lines.iter().all(|line| !line.contains('\u{1b}')), "no colours without a terminal: {lines:?}");
    assert_eq!(shown(&["-n", "1"])[1..], lines[3..]);
    assert_eq!(shown(&["--failed"])[1..], lines[2..3]);
    assert_eq!(shown(&["--where", "key=nobody"]).len(), 0);
    let objects = shown(&["--json", "--failed"]);
    let object: serde_json::Value = serde_json::from_str(&objects[0]).expect("an object a line");
    assert_eq!((objects.len(), &object["status"]), (1, &404.into()));

    let mut follow = place.command(&["logs", "--follow", "-n", "1"]);
    let mut follow = follow.stdout(Stdio::piped()).spawn().expect("the binary starts");
    let mut followed = BufReader::new(follow.stdout.take().expect("stdout is piped")).lines();
    let mut next = || followed.next().expect("it goes on").expect("it is text");
    // When the last one is shown, it knows what came before.
    assert_eq!((next(), next()), (lines[0].clone(), lines[3].clone()));
    running.chat(APP_KEY, "acme/gone");
    let line = next();
    assert!(line.contains("  404  ") && line.contains("acme/gone"), "{line}");
    follow.kill().expect("it runs");
    follow.wait().expect("it was started here");
    running.stop();
}
