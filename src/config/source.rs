//! Finding the configuration: a file, or the built-in demo.

use std::path::{Path, PathBuf};

use super::env::Environment;
use super::problem::Problems;

/// The variable that names the file where the command line does not.
const PATH_VARIABLE: &str = "TIERWAY_CONFIG";
/// Where a file is looked for when none is named, in this order.
const USUAL_PATHS: [&str; 2] = ["./tierway.toml", "/etc/tierway/tierway.toml"];
/// The demo runs without a file, a network or an account.
const DEMO: &str = include_str!("../../config/tierway.toml");

/// The text of a configuration and where it is from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConfigSource {
    /// A file that was read.
    File {
        /// Its path, as it was found.
        path: PathBuf,
        /// Its text.
        text: String,
    },
    /// The built-in demo: simulated providers in three regions.
    Demo,
}

impl ConfigSource {
    /// The file at `path`.
    ///
    /// # Errors
    ///
    /// The one problem that it cannot be read.
    pub fn file(path: &Path, environment: &dyn Environment) -> Result<Self, Problems> {
        match environment.read(path) {
            Ok(text) => Ok(Self::File { path: path.to_owned(), text }),
            Err(error) => Err(Problems::unreadable(&path.display().to_string(), &error)),
        }
    }

    /// Whether it is the built-in demo.
    pub fn is_demo(&self) -> bool {
        matches!(self, Self::Demo)
    }

    /// The path of the file, `None` for the demo.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File { path, .. } => Some(path),
            Self::Demo => None,
        }
    }

    /// Its name in messages.
    pub fn name(&self) -> String {
        match self {
            Self::File { path, .. } => path.display().to_string(),
            Self::Demo => "built-in demo".to_owned(),
        }
    }

    /// The text of the file.
    pub fn text(&self) -> &str {
        match self {
            Self::File { text, .. } => text,
            Self::Demo => DEMO,
        }
    }
}

/// Finds the configuration: `named` on the command line, else `$TIERWAY_CONFIG`, else the usual
/// places, else the demo.
///
/// # Errors
///
/// The one problem that the file cannot be read; a usual place where there is none is no problem.
pub fn find(named: Option<&Path>, environment: &dyn Environment) -> Result<ConfigSource, Problems> {
    let variable = || environment.variable(PATH_VARIABLE).filter(|path| !path.is_empty());
    if let Some(path) = named.map(Path::to_owned).or_else(|| variable().map(PathBuf::from)) {
        return ConfigSource::file(&path, environment);
    }
    for path in USUAL_PATHS.map(Path::new) {
        match environment.read(path) {
            Ok(text) => {
                let path = path.to_owned();
                return Ok(ConfigSource::File { path, text });
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Problems::unreadable(&path.display().to_string(), &error)),
        }
    }
    Ok(ConfigSource::Demo)
}
