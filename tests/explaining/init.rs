//! `init`: whatever lies in the environment, what it writes checks, and no secret is in it.

use super::{Workspace, text};

const VARIABLES: [&str; 5] =
    ["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GROQ_API_KEY", "OPENROUTER_API_KEY", "FIREWORKS_API_KEY"];

#[test]
fn every_set_of_keys_gives_a_file_that_checks() {
    for set in 0_u32..1 << VARIABLES.len() {
        let found: Vec<&str> =
            VARIABLES.into_iter().enumerate().filter(|(bit, _)| set >> bit & 1 == 1).map(|(_, name)| name).collect();
        let workspace = Workspace::empty();
        let run = |args: &[&str]| {
            let mut command = workspace.command(args);
            command.envs(found.iter().map(|name| (name, format!("canary-{name}"))));
            command.output().expect("the binary starts")
        };
        let output = run(&["init"]);
        assert_eq!(output.status.code(), Some(0), "{found:?}: {}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "tierway.toml\n");
        let file = std::fs::read_to_string(workspace.path("tierway.toml")).expect("it was written");
        let shown = format!("{file}{}", text(&output.stderr));
        assert!(!shown.contains("canary"), "{shown}");
        for name in &found {
            assert!(file.contains(&format!("env:{name}")), "{name} is not in: {file}");
        }
        let dialect: &[&str] = if found == ["ANTHROPIC_API_KEY"] { &["--endpoint", "messages"] } else { &[] };
        let explain = [&["explain", "--model", "auto"][..], dialect].concat();
        for args in [&["check"][..], &explain] {
            let output = run(args);
            assert_eq!(output.status.code(), Some(0), "{args:?} {found:?}: {}\n{file}", text(&output.stderr));
            assert!(!text(&output.stdout).contains("not yet enforced"), "{}", text(&output.stdout));
        }
    }
}

#[test]
fn the_commands_that_init_prints_work_as_pasted() {
    let workspace = Workspace::empty();
    std::fs::create_dir(workspace.path("my files")).expect("a directory");
    let output = workspace.run(&["init", "--output", "my files/gateway.toml"]);
    let said = text(&output.stderr);
    let commands: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("  tierway ")).collect();
    assert_eq!(commands.len(), 3, "{said}");
    for command in commands.iter().filter(|command| !command.starts_with("serve")) {
        let script = format!("{} {command}", env!("CARGO_BIN_EXE_tierway"));
        let output = std::process::Command::new("sh")
            .args(["-c", &script])
            .current_dir(workspace.path(""))
            .output()
            .expect("a shell runs");
        assert!(output.status.success(), "{script}: {}", text(&output.stderr));
    }
}

#[test]
fn a_file_is_replaced_only_with_force() {
    let workspace = Workspace::with("# mine\n");
    let output = workspace.run(&["init"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("--force"), "{}", text(&output.stderr));
    let read = || std::fs::read_to_string(workspace.path("tierway.toml")).expect("it is there");
    assert_eq!(read(), "# mine\n");
    workspace.prints(&["init", "--force"], 0);
    assert!(read().contains("[providers.sim]"));
    workspace.prints(&["init", "--output", "other.toml"], 0);
    let output = workspace.run(&["init", "--output", "gone/other.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("gone/other.toml"), "{}", text(&output.stderr));
}
