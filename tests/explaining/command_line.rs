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
fn every_shell_gets_a_script_that_asks_the_binary() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = Workspace::empty().prints(&["completions", shell], 0);
        assert!(script.contains("TIERWAY_COMPLETE") && script.contains("tierway"), "{shell}: {script}");
    }
    let output = Workspace::empty().run(&["completions", "cmd"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("possible values"), "{}", text(&output.stderr));
}

const CONFIG: &str = r#"
[providers.sim]
protocol = "sim"

[models."acme/large"]
deployments = [{ provider = "sim" }]

[models."acme/small"]
deployments = [{ provider = "sim" }]

[policies.standard]
models = ["*"]

[[keys]]
name   = "growth-app"
policy = "standard"
secret = "env:NOT_IN_THIS_SHELL"
"#;

/// Bash itself completes what it sourced: commands, options, and names of the configuration and the store.
#[test]
fn bash_completes_commands_and_names() {
    let workspace = Workspace::with(CONFIG);
    let script = workspace.prints(&["completions", "bash"], 0);
    let folder = std::path::Path::new(env!("CARGO_BIN_EXE_tierway")).parent().expect("the binary lies in a folder");
    let completed = |words: &str| -> Vec<String> {
        let last = words.split(' ').count() - 1;
        let asked = format!(
            "COMP_WORDS=({words}) COMP_CWORD={last} COMP_TYPE=9; _clap_complete_tierway tierway \"${{COMP_WORDS[{last}]}}\"; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let mut bash = Command::new("bash");
        bash.args(["-c", &format!("{script}\n{asked}")]).current_dir(workspace.path("."));
        bash.env("PATH", format!("{}:/usr/bin:/bin", folder.display())).env_remove("TIERWAY_CONFIG");
        let output = bash.output().expect("bash runs");
        text(&output.stdout).split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(completed("tierway expl"), ["explain"]);
    assert_eq!(completed("tierway explain --mod"), ["--model"]);
    assert_eq!(completed("tierway explain --model acme/s"), ["acme/small"]);
    assert_eq!(completed("tierway explain --key gr"), ["growth-app"]);
    assert_eq!(completed("tierway keys show gr"), ["growth-app"]);
    assert_eq!(completed("tierway keys create --policy st"), ["standard"]);
    // A secret is never the name of a key.
    assert!(completed("tierway ask --key gr").iter().all(|name| name != "growth-app"));
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
