//! The rules of structure, each a function from a source to the breaches in it.
//!
//! Must never read the project itself: a rule judges the sources it is given, so that the snippets at
//! the bottom can show it failing.
//!
//! Start reading in [`imports`]; the table it judges by is `ROOMS` in `tests/architecture.rs`.

use std::fmt;

use crate::ROOMS;
use crate::reexports::ReExports;
use crate::source::{CodePath, Source, Use};

/// Crates that belong to one kind of work, and the modules that do it.
const CRATES: &[(&str, &[&str])] = &[
    ("axum", &["http", "cli"]),
    ("reqwest", &["upstream"]),
    ("clap", &["cli"]),
    ("prometheus", &["telemetry"]),
    ("rusqlite", &["store", "cli"]),
    ("tokio_postgres", &["store"]),
    ("redis", &["store"]),
];

/// What `domain` may not name, test code included.
const UNKNOWN_TO_DOMAIN: &[&[&str]] = &[
    &["async"],
    &["await"],
    &["tokio"],
    &["futures_core"],
    &["serde"],
    &["serde_json"],
    &["toml"],
    &["tracing"],
    &["std", "env"],
    &["std", "fs"],
    &["std", "io"],
    &["std", "net"],
    &["std", "process"],
    &["std", "thread"],
    &["println"],
    &["eprintln"],
    &["dbg"],
];

/// What only its test code may name: a test needs some instant to count from.
const ONLY_IN_DOMAIN_TESTS: &[&[&str]] =
    &[&["Instant", "now"], &["SystemTime"], &["fastrand"], &["getrandom"], &["uuid"]];

/// No float touches money.
const MONEY: &[&str] = &[
    "src/domain/money.rs",
    "src/domain/pricing.rs",
    "src/domain/budget.rs",
    "src/domain/funding.rs",
    "src/domain/hold.rs",
];

/// Folders whose files pass the JSON of model APIs on and ask `protocol` what it means.
const WITHOUT_MODEL_JSON: &[&str] = &["src/upstream/", "src/relay/", "src/http/"];
/// Files below them with a JSON of their own.
const OWN_JSON: &[&str] = &["src/http/admin/", "src/http/ops.rs"];

/// Who may lift the ban of clippy.toml on asking the system for time and random bytes, besides one file that
/// draws random bytes. `lib.rs` lifts it for unit tests.
const ASKS_THE_SYSTEM: &[&str] = &["src/clock.rs", "src/lib.rs"];

/// Places that exist on one machine only, and the registry hosts a lock file must not pin.
const NOT_OURS: &[&str] =
    &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/tm", "p/"), concat!("\"resol", "ved\":")];

/// Every file and folder that a rule names: one that moved would make its rule pass unseen.
pub fn named_places() -> impl Iterator<Item = &'static str> {
    [MONEY, WITHOUT_MODEL_JSON, OWN_JSON, ASKS_THE_SYSTEM].into_iter().flatten().copied()
}

/// One line that breaks one rule.
pub struct Breach {
    pub file: String,
    pub line: usize,
    pub rule: String,
    pub advice: &'static str,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, rule, advice } = self;
        write!(f, "{file}:{line}: {rule}\n    {advice}")
    }
}

/// A path counts for the module that defines what it names, whoever exports it on the way.
pub fn imports(source: &Source, exports: &ReExports) -> Vec<Breach> {
    let Some(module) = source.module() else {
        return Vec::new();
    };
    let Some((_, permitted)) = ROOMS.iter().find(|(name, _)| *name == module) else {
        return vec![Breach {
            file: source.file.clone(),
            line: 1,
            rule: format!("`{module}` is not a row of ROOMS"),
            advice: "put the file into the module whose work it does; a new module is a row in ROOMS and an ADR",
        }];
    };
    let mut out = Vec::new();
    for path in &source.paths {
        let Some(segments) = from_crate(source, path) else { continue };
        let resolved = exports.resolve(&segments);
        let targets = [segments.get(1), resolved.get(1)];
        let refused = targets.into_iter().flatten().find(|t| *t != module && !permitted.contains(&t.as_str()));
        if let Some(target) = refused {
            let through = if segments.get(1) == Some(target) {
                String::new()
            } else {
                format!(", which `{}` is", path.segments.join("::"))
            };
            out.push(breach(
                source,
                path,
                format!("`{module}` may not use `crate::{target}`{through}"),
                "take the value from the caller, move the type to `domain`, or use what ROOMS permits",
            ));
        }
    }
    out
}

/// `path` from `crate`; after `use crate::admin;` that of `admin::Keys` is `crate::admin::Keys`.
fn from_crate(source: &Source, path: &CodePath) -> Option<Vec<String>> {
    let (first, rest) = path.segments.split_first()?;
    if first == "crate" {
        return Some(path.segments.clone());
    }
    let named = |used: &&Use| used.name == *first && used.segments[0] == "crate";
    let used = source.uses.iter().find(named).filter(|_| !rest.is_empty())?;
    Some(used.segments.iter().chain(rest).cloned().collect())
}

/// The rules for the table itself, whatever rows are added.
pub fn table_of_imports(table: &[(&str, &[&str])]) -> Vec<Breach> {
    const ADAPTERS: [&str; 7] = ["config", "telemetry", "store", "protocol", "upstream", "clock", "random"];
    let reason_against = |module: &str, used: &str| match (module, used) {
        ("domain" | "clock", _) => Some("nothing is below it"),
        ("http", "store" | "upstream") => Some("http reaches them through relay and admin"),
        ("config" | "telemetry" | "store" | "relay" | "admin", "protocol") => {
            Some("the JSON of model APIs is read and written by `http` and `upstream`")
        }
        ("upstream", "clock" | "protocol") => None,
        (module, used) if ADAPTERS.contains(&module) && ADAPTERS.contains(&used) => {
            Some("modules that reach outside do not know each other")
        }
        (_, "cli") => Some("`cli` connects the parts and no part knows it"),
        _ => None,
    };
    let pairs = table.iter().flat_map(|(module, permitted)| permitted.iter().map(move |used| (*module, *used)));
    pairs
        .filter_map(|(module, used)| {
            reason_against(module, used).map(|why| Breach {
                file: "tests/architecture.rs".to_owned(),
                line: 1,
                rule: format!("ROOMS lets `{module}` use `{used}`: {why}"),
                advice: "take it out of the table again",
            })
        })
        .collect()
}

pub fn header(source: &Source) -> Option<Breach> {
    (!source.first_line.starts_with("//! ")).then(|| Breach {
        file: source.file.clone(),
        line: 1,
        rule: "the first line is not a `//!` sentence".to_owned(),
        advice: "say what the module is for, what it must never do, where to start reading",
    })
}

pub fn domain_is_pure(source: &Source) -> Vec<Breach> {
    if source.module() != Some("domain") {
        return Vec::new();
    }
    let named = |path: &CodePath, words: &[&[&str]]| words.iter().any(|word| contains(path, word));
    source
        .paths
        .iter()
        .filter(|path| named(path, UNKNOWN_TO_DOMAIN) || (!path.in_test && named(path, ONLY_IN_DOMAIN_TESTS)))
        .map(|path| {
            breach(
                source,
                path,
                format!("`domain` names `{}`", path.segments.join("::")),
                "decide on values: take `now: Instant`, a `RandomValue`, or plain data, and let the caller do the rest",
            )
        })
        .collect()
}

pub fn money_is_whole(source: &Source) -> Vec<Breach> {
    if !MONEY.contains(&source.file.as_str()) {
        return Vec::new();
    }
    source
        .paths
        .iter()
        .filter(|path| contains(path, &["f64"]) || contains(path, &["f32"]))
        .map(|path| {
            breach(
                source,
                path,
                "a float in a file about money".to_owned(),
                "count in whole nano-dollars (`NanoUsd`), prices in whole pico-dollars per token",
            )
        })
        .collect()
}

pub fn crates_in_their_modules(source: &Source) -> Vec<Breach> {
    let Some(module) = source.module() else {
        return Vec::new();
    };
    source
        .paths
        .iter()
        .filter(|path| {
            CRATES.iter().any(|(name, modules)| path.segments[0] == *name && !modules.contains(&module))
                && path.segments.len() > 1
        })
        .map(|path| {
            breach(
                source,
                path,
                format!("`{module}` uses the crate `{}`", path.segments[0]),
                "use our own types here; CRATES in this test says which module knows that crate",
            )
        })
        .collect()
}

pub fn model_json_has_one_module(source: &Source) -> Vec<Breach> {
    let below = |places: &[&str]| places.iter().any(|place| source.file.starts_with(place));
    if !below(WITHOUT_MODEL_JSON) || below(OWN_JSON) {
        return Vec::new();
    }
    let reads_json =
        |path: &&CodePath| !path.in_test && (contains(path, &["serde"]) || contains(path, &["serde_json"]));
    source
        .paths
        .iter()
        .filter(reads_json)
        .map(|path| {
            breach(
                source,
                path,
                format!("reads or writes JSON with `{}`", path.segments.join("::")),
                "the JSON of model APIs is known to `protocol` alone: ask its Dialect or Grammar",
            )
        })
        .collect()
}

pub fn one_clock_one_rng(sources: &[Source]) -> Vec<Breach> {
    let lifting: Vec<(&Source, &CodePath)> = sources
        .iter()
        .filter(|source| !ASKS_THE_SYSTEM.contains(&source.file.as_str()))
        .filter_map(|source| {
            let mut paths = source.paths.iter();
            paths.find(|path| contains(path, &["disallowed_methods"])).map(|path| (source, path))
        })
        .collect();
    let files_that_may = 1;
    if lifting.len() <= files_that_may {
        return Vec::new();
    }
    let places = lifting.iter();
    places
        .map(|(source, path)| {
            breach(
                source,
                path,
                format!("{} files besides clock.rs lift the ban on system time and random bytes", lifting.len()),
                "draw random bytes in one file; everywhere else take `now` or a `RandomValue` as an argument",
            )
        })
        .collect()
}

/// Absolute paths count where a word could begin, so `network/tmp/x` is none.
pub fn foreign_places(file: &str, text: &str) -> Vec<Breach> {
    let begins = |line: &str, at: usize| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "._-~}".contains(c))
    };
    let mut out = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for place in NOT_OURS {
            if line.match_indices(place).any(|(at, _)| begins(line, at)) {
                out.push(Breach {
                    file: file.to_owned(),
                    line: index + 1,
                    rule: format!("names `{place}`"),
                    advice: "use a path relative to the project, a temporary directory asked of the system, or npm's omit-lockfile-registry-resolved",
                });
            }
        }
    }
    out
}

fn breach(source: &Source, path: &CodePath, rule: String, advice: &'static str) -> Breach {
    Breach { file: source.file.clone(), line: path.line, rule, advice }
}

/// Whether the segments of `words` stand next to each other in the path; a single word or a crate
/// of `std` only counts at the beginning, so that a method called `http` is no crate.
fn contains(path: &CodePath, words: &[&str]) -> bool {
    let segments: Vec<&str> = path.segments.iter().map(String::as_str).collect();
    match words {
        ["Instant", "now"] => segments.windows(words.len()).any(|window| window == words),
        ["SystemTime" | "disallowed_methods"] => segments.contains(&words[0]),
        _ => segments.starts_with(words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines `rule` complains about when `text` stands in `file`.
    fn lines(rule: impl Fn(&Source) -> Vec<Breach>, file: &str, text: &str) -> Vec<usize> {
        rule(&Source::parse(file, text)).iter().map(|breach| breach.line).collect()
    }

    #[test]
    fn imports_are_judged_however_they_are_written() {
        let check = |file: &str, text: &str, expected: &[usize]| {
            let alone = |source: &Source| imports(source, &ReExports::default());
            assert_eq!(lines(alone, file, text), expected, "{file}: {text}");
        };
        check("src/domain/call.rs", "use crate::domain::id;\n", &[]);
        check("src/domain/call.rs", "\nuse crate::clock::Clock;\n", &[2]);
        check("src/store/mod.rs", "use crate::{domain::id, upstream::Answer};", &[1]);
        check("src/store/mod.rs", "use crate::{\n  domain::{id::{A, B as C}, money},\n  config,\n};", &[3]);
        check("src/store/mod.rs", "pub(crate) fn f() -> crate::domain::Id { todo() }", &[]);
        check("src/store/mod.rs", "fn f() { let x = crate::relay::serve(1); }", &[1]);
        check("src/store/mod.rs", "use crate::*;\nuse crate as root;\nuse crate::{self as root};", &[1, 2, 3]);
        check("src/store/mod.rs", "use super::config::X;", &[1]);
        check("src/store/redis.rs", "use super::Keys;\nuse super::super::config::X;", &[2]);
        check(
            "src/store/redis.rs",
            "mod tests {\n use super::super::Keys;\n use super::super::super::relay::X;\n}",
            &[3],
        );
        check("src/store/mod.rs", "#[cfg(test)]\nmod tests {\n  use crate::http::router;\n}", &[3]);
        check(
            "src/store/mod.rs",
            "//! [`crate::relay`] calls us.\n/* crate::http::x */ const S: &str = \"crate::cli::x\";",
            &[],
        );
        check(
            "src/store/mod.rs",
            "const R: &str = r#\"\"crate::cli\"#; const Q: char = '\"'; use crate::cli::x;",
            &[1],
        );
        check(
            "src/http/mod.rs",
            "use crate::store::Keys;\nuse crate::upstream::Client;\nuse crate::relay::Relay;",
            &[1, 2],
        );
        check("src/helpers.rs", "", &[1]);
        check("src/lib.rs", "use crate::cli::x;", &[]);
    }

    #[test]
    fn an_import_through_an_export_is_one_of_what_is_behind_it() {
        let others = [
            Source::parse(
                "src/admin/mod.rs",
                "mod query;\npub use crate::store::Receipts;\npub use query::*;\npub struct Admin;",
            ),
            Source::parse("src/admin/query.rs", "pub use crate::store::sqlite::Query as Asked;"),
            Source::parse("src/store/mod.rs", "pub mod sqlite;\npub struct Receipts;"),
            Source::parse("src/store/sqlite.rs", "pub struct Query;"),
        ];
        let exports = ReExports::of(&others);
        let check = |file: &str, text: &str, expected: &[usize]| {
            assert_eq!(lines(|source| imports(source, &exports), file, text), expected, "{file}: {text}");
        };
        check("src/http/mod.rs", "use crate::admin::Admin;\nuse crate::admin::Receipts;", &[2]);
        check("src/http/mod.rs", "use crate::admin::{Admin,\n Asked};\nfn f(r: crate::admin::Receipts) {}", &[2, 3]);
        check("src/cli/mod.rs", "use crate::admin::Receipts;", &[]);
        // By a module that was imported before, under its name or another.
        check("src/http/mod.rs", "use crate::admin;\nfn f(a: admin::Admin, r: admin::Receipts) {}", &[2]);
        check("src/http/mod.rs", "use crate::admin as operators;\nfn f(r: operators::Receipts) {}", &[2]);
    }

    #[test]
    fn the_table_cannot_be_widened_unseen() {
        let check = |module: &'static str, used: &'static str, expected: usize| {
            let widened: &[(&str, &[&str])] = &[(module, &[used])];
            assert_eq!(table_of_imports(widened).len(), expected, "{module} uses {used}");
        };
        check("domain", "clock", 1);
        check("http", "store", 1);
        check("upstream", "config", 1);
        check("relay", "cli", 1);
        check("protocol", "store", 1);
        check("config", "clock", 1);
        check("upstream", "clock", 0);
        check("relay", "store", 0);
        check("relay", "protocol", 1);
        check("upstream", "protocol", 0);
    }

    #[test]
    fn domain_is_judged_word_by_word() {
        let check = |text: &str, expected: &[usize]| {
            assert_eq!(lines(domain_is_pure, "src/domain/x.rs", text), expected, "{text}");
        };
        check("use std::time::Instant;\nfn f(now: Instant) {}", &[]);
        check("use std::time::{Duration, SystemTime};", &[1]);
        check("async fn f() {}\nfn g() { h.await }", &[1, 2]);
        check("#[derive(serde::Serialize)]\nstruct S;", &[1]);
        check("use std::{collections::BTreeMap,\n fs};", &[2]);
        check("fn f() { Instant::now() }", &[1]);
        check("fn f() { std::time::Instant::now() }", &[1]);
        check("fn f() { tracing::info!(\"x\") }\nfn g() { fastrand::u64(..) }", &[1, 2]);
        check("#[cfg(test)]\nmod tests {\n fn f() { Instant::now() }\n}\nfn g() { Instant::now() }", &[5]);
        check("#[cfg(test)]\nmod tests {\n use tokio::time;\n}", &[3]);
        check("//! No serde, no tokio.\n", &[]);
        assert!(lines(domain_is_pure, "src/relay/x.rs", "async fn f() {}").is_empty());
    }

    #[test]
    fn the_smaller_rules_are_judged_too() {
        let check = |rule: fn(&Source) -> Vec<Breach>, file: &str, text: &str, expected: &[usize]| {
            assert_eq!(lines(rule, file, text), expected, "{file}: {text}");
        };
        check(money_is_whole, "src/domain/money.rs", "fn f(x: f64) {}", &[1]);
        check(money_is_whole, "src/domain/breaker/mod.rs", "fn f(x: f64) {}", &[]);
        check(crates_in_their_modules, "src/relay/mod.rs", "use axum::Router;\nfn f(c: reqwest::Client) {}", &[1, 2]);
        check(crates_in_their_modules, "src/upstream/client.rs", "use reqwest::Client;", &[]);
        check(model_json_has_one_module, "src/upstream/stream.rs", "use serde_json::Value;", &[1]);
        check(model_json_has_one_module, "src/http/error.rs", "#[derive(serde::Serialize)]\nstruct S;", &[1]);
        check(model_json_has_one_module, "src/http/admin/form.rs", "use serde_json::Value;", &[]);
        check(model_json_has_one_module, "src/protocol/chat/answer.rs", "use serde::Deserialize;", &[]);
        check(
            model_json_has_one_module,
            "src/upstream/stream.rs",
            "#[cfg(test)]\nmod tests {\n use serde_json::Value;\n}",
            &[],
        );
        let header = |source: &Source| header(source).into_iter().collect();
        check(header, "src/relay/mod.rs", "//! What it is for.", &[]);
        check(header, "src/relay/mod.rs", "use x::y;\n//! What it is for.", &[1]);
        check(header, "src/relay/mod.rs", "", &[1]);
    }

    #[test]
    fn a_second_file_that_draws_random_bytes_is_found() {
        let lifting = |file: &str| Source::parse(file, "#![allow(clippy::disallowed_methods)]");
        let check = |files: &[&str], expected: usize| {
            let sources: Vec<Source> = files.iter().map(|file| lifting(file)).collect();
            assert_eq!(one_clock_one_rng(&sources).len(), expected, "{files:?}");
        };
        check(&["src/clock.rs", "src/lib.rs", "src/random.rs"], 0);
        check(&["src/clock.rs", "src/random.rs", "src/http/mod.rs"], 2);
    }

    #[test]
    fn foreign_places_are_found_where_they_begin() {
        let check = |text: &str, expected: usize| {
            assert_eq!(foreign_places("README.md", text).len(), expected, "{text}");
        };
        check(concat!("see /wo", "rk/shared"), 1);
        check(concat!("`/ro", "ot/x`\n(/tm", "p/y)"), 2);
        check(concat!("https://example.com/tm", "p/y and ./tm", "p/z"), 0);
        check(concat!("\"resol", "ved\": \"https://…\""), 1);
    }
}
