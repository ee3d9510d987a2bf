//! HTML pages for people: one file that refers to nothing outside itself, has no script, and prints well.
//!
//! Start reading at [`page`].

use super::store::CommandError;
use std::fmt::Alignment;
use std::path::Path;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c2430}\
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.25rem .6rem;border-bottom:1px solid #d8dee6;\
vertical-align:top}td.n,th.n{text-align:right}td.n{white-space:nowrap}.pass{color:#17693a}\
.fail{color:#a8201a;font-weight:600}svg{width:100%;height:auto}h2{margin-top:2.5rem}small{color:#56616f}\
@media screen and (prefers-color-scheme:dark){body{background:#14181e;color:#e3e8ee}td,th{border-color:#333c47}\
.pass{color:#6fce96}.fail{color:#ff8b84}small{color:#9aa6b4}}\
@media print{body{max-width:none;margin:0;padding:0;font-size:10pt}h2{margin-top:1.4rem;break-after:avoid}\
tr,svg{break-inside:avoid}thead{display:table-header-group}}";

/// The page with this title and body, of which the body is HTML.
pub(super) fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{}</title><style>{STYLE}</style></head><body>{body}</body></html>\n",
        escaped(title)
    )
}

/// `rows` below `head`, each column aligned as its head says; as [`table`](super::table::table).
pub(super) fn html_table(head: &[(&str, Alignment)], rows: &[Vec<String>]) -> String {
    let class = |side: Alignment| if side == Alignment::Right { " class=\"n\"" } else { "" };
    let cells = |row: &[String], tag: &str| -> String {
        let cell = |(text, (_, side)): (&String, &(&str, Alignment))| {
            format!("<{tag}{}>{}</{tag}>", class(*side), escaped(text))
        };
        row.iter().zip(head).map(cell).collect()
    };
    let names: Vec<String> = head.iter().map(|(name, _)| (*name).to_owned()).collect();
    let body: String = rows.iter().map(|row| format!("<tr>{}</tr>", cells(row, "td"))).collect();
    format!("<table><thead><tr>{}</tr></thead><tbody>{body}</tbody></table>", cells(&names, "th"))
}

/// Writes `page` to `file`.
pub(super) fn write_page(file: &Path, page: &str) -> Result<(), CommandError> {
    let failed = |error| CommandError::failed(format!("{} cannot be written: {error}", file.display()));
    std::fs::write(file, page).map_err(failed)
}

/// `text` as HTML shows it.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_name_holds_is_text() {
        let rows = [vec!["<script>&\"".to_owned(), "7".to_owned()]];
        let table = html_table(&[("key", Alignment::Left), ("<n>", Alignment::Right)], &rows);
        let page = page("a<b", &table);
        assert!(page.contains("<title>a&lt;b</title>") && page.contains("<th class=\"n\">&lt;n&gt;</th>"), "{page}");
        assert!(page.contains("<td>&lt;script&gt;&amp;&quot;</td><td class=\"n\">7</td>"), "{page}");
    }
}
