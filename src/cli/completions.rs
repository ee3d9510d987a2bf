//! `tierway completions` and `tierway man`: the command line, for shells and for `man`.
//!
//! Both are made from the definition of the command line, so that they cannot be out of date. A shell asks the binary itself
//! what comes next, so that it also knows the names of keys, teams, policies, models and deployments.
//!
//! Start reading at [`answer_shell`] and [`completions`].

use super::{Cli, completed_names, print};
use anyhow::Context;
use clap::{Args, Command, CommandFactory, Id};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::Shells;
use clap_complete::{CompleteEnv, Shell};
use std::path::PathBuf;

/// How a shell's script says which shell asks.
const VARIABLE: &str = "TIERWAY_COMPLETE";

/// Arguments of `completions`.
#[derive(Args, Debug)]
pub(super) struct CompletionsArgs {
    /// For which shell
    shell: Shell,
}

/// Arguments of `man`.
#[derive(Args, Debug)]
pub(super) struct ManArgs {
    /// The directory to write to; made where it is missing
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Says what may come next where a script of [`completions`] asks, and ends the process then.
pub(super) fn answer_shell() {
    CompleteEnv::with_factory(|| with_names(Cli::command(), "")).var(VARIABLE).bin("tierway").complete();
}

/// Prints a script that has a shell ask this binary.
///
/// # Errors
/// When it cannot be written.
pub(super) fn completions(args: &CompletionsArgs) -> anyhow::Result<()> {
    let shells = Shells::builtins();
    let shell = shells.completer(&args.shell.to_string()).context("this shell cannot ask for completions")?;
    let mut script = Vec::new();
    shell.write_registration(VARIABLE, "tierway", "tierway", "tierway", &mut script)?;
    print(&String::from_utf8_lossy(&script))?;
    Ok(())
}

/// The command line with the names that its arguments may have; `path` is what was typed before it.
fn with_names(command: Command, path: &str) -> Command {
    let ids: Vec<Id> = command.get_arguments().map(|argument| argument.get_id().clone()).collect();
    let below: Vec<String> = command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    let command = ids.into_iter().fold(command, |command, id| match names_of(path, id.as_str()) {
        Some(names) => command.mut_arg(id, |argument| argument.add(ArgValueCandidates::new(names))),
        None => command,
    });
    below.into_iter().fold(command, |command, name| {
        let path = format!("{path} {name}");
        command.mut_subcommand(name, |command| with_names(command, path.trim_start()))
    })
}

/// What completes the argument called `argument` of a command.
fn names_of(command: &str, argument: &str) -> Option<fn() -> Vec<CompletionCandidate>> {
    let (of, action) = command.split_once(' ').unwrap_or((command, ""));
    match (of, argument) {
        // Not the name of a key, but its secret.
        ("ask" | "models", "key") => None,
        // It may be no name that there is.
        (_, "name") if action == "create" => None,
        ("keys", "name") | (_, "key") => Some(completed_names::keys),
        ("teams", "name") | (_, "team") => Some(completed_names::teams),
        (_, "policy") => Some(completed_names::policies),
        (_, "model") => Some(completed_names::models),
        (_, "resume") => Some(completed_names::deployments),
        _ => None,
    }
}

/// Writes a manual page for each command, and prints where they are.
///
/// # Errors
/// When the directory cannot be written to.
pub(super) fn man(args: &ManArgs) -> anyhow::Result<()> {
    let out = &args.out;
    let written = std::fs::create_dir_all(out).and_then(|()| clap_mangen::generate_to(Cli::command(), out));
    written.with_context(|| format!("cannot write manual pages to {}", out.display()))?;
    print(&format!("{}\n", out.join("tierway.1").display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_complete_what_names_are_and_no_secret() {
        let check = |command: &str, argument: &str, expected: bool| {
            assert_eq!(names_of(command, argument).is_some(), expected, "{command} {argument}");
        };
        check("keys show", "name", true);
        check("keys create", "name", false);
        check("keys create", "policy", true);
        check("teams edit", "name", true);
        check("explain", "key", true);
        check("ask", "key", false);
        check("ask", "model", true);
        check("models", "key", false);
        check("status", "resume", true);
        check("prices show", "name", false);
        // Every command can still be built.
        with_names(Cli::command(), "").debug_assert();
    }
}
