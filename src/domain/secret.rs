//! A secret that cannot be printed.
//!
//! It exists so that a credential cannot reach a log, an error or a configuration dump by accident.
//! It must never gain `Display`, `Debug` or `Serialize` that shows what it holds: whoever needs the
//! text says so by calling [`Secret::expose`], which is easy to search for.

use secrecy::{ExposeSecret, SecretString};

/// What is shown instead of any secret, whatever its length.
pub const MASK: &str = "********";

/// A credential, token or key: wiped from memory when dropped, masked wherever it is formatted.
///
/// ```compile_fail
/// let secret = tierway::domain::secret::Secret::new("hush".to_owned());
/// println!("{secret}");
/// ```
///
/// ```compile_fail
/// let secret = tierway::domain::secret::Secret::new("hush".to_owned());
/// serde_json::to_string(&secret);
/// ```
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes the text over.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into().into())
    }

    /// The text itself, for the one place that presents or compares it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(MASK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_the_same_mask_for_every_secret() {
        for text in ["", "a", "a much longer secret"] {
            let secret = Secret::new(text.to_owned());
            assert_eq!(format!("{secret:?}"), MASK);
            assert_eq!(secret.expose(), text);
        }
    }
}
