//! The rules: who may ask, where a request goes, what the end of an attempt means, what it costs.
//!
//! It exists so that every rule can be read, tested and simulated without a network. It imports no other
//! module and must never use async, I/O, a clock, a random source, logging or serde. Time, chance and
//! money are passed in as values.
//!
//! Start reading in [`routing::plan`]; the values it decides over are in [`routing::table`].

pub mod audit;
pub mod authorize;
pub mod body_member;
pub mod breaker;
pub mod budget;
pub mod call;
pub mod drill;
pub mod duration_tally;
pub mod estimate;
pub mod failure;
pub mod fault;
pub mod funding;
pub mod glob;
pub mod hold;
pub mod id;
pub mod limit;
pub mod memory;
pub mod money;
pub mod nearest;
pub mod pause;
pub mod policy;
pub mod posture;
pub mod pricing;
pub mod provider_state;
pub mod random;
pub mod readable;
pub mod reason;
pub mod receipt;
pub mod refusal;
pub mod register;
pub mod replica;
pub mod report;
pub mod residency;
pub mod retry;
pub mod routing;
pub mod secret;
pub mod sent_text;
pub mod sla;
pub mod status;
pub mod stored_response;
pub mod traffic;
pub mod usage;
