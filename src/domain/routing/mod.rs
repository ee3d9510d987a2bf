//! Where a request goes: the values ([`table`]), the weighted choices ([`split`]) and the machine
//! that walks one request through them ([`plan`]).
//!
//! It exists so that routing can be told the time and the dice and asked what to do next, by the
//! corridor and by a simulator alike. It never sends anything.

pub mod builder;
pub mod explain;
#[cfg(test)]
pub(crate) mod fixture;
pub mod gauge;
pub mod plan;
pub mod split;
pub mod table;
