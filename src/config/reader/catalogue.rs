//! The list of settings, recorded while they are read.
//!
//! The sections that are read are the one list of settings. Read from an empty document with
//! [`Diagnostics::describing`](super::Diagnostics::describing), they give name, type, default, sentence and
//! path of each; schema and documentation are made from that, so that a setting that is read cannot be
//! missing there.

use std::cell::RefCell;
use std::io;

use super::super::env::Environment;
use super::path::SettingPath;
use super::setting::{DisplayValue, SettingShape};
use super::setting_value::SettingValue;

/// The placeholder of a name of the operator's choosing: `providers.NAME`.
pub(crate) const ANY_NAME: &str = "NAME";

/// Every setting, in the order of the reading.
#[derive(Clone, Debug, Default)]
pub(crate) struct SettingCatalogue {
    pub(crate) settings: Vec<SettingDescription>,
    /// The paths of settings that may not be absent.
    pub(crate) required: Vec<String>,
    /// Tables, by path, in which one of these settings must be there.
    pub(crate) either: Vec<(String, [&'static str; 2])>,
}

impl SettingCatalogue {
    /// Whether the setting at `path` may not be absent.
    pub(crate) fn requires(&self, path: &str) -> bool {
        self.required.iter().any(|required| required == path)
    }
}

/// One setting, or a table of settings.
#[derive(Clone, Debug)]
pub(crate) struct SettingDescription {
    /// Without positions and with [`ANY_NAME`]: `models.NAME.deployments.weight`.
    pub(crate) path: String,
    /// What it is for.
    pub(crate) sentence: &'static str,
    pub(crate) kind: SettingKind,
    /// What holds where it is absent, if anything does.
    pub(crate) default: Option<DisplayValue>,
    /// The environment variable that overrides it, if any may.
    pub(crate) variable: Option<String>,
    /// What would not happen, where its feature is not built.
    pub(crate) unbuilt: Option<&'static str>,
}

/// What may be written at a path.
#[derive(Clone, Debug)]
pub(crate) enum SettingKind {
    Value(SettingType),
    /// An array of one type, or one value of it.
    List(SettingType),
    /// A table; what is below its path is in it.
    Table,
    /// A table, or an array of such tables.
    OneOrMore,
    /// A table, or a plain value that is short for one.
    ShortOrTable(SettingType),
    /// An array of tables; with a type, each may be a plain value instead.
    Tables(Option<SettingType>),
}

/// A type as it is written.
#[derive(Clone, Debug)]
pub(crate) struct SettingType {
    pub(crate) shape: SettingShape,
    /// For people, completing "write …".
    pub(crate) expected: &'static str,
}

impl SettingType {
    pub(super) fn of<T: SettingValue>() -> Self {
        Self { shape: T::shape(), expected: T::EXPECTED }
    }
}

/// Fills a catalogue during a reading that describes; does nothing in any other.
pub(super) struct SchemaRecorder(Option<RefCell<SettingCatalogue>>);

impl SchemaRecorder {
    pub(super) fn idle() -> Self {
        Self(None)
    }

    pub(super) fn writing() -> Self {
        Self(Some(RefCell::default()))
    }

    pub(super) fn into_catalogue(self) -> SettingCatalogue {
        self.0.map(RefCell::into_inner).unwrap_or_default()
    }

    pub(super) fn is_writing(&self) -> bool {
        self.0.is_some()
    }

    /// Records a setting the first time it is read.
    pub(super) fn setting(&self, setting: impl FnOnce() -> SettingDescription) {
        self.write(|catalogue| {
            let setting = setting();
            if !catalogue.settings.iter().any(|known| known.path == setting.path) {
                catalogue.settings.push(setting);
            }
        });
    }

    /// Records that an element of the array of tables at `path` may be a plain `T`.
    pub(super) fn short_for_a_table<T: SettingValue>(&self, path: &SettingPath) {
        self.amend(path, |setting| setting.kind = SettingKind::Tables(Some(SettingType::of::<T>())));
    }

    /// Records that a setting may not be absent.
    pub(super) fn required(&self, path: &SettingPath) {
        self.write(|catalogue| catalogue.required.push(path.bare().to_owned()));
    }

    /// Records that one of two settings of the table at `path` must be there.
    pub(super) fn required_either(&self, path: &SettingPath, names: [&'static str; 2]) {
        self.write(|catalogue| catalogue.either.push((path.bare().to_owned(), names)));
    }

    fn amend(&self, path: &SettingPath, change: impl FnOnce(&mut SettingDescription)) {
        self.write(|catalogue| {
            catalogue.settings.iter_mut().find(|known| known.path == path.bare()).map(change);
        });
    }

    fn write(&self, line: impl FnOnce(&mut SettingCatalogue)) {
        if let Some(catalogue) = &self.0 {
            line(&mut catalogue.borrow_mut());
        }
    }
}

/// An environment without variables and files: descriptions do not depend on either.
pub(super) struct EmptyEnvironment;

impl Environment for EmptyEnvironment {
    fn variable(&self, _name: &str) -> Option<String> {
        None
    }

    fn variables(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn read(&self, _path: &std::path::Path) -> io::Result<String> {
        Err(io::ErrorKind::NotFound.into())
    }
}
