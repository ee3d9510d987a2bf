//! What is known of one setting: its declaration, its value with where it was written, and what may be shown of it.
//!
//! Nothing is read here: start reading at [`Setting`], and at [`SettingValue`](super::SettingValue) for the reading.

use toml::de::DeValue;

use super::super::problem::ValueLocation;

/// A value as `config show` may print it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DisplayValue {
    /// A string.
    Text(String),
    /// A whole number.
    Number(u64),
    /// `true` or `false`.
    Flag(bool),
    /// An array.
    List(Vec<DisplayValue>),
    /// Something that may not be shown.
    Masked,
}

/// One value of the configuration and where it was written.
#[derive(Clone, Debug)]
pub struct Setting<T> {
    /// What was written, or its default.
    pub value: T,
    /// The path of the setting, such as `tiers.default.then[0]`.
    pub path: String,
    /// Where it was written.
    pub location: ValueLocation,
}

impl<T> Setting<T> {
    /// Whether it was written, rather than being a default.
    pub fn is_explicit(&self) -> bool {
        self.location != ValueLocation::Unwritten
    }
}

/// What is declared of a setting beside its type and its default. Only [`section!`](mod@super::section) writes one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SettingKey {
    /// As the file writes it.
    pub(crate) name: &'static str,
    /// What it is for, in one sentence.
    pub(crate) sentence: &'static str,
    /// What would not happen, where its feature is not built.
    pub(crate) unbuilt: Option<&'static str>,
}

impl SettingKey {
    /// A setting whose feature is built.
    pub(crate) const fn new(name: &'static str, sentence: &'static str) -> Self {
        Self { name, sentence: sentence.trim_ascii(), unbuilt: None }
    }

    /// The same, not built yet: `why` completes the warning that is given where it is set.
    pub(crate) const fn unbuilt(self, why: &'static str) -> Self {
        Self { unbuilt: Some(why), ..self }
    }
}

/// The form of a value, as far as an editor can check it. Any text may instead point elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SettingShape {
    Text,
    /// Text that fits this regular expression from its beginning to its end.
    Pattern(&'static str),
    /// Only ever `env:NAME` or `file:/path`.
    Reference,
    /// One of these.
    Words(Vec<&'static str>),
    Flag,
    Integer {
        least: u64,
        most: u64,
    },
    /// A number, or this word in its place.
    IntegerOrWord {
        least: u64,
        most: u64,
        word: &'static str,
    },
}

/// Why a value could not be read; never holds the value.
#[derive(Debug)]
pub(crate) struct ValueError {
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    /// Whether it is of another type than wanted, rather than a wrong value of that type.
    pub(super) is_mismatch: bool,
}

impl ValueError {
    /// Something whose hint is what its type expects.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        let message = message.into();
        Self { message, hint: None, is_mismatch: false }
    }

    /// Something with a hint of its own.
    pub(crate) fn hinting(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: Some(hint.into()), is_mismatch: false }
    }

    /// A value of another type than wanted.
    pub(crate) fn type_of(wanted: &str, found: &DeValue<'_>) -> Self {
        let article = match found {
            DeValue::Integer(_) | DeValue::Array(_) => "an",
            _ => "a",
        };
        let message = format!("expected {wanted}, found {article} {}", found.type_str());
        Self { is_mismatch: true, ..Self::new(message) }
    }

    pub(super) fn or_expecting(mut self, expected: &str) -> Self {
        self.hint.get_or_insert_with(|| format!("write {expected}"));
        self
    }
}
