//! The rules of words, each a function from text to the breaches in it.
//!
//! Must never read the project itself: a rule judges the text it is given, so that the snippets at the
//! bottom can show it failing. It judges words and not style: a metaphor made of ordinary words is for a
//! reviewer to find.
//!
//! Start reading in the lists below, then in [`public_types`]. What a word means is in `docs/glossary.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use regex::Regex;

use crate::rules::Breach;
use crate::source::{Source, Text};

pub const GLOSSARY: &str = "docs/glossary.md";

/// Words a type may end in beside those of the glossary: what any Rust or infrastructure engineer reads
/// without asking. The list is closed: a new name is made of words that are here or explained there.
#[rustfmt::skip]
const PLAIN: &[&str] = &[
    "args", "body", "builder", "byte", "change", "clock", "context", "counter", "day", "document",
    "duration", "environment", "error", "event", "field", "file", "filter", "form", "future", "handle",
    "handler", "host", "id", "index", "kind", "location", "metadata", "method", "migration", "name",
    "object", "operation", "options", "page", "path", "problem", "query", "reader", "record", "registry",
    "request", "row", "server", "set", "settings", "setup", "size", "source", "spec", "state",
    "status", "stream", "table", "target", "text", "tls", "type", "url", "value", "writer",
];
const MOST_PLAIN: usize = 60;

/// Never an identifier nor a segment of one: each once stood for a thing that has a name in the field.
#[rustfmt::skip]
const NO_IDENTIFIERS: &[&str] = &[
    "purse", "purses", "till", "tills", "drawer", "drawers", "coin", "coins", "bank", "banks",
    "desk", "desks", "errand", "errands", "told", "standing", "leave", "leg", "legs", "yardstick",
    "yardsticks", "knob", "knobs", "dice", "scribe", "scribes", "story", "stories", "greeting", "greetings",
    "lineup", "lineups", "ticket", "tickets",
];

/// Identifiers of other people's code that hold one of them.
const FOREIGN_IDENTIFIERS: &[&str] = &["LeaveAlternateScreen"];

/// Never in a comment, in documentation or in a text of ours. Words that ordinary English needs are not here
/// although they are no identifiers: to leave, told, story, bank, standing, a ticket of TLS; nor `room`, which
/// a buffer has. Where one of those is a metaphor, a reviewer says so.
#[rustfmt::skip]
const NO_PROSE: &[&str] = &[
    "purse", "purses", "till", "tills", "drawer", "drawers", "coins", "desk", "desks", "errand",
    "errands", "yardstick", "yardsticks", "knob", "knobs", "dice", "scribe", "scribes", "lineup", "lineups",
    "corridor", "corridors", "door", "doors", "doorway", "house", "guest", "guests", "workshop", "workshops",
    "says no", "puts in force", "put in force", "takes up", "hands over",
];

/// The last words of those, which most text has none of.
static NO_PROSE_ENDS: LazyLock<BTreeSet<&str>> =
    LazyLock::new(|| NO_PROSE.iter().filter_map(|words| words.rsplit(' ').next()).collect());

/// Files whose prose is not judged: they list the words, or are history.
const NOT_JUDGED: &[&str] = &["tests/architecture/vocabulary.rs", GLOSSARY, "CHANGELOG.md"];

/// Words that ask instead of saying.
const QUESTIONS: &[&str] = &["how", "what", "when", "where", "whether", "which", "who", "whose", "why"];
/// So many words that begin with one of them say nothing.
const MOST_ASKING: usize = 2;

static WORD: LazyLock<Regex> = LazyLock::new(|| pattern(r"[A-Za-z_]\w*"));
/// Comments and literals of Python.
static SKIPPED_IN_PYTHON: LazyLock<Regex> = LazyLock::new(|| script(r#"(?s:""".*?"""|'''.*?''')"#, r"#[^\n]*"));
/// Comments and literals of JavaScript.
static SKIPPED_IN_JAVASCRIPT: LazyLock<Regex> = LazyLock::new(|| script(r"`[^`]*`", r"//[^\n]*|(?s:/\*.*?\*/)"));

/// What is neither code nor judged in a language: `text` over several lines, quoted literals, `comment`.
fn script(text: &str, comment: &str) -> Regex {
    let quoted = r#""(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'"#;
    pattern(&format!("(?P<text>{text})|{quoted}|(?P<comment>{comment})"))
}

fn skipped(file: &str) -> &'static Regex {
    if extension(file) == "py" { &SKIPPED_IN_PYTHON } else { &SKIPPED_IN_JAVASCRIPT }
}

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a pattern of ours")
}

// --- the glossary -----------------------------------------------------------------------------

/// The words of `docs/glossary.md`, singular and in lower case, each with its line.
pub struct Glossary {
    terms: BTreeMap<Vec<String>, usize>,
}

impl Glossary {
    /// # Errors
    /// Rows that are not `| word | meaning | not called |`, and words with two rows.
    pub fn parse(text: &str) -> Result<Self, Vec<Breach>> {
        let (mut terms, mut breaches) = (BTreeMap::new(), Vec::new());
        let mut fault = |line: usize, rule: String, advice: &'static str| {
            breaches.push(Breach { file: GLOSSARY.to_owned(), line, rule, advice });
        };
        for (index, row) in text.lines().enumerate().filter(|(_, line)| line.starts_with('|')) {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            let term = cells[0];
            if term == "word" || term.starts_with('-') {
                continue;
            }
            if cells.len() != 3 || term.is_empty() || cells[1].is_empty() {
                fault(index + 1, "a row is not `| word | meaning | not called |`".to_owned(), "write three cells");
                continue;
            }
            let words: Vec<String> = term.split([' ', '-']).map(|word| singular(&word.to_lowercase())).collect();
            if terms.insert(words, index + 1).is_some() {
                fault(index + 1, format!("`{term}` has two rows"), "one word has one meaning: keep one row");
            }
        }
        if breaches.is_empty() { Ok(Self { terms }) } else { Err(breaches) }
    }

    /// Words that `text` never uses, whether as words, in `snake_case` or in `CamelCase`.
    pub fn unused(&self, text: &str) -> Vec<Breach> {
        let used_words: Vec<String> =
            text.split(|c: char| !c.is_alphanumeric()).flat_map(segments).map(|word| singular(&word)).collect();
        // Each run of as many words as a term has: `in flight`, `in_flight`, `InFlight`.
        let lengths: BTreeSet<usize> = self.terms.keys().map(Vec::len).collect();
        let runs: BTreeSet<&[String]> = lengths.iter().flat_map(|length| used_words.windows(*length)).collect();
        let used = |words: &[String]| runs.contains(words);
        let unused = self.terms.iter().filter(|(words, _)| !used(words));
        unused
            .map(|(words, line)| Breach {
                file: GLOSSARY.to_owned(),
                line: *line,
                rule: format!("nothing is called `{}`", words.join(" ")),
                advice: "explain words that are used; a word of things to come waits for them",
            })
            .collect()
    }

    /// Whether some of the words, next to each other, are one of the glossary's.
    fn occurs_in(&self, words: &[String]) -> bool {
        let starts = 0..words.len();
        starts
            .flat_map(|start| (start + 1..=words.len()).map(move |end| start..end))
            .any(|range| self.terms.contains_key(&words[range]))
    }
}

/// `ies` and `s` taken off, alike for every text that is compared.
fn singular(word: &str) -> String {
    match word.strip_suffix("ies") {
        Some(stem) if stem.len() > 1 => format!("{stem}y"),
        _ if word.ends_with("ss") || word.ends_with("us") || word.ends_with("is") || word.len() < 4 => word.to_owned(),
        _ => word.strip_suffix('s').unwrap_or(word).to_owned(),
    }
}

// --- names ------------------------------------------------------------------------------------

/// A type that others see is called by what it is. It ends, as English compounds do, in a word of the glossary,
/// all of it (`LeaseStore` in `lease store` or `store`), or in a plain one; or else it is a compound about
/// something that the glossary explains (`PolicyMoney`). So no type is called by a single word that is neither,
/// and none by other words alone (`TooLoose`).
pub fn public_types(source: &Source, glossary: &Glossary) -> Vec<Breach> {
    let plain: BTreeSet<String> = PLAIN.iter().map(|word| singular(word)).collect();
    let explained = |name: &str| {
        let words: Vec<String> = segments(name).iter().map(|word| singular(word)).collect();
        glossary.occurs_in(&words) || words.last().is_some_and(|last| plain.contains(last))
    };
    let public = source.types.iter().filter(|definition| definition.public && !definition.in_test);
    public
        .filter(|definition| !explained(&definition.name))
        .map(|definition| Breach {
            file: source.file.clone(),
            line: definition.line,
            rule: format!("`{}` is called by no word of the glossary", definition.name),
            advice: "call it by what it is, or explain its word in docs/glossary.md",
        })
        .collect()
}

/// The list of plain words stays short and says nothing twice.
pub fn plain_words() -> Vec<Breach> {
    let once: BTreeSet<String> = PLAIN.iter().map(|word| singular(word)).collect();
    let fits = PLAIN.len() <= MOST_PLAIN && once.len() == PLAIN.len();
    let breach = Breach {
        file: "tests/architecture/vocabulary.rs".to_owned(),
        line: 1,
        rule: format!("PLAIN has {} words, {} of them different; {MOST_PLAIN} are the most", PLAIN.len(), once.len()),
        advice: "explain a word in docs/glossary.md instead, or take out one that is not needed",
    };
    if fits { Vec::new() } else { vec![breach] }
}

/// One meaning for one name, so that a search finds it. Test code has names of its own.
pub fn names_defined_twice(sources: &[Source]) -> Vec<Breach> {
    let mut first: BTreeMap<&str, String> = BTreeMap::new();
    let mut out = Vec::new();
    for source in sources {
        for definition in source.types.iter().filter(|definition| !definition.in_test) {
            let here = format!("{}:{}", source.file, definition.line);
            if let Some(before) = first.get(definition.name.as_str()) {
                out.push(Breach {
                    file: source.file.clone(),
                    line: definition.line,
                    rule: format!("`{}` is also defined in {before}", definition.name),
                    advice: "say in the name which of them it is",
                });
            } else {
                first.insert(&definition.name, here);
            }
        }
    }
    out
}

/// Whether the identifiers of a file are judged.
pub fn is_code(file: &str) -> bool {
    let ours = ["src/", "tests/", "benches/", "fuzz/"].iter().any(|folder| file.starts_with(folder));
    ours && matches!(extension(file), "rs" | "py" | "mjs")
}

pub fn identifiers(file: &str, text: &str) -> Vec<Breach> {
    let named: Vec<(usize, String)> = if extension(file) == "rs" {
        Source::parse(file, text).identifiers
    } else {
        let code = code_of_script(file, text);
        let lines = code.lines().enumerate();
        lines.flat_map(|(at, line)| WORD.find_iter(line).map(move |w| (at + 1, w.as_str().to_owned()))).collect()
    };
    let wrong = |name: &str| segments(name).into_iter().find(|segment| NO_IDENTIFIERS.contains(&segment.as_str()));
    let named = named.into_iter().filter(|(_, name)| !FOREIGN_IDENTIFIERS.contains(&name.as_str()));
    named
        .filter_map(|(line, name)| {
            wrong(&name).map(|segment| Breach {
                file: file.to_owned(),
                line,
                rule: format!("`{name}` uses the word `{segment}`"),
                advice: "use the word of docs/glossary.md for it",
            })
        })
        .collect()
}

/// `first_token` and `FirstToken` are `first` and `token`.
fn segments(name: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for part in name.split('_') {
        let mut begins = true;
        let mut previous_upper = false;
        for c in part.chars() {
            if begins || (c.is_uppercase() && !previous_upper) {
                out.push(String::new());
            }
            out.last_mut().expect("begun").extend(c.to_lowercase());
            (begins, previous_upper) = (false, c.is_uppercase());
        }
    }
    out
}

// --- prose ------------------------------------------------------------------------------------

/// Comments of code, whole pages of Markdown without their code, comments and help texts of the Makefile and of
/// configuration, and what `src` writes in string literals: logs, errors, help.
pub fn prose(file: &str, text: &str) -> Vec<Breach> {
    if NOT_JUDGED.contains(&file) {
        return Vec::new();
    }
    let texts = match extension(file) {
        "rs" if is_code(file) => {
            let Source { comments, literals, .. } = Source::parse(file, text);
            let written = literals.into_iter().filter(|_| file.starts_with("src/"));
            comments.into_iter().chain(written).collect()
        }
        "py" | "mjs" if is_code(file) => comments_of_script(file, text),
        "md" if is_page(file) => vec![Text { line: 1, text: without_fences(text) }],
        _ if is_configuration(file) => hash_comments(text),
        _ => Vec::new(),
    };
    texts.iter().flat_map(|text| metaphors(file, text)).collect()
}

/// Our pages: those at the top, and `docs`.
fn is_page(file: &str) -> bool {
    !file.contains('/') || file.starts_with("docs/")
}

/// Files in which `#` begins a comment: the project's own configuration and that of the gateway.
fn is_configuration(file: &str) -> bool {
    let ours = !file.contains('/') || file.starts_with("config/");
    ours && (matches!(file, "Makefile" | "Dockerfile") || matches!(extension(file), "toml" | "yaml" | "yml"))
}

fn metaphors(file: &str, text: &Text) -> Vec<Breach> {
    let plain = without_code(&text.text);
    let mut out = Vec::new();
    let mut said: Vec<String> = Vec::new();
    for (index, line) in plain.lines().enumerate() {
        for word in line.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
            let word = word.to_lowercase();
            let judged = NO_PROSE_ENDS.contains(word.as_str());
            said.push(word);
            let ends = |wrong: &&&str| said.ends_with(&wrong.split(' ').map(str::to_owned).collect::<Vec<_>>());
            if let Some(found) = NO_PROSE.iter().find(|wrong| judged && ends(wrong)) {
                out.push(Breach {
                    file: file.to_owned(),
                    line: text.line + index,
                    rule: format!("the text says `{found}`"),
                    advice: "say it with the words of docs/glossary.md, plainly",
                });
            }
        }
    }
    out
}

/// The text without what stands between backquotes on one line: that is judged where it is defined.
fn without_code(text: &str) -> String {
    let line = |line: &str| -> String {
        let parts: Vec<&str> = line.split('`').collect();
        // A backquote without another one begins nothing.
        let paired = parts.len() - (parts.len() + 1) % 2;
        parts
            .iter()
            .enumerate()
            .filter(|(at, _)| at % 2 == 0 || *at >= paired)
            .map(|(_, part)| format!("{part} "))
            .collect()
    };
    text.lines().map(line).collect::<Vec<String>>().join("\n")
}

/// Markdown with the lines of its code blocks blank.
fn without_fences(text: &str) -> String {
    let mut fenced = false;
    let mut out = String::new();
    for line in text.lines() {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        out.push_str(if fenced || fence { "" } else { line });
        out.push('\n');
    }
    out
}

fn hash_comments(text: &str) -> Vec<Text> {
    let comments = text.lines().enumerate().filter_map(|(at, line)| Some((at + 1, &line[line.find('#')?..])));
    comments.map(|(line, text)| Text { line, text: text.to_owned() }).collect()
}

/// The text without comments and literals, lines kept.
fn code_of_script(file: &str, text: &str) -> String {
    let blank = |found: &regex::Captures| "\n".repeat(found[0].matches('\n').count());
    skipped(file).replace_all(text, blank).into_owned()
}

/// Comments, and texts of several lines as docstrings are.
fn comments_of_script(file: &str, text: &str) -> Vec<Text> {
    let line = |at: usize| 1 + text[..at].matches('\n').count();
    let found = skipped(file).captures_iter(text);
    let texts = found.filter_map(|found| found.name("text").or(found.name("comment")));
    texts.map(|found| Text { line: line(found.start()), text: found.as_str().to_owned() }).collect()
}

/// Whether a file is where the words of the glossary are used.
pub fn uses_the_words(file: &str) -> bool {
    let places = ["src/", "config/", "docs/"];
    file != GLOSSARY && (!file.contains('/') || places.iter().any(|place| file.starts_with(place)))
}

fn extension(file: &str) -> &str {
    file.rsplit_once('.').map_or("", |(_, extension)| extension)
}

/// A doc comment says what its item's name does not: a single word, or a question without its answer, is none.
pub fn doc_comments(source: &Source) -> Vec<Breach> {
    let docs = source.comments.iter().filter(|comment| comment.text.starts_with("///"));
    docs.filter(|comment| says_nothing(&comment.text))
        .map(|comment| Breach {
            file: source.file.clone(),
            line: comment.line,
            rule: format!("the doc comment is only `{}`", comment.text),
            advice: "say unit, meaning and bound",
        })
        .collect()
}

fn says_nothing(comment: &str) -> bool {
    let words: Vec<&str> = comment.split_whitespace().filter(|word| *word != "///").collect();
    // The name of a setting or of a field of JSON says where its item is from.
    if matches!(words[..], [word] if word.starts_with('`')) {
        return false;
    }
    let first = words.first().map(|word| word.to_lowercase());
    let asks = first.is_some_and(|first| QUESTIONS.contains(&first.trim_matches(|c: char| !c.is_alphabetic())));
    words.len() <= 1 || (asks && words.len() <= MOST_ASKING)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(breaches: impl IntoIterator<Item = Breach>) -> Vec<usize> {
        breaches.into_iter().map(|breach| breach.line).collect()
    }

    const PAGE: &str = "# Words\n\n| word | meaning | not called |\n|---|---|---|\n\
        | policy | may | plan |\n| lease store | grants | |\n| window | a span | |\n";

    #[test]
    fn a_public_type_is_called_by_a_word_that_is_explained() {
        let glossary = Glossary::parse(PAGE).ok().expect("a glossary");
        let check = |file: &str, text: &str, expected: &[usize]| {
            assert_eq!(lines(public_types(&Source::parse(file, text), &glossary)), expected, "{text}");
        };
        let file = "src/store/mod.rs";
        check(file, "pub struct Policy;\npub(crate) enum KeyPolicies { A }\npub trait BudgetWindow {}", &[]);
        check(file, "pub struct MemoryLeaseStore;\npub struct Store;\npub struct Lease;", &[2, 3]);
        check(file, "pub struct TooLoose;\npub(super) type Standing = u8;\nstruct Own;", &[1, 2]);
        check(
            file,
            "pub struct ValueError;\npub struct Readers;\npub struct WindowHolder;\npub struct ValueHolder;",
            &[4],
        );
        check(file, "#[cfg(test)]\nmod tests {\n pub struct Purse;\n}\nimpl A for B {\n pub type Till = u8;\n}", &[]);
        check(file, "/// pub struct Purse;\nconst S: &str = \"pub struct Till;\";", &[]);
        check("src/cli/mod.rs", "pub struct Explain;\npub struct ExplainArgs;", &[1]);
    }

    #[test]
    fn a_glossary_has_one_row_for_each_word() {
        let check = |rows: &str, expected: &[usize]| {
            let found = Glossary::parse(rows).err().unwrap_or_default();
            assert_eq!(lines(found), expected, "{rows}");
        };
        check(PAGE, &[]);
        check("| a | b | |\n| A | c | |", &[2]);
        check("| a | b |\n| c | | d |\n| | x | |", &[1, 2, 3]);
        let glossary = Glossary::parse(PAGE).ok().expect("a glossary");
        assert_eq!(lines(glossary.unused("policies = 1\nstruct LeaseStore;")), [7]);
        assert_eq!(lines(glossary.unused("a policy, the lease\nstore, budget_window")), []);
        // A word within another is not used.
        assert_eq!(lines(glossary.unused("policyholder, leases stored, windows")), [6, 5]);
    }

    #[test]
    fn a_type_is_defined_once() {
        let check = |files: &[(&str, &str)], expected: &[usize]| {
            let mut sources: Vec<Source> = files.iter().map(|(file, text)| Source::parse(file, text)).collect();
            crate::source::mark_test_files(&mut sources);
            assert_eq!(lines(names_defined_twice(&sources)), expected, "{files:?}");
        };
        check(&[("src/a.rs", "struct Row;"), ("src/b.rs", "\nenum Row { A }")], &[2]);
        check(&[("src/a.rs", "struct Row<T>(T);\nfn f() { struct Row; }")], &[2]);
        check(&[("src/a.rs", "struct Row;\n#[cfg(test)]\nmod tests { struct Row; }")], &[]);
        check(&[("src/a.rs", "#[cfg(test)]\nmod b;\nstruct Row;"), ("src/a/b.rs", "pub struct Row;")], &[]);
        check(&[("src/a.rs", "impl S for A { type Error = u8; }\nimpl S for B { type Error = u8; }")], &[]);
        check(
            &[("src/a.rs", "trait S { type Error; }\nfn f() -> impl S { type Error = u8; }\ntype Error = u8;")],
            &[3],
        );
    }

    #[test]
    fn a_forbidden_word_is_found_in_any_identifier() {
        let check = |file: &str, text: &str, expected: &[usize]| {
            assert_eq!(lines(identifiers(file, text)), expected, "{text}");
        };
        check("src/a.rs", "struct BigPurse;\nfn ask_desk() {}\nlet tickets = 1;\nconst TILL: u8 = 0;", &[1, 2, 3, 4]);
        check("src/a.rs", "let outstanding = leaves; // the till\nlet s = \"desk\"; let legal = tiller;", &[]);
        check("tests/x.py", "till = 1\n'''\ndesk\n'''\ndef a_drawer(): # till\n    x = 'desk'\n", &[1, 5]);
        check("tests/x.py", "a = b // till", &[1]);
        check("tests/x.mjs", "const desk = 1; // till\n/* a\n till */ let dice = `b`;", &[1, 3]);
    }

    #[test]
    fn prose_is_judged_wherever_it_is_written() {
        let check = |file: &str, text: &str, expected: &[usize]| {
            assert_eq!(lines(prose(file, text)), expected, "{text}");
        };
        check("src/a.rs", "//! The purse.\n/// Fine,\n/// or a Desk.\nlet s = \"the\n till\";", &[1, 3, 5]);
        check("src/a.rs", "// It puts\n// in force what was in force.", &[2]);
        check("src/a.rs", "// It says\n// no.\n// `the door` and `a door, the door", &[2, 3, 3]);
        check("tests/a.rs", "let s = \"purse\"; // the corridor", &[1]);
        check("README.md", "The door.\n```sh\nopen door\n```\nAt `the/door`, leave a story.\nThe corridor.", &[1, 6]);
        check("docs/adr/0001-x.md", "A house.", &[1]);
        check("tests/ops/README.md", "A house.", &[]);
        check("config/x.toml", "a = 1 # a desk\ndoor = 2", &[1]);
        check("Makefile", "# the till\nrun: ## open the drawer\n\tdesk", &[1, 2]);
        check("tests/x.py", "\"\"\"A\ndesk.\"\"\"\nx = 'desk'  # till\n", &[2, 3]);
        check("docs/glossary.md", "| hold | reserve | purse |", &[]);
    }

    #[test]
    fn a_doc_comment_says_something() {
        let check = |text: &str, expected: &[usize]| {
            assert_eq!(lines(doc_comments(&Source::parse("src/a.rs", text))), expected, "{text}");
        };
        check("/// When.\na: u8,\n/// Which one.\nb: u8,\n/// Those.\nc: u8,", &[1, 3, 5]);
        check("/// When it began, in Unix milliseconds.\na: u8,\n/// Its name.\nb: u8,", &[]);
        check("/// `[server.tls]`\na: u8,", &[]);
        check("/// Why\n/// it is so.\na: u8,\n// When.\nb: u8, // what\n///\nc: u8", &[6]);
    }
}
