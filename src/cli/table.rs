//! Numbers and tables for people: aligned columns, dollars, amounts that fit.
//!
//! All arithmetic is on integers: what is rounded here is exact in `--csv` and `--json`.

use crate::cli::printable;
use crate::domain::money::NanoUsd;
use std::fmt::Alignment;

/// Shown in place of a value that is absent.
pub(super) const NONE: &str = "-";

/// `rows` below `head`, each column aligned as its head says, two spaces apart.
pub(super) fn table(head: &[(&str, Alignment)], rows: &[Vec<String>]) -> String {
    let line = |row: &Vec<String>| row.iter().map(|cell| printable(cell).replace(['\n', '\t'], " ")).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(line).collect();
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
        cells.chain([head[at].0.chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let names = head.iter().map(|(name, _)| (*name).to_owned()).collect();
    let lines = std::iter::once(&names).chain(&rows).map(|row: &Vec<String>| {
        let cells = row.iter().zip(head).zip(&widths).map(|((cell, (_, side)), &width)| match side {
            Alignment::Left => format!("{cell:<width$}"),
            Alignment::Center => format!("{cell:^width$}"),
            Alignment::Right => format!("{cell:>width$}"),
        });
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    });
    lines.collect()
}

/// Dollars, with cents if there are any, and more digits if needed: `$1,250`, `$12.50`, `$0.0000213`.
pub(super) fn dollars(nanousd: i128) -> String {
    let sign = if nanousd < 0 { "-" } else { "" };
    let (whole, part) = (nanousd.unsigned_abs() / 1_000_000_000, nanousd.unsigned_abs() % 1_000_000_000);
    let digits = format!("{part:09}");
    let places = digits.trim_end_matches('0').len();
    let part = if places == 0 { String::new() } else { format!(".{}", &digits[..places.max(2)]) };
    format!("{sign}${}{part}", grouped(whole))
}

/// Dollars with `places` digits after the point, rounded half up.
pub(super) fn dollars_to(nanousd: i128, places: u32) -> String {
    let sign = if nanousd < 0 { "-" } else { "" };
    let unit = 10_u128.pow(9_u32.saturating_sub(places));
    let rounded = (nanousd.unsigned_abs() + unit / 2) / unit;
    let scale = 10_u128.pow(places);
    format!("{sign}${}.{:0width$}", grouped(rounded / scale), rounded % scale, width = places as usize)
}

/// The exact decimal of an amount that may be larger than one receipt's.
pub(super) fn decimal(nanousd: i128) -> String {
    match i64::try_from(nanousd) {
        Ok(nanousd) => NanoUsd(nanousd).to_string(),
        Err(_) => format!("{}.{:09}", nanousd / 1_000_000_000, (nanousd % 1_000_000_000).unsigned_abs()),
    }
}

/// A whole number with thousands separators.
pub(super) fn grouped(number: u128) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let mut text = digits[..first].to_owned();
    for at in (first..digits.len()).step_by(3) {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&digits[at..at + 3]);
    }
    text
}

/// A count in at most five characters and a letter, rounded down: `999`, `12.3K`, `4.56M`.
pub(super) fn short(number: u128) -> String {
    const UNITS: [(u128, &str); 4] = [(1_000_000_000_000, "T"), (1_000_000_000, "G"), (1_000_000, "M"), (1_000, "K")];
    let Some((unit, letter)) = UNITS.into_iter().find(|(unit, _)| number >= *unit) else { return number.to_string() };
    let (whole, hundredths) = (number / unit, number % unit * 100 / unit);
    match whole {
        0..10 => format!("{whole}.{hundredths:02}{letter}"),
        10..100 => format!("{whole}.{}{letter}", hundredths / 10),
        _ => format!("{whole}{letter}"),
    }
}

/// A share in tenths of a percent, rounded down; `-` if `whole` is zero.
pub(super) fn percent(part: u128, whole: u128) -> String {
    let Some(mille) = part.checked_mul(1_000).and_then(|part| part.checked_div(whole)) else { return NONE.to_owned() };
    match (mille / 10, mille % 10) {
        (percent, 0) => format!("{percent} %"),
        (percent, tenth) => format!("{percent}.{tenth} %"),
    }
}

/// What a spreadsheet takes for the beginning of a formula, also behind blanks.
const BEGINS_FORMULA: [char; 8] = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];
/// What makes it take a cell for text, and does not show.
const TEXT_MARK: char = '\'';

fn is_formula(cell: &str) -> bool {
    cell.trim_start().starts_with(BEGINS_FORMULA) || cell.starts_with(['\t', '\r', '\n'])
}

/// A field of CSV, quoted as RFC 4180 requires. What a spreadsheet would compute is marked as text.
pub(super) fn quoted(name: &str) -> String {
    let mark = if is_formula(name) { TEXT_MARK.to_string() } else { String::new() };
    // Some spreadsheets split at a semicolon or a tab as well.
    if name.contains(['"', ',', ';', '\t', '\n', '\r']) {
        format!("\"{mark}{}\"", name.replace('"', "\"\""))
    } else {
        format!("{mark}{name}")
    }
}

/// A field of CSV as it was before [`quoted`] marked it as text.
pub(super) fn without_text_mark(field: &str) -> &str {
    field.strip_prefix(TEXT_MARK).filter(|rest| is_formula(rest)).unwrap_or(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_have_cents_where_there_are_any() {
        let check = |nanousd: i128, expected: &str| assert_eq!(dollars(nanousd), expected);
        check(1_250_000_000, "$1.25");
        check(50_000_000_000, "$50");
        check(12_500_000_000, "$12.50");
        check(5_000_000_000_000, "$5,000");
        check(21_300, "$0.0000213");
        check(0, "$0");
        check(-1_500_000_000, "-$1.50");
        let check = |nanousd: i128, places, expected: &str| assert_eq!(dollars_to(nanousd, places), expected);
        check(1_234_567_895_000_000, 2, "$1,234,567.90");
        check(21_300, 6, "$0.000021");
        check(21_500, 6, "$0.000022");
        assert_eq!(decimal(i128::from(i64::MAX) + 1), "9223372036.854775808");
        assert_eq!(decimal(21_300), "0.0000213");
    }

    #[test]
    fn counts_fit() {
        let check = |number: u128, expected: &str| assert_eq!(short(number), expected);
        check(0, "0");
        check(999, "999");
        check(1_000, "1.00K");
        check(12_345, "12.3K");
        check(999_999, "999K");
        check(4_567_000_000, "4.56G");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(123), "123");
        assert_eq!(percent(975, 1_000), "97.5 %");
        assert_eq!(percent(1, 0), "-");
    }

    #[test]
    fn columns_are_aligned() {
        let head = [("key", Alignment::Left), ("cost", Alignment::Right)];
        let rows = [vec!["é".to_owned(), "$1".to_owned()], vec!["long".to_owned(), "$1,000".to_owned()]];
        assert_eq!(table(&head, &rows), "key     cost\né         $1\nlong  $1,000\n");
    }

    #[test]
    fn a_name_stays_in_its_field() {
        assert_eq!(quoted("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(quoted("growth-app"), "growth-app");
        assert_eq!(quoted("a;=1"), "\"a;=1\"");
    }

    #[test]
    fn what_a_spreadsheet_would_compute_is_text() {
        let check = |name: &str, expected: &str| {
            assert_eq!(quoted(name), expected, "{name}");
            let field = expected.trim_matches('"').replace("\"\"", "\"");
            assert_eq!(without_text_mark(&field), name);
        };
        check("=HYPERLINK(\"http://x\")", "\"'=HYPERLINK(\"\"http://x\"\")\"");
        check("+1", "'+1");
        check("-app", "'-app");
        check("@SUM(A1)", "'@SUM(A1)");
        check("\t=1", "\"'\t=1\"");
        check("\r=1", "\"'\r=1\"");
        check("\nx", "\"'\nx\"");
        check(" =1", "' =1");
        check("＝1", "'＝1");
        check("a=1", "a=1");
        check("'quoted'", "'quoted'");
    }

    #[test]
    fn a_cell_controls_no_terminal_and_keeps_its_line() {
        let rows = [vec!["\u{1b}[2Ja\u{202e}b\u{9b}\nc".to_owned(), "x".to_owned()]];
        let text = table(&[("name", Alignment::Left), ("n", Alignment::Left)], &rows);
        assert_eq!(text.lines().nth(1), Some("\\u001b[2Ja\\u202eb\\u009b c  x"));
    }
}
