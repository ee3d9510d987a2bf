//! The commands that explain: what they print, with what they exit, and that the documentation made
//! from them is up to date.
//!
//! Every test starts the binary in a directory of its own, without the variables of this machine.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

mod command_line;
mod documents;
mod explain;
mod init;
mod links;
mod prices;
mod schema;
mod validator;

/// A directory with nothing in it, so that no file but the one named is found.
struct Workspace(TempDir);

impl Workspace {
    fn empty() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn with(config: &str) -> Self {
        let workspace = Self::empty();
        std::fs::write(workspace.path("tierway.toml"), config).expect("the directory can be written");
        workspace
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tierway"));
        command.args(args).current_dir(self.0.path()).env_clear().stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the binary starts")
    }

    /// What it prints, when it exits with `code`.
    #[track_caller]
    fn prints(&self, args: &[&str], code: i32) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
