//! Reads a Rust source file far enough to judge it: which paths, types and identifiers it names, on
//! which line, whether that line is test code, and what its comments say.
//!
//! Must never guess: comments and literals are gone before a word is read, and every `use` tree is
//! spelled out to its leaves. It is not a compiler: macros are read as written.
//!
//! Start reading in [`Source::parse`].

use std::collections::BTreeSet;

/// One file under `src/`, read.
pub struct Source {
    /// Relative to the project, with `/`, as in `src/relay/guard.rs`.
    pub file: String,
    /// The first line as it stands.
    pub first_line: String,
    /// Every path the code names, `use` trees spelled out to their leaves, `super::` resolved to
    /// `crate::` where it leaves the module. A lone word is a path of one segment.
    pub paths: Vec<CodePath>,
    /// Every identifier and keyword, in order.
    pub identifiers: Vec<(usize, String)>,
    /// Every leaf of a `use` item.
    pub uses: Vec<Use>,
    /// Every struct, enum, union, trait and type alias, associated types aside.
    pub types: Vec<TypeDefinition>,
    /// Names of everything that is defined anywhere in the file.
    pub defined: BTreeSet<String>,
    /// Modules this file declares under `#[cfg(test)]` and has in files of their own.
    pub test_modules: Vec<String>,
    /// In order, a comment of several lines as one.
    pub comments: Vec<Text>,
    /// String literals, in order, with their quotes.
    pub literals: Vec<Text>,
}

/// Marks everything as test code in the files that a module declares under `#[cfg(test)]`.
pub fn mark_test_files(sources: &mut [Source]) {
    let only_tests: Vec<Vec<String>> = sources
        .iter()
        .flat_map(|source| {
            source.test_modules.iter().map(|name| {
                let mut path = source.module_path();
                path.push(name.clone());
                path
            })
        })
        .collect();
    for source in sources {
        let path = source.module_path();
        if only_tests.iter().any(|test| path.starts_with(test)) {
            source.types.iter_mut().for_each(|definition| definition.in_test = true);
            source.paths.iter_mut().for_each(|path| path.in_test = true);
        }
    }
}

/// A leaf of a `use` item: `pub use a::{b as c}` is `a::b`, named `c`, exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// As written, from `crate` where it leaves the module.
    pub segments: Vec<String>,
    /// What it is called here; `*` for a glob.
    pub name: String,
    /// Whether others may use it from here.
    pub exported: bool,
}

/// A type that the code defines.
#[derive(Debug, PartialEq, Eq)]
pub struct TypeDefinition {
    /// From 1.
    pub line: usize,
    pub name: String,
    /// Visible outside its own file's module.
    pub public: bool,
    /// Inside an item under `#[cfg(test)]`.
    pub in_test: bool,
}

/// A piece of text and where it begins.
#[derive(Debug, PartialEq, Eq)]
pub struct Text {
    /// From 1.
    pub line: usize,
    pub text: String,
}

/// A path as the code names it.
#[derive(Debug, PartialEq, Eq)]
pub struct CodePath {
    /// From 1.
    pub line: usize,
    /// `["crate", "store", "Keys"]`; a glob is `"*"`.
    pub segments: Vec<String>,
    /// Inside an item under `#[cfg(test)]`.
    pub in_test: bool,
}

impl Source {
    /// Reads `text`, the content of the file `file`.
    pub fn parse(file: &str, text: &str) -> Self {
        let (code, blanked) = blank_comments_and_literals(text);
        let words = words(&code);
        let tests = test_words(&words);
        let modules = module_depths(&words, file_depth(file));
        let (comments, literals) = blanked.into_iter().partition(|piece| piece.text.starts_with('/'));
        Self {
            file: file.to_owned(),
            first_line: text.lines().next().unwrap_or_default().to_owned(),
            paths: paths(&words, &tests, &modules),
            identifiers: words.iter().filter(|w| is_name(w.text)).map(|w| (w.line, w.text.to_owned())).collect(),
            uses: uses(&words, &tests, &modules),
            types: types(&words, &tests),
            defined: defined(&words),
            test_modules: test_modules(&words),
            comments: joined(comments),
            literals,
        }
    }

    /// The top-level module this file belongs to; `None` for `lib.rs` and `main.rs`, which only declare them.
    pub fn module(&self) -> Option<&str> {
        let inside = self.file.strip_prefix("src/")?;
        let first = inside.split('/').next()?;
        let module = first.strip_suffix(".rs").unwrap_or(first);
        (module != "lib" && module != "main").then_some(module)
    }

    /// The path of the module this file is: `src/relay/guard.rs` is `relay::guard`, `src/relay/mod.rs` `relay`.
    pub fn module_path(&self) -> Vec<String> {
        let inside = self.file.strip_prefix("src/").unwrap_or(&self.file);
        let mut parts: Vec<String> = inside.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        if matches!(parts.last().map(String::as_str), Some("mod" | "lib" | "main")) {
            parts.pop();
        }
        parts
    }
}

/// A word of the code: an identifier, `::`, or one other character.
#[derive(Debug, PartialEq)]
struct Word<'a> {
    text: &'a str,
    line: usize,
}

/// The text with every comment, string and character literal replaced by blanks, lines kept; and what was
/// replaced.
fn blank_comments_and_literals(text: &str) -> (String, Vec<Text>) {
    let mut out = String::with_capacity(text.len());
    let mut blanked = Vec::new();
    let mut line = 1;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = length_of_comment_or_literal(rest, out.chars().next_back());
        let (gone, kept) = match skipped {
            0 => (0, first.len_utf8()),
            length => (length, 0),
        };
        if gone > 0 {
            blanked.push(Text { line, text: rest[..gone].to_owned() });
        }
        out.extend(rest[..gone].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        out.push_str(&rest[gone..gone + kept]);
        line += rest[..gone + kept].matches('\n').count();
        rest = &rest[gone + kept..];
    }
    (out, blanked)
}

/// Line comments of the same kind on neighbouring lines as one comment.
fn joined(comments: Vec<Text>) -> Vec<Text> {
    let kind = |text: &str| ["///", "//!", "//", "/*"].into_iter().find(|mark| text.starts_with(mark));
    let mut out: Vec<Text> = Vec::new();
    for comment in comments {
        match out.last_mut() {
            Some(last)
                if last.line + last.text.matches('\n').count() + 1 == comment.line
                    && kind(&last.text) == kind(&comment.text) =>
            {
                last.text.push('\n');
                last.text.push_str(&comment.text);
            }
            _ => out.push(comment),
        }
    }
    out
}

/// Bytes of the comment or literal that `rest` begins with; 0 when it begins with code.
/// `before` tells `r"` from the end of an identifier such as `var"`.
fn length_of_comment_or_literal(rest: &str, before: Option<char>) -> usize {
    let inside_word = before.is_some_and(is_word_char);
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return length_of_block_comment(rest);
    }
    if rest.starts_with('"') {
        return length_of_string(rest);
    }
    let hashed = rest.trim_start_matches(['b', 'c']).strip_prefix('r');
    if let Some(hashed) = hashed.filter(|_| !inside_word) {
        let quoted = hashed.trim_start_matches('#');
        if quoted.starts_with('"') {
            let hashes = hashed.len() - quoted.len();
            let end = format!("\"{}", "#".repeat(hashes));
            let head = rest.len() - quoted.len() + 1;
            return rest[head..].find(&end).map_or(rest.len(), |at| head + at + end.len());
        }
    }
    if rest.starts_with('\'') {
        return length_of_char(rest);
    }
    0
}

fn length_of_block_comment(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

fn length_of_string(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// `'x'` and `'\n'` are literals; `'a` is a lifetime, which is code.
fn length_of_char(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => rest.char_indices().skip(3).find(|&(_, c)| c == '\'').map_or(rest.len(), |(at, _)| at + 1),
        Some(_) => match chars.next() {
            Some((at, '\'')) => at + 1,
            _ => 0,
        },
        None => 0,
    }
}

fn is_word_char(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn words(code: &str) -> Vec<Word<'_>> {
    let mut out = Vec::new();
    let mut line = 1;
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let length = if is_word_char(first) {
            rest.find(|c| !is_word_char(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        if !first.is_whitespace() {
            let text = &rest[..length];
            out.push(Word { text, line });
        }
        line += usize::from(first == '\n');
        rest = &rest[length..];
    }
    out
}

/// Positions of the words inside an item under `#[cfg(test)]`.
fn test_words(words: &[Word]) -> BTreeSet<usize> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut out = BTreeSet::new();
    for start in 0..words.len() {
        let here = words[start..].iter().map(|word| word.text);
        if here.take(MARK.len()).eq(MARK) {
            out.extend(start..end_of_item(words, start + MARK.len()));
        }
    }
    out
}

/// Modules declared as `#[cfg(test)] mod name;`.
fn test_modules(words: &[Word]) -> Vec<String> {
    let tail = ["test", ")", "]"];
    let at = (0..words.len()).filter(|&at| {
        let here = words[at..].iter().map(|word| word.text);
        here.take(tail.len()).eq(tail)
    });
    at.filter_map(|at| {
        let item = &words[at + tail.len()..];
        let start = item.iter().take(6).position(|word| word.text == "mod")?;
        (item.get(start + 2)?.text == ";").then(|| item[start + 1].text.to_owned())
    })
    .collect()
}

/// Words that define what the next word names.
const DEFINING: [&str; 9] = ["struct", "enum", "union", "trait", "type", "fn", "const", "static", "mod"];

fn defined(words: &[Word]) -> BTreeSet<String> {
    let pairs = words.windows(2).filter(|pair| DEFINING.contains(&pair[0].text));
    pairs.filter(|pair| is_name(pair[1].text)).map(|pair| pair[1].text.to_owned()).collect()
}

fn types(words: &[Word], tests: &BTreeSet<usize>) -> Vec<TypeDefinition> {
    let mut out = Vec::new();
    // Of each open brace, whether it is the body of an `impl` or a `trait`.
    let mut bodies: Vec<bool> = Vec::new();
    let mut associating = false;
    for (at, word) in words.iter().enumerate() {
        match word.text {
            // `-> impl Trait` and `x: impl Trait` open no body.
            "impl" => associating = at == 0 || matches!(words[at - 1].text, "}" | ";" | "]" | "{" | "unsafe"),
            "fn" => associating = false,
            "{" => bodies.push(std::mem::take(&mut associating)),
            "}" => {
                bodies.pop();
            }
            "struct" | "enum" | "union" | "trait" | "type" => {
                let name = words.get(at + 1).map(|word| word.text).filter(|name| is_name(name));
                let associated = word.text == "type" && bodies.last() == Some(&true);
                if let Some(name) = name.filter(|name| !associated && name.starts_with(char::is_uppercase)) {
                    out.push(TypeDefinition {
                        line: word.line,
                        name: name.to_owned(),
                        public: at > 0 && matches!(words[at - 1].text, "pub" | ")"),
                        in_test: tests.contains(&at),
                    });
                }
                associating = word.text == "trait";
            }
            _ => {}
        }
    }
    out
}

fn uses(words: &[Word], tests: &BTreeSet<usize>, modules: &[usize]) -> Vec<Use> {
    let mut out = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let begins = at == 0 || matches!(words[at - 1].text, ";" | "}" | "{" | "]" | "pub" | ")");
        if word.text != "use" || !begins || tests.contains(&at) {
            continue;
        }
        let exported = at > 0 && matches!(words[at - 1].text, "pub" | ")");
        read_use(words, at + 1, &[], &mut |segments, name| {
            let segments = from_crate(segments, modules[at]);
            out.push(Use { segments, name, exported });
        });
    }
    out
}

/// Reads one branch of a `use` tree at `at` with the names that `as` gives; returns the place after it.
fn read_use(words: &[Word], mut at: usize, stem: &[String], leaf: &mut dyn FnMut(Vec<String>, String)) -> usize {
    let mut path = stem.to_vec();
    while let Some(word) = words.get(at) {
        if word.text == "{" {
            at += 1;
            while let Some(word) = words.get(at).filter(|word| word.text != "}") {
                at = if word.text == "," { at + 1 } else { read_use(words, at, &path, leaf) };
            }
            return at + 1;
        }
        path.push(word.text.to_owned());
        at += 1;
        if words.get(at).is_none_or(|word| word.text != "::") {
            break;
        }
        at += 1;
    }
    if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    let mut name = path.last().cloned().unwrap_or_default();
    if let (Some("as"), Some(given)) = (words.get(at).map(|word| word.text), words.get(at + 1)) {
        name = given.text.to_owned();
        at += 2;
    }
    leaf(path, name);
    at
}

/// One past the `;` or the closing brace that ends the item beginning at `start`.
fn end_of_item(words: &[Word], start: usize) -> usize {
    let mut depth = 0_usize;
    for (at, word) in words.iter().enumerate().skip(start) {
        match word.text {
            "{" => depth += 1,
            "}" if depth <= 1 => return at + 1,
            "}" => depth -= 1,
            ";" if depth == 0 => return at + 1,
            _ => {}
        }
    }
    words.len()
}

/// How many modules below the crate a file sits: `src/relay/guard.rs` is 2, `src/clock.rs` 1.
fn file_depth(file: &str) -> usize {
    let inside = file.strip_prefix("src/").unwrap_or(file);
    let own = usize::from(!inside.ends_with("mod.rs") && !matches!(inside, "lib.rs" | "main.rs"));
    inside.matches('/').count() + own
}

/// For each word, how many modules below the crate it stands, inline `mod x { … }` counted.
fn module_depths(words: &[Word], file_depth: usize) -> Vec<usize> {
    let mut braces = 0_usize;
    let mut opened_at: Vec<usize> = Vec::new();
    let mut out = Vec::with_capacity(words.len());
    for (at, word) in words.iter().enumerate() {
        match word.text {
            "{" => {
                braces += 1;
                if at >= 2 && words[at - 2].text == "mod" {
                    opened_at.push(braces);
                }
            }
            "}" => {
                if opened_at.last() == Some(&braces) {
                    opened_at.pop();
                }
                braces = braces.saturating_sub(1);
            }
            _ => {}
        }
        out.push(file_depth + opened_at.len());
    }
    out
}

fn paths(words: &[Word], tests: &BTreeSet<usize>, modules: &[usize]) -> Vec<CodePath> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let start = at;
        if !is_name(words[at].text) {
            at += 1;
            continue;
        }
        let mut leaves = Vec::new();
        at = read_tree(words, at, &[], &mut leaves);
        if leaves[0].1 == ["crate"] && words.get(at).is_some_and(|word| word.text == "as") {
            leaves[0].1.push("self".to_owned());
        }
        out.extend(leaves.into_iter().map(|(line, segments)| CodePath {
            line,
            segments: from_crate(segments, modules[start]),
            in_test: tests.contains(&start),
        }));
    }
    out
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c == '_' || c.is_alphabetic())
}

/// Reads one branch of a path or `use` tree at `at`, adds its leaves, returns the place after it.
fn read_tree(words: &[Word], mut at: usize, stem: &[String], leaves: &mut Vec<(usize, Vec<String>)>) -> usize {
    let mut path = stem.to_vec();
    let mut line = words[at].line;
    while let Some(word) = words.get(at) {
        if word.text == "{" {
            return read_branches(words, at + 1, &path, leaves);
        }
        if !is_name(word.text) && word.text != "*" {
            break;
        }
        line = word.line;
        path.push(word.text.to_owned());
        at += 1;
        if words.get(at).is_none_or(|word| word.text != "::") {
            break;
        }
        at += 1;
    }
    leaves.push((line, path));
    at
}

/// Reads the branches after a `{` that follows `::`, to the matching `}`.
fn read_branches(words: &[Word], mut at: usize, stem: &[String], leaves: &mut Vec<(usize, Vec<String>)>) -> usize {
    while let Some(word) = words.get(at) {
        match word.text {
            "}" => return at + 1,
            // A rename does not change what is imported.
            "as" => at += 2,
            text if is_name(text) || text == "*" || text == "{" => {
                at = read_tree(words, at, stem, leaves);
            }
            _ => at += 1,
        }
    }
    at
}

/// `super::` as often as the code is deep means the crate itself.
fn from_crate(segments: Vec<String>, depth: usize) -> Vec<String> {
    let ups = segments.iter().take_while(|s| *s == "super").count();
    if ups == 0 || ups < depth {
        return segments;
    }
    let mut out = vec!["crate".to_owned()];
    out.extend(segments.into_iter().skip(ups));
    out
}
