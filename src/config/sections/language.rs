//! Recognizes a file that is not TOML by the language that it is probably written in.
//!
//! It judges a text that could not be read as TOML, and never reads a setting. Start reading at [`other_language`].

use std::ops::Range;

/// What a text looks like that is not TOML.
pub(super) struct ConfigLanguage {
    pub(super) name: &'static str,
    /// What the same setting looks like in TOML.
    pub(super) instead: &'static str,
    /// The line by which it was recognized, as bytes of the text.
    pub(super) first_line: Range<usize>,
}

/// The language of `text`, where it begins and goes on like JSON or YAML. A single slip in a TOML file is no language.
pub(super) fn other_language(text: &str) -> Option<ConfigLanguage> {
    let (start, first) = lines(text).next()?;
    let first_line = start..start + first.len();
    let language = |name, instead| Some(ConfigLanguage { name, instead, first_line: first_line.clone() });
    // A bracket begins a table of TOML too, so that only the whole text tells.
    let is_object = |rest: &str| rest.trim_start().is_empty() || rest.trim_start().starts_with(['"', '}']);
    let begins_so = first.strip_prefix('{').is_some_and(is_object);
    if begins_so || serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() {
        return language("JSON", "write `listen = \"127.0.0.1:8080\"` below `[server]`, without braces and commas");
    }
    let (mut of_yaml, mut of_toml) = (0, 0);
    for (_, line) in lines(text) {
        of_yaml += usize::from(is_yaml(line));
        of_toml += usize::from(is_toml(line));
    }
    if is_yaml(first) && of_yaml > of_toml {
        return language(
            "YAML",
            "write `listen = \"127.0.0.1:8080\"` below `[server]`, with `=` and without indentation",
        );
    }
    None
}

/// The lines that say something, without the blanks around them, and where they begin.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut start = 0;
    let whole = text.split_inclusive('\n').map(move |line| {
        let at = start;
        start += line.len();
        let unmarked = line.trim_start_matches('\u{feff}');
        let trimmed = unmarked.trim_start();
        (at + line.len() - trimmed.len(), trimmed.trim_end())
    });
    whole.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// `key:`, `key: value`, an entry of a list, or the beginning of a document.
fn is_yaml(line: &str) -> bool {
    if line == "---" || line.starts_with("%YAML") || line == "-" || line.starts_with("- ") {
        return true;
    }
    let Some((key, rest)) = line.split_once(':') else { return false };
    let key = key.trim_matches(['"', '\'']);
    let is_name = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || "_-./".contains(c));
    is_name && (rest.is_empty() || rest.starts_with([' ', '\t']))
}

/// A setting, or the head of a table.
fn is_toml(line: &str) -> bool {
    let head = line.starts_with('[') && line.split('#').next().is_some_and(|head| head.trim_end().ends_with(']'));
    head || line.split(['"', '\'', '#']).next().is_some_and(|before| before.contains('=')) || line.contains(" = ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_language_is_known_by_its_first_line_and_those_after_it() {
        let check = |text: &str, expected: Option<(&str, &str)>| {
            let found = other_language(text);
            let found = found.as_ref().map(|found| (found.name, &text[found.first_line.clone()]));
            assert_eq!(found, expected, "{text}");
        };
        check("{\n  \"server\": {}\n}\n", Some(("JSON", "{")));
        check(
            "  {\"server\": {\"listen\": \"127.0.0.1:8080\"",
            Some(("JSON", "{\"server\": {\"listen\": \"127.0.0.1:8080\"")),
        );
        check("[{\"name\": \"a\"}]\n", Some(("JSON", "[{\"name\": \"a\"}]")));
        check("# ours\n\nserver:\n  listen: \"127.0.0.1:8080\"\n", Some(("YAML", "server:")));
        check("\u{feff}server:\r\n  listen: 127.0.0.1:8080\r\n", Some(("YAML", "server:")));
        check("---\nproviders:\n  - name: a\n", Some(("YAML", "---")));
        check("- name: a\n  url: http://a = b\n", Some(("YAML", "- name: a")));
        check("\"server\": {listen: 1}\n", Some(("YAML", "\"server\": {listen: 1}")));
        check("listen: 1\n[server]\nlisten = \"x\"\ndrain = \"1s\"\n", None);
        check("[server]\nlisten: 1\n", None);
        check("[server\nlisten = 1\n", None);
        check("listen = = 1\n", None);
        check("{[server]\nlisten = 1\n", None);
        check("", None);
        check("some text\n", None);
    }
}
