//! What is wrong with a configuration, said so that it can be put right.
//!
//! A [`Problem`] names the setting, the place, what is wrong and what to do; [`Problems`] is every
//! one of them at once, rendered the way rustc does. A secret never appears: the text that is shown
//! went through [`MaskedText`], which masks what was written where a secret belongs.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use super::referenced_files::ReferencedFiles;
use crate::domain::secret::{MASK, credentials_in, without_credentials};

/// Where a setting was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueLocation {
    /// Bytes of the file.
    File(Range<usize>),
    /// An environment variable, and its value as far as it may be shown.
    Variable {
        /// Such as `TIERWAY__SERVER__LISTEN`.
        name: String,
        /// Masked where the setting is a secret.
        shown: String,
    },
    /// Nowhere: a default, or something that should have been there.
    Unwritten,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The path of the setting, such as `routing.breaker.window`; empty for the file as a whole.
    pub setting: String,
    /// Where it was written.
    pub location: ValueLocation,
    /// Line and column in the file, counted from 1; `None` where it is not in the file.
    pub position: Option<(usize, usize)>,
    /// What is wrong, in one line; never the value itself.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

impl Problem {
    /// The same without secrets in the wrong place, such as a name.
    fn without_credentials(self) -> Self {
        let masked = |text: &str| without_credentials(text).into_owned();
        let location = match self.location {
            ValueLocation::Variable { name, shown } => ValueLocation::Variable { name, shown: masked(&shown) },
            location => location,
        };
        let [setting, message, hint] = [&self.setting, &self.message, &self.hint].map(|text| masked(text));
        Self { setting, location, position: self.position, message, hint }
    }
}

/// Everything that is wrong with one configuration; never empty.
#[derive(Clone, Debug)]
pub struct Problems {
    file: String,
    text: MaskedText,
    list: Vec<Problem>,
    /// What was read beside the file: a change of it may put things right.
    pub(super) referenced_files: ReferencedFiles,
}

impl Problems {
    /// Problems of the text of `file`: what is not TOML, what is missing, then the others in the order of their
    /// places; `hidden` are the bytes of it that may not be shown.
    pub(super) fn new(file: &str, text: &str, mut hidden: Vec<Range<usize>>, list: Vec<Problem>) -> Self {
        hidden.extend(credentials_in(text));
        let mut list: Vec<Problem> = list.into_iter().map(Problem::without_credentials).collect();
        list.sort_by_key(|problem| match &problem.location {
            // A file that cannot be read as TOML: whatever else is wrong may follow from it.
            ValueLocation::File(span) if problem.setting.is_empty() => (0, span.start),
            ValueLocation::Unwritten => (1, 0),
            ValueLocation::File(span) => (2, span.start),
            ValueLocation::Variable { .. } => (3, 0),
        });
        Self {
            file: file.to_owned(),
            text: MaskedText::new(text, hidden),
            list,
            referenced_files: ReferencedFiles::default(),
        }
    }

    /// The same, found while these files were read too.
    pub(super) fn referring_to(self, referenced_files: ReferencedFiles) -> Self {
        Self { referenced_files, ..self }
    }

    /// The one problem of a file that could not be read at all.
    pub fn unreadable(file: &str, error: &std::io::Error) -> Self {
        let hint = match error.kind() {
            std::io::ErrorKind::InvalidData => "save it as UTF-8, the encoding of TOML",
            _ => "check the path and who may read it",
        };
        let problem = Problem {
            setting: String::new(),
            location: ValueLocation::Unwritten,
            position: None,
            message: format!("cannot read the configuration: {error}"),
            hint: hint.to_owned(),
        };
        Self::new(file, "", Vec::new(), vec![problem])
    }

    /// Each problem, in the order it is shown.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.list.iter()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.list.len()
    }

    /// The file they are in.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// All of them as text for people, coloured or plain.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let mut out = String::new();
        for problem in &self.list {
            out.push_str(&self.render_one(&renderer, problem));
            out.push_str("\n\n");
        }
        let count = self.list.len();
        let noun = if count == 1 { "problem" } else { "problems" };
        out.push_str(&format!("{}: {count} {noun}\n", self.file));
        out
    }

    fn render_one(&self, renderer: &Renderer, problem: &Problem) -> String {
        let title = match problem.setting.as_str() {
            "" => problem.message.clone(),
            setting => format!("{setting}: {}", problem.message),
        };
        let title = Level::ERROR.primary_title(title);
        let hint = Level::HELP.message(problem.hint.as_str());
        let underline = |span| AnnotationKind::Primary.span(span);
        let group = match &problem.location {
            ValueLocation::File(span) => title.element(
                Snippet::source(self.text.text.as_str())
                    .path(self.file.as_str())
                    .annotation(underline(self.text.map(span))),
            ),
            ValueLocation::Variable { name, shown } => title.element(
                Snippet::source(format!("{name}={shown}"))
                    .path("environment")
                    .annotation(underline(name.len() + 1..name.len() + 1 + shown.len())),
            ),
            ValueLocation::Unwritten => {
                return renderer.render(&[title.element(hint)]);
            }
        };
        renderer.render(&[group.element(hint)])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Problems {}

/// The text as it may be shown: every hidden range is replaced by a mask of constant length.
#[derive(Clone, Debug)]
struct MaskedText {
    text: String,
    /// The ranges of the original that were replaced: ordered, apart.
    hidden: Vec<Range<usize>>,
}

impl MaskedText {
    fn new(original: &str, mut hidden: Vec<Range<usize>>) -> Self {
        hidden.sort_by_key(|range| range.start);
        // What overlaps is hidden as one: none of it may be shown.
        hidden.dedup_by(|next, last| {
            let overlap = next.start < last.end;
            if overlap {
                last.end = last.end.max(next.end);
            }
            overlap
        });
        let mut text = String::with_capacity(original.len());
        let mut at = 0;
        for range in &hidden {
            text.push_str(&original[at..range.start]);
            text.push_str(MASK);
            at = range.end;
        }
        text.push_str(&original[at..]);
        Self { text, hidden }
    }

    /// Where a range of the original lies in the shown text.
    fn map(&self, span: &Range<usize>) -> Range<usize> {
        let start = self.map_at(span.start, false);
        start..self.map_at(span.end, true).max(start)
    }

    /// Where a byte of the original lies; inside a mask it is the mask's start or end.
    fn map_at(&self, at: usize, as_end: bool) -> usize {
        let mut grown = 0_isize;
        for range in &self.hidden {
            if at <= range.start {
                break;
            }
            if at < range.end {
                let masked = if as_end { MASK.len() } else { 0 };
                return range.start.saturating_add_signed(grown) + masked;
            }
            grown += MASK.len() as isize - range.len() as isize;
        }
        at.saturating_add_signed(grown).min(self.text.len())
    }
}

/// Where the lines of a text begin, so that many bytes can be placed quickly.
pub(super) struct LineIndex<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> LineIndex<'t> {
    pub(super) fn of(text: &'t str) -> Self {
        let after_newline = text.match_indices('\n').map(|(at, _)| at + 1);
        Self { text, starts: std::iter::once(0).chain(after_newline).collect() }
    }

    /// The line of a byte, counted from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start <= at)
    }

    /// Line and column of a byte, counted from 1; the column counts characters.
    pub(super) fn position(&self, at: usize) -> (usize, usize) {
        let line = self.line(at);
        let start = self.starts[line - 1];
        let before = &self.text[start..self.text.floor_char_boundary(at)];
        (line, before.chars().count() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_ranges_are_masked_and_the_rest_keeps_its_place() {
        let original = "a = \"sk-live-0123456789\"\nb = \"x\"\n";
        let secret = 4..24;
        let shown = MaskedText::new(original, vec![secret.clone(), 6..9]);
        assert_eq!(shown.text, format!("a = {MASK}\nb = \"x\"\n"));
        let check = |span: Range<usize>, expected: &str| {
            assert_eq!(&shown.text[shown.map(&span)], expected, "{span:?}");
        };
        check(0..1, "a");
        check(secret, MASK);
        check(8..10, MASK);
        check(29..32, "\"x\"");
        check(0..original.len(), &shown.text);
    }

    #[test]
    fn what_overlaps_is_hidden_to_its_end() {
        let shown = MaskedText::new("0123456789abcdef", vec![6..8, 0..4, 2..12, 10..11]);
        assert_eq!(shown.text, format!("{MASK}cdef"));
        assert_eq!(&shown.text[shown.map(&(12..13))], "c");
    }

    #[test]
    fn positions_count_from_one_in_characters() {
        let check = |at, expected| assert_eq!(LineIndex::of("é = 1\nb = 2").position(at), expected, "{at}");
        check(0, (1, 1));
        check(3, (1, 3));
        check(7, (2, 1));
        check(99, (2, 6));
    }
}
