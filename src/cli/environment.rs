//! What the command line sets over the environment.
//!
//! A flag such as `serve --listen` is read as the variable of its setting would be, so that whatever is checked of the
//! setting is checked of the flag, at a start and at every reload.

use crate::config::{Environment, ListenAddress, OVERRIDE_PREFIX, ProcessEnvironment};
use std::io;
use std::path::Path;

/// The process's environment, with what the command line sets over it.
#[derive(Clone, Debug, Default)]
pub struct CommandEnvironment {
    /// In place of `[server] listen`.
    pub listen: Option<ListenAddress>,
}

impl CommandEnvironment {
    fn listen(&self) -> Option<(String, String)> {
        self.listen.as_ref().map(|address| (format!("{OVERRIDE_PREFIX}SERVER__LISTEN"), address.to_string()))
    }
}

impl Environment for CommandEnvironment {
    fn variable(&self, name: &str) -> Option<String> {
        let given = self.listen().filter(|(variable, _)| variable == name);
        given.map(|(_, value)| value).or_else(|| ProcessEnvironment.variable(name))
    }

    fn variables(&self) -> Vec<(String, String)> {
        let given = self.listen();
        let is_given = |name: &str| given.as_ref().is_some_and(|(variable, _)| variable == name);
        let mut variables = ProcessEnvironment.variables();
        variables.retain(|(name, _)| !is_given(name));
        variables.extend(given);
        variables
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        ProcessEnvironment.read(path)
    }
}
