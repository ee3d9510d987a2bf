//! Structure and vocabulary as tests: which module may import which, what `domain` may not know, what
//! every file says first, and that types, identifiers and prose keep to `docs/glossary.md`.
//!
//! Must never look away: a file that belongs to no module of the table is a breach, not an exception.
//! Each rule is a function from sources to breaches, in `architecture/rules.rs` for structure and
//! `architecture/vocabulary.rs` for words, tried there on bad snippets, so that a rule that can no longer
//! fail is found out.
//!
//! Start reading in [`ROOMS`], and for words in the lists of `architecture/vocabulary.rs`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

#[path = "architecture/reexports.rs"]
mod reexports;
#[path = "architecture/rules.rs"]
mod rules;
#[path = "architecture/source.rs"]
mod source;
#[path = "architecture/vocabulary.rs"]
mod vocabulary;

use reexports::ReExports;
use rules::Breach;
use source::Source;
use vocabulary::Glossary;

/// What each module may `use crate::…` of. A new row or a new name in one is a decision: it says so in its
/// commit subject and in an ADR.
const ROOMS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("clock", &[]),
    ("random", &["domain"]),
    ("config", &["domain"]),
    ("telemetry", &["domain"]),
    ("store", &["domain"]),
    ("protocol", &["domain"]),
    ("upstream", &["domain", "clock", "protocol"]),
    ("relay", &["domain", "clock", "random", "config", "store", "upstream", "telemetry"]),
    ("admin", &["domain", "clock", "config", "store", "telemetry"]),
    ("http", &["domain", "clock", "random", "config", "protocol", "relay", "admin", "telemetry"]),
    (
        "cli",
        &[
            "domain",
            "clock",
            "random",
            "config",
            "telemetry",
            "store",
            "protocol",
            "upstream",
            "relay",
            "admin",
            "http",
        ],
    ),
];

#[test]
fn imports_point_inward() {
    let sources = all_sources();
    let exports = ReExports::of(sources);
    assert_kept(sources.iter().flat_map(|source| rules::imports(source, &exports)));
}

#[test]
fn the_table_of_imports_keeps_its_shape() {
    assert_kept(rules::table_of_imports(ROOMS));
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    assert_kept(all_sources().iter().filter_map(rules::header));
}

#[test]
fn domain_only_decides() {
    assert_kept(all_sources().iter().flat_map(rules::domain_is_pure));
}

#[test]
fn the_files_that_rules_name_exist() {
    let missing: Vec<&str> = rules::named_places().filter(|place| !project().join(place).exists()).collect();
    assert!(missing.is_empty(), "rules name what is not there: {missing:?}");
}

#[test]
fn no_float_touches_money() {
    assert_kept(all_sources().iter().flat_map(rules::money_is_whole));
}

#[test]
fn each_crate_is_used_in_its_modules() {
    assert_kept(all_sources().iter().flat_map(rules::crates_in_their_modules));
}

#[test]
fn one_module_knows_the_json_of_model_apis() {
    assert_kept(all_sources().iter().flat_map(rules::model_json_has_one_module));
}

#[test]
fn time_and_random_bytes_are_read_in_one_file_each() {
    assert_kept(rules::one_clock_one_rng(all_sources()));
}

#[test]
fn nothing_names_a_place_on_somebodys_machine() {
    let files = project_files(project());
    assert!(files.len() > 10, "found only {} files", files.len());
    assert_kept(files.iter().flat_map(|(file, text)| rules::foreign_places(file, text)));
}

#[test]
fn every_public_type_is_called_by_a_word_of_the_glossary() {
    let glossary = glossary();
    assert_kept(vocabulary::plain_words());
    assert_kept(all_sources().iter().flat_map(|source| vocabulary::public_types(source, &glossary)));
}

#[test]
fn every_type_has_a_name_of_its_own() {
    assert_kept(vocabulary::names_defined_twice(all_sources()));
}

#[test]
fn no_identifier_is_a_metaphor() {
    let code = code_files();
    assert_kept(code.iter().flat_map(|(file, text)| vocabulary::identifiers(file, text)));
}

#[test]
fn no_prose_is_a_metaphor() {
    let files = project_files(project());
    assert_kept(files.iter().flat_map(|(file, text)| vocabulary::prose(file, text)));
}

#[test]
fn doc_comments_say_more_than_a_question_word() {
    assert_kept(all_sources().iter().flat_map(vocabulary::doc_comments));
}

#[test]
fn the_glossary_explains_words_that_are_used() {
    let used = project_files(project()).into_iter().filter(|(file, _)| vocabulary::uses_the_words(file));
    let text: String = used.map(|(_, text)| text).collect();
    assert_kept(glossary().unused(&text));
}

fn assert_kept(breaches: impl IntoIterator<Item = Breach>) {
    let reported: Vec<String> = breaches.into_iter().map(|b| b.to_string()).collect();
    assert!(reported.is_empty(), "{} breaches\n{}", reported.len(), reported.join("\n"));
}

// --- reading the project ----------------------------------------------------------------------

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn all_sources() -> &'static [Source] {
    static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(|| {
        let files = project_files(&project().join("src"));
        let rust = files.iter().filter(|(file, _)| file.ends_with(".rs"));
        let mut sources: Vec<Source> = rust.map(|(file, text)| Source::parse(file, text)).collect();
        assert!(sources.len() > ROOMS.len(), "found only {} sources", sources.len());
        source::mark_test_files(&mut sources);
        sources
    });
    &SOURCES
}

fn glossary() -> Glossary {
    let file = project().join(vocabulary::GLOSSARY);
    let text = fs::read_to_string(file).expect("the glossary can be read");
    Glossary::parse(&text).unwrap_or_else(|breaches| {
        assert_kept(breaches);
        unreachable!("a glossary without breaches is read")
    })
}

/// Our code in any language, with what it is called in the project.
fn code_files() -> Vec<(String, String)> {
    let files = project_files(project()).into_iter().filter(|(file, _)| vocabulary::is_code(file));
    let files: Vec<_> = files.collect();
    assert!(files.len() > ROOMS.len(), "found only {} files of code", files.len());
    files
}

/// Every text file below `folder`, by its path in the project; what tools fetched or built is left
/// out, as are dot-directories other than `.ci`.
fn project_files(folder: &Path) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the project can be listed") {
            let path = entry.expect("the project can be listed").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                let fetched = ["target", "node_modules", "__pycache__"].contains(&name.as_str());
                if !fetched && (!name.starts_with('.') || name == ".ci") {
                    folders.push(path);
                }
            } else if name != ".git"
                && let Ok(text) = fs::read_to_string(&path)
            {
                let inside = path.strip_prefix(project()).expect("listed below the project");
                out.push((inside.to_string_lossy().replace('\\', "/"), text));
            }
        }
    }
    out.sort();
    out
}
