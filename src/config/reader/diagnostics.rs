//! What one reading collects: problems, effective values, and what may not be shown.

use std::cell::RefCell;
use std::io;
use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::super::env::{EnvOverride, Environment, OVERRIDABLE, OVERRIDE_PREFIX, override_name, overrides};
use super::super::problem::{LineIndex, Problem, ValueLocation};
use super::super::referenced_files::ReferencedFiles;
use super::catalogue::{EmptyEnvironment, SchemaRecorder, SettingCatalogue};
use super::path;
use super::setting::{DisplayValue, Setting, ValueError};
use super::similar::nearest;
use crate::domain::secret::{MASK, without_credentials};

/// Where an effective value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingOrigin {
    /// It is not written.
    Default,
    /// The file, at this line.
    File(usize),
    /// An environment variable that overrides the file.
    Env(String),
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
    pub value: DisplayValue,
    /// Where that came from.
    pub origin: SettingOrigin,
}

/// A setting that is understood and whose feature is not built yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnenforcedSetting {
    /// Its path.
    pub setting: String,
    /// What would not happen.
    pub why: String,
}

#[derive(Default)]
struct DiagnosticsState {
    problems: Vec<Problem>,
    hidden: Vec<Range<usize>>,
    entries: Vec<EffectiveSetting>,
    unenforced: Vec<UnenforcedSetting>,
    overrides: Vec<EnvOverride>,
    /// The name of every variable that a setting would have taken.
    override_names: Vec<String>,
    referenced_files: ReferencedFiles,
}

/// What one reading has been given and what it has found.
pub(crate) struct Diagnostics<'d> {
    lines: LineIndex<'d>,
    environment: &'d dyn Environment,
    state: RefCell<DiagnosticsState>,
    /// Records which settings there are, in a reading that describes.
    pub(super) recorder: SchemaRecorder,
    /// The element of an array whose elements are to be described.
    pub(super) blank: DeValue<'d>,
}

/// What a finished reading has collected.
pub(crate) struct DiagnosticsReport {
    pub(crate) problems: Vec<Problem>,
    pub(crate) hidden: Vec<Range<usize>>,
    pub(crate) entries: Vec<EffectiveSetting>,
    pub(crate) unenforced: Vec<UnenforcedSetting>,
    pub(crate) referenced_files: ReferencedFiles,
}

impl<'d> Diagnostics<'d> {
    pub(crate) fn new(text: &'d str, environment: &'d dyn Environment) -> Self {
        let state = DiagnosticsState { overrides: overrides(environment), ..DiagnosticsState::default() };
        let blank = DeValue::Table(DeTable::new());
        Self {
            lines: LineIndex::of(text),
            environment,
            state: RefCell::new(state),
            recorder: SchemaRecorder::idle(),
            blank,
        }
    }

    /// For a reading that only describes what it would read.
    pub(crate) fn describing() -> Self {
        Self { recorder: SchemaRecorder::writing(), ..Self::new("", &EmptyEnvironment) }
    }

    /// Ends a reading that described.
    pub(crate) fn into_catalogue(self) -> SettingCatalogue {
        self.recorder.into_catalogue()
    }

    /// Ends the reading: what no setting took of the environment is a problem too.
    pub(crate) fn finish(self) -> DiagnosticsReport {
        self.report_unused_overrides();
        let state = self.state.into_inner();
        DiagnosticsReport {
            problems: state.problems,
            hidden: state.hidden,
            entries: state.entries,
            unenforced: state.unenforced,
            referenced_files: state.referenced_files,
        }
    }

    /// Records a problem.
    pub(crate) fn report(&self, setting: &str, location: ValueLocation, wrong: ValueError) {
        let at = match &location {
            ValueLocation::File(span) => Some(self.lines.position(span.start)),
            ValueLocation::Variable { .. } | ValueLocation::Unwritten => None,
        };
        self.state.borrow_mut().problems.push(Problem {
            setting: setting.to_owned(),
            location,
            position: at,
            message: wrong.message,
            hint: wrong.hint.unwrap_or_default(),
        });
    }

    /// Records a problem of a value that could be read.
    pub(crate) fn report_at<T>(&self, written: &Setting<T>, message: String, hint: String) {
        let wrong = ValueError::hinting(message, hint);
        self.report(&written.path, written.location.clone(), wrong);
    }

    /// Records that the configuration depends on `file`, whether it is there or not.
    pub(crate) fn note_file(&self, file: &Path) {
        let read = self.environment.read(file);
        self.state.borrow_mut().referenced_files.note(file, read.as_deref().ok());
    }

    /// Records that the feature behind an explicit setting is not built.
    pub(crate) fn unenforced(&self, setting: &str, why: &str) {
        self.state
            .borrow_mut()
            .unenforced
            .push(UnenforcedSetting { setting: without_credentials(setting).into_owned(), why: why.to_owned() });
    }

    /// Records an effective value.
    pub(super) fn record(&self, table: &path::SettingPath, name: &str, value: DisplayValue, from: &ValueLocation) {
        let origin = match from {
            ValueLocation::Unwritten => SettingOrigin::Default,
            ValueLocation::File(span) => SettingOrigin::File(self.lines.line(span.start)),
            ValueLocation::Variable { name, .. } => SettingOrigin::Env(name.clone()),
        };
        self.state.borrow_mut().entries.push(EffectiveSetting {
            header: table.header(),
            table: table.to_string(),
            name: name.to_owned(),
            value,
            origin,
        });
    }

    /// Keeps a literal out of everything that is shown.
    pub(crate) fn hide(&self, span: Range<usize>) {
        self.state.borrow_mut().hidden.push(span);
    }

    /// Hides every string in a value that no setting reads: it may be a secret in the wrong place.
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
        let state = self.state.borrow();
        state.overrides.iter().any(|o| o.name.starts_with(&below))
    }

    /// Whether the setting `name` under `prefix` is overridden.
    pub(super) fn is_overridden(&self, prefix: &str, name: &str) -> bool {
        let wanted = override_name(prefix, name);
        self.state.borrow().overrides.iter().any(|o| o.name == wanted)
    }

    /// Drops every problem: they follow from one that is reported in their place.
    pub(crate) fn drop_all_problems(&self) {
        self.state.borrow_mut().problems.clear();
    }

    /// Drops the problems on the lines of `spans`: they follow from the syntax error that is reported there.
    pub(crate) fn drop_follow_up_problems(&self, spans: &[Range<usize>], kept: usize) {
        let line = |span: &Range<usize>| self.lines.line(span.start);
        let broken: Vec<usize> = spans.iter().map(line).collect();
        let mut index = 0;
        self.state.borrow_mut().problems.retain(|problem| {
            index += 1;
            match &problem.location {
                // What the parser made up to go on has no bytes of its own.
                ValueLocation::File(span) => index <= kept || (!span.is_empty() && !broken.contains(&line(span))),
                _ => true,
            }
        });
    }

    /// Takes the override of the setting `name` under `prefix`, if there is one.
    pub(super) fn take_override(&self, prefix: &str, name: &str) -> Option<(String, String)> {
        let wanted = override_name(prefix, name);
        let state = &mut *self.state.borrow_mut();
        let found = state.overrides.iter_mut().find(|o| o.name == wanted);
        let taken = found.map(|found| {
            found.used = true;
            (found.name.clone(), found.value.clone())
        });
        state.override_names.push(wanted);
        taken
    }

    /// The variable called `name`, for defaults that live in the environment.
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        self.environment.variable(name).filter(|text| !text.is_empty())
    }

    /// The value of a string: itself, or what `env:NAME` or `file:/path` refers to.
    pub(super) fn resolve(&self, text: &str) -> Result<String, ValueError> {
        if let Some(name) = text.strip_prefix("env:") {
            let value = self.environment.variable(name).ok_or_else(|| {
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
        let read = self.environment.read(Path::new(path));
        self.state.borrow_mut().referenced_files.note(Path::new(path), read.as_deref().ok());
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

    fn report_unused_overrides(&self) {
        let state = &mut *self.state.borrow_mut();
        for unused in state.overrides.iter().filter(|o| !o.used) {
            let names = state.override_names.iter().map(|name| tail(name));
            let alike = nearest(tail(&unused.name), names);
            let hint = match alike {
                Some(tail) => format!("did you mean `{OVERRIDE_PREFIX}{tail}`?"),
                None => {
                    let tables = OVERRIDABLE.join("], [");
                    format!("only settings of [{tables}] can be overridden")
                }
            };
            state.problems.push(Problem {
                setting: unused.name.clone(),
                location: ValueLocation::Variable { name: unused.name.clone(), shown: MASK.to_owned() },
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

/// Whether a string is a reference rather than the value.
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
