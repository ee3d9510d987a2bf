//! Names that some readers of JSON take for another name: Go's `encoding/json`, cJSON and many others ignore case.
//!
//! A member so written means one thing to us, who compare exactly, and another to such a provider. It never decides what
//! is done about one.
//!
//! Start reading in [`folds_to`].

/// Whether no reader takes `name` for a name in lower-case ASCII letters that it is not, so that there is nothing to
/// compare: the case of almost every name.
#[inline]
pub fn is_plain(name: &str) -> bool {
    name.bytes().all(|byte| matches!(byte, 1..=b'@' | b'['..=0x7f))
}

/// Whether some reader takes `name` for `known`, which is in lower-case ASCII letters.
pub fn folds_to(name: &str, known: &str) -> bool {
    let mut known = known.chars();
    // A reader in C ends a name at its first NUL.
    let mut letters = name.chars().take_while(|c| *c != '\0').flat_map(folded);
    letters.all(|c| known.next() == Some(c)) && known.next().is_none()
}

/// `c` as readers fold it that ignore case, in whatever language: one character, or more.
fn folded(c: char) -> impl Iterator<Item = char> {
    let letters = match c {
        // Unicode's simple folds, which Go has.
        'ſ' => ['s', '\0', '\0'],
        '\u{212a}' => ['k', '\0', '\0'],
        // By way of capitals, as Java compares.
        'ı' | 'İ' => ['i', '\0', '\0'],
        // Unicode's full folds, as Python's `casefold` has them.
        'ß' | 'ẞ' => ['s', 's', '\0'],
        'ﬅ' | 'ﬆ' => ['s', 't', '\0'],
        'ﬀ' => ['f', 'f', '\0'],
        'ﬁ' => ['f', 'i', '\0'],
        'ﬂ' => ['f', 'l', '\0'],
        'ﬃ' => ['f', 'f', 'i'],
        'ﬄ' => ['f', 'f', 'l'],
        _ => [c.to_ascii_lowercase(), '\0', '\0'],
    };
    letters.into_iter().filter(|c| *c != '\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_other_letters_folds_to_the_plain_one() {
        for name in ["MODEL", "Model", "modeL", "model\0", "Model\0x"] {
            assert!(folds_to(name, "model") && !is_plain(name), "{name:?}");
        }
        for name in ["ſtream", "\u{17f}TREAM", "ﬅream", "ﬆREAM"] {
            assert!(folds_to(name, "stream") && !is_plain(name), "{name:?}");
        }
        for (name, known) in [
            ("max_to\u{212a}ens", "max_tokens"),
            ("meßages", "messages"),
            ("MEẞAGES", "messages"),
            ("funct\u{131}ons", "functions"),
        ] {
            assert!(folds_to(name, known) && !is_plain(name), "{name:?}");
        }
    }

    #[test]
    fn another_name_does_not() {
        for name in ["models", "mode", "", "\0model", "mod\0el", "mödel", "ｍodel", "model ", "мodel", "modeⅼ"] {
            assert!(!folds_to(name, "model"), "{name:?}");
        }
        for plain in ["model", "max_tokens", "x-1.$", "", "{|}~"] {
            assert!(is_plain(plain), "{plain:?}");
        }
    }

    /// Of all characters, these alone stand for a letter of ours: the standard library knows the folds by way of
    /// upper and lower case.
    #[test]
    fn every_character_with_a_fold_to_ascii_is_known() {
        for c in (0x80..=0x10_ffff).filter_map(char::from_u32) {
            let lower: String = c.to_lowercase().collect();
            let upper_lower: String = c.to_uppercase().flat_map(char::to_lowercase).collect();
            for plain in [lower, upper_lower].iter().filter(|text| text.is_ascii()) {
                assert!(folds_to(&c.to_string(), plain), "{c:?} {plain}");
            }
        }
    }
}
