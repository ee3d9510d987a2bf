//! Configuration: any text compiles or is refused with problems that point into it; a secret, written
//! out, pointed to or overriding, is never shown; and what is in effect, printed and read again, is
//! in effect again.
//!
//! A line `#TIERWAY__…=value` of the text is a variable that overrides a setting; `$SECRET` in its
//! value is replaced by a secret, where one belongs.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use tierway::config::{
    ConfigSource, DisplayValue, EffectiveConfig, Environment, MASK, OVERRIDE_PREFIX, Problems, ValueLocation, load,
};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What every variable and every file holds.
const POINTED_TO: &str = "canary-pointed-to";
/// What is written out where a secret belongs.
const WRITTEN_OUT: &str = "canary-written-out";
/// Settings, in any table, that are secrets or may hold one by mistake.
const SECRETS: [&str; 6] = ["admin_token", "viewer_token", "metrics_token", "credential", "secret", "hash"];
/// Overrides that are secrets.
const SECRET_OVERRIDES: [&str; 2] = ["TIERWAY__SERVER__ADMIN_TOKEN", "TIERWAY__TELEMETRY__METRICS_TOKEN"];

/// What must hold for any text.
pub fn holds(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if text.contains("canary") {
        return;
    }
    let world = World::of(text);
    match load(&source(text), &world, &[]) {
        Err(problems) => point_inside(text, &problems),
        Ok(snapshot) => {
            shows_no_secret(&format!("{snapshot:?}"));
            shown_again(&snapshot.effective);
        }
    }
    if let Some(text) = with_secrets_written_out(text) {
        match load(&source(&text), &world, &[]) {
            Err(problems) => point_inside(&text, &problems),
            Ok(snapshot) => shows_no_secret(&format!("{snapshot:?}{}", snapshot.effective.to_toml())),
        }
    }
}

/// Every variable is set and every file is there but one; overrides as the text asks.
struct World {
    overrides: Vec<(String, String)>,
}

impl World {
    fn of(text: &str) -> Self {
        let assigned = text.lines().filter_map(|line| line.strip_prefix('#')?.split_once('='));
        let overriding = assigned.filter(|(name, _)| name.starts_with(OVERRIDE_PREFIX)).take(20);
        let expanded = |(name, value): (&str, &str)| {
            let is_secret = SECRET_OVERRIDES.contains(&name);
            (name.to_owned(), if is_secret { value.replace("$SECRET", POINTED_TO) } else { value.to_owned() })
        };
        Self { overrides: overriding.map(expanded).collect() }
    }
}

impl Environment for World {
    fn variable(&self, name: &str) -> Option<String> {
        (name != "NOT_SET").then(|| POINTED_TO.to_owned())
    }

    fn variables(&self) -> Vec<(String, String)> {
        self.overrides.clone()
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        match path.to_str() {
            Some("/not/there" | "tierway.prices.toml") | None => Err(io::ErrorKind::NotFound.into()),
            Some(_) => Ok(format!("{POINTED_TO}\n")),
        }
    }
}

fn source(text: &str) -> ConfigSource {
    ConfigSource::File { path: PathBuf::from("tierway.toml"), text: text.to_owned() }
}

/// Each problem says one thing in one line and, if it is in the file, where.
fn point_inside(text: &str, problems: &Problems) {
    assert!(problems.count() > 0);
    for problem in problems.iter() {
        assert!(!problem.message.is_empty());
        assert_eq!(problem.position.is_some(), matches!(problem.location, ValueLocation::File(_)), "{problem:?}");
        if let (ValueLocation::File(span), Some((line, column))) = (&problem.location, problem.position) {
            assert!(text.get(span.clone()).is_some(), "{span:?} is no text of {}", text.len());
            let lines = text[..span.start].matches('\n').count() + 1;
            let start = text[..span.start].rfind('\n').map_or(0, |at| at + 1);
            assert_eq!((line, column), (lines, text[start..span.start].chars().count() + 1), "{problem:?}");
        }
        shows_no_secret(&format!("{problem:?}"));
    }
    shows_no_secret(&problems.render(false));
    shows_no_secret(&problems.render(true));
}

fn shows_no_secret(shown: &str) {
    for secret in [POINTED_TO, WRITTEN_OUT] {
        assert!(!shown.contains(secret), "a secret is shown:\n{shown}");
    }
}

/// What is in effect is TOML and, with what is masked pointed to, has the same effect again.
fn shown_again(effective: &EffectiveConfig) {
    let printed = effective.to_toml();
    shows_no_secret(&printed);
    shows_no_secret(&effective.to_json().to_string());
    let text = printed.replace(&format!("{MASK:?}"), "\"env:ANY\"");
    let again = load(&source(&text), &World { overrides: Vec::new() }, &[]);
    let again = again.unwrap_or_else(|problems| panic!("{problems}\n{text}"));
    assert_eq!(values(&again.effective), values(effective), "{text}");
}

/// Every setting and its value, tables and settings in any order.
fn values(effective: &EffectiveConfig) -> Vec<(String, String, DisplayValue)> {
    let one =
        |entry: &tierway::config::EffectiveSetting| (entry.table.clone(), entry.name.clone(), entry.value.clone());
    let mut values: Vec<_> = effective.entries().iter().map(one).collect();
    values.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    values
}

/// The text with a secret in place of every string where one belongs; `None` where there is none, or
/// where the text is so broken that nobody can say.
fn with_secrets_written_out(text: &str) -> Option<String> {
    let (document, _) = DeTable::parse_recoverable(text);
    let mut spans = Vec::new();
    secrets(document.get_ref(), &mut spans);
    spans.retain(|span| text.get(span.clone()).is_some_and(|text| text.starts_with(['"', '\''])));
    spans.sort_by_key(|span| std::cmp::Reverse(span.start));
    spans.dedup();
    let mut planted = text.to_owned();
    for span in &spans {
        planted.replace_range(span.clone(), &format!("\"{WRITTEN_OUT}\""));
    }
    let (document, _) = DeTable::parse_recoverable(&planted);
    let mut found = Vec::new();
    secrets(document.get_ref(), &mut found);
    let quoted = format!("\"{WRITTEN_OUT}\"");
    let in_place = found.iter().filter(|span| planted.get((*span).clone()) == Some(&quoted)).count();
    (in_place > 0 && in_place == planted.matches(WRITTEN_OUT).count()).then_some(planted)
}

/// Where every string of `table` is, below any name of a secret; an alias may have any name.
fn secrets(table: &DeTable<'_>, spans: &mut Vec<Range<usize>>) {
    for (name, value) in table.iter().filter(|(name, _)| name.get_ref() != "aliases") {
        let named = SECRETS.contains(&name.get_ref().as_ref());
        each(value, named, spans);
    }
}

fn each(value: &Spanned<DeValue<'_>>, named: bool, spans: &mut Vec<Range<usize>>) {
    match value.get_ref() {
        DeValue::String(_) if named => spans.push(value.span()),
        DeValue::Array(items) => items.iter().for_each(|item| each(item, named, spans)),
        DeValue::Table(table) => secrets(table, spans),
        _ => {}
    }
}
