//! Counters that several gateways share: a key's windows and slots in one Redis or Valkey server.
//!
//! Each decision is one script, by the server's time, over all limits of a key at once; what it decides is what the window
//! in memory decides. A gateway never waits for the server longer than a deadline: where it is late or gone, the gateway
//! grants its part of each limit by itself until the server answers again. It must never hold what cannot be lost.
//!
//! Start reading in [`RedisCounters`], then `decide.lua`; `connection.rs` says when the server is given up.

mod connection;
mod counters;
mod error;
mod location;
mod slots;

pub(super) use counters::CountedAdmission;
pub use counters::{CounterClock, RedisCounters, RedisOptions};
pub use error::RedisOpenError;
pub use location::RedisLocation;
