//! The deciding room: who may ask, where a request goes, what an attempt's end means, what it costs.
//!
//! It exists so that every rule of the house can be read, tested and simulated without a network.
//! It knows nobody: no async, no I/O, no clock, no dice, no logging, no serde. Time, chance and
//! money are values handed in.
//!
//! Start reading in [`routing::plan`]; the values it decides over are in [`routing::table`].

pub mod authorize;
pub mod breaker;
pub mod budget;
pub mod call;
pub mod estimate;
pub mod failure;
pub mod funding;
pub mod glob;
pub mod hold;
pub mod id;
pub mod limit;
pub mod money;
pub mod pricing;
pub mod random;
pub mod readable;
pub mod receipt;
pub mod refusal;
pub mod register;
pub mod report;
pub mod retry;
pub mod routing;
pub mod secret;
pub mod usage;
