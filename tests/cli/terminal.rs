//! What `serve` shows where its stderr is a terminal, and what it writes where it is not.

use super::{APP_KEY, CONFIG, Place, Running, text};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

/// A terminal: what a person looks at, and what a program has as its output.
pub(super) fn open_terminal() -> (File, File) {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("the system has terminals");
    grantpt(&terminal).and_then(|()| unlockpt(&terminal)).expect("it is ours");
    let path = ptsname(&terminal, Vec::new()).expect("it has a name").into_string().expect("it is text");
    let program = File::options().read(true).write(true).open(path).expect("it opens");
    (File::from(terminal), program)
}

/// All that is shown in `terminal` until its programs have ended.
pub(super) fn seen_in(mut terminal: File) -> String {
    let mut seen = Vec::new();
    // A terminal whose other side was closed is an error to its reader.
    let _ = terminal.read_to_end(&mut seen);
    text(&seen)
}

/// What a person sees of a gateway that served one request and refused another one, in the terminal `name`.
fn shown(name: &str, colours: bool) -> String {
    let place = Place::with(CONFIG);
    let (terminal, stderr) = open_terminal();
    let mut command = place.command(&["serve"]);
    command.env("TERM", name).stdout(Stdio::piped()).stderr(stderr);
    if !colours {
        command.env("NO_COLOR", "1");
    }
    let mut child = command.spawn().expect("the binary starts");
    // The command still has the terminal open: without that its end is never read.
    drop(command);
    let reader = std::thread::spawn(move || seen_in(terminal));
    let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("stdout is text");
    let addr = line.trim().strip_prefix("listening on http://").expect("it serves").parse().expect("an address");
    let running = Running { child, addr, _stdout: stdout, stderr: reader };
    assert_eq!(running.chat(APP_KEY, "acme/small").0, 200);
    assert_eq!(running.chat(APP_KEY, "acme/none").0, 404);
    running.stop().1
}

#[test]
fn a_terminal_shows_a_line_for_each_request() {
    let seen = shown("xterm", false);
    let line = |wanted: &str| {
        let line = seen.lines().find(|line| line.contains(wanted)).unwrap_or_else(|| panic!("no {wanted:?}: {seen}"));
        line.trim_end().to_owned()
    };
    let served = line("acme/small → acme/small at ");
    assert!(served.contains("Z  200  ") && served.contains(" first ") && served.contains("  app  "), "{served}");
    let refused = line("refused: model_not_found");
    assert!(refused.contains("Z  404  ") && refused.contains("acme/none") && refused.contains("req_"), "{refused}");
    assert!(!seen.contains('{') && !seen.contains('\u{1b}'), "no JSON, and no colours that nobody wants: {seen}");
}

#[test]
fn a_terminal_with_colours_has_the_status_in_one() {
    let seen = shown("xterm", true);
    assert!(seen.contains("\u{1b}[32m200\u{1b}[0m") && seen.contains("\u{1b}[33m404\u{1b}[0m"), "{seen}");
    assert!(!shown("dumb", true).contains('\u{1b}'), "a terminal that has none is sent none");
}

#[test]
fn where_there_is_no_terminal_every_line_names_its_time_and_level_alike() {
    let place = Place::with(&CONFIG.replace("first_token = \"0ms\"", "first_token = \"1ms\""));
    let running = place.serve(&["serve"]);
    assert_eq!(running.chat(APP_KEY, "acme/small").0, 200);
    let (_, said) = running.stop();
    let lines = said.lines().filter(|line| line.starts_with('{'));
    let lines: Vec<serde_json::Value> = lines.map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let access = |line: &&serde_json::Value| line["target"] == "access";
    assert_eq!(lines.iter().filter(access).count(), 1, "{said}");
    for line in &lines {
        assert!(line["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
        assert!(line["level"].is_string() && line["target"].is_string(), "{line}");
    }
}
