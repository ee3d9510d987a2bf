//! Tables and the values in them, each knowing its path and its place.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::super::env::override_name;
use super::super::problem::Place;
use crate::domain::secret::MASK;
use super::desk::{is_reference, nearest};
use super::{Desk, Setting, Shown, Written, Wrong};

/// One table of the document, or an absent one whose settings all have their defaults.
///
/// Every name asked for is remembered; what remains when the reading function returns is unknown.
pub(crate) struct Table<'d> {
    desk: &'d Desk<'d>,
    path: String,
    header: String,
    place: Place,
    entries: Option<&'d DeTable<'d>>,
    /// How variables that override settings of this table begin, if any may.
    variables: Option<String>,
    known: Vec<Known>,
}

/// A name that was asked for.
struct Known {
    name: &'static str,
    /// Whether what is written there, or in a name meant to be this one, may be shown.
    plain: bool,
}

/// What became of one setting.
enum Found<T> {
    Absent,
    /// There, and already complained about.
    Unreadable,
    Read(Written<T>),
}

impl<'d> Table<'d> {
    /// Reads a whole document.
    pub(crate) fn document<R>(
        desk: &'d Desk<'d>,
        entries: &'d DeTable<'d>,
        read: impl FnOnce(&mut Table<'d>) -> R,
    ) -> R {
        let mut table = Table {
            desk,
            path: String::new(),
            header: String::new(),
            place: Place::Nowhere,
            entries: Some(entries),
            variables: None,
            known: Vec::new(),
        };
        let result = read(&mut table);
        table.finish();
        result
    }

    pub(crate) fn desk(&self) -> &'d Desk<'d> {
        self.desk
    }

    /// The path of this table or of a setting in it.
    pub(crate) fn path_of(&self, name: &str) -> String {
        join(&self.path, name)
    }

    /// A setting that may be absent.
    pub(crate) fn optional<T: Setting>(&mut self, name: &'static str) -> Option<Written<T>> {
        match self.find(name) {
            Found::Read(written) => Some(written),
            Found::Absent | Found::Unreadable => None,
        }
    }

    /// A setting with a default.
    pub(crate) fn or<T: Setting>(&mut self, name: &'static str, default: T) -> Written<T> {
        match self.find(name) {
            Found::Read(written) => written,
            Found::Unreadable => self.nowhere(name, default),
            Found::Absent => {
                self.record(name, default.show(), &Place::Nowhere);
                self.nowhere(name, default)
            }
        }
    }

    /// A setting that must be there; `None` only when that has been complained about.
    pub(crate) fn required<T: Setting>(&mut self, name: &'static str) -> Option<Written<T>> {
        match self.find(name) {
            Found::Read(written) => Some(written),
            Found::Unreadable => None,
            Found::Absent => {
                self.complain_missing(name, T::EXPECTED);
                None
            }
        }
    }

    /// An array of one type; `None` where it is absent. A single value stands for an array of one.
    pub(crate) fn list<T: Setting>(&mut self, name: &'static str) -> Option<Vec<Written<T>>> {
        let cells = self.cells(name)?;
        let place = self.entry(name).map_or(Place::Nowhere, |(_, value)| Place::File(value.span()));
        let read: Vec<Written<T>> = cells.iter().filter_map(Cell::read).collect();
        let shown = cells.iter().zip(&read).map(|(cell, item)| cell.show(&item.value));
        self.record(name, Shown::List(shown.collect()), &place);
        Some(read)
    }

    /// The values of an array, whatever they are; `None` where it is absent.
    pub(crate) fn cells(&mut self, name: &'static str) -> Option<Vec<Cell<'d>>> {
        let cell = self.cell(name)?;
        let DeValue::Array(items) = cell.value else {
            return Some(vec![cell]);
        };
        let at = |(index, item): (usize, &'d Spanned<DeValue<'d>>)| Cell {
            desk: self.desk,
            path: format!("{}[{index}]", cell.path),
            header: format!("[[{}]]", strip_indices(&cell.path)),
            place: Place::File(item.span()),
            value: item.get_ref(),
        };
        Some(items.iter().enumerate().map(at).collect())
    }

    /// A table that is read even where it is absent, so that its defaults apply.
    pub(crate) fn table<R>(&mut self, name: &'static str, read: impl FnOnce(&mut Table<'d>) -> R) -> R {
        let (place, entries) = match self.cell(name) {
            Some(cell) => (cell.place.clone(), cell.entries()),
            None => (Place::Nowhere, None),
        };
        let path = self.path_of(name);
        let mut table = Table {
            desk: self.desk,
            header: format!("[{}]", strip_indices(&path)),
            path,
            place,
            entries,
            variables: self.variables.as_ref().map(|prefix| override_name(prefix, name)),
            known: Vec::new(),
        };
        let result = read(&mut table);
        table.finish();
        result
    }

    /// A table whose settings the environment may override.
    pub(crate) fn overridable<R>(&mut self, name: &'static str, read: impl FnOnce(&mut Table<'d>) -> R) -> R {
        // The prefix ends in the two underscores that `override_name` puts back.
        let root = super::super::env::OVERRIDE_PREFIX.trim_end_matches('_');
        self.variables = Some(root.to_owned());
        let result = self.table(name, read);
        self.variables = None;
        result
    }

    /// A table that means something only where it is there.
    pub(crate) fn optional_table<R>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Table<'d>) -> R,
    ) -> Option<R> {
        let prefix = self.variables.as_ref().map(|prefix| override_name(prefix, name));
        let overridden = prefix.is_some_and(|prefix| self.desk.overrides_below(&prefix));
        if overridden || self.entry(name).is_some() {
            return Some(self.table(name, read));
        }
        self.know(name, false);
        None
    }

    /// Tables by name, in file order: `[providers.x]`, `[providers.y]`.
    pub(crate) fn named<R>(
        &mut self,
        name: &'static str,
        mut read: impl FnMut(Written<String>, &mut Table<'d>) -> R,
    ) -> Vec<R> {
        let Some(entries) = self.cell(name).and_then(|cell| cell.entries()) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for (key, value) in entries {
            let path = join(&self.path_of(name), key.get_ref());
            let name = Written { value: key.get_ref().to_string(), path: path.clone(), place: Place::File(key.span()) };
            let cell = Cell {
                desk: self.desk,
                header: format!("[{path}]"),
                path,
                place: Place::File(key.span()),
                value: value.get_ref(),
            };
            found.extend(cell.table(|table| read(name, table)));
        }
        found
    }

    /// Every entry of a table whose names are free: `{ default = 80, premium = 5 }`.
    pub(crate) fn free<T: Setting>(&mut self) -> Vec<(Written<String>, Written<T>)> {
        let Some(entries) = self.entries else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for (key, value) in entries {
            let name = Written {
                value: key.get_ref().to_string(),
                path: self.path_of(key.get_ref()),
                place: Place::File(key.span()),
            };
            let cell = self.cell_of(key.get_ref(), value.span(), value.get_ref());
            if let Some(read) = cell.read::<T>() {
                self.record(key.get_ref(), cell.show(&read.value), &cell.place);
                found.push((name, read));
            }
        }
        // All names are known here; nothing is left over for `finish` to complain about.
        self.entries = None;
        found
    }

    /// Whether somebody wrote the setting, readable or not.
    pub(crate) fn has(&self, name: &str) -> bool {
        let overridden = |prefix: &String| self.desk.is_overridden(prefix, name);
        self.entry(name).is_some() || self.variables.as_ref().is_some_and(overridden)
    }

    /// Complains about a setting that is known and does not belong where it stands.
    pub(crate) fn refuse(&mut self, name: &'static str, message: &str, hint: &str) {
        let Some(cell) = self.cell(name) else { return };
        self.desk.hide_strings(cell.value, cell.span());
        self.complain(name, Wrong::hinting(message, hint));
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

    /// Notes that the feature behind a setting of this table is not built.
    pub(crate) fn unenforced(&self, name: &str, why: &str) {
        self.desk.unenforced(&self.path_of(name), why);
    }

    /// Notes the default of a list.
    pub(crate) fn record_default<T: Setting>(&self, name: &str, items: &[T]) {
        let shown = items.iter().map(Setting::show).collect();
        self.record(name, Shown::List(shown), &Place::Nowhere);
    }

    /// Takes a secret that lives in a variable of its own when nobody wrote the setting.
    pub(crate) fn taken_from<T>(&self, name: &str, variable: &str, value: T) -> Written<T> {
        let place = Place::Variable { name: variable.to_owned(), shown: MASK.to_owned() };
        self.record(name, Shown::Masked, &place);
        let path = self.path_of(name);
        Written { value, path, place }
    }

    /// Complains about this table or, where it is there, the setting `name` in it.
    pub(crate) fn complain(&self, name: &str, wrong: Wrong) {
        let (path, place) = match self.entry(name) {
            Some((_, value)) => (self.path_of(name), Place::File(value.span())),
            None => (self.path.clone(), self.place.clone()),
        };
        self.desk.complain(&path, place, wrong);
    }

    /// Complains that a setting is missing.
    pub(crate) fn complain_missing(&self, name: &str, expected: &str) {
        let message = format!("`{name}` is missing");
        let wrong = Wrong::hinting(message, format!("add `{name} = …`: {expected}"));
        self.desk.complain(&self.path, self.place.clone(), wrong);
    }

    fn find<T: Setting>(&mut self, name: &'static str) -> Found<T> {
        self.know(name, !T::SENSITIVE);
        if let Some(prefix) = &self.variables
            && let Some((variable, value)) = self.desk.take_override(prefix, name)
        {
            return self.read_override(name, variable, &value);
        }
        let Some(cell) = self.cell(name) else {
            return Found::Absent;
        };
        match cell.read() {
            Some(written) => {
                self.record(name, cell.show(&written.value), &cell.place);
                Found::Read(written)
            }
            None => Found::Unreadable,
        }
    }

    /// A variable is text: first it is read as a string, then as the TOML it may be.
    fn read_override<T: Setting>(&self, name: &str, variable: String, text: &str) -> Found<T> {
        let place = Place::Variable { name: variable, shown: if T::SENSITIVE { MASK } else { text }.to_owned() };
        let string = DeValue::String(text.into());
        let toml = DeValue::parse(text).ok().map(Spanned::into_inner);
        let mut said: Option<Wrong> = None;
        for value in std::iter::once(&string).chain(&toml) {
            let cell = Cell {
                desk: self.desk,
                path: self.path_of(name),
                header: self.header.clone(),
                place: place.clone(),
                value,
            };
            match T::read(&cell) {
                Ok(value) => {
                    self.record(name, cell.show(&value), &place);
                    let path = cell.path;
                    return Found::Read(Written { value, path, place });
                }
                // A wrong value says more than a wrong type.
                Err(wrong) => said = said.filter(|said| !said.is_mismatch || wrong.is_mismatch).or(Some(wrong)),
            }
        }
        if let Some(wrong) = said {
            let wrong = wrong.or_expecting(T::EXPECTED);
            self.desk.complain(&self.path_of(name), place, wrong);
        }
        Found::Unreadable
    }

    fn know(&mut self, name: &'static str, plain: bool) {
        if !self.known.iter().any(|known| known.name == name) {
            self.known.push(Known { name, plain });
        }
    }

    fn cell(&mut self, name: &'static str) -> Option<Cell<'d>> {
        self.know(name, false);
        let (_, value) = self.entry(name)?;
        Some(self.cell_of(name, value.span(), value.get_ref()))
    }

    fn cell_of(&self, name: &str, span: Range<usize>, value: &'d DeValue<'d>) -> Cell<'d> {
        Cell { desk: self.desk, path: self.path_of(name), header: self.header.clone(), place: Place::File(span), value }
    }

    fn entry(&self, name: &str) -> Option<(&'d Spanned<DeString<'d>>, &'d Spanned<DeValue<'d>>)> {
        let entries = self.entries?;
        entries.iter().find(|(key, _)| key.get_ref() == name)
    }

    fn nowhere<T>(&self, name: &str, value: T) -> Written<T> {
        Written { value, path: self.path_of(name), place: Place::Nowhere }
    }

    fn record(&self, name: &str, value: Shown, place: &Place) {
        self.desk.record(&self.header, &self.path, name, value, place);
    }

    /// Complains about every name that nobody asked for.
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
                self.desk.hide_strings(value.get_ref(), value.span());
            }
            let hint = match meant {
                Some(meant) => format!("did you mean `{}`?", meant.name),
                None => format!("known here: {}", names.join(", ")),
            };
            let wrong = Wrong::hinting("no such setting", hint);
            let place = Place::File(key.span());
            self.desk.complain(&self.path_of(name), place, wrong);
        }
    }
}

/// One value of the document.
pub(crate) struct Cell<'d> {
    desk: &'d Desk<'d>,
    path: String,
    header: String,
    place: Place,
    value: &'d DeValue<'d>,
}

impl<'d> Cell<'d> {
    /// The value as TOML has it.
    pub(crate) fn value(&self) -> &'d DeValue<'d> {
        self.value
    }

    /// Reads it, or complains.
    pub(crate) fn read<T: Setting>(&self) -> Option<Written<T>> {
        if T::SECRET
            && !self.points_elsewhere()
            && let Place::File(span) = &self.place
        {
            self.desk.hide(span.clone());
        }
        match T::read(self) {
            Ok(value) => Some(Written { value, path: self.path.clone(), place: self.place.clone() }),
            Err(wrong) => {
                if !self.value.is_str() {
                    self.desk.hide_strings(self.value, self.span());
                }
                let wrong = wrong.or_expecting(T::EXPECTED);
                self.desk.complain(&self.path, self.place.clone(), wrong);
                None
            }
        }
    }

    /// Reads it as a table, or complains.
    pub(crate) fn table<R>(&self, read: impl FnOnce(&mut Table<'d>) -> R) -> Option<R> {
        let mut table = Table {
            desk: self.desk,
            path: self.path.clone(),
            header: self.header.clone(),
            place: self.place.clone(),
            entries: Some(self.entries()?),
            variables: None,
            known: Vec::new(),
        };
        let result = read(&mut table);
        table.finish();
        Some(result)
    }

    /// Notes this value as if it had been written as the only setting `name` of a table.
    pub(crate) fn record_as(&self, name: &str, value: Shown) {
        let place = &self.place;
        self.desk.record(&self.header, &self.path, name, value, place);
    }

    /// The string it is, or that it points to.
    pub(crate) fn text(&self) -> Result<String, Wrong> {
        match self.value {
            DeValue::String(text) => self.desk.resolve(text),
            other => Err(Wrong::type_of("a string", other)),
        }
    }

    /// Whether the value is to be found elsewhere.
    pub(crate) fn points_elsewhere(&self) -> bool {
        self.value.as_str().is_some_and(is_reference)
    }

    /// Whether it came from the environment, where a secret may be written out.
    pub(crate) fn is_override(&self) -> bool {
        matches!(self.place, Place::Variable { .. })
    }

    /// Keeps the value out of everything that is shown.
    pub(crate) fn hide(&self) {
        if let Place::File(span) = &self.place {
            self.desk.hide(span.clone());
        }
    }

    /// Its bytes in the file; none where it came from the environment.
    fn span(&self) -> Range<usize> {
        match &self.place {
            Place::File(span) => span.clone(),
            Place::Variable { .. } | Place::Nowhere => 0..0,
        }
    }

    /// How `config show` shows what was read: what was pointed to is never shown.
    pub(crate) fn show<T: Setting>(&self, value: &T) -> Shown {
        if self.points_elsewhere() {
            return Shown::Masked;
        }
        value.show()
    }

    fn entries(&self) -> Option<&'d DeTable<'d>> {
        if let DeValue::Table(entries) = self.value {
            return Some(entries);
        }
        self.desk.hide_strings(self.value, self.span());
        let wrong = Wrong::type_of("a table", self.value);
        let wrong = wrong.or_expecting("`{ name = value }`, or a section of its own");
        self.desk.complain(&self.path, self.place.clone(), wrong);
        None
    }
}

/// A dotted path, each part quoted where TOML would want it.
fn join(path: &str, name: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    let name = if !name.is_empty() && name.bytes().all(bare) { name.to_owned() } else { format!("{name:?}") };
    if path.is_empty() {
        return name;
    }
    format!("{path}.{name}")
}

/// The path as a TOML header writes it: without the positions in arrays.
fn strip_indices(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(open) = rest.find('[') {
        let (before, from) = rest.split_at(open);
        out.push_str(before);
        let close = from.find(']').map_or(from.len(), |close| close + 1);
        let is_index = from[1..close.max(2) - 1].bytes().all(|b| b.is_ascii_digit());
        if !is_index {
            out.push_str(&from[..close]);
        }
        rest = &from[close..];
    }
    out.push_str(rest);
    out
}
