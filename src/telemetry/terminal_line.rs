//! A request's line for a reader at a terminal: the facts of its receipt in columns, and in words only what was unusual.
//!
//! The JSON line of [`access`](super::access) has every field; this one has what a person looks for first. Start reading
//! in [`put_line`].

use super::rfc3339::Rfc3339Text;
use crate::domain::limit::LimitKind;
use crate::domain::readable::readable;
use crate::domain::receipt::{Outcome, Receipt};
use anstyle::{AnsiColor, Style};
use std::fmt;
use std::io::Write;
use std::time::Duration;

const DIM: Style = Style::new().dimmed();
const GREEN: Style = AnsiColor::Green.on_default();
const YELLOW: Style = AnsiColor::Yellow.on_default();
const RED: Style = AnsiColor::Red.on_default();

/// The columns of a key's name: longer ones move what follows on their own line only.
const KEY_COLUMNS: usize = 10;

/// Writes the lines, with colours or without.
#[derive(Clone, Copy, Debug)]
pub struct TerminalWriter {
    /// Whether the terminal is to show colours.
    pub colours: bool,
}

impl TerminalWriter {
    /// The line of `receipt`, as UTF-8 with its line end.
    pub fn line(self, receipt: &Receipt) -> Vec<u8> {
        let mut line = Vec::new();
        self.put(&mut line, receipt, 0);
        line
    }

    /// Appends the line of `receipt`; `left_out`: how many requests without a valid key had none since the last one.
    pub(super) fn put(self, line: &mut Vec<u8>, receipt: &Receipt, left_out: u64) {
        put_line(line, &Words { colours: self.colours }, receipt, left_out).expect("writing to a Vec cannot fail");
    }
}

/// Texts in the styles of one terminal.
struct Words {
    colours: bool,
}

impl Words {
    fn styled<T: fmt::Display>(&self, style: Style, text: T) -> String {
        if self.colours { format!("{style}{text}{style:#}") } else { text.to_string() }
    }
}

fn put_line(line: &mut Vec<u8>, words: &Words, receipt: &Receipt, left_out: u64) -> std::io::Result<()> {
    let status = words.styled(style_of(receipt), receipt.status);
    let key = receipt.key.as_deref().unwrap_or("-");
    write!(line, "{}  {status}", words.styled(DIM, ClockText(receipt.received_unix_ms)))?;
    write!(line, "  {}  {}", MsText(Some(receipt.duration)), words.styled(DIM, FirstToken(receipt.first_token)))?;
    write!(line, "  {}  {key:<KEY_COLUMNS$}", CostText(receipt))?;
    if let Some(asked) = receipt.asked_model.as_deref() {
        write!(line, "  {}", readable(asked))?;
    }
    if let Some(served) = receipt.served.as_ref().filter(|_| receipt.first_token.is_some()) {
        write!(line, " → {} at {}", served.model, served.deployment)?;
    }
    let unusual = unusual(receipt);
    if !unusual.is_empty() {
        write!(line, "  {}", words.styled(style_of_words(receipt), unusual))?;
    }
    if left_out > 0 {
        write!(line, "  ({left_out} more without a valid key had no line)")?;
    }
    if receipt.outcome != Outcome::Served {
        write!(line, "  {}", words.styled(DIM, receipt.id))?;
    }
    line.push(b'\n');
    Ok(())
}

/// The status in the colour of its fault: green for an answer, yellow for a client's, red for ours or a provider's.
fn style_of(receipt: &Receipt) -> Style {
    match receipt.outcome {
        Outcome::Served => GREEN,
        Outcome::Broken => RED,
        _ if receipt.status >= 500 => RED,
        _ => YELLOW,
    }
}

fn style_of_words(receipt: &Receipt) -> Style {
    if receipt.outcome == Outcome::Served { YELLOW } else { style_of(receipt) }
}

/// What distinguishes the request from one that its first deployment answered; empty for that.
fn unusual(receipt: &Receipt) -> String {
    let mut parts = Vec::new();
    if receipt.outcome != Outcome::Served {
        let limit = receipt.limit.map(LimitKind::label).map_or(String::new(), |limit| format!(" ({limit})"));
        parts.push(format!("{}: {}{limit}", receipt.outcome.label(), receipt.reason.label()));
    }
    let answered = usize::from(receipt.outcome == Outcome::Served);
    let until = receipt.attempts_until_answer();
    let failed = &until[..until.len().saturating_sub(answered)];
    if !failed.is_empty() && receipt.attempts.len() > 1 {
        let each = failed.iter().map(|attempt| format!("{} {}", attempt.deployment, attempt.reason.label()));
        parts.push(format!("after {}", each.collect::<Vec<_>>().join(", ")));
    }
    if let Some((meant, _)) = receipt.meant_elsewhere() {
        parts.push(format!("instead of {}", meant.model));
    }
    if !receipt.passed_over.is_empty() {
        let each = receipt.passed_over.iter().map(|passed| format!("{} {}", passed.deployment, passed.why.label()));
        parts.push(format!("passed over {}", each.collect::<Vec<_>>().join(", ")));
    }
    parts.join("; ")
}

/// Unix milliseconds as a time of day in UTC: `14:57:03Z`.
pub(super) struct ClockText(pub(super) i64);

impl fmt::Display for ClockText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = Rfc3339Text(self.0).to_string();
        // Counted from the end, because a year may have more digits: `hh:mm:ss.mmmZ`.
        let time = text.len().checked_sub("hh:mm:ss.mmmZ".len()).and_then(|at| text.get(at..at + "hh:mm:ss".len()));
        write!(f, "{}Z", time.unwrap_or("??:??:??"))
    }
}

/// Whole milliseconds in a column, or an empty one.
struct MsText(Option<Duration>);

impl fmt::Display for MsText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(duration) => write!(f, "{:>6} ms", duration.as_millis()),
            None => write!(f, "{:>9}", ""),
        }
    }
}

/// When the first token came.
struct FirstToken(Option<Duration>);

impl fmt::Display for FirstToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:<5}", MsText(self.0), self.0.map_or("", |_| "first"))
    }
}

/// Dollars to the millionth, or an empty column where nothing is to be paid.
struct CostText<'a>(&'a Receipt);

impl fmt::Display for CostText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nano = self.0.cost.0;
        if nano == 0 {
            return write!(f, "{:>10}", "");
        }
        let dollars = format!("${}.{:06}", nano / 1_000_000_000, nano % 1_000_000_000 / 1_000);
        write!(f, "{dollars:>10}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::samples;

    fn line(receipt: &Receipt, left_out: u64, colours: bool) -> String {
        let mut line = Vec::new();
        TerminalWriter { colours }.put(&mut line, receipt, left_out);
        String::from_utf8(line).expect("a line is UTF-8")
    }

    #[test]
    fn every_outcome_has_its_line() {
        let lines: String = samples::receipts().iter().map(|receipt| line(receipt, 0, false)).collect();
        insta::assert_snapshot!(lines);
    }

    #[test]
    fn a_terminal_without_colours_is_sent_none() {
        for receipt in samples::receipts() {
            let coloured = line(&receipt, 3, true);
            assert!(coloured.contains('\u{1b}'), "{coloured:?}");
            assert_eq!(anstream::adapter::strip_str(&coloured).to_string(), line(&receipt, 3, false));
        }
    }

    #[test]
    fn text_from_a_client_moves_no_cursor() {
        let mut receipt = samples::refused();
        receipt.asked_model = Some("\u{1b}[2J\nx\u{9b}31m".into());
        let line = line(&receipt, 0, false);
        assert_eq!((line.matches('\n').count(), line.contains(['\u{1b}', '\u{9b}'])), (1, false), "{line:?}");
    }

    #[test]
    fn a_time_of_day_is_that_of_the_instant() {
        for (unix_ms, expected) in
            [(0, "00:00:00Z"), (-1, "23:59:59Z"), (1_795_359_423_007, "14:57:03Z"), (i64::MIN, "00:00:00Z")]
        {
            assert_eq!(ClockText(unix_ms).to_string(), expected);
        }
    }
}
