//! The desk on which one reading collects everything it finds.

use std::cell::RefCell;
use std::io;
use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::super::env::{Environment, OVERRIDABLE, OVERRIDE_PREFIX, Override, override_name, overrides};
use super::super::pointed::PointedTo;
use super::super::problem::{Lines, Place, Problem};
use super::catalogue::{Catalogue, Nothing, SchemaRecorder};
use super::{Located, ValueError, path};
use crate::domain::secret::MASK;

/// How alike two names must be for one to be suggested in place of the other.
const LIKENESS: f64 = 0.6;

/// Where an effective value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody wrote it.
    Default,
    /// The file, at this line.
    File(usize),
    /// An environment variable that overrides the file.
    Env(String),
}

/// A value as `config show` may print it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// A string.
    Text(String),
    /// A whole number.
    Number(u64),
    /// `true` or `false`.
    Flag(bool),
    /// An array.
    List(Vec<Shown>),
    /// Something that may not be shown.
    Masked,
}

/// One effective setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectiveSetting {
    /// Its table as a TOML header: `[server]`, `[[keys]]`.
    pub header: String,
    /// Its table's path: `server`, `keys[0]`.
    pub table: String,
    /// Its name in that table.
    pub name: String,
    /// Its value.
    pub value: Shown,
    /// Where that came from.
    pub origin: Origin,
}

/// A setting that is understood and whose feature is not built yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unenforced {
    /// Its path.
    pub setting: String,
    /// What would not happen.
    pub why: String,
}

#[derive(Default)]
struct Notes {
    problems: Vec<Problem>,
    hidden: Vec<Range<usize>>,
    entries: Vec<EffectiveSetting>,
    unenforced: Vec<Unenforced>,
    overrides: Vec<Override>,
    /// The name of every variable that a setting would have taken.
    override_names: Vec<String>,
    pointed_to: PointedTo,
}

/// What one reading has been given and what it has found.
pub(crate) struct Diagnostics<'d> {
    lines: Lines<'d>,
    surroundings: &'d dyn Environment,
    notes: RefCell<Notes>,
    /// Notes which settings there are, where that is asked.
    pub(super) recorder: SchemaRecorder,
    /// Stands in an array whose elements are to be described.
    pub(super) blank: DeValue<'d>,
}

/// What is left of a desk when the reading is over.
pub(crate) struct Findings {
    pub(crate) problems: Vec<Problem>,
    pub(crate) hidden: Vec<Range<usize>>,
    pub(crate) entries: Vec<EffectiveSetting>,
    pub(crate) unenforced: Vec<Unenforced>,
    pub(crate) pointed_to: PointedTo,
}

impl<'d> Diagnostics<'d> {
    pub(crate) fn new(text: &'d str, surroundings: &'d dyn Environment) -> Self {
        let notes = Notes { overrides: overrides(surroundings), ..Notes::default() };
        let blank = DeValue::Table(DeTable::new());
        Self {
            lines: Lines::of(text),
            surroundings,
            notes: RefCell::new(notes),
            recorder: SchemaRecorder::idle(),
            blank,
        }
    }

    /// A desk for a reading that only describes what it would read.
    pub(crate) fn describing() -> Self {
        Self { recorder: SchemaRecorder::writing(), ..Self::new("", &Nothing) }
    }

    /// Ends a reading that described.
    pub(crate) fn into_catalogue(self) -> Catalogue {
        self.recorder.into_catalogue()
    }

    /// Ends the reading: what no setting took of the environment is a problem too.
    pub(crate) fn finish(self) -> Findings {
        self.complain_about_unused_overrides();
        let notes = self.notes.into_inner();
        Findings {
            problems: notes.problems,
            hidden: notes.hidden,
            entries: notes.entries,
            unenforced: notes.unenforced,
            pointed_to: notes.pointed_to,
        }
    }

    /// Notes a problem.
    pub(crate) fn report(&self, setting: &str, place: Place, wrong: ValueError) {
        let at = match &place {
            Place::File(span) => Some(self.lines.position(span.start)),
            Place::Variable { .. } | Place::Nowhere => None,
        };
        self.notes.borrow_mut().problems.push(Problem {
            setting: setting.to_owned(),
            place,
            position: at,
            message: wrong.message,
            hint: wrong.hint.unwrap_or_default(),
        });
    }

    /// Notes a problem with a value that could be read.
    pub(crate) fn report_at<T>(&self, written: &Located<T>, message: String, hint: String) {
        let wrong = ValueError::hinting(message, hint);
        self.report(&written.path, written.place.clone(), wrong);
    }

    /// Notes that the feature behind an explicit setting is not built.
    pub(crate) fn unenforced(&self, setting: &str, why: &str) {
        self.notes.borrow_mut().unenforced.push(Unenforced { setting: setting.to_owned(), why: why.to_owned() });
    }

    /// Notes an effective value.
    pub(super) fn record(&self, table: &path::Path, name: &str, value: Shown, from: &Place) {
        let origin = match from {
            Place::Nowhere => Origin::Default,
            Place::File(span) => Origin::File(self.lines.line(span.start)),
            Place::Variable { name, .. } => Origin::Env(name.clone()),
        };
        self.notes.borrow_mut().entries.push(EffectiveSetting {
            header: table.header(),
            table: table.to_string(),
            name: name.to_owned(),
            value,
            origin,
        });
    }

    /// Keeps a literal out of everything that is shown.
    pub(crate) fn hide(&self, span: Range<usize>) {
        self.notes.borrow_mut().hidden.push(span);
    }

    /// Hides every string in a value that nobody asked for: it may be a secret in the wrong place.
    pub(super) fn hide_strings(&self, value: &DeValue<'_>, span: Range<usize>) {
        match value {
            DeValue::String(text) if !is_reference(text) => self.hide(span),
            DeValue::Array(items) => {
                for item in items.iter() {
                    self.hide_strings(item.get_ref(), item.span());
                }
            }
            DeValue::Table(entries) => {
                for (_, item) in entries {
                    self.hide_strings(item.get_ref(), item.span());
                }
            }
            _ => {}
        }
    }

    /// Whether any variable lies below `prefix`, so that a table absent from the file still counts.
    pub(super) fn overrides_below(&self, prefix: &str) -> bool {
        let below = format!("{prefix}__");
        let notes = self.notes.borrow();
        notes.overrides.iter().any(|o| o.name.starts_with(&below))
    }

    /// Whether the setting `name` under `prefix` is overridden.
    pub(super) fn is_overridden(&self, prefix: &str, name: &str) -> bool {
        let wanted = override_name(prefix, name);
        self.notes.borrow().overrides.iter().any(|o| o.name == wanted)
    }

    /// Drops what was complained about on the lines of `spans`: echoes of what is wrong there already.
    pub(crate) fn drop_echoes(&self, spans: &[Range<usize>], kept: usize) {
        let line = |span: &Range<usize>| self.lines.line(span.start);
        let broken: Vec<usize> = spans.iter().map(line).collect();
        let mut index = 0;
        self.notes.borrow_mut().problems.retain(|problem| {
            index += 1;
            match &problem.place {
                // What the parser made up to go on has no bytes of its own.
                Place::File(span) => index <= kept || (!span.is_empty() && !broken.contains(&line(span))),
                _ => true,
            }
        });
    }

    /// Takes the override of the setting `name` under `prefix`, if there is one.
    pub(super) fn take_override(&self, prefix: &str, name: &str) -> Option<(String, String)> {
        let wanted = override_name(prefix, name);
        let notes = &mut *self.notes.borrow_mut();
        let found = notes.overrides.iter_mut().find(|o| o.name == wanted);
        let taken = found.map(|found| {
            found.used = true;
            (found.name.clone(), found.value.clone())
        });
        notes.override_names.push(wanted);
        taken
    }

    /// The variable called `name`, for defaults that live in the environment.
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        self.surroundings.variable(name).filter(|text| !text.is_empty())
    }

    /// What a string stands for: itself, or what `env:NAME` or `file:/path` points to.
    pub(super) fn resolve(&self, text: &str) -> Result<String, ValueError> {
        if let Some(name) = text.strip_prefix("env:") {
            let value = self.surroundings.variable(name).ok_or_else(|| {
                let message = format!("the environment variable `{name}` is not set");
                ValueError::hinting(message, format!("set `{name}` where the gateway starts"))
            })?;
            return non_empty(value, &format!("the environment variable `{name}`"));
        }
        if let Some(path) = text.strip_prefix("file:") {
            return self.read_file(path);
        }
        Ok(text.to_owned())
    }

    fn read_file(&self, path: &str) -> Result<String, ValueError> {
        if !path.starts_with('/') {
            return Err(ValueError::hinting(
                "the path after `file:` is not absolute",
                "write the whole path, such as \"file:/run/secrets/provider\"",
            ));
        }
        let read = self.surroundings.read(Path::new(path));
        self.notes.borrow_mut().pointed_to.note(Path::new(path), read.as_deref().ok());
        let text = read.map_err(|error| {
            let hint = match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    "let the user that the gateway runs as read the file, and enter every folder above it"
                }
                _ => "check the path and who may read it",
            };
            ValueError::hinting(format!("cannot read `{path}`: {error}"), hint)
        })?;
        non_empty(text.trim_end_matches(['\r', '\n']).to_owned(), &format!("the file `{path}`"))
    }

    fn complain_about_unused_overrides(&self) {
        let notes = &mut *self.notes.borrow_mut();
        for unused in notes.overrides.iter().filter(|o| !o.used) {
            let names = notes.override_names.iter().map(|name| tail(name));
            let alike = nearest(tail(&unused.name), names);
            let hint = match alike {
                Some(tail) => format!("did you mean `{OVERRIDE_PREFIX}{tail}`?"),
                None => {
                    let tables = OVERRIDABLE.join("], [");
                    format!("only settings of [{tables}] can be overridden")
                }
            };
            notes.problems.push(Problem {
                setting: unused.name.clone(),
                place: Place::Variable { name: unused.name.clone(), shown: MASK.to_owned() },
                position: None,
                message: "no setting is overridden by this variable".to_owned(),
                hint,
            });
        }
    }
}

/// The name of an override without what all of them begin with, which makes no two of them alike.
fn tail(name: &str) -> &str {
    name.strip_prefix(OVERRIDE_PREFIX).unwrap_or(name)
}

/// Whether a string points elsewhere rather than being the value.
pub(super) fn is_reference(text: &str) -> bool {
    text.starts_with("env:") || text.starts_with("file:")
}

fn non_empty(text: String, what: &str) -> Result<String, ValueError> {
    if text.is_empty() {
        let hint = "put the value there, or remove the setting";
        return Err(ValueError::hinting(format!("{what} is empty"), hint));
    }
    Ok(text)
}

/// The most alike of `names`, if any is alike enough to be what was meant.
pub(crate) fn nearest<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    names
        .map(|candidate| (strsim::normalized_damerau_levenshtein(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= LIKENESS)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
