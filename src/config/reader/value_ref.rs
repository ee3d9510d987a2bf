//! Values of the document, each with its path and its location.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::super::problem::ValueLocation;
use super::diagnostics::{Diagnostics, is_reference};
use super::path::SettingPath;
use super::setting::{DisplayValue, Setting, ValueError};
use super::setting_value::SettingValue;
use super::table::Table;

/// One value of the document.
pub(crate) struct ConfigValueRef<'d> {
    pub(super) diagnostics: &'d Diagnostics<'d>,
    pub(super) path: SettingPath,
    pub(super) location: ValueLocation,
    pub(super) value: &'d DeValue<'d>,
}

impl<'d> ConfigValueRef<'d> {
    /// The value as TOML has it.
    pub(crate) fn value(&self) -> &'d DeValue<'d> {
        self.value
    }

    /// Reads it, or reports why it cannot be read.
    pub(crate) fn read<T: SettingValue>(&self) -> Option<Setting<T>> {
        if T::SECRET
            && !self.is_reference()
            && let ValueLocation::File(span) = &self.location
        {
            self.diagnostics.hide(span.clone());
        }
        match T::read(self) {
            Ok(value) => Some(Setting { value, path: self.path.to_string(), location: self.location.clone() }),
            Err(error) => {
                if !self.value.is_str() {
                    self.diagnostics.hide_strings(self.value, self.span());
                }
                let error = error.or_expecting(T::EXPECTED);
                self.diagnostics.report(&self.path.to_string(), self.location.clone(), error);
                None
            }
        }
    }

    /// Reads it as a table, or reports that it is none.
    pub(crate) fn table<R>(&self, read: impl FnOnce(&mut Table<'d>) -> R) -> Option<R> {
        let entries = self.entries()?;
        Some(Table::read(self.diagnostics, self.path.clone(), self.location.clone(), entries, read))
    }

    /// Whether this is a plain `T` in place of a table.
    pub(crate) fn is_short_for_a_table<T: SettingValue>(&self) -> bool {
        self.diagnostics.recorder.short_for_a_table::<T>(&self.path);
        !self.value.is_table()
    }

    /// Records this value as if it had been written as the only setting `name` of a table.
    pub(crate) fn record_as(&self, name: &str, value: DisplayValue) {
        self.diagnostics.record(&self.path, name, value, &self.location);
    }

    /// The string it is, or that it points to.
    pub(crate) fn text(&self) -> Result<String, ValueError> {
        match self.value {
            DeValue::String(text) => self.diagnostics.resolve(text),
            other => Err(ValueError::type_of("a string", other)),
        }
    }

    /// Whether it is a reference: `env:NAME` or `file:/path`.
    pub(crate) fn is_reference(&self) -> bool {
        self.value.as_str().is_some_and(is_reference)
    }

    /// Where its text is written, for people: the variable's name, or `file:` and the path; `None` where that is the
    /// configuration file itself.
    pub(crate) fn written_in(&self) -> Option<String> {
        match (self.value.as_str().filter(|_| self.is_reference()), &self.location) {
            (Some(reference), _) => Some(reference.strip_prefix("env:").unwrap_or(reference).to_owned()),
            (None, ValueLocation::Variable { name, .. }) => Some(name.clone()),
            (None, ValueLocation::File(_) | ValueLocation::Unwritten) => None,
        }
    }

    /// Whether it came from the environment, where a secret may be written out.
    pub(crate) fn is_override(&self) -> bool {
        matches!(self.location, ValueLocation::Variable { .. })
    }

    /// Keeps the value out of everything that is shown.
    pub(crate) fn hide(&self) {
        if let ValueLocation::File(span) = &self.location {
            self.diagnostics.hide(span.clone());
        }
    }

    /// Its bytes in the file; none where it came from the environment.
    pub(super) fn span(&self) -> Range<usize> {
        match &self.location {
            ValueLocation::File(span) => span.clone(),
            ValueLocation::Variable { .. } | ValueLocation::Unwritten => 0..0,
        }
    }

    /// How `config show` shows what was read: what was pointed to is never shown.
    pub(crate) fn show<T: SettingValue>(&self, value: &T) -> DisplayValue {
        if self.is_reference() {
            return DisplayValue::Masked;
        }
        value.show()
    }

    pub(super) fn entries(&self) -> Option<&'d DeTable<'d>> {
        if let DeValue::Table(entries) = self.value {
            return Some(entries);
        }
        self.diagnostics.hide_strings(self.value, self.span());
        let error = ValueError::type_of("a table", self.value);
        let error = error.or_expecting("`{ name = value }`, or a section of its own");
        self.diagnostics.report(&self.path.to_string(), self.location.clone(), error);
        None
    }
}
