//! One verdict of `doctor`, and how all of them are shown.

use crate::cli::table::{NONE, table};
use serde_json::{Value, json};
use std::fmt::Alignment;

/// What was found of one thing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DoctorState {
    /// It is in order.
    Ok,
    /// It works, and may not be meant or not last.
    Warning,
    /// It does not work.
    Broken,
    /// It was not looked at.
    Skipped,
}

impl DoctorState {
    /// In a table: what is broken is seen at a glance.
    fn label(self) -> &'static str {
        match self {
            Self::Broken => "BROKEN",
            Self::Skipped => NONE,
            other => other.name(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Broken => "broken",
            Self::Skipped => "skipped",
        }
    }
}

/// One verdict.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct DoctorRow {
    /// The name of a provider, or `gateway`.
    pub(super) about: String,
    /// What was looked at.
    pub(super) check: &'static str,
    /// What it is like.
    pub(super) state: DoctorState,
    /// What was found.
    pub(super) said: String,
    /// What to do.
    pub(super) cure: Option<String>,
}

impl DoctorRow {
    /// What is in order.
    pub(super) fn ok(about: &str, check: &'static str, said: impl Into<String>) -> Self {
        Self { about: about.to_owned(), check, state: DoctorState::Ok, said: said.into(), cure: None }
    }

    /// What was not looked at, and why.
    pub(super) fn skipped(about: &str, check: &'static str, said: impl Into<String>) -> Self {
        Self { state: DoctorState::Skipped, ..Self::ok(about, check, said) }
    }

    /// What works, and should be changed by `cure`.
    pub(super) fn warning(about: &str, check: &'static str, said: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { state: DoctorState::Warning, cure: Some(cure.into()), ..Self::ok(about, check, said) }
    }

    /// What does not work, and is put right by `cure`.
    pub(super) fn broken(about: &str, check: &'static str, said: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { state: DoctorState::Broken, cure: Some(cure.into()), ..Self::ok(about, check, said) }
    }

    fn cells(&self) -> Vec<String> {
        let what = match &self.cure {
            Some(cure) => format!("{}; {cure}", self.said),
            None => self.said.clone(),
        };
        vec![self.about.clone(), self.check.to_owned(), self.state.label().to_owned(), what]
    }

    fn json(&self) -> Value {
        json!({
            "about": self.about,
            "check": self.check,
            "verdict": self.state.name(),
            "said": self.said,
            "do": self.cure,
        })
    }
}

fn count(rows: &[DoctorRow], state: DoctorState) -> usize {
    rows.iter().filter(|row| row.state == state).count()
}

/// Whether nothing is broken.
pub(super) fn is_good(rows: &[DoctorRow]) -> bool {
    count(rows, DoctorState::Broken) == 0
}

/// All rows and their sum for people.
pub(super) fn text(rows: &[DoctorRow]) -> String {
    const HEAD: [(&str, Alignment); 4] =
        [("about", Alignment::Left), ("check", Alignment::Left), ("verdict", Alignment::Left), ("", Alignment::Left)];
    let of = |state| count(rows, state);
    let sum = format!(
        "\n{} broken, {} warnings, {} in order\n",
        of(DoctorState::Broken),
        of(DoctorState::Warning),
        of(DoctorState::Ok)
    );
    table(&HEAD, &rows.iter().map(DoctorRow::cells).collect::<Vec<_>>()) + &sum
}

/// The same as JSON.
pub(super) fn object(rows: &[DoctorRow]) -> Value {
    json!({ "ok": is_good(rows), "checks": rows.iter().map(DoctorRow::json).collect::<Vec<_>>() })
}
