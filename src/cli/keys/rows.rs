//! Rows of a file of keys: CSV as in RFC 4180, or JSON Lines.
//!
//! This module knows lines and columns, and nothing about keys. Errors name a place and never its content, which
//! may be a secret.
//!
//! Start reading at [`rows`].

use crate::cli::table::without_text_mark;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

/// The columns of a row.
pub(super) const COLUMNS: [&str; 10] = [
    "name",
    "policy",
    "team",
    "secret",
    "hash",
    "requests_per_minute",
    "tokens_per_minute",
    "max_concurrent",
    "budget",
    "expires",
];

/// The cells of a row, in the order of [`COLUMNS`].
pub(super) type ImportFields = [Option<Zeroizing<String>>; COLUMNS.len()];

/// One row or why it cannot be read, and its line, counted from 1.
pub(super) struct ImportRow {
    pub(super) line: usize,
    pub(super) cells: Result<ImportFields, String>,
}

/// The rows of `text`, in either format.
///
/// # Errors
/// The line, and why the file cannot be read beyond it.
pub(super) fn rows(text: &str) -> Result<Vec<ImportRow>, (usize, String)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let rows = if text.trim_start().starts_with('{') { json_lines(text) } else { csv(text)? };
    if rows.is_empty() {
        return Err((1, format!("there are no rows; the columns are: {}", COLUMNS.join(", "))));
    }
    Ok(rows)
}

fn json_lines(text: &str) -> Vec<ImportRow> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(at, line)| ImportRow { line: at + 1, cells: of_json(line) }).collect()
}

fn of_json(line: &str) -> Result<ImportFields, String> {
    let object = serde_json::from_str::<Map<String, Value>>(line).map_err(|_| "is no JSON object".to_owned())?;
    let mut cells = ImportFields::default();
    for (name, value) in object {
        let Some(column) = COLUMNS.iter().position(|column| *column == name) else {
            return Err(format!("has a member that is none of {}", COLUMNS.join(", ")));
        };
        cells[column] = match value {
            Value::Null => None,
            Value::String(text) => Some(Zeroizing::new(text)),
            Value::Number(number) => Some(Zeroizing::new(number.to_string())),
            _ => return Err(format!("{name}: write a text or a number")),
        };
    }
    Ok(cells)
}

fn csv(text: &str) -> Result<Vec<ImportRow>, (usize, String)> {
    let mut records = CsvRecords { rest: text, line: 1 };
    let Some((line, header)) = records.next().transpose()? else { return Ok(Vec::new()) };
    let mut columns = Vec::with_capacity(header.len());
    for (at, name) in header.iter().enumerate() {
        let Some(column) = COLUMNS.iter().position(|column| *column == name.trim()) else {
            return Err((line, format!("column {} is none of {}", at + 1, COLUMNS.join(", "))));
        };
        if columns.contains(&column) {
            return Err((line, format!("two columns are called {}", COLUMNS[column])));
        }
        columns.push(column);
    }
    let row = |(line, fields): (usize, Vec<Zeroizing<String>>)| ImportRow { line, cells: of_fields(&columns, fields) };
    records.map(|record| record.map(row)).collect()
}

fn of_fields(columns: &[usize], fields: Vec<Zeroizing<String>>) -> Result<ImportFields, String> {
    if fields.len() != columns.len() {
        return Err(format!("has {} cells, and the header {}", fields.len(), columns.len()));
    }
    let mut cells = ImportFields::default();
    for (column, field) in columns.iter().zip(fields) {
        let text = without_text_mark(&field);
        cells[*column] = Some(if text == *field { field } else { Zeroizing::new(text.to_owned()) });
    }
    Ok(cells)
}

/// The records of CSV that are not empty, each with the line it begins on.
struct CsvRecords<'t> {
    rest: &'t str,
    line: usize,
}

impl Iterator for CsvRecords<'_> {
    type Item = Result<(usize, Vec<Zeroizing<String>>), (usize, String)>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(rest) = self.rest.strip_prefix("\r\n").or_else(|| self.rest.strip_prefix('\n')) {
            (self.rest, self.line) = (rest, self.line + 1);
        }
        if self.rest.is_empty() {
            return None;
        }
        let begins = self.line;
        let mut fields = Vec::new();
        loop {
            match self.field() {
                Ok(field) => fields.push(field),
                Err(why) => {
                    self.rest = "";
                    return Some(Err((begins, why.to_owned())));
                }
            }
            if let Some(rest) = self.rest.strip_prefix(',') {
                self.rest = rest;
                continue;
            }
            return Some(Ok((begins, fields)));
        }
    }
}

impl CsvRecords<'_> {
    /// The next field; what follows it is a comma, the end of a line, or nothing.
    fn field(&mut self) -> Result<Zeroizing<String>, &'static str> {
        let Some(mut quoted) = self.rest.strip_prefix('"') else {
            let end = self.rest.find([',', '\n']).unwrap_or(self.rest.len());
            let (field, rest) = self.rest.split_at(end);
            let ends_line = rest.is_empty() || rest.starts_with('\n');
            self.rest = rest;
            return Ok(Zeroizing::new(field.strip_suffix('\r').filter(|_| ends_line).unwrap_or(field).to_owned()));
        };
        let mut field = Zeroizing::new(String::new());
        loop {
            let (text, rest) = quoted.split_once('"').ok_or("a quote is not closed")?;
            self.line += text.matches('\n').count();
            field.push_str(text);
            match rest.strip_prefix('"') {
                Some(rest) => {
                    field.push('"');
                    quoted = rest;
                }
                None => {
                    let rest = rest.strip_prefix('\r').filter(|rest| rest.starts_with('\n')).unwrap_or(rest);
                    if !rest.is_empty() && !rest.starts_with([',', '\n']) {
                        return Err("behind a closed quote stands more than a comma");
                    }
                    self.rest = rest;
                    return Ok(field);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_export_marked_as_text_is_read_as_it_was() {
        let rows = csv("name,policy\n'@payer,\"'=a\"\n'plain',x\n").expect("two rows");
        let cells = |row: &ImportRow| -> Vec<String> {
            let cells = row.cells.as_ref().expect("a row");
            cells.iter().flatten().map(|cell| cell.as_str().to_owned()).collect()
        };
        assert_eq!(rows.iter().map(cells).collect::<Vec<_>>(), [["@payer", "=a"], ["'plain'", "x"]]);
    }

    #[test]
    fn records_are_split_as_rfc_4180_has_it() {
        let read = |text: &str| {
            let records = CsvRecords { rest: text, line: 1 }.collect::<Result<Vec<_>, _>>();
            records.map(|records| {
                let text = |(line, fields): &(usize, Vec<Zeroizing<String>>)| {
                    let fields: Vec<&str> = fields.iter().map(|field| field.as_str()).collect();
                    format!("{line}:{}", fields.join("|"))
                };
                records.iter().map(text).collect::<Vec<_>>()
            })
        };
        let check = |text: &str, expected: &[&str]| {
            assert_eq!(read(text), Ok(expected.iter().map(|s| (*s).to_owned()).collect()), "{text}")
        };
        check("", &[]);
        check("a,b\r\n\r\nc,\n", &["1:a|b", "3:c|"]);
        check("a,b", &["1:a|b"]);
        check(",\n", &["1:|"]);
        check("\"a,\"\"b\"\"\",\"c\nd\"\ne", &["1:a,\"b\"|c\nd", "3:e"]);
        check("\"a\"\r\nb\r\n", &["1:a", "2:b"]);
        assert_eq!(read("a\n\"b"), Err((2, "a quote is not closed".to_owned())));
        assert_eq!(read("\"a\"b\n"), Err((1, "behind a closed quote stands more than a comma".to_owned())));
    }
}
