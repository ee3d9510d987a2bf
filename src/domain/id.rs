//! Numbers that stand for configured things, and the name of a request.
//!
//! Inside one snapshot a model, deployment, tier, region, provider or policy is its index in the
//! table that holds it: small, `Copy`, and impossible to confuse with another kind. Across
//! snapshots only names are stable; nothing here may outlive the snapshot it came from, except
//! [`KeyId`] and [`RequestId`].

use std::fmt;

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

/// A client's key, the same number for the same name as long as the process lives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct KeyId(pub u64);

impl KeyId {
    /// The id of the key called `name`: FNV-1a over its bytes, so that it survives a reload.
    pub fn of_name(name: &str) -> Self {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in name.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Self(hash)
    }
}

/// A request's own name: 128 bits, ordered by time (UUID version 7), written `req_` and 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u128);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "req_{:032x}", self.0)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
