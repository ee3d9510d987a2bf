//! Names that many rows share, each in one allocation: 100,000 keys have few policies and teams.

use std::collections::HashSet;
use std::sync::Arc;

/// Shares one allocation between equal names.
#[derive(Default)]
pub(super) struct NameSet(HashSet<Arc<str>>);

impl NameSet {
    /// The one allocation of `text`.
    pub(super) fn intern(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.0.get(text) {
            return known.clone();
        }
        let name = Arc::<str>::from(text);
        self.0.insert(name.clone());
        name
    }
}
