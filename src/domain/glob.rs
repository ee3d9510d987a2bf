//! Patterns over names: `eu-*`, `deepseek-ai/*`.
//!
//! Residencies and model lists are written as globs. `*` matches any sequence of characters, `/` included;
//! no other character is special.

/// A pattern that is compared with whole names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Glob(Box<str>);

impl Glob {
    /// Keeps `pattern` as written.
    pub fn new(pattern: &str) -> Self {
        Self(pattern.into())
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the whole of `name` matches the pattern.
    pub fn matches(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(first) else {
            return false;
        };
        let Some(last) = parts.next_back() else {
            return rest.is_empty();
        };
        for part in parts {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_matches_any_characters_and_nothing_else_is_special() {
        let check = |pattern, name, expected| {
            assert_eq!(Glob::new(pattern).matches(name), expected, "{pattern} on {name}");
        };
        check("eu-*", "eu-central", true);
        check("eu-*", "us-east", false);
        check("*", "", true);
        check("", "", true);
        check("", "a", false);
        check("a", "a", true);
        check("a", "ab", false);
        check("a*b*c", "a--b--c", true);
        check("a*b*c", "acb", false);
        check("*/*", "Qwen/Qwen3-32B", true);
        check("ab*ba", "aba", false);
        check("?", "x", false);
    }
}
