//! Keys and tokens made by us, and the one place that asks the system for chance.
//!
//! A key is `tw_<policy>_<secret><checksum>`: 256 random bits in base 62 and six characters that
//! let a leaked string be recognised, and a mistyped one be told apart, without asking anyone.

use crate::domain::secret::Secret;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Base 62 digits of 256 bits.
const SECRET_DIGITS: usize = 43;
/// Base 62 digits of the checksum, 35 bits of a SHA-256.
const CHECKSUM_DIGITS: usize = 6;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A new key for `policy`.
///
/// # Errors
/// When the system gives no random bytes.
pub fn new_key(policy: &str) -> Result<Secret, getrandom::Error> {
    let body = Zeroizing::new(format!("tw_{policy}_{}", random_digits()?.as_str()));
    let checksum = Sha256::digest(body.as_bytes());
    let checksum = base62(checksum.iter().take(8).copied(), CHECKSUM_DIGITS);
    Ok(Secret::new(format!("{}{checksum}", body.as_str())))
}

/// A new admin token.
///
/// # Errors
/// When the system gives no random bytes.
pub fn new_admin_token() -> Result<Secret, getrandom::Error> {
    Ok(Secret::new(format!("twa_{}", random_digits()?.as_str())))
}

fn random_digits() -> Result<Zeroizing<String>, getrandom::Error> {
    let bytes: Zeroizing<[u8; 32]> = random_bytes()?;
    Ok(Zeroizing::new(base62(bytes.iter().copied(), SECRET_DIGITS)))
}

/// Bytes nobody can guess: for secrets, and for the seed of the dice.
pub(super) fn random_bytes<const N: usize>() -> Result<Zeroizing<[u8; N]>, getrandom::Error> {
    let mut bytes = Zeroizing::new([0_u8; N]);
    #[allow(clippy::disallowed_methods)] // the one place that may
    getrandom::fill(bytes.as_mut_slice())?;
    Ok(bytes)
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
    fn keys_name_their_policy_and_never_repeat() {
        let one = new_key("demo").expect("the system has random bytes");
        let two = new_key("demo").expect("the system has random bytes");
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
}
