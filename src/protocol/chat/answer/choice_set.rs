//! Which choices of a stream came, or are finished.

use std::collections::BTreeSet;

/// The most indexes from 64 on that are kept of one stream: many more than any host gives choices.
pub(super) const MOST_INDEXES: usize = 64 * 1024;

/// A set of choice indexes, without allocation up to 64.
#[derive(Clone, Default, Debug)]
pub(super) struct ChoiceSet {
    first: u64,
    rest: BTreeSet<u32>,
}

impl ChoiceSet {
    pub(super) fn insert(&mut self, index: u32) {
        match index {
            0..64 => self.first |= 1 << index,
            _ if self.rest.len() < MOST_INDEXES => drop(self.rest.insert(index)),
            _ => {}
        }
    }

    /// Adds `other`: of those with a number from 64 on only as many as there are below `expected`, or that are. Whoever
    /// numbers choices otherwise has no more of them, and numbers without end are not kept.
    pub(super) fn add_few(&mut self, other: &Self, expected: u32) {
        self.first |= other.first;
        for index in &other.rest {
            if *index < expected || self.rest.len() < expected as usize {
                self.insert(*index);
            }
        }
    }

    /// Adds those of `other` that are below `end`.
    pub(super) fn add_below(&mut self, other: &Self, end: u32) {
        let wanted = u64::MAX.checked_shr(64_u32.saturating_sub(end)).unwrap_or(0);
        self.first |= other.first & wanted;
        other.rest.range(..end).for_each(|index| self.insert(*index));
    }

    pub(super) fn any(&self) -> bool {
        self.first != 0 || !self.rest.is_empty()
    }

    /// Whether all of `other` are in it.
    pub(super) fn holds(&self, other: &Self) -> bool {
        other.first & !self.first == 0 && other.rest.is_subset(&self.rest)
    }

    pub(super) fn len(&self) -> usize {
        self.first.count_ones() as usize + self.rest.len()
    }
}
