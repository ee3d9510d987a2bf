//! Tables, from which settings are read by name and type.

// circle: value_ref.rs: a table is read value by value, and a value may be a table again.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::super::env::override_name;
use super::super::problem::ValueLocation;
use super::catalogue::{ANY_NAME, SettingDescription, SettingKind, SettingType};
use super::diagnostics::Diagnostics;
use super::path::SettingPath;
use super::setting::{DisplayValue, Setting, SettingKey, ValueError};
use super::setting_value::SettingValue;
use super::similar::nearest;
use super::value_ref::ConfigValueRef;
use crate::domain::secret::MASK;

/// One table of the document, or an absent one whose settings all have their defaults.
///
/// Every name that is read is remembered; any other is reported when the reading function returns.
pub(crate) struct Table<'d> {
    diagnostics: &'d Diagnostics<'d>,
    path: SettingPath,
    location: ValueLocation,
    entries: Option<&'d DeTable<'d>>,
    /// How variables that override settings of this table begin, if any may.
    variables: Option<String>,
    known: Vec<KnownName>,
}

/// A name that was read.
struct KnownName {
    name: &'static str,
    /// Whether what is written there, or under a misspelling of this name, may be shown.
    plain: bool,
}

/// What became of one setting.
enum SettingLookup<T> {
    Absent,
    /// There, and already reported.
    Unreadable,
    Read(Setting<T>),
}

impl<'d> Table<'d> {
    /// Reads a whole document.
    pub(crate) fn document<R>(
        diagnostics: &'d Diagnostics<'d>,
        entries: &'d DeTable<'d>,
        read: impl FnOnce(&mut Table<'d>) -> R,
    ) -> R {
        Table::read(diagnostics, SettingPath::default(), ValueLocation::Unwritten, entries, read)
    }

    /// Reads a table with `read`, then reports what that did not ask for.
    pub(super) fn read<R>(
        diagnostics: &'d Diagnostics<'d>,
        path: SettingPath,
        location: ValueLocation,
        entries: &'d DeTable<'d>,
        read: impl FnOnce(&mut Table<'d>) -> R,
    ) -> R {
        let mut table =
            Table { diagnostics, path, location, entries: Some(entries), variables: None, known: Vec::new() };
        let result = read(&mut table);
        table.finish();
        result
    }

    pub(crate) fn diagnostics(&self) -> &'d Diagnostics<'d> {
        self.diagnostics
    }

    /// The path of this table or of a setting in it.
    pub(crate) fn path_of(&self, name: &str) -> String {
        self.path.child(name).to_string()
    }

    /// A setting that `read` reads by one of the other methods, and judges in the same place.
    pub(crate) fn read_by<R>(&mut self, key: SettingKey, read: impl FnOnce(SettingKey, &mut Table<'d>) -> R) -> R {
        read(key, self)
    }

    /// A setting that may be absent.
    pub(crate) fn optional<T: SettingValue>(&mut self, key: SettingKey) -> Option<Setting<T>> {
        self.describe(key, SettingKind::Value(SettingType::of::<T>()), None);
        match self.find(key.name) {
            SettingLookup::Read(written) => {
                self.report_if_unbuilt(key);
                Some(written)
            }
            SettingLookup::Absent | SettingLookup::Unreadable => None,
        }
    }

    /// A setting with a default.
    pub(crate) fn or<T: SettingValue + PartialEq>(&mut self, key: SettingKey, default: T) -> Setting<T> {
        self.describe(key, SettingKind::Value(SettingType::of::<T>()), Some(default.show()));
        match self.find(key.name) {
            SettingLookup::Read(written) => {
                if written.value != default {
                    self.report_if_unbuilt(key);
                }
                written
            }
            SettingLookup::Unreadable => self.unwritten(key.name, default),
            SettingLookup::Absent => {
                self.record(key.name, default.show(), &ValueLocation::Unwritten);
                self.unwritten(key.name, default)
            }
        }
    }

    /// A setting that must be there; `None` only when its absence has been reported.
    pub(crate) fn required<T: SettingValue>(&mut self, key: SettingKey) -> Option<Setting<T>> {
        self.describe(key, SettingKind::Value(SettingType::of::<T>()), None);
        match self.find(key.name) {
            SettingLookup::Read(written) => Some(written),
            SettingLookup::Unreadable => None,
            SettingLookup::Absent => {
                self.report_missing(key.name, T::EXPECTED);
                None
            }
        }
    }

    /// An array of one type; `None` where it is absent. A single value is read as an array of one.
    pub(crate) fn list<T: SettingValue>(&mut self, key: SettingKey) -> Option<Vec<Setting<T>>> {
        self.describe(key, SettingKind::List(SettingType::of::<T>()), None);
        let items = self.array_items(key.name)?;
        let location =
            self.entry(key.name).map_or(ValueLocation::Unwritten, |(_, value)| ValueLocation::File(value.span()));
        let read: Vec<Setting<T>> = items.iter().filter_map(ConfigValueRef::read).collect();
        let shown = items.iter().zip(&read).map(|(value_ref, item)| value_ref.show(&item.value));
        self.record(key.name, DisplayValue::List(shown.collect()), &location);
        Some(read)
    }

    /// An array that must be there, of tables or what is short for one; `None` only when its absence
    /// has been reported.
    pub(crate) fn required_elements(&mut self, key: SettingKey, expected: &str) -> Option<Vec<ConfigValueRef<'d>>> {
        let elements = self.elements(key);
        if elements.is_none() || self.diagnostics.recorder.is_writing() {
            self.report_missing(key.name, expected);
        }
        elements
    }

    /// The elements of an array of tables; `None` where it is absent.
    pub(crate) fn elements(&mut self, key: SettingKey) -> Option<Vec<ConfigValueRef<'d>>> {
        self.describe(key, SettingKind::Tables(None), None);
        if self.diagnostics.recorder.is_writing() {
            return Some(vec![self.blank_at(self.path.child(key.name).element(0))]);
        }
        self.array_items(key.name)
    }

    /// A table, or an array of such tables; `None` where it is absent.
    pub(crate) fn one_or_more(&mut self, key: SettingKey) -> Option<Vec<ConfigValueRef<'d>>> {
        self.describe(key, SettingKind::OneOrMore, None);
        if self.diagnostics.recorder.is_writing() {
            return Some(vec![self.blank_at(self.path.child(key.name))]);
        }
        self.array_items(key.name)
    }

    /// A table, or a plain `T` that is short for one; `None` where it is absent.
    pub(crate) fn short_or_table<T: SettingValue>(&mut self, key: SettingKey) -> Option<ConfigValueRef<'d>> {
        self.describe(key, SettingKind::ShortOrTable(SettingType::of::<T>()), None);
        if self.diagnostics.recorder.is_writing() {
            return Some(self.blank_at(self.path.child(key.name)));
        }
        self.value_ref(key.name)
    }

    /// An empty table at `path`, whose settings are to be described.
    fn blank_at(&self, path: SettingPath) -> ConfigValueRef<'d> {
        let value = &self.diagnostics.blank;
        ConfigValueRef { diagnostics: self.diagnostics, path, location: ValueLocation::Unwritten, value }
    }

    fn array_items(&mut self, name: &'static str) -> Option<Vec<ConfigValueRef<'d>>> {
        let value_ref = self.value_ref(name)?;
        let DeValue::Array(items) = value_ref.value else {
            return Some(vec![value_ref]);
        };
        let at = |(index, item): (usize, &'d Spanned<DeValue<'d>>)| ConfigValueRef {
            diagnostics: self.diagnostics,
            path: value_ref.path.element(index),
            location: ValueLocation::File(item.span()),
            value: item.get_ref(),
        };
        Some(items.iter().enumerate().map(at).collect())
    }

    /// A table that is read even where it is absent, so that its defaults apply.
    pub(crate) fn table<R>(&mut self, key: SettingKey, read: impl FnOnce(&mut Table<'d>) -> R) -> R {
        self.describe(key, SettingKind::Table, None);
        let (location, entries) = match self.value_ref(key.name) {
            Some(value_ref) => (value_ref.location.clone(), value_ref.entries()),
            None => (ValueLocation::Unwritten, None),
        };
        let mut table = Table {
            diagnostics: self.diagnostics,
            path: self.path.child(key.name),
            location,
            entries,
            variables: self.variables.as_ref().map(|prefix| override_name(prefix, key.name)),
            known: Vec::new(),
        };
        let result = read(&mut table);
        table.finish();
        result
    }

    /// A table whose settings the environment may override.
    pub(crate) fn overridable<R>(&mut self, key: SettingKey, read: impl FnOnce(&mut Table<'d>) -> R) -> R {
        // The prefix ends in the two underscores that `override_name` puts back.
        let root = super::super::env::OVERRIDE_PREFIX.trim_end_matches('_');
        self.variables = Some(root.to_owned());
        let result = self.table(key, read);
        self.variables = None;
        result
    }

    /// A table that means something only where it is there.
    pub(crate) fn optional_table<R>(&mut self, key: SettingKey, read: impl FnOnce(&mut Table<'d>) -> R) -> Option<R> {
        let prefix = self.variables.as_ref().map(|prefix| override_name(prefix, key.name));
        let overridden = prefix.is_some_and(|prefix| self.diagnostics.overrides_below(&prefix));
        if overridden || self.entry(key.name).is_some() || self.diagnostics.recorder.is_writing() {
            let read = self.table(key, read);
            self.report_if_unbuilt(key);
            return Some(read);
        }
        self.know(key.name, false);
        None
    }

    /// A table that must be there; `None` only when its absence has been reported.
    pub(crate) fn required_table<R>(
        &mut self,
        key: SettingKey,
        expected: &str,
        read: impl FnOnce(&mut Table<'d>) -> R,
    ) -> Option<R> {
        let read = self.optional_table(key, read);
        if read.is_none() || self.diagnostics.recorder.is_writing() {
            self.report_missing(key.name, expected);
        }
        read
    }

    /// Tables by name, in file order: `[providers.x]`, `[providers.y]`. `each` is the sentence of one of them.
    pub(crate) fn named<R>(
        &mut self,
        key: SettingKey,
        each: &'static str,
        mut read: impl FnMut(Setting<String>, &mut Table<'d>) -> R,
    ) -> Vec<R> {
        if self.diagnostics.recorder.is_writing() {
            let any = SettingKey::new(ANY_NAME, each);
            return vec![self.table(key, |tables| {
                tables.table(any, |table| read(table.unwritten(ANY_NAME, ANY_NAME.to_owned()), table))
            })];
        }
        let Some(entries) = self.value_ref(key.name).and_then(|value_ref| value_ref.entries()) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for (name, value) in entries {
            let path = self.path.child(key.name).child(name.get_ref());
            let location = ValueLocation::File(name.span());
            let written =
                Setting { value: name.get_ref().to_string(), path: path.to_string(), location: location.clone() };
            let value_ref = ConfigValueRef { diagnostics: self.diagnostics, path, location, value: value.get_ref() };
            found.extend(value_ref.table(|table| read(written, table)));
        }
        found
    }

    /// Every entry of a table whose names are free: `{ default = 80, premium = 5 }`. `each` is the sentence of
    /// one of them.
    pub(crate) fn free<T: SettingValue>(&mut self, each: &'static str) -> Vec<(Setting<String>, Setting<T>)> {
        self.describe(SettingKey::new(ANY_NAME, each), SettingKind::Value(SettingType::of::<T>()), None);
        let Some(entries) = self.entries else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for (key, value) in entries {
            let name = Setting {
                value: key.get_ref().to_string(),
                path: self.path_of(key.get_ref()),
                location: ValueLocation::File(key.span()),
            };
            let value_ref = self.value_ref_of(key.get_ref(), value.span(), value.get_ref());
            if let Some(read) = value_ref.read::<T>() {
                self.record(key.get_ref(), value_ref.show(&read.value), &value_ref.location);
                found.push((name, read));
            }
        }
        // All names are known here; nothing is left over for `finish` to report.
        self.entries = None;
        found
    }

    /// Whether the setting is written, readable or not.
    pub(crate) fn has(&self, name: &str) -> bool {
        let overridden = |prefix: &String| self.diagnostics.is_overridden(prefix, name);
        self.entry(name).is_some() || self.variables.as_ref().is_some_and(overridden)
    }

    /// Reports a setting that is known and does not belong in this table.
    pub(crate) fn refuse(&mut self, name: &'static str, message: &str, hint: &str) {
        let Some(value_ref) = self.value_ref(name) else { return };
        self.diagnostics.hide_strings(value_ref.value, value_ref.span());
        self.report(name, ValueError::hinting(message, hint));
    }

    /// Whether it holds nothing at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_none_or(|entries| entries.is_empty())
    }

    /// Whether the setting is there and is an empty array.
    pub(crate) fn is_empty_list(&self, name: &str) -> bool {
        let list = self.entry(name).and_then(|(_, value)| value.get_ref().as_array());
        list.is_some_and(|items| items.is_empty())
    }

    /// Records that the feature behind the value of a setting is not built.
    pub(crate) fn unenforced(&self, name: &str, why: &str) {
        self.diagnostics.unenforced(&self.path_of(name), why);
    }

    /// Records that a setting is in use whose feature is not built.
    fn report_if_unbuilt(&self, key: SettingKey) {
        if let Some(why) = key.unbuilt {
            self.unenforced(key.name, why);
        }
    }

    /// Records a secret that was taken from a variable of its own because the setting is absent.
    pub(crate) fn taken_from<T>(&self, name: &str, variable: &str, value: T) -> Setting<T> {
        let location = ValueLocation::Variable { name: variable.to_owned(), shown: MASK.to_owned() };
        self.record(name, DisplayValue::Masked, &location);
        let path = self.path_of(name);
        Setting { value, path, location }
    }

    /// Reports a problem of the setting `name` or, where that is absent, of this table.
    pub(crate) fn report(&self, name: &str, error: ValueError) {
        let (path, location) = match self.entry(name) {
            Some((_, value)) => (self.path_of(name), ValueLocation::File(value.span())),
            None => (self.path.to_string(), self.location.clone()),
        };
        self.diagnostics.report(&path, location, error);
    }

    /// Reports that a setting must be there, where it is not.
    pub(crate) fn require(&self, name: &str, message: &str, hint: &str) {
        self.diagnostics.recorder.required(&self.path.child(name));
        if !self.has(name) {
            self.report(name, ValueError::hinting(message, hint));
        }
    }

    /// Reports that neither of two settings is there.
    pub(crate) fn report_missing_either(&self, names: [&'static str; 2], expected: &str) {
        self.diagnostics.recorder.required_either(&self.path, names);
        self.report_missing_one(names[0], expected);
    }

    /// Reports that a setting is missing.
    pub(crate) fn report_missing(&self, name: &str, expected: &str) {
        self.diagnostics.recorder.required(&self.path.child(name));
        self.report_missing_one(name, expected);
    }

    fn report_missing_one(&self, name: &str, expected: &str) {
        let message = format!("`{name}` is missing");
        let error = ValueError::hinting(message, format!("add `{name} = …`: {expected}"));
        self.diagnostics.report(&self.path.to_string(), self.location.clone(), error);
    }

    fn find<T: SettingValue>(&mut self, name: &'static str) -> SettingLookup<T> {
        self.know(name, !T::SENSITIVE);
        if let Some(prefix) = &self.variables
            && let Some((variable, value)) = self.diagnostics.take_override(prefix, name)
        {
            return self.read_override(name, variable, &value);
        }
        let Some(value_ref) = self.value_ref(name) else {
            return SettingLookup::Absent;
        };
        match value_ref.read() {
            Some(written) => {
                self.record(name, value_ref.show(&written.value), &value_ref.location);
                SettingLookup::Read(written)
            }
            None => SettingLookup::Unreadable,
        }
    }

    /// A variable is text: first it is read as a string, then as the TOML it may be.
    fn read_override<T: SettingValue>(&self, name: &str, variable: String, text: &str) -> SettingLookup<T> {
        let location =
            ValueLocation::Variable { name: variable, shown: if T::SENSITIVE { MASK } else { text }.to_owned() };
        let string = DeValue::String(text.into());
        let toml = DeValue::parse(text).ok().map(Spanned::into_inner);
        let mut said: Option<ValueError> = None;
        for value in std::iter::once(&string).chain(&toml) {
            let value_ref = ConfigValueRef {
                diagnostics: self.diagnostics,
                path: self.path.child(name),
                location: location.clone(),
                value,
            };
            match T::read(&value_ref) {
                Ok(value) => {
                    self.record(name, value_ref.show(&value), &location);
                    let path = value_ref.path.to_string();
                    return SettingLookup::Read(Setting { value, path, location });
                }
                // The problem of a value is more precise than that of a type.
                Err(error) => said = said.filter(|said| !said.is_mismatch || error.is_mismatch).or(Some(error)),
            }
        }
        if let Some(error) = said {
            let error = error.or_expecting(T::EXPECTED);
            self.diagnostics.report(&self.path_of(name), location, error);
        }
        SettingLookup::Unreadable
    }

    fn describe(&self, key: SettingKey, kind: SettingKind, default: Option<DisplayValue>) {
        self.diagnostics.recorder.setting(|| SettingDescription {
            path: self.path.child(key.name).bare().to_owned(),
            sentence: key.sentence,
            variable: self
                .variables
                .as_ref()
                .filter(|_| matches!(kind, SettingKind::Value(_)))
                .map(|prefix| override_name(prefix, key.name)),
            kind,
            default,
            unbuilt: key.unbuilt,
        });
    }

    fn know(&mut self, name: &'static str, plain: bool) {
        if !self.known.iter().any(|known| known.name == name) {
            self.known.push(KnownName { name, plain });
        }
    }

    fn value_ref(&mut self, name: &'static str) -> Option<ConfigValueRef<'d>> {
        self.know(name, false);
        let (_, value) = self.entry(name)?;
        Some(self.value_ref_of(name, value.span(), value.get_ref()))
    }

    fn value_ref_of(&self, name: &str, span: Range<usize>, value: &'d DeValue<'d>) -> ConfigValueRef<'d> {
        ConfigValueRef {
            diagnostics: self.diagnostics,
            path: self.path.child(name),
            location: ValueLocation::File(span),
            value,
        }
    }

    fn entry(&self, name: &str) -> Option<(&'d Spanned<DeString<'d>>, &'d Spanned<DeValue<'d>>)> {
        let entries = self.entries?;
        entries.iter().find(|(key, _)| key.get_ref() == name)
    }

    fn unwritten<T>(&self, name: &str, value: T) -> Setting<T> {
        Setting { value, path: self.path_of(name), location: ValueLocation::Unwritten }
    }

    fn record(&self, name: &str, value: DisplayValue, location: &ValueLocation) {
        self.diagnostics.record(&self.path, name, value, location);
    }

    /// Reports every name that was not read.
    fn finish(self) {
        for (key, value) in self.entries.into_iter().flatten() {
            let name: &str = key.get_ref();
            if self.known.iter().any(|known| known.name == name) {
                continue;
            }
            let names: Vec<&str> = self.known.iter().map(|known| known.name).collect();
            let meant = nearest(name, names.iter().copied());
            let meant = meant.and_then(|meant| self.known.iter().find(|known| known.name == meant));
            if !(meant.is_some_and(|meant| meant.plain) && value.get_ref().is_str()) {
                self.diagnostics.hide_strings(value.get_ref(), value.span());
            }
            let hint = match meant {
                Some(meant) => format!("did you mean `{}`?", meant.name),
                None => format!("known here: {}", names.join(", ")),
            };
            let error = ValueError::hinting("no such setting", hint);
            let location = ValueLocation::File(key.span());
            self.diagnostics.report(&self.path_of(name), location, error);
        }
    }
}
