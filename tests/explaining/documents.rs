//! The documentation that is generated from the code is up to date, and the commands in it work.

use super::{Workspace, text};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use tierway::config::{SettingRow, setting_rows};

/// Set to write what is generated instead of comparing it.
const UPDATE: &str = "UPDATE_DOCS";

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(project(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_settings_page_is_up_to_date() {
    let generated = settings_page(&setting_rows());
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(project("docs/configuration.md"), &generated).expect("the page can be written");
    }
    assert!(read("docs/configuration.md") == generated, "run: {UPDATE}=1 cargo test --test explaining documents");
}

const SETTINGS_HEAD: &str = "\
# Configuration

<!-- Made from the settings themselves: UPDATE_DOCS=1 cargo test --test explaining documents -->

One TOML file: `--config FILE`, else `$TIERWAY_CONFIG`, else `./tierway.toml`, else
`/etc/tierway/tierway.toml`, else the built-in demo. `NAME` stands for a name of your choosing.

Unknown settings are errors; `tierway check` names every problem at once, and what is understood but
not built yet. Secrets are never written in the file: any string may be `\"env:NAME\"` or `\"file:/path\"` and is
then read from there, and neither logged nor shown. Durations are `\"250ms\"`, `\"10s\"`, `\"5m\"`; sizes `\"32MiB\"`;
money is a decimal string in USD; a list of one may be written without its brackets.

A change of the file, or SIGHUP, is applied while running; a file with problems changes nothing.

```sh
tierway init
tierway check
tierway config show
tierway config schema > tierway.schema.json
```

Editors that read TOML schemas find [tierway.schema.json](../config/tierway.schema.json) by the first
line of the file, `#:schema ./tierway.schema.json`. [tierway.example.toml](../config/tierway.example.toml)
shows every setting in use.
";

fn settings_page(rows: &[SettingRow]) -> String {
    let mut page = SETTINGS_HEAD.to_owned();
    for table in rows.iter().filter(|row| row.is_table) {
        let inside: Vec<&SettingRow> = rows.iter().filter(|row| parent(&row.path) == table.path).collect();
        // `[providers]` holds nothing but tables with names of their own, each of which has a section.
        if inside.iter().all(|row| row.is_table && row.path.ends_with(".NAME")) {
            continue;
        }
        let heading = if table.is_array { format!("[[{}]]", table.path) } else { format!("[{}]", table.path) };
        let group = rows.iter().find(|row| row.path == parent(&table.path) && table.path.ends_with(".NAME"));
        let group = group.map_or(String::new(), |group| format!("{} ", group.sentence));
        let _ = write!(page, "\n## `{heading}`\n\n{group}{}", table.sentence);
        if let Some(variable) = inside.iter().find_map(|row| row.variable.as_ref()) {
            let _ = write!(page, " The environment overrides these: `{variable}=…`.");
        }
        page.push_str("\n\n| setting | write | default | |\n|---|---|---|---|\n");
        inside.iter().for_each(|row| page.push_str(&settings_row(row)));
    }
    page
}

fn parent(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(parent, _)| parent)
}

fn settings_row(row: &SettingRow) -> String {
    let name = row.path.rsplit('.').next().unwrap_or_default();
    let default = match &row.default {
        Some(default) => format!("`{default}`"),
        None if row.is_required => "required".to_owned(),
        None => String::new(),
    };
    let write = match (row.is_table, row.is_array, row.expected.as_str()) {
        (true, false, "") => "a table".to_owned(),
        (true, true, "") => "an array of tables".to_owned(),
        (_, _, expected) => expected.to_owned(),
    };
    format!("| `{name}` | {write} | {default} | {} |\n", row.sentence)
}

/// The error tables have one snapshot for each row: every code in them has a section, and no other.
#[test]
fn every_error_code_has_a_section() {
    let mut codes = BTreeSet::new();
    let folders = ["src/http/snapshots", "src/http/admin/snapshots"].map(project);
    for entry in folders.iter().flat_map(|folder| std::fs::read_dir(folder).expect("the snapshots are there")) {
        let path = entry.expect("a file").path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().contains("__error__")) {
            let snapshot = std::fs::read_to_string(&path).expect("a snapshot is text");
            let code = snapshot.split("\"code\":\"").nth(1).and_then(|rest| rest.split('"').next());
            codes.extend(code.map(str::to_owned));
        }
    }
    assert!(codes.len() > 15, "found only {codes:?}");
    let page = read("docs/troubleshooting.md");
    let sections: Vec<String> =
        page.lines().filter_map(|line| Some(line.strip_prefix("### `")?.trim_end_matches('`').to_owned())).collect();
    assert_eq!(sections.iter().cloned().collect::<BTreeSet<_>>(), codes);
    assert_eq!(sections.len(), codes.len(), "a code has two sections");
}

/// The words of the pages for metrics, settings, members of a body and of the access log are those of the code.
#[test]
fn what_the_pages_name_is_there() {
    let settings: BTreeSet<String> =
        setting_rows().iter().map(|row| row.path.rsplit('.').next().unwrap_or_default().to_owned()).collect();
    let metrics = read("src/telemetry/metrics.rs");
    let reasons = read("src/domain/reason.rs");
    let members = [
        "src/protocol/chat/request.rs",
        "src/protocol/chat/usage.rs",
        "src/telemetry/access.rs",
        "src/config/compile/body_rules.rs",
    ];
    let members = members.map(read).concat();
    for page in ["docs/troubleshooting.md", "docs/concepts.md"] {
        for word in quoted(&read(page)) {
            let snake = word.contains('_') && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            if !snake {
                continue;
            }
            let known = settings.contains(&word)
                || metrics.contains(&format!("\"{word}\""))
                || members.contains(&format!("\"{word}\""))
                || reasons.contains(&format!("\"{word}\""))
                || read("docs/troubleshooting.md").contains(&format!("### `{word}`"));
            assert!(known, "{page} names `{word}`");
        }
    }
}

/// The text between single backquotes.
fn quoted(page: &str) -> Vec<String> {
    let prose = page.split("```").step_by(2).collect::<String>();
    prose.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_command_on_the_pages_works_as_written() {
    let mut tried = 0;
    for page in ["docs/troubleshooting.md", "docs/concepts.md", "docs/configuration.md"] {
        let workspace = Workspace::empty();
        for block in read(page).split("```sh\n").skip(1) {
            let script = block.split("```").next().unwrap_or_default();
            let folder = Path::new(env!("CARGO_BIN_EXE_tierway")).parent().expect("the binary lies in a folder");
            let output = std::process::Command::new("sh")
                .args(["-ec", script])
                .current_dir(workspace.path(""))
                .env("PATH", format!("{}:/usr/bin:/bin", folder.display()))
                .output()
                .expect("a shell runs");
            assert!(output.status.success(), "{page}: {script}\n{}", text(&output.stderr));
            tried += script.lines().count();
        }
    }
    assert!(tried >= 10, "only {tried} commands were found");
}
