//! A secret that cannot be printed, the hash that is stored of it, and the creation of keys and tokens.
//!
//! It exists so that a credential cannot reach a log, an error or a configuration dump by accident.
//! It must never get a `Display`, `Debug` or `Serialize` that shows its text: code that needs the text
//! calls [`Secret::expose`], which is easy to search for.

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use std::fmt;
use std::hash::{Hash, Hasher};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

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
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into().into())
    }

    /// Whether a client can present `text` as its key and is understood: printable ASCII without blanks around it, and
    /// without the scheme that is written before a key. Blanks inside are allowed, because clients send them.
    pub fn is_presentable(text: &str) -> bool {
        let scheme = text.split(' ').next().unwrap_or_default();
        let printable = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        !text.is_empty() && printable && text.trim() == text && !scheme.eq_ignore_ascii_case("bearer")
    }

    /// The text itself, for the code that presents or compares it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// The SHA-256 of a key's secret: all that is stored of it.
#[derive(Clone, Copy, Eq, Debug)]
pub struct KeyHash(pub [u8; 32]);

impl PartialEq for KeyHash {
    /// In constant time: timing does not reveal how much two hashes have in common.
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Hash for KeyHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl KeyHash {
    /// The hash of a secret as a client presents it.
    pub fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret.as_bytes()).into())
    }

    /// Parses 64 hex digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut hash = [0; 32];
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16);
            *byte = (digit(0)? << 4 | digit(1)?) as u8;
        }
        Some(Self(hash))
    }

    /// The identifier of a secret that is not secret itself: the first twelve hex digits of its hash.
    pub fn id(&self) -> String {
        self.0.iter().take(ID_BYTES).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Bytes of a hash that are enough to distinguish the secrets of one installation.
const ID_BYTES: usize = 6;

/// Base 62 digits of 256 bits.
const SECRET_DIGITS: usize = 43;
/// Base 62 digits of the checksum, 35 bits of a SHA-256.
const CHECKSUM_DIGITS: usize = 6;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A new key for `policy`, of 256 random bits: `tw_<policy>_<secret><checksum>`. The checksum lets a leaked
/// string be recognised, and a mistyped one be rejected, without a lookup.
pub fn new_key(policy: &str, random: &[u8; 32]) -> Secret {
    let body = Zeroizing::new(format!("tw_{policy}_{}", digits(random).as_str()));
    let checksum = Sha256::digest(body.as_bytes());
    let checksum = base62(checksum.iter().take(8).copied(), CHECKSUM_DIGITS);
    Secret::new(format!("{}{checksum}", body.as_str()))
}

/// A new admin token, of 256 random bits.
pub fn new_admin_token(random: &[u8; 32]) -> Secret {
    Secret::new(format!("twa_{}", digits(random).as_str()))
}

fn digits(random: &[u8; 32]) -> Zeroizing<String> {
    Zeroizing::new(base62(random.iter().copied(), SECRET_DIGITS))
}

/// The lowest `digits` base 62 digits of the number whose big-endian bytes these are.
fn base62(bytes: impl Iterator<Item = u8>, digits: usize) -> String {
    let mut number: Zeroizing<Vec<u8>> = Zeroizing::new(bytes.collect());
    let digit = |number: &mut [u8]| {
        let mut rest = 0_u32;
        for byte in number.iter_mut() {
            let value = rest << 8 | u32::from(*byte);
            *byte = (value / 62) as u8;
            rest = value % 62;
        }
        char::from(ALPHABET[rest as usize])
    };
    (0..digits).map(|_| digit(&mut number)).collect()
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

    #[test]
    fn a_key_that_a_client_can_present_may_hold_blanks() {
        for text in ["x", "tw_demo_1", "My API Key", "bearers of news", "\"quoted\""] {
            assert!(Secret::is_presentable(text), "{text:?}");
        }
        // What is read before and after a key is not the key's.
        for text in ["", " ", " x", "x ", "x\n", "x\ty", "Schlüssel", "Bearer x", "bearer x y", "Bearer"] {
            assert!(!Secret::is_presentable(text), "{text:?}");
        }
    }

    #[test]
    fn keys_name_their_policy_and_never_repeat() {
        let (one, two) = (new_key("demo", &[1; 32]), new_key("demo", &[2; 32]));
        assert!(one.expose().starts_with("tw_demo_"));
        assert_eq!(one.expose().len(), "tw_demo_".len() + SECRET_DIGITS + CHECKSUM_DIGITS);
        assert_ne!(one.expose(), two.expose());
    }

    #[test]
    fn base_62_counts_from_the_lowest_digit() {
        assert_eq!(base62([0].into_iter(), 2), "00");
        assert_eq!(base62([61].into_iter(), 2), "z0");
        assert_eq!(base62([62].into_iter(), 2), "01");
        assert_eq!(base62([1, 0].into_iter(), 2), "84");
    }

    #[test]
    fn a_hash_is_parsed_from_exactly_64_hex_digits() {
        let hash = KeyHash::of("x");
        let hex: String = hash.0.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(KeyHash::from_hex(&hex), Some(hash));
        assert_eq!(KeyHash::from_hex(&hex.to_uppercase()), Some(hash));
        assert_eq!(KeyHash::from_hex(&hex[1..]), None);
        assert_eq!(KeyHash::from_hex(&hex.replace(|c: char| c.is_ascii_digit(), "g")), None);
        assert_eq!(hash.id(), hex[..12]);
    }
}
