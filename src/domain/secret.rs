//! A secret that cannot be printed, the hash that is stored of it, and the creation of keys and tokens.
//!
//! It exists so that a credential cannot reach a log, an error or a configuration dump by accident.
//! It must never get a `Display`, `Debug` or `Serialize` that shows its text: code that needs the text
//! calls [`Secret::expose`], which is easy to search for.

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// What is shown instead of any secret, whatever its length.
pub const MASK: &str = "********";

/// How the credentials of well-known hosts, and our own keys and tokens, begin; in lower case.
pub const CREDENTIAL_PREFIXES: [&str; 16] = [
    "sk-", "sk_", "pk-", "gsk_", "xai-", "hf_", "fw_", "aiza", "nvapi-", "ghp_", "tw_", "twa_", "twv_", "twm_", "tws_",
    "twl_",
];
/// The least length of what is taken for a credential by how it begins, in bytes.
const SHORTEST_CREDENTIAL: usize = 16;
/// From so many letters and digits in a row on, both among them, a text may be a credential.
const LONG_WORD: usize = 32;
/// From so many characters on, also `+ / _ - =`, a text that looks random may be one.
const LONG_RUN: usize = 20;
/// What a parameter of a URL that holds a secret is called, or ends in.
const SECRET_PARAMETERS: [&str; 6] = ["key", "token", "secret", "password", "sig", "signature"];

/// Whether `run`, a text without blanks, looks random. Words joined by hyphens and underscores are long, too: random
/// text has digits, or both cases.
pub fn is_random(run: &str) -> bool {
    let has = |kind: fn(&u8) -> bool| run.bytes().any(|byte| kind(&byte));
    let both_cases = has(u8::is_ascii_lowercase) && run.bytes().skip(1).any(|byte| byte.is_ascii_uppercase());
    let in_run = |byte: u8| byte.is_ascii_alphanumeric() || b"+/_-=".contains(&byte);
    run.len() >= LONG_RUN && run.bytes().all(in_run) && (has(u8::is_ascii_digit) || both_cases)
}

/// Where `text`, which should hold no secret, holds what looks like one: in the user part or a parameter of a URL, by
/// how it begins, or by its length. The ranges are in order and may overlap.
pub fn credentials_in(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let in_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let length = bytes[at..].iter().take_while(|byte| in_word(byte)).count();
        let word = at..at + length;
        if is_credential(&bytes[word.clone()]) && !text[..at].ends_with("sha256:") {
            found.push(word);
        }
        at += length + 1;
    }
    for (scheme, _) in text.match_indices("://") {
        let start = scheme + "://".len();
        let authority = text[start..].find(['/', '?', '#', '"', '\'', ' ', '\n']).map_or(text.len(), |end| start + end);
        if let Some(user) = text[start..authority].rfind('@') {
            found.push(start..start + user);
        }
    }
    for (mark, _) in text.match_indices(['?', '&']) {
        let rest = &text[mark + 1..];
        let end = rest.find(['&', '#', '"', '\'', ' ', '\n']).unwrap_or(rest.len());
        let Some((name, _)) = rest[..end].split_once('=') else { continue };
        if SECRET_PARAMETERS.iter().any(|secret| name.to_ascii_lowercase().ends_with(secret)) {
            found.push(mark + 1 + name.len() + 1..mark + 1 + end);
        }
    }
    found.sort_by_key(|range| range.start);
    found
}

fn is_credential(word: &[u8]) -> bool {
    let begins =
        |prefix: &&str| word.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix.as_bytes()));
    let by_prefix = || word.len() >= SHORTEST_CREDENTIAL && CREDENTIAL_PREFIXES.iter().any(begins);
    let is_long = |part: &[u8]| {
        part.len() >= LONG_WORD && part.iter().any(u8::is_ascii_digit) && part.iter().any(u8::is_ascii_alphabetic)
    };
    by_prefix() || word.split(|byte| !byte.is_ascii_alphanumeric()).any(is_long)
}

/// `text` with a mask for each of [`credentials_in`] it.
pub fn without_credentials(text: &str) -> Cow<'_, str> {
    let found = credentials_in(text);
    if found.is_empty() {
        return Cow::Borrowed(text);
    }
    let (mut masked, mut at) = (String::with_capacity(text.len()), 0);
    for Range { start, end } in found {
        if start >= at {
            masked.push_str(&text[at..start]);
            masked.push_str(MASK);
        }
        at = at.max(end);
    }
    masked.push_str(&text[at..]);
    Cow::Owned(masked)
}

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

    /// The hash of no secret that anybody knows: nothing is found by it.
    pub const NONE: Self = Self([0; 32]);

    /// Parses 64 hex digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        bytes_of_hex(text).map(Self)
    }

    /// The identifier of a secret that is not secret itself: the first twelve hex digits of its hash.
    pub fn id(&self) -> String {
        self.0.iter().take(ID_BYTES).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The bytes that 64 hex digits stand for.
pub(super) fn bytes_of_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = (digit(0)? << 4 | digit(1)?) as u8;
    }
    Some(bytes)
}

/// What clients' idempotency keys are bound to.
#[derive(Clone)]
pub struct IdempotencySecret(Zeroizing<[u8; 32]>);

impl IdempotencySecret {
    /// A secret of these random bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes.into())
    }

    /// The idempotency key `given`, as providers get it from the key called `key`: always the same for the two, and
    /// nothing that another key can make. 64 hex digits of an HMAC-SHA-256.
    pub fn bound(&self, key: &str, given: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&*self.0).expect("a key of any length is one");
        mac.update(key.as_bytes());
        // No name and no header's value has it.
        mac.update(&[0]);
        mac.update(given);
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Debug for IdempotencySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// Bytes of a hash that are enough to distinguish the secrets of one installation.
const ID_BYTES: usize = 6;

/// Base 62 digits of 256 bits.
const SECRET_DIGITS: usize = 43;
/// Base 62 digits of 131 bits.
const LINK_DIGITS: usize = 22;
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

/// What a browser presents that is signed in, of 256 random bits.
pub fn new_session_secret(random: &[u8; 32]) -> Secret {
    Secret::new(format!("tws_{}", digits(random).as_str()))
}

/// What signs one browser in, once: of 131 random bits, because people see it in a link.
pub fn new_sign_in_token(random: &[u8; 32]) -> Secret {
    let digits = Zeroizing::new(base62(random.iter().copied(), LINK_DIGITS));
    Secret::new(format!("twl_{}", digits.as_str()))
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
    fn a_secret_in_the_wrong_place_is_masked_and_what_is_none_is_shown() {
        let check = |text: &str, expected: &str| assert_eq!(without_credentials(text), expected, "{text}");
        check("models.sk-live-0123456789abc", "models.********");
        check("models.\"SK-LIVE-0123456789ABC\".price", "models.\"********\".price");
        check("tw_demo_0123456789 is no name", "******** is no name");
        check("0123456789abcdef0123456789abcdef", "********");
        check("x-0123456789abcdef0123456789abcdef-y", "********");
        check("https://me:hush@api.example/v1", "https://********@api.example/v1");
        check("https://me:h@sh@api.example", "https://********@api.example");
        check(
            "a \"postgres://db/x?sslmode=on&password=hush\" b",
            "a \"postgres://db/x?sslmode=on&password=********\" b",
        );
        check("https://x.example/v1?api_key=hush#x", "https://x.example/v1?api_key=********#x");
        check("https://x.example/?sk-live-0123456789abc@y", "https://x.example/?********@y");
        for shown in [
            "deepseek-ai/DeepSeek-V4-Flash",
            "Qwen/Qwen3-Embedding-8B",
            "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "sk-premium",
            "pk-south-1",
            "fallback_models_for_long_conversations",
            "https://api.example/v1",
            "models.x.deployments[0]",
            "é ü ?key",
            "",
        ] {
            check(shown, shown);
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
