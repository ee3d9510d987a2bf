//! Random bytes from the system: the only place that asks for them.

use zeroize::Zeroizing;

/// Random bytes for secrets, and for the seed of the random number generator.
///
/// # Errors
/// If the system has no random bytes.
pub(super) fn random_bytes<const N: usize>() -> Result<Zeroizing<[u8; N]>, getrandom::Error> {
    let mut bytes = Zeroizing::new([0_u8; N]);
    #[allow(clippy::disallowed_methods)] // the one place that may
    getrandom::fill(bytes.as_mut_slice())?;
    Ok(bytes)
}
