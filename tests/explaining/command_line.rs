//! Completion scripts for shells, and manual pages.

use super::{Workspace, text};
use std::process::Command;

const COMMANDS: [&str; 12] = [
    "serve",
    "check",
    "explain",
    "status",
    "keys",
    "teams",
    "credits",
    "budgets",
    "config",
    "healthcheck",
    "completions",
    "man",
];

#[test]
fn every_shell_gets_a_script_that_knows_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = Workspace::empty().prints(&["completions", shell], 0);
        for command in COMMANDS {
            assert!(script.contains(command), "{shell} does not know {command}");
        }
    }
    let output = Workspace::empty().run(&["completions", "cmd"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("possible values"), "{}", text(&output.stderr));
}

/// Bash itself completes what it sourced.
#[test]
fn bash_completes_a_command() {
    let script = Workspace::empty().prints(&["completions", "bash"], 0);
    let asked = "COMP_WORDS=(tierway expl) COMP_CWORD=1; _tierway tierway expl tierway; echo ${COMPREPLY[@]}";
    let output = Command::new("bash").args(["-c", &format!("{script}\n{asked}")]).output().expect("bash runs");
    assert_eq!(text(&output.stdout).trim(), "explain", "{}", text(&output.stderr));
}

#[test]
fn every_command_has_a_manual_page() {
    let workspace = Workspace::empty();
    let printed = workspace.prints(&["man", "--out", "share/man"], 0);
    assert_eq!(printed, "share/man/tierway.1\n");
    for command in COMMANDS {
        let page = std::fs::read_to_string(workspace.path(&format!("share/man/tierway-{command}.1")));
        assert!(page.is_ok_and(|page| page.contains(".SH SYNOPSIS")), "{command}");
    }
    let output = Workspace::with("").run(&["man", "--out", "tierway.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("tierway.toml"), "{}", text(&output.stderr));
}
