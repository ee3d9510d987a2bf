//! The commands of docs/keys.md and docs/audit.md are run as they are written there.

use crate::place::Place;
use std::path::Path;

/// Runs every command of the page, which has at least so many.
fn runs_as_written(name: &str, least: usize) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join(name)).expect("the page is there");
    let folder = Path::new(env!("CARGO_BIN_EXE_tierway")).parent().expect("the binary is in a folder");
    let place = Place::new();
    let mut tried = 0;
    for block in page.split("```sh\n").skip(1) {
        let script = block.split("```").next().unwrap_or_default();
        let mut shell = std::process::Command::new("sh");
        shell.args(["-ec", script]).current_dir(place.folder()).env_clear().env("APP_KEY", crate::process::KEY);
        shell.env("PATH", format!("{}:/usr/bin:/bin", folder.display()));
        let output = shell.output().expect("a shell runs");
        assert!(output.status.success(), "{script}\n{}", crate::place::text(&output.stderr));
        tried += script.lines().filter(|line| line.contains("tierway ")).count();
    }
    assert!(tried >= least, "only {tried} commands were found on {name}");
}

#[test]
fn every_command_on_the_pages_works_as_written() {
    runs_as_written("docs/keys.md", 15);
    runs_as_written("docs/audit.md", 6);
}
