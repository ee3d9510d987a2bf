//! The pages lead where they say: every link has a file and a heading, and every page is reached from the first one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

/// The pages of the documentation and of the project's root, by their path below it.
fn pages() -> BTreeMap<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["", "docs", "docs/adr", "deploy"].map(Path::new);
    let entries = folders.into_iter().flat_map(|folder| {
        let entries = std::fs::read_dir(root.join(folder)).into_iter().flatten();
        entries.map(|entry| folder.join(entry.expect("the folder can be read").file_name()))
    });
    let pages = entries.filter(|path| path.extension().is_some_and(|ending| ending == "md"));
    pages.map(|path| (path.clone(), std::fs::read_to_string(root.join(&path)).expect("a page is text"))).collect()
}

/// The targets of a page's links, without those to other hosts.
fn links(page: &str) -> impl Iterator<Item = &str> {
    // What stands in code is no link.
    let prose = page.split("```").step_by(2);
    let targets = prose.flat_map(|text| text.split("](").skip(1)).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://") && !target.contains(' '))
}

/// The anchors of a page's headings, as code hosts make them.
fn anchors(page: &str) -> BTreeSet<String> {
    let prose: String = page.split("```").step_by(2).collect();
    let headings = prose.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let kept = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | ' ');
    headings.map(|heading| heading.to_lowercase().replace(|c| !kept(c), "").replace(' ', "-")).collect()
}

/// `target` of a link on `page`, below the project's root: the file, and the anchor in it.
fn resolved(page: &Path, target: &str) -> (PathBuf, Option<String>) {
    let (file, anchor) =
        target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor.to_owned())));
    if file.is_empty() {
        return (page.to_owned(), anchor);
    }
    let mut path = PathBuf::new();
    for part in page.parent().unwrap_or(Path::new("")).join(file).components() {
        match part {
            Component::ParentDir => assert!(path.pop(), "{}: {target} leaves the project", page.display()),
            part => path.push(part),
        }
    }
    (path, anchor)
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let pages = pages();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (page, text) in &pages {
        for target in links(text) {
            seen += 1;
            let (path, anchor) = resolved(page, target);
            let exists = Path::new(env!("CARGO_MANIFEST_DIR")).join(&path).exists();
            let heading = anchor.is_none_or(|anchor| pages.get(&path).is_some_and(|to| anchors(to).contains(&anchor)));
            if !exists || !heading {
                wrong.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(seen > 100, "only {seen} links were found");
}

/// Every alert leads to a section of its own, and no section is about an alert that is gone.
#[test]
fn every_alert_has_a_runbook() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rules = std::fs::read_to_string(root.join("config/prometheus/tierway.rules.yml")).expect("the rules are there");
    let after = |label: &'static str| rules.lines().filter_map(move |line| line.trim_start().strip_prefix(label));
    let alerts: Vec<&str> = after("- alert: ").collect();
    let runbooks: Vec<String> = after("runbook_url: ").map(|url| url.trim_matches('"').to_owned()).collect();
    let expected = |alert: &&str| format!("https://docs.tierway.example/runbooks.html#{}", alert.to_lowercase());
    assert_eq!(runbooks, alerts.iter().map(expected).collect::<Vec<_>>());
    let page = &pages()[Path::new("docs/runbooks.md")];
    let sections: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(sections, alerts);
    for part in ["Means", "Clients notice", "Look at", "Do", "Ends"] {
        assert_eq!(page.matches(&format!("\n- **{part}**: ")).count(), alerts.len(), "{part}");
    }
}

/// A merge that was not finished leaves its marks in text that no compiler reads.
#[test]
fn no_page_has_the_marks_of_a_conflict() {
    for (page, text) in pages() {
        let mark = text.lines().find(|line| line.starts_with("<<<<<<< ") || line.starts_with(">>>>>>> "));
        assert_eq!(mark, None, "{}", page.display());
    }
}

#[test]
fn every_page_is_reached_from_the_first_one() {
    let pages = pages();
    let mut reached = BTreeSet::from([PathBuf::from("README.md")]);
    let mut waiting = vec![PathBuf::from("README.md")];
    while let Some(page) = waiting.pop() {
        for target in pages.get(&page).into_iter().flat_map(|text| links(text)) {
            let (path, _) = resolved(&page, target);
            if pages.contains_key(&path) && reached.insert(path.clone()) {
                waiting.push(path);
            }
        }
    }
    let is_decision = |page: &Path| page.parent() == Some(Path::new("docs/adr"));
    let lost: Vec<_> = pages.keys().filter(|page| !reached.contains(*page) && !is_decision(page)).collect();
    assert_eq!(lost, Vec::<&PathBuf>::new(), "link them from docs/README.md");
}
