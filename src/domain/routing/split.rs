//! Weighted choices: the shares of an alias, and power of two choices.
//!
//! It exists so that all weighted choices are drawn in one place; the random value is passed in and must never
//! be created here. Sticky choices are rendezvous hashes: a client keeps its share when others are added,
//! removed or reweighted, except for the few that the change itself moves.

use crate::domain::random::{FNV_BASIS, RandomValue, fnv1a};

/// One share of a split.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct WeightedShare<'a> {
    /// A name that stays over reloads, for sticky choices.
    pub name: &'a str,
    /// Its weight; a share of weight 0 is never chosen.
    pub weight: u32,
}

/// The share drawn by weight, as an index; `None` when every weight is 0.
pub fn draw(shares: &[WeightedShare<'_>], draw: RandomValue) -> Option<usize> {
    draw.weighted(shares.iter().map(|share| u64::from(share.weight)))
}

/// The share that `client` always gets, by weighted rendezvous hashing; `None` when every weight is 0.
pub fn sticky(shares: &[WeightedShare<'_>], client: u64) -> Option<usize> {
    let score = |share: &WeightedShare<'_>| {
        let unit = RandomValue(client).salted(hash_name(share.name)).unit().max(f64::MIN_POSITIVE);
        -f64::from(share.weight) / unit.ln()
    };
    let weighted = shares.iter().enumerate().filter(|(_, share)| share.weight > 0);
    weighted.max_by(|a, b| score(a.1).total_cmp(&score(b.1))).map(|(index, _)| index)
}

/// The one with the lower `load` of two different candidates drawn at random; `None` without candidates.
pub fn power_of_two<T: Copy>(candidates: &[T], draw: RandomValue, load: impl Fn(T) -> f64) -> Option<T> {
    let count = candidates.len() as u64;
    if count < 2 {
        return candidates.first().copied();
    }
    let first = draw.salted(1).below(count);
    let second = (first + 1 + draw.salted(2).below(count - 1)) % count;
    let (a, b) = (candidates[first as usize], candidates[second as usize]);
    Some(if load(b) < load(a) { b } else { a })
}

/// The hash of a key's or user's name, as the client of a sticky split.
pub fn hash_name(name: &str) -> u64 {
    fnv1a(FNV_BASIS, name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPLIT: [WeightedShare<'static>; 3] = [
        WeightedShare { name: "default", weight: 80 },
        WeightedShare { name: "fallback", weight: 15 },
        WeightedShare { name: "premium", weight: 5 },
    ];

    fn shares_of(choose: impl Fn(u64) -> Option<usize>) -> [f64; 3] {
        let mut hits = [0_u32; 3];
        (0..50_000).for_each(|n| hits[choose(n).expect("a share")] += 1);
        hits.map(|hit| f64::from(hit) / 50_000.0)
    }

    #[test]
    fn drawn_and_sticky_choices_follow_the_weights() {
        let drawn = shares_of(|n| draw(&SPLIT, RandomValue(1).salted(n)));
        let stuck = shares_of(|n| sticky(&SPLIT, n));
        for found in [drawn, stuck] {
            for (share, expected) in found.iter().zip([0.80, 0.15, 0.05]) {
                assert!((share - expected).abs() < 0.01, "{found:?}");
            }
        }
    }

    #[test]
    fn removing_a_share_moves_only_its_own_clients() {
        for client in 0..5_000 {
            let before = sticky(&SPLIT, client).expect("a share");
            if before != 2 {
                assert_eq!(sticky(&SPLIT[..2], client), Some(before));
            }
        }
    }

    #[test]
    fn power_of_two_prefers_the_lower_load_and_compares_different_candidates() {
        let loads = [5.0, 1.0, 9.0];
        let mut hits = [0_u32; 3];
        for n in 0..9_000 {
            let index = power_of_two(&[0_usize, 1, 2], RandomValue(3).salted(n), |i| loads[i]);
            hits[index.expect("a candidate")] += 1;
        }
        assert_eq!(hits[2], 0, "the most loaded of three loses every pair");
        assert!(hits[1] > hits[0]);
        assert_eq!(power_of_two(&[] as &[usize], RandomValue(0), |_| 0.0), None);
    }

    #[test]
    fn nothing_is_chosen_from_nothing() {
        let none = [WeightedShare { name: "a", weight: 0 }];
        assert_eq!(draw(&none, RandomValue(1)), None);
        assert_eq!(sticky(&none, 1), None);
    }
}
