//! Chance as a value.
//!
//! A decision that needs chance gets a [`RandomValue`]: 64 random bits, from which it can derive as
//! many independent numbers as it needs. The same value always gives the same decision, so that a
//! simulation can be replayed from its seed. Nothing here may create randomness; [`Rng`](crate::random::Rng) does.

/// 64 random bits for one decision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RandomValue(pub u64);

impl RandomValue {
    /// Another value, independent of this one for a different `salt` (SplitMix64's finaliser).
    #[must_use]
    pub fn salted(self, salt: u64) -> Self {
        let mut z = self.0.wrapping_add(salt.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self(z ^ (z >> 31))
    }

    /// A whole number in `0..bound`; 0 when `bound` is 0. The bias is under 2⁻³² for bounds below 2³².
    pub fn below(self, bound: u64) -> u64 {
        ((u128::from(self.0) * u128::from(bound)) >> 64) as u64
    }

    /// A number in `[0, 1)`.
    pub fn unit(self) -> f64 {
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// An index drawn by weight; `None` when every weight is 0.
    pub fn weighted(self, weights: impl Iterator<Item = u64> + Clone) -> Option<usize> {
        let total: u64 = weights.clone().sum();
        if total == 0 {
            return None;
        }
        let mut left = self.below(total);
        for (index, weight) in weights.enumerate() {
            if left < weight {
                return Some(index);
            }
            left -= weight;
        }
        None
    }
}

/// The initial value of an FNV-1a-64 hash.
pub const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a-64 of `bytes`, continued from `hash`. It only spreads choices evenly: two inputs may share a hash, so
/// it must never identify a name.
pub fn fnv1a(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_kept_in_proportion() {
        let mut hits = [0_u32; 3];
        for seed in 0..100_000 {
            let index = RandomValue(7).salted(seed).weighted([80, 15, 5].into_iter());
            hits[index.expect("the weights are not all zero")] += 1;
        }
        for (hit, share) in hits.iter().zip([0.80, 0.15, 0.05]) {
            assert!((f64::from(*hit) / 1e5 - share).abs() < 0.005, "{hits:?}");
        }
    }

    #[test]
    fn nothing_is_drawn_from_nothing() {
        assert_eq!(RandomValue(1).weighted([0, 0].into_iter()), None);
        assert_eq!(RandomValue(u64::MAX).below(0), 0);
        assert_eq!(RandomValue(u64::MAX).below(10), 9);
    }
}
