//! Secrets, and the hashes that are kept of them.

use crate::config::reader::{ConfigValueRef, DisplayValue, SettingShape, SettingValue, ValueError};
use crate::config::settings::ProviderCredential;
use crate::domain::secret::Secret;

impl SettingValue for Secret {
    const EXPECTED: &'static str = "\"env:NAME\" or \"file:/path\"";
    const SECRET: bool = true;

    fn shape() -> SettingShape {
        SettingShape::Reference
    }

    fn read(value_ref: &ConfigValueRef<'_>) -> Result<Self, ValueError> {
        let text = value_ref.text()?;
        if !value_ref.is_reference() && !value_ref.is_override() {
            return Err(ValueError::hinting(
                "a secret may not be written out in the file",
                "put it where the gateway starts and write \"env:NAME\" or \"file:/path\"",
            ));
        }
        // It travels in a header, or came in one.
        if !Self::is_presentable(&text) {
            return Err(ValueError::hinting(
                "the secret is empty, has blanks or `Bearer` before or after it, or holds characters other than ASCII",
                "check for line ends and quotes around the secret",
            ));
        }
        Ok(Self::new(text))
    }

    fn show(&self) -> DisplayValue {
        DisplayValue::Masked
    }
}

impl SettingValue for ProviderCredential {
    const EXPECTED: &'static str = Secret::EXPECTED;
    const SECRET: bool = true;

    fn shape() -> SettingShape {
        Secret::shape()
    }

    fn read(value_ref: &ConfigValueRef<'_>) -> Result<Self, ValueError> {
        let secret = Secret::read(value_ref)?;
        let name = value_ref.written_in().unwrap_or_default();
        Ok(Self { name: name.into(), secret })
    }

    fn show(&self) -> DisplayValue {
        DisplayValue::Masked
    }
}

/// `sha256:` and 64 hex digits: what is kept of a key's secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct SecretDigest(pub(in crate::config) [u8; 32]);

impl SecretDigest {
    const PREFIX: &str = "sha256:";

    fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(Self::PREFIX)?.as_bytes();
        let mut hash = [0_u8; 32];
        if digits.len() != 64 {
            return None;
        }
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            let high = char::from(pair[0]).to_digit(16)?;
            let low = char::from(pair[1]).to_digit(16)?;
            *byte = u8::try_from(high * 16 + low).ok()?;
        }
        Some(Self(hash))
    }
}

impl SettingValue for SecretDigest {
    const EXPECTED: &'static str = "\"sha256:\" and 64 hex digits";
    const SENSITIVE: bool = true;

    fn shape() -> SettingShape {
        SettingShape::Pattern("sha256:[0-9a-fA-F]{64}")
    }

    fn read(value_ref: &ConfigValueRef<'_>) -> Result<Self, ValueError> {
        let text = value_ref.text()?;
        Self::parse(&text).ok_or_else(|| {
            // It may be the secret itself, in the wrong place.
            value_ref.hide();
            ValueError::hinting(
                "is not a SHA-256 hash",
                format!("write {}, as `printf %s \"$KEY\" | sha256sum` prints them", Self::EXPECTED),
            )
        })
    }

    fn show(&self) -> DisplayValue {
        let digits: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        DisplayValue::Text(format!("{}{digits}", Self::PREFIX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_64_hex_digits() {
        let zeros = "0".repeat(62);
        let check = |text: String, expected: Option<u8>| {
            assert_eq!(SecretDigest::parse(&text).map(|h| h.0[31]), expected, "{text}");
        };
        check(format!("sha256:{zeros}fF"), Some(255));
        check(format!("sha256:{zeros}f"), None);
        check(format!("sha256:{zeros}fg"), None);
        check(format!("sha256:{zeros}é"), None);
        check(format!("md5:{zeros}ff"), None);
    }
}
