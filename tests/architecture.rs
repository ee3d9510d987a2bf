//! The house rules as tests: who may import whom, what the deciding room may not know, what every
//! file says first.
//!
//! Must never look away: a file that belongs to no room is a breach, not an exception. Each rule is
//! a function from sources to breaches in `architecture/rules.rs`, tried there on bad snippets, so
//! that a rule that can no longer fail is found out.
//!
//! Start reading in [`ROOMS`].

use std::fs;
use std::path::{Path, PathBuf};

#[path = "architecture/rules.rs"]
mod rules;
#[path = "architecture/source.rs"]
mod source;

use rules::Breach;
use source::Source;

/// Who may `use crate::…`. A new row or a new door is a decision: it says so in its commit subject
/// and in an ADR.
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
    ("cli", &["domain", "clock", "random", "config", "telemetry", "store", "upstream", "relay", "admin", "http"]),
];

#[test]
fn imports_point_inward() {
    assert_kept(all_sources().iter().flat_map(rules::imports));
}

#[test]
fn the_table_of_rooms_keeps_its_shape() {
    assert_kept(rules::table_of_rooms(ROOMS));
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    assert_kept(all_sources().iter().filter_map(rules::header));
}

#[test]
fn the_deciding_room_only_decides() {
    assert_kept(all_sources().iter().flat_map(rules::domain_is_pure));
}

#[test]
fn no_float_touches_money() {
    assert_kept(all_sources().iter().flat_map(rules::money_is_whole));
}

#[test]
fn each_guest_stays_in_its_room() {
    assert_kept(all_sources().iter().flat_map(rules::guests));
}

#[test]
fn one_module_knows_the_json_of_model_apis() {
    assert_kept(all_sources().iter().flat_map(rules::model_json_has_one_module));
}

#[test]
fn time_and_chance_are_asked_in_one_place_each() {
    assert_kept(rules::one_clock_one_rng(&all_sources()));
}

#[test]
fn nothing_names_a_place_on_somebodys_machine() {
    let files = project_files(project());
    assert!(files.len() > 10, "found only {} files", files.len());
    assert_kept(files.iter().flat_map(|(file, text)| rules::foreign_places(file, text)));
}

fn assert_kept(breaches: impl IntoIterator<Item = Breach>) {
    let reported: Vec<String> = breaches.into_iter().map(|b| b.to_string()).collect();
    assert!(reported.is_empty(), "{} breaches\n{}", reported.len(), reported.join("\n"));
}

// --- reading the project ----------------------------------------------------------------------

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn all_sources() -> Vec<Source> {
    let files = project_files(&project().join("src"));
    let rust = files.iter().filter(|(file, _)| file.ends_with(".rs"));
    let sources: Vec<Source> = rust.map(|(file, text)| Source::parse(file, text)).collect();
    assert!(sources.len() > ROOMS.len(), "found only {} sources", sources.len());
    sources
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
