//! The one place that asks the system for chance.

use zeroize::Zeroizing;

/// Bytes nobody can guess: for secrets, and for the seed of the dice.
///
/// # Errors
/// When the system gives no random bytes.
pub(super) fn random_bytes<const N: usize>() -> Result<Zeroizing<[u8; N]>, getrandom::Error> {
    let mut bytes = Zeroizing::new([0_u8; N]);
    #[allow(clippy::disallowed_methods)] // the one place that may
    getrandom::fill(bytes.as_mut_slice())?;
    Ok(bytes)
}
