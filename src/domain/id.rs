//! Numbers in place of configured names, and the identifier of a request.
//!
//! Inside one snapshot a model, deployment, tier, region or provider is its index in the table that
//! contains it: small, `Copy`, and of a type that cannot be confused with another. Across
//! snapshots only names are stable; nothing here may outlive the snapshot it came from, except
//! [`KeyId`], [`TeamId`], [`PolicyId`], [`PlacesId`] and [`RequestId`].

use super::random::RandomValue;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// The longest name that is accepted, in bytes: names become labels and header values.
pub const NAME_MAX_BYTES: usize = 200;

/// Whether `text` may be a name that an operator chooses: printable ASCII without blanks, quotes and
/// backslashes.
pub fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    (1..=NAME_MAX_BYTES).contains(&text.len()) && text.bytes().all(plain)
}

macro_rules! index {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub struct $name(pub u32);

        impl $name {
            /// The position in its table.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

index!(
    /// A model in [`RoutingTable::models`](super::routing::table::RoutingTable::models).
    ModelId
);
index!(
    /// A deployment in [`RoutingTable::deployments`](super::routing::table::RoutingTable::deployments).
    DeploymentId
);
index!(
    /// A tier in [`RoutingTable::tiers`](super::routing::table::RoutingTable::tiers).
    TierId
);
index!(
    /// A region in [`RoutingTable::regions`](super::routing::table::RoutingTable::regions).
    RegionId
);
index!(
    /// A provider in the snapshot's provider list.
    ProviderId
);

/// A client's key: the number that [`KeyIds`] gave its name. Two keys never share one, so that what is counted
/// by it (limits, failures at breakers) belongs to one key only. It has no meaning in another process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct KeyId(pub u32);

impl KeyId {
    /// No key; no name ever gets it.
    pub const NONE: Self = Self(0);
}

/// The number of every key name that this process has seen, in the order of first use, from 1. None is dropped:
/// a key that is removed and added again is the same key.
#[derive(Default, Debug)]
pub struct KeyIds {
    by_name: HashMap<Arc<str>, KeyId>,
}

impl KeyIds {
    /// The number of the key called `name`; the next free one for a name that is new.
    ///
    /// # Panics
    /// After 2³² − 1 different names, more than memory holds.
    pub fn id_of(&mut self, name: &Arc<str>) -> KeyId {
        if let Some(id) = self.by_name.get(name) {
            return *id;
        }
        let id = KeyId(u32::try_from(self.by_name.len() + 1).expect("memory ends before the numbers do"));
        self.by_name.insert(name.clone(), id);
        id
    }
}

/// A team, or a key without one: whose attempts are evidence of a deployment's health. The number that [`TeamIds`]
/// gave it; it has no meaning in another process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TeamId(pub u32);

/// The number of every team that this process has seen, in the order of first use, from 1. None is dropped.
#[derive(Default, Debug)]
pub struct TeamIds {
    by_team: HashMap<Arc<str>, TeamId>,
    by_key: HashMap<KeyId, TeamId>,
}

impl TeamIds {
    /// The number of `team`, or of the key itself where it has none.
    ///
    /// # Panics
    /// After 2³² − 1 different teams, more than memory holds.
    pub fn id_of(&mut self, team: Option<&Arc<str>>, key: KeyId) -> TeamId {
        let next = u32::try_from(self.by_team.len() + self.by_key.len() + 1);
        let next = TeamId(next.expect("memory ends before the numbers do"));
        match team {
            Some(team) => match self.by_team.get(team) {
                Some(known) => *known,
                None => *self.by_team.entry(team.clone()).or_insert(next),
            },
            None => *self.by_key.entry(key).or_insert(next),
        }
    }
}

/// A policy: the number that [`PolicyIds`] gave its name. It has no meaning in another process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PolicyId(pub u32);

/// The number of every policy name that this process has seen, in the order of first use, from 1. None is dropped.
#[derive(Default, Debug)]
pub struct PolicyIds {
    by_name: HashMap<Arc<str>, PolicyId>,
}

impl PolicyIds {
    /// The number of the policy called `name`; the next free one for a name that is new.
    ///
    /// # Panics
    /// After 2³² − 1 different names, more than memory holds.
    pub fn id_of(&mut self, name: &Arc<str>) -> PolicyId {
        let next = u32::try_from(self.by_name.len() + 1).expect("memory ends before the numbers do");
        *self.by_name.entry(name.clone()).or_insert(PolicyId(next))
    }
}

/// The places of one deployment, over all reloads. It has no meaning in another process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PlacesId(pub u32);

/// The identifier of a request: 128 bits, ordered by time (UUID version 7), written `req_` and 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u128);

impl RequestId {
    /// A new identifier, created at `unix_ms`. Two draws of one sequence never give the same one.
    pub fn new(unix_ms: i64, draw: RandomValue) -> Self {
        // Version 7 in bits 76 to 79, variant 2 in bits 62 and 63, chance in what is left below the time.
        let time = (unix_ms.max(0) as u128) << 80;
        let high = u128::from(draw.0 >> 52) << 64;
        let low = u128::from(draw.0 << 12 >> 2 | draw.salted(0).0 >> 54);
        Self(time | 7 << 76 | high | 2 << 62 | low)
    }

    /// Parses `req_` and 32 hex digits, or the digits alone.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("req_").unwrap_or(text);
        let right = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        u128::from_str_radix(digits, 16).ok().filter(|_| right).map(Self)
    }

    /// Its written form, in ASCII.
    pub fn text(self) -> [u8; 36] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = *b"req_00000000000000000000000000000000";
        for (at, byte) in self.0.to_be_bytes().into_iter().enumerate() {
            text[4 + 2 * at] = DIGITS[usize::from(byte >> 4)];
            text[5 + 2 * at] = DIGITS[usize::from(byte & 15)];
        }
        text
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(std::str::from_utf8(&self.text()).expect("hex digits are ASCII"))
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_uuids_of_version_seven() {
        let check = |draw: u64| {
            let id = RequestId::new(0x0123_4567_89ab, RandomValue(draw)).0;
            assert_eq!(id >> 80, 0x0123_4567_89ab, "the time comes first");
            assert_eq!((id >> 76 & 0xf, id >> 62 & 3), (7, 2), "version and variant");
            // All of the draw is in it.
            assert_eq!((id >> 64 & 0xfff) << 52 | id >> 10 & ((1 << 52) - 1), u128::from(draw));
        };
        [0, 1, u64::MAX, 0x0123_4567_89ab_cdef].into_iter().for_each(check);
    }

    #[test]
    fn every_key_name_has_one_number_and_keeps_it() {
        let mut ids = KeyIds::default();
        // The second and the third have one FNV-1a hash.
        let names = ["a", "8yn0iYCKYHlIj4-BwPqk", "GReLUrM4wMqfg9yzV3KQ", "b"].map(Arc::from);
        let first: Vec<KeyId> = names.iter().map(|name| ids.id_of(name)).collect();
        assert_eq!(first, [KeyId(1), KeyId(2), KeyId(3), KeyId(4)]);
        let again: Vec<KeyId> = names.iter().rev().map(|name| ids.id_of(name)).collect();
        assert_eq!(again, [KeyId(4), KeyId(3), KeyId(2), KeyId(1)]);
    }

    #[test]
    fn keys_of_one_team_share_its_number_and_a_key_without_one_has_its_own() {
        let mut ids = TeamIds::default();
        let (red, blue) = (Arc::from("red"), Arc::from("blue"));
        let mut of = |team: Option<&Arc<str>>, key| ids.id_of(team, KeyId(key));
        assert_eq!([of(Some(&red), 1), of(Some(&red), 2), of(Some(&blue), 3)], [TeamId(1), TeamId(1), TeamId(2)]);
        assert_eq!([of(None, 1), of(None, 4), of(None, 1)], [TeamId(3), TeamId(4), TeamId(3)]);
    }

    #[test]
    fn a_request_id_is_written_in_hex() {
        let check = |id: u128, expected: &str| assert_eq!(RequestId(id).to_string(), expected);
        check(0, "req_00000000000000000000000000000000");
        check(u128::MAX, "req_ffffffffffffffffffffffffffffffff");
        check(0x0123_4567_89ab_cdef, "req_00000000000000000123456789abcdef");
    }
}
