//! Names that may have been meant in place of one that is not known.
//!
//! Only names are compared; the caller says where they are from.

/// How alike two names must be for one to be suggested in place of the other.
const LIKENESS: f64 = 0.6;

/// The most alike of `names`, if any is alike enough to be what was meant.
pub(crate) fn nearest<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    names
        .map(|candidate| (strsim::normalized_damerau_levenshtein(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= LIKENESS)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
