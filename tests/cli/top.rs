//! `tierway top` in a terminal: what it shows, what keys do, and that it leaves the terminal as it was.

use super::terminal::{open_terminal, seen_in};
use super::*;
use std::fs::File;
use std::process::Child;

/// The second screen of a terminal is left by this, and the cursor is shown again.
const SCREEN_ENDS: &str = "\u{1b}[?1049l";
const CURSOR_SHOWN: &str = "\u{1b}[?25h";

/// A gateway, and `top` in a terminal before it.
struct Shown {
    gateway: Running,
    terminal: File,
    top: Child,
    seen: String,
}

impl Shown {
    fn start() -> Self {
        let place = Place::with(CONFIG);
        let gateway = Running::start(with_tokens(place.command(&["serve"])));
        let (terminal, program) = open_terminal();
        let mut size = Command::new("stty");
        size.args(["rows", "30", "cols", "120"]).stdin(program.try_clone().expect("a file"));
        assert!(size.status().expect("stty runs").success());
        drop(size);
        let mut command = with_tokens(place.command(&["top", "--url", &format!("http://{}", gateway.addr)]));
        let file = || program.try_clone().expect("a file");
        command.env("TERM", "xterm").stdin(file()).stdout(file()).stderr(file());
        let top = command.spawn().expect("the binary starts");
        Self { gateway, terminal, top, seen: String::new() }
    }

    /// Reads until `wanted` is shown. Only what differs is drawn again, so that this is to be short.
    fn until(&mut self, wanted: &str) {
        let (mut part, began) = ([0; 8192], Instant::now());
        while !self.seen.contains(wanted) {
            if began.elapsed() >= PATIENCE {
                // Nothing else would end them.
                let _ = (self.top.kill(), self.gateway.child.kill());
                panic!("{wanted:?} is not shown: {:?}", self.seen);
            }
            let read = self.terminal.read(&mut part).expect("the program writes");
            self.seen.push_str(&text(&part[..read]));
        }
    }

    fn press(&mut self, keys: &str) {
        self.terminal.write_all(keys.as_bytes()).expect("the terminal takes keys");
    }

    /// What is shown at the end, and the exit code.
    fn end(mut self) -> (String, Option<i32>) {
        let code = self.top.wait().expect("it was started here").code();
        self.gateway.stop();
        let rest = seen_in(self.terminal);
        (self.seen + &rest, code)
    }
}

#[test]
fn it_shows_a_gateway_until_q_is_pressed() {
    let mut shown = Shown::start();
    shown.until("sim/acme/small");
    shown.until("live");
    assert_eq!(shown.gateway.chat(APP_KEY, "acme/small").0, 200);
    shown.press("/nothing");
    shown.until("g_");
    // While a search is typed, q is one of its letters.
    shown.press("\u{7f}q");
    shown.until("q_");
    shown.press("\r");
    shown.until("takes");
    shown.press("q");
    let (seen, code) = shown.end();
    assert_eq!(code, Some(0), "{seen:?}");
    let (_, after) = seen.rsplit_once(SCREEN_ENDS).expect("the screen is left");
    assert!(seen.contains(CURSOR_SHOWN) && after.replace(CURSOR_SHOWN, "").trim().is_empty(), "{after:?}");
}

#[test]
fn it_says_that_a_gateway_is_gone_and_ends_by_ctrl_c() {
    let mut shown = Shown::start();
    shown.until("live");
    let place = Place::with(CONFIG);
    let gateway = std::mem::replace(&mut shown.gateway, Running::start(with_tokens(place.command(&["serve"]))));
    gateway.stop();
    shown.until("no connection");
    shown.press("\u{3}");
    let (seen, code) = shown.end();
    assert!(code == Some(0) && seen.contains(SCREEN_ENDS), "{code:?} {seen:?}");
}

#[test]
fn without_a_terminal_it_says_what_to_use() {
    let place = Place::with(CONFIG);
    let output = with_tokens(place.command(&["top", "--url", "http://127.0.0.1:1"])).output().expect("it starts");
    check(&output, 2, &["no terminal", "tierway status --watch"]);
}
