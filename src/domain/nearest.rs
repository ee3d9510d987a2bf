//! Names that a client may have meant in place of one that does not exist.
//!
//! It exists because comparing two names in full costs by the product of their lengths, and a gateway may have thousands:
//! a client with a key could make it compare all of them, as often as it likes. So what can be told without comparing
//! is told first, by the bytes of both, and a bounded number of names is compared. It must never know what a name
//! stands for.
//!
//! Start reading in [`nearest`].

use std::cmp::Reverse;
use std::sync::Arc;

/// How many similar names an error offers.
const OFFERED: usize = 3;
/// Names less similar than this, between 0 and 1, are not offered.
const MIN_SIMILARITY: f64 = 0.5;
/// The most names that are compared in full.
const COMPARED: usize = 16;
/// Longer names are neither compared nor offered, in bytes.
const LONGEST: usize = 64;

/// Those of `names` that are most similar to `requested`, the most similar first.
pub fn nearest(requested: &str, names: Vec<Arc<str>>) -> Vec<Arc<str>> {
    let requested = requested.to_lowercase();
    let compared = worth_comparing(&requested, names).into_iter();
    let mut near: Vec<(f64, Arc<str>)> = compared
        .map(|name| (similarity(&requested, &name.to_lowercase()), name))
        .filter(|(similarity, _)| *similarity >= MIN_SIMILARITY)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    near.into_iter().take(OFFERED).map(|(_, name)| name).collect()
}

/// The names that may be most similar, judged by their bytes: at most [`COMPARED`], none longer than [`LONGEST`].
fn worth_comparing(requested: &str, names: Vec<Arc<str>>) -> Vec<Arc<str>> {
    if requested.len() > LONGEST {
        return Vec::new();
    }
    let (whole, last) = (ByteCounts::of(requested), ByteCounts::of(last_part(requested)));
    let mut likely: Vec<_> = names
        .into_iter()
        .filter(|name| name.len() <= LONGEST)
        .map(|name| {
            let most = whole.similarity_at_most(&name).max(last.similarity_at_most(last_part(&name)));
            (most, Reverse(common_ends(requested, &name)), name)
        })
        .filter(|(most, _, _)| *most >= MIN_SIMILARITY)
        .collect();
    // Stable: of names that are equally likely, those that come first.
    likely.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    likely.truncate(COMPARED);
    likely.into_iter().map(|(_, _, name)| name).collect()
}

/// The similarity of two lower-case names, between 0 and 1. The part after the last slash is compared as well
/// as the whole, because people leave the owner out.
fn similarity(requested: &str, name: &str) -> f64 {
    let whole = strsim::normalized_damerau_levenshtein(requested, name);
    whole.max(strsim::normalized_damerau_levenshtein(last_part(requested), last_part(name)))
}

fn last_part(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// How many bytes two names have in common at their beginnings, and at their ends.
fn common_ends(requested: &str, name: &str) -> usize {
    let same = |(a, b): &(u8, u8)| a.eq_ignore_ascii_case(b);
    let beginning = requested.bytes().zip(name.bytes()).take_while(same).count();
    beginning + requested.bytes().rev().zip(name.bytes().rev()).take_while(same).count()
}

/// How often each byte occurs in a name, in lower case.
struct ByteCounts {
    counts: [i16; 256],
    length: usize,
}

impl ByteCounts {
    fn of(name: &str) -> Self {
        let mut counts = [0; 256];
        name.bytes().for_each(|byte| counts[usize::from(byte.to_ascii_lowercase())] += 1);
        Self { counts, length: name.len() }
    }

    /// The most that [`similarity`] can be, as far as the bytes tell: whatever one name has and the other has not is
    /// one change at least.
    fn similarity_at_most(&self, name: &str) -> f64 {
        let mut left = self.counts;
        let mut shared = 0;
        for byte in name.bytes() {
            let count = &mut left[usize::from(byte.to_ascii_lowercase())];
            shared += usize::from(*count > 0);
            *count -= 1;
        }
        let longer = self.length.max(name.len());
        if longer == 0 { 1.0 } else { shared as f64 / longer as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_asked_for_a_bounded_number_of_short_names_is_compared() {
        let many = |prefix: &str| (0..10_000).map(|n| format!("{prefix}{n:05}").into()).collect::<Vec<Arc<str>>>();
        let asked = ["model-00000", "model-99999x", "", "m", &"model-".repeat(10), &"x".repeat(64)];
        for requested in asked {
            for all in [many("model-"), many("owner/model-"), many(&"m".repeat(59)), many(&"m".repeat(250))] {
                let compared = worth_comparing(requested, all);
                assert!(compared.len() <= COMPARED && compared.iter().all(|name| name.len() <= LONGEST), "{requested}");
            }
        }
        assert!(worth_comparing(&"m".repeat(LONGEST + 1), many("model-")).is_empty());
    }

    #[test]
    fn of_thousands_the_most_similar_are_found() {
        let all: Vec<Arc<str>> = (0..1_000).map(|n| format!("owner/model-{n:03}").into()).collect();
        let check = |requested: &str, expected: &str| assert_eq!(&*nearest(requested, all.clone())[0], expected);
        check("owner/model-512x", "owner/model-512");
        check("model-512", "owner/model-512");
        check("Owner/Model-007", "owner/model-007");
        check("ownr/model-250", "owner/model-250");
        check("owner/modle-999", "owner/model-999");
    }

    #[test]
    fn no_name_is_less_alike_than_its_bytes_say() {
        let words =
            ["gpt-4o", "gpt-4o-mini", "kimi", "kimi-k2", "deepseek/flash", "flash", "Pro/kimi", "ikmi", "a/b/c", ""];
        for one in words {
            for other in words {
                let at_most = ByteCounts::of(one).similarity_at_most(other);
                let whole = strsim::normalized_damerau_levenshtein(&one.to_lowercase(), &other.to_lowercase());
                assert!(whole <= at_most + 1e-9, "{one} {other}: {whole} > {at_most}");
            }
        }
    }
}
