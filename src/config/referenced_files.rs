//! The files a configuration refers to, as they were when it was read.
//!
//! Only a digest of each is kept, since most of them hold secrets. A file that could not be read is
//! remembered too: that it can be read later is a change.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::env::Environment;

/// Every `file:/path` of one reading, and the digest of its content.
#[derive(Clone, PartialEq, Eq, Default)]
pub(super) struct ReferencedFiles(BTreeMap<PathBuf, Option<[u8; 32]>>);

impl ReferencedFiles {
    /// Records the content of a file, `None` where it could not be read.
    pub(super) fn note(&mut self, path: &Path, text: Option<&str>) {
        self.0.insert(path.to_owned(), text.map(digest));
    }

    /// Where they are.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.keys().map(PathBuf::as_path)
    }

    /// Whether the content of one of them is different now.
    pub(super) fn have_changed(&self, environment: &dyn Environment) -> bool {
        self.0.iter().any(|(path, seen)| environment.read(path).ok().map(|text| digest(&text)) != *seen)
    }
}

impl fmt::Debug for ReferencedFiles {
    /// Paths alone: a short secret could be found by its digest.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The digest of a text.
pub(super) fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}
