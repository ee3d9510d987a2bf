//! Names of the operator's choosing, patterns over them, and log filters.

use crate::config::reader::{ConfigValueRef, DisplayValue, SettingShape, SettingValue, ValueError};
use crate::domain::glob::Glob;
use crate::domain::id::{NAME_MAX_BYTES, is_name};

/// A name of the operator's choosing: printable ASCII without blanks, since it becomes a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct Name(pub(in crate::config) String);

impl Name {
    /// What is wrong with `text` as a name, if anything.
    pub(in crate::config) fn fault(text: &str) -> Option<ValueError> {
        if text.is_empty() {
            return Some(ValueError::hinting("a name may not be empty", Self::HINT));
        }
        if text.len() > NAME_MAX_BYTES {
            let message = format!("a name may not be longer than {NAME_MAX_BYTES} bytes");
            return Some(ValueError::hinting(message, Self::HINT));
        }
        if !is_name(text) {
            return Some(ValueError::hinting("a name is ASCII without blanks, quotes and backslashes", Self::HINT));
        }
        None
    }

    const HINT: &'static str = "names become labels and header values: letters, digits and - _ . / :";
}

impl SettingValue for Name {
    const EXPECTED: &'static str = "a name in double quotes";

    fn shape() -> SettingShape {
        SettingShape::Pattern("[!#-\\[\\]-~]{1,200}")
    }

    fn read(value_ref: &ConfigValueRef<'_>) -> Result<Self, ValueError> {
        let text = value_ref.text()?;
        match Self::fault(&text) {
            Some(wrong) => Err(wrong),
            None => Ok(Self(text)),
        }
    }

    fn show(&self) -> DisplayValue {
        DisplayValue::Text(self.0.clone())
    }
}

impl SettingValue for Glob {
    const EXPECTED: &'static str = "a name or a pattern such as \"eu-*\"";

    fn shape() -> SettingShape {
        Name::shape()
    }

    fn read(value_ref: &ConfigValueRef<'_>) -> Result<Self, ValueError> {
        let Name(text) = Name::read(value_ref)?;
        Ok(Self::new(&text))
    }

    fn show(&self) -> DisplayValue {
        DisplayValue::Text(self.as_str().to_owned())
    }
}

/// Which log lines are written: a level, or directives such as `info,tierway::relay=debug`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct LogFilter(pub(in crate::config) String);

impl SettingValue for LogFilter {
    const EXPECTED: &'static str = "a level: error, warn, info, debug or trace";

    fn read(value_ref: &ConfigValueRef<'_>) -> Result<Self, ValueError> {
        let text = value_ref.text()?;
        let level = text.split(['=', ',']).all(|part| !part.trim().is_empty());
        match tracing_subscriber::EnvFilter::try_new(&text) {
            Ok(_) if level && known_levels(&text) => Ok(Self(text)),
            _ => Err(ValueError::new("is not a log level")),
        }
    }

    fn show(&self) -> DisplayValue {
        DisplayValue::Text(self.0.clone())
    }
}

/// A directive without `=` is a level here, never the name of a module: `inof` would log nothing.
fn known_levels(text: &str) -> bool {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let level = |part: &str| part.rsplit('=').next().unwrap_or(part).trim().to_ascii_lowercase();
    text.split(',').all(|part| LEVELS.contains(&level(part).as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_not_a_module() {
        let check = |text, expected| assert_eq!(known_levels(text), expected, "{text}");
        check("info", true);
        check("INFO", true);
        check("info,tierway::relay=debug", true);
        check("inof", false);
        check("tierway", false);
        check("tierway=loud", false);
    }
}
