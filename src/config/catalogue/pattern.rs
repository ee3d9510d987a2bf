//! The match rules of the price catalogue: patterns over names of models and over addresses of hosts.
//!
//! `*` is any text, `#` is one digit, and case does not count. It must never backtrack without bound: a name is of a
//! length that the operator writes, and a pattern has few parts.

/// Whether the whole of `name` matches `pattern`; both are in lower case.
pub(super) fn fits(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = without_prefix(name, first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let starts = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
        let Some(after) = starts.into_iter().find_map(|at| without_prefix(&rest[at..], part)) else { return false };
        rest = after;
    }
    // Any text may precede the last part, so only the end of the rest must fit it.
    rest.len()
        .checked_sub(last.len())
        .is_some_and(|at| rest.is_char_boundary(at) && without_prefix(&rest[at..], last).is_some_and(str::is_empty))
}

/// Whether `pattern` is one name and no more.
pub(super) fn is_exact(pattern: &str) -> bool {
    !pattern.contains(['*', '#'])
}

/// What follows `part`, in which `#` is one digit, at the beginning of `text`.
fn without_prefix<'t>(text: &'t str, part: &str) -> Option<&'t str> {
    let mut rest = text.chars();
    for wanted in part.chars() {
        let found = rest.next()?;
        let same = if wanted == '#' { found.is_ascii_digit() } else { found == wanted };
        if !same {
            return None;
        }
    }
    Some(rest.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_whole_names() {
        let check = |pattern: &str, name: &str, expected: bool| {
            assert_eq!(fits(pattern, name), expected, "{pattern} on {name}");
        };
        check("gpt-4o", "gpt-4o", true);
        check("gpt-4o", "gpt-4o-mini", false);
        check("gpt-4o*", "gpt-4o-mini", true);
        check("*-v2", "claude-v2", true);
        check("*-v2", "claude-v2-x", false);
        check("*claude*", "us.anthropic.claude-3", true);
        check("a*b*c", "a-b-b-c", true);
        check("a*b*c", "a-c", false);
        check("a*bc", "abc", true);
        check("ab*bc", "abc", false);
        check("x-########", "x-20261130", true);
        check("x-########", "x-2026113", false);
        check("x-########", "x-2026113a", false);
        check("*-####", "x-2026", true);
        check("*", "", true);
        check("", "", true);
        check("é*", "été", true);
        check("*é", "été", true);
    }
}
