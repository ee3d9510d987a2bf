//! A string that never shows itself.
//!
//! It exists so that a credential cannot reach a log, an error or a configuration dump by accident:
//! it has no `Display`, no serialization, and its `Debug` says only that it is one. Its memory is
//! wiped when it goes.

use std::fmt;
use zeroize::Zeroizing;

/// A key or credential in clear text.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes `text` into keeping.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself: call it only where it is sent or hashed.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
