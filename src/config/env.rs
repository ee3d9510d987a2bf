//! Environment variables, and the files a configuration refers to.
//!
//! Everything that loading needs from outside comes through an [`Environment`] argument, so that tests are
//! deterministic. Nothing else in this module reads a variable of the process or opens a file. Start reading
//! at [`EnvOverride`].

use std::io;
use std::path::Path;

/// How a variable that overrides a setting begins: `TIERWAY__SERVER__LISTEN` is `server.listen`.
pub const OVERRIDE_PREFIX: &str = "TIERWAY__";

/// The tables whose settings the environment may override.
pub const OVERRIDABLE: [&str; 4] = ["server", "store", "telemetry", "routing"];

/// The variables and files that loading may read.
pub trait Environment {
    /// The variable called `name`, `None` where it is not set or not Unicode.
    fn variable(&self, name: &str) -> Option<String>;

    /// Every variable, in any order.
    fn variables(&self) -> Vec<(String, String)>;

    /// The whole text of a file.
    ///
    /// # Errors
    ///
    /// The error of the operating system.
    fn read(&self, path: &Path) -> io::Result<String>;
}

/// The environment and file system of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn variables(&self) -> Vec<(String, String)> {
        let unicode = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        std::env::vars_os().filter_map(unicode).collect()
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        std::fs::read_to_string(path)
    }
}

/// One variable that overrides a setting.
#[derive(Clone, Debug)]
pub(super) struct EnvOverride {
    pub(super) name: String,
    pub(super) value: String,
    /// Whether a setting took it; what no setting takes is a problem.
    pub(super) used: bool,
}

/// Every override among the variables, ordered by name so that problems are too.
pub(super) fn overrides(environment: &dyn Environment) -> Vec<EnvOverride> {
    let mut found: Vec<EnvOverride> = environment
        .variables()
        .into_iter()
        .filter(|(name, _)| name.starts_with(OVERRIDE_PREFIX))
        .map(|(name, value)| EnvOverride { name, value, used: false })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// The variable that overrides the setting `name` under `prefix`: `server` + `max_body`.
pub(super) fn override_name(prefix: &str, name: &str) -> String {
    format!("{prefix}__{}", name.to_ascii_uppercase())
}
